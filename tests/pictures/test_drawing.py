"""Pictures for people: the places of their parts on a sheet."""

import itertools
from itertools import pairwise

import numpy as np
import pytest

from tests.pictures.samples import RNG, VALUES
from unetseg.classes import ClassTable, SegmentationClass, colour_to_rgb
from unetseg.pictures import drawing

TABLE = ClassTable(
    (SegmentationClass("a", 0, "#102030"), SegmentationClass("b", 1, "#ff8000")), (255,)
)


def test_classes_are_painted_in_their_colours_and_ignored_pixels_in_grey():
    painted = drawing.paint(np.array([[0, 1], [1, 255]], np.uint8), TABLE)
    assert painted[0].tolist() == [[16, 32, 48], [255, 128, 0]]
    assert painted[1, 1].tolist() in ([110] * 3, [170] * 3)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [([2, 1], 0), ([1, 1], None), ([1, 0, 3], 2), ([], None), ([0, 0], None)],
)
def test_the_prevailing_class_covers_more_than_half(pixels, expected):
    assert drawing.prevailing(pixels) == expected


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_samples_stand_above_their_masks_in_rows_of_eight(count, channels):
    rng = np.random.default_rng(0)
    pictures = rng.normal(100, 30, (count, 10, 10, channels)).astype(np.float32)
    masks = rng.integers(0, 2, (count, 10, 10))
    sheet = drawing.sample_sheet(pictures, masks, TABLE)
    rows, columns = -(-count // 8), min(count, 8)
    assert sheet.shape[0] > 28 + rows * 22 + (rows - 1) * 4  # a heading, and names below
    assert sheet.shape[1] >= columns * 10 + (columns - 1) * 4
    assert (sheet[:28] < 128).any()
    for k in range(count):
        top, left = 28 + k // 8 * 26, k % 8 * 14
        np.testing.assert_array_equal(
            sheet[top + 12 : top + 22, left : left + 10],
            drawing.paint(masks[k].astype(np.uint8), TABLE),
        )
        np.testing.assert_array_equal(
            sheet[top : top + 10, left : left + 10], drawing.to_display(pictures[k])
        )
    if count == 9:
        assert (sheet[28 + 26 : 28 + 48, 14:] == 255).all()


def test_validation_shows_image_truth_and_prediction_side_by_side():
    image = np.random.default_rng(0).integers(0, 255, (30, 200, 1), np.uint8)
    truth = np.zeros((30, 200), np.uint8)
    truth[5:20, 50:90] = 1
    sheet = drawing.validation_sheet(
        [(image, truth, truth), (image[:20], truth[:20] * 0, truth[:20])], TABLE
    )
    assert sheet.shape[1] == 3 * 200 + 2 * 4
    headings = [sheet[:28, left : left + 200] for left in (0, 204, 408)]
    assert all((heading < 128).any() for heading in headings)
    assert all((a != b).any() for a, b in itertools.combinations(headings, 2))
    below = sheet[28:]
    np.testing.assert_array_equal(below[:30, :200], drawing.to_display(image))
    np.testing.assert_array_equal(below[:30, 204:404], below[:30, 408:608])
    assert (below[10, 270] != below[10, 66]).any()


def test_large_images_are_shrunk_to_a_third_of_the_sheet():
    image = np.zeros((500, 1000, 3), np.uint8)
    mask = np.zeros((500, 1000), np.uint8)
    assert drawing.validation_sheet([(image, mask, mask)], TABLE).shape[1] == 1200 + 2 * 4


def test_a_mask_of_ignored_pixels_alone_is_drawn():
    image, mask = np.zeros((40, 60, 1), np.uint8), np.full((40, 60), 255, np.uint8)
    sheet = drawing.validation_sheet([(image, mask, mask * 0)], TABLE)
    assert sheet.shape[1] >= 3 * 60


def test_shapes_are_filled_with_their_outline():
    inside = drawing.fill_shape((9, 9), "rectangle", [(6, 5), (2, 3)])
    expected = np.zeros((9, 9), bool)
    expected[3:6, 2:7] = True
    np.testing.assert_array_equal(inside, expected)
    circle = drawing.fill_shape((21, 21), "circle", [(10, 10), (10, 4)])
    assert circle[10, 4]
    assert circle[4, 10]
    assert not circle[4, 4]
    triangle = drawing.fill_shape((9, 9), "polygon", [(0, 0), (8, 0), (0, 8)])
    assert triangle[0].all()
    assert not triangle[8, 1:].any()
    with pytest.raises(ValueError, match="a circle of 3 points"):
        drawing.fill_shape((9, 9), "circle", [(0, 0)] * 3)


def test_a_line_covers_the_pixels_that_are_at_most_half_its_width_away():
    drawn = drawing.draw_line((7, 9), [(2, 3), (6, 3)], 3)
    due = [
        "0 0 0 0 0 0 0 0 0",
        "0 0 0 0 0 0 0 0 0",
        "0 1 1 1 1 1 1 1 0",
        "0 1 1 1 1 1 1 1 0",
        "0 1 1 1 1 1 1 1 0",
        "0 0 0 0 0 0 0 0 0",
        "0 0 0 0 0 0 0 0 0",
    ]
    np.testing.assert_array_equal(drawn, [[int(v) for v in row.split()] for row in due])
    np.testing.assert_array_equal(
        np.argwhere(drawing.draw_line((7, 9), [(1, 1), (3, 3), (6, 3)], 1)),
        [(1, 1), (2, 2), (3, 3), (3, 4), (3, 5), (3, 6)],
    )
    point = drawing.draw_line((5, 5), [(2, 2)], 3)
    np.testing.assert_array_equal(point, np.hypot(*np.indices((5, 5)) - 2) <= 1.5)
    point = drawing.draw_line((5, 5), [(2, 2)], 2)
    np.testing.assert_array_equal(np.argwhere(point), [(2, 2), (2, 3), (3, 2)])
    assert not drawing.draw_line((5, 5), [(-9, -9), (-4, 20), (60, 70)], 3).any()


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 16])
def test_a_level_or_upright_line_through_centres_is_exactly_as_wide_as_asked_for(width):
    for ends in ([(10, 20), (40, 20)], [(40, 20), (10, 20)]):
        level = drawing.draw_line((50, 50), ends, width)
        upright = drawing.draw_line((50, 50), [(y, x) for x, y in ends], width)
        assert level[:, 25].sum() == upright[25].sum() == width
        np.testing.assert_array_equal(level, upright.T)


