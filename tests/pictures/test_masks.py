import numpy as np
import pytest
from PIL import Image, ImageFilter

from unetseg.classes import ClassTable, SegmentationClass
from unetseg.errors import InputError
from unetseg.pictures.masks import RawMask, decode, find_keys

INDICES = np.array([[0, 0, 1, 2], [0, 2, 1, 255]], np.uint8)  # 255: ignored
KNOWN = np.where(INDICES == 255, 0, INDICES)
RGB = np.array([[0, 0, 0], [255, 0, 0], [0, 200, 0]], np.uint8)
HEX = ("#000000", "#ff0000", "#00c800")
BY_COLOUR = ClassTable(
    tuple(SegmentationClass(n, None, c) for n, c in zip("abc", HEX, strict=True)), ("#ffffff",)
)
BY_VALUE = ClassTable(
    tuple(SegmentationClass(n, v, c) for n, v, c in zip("abc", (0, 7, 300), HEX, strict=True)),
    (11,),
)


def table(*values: int, colours: tuple[str, ...] = ()) -> ClassTable:
    colours = colours or tuple(f"#0000{v % 256:02x}" for v in values)
    return ClassTable(
        tuple(SegmentationClass(str(v), v, c) for v, c in zip(values, colours, strict=True))
    )


def palette(*colours: tuple[int, int, int]) -> np.ndarray:
    filled = np.zeros((256, 3), np.uint8)
    filled[: len(colours)] = colours
    return filled


def painted(indices: np.ndarray) -> np.ndarray:
    return np.where((indices == 255)[..., None], 255, RGB[np.where(indices == 255, 0, indices)])


def with_ninth_red(colours: np.ndarray) -> np.ndarray:
    colours[9] = (255, 0, 0)
    return colours


PLACES = np.where(INDICES == 255, 3, INDICES)  # class 0, 1, 2, ignored
# The same picture, stored in many ways, and the table that it is read with.
WAYS = {
    "colours": (RawMask(painted(INDICES).astype(np.uint8)), BY_COLOUR),
    "a palette in any order, for colours": (
        RawMask(
            np.array([0, 9, 1, 2], np.uint8)[PLACES],
            with_ninth_red(palette((0, 0, 0), (0, 200, 0), (255, 255, 255))),
        ),
        BY_COLOUR,
    ),
    "values": (RawMask(np.array([0, 7, 300, 11], np.uint16)[PLACES]), BY_VALUE),
    "wide values": (RawMask(np.array([0, 7, 300, 11], np.int64)[PLACES]), BY_VALUE),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_store_a_mask_gives_the_same_classes(way):
    raw, classes = WAYS[way]
    decoded = decode(raw, classes)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, INDICES)


