"""The only module that reads or writes pictures.

What is on disk is judged before it is decoded: a regular file, a format told by its first bytes
(never by its name), a size that fits the file. Each format is read by one explicit decoder from
an open handle, so no name is ever taken for a URL, an archive or a clipboard. Pillow and tifffile
decode; imageio, which shows neither palette indices nor 16-bit colour, writes.
"""

import io
import json
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import TiffImageFile

from unetseg import atomic
from unetseg.classes import IGNORED, ClassTable, colour_to_rgb
from unetseg.errors import InputError, MachineError
from unetseg.masks import RawMask
from unetseg.pixels import collapse_grey, rescale_image, scaled_size

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
MAX_PIXELS = 2**31  # height x width; a larger image would need tens of gigabytes as floats

# No compression of these formats packs much more than LZW at its best (4096 bytes in 12 bits), so
# a file that declares more than this for each byte it has is a forgery or a torso.
_MAX_EXPANSION = 4096
_MAX_PAGES = 10_000  # a list of TIFF pages this long takes seconds to walk
_PNG_HEADER = 33  # bytes of a PNG's signature and first chunk, IHDR

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_DECODERS: dict[str, Any] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "RGB": 3, "RGBA": 3}
_ORIENTATION = 274  # the EXIF and TIFF tag
_LOSSY = "in a lossy format (JPEG), which blurs labels"
_COPY_AGAIN = "it may be damaged: copy or save it again"

# tifffile reports oddities of a file through logging, which prints them where nobody listens.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class ImageInfo:
    """What the header of a picture declares.

    Attributes:
        height: Rows, after any EXIF orientation is applied.
        width: Columns, likewise.
        channels: As `read_image` returns them, so without transparency.
        dtype: "uint8", "uint16" or "float32", as `read_image` returns it.
        format: "PNG", "JPEG", "TIFF", "BMP" or "GIF".
        alpha: Whether there is transparency, which `read_image` drops.
        pages: Pictures in the file.
        palette: Whether pixels are indices of a palette.
        orientation: 1, or how `read_image` turns it (EXIF 2.32, tag 274: 2 to 8).
    """

    height: int
    width: int
    channels: int
    dtype: str
    format: str
    alpha: bool = False
    pages: int = 1
    palette: bool = False
    orientation: int = 1


# --- reading ---------------------------------------------------------------------------------


