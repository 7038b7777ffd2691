"""Objects: hand-worked masks, and the whole labelled at once against bands of any height."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from unetseg.objects.counting import ObjectCounter, PostProcessing, clean, label_objects


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


# --- mending ---------------------------------------------------------------------------------


def mask(text):
    """Return a mask from its rows; a dot is class 0, # an ignored pixel."""
    rows = [row.replace(".", "0") for row in text.split()]
    return np.array([[255 if c == "#" else int(c) for c in row] for row in rows], np.uint8)


def test_without_rules_the_mask_itself_is_returned():
    labels = mask("010 101")
    assert clean(labels, PostProcessing()) is labels


def test_what_a_class_encloses_becomes_it():
    labels = mask("..... .111. .1.1. .121. .111.")
    found = clean(labels, PostProcessing(fill_holes=(1,)))
    np.testing.assert_array_equal(found, mask("..... .111. .111. .111. .111."))


def test_an_area_that_reaches_the_edge_is_no_hole():
    labels = mask("111 1.1 1.1")
    np.testing.assert_array_equal(clean(labels, PostProcessing(fill_holes=(1,))), labels)


def test_an_outline_that_touches_by_corners_alone_is_closed():
    labels = mask("..1.. .1.1. 1...1 .1.1. ..1..")
    found = clean(labels, PostProcessing(fill_holes=(1,)))
    np.testing.assert_array_equal(found, mask("..1.. .111. 11111 .111. ..1.."))


def test_only_holes_of_the_named_classes_are_filled():
    labels = mask("1112 1.12 1112 2222")
    np.testing.assert_array_equal(clean(labels, PostProcessing(fill_holes=(2,))), labels)


def test_only_the_largest_object_of_a_class_stays():
    labels = mask("11..2 11..2 ..... 1...2")
    found = clean(labels, PostProcessing(largest=(1,)))
    np.testing.assert_array_equal(found, mask("11..2 11..2 ..... ....2"))


def test_of_objects_as_large_the_first_stays():
    found = clean(mask("1...1 ..... 1...."), PostProcessing(largest=(1,)))
    np.testing.assert_array_equal(found, mask("1.... ..... ....."))


def test_small_objects_take_the_class_of_the_nearest_pixel():
    labels = mask("000111 020111 000121 000111")
    found = clean(labels, PostProcessing(min_size=2))
    np.testing.assert_array_equal(found, mask("000111 000111 000111 000111"))
    np.testing.assert_array_equal(clean(labels, PostProcessing(min_size=1)), labels)


def test_small_objects_take_no_class_from_each_other():
    # 2 and 3 touch one another; the nearest pixel that stays is 0 on the left, 1 on the right.
    found = clean(mask("002311 002311"), PostProcessing(min_size=3))
    np.testing.assert_array_equal(found, mask("000111 000111"))


def test_an_objects_size_counts_with_its_holes():
    ring = mask("..... .111. .1.1. .111. .....")
    np.testing.assert_array_equal(
        clean(ring, PostProcessing(min_size=9, fill_holes=(1,))),
        mask("..... .111. .111. .111. ....."),
    )
    assert not clean(ring, PostProcessing(min_size=10, fill_holes=(1,))).any()


def test_an_object_counts_with_its_border():
    mask = np.zeros((12, 20), np.uint8)
    mask[1:6, 1:6], mask[2:5, 2:5] = 2, 1  # 25 pixels: 9 inside, 16 of the border
    mask[1:11, 8:18], mask[2:10, 9:17] = 2, 1
    mask[5, 12] = 0  # a hole
    rules = PostProcessing(min_size=20, fill_holes=(1,), borders=((1, 2),))
    due = mask.copy()
    due[5, 12] = 1
    np.testing.assert_array_equal(clean(mask, rules), due)
    due[:7, :7] = 0
    np.testing.assert_array_equal(clean(mask, replace(rules, min_size=26)), due)


def test_a_gap_between_the_borders_of_objects_becomes_border():
    mask = np.full((9, 9), 2, np.uint8)  # four objects and a gap in their middle
    for row, column in ((1, 1), (1, 6), (6, 1), (6, 6)):
        mask[row : row + 2, column : column + 2] = 1
    mask[4, 4] = 0
    filled = clean(mask, PostProcessing(fill_holes=(1,), borders=((1, 2),)))
    assert filled[4, 4] == 2
    assert (filled != mask).sum() == 1


def test_where_nothing_would_stay_nothing_changes():
    labels = mask("01 10")
    np.testing.assert_array_equal(clean(labels, PostProcessing(min_size=3)), labels)


def test_ignored_pixels_stay_and_give_no_class():
    labels = mask("#1# #2# 111 111")
    found = clean(labels, PostProcessing(min_size=2))
    np.testing.assert_array_equal(found, mask("#1# #1# 111 111"))
    ring = mask("111 1#1 111")
    np.testing.assert_array_equal(clean(ring, PostProcessing(fill_holes=(1,))), ring)


def test_a_class_that_is_not_there_changes_nothing():
    labels = mask("0011 0011")
    rules = PostProcessing(largest=(7,), fill_holes=(7,))
    np.testing.assert_array_equal(clean(labels, rules), labels)


@pytest.mark.parametrize("seed", range(10))
def test_rules_hold_and_every_pixel_has_its_nearest_class(seed):
    rng = np.random.default_rng(seed)
    labels = ndimage.zoom(rng.integers(0, 3, (5, 6)), 4, order=0).astype(np.uint8)
    noisy = rng.random(labels.shape) < 0.1
    labels[noisy] = rng.choice([0, 1, 2, 255] if seed % 2 else [0, 1, 2], noisy.sum())
    before = labels.copy()
    found = clean(labels, PostProcessing(largest=(1,), min_size=12))
    np.testing.assert_array_equal(labels, before)
    lost = np.zeros(labels.shape, bool)
    for k in range(3):
        numbers, count = ndimage.label(labels == k, np.ones((3, 3)))
        areas = [(numbers == i).sum() for i in range(1, count + 1)]
        for i, area in enumerate(areas, 1):
            lost |= (numbers == i) & (area < 12 or (k == 1 and i != 1 + np.argmax(areas)))
    kept = np.argwhere(~lost & (labels != 255))
    np.testing.assert_array_equal(found[~lost], labels[~lost])
    for place in np.argwhere(lost):
        distances = ((kept - place) ** 2).sum(1)
        nearest = kept[distances == distances.min()]
        assert found[tuple(place)] in labels[nearest[:, 0], nearest[:, 1]]
    if not seed % 2:
        numbers, kinds = label_objects(found)
        assert np.bincount(numbers.ravel())[1:].min() >= 12
        assert (kinds == 1).sum() <= 1


@pytest.mark.parametrize(
    "rules", [{"largest": (255,)}, {"fill_holes": (-1,)}, {"min_size": -1}], ids=str
)
def test_rules_out_of_range_are_refused(rules):
    with pytest.raises(ValueError):
        PostProcessing(**rules)
