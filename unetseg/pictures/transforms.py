"""Small work on the pixels of images that training and prediction must do alike."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unetseg.errors import InputError, arg
from unetseg.text import plural

_STORED = {
    **{f"int{bits}": f"signed {bits}-bit numbers" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"{bits}-bit numbers" for bits in (32, 64)},
    **{f"float{bits}": "floating point numbers" for bits in (16, 32, 64)},
}


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return the rows and columns of an image resized by ``scale``, each at least 1."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def convert_depth(
    image: NDArray[Any],
    dtype: np.dtype[Any],
    what: object,
    *,
    is_meant: bool = False,
    stored: str = "",
) -> NDArray[Any]:
    """Return ``image`` in another bit depth; 8 and 16 bits convert by the ratio of their ranges.

    Args:
        image: uint8, uint16 or float32.
        dtype: The dtype of the result.
        what: The file, for the message.
        is_meant: Whether a person has asked for it: a camera may use only a part of 16 bits.
        stored: The dtype of the file, for the message: "int16" is float32 here.

    Raises:
        InputError: The depths differ, and nobody has asked for it; or either is float, whose range
            is not known.
    """
    if image.dtype == dtype:
        return image
    is_whole = {image.dtype.kind, dtype.kind} == {"u"}
    if is_meant and is_whole:
        if image.dtype == np.uint8:
            return image.astype(np.uint16) * np.uint16(257)
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    found = _STORED.get(stored) or _depth(image.dtype)
    text = f"has {found}, the model was trained on {_depth(dtype)}"
    remedy = "export it as the training images were"
    if is_whole:
        remedy += f", or pass {arg('convert_depth', True)} where values fill the whole range"
    raise InputError(what, text, remedy)


def _depth(dtype: np.dtype[Any]) -> str:
    """Return the depth of an image in words; float32 stands for all that is not 8 or 16 bits."""
    return f"{8 * dtype.itemsize} bits" if dtype.kind == "u" else "signed or floating point numbers"


def collapse_grey(image: NDArray[Any]) -> NDArray[Any]:
    """Return one channel of ``(H, W, C)`` where it has three equal ones, else the image itself."""
    is_grey = image.shape[2] == 3 and bool((image == image[..., :1]).all())
    return image[..., :1] if is_grey else image


def fit_channels(
    image: NDArray[Any], channels: int, what: object, *, takes_grey: bool = True
) -> NDArray[Any]:
    """Return ``image`` with ``channels`` channels: three equal ones become one.

    Args:
        image: ``(H, W, C)``.
        channels: The number of channels of the result.
        what: The file, for the message.
        takes_grey: Whether a grey image may become three equal channels.

    Raises:
        InputError: The image has another number of channels.
    """
    if channels == 1:
        image = collapse_grey(image)
    found = image.shape[2]
    if found == 1 and channels == 3 and takes_grey:
        return np.repeat(image, 3, 2)
    if found != channels:
        due = "one is due" if channels == 1 else f"{channels} are due"
        text = f"has {plural(found, 'channel')} where {due}"
        example = arg("channels", ",".join(map(str, range(channels))))
        remedy = f"use images like those trained on, or choose channels: {example}"
        if found == 1:
            again = arg("channels", ",".join("0" * channels))
            remedy = f"use images like those trained on, or repeat the channel: {again}"
        elif found < channels:
            remedy = "use images like those trained on"
        raise InputError(what, text, remedy)
    return image


def pixel_hash(image: NDArray[Any]) -> str:
    """Return the SHA-256 (hex) of shape, dtype and pixels ``(H, W, C)``.

    Three equal channels count as one, so a grey picture saved as RGB has the same hash.
    """
    image = collapse_grey(image)
    header = f"{image.shape} {image.dtype.name} "
    pixels = np.ascontiguousarray(image, image.dtype.newbyteorder("<"))
    return hashlib.sha256(header.encode() + pixels.tobytes()).hexdigest()


def rescale_image(image: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Resample ``(H, W, C)`` to ``shape`` (rows, columns), in its own dtype.

    The filter is bilinear. When the image shrinks, the filter widens with the step, so that no
    pixel is skipped.
    """
    if image.shape[:2] == shape:
        return image
    size = (shape[1], shape[0])
    channels = [
        Image.fromarray(c).resize(size, Image.Resampling.BILINEAR)
        for c in np.moveaxis(image.astype(np.float32), 2, 0)
    ]
    scaled = np.stack([np.asarray(c) for c in channels], axis=2)
    return scaled if image.dtype.kind == "f" else np.rint(scaled).astype(image.dtype)


def rescale_mask(indices: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Resample class indices ``(H, W)`` to ``shape`` (rows, columns) by the nearest pixel."""
    size = (shape[1], shape[0])
    return np.array(Image.fromarray(indices).resize(size, Image.Resampling.NEAREST))


def halve_image(image: NDArray[Any]) -> NDArray[Any]:
    """Return ``(ceil(H / 2), ceil(W / 2), C)``: means of two by two pixels, in the same dtype."""
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        half = np.asarray(picture.reduce(2))
        return half[..., None] if half.ndim == 2 else half
    channels = [
        np.asarray(Image.fromarray(c.astype(np.float32)).reduce(2))
        for c in np.moveaxis(image, 2, 0)
    ]
    half = np.stack(channels, axis=2)
    return half if image.dtype.kind == "f" else np.rint(half).astype(image.dtype)
