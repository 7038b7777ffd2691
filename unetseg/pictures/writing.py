"""Pictures written whole: PNG, float TIFF, and how class indices become the pixels of a mask.

`bands` writes masks larger than the memory. Every file is written whole or not at all.
"""

import io
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unetseg import files
from unetseg.classes import IGNORED, IGNORED_COLOUR, ClassTable, colour_to_rgb
from unetseg.pictures.georeference import Georeference, nodata_tag
from unetseg.pictures.masks import ignored_value

RESOLUTION_UNITS = {None: 1, "inch": 2, "cm": 3}  # TIFF 6.0, ResolutionUnit
_PNG_HEADER = 33  # bytes of a PNG's signature and first chunk, IHDR


def write_picture(
    path: str | os.PathLike[str], image: NDArray[Any], text: Mapping[str, str] | None = None
) -> None:
    """Write ``(H, W, C)`` uint8 (1, 3 or 4 channels) or uint16 (1 or 3) as PNG, or nothing.

    ``text`` goes into text chunks (keys of 1 to 79 Latin-1 characters).

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full or read-only, and the like.
    """
    data, chunks = encode_picture(image), b""
    for key, item in (text or {}).items():  # PNG 3rd edition, 11.3.3.4, nothing compressed
        chunks += _chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + item.encode())
    files.write_bytes(path, data[:_PNG_HEADER] + chunks + data[_PNG_HEADER:])


def encode_picture(image: NDArray[Any], lossy: bool = False) -> bytes:
    """Return the bytes of a PNG of ``(H, W, 1)`` or ``(H, W, 3)`` uint8 or uint16.

    With ``lossy`` the bytes are those of a JPEG: a tenth of the size, for photographs.
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


@dataclass(frozen=True)
class MaskEncoding:
    """How class indices become the pixels of a mask that `read_mask` and any viewer understand.

    Attributes:
        values: ``(256,)`` uint8, or uint16 where some value is over 255: the pixel of each index.
        palette: ``(256, 3)`` uint8, the class colours, to be stored beside uint8.
        ignored: The value of ignored pixels.
    """

    values: NDArray[np.uint8] | NDArray[np.uint16]
    palette: NDArray[np.uint8]
    ignored: int


def mask_encoding(table: ClassTable, *, has_ignored: bool = True) -> MaskEncoding:
    """Return how masks of these classes are written.

    A class is written as its mask value, or as its index where masks are colours. Ignored pixels
    are written as `ignored_value`.

    Args:
        table: The classes.
        has_ignored: Whether the mask may hold ignored pixels.
    """
    ignored = ignored_value(table)
    first = table.ignore[0] if table.ignore else None
    values, palette = np.zeros(256, np.uint16), np.zeros((256, 3), np.uint8)
    values[: len(table.classes)] = table.pixel_values()
    palette[IGNORED] = colour_to_rgb(IGNORED_COLOUR)
    if has_ignored:
        values[IGNORED] = ignored
        if isinstance(first, str):
            palette[IGNORED] = colour_to_rgb(first)
        elif ignored < 256:
            palette[ignored] = colour_to_rgb(IGNORED_COLOUR)
    if values.max() > 255:
        return MaskEncoding(values, palette, ignored)
    for value, one in zip(table.pixel_values(), table.classes, strict=True):
        palette[value] = colour_to_rgb(one.colour)
    return MaskEncoding(values.astype(np.uint8), palette, ignored)


def write_mask(
    path: str | os.PathLike[str],
    indices: NDArray[np.uint8],
    table: ClassTable,
    text: Mapping[str, str] | None = None,
    georeference: Georeference | None = None,
) -> None:
    """Write class indices ``(H, W)`` as a PNG that `read_mask` and any viewer show in colour.

    `mask_encoding` gives the value of each class and of ignored pixels (255); the palette holds the
    class colours. Values over 255 become 16-bit grey. ``text`` goes into text chunks. The
    resolution of the input's ``georeference`` is kept.

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full or read-only, and the like.
    """
    has_ignored = bool((indices == IGNORED).any())
    encoding = mask_encoding(table, has_ignored=has_ignored)
    picture = Image.fromarray(encoding.values[indices])
    if encoding.values.dtype == np.uint8:
        picture.putpalette(encoding.palette.tobytes())
    chunks = PngInfo()
    for key, item in (text or {}).items():
        chunks.add_text(key, item)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=chunks, **_physical_size(georeference))
    files.write_bytes(path, buffer.getvalue())


def _physical_size(georeference: Georeference | None) -> dict[str, tuple[float, float]]:
    """Return Pillow's option for a PNG's pHYs chunk, which holds whole pixels per metre."""
    per_metre = georeference.pixels_per_metre if georeference else None
    if per_metre is None or not all(1 <= round(r) < 2**31 for r in per_metre):
        return {}
    return {"dpi": (per_metre[0] * 0.0254, per_metre[1] * 0.0254)}


def write_float_tiff(
    path: str | os.PathLike[str],
    planes: NDArray[np.float32],
    text: Mapping[str, str] | None = None,
    georeference: Georeference | None = None,
) -> None:
    """Write ``(C, H, W)`` float32 as a TIFF with axes CYX, whole or not at all.

    ``text`` goes into its JSON description. NaN is declared as no data. The channels are pages, as
    ImageJ reads them; where the ``georeference`` places them on a map, they are bands, as GIS
    programs read them.

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full (told before writing) or read-only, and the like.
    """
    final = Path(path)
    files.check_free(final, planes.nbytes)
    with files.replacing(final) as temporary:
        metadata = {**(text or {}), "axes": "CYX"}
        place = georeference or Georeference()
        tifffile.imwrite(
            temporary,
            planes,
            photometric="minisblack",
            planarconfig="separate" if place.is_on_map else None,
            metadata=metadata,
            resolution=place.resolution,
            resolutionunit=RESOLUTION_UNITS[place.resolution_unit],
            extratags=[*place.tags, *nodata_tag(np.nan)],
        )
