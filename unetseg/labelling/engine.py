"""The engine that answers strokes: a thread computes features, another learns and answers.

Answers come first. Features are computed in small steps, and between two steps the first thread
waits until no stroke is left to answer. Strokes that come meanwhile are learned together. Between
strokes the image that is likeliest to come next is answered, so that it opens with its answer.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg.errors import InputError, MachineError, UnetsegError, is_out_of_memory
from unetseg.features.extraction import Extractor, Features
from unetseg.features.head import PIXELS, Head, Sample, draw_sample, fit_head
from unetseg.labelling.running_score import Predictor
from unetseg.prediction.suggestions import describe_by_worst, rank_images

_MEMORY = 2**30  # bytes of features that are kept: six images of four megapixels
_PATIENCE = 5.0  # seconds
_AHEAD = 2  # images that are prepared before they are opened
_SURVEYED = 500  # images that are looked at so that they can be ranked: 120 MB
_WEIGHT = 2**30  # of each image that a head learns from
_SCATTERED = 200  # pixels of an image that stand for it where images are compared


@dataclass(frozen=True)
class Answer:
    """The class of each pixel of an image, as it is predicted.

    Attributes:
        labels: (h, w) uint8 class indices. Images over four megapixels are answered at half the
            size, a quarter and so on: h is the height halved so often, and rounded up.
        version: A number that grows with each answer.
        by: "head", "network" or "model".
    """

    labels: NDArray[np.uint8]
    version: int
    by: Predictor


class _SupersededError(Exception):
    """Another image is due first."""


class Engine:
    """Answers strokes. Its methods may be called by any thread and return at once.

    Args:
        count: The number of images, which are numbered from 0.
        read: Returns the pixels (H, W, C) of an image: uint8, uint16 or float32.
        on_answer: Called with the number of an image and the version of its new answer, in a thread
            of the engine. It must return soon.

    Attributes:
        on_busy: Called with True before a stroke is answered, and with False after it, by the same
            thread.
        on_failed: Called with the error of an answer that could not be computed, or of the image
            that is shown, by a thread of the engine. The next stroke, or the next image that is
            opened, tries again.

    Raises:
        MachineError: The pretrained weights are missing or damaged.
    """

    def __init__(
        self,
        count: int,
        read: Callable[[int], NDArray[Any]],
        on_answer: Callable[[int, int], None] = lambda number, version: None,
    ) -> None:
        self.on_answer = on_answer
        self.on_busy: Callable[[bool], None] = lambda _: None
        self.on_failed: Callable[[UnetsegError], None] = lambda _: None
        self._count, self._read, self._extractor = count, read, Extractor()
        # One lock guards all that follows. A thread that changes a state on which another thread
        # waits notifies that thread.
        self._changed = threading.Condition()
        self._closed = False
        self._shown: int | None = None
        self._ahead: list[int] = []
        self._failed: set[int] = set()
        self._features: OrderedDict[int, Features] = OrderedDict()
        self._scattered: dict[int, Tensor] = {}  # (n, F) float16 of each image that was looked at
        self._due: dict[int, NDArray[np.uint8]] = {}  # labels that were not drawn from yet
        self._samples: dict[int, Sample] = {}
        self._head: Head | None = None
        self._answers: dict[int, tuple[Head, Answer]] = {}
        self._version = 0
        self._busy = False  # a stroke is being answered
        self._requests, self._failed_at = 0, -1  # strokes and opened images; at the last failure
        self._threads = [
            threading.Thread(target=work, name=f"labelling-{name}", daemon=True)
            for name, work in (
                ("features", self._compute_features),
                ("answers", self._answer_strokes),
            )
        ]
        for thread in self._threads:
            thread.start()

    def open(self, number: int) -> None:
        """Show an image from now on: its features and its answer come first."""
        with self._changed:
            self._shown = number
            self._requests += 1
            self._failed.discard(number)
            if number in self._features:
                self._features.move_to_end(number)
            self._changed.notify_all()

    def expect(self, numbers: Sequence[int]) -> None:
        """Prepare the two images that are likeliest to be opened next; they stand first."""
        with self._changed:
            self._ahead = list(numbers[:_AHEAD])
            self._changed.notify_all()

    def painted(self, number: int, labels: NDArray[np.uint8]) -> None:
        """Learn from the labels of an image from now on.

        Args:
            number: The number of the image.
            labels: (H, W) class indices, 255 where nothing is painted. The array is read soon. It
                may change meanwhile, if this method is called again then.
        """
        with self._changed:
            self._due[number] = labels
            self._requests += 1
            self._changed.notify_all()

    def forget(self) -> None:
        """Forget all labels, and all that was learned from them; features stay."""
        with self._changed:
            self._due.clear()
            self._samples, self._head = {}, None
            self._answers.clear()
            self._changed.notify_all()

    def answer(self, number: int) -> Answer | None:
        """Return the latest answer for an image; None until there is one."""
        with self._changed:
            return self._answers[number][1] if number in self._answers else None

    def by_others(self, number: int) -> NDArray[np.uint8] | None:
        """Predict an image from the strokes on all others, in about half a second.

        New strokes are learned first, so that no stroke is left out by chance.

        Returns:
            The labels, as in `Answer`. None where its features are not in memory, or the others
            have fewer than two classes. None, too, where strokes come without a pause for seconds.
        """
        with self._changed:
            at_rest = self._changed.wait_for(self._is_at_rest, _PATIENCE)
            if self._closed or not at_rest:
                return None
            features = self._features.get(number)
            others = [s for n, s in self._samples.items() if n != number and len(s.labels)]
        head = fit_head(others) if features and others else None
        return head.classify(features) if head and features else None

    def rank(self, numbers: Sequence[int], done: Sequence[int]) -> list[int]:
        """Return images in the order in which labels would teach most, as `suggest` ranks them.

        Args:
            numbers: The images to choose from. Images that were never opened come last.
            done: The images that are labelled.
        """
        with self._changed:
            head, seen = self._head, dict(self._scattered)
        known = [n for n in numbers if n in seen]
        if head is None or not known:
            return list(numbers)
        described = {
            n: describe_by_worst(seen[n].float(), torch.from_numpy(head.entropy(seen[n])))
            for n in {*known, *done} & seen.keys()
        }
        ranks = rank_images(
            np.stack([described[n][0] for n in known]),
            np.array([described[n][1] for n in known]),
            np.array([described[n][0] for n in done if n in described]),
            len(known),
        )
        first = [known[rank.index] for rank in ranks]
        return [*first, *(n for n in numbers if n not in set(first))]

    def close(self) -> None:
        """End both threads, after at most a step of their work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # --- the thread that computes features ---------------------------------------------------

    def _compute_features(self) -> None:
        """Compute the features of the image that is due, until the engine is closed."""
        while (number := self._wait_for_image()) is not None:
            try:
                image = self._read(number)
                features = self._extractor.extract(image, lambda: self._give_way(number))
            except _SupersededError:
                continue
            except (InputError, MachineError, MemoryError, RuntimeError) as error:
                with self._changed:
                    self._failed.add(number)
                    is_shown = number == self._shown
                if is_shown:
                    self.on_failed(_as_shown(error))
                continue
            scattered = _scatter(features, image.shape[:2])
            with self._changed:
                self._features[number] = features
                self._scattered[number] = scattered
                self._forget()
                self._changed.notify_all()

    def _wait_for_image(self) -> int | None:
        """Return the image whose features are due, or None at the end."""
        with self._changed:
            while not self._closed:
                number = self._next_image()
                if number is not None and not self._busy:
                    return number
                self._changed.wait()
        return None

    def _next_image(self) -> int | None:
        """Return the image whose features are due first; None where there is nothing to do."""
        shown = [] if self._shown is None else [self._shown]
        wanted = [*shown, *self._ahead]
        due = [n for n in wanted if n not in self._features]
        due += [n for n in self._due if n not in self._features]
        if len(self._scattered) < _SURVEYED:
            due += [n for n in range(self._count) if n not in self._scattered]
        return next((n for n in due if n not in self._failed), None)

    def _give_way(self, number: int) -> None:
        """Wait while a stroke is answered; raise where the image shown has no features yet."""
        with self._changed:
            while self._busy and not self._closed:
                self._changed.wait()
            other = self._shown is not None and self._shown != number
            missing = self._shown not in self._features and self._shown not in self._failed
            if self._closed or (other and missing):
                raise _SupersededError

    def _forget(self) -> None:
        """Drop the features that were unused for longest, until the others fit into the memory."""
        for number in (*self._ahead[::-1], self._shown):
            if number is not None and number in self._features:
                self._features.move_to_end(number)
        while sum(f.nbytes for f in self._features.values()) > _MEMORY and len(self._features) > 1:
            number, _ = self._features.popitem(last=False)
            self._answers.pop(number, None)

    # --- the thread that answers -------------------------------------------------------------

    def _answer_strokes(self) -> None:
        """Answer strokes, and meanwhile the image that is next, until the engine is closed."""
        torch.optim.LBFGS([torch.zeros(1)])  # the first one imports for a second: not at a stroke
        while self._wait_for_work():
            asked = self._requests
            try:
                if self._busy:
                    self._answer_at_once()
                else:
                    self._answer_ahead()
            except (MemoryError, RuntimeError) as error:  # torch raises both for lack of memory
                with self._changed:
                    self._failed_at = asked
                self.on_failed(_as_shown(error))
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _answer_at_once(self) -> None:
        """Let other work rest, and answer the strokes."""
        self.on_busy(True)
        try:
            self._answer_due()
        finally:
            self.on_busy(False)

    def _answer_due(self) -> None:
        """Learn from new strokes, and answer the image that is shown."""
        with self._changed:
            due = {n: self._due.pop(n) for n in list(self._due) if n in self._features}
            features = {n: self._features[n] for n in due}
            samples, head = self._samples, self._head
        try:
            for number, labels in due.items():
                samples[number] = weighed(draw_sample(features[number], labels))
            for number in samples:
                samples[number] = shortened(samples[number], len(samples))
            if due:
                painted = [sample for sample in samples.values() if len(sample.labels)]
                head = fit_head(painted, head) if painted else None
        except (MemoryError, RuntimeError):
            with self._changed:
                if samples is self._samples:
                    self._due = due | self._due
            raise
        with self._changed:
            if samples is not self._samples:  # they were forgotten meanwhile
                return
            shown, self._head = self._shown, head
            if head is None:  # all but one class was erased
                self._answers.clear()
            seen = self._features.get(shown) if shown is not None else None
        if head is not None and shown is not None and seen is not None:
            self._publish(shown, head, head.classify(seen))

    def _answer_ahead(self) -> None:
        """Answer the image that is likeliest to come next, unless a stroke comes meanwhile."""

        def check() -> None:
            with self._changed:
                if self._closed or self._is_urgent():
                    raise _SupersededError

        with self._changed:
            number, head = next(iter(self._ahead), None), self._head
            features = None if number is None else self._features.get(number)
        if number is not None and head is not None and features is not None:
            with suppress(_SupersededError):
                self._publish(number, head, head.classify(features, check))

    def _wait_for_work(self) -> bool:
        """Wait until there is something to learn or to answer; return False at the end."""
        with self._changed:
            while not self._closed:
                if self._failed_at != self._requests:
                    self._busy = self._is_urgent()
                    if self._busy or (self._ahead and self._is_stale(self._ahead[0])):
                        return True
                self._changed.wait()
        return False

    def _is_at_rest(self) -> bool:
        """Return whether all strokes are learned, or the engine is closed."""
        return self._closed or not (self._busy or self._is_urgent())

    def _is_urgent(self) -> bool:
        """Return whether there is something to learn, or the image shown is to be answered."""
        return any(n in self._features for n in self._due) or self._is_stale(self._shown)

    def _is_stale(self, number: int | None) -> bool:
        """Return whether an image could be answered by a later head than it was."""
        if number is None or self._head is None or number not in self._features:
            return False
        return number not in self._answers or self._answers[number][0] is not self._head

    def _publish(self, number: int, head: Head, labels: NDArray[np.uint8]) -> None:
        with self._changed:
            if head is not self._head:  # it was forgotten meanwhile
                return
            self._version += 1
            version = self._version
            self._answers[number] = (head, Answer(labels, version, "head"))
        self.on_answer(number, version)


