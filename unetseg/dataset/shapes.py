"""Shapes as annotation tools describe them, drawn as the pixels ``(H, W)`` that they cover.

A shape is a function from the (height, width) of its image to those pixels. Each is made by
`functools.partial` of a function below, so it holds only plain data.
"""

import base64
import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from unetseg.pictures import drawing
from unetseg.text import plural, show

Points = Sequence[tuple[float, float]]
"""Corners (x, y) in pixels."""

Draw = Callable[[tuple[int, int]], NDArray[np.bool_]]
"""From the (height, width) of an image to the pixels of a shape."""

_LARGEST = 2**28  # pixels or bytes: a longer run-length code or bitmap is damaged or forged
# Corners may lie so far outside of an image: some tools draw a little over its edge.
_OVER_PIXELS, _OVER_SHARE = 2, 0.02


@dataclass(frozen=True)
class Frame:
    """The picture on which shapes were drawn, as far as their labels describe it.

    Attributes:
        size: Its (height, width); None where the labels state none.
        corners: Corners (x, y) of the shapes, by which an image is judged without a stated size.
        is_relative: Whether positions are shares of the size: they fit any size of equal sides.
    """

    size: tuple[int, int] | None = None
    corners: Points = ()
    is_relative: bool = False

    def describe_misfit(self, shape: tuple[int, int]) -> str:
        """Say how an image of this (height, width) differs from the picture; "" if it may be it."""
        has = f"has {shape[0]} x {shape[1]} pixels (rows x columns)"
        if self.size is None:
            for x, y in self.corners:
                for place, side in ((y, shape[0]), (x, shape[1])):
                    over = _OVER_PIXELS + _OVER_SHARE * side
                    if not -over <= place <= side + over:
                        return f"{has}, and its labels reach beyond them"
            return ""
        height, width = self.size
        # A side that was rounded to whole pixels may be longer or shorter by one.
        is_alike = self.is_relative and abs(shape[0] * width - shape[1] * height) <= height + width
        if shape == self.size or is_alike:
            return ""
        exchanged = ", rows and columns exchanged" if shape == (width, height) else ""
        return f"{has}, and its labels were drawn on {height} x {width}{exchanged}"


def describe_hidden(hidden: Sequence[Sequence[str]]) -> str:
    """Say how many shapes of which classes others cover; these are the classes in each image."""
    texts = []
    for name in dict.fromkeys(name for names in hidden for name in names):
        counts = [n for names in hidden if (n := names.count(name))]
        texts.append(f"{sum(counts)} of {show(name)!r} in {plural(len(counts), 'image')}")
    return f"shapes that others cover wholly are in no mask: {', '.join(texts)}"


