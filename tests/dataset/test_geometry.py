"""The geometry of patches, by hand and by slow indexing."""

import numpy as np
import pytest

from unetseg.classes import IGNORED
from unetseg.dataset import geometry


def test_starts_of_the_drawn_example():
    assert geometry.starts(10, 5, 3).tolist() == [0, 3, 5]


@pytest.mark.parametrize(
    ("length", "size", "stride", "expected"),
    [
        (5, 5, 3, [0]),
        (6, 5, 3, [0, 1]),
        (8, 5, 3, [0, 3]),
        (10, 5, 5, [0, 5]),
        (11, 5, 5, [0, 5, 6]),
        (4, 1, 1, [0, 1, 2, 3]),
    ],
)
def test_last_window_is_flush_with_the_border(length, size, stride, expected):
    assert geometry.starts(length, size, stride).tolist() == expected


def test_tiles_of_the_drawn_example():
    found = geometry.tiles(10, 4, 2)
    assert [(seen.start, seen.stop) for seen, _ in found] == [(0, 6), (2, 10), (6, 10)]
    assert [(kept.start, kept.stop) for _, kept in found] == [(0, 4), (2, 6), (2, 4)]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 64])
@pytest.mark.parametrize("halo", [0, 3, 40])
def test_tiles_keep_every_pixel_once_and_see_its_surroundings(length, halo):
    numbers, kept = np.arange(length), []
    for seen, inner in geometry.tiles(length, 16, halo):
        part = numbers[seen]
        kept += part[inner].tolist()
        assert part[0] == max(0, part[inner][0] - halo)
        assert part[-1] == min(length - 1, part[inner][-1] + halo)
    assert kept == numbers.tolist()


@pytest.mark.parametrize("length", [7, 16, 31])
@pytest.mark.parametrize("stride", [1, 2, 5, 7])
def test_windows_cover_every_pixel(length, stride):
    seen = np.zeros(length, bool)
    for start in geometry.starts(length, 7, stride):
        assert 0 <= start <= length - 7
        seen[start : start + 7] = True
    assert seen.all()


@pytest.mark.parametrize(("size", "margin"), [(96, 20), (32, 7), (100, 21), (1, 1)])
def test_margin_holds_a_square_turned_by_45_degrees(size, margin):
    assert geometry.margin_of(size) == margin
    assert size + 2 * margin >= size * 2**0.5


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ([(400, 200)], 96),  # 100 to a multiple of 32
        ([(360, 480)] * 3, 192),  # 180
        ([(50, 50)], 64),
        ([(5000, 4000)], 256),
        ([(100, 900), (400, 300), (2000, 2000)], 160),  # the middle one: 150
    ],
)
def test_size_is_half_the_typical_shorter_side(shapes, size):
    assert geometry.auto_size(shapes) == size


@pytest.mark.parametrize(
    ("shape", "size", "rare", "count"),
    [
        ((400, 200), 96, 0, 9),  # 8.68 patches hold as many pixels
        ((400, 200), 96, 0.5, 18),  # half of them are spread evenly
        ((64, 64), 64, 0, 1),
        ((10, 10), 64, 0.3, 1),
        ((64, 64), 64, 1, 10),  # a tenth at least counts as spread
    ],
)
def test_automatic_number_holds_each_pixel_about_once(shape, size, rare, count):
    assert geometry.auto_count(shape, size, rare) == count


def corners(shape, size, count, rare=0.0, seed=0, mask=None):
    mask = np.zeros(shape, np.uint8) if mask is None else mask
    return geometry.sample_corners(mask, size, count, rare, np.random.default_rng(seed))


@pytest.mark.parametrize("shape", [(50, 70), (33, 33), (64, 20), (7, 9)])
def test_corners_stay_in_the_image(shape):
    found = corners(shape, 32, 40, rare=0.5)
    assert found.shape == (40, 2)
    assert (found >= 0).all()
    assert (found <= np.maximum(np.array(shape) - 32, 0)).all()


def test_corners_cover_the_image_and_its_edges():
    for seed in range(10):
        found = corners((100, 140), 32, 60, seed=seed)
        covered, labelled = geometry.covered_pixels(np.zeros((100, 140), np.uint8), found, 32)
        assert covered > 0.97 * labelled
        for side, length in ((0, 100), (1, 140)):
            assert found[:, side].min() == 0
            assert found[:, side].max() == length - 32


def test_a_pixel_at_an_edge_is_not_left_to_luck():
    # Of corners drawn evenly from 0 to 64, one in 65 shows column 0. Here it is by hand: the range
    # is 64 + 2 x 32 / 3 = 85.3 wide, and 11.2 of it is clipped or rounded to 0.
    seen = np.zeros((96, 96))
    for seed in range(60):
        for row, column in corners((96, 96), 32, 20, seed=seed):
            seen[row : row + 32, column : column + 32] += 1
    for edge in (seen[:, 0], seen[:, -1], seen[0], seen[-1]):
        assert edge.mean() * 96 / 32 / 1200 == pytest.approx(11.2 / 85.3, abs=0.03)