def _as_shown(error: Exception) -> UnetsegError:
    """Return the error of an answer in words for the page."""
    if isinstance(error, UnetsegError):
        return error
    remedy = "the strokes are saved; the next one tries again"
    if is_out_of_memory(error):
        return MachineError("memory", "not enough to answer", f"close other programs; {remedy}")
    return UnetsegError("the answer", f"{type(error).__name__}: {error}", remedy)


def weighed(sample: Sample) -> Sample:
    """Return a sample that weighs as much as that of any other image.

    An accepted mask has many times the pixels of some strokes. If each pixel weighed the same,
    strokes would not change the answer once a few images are accepted.
    """
    return replace(sample, totals=sample.totals * _WEIGHT // sample.totals.sum().clamp_min(1))


def shortened(sample: Sample, images: int) -> Sample:
    """Return the part of a sample that a head needs which learns from so many images.

    A sample has up to 18 MB, and a folder may hold thousands of labelled images.
    """
    most = max(1, PIXELS // max(1, images - 1))  # an image may be left out
    if len(sample.labels) <= 2 * most:
        return sample
    features, labels = sample.features[:most].clone(), sample.labels[:most].clone()
    return replace(sample, features=features, labels=labels)


def _scatter(features: Features, shape: tuple[int, ...]) -> Tensor:
    """Return the features (n, F) float16 of pixels that lie anywhere in an image of a shape."""
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(0, size, _SCATTERED) for size in shape)
    return features.at(rows, columns).half()
