"""Areas that all images share and no class explains: ignored ones, fields of view, strips."""

import numpy as np
import pytest

from unetseg.errors import InputError
from unetseg.pictures.surroundings import (
    AreaFinder,
    IgnoredArea,
    common_surround,
    dark_surround,
    doubt_view,
    is_inverted_view,
    strips_of,
)
from unetseg.records import read_record, to_plain

RNG = np.random.default_rng(5)


def find(*ignored):
    finder = AreaFinder()
    for one in ignored:
        finder.add(one)
    return finder.found()


def disc(shape=(60, 50), radius=22.0, centre=(30, 25)):
    """Return whether pixels lie outside a round field of view."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 > radius**2


def test_an_area_that_all_masks_ignore_is_found_and_kept_exactly():
    strip = np.zeros((64, 50), bool)
    strip[-6:] = True
    area = find(strip, strip, strip)
    assert (area.height, area.width) == (64, 50)
    np.testing.assert_array_equal(area.pixels, strip)
    kept = read_record(IgnoredArea, to_plain(area), "area")
    np.testing.assert_array_equal(kept.pixels, strip)


def test_fields_of_view_that_differ_a_little_share_what_is_outside_of_all():
    views = [disc(centre=(30 + k % 2, 25)) for k in range(4)]
    np.testing.assert_array_equal(find(*views).pixels, views[0] & views[1])


def test_spots_labelled_here_and_there_are_no_common_area():
    spots = []
    for _ in range(10):
        ignored = np.ones((64, 50), bool)
        row, column = RNG.integers(0, 40, 2)
        ignored[row : row + 8, column : column + 8] = False
        spots.append(ignored)
    assert find(*spots) is None


def test_single_masks_other_sizes_and_borders_of_objects_are_no_common_area():
    strip = np.zeros((64, 50), bool)
    strip[-6:] = True
    assert find(strip) is None
    assert find(strip, strip[:-1]) is None
    assert find(*(RNG.random((64, 50)) < 0.02 for _ in range(5))) is None
    assert find() is None


def test_a_forged_area_is_refused_before_it_fills_the_memory():
    whole = to_plain(find(disc(), disc()))
    for changes in ({"packed": "!"}, {"packed": "AAAA"}, {"height": 61}, {"height": 10**6}):
        with pytest.raises(InputError):
            read_record(IgnoredArea, whole | changes, "area")


def scene(strip=0, top=False, dtype=np.uint8):
    """Return a noisy image (80, 120, 1) with a black strip that holds a white caption."""
    image = RNG.normal(120, 30, (80, 120)).clip(0, 255)
    if strip:
        image[-strip:] = RNG.integers(0, 4, (strip, 120))
        image[-strip + 2 : -2, 5 : RNG.integers(20, 60)] = 255
    image = image[::-1] if top else image
    return (image * (257 if dtype == np.uint16 else 1)).astype(dtype)[..., None]


def test_a_strip_with_a_caption_is_measured():
    assert strips_of(scene()) == (0, 0)
    assert strips_of(scene(10)) == (0, 10)
    assert strips_of(scene(12, top=True, dtype=np.uint16)) == (12, 0)


def test_a_dark_surround_a_flat_image_and_a_dark_background_are_no_strips():
    surround = scene()
    surround[disc((80, 120), 38, (40, 60))] = 0
    assert strips_of(surround) == (0, 0)
    assert strips_of(np.zeros((80, 120, 1), np.uint8)) == (0, 0)
    cells = np.zeros((80, 120, 1), np.uint8)
    cells[20:40, 30:60] = 200
    assert strips_of(cells) == (0, 0)


# --- surrounds of a field of view ------------------------------------------------------------


def photograph(radius=30.0, centre=(32, 32)):
    """Return a lit disc (64, 64) of noise in a dark surround, and that surround."""
    outside = disc((64, 64), radius, centre)
    lit = RNG.normal(120, 25, (64, 64)).clip(40, 220)
    return np.where(outside, RNG.uniform(0, 6, (64, 64)), lit).astype(np.float32), outside


def test_the_dark_surround_of_a_round_field_of_view_is_found_exactly():
    picture, outside = photograph()
    np.testing.assert_array_equal(dark_surround(picture), outside)
    picture[30:34, 30:34] = 0  # a dark spot inside is no surround
    np.testing.assert_array_equal(dark_surround(picture), outside)


def test_bright_objects_on_a_dark_ground_have_no_surround():
    cells = np.zeros((64, 64), np.float32)
    for row, column in ((20, 20), (40, 44), (12, 50)):
        cells[~disc((64, 64), 9.0, (row, column))] = 200
    assert not dark_surround(cells).any()


@pytest.mark.parametrize(
    "picture",
    [
        np.full((64, 64), 7, np.float32),
        RNG.normal(120, 30, (64, 64)).astype(np.float32),
        photograph(radius=4.0)[0],
        photograph(radius=44.0)[0],
        photograph(radius=30.0, centre=(20, 32))[0] + 200 * np.eye(64, dtype=np.float32),
    ],
    ids=["flat", "noise", "nearly all dark", "hardly any dark", "a lit corner"],
)
def test_pictures_without_a_surround_have_none(picture):
    assert not dark_surround(picture).any()


def test_surrounds_are_common_where_they_are_nearly_the_same():
    near = [photograph(30.0, (32 + k, 32))[1] for k in (0, 1, 0)]
    np.testing.assert_array_equal(common_surround(near), near[0])
    far = photograph(30.0, (20, 32))[1]
    assert common_surround([*near, far]) is None
    assert common_surround([*near, np.zeros((64, 64), bool)]) is None
    assert common_surround([np.zeros((64, 64), bool)] * 3) is None


def test_a_field_of_view_is_told_from_its_negative_and_from_labels():
    view = ~disc()
    assert not is_inverted_view(view)
    assert doubt_view(view) == ""
    assert is_inverted_view(disc(radius=29.0))
    assert doubt_view(~disc(radius=12.0)).startswith("has only 15 % of the pixels")
    assert doubt_view(np.ones((60, 50), bool)) == ""
    strip = np.ones((60, 50), bool)
    strip[20:30] = False  # all corners, and most of the image
    assert not is_inverted_view(strip)
    assert doubt_view(strip) == ""
    cells = np.ones((60, 50), bool)
    cells[::12], cells[:, ::12] = False, False
    assert doubt_view(cells).startswith("has 26 regions, as labels have")
    specks = view.copy()
    specks[2:50:6, 2:50:6] ^= True
    assert doubt_view(specks) == ""
    large = np.repeat(np.repeat(cells, 80, 0), 80, 1)  # it is looked at with fewer pixels
    assert doubt_view(large) == doubt_view(cells)
