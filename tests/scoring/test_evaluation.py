"""Scores: of which images, by which classes, and refusals."""

import errno
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score

import unetseg
from tests.support import masks_of, read, write_set
from unetseg.cli.app import main
from unetseg.errors import InputError, MachineError
from unetseg.scoring import predictions
from unetseg.scoring.curves import CurveCounts, count_probabilities


def test_scores_are_those_of_scikit_learn_on_the_predicted_masks(home):
    found = unetseg.evaluate().scores
    unetseg.predict(["data/test"])
    truth, made = masks_of("data/test/masks"), masks_of("predictions")
    flat = [np.concatenate([m[k].ravel() for k in sorted(truth)]) for m in (truth, made)]
    expected = jaccard_score(*flat, average=None, labels=[0, 1, 2])
    assert list(found.iou.values()) == pytest.approx(expected.tolist())
    assert found.mean_iou == pytest.approx(expected.mean())
    assert found.confusion.sum() == 3 * 64 * 56


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


def test_the_command_takes_intervals_over_groups(empty, capsys):
    write_set("set", 4)
    shutil.copytree("set/masks", "made")
    line = ["evaluate", "set", "--predictions", "made", "--group", "im[01]|im", "--json", "s.json"]
    assert main(line) == 0
    data = json.loads(Path("s.json").read_text())
    assert data["groups"] == ["im0", "im1", "im", "im"]
    assert data["units"] == 3
    assert "(3 groups)" in capsys.readouterr().out


def test_pixels_without_data_join_no_objects_when_masks_are_mended(home):
    write_set("set", 3, first=200)
    for path in sorted(Path("set/images").iterdir()):
        pixels, mask = np.array(Image.open(path)), read(f"set/masks/{path.name}")
        shown = np.full_like(pixels, 255)
        stripe = int(np.flatnonzero((mask == 2).mean(1) > 0.5)[0])
        shown[: max(0, stripe - 2)] = 0  # nearly all above the stripe
        Image.fromarray(np.stack([pixels, shown], 2)).save(path)
    settings = unetseg.PredictSettings(largest=("ground",))
    unetseg.predict("set", settings=settings)
    by_model = unetseg.evaluate("set", settings=settings).scores
    by_masks = unetseg.evaluate("set", predictions="predictions", settings=None).scores
    np.testing.assert_array_equal(by_model.confusion, by_masks.confusion)


@pytest.mark.parametrize("given", [{"page": 0}, {"channels": (0,)}])
def test_parts_of_files_cannot_be_chosen_of_what_a_store_holds(home, given):
    shutil.rmtree("data/test")
    settings = unetseg.PredictSettings(**given)
    with pytest.raises(InputError, match=r"is for a folder of labelled images; name one"):
        unetseg.evaluate(settings=settings)
