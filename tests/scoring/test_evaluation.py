"""Scores: of which images, by which classes, and refusals."""

import errno
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from sklearn.metrics import jaccard_score

import unetseg
from tests.support import NAMES, QUICK, draw, read, write_set
from unetseg.cli.app import main
from unetseg.cli.console import print_table
from unetseg.cli.tables import print_confusion
from unetseg.errors import InputError, MachineError
from unetseg.prediction.model_file import read_card
from unetseg.progress import Note
from unetseg.scoring import predictions
from unetseg.scoring.curves import CurveCounts, count_probabilities
from unetseg.scoring.metrics import confusion, scores


def said(run):
    """Return (result of ``run(on_progress)``, the text of its notes)."""
    seen = []
    result = run(seen.append)
    return result, "\n".join(r.text for r in seen if isinstance(r, Note))


def masks_of(folder):
    return {p.stem: read(p) for p in sorted(Path(folder).glob("*.png"))}


def test_scores_are_those_of_scikit_learn_on_the_predicted_masks(home):
    found = unetseg.evaluate().scores
    unetseg.predict(["data/test"])
    truth, made = masks_of("data/test/masks"), masks_of("predictions")
    flat = [np.concatenate([m[k].ravel() for k in sorted(truth)]) for m in (truth, made)]
    expected = jaccard_score(*flat, average=None, labels=[0, 1, 2])
    assert list(found.iou.values()) == pytest.approx(expected.tolist())
    assert found.mean_iou == pytest.approx(expected.mean())
    assert found.confusion.sum() == 3 * 64 * 56


def test_a_prediction_is_itself_a_valid_mask(home):
    unetseg.predict(["data/test"])
    by_model, by_masks = unetseg.evaluate(), unetseg.evaluate(predictions="predictions")
    np.testing.assert_array_equal(by_model.scores.confusion, by_masks.scores.confusion)
    shutil.copytree("data/test/images", "again/images")
    shutil.copytree("predictions", "again/masks", ignore=shutil.ignore_patterns("overlays"))
    assert unetseg.evaluate("again").scores.mean_iou == 1


def test_images_trained_on_are_left_out_and_said(home):
    shutil.copytree("data/test", "mixed")
    card = read_card("runs/default/model.safetensors")
    trained = [s.name for s in card.sources if s.split == "train"]
    for name in trained[:2]:  # under other names: pixels count
        stem = Path(name).stem
        shutil.copy(f"data/train/images/{stem}.png", f"mixed/images/new{stem}.png")
        shutil.copy(f"data/train/masks/{stem}.png", f"mixed/masks/new{stem}.png")
    found, text = said(lambda p: unetseg.evaluate("mixed", on_progress=p))
    assert "2 of 5 images were trained on, left out; 3 scored" in text
    assert (found.subject.trained_on, found.total, len(found.scores.names)) == (2, 5, 3)
    everything = unetseg.evaluate("mixed", include_trained=True)
    assert (everything.subject.trained_on, len(everything.scores.names)) == (0, 5)


def test_masks_of_a_model_are_not_scored_on_images_that_it_was_trained_on(home):
    unetseg.predict(["data/train", "data/test"])
    given = {"predictions": "predictions", "model": "default"}
    found, text = said(lambda p: unetseg.evaluate("data/train", on_progress=p, **given))
    assert "9 of 12 images were trained on, left out; 3 scored" in text
    assert (found.subject.trained_on, len(found.scores.names)) == (9, 3)
    everything = unetseg.evaluate("data/train", include_trained=True, **given)
    assert (everything.subject.trained_on, len(everything.scores.names)) == (0, 12)
    assert unetseg.evaluate("data/test", **given).subject.trained_on == 0


def test_images_trained_on_can_be_asked_for_beside_masks_where_a_model_is_named(home, capsys):
    unetseg.predict(["data/train"])
    words = ["evaluate", "data/train", "--predictions", "predictions", "--include-trained"]
    assert main(words) == 2
    assert "--include-trained: is of no use with --predictions" in capsys.readouterr().err
    assert main([*words, "--model", "default"]) == 0
    assert "data/train: 12 images" in capsys.readouterr().out


