"""The objects of an image as other programs read them: label image, polygons, rows of a table."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.classes import ClassTable, colour_to_rgb
from unetseg.objects.measurement import Measuring
from unetseg.objects.outlines import GeoJson, Outlining
from unetseg.objects.separation import Objects
from unetseg.pictures import bands
from unetseg.pictures.bands import Rows
from unetseg.pictures.georeference import Georeference
from unetseg.progress import OnProgress, silent, steps

OBJECTS = "objects"  # the folder of label images: beside masks/, and in a folder of predictions
Row = dict[str, float | str | None]
_AT_ONCE = 2**21  # pixels that are measured at once
# The first bytes of our tables and polygons, in which each feature has a line of its own.
_OWN = re.compile(rb'image,number,class,|\{"type":"FeatureCollection",("crs":.*,)?"features":\[\n')


def find_label_image(root: Path, stem: str) -> Path | None:
    """Return the label image of an image in a folder of labelled images; None without a file."""
    paths = (root / OBJECTS / f"{stem}{ending}" for ending in (".tif", ".png"))
    return next((path for path in paths if path.is_file()), None)


def is_own(path: Path) -> bool:
    """Return whether a file holds a table or polygons of objects that unetseg wrote."""
    with files.open_regular(path) as file:
        return bool(_OWN.match(file.read(1000)))


def companions(path: Path) -> tuple[Path, Path, Path]:
    """Return the places of the table and the polygons beside a label image; the last on a map."""
    on_map = path.with_name(f"{path.stem}-map.geojson")
    return path.with_suffix(".csv"), path.with_suffix(".geojson"), on_map


def write_objects(
    path: Path,
    objects: Objects,
    table: ClassTable,
    image: Rows,
    *,
    confidence: NDArray[np.uint8] | None = None,
    text: Mapping[str, str] | None = None,
    georeference: Georeference | None = None,
    on_progress: OnProgress = silent,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Write the label image and the polygons of an image's objects, while rows are taken from it.

    The polygons stand in ``<stem>.geojson`` in pixels, as QuPath reads them. Where the image lies
    on a map they stand in ``<stem>-map.geojson`` in its coordinates, too, as QGIS reads them.

    Args:
        path: The label image, ``.tif``; it is written last.
        objects: The objects that `find_objects` returns.
        table: The classes.
        image: (H, W, C) the image's own values.
        confidence: (H, W) probability of each pixel's class, 0 to 255.
        text: Goes into the description of the label image.
        georeference: The resolution and the place of the image.
        on_progress: Receives `Progress`.
        check: Called before each band of rows; may raise to stop.

    Yields:
        The rows of `Measuring`, with the name of the class in "class": from top to bottom by where
        objects end.

    Raises:
        InputError: A file's place is taken by a folder.
        MachineError: The disk is full or read-only, and the like.
    """
    place = georeference or Georeference()
    shape, (_, in_pixels, at) = objects.numbers.shape, companions(path)
    path.unlink(missing_ok=True)  # else it could be taken to belong to new outlines after a kill
    measuring, outlining = Measuring(shape, place.pixel_size), Outlining(shape)
    with ExitStack() as stack:
        plain = stack.enter_context(GeoJson(in_pixels))
        on_map = None
        if (matrix := place.map_matrix) is not None:
            on_map = stack.enter_context(GeoJson(at, matrix, place.epsg))
        step = max(1, _AT_ONCE // shape[1])
        tops = range(0, shape[0], step)
        for top in steps(tops, "measuring objects", "bands", on_progress, check=check):
            rows = slice(top, min(top + step, shape[0]))
            window = _with_neighbours(objects.numbers, rows, 2)
            sure = None if confidence is None else np.asarray(confidence[rows])
            measured = measuring.add(top, window, image[rows], sure)
            ended = outlining.add(top, window[1:-1])
            for row, (number, polygons) in zip(measured, ended, strict=True):
                kind = table.classes[objects.kinds[number - 1]]
                row["class"] = kind.name
                plain.add(number, polygons, _for_qupath(row, kind.colour))
                if on_map:
                    on_map.add(number, polygons, _for_qgis(row, kind.colour))
                yield row
    bands.write_numbers(path, objects.numbers, text, place)


def _with_neighbours(numbers: NDArray[np.int32], rows: slice, more: int) -> NDArray[np.int32]:
    """Return rows of a label image and some above and below; 0 where there are none."""
    above, below = max(0, rows.start - more), min(len(numbers), rows.stop + more)
    missing = (more - (rows.start - above), more - (below - rows.stop))
    return np.pad(numbers[above:below], (missing, (0, 0)))


def _measurements(row: Row) -> Row:
    skipped = ("number", "class", "unit", "area_unit")
    return {k: v for k, v in row.items() if k not in skipped and v is not None}


def _for_qupath(row: Row, colour: str) -> dict[str, Any]:
    """Return the properties of a polygon under the names that QuPath reads."""
    return {
        "objectType": "detection",
        "name": str(row["number"]),
        "classification": {
            "name": row["class"],
            "color": list(colour_to_rgb(colour)),
        },
        "measurements": _measurements(row),
        **({"metadata": {"unit": row["unit"]}} if row["unit"] else {}),
    }


def _for_qgis(row: Row, colour: str) -> dict[str, Any]:
    """Return the properties of a polygon as the plain columns that QGIS shows."""
    first = {"number": row["number"], "class": row["class"], "colour": colour}
    return first | _measurements(row) | {"unit": row["unit"], "area_unit": row["area_unit"]}
