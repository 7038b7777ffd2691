"""Pictures as the page shows them: tiles of a pyramid, 8 bits after a window, chosen channels."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.errors import InputError
from unetseg.pictures import bands, writing
from unetseg.pictures.transforms import halve_image

TILE = 512  # pixels a side
MAX_PIXELS = 100_000_000  # a larger picture would need gigabytes in the page and here
_MEMORY = 2**30  # bytes of decoded pictures that are kept, beside the one just opened
_SAMPLE = 1_000_000  # pixels are enough for percentiles


class Pyramid:
    """A picture at full size, and halved again and again.

    Attributes:
        levels: ``(H, W, C)`` in the dtype of the file; level k is level 0 halved k times, and the
            last one fits into a tile.
    """

    def __init__(self, image: NDArray[Any]) -> None:
        self.levels = [image]
        while max(self.levels[-1].shape[:2]) > TILE:
            self.levels.append(halve_image(self.levels[-1]))

    @property
    def nbytes(self) -> int:
        """The bytes of all levels."""
        return sum(level.nbytes for level in self.levels)

    @cached_property
    def ranges(self) -> list[dict[str, float]]:
        """The "min", "max", "low" (1st percentile) and "high" (99.8th) of each channel.

        `pictures.drawing.to_display` shows pictures in the same window.
        """
        small = next(v for v in self.levels if v.shape[0] * v.shape[1] <= _SAMPLE)
        pixels = small.reshape(-1, small.shape[2])
        bounds = np.percentile(pixels, (1, 99.8), axis=0)
        image = self.levels[0]
        # Rows come first: NumPy is ten times as fast there as over both axes at once.
        found = (image.min(0).min(0), image.max(0).max(0), *bounds)
        names = ("min", "max", "low", "high")
        return [dict(zip(names, map(float, c), strict=True)) for c in np.stack(found, 1)]

    @cached_property
    def windows(self) -> list[tuple[float, float]]:
        """The values of each channel that are black and white unless somebody chooses others.

        Pictures of eight bits are shown as they are, others in the window of their range.
        """
        if self.levels[0].dtype == np.uint8:
            return [(0.0, 255.0)] * self.levels[0].shape[2]
        return [(r["low"], max(r["high"], r["low"] + 1e-6)) for r in self.ranges]

    def __getitem__(self, level: int) -> NDArray[Any]:
        return self.levels[level]

    def tile(
        self,
        level: int,
        x: int,
        y: int,
        channels: Sequence[int],
        windows: Sequence[tuple[float, float]],
    ) -> NDArray[np.uint8]:
        """Return a tile ``(h, w, 1)`` or ``(h, w, 3)`` uint8, smaller at the right and the bottom.

        Args:
            level: The level of the pyramid.
            x: The column of the tile: its pixels begin at ``x * TILE``.
            y: The row of the tile.
            channels: A single channel is shown grey, two as red and green, three as red, green and
                blue.
            windows: The values shown as 0 and as 255, for each channel.

        Raises:
            IndexError: There is no such tile or channel.
        """
        if not (0 <= level < len(self.levels)):
            raise IndexError(f"level {level}")
        image = self.levels[level]
        part = image[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
        if part.size == 0:
            raise IndexError(f"tile {x}, {y}")
        shown = np.zeros((*part.shape[:2], 1 if len(channels) == 1 else 3), np.uint8)
        for k, (channel, (low, high)) in enumerate(zip(channels, windows, strict=True)):
            scale = np.float32(255 / (high - low))
            values = (part[..., channel].astype(np.float32) - np.float32(low)) * scale
            shown[..., k] = np.clip(values, 0, 255, out=values)
        return shown


class Pictures:
    """Pyramids of pictures; the last ones used are kept, up to a gigabyte. Threads may share them.

    Args:
        paths: The file of each picture, by its number.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._kept: OrderedDict[int, Pyramid] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = [threading.Lock() for _ in paths]  # two tiles decode one picture once

    def __getitem__(self, number: int) -> Pyramid:
        """Return the pyramid of a picture.

        Raises:
            InputError: The file has vanished, is damaged, or holds too many pixels.
            MachineError: No permission to read, not enough memory.
        """
        with self._reading[number]:
            with self._lock:
                if number in self._kept:
                    self._kept.move_to_end(number)
                    return self._kept[number]
            pixels, _ = bands.read_filled(self._paths[number], max_pixels=MAX_PIXELS)
            pyramid = Pyramid(pixels)
            with self._lock:
                self._kept[number] = pyramid
                total = sum(p.nbytes for p in self._kept.values())
                while total > _MEMORY and len(self._kept) > 1:
                    total -= self._kept.popitem(last=False)[1].nbytes
            return pyramid

    def image(self, number: int) -> NDArray[Any]:
        """Return a picture ``(H, W, C)`` in the dtype of its file; raises as above.

        Pixels without data have the mean of the others, as in training.
        """
        return self[number][0]


def encode_tile(tile: NDArray[np.uint8], exact: bool) -> tuple[bytes, str]:
    """Return a tile as a file, and its media type: PNG where it must be exact, else JPEG."""
    media = "image/png" if exact else "image/jpeg"
    return writing.encode_picture(tile, lossy=not exact), media


def check_pixels(path: Path, height: int, width: int) -> None:
    """Refuse a picture that is too large to be painted in.

    Raises:
        InputError: It has over 100 megapixels.
    """
    if height * width > MAX_PIXELS:
        text = f"{width:,} x {height:,} pixels; up to 100 megapixels can be labelled"
        remedy = "cut it into parts, or make it smaller and train with --scale"
        raise InputError(path, text, remedy)
