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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from unetseg import files

Ring = NDArray[np.float64]
"""(n, 2) corners x, y; the first one is not repeated at the end."""

_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # x, y of the directions east, south, ...


@dataclass(frozen=True)
class _Sides:
    """Sides of pixels, each with its object on the right.

    Attributes:
        owner: (n,) the number of the object.
        start: (n,) the corner where it begins, row * (W + 1) + column.
        direction: (n,) 0 to 3: east, south, west, north.
    """

    owner: NDArray[np.int64]
    start: NDArray[np.int64]
    direction: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> "_Sides":
        """Return some of the sides."""
        return _Sides(self.owner[chosen], self.start[chosen], self.direction[chosen])


class Outlining:
    """Makes polygons of the objects of a label image that comes in bands from top to bottom.

    It keeps the sides of those objects alone that reach the lowest row. So an object must have
    pixels in each row from its first to its last.

    Args:
        shape: Height and width of the whole image.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self._height, self._width = shape[0], shape[1]
        self._open: list[_Sides] = []

    def add(self, top: int, window: NDArray[np.int32]) -> Iterator[tuple[int, list[list[Ring]]]]:
        """Take the next rows; yield the objects that end in them, by number.

        Args:
            top: The first row of the band.
            window: (rows + 2, W) numbers of the band, and of the rows above and below it; 0 where
                there is none.

        Yields:
            A number and its polygons, one for each part that holds together by the sides of pixels.
            A polygon is the outer ring and its holes. The ring runs counter-clockwise where y
            points up, as RFC 7946 asks.
        """
        parts = [*self._open, _sides(window, top)]
        names = ("owner", "start", "direction")
        sides = _Sides(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))
        is_last = top + len(window) - 2 == self._height
        is_open = np.isin(sides.owner, window[:0] if is_last else window[-2])
        self._open = [sides.of(is_open)]
        done = sides.of(~is_open)
        found: dict[int, list[Ring]] = {}
        for owner, ring in _rings(done, self._width + 1):
            found.setdefault(owner, []).append(ring)
        for number, rings in sorted(found.items()):
            yield number, _polygons(rings)


def _polygons(rings: Sequence[Ring]) -> list[list[Ring]]:
    """Return the rings of an object as polygons: each outer ring, followed by its holes."""
    areas = [_signed_area(ring) for ring in rings]
    outer = sorted((k for k, area in enumerate(areas) if area > 0), key=areas.__getitem__)
    found: dict[int, list[Ring]] = {k: [rings[k]] for k in outer}
    for ring, area in zip(rings, areas, strict=True):
        if area < 0:
            # The smallest outer ring around a hole is that of its part.
            around = outer if len(outer) == 1 else (k for k in outer if _holds(rings[k], ring))
            found[next(iter(around))].append(ring)
    return [found[k] for k in sorted(outer)]


def _holds(outer: Ring, hole: Ring) -> bool:
    """Tell whether a ray to the left, from beside a side of the hole, leaves the outer ring."""
    (x, y), (next_x, next_y) = hole[0], hole[1]
    dx, dy = np.sign((next_x - x, next_y - y))
    # The pixel of the object that lies on the right of the side.
    x, y = x + (dx - dy) / 2, y + (dx + dy) / 2
    ends = np.roll(outer, -1, 0)
    low, high = np.minimum(outer[:, 1], ends[:, 1]), np.maximum(outer[:, 1], ends[:, 1])
    crossed = (low < y) & (y < high) & (outer[:, 0] < x)
    return bool(crossed.sum() % 2)


def _rings(sides: _Sides, width: int) -> Iterator[tuple[int, Ring]]:
    """Yield (owner, ring) of all outlines; see the module for their direction.

    Args:
        sides: All sides of each owner.
        width: Corners in a row of corners.
    """
    owner, start, direction = sides.owner, sides.start, sides.direction
    if not len(owner):
        return
    end = start + _STEPS[direction] @ (1, width)
    # Where two pixels of an object touch by a corner alone, two sides go on from there. The right
    # turn stays at the pixel that the side came along.
    key = owner * (int(end.max()) + width)
    order = np.argsort((key + start) * 4 + direction)
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
    for begin in order.tolist():  # so each ring begins with its first corner
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


def _sides(window: NDArray[np.int32], top: int) -> _Sides:
    """Return the sides of all pixels of a band; see `Outlining.add`."""
    padded = np.pad(window, ((0, 0), (1, 1)))
    inner = padded[1:-1, 1:-1]
    width = window.shape[1] + 1
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    corners = (0, 1, width + 1, width)  # of the pixel's own corner: where each side begins
    owners, starts, directions = [], [], []
    for direction, (neighbour, corner) in enumerate(zip(neighbours, corners, strict=True)):
        rows, columns = np.nonzero((inner > 0) & (inner != neighbour))
        owners.append(inner[rows, columns].astype(np.int64))
        starts.append((rows + top) * width + columns + corner)
        directions.append(np.full(len(rows), direction))
    return _Sides(np.concatenate(owners), np.concatenate(starts), np.concatenate(directions))


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
    inner = x[:-1] @ y[1:] - y[:-1] @ x[1:]
    return float(inner + x[-1] * y[0] - y[-1] * x[0]) / 2


class GeoJson:
    """A GeoJSON FeatureCollection (RFC 7946) that is written feature by feature, a line each.

    RFC 7946 knows degrees of WGS 84 alone. Coordinates here are pixels, or those of the image's own
    map, which "crs" names as in GeoJSON 2008. QGIS and GDAL read "crs", other programs ignore it.

    Args:
        path: The file, which appears whole at the end of the block or not at all.
        matrix: (a, b, c, d, e, f): x = a column + b row + c, y = d column + e row + f on a map.
            None leaves pixels, as QuPath reads them.
        epsg: Number of the map's coordinate system; None where it is not known.

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full or read-only, and the like.
    """

    def __init__(
        self, path: Path, matrix: Sequence[float] | None = None, epsg: int | None = None
    ) -> None:
        self._path, self._matrix, self._epsg = path, matrix, epsg
        self._stack = ExitStack()
        self._between = b"\n"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._file = stack.enter_context(files.writing(self._path))
            self._file.write(b'{"type":"FeatureCollection",')
            if self._epsg is not None:
                name = {"name": f"urn:ogc:def:crs:EPSG::{self._epsg}"}
                self._file.write(b'"crs":' + _json({"type": "name", "properties": name}) + b",")
            self._file.write(b'"features":[')
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._file.write(b"\n]}\n")
        self._stack.__exit__(*error)

    def add(
        self, number: int, polygons: Sequence[Sequence[Ring]], properties: Mapping[str, Any]
    ) -> None:
        """Write an object: its number, polygons as `Outlining` yields them, and properties."""
        parts = [[_placed(ring, self._matrix) for ring in rings] for rings in polygons]
        feature = {
            "type": "Feature",
            "id": number,
            "geometry": _geometry(parts),
            "properties": properties,
        }
        self._file.write(self._between + _json(feature))
        self._between = b",\n"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


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
