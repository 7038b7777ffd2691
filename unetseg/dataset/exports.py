"""Labels as annotation tools export them, read into pairs and classes.

Each reader of `_READERS` returns None where a folder is not of its tool. `refuse_by_name`
recognises formats that none of them reads, and says which export to use instead.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from unetseg.classes import IGNORED, ClassTable, SegmentationClass, named_classes
from unetseg.dataset import naming, shapes
from unetseg.dataset.naming import Pair
from unetseg.dataset.shapes import Draw
from unetseg.errors import InputError, arg
from unetseg.pictures import reading
from unetseg.text import plural, show

_BACKGROUND = "background"
_NAMED = 4  # kinds of shapes that a warning names
_SPECIAL = {_BACKGROUND: 0, "_background_": 0, "__ignore__": IGNORED}  # the last two of LabelMe


@dataclass(frozen=True)
class Export:
    """A set as a tool exported it.

    Attributes:
        tool: The program that writes this format.
        pairs: Images and their masks, drawn ones where the labels are shapes.
        classes: The classes of the masks.
        left_out: The labels that are in no mask, in words; empty where there are none.
    """

    tool: str
    pairs: tuple[Pair, ...]
    classes: ClassTable
    left_out: str = ""


@dataclass
class _Labels:
    """Gathers the shapes of each image, in the order in which they are drawn."""

    tool: str
    names: list[str] = field(default_factory=list)
    colours: dict[str, str] = field(default_factory=dict)
    images: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    found: dict[str, list[tuple[str, Draw]]] = field(default_factory=dict)
    without_area: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, label)

    def image(self, path: Path, source: Path) -> list[tuple[str, Draw]]:
        """Return the list that takes the shapes of an image."""
        stem = naming.stem_of(path)
        if stem in self.images:
            raise InputError(source, f"labels {show(path.name)} twice", "keep the labels once")
        self.images[stem] = path, source
        return self.found.setdefault(stem, [])

    def export(self) -> Export:
        """Return the set; its classes are those declared, else the labels found, by name."""
        labels = {label for drawn in self.found.values() for label, _ in drawn}
        names = self.names or sorted(labels, key=naming.natural_key)
        if not names:
            source = next((s for _, s in self.images.values()), "labels")
            raise InputError(source, f"{self.tool} without one shape", "draw and name some first")
        names = [_BACKGROUND, *dict.fromkeys(n for n in names if n not in _SPECIAL)]
        index = _SPECIAL | {name: i for i, name in enumerate(names)}
        pairs = []
        for stem in sorted(self.images, key=naming.natural_key):
            image, source = self.images[stem]
            unknown = next((label for label, _ in self.found[stem] if label not in index), None)
            if unknown is not None:
                raise InputError(source, f"class {show(unknown)!r} is not declared", "declare it")
            drawn = tuple((index[label], draw) for label, draw in self.found[stem])
            pairs.append(Pair(stem, image, source, drawn))
        table = ClassTable(named_classes(names, self.colours), (IGNORED,))
        return Export(self.tool, tuple(pairs), table, self._left_out())

    def _left_out(self) -> str:
        found = self.without_area.most_common()
        text = ", ".join(
            f"{plural(n, kind)} of {show(label)!r}" for (kind, label), n in found[:_NAMED]
        )
        more = ", ..." if len(found) > _NAMED else ""
        remedy = f"{arg('line_width', 3)} draws them 3 pixels wide"
        return f"shapes without an area are left out ({remedy}): {text}{more}" if found else ""


def find_export(folder: Path, line_width: float | None = None) -> Export | None:
    """Return the set of a folder that a known tool exported; None of any other folder.

    The parts of a divided set, such as ``train/`` and ``valid/``, are joined.

    Args:
        folder: The folder.
        line_width: The width in pixels of lines and points of LabelMe; None draws none.

    Raises:
        InputError: Labels that cannot be read exactly, or parts that do not belong together.
    """
    parts = naming.find_parts(folder)
    found = {part.name: export for part in parts if (export := find_export(part, line_width))}
    if found:
        return _joined(folder, [part.name for part in parts], found)
    if export := _read_labelme(folder, line_width):
        return export
    return next((export for read in _READERS if (export := read(folder))), None)


def _joined(folder: Path, parts: Sequence[str], found: Mapping[str, Export]) -> Export:
    """Return the set of all parts. Classes with one name are one class.

    Raises:
        InputError: A part was exported otherwise than another, or not at all.
    """
    first = next(iter(found))
    tool, table = found[first].tool, found[first].classes
    for part in parts:
        if part not in found or found[part].tool != tool:
            text = f"holds no {tool}, as {first}/ does"
            raise InputError(folder / part, text, name_one(folder, parts))
    if any(export.classes != table for export in found.values()):
        if any(pair.drawn is None for export in found.values() for pair in export.pairs):
            text = "its parts declare other classes than each other"
            raise InputError(folder, text, name_one(folder, parts))
        names = dict.fromkeys(n for export in found.values() for n in export.classes.names)
        table = ClassTable(named_classes(list(names)), (IGNORED,))
    pairs = {part: _renumbered(export, table) for part, export in found.items()}
    left_out = [f"{part}/: {e.left_out}" for part, e in found.items() if e.left_out]
    return Export(tool, naming.join_parts(pairs), table, "; ".join(left_out))


def _renumbered(export: Export, table: ClassTable) -> Sequence[Pair]:
    """Return the pairs of an export whose drawn classes are those of another table."""
    if export.classes == table:
        return export.pairs
    index = dict(enumerate(map(table.names.index, export.classes.names))) | {IGNORED: IGNORED}
    return [
        replace(pair, drawn=tuple((index[kind], draw) for kind, draw in pair.drawn or ()))
        for pair in export.pairs
    ]


def class_table(folder: Path) -> ClassTable | None:
    """Return the classes that ``labelmap.txt`` or ``_classes.csv`` declare; None without either."""
    return _labelmap(folder / "labelmap.txt") or _roboflow_classes(folder / "_classes.csv")


# --- finding files -----------------------------------------------------------------------------


def _homes(folder: Path) -> list[Path]:
    """Return a folder and the visible folders in it."""
    return [folder, *sorted(d for d in folder.iterdir() if d.is_dir() and d.name[:1] != ".")]


def _json_files(folder: Path, pattern: str = "*.json") -> Iterator[tuple[Path, Any]]:
    """Yield the JSON files of a folder and of the folders in it, with their content."""
    for file in (f for home in _homes(folder) for f in sorted(home.glob(pattern))):
        try:
            yield file, json.loads(file.read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            remedy = "mend it or move it out"
            raise InputError(file, f"not readable as JSON ({error})", remedy) from None


def _image_named(name: str, file: Path, folder: Path) -> Path:
    """Return the image that a label file names, beside it or in the set.

    Raises:
        InputError: There is no such image.
    """
    parts = [p for p in re.split(r"[/\\]", name) if p not in ("", ".", "..")]
    last = parts[-1] if parts else ""
    homes = list(dict.fromkeys([file.parent, *_homes(folder)]))
    homes += [h / "images" for h in homes]
    tried = [h.joinpath(*parts) for h in homes] + [h / last for h in homes]
    image = next((path for path in tried if last and path.is_file()), None)
    if image is None:
        raise InputError(file, f"its image {show(last)} is not there", "put it into images/")
    return image


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{show(repr(value))} is no number")
    return float(value)


def _points(values: Any) -> list[tuple[float, float]]:
    points = [(_number(x), _number(y)) for x, y in values]
    if len(points) < 3:
        raise ValueError(f"a polygon of {len(points)} points")
    return points


def _flat_points(values: Sequence[Any]) -> list[tuple[float, float]]:
    if len(values) % 2:
        raise ValueError("an odd number of coordinates")
    return _points(zip(values[::2], values[1::2], strict=True))


def _size(image: Path) -> tuple[int, int]:
    info = reading.read_info(image)
    return info.height, info.width


# --- LabelMe -----------------------------------------------------------------------------------

_AREAS = ("polygon", "rectangle", "circle")  # a shape without a type is of the first kind
_LINES = ("point", "line", "linestrip")


def _read_labelme(folder: Path, line_width: float | None) -> Export | None:
    """Read LabelMe, a JSON file an image: polygons, rectangles and circles, lines and points.

    Without a width, lines and points beside areas are left out. An image with nothing else is
    refused: without them it would show background alone.
    """
    labels = _Labels("LabelMe files")
    for file, data in _json_files(folder):
        if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
            continue
        image = _image_named(str(data.get("imagePath", "")), file, folder)
        drawn = labels.image(image, file)
        with _Reading(file, "LabelMe"):
            has_area = any((s.get("shape_type") or _AREAS[0]) in _AREAS for s in data["shapes"])
            for one in data["shapes"]:
                kind, label = one.get("shape_type") or _AREAS[0], str(one.get("label", ""))
                points = [(_number(x), _number(y)) for x, y in one["points"]]
                if kind in _AREAS:
                    drawn.append((label, partial(shapes.outline, kind, points)))
                elif kind in _LINES and points and line_width is not None:
                    drawn.append((label, partial(shapes.line, points, line_width)))
                elif kind in _LINES and has_area:
                    labels.without_area[kind, label] += 1
                else:
                    text = f"a {show(kind)} of {len(points)} points is not drawn"
                    remedy = "draw it as a polygon, a rectangle or a circle"
                    if kind in _LINES:
                        remedy += f", or give {arg('line_width', 3)}"
                    raise _NotReadError(text, remedy)
    return labels.export() if labels.images else None


# --- COCO --------------------------------------------------------------------------------------


def _read_coco(folder: Path) -> Export | None:
    """Read COCO: polygons and both forms of run lengths (cocodataset.org/#format-data)."""
    files = [
        (file, data)
        for file, data in _json_files(folder)
        if isinstance(data, dict) and {"images", "annotations", "categories"} <= data.keys()
    ]
    if not files:
        return None
    if len(files) > 1:
        names = " and ".join(file.name for file, _ in files[:3])
        raise InputError(folder, f"COCO labels in {names}", "keep one of them in the folder")
    file, data = files[0]
    labels = _Labels("COCO")
    with _Reading(file, labels.tool):
        if any("segments_info" in a for a in data["annotations"]):
            raise _NotReadError("panoptic COCO", "export instance segmentation")
        name_of = {c["id"]: str(c["name"]) for c in data["categories"]}
        used = {a["category_id"] for a in data["annotations"]}
        # Roboflow adds a first category that only groups the others.
        groups = {c.get("supercategory") for c in data["categories"]}
        labels.names = [n for i, n in sorted(name_of.items()) if i in used or n not in groups]
        drawn = {
            i["id"]: labels.image(_image_named(str(i["file_name"]), file, folder), file)
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
        raise _NotReadError("boxes without outlines", "export instance segmentation")
    return partial(shapes.rings, [[_flat_points(part)] for part in segmentation])


# --- YOLO --------------------------------------------------------------------------------------


def _read_yolo(folder: Path) -> Export | None:
    """Read YOLO segmentation: ``labels/x.txt``, each line a class and relative corners."""
    texts, images = folder / "labels", folder / "images"
    if folder.parent.name == "images" and folder.name in naming.PARTS:
        texts, images = folder.parent.parent / "labels" / folder.name, folder
    if not texts.is_dir() or not images.is_dir():
        return None
    parts = [n for n in naming.PARTS if any((texts / n).glob("*.txt"))]
    if found := {n: export for n in parts if (export := _read_yolo(images / n))}:
        return _joined(images, parts, found)
    files = {naming.stem_of(t): t for t in sorted(texts.glob("*.txt")) if t.name != "classes.txt"}
    if not files:
        return None
    labels = _Labels("YOLO")
    names = _yolo_names([folder, texts, *list(folder.resolve().parents)[:2]])
    labels.names = names
    for image in naming.list_images(images):
        file = files.pop(naming.stem_of(image), None)
        drawn = labels.image(image, file or texts)  # an image without a file shows nothing
        with _Reading(file or texts, labels.tool):
            for line in file.read_text("utf-8-sig").splitlines() if file else ():
                if line.strip():
                    drawn.append(_yolo_shape(line.split(), names, image))
    if files:
        raise InputError(next(iter(files.values())), "no image has this name", "move it out")
    return labels.export()


def _yolo_shape(words: list[str], names: list[str], image: Path) -> tuple[str, Draw]:
    if len(words) == 5:
        raise _NotReadError("boxes without outlines", "export YOLO segmentation")
    if not words[0].isdigit() or int(words[0]) >= len(names):
        raise ValueError(f"class {show(words[0])}, but {len(names)} are named")
    height, width = _size(image)
    points = [(x * width, y * height) for x, y in _flat_points([float(w) for w in words[1:]])]
    return names[int(words[0])], partial(shapes.rings, [[points]])


def _yolo_names(homes: Sequence[Path]) -> list[str]:
    """Return the class names in ``data.yaml`` (the key ``names`` alone is read), in order."""
    for home in homes:
        for file in [*sorted(home.glob("*.yaml")), *sorted(home.glob("*.yml"))]:
            if names := _names_in_yaml(file):
                return names
        if (file := home / "classes.txt").is_file():
            return [n.strip() for n in file.read_text("utf-8-sig").splitlines() if n.strip()]
    text = "YOLO labels without the names of their classes"
    raise InputError(homes[0], text, "put data.yaml or classes.txt beside images/ and labels/")


def _names_in_yaml(file: Path) -> list[str]:
    """Return the list or table under ``names:``; [] where there is none.

    Raises:
        InputError: It is written in a way that is not read.
    """
    lines = file.read_text("utf-8-sig").splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        return []
    text = lines[start].removeprefix("names:").split(" #")[0].strip()
    rest = lines[start + 1 :]
    if text[:1] in ("[", "{"):
        while rest and text[-1] not in "]}":
            text += " " + rest.pop(0).split(" #")[0].strip()
        items = [item.strip() for item in text[1:-1].split(",") if item.strip()]
        items = items if text[0] == "[" else [re.sub(r"^(\d+)\s*:", r"\1:", i) for i in items]
        is_table = text[0] == "{"
    else:
        block = []
        for line in rest:
            if line.strip() and not line.lstrip().startswith("#"):
                if not re.match(r"(\s+\S|- )", line):
                    break
                block.append(line.split(" #")[0].strip())
        is_table = not all(line.startswith("- ") for line in block)
        items = block if is_table else [line[2:].strip() for line in block]
    names: list[str] = []
    for number, item in enumerate(items):
        match = re.fullmatch(rf"{number}\s*:\s*(.+)" if is_table else r"(.+)", item)
        name = match[1].strip() if match else ""
        if name[:1] in "'\"" and name[:1] == name[-1:]:
            name = name[1:-1]
        if not name or re.search(r"[\[\]{}&*!|>'\"]", name):
            remedy = "write names: [first, second]"
            raise InputError(file, f"a name that is not read: {show(item)!r}", remedy)
        names.append(name)
    return names


# --- VIA ---------------------------------------------------------------------------------------


def _read_via(folder: Path) -> Export | None:
    """Read the VGG Image Annotator, version 2: a project, its JSON export, or its CSV."""
    for file, data in _json_files(folder):
        entries = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
        if isinstance(entries, dict) and entries and all(map(_is_via, entries.values())):
            return _via_export(file, list(entries.values()), folder)
    for file in (f for home in _homes(folder) for f in sorted(home.glob("*.csv"))):
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
    with _Reading(file, "VIA"):
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
    labels = _Labels("VIA")
    with _Reading(file, labels.tool):
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
            drawn = labels.image(_image_named(str(name), file, folder), file)
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
        points = _points(zip(s["all_points_x"], s["all_points_y"], strict=True))
        return partial(shapes.rings, [[points]])
    if kind == "rect":
        x, y, width, height = (_number(s[k]) for k in ("x", "y", "width", "height"))
        return partial(shapes.rings, [[_box(x, y, width, height)]])
    if kind in ("circle", "ellipse"):
        radii = ("r", "r") if kind == "circle" else ("rx", "ry")
        centre, size = (_number(s["cx"]), _number(s["cy"])), [_number(s[r]) for r in radii]
        return partial(shapes.ellipse, centre, (size[0], size[1]), _number(s.get("theta", 0)))
    raise _NotReadError(f"a {show(kind)}, which has no area", "draw a polygon")


def _box(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


# --- Supervisely -------------------------------------------------------------------------------


def _read_supervisely(folder: Path) -> Export | None:
    """Read Supervisely: ``ann/x.png.json`` beside ``img/x.png``, the classes in ``meta.json``."""
    if not (folder / "ann").is_dir():
        parts = [d for d in _homes(folder)[1:] if (d / "ann").is_dir()]
        if len(parts) > 1:
            remedy = name_one(folder, [part.name for part in parts])
            raise InputError(folder, "holds several sets", remedy)
        return _read_supervisely(parts[0]) if parts else None
    labels = _Labels("Supervisely")
    meta = next((m for m in (folder, folder.parent) if (m / "meta.json").is_file()), None)
    if meta:
        with _Reading(meta / "meta.json", labels.tool):
            for one in json.loads((meta / "meta.json").read_text("utf-8-sig"))["classes"]:
                labels.names.append(str(one["title"]))
                labels.colours[str(one["title"])] = str(one["color"]).lower()
    for file, data in _json_files(folder / "ann"):
        with _Reading(file, labels.tool):
            name = file.name.removesuffix(".json")
            image = next((p for p in (folder / "img").glob("*") if name in (p.name, p.stem)), None)
            if image is None:
                raise InputError(file, f"its image {show(name)} is not there", "put it into img/")
            drawn = labels.image(image, file)
            drawn += [(str(o["classTitle"]), _supervisely_shape(o)) for o in data["objects"]]
    return labels.export() if labels.images else None


def _supervisely_shape(one: Mapping[str, Any]) -> Draw:
    """Return the function that draws a shape of Supervisely."""
    kind = one["geometryType"]
    if kind == "bitmap":
        x, y = one["bitmap"]["origin"]
        return partial(shapes.bitmap, str(one["bitmap"]["data"]), (int(x), int(y)))
    if kind == "polygon":
        # Its corners are pixels, and the pixels on the outline belong to the shape.
        outer, holes = _points(one["points"]["exterior"]), one["points"]["interior"]
        if holes:
            return partial(_supervisely_rings, outer, [_points(h) for h in holes])
        return partial(shapes.outline, "polygon", outer)
    if kind == "rectangle":
        corners = [(_number(x), _number(y)) for x, y in one["points"]["exterior"]]
        return partial(shapes.outline, "rectangle", corners)
    raise _NotReadError(f"a {show(kind)}, which has no area or is not read", "export bitmaps")


def _supervisely_rings(
    outer: shapes.Points, holes: Sequence[shapes.Points], shape: tuple[int, int]
) -> Any:
    inside = shapes.outline("polygon", outer, shape)
    for hole in holes:
        inside &= ~shapes.outline("polygon", hole, shape)
    return inside


# --- Label Studio ------------------------------------------------------------------------------


def _read_label_studio(folder: Path) -> Export | None:
    """Read Label Studio's JSON: polygons, rectangles, ellipses and brushes."""
    found = [(file, data) for file, data in _json_files(folder) if _are_tasks(data)]
    if not found:
        for home in _homes(folder):
            for brush in home.glob("task-*-annotation-*-tag-*"):
                text = "a brush of Label Studio, named by its task instead of its image"
                raise InputError(brush, text, "export JSON, and put it beside images/")
        return None
    labels = _Labels("Label Studio")
    file, tasks = found[0]
    with _Reading(file, labels.tool):
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
                raise _NotReadError(f"{len(done)} annotations of one task", "keep one")
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
        return _image_named(name, file, folder)
    except InputError:
        return _image_named(bare, file, folder)


def _label_studio_shape(one: Mapping[str, Any]) -> tuple[str, Draw] | None:
    """Return the class and the function that draws a region; None if it is no area."""
    value, kind = one["value"], one["type"]
    if kind in ("choices", "textarea", "rating", "relation"):
        return None  # about the image, not an area
    if kind not in ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels"):
        raise _NotReadError(f"{show(kind)} are not read", "draw polygons or brushes")
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
        points = [(x * across, y * down) for x, y in _points(value["points"])]
        return str(names[0]), partial(shapes.rings, [[points]])
    turn = math.radians(_number(value.get("rotation", 0)))
    x, y = _number(value["x"]) * across, _number(value["y"]) * down
    if kind == "rectanglelabels":  # turned about its first corner
        box = _box(0, 0, _number(value["width"]) * across, _number(value["height"]) * down)
        cos, sin = math.cos(turn), math.sin(turn)
        points = [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in box]
        return str(names[0]), partial(shapes.rings, [[points]])
    radii = _number(value["radiusX"]) * across, _number(value["radiusY"]) * down
    return str(names[0]), partial(shapes.ellipse, (x, y), radii, turn)


# --- QuPath ------------------------------------------------------------------------------------


def _read_qupath(folder: Path) -> Export | None:
    """Read QuPath's GeoJSON, a file an image, named like it, in pixels."""
    files = [f for home in _homes(folder) for f in sorted(home.glob("*.geojson"))]
    if not files:
        return None
    labels = _Labels("QuPath GeoJSON")
    home = folder / "images" if (folder / "images").is_dir() else folder
    image_of = {naming.stem_of(p): p for p in naming.list_images(home)}
    for file in files:
        with _Reading(file, labels.tool):
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
        raise _NotReadError(f"a {show(kind)}, which has no area", "leave it out of the export")
    areas = [places] if kind == "Polygon" else places
    corners = [[_points(c[:2] for c in ring) for ring in area] for area in areas]
    return partial(shapes.rings, corners)


# --- nnU-Net -----------------------------------------------------------------------------------


def _read_nnunet(folder: Path) -> Export | None:
    """Read nnU-Net's raw folders: ``imagesTr/x_0000.png``, ``labelsTr/x.png``, dataset.json."""
    images, masks = folder / "imagesTr", folder / "labelsTr"
    if not images.is_dir() or not masks.is_dir():
        return None
    file = folder / "dataset.json"
    if any(masks.glob("*.nii*")):
        raise InputError(masks, "NIfTI volumes", "export each slice as PNG or TIFF")
    with _Reading(file, "nnU-Net"):
        data = json.loads(file.read_text("utf-8-sig"))
        channels = data.get("channel_names") or data.get("modality")
        if len(channels) > 1 and any(images.glob("*_0001.*")):
            text = f"{len(channels)} files an image, one a channel"
            raise _NotReadError(text, "save one TIFF with all channels as x_0000.tif")
        values = {
            str(name): int(value)
            for key, item in data["labels"].items()
            for name, value in [(item, key) if str(key).isdigit() else (key, item)]
        }
    names = sorted((n for n in values if n != "ignore"), key=lambda n: values[n])
    table = ClassTable(
        named_classes(names, values=[values[n] for n in names]),
        (values["ignore"],) if "ignore" in values else (),
    )
    pairs, problem = naming.match_files(
        folder, naming.list_images(images), naming.list_images(masks)
    )
    if problem:
        raise problem
    return Export("nnU-Net", pairs, table)


# --- tables of classes -------------------------------------------------------------------------

VOID = "#e0e0c0"  # Pascal VOC paints outlines in this colour and leaves them out of scores


def _labelmap(path: Path) -> ClassTable | None:
    """Return the classes of a CVAT or Pascal VOC ``labelmap.txt``: ``name:r,g,b:parts:actions``."""
    if not path.is_file():
        return None
    classes = []
    for line in path.read_text("utf-8-sig", "replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = re.match(r"(.+?):(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})(:|$)", line)
        if not match or max(int(match[i]) for i in (2, 3, 4)) > 255:
            raise InputError(path, f"line {show(line[:60])!r}", "write name:red,green,blue::")
        colour = "#{:02x}{:02x}{:02x}".format(*(int(match[i]) for i in (2, 3, 4)))
        classes.append(SegmentationClass(match[1], None, colour))
    void = () if VOID in {c.colour for c in classes} else (VOID,)
    return ClassTable(tuple(classes), void)


def _roboflow_classes(path: Path) -> ClassTable | None:
    """Return the classes of Roboflow's semantic masks: a table ``Pixel Value, Class``."""
    if not path.is_file():
        return None
    rows = [r for r in csv.reader(path.read_text("utf-8-sig").splitlines()) if r]
    if [c.strip().lower() for c in rows[0]] != ["pixel value", "class"]:
        return None  # the table of another kind of export
    with _Reading(path, "Roboflow"):
        values, names = zip(*((int(value), name.strip()) for value, name in rows[1:]), strict=True)
    return ClassTable(named_classes(names, values=values))


# --- formats that are not read -----------------------------------------------------------------

_UNREAD = (
    ("*_seg.npy", "Cellpose, which needs pickle", "in Cellpose: File > Save masks as PNG/tif"),
    ("*RoiSet*.zip", "ImageJ regions", "in Fiji: open image and regions, then save a label image"),
    ("*.roi", "ImageJ regions", "in Fiji: open image and regions, then save a label image"),
    ("annotations.xml", "CVAT for images", "export COCO 1.0 or Segmentation mask 1.1"),
    ("*.xml", "Pascal VOC boxes", "export segmentation masks"),
    ("*.nii*", "NIfTI volumes", "export each slice as PNG or TIFF"),
    ("*.mat", "MATLAB arrays", "in MATLAB: imwrite(uint8(mask), 'x.png')"),
    ("*.shp", "a shapefile", "in QGIS: Raster > Conversion > Rasterize, on each image's grid"),
    ("*.czi", "Zeiss CZI", "in Fiji or ZEN: save as TIFF"),
    ("*.lif", "Leica LIF", "in Fiji: save as TIFF"),
    ("*.nd2", "Nikon ND2", "in Fiji: save as TIFF"),
    ("*.dcm", "DICOM", "export each picture as PNG or TIFF"),
    ("*.ilp", "an ilastik project", "in ilastik: export the labels as TIFF"),
    ("*.webp", "WebP", "save them as PNG"),
    ("*.npy", "NumPy arrays", "save them as PNG or TIFF"),
    ("*.npz", "NumPy arrays", "save them as PNG or TIFF"),
)


def refuse_by_name(folder: Path) -> None:
    """Refuse a folder without pairs by the name of the format that it holds.

    Raises:
        InputError: A format that is not read, with the format to export.
    """
    for pattern, kind, remedy in _UNREAD:
        for home in _homes(folder):
            if found := sorted(home.glob(pattern)):
                raise InputError(found[0], f"{kind}: not read", remedy)


def name_one(folder: Path, parts: Sequence[str]) -> str:
    """Return the remedy where several sets in a folder cannot be read as one."""
    return "name one of them: " + " or ".join(str(folder / part) for part in parts)


class _NotReadError(ValueError):
    """A file of a tool holds labels that are not read; ``remedy`` says what to do about them."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


class _Reading:
    """Names the file and its tool where the content is not as the tool writes it."""

    def __init__(self, file: Path, tool: str) -> None:
        self.file, self.tool = file, tool

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, LookupError | TypeError | ValueError | AttributeError | OSError):
            text = show(error) if isinstance(error, ValueError | OSError) else repr(error)
            remedy = error.remedy if isinstance(error, _NotReadError) else "export it again"
            raise InputError(self.file, f"{self.tool}: {text}", remedy) from None


_READERS: tuple[Callable[[Path], Export | None], ...] = (
    _read_coco,
    _read_nnunet,
    _read_supervisely,
    _read_label_studio,
    _read_via,
    _read_qupath,
    _read_yolo,
)
