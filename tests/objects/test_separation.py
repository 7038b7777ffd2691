"""Touching objects told apart: discs whose number is known."""

import numpy as np
import pytest

from unetseg.classes import ClassTable, SegmentationClass
from unetseg.errors import InputError
from unetseg.objects.separation import find_objects, object_classes


def separate(labels, kind, border=None, confidence=None):
    return find_objects(labels, {kind: border}, confidence).numbers


def discs(places, radius=12, shape=(80, 120)):
    """Return (H, W) the union of discs."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.any([(y - r) ** 2 + (x - c) ** 2 <= radius**2 for r, c in places], 0)


def outlined(places, radius=12, shape=(80, 120)):
    """Return a mask 0, 1 inside, 2 border, as `convert --instances` makes it, of discs."""
    numbers = np.zeros(shape, int)
    for k, place in enumerate(places, 1):
        numbers[discs([place], radius, shape)] = k
    padded = np.pad(numbers, 1, mode="edge")
    windows = [padded[a : a + shape[0], b : b + shape[1]] for a in range(3) for b in range(3)]
    border = np.any([w != numbers for w in windows], 0)
    return np.where(numbers > 0, np.where(border, 2, 1), 0).astype(np.uint8), numbers


@pytest.mark.parametrize("apart", [30, 24, 20, 17])
def test_two_discs_are_two_objects_until_they_nearly_cover_each_other(apart):
    area = discs([(40, 40), (40, 40 + apart)])
    found = separate(area.astype(np.uint8), 1)
    assert set(np.unique(found)) == {0, 1, 2}
    assert ((found > 0) == area).all()
    middle = 40 + apart / 2
    columns = np.arange(120)
    assert (found[:, columns < middle - 1] != 2).all()
    assert (found[:, columns > middle + 1] != 1).all()


def test_discs_that_nearly_coincide_are_one_object():
    assert separate(discs([(40, 40), (40, 46)]).astype(np.uint8), 1).max() == 1


@pytest.mark.parametrize("angle", [0, 20, 45, 70])
def test_a_long_ellipse_with_a_ragged_outline_is_one_object(angle):
    y, x = np.mgrid[:100, :100] - 50.0
    a = np.deg2rad(angle)
    u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    rng = np.random.default_rng(angle)
    area = (u / 40) ** 2 + (v / 14) ** 2 + rng.normal(0, 0.03, x.shape) <= 1
    found = separate(area.astype(np.uint8), 1)
    assert np.bincount(found[found > 0]).max() >= 0.97 * area.sum()


def test_a_chain_of_five_discs_is_five_objects_numbered_by_their_first_pixels():
    places = [(12, 20), (30, 30), (50, 30), (68, 42), (67, 65)]
    found = separate(discs(places).astype(np.uint8), 1)
    assert len({found[place] for place in places}) == found.max() == 5
    firsts = [np.flatnonzero(found == number)[0] for number in range(1, 6)]
    assert firsts == sorted(firsts)


def test_border_pixels_go_to_the_objects_that_they_surround():
    places = [(40, 30), (40, 52), (40, 74)]  # they overlap by two pixels
    mask, truth = outlined(places)
    found = separate(mask, 1, border=2)
    assert found.max() == 3
    assert ((found > 0) == (mask > 0)).all()
    for place in places:
        same = (found == found[place]) == (truth == truth[place])
        assert same.mean() > 0.995


def test_a_gap_in_the_learned_border_is_bridged():
    mask, _ = outlined([(40, 30), (40, 53)])
    mask[38:43, 38:46][mask[38:43, 38:46] == 2] = 1  # the border is missing over five rows
    assert separate(mask, 1, border=2).max() == 2


def test_a_speck_of_border_without_an_inside_is_an_object_of_its_own():
    mask, _ = outlined([(40, 30)])
    mask[10:12, 100:102] = 2
    assert separate(mask, 1, border=2).max() == 2


def test_up_to_three_pixels_of_border_without_an_inside_are_no_object():
    mask, _ = outlined([(40, 30)])
    alone = separate(mask, 1, border=2)
    mask[10, 100:103] = mask[70, 60] = 2
    np.testing.assert_array_equal(separate(mask, 1, border=2), alone)
    mask[20, 100:103] = 1  # they have an inside
    assert separate(mask, 1, border=2).max() == 2


def test_a_dip_of_confidence_parts_what_the_outline_does_not():
    area = np.zeros((40, 80), np.uint8)
    area[10:30, 10:70] = 1  # one rectangle
    sure = np.full(area.shape, 250, np.uint8)
    assert separate(area, 1, confidence=sure).max() == 1
    sure[:, 38:42] = 90
    assert separate(area, 1, confidence=sure).max() == 2


def test_other_classes_and_ignored_pixels_are_no_objects():
    mask = np.array([[1, 1, 255], [0, 2, 2], [1, 0, 2]], np.uint8)
    assert separate(mask, 1).tolist() == [[1, 1, 0], [0, 0, 0], [2, 0, 0]]


def test_pixels_that_touch_by_a_corner_are_one_object():
    line = np.pad(np.eye(3, dtype=np.uint8), 5)
    assert separate(line, 1).tolist() == line.tolist()


def blobs(seed, shape=(150, 170)):
    """Return a mask of two classes, one with a border, and a confidence."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), s) for s in (4, 9)]
    first, second = (field / field.std() for field in fields)
    labels = np.where(first > 0.3, 1, np.where(first > 0, 2, np.where(second > 0, 3, 0)))
    return labels.astype(np.uint8), rng.integers(100, 255, shape).astype(np.uint8)


