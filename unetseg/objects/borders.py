"""From numbered objects to masks in which a class of objects is followed by that of its border."""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED, SegmentationClass, named_classes
from unetseg.objects.separation import BACKGROUND, BORDER
from unetseg.pictures import masks
from unetseg.pictures.masks import Key, RawMask, Runs


def renumber(
    raw: RawMask, others: Sequence[Key] = (), what: object = masks.ALL_MASKS
) -> NDArray[np.int32]:
    """Return ``(H, W)`` the objects of a mask that numbers them, 1 to n without gaps, 0 elsewhere.

    Black is no object of an RGB mask, and 0 is none of others.

    Args:
        raw: The mask.
        others: Further values or colours that are no objects.
        what: The file, for messages.

    Raises:
        InputError: A colour is named, and the mask holds values over 255.
    """
    codes = raw.codes
    return _dense(np.where(masks.holds_any(raw, others, what), 0, codes) if others else codes)


def _dense(values: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Return the values numbered 1, 2, ... in ascending order; 0 stays 0."""
    runs = Runs.of(values)  # to sort all pixels takes far longer
    keys, places = np.unique(runs.codes, return_inverse=True)
    return runs.spread(places.astype(np.int32) + int(keys[0] != 0))


def draw_objects(
    numbers: NDArray[np.int32], kinds: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return the mask in which each class of objects is followed by the class of its border.

    Args:
        numbers: ``(H, W)`` the number of each pixel's object, 1 to n; 0 where no object is. A
            number may have no pixels.
        kinds: ``(n,)`` the class of each number: 0 for the background, 255 for ignored pixels. The
            inside of an object of class k becomes 2 k - 1, and its border, as `outlined` draws it,
            2 k.

    Returns:
        ``(H, W)`` the mask, and the objects that it shows, numbered 1, 2, ... without gaps.
    """
    kind = np.append(0, kinds)[numbers]
    numbers = _dense(np.where((kind > 0) & (kind != IGNORED), numbers, 0))
    mask = np.where(numbers > 0, 2 * kind - (outlined(numbers) == 1), kind)
    return mask.astype(np.uint8), numbers


def outlined(numbers: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Return ``(H, W)`` 0 background, 1 foreground, 2 border of the objects of a label image.

    The border is made of the pixels of an object beside another number. So it is one pixel wide
    along the background, and two pixels wide where objects touch.
    """
    padded = np.pad(numbers, 1, mode="edge")
    height, width = numbers.shape
    border = np.zeros(numbers.shape, bool)
    for row in (0, 1, 2):
        for column in (0, 1, 2):
            border |= padded[row : row + height, column : column + width] != numbers
    inside = numbers != 0
    return np.where(inside, np.where(border, 2, 1), 0).astype(np.uint8)


def with_borders(
    names: Sequence[str], colours: Mapping[str, str] = MappingProxyType({})
) -> tuple[SegmentationClass, ...]:
    """Return the background, and each class followed by the class of its objects' border."""
    pairs = ((name, f"{name} {BORDER}") for name in names)
    return named_classes([BACKGROUND, *itertools.chain.from_iterable(pairs)], colours)
