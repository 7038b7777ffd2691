"""Folders of labelled images as they are read before they are cut: channels, edges, refusals."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import unetseg
from tests.dataset.test_cutting import SETTINGS, build
from tests.support import NAMES, draw, read, write_image, write_set
from unetseg.dataset.geometry import auto_size
from unetseg.errors import InputError


@pytest.mark.parametrize(
    ("look", "dtype", "channels"),
    [({"channels": 3}, "uint8", 3), ({"channels": 5, "dtype": np.uint16}, "uint16", 5)],
)
def test_images_keep_their_own_depth_and_channels(empty, look, dtype, channels):
    write_set("set", 4, **look)
    info = build(**SETTINGS).info
    assert (info.dtype, info.channels, len(info.mean)) == (dtype, channels, channels)


def test_a_grey_image_among_colour_ones_counts_as_colour(empty):
    write_set("set", 4, channels=3)
    grey, _ = draw(1)
    write_image(Path("set/images/im1"), grey)
    info = build(**SETTINGS).info
    assert (info.channels, info.settings["grey"]) == (3, True)


def test_one_stain_among_composites_of_three_is_refused(empty):
    write_set("set", 4, channels=3, dtype=np.uint16)
    grey, _ = draw(1, dtype=np.uint16)
    write_image(Path("set/images/im1"), grey)
    with pytest.raises(InputError, match=r"has 1 channel, im0\.tif has 3"):
        build(**SETTINGS)
    assert build(**SETTINGS, channels="0").info.channels == 1


def test_colour_images_of_equal_channels_count_as_grey(empty):
    write_set("set", 4)
    for path in Path("set/images").iterdir():
        Image.fromarray(np.repeat(read(path)[..., None], 3, 2)).save(path)
    assert build(**SETTINGS).info.channels == 1


def test_a_constant_channel_does_no_harm(empty):
    write_set("set", 4)
    for path in Path("set/images").iterdir():
        Image.fromarray(np.full((64, 56), 7, np.uint8)).save(path)
    info = build(**{**SETTINGS, "val": 0}).info
    assert (info.mean, info.std) == ((7.0,), (1.0,))


def test_cropped_edges_are_ignored_whatever_their_masks_hold(empty):
    write_set("set", 4)
    for path in Path("set/masks").iterdir():
        mask = read(path)
        mask[-6:], mask[:, :2] = 77, 99  # a scale bar and a rim that are no classes
        Image.fromarray(mask).save(path)
    with pytest.raises(InputError, match="77"):
        build(**SETTINGS)
    info = build(**SETTINGS, crop="bottom=6,left=2").info
    assert info.selection.crop == "bottom=6,left=2"
    assert info.classes.names == NAMES
    pixels = sum(info.class_pixels_train) + sum(info.class_pixels_val)
    assert pixels == 4 * (64 - 6) * (56 - 2)
    with pytest.raises(InputError, match="leaves nothing of 64 x 56 pixels"):
        build(**SETTINGS, crop="top=64", overwrite=True)


def test_a_store_keeps_the_channels_that_were_asked_for(empty):
    write_set("set", 4, channels=3)
    info = build(**SETTINGS, channels="2,0").info
    assert info.channels == 2
    whole = build(**SETTINGS, overwrite=True).info
    np.testing.assert_allclose(info.mean, np.array(whole.mean)[[2, 0]])


def odd_channels():
    write_image(Path("set/images/im1"), draw(1, channels=5)[0])
    Path("set/images/im1.png").unlink()


def odd_depth():
    tifffile.imwrite("set/images/im1.tif", draw(1, dtype=np.uint16)[0][..., 0])
    Path("set/images/im1.png").unlink()


def odd_size():
    Image.fromarray(np.zeros((9, 9), np.uint8)).save("set/images/im1.png")


def no_picture():
    Path("set/images/im1.png").write_text("hello")


def no_mask():
    Path("set/masks/im1.png").unlink()


def unknown_value():
    Image.fromarray(np.full((64, 56), 7, np.uint8)).save("set/masks/im1.png")


@pytest.mark.parametrize(
    "spoil", [odd_channels, odd_depth, odd_size, no_picture, no_mask, unknown_value]
)
def test_what_does_not_fit_is_named_and_nothing_is_written(empty, spoil):
    write_set("set", 4)
    spoil()
    with pytest.raises(InputError, match="im1"):
        build(**SETTINGS)
    assert not Path("p.h5").exists()


def test_masks_of_nothing_but_ignored_pixels_are_an_error(empty):
    write_set("set", 4, values=(7, 7, 7), toml="ignore = [7]\n[[class]]\nvalue = 1\n")
    with pytest.raises(InputError, match="ignored"):
        build(**SETTINGS)


def test_a_patch_larger_than_every_image_is_said_with_a_size_that_fits(empty):
    write_set("set", 4, shape=(40, 60))
    said = []
    for size in (60, 64):
        settings = unetseg.PatchSettings(size=size, per_image=1)
        unetseg.build_store("set", "p.h5", settings, overwrite=True, on_progress=said.append)
    (warning,) = [str(one) for one in said if "larger than every image" in str(one)]
    assert "a patch of 64 pixels is larger than every image, whose longest side is 60" in warning
    assert f"size={auto_size([(40, 60)])} would fit" in warning


def test_a_scale_that_leaves_nothing_to_see_is_refused(empty):
    write_set("set", 4, shape=(40, 60))
    with pytest.raises(InputError, match=r"0.05 leaves 2 x 3 pixels .* 40 x 60; give scale=0.4 "):
        build(scale=0.05)
    assert build(scale=0.4, per_image=1).patches == 3
