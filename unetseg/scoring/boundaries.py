"""How far the borders of a predicted mask lie from the true ones, class by class, in pixels.

The IoU of a large object hardly moves when its border is a pixel off. A thin line that is a pixel
off loses all of its IoU. The two scores here compare borders alone. One is the share of them that
lies within a tolerance, the other the distance within which nearly all of them lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED
from unetseg.results import Table
from unetseg.text import cut


@dataclass(frozen=True)
class BoundaryScores:
    """The border scores of an image; every tuple has an entry per class.

    Attributes:
        tolerance: The tolerance in pixels.
        within: The number of border pixels of either mask within the tolerance of the other's
            border.
        total: The number of border pixels of both masks.
        distance: 95 % Hausdorff distance in pixels; infinite where only one of the masks holds the
            class, None where neither does.
    """

    tolerance: float
    within: tuple[int, ...]
    total: tuple[int, ...]
    distance: tuple[float | None, ...]

    @property
    def surface_dice(self) -> tuple[float | None, ...]:
        """The ratio ``within / total``, 0 to 1; 0 where one mask lacks the class, None for both."""
        return tuple(w / t if t else None for w, t in zip(self.within, self.total, strict=True))


@dataclass(frozen=True)
class Boundaries:
    """The border scores of several images; the keys of every dictionary are names of classes.

    Attributes:
        tolerance: The tolerance in pixels.
        surface_dice: Share of the border pixels of all images that lie within the tolerance, 0 to
            1; None for a class that no mask holds.
        mean_surface_dice: Mean of ``surface_dice`` over the classes that have one.
        distance: Median of the 95 % Hausdorff distance in pixels over the images in which either
            mask holds the class. None without such images. Infinite where at least half of these
            images have the class in one mask only.
        one_sided: The number of images where one of the masks, true or predicted, lacks the class.
        images: The scores of each image, in order.
    """

    tolerance: float
    surface_dice: dict[str, float | None]
    mean_surface_dice: float | None
    distance: dict[str, float | None]
    one_sided: dict[str, int]
    images: tuple[BoundaryScores, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON; an infinite distance is null, as JSON holds none."""
        return {
            "tolerance": self.tolerance,
            "surface_dice": self.surface_dice,
            "mean_surface_dice": self.mean_surface_dice,
            "hd95": {
                name: None if value is None or np.isinf(value) else value
                for name, value in self.distance.items()
            },
            "one_sided": self.one_sided,
        }

    def table(self) -> Table:
        """Return the distance of predicted borders from the true ones for each class."""
        rows = []
        for name, share in self.surface_dice.items():
            distance = self.distance[name]
            text = "one-sided" if distance == np.inf else distance and f"{distance:.1f}"
            rows.append((cut(name), share, text, str(self.one_sided[name])))
        columns = ["class", "surface Dice", "95 % Hausdorff", "images with it in one mask only"]
        note = "share of the border within the tolerance; distance in pixels, median over images"
        return Table(f"Borders, within {self.tolerance:g} pixels", columns, rows, note)


