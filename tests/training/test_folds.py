"""Cross-validation: who is held out where, the files, and going on after any stop."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.support import NAMES, read, scribble, stopping, typed, write_set
from unetseg.dataset.cutting import StoreSummary
from unetseg.errors import InputError, Interrupted, MachineError
from unetseg.prediction.model import Model
from unetseg.prediction.model_file import read_card
from unetseg.prediction.run_folder import RunFolder, list_runs, resolve_model
from unetseg.progress import EpochDone, Note, Plan, Progress
from unetseg.scoring.metrics import confusion
from unetseg.scoring.suspects import rank_suspects
from unetseg.training.folds import cross_validate, load_cross_validation

# A fold of this takes a fifth of a second.
TINY = {"width": 2, "depth": 1, "epochs": 1, "batch_size": 8, "device": "cpu"}
PATCHES = unetseg.PatchSettings(size=32, per_image=2)
SMALL = {"shape": (40, 36)}


def folds_of(result):
    return {one.name: one.fold for one in result.images}


def sources_of(run, fold):
    """Return the images trained on and those held out by the model of a fold."""
    sources = read_card(f"runs/{run}/fold-{fold}/model.safetensors").sources
    return tuple({Path(s.name).stem for s in sources if s.split == p} for p in ("train", "val"))


def pixels(run, part="masks"):
    files = sorted(Path("runs", run, part).iterdir())
    return {p.name: np.array(Image.open(p)) for p in files}


def assert_equal_results(one, other):
    assert folds_of(one) == folds_of(other)
    np.testing.assert_array_equal(one.scores.matrices, other.scores.matrices)
    assert one.scores.to_dict() == other.scores.to_dict()
    for part in ("masks", "confidence"):
        ours, theirs = pixels(one.run.name, part), pixels(other.run.name, part)
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def divided_once(tmp_path_factory):
    """A set of 9 images and its run ``default`` of 3 folds."""
    home = tmp_path_factory.mktemp("divided")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_set("set", 9, **SMALL)
        cross_validate("set", folds=3, patches=PATCHES, **TINY)
    return home


@pytest.fixture
def divided(divided_once, tmp_path, monkeypatch):
    """A copy of it as the current folder, and its result."""
    shutil.copytree(divided_once, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return load_cross_validation()


# --- the files of a run ----------------------------------------------------------------------


def test_each_image_is_held_out_once_and_not_trained_on_there(divided):
    names = {f"im{k}" for k in range(9)}
    held = []
    for fold in (1, 2, 3):
        trained, out = sources_of("default", fold)
        assert trained | out == names
        assert not trained & out
        assert {name for name, f in folds_of(divided).items() if f == fold} == out
        held += out
    assert sorted(held) == sorted(names)


def test_every_fold_has_the_same_patch_size_and_a_seed_of_its_own(divided):
    texts = [Path(f"runs/default/fold-{f}/config.toml").read_text() for f in (1, 2, 3)]
    seeds = [line for text in texts for line in text.splitlines() if line.startswith("seed")]
    assert len(set(seeds)) == 3
    assert {read_card(p).patch_size for p in resolve_model("default")} == {32}


def test_each_mask_is_what_its_folds_model_predicts(divided):
    for one in divided.images[:4]:
        done = unetseg.predict(
            [one.image], model=[f"runs/default/fold-{one.fold}"], out="again", overlay=False
        )
        np.testing.assert_array_equal(
            np.array(Image.open(done.written[0])), pixels("default")[f"{one.name}.png"]
        )


def test_confidence_is_the_probability_of_the_predicted_class(divided):
    one = divided.images[0]
    model = Model([f"runs/default/fold-{one.fold}"])
    whole = model.probabilities(one.image).max(0)
    sure = pixels("default", "confidence")[f"{one.name}.png"]
    assert sure.dtype == np.uint8
    np.testing.assert_allclose(sure / 255, whole, atol=0.5 / 255 + 1e-5)


def test_the_pooled_score_is_that_of_the_written_masks(divided):
    found = unetseg.evaluate("set", predictions="runs/default/masks").scores
    assert divided.scores.names == found.names == tuple(f"im{k}" for k in range(9))
    np.testing.assert_array_equal(divided.scores.matrices, found.matrices)
    assert divided.scores.mean_iou == found.mean_iou


def test_a_case_shows_image_truth_mask_and_confidence(divided):
    for k, one in enumerate(divided.images):
        case = divided.scored_image(k)
        assert case.name == one.name
        np.testing.assert_array_equal(case.image[..., 0], np.array(Image.open(one.image)))
        np.testing.assert_array_equal(case.truth, np.array(Image.open(one.mask)))
        np.testing.assert_array_equal(
            confusion(case.truth, case.prediction, 3), divided.scores.matrices[k]
        )
        assert case.confidence.dtype == np.float32
        assert 1 / 3 - 0.01 < case.confidence.min() <= case.confidence.max() <= 1


def test_what_is_loaded_is_what_was_returned(divided):
    made = cross_validate("set", folds=3, run="second", patches=PATCHES, **TINY)
    loaded = load_cross_validation("second")
    assert_equal_results(made, loaded)
    assert_equal_results(made, divided)  # equal seeds
    for name in ("folds", "images", "classes", "patches", "settings", "cutting", "content"):
        assert getattr(made, name) == getattr(loaded, name), name
    assert loaded.seconds == pytest.approx(made.seconds, abs=0.001)
    assert not loaded.already
    # 6 images of 2 patches in each of 3 folds
    assert loaded.patches == 36
    assert loaded.settings["epochs"] == 1
    assert loaded.settings["seed"] == 0
    assert loaded.settings["lr"] > 0
    histories = loaded.histories()
    assert list(histories) == ["fold 1", "fold 2", "fold 3"]
    assert all(rows[-1]["val_mean_iou"] for rows in histories.values())


def test_folds_json_holds_the_scores_as_the_design_writes_them(divided):
    data = json.loads(Path("runs/default/folds.json").read_text())
    assert data["finished"] is True
    assert data["scores"] == json.loads(json.dumps(divided.scores.to_dict()))
    assert data["folder"] == "set"
    assert {one["name"]: one["fold"] for one in data["images"]} == folds_of(divided)


def test_the_settings_written_start_the_same_run_again(divided):
    from unetseg.cli import app

    config = ["--config", "runs/default/config.toml"]
    assert app.main([*config, "train", "--run", "again"]) == 0
    assert_equal_results(load_cross_validation("again"), divided)


def test_all_folds_together_predict_as_an_ensemble(divided):
    write_set("new", 1, first=50, **SMALL)
    assert [p.parent.name for p in resolve_model("default")] == ["fold-1", "fold-2", "fold-3"]
    done = unetseg.predict(["new/images"], model=["default"])
    model = Model(["default"])
    assert len(model.cards) == 3
    image = model.read(Path("new/images/im50.png"))
    singles = [Model([f"default/fold-{f}"]) for f in (1, 2, 3)]
    for one in singles:  # networks are averaged before any temperature
        one.segmenter.temperature = 1.0
    mean = np.mean([one.probabilities(image) for one in singles], 0)
    made = np.array(Image.open(done.written[0]))
    clear = np.sort(mean, 0)[-1] - np.sort(mean, 0)[-2] > 1e-4
    np.testing.assert_array_equal(made[clear], mean.argmax(0)[clear])


def test_progress_says_which_fold_it_is_and_shows_the_classes_once(empty):
    write_set("set", 5, **SMALL)
    seen = []
    cross_validate("set", folds=2, patches=PATCHES, **TINY, on_progress=seen.append)
    notes = [r.text for r in seen if isinstance(r, Note)]
    assert "fold 1 of 2: 2 images to train on, 3 held out" in notes or (
        "fold 1 of 2: 3 images to train on, 2 held out" in notes
    )
    assert sum(isinstance(r, StoreSummary) for r in seen) == 1
    assert sum(isinstance(r, Plan) for r in seen) == 2
    stages = {r.stage for r in seen if isinstance(r, Progress)}
    assert {"looking at", "cutting", "training", "predicting"} <= stages
    looked = [r for r in seen if isinstance(r, Progress) and r.stage == "looking at"]
    assert len(looked) == 5  # once, not once a fold


# --- groups, classes, kinds of images --------------------------------------------------------


def test_groups_stay_together_and_are_the_units_of_the_scores(empty):
    write_set("set", 8, **SMALL)
    for part in ("images", "masks"):
        for k in range(8):
            Path(f"set/{part}/im{k}.png").rename(f"set/{part}/plate{k // 2}_{k}.png")
    cutting = unetseg.PatchSettings(size=32, per_image=2, group="^(plate.)_")
    result = cross_validate("set", folds=2, patches=cutting, **TINY)
    folds = {}
    for one in result.images:
        assert one.group == one.name[:6]
        folds.setdefault(one.group, set()).add(one.fold)
    assert all(len(f) == 1 for f in folds.values())
    assert set(result.scores.groups) == {f"plate{k}" for k in range(4)}
    assert load_cross_validation().scores.groups == result.scores.groups
    with pytest.raises(InputError, match="folds: 5, but there are only 4 groups; give folds=4"):
        cross_validate("set", folds=5, run="more", patches=cutting, **TINY)


def test_ignored_pixels_are_not_scored_and_colours_come_back(empty):
    write_set("set", 4, toml=None, channels=3, **SMALL)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    for path in Path("set/masks").iterdir():
        rgb = colours[np.array(Image.open(path))]
        rgb[:5] = 7
        Image.fromarray(rgb).save(path)
    result = cross_validate("set", folds=2, patches=PATCHES, ignore=("#070707",), **TINY)
    assert result.scores.confusion.sum() == 4 * (40 - 5) * 36
    case = result.scored_image(2)
    assert (case.truth[:5] == 255).all()
    found = unetseg.evaluate("set", predictions="runs/default/masks", ignore=("#070707",))
    assert found.scores.mean_iou == result.scores.mean_iou


def test_images_trained_at_half_size_get_masks_of_their_own_size(empty):
    write_set("set", 4, shape=(64, 56))
    cutting = unetseg.PatchSettings(size=16, per_image=2, scale=0.5)
    result = cross_validate("set", folds=2, patches=cutting, **TINY)
    assert all(mask.shape == (64, 56) for mask in pixels("default").values())
    assert result.scores.confusion.sum() == 4 * 64 * 56


def test_a_class_that_one_fold_alone_shows_is_warned_of(empty):
    write_set("set", 4, values=(0, 1, 1), toml=None, **SMALL)
    mask = np.array(Image.open("set/masks/im2.png"))
    mask[:9, :9] = 2
    Image.fromarray(mask).save("set/masks/im2.png")
    seen = []
    result = cross_validate("set", folds=2, patches=PATCHES, **TINY, on_progress=seen.append)
    fold = folds_of(result)["im2"]
    warned = [r.text for r in seen if isinstance(r, Note) and r.warning]
    assert any(t.startswith(f"all images of 2 are in fold {fold}: ") for t in warned)


# --- going on --------------------------------------------------------------------------------


def in_fold(number, when):
    """Return a condition that holds where ``when`` does in the given fold."""
    fold = [0]

    def met(record):
        if (
            isinstance(record, Note)
            and record.text.startswith("fold ")
            and "train on" in str(record)
        ):
            fold[0] = int(record.text.split()[1])
        return fold[0] == number and when(record)

    return met


def stage(name, done=1):
    return lambda r: isinstance(r, Progress) and r.stage == name and r.done >= done


STOPS = {
    "looking for the second time": (2, stage("cutting")),
    "first step": (1, stage("training")),
    "epoch of fold 2": (2, lambda r: isinstance(r, EpochDone)),
    "held-out images": (2, stage("scoring")),
    "masks of fold 2": (2, stage("predicting")),
    "last fold but one mask": (3, stage("predicting", 2)),
}


@pytest.mark.parametrize("stop", STOPS)
def test_a_stopped_run_goes_on_to_the_same_masks_and_scores(divided, stop):
    fold, when = STOPS[stop]
    with pytest.raises(Interrupted) as stopped:
        cross_validate(
            "set",
            folds=3,
            run="half",
            patches=PATCHES,
            **TINY,
            on_progress=stopping(in_fold(fold, when)),
        )
    assert f"fold {fold} of 3: " in str(stopped.value)
    assert typed(stopped.value).endswith("go on with: unetseg train --resume --run half")
    assert RunFolder("half").state() == "interrupted"
    finished = [p.stat().st_mtime_ns for p in sorted(Path("runs/half").glob("fold-1/model*"))]
    result = cross_validate(run="half", resume=True)
    if fold > 1:  # the finished fold was left alone
        after = [p.stat().st_mtime_ns for p in sorted(Path("runs/half").glob("fold-1/model*"))]
        assert after == finished
    assert_equal_results(result, divided)


@pytest.mark.parametrize(
    ("fold", "when"), [(1, "spreading the labels of"), (2, "cutting")], ids=["spreading", "cutting"]
)
def test_a_run_on_strokes_that_stops_goes_on_to_the_same_bits(empty, fold, when):
    write_set("set", 6, **SMALL)
    for number, path in enumerate(sorted(Path("set/masks").iterdir())):
        Image.fromarray(scribble(read(path), number)).save(path)
    call = {"folds": 2, "patches": PATCHES, "ignore": 255, **TINY}
    seen = []
    whole = cross_validate("set", run="whole", **call, on_progress=seen.append)
    assert [r.stage for r in seen if isinstance(r, Progress)].count("spreading the labels of") == 6
    with pytest.raises(Interrupted):
        cross_validate(
            "set", run="half", **call, on_progress=stopping(in_fold(fold, stage(when, 2)))
        )
    half = cross_validate(run="half", resume=True)
    assert_equal_results(half, whole)
    one, other = (unetseg.open_store(result.run.fold(2).store) for result in (half, whole))
    assert one.content_hash == other.content_hash
    assert one.info.settings["spread_share"] > 0.5


def test_a_killed_run_goes_on_to_the_same_masks_and_scores(divided):
    class Killed(BaseException):
        pass

    def die(record):
        if met(record):
            raise Killed

    call = {"source": "set", "folds": 3, "patches": PATCHES, **TINY}
    for fold, when in (
        *((1, stage("cutting", 4)), (2, stage("training")), (3, stage("predicting", 2))),
    ):
        met = in_fold(fold, when)
        with pytest.raises(Killed):
            cross_validate(**call, run="killed", on_progress=die)
        call = {"resume": True}
    assert_equal_results(cross_validate(run="killed", resume=True), divided)


@pytest.mark.parametrize(("fold", "when"), [(1, "predicting"), (3, "training"), (3, "predicting")])
def test_a_folder_that_has_changed_is_not_gone_on_with(divided, fold, when):
    with pytest.raises(Interrupted):
        cross_validate(
            "set",
            folds=3,
            run="half",
            patches=PATCHES,
            **TINY,
            on_progress=stopping(in_fold(fold, stage(when))),
        )
    mask = np.array(Image.open("set/masks/im0.png"))
    mask[0, 0] = (mask[0, 0] + 1) % 3
    Image.fromarray(mask).save("set/masks/im0.png")
    with pytest.raises(InputError, match="set: has changed since the run began"):
        cross_validate(run="half", resume=True)


@pytest.mark.parametrize(
    ("part", "fold", "when", "said"),
    [
        ("images", 2, "cutting", "has changed since it was looked at"),
        ("masks", 2, "training", "has changed since the run began"),
        ("masks", 3, "predicting", "has changed since the run began"),
    ],
)
def test_files_that_change_while_folds_train_end_the_run(divided, part, fold, when, said):
    met = in_fold(fold, stage(when))

    def change(record):
        if met(record):
            for path in Path("set", part).iterdir():
                Image.fromarray(np.roll(read(path) % 2, 1)).save(path)

    with pytest.raises(InputError, match=rf"set/{part}/im\d\.png: {said}"):
        cross_validate("set", folds=3, run="half", patches=PATCHES, **TINY, on_progress=change)


@pytest.mark.parametrize(
    ("wrong", "listed"),
    [
        ({"folds": 4}, "folds 3 -> 4"),
        ({"lr": 0.5, "epochs": 9}, "epochs 1 -> 9"),
        ({"patches": unetseg.PatchSettings(size=48)}, "size 32 -> 48"),
        ({"ignore": (2,)}, "ignore as it was -> [2]"),
        ({"start_from": "other"}, "start_from as it was -> other"),
        ({"source": "other"}, "folder set -> other"),
    ],
)
def test_flags_that_disagree_with_the_run_are_refused_and_listed(divided, wrong, listed):
    with pytest.raises(InputError) as refused:
        cross_validate(wrong.pop("source", None), resume=True, **wrong)
    assert "differs from the interrupted run: " in str(refused.value)
    assert listed in str(refused.value)


def test_flags_that_agree_with_the_run_are_taken(divided):
    again = cross_validate("set", folds=3, resume=True, patches=PATCHES, **TINY)
    assert again.already
    assert_equal_results(again, divided)


# --- states of the folder --------------------------------------------------------------------


def test_state_new_has_nothing_to_resume(empty):
    with pytest.raises(InputError, match="nothing is saved"):
        cross_validate(run="fresh", resume=True)
    with pytest.raises(InputError, match="holds no run with folds"):
        load_cross_validation("fresh")


def test_state_interrupted_refuses_and_prints_both_lines(divided):
    data = json.loads(Path("runs/default/folds.json").read_text())
    data |= {"finished": False, "scores": None, "done": data["done"][:2]}
    Path("runs/default/folds.json").write_text(json.dumps(data))
    for call in (cross_validate, unetseg.train):
        with pytest.raises(InputError) as refused:
            call("set", **TINY)
        assert "unetseg train --resume" in typed(refused.value)
        assert "--overwrite" in typed(refused.value)
        assert "give resume=True to go on, or overwrite=True" in str(refused.value)
    with pytest.raises(InputError, match="2 of its 3 folds are finished; go on with: unetseg"):
        load_cross_validation()
    with pytest.raises(InputError, match="holds a run with folds; go on with: unetseg"):
        unetseg.train(resume=True)


def test_state_finished_refuses_and_names_another_run(divided):
    with pytest.raises(InputError, match="run='default-2', or overwrite=True") as refused:
        cross_validate("set", folds=3, **TINY)
    assert "unetseg train set --folds 3 --width 2" in typed(refused.value)
    assert typed(refused.value).endswith(" --run default-2")
    with pytest.raises(InputError, match="holds a finished run"):
        unetseg.train("set", **TINY)


def test_state_running_refuses_and_says_who(empty):
    write_set("set", 4, **SMALL)
    refused = []

    def second(record):
        if isinstance(record, Progress) and record.stage == "predicting":
            with pytest.raises(MachineError, match="in use by process") as error:
                unetseg.train(run="default", resume=True)
            refused.append(error)

    cross_validate("set", folds=2, patches=PATCHES, **TINY, on_progress=second)
    assert len(refused) == 4


def test_starting_again_removes_what_was_there_and_nothing_else(divided):
    Path("runs/default/notes.txt").write_text("mine")
    Path("runs/default/fold-3/notes.txt").write_text("mine")
    Image.new("L", (3, 3)).save("runs/default/masks/im0.png")  # saved again by a person
    result = cross_validate("set", folds=2, overwrite=True, patches=PATCHES, **TINY)
    assert result.folds == 2
    assert {p.name for p in Path("runs/default").iterdir()} - {".lock"} == {
        *("fold-1", "fold-2", "fold-3", "masks", "confidence"),
        *("folds.json", "config.toml", "notes.txt"),
    }
    assert [p.name for p in Path("runs/default/fold-3").iterdir()] == ["notes.txt"]
    assert pixels("default")["im0.png"].shape == SMALL["shape"]


def test_an_ordinary_run_takes_the_place_of_one_with_folds_whole(divided):
    unetseg.train("set", overwrite=True, patches=PATCHES, **TINY)
    assert RunFolder("default").state() == "finished"
    assert not list(Path("runs/default").glob("fold-*"))
    assert not Path("runs/default/masks").exists()
    assert not Path("runs/default/folds.json").exists()
    assert [p.parent.name for p in resolve_model("default")] == ["default"]
    with pytest.raises(InputError, match="holds no run with folds"):
        cross_validate(resume=True)
    cross_validate("set", folds=2, overwrite=True, patches=PATCHES, **TINY)
    assert len(resolve_model("default")) == 2


def test_files_of_others_are_not_replaced_unasked(empty):
    write_set("set", 4, **SMALL)
    Path("runs/a/masks").mkdir(parents=True)
    Image.new("L", (3, 3)).save("runs/a/masks/im1.png")
    with pytest.raises(InputError, match=r"runs/a/masks/im1.png: already exists and was not"):
        cross_validate("set", folds=2, run="a", patches=PATCHES, **TINY)
    unetseg.train("set", run="b/fold-1", patches=PATCHES, **TINY)
    with pytest.raises(InputError, match=r"b/fold-1: holds a run already"):
        cross_validate("set", folds=2, run="./b", patches=PATCHES, **TINY)


def test_a_damaged_record_is_said_and_can_be_overwritten(divided):
    path = Path("runs/default/folds.json")
    for text in (
        "",
        "{",
        "[]",
        '{"format": "unetseg-folds"}',
        path.read_text().replace("im3", 3 * "im3"),
    ):
        path.write_text(text)
        assert RunFolder("default").state() in ("interrupted", "finished")
        assert [r.name for r in list_runs()] == ["default"]
        if "im3im3" not in text:
            with pytest.raises(InputError, match=r"folds\.json: "):
                load_cross_validation()


def test_a_run_with_folds_is_one_row_in_the_list(divided):
    (one,) = list_runs()
    assert (one.name, one.state, one.folds, one.images, one.patches) == (
        *("default", "finished", 3, 9, 36),
    )
    assert one.mean_iou == divided.scores.mean_iou
    assert one.card.name == "fold-1"
    assert one.seconds == pytest.approx(divided.seconds)


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"folds": 1}, "folds: 1 is no cross-validation.*give folds=2"),
        ({"folds": 10}, "folds: 10, but there are only 9 different images; give folds=9"),
        ({"patches": unetseg.PatchSettings(val=0.3)}, "folds: excludes val"),
        ({"patience": 3}, "folds: excludes patience"),
        ({"network": "compakt"}, "did you mean 'compact'"),
        ({"start_from": "nobody"}, "nobody: no model of this name"),
        ({"start_from": "default"}, "start_from: default was trained on 6 of these 9 images"),
        ({"budget": 1.0, "epochs": None}, "budget: 1 s leaves no time to train"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_removed(divided, settings, said):
    settings = {**TINY, **settings}
    if settings.get("start_from"):
        del settings["width"], settings["depth"]
    with pytest.raises(InputError, match=said):
        cross_validate("set", overwrite=True, **{"patches": PATCHES, **settings})
    assert load_cross_validation().scores.names == divided.scores.names


def test_a_model_to_start_from_that_does_not_do_is_refused_before_anything_is_removed(divided):
    write_set("other", 4, first=20, **SMALL)
    unetseg.train("other", run="mine", patches=PATCHES, **TINY)
    call = {"folds": 3, "start_from": "mine", "overwrite": True, "epochs": 1, "device": "cpu"}
    with pytest.raises(InputError, match="mine belongs to the run that would be replaced"):
        cross_validate("set", run="mine", patches=PATCHES, **call)
    assert RunFolder("mine").state() == "finished"
    cutting = unetseg.PatchSettings(size=32, per_image=2, channels=(0, 0))
    with pytest.raises(InputError, match="trained on 1 channel, the images have 2"):
        cross_validate("set", patches=cutting, **call)
    assert load_cross_validation().scores.names == divided.scores.names


def test_a_budget_too_small_says_what_is_enough_and_leaves_a_new_run(empty):
    write_set("set", 4, **SMALL)
    settings = {k: v for k, v in TINY.items() if k != "epochs"}
    said = r"budget: 2 s leaves no time to train; for one pass over all patches give budget='\d+s'"
    with pytest.raises(InputError, match=said):
        cross_validate("set", folds=2, budget=2.0, patches=PATCHES, **settings)
    assert RunFolder("default").state() == "new"


def test_a_store_is_refused_and_its_folder_named(empty):
    write_set("set", 4, **SMALL)
    unetseg.build_store("set", "p.h5", PATCHES)
    with pytest.raises(InputError, match=r"p.h5: is a file; .*name the folder: 'set'"):
        cross_validate("p.h5", **TINY)
    with pytest.raises(InputError, match="folds: needs a folder of labelled images"):
        cross_validate(**TINY)


@pytest.mark.usefixtures("processor_time")
def test_a_budget_is_that_of_all_folds(empty):
    write_set("set", 4, **SMALL)
    settings = {k: v for k, v in TINY.items() if k != "epochs"}
    begin = time.monotonic()
    result = cross_validate("set", folds=2, budget=9.0, patches=PATCHES, started=begin, **settings)
    spent = time.monotonic() - begin
    assert spent < 9 + 1
    assert result.seconds == pytest.approx(spent, abs=0.5)
    assert result.settings["budget"] == 9
    assert result.patches >= 2 * 4  # one step of each at least
    lengths = [float(rows[-1]["seconds"]) for rows in result.histories().values()]
    assert all(0 < length < 4.5 for length in lengths)


def test_the_command_trains_folds_goes_on_and_lists_them(divided, capsys, monkeypatch):
    from unetseg.cli import app

    line = ["train", "set", "--folds", "2", "--epochs", "1", "--width", "2", "--depth", "1"]
    line += ["--size", "32", "--per-image", "2", "--run", "typed"]
    assert app.main(line) == 0
    out = capsys.readouterr().out
    assert "9 images, each scored by a model that never saw it (2 folds)" in out
    assert "a mask for every image in runs/typed/masks" in out
    assert "unetseg suspects typed\n" in out
    assert "--model typed\n" in out
    assert all(name in out for name in NAMES)
    assert app.main(["train", "--resume", "--run", "typed"]) == 0
    assert "this run is finished" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "120")  # where a row takes no second line
    assert app.main(["runs"]) == 0
    assert "9, 2 folds" in capsys.readouterr().out
    assert app.main([*line, "--overwrite", "--val", "0.2"]) == 2
    assert "--folds: excludes --val" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"folds": True}, "folds is True, not a whole number"),
        ({"folds": 4}, "images of other folds"),
        ({"seconds": float("inf")}, "seconds is inf, not a finite number"),
        ({"seconds": float("nan")}, "seconds is nan, not a finite number"),
        ({"content": 7}, "content is 7, not a text"),
        ({"settings": {}}, r"settings\.lr"),
        ({"images": [{"name": "a"}]}, r"images\.0\.image is missing"),
        ({"done": [{"fold": 1, "patches": 4, "matrices": [[[1]]]}]}, "fold 1 does not fit"),
    ],
)
def test_a_record_with_values_that_do_not_fit_is_refused_in_one_line(divided, change, problem):
    path = Path("runs/default/folds.json")
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "added later": 1}))
    load_cross_validation()  # a key that is not known yet is left out
    if "settings" in change:
        change = {"settings": {**data["settings"], "lr": [5]}}
    path.write_text(json.dumps(data | change))
    with pytest.raises(InputError, match=problem) as refused:
        load_cross_validation()
    assert "\n" not in str(refused.value)
    assert "train again with overwrite" in str(refused.value)


def test_labels_that_are_shapes_are_refused_with_the_line_that_makes_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_set("set", 6)
    for mask in Path("set/masks").iterdir():
        mask.unlink()
        box = {"label": "square", "points": [[5, 5], [20, 20]], "shape_type": "rectangle"}
        data = {"shapes": [box], "imagePath": f"images/{mask.name}"}
        Path(f"set/{mask.stem}.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"convert_folder\('set', 'set-converted'\)"):
        cross_validate("set", folds=2, **TINY)
    assert not Path("runs").exists()


def test_cropped_rows_of_colour_masks_end_in_scores_suspects_and_a_report(empty):
    write_set("set", 4, toml=None, **SMALL)
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0]], np.uint8)
    for path in Path("set/masks").iterdir():
        Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    patches = unetseg.PatchSettings(size=32, per_image=2, crop="bottom=6")
    done = cross_validate("set", folds=2, patches=patches, **TINY)
    assert all((mask[-6:] == 255).all() for mask in pixels("default").values())
    truths = [done.scored_image(k) for k in range(4)]
    assert all((one.prediction[-6:] == 255).all() for one in truths)
    assert len(rank_suspects(truths, done.classes.names)) <= 4
    again = unetseg.evaluate(
        "set", predictions="runs/default/masks", settings=unetseg.PredictSettings(crop="bottom=6")
    )
    np.testing.assert_array_equal(again.scores.matrices, done.scores.matrices)
