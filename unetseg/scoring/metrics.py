"""Scores of masks against the truth: integer counts first, ratios after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED
from unetseg.results import Result, Table
from unetseg.scoring import intervals
from unetseg.text import cut, plural, show

_CHUNK = 1 << 20  # pixels counted at once: bincount needs 8 bytes for each


def confusion(truth: NDArray[Any], prediction: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Count the pixels of every true class by predicted class.

    Args:
        truth: Class indices, any shape, integers; pixels of `IGNORED` are not counted.
        prediction: Class indices, as many as in ``truth``, each below ``classes`` where counted. A
            counted pixel of `IGNORED` has no class and counts as wrong: as the first class, or as
            the second where the first is true.
        classes: Number of classes C.

    Returns:
        ``(C, C)`` int64: rows truth, columns prediction. Matrices of parts add up to that of all.

    Raises:
        ValueError: Shapes differ, or an index that is no class.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in shape")
    counts = np.zeros(classes * classes, np.int64)
    rows, columns = truth.reshape(-1), prediction.reshape(-1)
    for start in range(0, len(rows), _CHUNK):
        row, column = rows[start : start + _CHUNK], columns[start : start + _CHUNK]
        counted = row != IGNORED
        if not counted.all():
            row, column = row[counted], column[counted]
        if 1 < classes <= IGNORED:
            column = np.where(column == IGNORED, row == 0, column)
        for indices in (row, column):
            if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < classes:
                raise ValueError(f"class index outside 0..{classes - 1}")
        # A pair as one number below C^2, in the narrowest type that holds it.
        pair = row.astype(np.uint16 if classes <= IGNORED else np.int64) * classes + column
        counts += np.bincount(pair, minlength=classes * classes)
    return counts.reshape(classes, classes)


@dataclass(frozen=True)
class ScoredImage:
    """An image with its true mask and a predicted one.

    Attributes:
        name: Name of the image.
        image: (H, W, C) in its own dtype.
        truth: (H, W) uint8 class indices, 255 ignored.
        prediction: (H, W) uint8 class indices.
        confidence: (H, W) float32, the probability 0 to 1 of the predicted class; None where only
            masks are known.
    """

    name: str
    image: NDArray[Any]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None = None


@dataclass(frozen=True, repr=False)
class Scores(Result):
    """How well masks agree with the truth; every ratio is a fraction 0 to 1, or None (undefined).

    Let TP, FP and FN be the pixels of a class that were found, wrongly claimed and missed, pooled
    over all images. Then IoU = ``TP / (TP + FP + FN)``, Dice = ``2 TP / (2 TP + FP + FN)``,
    precision = ``TP / (TP + FP)`` and recall = ``TP / (TP + FN)``. A class that neither truth nor
    prediction holds has no IoU and stays out of means. A class that only the prediction holds has
    IoU 0.

    The intervals say how far the scores may lie from those of all images of the kind
    (`unetseg.scoring.intervals`). They are None where there are too few units, or all units score
    the same.

    Attributes:
        names: The names of the images, in order.
        groups: The unit of each image over which intervals are taken: its group, else its name.
        classes: Names of the classes, in order.
        matrices: ``(n, C, C)`` int64, one `confusion` per image.
        confusion: ``(C, C)`` int64, their sum.
        iou: The IoU by class name, as are ``dice``, ``precision``, ``recall``.
        iou_ci95: Both ends of the 95 % interval of ``iou``.
        mean_iou: Mean of ``iou``.
        mean_iou_ci95: Both ends of its 95 % interval.
        mean_iou_without_first: The same without the first class, which often is a background.
        mean_iou_per_image: Mean over images of `per_image_iou`'s mean.
        pixel_accuracy: Share of the counted pixels that have their true class.
        pixels: Number of true pixels by class name.
        absent: Names of the classes that neither truth nor prediction holds.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    matrices: NDArray[np.int64]
    confusion: NDArray[np.int64]
    iou: dict[str, float | None]
    iou_ci95: dict[str, tuple[float, float] | None]
    dice: dict[str, float | None]
    precision: dict[str, float | None]
    recall: dict[str, float | None]
    mean_iou: float | None
    mean_iou_ci95: tuple[float, float] | None
    mean_iou_without_first: float | None
    mean_iou_per_image: float | None
    pixel_accuracy: float | None
    pixels: dict[str, int]
    absent: tuple[str, ...]

    @property
    def units_in_words(self) -> str:
        """The units of the intervals in words: "20 images" or "6 groups"."""
        return plural(self.units, "image" if self.units == len(self.names) else "group")

    @property
    def weakest(self) -> str | None:
        """The class of the lowest IoU; None where fewer than two classes have one."""
        known = {name: value for name, value in self.iou.items() if value is not None}
        return min(known, key=known.__getitem__) if len(known) > 1 else None

    @property
    def floor(self) -> float | None:
        """The mean IoU of the most common class everywhere; None where nothing was scored."""
        true = self.confusion.sum(axis=1)
        return float(true.max() / true.sum() / np.count_nonzero(true)) if true.any() else None

    def line(self) -> str:
        """Return the mean IoU with its interval."""
        return f"mean IoU {_number(self.mean_iou)}, {self._mean_interval()}"

    def table(self, title: str = "Scores", baselines: str = "") -> Table:
        """Return the scores of each class with their intervals, the means, and a floor.

        Args:
            title: Stands above the table.
            baselines: A line about the scores of simple methods. Where it is empty, the line gives
                the score of the most common class.
        """
        rows = [
            (
                cut(name) + " (weakest)" * (name == self.weakest and len(self.classes) > 2),
                self.iou[name],
                ends_in_words(self.iou_ci95[name]),
                self.dice[name],
                self.precision[name],
                self.recall[name],
                f"{self.pixels[name]:,}",
            )
            for name in self.classes
        ]
        lines = [self.line()]
        if self.absent:
            lines.append(f"  absent, left out of the mean: {', '.join(map(show, self.absent))}")
        lines.append(
            f"  without {show(cut(self.classes[0], 12))}: {_number(self.mean_iou_without_first)}; "
            f"mean over images: {_number(self.mean_iou_per_image)}; "
            f"pixels right: {_number(self.pixel_accuracy)}"
        )
        lines.append(f"  {baselines or self._beside_the_floor()}")
        columns = ["class", "IoU", "95 %", "Dice", "prec.", "recall", "pixels"]  # fit 80 columns
        return Table(title, columns, rows, "\n".join(lines))

    def tables(self) -> tuple[Table, ...]:
        """Return the scores of each class, as `table` does."""
        return (self.table(f"Scores of {plural(len(self.names), 'image')}"),)

    def records(self) -> list[dict[str, Any]]:
        """Return a row a class: its scores, both ends of the interval of its IoU, its pixels."""
        rows = []
        for name in self.classes:
            low, high = self.iou_ci95[name] or (None, None)
            rows.append(
                {
                    "class": name,
                    "iou": self.iou[name],
                    "iou_low": low,
                    "iou_high": high,
                    "dice": self.dice[name],
                    "precision": self.precision[name],
                    "recall": self.recall[name],
                    "pixels": self.pixels[name],
                }
            )
        return rows

    def _beside_the_floor(self) -> str:
        """Say what the most common class would score, and warn of masks that are no better."""
        text = f"the most common class everywhere would score {_number(self.floor)}"
        if self.floor is None or self.mean_iou is None or self.mean_iou > self.floor:
            return text
        return f"warning: {text}, which is no less: train longer, or look at the labels"

    def _mean_interval(self) -> str:
        """Return the interval of the mean in words, or the reason why there is none."""
        if self.mean_iou_ci95:
            low, high = self.mean_iou_ci95
            return f"95 % interval {low:.3f} to {high:.3f} over {self.units_in_words}"
        if self.mean_iou is None:
            return "nothing was scored"
        if self.mean_iou in (0, 1):
            return f"the same in every image, which gives no interval ({self.units_in_words})"
        return f"too few images for an interval ({self.units_in_words})"

    @property
    def units(self) -> int:
        """Over how many groups, or images where there are none, intervals are taken."""
        return len(set(self.groups))

    def of_images(self) -> dict[str, NDArray[np.float64]]:
        """Return the ratios of each image, ``(n, C)`` each, NaN where undefined.

        They are ``iou``, ``dice``, ``precision``, ``recall`` (sensitivity) and ``specificity``, the
        share of the pixels of other classes that were not claimed.
        """
        found = self.matrices.diagonal(axis1=1, axis2=2)
        claimed, true = self.matrices.sum(axis=1), self.matrices.sum(axis=2)
        others = true.sum(axis=1, keepdims=True) - true
        return {
            "iou": iou_of(self.matrices),
            "dice": _ratio(2 * found, claimed + true),
            "precision": _ratio(found, claimed),
            "recall": _ratio(found, true),
            "specificity": _ratio(others - (claimed - found), others),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, null where undefined."""
        per_image = [
            {
                "name": name,
                "mean_iou": mean_of_defined(iou),
                "iou": dict(zip(self.classes, _plain(iou), strict=True)),
            }
            for name, iou in zip(self.names, iou_of(self.matrices), strict=True)
        ]
        return {
            "images": len(self.names),
            "mean_iou": self.mean_iou,
            "iou": self.iou,
            "mean_iou_ci95": list(self.mean_iou_ci95) if self.mean_iou_ci95 else None,
            "iou_ci95": {name: list(ci) if ci else None for name, ci in self.iou_ci95.items()},
            "units": self.units,
            **({} if self.groups == self.names else {"groups": list(self.groups)}),
            "dice": self.dice,
            "precision": self.precision,
            "recall": self.recall,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_iou_per_image": self.mean_iou_per_image,
            "mean_iou_without_first": self.mean_iou_without_first,
            "confusion": self.confusion.tolist(),
            "pixels": self.pixels,
            "per_image": per_image,
            "absent": list(self.absent),
        }


def scores(
    matrices: NDArray[np.int64],
    names: Sequence[str],
    classes: Sequence[str],
    groups: Sequence[str] | None = None,
) -> Scores:
    """Score images from their confusion matrices.

    Args:
        matrices: ``(n, C, C)`` int64, one `confusion` per image; n may be 0.
        names: The names of the n images, no two alike.
        classes: Names of the C classes.
        groups: The group of each image, for the intervals; None takes each for itself.

    Raises:
        ValueError: The four do not fit together.
    """
    if matrices.shape != (len(names), len(classes), len(classes)):
        text = f"{len(names)} names and {len(classes)} classes"
        raise ValueError(f"matrices {matrices.shape} do not fit {text}")
    groups = names if groups is None else groups
    if len(groups) != len(names):
        raise ValueError(f"{len(groups)} groups do not fit {len(names)} names")
    total = matrices.sum(axis=0)
    found, claimed, true = total.diagonal(), total.sum(axis=0), total.sum(axis=1)
    iou = iou_of(total)
    mean_ci, class_ci = intervals.of_ratios(*overlaps(matrices, groups))

    def by_class(ratios: NDArray[np.float64]) -> dict[str, float | None]:
        return dict(zip(classes, _plain(ratios), strict=True))

    return Scores(
        names=tuple(names),
        groups=tuple(groups),
        classes=tuple(classes),
        matrices=matrices,
        confusion=total,
        iou=by_class(iou),
        iou_ci95=dict(zip(classes, map(interval, class_ci), strict=True)),
        dice=by_class(_ratio(2 * found, claimed + true)),
        precision=by_class(_ratio(found, claimed)),
        recall=by_class(_ratio(found, true)),
        mean_iou=mean_of_defined(iou),
        mean_iou_ci95=interval(mean_ci),
        mean_iou_without_first=mean_of_defined(iou[1:]),
        mean_iou_per_image=mean_of_defined(
            np.array([mean_of_defined(m) for m in iou_of(matrices)], np.float64)
        ),
        pixel_accuracy=_plain(_ratio(found.sum(), total.sum()))[0],
        pixels=dict(zip(classes, true.tolist(), strict=True)),
        absent=tuple(c for c, value in zip(classes, iou, strict=True) if np.isnan(value)),
    )


def overlaps(
    matrices: NDArray[np.int64], groups: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixels of intersection and of union of every class, pooled by group.

    Args:
        matrices: ``(n, C, C)``, one `confusion` per image.
        groups: The group of each image.

    Returns:
        Two arrays ``(units, C)`` int64, in the order in which groups first appear.
    """
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    pooled = np.zeros((len(order), *matrices.shape[1:]), np.int64)
    np.add.at(pooled, np.array([order[g] for g in groups], np.intp), matrices)
    found = pooled.diagonal(axis1=1, axis2=2)
    return found, pooled.sum(axis=1) + pooled.sum(axis=2) - found


def ends_in_words(ends: tuple[float, float] | None) -> str | None:
    """Return an interval such as "0.93-0.98", with a third digit where it is narrow."""
    if ends is None:
        return None
    digits = 2 if ends[1] - ends[0] >= 0.01 else 3
    return f"{ends[0]:.{digits}f}-{ends[1]:.{digits}f}"


def interval(ends: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return both ends of an interval as `unetseg.scoring.intervals` gives them; None for NaN."""
    return None if np.isnan(ends).any() else (float(ends[0]), float(ends[1]))


def iou_of(matrices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the IoU of every class, ``(..., C)`` float64, of confusion matrices ``(..., C, C)``.

    NaN marks a class that neither truth nor prediction holds.
    """
    found = matrices.diagonal(axis1=-2, axis2=-1)
    return _ratio(found, matrices.sum(axis=-2) + matrices.sum(axis=-1) - found)


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Divide counts; NaN where there is nothing to divide by."""
    part, whole = np.atleast_1d(part), np.atleast_1d(whole)
    result = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def mean_of_defined(ratios: NDArray[np.float64]) -> float | None:
    """Return the mean of ratios of any shape that are not NaN; None where all are."""
    defined = ratios[~np.isnan(ratios)]
    return float(defined.mean()) if len(defined) else None


def _plain(ratios: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(r) else float(r) for r in ratios]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
