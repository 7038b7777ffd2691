"""Masks that number objects, and label images beside masks of classes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unetseg.classes import IGNORED, ClassTable, SegmentationClass, named_classes
from unetseg.dataset.conversion.annotations import Annotations, ConvertedMask, read_set
from unetseg.dataset.conversion.image_masks import discover_classes
from unetseg.dataset.conversion.mask_files import MaskReader
from unetseg.dataset.naming import Pair
from unetseg.errors import InputError, arg
from unetseg.objects.borders import draw_objects, renumber, with_borders
from unetseg.objects.files import OBJECTS, find_label_image
from unetseg.objects.numbering import doubt_numbers, find_background
from unetseg.objects.separation import (
    BACKGROUND,
    BORDER,
    FOREGROUND,
    background_of,
    object_classes,
    with_objects,
)
from unetseg.pictures import masks, reading
from unetseg.pictures.discovery import lone_white, mostly_transparent
from unetseg.pictures.masks import Key
from unetseg.text import few, show

_OBJECT_MASKS = "SegmentationObject"  # Pascal VOC and CVAT number the objects in masks of their own


def read_objects(
    root: Path, classes_file: Path | None, ignored: tuple[int | str, ...], without: str
) -> Annotations:
    """Read images whose masks, or label images in ``objects/``, number objects of one class.

    Label images count only in a set that declares its classes: its masks then hold classes. Masks
    of classes beside a folder ``SegmentationObject/`` may hold several. In masks that number
    objects, classes tell the value of the background and those that are ignored.

    Args:
        root: The set.
        classes_file: A ``classes.toml``; None takes the classes that the set declares.
        ignored: Mask values or colours that are no object.
        without: The name of a folder that holds neither images nor masks; "" for none.

    Raises:
        InputError: There is nothing to pair, the masks hold classes, an object may be the
            background, or only some images have a label image. On reading: a mask or a label image
            of another size.
    """
    labelled = read_set(root, classes_file, without)
    pairs, problem, declared = labelled.pairs, labelled.problem, labelled.classes
    mask_of, read_kept = {p.name: p.mask for p in pairs}, MaskReader(reading.read_mask)
    table = declared.with_ignored(ignored) if declared else None
    if any(mask.parent.with_name(_OBJECT_MASKS).is_dir() for mask in mask_of.values()):
        return _read_voc_objects(pairs, table, ignored, problem)
    labelled_by = {n: find_label_image(root, n) if declared else None for n in mask_of}
    if any(labelled_by.values()) and None in labelled_by.values():
        text = f"no label image of {few(n for n, image in labelled_by.items() if image is None)}"
        raise InputError(root / OBJECTS, text, f"add it, or leave out {arg('instances', True)}")
    ground = declared and background_of(declared)
    background = [declared.key(declared.names.index(ground))] if declared and ground else []
    hidden = [*(declared.ignore if declared else ()), *ignored]
    others = (*background, *hidden)
    images = ((labelled_by[n], mask) for n, mask in mask_of.items())
    numbered = ((image, ()) if image else (mask, others) for image, mask in images)
    refuse_classes(numbered, read_kept)
    if not any(labelled_by.values()):
        _ask_numbers(list(mask_of.values()), read_kept, declared, bool(background), hidden)

    def read(name: str, shape: tuple[int, int]) -> ConvertedMask:
        mask = mask_of[name]
        raw = read_kept(mask)
        masks.check_same_size(mask, raw.values.shape[:2], shape)
        if table is not None and (label_image := labelled_by[name]):
            unlabelled = masks.decode(raw, table, mask) == IGNORED
            raw = read_kept(label_image)
            masks.check_same_size(label_image, raw.values.shape[:2], shape)
            numbers = renumber(raw)
        else:
            unlabelled = masks.holds_any(raw, hidden, mask)
            if raw.unlabelled is not None:
                unlabelled |= raw.unlabelled
            numbers = renumber(raw, others, mask)
        drawn, numbers = draw_objects(numbers, np.ones(numbers.max(), np.int64))
        drawn[unlabelled] = IGNORED
        return ConvertedMask(drawn, numbers=numbers)

    classes, warnings = _numbered_classes(declared)
    return Annotations.of_pairs(pairs, classes, read, problem, (*labelled.warnings, *warnings))


def _read_voc_objects(
    pairs: Sequence[Pair],
    table: ClassTable | None,
    ignored: tuple[int | str, ...],
    problem: InputError | None,
) -> Annotations:
    """Read masks of classes, and the objects from masks of the same names beside their folder."""
    mask_of = {p.name: p.mask for p in pairs}
    objects_of = {
        n: mask.parent.with_name(_OBJECT_MASKS) / mask.name for n, mask in mask_of.items()
    }
    for path in objects_of.values():
        if not path.is_file():
            raise InputError(path, "not found", f"add it, or move {_OBJECT_MASKS}/ out")
    table = table or discover_classes(mask_of, ignored, MaskReader())
    background = background_of(table)
    names = [name for name in table.names if name != background]
    kind_of = np.zeros(IGNORED + 1, np.int64)  # of the objects of each class of the masks
    for kind, name in enumerate(names, 1):
        kind_of[table.names.index(name)] = kind

    def read(name: str, shape: tuple[int, int]) -> ConvertedMask:
        mask, path = mask_of[name], objects_of[name]
        classes = masks.decode(reading.read_mask(mask), table, mask)
        numbers = renumber(reading.read_mask(path))
        masks.check_same_size(mask, classes.shape, shape)
        masks.check_same_size(path, numbers.shape, shape)
        numbers[classes == IGNORED] = 0  # outlines have a colour of their own
        # An object is of the class that most of its pixels have.
        votes = np.bincount((numbers * (IGNORED + 1) + classes).ravel())
        votes = np.append(votes, [0] * (-len(votes) % (IGNORED + 1))).reshape(-1, IGNORED + 1)
        drawn, numbers = draw_objects(numbers, kind_of[votes.argmax(1)][1:])
        drawn[classes == IGNORED] = IGNORED
        return ConvertedMask(drawn, numbers=numbers)

    colours = {c.name: c.colour for c in table}
    return Annotations.of_pairs(pairs, with_borders(names, colours), read, problem)


def refuse_classes(found: Iterable[tuple[Path, Sequence[Key]]], read_kept: MaskReader) -> None:
    """Refuse masks of classes where numbers of objects are due.

    Args:
        found: Each mask, and its values and colours that are no objects.
        read_kept: Reads a mask.
    """
    numbers = ((path, renumber(read_kept(path), others, path)) for path, others in found)
    if doubt := doubt_numbers(numbers):
        raise doubt


def _ask_numbers(
    paths: Sequence[Path],
    read_kept: MaskReader,
    declared: ClassTable | None,
    knows_background: bool,
    hidden: list[Key],
) -> None:
    """Ask about pixels of numbered objects that may be the background, or without a label.

    Args:
        paths: The masks.
        read_kept: Reads a mask.
        declared: The classes of the set.
        knows_background: Whether they tell the background.
        hidden: Values and colours that are ignored.
    """
    keys = {str(path): masks.find_keys(read_kept(path)) for path in paths}
    if declared is None and (doubt := mostly_transparent(keys)):
        raise doubt
    if IGNORED not in hidden and (doubt := lone_white(keys)):
        raise doubt
    key = None if knows_background else find_background(map(read_kept, paths))
    if key is not None and key not in hidden:
        remedy = (
            f"list the background in a file for {arg('classes')}, as {key}, or as 0 where {key} "
            f"is an object; not labelled: {arg('ignore', key)}"
        )
        raise doubt_background(key, remedy)


def doubt_background(key: Key, remedy: str) -> InputError:
    """Return the question about a number that may be the background."""
    text = f"{key} is the commonest and reaches all edges: the background, or an object?"
    return InputError(masks.ALL_MASKS, text, remedy)


def _numbered_classes(
    table: ClassTable | None,
) -> tuple[tuple[SegmentationClass, ...], tuple[str, ...]]:
    """Return the background, the class of numbered objects, and the class of their border.

    The class is "foreground" unless ``table`` declares exactly one class with objects. The border
    then keeps its declared name, too. If it declares several, a sentence says that they are lost.
    """
    kinds = object_classes(table, with_objects(table)) if table else {}
    if table is None or len(kinds) != 1:
        lost = ", ".join(show(table.names[kind]) for kind in kinds) if table else ""
        text = f"numbers do not tell the classes {lost}: all objects are foreground"
        return named_classes([BACKGROUND, FOREGROUND, BORDER]), (text,) if lost else ()
    [(kind, border)] = kinds.items()
    name = table.names[kind]
    border_name = f"{name} {BORDER}" if border is None else table.names[border]
    names = [BACKGROUND, name, border_name]
    return named_classes(names, {c.name: c.colour for c in table}), ()
