"""How well the probability of a class tells its pixels from all others, at every threshold.

The probability is put into narrow bins, and each bin counts the pixels that are of the class and
those that are not. So memory does not grow with the images, and images add up. Pixels of one bin
count as equal.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unetseg.classes import IGNORED
from unetseg.ranks import world
from unetseg.results import Table
from unetseg.text import cut

# Bins are equally wide on the scale of ``log(p / (1 - p))``, where probabilities near 0 and 1 stay
# apart. float32 tells apart probabilities down to 1e-45, and up to 1 - 6e-8.
_BINS, _LOW, _HIGH = 16384, -103.5, 16.7
_SHOWN = 200  # points of a curve to draw

AREAS = ("roc_auc", "average_precision")  # the fields of `Areas`


@dataclass(frozen=True)
class Areas:
    """The areas under the two curves of a class.

    Attributes:
        roc_auc: The area under the receiver operating characteristic, 0 to 1, by trapezoids.
        average_precision: The area under the precision-recall curve, 0 to 1: the mean of the
            precision over the recall, without interpolation.
    """

    roc_auc: float
    average_precision: float


@dataclass(frozen=True)
class Curve:
    """The two curves of a class, thinned for drawing.

    Attributes:
        areas: The areas under the whole curves.
        roc: Points (1 - specificity, recall), from (0, 0) to (1, 1).
        precision_recall: Points (recall, precision), recall ascending.
    """

    areas: Areas
    roc: tuple[tuple[float, float], ...]
    precision_recall: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curves:
    """Curves of several images.

    Attributes:
        pooled: The curve of each class over the scored pixels of all images; None for a class that
            no pixel has, or that all have.
        images: The areas of each image, in order and by class name, None as above.
    """

    pooled: dict[str, Curve | None]
    images: tuple[dict[str, Areas | None], ...]

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """Return the pooled areas as plain types for JSON, null where undefined."""
        return {
            key: {
                name: None if curve is None else getattr(curve.areas, key)
                for name, curve in self.pooled.items()
            }
            for key in AREAS
        }

    def table(self) -> Table:
        """Return the areas under the curves of each class."""
        areas = self.to_dict()
        rows = [(cut(name), *(areas[key][name] for key in areas)) for name in self.pooled]
        note = "over all scored pixels, each class against the others"
        return Table(
            "Curves", ["class", "area under ROC", "area under precision-recall"], rows, note
        )


def count_probabilities(
    probabilities: NDArray[np.float32], truth: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Count pixels by the probability of each class, and by whether they are of the class.

    Args:
        probabilities: ``(C, ...)``, 0 to 1.
        truth: ``(...)`` class indices, 255 ignored.

    Returns:
        ``(C, 2, bins)`` int64: first the pixels of other classes, then those of the class. Counts
        of parts add up to those of all.
    """
    known = truth != IGNORED
    labels = truth[known]
    counts = np.zeros((len(probabilities), 2, _BINS), np.int64)
    for kind, plane in enumerate(probabilities):
        p = plane[known].astype(np.float64)
        with np.errstate(divide="ignore"):
            logits = np.log(p) - np.log1p(-p)
        share = (np.clip(logits, _LOW, _HIGH) - _LOW) / (_HIGH - _LOW)
        bins = np.minimum((share * _BINS).astype(np.int64), _BINS - 1)
        pairs = np.bincount(bins + _BINS * (labels == kind), minlength=2 * _BINS)
        counts[kind] = pairs.reshape(2, _BINS)
    return counts


class CurveCounts:
    """Adds up the counts of several images, and finds the areas of each.

    Args:
        classes: Names of the classes, in order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._pooled = np.zeros((len(classes), 2, _BINS), np.int64)
        self._areas: list[list[Any]] = []  # by image and class: both areas, or None

    def add(self, counts: NDArray[np.int64]) -> None:
        """Take the counts of `count_probabilities` for an image."""
        self._pooled += counts
        found = (_curve(*of_class) for of_class in counts)
        self._areas.append([one and astuple(one.areas) for one in found])

    def curves(self) -> Curves:
        """Return the curves of the images of all processes, which share them by `own_items`."""
        pooled = world().concatenate(torch.from_numpy(self._pooled)[None]).sum(0).numpy()
        images = (
            {
                name: None if one is None else Areas(*one)
                for name, one in zip(self._classes, areas, strict=True)
            }
            for areas in world().collect(self._areas)
        )
        return Curves(_by_class(pooled, self._classes), tuple(images))


def _by_class(counts: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Curve | None]:
    return {name: _curve(*of_class) for name, of_class in zip(classes, counts, strict=True)}


def _curve(others: NDArray[Any], own: NDArray[Any]) -> Curve | None:
    """Return the curve of a class from its two histograms, by ascending probability."""
    total, rest = int(own.sum()), int(others.sum())
    if not total or not rest:
        return None
    filled = (own + others)[::-1] > 0  # from the surest on
    found, wrong = own[::-1].cumsum()[filled], others[::-1].cumsum()[filled]
    recall, fall_out = found / total, wrong / rest
    precision = found / (found + wrong)
    x, y = np.concatenate([[0.0], fall_out]), np.concatenate([[0.0], recall])
    areas = Areas(
        roc_auc=float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum()),
        average_precision=float((np.diff(y) * precision).sum()),
    )
    return Curve(areas, _thin(x, y), _thin(recall, precision))


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Return points of a line, so many that nobody would see more; both ends are among them."""
    length = np.concatenate([[0.0], np.hypot(np.diff(x), np.diff(y)).cumsum()])
    chosen = np.searchsorted(length, np.linspace(0, length[-1], _SHOWN))
    places = np.unique(np.append(chosen, len(x) - 1).clip(max=len(x) - 1))
    return tuple(zip(x[places].tolist(), y[places].tolist(), strict=True))
