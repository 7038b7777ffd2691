"""Labels as other programs keep them, read into class indices.

These are the exports of annotation tools, one mask for each class, masks that number objects, and
one mask for each image.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import (
    IGNORED,
    ClassTable,
    SegmentationClass,
    colour_to_rgb,
    named_classes,
    table_of,
)
from unetseg.dataset import naming, pairing
from unetseg.dataset.conversion.mask_files import MaskReader, read_raw, refuse_pages
from unetseg.dataset.exports.class_lists import VOID
from unetseg.dataset.exports.search import find_export
from unetseg.dataset.findings.contents import doubt_values
from unetseg.dataset.findings.images import refuse_misplaced
from unetseg.dataset.naming import Pair
from unetseg.dataset.survey import refuse_mixup
from unetseg.errors import Code, InputError, arg
from unetseg.objects.borders import draw_objects, renumber
from unetseg.objects.files import OBJECTS, find_label_image
from unetseg.objects.numbering import doubt_numbers, find_background, measure_numbers
from unetseg.objects.separation import (
    BACKGROUND,
    BORDER,
    FOREGROUND,
    background_of,
    object_classes,
    with_objects,
)
from unetseg.pictures import masks, reading, snapping
from unetseg.pictures.discovery import discover, lone_white, mostly_transparent
from unetseg.pictures.masks import Key, RawMask
from unetseg.text import few, show

_OBJECT_MASKS = "SegmentationObject"  # Pascal VOC and CVAT number the objects in masks of their own


@dataclass(frozen=True)
class ConvertedMask:
    """The mask of an image, as the copy of a set holds it.

    Attributes:
        mask: ``(H, W)`` uint8 class indices, 255 ignored.
        moved: The number of pixels that had the colour of no class.
        blended: The number of moved pixels whose colour was farther from the class than noise.
        numbers: ``(H, W)`` the number of each pixel's object, 0 where none is; None where objects
            are not known.
        hidden: The class of each shape that other shapes cover; see `Pair.hidden`.
    """

    mask: NDArray[np.uint8]
    moved: int = 0
    blended: int = 0
    numbers: NDArray[np.int32] | None = None
    hidden: Sequence[str] = ()


ReadMask = Callable[[str, tuple[int, int]], ConvertedMask]
"""Takes the name of an image and its (height, width), and returns its mask of that size."""


@dataclass(frozen=True)
class Annotations:
    """The labelled images of a set, before any mask is read.

    Attributes:
        images: The file of each image that has labels, by name (`naming.stem_of`).
        classes: The classes, in the order of the indices that ``read`` returns.
        read: Reads the mask of an image.
        problem: The fault of files that belong to no image, in words.
        warnings: The labels and images that are in no mask, and doubts about masks, in words.
        parts: The part of each image of a divided set, as `naming.Pair` holds it.
        are_found: Whether the classes are the values and colours that the masks hold.
    """

    images: dict[str, Path]
    classes: tuple[SegmentationClass, ...]
    read: ReadMask
    problem: InputError | None = None
    warnings: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    are_found: bool = False


def _refuse_images(pairs: Sequence[Pair]) -> None:
    """Refuse files of several pictures, and masks that lie elsewhere on the map.

    A converted mask is a PNG, which has no place on a map.
    """
    for pair in pairs:
        refuse_pages(pair.image)
        refuse_misplaced(pair)


def _with_borders(
    names: Sequence[str], colours: Mapping[str, str] = MappingProxyType({})
) -> tuple[SegmentationClass, ...]:
    """Return the background, and each class followed by the class of its objects' border."""
    pairs = ((name, f"{name} {BORDER}") for name in names)
    return named_classes([BACKGROUND, *itertools.chain.from_iterable(pairs)], colours)


# --- exports of annotation tools -------------------------------------------------------------


