"""Masks of the field of view of images; pixels outside are ignored."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg.dataset import naming
from unetseg.dataset.conversion.mask_files import read_raw
from unetseg.errors import InputError
from unetseg.pictures import masks, snapping
from unetseg.pictures.surroundings import doubt_view, is_inverted_view
from unetseg.progress import Note, OnProgress
from unetseg.text import show

_VIEWS_JUDGED = 3  # fields of view that are read before the work, as a folder is right or wrong


def find_views(
    home: Path, images: Sequence[Path], on_progress: OnProgress, limit: float = snapping.LIMIT
) -> dict[Path, Path]:
    """Return for each image the mask of its field of view in a folder.

    The first ones are read, and a doubt whether they show a field of view is reported.

    Raises:
        InputError: The folder holds no pictures, an image has none in it, or the first ones are
            refused as by `read_view`.
    """
    pairs, problem = naming.match_files(home, images, naming.list_images(home))
    views = {pair.image: pair.mask for pair in pairs}
    if problem and len(views) < len(images):
        raise problem
    for view in list(views.values())[:_VIEWS_JUDGED]:
        if doubt := doubt_view(_read_inside(view, limit)):
            on_progress(Note(f"{show(view)} {doubt}; pixels outside are ignored", warning=True))
            break
    return views


def read_view(
    view: Path, shape: tuple[int, int], limit: float = snapping.LIMIT
) -> NDArray[np.bool_]:
    """Return whether each pixel ``shape`` lies inside a field of view.

    Raises:
        InputError: The mask cannot be read, holds more than two values, has another size, shows
            nothing, or is inverted.
    """
    inside = _read_inside(view, limit)
    masks.check_same_size(view, inside.shape, shape)
    return inside


def _read_inside(view: Path, limit: float) -> NDArray[np.bool_]:
    """Return the pixels (H, W) inside a field of view; see `read_view` for the errors."""
    inside: NDArray[np.bool_] = snapping.read_binary(read_raw(view), view, limit).mask == 1
    if not inside.any():
        text = "has no pixel in the field of view"
        raise InputError(view, text, "paint the field of view white, all else black")
    if is_inverted_view(inside):
        text = "holds the surround of a field of view: its corners are white, its middle is not"
        raise InputError(view, text, "exchange black and white")
    return inside
