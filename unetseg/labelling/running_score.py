"""A score that costs no image: predictions before the first stroke, against the masks since.

Every image is predicted by a model that never saw a stroke on it. That prediction is kept when the
first stroke begins, and scored when the image is accepted. This is prequential scoring (Dawid,
1984). The models grow better from image to image, so the score counts the later half of the images.

Accepted masks begin as predictions. Small errors that the person did not correct count as right.
That favours the predictor whose answer was shown. So some images show the network's answer before
it is known to be better, and both are compared on images of either kind alike.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from unetseg import files
from unetseg.classes import IGNORED
from unetseg.errors import InputError
from unetseg.labelling.project import enlarge
from unetseg.pictures import reading, writing
from unetseg.records import IntArray, Text, read_record, to_plain
from unetseg.scoring.intervals import jackknife_error, t_quantile
from unetseg.scoring.metrics import Scores, confusion, iou_of, mean_of_defined, scores
from unetseg.text import plural

Predictor = Literal["head", "network"]
PREDICTORS: tuple[Predictor, ...] = ("head", "network")
_Item = TypeVar("_Item")

_FIRST, _RECORD = "first", "scores.json"
_LEAST = 2  # images shown by each predictor, from which the network can take over
# The network is tried where its mean IoU is at most so much lower on images that the head showed.
# In a simulated session it was 0.15 lower there and as good on the hidden masks.
_NEAR = 0.2
_LEAST_FOR_CURVE = 8  # images from which a curve says anything about the next ten
_NEXT = 10
_SMALLEST = 1e-3  # smaller errors count as this one in a logarithm


@dataclass(frozen=True)
class _Scored:
    """An accepted image.

    Attributes:
        image: Its name.
        classes: The names of the classes that its matrices count.
        matrices: ``(C, C)`` counts of the true class by the predicted one, by predictor.
        shown: The predictor whose answer the mask began as.
    """

    image: Text
    classes: tuple[Text, ...]
    matrices: dict[Text, IntArray]
    shown: Predictor = "head"


@dataclass(frozen=True)
class _Record:
    """The accepted images in the order in which they were accepted first."""

    accepted: tuple[_Scored, ...] = ()


class RunningScore:
    """Keeps the first predictions of a project's images, and scores them.

    Args:
        home: The folder of the project's state; ``first/`` and ``scores.json`` are written there.
        names: The name of each image, by its number.
        classes: The names of the classes at this time.

    Raises:
        InputError: ``scores.json`` was damaged.
    """

    def __init__(self, home: Path, names: Sequence[str], classes: Sequence[str]) -> None:
        self._home, self._names = home, tuple(names)
        self.classes = tuple(classes)
        self._record = _read(home / _RECORD)

    def rename(self, classes: Sequence[str], new_names: Mapping[str, str]) -> None:
        """Take other classes.

        Args:
            classes: The names of the classes from now on.
            new_names: The new name of each renamed class, by its old name.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
        """
        self.classes = tuple(classes)
        renamed = (
            replace(s, classes=tuple(new_names.get(name, name) for name in s.classes))
            for s in self._record.accepted
        )
        self._write(_Record(tuple(renamed)))

    def before_first_stroke(self, number: int, predictions: Mapping[Predictor, Any]) -> None:
        """Keep the predictions for an image on which nothing is labelled yet.

        Args:
            number: The image.
            predictions: Class indices (h, w) uint8 of each predictor that has an answer; they may
                be smaller than the image.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
        """
        for predictor in PREDICTORS:
            path = self._path(number, predictor)
            if predictor in predictions:
                files.make_folder(path.parent)
                writing.write_picture(path, np.asarray(predictions[predictor])[..., None])
            else:
                path.unlink(missing_ok=True)  # it belongs to an earlier image

    def accepted(self, number: int, labels: NDArray[np.uint8], shown: Predictor) -> None:
        """Score the predictions of an image against its accepted mask.

        Args:
            number: The image; one that was accepted before keeps its place in the order.
            labels: (H, W) uint8 class indices, 255 unlabelled.
            shown: The predictor whose answer the mask began as.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
        """
        name, count = self._names[number], len(self.classes)
        matrices: dict[str, NDArray[np.int64]] = {}
        for predictor in PREDICTORS:
            first = self._first(number, predictor)
            if first is not None:
                whole = enlarge(first, (labels.shape[0], labels.shape[1]))
                known = np.where(whole < count, labels, IGNORED).astype(np.uint8)
                matrices[predictor] = confusion(known, whole, count)
        new = _Scored(name, self.classes, matrices, shown)
        old = {s.image: s for s in self._record.accepted}
        self._write(_Record(tuple((old | {name: new}).values())))

    def best(self) -> Predictor:
        """Return the predictor whose first predictions were better on the images of both.

        The images that the head showed and those that the network showed count alike; of each, it
        is the later half. It is the head until there are two of each.
        """
        kinds = [self._shown_by(shown) for shown in PREDICTORS]
        if min(map(len, kinds)) < _LEAST:
            return "head"
        halves = [_later_half(kind) for kind in kinds]
        head, network = (sum(self._mean_iou(half, p) for half in halves) for p in PREDICTORS)
        return "network" if network > head else "head"

    def tries_network(self, number: int) -> bool:
        """Return whether an image shows the network's answer although the head may be better.

        None does until the network came near the head on images that the head showed, at least two.
        The later half of these counts, as the first rounds train poor networks. Then every second
        image does, and every fourth one once there are two of these.
        """
        images = self._shown_by("head")
        if len(images) < _LEAST:
            return False
        head, network = (self._mean_iou(_later_half(images), p) for p in PREDICTORS)
        is_near = network >= head - _NEAR
        return is_near and number % (4 if len(self._shown_by("network")) >= _LEAST else 2) == 1

    def has_first(self, number: int, predictor: Predictor) -> bool:
        """Return whether a predictor had an answer before the first stroke on an image."""
        return self._path(number, predictor).exists()

    def summary(self) -> dict[str, Any] | None:
        """Return the score for the page; None before an image with a prediction was accepted.

        The keys are "mean_iou", "interval" (95 %, or None), "images" (the number counted), "note"
        and "iou" (by class). "curve" is this score after each accepted image. "ten_more" is the
        gain that ten more images would bring to the mean IoU of an image, with its interval, or
        None.
        """
        best = self.best()
        known = [(s, p) for s in self._known() if (p := _predictor(s, best))]
        if not known:
            return None
        numbers = {name: number for number, name in enumerate(self._names)}
        curve = [self._pooled(_later_half(known[:k])) for k in range(1, len(known) + 1)]
        now = curve[-1]
        each = [mean_of_defined(iou_of(self._matrix(s, predictor))) for s, predictor in known]
        gain = expected_gain([value for value in each if value is not None], _NEXT)
        return {
            "mean_iou": now.mean_iou,
            "interval": now.mean_iou_ci95,
            "images": len(now.names),
            "iou": [{"name": name, "iou": now.iou[name]} for name in self.classes],
            "curve": [
                {"image": numbers[s.image], "mean_iou": at.mean_iou, "interval": at.mean_iou_ci95}
                for (s, _), at in zip(known, curve, strict=True)
            ],
            "ten_more": {"gain": gain[0], "interval": gain[1:]} if gain else None,
            "note": _note(len(known), len(now.names)),
        }

    def _shown_by(self, shown: Predictor) -> list[_Scored]:
        """Return the images with both predictions whose masks began with that of `shown`."""
        both = [s for s in self._known() if len(s.matrices) == len(PREDICTORS)]
        return [s for s in both if s.shown == shown]

    def _mean_iou(self, images: Sequence[_Scored], predictor: Predictor) -> float:
        matrix = np.sum([self._matrix(s, predictor) for s in images], axis=0)
        return mean_of_defined(iou_of(matrix)) or 0.0

    def _known(self) -> list[_Scored]:
        """Return the accepted images that still exist, with classes that still exist."""
        return [
            s
            for s in self._record.accepted
            if s.image in self._names and set(s.classes) <= set(self.classes) and s.matrices
        ]

    def _pooled(self, images: Sequence[tuple[_Scored, Predictor]]) -> Scores:
        matrices = np.stack([self._matrix(s, predictor) for s, predictor in images])
        return scores(matrices, [s.image for s, _ in images], self.classes)

    def _matrix(self, image: _Scored, predictor: str) -> NDArray[np.int64]:
        """Return the confusion matrix of an image, with its places in today's order of classes."""
        places = [self.classes.index(name) for name in image.classes]
        matrix = np.zeros((len(self.classes),) * 2, np.int64)
        matrix[np.ix_(places, places)] = image.matrices[predictor]
        return matrix

    def _path(self, number: int, predictor: str) -> Path:
        return self._home / _FIRST / f"{self._names[number]}.{predictor}.png"

    def _first(self, number: int, predictor: str) -> NDArray[np.uint8] | None:
        path = self._path(number, predictor)
        if not path.exists():
            return None
        labels: NDArray[np.uint8] = reading.read_image(path)[..., 0]
        return labels

    def _write(self, record: _Record) -> None:
        self._record = record
        files.make_folder(self._home)
        files.write_bytes(self._home / _RECORD, json.dumps(to_plain(record)).encode())


