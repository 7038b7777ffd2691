"""Rows are compared with the picture read whole; masks are read back by other means, too."""

import errno
import json
import os
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.pictures.samples import COLOURS, VALUES
from tests.pictures.test_reading import READABLE
from tests.support import flipped, pil, put, tif
from unetseg.classes import ClassTable, SegmentationClass
from unetseg.dataset.naming import Pair
from unetseg.errors import InputError
from unetseg.pictures import bands, reading, tiff, writing
from unetseg.pictures.bands import open_raster, valid_pixels, write_mask_tiff
from unetseg.pictures.georeference import Georeference
from unetseg.pictures.reading import read_image, read_mask
from unetseg.settings import Selection

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 200, (50, 41), dtype=np.uint8)
RGB = RNG.integers(0, 200, (50, 41, 3), dtype=np.uint8)
STACK = RNG.integers(0, 200, (4, 50, 41), dtype=np.uint8)
BANDS = [(0, 1), (5, 40), (20, 33), (33, 50), (0, 50)]  # onwards, back, over tiles and within
GDAL_NODATA = 42113

LAYOUTS = {
    "one strip": {},
    "one packed strip": {"compression": "zlib"},
    "packed strips": {"compression": "zlib", "rowsperstrip": 7},
    "tiles": {"tile": (16, 32)},
    "packed tiles": {"compression": "zlib", "tile": (32, 16)},
    "predicted tiles": {"compression": "zlib", "predictor": 2, "tile": (16, 16)},
}
PIXELS = {
    "grey": (GREY, {"photometric": "minisblack"}),
    "white is zero": (GREY, {"photometric": "miniswhite"}),
    "16-bit grey, big-endian": (GREY.astype(np.uint16) * 300, {"byteorder": ">"}),
    "float": (GREY.astype(np.float32) / 7, {}),
    "int16": (GREY.astype(np.int16) - 99, {}),
    "rgb": (RGB, {"photometric": "rgb"}),
    "planar rgb": (RGB.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}),
    "five channels": (
        np.dstack([RGB, RGB[..., :2]]),
        {"photometric": "minisblack", "planarconfig": "contig"},
    ),
    "alpha before another channel": (
        np.dstack([RGB, GREY, GREY]),
        {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]},
    ),
    "palette": (
        GREY,
        {
            "photometric": "palette",
            "colormap": RNG.integers(0, 2**16, (3, 256), dtype=np.uint16),
        },
    ),
}


def same_by_rows(path, page=None) -> None:
    selection = Selection(page)
    whole = read_image(path, selection)
    with open_raster(path, selection) as raster:
        assert (raster.shape, raster.dtype) == (whole.shape, whole.dtype)
        for first, last in [(a, min(b, len(whole))) for a, b in BANDS if a < len(whole)]:
            band = raster[first:last]
            assert band.dtype == whole.dtype
            np.testing.assert_array_equal(band, whole[first:last])
            band[:] = 1  # an array of its own: later bands stay right
        np.testing.assert_array_equal(np.asarray(raster), whole)


@pytest.mark.parametrize("data", [r[1] for r in READABLE], ids=[r[0] for r in READABLE])
def test_rows_of_every_kind_of_picture_are_those_of_the_whole(tmp_path, data):
    same_by_rows(put(tmp_path, data))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", PIXELS)
