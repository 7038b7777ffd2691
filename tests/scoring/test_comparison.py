"""Two sides on the same images: images that are compared or left out, and the verdict."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.support import QUICK, write_set
from unetseg.cli.app import main
from unetseg.errors import InputError
from unetseg.prediction.model_file import read_card
from unetseg.progress import Note
from unetseg.scoring.comparison import Difference
from unetseg.scoring.intervals import of_differences

# Twelve pixels an image: eight of class 0, then four of class 1.
TRUTH = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], np.uint8)


def write_masks(folder, wrong):
    """Write a mask for each image; of image k the last ``wrong[k]`` pixels are called 0."""
    Path(folder).mkdir(parents=True)
    for k, count in enumerate(wrong):
        mask = TRUTH.copy().ravel()
        mask[12 - count :] = 0
        Image.fromarray(mask.reshape(3, 4)).save(f"{folder}/im{k}.png")


@pytest.fixture
def masks(empty):
    """Five images, and the masks that two programs made of them."""
    write_masks("set/images", [0] * 5)
    write_masks("set/masks", [0] * 5)
    write_masks("a", [1, 2, 1, 2, 0])
    write_masks("b", [0, 1, 1, 0, 1])
    return empty


@pytest.fixture(scope="module")
def trained(tmp_path_factory, made):
    """A home with a second run on another split, and no data/test."""
    home = tmp_path_factory.mktemp("compared") / "home"
    shutil.copytree(made, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        settings = unetseg.PatchSettings(size=32, per_image=2, val=0.5, seed=5)
        unetseg.train("data/train", run="other", patches=settings, **QUICK)
    return home


@pytest.fixture
def two(trained, tmp_path, monkeypatch):
    """A copy of `trained` of one's own, as the current folder."""
    shutil.copytree(trained, tmp_path / "two")
    monkeypatch.chdir(tmp_path / "two")


def test_differences_worked_by_hand(masks):
    found = unetseg.compare("a", "b", "set")
    # Class 1, of 20 pixels: A finds 14, B 17. Class 0: A 40 of 46, B 40 of 43.
    assert found.classes["1"].difference == pytest.approx(17 / 20 - 14 / 20)
    assert found.classes["0"].difference == pytest.approx(40 / 43 - 40 / 46)
    assert found.mean.difference == pytest.approx((0.15 + 40 / 43 - 40 / 46) / 2)
    for one in (found.mean, *found.classes.values()):
        assert (one.won, one.lost, one.tied) == (3, 1, 1)
    assert (found.left_out, found.total) == (0, 5)


def test_intervals_are_paired_and_those_of_the_pixels(masks):
    found = unetseg.compare("a", "b", "set")
    wrong = np.array([[1, 2, 1, 2, 0], [0, 1, 1, 0, 1]])
    ones, zeros = (
        np.stack([4 - wrong, np.full((2, 5), 4)], -1),
        np.stack([8 + wrong * 0, 8 + wrong], -1),
    )
    part = [np.column_stack([zeros[s, :, 0], ones[s, :, 0]]) for s in (0, 1)]
    whole = [np.column_stack([zeros[s, :, 1], ones[s, :, 1]]) for s in (0, 1)]
    mean, classes = of_differences(part[0], whole[0], part[1], whole[1])
    assert found.mean.ci95 == pytest.approx(tuple(mean))
    assert found.classes["1"].ci95 == pytest.approx(tuple(classes[1]))


def test_the_images_lost_most_are_named_worst_first(empty):
    write_masks("set/images", [0] * 8)
    write_masks("set/masks", [0] * 8)
    write_masks("a", [0, 0, 1, 0, 0, 0, 0, 2])
    write_masks("b", [1, 3, 1, 2, 0, 1, 2, 1])
    losses = unetseg.compare("a", "b", "set").losses
    assert [loss.name for loss in losses] == ["im1", "im3", "im6", "im0", "im5"]
    assert losses[0].a == 1
    assert losses[0].b == pytest.approx((8 / 11 + 1 / 4) / 2)
    assert losses[0].weakest == "1"


def test_a_class_wrongly_found_loses_the_image_and_one_in_no_mask_counts_for_none(empty):
    for folder in ("set/images", "set/masks", "a", "b"):
        write_masks(folder, [4] * 3)  # class 0 alone
    mask = np.zeros((3, 4), np.uint8)
    mask[0, 0] = 1
    Image.fromarray(mask).save("b/im1.png")
    one = unetseg.compare("a", "b", "set").classes["1"]
    assert (one.a, one.b, one.difference) == (None, 0, None)
    assert (one.won, one.lost, one.tied) == (0, 1, 0)


@pytest.mark.parametrize(
    ("difference", "ci95", "better"),
    [
        (0.1, (0.05, 0.15), "B"),
        (-0.1, (-0.15, -0.05), "A"),
        (0.1, (-0.05, 0.25), ""),
        (0.0, None, ""),
        (0.1, None, None),
    ],
)
def test_one_is_better_where_the_interval_lies_on_one_side_of_zero(difference, ci95, better):
    assert Difference(0.5, 0.5 + difference, difference, ci95, 1, 0, 0).better == better


def test_the_same_on_both_sides_shows_no_difference(masks, capsys):
    assert main(["compare", "a", "a", "set"]) == 0
    out = capsys.readouterr().out
    assert "mean IoU: no difference shown (over 5 images)" in out
    assert "loses" not in out


