"""Files are made by tifffile and Pillow; the expected values were worked out by hand."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetseg.pictures.bands import open_raster
from unetseg.pictures.georeference import Georeference

GREY = np.arange(54, dtype=np.uint8).reshape(6, 9)
DOUBLE, SHORT, ASCII = 12, 3, 2
SCALE = (33550, DOUBLE, 3, (0.5, 0.25, 0.0), True)
TIEPOINT = (33922, DOUBLE, 6, (0.0, 0.0, 0.0, 500_000.0, 4_600_000.0, 0.0), True)
# Version 1.1.0 with two keys: the model is projected; linear units are metres (EPSG 9001).
IN_METRES = (34735, SHORT, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3076, 0, 1, 9001), True)
IN_SURVEY_FEET = (34735, SHORT, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3076, 0, 1, 9003), True)
IN_MERCATOR = (34735, SHORT, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 3857), True)
IN_NEW_YORK = (34735, SHORT, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 2263), True)
IN_FEET = (34735, SHORT, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3076, 0, 1, 9002), True)
PARAMETERS = (34736, DOUBLE, 2, (6378137.0, 298.25), True)
NAMES = (34737, ASCII, 0, "WGS 84 / UTM zone 31N|", True)


def of(tmp_path, **options) -> Georeference:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, options.pop("pixels", GREY), **options)
    with open_raster(path) as raster:
        return raster.georeference


def of_picture(tmp_path, kind: str, **options) -> Georeference:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, kind, **options)
    path = tmp_path / "a"
    path.write_bytes(buffer.getvalue())
    with open_raster(path) as raster:
        return raster.georeference


@pytest.mark.parametrize(
    ("keys", "unit"),
    [
        *((IN_METRES, "m"), (IN_FEET, "ft"), (IN_SURVEY_FEET, "US ft"), (IN_MERCATOR, "m")),
        (IN_NEW_YORK, "map unit"),  # the file names the system alone
    ],
)
def test_a_geotiff_states_its_pixels_in_the_units_of_its_map(tmp_path, keys, unit):
    tags = [SCALE, TIEPOINT, keys, PARAMETERS, NAMES]
    found = of(tmp_path, extratags=tags, resolution=(300, 300), resolutionunit="INCH")
    assert found.pixel_size == (0.25, 0.5, unit)  # height, then width
    assert [tag[0] for tag in found.tags] == [33550, 33922, 34735, 34736, 34737]


def test_a_turned_geotiff_states_lengths_along_its_own_rows_and_columns(tmp_path):
    # Turned by the angle of the triangle of sides 3, 4, 5: 2 wide, 1 high.
    matrix = (1.6, 0.6, 0, 10, 1.2, -0.8, 0, 20, 0, 0, 0, 0, 0, 0, 0, 1)
    found = of(tmp_path, extratags=[(34264, DOUBLE, 16, tuple(map(float, matrix)), True)])
    height, width, unit = found.pixel_size
    assert (height, width, unit) == (pytest.approx(1), pytest.approx(2), "map unit")


def placed(matrix, column, row):
    a, b, c, d, e, f = matrix
    return a * column + b * row + c, d * column + e * row + f


def test_a_geotiff_places_the_corners_of_its_pixels(tmp_path):
    # TIEPOINT ties the corner of the first pixel; a pixel is 0.5 wide and 0.25 high.
    matrix = of(tmp_path, extratags=[SCALE, TIEPOINT, IN_METRES]).map_matrix
    _, _, _, x, y, _ = TIEPOINT[3]
    assert placed(matrix, 0, 0) == (x, y)
    assert placed(matrix, 4, 8) == (x + 2, y - 2)


def test_a_point_tied_at_the_centre_of_a_pixel_is_half_a_pixel_from_its_corner(tmp_path):
    keys = (34735, SHORT, 8, (1, 1, 0, 1, 1025, 0, 1, 2), True)
    matrix = of(tmp_path, extratags=[SCALE, TIEPOINT, keys]).map_matrix
    assert placed(matrix, 0.5, 0.5) == TIEPOINT[3][3:5]


def test_a_picture_that_no_map_places_has_no_matrix(tmp_path):
    found = of(tmp_path, resolution=(20_000, 40_000), resolutionunit="CENTIMETER")
    assert (found.map_matrix, found.epsg) == (None, None)


@pytest.mark.parametrize(
    ("entries", "epsg"),
    [
        ((3072, 0, 1, 32631), 32631),
        ((2048, 0, 1, 4326), 4326),
        ((3072, 0, 1, 32767), None),
        ((3072, 34736, 1, 0), None),
    ],
)
def test_the_number_of_the_coordinate_system_is_read_where_the_file_names_one(
    tmp_path, entries, epsg
):
    keys = (34735, SHORT, 8, (1, 1, 0, 1, *entries), True)
    assert of(tmp_path, extratags=[SCALE, TIEPOINT, keys]).epsg == epsg


@pytest.mark.parametrize(
    ("entries", "is_in_degrees"),
    [
        ((1024, 0, 1, 2, 2048, 0, 1, 4326), True),
        ((2048, 0, 1, 4258), True),
        ((1024, 0, 1, 1, 2048, 0, 1, 4326), False),  # a projection that the file itself describes
        ((3072, 0, 1, 32631, 2048, 0, 1, 4326), False),
        ((1024, 0, 1, 1), False),
    ],
)
def test_degrees_are_no_lengths(tmp_path, entries, is_in_degrees):
    keys = (34735, SHORT, 4 + len(entries), (1, 1, 0, len(entries) // 4, *entries), True)
    tags = [SCALE, TIEPOINT, keys]
    found = of(tmp_path, extratags=tags, resolution=(300, 300), resolutionunit="INCH")
    assert found.is_in_degrees == is_in_degrees
    assert (found.pixel_size is None) == is_in_degrees


def test_a_resolution_with_a_unit_is_a_pixel_size_in_micrometres(tmp_path):
    found = of(tmp_path, resolution=(20_000, 40_000), resolutionunit="CENTIMETER")
    assert found.pixel_size == (0.25, 0.5, "µm")


@pytest.mark.parametrize(
    ("resolution", "unit"),
    [((72, 72), 2), ((96, 96), 2), ((28.35, 28.35), 3), ((1, 1), 2), ((1, 1), 1), ((5, 4), 1)],
)
def test_a_resolution_by_default_or_without_unit_says_nothing(tmp_path, resolution, unit):
    assert of(tmp_path, resolution=resolution, resolutionunit=unit).pixel_size is None


def test_a_resolution_of_zero_is_none(tmp_path):
    found = of(tmp_path, resolution=((0, 1), (0, 1)), resolutionunit="INCH")
    assert found == Georeference()


@pytest.mark.parametrize(
    ("unit", "micrometres"), [("um", 1), ("\\u00B5m", 1), ("micron", 1), ("nm", 1e-3), ("mm", 1e3)]
)
def test_imagej_states_pixels_per_unit(tmp_path, unit, micrometres):
    found = of(tmp_path, imagej=True, resolution=(4, 2), metadata={"unit": unit})
    height, width, of_what = found.pixel_size
    assert (height, width) == pytest.approx((0.5 * micrometres, 0.25 * micrometres))
    assert of_what == "µm"


@pytest.mark.parametrize("unit", ["pixel", "bananas", ""])
def test_what_is_no_length_to_imagej_is_no_pixel_size(tmp_path, unit):
    assert of(tmp_path, imagej=True, resolution=(4, 2), metadata={"unit": unit}).pixel_size is None


def test_ome_states_the_size_of_a_pixel(tmp_path):
    metadata = {
        "axes": "YX",
        "PhysicalSizeX": 325.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.65,  # in µm where no unit is given
    }
    found = of(tmp_path, ome=True, metadata=metadata)
    height, width, unit = found.pixel_size
    assert (height, width, unit) == (pytest.approx(0.65), pytest.approx(0.325), "µm")


@pytest.mark.parametrize(
    "attributes",
    [
        'PhysicalSizeX="0.3"',
        'PhysicalSizeX="0.3" PhysicalSizeY="none"',
        'PhysicalSizeX="0.3" PhysicalSizeY="-1"',
        'PhysicalSizeX="0.3" PhysicalSizeY="1e-300"',
        'PhysicalSizeX="3" PhysicalSizeY="3" PhysicalSizeXUnit="pixel"',
    ],
)
def test_half_a_size_and_a_nonsense_size_in_ome_are_none(tmp_path, attributes):
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="9" SizeY="6" SizeZ="1" '
        f'SizeC="1" SizeT="1" {attributes}><TiffData/></Pixels></Image></OME>'
    )
    assert of(tmp_path, description=xml, metadata=None).pixel_size is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_pixels_per_inch_of_other_formats(tmp_path, kind):
    found = of_picture(tmp_path, kind, dpi=(254, 508))
    assert found.pixel_size == (pytest.approx(50, 1e-3), pytest.approx(100, 1e-3), "µm")
    assert found.pixels_per_metre == pytest.approx((10_000, 20_000), 1e-3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_picture_that_says_nothing_has_no_pixel_size(tmp_path, kind):
    assert of_picture(tmp_path, kind).pixel_size is None


@pytest.mark.parametrize(("text", "due"), [("-9999", -9999), ("1e+20 ", 1e20), ("none", None)])
def test_gdal_says_what_a_pixel_without_data_holds(tmp_path, text, due):
    assert of(tmp_path, extratags=[(42113, ASCII, 0, text, True)]).nodata == due


def test_nodata_of_pixels_that_are_not_handed_out_as_stored_is_left_out(tmp_path):
    tags = [(42113, ASCII, 0, "0", True)]
    colormap = np.zeros((3, 256), np.uint16)
    assert of(tmp_path, extratags=tags, photometric="palette", colormap=colormap).nodata is None
    assert of(tmp_path, extratags=tags, photometric="miniswhite").nodata is None


def test_a_picture_turned_upright_keeps_its_resolution_and_leaves_its_map():
    found = Georeference((100, 200), "cm", (SCALE,), 0.0)
    assert found.turned(1) == found
    assert found.turned(3) == Georeference((100, 200), "cm", (), 0.0)
    assert found.turned(6) == Georeference((200, 100), "cm", (), 0.0)