def test_rows_of_every_layout_of_tiff_are_those_of_the_whole(tmp_path, monkeypatch, kind, layout):
    pixels, options = PIXELS[kind]
    if layout == "predicted tiles" and kind == "float":
        pytest.skip("needs imagecodecs to write")
    path = put(tmp_path, tif(pixels, **options, **LAYOUTS[layout]))
    whole = read_image(path)
    monkeypatch.setattr(tiff, "_pixels", None)  # none of these is decoded as a whole
    with open_raster(path) as raster:
        for first, last in BANDS:
            np.testing.assert_array_equal(raster[first:last], whole[first:last])


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_rows_of_a_turned_picture_are_those_of_the_upright_one(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    same_by_rows(put(tmp_path, pil(RGB, kind, exif=exif)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "tile": (16, 16)},
        {"imagej": True},
        {"ome": True},
        {"ome": True, "compression": "zlib", "tile": (16, 16)},
    ],
)
def test_pages_of_a_stack_and_pages_that_are_channels(tmp_path, options):
    for axes, page in (("ZYX", 2), ("CYX", None)):
        data = tif(STACK, photometric="minisblack", metadata={"axes": axes}, **options)
        same_by_rows(put(tmp_path, data), page)
    stack = np.stack([STACK, 255 - STACK])
    data = tif(stack, photometric="minisblack", metadata={"axes": "ZCYX"}, **options)
    same_by_rows(put(tmp_path, data), 1)


def test_a_crop_that_pillow_takes_for_an_attack_is_taken_in_parts(tmp_path, monkeypatch):
    path = put(tmp_path, pil(RGB))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 41 * 10)
    monkeypatch.setattr(reading, "_CROP", 41 * 10)
    same_by_rows(path)
    monkeypatch.setattr(reading, "_CROP", 40)  # not even a row
    same_by_rows(path)


def decoded(monkeypatch) -> list[int]:
    """Return a list that receives the number of each tile that is decoded."""
    found, place = [], tiff._Tiles._place

    def noting(self, page, index, pixels):
        found.append(index)
        place(self, page, index, pixels)

    monkeypatch.setattr(tiff._Tiles, "_place", noting)
    return found


def test_only_the_tiles_that_rows_touch_are_decoded_and_those_at_hand_not_again(
    tmp_path, monkeypatch
):
    path = put(tmp_path, tif(RGB, tile=(16, 16), compression="zlib"))  # 4 rows of 3 tiles
    found = decoded(monkeypatch)
    with open_raster(path) as raster:
        assert found == []
        raster[20:30]
        assert found == [0, 1, 2, 3, 4, 5]  # the first row of tiles tells whether it can be done
        raster[12:40]
        assert found == list(range(9))
        raster[30:50]
        assert found == list(range(12))


def test_tiles_are_kept_up_to_a_limit(tmp_path, monkeypatch):
    path = put(tmp_path, tif(GREY, tile=(16, 16), compression="zlib"))
    monkeypatch.setattr(tiff, "_KEPT", 2 * 16 * 41)  # two rows of tiles
    found = decoded(monkeypatch)
    with open_raster(path) as raster:
        raster[0:48]
        found.clear()
        raster[16:48]
        assert found == []
        raster[0:16]
        assert found == [0, 1, 2]


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}])
def test_a_tall_picture_is_never_held_as_a_whole(tmp_path, monkeypatch, options):
    monkeypatch.setattr(tiff, "_KEPT", 2**15)
    path = put(tmp_path, tif(np.zeros((6000, 256), np.uint8), **options))  # 1.5 MB
    with open_raster(path) as raster:
        tracemalloc.start()
        try:
            for first in range(0, 6000, 100):
                raster[first : first + 100]
            assert tracemalloc.get_traced_memory()[1] < 500_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("rows", [slice(50, 60), slice(7, 7), slice(9, 3), slice(0, 9, 2)])
def test_rows_that_are_not_there_are_an_index_error(tmp_path, rows):
    with open_raster(put(tmp_path, pil(GREY))) as raster, pytest.raises(IndexError):
        raster[rows]


# --- unreadable files -------------------------------------------------------------------------


def test_a_picture_is_refused_on_opening_as_it_is_when_read_whole(tmp_path):
    path = put(tmp_path, b"hello")
    stack = put(tmp_path, tif(STACK, photometric="minisblack"), "stack.tif")
    for name, page, text in [
        (tmp_path / "none.png", None, "not found"),
        (path, None, "not a PNG, JPEG"),
        (stack, None, "holds 4 pages"),
        (stack, 4, "no page 4, there are 4"),
    ]:
        for read in (read_image, open_raster):
            with pytest.raises(InputError, match=text):
                read(name, Selection(page))
    with pytest.raises(InputError, match="over the limit of 99"):
        open_raster(stack, Selection(0), max_pixels=99)