def test_a_folder_of_trained_images_alone_leaves_nothing_to_score(home):
    card = read_card("runs/default/model.safetensors")
    for part in ("images", "masks"):
        Path("old", part).mkdir(parents=True)
        for s in card.sources:
            if s.split == "train":
                shutil.copy(f"data/train/{part}/{s.name}", f"old/{part}")
    with pytest.raises(InputError, match="all 9 images were trained on"):
        unetseg.evaluate("old")


def test_without_a_folder_the_stores_held_out_images_are_scored(home):
    shutil.rmtree("data/test")
    found, text = said(lambda p: unetseg.evaluate(on_progress=p))
    card = read_card("runs/default/model.safetensors")
    held_out = [Path(s.name).stem for s in card.sources if s.split == "val"]
    assert list(found.scores.names) == held_out
    assert "9 of 12 images were trained on, left out; 3 scored" in text
    assert found.scores.mean_iou == pytest.approx(card.scores["mean_iou"])


def test_the_held_out_score_is_that_of_the_same_images_as_files(home):
    shutil.rmtree("data/test")
    from_store = unetseg.evaluate()
    from_files = unetseg.evaluate("data/train")
    np.testing.assert_array_equal(from_store.scores.confusion, from_files.scores.confusion)


def test_a_store_that_was_cut_anew_holds_out_nothing_the_model_has_seen(home):
    shutil.rmtree("data/test")
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.5, seed=3)
    unetseg.build_store(patches=settings, overwrite=True)
    card = read_card("runs/default/model.safetensors")
    trained = {Path(s.name).stem for s in card.sources if s.split == "train"}
    assert not trained & set(unetseg.evaluate().scores.names)


def test_a_store_of_other_classes_is_refused(home):
    shutil.rmtree("data/test")
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.25)
    unetseg.build_store(patches=settings, ignore=(2,), overwrite=True)
    with pytest.raises(InputError, match=r"data/patches.h5: .*name a folder"):
        unetseg.evaluate()


def test_a_missing_store_asks_for_a_folder(home):
    shutil.rmtree("data/test")
    Path("data/patches.h5").unlink()
    with pytest.raises(InputError, match=r"unetseg.evaluate\(FOLDER\)"):
        unetseg.evaluate()


def test_masks_of_any_program_are_scored_by_hand_worked_numbers(empty):
    Path("truth/images").mkdir(parents=True)
    for folder in ("truth/masks", "made"):
        Path(folder).mkdir()
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint8)
    guess = np.array([[0, 1, 1, 1], [0, 0, 1, 0]], np.uint8)
    Image.fromarray(truth * 9).save("truth/images/a.png")
    Image.fromarray(truth).save("truth/masks/a.png")
    Image.fromarray(guess).save("made/a.tif")
    found = unetseg.evaluate("truth", predictions="made").scores
    assert found.confusion.tolist() == [[3, 1], [1, 3]]
    assert found.iou == {"0": pytest.approx(3 / 5), "1": pytest.approx(3 / 5)}
    assert found.pixel_accuracy == pytest.approx(6 / 8)


def test_masks_of_several_pages_are_scored_by_the_page_named(empty):
    Path("truth/images").mkdir(parents=True)
    for folder in ("truth/masks", "made"):
        Path(folder).mkdir()
    mask = np.array([[0, 0, 1], [1, 0, 1]], np.uint8)
    for path in ("truth/images/a.tif", "truth/masks/a.tif", "made/a.tif"):
        tifffile.imwrite(path, np.stack([np.zeros_like(mask), mask]), photometric="minisblack")
    with pytest.raises(InputError, match="holds 2 pages"):
        unetseg.evaluate("truth", predictions="made")
    settings = unetseg.PredictSettings(page=1)
    found = unetseg.evaluate("truth", predictions="made", settings=settings).scores
    assert found.confusion.tolist() == [[3, 0], [0, 3]]


