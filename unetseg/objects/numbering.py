"""Whether the masks of a set number objects, or hold classes.

A program that numbers objects gives each its own value: 1, 2, 3, ... in every image anew. Such a
value is one connected area in nearly every image, and it says nothing about size and place. The
highest value differs from image to image. The values of classes are in several pieces, are the same
in all images, or stand for things of a certain size or place.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED
from unetseg.errors import InputError, arg
from unetseg.objects.counting import label_objects
from unetseg.pictures import masks
from unetseg.pictures.masks import Found, Key, RawMask, Runs
from unetseg.text import plural

_WHOLE = 0.9  # of a value's pixels lie in one piece: the rest is cut off by a neighbour
_WHOLES = 0.8  # of the values are whole where they number objects; 0.26 in 100 masks of CamVid
_FEWEST_NUMBERS = 2  # in a mask that tells whether one of them is the background
_FEW = 3  # values in the usual mask: with fewer, objects and classes look alike
_FEWEST_MASKS = 3  # of each count of few values: fewer may be chance
_APART = 0.15  # of height and width: the least distance of centres in the usual mask
_CHANCE = 0.01  # that classes stand in the order of their numbers in all masks
_MANY = 6  # values in the fullest mask: so many numbers without a gap are no chance
_FILLED = 2 / 3  # of the numbers up to the highest are there, since a program deletes few objects
_SOME_FILLED = 0.5  # the same where few are left; classes that an image shows are fewer
_COLOURS_FILLED = 0.9  # the same for colours, whose order is chosen to fit
_IN_ORDER = 0.8  # mean rank correlation of number and row, or column, where one follows the other
_TELLS = 0.5  # of the variance of a measure lies between values that stand for certain things

# The ends of names under which programs save numbered objects, and others under which they may.
_OBJECT_NAMES = re.compile(r"(_cp_masks?|[-_ .]lbl|[-_ .](instances?|objects?|watershed))$", re.I)
_LABEL_NAMES = re.compile(r"[-_ .](labels?|labell?ed)$", re.I)


@dataclass(frozen=True, eq=False)
class Numbers:
    """The possible numbers of objects in a mask: its K values or colours but 0, black and 255.

    Attributes:
        keys: ``(K,)`` values, or colours as 0xrrggbb, ascending.
        whole: ``(K,)`` whether nine tenths of the pixels are one connected area.
        size: ``(K,)`` logarithm of the pixels.
        place: ``(K, 2)`` mean row and column, 0 to 1.
        first: ``(K, 2)`` the place of the first pixel, if pixels are counted row by row [:, 0] or
            column by column [:, 1].
        are_colours: Whether the keys are colours.
        is_deep: Whether the values have more than eight bits.
    """

    keys: NDArray[np.int64]
    whole: NDArray[np.bool_]
    size: NDArray[np.float64]
    place: NDArray[np.float64]
    first: NDArray[np.int64]
    are_colours: bool
    is_deep: bool


def measure_numbers(raw: RawMask, found: Found) -> Numbers | None:
    """Return the values of a mask that may number objects; None where the mask is noisy.

    Args:
        raw: The mask.
        found: `masks.find_keys` of it.
    """
    if masks.is_noisy(found):
        return None
    are_colours = raw.values.ndim == 3
    pieces = _find_pieces(raw.codes)
    keys, owner, labels, total = pieces.keys, pieces.owner, pieces.labels, pieces.total
    height, width = labels.shape
    places = np.append(-1, owner)[labels]  # of each pixel's key
    flat = places.ravel()
    rows = np.bincount(flat, np.repeat(np.arange(height) / height, width), len(keys)) / total
    columns = np.bincount(flat, np.tile(np.arange(width) / width, height), len(keys)) / total
    kept = keys > 0 if are_colours else (keys > 0) & (keys != IGNORED)
    return Numbers(
        keys[kept],
        pieces.whole[kept],
        np.log(total)[kept],
        np.stack([rows, columns], 1)[kept],
        np.stack([_firsts(places), _firsts(places.T)], 1)[kept],
        are_colours,
        raw.values.dtype != np.uint8,
    )


def _firsts(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each number ``(H, W)``, 0 to the highest, stands first, row by row."""
    runs = Runs.of(numbers)
    starts = np.cumsum(runs.lengths) - runs.lengths
    firsts = np.zeros(runs.codes.max() + 1, np.int64)
    firsts[runs.codes[::-1]] = starts[::-1]  # of equal numbers, the last one stays
    return firsts


@dataclass(frozen=True, eq=False)
class _Pieces:
    """The connected areas of each value.

    Attributes:
        labels: ``(H, W)`` the number of each pixel's area, from 1.
        owner: ``(n,)`` the place in ``keys`` of the value of each area.
        keys: ``(K,)`` the values, ascending.
        total: ``(K,)`` pixels.
        whole: ``(K,)`` whether nine tenths of the pixels are one area.
    """

    labels: NDArray[np.int32]
    owner: NDArray[np.int64]
    keys: NDArray[np.int64]
    total: NDArray[np.float64]
    whole: NDArray[np.bool_]


