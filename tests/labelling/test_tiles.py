"""Tiles of pictures: sizes, windows, channels, and the tiles that are kept."""

import numpy as np
import pytest
import tifffile

from tests.support import write_image
from unetseg.errors import InputError
from unetseg.labelling import tiles
from unetseg.labelling.tiles import Pictures, Pyramid, check_pixels
from unetseg.pictures.transforms import halve_image


def test_levels_halve_until_one_tile_holds_all():
    pyramid = Pyramid(np.zeros((1025, 700, 3), np.uint8))
    assert [level.shape for level in pyramid.levels] == [
        *((1025, 700, 3), (513, 350, 3), (257, 175, 3)),
    ]
    assert pyramid.tile(0, 1, 2, [0, 1, 2], [(0, 255)] * 3).shape == (1, 188, 3)
    with pytest.raises(IndexError):
        pyramid.tile(0, 2, 0, [0], [(0, 255)])
    with pytest.raises(IndexError):
        pyramid.tile(3, 0, 0, [0], [(0, 255)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_halving_takes_means_of_two_by_two(dtype, channels):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 250, (6, 5, channels)).astype(dtype)
    half = halve_image(image)
    assert half.shape == (3, 3, channels)
    assert half.dtype == dtype
    wide = image.astype(float)
    due = (wide[0::2, :4:2] + wide[1::2, :4:2] + wide[0::2, 1::2] + wide[1::2, 1::2]) / 4
    assert np.abs(half[:, :2] - due).max() <= 0.5
    assert np.abs(half[:, 2] - (wide[0::2, 4] + wide[1::2, 4]) / 2).max() <= 0.5


def test_a_window_stretches_each_channel():
    image = np.zeros((4, 4, 5), np.uint16)
    image[..., 3], image[..., 1] = 1500, 70
    tile = Pyramid(image).tile(0, 0, 0, [3, 1], [(1000, 2000), (50, 60)])
    assert tile[0, 0].tolist() == [127, 255, 0]
    assert Pyramid(image).tile(0, 0, 0, [3], [(1000, 2000)]).tolist() == [[[127]] * 4] * 4


def test_ranges_are_those_of_the_display():
    image = np.arange(1001, dtype=np.uint16).reshape(1, 1001, 1).repeat(2, 0)
    (found,) = Pyramid(image[:, :500]).ranges
    assert found["min"] == 0
    assert found["max"] == 499
    assert found["low"] == pytest.approx(np.percentile(image[:, :500], 1))
    assert found["high"] == pytest.approx(np.percentile(image[:, :500], 99.8))


def test_pictures_used_last_are_kept(tmp_path, monkeypatch):
    paths = [write_image(tmp_path / f"p{k}", np.full((8, 8, 1), k, np.uint8)) for k in range(4)]
    pictures = Pictures(paths)
    monkeypatch.setattr(tiles, "_MEMORY", 130)
    first = pictures[0]
    assert pictures[1] is pictures[1]
    assert pictures[0] is first
    pictures[2]
    assert pictures[0] is first
    assert pictures[2] is pictures[2]
    one = pictures[1]
    assert pictures[0] is not first
    assert (pictures.image(1) == 1).all()
    assert one is not None


def test_a_picture_over_a_hundred_megapixels_is_refused_in_one_line(tmp_path):
    check_pixels(tmp_path / "a.tif", 10_000, 10_000)
    with pytest.raises(InputError) as caught:
        check_pixels(tmp_path / "a.tif", 10_001, 10_000)
    assert "--scale" in str(caught.value)
    assert "cut it into parts" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sixteen_bits_and_many_channels_are_read(tmp_path):
    image = np.random.default_rng(0).integers(0, 65535, (20, 30, 5)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, planarconfig="contig", photometric="minisblack")
    np.testing.assert_array_equal(Pictures([tmp_path / "a.tif"]).image(0), image)


@pytest.mark.parametrize("nodata", [np.nan, -9999.0, -3.4028235e38])
def test_pixels_that_a_file_declares_as_no_data_change_neither_window_nor_features(
    tmp_path, nodata
):
    image = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    known = image[10:].mean()
    image[:10] = nodata
    tags = [(42113, "s", 0, str(nodata), True)]
    tifffile.imwrite(tmp_path / "a.tif", image, extratags=tags)
    pyramid = Pictures([tmp_path / "a.tif"])[0]
    assert 0 <= pyramid.ranges[0]["min"] < pyramid.ranges[0]["max"] <= 1
    np.testing.assert_allclose(pyramid[0][:10], known, rtol=1e-5)
    np.testing.assert_array_equal(pyramid[0][10:, :, 0], image[10:])
