"""The objects of a mask: connected areas of one class, numbered, counted and mended.

Pixels of one class belong to one object where they touch, by a side or a corner (8-connected)::

    1 0 0 2      class 1: one object of 2 pixels
    0 1 0 2      class 2: one object of 3 pixels
    0 0 2 0      class 0: one object of 7 pixels
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED


def label_objects(
    labels: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number the objects of a mask.

    Each row is divided into runs of one class, and runs that touch runs of the row above are
    joined. One pass does this for all classes. Time and memory grow with the number of runs.

    Args:
        labels: (H, W) class indices, 255 ignored.

    Returns:
        (H, W) int32: the number of each pixel's object, from 1; 0 where the pixel is ignored.
        (n,) int64: the class of object 1, 2, ..., n, ascending.
    """
    flat, width = labels.ravel(), labels.shape[1]
    first = np.ones(flat.size, bool)  # marks the pixels at which a run begins
    np.not_equal(flat[1:], flat[:-1], out=first[1:])
    first[::width] = True
    begins = np.flatnonzero(first)
    lengths = np.diff(begins, append=flat.size)
    kinds = flat[begins].astype(np.int64)
    joined = _join(_runs_that_touch(begins, lengths, kinds, width), len(begins))
    # Objects are numbered from 1 by their class, and within a class by their first run.
    counted = kinds != IGNORED
    kind_of = np.zeros(joined.max(initial=-1) + 1, np.int64)
    kind_of[joined] = kinds
    kept = np.unique(joined[counted])
    order = kept[np.argsort(kind_of[kept], kind="stable")]
    number_of = np.zeros(len(kind_of), np.int32)
    number_of[order] = np.arange(1, len(order) + 1)
    return np.repeat(number_of[joined], lengths).reshape(labels.shape), kind_of[order]


