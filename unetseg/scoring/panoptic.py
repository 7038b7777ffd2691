"""Scores of objects instead of pixels: panoptic quality, F1, and how many were counted wrongly.

A true and a predicted object are a pair where their IoU is above a half; no object can be in two
such pairs. With the IoUs of the pairs (TP), the predicted objects left over (FP) and the true ones
left over (FN)::

    panoptic quality = sum of IoU / (TP + FP / 2 + FN / 2)       Kirillov et al., 2019
    F1               = TP         / (TP + FP / 2 + FN / 2)
    count error      = sum over images |predicted - true| / sum over images max(predicted, true)

All are ratios of sums over images, so `unetseg.scoring.intervals` says how sure they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.results import Cell, Table
from unetseg.scoring import intervals
from unetseg.scoring.metrics import ends_in_words
from unetseg.text import cut, plural

_MATCH = 0.5  # IoU above which two objects are a pair


@dataclass(frozen=True)
class Matches:
    """The objects of one class in one image.

    Attributes:
        iou: Sum of the IoUs of all pairs.
        pairs: Number of pairs.
        predicted: Number of predicted objects.
        true: Number of true objects.
    """

    iou: float
    pairs: int
    predicted: int
    true: int


def match_objects(
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    ignored: NDArray[np.bool_] | None = None,
) -> Matches:
    """Pair the objects of two label images.

    Args:
        truth: (H, W) numbers of the true objects, 0 where none is.
        predicted: (H, W) numbers of the predicted objects, 0 where none is.
        ignored: (H, W) pixels that do not count. A predicted object that lies there by more than
            half is left out.
    """
    true, found = _counted(truth, predicted, ignored)
    pairs = _pairs(true, found)
    return Matches(float(pairs.iou.sum()), len(pairs.iou), int(found.max()), int(true.max()))


def paired_pixels(
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    ignored: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where true objects lie that have a pair, and where predicted ones do, both (H, W).

    The arguments are those of `match_objects`.
    """
    true, found = _counted(truth, predicted, ignored)
    pairs = _pairs(true, found)
    return np.isin(true, pairs.true), np.isin(found, pairs.found)