def test_values_to_ignore_and_classes_may_be_given_for_masks_of_any_program(empty):
    write_set("set", 2, values=(0, 7, 9), toml=None, ignored=255)
    shutil.copytree("set/masks", "made")
    with pytest.raises(InputError, match="ignore=255"):
        unetseg.evaluate("set", predictions="made")
    found = unetseg.evaluate("set", predictions="made", ignore=(255,)).scores
    assert found.classes == ("0", "7", "9")
    assert found.confusion.sum() == 2 * 59 * 56
    text = "".join(f'[[class]]\nname = "c{v}"\nvalue = {v}\n' for v in (0, 7, 9))
    Path("mine.toml").write_text(text)
    found = unetseg.evaluate("set", predictions="made", classes="mine.toml", ignore=(255,)).scores
    assert found.classes == ("c0", "c7", "c9")
    path = next(Path("made").iterdir())
    Image.fromarray(np.full((64, 56), 255, np.uint8)).save(path)
    with pytest.raises(InputError, match=r"3,304 ignored pixels where .* first at \(x 0, y 5\)"):
        unetseg.evaluate("set", predictions="made", ignore=(255,))


def test_ignored_values_are_left_out_of_a_models_score_too(home):
    everything = unetseg.evaluate().scores.confusion
    found = unetseg.evaluate(ignore=(1,)).scores.confusion
    np.testing.assert_array_equal(found, everything * np.array([[1], [0], [1]]))
    shutil.rmtree("data/test")
    with pytest.raises(InputError, match="ignore: is for a folder of true masks"):
        unetseg.evaluate(ignore=(1,))


def test_with_a_model_masks_are_read_as_those_that_it_writes(home):
    unetseg.predict(["data/test"])
    before = unetseg.evaluate(predictions="predictions").scores
    text = "".join(f'[[class]]\nname = "{n}"\nvalue = {v + 5}\n' for v, n in enumerate(NAMES))
    Path("data/test/classes.toml").write_text(text)
    for path in Path("data/test/masks").iterdir():
        Image.fromarray(read(path) + 5).save(path)
    with pytest.raises(InputError):
        unetseg.evaluate(predictions="predictions")
    found = unetseg.evaluate(predictions="predictions", model=["default"]).scores
    np.testing.assert_array_equal(found.confusion, before.confusion)


def test_a_store_that_moved_with_its_run_is_found_beside_the_model(home):
    shutil.rmtree("data/test")
    expected = unetseg.evaluate().scores.mean_iou
    shutil.move("data/patches.h5", "runs/default/patches.h5")
    assert unetseg.evaluate().scores.mean_iou == expected
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.5, seed=3)
    unetseg.build_store(out="runs/default/patches.h5", patches=settings, overwrite=True)
    with pytest.raises(InputError, match=r"unetseg.evaluate\(FOLDER\)"):
        unetseg.evaluate()


def test_masks_that_do_not_fit_are_named(home):
    with pytest.raises(InputError, match=r"made: not found"):
        unetseg.evaluate(predictions="made")
    Path("made").mkdir()
    for stem, mask in masks_of("data/test/masks").items():
        Image.fromarray(mask[:50] if stem == "im101" else mask).save(f"made/{stem}.png")
    with pytest.raises(InputError, match=r"im101.png: 50 x 56 pixels, the truth has 64 x 56"):
        unetseg.evaluate(predictions="made")
    Path("made/im102.png").unlink()
    with pytest.raises(InputError, match="no mask for im102"):
        unetseg.evaluate(predictions="made")
    shutil.rmtree("data/test")
    with pytest.raises(InputError, match="true masks"):
        unetseg.evaluate(predictions="made")


def test_predictions_of_colours_are_scored_without_classes_toml(empty):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)
    write_set("set", 2, toml=None)
    Path("made").mkdir()
    for path in Path("set/masks").iterdir():
        mask = read(path)
        Image.fromarray(colours[mask]).save(path)
        indexed = Image.fromarray(mask)
        indexed.putpalette(colours.tobytes())
        indexed.save(Path("made") / path.name)
    assert unetseg.evaluate("set", predictions="made").scores.mean_iou == 1


def test_classes_beside_the_masks_may_stand_in_another_order(home):
    swapped = [("stripe", 7), ("ground", 3), ("square", 200)]
    text = "".join(f'[[class]]\nname = "{n}"\nvalue = {v}\n' for n, v in swapped)
    before = unetseg.evaluate().scores
    Path("data/test/classes.toml").write_text(text)
    value_of = dict(swapped)
    for path in Path("data/test/masks").iterdir():
        values = np.array([value_of[name] for name in NAMES], np.uint8)
        Image.fromarray(values[read(path)]).save(path)
    found = unetseg.evaluate().scores
    assert found.classes == NAMES
    np.testing.assert_array_equal(found.confusion, before.confusion)


