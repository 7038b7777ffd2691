import json
import warnings

import numpy as np
import pytest
import sklearn.metrics

from unetseg.scoring import metrics
from unetseg.scoring.intervals import of_ratios
from unetseg.scoring.metrics import confusion, iou_of, scores

# Worked by hand: rows truth, columns prediction. IoU: a 3 / (3 + 1 + 2), b 4 / (4 + 2 + 1).
FIRST = np.array([[3, 1], [2, 4]])


def random_pair(seed=0, shape=(40, 50), classes=4):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape, dtype=np.uint8)
    prediction = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, classes, shape))
    return truth, prediction.astype(np.uint8)


def test_rows_are_truth_and_columns_prediction():
    truth = np.array([[0, 0, 1], [1, 1, 255]])
    prediction = np.array([[0, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(confusion(truth, prediction, 2), [[1, 1], [1, 2]])


@pytest.mark.parametrize("classes", [4, 255])
def test_confusion_equals_scikit_learns(classes):
    truth, prediction = random_pair(classes=classes)
    expected = sklearn.metrics.confusion_matrix(
        truth.ravel(), prediction.ravel(), labels=range(classes)
    )
    matrix = confusion(truth, prediction, classes)
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.int64


def test_ignored_pixels_are_not_counted_whatever_is_predicted_there():
    truth, prediction = random_pair()
    truth[:5] = 255
    prediction[0] = 255
    matrix = confusion(truth, prediction, 4)
    np.testing.assert_array_equal(matrix, confusion(truth[5:], prediction[5:], 4))


def test_a_pixel_without_a_predicted_class_counts_as_wrong():
    truth, prediction = np.array([0, 0, 1, 2, 2, 255]), np.array([0, 255, 255, 2, 255, 255])
    matrix = confusion(truth, prediction, 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [1, 0, 0], [1, 0, 1]])


def test_an_image_counted_in_pieces_gives_the_same_matrix(monkeypatch):
    truth, prediction = random_pair()
    whole = confusion(truth, prediction, 4)
    monkeypatch.setattr(metrics, "_CHUNK", 77)
    np.testing.assert_array_equal(confusion(truth, prediction, 4), whole)


@pytest.mark.parametrize(
    ("truth", "prediction"), [([2], [0]), ([0], [2]), ([0], [-1]), ([-1], [0])]
)
def test_an_index_that_is_no_class_is_refused(truth, prediction):
    with pytest.raises(ValueError, match="outside"):
        confusion(np.array(truth), np.array(prediction), 2)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)


def test_ratios_of_a_matrix_worked_by_hand():
    found = scores(FIRST[None], ["x"], ["a", "b"])
    assert found.iou == pytest.approx({"a": 3 / 6, "b": 4 / 7})
    assert found.dice == pytest.approx({"a": 6 / 9, "b": 8 / 11})
    assert found.precision == pytest.approx({"a": 3 / 5, "b": 4 / 5})
    assert found.recall == pytest.approx({"a": 3 / 4, "b": 4 / 6})
    assert found.mean_iou == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert found.mean_iou_without_first == pytest.approx(4 / 7)
    assert found.pixel_accuracy == pytest.approx(7 / 10)
    assert found.pixels == {"a": 4, "b": 6}


@pytest.mark.parametrize("seed", range(4))
def test_ratios_of_random_masks_equal_scikit_learns(seed):
    # Five classes of which one is absent, a tenth of the pixels ignored, two images pooled.
    truth, prediction = random_pair(seed, (2, 40, 50))
    truth[truth == 2], prediction[prediction == 2] = 4, 4
    truth[np.random.default_rng(seed).random(truth.shape) < 0.1] = 255
    matrices = np.stack([confusion(t, p, 5) for t, p in zip(truth, prediction, strict=True)])
    found = scores(matrices, "xy", "abcde")
    valid = truth != 255
    flat = truth[valid], prediction[valid]
    assert found.pixel_accuracy == pytest.approx(sklearn.metrics.accuracy_score(*flat))
    assert found.absent == ("c",)
    for ratios, oracle in (
        (found.iou, sklearn.metrics.jaccard_score),
        (found.dice, sklearn.metrics.f1_score),
        (found.precision, sklearn.metrics.precision_score),
        (found.recall, sklearn.metrics.recall_score),
    ):
        expected = oracle(*flat, average=None, labels=[0, 1, 3, 4])
        assert [ratios[c] for c in "abde"] == pytest.approx(expected.tolist())
    shown = [v for v in found.iou.values() if v is not None]
    assert found.mean_iou == pytest.approx(np.mean(shown))


@pytest.mark.slow  # for the import of torchmetrics, which takes seconds
def test_mean_iou_equals_that_of_torchmetrics():
    torch = pytest.importorskip("torch")
    oracle = pytest.importorskip("torchmetrics.functional.classification")
    truth, prediction = random_pair()
    truth[truth == 2], prediction[prediction == 2] = 3, 3  # class 2 is absent
    truth[:4] = 255
    tensors = torch.from_numpy(prediction), torch.from_numpy(truth)
    options = {"num_classes": 4, "ignore_index": 255}
    expected = oracle.multiclass_jaccard_index(*tensors, **options).item()
    each = oracle.multiclass_jaccard_index(*tensors, **options, average=None).tolist()
    found = scores(confusion(truth, prediction, 4)[None], ["x"], "abcd")
    assert found.mean_iou == pytest.approx(expected, abs=1e-6)
    assert [found.iou[c] for c in "abd"] == pytest.approx([each[c] for c in (0, 1, 3)], abs=1e-6)


def test_mean_iou_comes_from_pooled_counts_and_the_other_from_image_means():
    second = np.array([[8, 0], [2, 0]])  # IoU: a 8 / 10, b 0 / 2
    found = scores(np.stack([FIRST, second]), ["x", "y"], ["a", "b"])
    assert found.mean_iou == pytest.approx((11 / 16 + 4 / 9) / 2)
    assert found.mean_iou_per_image == pytest.approx(((3 / 6 + 4 / 7) / 2 + (8 / 10 + 0) / 2) / 2)


def test_class_absent_from_truth_and_prediction_scores_none_and_stays_out_of_the_mean():
    found = scores(np.diag([5, 0, 5])[None], ["x"], ["a", "b", "c"])
    assert found.iou == {"a": 1.0, "b": None, "c": 1.0}
    assert found.dice["b"] is found.precision["b"] is found.recall["b"] is None
    assert found.mean_iou == 1.0
    assert found.absent == ("b",)


def test_class_that_is_only_predicted_scores_zero():
    found = scores(np.array([[[5, 5], [0, 0]]]), ["x"], ["a", "b"])
    assert found.iou == {"a": 0.5, "b": 0.0}
    assert found.recall["b"] is None
    assert found.absent == ()


def test_an_image_counts_the_classes_that_it_holds():
    matrices = np.stack([np.diag([4, 0]), np.array([[1, 1], [1, 1]])])
    found = scores(matrices, ["x", "y"], ["a", "b"])
    assert found.mean_iou_per_image == pytest.approx((1 + 1 / 3) / 2)
    assert found.to_dict()["per_image"] == [
        {"name": "x", "mean_iou": 1.0, "iou": {"a": 1.0, "b": None}},
        {
            "name": "y",
            "mean_iou": pytest.approx(1 / 3),
            "iou": pytest.approx({"a": 1 / 3, "b": 1 / 3}),
        },
    ]


@pytest.mark.parametrize("matrices", [np.zeros((0, 2, 2), int), np.zeros((1, 2, 2), int)])
def test_nothing_counted_gives_null_never_nan(matrices):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores(matrices, ["x"][: len(matrices)], ["a", "b"]).to_dict()
    assert found["mean_iou"] is found["pixel_accuracy"] is found["mean_iou_per_image"] is None
    assert found["absent"] == ["a", "b"]
    json.dumps(found, allow_nan=False)


def test_dictionary_has_the_keys_of_the_contract_and_plain_types():
    found = scores(np.stack([FIRST, FIRST]), ["x", "y"], ["a", "b"]).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) >= {
        "images", "mean_iou", "iou", "mean_iou_ci95", "iou_ci95", "dice", "precision", "recall",
        "pixel_accuracy", "mean_iou_per_image", "confusion", "per_image", "absent",
    }  # fmt: skip
    assert found["images"] == 2
    assert found["confusion"] == [[6, 2], [4, 8]]
    assert found["mean_iou_ci95"] is None
    assert found["iou_ci95"] == {"a": None, "b": None}
    assert found["units"] == 2
    assert "groups" not in found


