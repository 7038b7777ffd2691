"""LabelMe: a JSON file an image."""

from functools import partial
from pathlib import Path

from unetseg.dataset import shapes
from unetseg.dataset.exports.export import Export, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import image_named, json_files, number_of
from unetseg.errors import arg
from unetseg.text import show

_AREAS = ("polygon", "rectangle", "circle")  # a shape without a type is of the first kind
_LINES = ("point", "line", "linestrip")


def read_labelme(folder: Path, line_width: float | None) -> Export | None:
    """Read LabelMe, a JSON file an image: polygons, rectangles and circles, lines and points.

    Without a width, lines and points beside areas are left out. An image with nothing else is
    refused: without them it would show background alone.
    """
    labels = Labels("LabelMe files")
    for file, data in json_files(folder):
        if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
            continue
        image = image_named(str(data.get("imagePath", "")), file, folder)
        drawn = labels.image(image, file)
        with Reading(file, "LabelMe"):
            has_area = any((s.get("shape_type") or _AREAS[0]) in _AREAS for s in data["shapes"])
            for one in data["shapes"]:
                kind, label = one.get("shape_type") or _AREAS[0], str(one.get("label", ""))
                points = [(number_of(x), number_of(y)) for x, y in one["points"]]
                if kind in _AREAS:
                    drawn.append((label, partial(shapes.outline, kind, points)))
                elif kind in _LINES and points and line_width is not None:
                    drawn.append((label, partial(shapes.line, points, line_width)))
                elif kind in _LINES and has_area:
                    labels.without_area[kind, label] += 1
                else:
                    text = f"a {show(kind)} of {len(points)} points is not drawn"
                    remedy = "draw it as a polygon, a rectangle or a circle"
                    if kind in _LINES:
                        remedy += f", or give {arg('line_width', 3)}"
                    raise NotReadError(text, remedy)
    return labels.export() if labels.images else None
