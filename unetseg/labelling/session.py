"""A person at work in a project: the effects of strokes, accepted images and new classes.

The project holds the labels, the engine answers strokes, and the rounds train the network behind
them. The running score keeps the predictions that were made before anybody painted.
"""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.errors import InputError, MachineError, UnetsegError
from unetseg.labelling.engine import Answer, Engine
from unetseg.labelling.journal import Stroke
from unetseg.labelling.project import LabelledImage, Project, enlarge
from unetseg.labelling.rounds import Rounds
from unetseg.labelling.running_score import Predictor, RunningScore
from unetseg.labelling.starting_model import StartingModel
from unetseg.labelling.tiles import Pictures
from unetseg.scoring.metrics import ScoredImage
from unetseg.scoring.suspects import LIKELY, Suspect, rank_suspects

Publish = Callable[[str, object], None]
"""Takes the name of an event and its content in plain types; may be called by any thread."""

_LEAST_SUSPECTS = 4  # accepted images: fewer do not show the usual
_LEARNED_AT_ONCE = 2**28  # bytes of older labels that the engine is given when work begins
_WINDOWS = 8  # so many images may be open at once
_MEMORY = 2**28  # bytes of predictions by network and model that are kept beside the last one


class Session:
    """Ties a project to the models that learn from it; any thread may call its methods.

    Use `open_session`, which ends the threads and processes behind it.

    Args:
        project: The project; the session sets its functions that begin with ``on_``.
        publish: Receives the events that the page shows.
        model: The model that the project begins with, if any.

    Attributes:
        project: The project that is labelled.
        pictures: The decoded images.
        training: The processes behind the page; None where there are none.
    """

    def __init__(
        self, project: Project, publish: Publish, model: StartingModel | None = None
    ) -> None:
        self.project = project
        self.pictures = Pictures([image.pair.image for image in project.images])
        self.training: Rounds | None = None
        self._trains = False
        self._publish = publish
        self._versions = itertools.count(1)
        self._model = model
        # Of the images that were asked for, by network and model; the one used last comes last.
        self._masks: dict[tuple[int, Predictor], Answer] = {}
        self._seen: dict[int, Answer] = {}  # of the images opened last: the answers on the pages
        # For accepted images: the mask at that time, the number accepted, the prediction from the
        # others.
        self._others: dict[int, tuple[bytes, int, NDArray[np.uint8]]] = {}
        self._learned = False  # a head has been fitted, so there are two classes
        self._is_saved = False  # a mask was written since the session began
        # The images of whose strokes no model has learned yet.
        self._unseen = {image.number for image in project.images if not image.labelled}
        self._trained_on: dict[int, bool] = {}  # whether a model was, of images asked for
        self._opened: int | None = None  # the image that was opened last
        self._lock = threading.RLock()  # guards the score
        self._score = RunningScore(
            project.home, [image.name for image in project.images], project.table.names, model
        )
        self._engine = Engine(len(project.images), self._read, self._answered)
        self._engine.on_failed = self._tell_error
        project.on_saved = self._saved
        project.on_changed_elsewhere = self._changed_elsewhere
        project.on_failed = self._tell_error
        threading.Thread(target=self._learn_older, name="older labels", daemon=True).start()

    def train(self, run: str | None, budget: str) -> None:
        """Train a network behind the page, in rounds, and predict by the model.

        Args:
            run: The name of its run; None trains none.
            budget: The time of a round, such as "2m".

        Raises:
            InputError: There is a run of this name that did not come from this project.
        """
        self.training = Rounds(
            self.project.folder,
            [image.pair.image for image in self.project.images],
            self.project.home,
            run,
            budget,
            self._tell_training if run else self._tell_failure,
            self._predicted,
            self._model,
        )
        self._trains = run is not None
        self._engine.on_busy = self.training.give_way

    def close(self) -> None:
        """End the threads and processes behind the page."""
        if self.training:
            self.training.close()
        self._engine.close()

    # --- images ----------------------------------------------------------------------------------

    def open(self, number: int) -> int | None:
        """Show an image from now on, and prepare those that are likely to come next.

        Returns:
            The result of `next_image`.
        """
        self._engine.open(number)
        self._opened = number
        self._seen.pop(number, None)
        return self._look_ahead(number)

    def paint(self, number: int, stroke: Stroke, revision: int | None = None) -> bool:
        """Put a stroke into the labels of an image; see `Project.paint`.

        Args:
            number: The number of the image.
            stroke: The stroke.
            revision: The `Project.revision` of the classes that the stroke is of; None for today's.

        Raises:
            InputError: The classes have other numbers now, or see `Project.check_stroke`.
        """
        image = self.project.images[number]
        with image.lock:
            if revision is not None and revision < self.project.renumbered:
                raise InputError("stroke", "its class has another number now", "paint it again")
            self.project.check_stroke(number, stroke)
            self._keep_first(image)
            is_new = self.project.paint(number, stroke)
            if is_new:
                self._engine.open(number)  # it may stand in an older window
                self._engine.painted(number, self.project.labels(number))
        if is_new:
            self._tell_state(image)
        return is_new

    def answer(self, number: int) -> Answer | None:
        """Return the prediction that a page shows from now on; `accept` takes this one.

        It is made by the predictor that the image shows, else by another.
        """
        answer = self._answer(number)
        if answer:
            with self._lock:
                self._seen.pop(number, None)
                self._seen[number] = answer
                while len(self._seen) > _WINDOWS:
                    del self._seen[next(iter(self._seen))]
        return answer

    def _answer(self, number: int) -> Answer | None:
        with self._lock:
            every = self._score.predictors
            others = every[: every.index("head") + 1]
            found = (self._prediction(number, p) for p in (self._shown(number), *others))
            return next((answer for answer in found if answer), None)

    def accept(self, number: int, *, is_empty: bool) -> dict[str, Any] | None:
        """Make the labels of an image final: with the answer that was seen, or as one of nothing.

        A newer answer, which nobody has looked at, is not taken.

        Returns:
            The result of `score`.

        Raises:
            MachineError: The labels could not be written.
        """
        image = self.project.images[number]
        with image.lock:
            self._keep_first(image)
            answer = self._seen.get(number)
            if is_empty:
                self.project.accept_empty(number)
            else:
                self.project.accept(number, answer.labels if answer else None)
            labels = self.project.labels(number)
            self._engine.painted(number, labels)
            was_seen = self._was_seen(image)
            with self._changing_score():
                shown = answer.by if answer else "head"
                self._score.accepted(number, labels, shown, was_seen=was_seen)
                self._seen.pop(number, None)
        self._tell_state(image)
        score = self.score()
        self._publish("score", score)
        return score

    def reopen(self, number: int) -> None:
        """Take back that an image was accepted; its labels stay."""
        self.project.reopen(number)
        self._tell_state(self.project.images[number])

    def state(self, number: int) -> dict[str, Any]:
        """Return the state of an image as the page shows it; "version" grows with its changes."""
        image, version = self.project.images[number], next(self._versions)
        # The version is drawn first: the state that is read then is at least as new.
        return {
            "number": number,
            "version": version,
            "state": image.state,
            "labelled": image.share,
        }

    def next_image(self, number: int) -> int | None:
        """Return the image to label after another: the most instructive, else a begun one."""
        return next(iter(self._likely(number)), None)

    def change_classes(self, table: ClassTable, was: Sequence[int | None]) -> None:
        """Replace the classes; see `Project.change_classes`."""
        with self.project.at_rest():  # no answer of the former classes is accepted
            old = self.project.table
            self.project.change_classes(table, was)
            kept = [(w, name) for w, name in zip(was, table.names, strict=True) if w is not None]
            new_names = {old.names[w]: name for w, name in kept if old.names[w] != name}
            if self.project.renumbered == self.project.revision:
                self._engine.forget()
                self._seen.clear()
            with self._changing_score():
                if self._model:
                    self._model.follow(was)
                self._masks.clear()
                self._others.clear()
                self._score.rename(table.names, new_names)
        self._learn_older()

    # --- facts of the whole project --------------------------------------------------------------

    def suspects(self) -> list[tuple[int, Suspect]]:
        """Return the accepted images whose masks look wrong, with their numbers, worst first.

        A mask is compared with a prediction by the strokes on all other images. That prediction is
        made again when the mask has changed, or when twice as many images are accepted. An image
        whose features are no longer in memory keeps the one before.
        """
        accepted = [image for image in self.project.images if image.state == "accepted"]
        if len(accepted) < _LEAST_SUSPECTS:
            return []
        numbers = {image.name: image.number for image in accepted}
        ranked = rank_suspects(self._compared(accepted), self.project.table.names)
        return [(numbers[s.name], s) for s in ranked if s.score > LIKELY]

    def _compared(self, accepted: Sequence[LabelledImage]) -> Iterator[ScoredImage]:
        """Yield the masks beside predictions by the strokes on all others, one at a time."""
        for image in accepted:
            with image.lock:
                labels = self.project.labels(image.number).copy()
            prediction = self._by_others(image.number, labels, len(accepted))
            if prediction is not None:
                whole = enlarge(prediction, image.shape)
                nothing = np.zeros((*image.shape, 0), np.uint8)
                yield ScoredImage(image.name, nothing, labels, whole)

    def _by_others(
        self, number: int, labels: NDArray[np.uint8], accepted: int
    ) -> NDArray[np.uint8] | None:
        digest = hashlib.blake2b(labels.data).digest()
        of_mask, at, prediction = self._others.get(number, (b"", 0, None))
        if of_mask != digest or accepted >= 2 * at:
            new = self._engine.by_others(number)
            if new is not None:
                self._others[number] = digest, accepted, new
                return new
        return prediction if of_mask == digest else None

    def score(self) -> dict[str, Any] | None:
        """Return the running score as the page shows it; see `RunningScore.summary`."""
        with self._lock:
            return self._score.summary()

    def training_state(self) -> dict[str, Any] | None:
        """Return the state of the training as the page shows it; None where nothing is trained."""
        return self.training.state() if self.training and self._trains else None

    # --- behind the page -------------------------------------------------------------------------

    def _look_ahead(self, number: int) -> int | None:
        """Prepare the images that may come after another; return the first of them."""
        likely = self._likely(number)
        self._engine.expect(likely)
        if self.training:
            self.training.expect([number, *likely])
        return next(iter(likely), None)

    def _read(self, number: int) -> NDArray[Any]:
        """Return the pixels of an image for the engine.

        The first stroke asks `_was_seen`. So it is found out here, before the image is painted.
        """
        self._was_seen(self.project.images[number])
        return self.pictures.image(number)

    def _keep_first(self, image: LabelledImage) -> None:
        """Keep the predictions of an image of which no model has seen a label."""
        if image.number not in self._unseen:
            return
        self.project.labels(image.number)
        if image.labelled:  # another program labelled it since the session began
            self._unseen.discard(image.number)
            return
        was_seen = self._was_seen(image)
        with self._lock:
            found = ((p, self._prediction(image.number, p)) for p in self._score.predictors)
            first = {p: answer.labels for p, answer in found if answer and not was_seen}
            self._score.before_first_stroke(image.number, first)
        self._unseen.discard(image.number)

    @contextmanager
    def _changing_score(self) -> Iterator[None]:
        """Change the score, which is in memory; where it cannot be written, tell that alone.

        It is written again with the next accepted image.
        """
        with self._lock:
            try:
                yield
            except MachineError as error:
                self._tell_error(error)

    def _was_seen(self, image: LabelledImage) -> bool:
        """Return whether a model that the project began with was trained on an image.

        Nothing is scored of an image that cannot be read.
        """
        if image.number not in self._trained_on:
            try:
                known = self._score.was_seen(image.pair)
            except UnetsegError:
                return True
            self._trained_on[image.number] = known
        return self._trained_on[image.number]

    def _shown(self, number: int) -> Predictor:
        """Return the predictor whose answer an image shows: it is the best, or on trial there.

        An image that was begun before the one on trial had an answer goes on with the best.
        """
        tried = self._score.tried(number)
        if tried and (number in self._unseen or self._score.has_first(number, tried)):
            return tried
        return self._score.best()

    def _prediction(self, number: int, predictor: Predictor) -> Answer | None:
        """Return a predictor's answer for an image; None where there is none yet."""
        if predictor == "head":
            return self._engine.answer(number)
        key = number, predictor
        answer = self._masks.pop(key, None)
        if answer is None:
            with suppress(UnetsegError):  # it has earlier classes, or was just removed
                labels = self._mask(number, predictor)
                if labels is not None:
                    answer = Answer(labels, next(self._versions), predictor)
        if answer:
            self._masks[key] = answer
        while len(self._masks) > 1 and sum(m.labels.nbytes for m in self._masks.values()) > _MEMORY:
            del self._masks[next(iter(self._masks))]
        return answer

    def _mask(self, number: int, predictor: Predictor) -> NDArray[np.uint8] | None:
        """Return the class indices (H, W) that network or model wrote for an image, if any."""
        if predictor == "model":
            image = self.project.images[number].pair.image
            return self._model.prediction(image) if self._model else None
        return self.training.prediction(number, self.project.table) if self.training else None

    def _likely(self, number: int) -> list[int]:
        """Return the other images that are not accepted, in the order in which they may come."""
        images = self.project.images
        after = [*images[number + 1 :], *images[: max(number, 0)]]
        untouched = [image.number for image in after if image.state == "untouched"]
        done = [image.number for image in images if image.labelled]
        begun = [image.number for image in after if image.state == "begun"]
        return [*self._engine.rank(untouched, done), *begun]

    def _learn_older(self) -> None:
        """Give the engine the labels that are there already, those of begun images first."""
        size = 0
        for image in sorted(self.project.images, key=lambda image: image.state != "begun"):
            size += image.height * image.width if image.labelled else 0
            if image.labelled and size <= _LEARNED_AT_ONCE:
                # The page says so where it is opened.
                with suppress(UnetsegError), image.lock:
                    self._engine.painted(image.number, self.project.labels(image.number))

    def _answered(self, number: int, _: int) -> None:
        is_first, self._learned = not self._learned, True
        self._publish("answer", {"number": number, "version": next(self._versions)})
        if is_first and self._is_saved:
            self._begin_round(number)

    def _saved(self, number: int) -> None:
        self._is_saved = True
        self._publish("saved", {"number": number})
        if (opened := self._opened) is not None:  # labels change the order of the others
            following = self._look_ahead(opened)
            self._publish("next", {"after": opened, "number": following})
        if self._learned:
            self._begin_round(number)

    def _changed_elsewhere(self, number: int, labels: NDArray[np.uint8]) -> None:
        self._engine.painted(number, labels)
        self._tell_state(self.project.images[number])
        self._publish("labels", {"number": number, "page": ""})

    def _begin_round(self, number: int) -> None:
        if self.training:
            self.training.learn(self._likely(number))

    def _predicted(self, numbers: Sequence[int]) -> None:
        with self._lock:
            self._masks = {key: one for key, one in self._masks.items() if key[0] not in numbers}
        for number in numbers:
            answer = self._answer(number)
            if answer and answer.by != "head":
                self._publish("answer", {"number": number, "version": next(self._versions)})

    def _tell_training(self, state: dict[str, Any]) -> None:
        self._publish("training", state)

    def _tell_error(self, error: UnetsegError) -> None:
        self._publish("failed", {"error": str(error)})

    def _tell_failure(self, state: dict[str, Any]) -> None:
        """Tell of a failure of the model where no training is shown."""
        if state["state"] == "failed":
            self._publish("failed", {"error": state["note"]})

    def _tell_state(self, image: LabelledImage) -> None:
        self._publish("state", self.state(image.number))


@contextmanager
def open_session(
    project: Project,
    publish: Publish,
    *,
    run: str | None,
    budget: str,
    model: StartingModel | None = None,
) -> Iterator[Session]:
    """Work in a project while the block runs.

    Args:
        project: The project.
        publish: Receives the events that the page shows.
        run: The name of the run that is trained behind the page; None trains none.
        budget: The time of a round of training, such as "2m".
        model: The model that the project begins with, if any.

    Raises:
        InputError: There is a run of this name that did not come from this project.
        MachineError: The pretrained weights are missing or damaged.
    """
    session = Session(project, publish, model)
    try:
        if run or model:
            session.train(run, budget)
        yield session
    finally:
        session.close()