def expected_gain(each: Sequence[float], more: int) -> tuple[float, float, float] | None:
    """Return the gain in mean IoU that more images would bring, and its 95 % interval.

    The errors 1 - IoU are taken to fall as a power of the number of images before. A straight line
    through their logarithms gives the fall from n to n + ``more`` images. The jackknife over images
    gives its interval.

    Args:
        each: The mean IoU of each image, 0 to 1, in the order in which they were predicted.
        more: The number of images to come.

    Returns:
        The gain and both ends of its interval; None with fewer than eight images.
    """
    count = len(each)
    if count < _LEAST_FOR_CURVE:
        return None
    places = np.log(np.arange(1, count + 1))
    errors = np.log(np.maximum(1 - np.asarray(each), _SMALLEST))

    def gain(kept: NDArray[np.bool_]) -> float:
        slope, start = np.polyfit(places[kept], errors[kept], 1)
        now, then = (math.exp(start + slope * math.log(n + 1)) for n in (count, count + more))
        return min(now, 1.0) - min(then, 1.0)

    every = np.ones(count, bool)
    whole = gain(every)
    without = np.array([gain(np.arange(count) != k) for k in range(count)])
    error = jackknife_error((without - without.mean())[:, None])
    half = float((t_quantile(np.array([count - 2])) * error)[0])
    return whole, whole - half, whole + half


def _predictor(image: _Scored, best: Predictor) -> Predictor | None:
    """Return the predictor by which an image is scored: the best one, else the other."""
    order = sorted(PREDICTORS, key=lambda predictor: predictor != best)
    return next((p for p in order if p in image.matrices), None)


def _later_half(images: Sequence[_Item]) -> Sequence[_Item]:
    return images[len(images) // 2 :]


def _note(images: int, counted: int) -> str:
    text = f"Over the last {plural(counted, 'accepted image')}, each predicted before its first "
    text += "stroke. Errors that you accept count as right."
    if images < _LEAST_FOR_CURVE:
        text += " The gain of ten more images can be told after "
        text += f"{plural(_LEAST_FOR_CURVE - images, 'more image')}."
    return text


def _read(path: Path) -> _Record:
    if not path.exists():
        return _Record()
    try:
        data = json.loads(path.read_bytes())
    except ValueError:
        raise InputError(path, "is damaged", "delete it; the score begins anew") from None
    return read_record(_Record, data, "scores of the accepted images")
