"""Touching objects told apart: from a mask to a label image, in which each object has a number.

A network says which class a pixel has, not which object. Two discs that touch are one area of one
class, and the distance to the outline of that area shows where they meet::

    area             distance        basins
    . # # . # # .    . 1 1 . 1 1 .   . 1 1 . 2 2 .
    # # # # # # #    1 2 2 1 2 2 1   1 1 1 1 2 2 2      each pixel climbs to its highest neighbour,
    # # # # # # #    1 2 2 1 2 2 1   1 1 1 1 2 2 2      until it stands on a peak: a peak's pixels
    . # # . # # .    . 1 1 . 1 1 .   . 1 1 . 2 2 .      are its basin

Two basins stay apart where the saddle between them is clearly lower than their lower peak; else
they are one object. Where the model has learned the border of objects as a class of its own, the
insides are parted in this way. A pixel of the border lies lower the farther it is from an inside,
so it climbs to the nearest one. Fewer than four pixels of border without an inside are no object.

Heights depend on the pixels around, and a climb is a chain of single steps. So an image of any size
is done tile by tile. A climb that leaves its tile goes on where it arrived in the next tile. So the
objects are the same for every size of a tile.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.errors import InputError, arg
from unetseg.progress import Note, OnProgress, silent, steps
from unetseg.text import nearest, show

BORDER = "border"  # the class that `unetseg convert --instances` makes
BACKGROUND = "background"
FOREGROUND = "foreground"  # the class beside it where masks are black and white, or number objects
# A neck parts two objects where it is narrower than this share of the thinner object. Touching
# discs of one radius are parted until their centres are closer than 1.4 radii.
_NECK = 0.8
# Between the insides of objects with a learned border only a clear neck is a gap in that border.
_GAP = 0.5
_SPECK = 4  # pixels of border without an inside, from which they are an object
_TILE = 2048  # pixels along a side: 300 MB at once
_DEEPEST = 256  # pixels: longer distances count as this one, so that no tile must see farther
_SMOOTH = 4  # pixels to each side over which a height is smoothed
_LOWEST = np.float32(-np.inf)  # the height of pixels of no object


@dataclass(frozen=True)
class Objects:
    """The objects of one image.

    Attributes:
        numbers: (H, W) int32, 1 to n over all classes whose objects were told apart; 0 elsewhere.
        kinds: (n,) the class of object 1, 2, ..., n.
        areas: (n,) their pixels.
        classes: The classes whose objects were told apart.
    """

    numbers: NDArray[np.int32]
    kinds: NDArray[np.int64]
    areas: NDArray[np.int64]
    classes: tuple[int, ...]

    def of(self, kind: int) -> NDArray[np.int32]:
        """Return the label image of the objects of one class."""
        kept = np.append(False, self.kinds == kind)
        return np.where(kept[self.numbers], self.numbers, 0).astype(np.int32)


def is_border(name: str) -> bool:
    """Tell whether a class of this name is the border of objects."""
    return name == BORDER or name.endswith(f" {BORDER}")


def background_of(table: ClassTable) -> str | None:
    """Return the class that is the background; None where no class is known to be it.

    It is the class of that name, else the class of value 0, or of black where masks are colours.
    """
    named = [name for name in table.names if name.lower() == BACKGROUND]
    dark = [name for k, name in enumerate(table.names) if table.key(k) in (0, "#000000")]
    return next(iter(named + dark), None)


def with_objects(table: ClassTable) -> list[str]:
    """Return the names of all classes but the background and borders."""
    apart = background_of(table)
    return [name for name in table.names if name != apart and not is_border(name)]


def object_classes(
    table: ClassTable, names: Sequence[str], on_progress: OnProgress = silent
) -> dict[int, int | None]:
    """Return the classes whose objects are asked for, and the class of the border of each.

    The border of a class "cell" is a class "cell border". A class "border" is the border of the
    only class with objects; among several classes nobody could say whose border a pixel is.

    Args:
        table: The classes of the model.
        names: Names of classes; "all" stands for each but the background and borders.
        on_progress: Receives a `Note` where the background is known by its value alone.

    Raises:
        InputError: No such class, or a border; the message names the nearest. Or "all" is asked
            for where no class is known to be the background.
    """
    known = [name for name in table.names if not is_border(name)]
    others = with_objects(table)
    if list(names) == ["all"] and "all" not in known:
        apart, names = background_of(table), others
        if apart is None:
            text = f"'all' may hold the background: no class is called {BACKGROUND}, or has value 0"
            raise InputError(arg("objects"), text, f"name some of {', '.join(map(show, known))}")
        if apart.lower() != BACKGROUND:
            text = f"class {show(apart)} is taken for the background: it has no objects"
            on_progress(Note(f"{text}; {arg('objects', apart)} numbers its pieces"))
    found = {}
    for name in names:
        if name not in known:
            remedy = f"{nearest(name, known)}the classes are {', '.join(known)}"
            raise InputError(arg("objects"), f"{name!r} is no class with objects", remedy)
        possible = [f"{name} {BORDER}", *([BORDER] if others == [name] else [])]
        borders = [border for border in possible if border in table.names]
        found[table.names.index(name)] = table.names.index(borders[0]) if borders else None
    return found


def find_objects(
    labels: NDArray[np.uint8],
    classes: Mapping[int, int | None],
    confidence: NDArray[np.uint8] | None = None,
    *,
    numbers: NDArray[np.int32] | None = None,
    tile: int = _TILE,
    on_progress: OnProgress = silent,
    check: Callable[[], None] = lambda: None,
) -> Objects:
    """Number the objects of some classes, also where they touch.

    Distances over 256 pixels count as 256, so necks of wider objects are judged by that.

    Args:
        labels: (H, W) class indices, 255 ignored; may be a file that is mapped into memory.
        classes: The classes and borders that `object_classes` returns. The pixels of a border
            become pixels of the objects that they surround.
        confidence: (H, W) probability of each pixel's class, 0 to 255. A dip in it marks a contact
            of two objects even where the outline shows no neck.
        numbers: (H, W) zeros, which take the numbers; None makes a new array.
        tile: Pixels along a side of a tile. The result does not depend on it.
        on_progress: Receives `Progress`.
        check: Called before each tile; may raise to stop.

    Returns:
        The objects: class after class, and within a class from top to bottom.
    """
    if numbers is None:
        numbers = np.zeros(labels.shape, np.int32)
    basins, tiles = _Basins(numbers), list(_tiles(labels.shape, tile))
    for rows, columns in steps(tiles, "telling objects apart", "tiles", on_progress, check=check):
        for kind, border in classes.items():
            height = _height_of(labels, kind, border, confidence, rows, columns)
            if height is not None:
                basins.add(height, kind, (rows.start, columns.start))
    number_of, kinds, areas = basins.objects(classes)
    for rows, columns in tiles:
        numbers[rows, columns] = number_of[numbers[rows, columns]]
    return Objects(numbers, kinds, areas, tuple(classes))


def _tiles(shape: Sequence[int], tile: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of tiles that lie side by side and cover an image."""
    for top in range(0, shape[0], tile):
        for left in range(0, shape[1], tile):
            yield (
                slice(top, min(top + tile, shape[0])),
                slice(left, min(left + tile, shape[1])),
            )


