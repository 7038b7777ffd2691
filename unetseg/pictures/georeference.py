"""The size of a pixel and its place on a map, which a prediction takes over from its input."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

Unit = Literal["inch", "cm"]
ExtraTag = tuple[int, int, int, Any, bool]
"""A TIFF tag as tifffile writes extra ones: code, type, count, value, in the first page only."""

_MICROMETRES = {
    "pm": 1e-6, "å": 1e-4, "nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0,
    "mm": 1e3, "cm": 1e4, "inch": 25400.0, "in": 25400.0, "m": 1e6,
}  # fmt: skip
_RESOLUTION_UNITS: dict[int, Unit] = {2: "inch", 3: "cm"}  # TIFF 6.0, ResolutionUnit
# Pixels per inch that programs write where they do not know the size of a pixel.
_SAYS_NOTHING = (1, 72, 96)
# GeoTIFF 1.1: ModelPixelScale, ModelTiepoint, ModelTransformation, and the three of the GeoKeys.
_SCALE, _TRANSFORMATION, _KEYS = 33550, 34264, 34735
_TIEPOINT = 33922
_GEO_TAGS = (_SCALE, _TIEPOINT, _TRANSFORMATION, _KEYS, 34736, 34737)
_LINEAR_UNITS = 3076
_UNITS = {9001: "m", 9002: "ft", 9003: "US ft"}  # EPSG numbers; the last is the survey foot
_RASTER_TYPE, _IS_POINT = 1025, 2
_MODEL_TYPE, _IS_GEOGRAPHIC = 1024, 2
_PROJECTED, _GEODETIC = 3072, 2048
# EPSG numbers of coordinate systems in metres: UTM of WGS 84 (north, south), ETRS89, ED50, NAD83
# and SIRGAS 2000, national grids of Europe, Web Mercator. Other systems must state their unit.
_METRIC = (
    *(range(32601, 32661), range(32701, 32761), range(25828, 25839), range(23028, 23039)),
    *(range(26901, 26924), range(31965, 31986), range(31466, 31470), range(31254, 31260)),
    (2154, 3035, 2056, 21781, 27700, 28992, 2180, 3003, 3004, 3763, 5514, 3857),
)
_NODATA, _ASCII = 42113, 2  # the tag GDAL_NODATA, and the type of its value


@dataclass(frozen=True)
class Georeference:
    """The size, the place and the no-data value of a picture's pixels, as its file states them.

    Attributes:
        resolution: Pixels per unit along x and along y, above 0; None where the file does not say.
        resolution_unit: None where ``resolution`` states only the shape of a pixel.
        tags: The GeoTIFF tags, which place the picture on a map.
        nodata: The value of a pixel without data, in the units of `reading.read_image`; may be NaN.
    """

    resolution: tuple[float, float] | None = None
    resolution_unit: Unit | None = None
    tags: tuple[ExtraTag, ...] = ()
    nodata: float | None = None

    @property
    def pixel_size(self) -> tuple[float, float, str] | None:
        """Height and width of a pixel and their unit: "m", "ft", "US ft", "µm", or "map unit".

        Lengths whose unit the file does not say are in "map unit".

        None where the file does not state them, or states a resolution that programs write by
        default. Degrees are no lengths, so they are None, too.
        """
        if self.is_in_degrees:
            return None
        if (size := self._size_on_map()) is not None:
            return *size, self._map_unit()
        if self.resolution is None or self.resolution_unit is None:
            return None
        micrometres = _MICROMETRES[self.resolution_unit]
        if all(round(r * 25400 / micrometres) in _SAYS_NOTHING for r in self.resolution):
            return None
        x, y = self.resolution
        return micrometres / y, micrometres / x, "µm"

    @property
    def is_in_degrees(self) -> bool:
        """Whether the map has latitudes and longitudes, which are angles and no lengths."""
        model = self._key(_MODEL_TYPE)
        if model is None:
            return self._key(_PROJECTED) is None and self._key(_GEODETIC) is not None
        return model == _IS_GEOGRAPHIC

    @property
    def is_on_map(self) -> bool:
        """Whether GeoTIFF tags place the picture on a map."""
        return bool(self.tags)

    @property
    def pixels_per_metre(self) -> tuple[float, float] | None:
        """The resolution along x and y; None where it has no unit."""
        if self.resolution is None or self.resolution_unit is None:
            return None
        x, y = (r * 1e6 / _MICROMETRES[self.resolution_unit] for r in self.resolution)
        return x, y

    @property
    def map_matrix(self) -> tuple[float, float, float, float, float, float] | None:
        """The places of the corners of pixels on a map; None where the file does not place them.

        (a, b, c, d, e, f), in the units of the map: ``x = a column + b row + c``, and ``y = d
        column + e row + f``. Column and row (0, 0) are the outer corner of the first pixel (GeoTIFF
        1.1, 7.3.3).
        """
        numbers = {code: _numbers(value) for code, _, _, value, _ in self.tags if code != 34737}
        shift = 0.5 if self._key(_RASTER_TYPE) == _IS_POINT else 0.0  # tied at a pixel's centre
        matrix, tie = numbers.get(_TRANSFORMATION, []), numbers.get(_TIEPOINT, [])
        if len(matrix) == 16:
            a, b, _, c, d, e, _, f = matrix[:8]
        elif len(scale := numbers.get(_SCALE, [])) >= 2 and len(tie) >= 6:
            a, b, c = scale[0], 0.0, tie[3] - tie[0] * scale[0]
            d, e, f = 0.0, -scale[1], tie[4] + tie[1] * scale[1]
        else:
            return None
        return a, b, c - shift * (a + b), d, e, f - shift * (d + e)

    @property
    def epsg(self) -> int | None:
        """The EPSG number of the map's coordinate system; None where the file names none."""
        return _epsg_number(self._key(_PROJECTED)) or _epsg_number(self._key(_GEODETIC))

    def shift(self, other: "Georeference", height: int, width: int) -> float | None:
        """Return how far from here another picture of the same size lies, in pixels.

        It is the largest distance between the corners of both. None where the file of either does
        not place it on a map.
        """
        if self.map_matrix is None or other.map_matrix is None:
            return None
        mine, theirs = (np.reshape(m, (2, 3)) for m in (self.map_matrix, other.map_matrix))
        with np.errstate(all="ignore"):  # an absurd file has pixels without a size
            try:
                apart = np.linalg.solve(mine[:, :2], (theirs - mine) @ _corners(height, width))
            except np.linalg.LinAlgError:
                return None
        return float(np.hypot(*apart).max())

    def extent(self, height: int, width: int) -> tuple[float, float, float, float] | None:
        """Return the least x and y, and the largest ones, of a picture of this size on its map.

        None where its file does not place it on one.
        """
        if self.map_matrix is None:
            return None
        x, y = np.reshape(self.map_matrix, (2, 3)) @ _corners(height, width)
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def has_other_system(self, other: "Georeference") -> bool:
        """Tell whether both files name the coordinate system of the map, and not the same."""
        for key in (_PROJECTED, _GEODETIC):
            codes = {_epsg_number(one._key(key)) for one in (self, other)}
            if codes != {None}:
                return None not in codes and len(codes) == 2
        return False

    def turned(self, orientation: int) -> "Georeference":
        """Return the georeference once the orientation (EXIF 2.32, tag 274) is applied."""
        if not 1 < orientation < 9:
            return self
        resolution = self.resolution
        if resolution is not None and orientation > 4:
            resolution = resolution[1], resolution[0]
        return Georeference(resolution, self.resolution_unit, (), self.nodata)

    def _size_on_map(self) -> tuple[float, float] | None:
        """Return height and width of a pixel in the units of the map."""
        numbers = {code: _numbers(value) for code, _, _, value, _ in self.tags if code != 34737}
        if len(scale := numbers.get(_SCALE, [])) >= 2:
            width, height = scale[:2]
        elif len(matrix := numbers.get(_TRANSFORMATION, [])) == 16:  # row after row
            width = math.hypot(matrix[0], matrix[4])
            height = math.hypot(matrix[1], matrix[5])
        else:
            return None
        return (height, width) if _is_size(height) and _is_size(width) else None

    def _map_unit(self) -> str:
        """Return the unit that the GeoKeys state, or that of a coordinate system in metres."""
        unit = self._key(_LINEAR_UNITS)
        if unit is None and any(self._key(_PROJECTED) in codes for codes in _METRIC):
            return "m"
        return _UNITS.get(unit or 0, "map unit")

    def _key(self, key: int) -> int | None:
        """Return the value of a GeoKey that holds one number; None where it is not there."""
        keys = next((_numbers(t[3]) for t in self.tags if t[0] == _KEYS), [])
        for start in range(4, len(keys) - 3, 4):  # the first four are the header
            if keys[start : start + 3] == [key, 0, 1]:  # key, place of the value (here), count
                return int(keys[start + 3])
        return None


