"""Small work on pixel arrays that training and prediction must do alike."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.errors import InputError


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return the rows and columns of an image resized by ``scale``, each at least 1."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def convert_depth(image: NDArray[Any], dtype: np.dtype[Any], what: object) -> NDArray[Any]:
    """Return ``image`` in another bit depth: 8 and 16 bits by the ratio of their full ranges.

    Args:
        image: uint8, uint16 or float32.
        dtype: The one wanted.
        what: The file, for the message.

    Raises:
        InputError: From or to float: its range is not known.
    """
    if image.dtype == dtype:
        return image
    if image.dtype == np.uint8 and dtype == np.uint16:
        return image.astype(np.uint16) * np.uint16(257)
    if image.dtype == np.uint16 and dtype == np.uint8:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    text = f"is {image.dtype.name}, the model was trained on {dtype.name}"
    raise InputError(what, text, "convert it as the training images were")
