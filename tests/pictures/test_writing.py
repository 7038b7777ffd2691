import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.pictures.samples import COLOURS, GREY8, GREY16, INDICES, RGB8, RGB16, RNG, SPREAD, VALUES
from unetseg.classes import ClassTable, SegmentationClass, table_of
from unetseg.pictures import masks, reading, writing
from unetseg.pictures.reading import read_image


@pytest.mark.parametrize(
    ("table", "values"), [(VALUES, [0, 255, 7, 11]), (COLOURS, [0, 1, 2, 255])]
)
def test_a_written_mask_holds_the_values_and_colours_of_its_classes(tmp_path, table, values):
    path = tmp_path / "m.png"
    indices = INDICES.copy()
    indices[0, 0] = 255
    writing.write_mask(path, indices, table, {"model": "abc", "note": "größer 1→2"})
    with Image.open(path) as opened:
        assert opened.mode == "P"
        pixels, painted = np.asarray(opened), np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(
        pixels, np.array([*values, *[0] * 252])[np.where(indices == 255, 3, indices)]
    )
    assert f"#{bytes(painted[1, 1]).hex()}" == table.classes[INDICES[1, 1]].colour
    assert reading.read_text(path) == {"model": "abc", "note": "größer 1→2"}


@pytest.mark.parametrize("table", [VALUES, COLOURS, table_of([1, 2, 255]), table_of([0, 1, 2])])
def test_ignored_pixels_of_a_written_mask_are_ignored_when_it_is_read(tmp_path, table):
    indices = INDICES.copy()
    indices[0, :2] = 255
    writing.write_mask(tmp_path / "m.png", indices, table)
    read = masks.decode(reading.read_mask(tmp_path / "m.png"), table)
    np.testing.assert_array_equal(read, indices)


def test_values_over_255_are_written_as_16_bit_grey(tmp_path):
    table = ClassTable(
        tuple(SegmentationClass(str(v), v, f"#00000{i}") for i, v in enumerate((0, 7, 300)))
    )
    writing.write_mask(tmp_path / "m.png", INDICES, table)
    np.testing.assert_array_equal(iio.imread(tmp_path / "m.png"), SPREAD)


@pytest.mark.parametrize(
    "pixels", [GREY8[..., None], RGB8, GREY16[..., None]], ids=["grey", "rgb", "16"]
)
def test_a_written_picture_is_read_by_imageio(tmp_path, pixels):
    writing.write_picture(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(iio.imread(tmp_path / "a.png").reshape(pixels.shape), pixels)


def test_16_bit_colour_is_written_in_full(tmp_path):
    writing.write_picture(tmp_path / "a.png", RGB16)
    assert (tmp_path / "a.png").read_bytes()[24:26] == b"\x10\x02"  # depth 16, colour type RGB
    np.testing.assert_array_equal(iio.imread(tmp_path / "a.png"), RGB16 >> 8)  # all Pillow sees
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB16)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_float_planes_come_back_through_tifffile_with_their_axes(tmp_path, channels):
    planes = RNG.random((channels, 6, 9), dtype=np.float32)
    writing.write_float_tiff(tmp_path / "p.tif", planes)
    with tifffile.TiffFile(tmp_path / "p.tif") as opened:
        np.testing.assert_array_equal(opened.asarray().reshape(planes.shape), planes)
        assert opened.series[0].get_axes(squeeze=False) == "CYX"
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), planes.transpose(1, 2, 0))


@pytest.mark.parametrize("image", [GREY8[..., None], RGB8, RGB8.astype(np.uint16) * 257])
def test_text_in_a_picture_is_read_back_and_changes_no_pixel(tmp_path, image):
    said = {"unetseg": '{"a": 1}', "note": "größer"}
    writing.write_picture(tmp_path / "a.png", image, said)
    assert reading.read_text(tmp_path / "a.png") == said
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_text_in_a_float_tiff_is_read_back_and_a_strangers_has_none(tmp_path):
    planes = np.random.default_rng(0).random((3, 5, 4), np.float32)
    writing.write_float_tiff(tmp_path / "a.tif", planes, {"unetseg": "text"})
    assert reading.read_text(tmp_path / "a.tif")["unetseg"] == "text"
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), planes.transpose(1, 2, 0))
    for description in (None, "words", "[1]", "5"):
        tifffile.imwrite(tmp_path / "b.tif", planes[0], description=description, metadata=None)
        assert reading.read_text(tmp_path / "b.tif") == {}
