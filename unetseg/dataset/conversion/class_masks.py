"""One mask for each class: ``masks/line/x.png``, or ``x_line.png``."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from unetseg.classes import named_classes
from unetseg.dataset import naming
from unetseg.dataset.conversion.annotations import Annotations, ConvertedMask
from unetseg.dataset.conversion.mask_files import MaskReader, read_raw
from unetseg.dataset.conversion.object_masks import doubt_background, refuse_classes
from unetseg.errors import InputError, arg
from unetseg.objects.borders import draw_objects, renumber, with_borders
from unetseg.objects.numbering import find_background
from unetseg.objects.separation import BACKGROUND
from unetseg.pictures import masks, reading, snapping
from unetseg.text import few, plural, show


def read_class_masks(
    root: Path, order: tuple[str, ...], limit: float, instances: bool = False
) -> Annotations | None:
    """Read one mask for each class, ``masks/line/x.png`` or ``x_line.png``.

    Args:
        root: The set.
        order: The classes, the topmost last, where masks overlap; empty where none may.
        limit: The share of blended pixels that `snapping.snap` takes, 0 to 1.
        instances: Whether each mask numbers the objects of its class.

    Returns:
        None where the set is laid out in neither way.

    Raises:
        InputError: A mask has no image, the order names other classes, or the masks hold classes
            where numbers are due. On reading: masks overlap without an order, or a mask is not as
            large as its image.
    """
    parts = _class_folders(root) or _class_suffixes(root)
    if parts is None:
        return None
    paths, files = parts
    bare = [path.name for name, path in paths.items() if not files[name]]
    problem = None
    if bare:  # without a mask of any class, an image is hardly background alone
        text = f"{plural(len(bare), 'image')} without mask: {few(bare)}"
        remedy = "add an empty mask where it shows background alone, or move these out"
        problem = InputError(root, text, remedy)
        paths = {name: path for name, path in paths.items() if files[name]}
    names = sorted({c for masks_of in files.values() for c, _ in masks_of}, key=naming.natural_key)
    if order and sorted(order) != sorted(names):
        raise InputError(arg("order"), f"{', '.join(order)}", f"the classes are {', '.join(names)}")
    names, read_kept = list(order) or names, MaskReader(reading.read_mask)
    if instances:
        paths_of = [path for masks_of in files.values() for _, path in masks_of]
        refuse_classes(((path, ()) for path in paths_of), read_kept)
        if (key := find_background(map(read_kept, paths_of))) is not None:
            raise doubt_background(key, "store the background as 0")

    def read(name: str, shape: tuple[int, int]) -> ConvertedMask:
        mask, numbers = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)
        kinds: list[int] = []
        moved = blended = 0
        for label, path in sorted(files[name], key=lambda item: names.index(item[0])):
            if instances:
                own = renumber(read_kept(path))
                inside = own > 0
            else:
                drawn = snapping.read_binary(read_raw(path), path, limit)
                inside = drawn.mask == 1
                moved, blended = moved + drawn.moved, blended + drawn.blended
            masks.check_same_size(path, inside.shape, shape)
            overlap = int((mask[inside] > 0).sum())
            if overlap and not order:
                other = names[int(mask[inside].max()) - 1]
                remedy = f"give their order, the topmost last: {arg('order', [other, label])}"
                raise InputError(path, f"{overlap:,} pixels are {show(other)}, too", remedy)
            mask[inside] = names.index(label) + 1
            if instances:
                numbers[inside] = own[inside] + len(kinds)
                kinds += [names.index(label) + 1] * int(own.max())
        if not instances:
            return ConvertedMask(mask, moved, blended)
        mask, numbers = draw_objects(numbers, np.array(kinds, int))
        return ConvertedMask(mask, numbers=numbers)

    classes = with_borders(names) if instances else named_classes([BACKGROUND, *names])
    return Annotations(paths, classes, read, problem)


_Files = tuple[dict[str, Path], dict[str, list[tuple[str, Path]]]]
"""The image of each name, and the masks of each name: pairs of a class and a file."""


def _class_folders(root: Path) -> _Files | None:
    """Find ``images/x.png`` with ``masks/line/x.png``, ``masks/ellipse/x.png``."""
    home = next((d for d in _folders(root) if d.name.lower() in naming.MASK_FOLDERS), None)
    if home is None or _pictures(home) or not any(_pictures(d) for d in _folders(home)):
        return None
    inside = [d for d in _folders(root) if d.name.lower() in naming.IMAGE_FOLDERS]
    paths = {naming.stem_of(p): p for p in naming.list_images(inside[0] if inside else root)}
    files: dict[str, list[tuple[str, Path]]] = {name: [] for name in paths}
    for part in _folders(home):
        for path in _pictures(part):
            if naming.stem_of(path) not in files:
                raise InputError(path, "no image has this name", "name it like its image")
            files[naming.stem_of(path)].append((part.name, path))
    return paths, files


def _class_suffixes(root: Path) -> _Files | None:
    """Find ``x.png`` with ``x_line.png``, ``x_ellipse.png``, in one folder or in two."""
    inside = [d for d in _folders(root) if d.name.lower() in naming.IMAGE_FOLDERS]
    beside = [d for d in _folders(root) if d.name.lower() in naming.MASK_FOLDERS]
    pictures = _pictures(inside[0] if inside else root)
    others = _pictures(beside[0]) if beside else pictures
    stems = {naming.stem_of(p) for p in pictures}
    owner = {}
    for path in others:
        stem = naming.stem_of(path)
        cuts = [m.start() for m in re.finditer(r"[-_ .]", stem)]
        known = [c for c in cuts if stem[:c] in stems]
        if known:
            owner[path] = (stem[: max(known)], stem[max(known) + 1 :])
    paths = {naming.stem_of(p): p for p in pictures if p not in owner}
    files: dict[str, list[tuple[str, Path]]] = {name: [] for name in paths}
    for path, (name, label) in owner.items():
        if name not in files:
            return None
        files[name].append((label, path))
    labels = Counter(label for masks_of in files.values() for label, _ in masks_of)
    are_masks = {f"_{label}".lower() in naming.MASK_SUFFIXES for label in labels}
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
        return naming.list_images(home)
    except InputError:
        return []