def test_grey_rgb_counts_as_values_and_grey_values_as_colours():
    grey = np.array([[0, 255], [255, 0]], np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode(RawMask(rgb), table(0, 255)), grey // 255)
    two = ClassTable(tuple(SegmentationClass(c, None, c) for c in ("#000000", "#ffffff")))
    np.testing.assert_array_equal(decode(RawMask(grey), two), grey // 255)


def test_palette_indices_are_the_values():
    raw = RawMask(KNOWN, palette((9, 0, 0), (0, 9, 0), (0, 0, 9)))
    np.testing.assert_array_equal(decode(raw, table(0, 1, 2)), KNOWN)


@pytest.mark.parametrize("level_of", [(0, 255), (255, 0)], ids=["in order", "turned"])
def test_a_grey_palette_stands_for_its_levels_where_only_they_fit(level_of):
    """GIF writers number the greys of a 0/255 mask 0 and 1, in any order."""
    raw = RawMask(np.array([[0, 1, 1]], np.uint8), palette(*[(v, v, v) for v in level_of]))
    due = [[int(level_of[i] == 255) for i in (0, 1, 1)]]
    np.testing.assert_array_equal(decode(raw, table(0, 255)), due)


def test_a_grey_palette_that_fits_both_ways_is_asked_about():
    white_first = RawMask(np.zeros((2, 2), np.uint8), palette((255, 255, 255)))
    with pytest.raises(InputError, match="palette indices and their grey levels"):
        decode(white_first, table(0, 255))
    # unless it is the paint of the table itself, as in a prediction
    own = table(0, 255, colours=("#ffffff", "#000000"))
    assert not decode(white_first, own).any()


def test_an_unknown_value_is_named_with_count_and_place():
    values = np.zeros((5, 6), np.uint8)
    values[3, 2:4] = 7
    values[4, 0] = 9
    with pytest.raises(InputError) as caught:
        decode(RawMask(values), table(0, 1), "masks/a.png")
    assert str(caught.value) == (
        "masks/a.png: no class: value 7 in 2 pixels, first at (x 2, y 3); value 9 in 1 pixel, "
        "first at (x 0, y 4); classes are 0, 1; add it to classes.toml, or pass ignore=[7, 9]"
    )


@pytest.mark.parametrize(
    ("values", "classes", "text"),
    [
        (np.full((1, 2, 3), (1, 2, 3), np.uint8), BY_COLOUR, "#010203 in 2 pixels, first at (x 0"),
        (np.full((1, 2, 3), (1, 2, 3), np.uint8), BY_VALUE, "holds colours where values are due"),
        (np.full((1, 2), 300, np.uint16), BY_COLOUR, "values over 255 where colours are due"),
        (np.full((1, 2), 70_000), BY_VALUE, "70000 in 2 pixels"),
    ],
)
def test_what_does_not_fit_the_table_is_refused(values, classes, text):
    with pytest.raises(InputError) as caught:
        decode(RawMask(values), classes)
    assert text in str(caught.value)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_counts_agree_with_numpy_on_a_noisy_mask(shape):
    values = np.random.default_rng(3).integers(0, 3, shape, dtype=np.uint8)
    found = find_keys(RawMask(values))
    distinct, counts = np.unique(values.reshape(2000, -1), axis=0, return_counts=True)
    names = ["#" + bytes(d).hex() if len(d) == 3 else int(d[0]) for d in distinct]
    assert found.counts == dict(zip(names, counts.tolist(), strict=True))
    assert found.distinct == len(names)
    assert sorted(found.counts.values(), reverse=True) == list(found.counts.values())


def test_of_very_many_values_the_commonest_are_kept():
    values = np.arange(5000).repeat(2)
    found = find_keys(RawMask(np.append(values, [4999] * 2).reshape(2, -1)))
    assert found.distinct == 5000
    assert len(found.counts) == 4096
    assert next(iter(found.counts.items())) == (4999, 4)


def shapes(count: int) -> Image.Image:
    """Discs, each numbered from 1, on a ground of 0."""
    y, x = np.mgrid[:300, :300]
    pixels = np.zeros((300, 300), np.uint8)
    for i in range(count):
        pixels[(y - 15 - i // 10 * 30) ** 2 + (x - 15 - i % 10 * 30) ** 2 < 120] = i + 1
    return Image.fromarray(pixels)


def test_a_smoothed_mask_is_told_from_a_forgotten_class_when_classes_are_known():
    two = shapes(80).point(lambda v: 255 * (v > 0)).filter(ImageFilter.GaussianBlur(2))
    with pytest.raises(InputError, match="looks like blended edges"):
        decode(RawMask(np.asarray(two)), table(0, 255))


@pytest.mark.parametrize("top", [200, 2**31 - 1, 2**31, 2**32 - 1])
def test_values_are_counted_however_large_they_are(top):
    values = np.array([[0, 0, top, top], [top, 7, 7, 0]], np.uint32)
    found = find_keys(RawMask(values))
    assert found.counts == {0: 3, top: 3, 7: 2}
    assert found.distinct == 3