def write_shapes(folder, count, labels):
    """Write images with LabelMe files: a polygon of "block", and lines of the other labels."""
    folder = Path(folder)
    folder.mkdir()
    for k in range(count):
        Image.fromarray(draw(k)[0][..., 0]).save(folder / f"im{k}.png")
        shapes = [("block", "polygon", [[5, 5], [25, 5], [25, 25], [5, 25]])]
        shapes += [(name, "line", [[4, 30 + 9 * n], [50, 30 + 9 * n]]) for n, name in labels]
        listed = [{"label": n, "shape_type": kind, "points": p} for n, kind, p in shapes]
        about = {"imagePath": f"im{k}.png", "imageHeight": 64, "imageWidth": 56, "shapes": listed}
        (folder / f"im{k}.json").write_text(json.dumps(about))
    return folder


def test_lines_are_as_wide_in_scores_as_in_training_unless_another_width_is_given(empty):
    write_shapes("set", 6, [(0, "crack"), (1, "joint")])
    patches = unetseg.PatchSettings(size=32, per_image=4, line_width=5)
    unetseg.train("set", patches=patches, **QUICK)
    found, text = said(lambda p: unetseg.evaluate("set", include_trained=True, on_progress=p))
    assert found.scores.pixels["crack"] == found.scores.pixels["joint"] > 6 * 5 * 46
    assert "left out" not in text
    thin = unetseg.evaluate("set", include_trained=True, line_width=1).scores.pixels
    assert 6 * 46 <= thin["crack"] < found.scores.pixels["crack"] / 4
    unetseg.predict("set", out="made")
    given = {"predictions": "made", "model": "default", "include_trained": True}
    assert unetseg.evaluate("set", **given).scores.pixels == found.scores.pixels
    both = unetseg.compare("default", "made", "set", include_trained=True)
    assert both.scores_a.pixels == both.scores_b.pixels == found.scores.pixels
    words = ["evaluate", "set", "--include-trained", "--line-width", "1", "--json", "s.json"]
    assert main(words) == 0
    scored = np.array(json.loads(Path("s.json").read_text())["confusion"])
    assert scored[2].sum() == thin["crack"]
    with pytest.raises(InputError, match="line_width: 0 is out of range"):
        unetseg.evaluate("set", line_width=0)
    with pytest.raises(InputError, match="line_width: is for a folder of true masks"):
        unetseg.evaluate(line_width=3)


def test_shapes_may_lack_a_class_of_the_model_and_others_are_refused_by_their_folder(empty):
    write_shapes("set", 6, [(0, "crack"), (1, "joint")])
    patches = unetseg.PatchSettings(size=32, per_image=4, line_width=5)
    unetseg.train("set", patches=patches, **QUICK)
    write_shapes("few", 2, [(1, "joint")])
    scores = unetseg.evaluate("few", include_trained=True).scores
    assert scores.classes == ("background", "block", "crack", "joint")
    assert scores.pixels["crack"] == 0 < scores.pixels["joint"]
    write_shapes("other", 2, [(1, "root")])
    with pytest.raises(InputError, match=r"^other: names .*root; the model knows .*joint"):
        unetseg.evaluate("other")


def test_classes_beside_the_masks_that_name_others_are_refused(home):
    path = Path("data/test/classes.toml")
    path.write_text(path.read_text().replace("stripe", "strip"))
    with pytest.raises(InputError, match="the model knows ground, square, stripe"):
        unetseg.evaluate()


def test_black_and_white_masks_of_a_model_that_ignores_white_are_refused(empty, capsys):
    toml = "ignore = [255]\n" + "".join(
        f'[[class]]\nname = "{name}"\nvalue = {v}\n' for v, name in enumerate("ab")
    )
    patches = unetseg.PatchSettings(size=32, per_image=4)
    unetseg.train(write_set("set", 6, values=(0, 1, 0), toml=toml), patches=patches, **QUICK)
    write_set("raw", 2, first=9, values=(0, 255, 0), toml="")
    assert main(["evaluate", "raw"]) == 2
    assert capsys.readouterr().err.endswith(
        "raw: 255 is ignored by the model, and these masks hold 0 and 255 alone; if 255 is a "
        "class, convert them: unetseg convert raw raw-converted (--fov FOLDER); else --ignore 255\n"
    )
    unetseg.predict("raw", out="made")
    with pytest.raises(InputError, match="255 is ignored by the model"):
        unetseg.evaluate("raw", predictions="made", model="default")
    found, text = said(lambda p: unetseg.evaluate("raw", ignore=255, on_progress=p))
    assert found.scores.pixels["b"] == 0
    assert "no true mask shows b: the scores say nothing of how it is found" in text
    write_set("both", 2, first=9, values=(0, 255, 1), toml="")
    assert unetseg.evaluate("both").scores.pixels["b"] > 0