def _find_pieces(values: NDArray[np.integer[Any]]) -> _Pieces:
    # Moved up, because class 255 is left out of the objects that are counted.
    labels, kinds = label_objects(values.astype(np.int64) + IGNORED + 1)
    pixels = np.bincount(labels.ravel(), minlength=len(kinds) + 1)[1:].astype(float)
    keys, owner = np.unique(kinds - IGNORED - 1, return_inverse=True)
    total, largest = np.zeros(len(keys)), np.zeros(len(keys))
    np.add.at(total, owner, pixels)
    np.maximum.at(largest, owner, pixels)
    return _Pieces(labels, owner, keys, total, largest >= _WHOLE * total)


def doubt_numbers(found: Iterable[tuple[Path, NDArray[np.integer[Any]]]]) -> InputError | None:
    """Return the error of masks that hold classes where numbers of objects are due.

    One object may lie in several pieces. In masks of classes most values do, as in black and white
    ones.

    Args:
        found: The file of each mask, and its numbers ``(H, W)``, 0 where no object is.
    """
    in_pieces, count = [], 0
    for path, numbers in found:
        pieces = _find_pieces(numbers)
        whole = pieces.whole[pieces.keys > 0]
        count += bool(whole.size)
        if whole.size and whole.mean() < 0.5:
            in_pieces.append(path)
    if len(in_pieces) <= (1 - _WHOLES) * count:
        return None
    text = (
        f"most values are in several pieces, as in {len(in_pieces)} of {plural(count, 'mask')}: "
        "classes, not numbers of objects"
    )
    remedy = (
        f"leave out {arg('instances', True)}, or number the objects (Fiji: Analyze Particles, "
        "Count Masks)"
    )
    return InputError(in_pieces[0], text, remedy)


def find_background(found: Iterable[RawMask]) -> Key | None:
    """Return the number that may be the background of numbered objects; None where none may.

    It is the commonest of most masks and reaches all their edges, and there is little of 0. Masks
    of fewer than two numbers say nothing.
    """
    grounds = Counter[Key | None]()
    for raw in found:
        codes = raw.codes
        keys, counts = np.unique(codes, return_counts=True)
        if (keys > 0).sum() < _FEWEST_NUMBERS:
            continue
        first, zeros = keys[counts.argmax()], counts[keys == 0].sum()
        inside = codes == first
        edges = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
        reaches_all = all(edge.any() for edge in edges)
        is_ground = first > 0 and reaches_all and zeros < counts.max() / 2
        key: Key = masks.hex_of(first) if raw.values.ndim == 3 else int(first)
        grounds[key if is_ground else None] += 1
    for ground, count in grounds.most_common(1):
        return ground if count >= _WHOLES * grounds.total() else None
    return None


def doubt_classes(found: Mapping[Path, Numbers | None]) -> InputError | None:
    """Return the error of masks that number objects, or may; None where they hold classes.

    Its code is `Code.OBJECT_NUMBERS`, or `Code.OBJECTS_OR_CLASSES` where both are possible.

    Args:
        found: `measure_numbers` of each mask.
    """
    measured = {p: n for p, n in found.items() if n is not None and len(n.keys)}
    # Black and white masks and masks of one object say nothing about the values of the others.
    single = [p for p, n in measured.items() if len(n.keys) == 1]
    numbers = [n for n in measured.values() if len(n.keys) > 1]
    if not numbers or np.median([n.whole.mean() for n in numbers]) < _WHOLES:
        return None
    kind = "colours" if any(n.are_colours for n in numbers) else "values"
    keys = f"{len(np.unique(np.concatenate([n.keys for n in numbers])))} {kind}"
    if _are_named(measured, _OBJECT_NAMES):
        return masks.object_numbers(masks.ALL_MASKS, keys)
    sets = {tuple(n.keys.tolist()) for n in numbers}
    if np.median([len(n.keys) for n in numbers]) < _FEW:
        are_few = _number_few(list(measured.values()))
        return masks.object_numbers(masks.ALL_MASKS, keys, False) if are_few else None
    if len(sets) == 1 < len(numbers) and (
        len(numbers[0].keys) < _MANY or _tells_size_or_place(numbers)
    ):
        return None
    is_sure = _judge(numbers, _are_named(measured, _LABEL_NAMES))
    if is_sure is None:
        return None
    binary = [p for p in single if not measured[p].whole.all()]
    if is_sure and len(binary) > (1 - _WHOLES) * len(measured):
        other = max(measured, key=lambda p: len(measured[p].keys))
        text = (
            f"holds one value in several pieces, {other} holds one for each object: two kinds of "
            f"masks in one set ({len(binary)} and {len(numbers)})"
        )
        remedy = "store all masks in one way, or list the classes in classes.toml"
        return InputError(binary[0], text, remedy)
    return masks.object_numbers(masks.ALL_MASKS, keys, is_sure)


