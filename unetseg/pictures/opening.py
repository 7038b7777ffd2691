"""A picture file before it is decoded: opened, recognised by its first bytes, judged by its header.

A file is decoded only if it is a regular file of a known format and can hold the size that it
declares. The first bytes show the format, never the name. This module does not know how to decode.
"""

import logging
import math
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.errors import Code, InputError, MachineError, arg
from unetseg.pictures.georeference import Georeference
from unetseg.text import human_bytes, plural, quote

MAX_PIXELS = 2**31  # height x width; a larger image would need tens of gigabytes as floats
ORIENTATION = 274  # the EXIF and TIFF tag
COPY_AGAIN = "it may be damaged: copy or save it again"

# LZW packs at best 4096 bytes into 12 bits, and no other compression of these formats does better.
# So a file that declares more bytes than this for each of its own is forged or truncated.
_MAX_EXPANSION = 4096

_ABSURD = 1e30  # no measured value is larger; ArcGIS has 3.4e38 where there is no data

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

# tifffile logs oddities of a file; without a handler, logging would print them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

RowReader = Callable[[int, int], NDArray[Any]]
"""Takes a first row and the row after the last, and returns these rows as `Picture.pixels` does."""


@dataclass(frozen=True)
class Doubt:
    """Why a picture cannot be a mask.

    Attributes:
        problem: How the picture is stored, as the end of a sentence.
        remedy: The advice.
        code: The kind of problem, for a program; None where no program asks.
    """

    problem: str
    remedy: str
    code: Code | None = None


LOSSY = Doubt("in a lossy format, which blurs labels", "make it anew, as PNG", Code.LOSSY_MASK)
INVERTED = Doubt(
    "with white as zero, an inverted table of Fiji: are its stored values the classes, or the "
    "shades that are shown?",
    "for the stored values, in Fiji: Image > Lookup Tables > Invert LUT, and save; for the shades "
    "that are shown, Edit > Invert before that",
)


@dataclass(frozen=True)
class ImageInfo:
    """The header of a picture.

    Attributes:
        height: Rows, after any EXIF orientation is applied.
        width: Columns, after any EXIF orientation is applied.
        channels: The channels that `read_image` returns; transparency does not count.
        dtype: "uint8", "uint16" or "float32", as `read_image` returns it.
        format: "PNG", "JPEG", "TIFF", "BMP", "GIF" or "WEBP".
        alpha: Whether the file holds transparency, which `read_image` drops. Where it is full,
            the pixel has no data.
        pages: The number of pictures in the file.
        palette: Whether pixels are indices of a palette.
        orientation: 1, or how `read_image` turns it (EXIF 2.32, tag 274: 2 to 8).
        axes: The axes of a TIFF's pictures, such as "ZYX" (tifffile's letters); "" of others.
        stack: How many pictures a TIFF holds along each axis but rows, columns and channels.
        stored: The dtype of a TIFF's own pixels, such as "int16"; "" of others.
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
    axes: str = ""
    stack: tuple[int, ...] = ()
    stored: str = ""


@dataclass(frozen=True)
class Picture:
    """An opened picture: its header, and functions that decode its pixels.

    Attributes:
        info: The header.
        pixels: Decodes ``(H, W)`` or ``(H, W, C)`` in the file's own dtype and orientation,
            palette indices where ``palette`` is not None, with transparency after the other
            channels.
        rows: Returns a reader of a part of those rows; None where the file can be decoded only as
            a whole.
        palette: ``(256, 3)`` uint8, or None.
        orientation: How the pixels are stored (EXIF 2.32, tag 274); numbers beyond 1 to 8 mean 1.
        doubt: Why the picture cannot be a mask; None where it can.
        nodata: Reads the value that stands for no data among the stored pixels; None for none.
        georeference: Reads the size and the place of its pixels, as they are stored.
        channels: The numbers of the channels that are taken; empty takes all.
        has_alpha: Whether the last channel of the pixels is transparency.
    """

    info: ImageInfo
    pixels: Callable[[], NDArray[Any]]
    rows: Callable[[], RowReader | None]
    palette: NDArray[np.uint8] | None = None
    orientation: int = 1
    doubt: Doubt | None = None
    nodata: Callable[[], float | None] = field(default=lambda: None)
    georeference: Callable[[], Georeference] = field(default=Georeference)
    channels: tuple[int, ...] = ()
    has_alpha: bool = False


# Formats of microscopes and of other programs, by the end of a file's name.
_MICROSCOPES = {
    ".czi": "Zeiss CZI", ".nd2": "Nikon ND2", ".lif": "Leica LIF", ".oir": "Olympus OIR",
    ".oib": "Olympus OIB", ".vsi": "Olympus VSI", ".ims": "Imaris IMS", ".dv": "DeltaVision",
}  # fmt: skip
_OTHERS = {
    ".npy": "a NumPy array", ".npz": "NumPy arrays", ".dcm": "DICOM", ".nii": "NIfTI",
    ".heic": "HEIC", ".psd": "Photoshop", ".xcf": "GIMP",
}  # fmt: skip


def name_foreign(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the problem of files in formats that are not read, and the format to export.

    Args:
        names: Names or paths of files.

    Returns:
        The problem and the remedy; None where there is no such file.
    """
    ends = [(name, Path(name).suffix.lower()) for name in names]
    for name, end in ends:
        if kind := _MICROSCOPES.get(end):
            count = plural(sum(e == end for _, e in ends), "file")
            remedy = f'export TIFF: in Fiji "Save As > Tiff", or bfconvert {quote(name)} a.ome.tif'
            return f"{count} of {kind}, which is not read", remedy
        if kind := _OTHERS.get(end):
            count = plural(sum(e == end for _, e in ends), "file")
            return f"{count} of {kind}, which is not read", "export PNG or TIFF"
    return None