def _runs_that_touch(
    begins: NDArray[np.int64], lengths: NDArray[np.int64], kinds: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Return the pairs (n, 2) of runs of one class that touch across two neighbouring rows.

    Args:
        begins: The first pixel of each run, counted row after row, ascending.
        lengths: The lengths of the runs.
        kinds: The classes of the runs.
        width: The number of pixels in a row.
    """
    ends = begins + lengths - 1
    edge = begins - begins % width  # the first pixel of the row
    above = np.searchsorted(ends, np.maximum(begins - 1, edge) - width)
    behind = np.searchsorted(begins, np.minimum(ends + 1, edge + width - 1) - width, "right")
    counts = np.where(edge > 0, behind - above, 0)
    lower = np.repeat(np.arange(len(begins)), counts)
    upper = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - above, counts)
    alike = kinds[lower] == kinds[upper]
    return np.stack([upper[alike], lower[alike]], 1)


class ObjectCounter:
    """Measures the areas of all objects of a mask that comes in bands from top to bottom.

    It keeps one number for each object, and the lowest row, with which the next band may join.

    Args:
        classes: The number of classes K, 1 to 255.
    """

    def __init__(self, classes: int) -> None:
        self._ended: list[list[NDArray[np.int64]]] = [[] for _ in range(classes)]
        # An object is open while it reaches the lowest row. For each pixel of that row: the number
        # of its open object, -1 for none. Beside it the areas and classes of the open objects.
        self._row: NDArray[np.int64] | None = None
        self._open_areas = self._open_kinds = np.zeros(0, np.int64)

    def add(self, band: NDArray[np.uint8]) -> None:
        """Count the next rows of the mask.

        Args:
            band: (rows, W) class indices below K, 255 ignored; at least one row.

        Raises:
            ValueError: The width differs from earlier bands, the band is empty, or an index is no
                class.
        """
        width = band.shape[1] if self._row is None else len(self._row)
        if not len(band) or band.shape[1] != width:
            raise ValueError(f"a band {band.shape} does not go on a mask {width} wide")
        numbers, kinds = label_objects(band)
        if len(kinds) and kinds[-1] >= len(self._ended):
            raise ValueError(f"class index outside 0..{len(self._ended) - 1}")
        areas = np.append(self._open_areas, np.bincount(numbers[numbers > 0] - 1))
        kinds = np.append(self._open_kinds, kinds)
        edges = numbers[[0, -1]].astype(np.int64)
        first, last = np.where(edges > 0, edges - 1 + len(self._open_kinds), -1)
        joined = _join(_touching(self._row, first, kinds), len(kinds))
        merged = np.zeros(joined.max(initial=-1) + 1, np.int64)
        np.add.at(merged, joined, areas)
        kind_of = np.zeros_like(merged)
        kind_of[joined] = kinds
        self._keep_open(np.append(joined, -1)[last], merged, kind_of)

    def _keep_open(
        self, row: NDArray[np.int64], areas: NDArray[np.int64], kinds: NDArray[np.int64]
    ) -> None:
        """Take ``row`` as the lowest row, and store the areas of objects that do not reach it."""
        ended = np.ones(len(areas), bool)
        ended[row[row >= 0]] = False
        for kind in np.unique(kinds[ended]):
            self._ended[kind].append(areas[ended & (kinds == kind)])
        self._row = np.append(np.cumsum(~ended) - 1, -1)[row]
        self._open_areas, self._open_kinds = areas[~ended], kinds[~ended]

    def areas(self) -> list[NDArray[np.int64]]:
        """Return the areas of the objects of each class in pixels, K arrays (n,), ascending."""
        found = []
        for kind, ended in enumerate(self._ended):
            still = self._open_areas[self._open_kinds == kind]
            found.append(np.sort(np.concatenate([*ended, still])))
        return found


def _touching(
    above: NDArray[np.int64] | None, below: NDArray[np.int64], kinds: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the pairs (n, 2) of objects of one class that touch where two rows meet.

    Args:
        above: (W,) the object of each pixel of the upper row, -1 for none; None for no such row.
        below: (W,) the object of each pixel of the lower row.
        kinds: The class of each object.
    """
    if above is None:
        return np.zeros((0, 2), np.int64)
    padded = np.pad(above, 1, constant_values=-1)
    neighbours = [padded[start : start + len(below)] for start in range(3)]
    pairs = np.concatenate([np.stack([row, below], 1) for row in neighbours])
    pairs = pairs[(pairs >= 0).all(1)]
    alike: NDArray[np.int64] = pairs[kinds[pairs[:, 0]] == kinds[pairs[:, 1]]]
    return alike


def _join(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return for each of ``count`` parts the number, from 0, of its object.

    ``pairs`` are parts that touch. The parts of an object become a tree; at first, each part is a
    tree of its own. Each round hangs the later root of every pair below the earlier root, and then
    shortens all paths to the roots. The number of rounds grows with the logarithm of the largest
    object (Shiloach, Vishkin, 1982, "An O(log n) parallel connectivity algorithm"). scipy's
    `connected_components` does the same, but its import takes about 0.4 s.
    """
    root = np.arange(count)
    while len(pairs):
        low, high = np.sort(root[pairs], 1).T
        np.minimum.at(root, high, low)
        while not np.array_equal(shorter := root[root], root):
            root = shorter
        pairs = pairs[root[pairs[:, 0]] != root[pairs[:, 1]]]
    joined: NDArray[np.int64] = np.unique(root, return_inverse=True)[1]
    return joined


# --- mending ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class PostProcessing:
    """The rules by which `clean` mends a mask. The defaults change nothing.

    Attributes:
        largest: Indices of the classes that keep only their largest object.
        min_size: Objects of any class with fewer pixels are removed; 0 and 1 keep all.
        fill_holes: Indices of the classes whose holes are filled.
        borders: Pairs of a class and the class of its objects' border, both of which are one
            object.

    Raises:
        ValueError: No class can have such an index, or the size is negative.
    """

    largest: tuple[int, ...] = ()
    min_size: int = 0
    fill_holes: tuple[int, ...] = ()
    borders: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not all(0 <= k < IGNORED for k in (*self.largest, *self.fill_holes)):
            raise ValueError(f"class index outside 0..{IGNORED - 1}")
        if self.min_size < 0:
            raise ValueError(f"a least size of {self.min_size} pixels")

    @property
    def changes_nothing(self) -> bool:
        """Whether every mask stays as it is."""
        return not self.largest and self.min_size <= 1 and not self.fill_holes


def clean(labels: NDArray[np.uint8], rules: PostProcessing) -> NDArray[np.uint8]:
    """Return a mask mended by ``rules``, each applied once.

    In this order:

    1. ``fill_holes`` fills the holes of the named classes, one class after the other. A hole is an
         area without the class that is cut off from the edge of the image. No path of pixels that
         touch by their sides leads there. Holes come first, so that they count for the size of an
         object. A class and the border of its objects are one area; a filled pixel takes the nearer
         of both.
    2. ``largest``: all objects of a named class but the largest lose their class. Among equally
         large objects, the object that begins highest, then leftmost, stays.
    3. ``min_size``: objects with fewer pixels lose their class, even where they are the largest.

    A pixel that lost its class takes the class of the nearest pixel that kept its own (Euclidean
    distance between centres). Ties are broken arbitrarily but deterministically. Where no pixel
    would keep its class, none loses it. Ignored pixels stay ignored, belong to no object, and give
    no class. Across them a pixel may get a class that no object beside it has.

    Objects are 8-connected and holes 4-connected. Only with such an unequal pair does a closed
    curve separate its inside from its outside (Rosenfeld, 1970, "Connectivity in digital
    pictures"). So an outline whose pixels touch by corners alone is one object, and it is closed.

    Args:
        labels: (H, W) class indices, 255 ignored; it is not changed.
        rules: The rules to apply.

    Returns:
        (H, W) uint8; without rules ``labels`` itself. The work takes about 30 bytes per pixel.
    """
    owner = np.arange(256, dtype=np.uint8)
    for kind, border in rules.borders:
        owner[border] = kind
    for kind in rules.fill_holes:
        region = owner[labels] == kind
        hole = _holes(region) & (labels != IGNORED)
        if hole.any():  # a gap between objects becomes border, a hole in one of them inside
            labels = _from_nearest(labels, hole, region)
    if not rules.largest and rules.min_size <= 1:
        return labels
    lost = _lost(owner[labels], rules)
    kept = ~lost & (labels != IGNORED)
    return _from_nearest(labels, lost, kept) if lost.any() and kept.any() else labels


def _holes(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the holes of a region: the 4-connected areas outside it that reach no edge."""
    from scipy import ndimage

    numbers, count = ndimage.label(~region)
    enclosed = np.ones(count + 1, bool)
    for edge in (numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]):
        enclosed[edge] = False
    enclosed[0] = False  # the region itself
    holes: NDArray[np.bool_] = enclosed[numbers]
    return holes


def _lost(labels: NDArray[np.uint8], rules: PostProcessing) -> NDArray[np.bool_]:
    """Return a mask of the pixels that lose their class."""
    numbers, kinds = label_objects(labels)
    areas = np.bincount(numbers.ravel(), minlength=len(kinds) + 1)
    goes = areas < rules.min_size
    for kind in rules.largest:
        own = np.flatnonzero(kinds == kind) + 1
        if len(own):
            goes[np.delete(own, areas[own].argmax())] = True
    goes[0] = False  # number 0 stands for ignored pixels
    return goes[numbers]


def _from_nearest(
    labels: NDArray[np.uint8], lost: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return ``labels``, in which ``lost`` pixels take the class of the nearest ``kept`` pixel."""
    from scipy import ndimage

    rows, columns = ndimage.distance_transform_edt(
        ~kept, return_distances=False, return_indices=True
    )
    result = labels.copy()
    result[lost] = labels[rows[lost], columns[lost]]
    return result
