"""Scores of objects, worked by hand on small label images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from unetseg import SynthSettings, evaluate, synthesize
from unetseg.cli.app import main
from unetseg.errors import InputError
from unetseg.scoring.panoptic import Matches, match_objects, object_scores, paired_pixels

TRUTH = np.array(
    [
        [1, 1, 0, 2, 2, 0],
        [1, 1, 0, 2, 2, 0],
        [0, 0, 0, 0, 0, 3],
    ]
)


def test_equal_objects_are_pairs_whatever_their_numbers():
    other = np.where(TRUTH == 1, 7, np.where(TRUTH == 2, 4, np.where(TRUTH == 3, 9, 0)))
    assert match_objects(TRUTH, other) == Matches(3.0, 3, 3, 3)


def test_one_of_three_found_half_of_another_and_one_too_many():
    found = np.zeros_like(TRUTH)
    found[:2, :2] = 1  # all of 1: IoU 1
    found[:2, 3] = 2  # half of 2: IoU 2 / 4 is no match
    found[2, 0] = 3  # nothing
    matches = match_objects(TRUTH, found)
    assert matches == Matches(1.0, 1, 3, 3)
    of_truth, of_found = paired_pixels(TRUTH, found)
    np.testing.assert_array_equal(of_truth, TRUTH == 1)
    np.testing.assert_array_equal(of_found, found == 1)
    scores = object_scores(["cell"], [[matches]], ["a"])
    assert scores.panoptic_quality["cell"] == pytest.approx(1 / 3)  # 1 / (1 + 2/2 + 2/2)
    assert scores.f1["cell"] == pytest.approx(1 / 3)
    assert scores.count_error["cell"] == 0.0


def test_two_objects_predicted_as_one_are_one_miss_at_least():
    together = (TRUTH[:2] > 0).astype(int)
    matches = match_objects(TRUTH[:2], together)
    assert (matches.pairs, matches.predicted, matches.true) == (0, 1, 2)
    assert object_scores(["cell"], [[matches]], ["a"]).count_error["cell"] == 0.5


def test_a_prediction_in_an_ignored_area_is_left_out():
    ignored = np.zeros(TRUTH.shape, bool)
    ignored[:, 3:] = True
    found = np.where(TRUTH == 1, 1, np.where(TRUTH == 2, 2, 0))
    assert match_objects(TRUTH, found, ignored) == Matches(1.0, 1, 1, 1)


def test_counts_that_cancel_over_images_are_errors_all_the_same():
    many, few = Matches(2.0, 2, 4, 2), Matches(2.0, 2, 2, 4)
    scores = object_scores(["cell"], [[many], [few]], ["a", "b"])
    assert scores.true["cell"] == scores.predicted["cell"] == 6
    assert scores.count_error["cell"] == pytest.approx(4 / 8)


def test_a_class_without_objects_has_no_score_and_not_zero():
    scores = object_scores(
        ["cell", "dust"], [[Matches(1.0, 1, 1, 1), Matches(0.0, 0, 0, 0)]], ["a"]
    )
    assert scores.panoptic_quality == {"cell": 1.0, "dust": None}
    assert scores.to_dict()["f1_ci95"] == {"cell": None, "dust": None}


def test_intervals_are_over_images_and_hold_the_score():
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(12):
        pairs = int(rng.integers(6, 10))
        rows.append([Matches(pairs * 0.8, pairs, 10, 10)])
    scores = object_scores(["cell"], rows, [str(k) for k in range(12)])
    low, high = scores.intervals["panoptic_quality"]["cell"]
    assert 0 < low < scores.panoptic_quality["cell"] < high < 1


def slow_match(truth, predicted):
    hits, total = 0, 0.0
    for t in set(truth.ravel()) - {0}:
        for p in set(predicted.ravel()) - {0}:
            a, b = truth == t, predicted == p
            iou = (a & b).sum() / (a | b).sum()
            if iou > 0.5:
                hits, total = hits + 1, total + iou
    return hits, total


def test_matching_equals_a_slow_loop():
    rng = np.random.default_rng(1)
    for _ in range(20):
        truth = np.kron(rng.integers(0, 6, (4, 4)), np.ones((3, 3), int))
        found = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, 6, truth.shape), truth)
        matches = match_objects(truth, found)
        hits, total = slow_match(truth, found)
        assert matches.pairs == hits
        assert matches.iou == pytest.approx(total)


@pytest.fixture
def touching(tmp_path, monkeypatch):
    """A set of touching ellipses, and masks of them as a perfect model would write them."""
    monkeypatch.chdir(tmp_path)
    settings = SynthSettings(height=120, width=120, touching=True)
    _, test = synthesize("data", n=1, n_test=4, settings=settings)
    return test


def test_true_masks_score_their_objects_fully_by_their_label_images(touching):
    scores = evaluate(touching, predictions=touching / "masks", objects="all").objects
    assert list(scores.f1) == ["ellipse"]
    assert scores.f1["ellipse"] == 1
    assert scores.count_error["ellipse"] == 0
    assert scores.panoptic_quality["ellipse"] > 0.97


def test_without_label_images_the_true_objects_are_parts_of_the_mask(touching):
    shutil.rmtree(touching / "objects")
    found = evaluate(touching, predictions=touching / "masks", objects=["ellipse"])
    assert found.objects.panoptic_quality["ellipse"] == 1


def test_evaluate_prints_objects_and_writes_them(touching, capsys):
    words = ["evaluate", str(touching), "--predictions", str(touching / "masks")]
    assert main([*words, "--objects", "ellipse", "--json", "s.json"]) == 0
    assert "panoptic quality" in capsys.readouterr().out
    written = json.loads(Path("s.json").read_text())["objects"]
    assert written["f1"] == {"ellipse": 1.0}


def test_a_label_image_of_another_size_is_refused(touching):
    tifffile.imwrite(touching / "objects" / "0000.tif", np.zeros((3, 3), np.uint16))
    with pytest.raises(InputError, match=r"0000.tif: is \(3, 3\) pixels"):
        evaluate(touching, predictions=touching / "masks", objects="all")