def test_rare_classes_are_in_their_share_of_the_patches():
    mask = np.zeros((200, 200), np.uint8)
    mask[150:153, 20:23] = 1
    found = corners(None, 32, 30, rare=0.5, mask=mask)
    with_it = sum(bool((mask[r : r + 32, c : c + 32] == 1).any()) for r, c in found)
    assert with_it >= 5  # of 15 drawn by class about half are drawn by this one
    plain = corners(None, 32, 30, rare=0.0, mask=mask)
    assert with_it > sum(bool((mask[r : r + 32, c : c + 32] == 1).any()) for r, c in plain)


def test_a_mask_of_ignored_pixels_alone_is_covered_evenly():
    assert corners(None, 16, 9, rare=1.0, mask=np.full((40, 40), 255, np.uint8)).shape == (9, 2)


def test_each_patch_of_an_image_with_strokes_shows_a_stroke():
    mask = np.full((300, 400), 255, np.uint8)
    mask[40:43, 50:90], mask[250:290, 380] = 0, 1
    found = corners(None, 32, 40, rare=0.25, mask=mask)
    shown = [set(np.unique(mask[r : r + 32, c : c + 32])) - {255} for r, c in found]
    assert all(shown)
    assert geometry.covered_pixels(mask, found, 32) == (160, 160)


def test_equal_seeds_draw_equal_corners():
    assert (corners((90, 90), 32, 12, seed=4) == corners((90, 90), 32, 12, seed=4)).all()
    assert (corners((90, 90), 32, 12, seed=4) != corners((90, 90), 32, 12, seed=5)).any()


@pytest.mark.parametrize("shape", [(40, 50), (33, 47), (20, 50), (10, 12)])
@pytest.mark.parametrize("channels", [1, 3])
def test_cut_equals_slow_indexing(shape, channels):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*shape, channels), np.uint8)
    mask = rng.integers(0, 4, shape, np.uint8)
    size, m = 32, 7
    padded_image, padded_mask = geometry.pad_for_cutting(image, mask, size)
    for corner in corners(shape, size, 5):
        place = (int(corner[0]), int(corner[1]))
        found = geometry.cut(padded_image, place, size)
        labels = geometry.cut(padded_mask, place, size)
        assert found.shape == (46, 46, channels)
        assert labels.shape == (46, 46)
        for y in range(0, 46, 5):
            for x in range(46):
                row, column = place[0] + y - m, place[1] + x - m
                inside = 0 <= row < shape[0] and 0 <= column < shape[1]
                assert labels[y, x] == (mask[row, column] if inside else IGNORED)
                # A mirror at the border repeats the border: -1 shows 0, H shows H - 1.
                i, j = (
                    k % (2 * n) if k % (2 * n) < n else 2 * n - 1 - k % (2 * n)
                    for k, n in zip((row, column), shape, strict=True)
                )
                np.testing.assert_array_equal(found[y, x], image[i, j])


def test_covered_pixels_by_hand():
    mask = np.zeros((6, 6), np.uint8)
    mask[0, :2] = IGNORED
    # Two squares of 9 pixels share one; of the first, two pixels are ignored.
    found = geometry.covered_pixels(mask, np.array([[0, 0], [2, 2]]), 3)
    assert found == (9 + 9 - 1 - 2, 34)


@pytest.mark.parametrize(("shape", "least"), [((3, 4), (5, 5)), ((7, 2), (3, 3)), ((6, 6), (2, 2))])
def test_pad_to_mirrors_at_the_bottom_and_right(shape, least):
    image = np.arange(shape[0] * shape[1] * 2).reshape(*shape, 2)
    padded = geometry.pad_to(image, *least)
    height, width = (max(a, b) for a, b in zip(shape, least, strict=True))
    assert padded.shape == (height, width, 2)
    np.testing.assert_array_equal(padded[: shape[0], : shape[1]], image)
    for extra in range(shape[0], height):
        mirrored = image[2 * shape[0] - 1 - extra]
        np.testing.assert_array_equal(padded[extra, : shape[1]], mirrored)


def test_weights():
    np.testing.assert_array_equal(geometry.window_weights(4, "uniform"), np.ones((4, 4)))
    weights = geometry.window_weights(32, "gaussian")
    assert weights.dtype == np.float32
    assert weights.max() == 1
    assert weights.min() == pytest.approx(1e-3)
    np.testing.assert_array_equal(weights, weights[::-1])
    np.testing.assert_array_equal(weights, weights.T)
    # sigma is S / 8 = 4: from pixel 16 (0.5 from the middle) to 20 (4.5) by hand
    expected = np.exp(-(4.5**2 - 0.5**2) / (2 * 16))
    assert weights[16, 20] == pytest.approx(expected, rel=1e-5)
