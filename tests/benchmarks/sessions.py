"""Whether the interval of the running score of `unetseg label` holds the true score, by simulation.

``python -m tests.benchmarks sessions [SESSIONS] [patient] [hasty]`` simulates 50 for each person. A
person opens a folder of 15 synthetic images that no other session has. Of these, 10 are labelled,
in the order that the session proposes. Session, head and running score are those of the command; no
network is trained. The patient person paints until the mask is the truth. The hasty one paints a
few strokes at the largest errors, and accepts the answer with the errors that it has then.

The running score counts the later half of the images, each predicted by the model of its time. The
true score is that of these models in equal parts on 60 images that no session has, pooled. The last
model has a score of its own, as it has learned from more images than those before it.
"""

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.annotator import paint_stroke
from tests.benchmarks.common import machine, names_in, numbers_in, print_table
from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import pairing
from unetseg.dataset.synthesis import CLASSES, draw_image
from unetseg.features.extraction import Extractor
from unetseg.features.head import Head
from unetseg.labelling.journal import Stroke
from unetseg.labelling.project import open_project
from unetseg.labelling.session import Session, open_session
from unetseg.pictures import writing
from unetseg.scoring.metrics import confusion, iou_of
from unetseg.settings import SynthSettings

_SESSIONS, _IMAGES, _LABELLED = 50, 15, 10
_STROKES, _FIRST_STROKES = 3, 8  # in an image, and in the first, where nothing answers yet
_POPULATION = 60
_SYNTH = SynthSettings(height=96, width=96, max_shapes=3)

Masks = list[NDArray[np.uint8]]


class Person:
    """Somebody who labels images and waits for answers.

    Args:
        session: The session of the folder.
        truth: The true masks, by number.
        is_patient: Whether all is painted that is wrong.
    """

    def __init__(self, session: Session, truth: Masks, *, is_patient: bool) -> None:
        self._session, self._engine = session, session._engine
        self._truth, self._is_patient = truth, is_patient

    def label(self, number: int) -> None:
        """Label an image, and accept it."""
        truth = self._truth[number]
        if self._is_patient:
            self._paint(number, truth)
        else:
            labels = np.full_like(truth, IGNORED)
            for _ in range(_STROKES if self.head else _FIRST_STROKES):
                answer = self._session.answer(number)
                used = int(labels.min())
                shown = answer.labels if answer else np.full_like(truth, used)
                if not paint_stroke(truth, shown, labels):
                    break
                self._paint(number, labels.copy())
        self._session.accept(number, is_empty=False)

    @property
    def head(self) -> Head | None:
        """The predictor that answers now."""
        return self._engine._head

    def look(self, number: int) -> None:
        """Open an image, and wait until all is learned and the image is answered."""
        self._session.open(number)
        engine = self._engine

        def is_settled() -> bool:
            answered = engine._answers.get(number)
            if engine._busy or engine._due or number not in engine._features:
                return False
            return engine._head is None or bool(answered and answered[0] is engine._head)

        with engine._changed:
            if not engine._changed.wait_for(is_settled, 300):
                sys.exit("sessions: no answer came")

    def _paint(self, number: int, labels: NDArray[np.uint8]) -> None:
        self._session.paint(number, Stroke("", 0, 0, labels))
        self.look(number)


def draw_folder(folder: Path, seed: int) -> Masks:
    """Write the raw images of a session; return their masks."""
    settings = replace(_SYNTH, seed=seed)
    drawn = [draw_image(settings, "train", number) for number in range(_IMAGES)]
    (folder / "images").mkdir(parents=True)
    for number, (image, _) in enumerate(drawn):
        writing.write_picture(folder / "images" / f"{number:02}.png", image)
    pairing.write_classes(folder, ClassTable(CLASSES.classes, (IGNORED,)))
    return [mask for _, mask in drawn]


class Population:
    """The images on which the true scores of a session's models are taken.

    Args:
        extractor: That of the session, which normalises by the first image that it saw.
    """

    def __init__(self, extractor: Extractor) -> None:
        drawn = (draw_image(_SYNTH, "test", number) for number in range(_POPULATION))
        self._images = [(extractor.extract(image), mask) for image, mask in drawn]

    def counts(self, head: Head) -> NDArray[np.int64]:
        """Return the pixels (C, C) of each true class that a head takes for each class."""
        classes = len(CLASSES.classes)
        pairs = ((mask, head.classify(features)) for features, mask in self._images)
        return np.sum([confusion(mask, found, classes) for mask, found in pairs], axis=0)


@dataclass(frozen=True)
class Outcome:
    """The score that a session showed at its end, and the true mean IoU.

    Attributes:
        shown: The running score.
        ends: Its interval.
        true: The score of the models that the running score counts.
        last: The score of the last model.
    """

    shown: float
    ends: tuple[float, float]
    true: float
    last: float


def simulate(folder: Path, seed: int, *, is_patient: bool) -> Outcome:
    """Label a folder of images of their own; see the head of this module."""
    truth = draw_folder(folder, seed)
    heads: list[Head] = []
    with (
        open_project(folder) as project,
        open_session(project, lambda *_: None, run=None, budget="1m") as session,
    ):
        person = Person(session, truth, is_patient=is_patient)
        number = session.next_image(-1)
        for _ in range(_LABELLED):
            assert number is not None
            person.look(number)
            if person.head is not None:
                heads.append(person.head)
            person.label(number)
            number = session.next_image(number)
        found, last = session.score(), person.head
        population = Population(session._engine._extractor)
    assert found is not None
    assert last is not None
    assert found["images"] == len(heads) - len(heads) // 2
    counts = [population.counts(head) for head in heads[len(heads) // 2 :]]
    true, now = (float(np.mean(iou_of(c))) for c in (np.sum(counts, 0), population.counts(last)))
    return Outcome(found["mean_iou"], tuple(found["interval"]), true, now)


PERSONS = {"patient": True, "hasty": False}


def main(words: list[str]) -> None:
    """Simulate and print."""
    (sessions,) = numbers_in(words) or [_SESSIONS]
    rows = []
    for name in names_in(words, PERSONS):
        found = []
        for seed in range(1, int(sessions) + 1):
            with tempfile.TemporaryDirectory() as folder:
                found.append(simulate(Path(folder), seed, is_patient=PERSONS[name]))
            print(name, seed, found[-1], flush=True)
        low, high = np.array([one.ends for one in found]).T
        true, last = np.array([(one.true, one.last) for one in found]).T
        held = [100 * float(np.mean((low <= value) & (value <= high))) for value in (true, last)]
        shown = float(np.mean([one.shown for one in found]))
        rows.append((name, *held, shown, true.mean(), last.mean(), np.mean(high - low)))
    columns = ["person", "% hold the score", "% the last model's", "shown", "true", "last model's"]
    title = f"Running scores and their 95 % intervals, {sessions:.0f} sessions ({machine()})"
    print_table(title, [*columns, "width"], rows)