def test_ignored_pixels_are_left_out(home):
    path = Path("data/test/classes.toml")
    path.write_text("ignore = [9]\n" + path.read_text())
    for mask in Path("data/test/masks").iterdir():
        pixels = read(mask)
        pixels[:10] = 9
        Image.fromarray(pixels).save(mask)
    notes = []
    assert unetseg.evaluate(on_progress=notes.append).scores.confusion.sum() == 3 * 54 * 56
    assert not any("are labelled" in str(note) for note in notes)
    for mask in Path("data/test/masks").iterdir():
        pixels = read(mask)
        pixels[16:] = 9
        Image.fromarray(pixels).save(mask)
    unetseg.evaluate(on_progress=notes.append)
    text = "9.38 % of the pixels are labelled; the scores count these alone"
    assert text in [str(note) for note in notes]


def test_masks_of_nothing_but_ignored_pixels_are_an_error(home):
    path = Path("data/test/classes.toml")
    path.write_text("ignore = [9]\n" + path.read_text())
    for mask in Path("data/test/masks").iterdir():
        Image.fromarray(np.full((64, 56), 9, np.uint8)).save(mask)
    with pytest.raises(InputError, match="every pixel of every mask is ignored"):
        unetseg.evaluate()


def test_an_image_and_a_mask_of_other_sizes_are_named(home):
    image, _ = draw(1, shape=(40, 40))
    Image.fromarray(image[..., 0]).save("data/test/images/im101.png")
    with pytest.raises(InputError, match=r"im101.png: .*64 x 56.*40 x 40"):
        unetseg.evaluate()


def test_json_has_the_keys_of_the_design_and_null_for_an_absent_class(empty):
    Path("truth/images").mkdir(parents=True)
    Path("truth/masks").mkdir()
    text = "".join(f'[[class]]\nname = "{n}"\nvalue = {v}\n' for v, n in enumerate("abc"))
    Path("truth/classes.toml").write_text(text)
    mask = np.array([[0, 0], [1, 1]], np.uint8)
    Image.fromarray(mask).save("truth/images/x.png")
    Image.fromarray(mask).save("truth/masks/x.png")
    found = unetseg.evaluate("truth", predictions="truth/masks").scores
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {
        *("images", "mean_iou", "iou", "mean_iou_ci95", "iou_ci95", "dice", "precision", "recall"),
        *("pixel_accuracy", "mean_iou_per_image", "confusion", "per_image", "absent"),
    } <= data.keys()
    assert data["iou"] == {"a": 1.0, "b": 1.0, "c": None}
    assert data["mean_iou"] == 1.0
    assert data["absent"] == ["c"]
    assert data["images"] == 1
    assert data["per_image"][0]["name"] == "x"
    assert data["per_image"][0]["iou"]["c"] is None


def test_an_ensemble_leaves_out_what_any_of_its_models_was_trained_on(home):
    settings = unetseg.PatchSettings(size=32, per_image=2, val=0.25, seed=5)
    unetseg.train("data/train", run="other", patches=settings, **{**QUICK, "epochs": 1})
    cards = [read_card(f"runs/{run}/model.safetensors") for run in ("default", "other")]
    trained = {s.sha256 for c in cards for s in c.sources if s.split == "train"}
    left = [Path(s.name).stem for s in cards[0].sources if s.sha256 not in trained]
    assert 0 < len(left) < 3
    found = unetseg.evaluate("data/train", model=["default", "other"])
    assert sorted(found.scores.names) == sorted(left)


