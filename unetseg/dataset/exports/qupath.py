"""QuPath: a GeoJSON file an image."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unetseg.dataset import naming
from unetseg.dataset.exports.export import Export, LabelledImage, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import files_in, homes_of, points_of
from unetseg.errors import InputError
from unetseg.text import show

_AREAS = ("Polygon", "MultiPolygon")
_LINES = ("Point", "MultiPoint", "LineString", "MultiLineString")

_IGNORED = "Ignore*"  # pixels of this class of QuPath's are of none


def read_qupath(folder: Path, line_width: float | None = None) -> Export | None:
    """Read QuPath's GeoJSON, a file an image, named like it, in pixels."""
    files = [f for home in homes_of(folder) for f in files_in(home, ".geojson")]
    if not files:
        return None
    labels = Labels("QuPath GeoJSON", line_width, has_order=False)
    home = folder / "images" if (folder / "images").is_dir() else folder
    images = naming.list_images(home)
    image_of = {naming.stem_of(p).removesuffix(naming.OME): p for p in images}
    image_of |= {naming.stem_of(p): p for p in images}
    has_masks = any(d.name.lower() in naming.MASK_FOLDERS for d in naming.list_folder(folder)[1])
    if has_masks and not any(_image_of(file, image_of) for file in files):
        return None  # such as outlines of plots beside images and masks
    for file in files:
        with Reading(file, labels.tool):
            data = json.loads(file.read_text("utf-8-sig"))
            found = data["features"] if isinstance(data, dict) else data
            path = _image_of(file, image_of)
            if path is None:
                raise InputError(file, "no image has this name", "name it like its image")
            image = labels.image(path, file)
            for one in found:
                kind = (one.get("properties") or {}).get("classification") or {}
                label = kind.get("name") or "/".join(kind.get("names", ())) or "object"
                label = "__ignore__" if label == _IGNORED else str(label)
                _add_geometry(image, label, one["geometry"])
    if "object" in labels.found and len(labels.found) > 1:
        text = "QuPath objects without a class beside others with one"
        raise InputError(folder, text, "set the class of each in QuPath and export again")
    return labels.export()


def _image_of(file: Path, image_of: Mapping[str, Path]) -> Path | None:
    """Return the image that a file belongs to by its name, ``a.geojson`` or ``a.tif.geojson``."""
    stem = naming.stem_of(file)
    return image_of.get(stem) or image_of.get(stem.rsplit(".", 1)[0])


def _add_geometry(image: LabelledImage, label: str, geometry: Mapping[str, Any]) -> None:
    kind, places = geometry["type"], geometry["coordinates"]
    if kind in _AREAS:
        areas = [places] if kind == _AREAS[0] else places
        image.add_rings(label, [[points_of(c[:2] for c in ring) for ring in a] for a in areas])
    elif kind in _LINES:
        lines = {"Point": [[places]], "MultiPoint": [[p] for p in places], "LineString": [places]}
        for line in lines.get(kind, places):
            image.add_line(label, kind, points_of(c[:2] for c in line), 0.5)
    else:
        raise NotReadError(f"a {show(kind)}, which has no area", "leave it out of the export")
