"""The running score: predictions from before the first stroke, against masks accepted since."""

from types import SimpleNamespace

import numpy as np
import pytest

from unetseg.errors import InputError
from unetseg.labelling.project import enlarge
from unetseg.labelling.running_score import RunningScore, expected_gain
from unetseg.settings import WHOLE

NAMES = [f"im{k}" for k in range(12)]
CLASSES = ("ground", "cell")


def truth(rows=4):
    mask = np.zeros((8, 10), np.uint8)
    mask[:rows] = 1
    return mask


def begin(home, classes=CLASSES):
    return RunningScore(home, NAMES, classes)


def accept(score, number, mask, shown="head", **predictions):
    score.before_first_stroke(number, predictions)
    score.accepted(number, mask, shown)


def test_a_prediction_before_the_first_stroke_is_scored_by_hand(tmp_path):
    score = begin(tmp_path)
    assert score.summary() is None
    accept(score, 0, truth(4), head=truth(3))
    found = score.summary()
    # Rows 0 to 2 are right, row 3 was missed: 30 of 40 pixels of a cell, 40 of 50 of the ground.
    assert found["mean_iou"] == pytest.approx((30 / 40 + 40 / 50) / 2)
    assert found["iou"] == [
        {"name": "ground", "iou": pytest.approx(0.8)},
        {"name": "cell", "iou": pytest.approx(0.75)},
    ]
    assert (found["images"], found["interval"], found["ten_more"]) == (1, None, None)
    assert found["curve"] == [{"image": 0, "mean_iou": found["mean_iou"], "interval": None}]


def test_an_answer_may_be_smaller_and_unlabelled_pixels_do_not_count(tmp_path):
    score, mask = begin(tmp_path), truth(4)
    mask[7] = 255
    accept(score, 0, mask, head=truth(4)[::2, ::2])
    assert score.summary()["mean_iou"] == 1
    assert score._record.accepted[0].matrices["head"].tolist() == [[30, 0], [0, 40]]


def test_a_small_answer_that_is_accepted_as_it_was_seen_is_right(tmp_path):
    score, answer = begin(tmp_path), np.random.default_rng(0).integers(0, 2, (5, 7), np.uint8)
    accept(score, 0, enlarge(answer, (9, 13)), head=answer)  # 9 is odd: halved, it is 5
    assert score.summary()["mean_iou"] == 1


def test_the_first_image_has_no_prediction_and_no_score(tmp_path):
    score = begin(tmp_path)
    accept(score, 0, truth())
    assert score.summary() is None


def test_the_score_counts_the_later_half_and_outlives_the_program(tmp_path):
    score = begin(tmp_path)
    for number, rows in enumerate((1, 2, 3, 4, 4, 4)):
        accept(score, number, truth(4), head=truth(rows))
    again = begin(tmp_path).summary()
    assert again == score.summary()
    assert (again["images"], again["mean_iou"]) == (3, 1)
    curve = [point["mean_iou"] for point in again["curve"]]
    assert curve == sorted(curve)
    score.accepted(5, truth(3), "head")  # corrected later: it keeps its place, and is scored anew
    assert [p["image"] for p in score.summary()["curve"]] == list(range(6))
    assert score.summary()["mean_iou"] < 1


def test_the_network_takes_over_when_it_was_better_on_images_that_either_showed(tmp_path):
    score = begin(tmp_path)
    for number in (0, 2, 4):
        accept(score, number, truth(4), head=truth(2), network=truth(4))
    accept(score, 1, truth(4), "network", head=truth(2), network=truth(4))
    accept(score, 3, truth(4), "network", head=truth(4))  # the network has no word here
    assert score.best() == "head"
    assert "each predicted by the quick model before its first stroke." in score.summary()["note"]
    accept(score, 5, truth(4), "network", head=truth(3), network=truth(4))
    assert score.best() == begin(tmp_path).best() == "network"
    assert "each predicted by the network or the quick model before" in score.summary()["note"]