def test_intervals_are_over_the_images_or_over_groups_of_them(home):
    write_set("many", 6, first=300)
    found = unetseg.evaluate("many").scores
    assert found.groups == found.names
    low, high = found.mean_iou_ci95
    assert 0 < low < found.mean_iou < high < 1
    grouped = unetseg.evaluate("many", group=r"im(30[0-2])|im").scores
    assert grouped.groups == ("300", "301", "302", "im", "im", "im")
    assert grouped.units == 4
    assert grouped.mean_iou == found.mean_iou
    assert grouped.mean_iou_ci95 != found.mean_iou_ci95
    unetseg.predict(["many"], out="made")
    by_masks = unetseg.evaluate("many", predictions="made", group="im30.").scores
    assert by_masks.mean_iou_ci95 == found.mean_iou_ci95
    with pytest.raises(InputError, match="group 'x' is not found"):
        unetseg.evaluate("many", group="x")


def test_groups_of_held_out_images_are_those_of_the_store(home):
    shutil.rmtree("data/test")
    assert unetseg.evaluate().scores.units == 3
    assert "groups" not in unetseg.evaluate().scores.to_dict()
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.5, group=r"im(\d)")
    unetseg.build_store(patches=settings, overwrite=True)
    store = unetseg.open_store("data/patches.h5")
    expected = {Path(s.name).stem: s.group for s in store.info.held_out}
    found = unetseg.evaluate().scores
    assert found.groups == tuple(expected[name] for name in found.names)
    assert set(unetseg.evaluate(group="im").scores.groups) == {"im"}


@pytest.mark.parametrize("source", ["data/test", None])
def test_a_scored_image_is_the_image_the_truth_and_the_prediction_that_were_scored(home, source):
    if source is None:
        shutil.rmtree("data/test")
    found = unetseg.evaluate(source)
    assert found.subject.classes.names == NAMES
    for k, name in enumerate(found.scores.names):
        scored = found.subject.scored_image(k)
        folder = Path(source or "data/train")
        assert scored.name == name
        np.testing.assert_array_equal(scored.image[..., 0], read(folder / f"images/{name}.png"))
        np.testing.assert_array_equal(scored.truth, read(folder / f"masks/{name}.png"))
        matrix = confusion(scored.truth, scored.prediction, 3)
        np.testing.assert_array_equal(matrix, found.scores.matrices[k])
        assert scored.confidence.shape == scored.truth.shape
        assert scored.confidence.dtype == np.float32
        assert 1 / 3 <= scored.confidence.min() <= scored.confidence.max() <= 1.0001


def test_what_was_kept_is_what_would_be_predicted_again(home):
    kept, again = unetseg.evaluate(keep=True), unetseg.evaluate()
    again.subject.expect(range(3))  # in the same batch as when they were kept
    predicted = [again.subject.scored_image(k) for k in range(3)]
    for k in (1, 0, 2):
        one, other = kept.subject.scored_image(k), predicted[k]
        np.testing.assert_array_equal(one.prediction, other.prediction)
        np.testing.assert_array_equal(one.confidence, other.confidence)
        assert (one.prediction.dtype, one.confidence.dtype) == (np.uint8, np.float32)


@pytest.mark.parametrize("keep", [False, True])
def test_the_curves_are_those_of_the_probabilities_and_change_no_score(home, keep):
    found, model = unetseg.evaluate(curves=True, keep=keep), unetseg.Model("default")
    counts = CurveCounts(found.scores.classes)
    scored = [found.subject.scored_image(k) for k in range(3)]
    # Several images are computed at once there, too, so that sums of floats are rounded alike.
    computed = model.segmenter.together([one.image for one in scored])
    for one, image in zip(scored, computed, strict=True):
        counts.add(count_probabilities(model.segmenter.probabilities(image), one.truth))
    assert found.curves == counts.curves()
    plain = unetseg.evaluate()
    assert plain.curves is None
    np.testing.assert_array_equal(found.scores.matrices, plain.scores.matrices)


def test_curves_of_masks_are_refused(home):
    with pytest.raises(InputError, match="curves: needs the probabilities of a model"):
        unetseg.evaluate("data/train", predictions="data/train/masks", curves=True)


def test_a_disk_too_full_to_keep_predictions_is_said(home, monkeypatch):
    def full(self, _):
        raise OSError(errno.ENOSPC, "")

    file = type("Full", (io.BytesIO,), {"write": full})
    monkeypatch.setattr(predictions.tempfile, "TemporaryFile", lambda dir: file())
    with pytest.raises(MachineError, match="not written: the disk is full"):
        unetseg.evaluate(keep=True)