@pytest.mark.parametrize("tile", [20, 37, 64])
@pytest.mark.parametrize("seed", range(2))
def test_objects_do_not_depend_on_the_tiles(tile, seed):
    labels, sure = blobs(seed)
    classes = {3: None, 1: 2}
    whole = find_objects(labels, classes, sure)
    parts = find_objects(labels, classes, sure, tile=tile)
    assert whole.areas.min() > 0
    assert len(whole.kinds) > 50
    np.testing.assert_array_equal(parts.numbers, whole.numbers)
    np.testing.assert_array_equal(parts.kinds, whole.kinds)
    np.testing.assert_array_equal(parts.areas, np.bincount(whole.numbers.ravel())[1:])


def test_an_object_wider_than_many_tiles_is_one():
    area = discs([(300, 300)], 280, (600, 600)).astype(np.uint8)
    found = find_objects(area, {1: None}, tile=150)
    assert found.areas.tolist() == [area.sum()]


def test_an_empty_mask_has_no_objects():
    assert separate(np.zeros((5, 7), np.uint8), 1).tolist() == np.zeros((5, 7), int).tolist()
    assert separate(np.zeros((5, 7), np.uint8), 1, border=2).max() == 0


def table(*names):
    return ClassTable(tuple(SegmentationClass(n, k, "#ffffff") for k, n in enumerate(names)))


def test_the_border_of_a_class_bears_its_name_or_stands_for_all():
    several = table("background", "cell", "dust", "cell border")
    assert object_classes(several, ["cell", "dust"]) == {1: 3, 2: None}
    assert object_classes(table("background", "foreground", "border"), ["all"]) == {1: 2}


def test_a_border_that_several_classes_could_own_is_the_border_of_none():
    shared = table("background", "cell", "dust", "border")
    assert object_classes(shared, ["all"]) == {1: None, 2: None}
    assert object_classes(shared, ["cell"]) == {1: None}


def test_all_are_the_classes_but_the_background_and_borders():
    assert object_classes(table("background", "cell", "dust"), ["all"]) == {1: None, 2: None}
    assert object_classes(table("cell", "Background"), ["all"]) == {0: None}


def test_without_a_class_called_background_value_0_or_black_is_it_and_that_is_said():
    said = []
    values = ClassTable(
        (SegmentationClass("0", 0, "#000000"), SegmentationClass("255", 255, "#ffffff"))
    )
    assert object_classes(values, ["all"], said.append) == {1: None}
    assert "class 0 is taken for the background" in said[0].text
    colours = ClassTable(
        (SegmentationClass("red", None, "#ff0000"), SegmentationClass("black", None, "#000000"))
    )
    assert object_classes(colours, ["all"], said.append) == {0: None}
    assert object_classes(values, ["0"], said.append) == {0: None}
    assert len(said) == 2


def test_all_is_refused_where_nobody_knows_which_class_is_the_background():
    several = ClassTable(
        (SegmentationClass("1", 1, "#000000"), SegmentationClass("2", 2, "#ffffff"))
    )
    with pytest.raises(InputError, match=r"'all' may hold the background.*name some of 1, 2"):
        object_classes(several, ["all"])


@pytest.mark.parametrize("name", ["cel", "border"])
def test_what_has_no_objects_is_refused_with_the_nearest_name(name):
    with pytest.raises(InputError, match=r"objects: '.*' is no class with objects; .*cell"):
        object_classes(table("background", "cell", "border"), [name])
