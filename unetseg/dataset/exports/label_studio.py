"""Label Studio: the tasks of a project in one JSON file."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from unetseg.dataset import naming, shapes
from unetseg.dataset.exports.export import Export, LabelledImage, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import (
    JsonFiles,
    Pictures,
    box_corners,
    corners_of,
    homes_of,
    number_of,
    only_one,
)
from unetseg.dataset.shapes import Draw
from unetseg.errors import InputError
from unetseg.text import show

_ONE_PICTURE = "label one picture a task"
_NO_AREAS = ("choices", "textarea", "rating", "relation")  # they are about the image


def read_label_studio(folder: Path, files: JsonFiles) -> Export | None:
    """Read Label Studio's JSON: polygons, rectangles, ellipses and brushes."""
    found = list(files.take(partial(_are_tasks, key="annotations")))
    if not found:
        for file, _ in files.take(partial(_are_tasks, key="annotation_id")):
            raise InputError(file, "JSON-MIN of Label Studio: not read", "export JSON")
        for home in homes_of(folder):
            for brush in home.glob("task-*-annotation-*-tag-*"):
                text = "a brush of Label Studio, named by its task instead of its image"
                raise InputError(brush, text, "export JSON, and put it beside images/")
        return None
    labels, pictures = Labels("Label Studio"), Pictures(folder)
    file, tasks = only_one(found, labels.tool, folder)
    with Reading(file, labels.tool):
        for task in tasks:
            done = [a for a in task["annotations"] if not a.get("was_cancelled")]
            if not done:
                continue  # a task that nobody has labelled
            address = _address_of(task["data"])
            if len(done) > 1:
                numbers = " and ".join(show(a.get("id")) for a in done)
                text = f"task {show(task.get('id'))} has {len(done)} annotations of one image, "
                text += f"{show(_file_name(address))}: numbers {numbers}"
                remedy = "in Label Studio, delete all but one; then export again"
                raise NotReadError(text, remedy)
            _add_regions(labels.image(_image_of(address, file, pictures), file), done[0]["result"])
    return labels.export()


def _are_tasks(data: Any, key: str) -> bool:
    """Tell whether a file is a list of tasks, each with a key of the form of its export."""
    return bool(
        isinstance(data, list)
        and data
        and all(isinstance(t, dict) and {"id", key} <= t.keys() for t in data)
    )


def _address_of(data: Mapping[str, Any]) -> str:
    """Return the address of a task's image; the signature of a web address is no part of it.

    Raises:
        NotReadError: There are several, and no region says which one it was drawn on.
    """
    addresses = (re.sub(r"\?(?!d=).*", "", str(value)) for value in data.values())
    found = [a for a in addresses if naming.is_picture(a)]
    if len({_bare(_file_name(a)) for a in found}) > 1:
        names = " and ".join(show(_file_name(a)) for a in found)
        raise NotReadError(f"a task of several pictures, {names}", _ONE_PICTURE)
    return found[0] if found else ""


def _file_name(address: str) -> str:
    """Return the name of the file at an address, which may write a space as ``%20``."""
    return unquote(re.split(r"[/\\]", address.split("?d=")[-1])[-1])


def _image_of(address: str, file: Path, pictures: Pictures) -> Path:
    """Return the image of a task; an upload bears a random prefix that the file may lack."""
    name = _file_name(address)
    try:
        return pictures.named(name, file)
    except InputError:
        return pictures.named(_bare(name), file)


def _bare(name: str) -> str:
    """Return the name of a file without the random prefix of an upload."""
    return re.sub(r"^[0-9a-f]{8}-", "", name)


def _add_regions(image: LabelledImage, regions: Sequence[Mapping[str, Any]]) -> None:
    """Add the regions of an image. All but brushes are shares of its size."""
    areas = [one for one in regions if one["type"] not in _NO_AREAS]
    pictures = sorted({str(one.get("to_name", "")) for one in areas})
    if len(pictures) > 1:
        names = " and ".join(map(show, pictures))
        text = f"the task of {show(image.path.name)} has regions of several pictures, {names}"
        raise NotReadError(text, _ONE_PICTURE)
    image.is_relative = all(one["type"] != "brushlabels" for one in areas)
    for one in areas:
        image.state_size(one["original_height"], one["original_width"])
        image.rectangles += one["type"] == "rectanglelabels"
        image.add(*_label_studio_shape(one))


def _label_studio_shape(one: Mapping[str, Any]) -> tuple[str, Draw]:
    """Return the class of a region, and the function that draws it."""
    value, kind = one["value"], one["type"]
    if kind not in ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels"):
        text = f"regions of the type {show(kind)} are not read"
        raise NotReadError(text, "draw polygons or brushes of labels")
    names = value.get(kind, ())
    if len(names) != 1:
        raise ValueError(f"a region of {len(names)} classes")
    label = str(names[0])
    if kind == "brushlabels":
        if value.get("format") != "rle":
            raise ValueError(f"a brush of format {show(value.get('format'))}")
        size = int(one["original_height"]), int(one["original_width"])
        return label, partial(shapes.brush, size, value["rle"])
    if kind == "polygonlabels":
        points = [(x / 100, y / 100) for x, y in corners_of(value["points"])]
        return label, partial(shapes.scaled_ring, points)
    turn = math.radians(number_of(value.get("rotation", 0)))
    place = number_of(value["x"]) / 100, number_of(value["y"]) / 100
    sides = ("width", "height") if kind == "rectanglelabels" else ("radiusX", "radiusY")
    lengths = number_of(value[sides[0]]) / 100, number_of(value[sides[1]]) / 100
    draw = _rectangle if kind == "rectanglelabels" else _ellipse
    return label, partial(draw, place, lengths, turn)


def _rectangle(
    place: tuple[float, float], sides: tuple[float, float], turn: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Draw a rectangle that is turned about its first corner; lengths are shares of the image."""
    height, width = shape
    x, y = place[0] * width, place[1] * height
    box = box_corners(0, 0, sides[0] * width, sides[1] * height)
    cos, sin = math.cos(turn), math.sin(turn)
    corners = [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in box]
    return shapes.rings([[corners]], shape)


def _ellipse(
    place: tuple[float, float], radii: tuple[float, float], turn: float, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Draw an ellipse about its centre; lengths are shares of the image."""
    height, width = shape
    centre = place[0] * width, place[1] * height
    return shapes.ellipse(centre, (radii[0] * width, radii[1] * height), turn, shape)