def _judge(numbers: Sequence[Numbers], are_named: bool) -> bool | None:
    """Tell whether values that differ from mask to mask are surely objects; None for classes."""
    most = max(len(n.keys) for n in numbers)
    if any(n.are_colours for n in numbers):
        frequency = Counter(k for n in numbers for k in n.keys.tolist())
        lone = sum(count == 1 for count in frequency.values())
        if len(numbers) > 2 and lone >= _MANY and lone > 0.7 * len(frequency):
            return True
        # Colours have no order. Low numbers are the commonest, so their colours are, too.
        rank = {key: i + 1 for i, (key, _) in enumerate(frequency.most_common())}
        filled = [len(n.keys) / max(rank[k] for k in n.keys.tolist()) for n in numbers]
        run, few = 0.0, _COLOURS_FILLED
    else:
        filled = [len(n.keys) / n.keys[-1] for n in numbers]
        run, few = float(np.mean([f == 1 for f in filled])), _SOME_FILLED
    if most >= _MANY and run >= _WHOLES:  # 1, 2, 3, ... in nearly every mask
        return not _tells_size(numbers)
    if len(numbers) == 1 or np.mean(filled) < few or _tells_size_or_place(numbers):
        return None
    is_deep = all(n.is_deep for n in numbers)
    return (np.mean(filled) >= _FILLED and most >= _MANY) or are_named or is_deep


def _number_few(numbers: Sequence[Numbers]) -> bool:
    """Tell whether masks of one to three values very likely number objects.

    Each value is in one piece and stands for no size and no place, and no number is left out. How
    many there are differs from mask to mask. They lie apart, while the parts of a thing have one
    place. They are numbered in order of their first pixels, so often that it is no chance, or have
    more than eight bits.
    """
    several = [n for n in numbers if len(n.keys) > 1]
    if any(n.are_colours or n.keys[-1] != len(n.keys) for n in numbers):
        return False
    kinds = Counter(len(n.keys) for n in numbers)
    if len(kinds) < 2 or min(n for _, n in kinds.most_common(2)) < _FEWEST_MASKS:
        return False
    is_whole = float(np.mean(np.concatenate([n.whole for n in numbers]))) >= _WHOLE
    places = ([n.place[:, axis] for n in numbers] for axis in (0, 1))
    tells_place = any(_explained(numbers, place) >= _TELLS for place in places)
    if not is_whole or _tells_size(numbers) or tells_place:
        return False
    if np.median([_nearest(n.place) for n in several]) < _APART:
        return False
    in_order = any(all((np.diff(n.first[:, a]) > 0).all() for n in several) for a in (0, 1))
    chance = 2 * math.prod(1 / math.factorial(len(n.keys)) for n in several)
    is_deep = all(n.is_deep for n in numbers)
    return (in_order and chance <= _CHANCE) or (is_deep and len(several) >= _FEWEST_MASKS)


def _nearest(places: NDArray[np.float64]) -> float:
    """Return the least distance between two of several places ``(K, 2)``."""
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    return float(apart[np.triu_indices(len(places), 1)].min())


def _tells_size_or_place(numbers: Sequence[Numbers]) -> bool:
    """Tell whether a value stands for objects of a certain size or place."""
    return _tells_size(numbers) or any(_tells_place(numbers, axis) for axis in (0, 1))


def _tells_size(numbers: Sequence[Numbers]) -> bool:
    """Tell whether a value stands for objects of a certain size."""
    return _explained(numbers, [n.size for n in numbers]) >= _TELLS


def _tells_place(numbers: Sequence[Numbers], axis: int) -> bool:
    """Tell whether a value stands for a place, unless objects are numbered in order of place."""
    places = [n.place[:, axis] for n in numbers]
    if _explained(numbers, places) < _TELLS:
        return False
    ranks = [np.argsort(np.argsort(p)) for p in places if len(p) > 2]
    in_order = [abs(np.corrcoef(r, np.arange(len(r)))[0, 1]) for r in ranks]
    return not in_order or float(np.mean(in_order)) < _IN_ORDER


def _explained(numbers: Sequence[Numbers], values: Sequence[NDArray[np.float64]]) -> float:
    """Return the share of the variance of a measure that lies between keys, 0 where unknown.

    It is epsilon squared, which is 0 on average where the keys are drawn at random (Kelley, 1935,
    "An unbiased correlation ratio measure").
    """
    keys, measure = np.concatenate([n.keys for n in numbers]), np.concatenate(values)
    distinct, owner, counts = np.unique(keys, return_inverse=True, return_counts=True)
    free = len(keys) - len(distinct)
    if not free:
        return 0.0
    means = np.bincount(owner, measure) / counts
    within = float(((measure - means[owner]) ** 2).sum())
    total = float(((measure - measure.mean()) ** 2).sum())
    return 1 - within / free * (len(keys) - 1) / total if total > 1e-12 else 0.0


def _are_named(paths: Mapping[Path, Numbers], pattern: re.Pattern[str]) -> bool:
    return sum(bool(pattern.search(p.stem)) for p in paths) > len(paths) / 2
