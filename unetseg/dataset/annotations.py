"""The ways in which others keep labels, each read into class indices.

LabelMe files (polygons, rectangles, circles); one mask a class; numbered objects; and one mask an
image, with the colours of a CVAT or Pascal VOC ``labelmap.txt`` where there is one.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unetseg.classes import IGNORED, ClassTable, SegmentationClass, default_colour
from unetseg.dataset import pairing, snapping
from unetseg.dataset.snapping import Snapped
from unetseg.errors import Code, InputError, arg
from unetseg.pictures import drawing, masks, reading
from unetseg.pictures.masks import RawMask
from unetseg.text import show

_VOID = "#e0e0c0"  # the outlines that Pascal VOC leaves out

ReadMask = Callable[[str, tuple[int, int]], Snapped]
"""From the name of an image and its (height, width) to its mask."""


@dataclass(frozen=True)
class Annotations:
    """A set as it was found.

    Attributes:
        images: The file of each image that has labels, by name (`folder.stem_of`).
        classes: In the order of the indices that ``read`` returns.
        read: Reads the mask of an image.
        problem: What is wrong with files that belong to no image.
    """

    images: dict[str, Path]
    classes: tuple[SegmentationClass, ...]
    read: ReadMask
    problem: InputError | None = None


def check_shape(path: Path, due: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse a mask ``shape`` (height, width) that is not that of its image.

    Raises:
        InputError: They differ; it names ``path``.
    """
    if due != shape:
        text = f"image of {due[0]} x {due[1]} pixels, mask of {shape[0]} x {shape[1]}"
        raise InputError(path, text, "make image and mask the same size")


