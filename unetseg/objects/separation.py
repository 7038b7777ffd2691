"""Touching objects told apart: from a mask to a label image, in which each object has a number.

A network says which class a pixel has, not which object. Two discs that touch are one area of one
class, and the distance to the outline of that area shows where they meet::

    area             distance        watershed
    . # # . # # .    . 1 1 . 1 1 .   . 1 1 . 2 2 .
    # # # # # # #    1 2 2 1 2 2 1   1 1 1 2 2 2 2      a peak in each disc, a saddle between them:
    # # # # # # #    1 2 2 1 2 2 1   1 1 1 2 2 2 2      the area is parted where the saddle is
    . # # . # # .    . 1 1 . 1 1 .   . 1 1 . 2 2 .      clearly lower than the lower peak

Where the model has learned the border of objects as a class of its own, each area inside a border
is an object, and the border pixels go to the nearest one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.errors import InputError, arg
from unetseg.text import nearest

BORDER = "border"  # the class that `unetseg convert --instances` makes
BACKGROUND = "background"
# A neck parts two objects where it is narrower than this share of the thinner object. Touching
# discs of one radius are parted until their centres are closer than 1.4 radii.
_NECK = 0.8
# Between the insides of objects with a learned border only a clear neck is a gap in that border.
_GAP = 0.5


def object_classes(table: ClassTable, names: Sequence[str]) -> dict[int, int | None]:
    """Return the classes whose objects are asked for, and the class of the border of each.

    The border of a class "cell" is a class "cell border". A class "border" is the border of the
    only class with objects; among several classes nobody could say whose border a pixel is.

    Args:
        table: The classes of the model.
        names: Names of classes; "all" stands for each but the background and borders.

    Raises:
        InputError: No such class, or a border; the message names the nearest.
    """
    known = [n for n in table.names if n != BORDER and not n.endswith(f" {BORDER}")]
    with_objects = [name for name in known if name != BACKGROUND]
    if list(names) == ["all"] and "all" not in known:
        names = with_objects
    found = {}
    for name in names:
        if name not in known:
            remedy = f"{nearest(name, known)}the classes are {', '.join(known)}"
            raise InputError(arg("objects"), f"{name!r} is no class with objects", remedy)
        possible = [f"{name} {BORDER}", *([BORDER] if with_objects == [name] else [])]
        borders = [border for border in possible if border in table.names]
        found[table.names.index(name)] = table.names.index(borders[0]) if borders else None
    return found


def separate(
    labels: NDArray[np.uint8],
    kind: int,
    *,
    border: int | None = None,
    confidence: NDArray[np.uint8] | None = None,
) -> NDArray[np.int32]:
    """Number the objects of one class, also where they touch.

    Args:
        labels: (H, W) class indices, 255 ignored.
        kind: Class whose objects are told apart.
        border: Class of the objects' borders, where the model has one; its pixels become pixels of
            the objects that they surround.
        confidence: (H, W) probability of each pixel's class, 0 to 255. A dip in it marks a contact
            of two objects even where the outline shows no neck.

    Returns:
        (H, W) int32: 1 to n, from top to bottom; 0 where no object is.
    """
    inside = labels == kind
    if border is None:
        return _number(_parted(inside, _NECK, confidence))
    cores = _parted(inside, _GAP, confidence)
    return _number(_grown(cores, inside | (labels == border)))


def _parted(
    area: NDArray[np.bool_], neck: float, confidence: NDArray[np.uint8] | None
) -> NDArray[np.int32]:
    """Return (H, W) int32 numbers of the parts of an area, cut at necks."""
    from scipy import ndimage
    from skimage import feature, measure, segmentation

    parts: NDArray[np.int32] = measure.label(area, connectivity=1).astype(np.int32)
    height = ndimage.distance_transform_edt(np.pad(area, 1)).astype(np.float32)[1:-1, 1:-1]
    # Distances between pixels come in steps; smoothed, a ragged outline has no peaks of its own.
    height = ndimage.gaussian_filter(height, 1) * area
    if confidence is not None:
        height *= ndimage.uniform_filter(confidence.astype(np.float32), 3) / 255
    peaks = feature.peak_local_max(height, min_distance=2, labels=parts, exclude_border=False)
    owners = parts[tuple(peaks.T)]
    several = np.bincount(owners, minlength=parts.max(initial=0) + 1) > 1
    peaks = peaks[several[owners]]
    if not len(peaks):
        return parts
    seeds = np.zeros(area.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    basins = segmentation.watershed(-height, seeds, mask=several[parts])
    groups = _merge(basins, height, height[tuple(peaks.T)], neck)
    return np.where(basins > 0, groups[basins] + len(several), parts).astype(np.int32)


def _merge(
    basins: NDArray[np.int32],
    height: NDArray[np.float32],
    peaks: NDArray[np.float32],
    neck: float,
) -> NDArray[np.int64]:
    """Join basins whose saddle is hardly lower than the lower of their peaks.

    Args:
        basins: (H, W) numbers from 1, 0 outside.
        height: (H, W) what the basins were flooded by.
        peaks: (n,) height of the peak of basin 1, 2, ..., n.
        neck: Basins stay apart where saddle / peak is below this.

    Returns:
        (n + 1,) the group of each basin; [0] is 0.
    """
    group = np.arange(len(peaks) + 1)
    top = np.concatenate([[0.0], peaks])

    def root(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    for one, other, saddle in _saddles(basins, height):
        one, other = root(one), root(other)
        if one != other and saddle >= neck * min(top[one], top[other]):
            low, high = sorted((one, other), key=lambda number: top[number])
            group[low] = high
    return np.array([root(number) for number in range(len(group))])


def _saddles(
    basins: NDArray[np.int32], height: NDArray[np.float32]
) -> list[tuple[int, int, float]]:
    """Return (basin, basin, height of the saddle between them), the highest saddle first."""
    pairs, heights = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = _shifted(basins, down, right)
        both = (here != there) & (here > 0) & (there > 0)
        low, high = _shifted(height, down, right)
        pairs.append(np.sort(np.stack([here[both], there[both]], 1), axis=1))
        heights.append(np.minimum(low[both], high[both]))
    pair, level = np.concatenate(pairs), np.concatenate(heights)
    order = np.argsort(-level, kind="stable")
    _, first = np.unique(pair[order], axis=0, return_index=True)
    kept = order[np.sort(first)]
    return [(int(a), int(b), float(h)) for (a, b), h in zip(pair[kept], level[kept], strict=True)]


def _shifted(values: NDArray[Any], down: int, right: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two views of (H, W) values, the second one that many rows and columns further on."""
    height, width = values.shape
    start, end = max(0, -right), width - max(0, right)
    return (
        values[: height - down, start:end],
        values[down:, start + right : end + right],
    )


def _grown(cores: NDArray[np.int32], area: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the cores grown over the area; a piece without a core is an object, too."""
    from skimage import measure, segmentation

    grown = segmentation.watershed(np.zeros(area.shape, np.uint8), cores, mask=area)
    rest = measure.label(area & (grown == 0), connectivity=1)
    numbers: NDArray[np.int32] = np.where(rest > 0, rest + cores.max(initial=0), grown)
    return numbers.astype(np.int32)


def _number(parts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the parts numbered from 1 without gaps, in the order of their first pixels."""
    values, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    order = np.argsort(np.where(values == 0, -1, first))  # 0 comes first, and stays 0
    number = np.empty(len(values), np.int32)
    number[order] = np.arange(len(values)) + (values[0] != 0)
    return number[inverse].reshape(parts.shape)