def test_a_damaged_tile_is_an_error_that_names_the_file_when_its_rows_are_read(tmp_path):
    data = tif(GREY, tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(put(tmp_path, data)) as opened:
        offset, count = (
            v[9] for v in (opened.pages[0].dataoffsets, opened.pages[0].databytecounts)
        )
    path = put(tmp_path, flipped(data, offset + count // 2), "bad.tif")
    with open_raster(path) as raster:
        np.testing.assert_array_equal(raster[0:48][..., 0], GREY[:48])
        with pytest.raises(InputError, match=r"bad\.tif: not readable as TIFF"):
            raster[40:50]


def test_a_damaged_png_is_told_by_its_checksums(tmp_path):
    data = pil(RGB)
    path = put(tmp_path, flipped(data, len(data) // 2), "bad.png")
    with open_raster(path) as raster, pytest.raises(InputError, match=r"bad\.png: not readable"):
        raster[0:1]


def test_damage_of_any_kind_is_an_error_of_input_or_goes_unseen(tmp_path):
    originals = [r[1] for r in READABLE] + [tif(GREY, ome=True), tif(GREY, imagej=True)]
    rng = np.random.default_rng(3)  # the same damage after any other tests
    for _ in range(150):
        data = bytearray(originals[rng.integers(len(originals))])
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        with suppress(InputError), open_raster(put(tmp_path, bytes(data))) as raster:
            raster[0 : raster.shape[0]]
            assert raster.georeference.pixel_size is None or raster.georeference.pixel_size > (0, 0)


# --- pixels without data ----------------------------------------------------------------------


def float_tiff(value: float, nodata: str | None) -> bytes:
    pixels = GREY.astype(np.float32)
    pixels[30, 7] = value
    tags = [(GDAL_NODATA, "s", 0, nodata, True)] if nodata else []
    return tif(pixels, extratags=tags, tile=(16, 16))


@pytest.mark.parametrize("nodata", ["nan", "-9999"])
def test_nan_may_stand_for_no_data_where_the_file_says_that_some_pixels_have_none(tmp_path, nodata):
    with open_raster(put(tmp_path, float_tiff(np.nan, nodata))) as raster:
        rows = raster[20:40]
        assert np.argwhere(np.isnan(rows)).tolist() == [[10, 7, 0]]
        valid = valid_pixels(rows, raster.georeference.nodata)
        assert np.argwhere(~valid).tolist() == [[10, 7]]


@pytest.mark.parametrize(
    ("value", "nodata"), [(np.nan, None), (np.inf, None), (np.inf, "-9999"), (np.inf, "nan")]
)
def test_what_is_not_finite_and_no_lack_of_data_is_refused_with_its_place(tmp_path, value, nodata):
    with open_raster(put(tmp_path, float_tiff(value, nodata))) as raster:
        raster[0:30]
        with pytest.raises(InputError, match=r"not finite, first at \(x 7, y 30\)"):
            raster[20:40]


@pytest.mark.parametrize(
    ("value", "nodata", "remedy"),
    [
        (-3.4028235e38, None, "declare it: gdal_edit.py -a_nodata -3.4028234663852886e+38 FILE"),
        (1e31, "nan", "declare it"),
        (1e31, "1e31", None),
        (1e29, None, None),
    ],
)
def test_a_value_that_no_measurement_has_is_refused_unless_it_is_declared(
    tmp_path, value, nodata, remedy
):
    with open_raster(put(tmp_path, float_tiff(value, nodata))) as raster:
        raster.with_valid(slice(0, 30))
        if remedy is None:
            raster.with_valid(slice(20, 40))
        else:
            with pytest.raises(InputError, match="stands for no data in many programs") as caught:
                raster.with_valid(slice(20, 40))
            assert remedy in caught.value.remedy


def test_a_nodata_too_large_for_the_pixels_that_are_handed_out_is_still_no_data(tmp_path):
    lowest = np.finfo(np.float64).min  # GDAL's default for doubles; as float32 minus infinity
    pixels = GREY.astype(np.float64)
    pixels[2, 3] = lowest
    path = put(tmp_path, tif(pixels, extratags=[(GDAL_NODATA, "s", 0, repr(float(lowest)), True)]))
    with open_raster(path) as raster:
        valid = valid_pixels(raster[0:9], raster.georeference.nodata)
    assert np.argwhere(~valid).tolist() == [[2, 3]]


def test_a_pixel_is_without_data_where_all_its_channels_are():
    rows = np.array([[[0, 0], [0, 7], [7, 7]]], np.uint8)
    assert valid_pixels(rows, 0.0).tolist() == [[False, True, True]]
    assert valid_pixels(rows, 7.0).tolist() == [[True, True, False]]
    for never in (-9999.0, 256.0, 0.5, np.nan):
        assert valid_pixels(rows, never).tolist() == [[True, True, True]]
    assert valid_pixels(rows, None) is None
    floats = np.array([[[np.nan, 5], [5, 5], [np.nan, 1], [np.nan, np.nan]]], np.float32)
    assert valid_pixels(floats, 5.0).tolist() == [[False, False, True, False]]


def clear_picture(kind: str) -> bytes:
    """Return a picture in which alone the pixels of column 3 from row 5 on are transparent."""
    rgb = RNG.integers(1, 256, (40, 33, 3), dtype=np.uint8)
    alpha = np.full((40, 33), 255, np.uint8)
    alpha[5:, 3], alpha[0, 0] = 0, 1
    if kind == "colour":
        rgb[5:, 3] = 0
        return pil(rgb, transparency=(0, 0, 0))
    rgba = np.dstack([rgb, alpha])
    if kind == "PNG":
        return pil(rgba)
    return tif(rgba, photometric="rgb", extrasamples=["unassalpha"], **{"tile": (16, 16)})


@pytest.mark.parametrize("kind", ["PNG", "colour", "TIFF"])
@pytest.mark.parametrize("channels", [(), (1,)])
def test_a_wholly_transparent_pixel_is_without_data(tmp_path, kind, channels):
    path = put(tmp_path, clear_picture(kind))
    due = np.ones((40, 33), np.bool_)
    due[5:, 3] = False
    with open_raster(path, Selection(channels=channels)) as raster:
        assert raster.valid(slice(0, 5)) is None
        np.testing.assert_array_equal(raster.valid(slice(3, 40)), due[3:])
        np.testing.assert_array_equal(raster[0:40], read_image(path, Selection(channels=channels)))
    pair = Pair("a", path, path)
    np.testing.assert_array_equal(pair.missing(), ~due)
    image, missing = pair.read_known()
    np.testing.assert_array_equal(missing, ~due)
    np.testing.assert_array_equal(image[due], read_image(path)[due])


def test_a_clear_colour_is_told_in_the_rows_that_are_asked_for_alone(tmp_path, monkeypatch):
    converted, convert = [], Image.Image.convert

    def noting(self, mode):
        converted.append(self.size)
        return convert(self, mode)

    monkeypatch.setattr(Image.Image, "convert", noting)
    with open_raster(put(tmp_path, clear_picture("colour"))) as raster:
        assert not raster.valid(slice(5, 12))[:, 3].any()
    assert converted == [(33, 7)]


def with_mask(path, pixels, known, **layout):
    """Write a picture and a page that says where it holds data, as GDAL does."""
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    with tifffile.TiffWriter(path) as made:
        made.write(pixels, photometric=photometric, metadata=None, **layout)
        made.write(known, photometric=4, subfiletype=4, metadata=None, **layout)


@pytest.mark.parametrize("layout", [n for n in LAYOUTS if "predicted" not in n])
@pytest.mark.parametrize("pixels", [GREY, RGB, GREY.astype(np.uint16) * 200, RGB / np.float32(7)])
def test_a_mask_page_of_gdal_is_no_picture_and_says_which_pixels_lack_data(
    tmp_path, pixels, layout
):
    path, known = tmp_path / "x.tif", RNG.random((50, 41)) < 0.8
    known[:8] = False
    with_mask(path, pixels, known, **LAYOUTS[layout])
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    assert reading.read_info(path).pages == 1
    np.testing.assert_array_equal(read_image(path), pixels)
    with open_raster(path) as raster:
        for first, last in BANDS:
            image, valid = raster.with_valid(slice(first, last))
            np.testing.assert_array_equal(image, pixels[first:last])
            np.testing.assert_array_equal(valid, known[first:last])


@pytest.mark.parametrize("pixels", [GREY, RGB])
def test_smaller_copies_of_a_picture_and_of_its_mask_page_are_no_pages(tmp_path, pixels):
    path, known = tmp_path / "x.tif", RNG.random((50, 41)) < 0.8
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    with tifffile.TiffWriter(path) as made:
        for step, small in ((1, 0), (2, 1), (4, 1)):  # as in a Cloud Optimised GeoTIFF
            part, plain = pixels[::step, ::step], {"metadata": None}
            made.write(part, photometric=photometric, subfiletype=small, **plain)
            made.write(known[::step, ::step], photometric=4, subfiletype=4 + small, **plain)
    assert reading.read_info(path).pages == 1
    with open_raster(path) as raster:
        np.testing.assert_array_equal(raster.with_valid(slice(0, 50))[1], known)


def test_labels_without_data_in_a_mask_page_of_gdal_are_unlabelled(tmp_path):
    known = np.ones(GREY.shape, bool)
    known[3:9] = False
    with_mask(tmp_path / "x.tif", GREY, known, compression="zlib")
    raw = read_mask(tmp_path / "x.tif")
    np.testing.assert_array_equal(raw.unlabelled, ~known)
    np.testing.assert_array_equal(raw.values, np.where(known, GREY, 0))


@pytest.mark.parametrize("known", [np.ones((50, 40), bool), np.ones((3, 50, 41), bool)])
def test_a_mask_page_that_fits_no_picture_is_refused(tmp_path, known):
    with_mask(tmp_path / "x.tif", GREY, known)
    with pytest.raises(InputError) as caught:
        reading.read_info(tmp_path / "x.tif")
    assert caught.value.problem == (
        "a mask of pixels without data that fits no single picture without transparency"
    )


def test_an_image_with_gaps_and_its_labels_are_read_by_decoding_it_once(tmp_path, monkeypatch):
    image = put(tmp_path, clear_picture("PNG"))
    mask = put(tmp_path, pil(np.full((40, 33), 7, np.uint8)), "mask.png")
    opened, open_reader = [], bands.Raster._open_reader
    monkeypatch.setattr(
        bands.Raster, "_open_reader", lambda self: opened.append(self) or open_reader(self)
    )
    found, labels = Pair("a", image, mask).read_labelled(VALUES)
    assert len(opened) == 1
    np.testing.assert_array_equal(labels == 255, Pair("a", image, mask).missing())
    np.testing.assert_array_equal(found[labels < 255], read_image(image)[labels < 255])


def test_a_picture_without_gaps_is_not_decoded_to_find_any(tmp_path, monkeypatch):
    with open_raster(put(tmp_path, pil(GREY))) as raster:
        monkeypatch.setattr(raster, "_open_reader", None)
        assert raster.valid(slice(0, 5)) is None


# --- masks written by tiles -------------------------------------------------------------------

SAID = {"unetseg": '{"a": 1}', "note": "größer"}
INDICES = RNG.integers(0, 3, (70, 83), dtype=np.uint8)
INDICES[5:9, 60:] = 255
DEEP = ClassTable(
    tuple(SegmentationClass(str(v), v, f"#0000f{i}") for i, v in enumerate((0, 7, 300))), (9,)
)
NO_IGNORE = ClassTable(VALUES.classes[::2])  # values 0 and 7


def cut(indices, *rows):
    """Yield bands of so many rows, and the rest."""
    yield from np.split(indices, np.cumsum(rows))


@pytest.mark.parametrize("rows", [(), (16, 16, 16, 16), (1, 40, 0, 3), (69,)])
@pytest.mark.parametrize("table", [VALUES, COLOURS, DEEP], ids=["values", "colours", "deep"])
def test_a_mask_written_by_tiles_is_the_mask_written_whole(tmp_path, table, rows):
    parts, shape = cut(INDICES, *rows), INDICES.shape
    write_mask_tiff(tmp_path / "m.tif", parts, shape, table, SAID, Georeference(), tile=16)
    writing.write_mask(tmp_path / "m.png", INDICES, table)
    tiled, whole = (reading.read_mask(tmp_path / name) for name in ("m.tif", "m.png"))
    np.testing.assert_array_equal(tiled.values, whole.values)
    assert tiled.values.dtype == whole.values.dtype
    if table is DEEP:
        assert tiled.palette is None
    else:
        np.testing.assert_array_equal(tiled.palette, whole.palette)
    assert reading.read_text(tmp_path / "m.tif") == SAID


def test_any_viewer_shows_the_tiled_mask_in_the_class_colours(tmp_path):
    path = tmp_path / "m.tif"
    write_mask_tiff(path, [INDICES], INDICES.shape, VALUES, SAID, Georeference())
    with tifffile.TiffFile(path) as opened:
        page = opened.pages[0]
        assert (page.tilelength, page.tilewidth, page.compression) == (512, 512, 8)
        assert not opened.is_bigtiff
        assert json.loads(page.description)["note"] == "größer"
    with Image.open(path) as opened:
        painted = np.asarray(opened.convert("RGB"))
    due = np.array([[0x10, 0x20, 0x30], [0xFF, 0x80, 0], [0, 0xFF, 0]])
    seen = INDICES != 255
    np.testing.assert_array_equal(painted[seen], due[INDICES[seen]])


def test_offsets_have_64_bits_where_32_may_not_do(tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "_CLASSIC", INDICES.size - 1)
    write_mask_tiff(tmp_path / "m.tif", [INDICES], INDICES.shape, VALUES, {}, Georeference())
    with tifffile.TiffFile(tmp_path / "m.tif") as opened:
        assert opened.is_bigtiff
    np.testing.assert_array_equal(read_mask_indices(tmp_path / "m.tif"), INDICES)


def read_mask_indices(path):
    """Return class indices from a mask of `VALUES`: 0, 255 and 7; 11 ignored."""
    index = np.full(256, 99, np.uint8)
    index[[0, 255, 7, 11]] = 0, 1, 2, 255
    return index[reading.read_mask(path).values]


GEOTIFF = [
    (33550, 12, 3, (0.5, 0.25, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 500_000.0, 4_600_000.0, 0.0), True),
    (34735, 3, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3076, 0, 1, 9001), True),
    (34736, 12, 1, 6378137.0, True),
    (34737, 2, 0, "WGS 84 / UTM zone 31N|", True),
]


@pytest.mark.parametrize(
    "options",
    [
        {"extratags": GEOTIFF},
        {"resolution": (30_769.23, 15_000), "resolutionunit": "CENTIMETER"},
        {"resolution": (300, 600), "resolutionunit": "INCH"},
        {"resolution": (2, 3), "resolutionunit": "NONE"},
        {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.325, "PhysicalSizeY": 1.1}},
    ],
)
def test_a_mask_lies_where_its_input_lies(tmp_path, options):
    with open_raster(put(tmp_path, tif(INDICES, **options))) as raster:
        found = raster.georeference
    write_mask_tiff(tmp_path / "m.tif", [INDICES], INDICES.shape, VALUES, SAID, found)
    with open_raster(tmp_path / "m.tif") as raster:
        again = raster.georeference
    assert again.tags == found.tags
    assert again.resolution == pytest.approx(found.resolution)
    assert again.resolution_unit == found.resolution_unit
    assert (again.pixel_size is None) == (found.pixel_size is None)


@pytest.mark.parametrize(
    ("table", "due"), [(VALUES, "11"), (COLOURS, "255"), (NO_IGNORE, "255"), (DEEP, "9")]
)
def test_pixels_without_data_are_declared_by_the_value_that_stands_for_them(tmp_path, table, due):
    indices = np.where(INDICES == 255, 255, INDICES % 2)
    place = Georeference(nodata=-9999.0)
    write_mask_tiff(tmp_path / "m.tif", [indices], INDICES.shape, table, {}, place)
    with tifffile.TiffFile(tmp_path / "m.tif") as opened:
        assert opened.pages[0].tags[GDAL_NODATA].value == due
    values = reading.read_mask(tmp_path / "m.tif").values
    np.testing.assert_array_equal(values == int(due), INDICES == 255)


def test_a_mask_of_a_png_says_how_large_its_pixels_are(tmp_path):
    found = Georeference((100, 50), "cm", nodata=0.0)
    writing.write_mask(tmp_path / "m.png", INDICES, NO_IGNORE.with_ignored((3,)), {}, found)
    with Image.open(tmp_path / "m.png") as opened:
        assert opened.info["dpi"] == pytest.approx((254, 127))
    # 4 nm: more than the 2^31 pixels per metre that a PNG can say; and no unit
    for none in (Georeference((2.5e7, 2.5e7), "cm"), Georeference((2, 3)), Georeference()):
        writing.write_mask(tmp_path / "m.png", INDICES, VALUES, {}, none)
        with Image.open(tmp_path / "m.png") as opened:
            assert "dpi" not in opened.info


BINARY = ClassTable((SegmentationClass("a", 0, "#000000"), SegmentationClass("b", 255, "#ffffff")))


@pytest.mark.parametrize(("table", "free"), [(NO_IGNORE, 255), (BINARY, 254)])
def test_ignored_pixels_of_classes_without_such_a_value_get_a_free_one(tmp_path, table, free):
    indices = INDICES % 2
    indices[69, 82] = 255
    bands = cut(indices, 40)
    write_mask_tiff(tmp_path / "m.tif", bands, indices.shape, table, {}, Georeference())
    writing.write_mask(tmp_path / "m.png", indices, table)
    due = np.array(table.pixel_values())[indices % 255]
    due[69, 82] = free
    for name in ("m.tif", "m.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name).values, due)


@pytest.mark.parametrize("height", [60, 64, 69, 80])
def test_bands_that_do_not_make_up_the_mask_are_an_error(tmp_path, height):
    with pytest.raises(ValueError, match=r"bands of (more|70)"):
        write_mask_tiff(
            tmp_path / "m.tif", cut(INDICES, 64), (height, 83), VALUES, {}, Georeference(), tile=16
        )
    assert list(tmp_path.iterdir()) == []


def test_tiles_are_written_before_the_next_band_is_made(tmp_path):
    sizes = []

    def bands():
        for _ in range(200):
            (temporary,) = tmp_path.glob(".*.tmp")
            sizes.append(temporary.stat().st_size)
            yield RNG.integers(0, 3, (16, 160), dtype=np.uint8)
        sizes.append(0)  # the bands are asked for until they end

    write_mask_tiff(tmp_path / "m.tif", bands(), (3200, 160), VALUES, {}, Georeference(), tile=16)
    assert len(sizes) == 201
    assert sizes[-2] > 0.8 * (tmp_path / "m.tif").stat().st_size > sizes[0]


def test_a_file_system_that_reserves_nothing_takes_an_array(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "refused")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with bands.scratch(tmp_path / "mask.tif", (3, 5), np.uint16) as array:
        assert array.shape == (3, 5)
        assert not array.any()
        array[2, 4] = 7
        assert array.sum() == 7
    assert not list(tmp_path.iterdir())
