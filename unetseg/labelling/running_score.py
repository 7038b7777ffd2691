"""A score that costs no image: predictions before the first stroke, against the masks since.

Every image is predicted by a model that never saw a stroke on it. That prediction is kept when the
first stroke begins, and scored when the image is accepted. This is prequential scoring (Dawid,
1984). The models grow better from image to image, so the score counts the later half of the images.

Accepted masks begin as predictions. Small errors that the person did not correct count as right.
That favours the predictor whose answer was shown. So some images show the answer of another one
before it is known to be better. Two are compared on images of either kind alike.

A model that the project begins with may have been trained on an image. No prediction of such an
image counts, in later sessions either: the network behind the page has learned from that model.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import StrictBool
from pydantic.dataclasses import dataclass

from unetseg import files
from unetseg.classes import IGNORED
from unetseg.dataset.naming import Pair
from unetseg.errors import InputError
from unetseg.labelling.project import enlarge
from unetseg.labelling.starting_model import StartingModel
from unetseg.pictures import reading, writing
from unetseg.pictures.transforms import pixel_hash
from unetseg.records import IntArray, Text, read_record, to_plain
from unetseg.scoring.intervals import jackknife_error, t_quantile
from unetseg.scoring.metrics import Scores, confusion, iou_of, mean_of_defined, scores
from unetseg.settings import Selection
from unetseg.text import plural

Predictor = Literal["head", "network", "model"]
_MAKERS: dict[Predictor, str] = {
    "head": "the quick model",
    "network": "the network",
    "model": "the given model",
}
_Item = TypeVar("_Item")

_FIRST, _RECORD = "first", "scores.json"
_LEAST = 2  # images shown by each of two predictors, from which the later one can take over
# The network is tried where its mean IoU is at most so much lower on images that the head showed.
# In a simulated session it was 0.15 lower there and as good on the hidden masks. The same holds for
# head and network beside a model.
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
        left_out: Whether it counts nowhere, as a model that the project began with was trained on
            it.
    """

    image: Text
    classes: tuple[Text, ...]
    matrices: dict[Text, IntArray]
    shown: Text = "head"
    left_out: StrictBool = False


@dataclass(frozen=True)
class _Trained:
    """The images that a model was trained on.

    Attributes:
        images: The SHA-256 of the pixels of each.
        selection: The part of image files that it was trained on.
    """

    images: tuple[Text, ...]
    selection: Selection


@dataclass(frozen=True)
class _Record:
    """The content of ``scores.json``.

    Attributes:
        accepted: The accepted images in the order in which they were accepted first.
        models: The models that the project ever began with, by `StartingModel.digest`.
        begun: The names of the classes that the first predictions of an image are of, by the name
            of each image that was ever painted on.
    """

    accepted: tuple[_Scored, ...] = ()
    models: dict[Text, _Trained] = field(default_factory=dict)
    begun: dict[Text, tuple[Text, ...]] = field(default_factory=dict)