# --- heights ---------------------------------------------------------------------------------


def _height_of(
    labels: NDArray[np.uint8],
    kind: int,
    border: int | None,
    confidence: NDArray[np.uint8] | None,
    rows: slice,
    columns: slice,
) -> NDArray[np.float32] | None:
    """Return the heights of a tile and of one pixel around it; None where no object is.

    Args:
        labels: (H, W) class indices of the whole image.
        kind: Class of the objects.
        border: Class of their borders.
        confidence: (H, W) confidence of the whole image.
        rows: Rows of the tile.
        columns: Columns of the tile.

    Returns:
        (rows + 2, columns + 2): `_LOWEST` where no object is, and outside the image.
    """
    around = 1 + _SMOOTH + _DEEPEST
    seen, inner = [], []
    for part, size in zip((rows, columns), labels.shape, strict=True):
        start, stop = max(0, part.start - around), min(size, part.stop + around)
        seen.append(slice(start, stop))
        inner.append(slice(part.start - start, part.stop - start + 2))  # of a tile padded by one
    window = labels[tuple(seen)]
    inside = np.asarray(window == kind)
    edge = None if border is None else np.asarray(window == border)
    if not inside.any() and (edge is None or not edge.any()):
        return None
    sure = None if confidence is None else np.asarray(confidence[tuple(seen)])
    height = _heights(inside, edge, sure)
    return np.pad(height, 1, constant_values=_LOWEST)[tuple(inner)]


