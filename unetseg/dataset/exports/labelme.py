"""LabelMe: a JSON file an image."""

from functools import partial
from pathlib import Path

from unetseg.dataset import shapes
from unetseg.dataset.exports.export import Export, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import Pictures, json_files, points_of
from unetseg.text import plural, show

_AREAS = ("polygon", "rectangle", "circle")  # a shape without a type is of the first kind
_LINES = ("point", "line", "linestrip")


def read_labelme(folder: Path, line_width: float | None) -> Export | None:
    """Read LabelMe, a JSON file an image: polygons, rectangles, circles, masks, lines and points.

    Without a width, lines and points beside areas are left out.
    """
    labels, pictures = Labels("LabelMe files", line_width), Pictures(folder)
    for file, data in json_files(folder):
        if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
            continue
        image = labels.image(pictures.named(str(data.get("imagePath", "")), file), file)
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
                    image.add(label, partial(shapes.outline, kind, points), corners)
                elif kind in _LINES and points:
                    image.add_line(label, kind, points)
                else:
                    text = f"a {show(kind)} of {plural(len(points), 'point')} is not drawn"
                    raise NotReadError(text, "draw it as a polygon, a rectangle or a circle")
    return labels.export() if labels.images else None
