"""COCO: polygons and run lengths of all images in one JSON file."""

from functools import partial
from pathlib import Path
from typing import Any

from unetseg.dataset import shapes
from unetseg.dataset.exports.export import Export, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import flat_corners, image_named, json_files
from unetseg.dataset.shapes import Draw
from unetseg.errors import InputError


def read_coco(folder: Path) -> Export | None:
    """Read COCO: polygons and both forms of run lengths (cocodataset.org/#format-data)."""
    files = [
        (file, data)
        for file, data in json_files(folder)
        if isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys()
    ]
    if not files:
        return None
    if len(files) > 1:
        names = " and ".join(file.name for file, _ in files[:3])
        raise InputError(folder, f"COCO labels in {names}", "keep one of them in the folder")
    file, data = files[0]
    labels = Labels("COCO")
    with Reading(file, labels.tool):
        if any("segments_info" in a for a in data["annotations"]):
            raise NotReadError("panoptic COCO", "export instance segmentation")
        name_of = {c["id"]: str(c["name"]) for c in data["categories"]}
        used = {a["category_id"] for a in data["annotations"]}
        # Roboflow adds a first category that only groups the others.
        groups = {c.get("supercategory") for c in data["categories"]}
        labels.names = [n for i, n in sorted(name_of.items()) if i in used or n not in groups]
        drawn = {
            i["id"]: labels.image(image_named(str(i["file_name"]), file, folder), file)
            for i in data["images"]
        }
        for one in data["annotations"]:
            shape = _coco_shape(one.get("segmentation"))
            drawn[one["image_id"]].append((name_of[one["category_id"]], shape))
    return labels.export()


def _coco_shape(segmentation: Any) -> Draw:
    if isinstance(segmentation, dict):
        height, width = segmentation["size"]
        return partial(shapes.runs, (int(height), int(width)), segmentation["counts"])
    if not segmentation:
        raise NotReadError("boxes without outlines", "export instance segmentation")
    return partial(shapes.rings, [[flat_corners(part)] for part in segmentation])