def test_errors_that_were_accepted_favour_neither_predictor(tmp_path):
    # Each predictor is right but for a row, and the mask keeps the error of the answer shown.
    score = begin(tmp_path)
    for number in range(8):
        accept(score, number, truth(3), "head", head=truth(3), network=truth(5))
    for number in (8, 9):
        accept(score, number, truth(5), "network", head=truth(3), network=truth(5))
    assert score.best() == "head"
    for number in (8, 9):
        accept(score, number, truth(4), "network", head=truth(3), network=truth(4))
    assert score.best() == "head"
    for number in (8, 9):
        accept(score, number, truth(4), "network", head=truth(1), network=truth(4))
    assert score.best() == "network"


def test_every_second_image_tries_a_network_that_came_near_and_every_fourth_later(tmp_path):
    score = begin(tmp_path)
    accept(score, 0, truth(4), head=truth(4), network=truth(3))
    assert not any(score.tried(k) for k in range(12))
    accept(score, 2, truth(4), head=truth(4), network=truth(4))
    assert [k for k in range(12) if score.tried(k) == "network"] == [1, 3, 5, 7, 9, 11]
    for number in (1, 3):
        accept(score, number, truth(4), "network", head=truth(4), network=truth(3))
    assert score.best() == "head"
    assert [k for k in range(12) if score.tried(k) == "network"] == [1, 5, 9]


def test_a_network_that_is_far_behind_is_not_tried(tmp_path):
    score = begin(tmp_path)
    for number in (0, 2):
        accept(score, number, truth(4), head=truth(4), network=truth(2))  # mean IoU 0.58
    assert not any(score.tried(k) for k in range(12))


def test_a_network_that_was_far_behind_in_its_first_rounds_is_tried_once_it_is_near(tmp_path):
    score = begin(tmp_path)
    for number in (0, 2, 4):
        accept(score, number, truth(4), head=truth(4), network=truth(1))
    accept(score, 6, truth(4), head=truth(4), network=truth(4))
    assert not any(score.tried(k) for k in range(12))
    accept(score, 8, truth(4), head=truth(4), network=truth(4))
    accept(score, 10, truth(4), head=truth(4), network=truth(4))
    assert [k for k in range(12) if score.tried(k) == "network"] == [1, 3, 5, 7, 9, 11]
    for number in (1, 3):
        accept(score, number, truth(4), "network", head=truth(2), network=truth(4))
    assert score.best() == "network"


class Given:
    """A model that a project begins with, as far as the score asks it."""

    def __init__(self, digest="abc"):
        self.digest, self.trained_on = digest, frozenset({"a hash"})
        self.card = SimpleNamespace(selection=WHOLE)


def test_a_model_is_shown_until_the_head_or_the_network_was_better_where_either_showed(tmp_path):
    score = RunningScore(tmp_path, NAMES, CLASSES, Given())
    assert score.best() == "model"
    for number in (0, 2):
        accept(score, number, truth(4), "model", model=truth(3), head=truth(4), network=truth(3))
    assert score.best() == "model"
    for number in (1, 5):
        accept(score, number, truth(4), "head", model=truth(3), head=truth(4), network=truth(3))
    assert score.best() == "head"
    assert score.summary()["mean_iou"] == 1
    assert begin(tmp_path).best() == "head"
    for number in (3, 7):
        accept(score, number, truth(2), "network", model=truth(3), head=truth(4), network=truth(2))
    assert score.best() == "network"


def test_head_and_network_are_tried_in_turns_where_they_came_near_the_model(tmp_path):
    score = RunningScore(tmp_path, NAMES, CLASSES, Given())
    for number in (0, 2):
        accept(score, number, truth(4), "model", model=truth(4), head=truth(4), network=truth(4))
    assert [score.tried(k) for k in (1, 3, 5, 7)] == ["head", "network"] * 2
    assert not any(score.tried(k) for k in range(0, 12, 2))
    for number, shown in ((1, "head"), (5, "head"), (3, "network"), (7, "network")):
        accept(score, number, truth(4), shown, model=truth(4), head=truth(4), network=truth(4))
    assert score.best() == "model"
    assert [score.tried(k) for k in range(12)] == [
        *(None, "head", None, None, None, "network", None, None, None, "head", None, None),
    ]


def test_what_one_model_predicted_does_not_count_for_another(tmp_path):
    score = RunningScore(tmp_path, NAMES, CLASSES, Given())
    accept(score, 0, truth(4), "model", model=truth(4))
    assert score.summary()["images"] == 1
    assert RunningScore(tmp_path, NAMES, CLASSES, Given("def")).summary() is None
    assert RunningScore(tmp_path, NAMES, CLASSES, Given()).summary()["images"] == 1