def test_error_maps_tell_missed_claimed_and_confused_pixels():
    # background a: row 0 all right; row 1 missed, claimed, ignored; row 2 confused, b, confused
    truth = np.array([[0, 1, 2], [1, 0, 255], [1, 1, 2]], np.uint8)
    prediction = np.array([[0, 1, 2], [0, 2, 1], [2, 1, 1]], np.uint8)
    white = np.full((3, 3, 3), 255, np.uint8)
    colours = {k: list(colour_to_rgb(c)) for k, c in drawing.ERROR_COLOURS.items()}
    pale = [248, 248, 248]  # 144 + 111, its last three bits cut
    painted = drawing.error_map(white, truth, prediction, 0)
    assert painted[0].tolist() == [pale] * 3
    assert painted[1, :2].tolist() == [colours["missed"], colours["claimed"]]
    assert painted[1, 2].tolist() in ([190] * 3, [220] * 3)
    assert painted[2].tolist() == [colours["confused"], pale, colours["confused"]]
    alone = drawing.error_map(white, truth, prediction, None)
    assert alone[1, :2].tolist() == [colours["confused"]] * 2
    assert alone[0].tolist() == [pale] * 3


def test_error_maps_keep_the_image_in_few_pale_greys():
    shown = np.random.default_rng(0).integers(0, 256, (31, 17, 3), np.uint8)
    right = np.zeros((31, 17), np.uint8)
    painted = drawing.error_map(shown, right, right, 0)
    assert painted.shape == (31, 17, 3)
    assert painted.min() >= 144
    assert len(np.unique(painted.reshape(-1, 3), axis=0)) <= 14
    assert (painted == painted[..., :1]).all()


