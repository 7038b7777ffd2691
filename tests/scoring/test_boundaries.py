"""Borders: against MONAI where its definitions are ours, by hand where they are not."""

import json
import warnings

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from unetseg.scoring.boundaries import BoundaryScores, boundary_scores, pool_boundaries

INF = float("inf")


def blobs(seed, shape, classes, smooth):
    """Return a mask of random blobs, some classes possibly absent."""
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    return np.array([ndimage.gaussian_filter(n, smooth) for n in noise]).argmax(0).astype(np.uint8)


def one_hot(mask, classes):
    return torch.from_numpy(np.stack([mask == c for c in range(classes)])[None].astype(np.float32))


def monai(truth, prediction, classes, tolerance):
    """Return MONAI's surface Dice and 95 % Hausdorff distance by class; NaN for neither."""
    masks = one_hot(prediction, classes), one_hot(truth, classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of absent classes
        dice = compute_surface_dice(*masks, [tolerance] * classes, include_background=True)
        far = compute_hausdorff_distance(*masks, include_background=True, percentile=95)
    return dice[0].numpy(), far[0].numpy()


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0, 2.5])
@pytest.mark.parametrize(
    ("shape", "classes", "smooth"), [((40, 56), 3, 3), ((31, 17), 4, 0), ((25, 90), 2, 5)]
)
def test_scores_equal_monais(shape, classes, smooth, tolerance):
    for seed in range(2):
        truth = blobs(seed, shape, classes, smooth)
        prediction = blobs(seed, shape, classes, smooth * 0.8)
        found = boundary_scores(truth, prediction, classes, tolerance)
        dice, far = monai(truth, prediction, classes, tolerance)
        np.testing.assert_allclose(np.array(found.surface_dice, float), dice, atol=1e-6)
        np.testing.assert_allclose(np.array(found.distance, float), far, atol=1e-5)


def test_ignored_pixels_are_of_no_class_in_either_mask():
    truth, prediction = blobs(5, (48, 50), 3, 3), blobs(6, (48, 50), 3, 3)
    hidden = blobs(7, (48, 50), 2, 4) == 1
    found = boundary_scores(np.where(hidden, 255, truth), prediction, 3, 2)
    # A fourth class, of no interest, stands for them in both masks.
    truth, prediction = (np.where(hidden, 3, mask) for mask in (truth, prediction))
    dice, far = monai(truth, prediction, 4, 2)
    np.testing.assert_allclose(np.array(found.surface_dice, float), dice[:3], atol=1e-6)
    np.testing.assert_allclose(np.array(found.distance, float), far[:3], atol=1e-5)


def test_a_square_that_is_shifted_has_scores_worked_by_hand():
    truth = np.zeros((20, 30), np.uint8)
    truth[5:10, 5:10] = 1
    prediction = np.zeros((20, 30), np.uint8)
    prediction[5:10, 8:13] = 1
    # Either border has 16 pixels. The left side of the true border (5) is 3 away from the other's
    # left side. Above and below, columns 6 and 7 are 2 and 1 away; 8 and 9 lie on the other border.
    # Each column has 2 pixels. The middle of the right side (3) is 1 away from the other's left
    # side.
    for tolerance, within in ((0, 4), (1, 9), (2, 11), (3, 16)):
        found = boundary_scores(truth, prediction, 2, tolerance)
        assert (found.within[1], found.total[1]) == (2 * within, 32)
        assert found.surface_dice[1] == within / 16
    assert found.distance[1] == 3.0  # over 5 % of the distances: 5 of 16


def test_borders_at_ignored_areas_agree_where_both_masks_reach_them():
    truth = np.array([[0, 0, 1, 1, 255, 255, 0, 0]] * 3, np.uint8)
    prediction = np.array([[0, 0, 1, 1, 1, 0, 0, 0]] * 3, np.uint8)
    found = boundary_scores(truth, prediction, 2, 0)
    assert found.surface_dice == (1.0, 1.0)
    assert found.distance == (0.0, 0.0)


def test_a_class_in_one_mask_is_infinitely_far_and_one_in_neither_has_no_score():
    truth, prediction = np.zeros((6, 6), np.uint8), np.zeros((6, 6), np.uint8)
    prediction[2:4, 2:4] = 1
    for masks in ((truth, prediction), (prediction, truth)):
        found = boundary_scores(*masks, 3, 5)
        assert found.surface_dice[1:] == (0.0, None)
        assert found.distance[1:] == (INF, None)
        assert (found.within[1:], found.total[1:]) == ((0, 0), (4, 0))


def test_a_mask_that_is_all_ignored_has_no_borders():
    found = boundary_scores(np.full((4, 5), 255, np.uint8), np.zeros((4, 5), np.uint8), 2, 1)
    assert found == BoundaryScores(1, (0, 0), (0, 0), (None, None))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_tiny_images_are_all_border(shape):
    mask = np.ones(shape, np.uint8)
    found = boundary_scores(mask, mask, 2, 0)
    assert found == BoundaryScores(0, (0, 2 * mask.size), (0, 2 * mask.size), (None, 0.0))


@pytest.mark.parametrize(
    ("truth", "prediction", "tolerance"),
    [
        (np.zeros((2, 2)), np.zeros((2, 3)), 1),
        (np.zeros(4), np.zeros(4), 1),
        (np.full((2, 2), 2), np.zeros((2, 2)), 1),
        (np.zeros((2, 2)), np.full((2, 2), 255), 1),
        (np.zeros((2, 2)), np.zeros((2, 2)), -1),
        (np.zeros((2, 2)), np.zeros((2, 2)), INF),
    ],
)
def test_what_does_not_fit_is_refused(truth, prediction, tolerance):
    with pytest.raises(ValueError):
        boundary_scores(truth.astype(np.uint8), prediction.astype(np.uint8), 2, tolerance)


def test_images_are_pooled_by_border_pixels_and_by_the_median_distance():
    images = [
        BoundaryScores(2.0, (90, 10, 0, 0), (100, 20, 5, 0), (1.0, 4.0, INF, None)),
        BoundaryScores(2.0, (10, 30, 6, 0), (10, 40, 7, 0), (2.0, 6.0, 3.0, None)),
        BoundaryScores(2.0, (0, 0, 0, 0), (0, 0, 4, 0), (None, None, INF, None)),
    ]
    found = pool_boundaries(images, ("a", "b", "c", "d"))
    assert found.surface_dice == {"a": 100 / 110, "b": 40 / 60, "c": 6 / 16, "d": None}
    assert found.mean_surface_dice == pytest.approx((100 / 110 + 40 / 60 + 6 / 16) / 3)
    assert found.distance == {"a": 1.5, "b": 5.0, "c": INF, "d": None}
    assert found.one_sided == {"a": 0, "b": 0, "c": 2, "d": 0}
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["hd95"] == {"a": 1.5, "b": 5.0, "c": None, "d": None}
    assert data["surface_dice"] == found.surface_dice


@pytest.mark.parametrize("classes", [("a",), ("a", "b", "c")])
def test_images_of_other_classes_or_tolerances_are_not_pooled(classes):
    one = BoundaryScores(2.0, (1, 1), (2, 2), (0.0, 0.0))
    with pytest.raises(ValueError):
        pool_boundaries([one], classes)
    with pytest.raises(ValueError):
        pool_boundaries([one, BoundaryScores(1.0, (1, 1), (2, 2), (0.0, 0.0))], ("a", "b"))
    with pytest.raises(ValueError):
        pool_boundaries([], ("a", "b"))
