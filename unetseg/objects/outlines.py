"""Outlines of objects as GeoJSON polygons, which QuPath and QGIS open.

An outline runs along the sides of pixels, with the object on its right (y points down)::

    (0, 0)  ->  (2, 0)          . . .
       |  # #  |                . # #       a ring of corners; holes run the other way around;
       |  #  --+ (2, 1)         . # .       drawn again, it gives exactly the pixels it came from
    (0, 2) -- (1, 2)

so neighbouring objects share their sides, and a polygon drawn again gives the same pixels.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""(n, 2) corners x, y; the first one is not repeated at the end."""

_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # x, y of the directions east, south, ...


def outlines(numbers: NDArray[np.int32]) -> dict[int, list[list[Ring]]]:
    """Return the polygons of each object of a label image.

    Args:
        numbers: (H, W) 1 to n, 0 where no object is.

    Returns:
        For each number its polygons, one for each part that holds together by the sides of pixels:
        the outer ring, counter-clockwise where y points up as RFC 7946 asks, and its holes.
    """
    from skimage import measure

    parts = measure.label(numbers, connectivity=1)  # of one number each; 0 stays 0
    found: dict[int, list[list[Ring]]] = {}
    number_of = np.zeros(parts.max(initial=0) + 1, np.int64)
    number_of[parts.ravel()] = numbers.ravel()
    of_part: dict[int, list[Ring]] = {}
    for part, ring in _rings(parts):
        of_part.setdefault(part, []).append(ring)
    for part, rings in sorted(of_part.items()):
        rings.sort(key=_signed_area, reverse=True)  # the outer ring alone is positive
        found.setdefault(int(number_of[part]), []).append(rings)
    return dict(sorted(found.items()))


def _rings(parts: NDArray[np.integer[Any]]) -> Iterator[tuple[int, Ring]]:
    """Yield (part, ring) of all outlines; see the module for their direction."""
    owner, start, direction = _sides(parts)
    width = parts.shape[1] + 1  # corners in a row of corners
    end = start + _STEPS[direction] @ (1, width)
    # Where two pixels of a part touch by a corner alone, two sides go on from there: the right one
    # keeps to the pixel that the side came along.
    key = owner.astype(np.int64) * (width * (parts.shape[0] + 1))
    order = np.argsort(key + start, kind="stable")
    starts = (key + start)[order]
    first = np.searchsorted(starts, key + end)
    several = np.searchsorted(starts, key + end, "right") - first == 2
    following = order[first]
    second = order[np.minimum(first + 1, len(order) - 1)]
    right = (direction + 1) % 4
    following = np.where(several & (direction[second] == right), second, following)
    turns = np.empty(len(order), bool)
    turns[following] = direction[following] != direction
    crossed = np.zeros(len(order), bool)
    crossed[following[several]] = True

    chain, corner, at = following.tolist(), turns.tolist(), start.tolist()
    split, seen = crossed.tolist(), bytearray(len(chain))
    for begin in range(len(chain)):
        if seen[begin]:
            continue
        ring, side, is_split = [], begin, False
        while not seen[side]:
            seen[side] = 1
            if corner[side]:
                ring.append(at[side])
                is_split = is_split or split[side]
            side = chain[side]
        for one in _simple(ring) if is_split else [ring]:
            corners = np.array(one)
            yield int(owner[begin]), np.stack([corners % width, corners // width], 1).astype(float)


def _sides(
    parts: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return part, first corner (row * (W + 1) + column) and direction (0 to 3) of all sides."""
    padded = np.pad(parts, 1)
    inner = padded[1:-1, 1:-1]
    width = parts.shape[1] + 1
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    corners = (0, 1, width + 1, width)  # of the pixel's own corner: where each side begins
    owners, starts, directions = [], [], []
    for direction, (neighbour, corner) in enumerate(zip(neighbours, corners, strict=True)):
        rows, cols = np.nonzero((inner > 0) & (inner != neighbour))
        owners.append(inner[rows, cols].astype(np.int64))
        starts.append(rows.astype(np.int64) * width + cols + corner)
        directions.append(np.full(len(rows), direction))
    return np.concatenate(owners), np.concatenate(starts), np.concatenate(directions)


def _simple(ring: Sequence[int]) -> Iterator[list[int]]:
    """Yield the simple rings of a ring that passes corners twice."""
    path: list[int] = []
    place: dict[int, int] = {}
    for corner in ring:
        if corner in place:
            begin = place[corner]
            yield path[begin:]
            for gone in path[begin:]:
                del place[gone]
            del path[begin:]
        place[corner] = len(path)
        path.append(corner)
    yield path


def _signed_area(ring: Ring) -> float:
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def to_geojson(
    polygons: Mapping[int, Sequence[Sequence[Ring]]],
    properties: Mapping[int, Mapping[str, Any]],
    matrix: Sequence[float] | None = None,
    epsg: int | None = None,
) -> bytes:
    """Return a GeoJSON FeatureCollection (RFC 7946), a feature an object.

    Args:
        polygons: As `outlines` returns them.
        properties: Of each number.
        matrix: (a, b, c, d, e, f): x = a column + b row + c, y = d column + e row + f on a map.
            None leaves pixels, as QuPath reads them.
        epsg: Number of the map's coordinate system, written as QGIS reads it. RFC 7946 itself knows
            degrees alone.
    """
    features = [
        {
            "type": "Feature",
            "id": number,
            "geometry": _geometry([[_placed(r, matrix) for r in rings] for rings in parts]),
            "properties": properties[number],
        }
        for number, parts in polygons.items()
    ]
    whole: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if epsg is not None:
        whole["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}
    return json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()


def _geometry(parts: list[list[list[list[float]]]]) -> dict[str, Any]:
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _placed(ring: Ring, matrix: Sequence[float] | None) -> list[list[float]]:
    """Return the closed ring as lists; where the map turns it around, it is turned back."""
    if matrix is None:
        points = ring.astype(np.int64)
    else:
        a, b, c, d, e, f = matrix
        x, y = ring.T
        points = np.stack([a * x + b * y + c, d * x + e * y + f], 1)
        if a * e - b * d < 0:
            points = points[::-1]
    closed: list[list[float]] = points.tolist()
    return [*closed, closed[0]]
