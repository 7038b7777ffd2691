"""Rules that mend a mask once it is predicted: holes filled, small objects and stray ones gone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED
from unetseg.prediction.objects import label_objects


@dataclass(frozen=True)
class PostProcessing:
    """What `clean` does; without any rule, nothing.

    Attributes:
        largest: Indices of the classes of which only the largest object stays.
        min_size: Objects of fewer pixels go, of whatever class; 0 and 1 keep all.
        fill_holes: Indices of the classes whose holes are filled.

    Raises:
        ValueError: An index that no class can have, or a negative size.
    """

    largest: tuple[int, ...] = ()
    min_size: int = 0
    fill_holes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not all(0 <= k < IGNORED for k in (*self.largest, *self.fill_holes)):
            raise ValueError(f"class index outside 0..{IGNORED - 1}")
        if self.min_size < 0:
            raise ValueError(f"a least size of {self.min_size} pixels")


def clean(labels: NDArray[np.uint8], rules: PostProcessing) -> NDArray[np.uint8]:
    """Return a mask mended by ``rules``, each applied once.

    In this order:

    1. ``fill_holes``, class after class as they are named. A hole is an area without the class from
       which no path of pixels that touch by their sides leads to the image's edge. It is filled
       first, so that an object's size counts with its holes.
    2. ``largest``: of each class that is named, all objects but the largest lose their class; of
       several as large, the one that begins highest, then leftmost, stays.
    3. ``min_size``: objects of fewer pixels lose their class, also where they are the largest.

    What has lost its class takes that of the nearest pixel that has kept its own (Euclidean
    distance between centres; which of several as near is not said, but always the same one). Where
    no pixel would keep its class, none loses it. Ignored pixels stay ignored, are of no object, and
    give no class; across them a pixel may get a class that no object beside it has.

    Objects are 8-connected and holes 4-connected, as only unlike pairs agree on what a closed curve
    encloses (Rosenfeld, 1970, "Connectivity in digital pictures"): an outline whose pixels touch by
    corners alone is one object, and closed.

    Args:
        labels: (H, W) class indices, 255 ignored; left as it is.
        rules: What to do.

    Returns:
        (H, W) uint8; without rules ``labels`` itself. While it is made, about 30 bytes a pixel are
        held.
    """
    for kind in rules.fill_holes:
        labels = np.where(_holes(labels == kind) & (labels != IGNORED), np.uint8(kind), labels)
    if not rules.largest and rules.min_size <= 1:
        return labels
    lost = _lost(labels, rules)
    kept = ~lost & (labels != IGNORED)
    return _from_nearest(labels, lost, kept) if lost.any() and kept.any() else labels


def _holes(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what a region encloses: the 4-connected areas outside it that reach no edge."""
    from scipy import ndimage

    numbers, count = ndimage.label(~region)
    enclosed = np.ones(count + 1, bool)
    for edge in (numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]):
        enclosed[edge] = False
    enclosed[0] = False  # the region itself
    holes: NDArray[np.bool_] = enclosed[numbers]
    return holes


def _lost(labels: NDArray[np.uint8], rules: PostProcessing) -> NDArray[np.bool_]:
    """Return the pixels of the objects that go."""
    numbers, kinds = label_objects(labels)
    areas = np.bincount(numbers.ravel(), minlength=len(kinds) + 1)
    goes = areas < rules.min_size
    for kind in rules.largest:
        own = np.flatnonzero(kinds == kind) + 1
        if len(own):
            goes[np.delete(own, areas[own].argmax())] = True
    goes[0] = False  # ignored pixels
    return goes[numbers]


def _from_nearest(
    labels: NDArray[np.uint8], lost: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Return ``labels`` where the ``lost`` pixels have the class of their nearest ``kept`` one."""
    from scipy import ndimage

    rows, columns = ndimage.distance_transform_edt(
        ~kept, return_distances=False, return_indices=True
    )
    result = labels.copy()
    result[lost] = labels[rows[lost], columns[lost]]
    return result
