"""One mask for each image, and the classes that such masks hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unetseg.classes import IGNORED, ClassTable, colour_to_rgb, table_of
from unetseg.dataset.conversion.annotations import Annotations, ConvertedMask, read_set
from unetseg.dataset.conversion.mask_files import MaskReader
from unetseg.dataset.exports.class_lists import VOID
from unetseg.dataset.findings.contents import doubt_values
from unetseg.dataset.survey import refuse_mixup
from unetseg.errors import Code, InputError
from unetseg.objects.numbering import measure_numbers
from unetseg.objects.separation import BACKGROUND, FOREGROUND
from unetseg.pictures import masks, snapping
from unetseg.pictures.discovery import discover
from unetseg.pictures.masks import RawMask


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
    labelled = read_set(root, classes_file, without)
    pairs, problem = labelled.pairs, labelled.problem
    mask_of, read_kept = {p.name: p.mask for p in pairs}, MaskReader()
    if pairs:
        refuse_mixup(pairs[0], pairs[0].read_image(), read_kept(pairs[0].mask))
    if labelled.classes is None:
        table = discover_classes(mask_of, ignored, read_kept)
    else:
        table = labelled.classes.with_ignored(ignored)

    def read(name: str, shape: tuple[int, int]) -> ConvertedMask:
        raw = read_kept(mask_of[name])
        masks.check_same_size(mask_of[name], raw.values.shape[:2], shape)
        snapped = snapping.snap(raw, table, mask_of[name], limit)
        return ConvertedMask(snapped.mask, snapped.moved, snapped.blended)

    labels = Annotations.of_pairs(pairs, table.classes, read, problem, labelled.warnings)
    return replace(labels, are_found=labelled.classes is None)


def discover_classes(
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
        return table_of(levels).with_ignored(tuple(i for i in ignored if isinstance(i, int)))
    colours = tuple(i for i in ignored if isinstance(i, str))
    return table_of(sorted(centres)).with_ignored(colours)


def _named(table: ClassTable, names: tuple[str, ...]) -> ClassTable:
    classes = (replace(c, name=n) for c, n in zip(table.classes, names, strict=True))
    return replace(table, classes=tuple(classes))