def test_two_images_are_too_few(empty, capsys):
    for folder, wrong in (("set/images", 0), ("set/masks", 0), ("a", 2), ("b", 1)):
        write_masks(folder, [wrong] * 2)
    assert main(["compare", "a", "b", "set"]) == 0
    assert "too few images for an interval (over 2 images)" in capsys.readouterr().out


def test_the_command_prints_a_table_and_writes_json(masks, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", "a", "b", "set", "--json", "d.json", "--group", "im."]) == 0
    out = capsys.readouterr().out
    assert "A: a; B: b; 5 images" in out
    assert "+0.150" in out
    assert "im4: 1.000 -> 0.819, most of it 1" in out
    assert max(map(len, out.splitlines())) <= 80
    data = json.loads(Path("d.json").read_text())
    assert data["mean_iou"]["won"] == 3
    assert data["iou"]["1"]["difference"] == pytest.approx(0.15)
    assert data["scores_b"]["iou"]["1"] == pytest.approx(0.85)
    assert len(data["mean_iou"]["ci95"]) == 2
    assert main(["compare", "a", "b", "set", "--json", "d.json"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_model_and_the_masks_that_it_made_are_equal(two):
    unetseg.predict(["data/test"], out="made")
    found = unetseg.compare("default", "made")
    assert found.mean.difference == 0
    assert found.mean.tied == 3
    assert found.scores_a.iou == unetseg.evaluate().scores.iou
    # Without classes.toml the masks are read as the other side's model writes them.
    Path("data/test/classes.toml").unlink()
    assert unetseg.compare("made", "default").mean.difference == 0


def test_images_that_either_was_trained_on_are_left_out_and_said(two):
    cards = [read_card(f"runs/{run}/model.safetensors") for run in ("default", "other")]
    seen = {s.name for card in cards for s in card.sources if s.split == "train"}
    left = sorted(Path(s.name).stem for s in cards[0].sources if s.name not in seen)
    notes = []
    found = unetseg.compare("default", "other", "data/train", on_progress=notes.append)
    assert sorted(found.scores_a.names) == left
    said = [n.text for n in notes if isinstance(n, Note) and n.warning]
    assert said == [
        f"{12 - len(left)} of 12 images were trained on by A or B, left out; {len(left)} scored"
    ]
    everything = unetseg.compare("default", "other", "data/train", include_trained=True)
    assert len(everything.scores_a.names) == 12


def test_images_that_a_model_knows_by_some_of_their_channels_are_left_out(empty):
    write_set("set", 6, channels=4)
    patches = unetseg.PatchSettings(size=32, per_image=2, val=0.5, channels="2,0")
    unetseg.train("set", run="some", patches=patches, **{**QUICK, "epochs": 1})
    sources = read_card("runs/some/model.safetensors").sources
    found = unetseg.compare("some", "some", "set")
    assert set(found.scores_a.names) == {Path(s.name).stem for s in sources if s.split == "val"}
    assert (found.left_out, found.total) == (3, 6)


def test_without_a_folder_the_images_that_both_hold_out_are_scored(two):
    shutil.rmtree("data/test")
    found = unetseg.compare("default", "other")
    from_files = unetseg.compare("default", "other", "data/train")
    assert sorted(found.scores_a.names) == sorted(from_files.scores_a.names)
    assert found.mean.difference == pytest.approx(from_files.mean.difference)


def test_a_run_with_folds_or_masks_alone_need_a_folder(two):
    shutil.move("data/test", "apart")
    Path("runs/folds/fold-1").mkdir(parents=True)
    for name, run in (("fold-1", "default"), ("fold-2", "other")):
        shutil.copytree(f"runs/{run}", f"runs/folds/{name}", dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"folds: is 2 models, .*unetseg.compare\(A, B, FOLDER\)"):
        unetseg.compare("folds", "default")
    assert len(unetseg.compare("folds", "default", "apart").scores_a.names) == 3
    unetseg.predict(["apart"], out="made")
    with pytest.raises(
        InputError, match=r"made holds masks alone.*unetseg.compare\(A, B, FOLDER\)"
    ):
        unetseg.compare("default", "made")


def test_models_of_other_classes_are_refused(two):
    toml = Path("data/train/classes.toml")
    toml.write_text(toml.read_text().replace("stripe", "band"))
    unetseg.train("data/train", run="renamed", **{**QUICK, "epochs": 1})
    Path("data/test/classes.toml").unlink()
    with pytest.raises(InputError, match="renamed: has the classes ground, square, band; A has"):
        unetseg.compare("default", "renamed")


def test_a_side_that_is_neither_is_named(masks):
    with pytest.raises(InputError, match="nothing: no model of this name"):
        unetseg.compare("a", "nothing", "set")


def test_masks_are_compared_by_the_true_ones_classes(empty):
    write_set("set", 4)
    shutil.copytree("set/masks", "made")
    found = unetseg.compare("made", "made", "set", group="im")
    assert found.scores_a.classes == ("ground", "square", "stripe")
    assert found.scores_a.units == 1


def test_a_comparison_without_a_store_says_how_to_compare(home):
    Path("data/patches.h5").unlink()
    shutil.rmtree("data/test")
    with pytest.raises(InputError, match=r"name a folder of labelled images: .*compare"):
        unetseg.compare("default", "default")
