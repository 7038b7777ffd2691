"""QuPath: a GeoJSON file an image."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unetseg.dataset import naming, shapes
from unetseg.dataset.exports.export import Export, Labels, NotReadError, Reading
from unetseg.dataset.exports.values import corners_of, homes_of
from unetseg.dataset.shapes import Draw
from unetseg.errors import InputError
from unetseg.text import show


def read_qupath(folder: Path) -> Export | None:
    """Read QuPath's GeoJSON, a file an image, named like it, in pixels."""
    files = [f for home in homes_of(folder) for f in sorted(home.glob("*.geojson"))]
    if not files:
        return None
    labels = Labels("QuPath GeoJSON")
    home = folder / "images" if (folder / "images").is_dir() else folder
    image_of = {naming.stem_of(p): p for p in naming.list_images(home)}
    for file in files:
        with Reading(file, labels.tool):
            data = json.loads(file.read_text("utf-8-sig"))
            found = data["features"] if isinstance(data, dict) else data
            stem = naming.stem_of(file)
            image = image_of.get(stem) or image_of.get(stem.rsplit(".", 1)[0])
            if image is None:
                raise InputError(file, "no image has this name", "name it like its image")
            drawn = labels.image(image, file)
            for one in found:
                kind = (one.get("properties") or {}).get("classification") or {}
                label = kind.get("name") or "/".join(kind.get("names", ())) or "object"
                drawn.append((str(label), _geojson_shape(one["geometry"])))
    kinds = {label for drawn in labels.found.values() for label, _ in drawn}
    if "object" in kinds and len(kinds) > 1:
        text = "QuPath objects without a class beside others with one"
        raise InputError(folder, text, "set the class of each in QuPath and export again")
    return labels.export()


def _geojson_shape(geometry: Mapping[str, Any]) -> Draw:
    kind, places = geometry["type"], geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        raise NotReadError(f"a {show(kind)}, which has no area", "leave it out of the export")
    areas = [places] if kind == "Polygon" else places
    corners = [[corners_of(c[:2] for c in ring) for ring in area] for area in areas]
    return partial(shapes.rings, corners)