# Of three images the intersection of a is 9, 8, 7 of a union of 10, as in test_intervals.py.
THREE = np.array([[[n, 10 - n], [0, 20]] for n in (9, 8, 7)])


def test_intervals_are_those_of_the_pooled_pixels():
    found = scores(THREE, "xyz", ["a", "b"])
    part = np.array([[9, 20], [8, 20], [7, 20]])
    mean, classes = of_ratios(part, np.array([[10, 21], [10, 22], [10, 23]]))
    assert found.mean_iou_ci95 == tuple(mean)
    assert found.iou_ci95 == {"a": tuple(classes[0]), "b": tuple(classes[1])}
    plain = found.to_dict()
    assert plain["mean_iou_ci95"] == list(mean)
    assert plain["iou_ci95"]["b"] == list(classes[1])
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_intervals_over_groups_are_those_of_their_sums():
    matrices = np.concatenate([THREE, THREE[::-1] * 2])  # 9 8 7 14 16 18
    groups = ["q", "p", "q", "r", "p", "r"]
    found = scores(matrices, "uvwxyz", ["a", "b"], groups)
    summed = np.stack([matrices[[0, 2]].sum(0), matrices[[1, 4]].sum(0), matrices[[3, 5]].sum(0)])
    expected = scores(summed, "qpr", ["a", "b"])
    assert found.iou_ci95 == expected.iou_ci95
    assert found.mean_iou_ci95 == expected.mean_iou_ci95
    assert (found.groups, found.units) == (tuple(groups), 3)
    assert found.to_dict()["groups"] == groups
    assert found.to_dict()["units"] == 3


