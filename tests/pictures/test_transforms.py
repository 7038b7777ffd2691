"""Work on pixels that training and prediction do alike."""

import numpy as np
import pytest

from tests.pictures.samples import GREY8, GREY16, INDICES, RGB8
from unetseg.errors import InputError, as_option, worded
from unetseg.pictures.transforms import (
    collapse_grey,
    convert_depth,
    fit_channels,
    pixel_hash,
    rescale_image,
    rescale_mask,
    scaled_size,
)
from unetseg.text import plural


@pytest.mark.parametrize(
    ("scale", "expected"), [(1, (30, 20)), (0.5, (15, 10)), (2, (60, 40)), (0.01, (1, 1))]
)
def test_scaled_size(scale, expected):
    assert scaled_size(30, 20, scale) == expected


def test_8_bits_become_16_by_the_ratio_of_their_ranges():
    image = np.arange(256, dtype=np.uint8)[None, :, None]
    deep = convert_depth(image, np.dtype(np.uint16), "a.png", is_meant=True)
    assert deep.dtype == np.uint16
    assert deep[0, [0, 1, 255], 0].tolist() == [0, 257, 65535]
    back = convert_depth(deep, np.dtype(np.uint8), "a.png", is_meant=True)
    np.testing.assert_array_equal(back, image)


def test_16_bits_are_rounded_to_the_nearest_of_8():
    values = np.arange(65536, dtype=np.uint16)[None, :, None]
    found = convert_depth(values, np.dtype(np.uint8), "a.png", is_meant=True)
    assert np.abs(found[0, :, 0] - np.arange(65536) / 257).max() <= 0.5


def test_an_equal_depth_is_left_alone():
    image = np.zeros((2, 2, 1), np.float32)
    assert convert_depth(image, np.dtype(np.float32), "a.tif") is image


@pytest.mark.parametrize(("old", "new"), [(np.float32, np.uint8), (np.uint16, np.float32)])
def test_a_range_that_is_not_known_is_refused(old, new):
    numbers = "signed or floating point numbers"
    with pytest.raises(InputError, match=numbers) as caught:
        convert_depth(np.zeros((2, 2, 1), old), np.dtype(new), "a.tif", is_meant=True)
    assert "--convert-depth" not in worded(caught.value.message, as_option)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ("int16", "signed 16-bit numbers"),
        ("int32", "signed 32-bit numbers"),
        ("uint32", "32-bit numbers"),
        ("float64", "floating point numbers"),
    ],
)
def test_a_refusal_names_the_numbers_as_the_file_holds_them(stored, words):
    image = np.zeros((2, 2, 1), np.float32)
    with pytest.raises(InputError, match=f"^a.tif: has {words}, the model was trained on 16 bits;"):
        convert_depth(image, np.dtype(np.uint16), "a.tif", stored=stored)


@pytest.mark.parametrize(("old", "new"), [(np.uint8, np.uint16), (np.uint16, np.uint8)])
def test_another_depth_is_refused_unless_it_is_meant(old, new):
    with pytest.raises(InputError) as caught:
        convert_depth(np.zeros((2, 2, 1), old), np.dtype(new), "a.tif")
    said = worded(caught.value.message, as_option)
    bits = {np.uint8: "8 bits", np.uint16: "16 bits"}
    assert said.startswith(f"a.tif: has {bits[old]}, the model was trained on {bits[new]};")
    assert "--convert-depth" in said


@pytest.mark.parametrize(
    ("found", "due", "option"),
    [(3, 1, "--channels 0"), (1, 3, "--channels 0,0,0"), (4, 3, "--channels 0,1,2")],
)
def test_other_channels_are_refused_with_the_option_that_chooses(found, due, option):
    image = np.arange(6 * found, dtype=np.uint8).reshape(2, 3, found)
    with pytest.raises(InputError) as caught:
        fit_channels(image, due, "a.tif", takes_grey=False)
    said = worded(caught.value.message, as_option)
    assert f"has {plural(found, 'channel')} where" in said
    assert said.endswith(option)


def test_a_grey_photograph_saved_as_colour_passes_for_grey():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(fit_channels(np.repeat(grey, 3, 2), 1, "a.png"), grey)
    np.testing.assert_array_equal(fit_channels(grey, 3, "a.png"), np.repeat(grey, 3, 2))


def test_grey_saved_as_colour_is_grey():
    grey = np.random.default_rng(0).integers(0, 256, (5, 6, 1), np.uint8)
    colour = np.repeat(grey, 3, 2)
    np.testing.assert_array_equal(collapse_grey(colour), grey)
    assert pixel_hash(colour) == pixel_hash(grey)
    colour[0, 0, 2] ^= 1
    assert collapse_grey(colour).shape == (5, 6, 3)
    assert pixel_hash(colour) != pixel_hash(grey)


def test_hash_tells_shape_and_depth_apart_and_not_byte_order():
    zeros = np.zeros((4, 6, 1), np.uint8)
    hashes = {
        pixel_hash(zeros),
        pixel_hash(zeros.reshape(6, 4, 1)),
        pixel_hash(zeros.astype(np.uint16)),
    }
    assert len(hashes) == 3
    values = np.arange(6, dtype="<u2").reshape(2, 3, 1)
    assert pixel_hash(values) == pixel_hash(values.astype(">u2"))


def test_rescaling_down_averages_and_keeps_dtype():
    image = np.zeros((8, 8, 2), np.uint16)
    image[::2, :, 0] = 60_000  # every other row: its mean everywhere
    half = rescale_image(image, (2, 2))
    assert half.shape == (2, 2, 2)
    assert half.dtype == np.uint16
    assert np.abs(half[..., 0].astype(int) - 30_000).max() < 3000
    assert (half[..., 1] == 0).all()


def test_rescaling_a_mask_invents_no_class():
    mask = np.array([[0, 200], [7, 255]], np.uint8)
    big = rescale_mask(mask, (4, 6))
    np.testing.assert_array_equal(big, mask.repeat(2, 0).repeat(3, 1))


def test_grey_saved_as_rgb_is_the_same_picture():
    grey, rgb = GREY8[..., None], np.repeat(GREY8[..., None], 3, axis=2)
    assert collapse_grey(rgb).shape == (6, 9, 1)
    assert collapse_grey(RGB8).shape == (6, 9, 3)
    assert pixel_hash(grey) == pixel_hash(rgb)


def test_shape_depth_and_pixels_all_count_in_the_hash():
    grey = GREY8[..., None]
    others = [grey.reshape(9, 6, 1), grey.view(np.int8), grey ^ 1, grey.astype(np.uint16)]
    assert len({pixel_hash(i) for i in [grey, *others]}) == 5
    wide = GREY16[..., None]
    assert pixel_hash(wide) == pixel_hash(wide.astype(">u2"))


def test_halving_averages_and_keeps_16_bits():
    ramp = np.arange(0, 64000, 1000, dtype=np.uint16).reshape(1, -1, 1).repeat(4, axis=0)
    half = rescale_image(ramp, (2, 32))
    assert half.shape == (2, 32, 1)
    assert half.dtype == np.uint16
    np.testing.assert_array_equal(half[0, 1:-1, 0], np.arange(2500, 62000, 2000))


def test_a_mask_is_rescaled_without_new_values():
    back = rescale_mask(rescale_mask(INDICES * 100, (12, 18)), (6, 9))
    np.testing.assert_array_equal(back, INDICES * 100)