def boundary_scores(
    truth: NDArray[Any], prediction: NDArray[Any], classes: int, tolerance: float
) -> BoundaryScores:
    """Compare the borders of two masks.

    A border pixel of a class has a neighbour of another class, an ignored one, or none at the
    image's edge. The neighbours lie above, below, left and right. Ignored pixels have no class in
    either mask. So two masks that reach an ignored area have the same border there, and the
    prediction inside the area does not count. Distances are Euclidean, between centres of pixels.

    The normalised surface Dice counts the border pixels of both masks that lie within the tolerance
    of the other's border. It was defined by surface areas (Nikolov et al., 2021, "Clinically
    applicable segmentation of head and neck anatomy for radiotherapy"). The 95 % Hausdorff distance
    takes the 95th percentile, with linear interpolation, of the distances from each border to the
    other one. It is the larger of the two.

    Args:
        truth: ``(H, W)`` class indices, 255 ignored.
        prediction: ``(H, W)`` class indices, below ``classes`` where the truth is not ignored.
        classes: Number of classes.
        tolerance: The tolerance in pixels, 0 or more.

    Raises:
        ValueError: Shapes differ or are not 2-D, an index that is no class, a bad tolerance.

    Memory is bounded by the largest bounding box of a class: about 50 bytes for each of its pixels.
    """
    from scipy import ndimage

    if truth.shape != prediction.shape or truth.ndim != 2:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape}: not two masks")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"a tolerance of {tolerance}, not 0 or more")
    ignored = truth == IGNORED
    masks = [_numbered(mask, ignored, classes) for mask in (truth, prediction)]
    boxes = [ndimage.find_objects(mask, max_label=classes) for mask in masks]
    within, total, distance = [], [], []
    for number, found in enumerate(zip(*boxes, strict=True), start=1):
        box = _union([b for b in found if b is not None])
        borders = [_border(mask[box] == number) for mask in masks]
        counts = [int(border.sum()) for border in borders]
        total.append(sum(counts))
        if not all(counts):
            within.append(0)
            distance.append(float("inf") if any(counts) else None)
            continue
        there, back = _distances(*borders), _distances(*borders[::-1])
        within.append(int((there <= tolerance).sum() + (back <= tolerance).sum()))
        distance.append(float(max(np.percentile(there, 95), np.percentile(back, 95))))
    return BoundaryScores(tolerance, tuple(within), tuple(total), tuple(distance))


def pool_boundaries(images: Sequence[BoundaryScores], classes: Sequence[str]) -> Boundaries:
    """Return the border scores of all images together.

    Args:
        images: The scores of one or more images, all with the same tolerance.
        classes: Names of the classes, in order.

    Raises:
        ValueError: There is no image, or tolerances or numbers of classes differ.
    """
    if len({image.tolerance for image in images}) != 1:
        raise ValueError("all images need the same tolerance")
    if any(len(image.total) != len(classes) for image in images):
        raise ValueError(f"images of other than {len(classes)} classes")
    surface, distance, one_sided = {}, {}, {}
    for k, name in enumerate(classes):
        total = sum(image.total[k] for image in images)
        surface[name] = sum(image.within[k] for image in images) / total if total else None
        found = [d for image in images if (d := image.distance[k]) is not None]
        distance[name] = float(np.median(found)) if found else None
        one_sided[name] = sum(d == float("inf") for d in found)
    defined = [share for share in surface.values() if share is not None]
    mean = float(np.mean(defined)) if defined else None
    return Boundaries(images[0].tolerance, surface, mean, distance, one_sided, tuple(images))


def _numbered(mask: NDArray[Any], ignored: NDArray[np.bool_], classes: int) -> NDArray[np.int16]:
    """Return a mask with classes numbered from 1, and 0 where they are ignored."""
    numbers = mask.astype(np.int16) + np.int16(1)
    numbers[ignored] = 0
    if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) <= classes:
        raise ValueError(f"class index outside 0..{classes - 1}")
    return numbers


_Box = tuple[slice, ...]


def _union(boxes: list[_Box]) -> _Box:
    """Return the smallest box around all boxes; an empty box without boxes."""
    if not boxes:
        return (slice(0, 0), slice(0, 0))
    return tuple(
        slice(min(s.start for s in axis), max(s.stop for s in axis))
        for axis in zip(*boxes, strict=True)
    )


def _border(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a region with a neighbour outside; the array's surroundings are outside.

    So the box around a class may be cut out first, because no pixel beyond it has that class.
    """
    inner = np.zeros_like(region)
    inner[1:-1, 1:-1] = (
        region[1:-1, 1:-1]
        & region[:-2, 1:-1]
        & region[2:, 1:-1]
        & region[1:-1, :-2]
        & region[1:-1, 2:]
    )
    border: NDArray[np.bool_] = region & ~inner
    return border


def _distances(border: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of each pixel of a border to the nearest pixel of another border."""
    from scipy import ndimage

    distances: NDArray[np.float64] = ndimage.distance_transform_edt(~other)[border]
    return distances
