"""A row of numbers for each object: place, size, shape, intensity, confidence.

Lengths and areas are those of squares: a pixel is one by one, and its corners belong to it. An
upright rectangle of 3 x 4 pixels has an area of 12, a largest Feret diameter of 5 and solidity 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What is measured of each object. Lengths are in pixels, areas in square pixels.
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
_SQUARE = 0.01  # pixels whose sides differ by less than this share count as square


def columns(channels: int) -> tuple[str, ...]:
    """Return the columns of a table of objects in images of so many channels."""
    intensity = [f"{what}_{c + 1}" for c in range(channels) for what in ("mean", "deviation")]
    sized = [f"{name}_in_unit" for name in SIZED]
    return ("image", "number", "class", *SHAPE_COLUMNS, *intensity, "confidence", *sized, "unit")


def measure_objects(
    numbers: NDArray[np.int32],
    image: NDArray[Any],
    confidence: NDArray[np.uint8] | None = None,
    pixel_size: tuple[float, float, str] | None = None,
) -> list[dict[str, float | str | None]]:
    """Measure the objects of a label image.

    Centroids are those of pixel centres, in pixels from the centre of the first pixel; left, top,
    right and bottom are corners of pixels, so that the width is right - left. The perimeter is that
    of scikit-image (Benkrid and Crookes, "Design and FPGA implementation of a perimeter estimator",
    2000), circularity is 4 pi area / perimeter², at most 1. Eccentricity and orientation are those
    of the ellipse with the same second moments; the orientation is the angle of its long axis to
    the x axis in degrees, -90 to 90, positive when it rises to the right. The Feret diameters and
    the convex hull of the solidity are those of the corners of all pixels.

    Args:
        numbers: (H, W) 1 to n, 0 where no object is.
        image: (H, W, C) the image's own values.
        confidence: (H, W) probability of each pixel's class, 0 to 255.
        pixel_size: Height and width of a pixel and their unit; None where it is not known.

    Returns:
        A dictionary an object in the order of their numbers: "number", `SHAPE_COLUMNS`, "mean_1",
        "deviation_1" and so on for each channel, "confidence" (0 to 1; None where it was not
        given), and the measures of `SIZED` in "unit". A perimeter in a unit is None where pixels
        are not square.
    """
    from skimage import measure

    values = image if confidence is None else np.dstack([image, confidence])
    names = ("label", "bbox", "area", "centroid", "perimeter", "eccentricity", "orientation")
    found = measure.regionprops_table(
        numbers, values, (*names, "intensity_mean", "intensity_std", "image")
    )
    rows = []
    for k in range(len(found["label"])):
        row: dict[str, float | str | None] = {"number": int(found["label"][k])}
        hull = _hull(found["image"][k])
        row |= _shape(found, k, hull, numbers.shape)
        channels = image.shape[2]
        for c in range(channels):
            row[f"mean_{c + 1}"] = float(found[f"intensity_mean-{c}"][k])
            row[f"deviation_{c + 1}"] = float(found[f"intensity_std-{c}"][k])
        sure = found.get(f"intensity_mean-{channels}")
        row["confidence"] = None if sure is None else float(sure[k]) / 255
        rows.append(row | _in_unit(row, hull, pixel_size))
    return rows


def _shape(
    found: dict[str, NDArray[Any]], k: int, hull: NDArray[np.float64], size: Sequence[int]
) -> dict[str, float | str | None]:
    """Return the `SHAPE_COLUMNS` of the k-th object."""
    top, left, bottom, right = (int(found[f"bbox-{i}"][k]) for i in range(4))
    area, perimeter = float(found["area"][k]), float(found["perimeter"][k])
    widest, narrowest = _feret(hull)
    round_ = min(1.0, 4 * math.pi * area / perimeter**2) if perimeter else 1.0
    # skimage measures from the rows' axis, counter-clockwise; its y axis points down.
    angle = math.degrees(float(found["orientation"][k])) - 90
    return {
        "centroid_x": float(found["centroid-1"][k]),
        "centroid_y": float(found["centroid-0"][k]),
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
        "area": area,
        "perimeter": perimeter,
        "equivalent_diameter": 2 * math.sqrt(area / math.pi),
        "feret_max": widest,
        "feret_min": narrowest,
        "circularity": round_,
        "eccentricity": float(found["eccentricity"][k]),
        "solidity": min(1.0, area / _polygon_area(hull)),
        "orientation": angle + 180 if angle < -90 else angle,
        "touches_border": int(top == 0 or left == 0 or bottom == size[0] or right == size[1]),
    }


def _in_unit(
    row: dict[str, float | str | None],
    hull: NDArray[np.float64],
    pixel_size: tuple[float, float, str] | None,
) -> dict[str, float | str | None]:
    """Return what `SIZED` names in the unit of the pixel size; None where it is not known."""
    if pixel_size is None:
        return {**{f"{name}_in_unit": None for name in SIZED}, "unit": None}
    height, width, unit = pixel_size
    area = float(row["area"] or 0) * height * width
    widest, narrowest = _feret(hull * (height, width))
    square = abs(height - width) < _SQUARE * max(height, width)
    perimeter = float(row["perimeter"] or 0) * math.sqrt(height * width) if square else None
    sized = (area, perimeter, 2 * math.sqrt(area / math.pi), widest, narrowest)
    return {**{f"{n}_in_unit": v for n, v in zip(SIZED, sized, strict=True)}, "unit": unit}


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (n, 2) the corners of the convex hull of an object's pixels, in order around it."""
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(mask.any(1))
    first, last = mask[rows].argmax(1), mask.shape[1] - mask[rows, ::-1].argmax(1)
    corners = [(rows, first), (rows, last), (rows + 1, first), (rows + 1, last)]
    points = np.concatenate([np.stack(pair, 1) for pair in corners]).astype(np.float64)
    hull: NDArray[np.float64] = points[ConvexHull(points).vertices]
    return hull


def _feret(hull: NDArray[np.float64]) -> tuple[float, float]:
    """Return the largest and the smallest distance between parallel lines that hold a hull.

    The largest one lies between two corners, the smallest one stands on a side (Shamos, 1978).
    """
    apart = hull[:, None] - hull[None]
    widest = math.sqrt(float((apart**2).sum(-1).max()))
    sides = np.roll(hull, -1, 0) - hull
    normals = np.stack([-sides[:, 1], sides[:, 0]], 1) / np.linalg.norm(sides, axis=1)[:, None]
    spread = hull @ normals.T  # (corner, side)
    return widest, float(np.ptp(spread, axis=0).min())


def _polygon_area(corners: NDArray[np.float64]) -> float:
    y, x = corners.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
