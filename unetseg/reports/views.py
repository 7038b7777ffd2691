"""Parts of images as our pages draw them: which part, how large, and where in it a place lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.pictures import drawing, transforms
from unetseg.reports import rendering
from unetseg.scoring.metrics import ScoredImage

SIDE = 480  # pixels of a picture at most
SMALL = 240  # smaller pictures are enlarged by whole numbers, so that pixels stay sharp
_BLOCK = 16  # pixels: the fullest part is searched in steps of this size

Box = tuple[int, int, int, int]  # top, left, height, width
# Image for a screen (H, W, 3), truth and prediction (H, W).
Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class View:
    """A part of an image; one larger than `SIDE` is drawn shrunk.

    Attributes:
        shape: Rows and columns of the whole image.
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
    """

    shape: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @property
    def is_whole(self) -> bool:
        """Whether it is the image as a whole."""
        return (self.height, self.width) == self.shape

    @property
    def longest(self) -> int:
        """Rows or columns, whichever are more."""
        return max(self.height, self.width)

    @property
    def caption(self) -> str:
        """Which part it is, or by how much it is shrunk; "" for an image drawn as it is."""
        size = f"{self.shape[0]} x {self.shape[1]}"
        if not self.is_whole:
            rows = f"rows {self.top} to {self.top + self.height - 1}"
            return f"{rows}, columns {self.left} to {self.left + self.width - 1} of {size}"
        return f"{size}, shrunk to {100 * self._scale:.0f} %" if self._scale < 1 else ""

    @property
    def _scale(self) -> float:
        return min(1.0, SIDE / self.longest)

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the part of an array that has the rows and columns of the image."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]

    def draw(self, scored: ScoredImage) -> Drawn:
        """Return this part of an image and of its masks, shrunk where it is larger than `SIDE`."""
        shape = transforms.scaled_size(self.height, self.width, self._scale)
        image = transforms.rescale_image(self.of(drawing.to_display(scored.image)), shape)
        truth, prediction = (
            transforms.rescale_mask(np.ascontiguousarray(self.of(mask)), shape)
            for mask in (scored.truth, scored.prediction)
        )
        return image, truth, prediction

    def draw_enlarged(self, scored: ScoredImage) -> Drawn:
        """Return the same as `draw`, enlarged where it is smaller than `SMALL`."""
        factor = -(-SMALL // self.longest)
        image, truth, prediction = (enlarge(one, factor) for one in self.draw(scored))
        return image, truth, prediction

    def frame(self, box: Box) -> str:
        """Return where the part of a box that lies in it is, as CSS."""
        top, left = max(box[0] - self.top, 0), max(box[1] - self.left, 0)
        bottom = min(box[0] + box[2] - self.top, self.height)
        right = min(box[1] + box[3] - self.left, self.width)
        places = {
            "top": top / self.height,
            "left": left / self.width,
            "height": max(bottom - top, 0) / self.height,
            "width": max(right - left, 0) / self.width,
        }
        return "; ".join(f"{name}: {100 * value:.2f}%" for name, value in places.items())


def whole(shape: tuple[int, int]) -> View:
    """Return the view of all rows and columns."""
    return View(shape, 0, 0, *shape)


def around(shape: tuple[int, int], box: Box, least: int) -> View:
    """Return the square around a box, or the whole image.

    The whole is shown where the square would leave little out, or would itself be shrunk.

    Args:
        shape: Rows and columns of the image.
        box: The place to show.
        least: Pixels of the square's side at least; it has three times those of the box.
    """
    top, left, rows, columns = box
    side = max(least, 3 * max(rows, columns))
    if 2 * side > max(shape) or side > SIDE:
        return whole(shape)
    return _cut(shape, (top + rows // 2 - side // 2, left + columns // 2 - side // 2), side)


def fullest(wanted: NDArray[np.bool_]) -> View:
    """Return the square of `SIDE` pixels that holds most of the wanted pixels, by whole blocks.

    Args:
        wanted: (H, W), the wanted pixels of the image. An image that fits is shown whole.
    """
    starts = [np.arange(0, n, _BLOCK) for n in wanted.shape]
    counts = np.add.reduceat(wanted, starts[0], axis=0, dtype=np.int64)
    sums = np.add.reduceat(counts, starts[1], axis=1).cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    rows, columns = (min(SIDE // _BLOCK, len(s)) for s in starts)
    inside = sums[rows:, columns:] + sums[:-rows, :-columns]
    inside = inside - sums[:-rows, columns:] - sums[rows:, :-columns]
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    height, width = wanted.shape
    return _cut((height, width), (int(row) * _BLOCK, int(column) * _BLOCK), SIDE)


def _cut(shape: tuple[int, int], corner: tuple[int, int], side: int) -> View:
    """Return the view of a square from ``corner``, moved and cut to lie within the image."""
    rows, columns = min(shape[0], side), min(shape[1], side)
    top = int(np.clip(corner[0], 0, shape[0] - rows))
    left = int(np.clip(corner[1], 0, shape[1] - columns))
    return View(shape, top, left, rows, columns)


def enlarge(picture: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return a picture or mask with each pixel as ``factor`` x ``factor`` pixels."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def pictures(
    titles: Sequence[str], drawn: Drawn, classes: ClassTable, unpainted: int | None
) -> list[dict[str, Any]]:
    """Return the pictures of a template: the image, and each mask painted over it.

    Args:
        titles: Titles of the three pictures.
        drawn: Image and masks, as `View.draw` returns them.
        classes: Classes of the masks.
        unpainted: The class that is not painted.
    """
    image, *masks = drawn
    painted = [image, *(drawing.blend(image, mask, classes, unpainted) for mask in masks)]
    return [titled(title, picture) for title, picture in zip(titles, painted, strict=True)]


def titled(title: str, picture: NDArray[np.uint8], lossy: bool = True) -> dict[str, Any]:
    """Return the values of a template for a picture (H, W, 3): title, uri, height and width."""
    height, width = picture.shape[:2]
    uri = rendering.picture_uri(picture, lossy)
    return {"title": title, "uri": uri, "height": height, "width": width}
