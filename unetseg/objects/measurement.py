"""A row of numbers for each object: place, size, shape, intensity, confidence.

Lengths and areas are those of squares: a pixel is one by one, and its corners belong to it. An
upright rectangle of 3 x 4 pixels has an area of 12, a largest Feret diameter of 5 and solidity 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# These columns are measured of each object. Lengths are in pixels, areas in square pixels.
SHAPE_COLUMNS = (
    "centroid_x",
    "centroid_y",
    "left",
    "top",
    "right",
    "bottom",
    "area",
    "perimeter",
    "equivalent_diameter",
    "feret_max",
    "feret_min",
    "circularity",
    "eccentricity",
    "solidity",
    "orientation",
    "touches_border",
)
# These are written in the unit of the pixel size, too; the power is that of the length.
SIZED = {
    "area": 2,
    "perimeter": 1,
    "equivalent_diameter": 1,
    "feret_max": 1,
    "feret_min": 1,
}
# The length that a border pixel stands for, by the code that `_perimeters` gives it.
_PERIMETER = np.zeros(50)
_PERIMETER[[5, 7, 15, 17, 25, 27]] = 1
_PERIMETER[[21, 33]] = math.sqrt(2)
_PERIMETER[[13, 23]] = (1 + math.sqrt(2)) / 2
_SQUARE = 0.01  # pixels whose sides differ by less than this share count as square


def columns(channels: int) -> tuple[str, ...]:
    """Return the columns of a table of objects in images of so many channels."""
    intensity = [f"{what}_{c + 1}" for c in range(channels) for what in ("mean", "deviation")]
    sized = [f"{name}_in_unit" for name in SIZED]
    units = ("unit", "area_unit")
    return ("image", "number", "class", *SHAPE_COLUMNS, *intensity, "confidence", *sized, *units)


@dataclass
class _Finished:
    """Objects of which all rows were seen, ascending by number.

    Attributes:
        numbers: (n,) their numbers.
        sums: (n, m) the sums over their pixels; see `Measuring`.
        runs: (r, 4) number, row, first and last column of their runs, sorted by number.
    """

    numbers: NDArray[np.int64]
    sums: NDArray[np.float64]
    runs: NDArray[np.int64]


class Measuring:
    """Measures the objects of a label image that comes in bands from top to bottom.

    It keeps sums and runs of pixels of those objects alone that reach the lowest row. So an object
    must have pixels in each row from its first to its last. A run is a row of pixels of one object
    that lie side by side.

    Centroids are those of pixel centres, in pixels from the centre of the first pixel. Left, top,
    right and bottom are corners of pixels, so that the width is right - left. The perimeter is that
    of scikit-image (Benkrid and Crookes, "Design and FPGA implementation of a perimeter estimator",
    2000). Circularity is 4 pi area / perimeter², at most 1. Eccentricity and orientation are those
    of the ellipse with the same second moments. The orientation is the angle of its long axis to
    the x axis in degrees, above -90 to 90. It is positive when the axis rises to the right. The
    Feret diameters and the convex hull of the solidity are those of the corners of all pixels.

    Args:
        shape: Height and width of the whole image.
        pixel_size: Height and width of a pixel and their unit; None where it is not known.
    """

    def __init__(
        self, shape: Sequence[int], pixel_size: tuple[float, float, str] | None = None
    ) -> None:
        self._shape, self._pixel_size = (shape[0], shape[1]), pixel_size
        self._sums: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        self._runs: list[NDArray[np.int64]] = []
        self._origin: NDArray[np.float64] | None = None  # values near it lose no digits

    def add(
        self,
        top: int,
        window: NDArray[np.int32],
        image: NDArray[Any],
        confidence: NDArray[np.uint8] | None = None,
    ) -> list[dict[str, float | str | None]]:
        """Take the next rows; return the measures of the objects that end in them.

        Args:
            top: The first row of the band.
            window: (rows + 4, W) numbers of the band, and of two rows above and below it; 0 where
                there is none.
            image: (rows, W, C) the image's own values.
            confidence: (rows, W) probability of each pixel's class, 0 to 255.

        Returns:
            One dictionary for each object, in the order of their numbers. Its keys are "number",
            `SHAPE_COLUMNS`, and "mean_1", "deviation_1" and so on for each channel. They are None
            where a pixel of the object has no value. Then come "confidence" (0 to 1; None where it
            was not given) and the measures of `SIZED` in "unit". "area_unit" is the square of that
            unit. A perimeter in a unit is None where pixels are not square.
        """
        values = image.reshape(-1, image.shape[2]).astype(np.float64)
        if self._origin is None:
            known = np.isfinite(values)  # a pixel without data may be NaN
            self._origin = np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)
        values -= self._origin
        self._runs.append(_runs_of(window[2:-2], top))
        self._sums.append(_perimeters(window, image.shape[2]))
        self._sums.append(_intensities(window[2:-2], values, confidence))
        is_last = top + len(image) == self._shape[0]
        finished = self._finish(window[:0] if is_last else window[-3])
        hulls = np.split(finished.runs[:, 1:], np.flatnonzero(np.diff(finished.runs[:, 0])) + 1)
        return [
            self._row(int(number), sums, runs, self._origin, confidence is not None)
            for number, sums, runs in zip(finished.numbers, finished.sums, hulls, strict=False)
        ]

    def _finish(self, last: NDArray[np.int32]) -> _Finished:
        """Return the objects that do not reach the last row; keep the others."""
        runs = np.concatenate(self._runs)
        numbers = np.concatenate([n for n, _ in self._sums])
        sums = np.concatenate([s for _, s in self._sums])
        is_open = np.isin(runs[:, 0], last)
        stay = np.isin(numbers, last)
        self._runs, self._sums = [runs[is_open]], [(numbers[stay], sums[stay])]
        runs, numbers, sums = runs[~is_open], numbers[~stay], sums[~stay]
        found, place = np.unique(numbers, return_inverse=True)
        total = np.zeros((len(found), sums.shape[1]))
        np.add.at(total, place, sums)
        return _Finished(found, total, runs[np.argsort(runs[:, 0], kind="stable")])

    def _row(
        self,
        number: int,
        sums: NDArray[np.float64],
        runs: NDArray[np.int64],
        origin: NDArray[np.float64],
        is_sure: bool,
    ) -> dict[str, float | str | None]:
        """Return the measures of one object.

        Args:
            number: Its number.
            sums: (m,) perimeter, confidence, then value and squared value of each channel.
            runs: (r, 3) row, first and last column of its runs.
            origin: (C,) the number that was taken away from the values of each channel.
            is_sure: Whether the confidence is known.
        """
        hull = _hull(runs)
        row: dict[str, float | str | None] = {"number": number}
        row |= _shape(runs, hull, float(sums[0]), self._shape)
        area = float(row["area"] or 0)
        for c, taken in enumerate(origin.tolist()):
            mean, square = (float(s) / area for s in sums[2 + 2 * c : 4 + 2 * c])
            is_known = math.isfinite(mean)
            row[f"mean_{c + 1}"] = mean + taken if is_known else None
            row[f"deviation_{c + 1}"] = math.sqrt(max(0.0, square - mean**2)) if is_known else None
        row["confidence"] = float(sums[1]) / area / 255 if is_sure else None
        return row | _in_unit(row, hull, self._pixel_size)


def _runs_of(numbers: NDArray[np.int32], top: int) -> NDArray[np.int64]:
    """Return (r, 4) number, row, first and last column of the runs of a band."""
    flat, width = numbers.ravel(), numbers.shape[1]
    begins = _starts(numbers)
    ends = np.append(begins[1:], flat.size) - 1
    own = flat[begins] > 0
    begins, ends = begins[own], ends[own]
    row = begins // width
    columns = (flat[begins].astype(np.int64), row + top, begins - row * width, ends - row * width)
    return np.stack(columns, 1)


def _starts(numbers: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the first pixel of each run, 0 included, counted row after row."""
    first = np.ones(numbers.shape, bool)
    np.not_equal(numbers[:, 1:], numbers[:, :-1], out=first[:, 1:])
    return np.flatnonzero(first)


