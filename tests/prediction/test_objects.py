"""Objects: hand-worked masks, and the whole labelled at once against bands of any height."""

import numpy as np
import pytest
from scipy import ndimage

from unetseg.prediction.objects import ObjectCounter, label_objects


def areas_of(labels, classes, heights):
    counter, row = ObjectCounter(classes), 0
    for height in heights:
        counter.add(labels[row : row + height])
        row += height
    assert row == len(labels)
    return [found.tolist() for found in counter.areas()]


def areas_of_the_whole(labels, classes):
    found = []
    for k in range(classes):
        numbers, _ = ndimage.label(labels == k, np.ones((3, 3)))
        found.append(sorted(np.bincount(numbers.ravel())[1:].tolist()))
    return found


def random_heights(rows, rng):
    heights = []
    while sum(heights) < rows:
        heights.append(int(min(rng.integers(1, 9), rows - sum(heights))))
    return heights


def test_pixels_that_touch_by_a_corner_are_one_object():
    labels = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 2, 0]], np.uint8)
    numbers, kinds = label_objects(labels)
    assert kinds.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(numbers, labels + 1)
    assert areas_of(labels, 4, [1, 1, 1]) == [[7], [2], [3], []]


def test_ignored_pixels_are_of_no_object_and_join_none():
    labels = np.array([[1, 255, 1], [255, 255, 255], [1, 1, 255]], np.uint8)
    numbers, kinds = label_objects(labels)
    assert kinds.tolist() == [1, 1, 1]
    assert (numbers == 0).sum() == 5
    assert areas_of(labels, 2, [2, 1]) == [[], [1, 1, 2]]
    assert areas_of(np.full((3, 2), 255, np.uint8), 2, [1, 2]) == [[], []]


def test_a_later_band_joins_what_were_two_objects():
    labels = np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0]], np.uint8)
    assert areas_of(labels[:2], 2, [1, 1]) == [[2], [2, 2]]
    assert areas_of(labels, 2, [1, 1, 1, 1]) == [[2, 3], [7]]


def test_a_checkerboard_is_two_objects_in_any_bands():
    labels = (np.indices((8, 5)).sum(0) % 2).astype(np.uint8)
    assert areas_of(labels, 2, [3, 1, 4]) == [[20], [20]]


@pytest.mark.parametrize("seed", range(30))
def test_bands_of_any_height_give_the_objects_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    rows, columns, classes = rng.integers(1, 40), rng.integers(1, 40), rng.integers(1, 5)
    labels = rng.integers(0, classes, (rows, columns)).astype(np.uint8)
    if seed % 2:  # larger objects, of all shapes
        labels = ndimage.zoom(labels, 3, order=0)[:, : columns * 2]
        labels = np.where(rng.random(labels.shape) < 0.1, rng.integers(0, classes), labels)
    labels = np.where(rng.random(labels.shape) < 0.1, 255, labels).astype(np.uint8)
    heights = random_heights(len(labels), rng)
    assert areas_of(labels, classes, heights) == areas_of_the_whole(labels, classes)


def test_a_snake_is_one_object_and_what_lies_between_its_turns_are_several():
    labels = np.zeros((9, 9), np.uint8)
    labels[::2] = labels[1::4, -1] = labels[3::4, 0] = 1
    assert areas_of(labels, 2, [1] * 9) == [[8, 8, 8, 8], [49]]
    assert areas_of(labels[::-1], 2, [2, 5, 2]) == [[8, 8, 8, 8], [49]]


def test_no_band_has_no_object():
    assert [found.tolist() for found in ObjectCounter(2).areas()] == [[], []]


@pytest.mark.parametrize(
    "band", [np.zeros((1, 4), np.uint8), np.zeros((0, 3), np.uint8), np.full((1, 3), 2, np.uint8)]
)
def test_bands_that_do_not_fit_are_refused(band):
    counter = ObjectCounter(2)
    counter.add(np.zeros((1, 3), np.uint8))
    with pytest.raises(ValueError):
        counter.add(band)