def read_info(
    path: str | os.PathLike[str], page: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> ImageInfo:
    """Read the header of a picture, of a TIFF that of ``page``; no pixels are decoded.

    Raises:
        InputError: As for `read_image`, as far as the header shows it.
        MachineError: No permission to read.
    """
    with _opened(path) as (handle, kind):
        return _open_picture(path, handle, kind, max_pixels, page or 0).info


def read_image(
    path: str | os.PathLike[str], page: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> NDArray[Any]:
    """Read a picture in the depth that it was stored in.

    One-bit pictures become 0 and 255; palettes become their colours, or grey where all are grey;
    an orientation in the file is applied; transparency is dropped (`ImageInfo.alpha` tells).
    Signed, 32-bit, 64-bit and half-precision TIFF become float32; integers must come through
    exactly.

    Args:
        path: PNG, JPEG, TIFF, BMP or GIF, whatever its name ends in.
        page: Which picture of a TIFF, from 0; may be None where there is one.
        max_pixels: Larger pictures (height x width) are refused before they are decoded.

    Returns:
        ``(H, W, C)`` uint8, uint16 or float32; C is at least 1.

    Raises:
        InputError: Not found, no regular file, not a picture, damaged, too large, several
            pictures without ``page``, colours other than grey and RGB, values not finite.
        MachineError: No permission to read, not enough memory.
    """
    with _opened(path) as (handle, kind):
        picture = _open_picture(path, handle, kind, max_pixels, page or 0)
        _check_page(path, picture.info, page)
        image = picture.pixels()
        if picture.palette is not None:
            image = picture.palette[image][..., : picture.info.channels]
        image = image if image.ndim == 3 else image[..., None]
        image = _plain_dtype(path, image[..., : picture.info.channels])
        return np.ascontiguousarray(_oriented(image, picture.orientation))


def read_scaled(path: Path, channels: int, scale: float, page: int | None = None) -> NDArray[Any]:
    """Read an image with this many channels (grey becomes 3 equal ones, and back) and scale it.

    Raises:
        InputError: As `read_image`, or the image has other channels.
    """
    image = read_image(path, page)
    if channels == 1:
        image = collapse_grey(image)
    if image.shape[2] == 1 and channels == 3:
        image = np.repeat(image, 3, 2)
    if image.shape[2] != channels:
        text = f"has {image.shape[2]} channels where {channels} are due"
        raise InputError(path, text, "use images like those trained on")
    return rescale_image(image, scaled_size(image.shape[0], image.shape[1], scale))


def read_mask(
    path: str | os.PathLike[str], page: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> RawMask:
    """Read a mask as it is stored: values, palette indices with their palette, or colours.

    One-bit masks become 0 and 255. An orientation in the file is applied as for an image. ``page``
    is which picture of a TIFF that holds several; where it holds one, that one is read.

    Raises:
        InputError: As `read_image`; a lossy format; transparent pixels; negative or fractional
            values; a number of channels that is neither 1 nor 3.
        MachineError: No permission to read, not enough memory.
    """
    with _opened(path) as (handle, kind):
        picture = _open_picture(path, handle, kind, max_pixels, page or 0)
        if picture.doubt:
            raise InputError(path, f"a mask {picture.doubt}", "make it anew, as PNG")
        _check_page(path, picture.info, page if picture.info.pages > 1 else None)
        values = picture.pixels()
        if picture.info.alpha and picture.palette is None:
            values = _without_alpha(path, values)
        if values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
        if values.ndim == 3 and values.shape[-1] != 3:
            text = f"a mask with {values.shape[-1]} channels"
            raise InputError(path, text, "save one channel of values, or RGB colours")
        values = _whole_numbers(path, values)
        return RawMask(
            np.ascontiguousarray(_oriented(values, picture.orientation)), picture.palette
        )


def read_text(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return what `write_mask`, `write_picture` and `write_float_tiff` were told to add.

    These are the text chunks that stand before the pixels of a PNG, and texts in the JSON
    description of a TIFF; of any other picture {}.

    Raises:
        InputError: Not found, no regular file, not a picture, damaged.
        MachineError: No permission to read.
    """
    with _opened(path) as (handle, kind):
        info: Mapping[Any, Any] = {}
        if kind == "PNG":
            info = PngImageFile(handle).info  # Pillow bounds what compressed text may grow to
        elif kind == "TIFF":
            info = _description(handle)
        return {k: str(v) for k, v in info.items() if isinstance(k, str) and isinstance(v, str)}


def _description(handle: BinaryIO) -> Mapping[Any, Any]:
    """Return the JSON object that describes the first page of a TIFF; {} where there is none."""
    tif = tifffile.TiffFile(handle, name="picture", _multifile=False)
    try:
        description = json.loads(tif.pages.first.description)
    except ValueError:
        return {}
    return description if isinstance(description, dict) else {}


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, str]]:
    """Yield an open handle of the picture ``path`` and its format; errors become ours."""
    kind = "a picture"
    try:
        with atomic.open_regular(path) as handle, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters in them is an error here
            start = handle.read(8)
            kind = next((k for s, k in _SIGNATURES.items() if start.startswith(s)), "")
            if not kind:
                text = f"not a PNG, JPEG, TIFF, BMP or GIF (starts {start!r})"
                raise InputError(path, text, "save it in one of these formats")
            handle.seek(0)
            yield handle, kind
    except (InputError, MachineError):
        raise
    except MemoryError:
        raise MachineError(path, "not enough memory to read it", "close other programs") from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        text = f"not readable as {kind}: {error or type(error).__name__}"
        raise InputError(path, text, _COPY_AGAIN) from error


@dataclass(frozen=True)
class _Picture:
    """An opened picture: its header, and how its pixels are had.

    ``pixels()`` are ``(H, W)`` or ``(H, W, C)`` in the file's own dtype and orientation,
    palette indices where ``palette`` is not None, with transparency after the other channels.
    ``doubt`` says why it is no mask; it is empty where it may be one.
    """

    info: ImageInfo
    pixels: Callable[[], NDArray[Any]]
    palette: NDArray[np.uint8] | None = None
    orientation: int = 1
    doubt: str = ""


def _open_picture(
    path: str | os.PathLike[str], handle: BinaryIO, kind: str, max_pixels: int, page: int = 0
) -> _Picture:
    """Read the header and refuse what must not be decoded."""
    if kind == "TIFF":
        picture = _open_tiff(path, handle, max_pixels, page)
    else:
        picture = _open_with_pillow(path, handle, kind)
        info = picture.info
        size = info.height * info.width * info.channels * np.dtype(info.dtype).itemsize
        _check_size(path, handle, (info.height, info.width), size, max_pixels)
    info = picture.info
    if picture.orientation in (5, 6, 7, 8):  # turned by a quarter
        info = replace(info, height=info.width, width=info.height)
    turned = picture.orientation if 1 < picture.orientation < 9 else 1
    info = replace(info, palette=picture.palette is not None, orientation=turned)
    return replace(picture, info=info)


def _check_size(
    path: str | os.PathLike[str],
    handle: BinaryIO,
    shape: tuple[int, int],
    size: int,
    max_pixels: int,
) -> None:
    """Refuse no pixels, too many, and more bytes (``size``) than the file can hold packed."""
    height, width = shape
    if height * width == 0:
        raise InputError(path, f"{height} x {width} pixels", _COPY_AGAIN)
    if height * width > max_pixels:
        text = f"{height:,} x {width:,} pixels, over the limit of {max_pixels:,}"
        raise InputError(path, text, "cut it into parts")
    held = os.fstat(handle.fileno()).st_size
    if size > _MAX_EXPANSION * held:
        text = f"declares {atomic.human_bytes(size)}, the file holds {atomic.human_bytes(held)}"
        raise InputError(path, text, _COPY_AGAIN)


def _check_page(path: str | os.PathLike[str], info: ImageInfo, page: int | None) -> None:
    if page is None and info.pages > 1:
        text = f"holds {info.pages} pages of {info.height} x {info.width} pixels, one is due"
        remedy = "pass --page 0 for the first; pages that are channels need the axes CYX"
        raise InputError(path, text, remedy)
    if page is not None and not 0 <= page < info.pages:
        raise InputError(path, f"no page {page}, there are {info.pages}", "count from 0")


# --- PNG, JPEG, BMP, GIF ---------------------------------------------------------------------


def _open_with_pillow(path: str | os.PathLike[str], handle: BinaryIO, kind: str) -> _Picture:
    opened = _DECODERS[kind](handle)
    is_deep = kind == "PNG" and opened.tile and ";16B" in str(opened.tile[0].args)
    mode = opened.mode
    if is_deep and "LA" in opened.tile[0].args:
        mode = "LA"
    palette = _palette(opened) if mode == "P" else None
    if palette is None and mode not in _CHANNELS:
        raise InputError(path, f"colours of kind {mode}", "save it as grey or RGB")
    if getattr(opened, "n_frames", 1) > 1:
        raise InputError(
            path, f"holds {opened.n_frames} frames, one is due", "save one frame alone"
        )
    width, height = opened.size
    channels = _CHANNELS[mode] if palette is None else _palette_channels(palette)
    dtype = "uint16" if is_deep else "uint8"
    alpha = mode.endswith("A") or "transparency" in opened.info
    # Of a PNG only what stands before the pixels: Pillow would decode them to look behind.
    has_exif = kind == "JPEG" or "exif" in opened.info
    return _Picture(
        ImageInfo(height, width, channels, dtype, kind, alpha),
        lambda: _pillow_pixels(handle, kind),
        palette,
        int(opened.getexif().get(_ORIENTATION, 1)) if has_exif else 1,
        _LOSSY if kind == "JPEG" else "",
    )


def _pillow_pixels(handle: BinaryIO, kind: str) -> NDArray[Any]:
    if kind == "PNG":
        handle.seek(0)
        PngImageFile(handle).verify()  # checksums: decoding alone passes over them
    handle.seek(0)
    opened = _DECODERS[kind](handle)
    layout = str(opened.tile[0].args) if kind == "PNG" else ""
    if layout == "LA;16B":  # four bytes a pixel, taken as they come
        opened.tile = [opened.tile[0]._replace(args="RGBA")]
        return np.array(opened).view(">u2").astype(np.uint16)
    if layout in ("RGB;16B", "RGBA;16B"):
        # Pillow keeps one byte a sample, the high one; read as little-endian, the low one.
        high = np.asarray(opened).astype(np.uint16)
        handle.seek(0)
        opened = PngImageFile(handle)
        opened.tile = [opened.tile[0]._replace(args=layout[:-1] + "L")]
        deep: NDArray[np.uint16] = high << 8 | np.asarray(opened)
        return deep
    return _as_bytes(np.asarray(opened))


def _palette(opened: Any) -> NDArray[np.uint8]:
    """Return the palette ``(256, 3)`` uint8 of a picture that is opened but not decoded."""
    probe = Image.new("P", (1, 1))
    probe.putpalette(opened.palette.palette, opened.palette.rawmode or opened.palette.mode)
    colours = np.array(probe.getpalette("RGB"), np.uint8).reshape(-1, 3)
    # A palette may be shorter than what its pixels can say; the rest is black, as decoders show it.
    return np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)])


def _palette_channels(palette: NDArray[np.uint8]) -> int:
    return 3 if (palette != palette[:, :1]).any() else 1


# --- TIFF ------------------------------------------------------------------------------------


def _open_tiff(
    path: str | os.PathLike[str], handle: BinaryIO, max_pixels: int, page: int
) -> _Picture:
    # An OME-TIFF may name other files to read; none but this one is.
    tif = tifffile.TiffFile(handle, name="picture", _multifile=False)
    if len(tif.pages) > _MAX_PAGES:
        raise InputError(path, f"holds {len(tif.pages):,} pages, one is due", "save one alone")
    all_series = [s for s in tif.series if {"Y", "X"} <= set(s.axes)]
    if not all_series:
        raise InputError(path, "a TIFF without a picture", _COPY_AGAIN)
    for one in all_series:
        _check_tiff(path, handle, one, max_pixels)
    planes = [(series, i) for series in all_series for i in range(_planes_of(series))]
    series, plane = planes[page if 0 <= page < len(planes) else 0]
    first, sizes = series.keyframe, dict(zip(series.axes, series.shape, strict=True))
    palette = None
    if first.photometric == tifffile.PHOTOMETRIC.PALETTE and first.colormap is not None:
        palette = np.zeros((256, 3), np.uint8)  # entries are 16 bits wide in the file
        palette[: first.colormap.shape[1]] = (first.colormap >> 8).T[:256]
    alphas = _alpha_channels(series)
    channels = sizes.get("S", 1) * sizes.get("C", 1) - len(alphas)
    if palette is not None:
        channels = _palette_channels(palette)
    # What `_plain_dtype` makes of the rest.
    plain = {("b", 1): "uint8", ("u", 1): "uint8", ("u", 2): "uint16"}
    stored = np.dtype(first.dtype)
    dtype = plain.get((stored.kind, stored.itemsize), "float32")
    info = ImageInfo(sizes["Y"], sizes["X"], channels, dtype, "TIFF", bool(alphas), len(planes))
    orientation = first.tags.get(_ORIENTATION)
    # Of a bit, white is 255 either way; of more, nobody knows whether the numbers are meant turned.
    is_inverted = first.photometric == tifffile.PHOTOMETRIC.MINISWHITE and stored.kind != "b"
    return _Picture(
        info,
        lambda: _tiff_pixels(path, handle, series, plane),
        palette,
        int(orientation.value) if orientation else 1,
        _LOSSY if _is_lossy(first) else "with white as zero" if is_inverted else "",
    )


def _check_tiff(
    path: str | os.PathLike[str], handle: BinaryIO, series: Any, max_pixels: int
) -> None:
    """Refuse what a TIFF declares and does not hold, and colours and numbers that are not read."""
    first, sizes = series.keyframe, dict(zip(series.axes, series.shape, strict=True))
    if first.dtype is None or first.dtype.kind not in "buif" or first.dtype.itemsize > 8:
        raise InputError(path, f"pixels of type {first.dtype}", "save whole numbers or floats")
    declared = max(series.size, int(np.prod(first.chunks))) * first.dtype.itemsize
    _check_size(path, handle, (sizes["Y"], sizes["X"]), declared, max_pixels)
    colours = first.photometric
    if colours > 3 and not (colours == tifffile.PHOTOMETRIC.YCBCR and _is_lossy(first)):
        raise InputError(path, f"colours of kind {_name(colours)}", "save it as grey or RGB")
    if colours == tifffile.PHOTOMETRIC.PALETTE and first.dtype != np.uint8:
        raise InputError(path, f"a palette for {first.dtype} pixels", "save it with 8 bits")
    held = os.fstat(handle.fileno()).st_size
    for page in {id(p): p for p in series.pages if p is not None}.values():
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if not segments or min(count for _, count in segments) == 0:
            raise InputError(path, "a TIFF with strips or tiles that are absent", _COPY_AGAIN)
        if max(offset + count for offset, count in segments) > held:
            raise InputError(path, "truncated: pixels lie beyond its end", _COPY_AGAIN)


def _planes_of(series: Any) -> int:
    """Return how many pictures a series holds: all its axes but rows, columns and channels."""
    sizes = zip(series.axes, series.shape, strict=True)
    return int(np.prod([size for axis, size in sizes if axis not in "YXSC"]))


def _alpha_channels(series: Any) -> list[int]:
    """Return which samples of a series are transparency (TIFF 6.0, ExtraSamples 1 and 2)."""
    extra = series.keyframe.extrasamples if "S" in series.axes else ()
    start = series.shape[series.axes.index("S")] - len(extra) if extra else 0
    return [start + i for i, kind in enumerate(extra) if kind in (1, 2)]


def _is_lossy(page: Any) -> bool:
    return any(name in _name(page.compression) for name in ("JPEG", "JP2000", "WEBP"))


def _name(code: int) -> str:
    """Return the name of a TIFF compression or colour space; of an unknown one its number."""
    return str(getattr(code, "name", code))


def _tiff_pixels(
    path: str | os.PathLike[str], handle: BinaryIO, series: Any, plane: int
) -> NDArray[Any]:
    """Return one picture of a series, channels last, transparency after all others."""
    try:
        stack, axes = series.asarray(), series.axes
        others = [i for i, axis in enumerate(axes) if axis not in "YXSC"]
        channels = [i for i, axis in enumerate(axes) if axis in "SC"]
        stack = stack.transpose(*others, axes.index("Y"), axes.index("X"), *channels)
        pixels = stack.reshape(-1, *stack.shape[len(others) :])[plane]
        if len(channels) == 2:
            pixels = pixels.reshape(*pixels.shape[:2], -1)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        pixels = _tiff_pixels_with_pillow(path, handle, series, plane)
    else:
        if series.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            pixels = ~pixels if pixels.dtype.kind in "bu" else -pixels
    pixels = _as_bytes(pixels)
    alphas = _alpha_channels(series)
    if alphas:
        pixels = np.concatenate([np.delete(pixels, alphas, axis=2), pixels[..., alphas]], axis=2)
    return pixels


def _tiff_pixels_with_pillow(
    path: str | os.PathLike[str], handle: BinaryIO, series: Any, plane: int
) -> NDArray[Any]:
    """Decode LZW, JPEG and the like as far as Pillow does so without loss of depth."""
    first = series.keyframe
    handle.seek(0)
    opened = TiffImageFile(handle)
    depths = {"1": 1, "L": 8, "P": 8, "RGB": 8, "RGBA": 8, "YCbCr": 8, "I;16": 16, "I;16B": 16}
    is_whole = {**depths, "F": 32}.get(opened.mode) == first.bitspersample or opened.mode == "P"
    is_inverted = first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if not is_whole or (is_inverted and first.bitspersample == 16) or "C" in series.axes:
        text = f"{_name(first.compression)} compression of {first.samplesperpixel} x {first.dtype}"
        raise InputError(path, f"{text} needs imagecodecs", "pip install unetseg[tiff]")
    opened.seek(series.pages[plane].index)
    pixels = np.asarray(opened.convert("RGB") if opened.mode == "YCbCr" else opened)
    tag = first.tags.get(_ORIENTATION)
    turned = int(tag.value) if tag else 1
    # Pillow has turned these pixels already; turning is left to one place, so back they go.
    return _oriented(pixels, {6: 8, 8: 6}.get(turned, turned))


# --- what all formats share ------------------------------------------------------------------


def _as_bytes(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return one-bit pixels as 0 and 255, others as they are."""
    return pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels


def _oriented(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored rows and columns upright (EXIF 2.32, tag 274: 1 to 8; others mean 1)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _plain_dtype(path: str | os.PathLike[str], image: NDArray[Any]) -> NDArray[Any]:
    """Return ``image`` as uint8, uint16 or float32; refuse what that would change."""
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        return image.astype(image.dtype.newbyteorder("="), copy=False)
    plain = image.astype(np.float32)
    if image.dtype.kind in "iu" and (plain.astype(np.float64) != image).any():
        text = f"whole numbers up to {image.max():,}, more than float32 holds"
        raise InputError(path, text, "save it as 16-bit or as floats")
    bad = ~np.isfinite(plain)
    if bad.any():
        y, x = np.argwhere(bad)[0][:2]
        text = f"{bad.sum():,} values are not finite, first at (x {x}, y {y})"
        raise InputError(path, text, "replace NaN and infinity by numbers")
    return plain


def _without_alpha(path: str | os.PathLike[str], values: NDArray[Any]) -> NDArray[Any]:
    """Return a mask without its last channel, which must say that nothing is transparent."""
    top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    clear = values[..., -1] != top
    if clear.any():
        y, x = np.argwhere(clear)[0]
        text = f"{clear.sum():,} pixels are transparent, first at (x {x}, y {y})"
        raise InputError(path, text, "save the mask without transparency")
    return values[..., :-1]


def _whole_numbers(path: str | os.PathLike[str], values: NDArray[Any]) -> NDArray[np.integer]:
    """Return a mask's values as uint8, uint16 or int64; RGB as uint8."""
    if values.dtype.kind == "f":
        fractions = ~(np.isfinite(values) & (values == np.floor(values)))
        if fractions.any():
            y, x = np.argwhere(fractions)[0][:2]
            text = f"value {values[y, x]} at (x {x}, y {y}) is no whole number"
            raise InputError(path, text, "a mask numbers its classes; save it as 8-bit")
    if values.dtype.kind != "u" and values.min() < 0:
        text = f"negative values, down to {values.min():g}"
        raise InputError(path, text, "number the classes from 0; pass ignored ones as 255")
    if values.ndim == 3 and values.dtype != np.uint8:
        if values.dtype.kind != "u" or values.dtype.itemsize != 2 or (values % 257).any():
            raise InputError(path, f"colours of type {values.dtype}", "save RGB with 8 bits")
        return (values // 257).astype(np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return values.astype(np.int64)


# --- writing ---------------------------------------------------------------------------------


def write_picture(
    path: str | os.PathLike[str], image: NDArray[Any], text: Mapping[str, str] | None = None
) -> None:
    """Write ``(H, W, 1)`` or ``(H, W, 3)`` uint8 or uint16 as PNG, whole or not at all.

    ``text`` goes into text chunks (keys of 1 to 79 Latin-1 characters).

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full or read-only, and the like.
    """
    data, chunks = encode_picture(image), b""
    for key, item in (text or {}).items():  # PNG 3rd edition, 11.3.3.4, nothing compressed
        chunks += _chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + item.encode())
    atomic.write_bytes(path, data[:_PNG_HEADER] + chunks + data[_PNG_HEADER:])


def encode_picture(image: NDArray[Any], lossy: bool = False) -> bytes:
    """Return the bytes of a PNG of ``(H, W, 1)`` or ``(H, W, 3)`` uint8 or uint16.

    With ``lossy`` they are those of a JPEG: a tenth of the size, for pictures of photographs.
    """
    if image.dtype == np.uint16 and image.shape[2] == 3:
        return _deep_png(image)
    pixels = image[..., 0] if image.shape[2] == 1 else image
    options = {"extension": ".jpg", "quality": 85} if lossy else {"extension": ".png"}
    data: bytes = iio.imwrite("<bytes>", pixels, plugin="pillow", **options)
    return data


def _deep_png(image: NDArray[np.uint16]) -> bytes:
    """Encode 16-bit RGB, which Pillow does not write (PNG 3rd edition, 5 and 11; no filter)."""
    height, width = image.shape[:2]
    samples = image.astype(">u2").reshape(height, -1).view(np.uint8)
    rows = np.pad(samples, ((0, 0), (1, 0))).tobytes()  # each row begins with its filter: none
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def write_mask(
    path: str | os.PathLike[str],
    indices: NDArray[np.uint8],
    table: ClassTable,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write class indices ``(H, W)`` as a PNG that `read_mask` and any viewer show in colour.

    A pixel is the class's mask value, or its index where masks are colours; the palette holds the
    class colours. Values over 255 become 16-bit grey. ``text`` goes into text chunks.

    Raises:
        InputError: There are ignored pixels and ``table`` has nothing that stands for ignored.
        MachineError: The disk is full or read-only, and the like.
    """
    values = np.zeros(256, np.uint16)
    values[: len(table.classes)] = table.pixel_values()
    palette = np.zeros((256, 3), np.uint8)
    palette[IGNORED] = 128
    if (indices == IGNORED).any():
        if not table.ignore:
            remedy = "add ignore = [255] to classes.toml"
            raise InputError(path, "ignored pixels, but no value that says so", remedy)
        ignored = table.ignore[0]
        values[IGNORED] = ignored if isinstance(ignored, int) else IGNORED
        if isinstance(ignored, str):
            palette[IGNORED] = colour_to_rgb(ignored)
    chunks = PngInfo()
    for key, item in (text or {}).items():
        chunks.add_text(key, item)
    pixels = values[indices]
    if values.max() > 255:
        picture = Image.fromarray(pixels)
    else:
        for value, one in zip(table.pixel_values(), table.classes, strict=True):
            palette[value] = colour_to_rgb(one.colour)
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=chunks)
    atomic.write_bytes(path, buffer.getvalue())


def write_float_tiff(
    path: str | os.PathLike[str],
    planes: NDArray[np.float32],
    text: Mapping[str, str] | None = None,
) -> None:
    """Write ``(C, H, W)`` float32 as a TIFF with axes CYX, whole or not at all.

    ``text`` goes into its JSON description.

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full (told before writing) or read-only, and the like.
    """
    final = Path(path)
    atomic.check_free(final, planes.nbytes)
    with atomic.replacing(final) as temporary:
        metadata = {**(text or {}), "axes": "CYX"}
        tifffile.imwrite(temporary, planes, photometric="minisblack", metadata=metadata)