def open_file(path: str | os.PathLike[str]) -> tuple[BinaryIO, str]:
    """Open a picture file and return it with its format ("PNG", "JPEG", "TIFF", ...).

    Raises:
        InputError: The file is not found, is no regular file, or is no picture.
        MachineError: No permission to read.
    """
    handle = files.open_regular(path)
    try:
        with decoding(path, "a picture"):
            start = handle.read(12)
            kind = next((k for s, k in _SIGNATURES.items() if start.startswith(s)), "")
            if start[:4] == b"RIFF" and start[8:] == b"WEBP":
                kind = "WEBP"
            if not kind and (foreign := name_foreign([os.fspath(path)])):
                raise InputError(path, *foreign)
            if not kind:
                text = f"not a PNG, JPEG, TIFF, BMP, GIF or WebP (starts {start[:8]!r})"
                raise InputError(path, text, "save it in one of these formats")
            handle.seek(0)
    except BaseException:
        handle.close()
        raise
    return handle, kind


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, str]]:
    """Yield the open file of `open_file`; an exception while reading becomes one of our errors."""
    handle, kind = open_file(path)
    with handle, decoding(path, kind):
        yield handle, kind


@contextmanager
def decoding(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Turn any exception of a decoder into an error that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning that matters is an error of ours
            yield
    except (InputError, MachineError):
        raise
    except MemoryError:
        raise MachineError(path, "not enough memory to read it", "close other programs") from None
    except Exception as error:  # a damaged file leads a decoder to any exception
        # A ValueError is about the file. All else is for programmers, in the traceback.
        why = f": {error}" if isinstance(error, ValueError) else ""
        if isinstance(error, struct.error | EOFError):
            why = ": it is cut off"
        raise InputError(path, f"not readable as {kind}{why}", COPY_AGAIN) from error


def check_size(
    path: str | os.PathLike[str],
    handle: BinaryIO,
    shape: tuple[int, int],
    size: int,
    max_pixels: int,
) -> None:
    """Refuse a picture of no pixels, of too many, or of more bytes than the file can hold."""
    height, width = shape
    if height * width == 0:
        raise InputError(path, f"{height} x {width} pixels", COPY_AGAIN)
    if height * width > max_pixels:
        text = f"{height:,} x {width:,} pixels, over the limit of {max_pixels:,}"
        raise InputError(path, text, "cut it into parts")
    held = os.fstat(handle.fileno()).st_size
    if size > _MAX_EXPANSION * held:
        text = f"declares {human_bytes(size)}, the file holds {human_bytes(held)}"
        raise InputError(path, text, COPY_AGAIN)


def check_page(path: str | os.PathLike[str], info: ImageInfo, page: int | str | None) -> None:
    """Refuse a file of several pictures where none is chosen, and the choice of a missing one."""
    if info.pages > 1 and page in (None, "all"):
        text = f"holds {_pictures_of(info)} of {info.height} x {info.width} pixels, one is due"
        projection = ", ".join(arg("page", word) for word in ("middle", "max", "all"))
        remedy = f"pass {arg('page', 0)} for the first; also {projection}"
        if info.channels == 1:
            names = info.axes if set(info.axes) <= _NAMED_AXES else "no axes"
            remedy += f"; if its pages are channels, save it with the axes CYX: it names {names}"
        raise InputError(path, text, remedy, give=("page", 0))
    if isinstance(page, int) and not 0 <= page < info.pages:
        count = "is one" if info.pages == 1 else f"are {info.pages}"
        raise InputError(path, f"no page {page}, there {count}", "count from 0")


# These are the meanings of tifffile's letters for axes; a page of any other axis is called a page.
_AXES = {"Z": "slice in depth (Z)", "T": "point in time (T)"}
_NAMED_AXES = set("TZCYXS")  # tifffile calls an axis that the file does not name I or Q


def _pictures_of(info: ImageInfo) -> str:
    """Return how many pictures a TIFF holds, named by its axes where these are known."""
    others = [axis for axis in info.axes if axis not in "YXSC"]
    text = plural(info.pages, "page")
    if len(others) == 1 and others[0] in _AXES:
        word, end = _AXES[others[0]].split(" ", 1)
        text = f"{info.pages} {word}s {end}"
    elif others and set(others) <= set(_AXES):
        text += f" (axes {info.axes})"
    return text + (f", each of {plural(info.channels, 'channel')}," if info.channels > 1 else "")


def select_channels(
    path: str | os.PathLike[str], picture: Picture, channels: tuple[int, ...]
) -> Picture:
    """Return a picture of which only some channels are taken.

    Raises:
        InputError: It lacks one of them.
    """
    if not channels:
        return picture
    found = picture.info.channels
    if max(channels) >= found:
        text = f"has no channel {max(channels)}, only {plural(found, 'channel')}, counted from 0"
        remedy = f"pass {arg('channels', ','.join(map(str, range(found))))} or some of them"
        raise InputError(path, text, remedy)
    return replace(picture, info=replace(picture.info, channels=len(channels)), channels=channels)


def palette_channels(palette: NDArray[np.uint8]) -> int:
    """Return 1 where all colours of a palette ``(256, 3)`` are grey, else 3."""
    return 3 if (palette != palette[:, :1]).any() else 1


def bits_as_bytes(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return one-bit pixels as 0 and 255, others as they are."""
    return pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels


def apply_orientation(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored rows and columns upright (EXIF 2.32, tag 274: 1 to 8; others mean 1)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def as_declared(
    path: str | os.PathLike[str],
    picture: Picture,
    pixels: NDArray[Any],
    top: int = 0,
    nodata: float | None = None,
) -> NDArray[Any]:
    """Return stored pixels in the channels and the dtype of the header, a palette as its colours.

    Args:
        path: The file, for the message.
        picture: The picture of these pixels.
        pixels: Some of its rows, as `Picture.pixels` returns them.
        top: The number of the first of these rows.
        nodata: The value of a pixel without data. If it is not None, NaN means the same.

    Raises:
        InputError: A value is not finite, or float32 cannot hold it.
    """
    if picture.palette is not None:
        pixels = picture.palette[pixels if pixels.ndim == 2 else pixels[..., 0]]
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    taken = list(picture.channels) if picture.channels else slice(picture.info.channels)
    return _to_declared_dtype(path, pixels[..., taken], top, nodata)


def _to_declared_dtype(
    path: str | os.PathLike[str], image: NDArray[Any], top: int, nodata: float | None
) -> NDArray[Any]:
    """Return ``image`` as uint8, uint16 or float32; refuse values that this would change."""
    if image.dtype.kind == "u" and image.dtype.itemsize <= 2:
        return image.astype(image.dtype.newbyteorder("="), copy=False)
    floats = image.astype(np.float32)
    if image.dtype.kind in "iu" and (floats.astype(np.float64) != image).any():
        text = f"whole numbers up to {image.max():,}, more than float32 holds"
        raise InputError(path, text, "save it as 16-bit or as floats")
    bad = ~np.isfinite(floats)
    if nodata is not None:
        bad &= ~(np.isnan(floats) | (floats == np.float32(nodata)))
    if bad.any():
        y, x = np.argwhere(bad)[0][:2]
        text = f"{bad.sum():,} values are not finite, first at (x {x}, y {top + y})"
        raise InputError(path, text, "replace NaN and infinity by numbers")
    return floats


def refuse_absurd(what: object, pixels: NDArray[Any], remedy_of: Callable[[float], str]) -> None:
    """Refuse values so large that nothing can be learned or predicted beside them.

    Args:
        what: The file, or the argument, for the message.
        pixels: Those that hold data, of any shape; NaN is passed over.
        remedy_of: Returns the advice about such a value.

    Raises:
        InputError: A value is larger than any measured one, or smaller.
    """
    if pixels.dtype.kind != "f" or not pixels.size:
        return
    low, high = (float(end.reduce(pixels, axis=None)) for end in (np.fmin, np.fmax))
    if max(-low, high) > _ABSURD:
        value = high if high > _ABSURD else low
        text = f"holds {value:g}, which stands for no data in many programs"
        raise InputError(what, text, remedy_of(value))


def declare_nodata(value: float, declared: float | None) -> str:
    """Return the advice about a value of pixels without data, where a file declares one or none."""
    if declared is not None and math.isclose(declared, value, rel_tol=1e-6):  # as float32
        text = "it is no data only where all channels hold it: fill the gaps of each channel"
        return f"{text}, or choose {arg('channels')} without gaps"
    return f"where it is no data, declare it: gdal_edit.py -a_nodata {value!r} FILE"