def test_images_of_one_group_are_one_unit_and_have_no_interval():
    found = scores(THREE, "xyz", ["a", "b"], ["same"] * 3)
    assert found.mean_iou_ci95 is None
    assert found.iou == scores(THREE, "xyz", ["a", "b"]).iou


def test_groups_that_do_not_fit_the_names_are_refused():
    with pytest.raises(ValueError, match="2 groups do not fit 3 names"):
        scores(THREE, "xyz", ["a", "b"], ["p", "q"])


def test_names_that_do_not_fit_the_matrices_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        scores(FIRST[None], ["x", "y"], ["a", "b"])


def test_iou_of_a_stack_is_that_of_each():
    stack = np.stack([FIRST, FIRST.T, np.diag([1, 0])])
    np.testing.assert_array_equal(iou_of(stack), [iou_of(m) for m in stack])


def test_ratios_of_each_image_are_those_worked_by_hand():
    # 3 pixels of a: 2 found, 1 taken for b; 5 pixels of b: 4 found, 1 taken for a. No pixel of c.
    matrix = np.array([[2, 1, 0], [1, 4, 0], [0, 0, 0]])
    empty = np.zeros((3, 3), np.int64)
    found = scores(np.stack([matrix, empty]), ["one", "two"], ["a", "b", "c"]).of_images()
    nan = np.nan
    expected = {
        "iou": [2 / 4, 4 / 6, nan],
        "dice": [4 / 6, 8 / 10, nan],
        "precision": [2 / 3, 4 / 5, nan],
        "recall": [2 / 3, 4 / 5, nan],
        "specificity": [4 / 5, 2 / 3, 1.0],  # of 5, 3 and 8 pixels of other classes
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], [values, [nan] * 3])


@pytest.mark.parametrize(
    ("matrix", "is_warned"),
    [([[90, 0], [10, 0]], True), ([[90, 0], [9, 1]], False), ([[80, 10], [10, 0]], True)],
)
def test_masks_no_better_than_the_most_common_class_are_warned_of(matrix, is_warned):
    note = scores(np.array([matrix]), ["one"], ["a", "b"]).table().note
    assert "the most common class everywhere would score 0.4500" in note
    assert ("warning: the most common" in note) == is_warned
    assert ("train longer, or look at the labels" in note) == is_warned
