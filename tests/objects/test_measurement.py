"""Measurements of objects against closed forms and scikit-image."""

import math

import numpy as np
import pytest
from skimage import measure

from unetseg.objects.measurement import SHAPE_COLUMNS, Measuring, columns


def measure_objects(numbers, image, confidence=None, pixel_size=None):
    """Return the rows of `Measuring` for a whole label image (H, W)."""
    window = np.pad(numbers, ((2, 2), (0, 0)))
    return Measuring(numbers.shape, pixel_size).add(0, window, image, confidence)


def one(mask, image=None, **options):
    """Return the row of the single object of a mask."""
    mask = np.asarray(mask)
    image = np.zeros((*mask.shape, 1), np.uint8) if image is None else image
    (row,) = measure_objects(mask.astype(np.int32), image, **options)
    return row


def rectangle(height, width, angle=0.0, size=200):
    """Return a mask of a turned rectangle; angle in degrees, counter-clockwise."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    a = math.radians(angle)
    u, v = x * math.cos(a) - y * math.sin(a), x * math.sin(a) + y * math.cos(a)
    return (abs(u) <= width / 2) & (abs(v) <= height / 2)


def test_an_upright_rectangle_has_the_measures_of_its_sides():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:7] = True  # 3 rows, 4 columns
    row = one(mask)
    assert (row["left"], row["top"], row["right"], row["bottom"]) == (3, 2, 7, 5)
    assert (row["centroid_x"], row["centroid_y"]) == (4.5, 3.0)
    assert row["area"] == 12
    assert row["feret_max"] == pytest.approx(5)  # 3, 4, 5
    assert row["feret_min"] == pytest.approx(3)
    assert row["solidity"] == pytest.approx(1)
    assert row["orientation"] == pytest.approx(0)
    assert row["equivalent_diameter"] == pytest.approx(2 * math.sqrt(12 / math.pi))
    assert row["touches_border"] == 0


@pytest.mark.parametrize("angle", [0, 15, 30, 45, 60, 75, 89, -30, -60])
def test_a_turned_rectangle_keeps_its_measures_within_the_pixel_grid(angle):
    row = one(rectangle(30, 90, angle))
    assert row["area"] == pytest.approx(2700, rel=0.02)
    assert row["feret_max"] == pytest.approx(math.hypot(30, 90), abs=1.6)
    assert row["feret_min"] == pytest.approx(30, abs=1.6)
    assert row["orientation"] == pytest.approx(angle, abs=1)
    assert row["eccentricity"] == pytest.approx(math.sqrt(1 - 1 / 9), abs=0.01)


@pytest.mark.parametrize("radius", [10, 25, 60])
def test_a_disc_is_round(radius):
    y, x = np.ogrid[:150, :150]
    row = one((y - 75) ** 2 + (x - 75) ** 2 <= radius**2)
    assert row["area"] == pytest.approx(math.pi * radius**2, rel=0.02)
    assert row["equivalent_diameter"] == pytest.approx(2 * radius, rel=0.02)
    assert row["feret_max"] == pytest.approx(2 * radius + 1, abs=1)
    assert row["feret_min"] == pytest.approx(2 * radius + 1, abs=1)
    assert row["circularity"] > 0.88
    assert row["solidity"] > 0.9


@pytest.mark.parametrize("angle", [0, 20, 45, -70])
def test_an_ellipse_has_the_measures_of_its_axes(angle):
    y, x = np.mgrid[:200, :200] - 99.5
    a = math.radians(angle)
    u, v = x * math.cos(a) - y * math.sin(a), x * math.sin(a) + y * math.cos(a)
    row = one((u / 60) ** 2 + (v / 30) ** 2 <= 1)
    assert row["area"] == pytest.approx(math.pi * 60 * 30, rel=0.01)
    assert row["eccentricity"] == pytest.approx(math.sqrt(1 - 1 / 4), abs=0.005)
    assert row["orientation"] == pytest.approx(angle, abs=0.5)
    assert (row["centroid_x"], row["centroid_y"]) == pytest.approx((99.5, 99.5))
    assert row["feret_max"] == pytest.approx(120, abs=1.5)
    assert row["feret_min"] == pytest.approx(60, abs=1.5)
    # Ramanujan, 1914: the perimeter of an ellipse; the estimate from pixels is up to 5 % longer.
    h = (30 / 90) ** 2
    due = math.pi * 90 * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
    assert row["perimeter"] == pytest.approx(due, rel=0.05)
    assert row["circularity"] == pytest.approx(4 * math.pi * row["area"] / row["perimeter"] ** 2)
    assert 0.97 < row["solidity"] <= 1


def test_solidity_is_the_share_of_the_hull():
    ell = np.zeros((12, 12), bool)
    ell[1:11, 1:4] = ell[8:11, 1:11] = True  # 10 x 10 without 7 x 7: a hull cut by a triangle
    assert one(ell)["area"] == 51
    assert one(ell)["solidity"] == pytest.approx(51 / (100 - 7 * 7 / 2))


def test_each_channel_has_its_mean_and_deviation():
    image = np.zeros((3, 4, 2), np.uint16)
    image[0, :, 0], image[1, :, 1] = (10, 20, 30, 40), (1, 1, 1, 5)
    mask = np.zeros((3, 4), bool)
    mask[:2] = True
    row = one(mask, image)
    assert (row["mean_1"], row["mean_2"]) == pytest.approx((12.5, 1))
    assert row["deviation_1"] == pytest.approx(np.std([10, 20, 30, 40, 0, 0, 0, 0]))
    assert row["deviation_2"] == pytest.approx(np.std([1, 1, 1, 5, 0, 0, 0, 0]))


def test_pixels_without_a_value_leave_the_intensity_of_other_objects_alone():
    image = np.array([[[np.nan], [1], [3]], [[np.nan], [np.nan], [2]]], np.float32)
    numbers = np.array([[0, 1, 1], [0, 2, 2]], np.int32)
    first, second = measure_objects(numbers, image)
    assert (first["mean_1"], first["deviation_1"]) == pytest.approx((2, 1))
    assert (second["mean_1"], second["deviation_1"]) == (None, None)


def test_what_scikit_image_measures_is_equal():
    rng = np.random.default_rng(0)
    blobs = measure.label(rng.random((80, 90)) < 0.55, connectivity=1).astype(np.int32)
    image = rng.integers(0, 60000, (80, 90, 2)).astype(np.uint16)
    rows = measure_objects(blobs, image)
    regions = measure.regionprops(blobs, image)
    assert [row["number"] for row in rows] == [region.label for region in regions]
    for row, region in zip(rows, regions, strict=True):
        assert row["area"] == region.area
        assert row["perimeter"] == pytest.approx(region.perimeter)
        assert (row["centroid_y"], row["centroid_x"]) == pytest.approx(region.centroid)
        assert row["eccentricity"] == pytest.approx(region.eccentricity)
        assert row["mean_2"] == pytest.approx(region.intensity_mean[1])
        assert row["deviation_1"] == pytest.approx(region.intensity_std[0])
        assert abs(row["feret_max"] - region.feret_diameter_max) <= 1.5


def test_a_single_pixel_and_a_line_have_measures_too():
    row = one([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert (row["area"], row["feret_min"], row["solidity"], row["circularity"]) == (1, 1, 1, 1)
    row = one([[0] * 7, [0, 1, 1, 1, 1, 1, 0], [0] * 7])
    assert row["feret_max"] == pytest.approx(math.hypot(1, 5))
    assert row["feret_min"] == pytest.approx(1)


def test_units_are_those_of_the_pixel():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:7] = True
    row = one(mask, pixel_size=(0.5, 0.5, "µm"))
    assert (row["unit"], row["area_unit"]) == ("µm", "µm²")
    assert row["area_in_unit"] == pytest.approx(3)
    assert row["feret_max_in_unit"] == pytest.approx(2.5)
    assert row["perimeter_in_unit"] == pytest.approx(row["perimeter"] / 2)


def test_oblong_pixels_stretch_lengths_and_leave_the_perimeter_out():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:7] = True  # 3 x 4 pixels of 2 x 1: 6 x 4
    row = one(mask, pixel_size=(2.0, 1.0, "m"))
    assert row["feret_max_in_unit"] == pytest.approx(math.hypot(6, 4))
    assert row["feret_min_in_unit"] == pytest.approx(4)
    assert row["perimeter_in_unit"] is None


def test_confidence_is_a_fraction_and_none_where_it_is_not_known():
    sure = np.full((3, 3), 51, np.uint8)
    assert one(np.ones((3, 3)), confidence=sure)["confidence"] == pytest.approx(0.2)
    assert one(np.ones((3, 3)))["confidence"] is None
    assert one(np.ones((3, 3)))["touches_border"] == 1


def test_a_row_has_all_columns_of_the_table_but_image_and_class():
    row = one(np.ones((3, 3)), np.zeros((3, 3, 2), np.uint8))
    assert {*row, "image", "class"} == set(columns(2))
    assert set(SHAPE_COLUMNS) <= set(row)


def test_no_objects_have_no_rows():
    assert measure_objects(np.zeros((4, 4), np.int32), np.zeros((4, 4, 1), np.uint8)) == []