def read_drawn(
    root: Path,
    classes_file: Path | None = None,
    instances: bool = False,
    line_width: float | None = None,
) -> tuple[str, Annotations] | None:
    """Read labels that a tool exported as shapes; None of other sets.

    Args:
        root: The set.
        classes_file: The file of the classes; None takes the ``classes.toml`` of the set, else the
            classes of the labels. Shapes are matched by name.
        instances: Whether each shape is an object: its class, as the labels name it, is followed by
            that of its border.
        line_width: The width in pixels of lines and points; None draws none.

    Returns:
        The name of the tool, and the labels.

    Raises:
        InputError: The export is not readable (`search.find_export`), or a shape cannot be drawn.
    """
    export = find_export(root, line_width)
    if export is None or any(p.drawn is None for p in export.pairs):
        return None
    table, pairs = export.classes, export.pairs
    if not instances:
        table = pairing.declared_classes(root, classes_file, export) or table
        pairs = export.pairs_under(table, classes_file or root / "classes.toml")
    pair_of = {p.name: p for p in pairs}

    def read(name: str, shape: tuple[int, int]) -> ConvertedMask:
        pair = pair_of[name]
        drawn = pair.read_shapes()  # 1 to n
        masks.check_same_size(pair.mask, drawn.shape, shape)
        hidden = table.names_of(pair.hidden(drawn, instances))
        if not instances:
            labels = pair.labels_of(RawMask(pair.values[drawn]), table)
            return ConvertedMask(labels, hidden=hidden)
        kinds = np.array([kind for kind, _ in pair.drawn or ()], int)
        mask, numbers = draw_objects(drawn, kinds)
        return ConvertedMask(mask, numbers=numbers, hidden=hidden)

    classes = table.classes
    if instances:
        colours = {c.name: c.colour for c in classes[1:]}
        classes = _with_borders(list(colours), colours)
    return export.tool, _annotations(pairs, classes, read, warnings=export.warnings)


def _annotations(
    pairs: Sequence[Pair],
    classes: tuple[SegmentationClass, ...],
    read: ReadMask,
    problem: InputError | None = None,
    warnings: tuple[str, ...] = (),
) -> Annotations:
    """Return the labels of pairs of an image and a mask."""
    images, parts = {p.name: p.image for p in pairs}, {p.name: p.part for p in pairs if p.part}
    return Annotations(images, classes, read, problem, warnings, parts)


# --- one mask for each image -----------------------------------------------------------------


def read_pairs(
    root: Path,
    classes_file: Path | None,
    ignored: tuple[int | str, ...],
    without: str,
    limit: float,
) -> Annotations:
    """Read images with one mask each, as `pairing.find_pairs` finds them.

    Args:
        root: The set.
        classes_file: A ``classes.toml``; None takes the classes that the set declares, or the
            values and colours found.
        ignored: Mask values or colours that are no class.
        without: The name of a folder that holds neither images nor masks; "" for none.
        limit: The share of blended pixels that `snapping.snap` takes, 0 to 1.

    Raises:
        InputError: There is nothing to pair, or masks whose classes are not clear.
    """
    labelled = pairing.read_set(root, classes_file, without=without, converts=True)
    pairs, problem = labelled.pairs, labelled.problem
    _refuse_images(pairs)
    mask_of, read_kept = {p.name: p.mask for p in pairs}, MaskReader()
    if pairs:
        refuse_mixup(pairs[0], reading.read_image(pairs[0].image), read_kept(pairs[0].mask))
    table = labelled.classes
    table = (
        _discover(mask_of, ignored, read_kept) if table is None else _with_ignored(table, ignored)
    )

    def read(name: str, shape: tuple[int, int]) -> ConvertedMask:
        raw = read_kept(mask_of[name])
        masks.check_same_size(mask_of[name], raw.values.shape[:2], shape)
        snapped = snapping.snap(raw, table, mask_of[name], limit)
        return ConvertedMask(snapped.mask, snapped.moved, snapped.blended)

    labels = _annotations(pairs, table.classes, read, problem, labelled.warnings)
    return replace(labels, are_found=labelled.classes is None)


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
    labelled = pairing.read_set(root, classes_file, without=without, converts=True)
    pairs, problem, declared = labelled.pairs, labelled.problem, labelled.classes
    _refuse_images(pairs)
    mask_of, read_kept = {p.name: p.mask for p in pairs}, MaskReader(reading.read_mask)
    table = _with_ignored(declared, ignored) if declared else None
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
    _refuse_classes(numbered, read_kept)
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
    return _annotations(pairs, classes, read, problem, (*labelled.warnings, *warnings))


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
    table = table or _discover(mask_of, ignored, MaskReader())
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
    return _annotations(pairs, _with_borders(names, colours), read, problem)


