"""LabelMe: a JSON file an image."""

from functools import partial
from pathlib import Path
from typing import Any

from unetseg.dataset import naming, shapes
from unetseg.dataset.exports.export import Export, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import (
    JsonFiles,
    Pictures,
    folded,
    is_rectangle,
    points_of,
)
from unetseg.errors import InputError
from unetseg.text import plural, show

_AREAS = ("polygon", "rectangle", "circle")  # a shape without a type is of the first kind
_LINES = ("point", "line", "linestrip")


def read_labelme(folder: Path, files: JsonFiles, line_width: float | None) -> Export | None:
    """Read LabelMe, a JSON file an image: polygons, rectangles, circles, masks, lines and points.

    Without a width, lines and points beside areas are left out.
    """
    labels, pictures = Labels("LabelMe files", line_width), Pictures(folder)
    for file, data in files.take(_is_labelme):
        path = pictures.named(str(data.get("imagePath", "")), file)
        _refuse_copy(file, path)
        image = labels.image(path, file)
        with Reading(file, "LabelMe"):
            image.state_size(data.get("imageHeight"), data.get("imageWidth"))
            for one in data["shapes"]:
                kind, label = one.get("shape_type") or _AREAS[0], str(one.get("label", ""))
                points = points_of(one["points"])
                if not label:
                    raise NotReadError("a shape without a label", "name its class")
                if kind == "mask":
                    origin = round(points[0][0]), round(points[0][1])
                    image.add(label, partial(shapes.stamp, str(one["mask"]), origin), points)
                elif kind == "polygon" and len(points) < 3:
                    image.flat.append(label)
                elif kind in _AREAS:
                    # The rim of a circle may lie outside of the image.
                    corners = points[:1] if kind == "circle" else points
                    image.rectangles += kind == "rectangle" or is_rectangle(points)
                    image.add(label, partial(shapes.outline, kind, points), corners)
                elif kind in _LINES and points:
                    image.add_line(label, kind, points)
                else:
                    text = f"a {show(kind)} of {plural(len(points), 'point')} is not drawn"
                    raise NotReadError(text, "draw it as a polygon, a rectangle or a circle")
    return labels.export() if labels.images else None


def _is_labelme(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("shapes"), list)


def _refuse_copy(file: Path, image: Path) -> None:
    """Refuse a file that names another image than that of its own name beside it."""
    stem = folded(naming.stem_of(file))
    if stem == folded(naming.stem_of(image)):
        return
    beside = naming.list_folder(image.parent)[0]
    own = next((path for path in beside if folded(naming.stem_of(path)) == stem), None)
    if own:
        text = f"labels {show(image.name)} by its imagePath, and {show(own.name)} by its own name"
        raise InputError(file, text, "mend imagePath, or rename the file")
