"""Mask files that are converted: of one picture each, and lossy ones, too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from unetseg.errors import Code, InputError, arg
from unetseg.pictures import reading, snapping
from unetseg.pictures.masks import RawMask

_KEPT_BYTES = 2**28  # of masks that are kept until they are converted


def refuse_pages(path: Path) -> None:
    """Refuse a file of several pictures: a converted set has one picture a file."""
    if (pages := reading.read_info(path).pages) > 1:
        text = f"holds {pages} pages, and a converted set has one picture a file"
        raise InputError(path, text, f"train on it as it is, with {arg('page', 'all')}")


def read_raw(path: Path) -> RawMask:
    """Read a mask as `reading.read_mask` does; a lossy one, which it refuses, is read, too.

    Raises:
        InputError: `reading.read_mask` or `snapping.refuse_close` refuses the mask.
    """
    refuse_pages(path)
    try:
        return reading.read_mask(path)
    except InputError as error:
        pixels = reading.read_image(path) if error.code is Code.LOSSY_MASK else None
        if pixels is None or pixels.dtype != np.uint8 or reading.read_info(path).alpha:
            raise
    raw = RawMask.of_picture(pixels, is_lossy=True)
    snapping.refuse_close(raw, path)
    return raw


class MaskReader:
    """Reads masks, and keeps some in memory, because a conversion reads each several times."""

    def __init__(self, read: Callable[[Path], RawMask] = read_raw) -> None:
        self._read = read
        self._kept: dict[Path, RawMask] = {}
        self._left = _KEPT_BYTES

    def __call__(self, path: Path) -> RawMask:
        """Return a mask, which nobody may change."""
        if path in self._kept:
            return self._kept[path]
        raw = self._read(path)
        self._left -= raw.values.nbytes
        if self._left >= 0:
            self._kept[path] = raw
        return raw
