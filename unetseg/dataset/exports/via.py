"""The VGG Image Annotator: a JSON file or a table of all images."""

import csv
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unetseg.dataset import shapes
from unetseg.dataset.exports.export import Export, LabelledImage, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import (
    JsonFiles,
    Pictures,
    box_corners,
    files_in,
    head_of,
    homes_of,
    number_of,
    only_one,
    points_of,
)
from unetseg.text import plural, show


def read_via(folder: Path, files: JsonFiles, line_width: float | None = None) -> Export | None:
    """Read the VGG Image Annotator, version 2: a project, its JSON export, or its CSV."""
    if found := [(file, _entries_of(data)) for file, data in files.take(_entries_of)]:
        file, listed = only_one(found, "VIA", folder)
        return _via_export(file, listed, folder, line_width)
    for file in (f for home in homes_of(folder) for f in files_in(home, ".csv")):
        if "region_shape_attributes" in head_of(file):  # of any other table no more is read
            return _via_export(file, _via_rows(file), folder, line_width)
    return None


def _entries_of(data: Any) -> list[Mapping[str, Any]]:
    """Return the entries of a project or an export, one an image; none of any other content."""
    entries = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
    listed = list(entries.values()) if isinstance(entries, dict) else []
    is_via = all(isinstance(e, dict) and {"filename", "regions"} <= e.keys() for e in listed)
    return listed if is_via else []


def _via_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV, a region each, as the entries of the JSON export."""
    entries: dict[str, dict[str, Any]] = {}
    with Reading(file, "VIA"), open(file, newline="", encoding="utf-8-sig") as handle:
        for row in csv.DictReader(handle):
            name = row["filename"]
            size = int(row.get("file_size") or 0)
            new = {"filename": name, "size": size, "regions": list[dict[str, Any]]()}
            entry = entries.setdefault(name, new)
            region = {
                "shape_attributes": json.loads(row["region_shape_attributes"]),
                "region_attributes": json.loads(row["region_attributes"]),
            }
            if region["shape_attributes"]:  # empty where the image has no regions
                entry["regions"].append(region)
    return list(entries.values())


def _via_export(
    file: Path, entries: Sequence[Mapping[str, Any]], folder: Path, line_width: float | None
) -> Export:
    """Read an export of VIA."""
    labels, pictures = Labels("VIA", line_width), Pictures(folder)
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
        paths = pictures.all_named(list(map(str, regions)), file)
        sizes = {e["filename"]: e.get("size") for e in entries}
        labels.warnings = _changed(dict(zip(paths, sizes.values(), strict=True)))
        for path, found in zip(paths, regions.values(), strict=True):
            image = labels.image(path, file)
            for one in found:
                label = one["region_attributes"].get(*keys) if keys else "object"
                if isinstance(label, dict):  # of a checkbox: the options that are ticked
                    ticked = [k for k, is_on in label.items() if is_on]
                    if len(ticked) != 1:
                        raise ValueError(f"a region of {len(ticked)} classes")
                    label = ticked[0]
                if not label:
                    text = f"{show(image.path.name)} has a region without a class"
                    raise NotReadError(text, "give it one, or remove it")
                _add_region(image, str(label), one["shape_attributes"])
    return labels.export()


def _changed(sizes: Mapping[Path, Any]) -> list[str]:
    """Warn of files of another size in bytes than when they were labelled; VIA may not know it."""
    then = {p: size for p, size in sizes.items() if isinstance(size, int) and size > 0}
    now = {path: path.stat().st_size for path in then}
    changed = [path for path in then if now[path] != then[path]]
    if not changed:
        return []
    first = changed[0]
    text = f"{len(changed)} of {plural(len(sizes), 'image file')} changed after labelling, such as "
    text += f"{show(first.name)}, from {then[first]:,} to {now[first]:,} bytes: were the images "
    return [text + "resized or turned? Then put those there that were labelled"]


def _add_region(image: LabelledImage, label: str, s: Mapping[str, Any]) -> None:
    kind = s.get("name")
    if kind == "polygon":
        points = points_of(zip(s["all_points_x"], s["all_points_y"], strict=True))
        image.add_rings(label, [[points]])
    elif kind == "rect":
        box = box_corners(*(number_of(s[k]) for k in ("x", "y", "width", "height")))
        image.add_rings(label, [[box]])
    elif kind in ("circle", "ellipse"):
        radii = ("r", "r") if kind == "circle" else ("rx", "ry")
        centre, size = (number_of(s["cx"]), number_of(s["cy"])), [number_of(s[r]) for r in radii]
        turn = number_of(s.get("theta", 0))
        draw = partial(shapes.ellipse, centre, (size[0], size[1]), turn)
        image.add(label, draw, [centre])  # its rim may lie outside of the image
    elif kind == "polyline":
        points = points_of(zip(s["all_points_x"], s["all_points_y"], strict=True))
        image.add_line(label, kind, points, 0.5)
    elif kind == "point":
        image.add_line(label, kind, [(number_of(s["cx"]), number_of(s["cy"]))], 0.5)
    else:
        raise NotReadError(f"a {show(kind)}, which has no area", "draw a polygon")
