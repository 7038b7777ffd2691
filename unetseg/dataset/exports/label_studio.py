"""Label Studio: the tasks of a project in one JSON file."""

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unetseg.dataset import shapes
from unetseg.dataset.exports.export import Export, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import (
    box_corners,
    corners_of,
    homes_of,
    image_named,
    json_files,
    number_of,
)
from unetseg.dataset.shapes import Draw
from unetseg.errors import InputError
from unetseg.pictures import reading
from unetseg.text import show


def read_label_studio(folder: Path) -> Export | None:
    """Read Label Studio's JSON: polygons, rectangles, ellipses and brushes."""
    found = [(file, data) for file, data in json_files(folder) if _are_tasks(data)]
    if not found:
        for home in homes_of(folder):
            for brush in home.glob("task-*-annotation-*-tag-*"):
                text = "a brush of Label Studio, named by its task instead of its image"
                raise InputError(brush, text, "export JSON, and put it beside images/")
        return None
    labels = Labels("Label Studio")
    file, tasks = found[0]
    with Reading(file, labels.tool):
        for task in tasks:
            address = next(
                (
                    str(v)
                    for v in task["data"].values()
                    if str(v).lower().endswith(reading.SUFFIXES)
                ),
                "",
            )
            done = [a for a in task["annotations"] if not a.get("was_cancelled")]
            if not done:
                continue  # a task that nobody has labelled
            if len(done) > 1:
                raise NotReadError(f"{len(done)} annotations of one task", "keep one")
            drawn = labels.image(_label_studio_image(address, file, folder), file)
            drawn += filter(None, map(_label_studio_shape, done[0]["result"]))
    return labels.export()


def _are_tasks(data: Any) -> bool:
    return bool(
        isinstance(data, list)
        and data
        and all(isinstance(t, dict) and {"data", "annotations"} <= t.keys() for t in data)
    )


def _label_studio_image(address: str, file: Path, folder: Path) -> Path:
    """Return the image of a task; an upload bears a random prefix that the file may lack."""
    name = address.split("?d=")[-1].split("/")[-1]
    bare = re.sub(r"^[0-9a-f]{8}-", "", name)
    try:
        return image_named(name, file, folder)
    except InputError:
        return image_named(bare, file, folder)


def _label_studio_shape(one: Mapping[str, Any]) -> tuple[str, Draw] | None:
    """Return the class and the function that draws a region; None if it is no area."""
    value, kind = one["value"], one["type"]
    if kind in ("choices", "textarea", "rating", "relation"):
        return None  # about the image, not an area
    if kind not in ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels"):
        raise NotReadError(f"{show(kind)} are not read", "draw polygons or brushes")
    names = value.get(kind, ())
    if len(names) != 1:
        raise ValueError(f"a region of {len(names)} classes")
    width, height = int(one["original_width"]), int(one["original_height"])
    if kind == "brushlabels":
        if value.get("format") != "rle":
            raise ValueError(f"a brush of format {show(value.get('format'))}")
        return str(names[0]), partial(shapes.brush, (height, width), value["rle"])
    across, down = width / 100, height / 100  # coordinates are percent
    if kind == "polygonlabels":
        points = [(x * across, y * down) for x, y in corners_of(value["points"])]
        return str(names[0]), partial(shapes.rings, [[points]])
    turn = math.radians(number_of(value.get("rotation", 0)))
    x, y = number_of(value["x"]) * across, number_of(value["y"]) * down
    if kind == "rectanglelabels":  # turned about its first corner
        box = box_corners(
            0, 0, number_of(value["width"]) * across, number_of(value["height"]) * down
        )
        cos, sin = math.cos(turn), math.sin(turn)
        points = [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in box]
        return str(names[0]), partial(shapes.rings, [[points]])
    radii = number_of(value["radiusX"]) * across, number_of(value["radiusY"]) * down
    return str(names[0]), partial(shapes.ellipse, (x, y), radii, turn)