def _heights(
    inside: NDArray[np.bool_],
    edge: NDArray[np.bool_] | None,
    confidence: NDArray[np.uint8] | None,
) -> NDArray[np.float32]:
    """Return the (H, W) heights that pixels climb.

    They are above 0 inside objects, below 0 in borders and `_LOWEST` elsewhere. Inside, a height is
    the smoothed distance to the outline, times the confidence where there is one.
    """
    from scipy import ndimage

    deep = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    # Distances between pixels come in steps; smoothed, a ragged outline has no peaks of its own.
    height = np.minimum(deep, _DEEPEST).astype(np.float32)
    height = ndimage.gaussian_filter(height, 1, radius=_SMOOTH)
    if confidence is not None:
        mean = np.full((3, 3), 1 / (9 * 255), np.float32)
        height *= ndimage.convolve(confidence.astype(np.float32), mean)
    low: NDArray[np.float32] = np.full(inside.shape, _LOWEST, np.float32)
    if edge is not None:
        low[edge] = -_DEEPEST
        if inside.any():
            far = ndimage.distance_transform_edt(~inside)
            low[edge] = -np.minimum(far[edge], _DEEPEST)
    return np.where(inside, height, low)


# --- basins ----------------------------------------------------------------------------------


@dataclass
class _Ends:
    """The ends of the climbs of a tile, a row for each end: a peak, or a pixel outside the tile.

    Attributes:
        kind: (n,) the class.
        height: (n,) float32, the height of the pixel.
        place: (n,) the pixel, counted row after row over the whole image.
        is_outside: (n,) whether it belongs to another tile, in which the climb goes on.
        area: (n,) pixels of this tile that climb to it.
        first: (n,) the first of them, counted like ``place``.
    """

    kind: NDArray[np.int64]
    height: NDArray[np.float32]
    place: NDArray[np.int64]
    is_outside: NDArray[np.bool_]
    area: NDArray[np.int64]
    first: NDArray[np.int64]