def test_a_scored_image_of_masks_has_no_confidence(home):
    unetseg.predict(["data/test"])
    found = unetseg.evaluate(predictions="predictions")
    scored = found.subject.scored_image(1)
    assert scored.confidence is None
    np.testing.assert_array_equal(scored.prediction, read(f"predictions/{scored.name}.png"))
    np.testing.assert_array_equal(scored.image[..., 0], read(f"data/test/images/{scored.name}.png"))
    assert found.subject.classes.names == NAMES


def test_only_the_images_asked_for_are_scored(home):
    unetseg.predict(["data/test"])
    for options in ({}, {"predictions": "predictions"}):
        assert unetseg.evaluate(only={"im101"}, **options).scores.names == ("im101",)
        with pytest.raises(InputError, match="none of the images asked for"):
            unetseg.evaluate(only={"im999"}, **options)


def random_scores(classes, n=20, groups=None):
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 3000, (n, len(classes), len(classes)))
    matrices[:, range(len(classes)), range(len(classes))] *= 400
    return scores(matrices, [f"im{k}" for k in range(n)], classes, groups)


@pytest.mark.parametrize("count", [2, 3, 8, 9, 12])
def test_scores_and_confusion_fit_80_columns(count, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"background that has a long name {k}" for k in range(count)]
    found = random_scores(names)
    print_table(*found.table("title"))
    print_confusion(found)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for k in range(count):
        row = next(line.split() for line in lines if line.startswith(f"{k} background"))
        percent = 100 * found.confusion[k] / found.confusion[k].sum()
        assert row[-count:] == [f"{p:.1f}" for p in percent]


def test_short_names_stand_above_the_columns_of_the_confusion_matrix(capsys):
    print_confusion(scores(np.diag([5, 7])[None], ["x"], ["ground", "line"]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["truth", "ground", "line"],
        ["ground", "100", "0.0"],
        ["line", "0.0", "100"],
    ]


def test_intervals_stand_in_a_column_and_behind_the_mean(capsys):
    found = random_scores(["ground", "line", "blob"])
    print_table(*found.table("title"))
    out = capsys.readouterr().out
    low, high = found.iou_ci95["line"]
    assert f"{low:.3f}-{high:.3f}" in out
    low, high = found.mean_iou_ci95
    expected = f"mean IoU {found.mean_iou:.4f}, 95 % interval {low:.3f} to {high:.3f}"
    assert f"{expected} over 20 images" in out
    worst = min(found.iou, key=found.iou.get)
    assert f"{worst} (weakest)" in out
    grouped = random_scores(["a", "b"], 6, ["p", "p", "q", "q", "r", "r"])
    print_table(*grouped.table("title"))
    assert "over 3 groups" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("matrices", "text"),
    [
        ([np.full((2, 2), 5)] * 2, "mean IoU 0.3333, too few images for an interval (2 images)"),
        (
            [np.diag([5, 5])] * 4,
            "mean IoU 1.0000, the same in every image, which gives no interval",
        ),
        ([np.zeros((2, 2), int)] * 4, "mean IoU -, nothing was scored"),
    ],
)
def test_why_there_is_no_interval_is_said(matrices, text, capsys):
    found = scores(np.stack(matrices), "wxyz"[: len(matrices)], ["a", "b"])
    print_table(*found.table("title"))
    assert text in capsys.readouterr().out


def test_the_command_takes_intervals_over_groups(empty, capsys):
    write_set("set", 4)
    shutil.copytree("set/masks", "made")
    line = ["evaluate", "set", "--predictions", "made", "--group", "im[01]|im", "--json", "s.json"]
    assert main(line) == 0
    data = json.loads(Path("s.json").read_text())
    assert data["groups"] == ["im0", "im1", "im", "im"]
    assert data["units"] == 3
    assert "(3 groups)" in capsys.readouterr().out


def test_true_masks_scored_against_themselves_are_said(home):
    seen = []
    for made in ("data/test/masks", "predictions"):
        unetseg.predict(["data/test"])
        unetseg.evaluate(predictions=made, on_progress=lambda one: seen.append(str(one)))
        is_said = any("holds the true masks themselves" in one for one in seen)
        assert is_said == (made == "data/test/masks")
        seen.clear()