def _refuse_classes(found: Iterable[tuple[Path, Sequence[Key]]], read_kept: MaskReader) -> None:
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
        raise _is_background(key, remedy)


def _is_background(key: Key, remedy: str) -> InputError:
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


def _with_ignored(table: ClassTable, ignored: tuple[int | str, ...]) -> ClassTable:
    return table.with_ignored(ignored) if ignored else table


def _named(table: ClassTable, names: tuple[str, ...]) -> ClassTable:
    classes = (replace(c, name=n) for c, n in zip(table.classes, names, strict=True))
    return replace(table, classes=tuple(classes))


def _discover(
    mask_of: Mapping[str, Path],
    ignored: tuple[int | str, ...],
    read_kept: MaskReader,
) -> ClassTable:
    """Return the classes that masks hold; the commonest colours where the masks are noisy."""
    paths = sorted(set(mask_of.values()))
    keys, numbers, is_lossy = {}, {}, False
    for path in paths:
        raw = read_kept(path)
        is_lossy |= raw.is_lossy
        keys[str(path)] = masks.find_keys(raw)
        numbers[path] = measure_numbers(raw, keys[str(path)])
    if doubt := doubt_values(keys, numbers):
        raise doubt
    if any(k.colours.get(IGNORED) == VOID for k in keys.values()):
        ignored = (*ignored, IGNORED)
    table = None if is_lossy else _discover_exact(keys, ignored)
    if table is not None and len(table) > 2:  # a blend lies between two others
        _refuse_thin(table, paths, read_kept)
    table = table or _discover_centres(keys, ignored, map(read_kept, paths))
    is_black_and_white = table.names == ("0", str(IGNORED))
    return _named(table, (BACKGROUND, FOREGROUND)) if is_black_and_white else table


def _refuse_thin(table: ClassTable, paths: Sequence[Path], read_kept: MaskReader) -> None:
    """Refuse classes of masks that may be blends of two others."""
    counts = []
    for path in paths:
        labels = masks.decode(read_kept(path), table, path)
        pixels = np.bincount(labels.ravel(), minlength=IGNORED + 1)[: len(table)]
        counts.append((pixels, snapping.count_solid(labels, len(table))))
    pixels, solid = np.sum(counts, 0)
    if doubt := snapping.doubt_thin(table, pixels, solid == 0):
        raise doubt


def _discover_exact(
    keys: Mapping[str, masks.Found], ignored: tuple[int | str, ...]
) -> ClassTable | None:
    """Return the classes of masks in which each value or colour is one; None of blended masks."""
    try:
        return discover(keys, ignored)
    except InputError as error:
        if error.code is not Code.BLENDED_MASK:
            raise
    return None


def _discover_centres(
    keys: Mapping[str, masks.Found], ignored: tuple[int | str, ...], raws: Iterable[RawMask]
) -> ClassTable:
    """Return the classes of blended or noisy masks: their commonest values or colours."""
    centres = snapping.find_centres(keys.values(), raws)
    if all(isinstance(k, int) and not one.colours for one in keys.values() for k in one.counts):
        levels = sorted(colour_to_rgb(c)[0] for c in centres)
        return _with_ignored(table_of(levels), tuple(i for i in ignored if isinstance(i, int)))
    colours = tuple(i for i in ignored if isinstance(i, str))
    return _with_ignored(table_of(sorted(centres)), colours)


# --- one mask for each class -----------------------------------------------------------------


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
    names = sorted({c for masks_of in files.values() for c, _ in masks_of}, key=naming.natural_key)
    if order and sorted(order) != sorted(names):
        raise InputError(arg("order"), f"{', '.join(order)}", f"the classes are {', '.join(names)}")
    names, read_kept = list(order) or names, MaskReader(reading.read_mask)
    if instances:
        paths_of = [path for masks_of in files.values() for _, path in masks_of]
        _refuse_classes(((path, ()) for path in paths_of), read_kept)
        if (key := find_background(map(read_kept, paths_of))) is not None:
            raise _is_background(key, "store the background as 0")

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

    classes = _with_borders(names) if instances else named_classes([BACKGROUND, *names])
    return Annotations(paths, classes, read)


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
