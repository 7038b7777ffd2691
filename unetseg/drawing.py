"""Pictures for people: images and masks side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.images import overlay, paint, to_display

_GAP = 4  # white pixels between pictures
_SHEET_WIDTH = 1200  # pixels a sheet is at most wide; larger pictures are thinned out


def sample_sheet(
    pictures: NDArray[Any], masks: NDArray[np.integer], classes: ClassTable
) -> NDArray[np.uint8]:
    """Return the patches of a batch, each above its mask, in rows of eight.

    Args:
        pictures: (N, S, S, C) in the units of the images.
        masks: (N, S, S) class indices, 255 ignored.
        classes: Their colours.

    Returns:
        (H, W, 3) uint8.
    """
    cells = [
        np.concatenate([to_display(p), _bar(p.shape[1]), paint(m, classes)])
        for p, m in zip(pictures, masks.astype(np.uint8), strict=True)
    ]
    return _rows([cells[i : i + 8] for i in range(0, len(cells), 8)])


def validation_sheet(
    rows: Sequence[tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.uint8]]],
    classes: ClassTable,
) -> NDArray[np.uint8]:
    """Return image, truth and prediction side by side, a row each.

    Args:
        rows: (H, W, C) image, (H, W) truth, (H, W) prediction, in class indices.
        classes: Their colours.

    Returns:
        (H, W, 3) uint8.
    """
    cells = []
    for image, truth, predicted in rows:
        pictures = [
            to_display(image),
            overlay(image, truth, classes),
            overlay(image, predicted, classes),
        ]
        cells.append([_fit(p, _SHEET_WIDTH // 3) for p in pictures])
    return _rows(cells)


def _rows(rows: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Put pictures of any size into rows on white."""
    height = sum(max(c.shape[0] for c in row) + _GAP for row in rows) - _GAP
    width = max(sum(c.shape[1] + _GAP for c in row) for row in rows) - _GAP
    sheet = np.full((height, width, 3), 255, np.uint8)
    top = 0
    for row in rows:
        left = 0
        for cell in row:
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
            left += cell.shape[1] + _GAP
        top += max(c.shape[0] for c in row) + _GAP
    return sheet


def _fit(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    step = -(-picture.shape[1] // width)
    return picture[::step, ::step]


def _bar(width: int) -> NDArray[np.uint8]:
    return np.full((2, width, 3), 255, np.uint8)