def _counted(
    truth: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    ignored: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return both label images without pixels that do not count, their numbers without gaps."""
    if ignored is not None:
        sizes = np.bincount(predicted.ravel())
        hidden = np.bincount(predicted[ignored], minlength=len(sizes))
        out = ignored | (hidden > sizes / 2)[predicted]
        truth, predicted = np.where(ignored, 0, truth), np.where(out, 0, predicted)
    return _dense(truth), _dense(predicted)


@dataclass(frozen=True)
class _Pairs:
    """Objects that are a pair: the numbers (n,) of the true and the found ones, and their IoUs."""

    true: NDArray[np.int64]
    found: NDArray[np.int64]
    iou: NDArray[np.float64]


def _pairs(true: NDArray[np.int64], found: NDArray[np.int64]) -> _Pairs:
    """Return the pairs of two label images without gaps in their numbers."""
    width = int(found.max(initial=0)) + 1
    pairs, shared = np.unique(true * width + found, return_counts=True)
    one, other = pairs // width, pairs % width
    both = (one > 0) & (other > 0)
    one, other, shared = one[both], other[both], shared[both]
    iou = shared / (np.bincount(true.ravel())[one] + np.bincount(found.ravel())[other] - shared)
    kept = iou > _MATCH
    return _Pairs(one[kept], other[kept], iou[kept])


def _dense(numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the numbers without gaps: 0 stays 0, the others become 1 to n."""
    values, inverse = np.unique(numbers, return_inverse=True)
    dense: NDArray[np.int64] = inverse.reshape(numbers.shape) + (values[0] != 0)
    return dense


@dataclass(frozen=True)
class ObjectScores:
    """Scores of the objects of some classes, pooled over images; a dictionary a class.

    Attributes:
        images: Number of images.
        true: Number of true objects.
        predicted: Number of predicted objects.
        panoptic_quality: The panoptic quality, 0 to 1; None for a class without any object.
        f1: The F1 score at an IoU of 0.5, 0 to 1.
        count_error: The share of objects that are too many or too few in their image, 0 to 1.
        intervals: "panoptic_quality", "f1" and "count_error": the 95 % interval of each class over
            images or groups; None where there are too few for an interval.
        quality_per_image: The panoptic quality of each image, over all classes; None where it has
            no object.
    """

    images: int
    true: dict[str, int]
    predicted: dict[str, int]
    panoptic_quality: dict[str, float | None]
    f1: dict[str, float | None]
    count_error: dict[str, float | None]
    intervals: dict[str, dict[str, tuple[float, float] | None]]
    quality_per_image: tuple[float | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return {
            "images": self.images,
            "true_objects": self.true,
            "predicted_objects": self.predicted,
            "panoptic_quality": self.panoptic_quality,
            "f1": self.f1,
            "count_error": self.count_error,
            **{f"{key}_ci95": value for key, value in self.intervals.items()},
        }

    def table(self) -> Table:
        """Return how well objects were found by class, each score above its interval."""
        rows: list[tuple[Cell, ...]] = []
        for name, quality in self.panoptic_quality.items():
            ends = [
                ends_in_words(self.intervals[key][name]) or ""
                for key in ("panoptic_quality", "f1", "count_error")
            ]
            true, predicted = f"{self.true[name]:,}", f"{self.predicted[name]:,}"
            scores = quality, self.f1[name], self.count_error[name]
            rows += [(cut(name), true, predicted, *scores), ("", "", "", *ends)]
        columns = ["class", "true", "predicted", "panoptic quality", "F1", "count error"]
        note = "objects are a pair above an IoU of 0.5; below each score its 95 % interval"
        return Table(f"Objects of {plural(self.images, 'image')}", columns, rows, note)


def object_scores(
    classes: Sequence[str], matches: Sequence[Sequence[Matches]], groups: Sequence[str]
) -> ObjectScores:
    """Return the scores of all images.

    Args:
        classes: Names of the classes whose objects were told apart.
        matches: The matches of each image, one for each of ``classes``.
        groups: The group of each image: images of one group count as one unit of the intervals.
    """
    counts = np.array([[(m.iou, m.pairs, m.predicted, m.true) for m in row] for row in matches])
    iou, pairs, predicted, true = np.moveaxis(counts.reshape(len(matches), len(classes), 4), -1, 0)
    whole = (predicted + true) / 2  # TP + FP / 2 + FN / 2
    ratios = {
        "panoptic_quality": (iou, whole),
        "f1": (pairs, whole),
        "count_error": (abs(predicted - true), np.maximum(predicted, true)),
    }
    values: dict[str, Any] = {}
    ends: dict[str, Any] = {}
    for key, (part, all_) in ratios.items():
        total = all_.sum(0)
        pooled = np.divide(part.sum(0), total, out=np.zeros(len(classes)), where=total > 0)
        values[key] = {
            name: float(pooled[c]) if total[c] > 0 else None for c, name in enumerate(classes)
        }
        _, interval = intervals.of_ratios(_by_group(part, groups), _by_group(all_, groups))
        ends[key] = {
            name: None if np.isnan(interval[c]).any() else tuple(map(float, interval[c]))
            for c, name in enumerate(classes)
        }
    return ObjectScores(
        images=len(matches),
        true={name: int(true[:, c].sum()) for c, name in enumerate(classes)},
        predicted={name: int(predicted[:, c].sum()) for c, name in enumerate(classes)},
        intervals=ends,
        quality_per_image=tuple(
            float(part / all_) if all_ else None
            for part, all_ in zip(iou.sum(1), whole.sum(1), strict=True)
        ),
        **values,
    )


def _by_group(values: NDArray[np.float64], groups: Sequence[str]) -> NDArray[np.float64]:
    """Return the sums over the images of each group, (groups, C)."""
    _, place = np.unique(np.array(groups), return_inverse=True)
    sums = np.zeros((place.max(initial=-1) + 1, values.shape[1]))
    np.add.at(sums, place, values)
    return sums