def read_raw(path: Path) -> RawMask:
    """Read a mask as `images.read_mask` does, and JPEG masks too."""
    if reading.read_info(path).format != "JPEG":
        return reading.read_mask(path)
    pixels = reading.read_image(path)
    return RawMask(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _numbered(names: list[str]) -> tuple[SegmentationClass, ...]:
    return tuple(SegmentationClass(n, i, default_colour(i)) for i, n in enumerate(names))


# --- one mask an image -----------------------------------------------------------------------


def read_pairs(
    root: Path, file: Path | None, ignored: tuple[int | str, ...], without: str, limit: float
) -> Annotations:
    """Read images with one mask each, as `folder.find_pairs` finds them.

    Args:
        root: The set.
        file: A ``classes.toml``; None takes the set's ``labelmap.txt`` or ``classes.toml``, or the
            values and colours found.
        ignored: Mask values or colours that are no class.
        without: Name of a folder that holds neither images nor masks; "" for none.
        limit: As in `snapping.snap`.

    Raises:
        InputError: Nothing to pair, or masks whose classes are not clear.
    """
    pairs, problem = pairing.match_pairs(root, without)
    mask_of = {p.name: p.mask for p in pairs}
    table = (None if file else _labelmap(root)) or pairing.load_classes(root, file)
    table = _table_found(mask_of, ignored) if table is None else _with(table, ignored)

    def read(name: str, _: tuple[int, int]) -> Snapped:
        return snapping.snap(read_raw(mask_of[name]), table, mask_of[name], limit)

    return Annotations({p.name: p.image for p in pairs}, table.classes, read, problem)


def read_objects(root: Path, without: str) -> Annotations:
    """Read images with masks that number objects: background, foreground and border.

    Raises:
        InputError: Nothing to pair.
    """
    pairs, problem = pairing.match_pairs(root, without)
    mask_of = {p.name: p.mask for p in pairs}

    def read(name: str, _: tuple[int, int]) -> Snapped:
        return Snapped(snapping.outline_objects(reading.read_mask(mask_of[name])))

    classes = _numbered(["background", "foreground", "border"])
    return Annotations({p.name: p.image for p in pairs}, classes, read, problem)


def _with(table: ClassTable, ignored: tuple[int | str, ...]) -> ClassTable:
    return table.with_ignored(ignored) if ignored else table


def _labelmap(root: Path) -> ClassTable | None:
    """Return the classes of a CVAT or Pascal VOC ``labelmap.txt``: ``name:r,g,b:parts:actions``."""
    path = root / "labelmap.txt"
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
    void = () if _VOID in {c.colour for c in classes} else (_VOID,)
    return ClassTable(tuple(classes), void)


def _table_found(mask_of: Mapping[str, Path], ignored: tuple[int | str, ...]) -> ClassTable:
    """Return the classes that masks hold, those of noisy masks by their commonest colours."""
    paths = sorted(set(mask_of.values()))
    found = {str(path): masks.find_keys(read_raw(path)) for path in paths}
    if any(f.colours.get(IGNORED) == _VOID for f in found.values()):
        ignored = (*ignored, IGNORED)
    try:
        return masks.discover(found, ignored)
    except InputError as error:
        if error.code is not Code.BLENDED_MASK:
            raise
    centres = snapping.find_centres(lambda: map(read_raw, paths))
    classes = tuple(SegmentationClass(c, None, c) for c in sorted(centres))
    keep = tuple(i for i in ignored if isinstance(i, str))
    return _with(ClassTable(classes), keep)


# --- one mask a class ------------------------------------------------------------------------


def read_class_masks(root: Path, order: tuple[str, ...], limit: float) -> Annotations | None:
    """Read ``masks/line/x.png`` or ``x_line.png`` for each class; None where it is neither.

    Args:
        root: The set.
        order: The classes, the topmost last, where masks overlap; empty where none may.
        limit: As in `snapping.snap`.

    Raises:
        InputError: A mask without image, an order of other classes. On reading: masks that
            overlap without an order, or of another size than the image.
    """
    parts = _class_folders(root) or _class_suffixes(root)
    if parts is None:
        return None
    paths, files = parts  # image of a name; (class, file) of a name
    names = sorted({c for found in files.values() for c, _ in found}, key=pairing.natural_key)
    if order and sorted(order) != sorted(names):
        raise InputError(arg("order"), f"{', '.join(order)}", f"the classes are {', '.join(names)}")
    names = list(order) or names

    def read(name: str, shape: tuple[int, int]) -> Snapped:
        mask = np.zeros(shape, np.uint8)
        moved = blended = 0
        for label, path in sorted(files[name], key=lambda item: names.index(item[0])):
            one = snapping.read_binary(read_raw(path), path, limit)
            check_shape(path, shape, one.mask.shape)
            inside = one.mask == 1
            overlap = int((mask[inside] > 0).sum())
            if overlap and not order:
                other = names[int(mask[inside].max()) - 1]
                remedy = f"say which is on top, the last: {arg('order', [other, label])}"
                raise InputError(path, f"{overlap:,} pixels are {show(other)}, too", remedy)
            mask[inside] = names.index(label) + 1
            moved, blended = moved + one.moved, blended + one.blended
        return Snapped(mask, moved, blended)

    return Annotations(paths, _numbered(["background", *names]), read)


_Files = tuple[dict[str, Path], dict[str, list[tuple[str, Path]]]]


def _class_folders(root: Path) -> _Files | None:
    """Find ``images/x.png`` with ``masks/line/x.png``, ``masks/ellipse/x.png``."""
    home = next((d for d in _folders(root) if d.name.lower() in pairing.MASK_FOLDERS), None)
    if home is None or _pictures(home) or not any(_pictures(d) for d in _folders(home)):
        return None
    inside = [d for d in _folders(root) if d.name.lower() in pairing.IMAGE_FOLDERS]
    paths = {pairing.stem_of(p): p for p in pairing.list_images(inside[0] if inside else root)}
    files: dict[str, list[tuple[str, Path]]] = {name: [] for name in paths}
    for part in _folders(home):
        for path in _pictures(part):
            if pairing.stem_of(path) not in files:
                raise InputError(path, "no image has this name", "name it like its image")
            files[pairing.stem_of(path)].append((part.name, path))
    return paths, files


def _class_suffixes(root: Path) -> _Files | None:
    """Find ``x.png`` with ``x_line.png``, ``x_ellipse.png``, in one folder or in two."""
    inside = [d for d in _folders(root) if d.name.lower() in pairing.IMAGE_FOLDERS]
    beside = [d for d in _folders(root) if d.name.lower() in pairing.MASK_FOLDERS]
    pictures = _pictures(inside[0] if inside else root)
    others = _pictures(beside[0]) if beside else pictures
    stems = {pairing.stem_of(p) for p in pictures}
    owner = {}
    for path in others:
        stem = pairing.stem_of(path)
        cuts = [m.start() for m in re.finditer(r"[-_ .]", stem)]
        known = [c for c in cuts if stem[:c] in stems]
        if known:
            owner[path] = (stem[: max(known)], stem[max(known) + 1 :])
    paths = {pairing.stem_of(p): p for p in pictures if p not in owner}
    files: dict[str, list[tuple[str, Path]]] = {name: [] for name in paths}
    for path, (name, label) in owner.items():
        if name not in files:
            return None
        files[name].append((label, path))
    labels = Counter(label for found in files.values() for label, _ in found)
    are_masks = {f"_{label}".lower() in pairing.MASK_SUFFIXES for label in labels}
    complete = len(owner) == len(others) - (0 if beside else len(paths)) and all(files.values())
    # A label of one image only is more likely a part of its name.
    if (
        len(labels) < 2
        or True in are_masks
        or not complete
        or max(labels.values()) * 2 < len(paths)
    ):
        return None
    return paths, files


def _folders(home: Path) -> list[Path]:
    return sorted(d for d in home.iterdir() if d.is_dir() and d.name[:1] != ".")


def _pictures(home: Path) -> list[Path]:
    try:
        return pairing.list_images(home)
    except InputError:
        return []


# --- LabelMe ---------------------------------------------------------------------------------


def read_labelme(root: Path) -> Annotations | None:
    """Read the shapes of LabelMe's JSON files, drawn in order; None where there are none.

    Raises:
        InputError: A file that is no JSON, or whose image is missing or has another file. On
            reading: a shape that is not drawn.
    """
    homes = [root, *_folders(root)]
    shapes: dict[str, list[dict[str, Any]]] = {}
    paths: dict[str, Path] = {}
    for file in (f for home in homes for f in sorted(home.glob("*.json"))):
        data = _read_json(file)
        if data is None:
            continue
        name = re.split(r"[/\\]", str(data.get("imagePath", "")))[-1]
        image = next(
            (h / name for h in [file.parent, *homes] if name and (h / name).is_file()), None
        )
        if image is None:
            raise InputError(file, f"its image {show(name)} is not there", "put it beside the file")
        stem = pairing.stem_of(image)
        if stem in paths:
            raise InputError(file, f"a second file for {show(name)}", "keep one")
        paths[stem], shapes[stem] = image, data["shapes"]
    if not shapes:
        return None
    labels = {str(s.get("label", "")) for found in shapes.values() for s in found}
    names = sorted(labels - {"_background_", "background", "__ignore__"}, key=pairing.natural_key)
    index = {"_background_": 0, "background": 0, "__ignore__": IGNORED}
    index |= {name: i + 1 for i, name in enumerate(names)}

    def read(name: str, shape: tuple[int, int]) -> Snapped:
        mask = np.zeros(shape, np.uint8)
        for one in shapes[name]:
            kind = one.get("shape_type") or "polygon"
            try:
                points = [(float(x), float(y)) for x, y in one["points"]]
                mask[drawing.fill_shape(shape, kind, points)] = index[str(one.get("label", ""))]
            except (KeyError, TypeError, ValueError) as error:
                text = f"a shape that is not drawn ({error})"
                remedy = "polygons, rectangles and circles are; draw it as one of them"
                raise InputError(paths[name], text, remedy) from None
        return Snapped(mask)

    return Annotations(paths, _numbered(["background", *names]), read)


def _read_json(file: Path) -> dict[str, Any] | None:
    """Return what a LabelMe file holds; None of other JSON."""
    try:
        data = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            file, f"not readable as JSON ({error})", "mend it or move it out"
        ) from None
    return data if isinstance(data, dict) and isinstance(data.get("shapes"), list) else None