def test_images_that_the_model_was_trained_on_are_left_out_and_the_page_says_so(tmp_path):
    score = RunningScore(tmp_path, NAMES, CLASSES, Given())
    score.before_first_stroke(0, {})
    score.accepted(0, truth(4), "model", was_seen=True)
    text = "1 image that the model was trained on was left out."
    assert score.summary() == {"mean_iou": None, "note": text}
    accept(score, 1, truth(4), "model", model=truth(3))
    score.before_first_stroke(2, {})
    score.accepted(2, truth(4), "model", was_seen=True)
    found = score.summary()
    assert found["images"] == 1
    assert found["note"].endswith(" 2 images that the model was trained on were left out.")
    accept(score, 3, truth(4), "model", model=truth(4))
    score.accepted(3, truth(4), "model", was_seen=True)  # predicted before that model was trained
    assert len(score.summary()["curve"]) == 2


def test_classes_may_be_added_and_renamed(tmp_path):
    score = begin(tmp_path)
    accept(score, 0, truth(4), head=truth(3))
    before = score.summary()["mean_iou"]
    score.rename(("soil", "cell", "root"), {"ground": "soil"})
    found = begin(tmp_path, ("soil", "cell", "root")).summary()
    assert found["mean_iou"] == pytest.approx(before)
    assert [i["iou"] is None for i in found["iou"]] == [False, False, True]


def test_a_class_that_is_left_out_after_the_first_stroke_changes_no_score(tmp_path):
    score = begin(tmp_path, ("ground", "unused", "cell"))
    score.before_first_stroke(0, {"head": 2 * truth(3)})
    score.rename(("ground", "cell"), {})
    score.rename(("soil", "cell"), {"ground": "soil"})
    begin(tmp_path, ("soil", "cell")).accepted(0, truth(4), "head")
    found = begin(tmp_path, ("soil", "cell")).summary()
    assert found["mean_iou"] == pytest.approx((30 / 40 + 40 / 50) / 2)


def test_a_network_that_may_have_seen_labels_of_an_image_is_not_scored_on_it(tmp_path):
    begin(tmp_path).before_first_stroke(0, {})  # all that was painted then was erased
    score = begin(tmp_path)
    for number in (0, 1):
        accept(score, number, truth(4), head=truth(3), network=truth(4))
    assert [set(s.matrices) for s in score._record.accepted] == [{"head"}, {"head", "network"}]


def test_an_image_predicted_by_a_model_of_fewer_classes_is_scored_among_all(tmp_path):
    score, mask = begin(tmp_path, (*CLASSES, "root")), truth(4)
    mask[6:] = 2
    accept(score, 0, mask, head=truth(4))
    assert score.summary()["iou"][2] == {"name": "root", "iou": 0}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(InputError, match="is damaged; delete it"):
        begin(tmp_path)


def test_the_gain_of_more_images_is_that_of_the_power_law_that_made_the_scores():
    n = np.arange(1, 21)
    errors = 0.5 * n**-0.5
    gain, low, high = expected_gain(1 - errors, 10)
    assert gain == pytest.approx(0.5 * (21**-0.5 - 31**-0.5), abs=1e-9)
    assert low == pytest.approx(gain)
    assert high == pytest.approx(gain)


def test_nothing_is_said_of_the_gain_before_eight_images():
    assert expected_gain([0.5] * 7, 10) is None
    gain, low, high = expected_gain([0.5, 0.7, 0.6, 0.8, 0.6, 0.9, 0.7, 0.8], 10)
    assert low < gain < high
    assert gain > 0


def test_the_interval_of_the_gain_holds_the_true_gain():
    rng, held = np.random.default_rng(0), 0
    n = np.arange(1, 25)
    for _ in range(200):
        errors = 0.5 * n**-0.4 * np.exp(rng.normal(0, 0.3, len(n)))
        _, low, high = expected_gain(1 - np.minimum(errors, 1), 10)
        expected = 0.5 * (25**-0.4 - 35**-0.4)
        held += low <= expected <= high
    assert held >= 180
