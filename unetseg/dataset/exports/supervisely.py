"""Supervisely: a JSON file an image, and the classes in another."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unetseg.dataset import shapes
from unetseg.dataset.exports.export import Export, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import (
    corners_of,
    folded,
    homes_of,
    is_rectangle,
    json_files,
    number_of,
)
from unetseg.dataset.parts import name_one
from unetseg.dataset.shapes import Draw
from unetseg.errors import InputError
from unetseg.text import show


def read_supervisely(folder: Path) -> Export | None:
    """Read Supervisely: ``ann/x.png.json`` beside ``img/x.png``, the classes in ``meta.json``."""
    if not (folder / "ann").is_dir():
        parts = [d for d in homes_of(folder)[1:] if (d / "ann").is_dir()]
        if len(parts) > 1:
            raise InputError(folder, "holds several sets", name_one(parts))
        return read_supervisely(parts[0]) if parts else None
    labels = Labels("Supervisely")
    meta = next((m for m in (folder, folder.parent) if (m / "meta.json").is_file()), None)
    if meta:
        with Reading(meta / "meta.json", labels.tool):
            for one in json.loads((meta / "meta.json").read_text("utf-8-sig"))["classes"]:
                labels.names.append(str(one["title"]))
                labels.colours[str(one["title"])] = str(one["color"]).lower()
    beside = [p for p in sorted((folder / "img").glob("*")) if p.name[:1] != "."]
    image_of = {folded(p.stem): p for p in beside} | {folded(p.name): p for p in beside}
    for file, data in json_files(folder / "ann"):
        with Reading(file, labels.tool):
            path = image_of.get(folded(file.stem))
            if path is None:
                raise InputError(
                    file, f"its image {show(file.stem)} is not there", "put it into img/"
                )
            image, size = labels.image(path, file), data.get("size") or {}
            image.state_size(size.get("height"), size.get("width"))
            for one in data["objects"]:
                image.rectangles += _is_box(one)
                image.add(str(one["classTitle"]), _supervisely_shape(one))
    return labels.export() if labels.images else None


def _supervisely_shape(one: Mapping[str, Any]) -> Draw:
    """Return the function that draws a shape of Supervisely."""
    kind = one["geometryType"]
    if kind == "bitmap":
        x, y = one["bitmap"]["origin"]
        return partial(shapes.bitmap, str(one["bitmap"]["data"]), (int(x), int(y)))
    if kind == "polygon":
        # Its corners are pixels, and the pixels on the outline belong to the shape.
        outer, holes = corners_of(one["points"]["exterior"]), one["points"]["interior"]
        if holes:
            return partial(_supervisely_rings, outer, [corners_of(h) for h in holes])
        return partial(shapes.outline, "polygon", outer)
    if kind == "rectangle":
        corners = [(number_of(x), number_of(y)) for x, y in one["points"]["exterior"]]
        return partial(shapes.outline, "rectangle", corners)
    raise NotReadError(f"a {show(kind)}, which has no area or is not read", "export bitmaps")


def _is_box(one: Mapping[str, Any]) -> bool:
    """Tell whether a shape of Supervisely is a rectangle, drawn as one or as a polygon."""
    if one["geometryType"] == "polygon" and not one["points"]["interior"]:
        return is_rectangle(corners_of(one["points"]["exterior"]))
    return bool(one["geometryType"] == "rectangle")


def _supervisely_rings(
    outer: shapes.Points, holes: Sequence[shapes.Points], shape: tuple[int, int]
) -> Any:
    inside = shapes.outline("polygon", outer, shape)
    for hole in holes:
        inside &= ~shapes.outline("polygon", hole, shape)
    return inside
