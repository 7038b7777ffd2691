"""COCO: polygons and run lengths of all images in one JSON file."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unetseg.dataset import shapes
from unetseg.dataset.exports.export import (
    Export,
    LabelledImage,
    Labels,
    NotReadError,
    Reading,
    join_exports,
)
from unetseg.dataset.exports.values import (
    JsonFiles,
    Pictures,
    flat_points,
    only_one,
    part_words,
)
from unetseg.text import show

_File = tuple[Path, Mapping[str, Any]]
"""A file, and its content."""


def read_coco(folder: Path, files: JsonFiles) -> Export | None:
    """Read COCO: polygons and both forms of run lengths (cocodataset.org/#format-data)."""
    found = list(files.take(_is_coco))
    if not found:
        return None
    of_part = _parts_of(found)
    if of_part is None or len(found) == 1:
        remedy = ", or one for each of train, val and test"
        return _export(*only_one(found, "COCO", folder, remedy), folder)
    exports = {part: _export(*of_part[part], folder, part) for part in of_part}
    return join_exports(folder, list(exports), exports)


def _is_coco(data: Any) -> bool:
    return isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys()


def _parts_of(files: Sequence[_File]) -> dict[str, _File] | None:
    """Return the file of each part, such as ``instances_train2017.json``; None if that is unclear.

    Files of key points beside others say less about the same images.
    """
    outlines = [f for f in files if not any("keypoints" in c for c in f[1]["categories"])] or files
    parts = [part_words(file.stem) for file, _ in outlines]
    names = [part for found in parts for part in found]
    if any(len(found) != 1 for found in parts) or len(set(names)) < len(names):
        return None
    return dict(zip(names, outlines, strict=True))


def _export(file: Path, data: Mapping[str, Any], folder: Path, part: str = "") -> Export:
    """Return the set of one file; ``part`` is the part of a divided set that it labels."""
    labels, pictures = Labels("COCO", has_order=False), Pictures(folder, part)
    with Reading(file, labels.tool):
        if any("segments_info" in a for a in data["annotations"]):
            raise NotReadError("panoptic COCO", "export instance segmentation")
        name_of = {c["id"]: str(c["name"]) for c in data["categories"]}
        used = {a["category_id"] for a in data["annotations"]}
        # Roboflow adds a first category that only groups the others.
        categories = data["categories"]
        groups = {c.get("supercategory") for c in categories if c.get("supercategory") != c["name"]}
        labels.names = [n for i, n in sorted(name_of.items()) if i in used or n not in groups]
        images = {}
        paths = pictures.all_named([str(one["file_name"]) for one in data["images"]], file)
        for one, path in zip(data["images"], paths, strict=True):
            image = labels.image(path, file)
            image.state_size(one.get("height"), one.get("width"))
            images[one["id"]] = image
        for one in data["annotations"]:
            for key, known in (("image_id", images), ("category_id", name_of)):
                if one[key] not in known:
                    text = f"annotation {show(one.get('id'))} has the {key} {show(one[key])}"
                    raise ValueError(f"{text}, which is not listed")
            label = name_of[one["category_id"]]
            _add_annotation(images[one["image_id"]], label, one.get("segmentation"))
    return labels.export()


def _add_annotation(image: LabelledImage, label: str, segmentation: Any) -> None:
    if isinstance(segmentation, dict):
        height, width = segmentation["size"]
        size = int(height), int(width)
        image.add(label, partial(shapes.runs, size, segmentation["counts"]))
        return
    if not segmentation:
        text = f"boxes without outlines, such as {show(label)} in {show(image.path.name)}"
        raise NotReadError(text, "export instance segmentation")
    image.add_rings(label, [[flat_points(part)] for part in segmentation])
