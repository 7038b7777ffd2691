"""The VGG Image Annotator: a JSON file or a table of all images."""

import csv
import json
from collections.abc import Mapping, Sequence
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
from unetseg.text import show


def read_via(folder: Path) -> Export | None:
    """Read the VGG Image Annotator, version 2: a project, its JSON export, or its CSV."""
    for file, data in json_files(folder):
        entries = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
        if isinstance(entries, dict) and entries and all(map(_is_via, entries.values())):
            return _via_export(file, list(entries.values()), folder)
    for file in (f for home in homes_of(folder) for f in sorted(home.glob("*.csv"))):
        with open(file, newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
        if rows and "region_shape_attributes" in rows[0]:
            return _via_export(file, _via_rows(file, rows), folder)
    return None


def _is_via(entry: Any) -> bool:
    return isinstance(entry, dict) and {"filename", "regions"} <= entry.keys()


def _via_rows(file: Path, rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the rows of a CSV, a region each, as the entries of the JSON export."""
    entries: dict[str, dict[str, Any]] = {}
    with Reading(file, "VIA"):
        for row in rows:
            name = row["filename"]
            entry = entries.setdefault(name, {"filename": name, "regions": []})
            region = {
                "shape_attributes": json.loads(row["region_shape_attributes"]),
                "region_attributes": json.loads(row["region_attributes"]),
            }
            if region["shape_attributes"]:  # empty where the image has no regions
                entry["regions"].append(region)
    return list(entries.values())


def _via_export(file: Path, entries: Sequence[Mapping[str, Any]], folder: Path) -> Export:
    """Read an export of VIA."""
    labels = Labels("VIA")
    with Reading(file, labels.tool):
        regions = {
            e["filename"]: list(e["regions"].values())
            if isinstance(e["regions"], dict)
            else e["regions"]
            for e in entries
        }
        keys = {k for rs in regions.values() for r in rs for k in r["region_attributes"]}
        if len(keys) > 1:
            raise ValueError(f"which of {', '.join(sorted(keys))} names the class? Keep one")
        for name, found in regions.items():
            drawn = labels.image(image_named(str(name), file, folder), file)
            for one in found:
                label = next(iter(one["region_attributes"].values()), "object")
                if isinstance(label, dict):  # of a checkbox: the options that are ticked
                    ticked = [k for k, is_on in label.items() if is_on]
                    if len(ticked) != 1:
                        raise ValueError(f"a region of {len(ticked)} classes")
                    label = ticked[0]
                if not label:
                    raise ValueError("a region without a class")
                drawn.append((str(label), _via_shape(one["shape_attributes"])))
    return labels.export()


def _via_shape(s: Mapping[str, Any]) -> Draw:
    kind = s.get("name")
    if kind == "polygon":
        points = corners_of(zip(s["all_points_x"], s["all_points_y"], strict=True))
        return partial(shapes.rings, [[points]])
    if kind == "rect":
        x, y, width, height = (number_of(s[k]) for k in ("x", "y", "width", "height"))
        return partial(shapes.rings, [[box_corners(x, y, width, height)]])
    if kind in ("circle", "ellipse"):
        radii = ("r", "r") if kind == "circle" else ("rx", "ry")
        centre, size = (number_of(s["cx"]), number_of(s["cy"])), [number_of(s[r]) for r in radii]
        return partial(shapes.ellipse, centre, (size[0], size[1]), number_of(s.get("theta", 0)))
    raise NotReadError(f"a {show(kind)}, which has no area", "draw a polygon")