def _perimeters(
    window: NDArray[np.int32], channels: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return numbers of objects, and their sums, of which all but the perimeter are 0.

    A border pixel has a neighbour, by a side, of another number. Its part of the perimeter follows
    from its neighbours that are border pixels of the same object. Each by a corner counts 10, each
    by a side 2, and the pixel itself 1.
    """
    padded = np.pad(window, ((0, 0), (1, 1)))
    flat, width = padded.ravel(), padded.shape[1]
    inner = padded[1:-1, 1:-1]
    sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    is_border = np.zeros(padded.shape, bool)
    for side in sides:
        is_border[1:-1, 1:-1] |= side != inner
    is_border &= padded > 0
    border = is_border.ravel()
    here = np.flatnonzero(is_border[2:-2]) + 2 * width
    code = np.ones(len(here), np.int64)
    for step, weight in [
        *((s, 2) for s in (-width, -1, 1, width)),
        *((s, 10) for s in (-width - 1, -width + 1, width - 1, width + 1)),
    ]:
        code += weight * (border[here + step] & (flat[here + step] == flat[here]))
    found, place = np.unique(flat[here], return_inverse=True)
    sums = np.zeros((len(found), 2 + 2 * channels))
    sums[:, 0] = np.bincount(place, _PERIMETER[code], len(found))
    return found.astype(np.int64), sums


def _intensities(
    numbers: NDArray[np.int32],
    values: NDArray[np.float64],
    confidence: NDArray[np.uint8] | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return numbers of objects, and their sums, of which the perimeter is 0."""
    begins = _starts(numbers)
    found, place = np.unique(numbers.ravel()[begins], return_inverse=True)
    sums = np.zeros((len(found), 2 + 2 * values.shape[1]))
    parts = [(2 + 2 * c, values[:, c]) for c in range(values.shape[1])]
    if confidence is not None:
        parts.append((1, confidence.ravel().astype(np.float64)))
    for column, part in parts:
        sums[:, column] = np.bincount(place, np.add.reduceat(part, begins), len(found))
        if column > 1:
            squares = np.add.reduceat(part**2, begins)
            sums[:, column + 1] = np.bincount(place, squares, len(found))
    own = found > 0
    return found[own].astype(np.int64), sums[own]


def _shape(
    runs: NDArray[np.int64], hull: NDArray[np.float64], perimeter: float, size: Sequence[int]
) -> dict[str, float | str | None]:
    """Return the `SHAPE_COLUMNS` of an object.

    Args:
        runs: (r, 3) row, first and last column of its runs.
        hull: The corners that `_hull` returns.
        perimeter: Its perimeter.
        size: Height and width of the image.
    """
    y, first, last = runs.T
    top, bottom = int(y.min()), int(y.max()) + 1
    left, right = int(first.min()), int(last.max()) + 1
    y = y - top
    first, end = first - left, last - left + 1  # the run holds first, first + 1, ..., end - 1
    lengths = end - first
    area = float(lengths.sum())
    sum_x = (end * (end - 1) - first * (first - 1)) // 2
    sum_xx = ((end - 1) * end * (2 * end - 1) - (first - 1) * first * (2 * first - 1)) // 6
    x_mean, y_mean = float(sum_x.sum()) / area, float((lengths * y).sum()) / area
    xx = float(sum_xx.sum()) / area - x_mean**2
    yy = float((lengths * y * y).sum()) / area - y_mean**2
    xy = float((sum_x * y).sum()) / area - x_mean * y_mean
    spread = math.hypot(xx - yy, 2 * xy)
    widest, narrowest = _feret(hull)
    return {
        "centroid_x": x_mean + left,
        "centroid_y": y_mean + top,
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
        "area": area,
        "perimeter": perimeter,
        "equivalent_diameter": 2 * math.sqrt(area / math.pi),
        "feret_max": widest,
        "feret_min": narrowest,
        "circularity": min(1.0, 4 * math.pi * area / perimeter**2) if perimeter else 1.0,
        # If a and b are the axes' squares, 1 - b / a is 2 spread / (sum + spread).
        "eccentricity": math.sqrt(2 * spread / (xx + yy + spread)) if spread else 0.0,
        "solidity": min(1.0, area / _polygon_area(hull)),
        # The y axis points down in the image, and up in the angle.
        "orientation": -math.degrees(math.atan2(2 * xy, xx - yy)) / 2 + 0.0,
        "touches_border": int(top == 0 or left == 0 or bottom == size[0] or right == size[1]),
    }


def _in_unit(
    row: dict[str, float | str | None],
    hull: NDArray[np.float64],
    pixel_size: tuple[float, float, str] | None,
) -> dict[str, float | str | None]:
    """Return the features of `SIZED` in the unit of the pixel size; None where it is unknown."""
    if pixel_size is None:
        return dict.fromkeys((*(f"{name}_in_unit" for name in SIZED), "unit", "area_unit"))
    height, width, unit = pixel_size
    area = float(row["area"] or 0) * height * width
    widest, narrowest = _feret(hull * (height, width))
    square = abs(height - width) < _SQUARE * max(height, width)
    perimeter = float(row["perimeter"] or 0) * math.sqrt(height * width) if square else None
    sized = (area, perimeter, 2 * math.sqrt(area / math.pi), widest, narrowest)
    measured = {f"{name}_in_unit": value for name, value in zip(SIZED, sized, strict=True)}
    return {**measured, "unit": unit, "area_unit": f"{unit}²"}


def _hull(runs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n, 2) the corners of the convex hull of runs (r, 3), in order around it.

    Corners are (row, column). Only the outermost pixels of each row can be corners of the hull.
    """
    from scipy.spatial import ConvexHull

    row = runs[:, 0]  # ascending
    begin = np.flatnonzero(np.diff(row, prepend=row[0] - 1))
    first, last = runs[begin, 1], runs[np.append(begin[1:], len(runs)) - 1, 2] + 1
    row = row[begin]
    points = np.empty((4, len(row), 2))
    points[:2, :, 0], points[2:, :, 0] = row, row + 1
    points[::2, :, 1], points[1::2, :, 1] = first, last
    corners = points.reshape(-1, 2)
    hull: NDArray[np.float64] = corners[ConvexHull(corners).vertices]
    return hull


def _feret(hull: NDArray[np.float64]) -> tuple[float, float]:
    """Return the largest and the smallest distance between parallel lines that hold a hull.

    The largest one lies between two corners, the smallest one stands on a side (Shamos, 1978).
    """
    apart = hull[:, None] - hull[None]
    widest = math.sqrt(float((apart**2).sum(-1).max()))
    sides = _next(hull) - hull
    normals = np.stack([-sides[:, 1], sides[:, 0]], 1) / np.linalg.norm(sides, axis=1)[:, None]
    spread = hull @ normals.T  # (corner, side)
    return widest, float(np.ptp(spread, axis=0).min())


def _polygon_area(corners: NDArray[np.float64]) -> float:
    (y, x), (next_y, next_x) = corners.T, _next(corners).T
    return abs(float(x @ next_y - y @ next_x)) / 2


def _next(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each corner (n, 2) the one after it."""
    return np.concatenate([corners[1:], corners[:1]])
