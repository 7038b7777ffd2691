"""Strokes on the disk before they are in a mask: an append-only file for each image.

A record is written and flushed before the page is told that its stroke is saved. When the mask
holds the strokes, the file is removed. After a kill, the next opening replays it over the mask.
Strokes replace labels, so replaying those that the mask holds already changes nothing.

    record = "USTR" | CRC-32 of the rest | length of the body | body
    body   = x | y | width | height | length of the id | id | labels, deflated
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.errors import InputError

_MAGIC = b"USTR"
_HEAD = struct.Struct("<4sII")  # magic, checksum, length of the body
_PLACE = struct.Struct("<IIIIH")  # x, y, width, height, length of the id


@dataclass(frozen=True, eq=False)
class Stroke:
    """New labels for a rectangle of an image.

    Attributes:
        id: A name that the page gives it, at most 100 ASCII characters; may be empty.
        x: Its first column.
        y: Its first row.
        labels: ``(height, width)`` uint8 class indices, 255 unlabelled.
    """

    id: str
    x: int
    y: int
    labels: NDArray[np.uint8]

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of the rectangle."""
        height, width = self.labels.shape
        return slice(self.y, self.y + height), slice(self.x, self.x + width)

    def fits(self, shape: tuple[int, int]) -> bool:
        """Tell whether it lies inside an image of ``shape`` (height, width) and has a pixel."""
        height, width = self.labels.shape
        inside = self.y + height <= shape[0] and self.x + width <= shape[1]
        return bool(inside and height > 0 and width > 0)


class Journal:
    """The strokes of one image that its mask may not hold yet.

    Attributes:
        path: The file; there is none while the mask holds all strokes.
        size: The bytes of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size if path.exists() else 0

    def append(self, stroke: Stroke) -> None:
        """Write a stroke, flushed to the disk.

        Raises:
            MachineError: The disk is full or read-only, and the like; the stroke is not in it.
        """
        height, width = stroke.labels.shape
        name = stroke.id.encode("ascii")
        body = _PLACE.pack(stroke.x, stroke.y, width, height, len(name)) + name
        body += zlib.compress(np.ascontiguousarray(stroke.labels).data, 1)
        length = struct.pack("<I", len(body))
        record = _MAGIC + struct.pack("<I", zlib.crc32(length + body)) + length + body
        files.make_folder(self.path.parent)  # somebody may have deleted it
        files.append(self.path, record)
        self.size += len(record)

    def strokes(self) -> Iterator[Stroke]:
        """Yield the strokes in their order, up to a record that a kill left in parts.

        Raises:
            InputError: The file is damaged before its last record.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        at = 0
        while at < len(data):
            record = _read(data, at)
            if record is None:
                if data.find(_MAGIC, at + 1) >= 0 and _whole_after(data, at + 1):
                    text = f"damaged at byte {at:,} of {len(data):,}"
                    raise InputError(
                        self.path, text, "restore it, or move it away to go on without it"
                    )
                return
            stroke, at = record
            yield stroke

    def remove(self) -> None:
        """Remove the file: the mask on the disk holds its strokes.

        Raises:
            MachineError: The disk is read-only, or another program uses the file, and the like.
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise files.machine_error(self.path, error) from None
        self.size = 0


def _read(data: bytes, at: int) -> tuple[Stroke, int] | None:
    """Return the stroke of the record at a byte, and the next record's byte; None if it is torn."""
    if len(data) < at + _HEAD.size:
        return None
    magic, checksum, length = _HEAD.unpack_from(data, at)
    start, end = at + _HEAD.size, at + _HEAD.size + length
    if magic != _MAGIC or end > len(data) or zlib.crc32(data[start - 4 : end]) != checksum:
        return None
    x, y, width, height, name = _PLACE.unpack_from(data, start)
    start += _PLACE.size
    pixels = np.frombuffer(zlib.decompress(data[start + name : end]), np.uint8)
    labels = pixels.reshape(height, width)
    return Stroke(data[start : start + name].decode("ascii"), x, y, labels), end


def _whole_after(data: bytes, at: int) -> bool:
    """Tell whether a whole record begins anywhere behind a byte."""
    while (at := data.find(_MAGIC, at)) >= 0:
        if _read(data, at):
            return True
        at += 1
    return False