def test_error_colours_differ_in_lightness():
    # Relative luminance (WCAG 2.2): each pair, and each with the pale image, by half and more.
    def luminance(colour):
        linear = [
            v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
            for v in (c / 255 for c in colour_to_rgb(colour))
        ]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722))) + 0.05

    values = sorted(map(luminance, drawing.ERROR_COLOURS.values()))
    assert all(high / low > 2 for low, high in pairwise(values))


def test_overlays_are_blends_above_their_legend():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 1), np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 10:30] = 1
    np.testing.assert_array_equal(
        drawing.overlay(image, mask, TABLE, 0)[:40, :60],
        drawing.blend(drawing.to_display(image), mask, TABLE, 0),
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_any_number_of_channels_can_be_shown(channels):
    shown = drawing.to_display(RNG.normal(size=(20, 30, channels)).astype(np.float32))
    assert (shown.shape, shown.dtype) == ((20, 30, 3), np.uint8)
    assert shown[..., : min(3, channels)].max() == 255
    assert shown.min() == 0


def test_the_stretch_leaves_out_one_percent_below_and_two_thousandths_above():
    image = np.arange(1000, dtype=np.uint16).reshape(20, 50, 1) * 10
    shown = drawing.to_display(image)[..., 0].ravel()
    # percentiles of 0, 10, ..., 9990: 99.9 and 9970.02
    np.testing.assert_array_equal(shown[[9, 10, 997, 998]], [0, 0, 254, 255])
    assert shown[504] == int((5040 - 99.9) / (9970.02 - 99.9) * 255)


def test_a_flat_picture_can_be_shown():
    assert len(np.unique(drawing.to_display(np.full((4, 5, 1), 7, np.uint8)))) == 1


@pytest.mark.parametrize("side", [100, 1600])
def test_an_overlay_keeps_the_commonest_class_plain_and_outlines_the_others(side):
    image = RNG.integers(0, 256, (side, side, 1), dtype=np.uint8)
    indices = np.zeros((side, side), np.uint8)
    indices[10:40, 10:40] = 2
    shown = drawing.overlay(image, indices, VALUES, 0)
    plain = drawing.to_display(image)
    assert shown.shape[0] > side  # the legend lies below
    np.testing.assert_array_equal(shown[50:side, :side], plain[50:])
    np.testing.assert_array_equal(shown[10, 10:40], np.tile([0, 255, 0], (30, 1)))
    mixed = plain[25, 25] // 2 + np.array([0, 127, 0])
    np.testing.assert_array_equal(shown[25, 25], mixed)
    colours = {tuple(c) for c in shown[side:].reshape(-1, 3).tolist()}
    assert (0, 255, 0) in colours
    assert (255, 128, 0) not in colours  # no pixel of "road", so no entry


def test_without_a_class_over_half_everything_is_painted():
    indices = np.zeros((90, 100), np.uint8)
    indices[:30], indices[30:60] = 1, 2
    image = np.arange(9000, dtype=np.uint16).reshape(90, 100, 1)
    shown = drawing.overlay(image, indices, VALUES)[:90, :100]
    assert (shown != drawing.to_display(image)).any(axis=2).all()


def test_ignored_pixels_are_hatched_in_two_greys():
    painted = drawing.paint(np.full((16, 16), 255, np.uint8), VALUES)
    assert {tuple(c) for c in painted.reshape(-1, 3).tolist()} == {(110,) * 3, (170,) * 3}
