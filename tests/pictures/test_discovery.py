import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.pictures.test_masks import palette, shapes
from unetseg.errors import InputError
from unetseg.pictures import masks
from unetseg.pictures.discovery import discover
from unetseg.pictures.masks import RawMask, find_keys


def grey(*values: int) -> masks.Found:
    return find_keys(RawMask(np.array([values], np.uint8)))


def rgb(*colours: tuple[int, int, int]) -> masks.Found:
    return find_keys(RawMask(np.array([colours], np.uint8)))


def indexed(indices: list[int], *colours: tuple[int, int, int]) -> masks.Found:
    return find_keys(RawMask(np.array([indices], np.uint8), palette(*colours)))


RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)
COLOURS = [(level, 0, 255 - level) for level in range(256)]  # of palette indices


@pytest.mark.parametrize(
    ("found", "ignore", "keys"),
    [
        ([grey(0, 2), grey(10, 2)], (), [0, 2, 10]),
        ([grey(0, 255)], (), [0, 255]),
        ([grey(0, 1, 255)], (255,), [0, 1]),
        ([rgb(BLACK, RED), rgb(GREEN)], (), ["#000000", "#00ff00", "#ff0000"]),
        ([rgb(BLACK, RED, WHITE)], ("#ffffff",), ["#000000", "#ff0000"]),
        ([rgb(BLACK, WHITE), rgb(BLACK)], (), [0, 255]),
        ([rgb(BLACK, WHITE), grey(0, 255)], (), [0, 255]),
    ],
)
def test_the_classes_of_a_set_are_what_its_masks_hold(found, ignore, keys):
    classes = discover({f"{i}.png": f for i, f in enumerate(found)}, ignore)
    assert [classes.key(i) for i in range(len(classes.classes))] == keys
    assert list(classes.names) == [str(k) for k in keys]
    assert classes.ignore == ignore


def test_palettes_paint_the_classes():
    files = {"a": indexed([0, 1], BLACK, RED), "b": indexed([0, 2], BLACK, WHITE, GREEN)}
    classes = discover(files)
    assert [(c.value, c.colour) for c in classes.classes] == [
        (0, "#000000"),
        (1, "#ff0000"),
        (2, "#00ff00"),
    ]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"a": grey(0, 1), "b": grey(0, 255)}, "b: holds 0 and 255 alone, a holds 2 values"),
        (
            {"a": grey(255), "b": grey(0, 255), "c": grey(0, 1, 2), "d": grey(0)},
            "b: holds 0 and 255 alone, c holds 3 values without 255: two kinds of masks in one "
            "set (1 and 1)",
        ),
        ({"a": grey(255), "b": grey(0, 1, 2)}, "a: value 255 stands beside 3 others"),
        ({"a": grey(0, 1), "b": grey(0, 1, 255)}, "b: value 255 stands beside 2 others"),
        ({"a": grey(0, 254, 255)}, "254 and 255 differ by 1 level of 255"),
        ({"a": indexed([0, 254, 255], *COLOURS)}, "a: value 255 stands beside 2 others"),
        (
            {"a": indexed([0, 254, 255], *COLOURS[:254], (128, 128, 128), RED)},
            "a: value 254 has the grey of ignored pixels: a class, or to be ignored?",
        ),
        ({"a": rgb(BLACK, RED), "b": grey(0, 1)}, "b: holds values, a holds colours"),
        (
            {"a": indexed([0, 1], BLACK, RED), "b": indexed([0, 1], BLACK, GREEN)},
            "b: palette entry 1 is #00ff00, in a it is #ff0000",
        ),
        (
            {f"{i}": grey(*np.arange(i * 40, i * 40 + 40).repeat(3)) for i in range(3)},
            "masks: 120 values",
        ),
    ],
)
def test_what_can_be_read_two_ways_is_asked_about(files, text):
    with pytest.raises(InputError) as caught:
        discover(files)
    assert text in str(caught.value)


def jpeg(picture: Image.Image) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return np.asarray(Image.open(buffer))


def test_too_many_values_are_told_by_what_they_look_like():
    numbered = np.asarray(shapes(80))
    two = shapes(80).point(lambda v: 255 * (v > 0))
    in_colour = Image.merge("RGB", (two, two.point(lambda v: v // 2), Image.new("L", two.size)))
    random_colours = np.random.default_rng(0).integers(0, 256, (81, 3), dtype=np.uint8)
    for pixels, text in [
        (numbered, "81 values that look like one for each object"),
        (random_colours[numbered], "81 colours that look like one for each object"),
        (np.asarray(two.filter(ImageFilter.GaussianBlur(2))), "looks like blended edges around"),
        (np.asarray(in_colour.filter(ImageFilter.GaussianBlur(2))), "looks like blended edges"),
        (jpeg(two), "looks like JPEG noise around"),
        (jpeg(in_colour), "looks like JPEG noise around"),
    ]:
        with pytest.raises(InputError) as caught:
            discover({"a.png": find_keys(RawMask(pixels))})
        assert text in str(caught.value)