class RunningScore:
    """Keeps the first predictions of a project's images, and scores them.

    Args:
        home: The folder of the project's state; ``first/`` and ``scores.json`` are written there.
        names: The name of each image, by its number.
        classes: The names of the classes at this time.
        model: The model that the project begins with, if any.

    Attributes:
        predictors: Those whose answers may be shown. The first one's are, until a later one is
            known to be better.

    Raises:
        InputError: ``scores.json`` was damaged.
        MachineError: The disk is full, or writing is not permitted.
    """

    def __init__(
        self,
        home: Path,
        names: Sequence[str],
        classes: Sequence[str],
        model: StartingModel | None = None,
    ) -> None:
        self._home, self._names = home, tuple(names)
        self.classes = tuple(classes)
        self._record = _read(home / _RECORD)
        self._begun_before = frozenset(self._record.begun)  # in earlier sessions
        self.predictors: tuple[Predictor, ...] = ("head", "network")
        self._keys: dict[Predictor, str] = {p: p for p in self.predictors}  # names in files
        if model:
            self.predictors = ("model", *self.predictors)
            self._keys["model"] = f"model-{model.digest}"
            seen = _Trained(tuple(sorted(model.trained_on)), model.card.selection)
            self._write(replace(self._record, models={**self._record.models, model.digest: seen}))

    def was_seen(self, pair: Pair) -> bool:
        """Return whether a model that the project ever began with was trained on an image.

        Raises:
            InputError: The image cannot be read.
        """
        of_part = functools.cache(lambda part: pixel_hash(pair.read_image(part)))
        models = self._record.models.values()
        return any(of_part(trained.selection) in trained.images for trained in models)

    def rename(self, classes: Sequence[str], new_names: Mapping[str, str]) -> None:
        """Take other classes.

        Args:
            classes: The names of the classes from now on.
            new_names: The new name of each renamed class, by its old name.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
        """
        self.classes = tuple(classes)

        def renamed(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(new_names.get(name, name) for name in names)

        accepted = (replace(s, classes=renamed(s.classes)) for s in self._record.accepted)
        begun = {image: renamed(names) for image, names in self._record.begun.items()}
        self._write(replace(self._record, accepted=tuple(accepted), begun=begun))

    def before_first_stroke(self, number: int, predictions: Mapping[Predictor, Any]) -> None:
        """Keep the predictions for an image on which nothing is labelled yet, and no others.

        An image may have been painted on in an earlier session, and its labels taken away since.
        The network may have learned from them, so that its prediction is not kept.

        Args:
            number: The image.
            predictions: Class indices (h, w) uint8 of each predictor that has an answer; they may
                be smaller than the image.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
        """
        name = self._names[number]
        for predictor in self.predictors:
            path = self._path(number, predictor)
            is_seen = predictor == "network" and name in self._begun_before
            if predictor in predictions and not is_seen:
                files.make_folder(path.parent)
                writing.write_picture(path, np.asarray(predictions[predictor])[..., None])
            else:
                path.unlink(missing_ok=True)  # it belongs to an earlier image
        begun = {**self._record.begun, name: self.classes}
        self._write(replace(self._record, begun=begun))

    def accepted(
        self, number: int, labels: NDArray[np.uint8], shown: Predictor, *, was_seen: bool = False
    ) -> None:
        """Score the predictions of an image against its accepted mask.

        Args:
            number: The image; one that was accepted before keeps its place in the order.
            labels: (H, W) uint8 class indices, 255 unlabelled.
            shown: The predictor whose answer the mask began as.
            was_seen: The result of `was_seen` for the image.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
        """
        name, count = self._names[number], len(self.classes)
        matrices: dict[str, NDArray[np.int64]] = {}
        for predictor in self.predictors:
            first = self._first(number, predictor)
            if first is not None:
                whole = enlarge(first, (labels.shape[0], labels.shape[1]))
                known = np.where(whole < count, labels, IGNORED).astype(np.uint8)
                matrices[self._keys[predictor]] = confusion(known, whole, count)
        left_out = was_seen and not matrices  # else it was predicted before that model came
        new = _Scored(name, self.classes, matrices, self._keys[shown], left_out)
        old = {s.image: s for s in self._record.accepted}
        self._write(replace(self._record, accepted=tuple((old | {name: new}).values())))

    def best(self) -> Predictor:
        """Return the predictor whose first predictions were better than those of each before it.

        Two are compared on the images that both predicted. Those that showed the one and those that
        showed the other count alike; of each, it is the later half. The first predictor stays until
        there are two of each.
        """
        best, *later = self.predictors
        for predictor in later:
            if self._is_better(predictor, best):
                best = predictor
        return best

    def tried(self, number: int) -> Predictor | None:
        """Return the predictor whose answer an image shows although the best one's may be better.

        It is a later one than the best. None is tried until it came near on images that the best
        one showed, at least two. The later half of these counts, as the first rounds train poor
        networks. Then every second image tries it, and every fourth one once there are two of
        these. Several take turns.
        """
        best = self.best()
        later = self.predictors[self.predictors.index(best) + 1 :]
        near = [p for p in later if self._is_near(p, best)]
        new = [p for p in near if len(self._shown_by(p, (p, best))) < _LEAST]
        if new and number % 2 == 1:
            return new[number // 2 % len(new)]
        return near[number // 4 % len(near)] if near and number % 4 == 1 else None

    def has_first(self, number: int, predictor: Predictor) -> bool:
        """Return whether a predictor had an answer before the first stroke on an image."""
        return self._path(number, predictor).exists()

    def summary(self) -> dict[str, Any] | None:
        """Return the score for the page; None before an image with a prediction was accepted.

        The keys are "mean_iou", "interval" (95 %, or None), "images" (the number counted), "note"
        and "iou" (by class). "curve" is this score after each accepted image. "ten_more" is the
        gain that ten more images would bring to the mean IoU of an image, with its interval, or
        None. Where all accepted images were left out, there is the "note" alone: "mean_iou" is
        None.
        """
        best = self.best()
        known = [(s, self._predictor(s, best)) for s in self._known()]
        left_out = _left_out([s for s in self._record.accepted if s.left_out])
        if not known:
            return {"mean_iou": None, "note": left_out} if left_out else None
        numbers = {name: number for number, name in enumerate(self._names)}
        curve = [self._pooled(_later_half(known[:k])) for k in range(1, len(known) + 1)]
        now, counted = curve[-1], [predictor for _, predictor in _later_half(known)]
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
            "note": " ".join(filter(None, (_note(len(known), counted), left_out))),
        }

    def _is_better(self, one: Predictor, other: Predictor) -> bool:
        """Return whether enough images tell that one predictor is better than the other."""
        kinds = [self._shown_by(shown, (one, other)) for shown in (one, other)]
        if min(map(len, kinds)) < _LEAST:
            return False
        halves = [_later_half(kind) for kind in kinds]
        mine, its = (sum(self._mean_iou(half, p) for half in halves) for p in (one, other))
        return mine > its

    def _is_near(self, one: Predictor, best: Predictor) -> bool:
        """Return whether a predictor came near the best one on the images that this one showed."""
        images = self._shown_by(best, (one, best))
        if len(images) < _LEAST:
            return False
        its, bests = (self._mean_iou(_later_half(images), p) for p in (one, best))
        return its >= bests - _NEAR

    def _shown_by(self, shown: Predictor, both: Sequence[Predictor]) -> list[_Scored]:
        """Return the images that both predicted, and whose masks began with that of `shown`."""
        keys = {self._keys[predictor] for predictor in both}
        return [
            s for s in self._known() if s.shown == self._keys[shown] and keys <= s.matrices.keys()
        ]

    def _mean_iou(self, images: Sequence[_Scored], predictor: Predictor) -> float:
        matrix = np.sum([self._matrix(s, predictor) for s in images], axis=0)
        return mean_of_defined(iou_of(matrix)) or 0.0

    def _known(self) -> list[_Scored]:
        """Return the accepted images that still exist, with classes that still exist."""
        return [
            s
            for s in self._record.accepted
            if s.image in self._names
            and set(s.classes) <= set(self.classes)
            and not s.matrices.keys().isdisjoint(self._keys.values())
        ]

    def _predictor(self, image: _Scored, best: Predictor) -> Predictor:
        """Return the predictor by which an image is scored: the best one, else another."""
        order = sorted(self.predictors, key=lambda predictor: predictor != best)
        return next(p for p in order if self._keys[p] in image.matrices)

    def _pooled(self, images: Sequence[tuple[_Scored, Predictor]]) -> Scores:
        matrices = np.stack([self._matrix(s, predictor) for s, predictor in images])
        return scores(matrices, [s.image for s, _ in images], self.classes)

    def _matrix(self, image: _Scored, predictor: Predictor) -> NDArray[np.int64]:
        """Return the confusion matrix of an image, with its places in today's order of classes."""
        places = [self.classes.index(name) for name in image.classes]
        matrix = np.zeros((len(self.classes),) * 2, np.int64)
        matrix[np.ix_(places, places)] = image.matrices[self._keys[predictor]]
        return matrix

    def _path(self, number: int, predictor: Predictor) -> Path:
        return self._home / _FIRST / f"{self._names[number]}.{self._keys[predictor]}.png"

    def _first(self, number: int, predictor: Predictor) -> NDArray[np.uint8] | None:
        """Return a first prediction (h, w) by today's classes, 255 where its class is gone."""
        path = self._path(number, predictor)
        if not path.exists():
            return None
        own = self._record.begun.get(self._names[number], self.classes)
        indices = np.full(256, IGNORED, np.uint8)
        today = {class_name: index for index, class_name in enumerate(self.classes)}
        indices[: len(own)] = [today.get(class_name, IGNORED) for class_name in own]
        labels: NDArray[np.uint8] = indices[reading.read_image(path)[..., 0]]
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


def _later_half(images: Sequence[_Item]) -> Sequence[_Item]:
    return images[len(images) // 2 :]


def _note(images: int, predictors: Sequence[Predictor]) -> str:
    """Say which images and predictors count: the score may fall where another one takes over."""
    by = " or ".join(_MAKERS[p] for p in dict.fromkeys(predictors))
    text = f"Over the last {plural(len(predictors), 'accepted image')}, each predicted by {by} "
    text += "before its first stroke. Errors that you accept count as right."
    if images < _LEAST_FOR_CURVE:
        text += " The gain of ten more images can be told after "
        text += f"{plural(_LEAST_FOR_CURVE - images, 'more image')}."
    return text


def _left_out(images: Sequence[_Scored]) -> str:
    """Say how many images count nowhere; "" where all count."""
    verb = "was" if len(images) == 1 else "were"
    text = f"{plural(len(images), 'image')} that the model was trained on {verb} left out."
    return text if images else ""


def _read(path: Path) -> _Record:
    if not path.exists():
        return _Record()
    try:
        data = json.loads(path.read_bytes())
    except ValueError:
        raise InputError(path, "is damaged", "delete it; the score begins anew") from None
    return read_record(_Record, data, "scores of the accepted images")