def rings(areas: Sequence[Sequence[Points]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw polygons with holes; a pixel belongs to a polygon that holds its centre.

    Args:
        areas: The outer ring of each polygon, then its holes. The upper left corner of the image
            is (0, 0), so the first pixel's centre is (0.5, 0.5).
        shape: Rows and columns.
    """
    covered = np.zeros(shape, bool)
    for outer, *holes in areas:
        inside = _ring(outer, shape)
        for hole in holes:
            inside &= ~_ring(hole, shape)
        covered |= inside
    return covered


def scaled_ring(points: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a polygon as `rings` does; its corners are shares, 0 to 1, of width and height."""
    return rings([[[(x * shape[1], y * shape[0]) for x, y in points]]], shape)


def _ring(points: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    from skimage.draw import polygon

    corners = np.array(points, float) - 0.5  # (n, 2): whole numbers are centres now
    if corners.ndim != 2 or len(corners) < 3 or not np.isfinite(corners).all():
        raise ValueError(f"a polygon of {len(points)} points")
    inside = np.zeros(shape, bool)
    inside[polygon(corners[:, 1], corners[:, 0], shape)] = True
    return inside


def outline(kind: str, points: Points, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill a shape as `unetseg.pictures.drawing.fill_shape` does: its outline belongs to it."""
    return drawing.fill_shape(shape, kind, points)


def line(points: Points, width: float, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a line, or a point as a disc, as `unetseg.pictures.drawing.draw_line` does."""
    return drawing.draw_line(shape, points, width)


def ellipse(
    centre: tuple[float, float],
    radii: tuple[float, float],
    angle: float,
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Draw an ellipse with radii along x and y, turned clockwise by ``angle`` in radians."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    x, y = columns + 0.5 - centre[0], rows + 0.5 - centre[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside: NDArray[np.bool_] = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1
    return inside


def runs(
    size: tuple[int, int], counts: str | Sequence[int], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Draw COCO's run lengths: pixels outside and inside by turns, down the columns.

    Source: ``rleFrString`` and ``rleDecode`` in pycocotools' ``maskApi.c``.

    Raises:
        ValueError: Another size than the image's, or runs that do not fill it.
    """
    if tuple(size) != shape:
        raise ValueError(f"run lengths for {size[0]} x {size[1]} pixels")
    lengths = np.array(_unpacked(counts) if isinstance(counts, str) else list(counts), np.int64)
    if (lengths < 0).any() or lengths.sum() != shape[0] * shape[1]:
        raise ValueError("run lengths that do not fill the image")
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return inside.reshape(shape[::-1]).T


def _unpacked(text: str) -> list[int]:
    """Return run lengths from COCO's text: five bits a character, the lowest first."""
    lengths: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        code = character - 48
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift  # the number is negative
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return lengths


def brush(size: tuple[int, int], code: Sequence[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a brush of Label Studio, the alpha channel of a compressed RGBA picture.

    Source: ``decode_rle`` in label-studio-converter's ``brush.py``.

    Raises:
        ValueError: Another size than the image's, or a code that ends early.
    """
    if tuple(size) != shape:
        raise ValueError(f"a brush for {size[0]} x {size[1]} pixels")
    bits = "".join(f"{byte & 255:08b}" for byte in code)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("a brush whose code ends early")
        return int(bits[place - count : place], 2)

    total, width = take(32), take(5) + 1
    if total != 4 * shape[0] * shape[1] or total > _LARGEST:
        raise ValueError("a brush of another size")
    sizes = [take(4) + 1 for _ in range(4)]
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        repeated = take(1)
        end = min(done + 1 + take(sizes[take(2)]), total)
        if repeated:
            values[done:end] = take(width)
        else:
            values[done:end] = [take(width) for _ in range(end - done)]
        done = end
    return values.reshape(*shape, 4)[..., 3] > 0


def bitmap(data: str, origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a bitmap of Supervisely: a PNG, deflated, in base64; ``origin`` is its (x, y).

    Raises:
        ValueError: It is no such bitmap, or reaches out of the image.
    """
    try:
        png = zlib.decompressobj().decompress(base64.b64decode(data), _LARGEST)
    except (ValueError, zlib.error) as error:
        raise ValueError(f"a bitmap that is not readable ({error})") from None
    return _placed(png, origin, shape)


def stamp(data: str, origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a mask of LabelMe: a PNG in base64; ``origin`` is the (x, y) of its first pixel.

    Raises:
        ValueError: It is no PNG, or reaches out of the image.
    """
    return _placed(base64.b64decode(data), origin, shape)


def _placed(png: bytes, origin: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where the pixels of a PNG are set, whose first one lies at ``origin`` (x, y)."""
    try:
        picture = PngImageFile(io.BytesIO(png))
        if picture.width * picture.height > _LARGEST:
            raise ValueError("a bitmap that is too large")
        pixels = np.asarray(picture)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"a bitmap that is not readable ({error})") from None
    inside = (pixels[..., -1] if pixels.ndim == 3 else pixels) > 0
    x, y = origin
    rows, columns = inside.shape
    if min(x, y) < 0 or y + rows > shape[0] or x + columns > shape[1]:
        raise ValueError("a bitmap that reaches out of the image")
    covered = np.zeros(shape, bool)
    covered[y : y + rows, x : x + columns] = inside
    return covered