def _corners(height: int, width: int) -> NDArray[np.int64]:
    """Return the corners of a picture as columns (x, y, 1), by which a map's matrix multiplies."""
    return np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])


def _epsg_number(code: int | None) -> int | None:
    """Return the value of a key if it is an EPSG number; 32767 is "user-defined"."""
    return code if code is not None and 0 < code < 32767 else None


def of_dpi(dpi: Any) -> Georeference:
    """Return the georeference of a picture from its pixels per inch, ``(x, y)`` or None."""
    resolution = _resolution(dpi)
    return Georeference(resolution, "inch") if resolution else Georeference()


def of_tiff(
    tags: Mapping[int, Any], imagej: Mapping[str, Any], ome: str, index: int
) -> Georeference:
    """Return the georeference of a page of a TIFF.

    A pixel size in the metadata of ImageJ or OME becomes a resolution per centimetre.

    Args:
        tags: The tags of the page, as tifffile has them.
        imagej: The metadata of ImageJ; {} where there is none.
        ome: The OME-XML; "" where there is none.
        index: The number of the image in the OME-XML.
    """
    found = [tags[code] for code in _GEO_TAGS if code in tags]
    copied = tuple((t.code, int(t.dtype), t.count, t.value, True) for t in found)
    nodata = nodata_of(tags)
    per_unit = _resolution([_ratio(tags[code].value) for code in (282, 283) if code in tags])
    unit = tags[296].value if 296 in tags else 2  # without the tag, the unit is the inch
    resolution, resolution_unit = per_unit, _RESOLUTION_UNITS.get(unit)
    if (size := _ome_pixel_size(ome, index)) is not None:
        resolution, resolution_unit = _resolution(1e4 / s for s in size), "cm"
    elif per_unit and (factor := _micrometres(imagej.get("unit"))):
        resolution, resolution_unit = _resolution(r * 1e4 / factor for r in per_unit), "cm"
    return Georeference(resolution, resolution_unit if resolution else None, copied, nodata)


