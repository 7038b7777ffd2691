"""Post-processing: hand-worked masks, and every pixel's nearest neighbour found by brute force."""

import numpy as np
import pytest
from scipy import ndimage

from unetseg.prediction.objects import label_objects
from unetseg.prediction.postprocessing import PostProcessing, clean


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
    # 2 and 3 touch one another; what is nearest of what stays is 0 on the left, 1 on the right.
    found = clean(mask("002311 002311"), PostProcessing(min_size=3))
    np.testing.assert_array_equal(found, mask("000111 000111"))


def test_an_objects_size_counts_with_its_holes():
    ring = mask("..... .111. .1.1. .111. .....")
    np.testing.assert_array_equal(
        clean(ring, PostProcessing(min_size=9, fill_holes=(1,))),
        mask("..... .111. .111. .111. ....."),
    )
    assert not clean(ring, PostProcessing(min_size=10, fill_holes=(1,))).any()


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
