"""The objects of an image as other programs read them: label image, polygons, rows of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.classes import ClassTable, colour_to_rgb
from unetseg.objects.measurement import measure_objects
from unetseg.objects.outlines import outlines, to_geojson
from unetseg.objects.separation import separate
from unetseg.pictures import writing
from unetseg.pictures.georeference import Georeference

OBJECTS = "objects"  # the folder of label images: beside masks/, and in a folder of predictions
Row = dict[str, float | str | None]


@dataclass(frozen=True)
class Objects:
    """The objects of one image.

    Attributes:
        numbers: (H, W) int32, 1 to n over all classes whose objects were told apart; 0 elsewhere.
        kinds: (n,) the class of object 1, 2, ..., n.
        classes: The classes whose objects were told apart.
    """

    numbers: NDArray[np.int32]
    kinds: NDArray[np.int64]
    classes: tuple[int, ...]

    def of(self, kind: int) -> NDArray[np.int32]:
        """Return the label image of the objects of one class."""
        kept = np.append(False, self.kinds == kind)
        return np.where(kept[self.numbers], self.numbers, 0).astype(np.int32)


def find_objects(
    labels: NDArray[np.uint8],
    classes: Mapping[int, int | None],
    confidence: NDArray[np.uint8] | None = None,
) -> Objects:
    """Tell the objects of some classes apart.

    Args:
        labels: (H, W) class indices, 255 ignored.
        classes: As `separation.object_classes` returns them.
        confidence: (H, W) probability of each pixel's class, 0 to 255.
    """
    numbers = np.zeros(labels.shape, np.int32)
    kinds: list[int] = []
    for kind, border in classes.items():
        found = separate(labels, kind, border=border, confidence=confidence)
        new = (found > 0) & (numbers == 0)  # a border that two classes share goes to the first
        numbers[new] = found[new] + len(kinds)
        kinds += [kind] * int(found.max(initial=0))
    return Objects(numbers, np.array(kinds, np.int64), tuple(classes))


def write_objects(
    path: Path,
    objects: Objects,
    table: ClassTable,
    image: NDArray[Any],
    *,
    confidence: NDArray[np.uint8] | None = None,
    text: Mapping[str, str] | None = None,
    georeference: Georeference | None = None,
) -> list[Row]:
    """Write the label image and the polygons of an image's objects; return their rows.

    The polygons stand in ``<stem>.geojson`` in pixels, as QuPath reads them; where the image lies
    on a map they stand in ``<stem>-map.geojson`` in its coordinates, too, as QGIS reads them.

    Args:
        path: The label image, ``.tif``; it is written last.
        objects: As `find_objects` returns them.
        table: The classes.
        image: (H, W, C) the image's own values.
        confidence: (H, W) probability of each pixel's class, 0 to 255.
        text: Goes into the description of the label image.
        georeference: Of the image.

    Returns:
        The rows of `measure_objects`, with the name of the class in "class".

    Raises:
        InputError: A file's place is taken by a folder.
        MachineError: The disk is full or read-only, and the like.
    """
    place = georeference or Georeference()
    rows = measure_objects(objects.numbers, image, confidence, place.pixel_size)
    for row in rows:
        row["class"] = table.names[objects.kinds[int(row["number"] or 0) - 1]]
    polygons = outlines(objects.numbers)
    properties = {int(row["number"] or 0): _properties(row, table) for row in rows}
    files.write_bytes(path.with_suffix(".geojson"), to_geojson(polygons, properties))
    if (matrix := place.map_matrix) is not None:
        on_map = path.with_name(f"{path.stem}-map.geojson")
        files.write_bytes(on_map, to_geojson(polygons, properties, matrix, place.epsg))
    writing.write_numbers(path, objects.numbers, text, place)
    return rows


def _properties(row: Mapping[str, float | str | None], table: ClassTable) -> dict[str, Any]:
    """Return what a feature says beside its polygon, by the names that QuPath reads."""
    name = str(row["class"])
    colour = table.classes[table.names.index(name)].colour
    skipped = ("image", "number", "class", "unit")
    return {
        "objectType": "detection",
        "name": str(row["number"]),
        "classification": {"name": name, "color": list(colour_to_rgb(colour))},
        "measurements": {k: v for k, v in row.items() if k not in skipped and v is not None},
        **({"unit": row["unit"]} if row["unit"] else {}),
    }