def _ome_pixel_size(ome: str, index: int) -> tuple[float, float] | None:
    """Return width and height of a pixel in micrometres from OME-XML (2016-06, Pixels)."""
    try:
        root = ElementTree.fromstring(ome)
    except (ElementTree.ParseError, ValueError):
        return None
    pixels = [e.attrib for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"]
    if index >= len(pixels):
        return None
    sizes = []
    for axis in "XY":
        factor = _micrometres(pixels[index].get(f"PhysicalSize{axis}Unit", "µm"))
        sizes += _numbers(pixels[index].get(f"PhysicalSize{axis}"))
        if not factor or not sizes or not _is_size(sizes[-1]):
            return None
        sizes[-1] *= factor
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def _micrometres(unit: Any) -> float | None:
    """Return the micrometres in a unit of this name; None where it is no length."""
    name = str(unit).replace("\\u00B5", "µ").replace("μ", "µ")  # as ImageJ writes it; a Greek mu
    return _MICROMETRES.get(name.strip().lower())


def _resolution(per_unit: Iterable[float] | None) -> tuple[float, float] | None:
    """Return pixels per unit along x and y; None unless both are sizes that a TIFF can hold."""
    numbers = _numbers(per_unit)
    if len(numbers) != 2 or not all(_is_size(n) for n in numbers):
        return None
    return numbers[0], numbers[1]


def _ratio(value: Any) -> float:
    """Return the quotient of a TIFF's rational number; 0 where ``value`` is none."""
    numbers = _numbers(value)
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else 0.0


def _is_size(number: float) -> bool:
    """Tell whether this can be a size or a resolution, and be written as a TIFF's rational."""
    return 2.0**-32 < number < 2.0**32


def nodata_tag(value: float | None) -> list[ExtraTag]:
    """Return the tag that declares the value of pixels without data; [] where there is none."""
    return [] if value is None else [(_NODATA, _ASCII, 0, str(value), True)]


def nodata_of(tags: Any) -> float | None:
    """Return the value that stands for no data among the stored pixels of a TIFF's page."""
    numbers = _numbers(str(tags[_NODATA].value).strip().rstrip("\0")) if _NODATA in tags else []
    return numbers[0] if numbers else None


def _numbers(value: Any) -> list[float]:
    """Return one number or several as floats; [] where any of them is no number."""
    try:
        if isinstance(value, str) or not isinstance(value, Iterable):
            return [float(value)]
        return [float(number) for number in value]
    except (TypeError, ValueError):
        return []