class _Basins:
    """Gathers the basins of all tiles, and joins those of one object.

    Args:
        numbers: (H, W) takes the provisional number of each pixel's basin, from 1.
    """

    def __init__(self, numbers: NDArray[np.int32]) -> None:
        self._numbers, self._count = numbers, 0
        self._ends: list[_Ends] = []
        self._pairs: list[NDArray[np.int64]] = []
        self._saddles: list[NDArray[np.float32]] = []

    def add(self, height: NDArray[np.float32], kind: int, corner: tuple[int, int]) -> None:
        """Take the heights of a tile and of one pixel around it.

        Args:
            height: The heights that `_height_of` returns.
            kind: The class.
            corner: First row and first column of the tile.
        """
        end_of = _climb(height)
        places = np.flatnonzero(height > _LOWEST)
        is_end = np.zeros(height.size, bool)
        is_end[end_of[places]] = True
        ends = np.flatnonzero(is_end)
        number_at = np.zeros(height.size, np.int32)
        number_at[ends] = np.arange(1, len(ends) + 1)
        basins = np.zeros(height.shape, np.int32)
        basins.ravel()[places] = number_at[end_of[places]]

        pairs, saddles = _saddles(basins, height)
        self._pairs.append(pairs + self._count)
        self._saddles.append(saddles)
        mine = basins[1:-1, 1:-1]
        rows, columns = (slice(c, c + n) for c, n in zip(corner, mine.shape, strict=True))
        self._numbers[rows, columns] += np.where(mine > 0, mine + self._count, 0).astype(np.int32)

        row, column = np.divmod(ends, height.shape[1])
        is_outside = (row == 0) | (row == mine.shape[0] + 1)
        is_outside |= (column == 0) | (column == mine.shape[1] + 1)
        width = self._numbers.shape[1]
        own = np.flatnonzero(mine)
        first = np.full(len(ends), self._numbers.size, np.int64)
        y, x = np.divmod(own[::-1], mine.shape[1])
        first[mine.ravel()[own[::-1]] - 1] = (
            (y + corner[0]) * width + x + corner[1]
        )  # the first pixel
        self._ends.append(
            _Ends(
                np.full(len(ends), kind),
                height.ravel()[ends],
                (row - 1 + corner[0]) * width + column - 1 + corner[1],
                is_outside,
                np.bincount(mine.ravel()[own] - 1, minlength=len(ends)),
                first,
            )
        )
        self._count += len(ends)

    def objects(
        self, classes: Mapping[int, int | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Join the provisional numbers that are one object.

        Returns:
            (count + 1,) the final number of each provisional one; class and area of each object.
        """
        if not self._count:
            return np.zeros(1, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64)
        fields = [f.name for f in dataclasses.fields(_Ends)]
        all_ = _Ends(*(np.concatenate([getattr(e, name) for e in self._ends]) for name in fields))
        root = self._peaks(all_)
        neck = np.array([_NECK if classes[int(k)] is None else _GAP for k in all_.kind])
        # Equal saddles are taken in the order of their peaks' places, which no tiling changes.
        order = np.argsort(all_.place, kind="stable")
        rank = np.argsort(order, kind="stable")
        pairs = rank[root[np.concatenate(self._pairs) - 1]]
        saddles = np.concatenate(self._saddles)
        root = order[_merged(pairs, saddles, all_.height[order], neck[order])[rank[root]]]

        area = np.bincount(root, all_.area, self._count).astype(np.int64)
        first = np.full(self._count, self._numbers.size, np.int64)
        np.minimum.at(first, root, all_.first)
        top = np.full(self._count, _LOWEST)
        np.maximum.at(top, root, all_.height)
        found = np.flatnonzero((area >= _SPECK) | ((area > 0) & (top >= 0)))
        place_of = {kind: place for place, kind in enumerate(classes)}
        turn = np.array([place_of[int(k)] for k in all_.kind[found]], np.int64)
        found = found[np.lexsort((first[found], turn))]
        number = np.zeros(self._count, np.int32)
        number[found] = np.arange(1, len(found) + 1)
        return np.append(np.int32(0), number[root]), all_.kind[found], area[found]

    def _peaks(self, ends: _Ends) -> NDArray[np.int64]:
        """Return for each end, from 0, the peak at which its climb ends, in any tile."""
        root = np.arange(self._count)
        outside = np.flatnonzero(ends.is_outside)
        # A class that lies outside a tile lies in the next one, at the same pixel.
        root[outside] = self._numbers.reshape(-1)[ends.place[outside]] - 1
        while not np.array_equal(further := root[root], root):
            root = further
        return root


def _climb(height: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return for each pixel, counted row after row, the pixel at which its climb ends.

    Among equally high neighbours the first is taken, so that a plateau has a peak, too. Pixels at
    the edge of the array, and those of no object, stay where they are.
    """
    flat, width = height.ravel(), height.shape[1]
    core = np.zeros(height.shape, bool)
    core[1:-1, 1:-1] = height[1:-1, 1:-1] > _LOWEST
    here = np.flatnonzero(core)
    best, target = np.full(len(here), _LOWEST), here.copy()
    for step in (-width - 1, -width, -width + 1, -1, 0, 1, width - 1, width, width + 1):
        level = flat[here + step]
        higher = level > best
        best[higher] = level[higher]
        target[higher] = here[higher] + step
    end_of = np.arange(flat.size)
    end_of[here] = target
    while not np.array_equal(further := end_of[target], target):
        end_of[here] = target = further
    return end_of


def _saddles(
    basins: NDArray[np.int32], height: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return (n, 2) pairs of basins that touch, and the height of the saddle between them."""
    pairs, heights = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here, there = _shifted(basins, down, right)
        both = (here != there) & (here > 0) & (there > 0)
        low, high = _shifted(height, down, right)
        pairs.append(np.sort(np.stack([here[both], there[both]], 1), axis=1))
        heights.append(np.minimum(low[both], high[both]))
    return _highest(np.concatenate(pairs).astype(np.int64), np.concatenate(heights))


def _highest(
    pairs: NDArray[np.int64], heights: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each pair once, with its highest saddle; the highest of all comes first."""
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -heights))
    pairs, heights = pairs[order], heights[order]
    key = pairs[:, 0] * (pairs.max(initial=0) + 1) + pairs[:, 1]
    kept = np.sort(np.unique(key, return_index=True)[1])
    return pairs[kept], heights[kept]


def _shifted(values: NDArray[Any], down: int, right: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two views of (H, W) values, the second one that many rows and columns further on."""
    height, width = values.shape
    start, end = max(0, -right), width - max(0, right)
    return (
        values[: height - down, start:end],
        values[down:, start + right : end + right],
    )


def _merged(
    pairs: NDArray[np.int64],
    saddles: NDArray[np.float32],
    tops: NDArray[np.float32],
    necks: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Join basins whose saddle is hardly lower than the lower of their peaks.

    Args:
        pairs: (n, 2) basins that touch.
        saddles: (n,) the height between them.
        tops: Height of the peak of each basin.
        necks: The limit of each basin: it stays apart where saddle / peak is below this.

    Returns:
        The highest basin of each basin's object.
    """
    apart = pairs[:, 0] != pairs[:, 1]
    pairs, saddles = _highest(np.sort(pairs[apart], axis=1), saddles[apart])
    group, top, neck = list(range(len(tops))), tops.tolist(), necks.tolist()

    def root(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    for (one, other), saddle in zip(pairs.tolist(), saddles.tolist(), strict=True):
        one, other = root(one), root(other)
        low, high = (one, other) if top[one] <= top[other] else (other, one)
        # A basin below 0 is a piece of a border that climbs to no inside.
        if one != other and (saddle >= neck[low] * top[low] or top[low] < 0):
            group[low] = high
    return np.array([root(number) for number in range(len(group))], np.int64)
