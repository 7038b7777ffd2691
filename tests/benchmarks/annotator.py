"""A simulated annotator: how well and how fast the head of `unetseg label` learns its strokes.

``python -m tests.benchmarks annotator [SET... SEEDS]`` paints 8 strokes in each of 5 images, one
after the other. A stroke is a line of a brush 5 pixels wide and up to 40 pixels long. It is painted
in the true class at the largest connected error of the current answer. The random forest of
unetseg.scoring.baselines gets as many strokes, at its own errors. Scored are the images painted so
far, with strokes in place, and 10 images that nobody painted in.

``seconds`` among the words measures time instead: from a stroke to the answer, and opening, at 2048
x 2048. Meanwhile a training runs at low priority. ``FOLDER/`` (a word with a slash) keeps the
accepted masks and the strokes of the first seed. They are two folders of labelled images for
`unetseg train`.

``dense [SET... PERCENT...]`` paints up to so many percent of the pixels of every image to train on,
three by default. It paints a stroke of each class, then the largest errors. The network learns from
these strokes alone. It also learns from the answers with the strokes in place, which are the masks
that the page accepts, and from dense masks. Each training takes a minute of one thread. All are
scored once on images apart.
"""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import line
from skimage.measure import label
from skimage.morphology import disk

from tests.benchmarks.accuracy import SETS, score
from tests.benchmarks.common import (
    DATA,
    Labelled,
    camvid,
    copy_pairs,
    count_processor_time,
    machine,
    names_in,
    numbers_in,
    print_table,
    read_set,
    write_values,
)
from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import pairing
from unetseg.features.extraction import Extractor, Features
from unetseg.features.head import Head, Sample, draw_sample, fit_head
from unetseg.labelling.engine import Engine, weighed
from unetseg.labelling.rounds import Rounds
from unetseg.scoring.baselines import Forest, draw_samples
from unetseg.scoring.metrics import confusion, scores

_PAINTED, _UNSEEN, _STROKES = 5, 10, 8
_MARKS = (1, 3, 5)  # scored after so many painted images
BRUSH, _LENGTH = 2, 40  # pixels of a stroke: from its middle to its side, and along
_ANSWERS = 4  # times that an image is answered anew while a share of it is painted
_BUDGET = 60.0  # seconds of a thread that the network trains for
_SIDE, _TIMED = 2048, 60  # pixels on a side of the image whose strokes are timed; strokes


class Method(Protocol):
    """A learner of strokes."""

    def paint(self, number: int, labels: NDArray[np.uint8]) -> None:
        """Learn from the labels (H, W) of a painted image."""

    def predict(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class of each pixel of an image."""


class HeadMethod:
    """The head of `unetseg label`."""

    def __init__(self, images: Sequence[Labelled], classes: int) -> None:
        self._extractor, self._images = Extractor(), images
        self._features: dict[int, Features] = {}
        self._samples: dict[int, Sample] = {}
        self._head: Head | None = None

    def _of(self, image: NDArray[Any]) -> Features:
        if id(image) not in self._features:
            self._features[id(image)] = self._extractor.extract(image)
        return self._features[id(image)]

    def paint(self, number: int, labels: NDArray[np.uint8]) -> None:
        sample = draw_sample(self._of(self._images[number].image), labels)
        self._samples[number] = weighed(sample)
        self._head = fit_head(list(self._samples.values()), self._head)

    def predict(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        assert self._head is not None
        return self._head.classify(self._of(image))


class ForestMethod:
    """A random forest on filters, learned anew after each stroke."""

    def __init__(self, images: Sequence[Labelled], classes: int) -> None:
        self._images, self._classes = images, classes
        self._samples: dict[int, Any] = {}

    def paint(self, number: int, labels: NDArray[np.uint8]) -> None:
        pair = (self._images[number].image, labels)
        self._samples[number] = draw_samples([pair], self._classes)[0]
        self._forest = Forest(self._classes)
        self._forest.fit(list(self._samples.values()))

    def predict(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        return self._forest.predict(image)


METHODS: dict[str, Callable[[Sequence[Labelled], int], Method]] = {
    "head": HeadMethod,
    "forest": ForestMethod,
}


def find_stroke(
    truth: NDArray[np.uint8], answer: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> list[tuple[int, int]]:
    """Return the points (row, column) of a line in the largest connected error; empty without."""
    wrong = (answer != truth) & (truth != IGNORED) & (labels == IGNORED)
    areas = label(np.where(wrong, truth.astype(int) + 1, 0), connectivity=1)
    sizes = np.bincount(areas.ravel())
    sizes[0] = 0
    if not sizes.any():
        return []
    area = areas == sizes.argmax()
    (box,) = ndimage.find_objects(area.astype(np.uint8))
    depth = np.zeros(area.shape)
    depth[box] = ndimage.distance_transform_edt(np.pad(area[box], 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    path = [(int(row), int(column))]
    reached = np.zeros_like(area)
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    for _ in range(_LENGTH // (2 * BRUSH)):  # go on where the error is deepest, never back
        row, column = path[-1]
        near = slice(max(row - BRUSH, 0), row + BRUSH + 1)
        reached[near, max(column - BRUSH, 0) : column + BRUSH + 1] = True
        ends = np.rint([row, column] + 2 * BRUSH * np.c_[np.sin(angles), np.cos(angles)])
        ends = ends.astype(int).clip(0, np.array(area.shape) - 1).tolist()
        free = [(y, x) for y, x in ends if area[y, x] and not reached[y, x]]
        if not free:
            break
        path.append(max(free, key=lambda end: depth[end]))
    return path


def paint_stroke(
    truth: NDArray[np.uint8], answer: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> int:
    """Paint a line of the true class into the largest connected error; return how many pixels."""
    path = find_stroke(truth, answer, labels)
    if not path:
        return 0
    value = truth[path[0]]
    drawn = np.zeros(truth.shape, bool)
    for one, other in zip(path, path[1:] or path, strict=False):
        drawn[line(*one, *other)] = True
    brush = ndimage.binary_dilation(drawn, disk(BRUSH))
    brush &= (truth == value) & (labels == IGNORED)
    labels[brush] = value
    return int(brush.sum())


@dataclass(frozen=True)
class Session:
    """The strokes and times of a simulated annotator.

    Attributes:
        marks: The mean IoU on the painted and on the unseen images, by the images painted so far.
        pixels: The number of all painted pixels.
        labels: The strokes in each image.
        accepted: The strokes, and the answer where there are none.
    """

    marks: dict[int, tuple[float, float]]
    pixels: int
    labels: list[NDArray[np.uint8]]
    accepted: list[NDArray[np.uint8]]


def simulate(
    make: Callable[[Sequence[Labelled], int], Method],
    images: Sequence[Labelled],
    unseen: Sequence[Labelled],
    classes: int,
    strokes: int = _STROKES,
) -> Session:
    """Paint strokes in one image after the other."""
    method = make(images, classes)
    labels = [np.full_like(one.truth, IGNORED) for one in images]
    pixels, marks, used = 0, {}, set[int]()
    for number, (one, own) in enumerate(zip(images, labels, strict=True)):
        for _ in range(strokes):
            if len(used) > 1:
                answer = method.predict(one.image)
            else:  # before two classes are painted there is no answer: the first class is it
                answer = np.full_like(one.truth, next(iter(used), IGNORED))
            pixels += paint_stroke(one.truth, answer, own)
            used |= set(np.unique(own).tolist()) - {IGNORED}
            if len(used) > 1:
                method.paint(number, own)
        if number + 1 in _MARKS:
            begun = [
                (image, np.where(drawn == IGNORED, method.predict(image.image), drawn))
                for image, drawn in zip(images[: number + 1], labels, strict=False)
            ]
            others = [(image, method.predict(image.image)) for image in unseen]
            marks[number + 1] = (_score(begun, classes), _score(others, classes))
    return Session(marks, pixels, labels, [answer for _, answer in begun])


def _score(pairs: Sequence[tuple[Labelled, NDArray[np.uint8]]], classes: int) -> float:
    matrices = np.stack([confusion(one.truth, answer, classes) for one, answer in pairs])
    names = [one.name for one, _ in pairs]
    return scores(matrices, names, [str(k) for k in range(classes)]).mean_iou or 0.0


def keep(session: Session, images: Sequence[Labelled], table: ClassTable, folder: Path) -> None:
    """Write ``accepted/`` and ``strokes/``: folders of labelled images."""
    table = ClassTable(table.classes, ignore=(IGNORED,))
    for name, found in (("accepted", session.accepted), ("strokes", session.labels)):
        for one, mask in zip(images, found, strict=True):
            pairing.write_labelled(folder / name, one.name, one.image, mask, table)
        pairing.write_classes(folder / name, table)


def compare(root: Path, names: Sequence[str], seeds: int, kept: Path | None) -> None:
    """Print the scores of head and forest at equal strokes."""
    rows = []
    for name in names:
        (train, table), (test, _) = (read_set(folder) for folder in SETS[name](root / name))
        found: dict[str, list[Session]] = {method: [] for method in METHODS}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            images = [train[k] for k in rng.permutation(len(train))[:_PAINTED]]
            unseen = [test[k] for k in rng.permutation(len(test))[:_UNSEEN]]
            for method, make in METHODS.items():
                session = simulate(make, images, unseen, len(table.classes))
                print(name, seed, method, session.pixels, session.marks, flush=True)
                found[method].append(session)
            if kept and seed == 0:
                keep(found["head"][0], images, table, kept / name)
        area = sum(one.truth.size for one in images)
        for method, sessions in found.items():
            share = statistics.median(100 * s.pixels / area for s in sessions)
            values = [
                statistics.median(s.marks[count][side] for s in sessions)
                for side in (0, 1)
                for count in _MARKS
            ]
            rows.append((name, method, share, *values))
    columns = ["set", "method", "% painted", *(f"painted, {n}" for n in _MARKS)]
    columns += [f"unseen, {n}" for n in _MARKS]
    title = f"Mean IoU after so many images of {_STROKES} strokes, {seeds} seeds ({machine()})"
    print_table(title, columns, rows)


def paint_share(
    images: Sequence[Labelled], classes: int, share: float
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]], int]:
    """Paint up to a share of the pixels of each image: each class, then the largest errors.

    Returns:
        The strokes in each image, the answers with the strokes in place, and the number of strokes.
    """
    head, count = HeadMethod(images, classes), 0
    labels = [np.full_like(one.truth, IGNORED) for one in images]
    accepted = []
    for number, (one, own) in enumerate(zip(images, labels, strict=True)):
        nothing, due = own.copy(), share * own.size
        for value in set(np.unique(one.truth)) - {IGNORED}:
            there = np.where(one.truth == value, value, IGNORED).astype(np.uint8)
            count += paint_stroke(there, nothing, own) > 0
        for answered in range(1, _ANSWERS + 1):
            head.paint(number, own)
            answer, pixels = head.predict(one.image), 1
            while pixels and (own != IGNORED).sum() < due * answered / _ANSWERS:
                pixels = paint_stroke(one.truth, answer, own)
                count += pixels > 0
        head.paint(number, own)
        accepted.append(np.where(own == IGNORED, head.predict(one.image), own))
    return labels, accepted, count


def compare_dense(root: Path, names: Sequence[str], percents: Sequence[float]) -> None:
    """Print the scores of the network after strokes, and after dense masks of the same images."""
    count_processor_time()
    rows = []
    for name in names:
        train, apart = SETS[name](root / name)
        dense = write_values(train, root / name / "dense")
        test = write_values(apart, root / name / "apart")
        images, table = read_set(dense)
        classes = len(table.classes)
        full = score(dense, test, root, 0, budget=_BUDGET)
        known = sum(int((one.truth != IGNORED).sum()) for one in images)
        for percent in percents:
            labels, accepted, count = paint_share(images, classes, percent / 100)
            painted = 100 * sum(int((mask != IGNORED).sum()) for mask in labels) / known
            right = _score(list(zip(images, accepted, strict=True)), classes)
            row = (name, painted, count / len(images), right)
            for kind, masks in (("strokes", labels), ("accepted", accepted)):
                folder = root / name / f"{kind}-{percent:g}"
                for one, mask in zip(images, masks, strict=True):
                    pairing.write_labelled(folder, one.name, one.image, mask, table)
                pairing.write_classes(folder, table)
                found = score(folder, test, root, 0, budget=_BUDGET)
                row += (found, found / full)
            rows.append((*row, full))
            print(*rows[-1], flush=True)
    columns = ["set", "% painted", "strokes an image", "accepted masks", "from strokes", "share"]
    columns += ["from accepted masks", "share", "from dense masks"]
    print_table(f"Mean IoU, {_BUDGET:.0f} s of one thread ({machine()})", columns, rows)


def clock(root: Path) -> None:
    """Print seconds from a stroke to the answer, and from opening to it, while a training runs."""
    train, table = read_set(camvid(root / "camvid")[0])
    pictures = [_enlarge(one) for one in train[:4]]
    source = copy_pairs(pairing.find_pairs(root / "camvid" / "train"), root / "set")
    pairing.write_classes(source, table)
    run = str(root / "run")
    rounds = Rounds(source, [], root / "state", run, "3h", lambda _: None, lambda _: None)
    engine = Engine(len(pictures), lambda number: pictures[number].image)
    engine.on_busy = rounds.give_way
    with closing(engine), closing(rounds):
        rounds.learn([])
        found = _use(engine, pictures)
    rows = []
    for name, times in zip(("a stroke to its answer", "opening"), found, strict=True):
        wall, work = np.array(times).T
        rows.append((name, len(times), np.median(wall), np.percentile(wall, 95), np.median(work)))
    columns = ["from", "times", "median s", "95th percentile s", "processor s, median"]
    load = f"{os.getloadavg()[0]:.0f} processes running"
    print_table(
        f"{_SIDE} x {_SIDE}, {len(table.classes)} classes ({machine()}, {load})", columns, rows
    )


def _enlarge(one: Labelled) -> Labelled:
    """Return an image of 2048 x 2048 made of copies, mirrored at their borders."""
    sides = [(0, _SIDE - size) for size in one.truth.shape]
    image = np.pad(one.image, [*sides, (0, 0)], mode="symmetric")
    return Labelled(one.name, image, np.pad(one.truth, sides, mode="symmetric"))


Times = list[tuple[float, float]]
"""Seconds on the clock, and of the processors in this process meanwhile."""


def _use(engine: Engine, pictures: Sequence[Labelled]) -> tuple[Times, Times]:
    """Paint in one picture after the other; the next is opened half a minute after it is expected.

    Returns:
        From each stroke to its answer, and from each opening to the first answer.
    """
    came, shown = threading.Event(), 0

    def note(number: int, _: int) -> None:
        if number == shown:
            came.set()

    def measure(work: Callable[[], None], times: Times) -> None:
        came.clear()
        begin, used = time.perf_counter(), time.process_time()
        work()
        was_ready = times is opened and engine.answer(shown) is not None
        if was_ready or came.wait(60):
            times.append((time.perf_counter() - begin, time.process_time() - used))

    engine.on_answer = note
    rng = np.random.default_rng(0)
    answered: Times = []
    opened: Times = []
    for shown, one in enumerate(pictures):
        if shown:
            measure(lambda: engine.open(shown), opened)  # noqa: B023 - called at once
        else:
            engine.open(shown)
        engine.expect([shown + 1] if shown + 1 < len(pictures) else [])
        labels = np.full_like(one.truth, IGNORED)
        for _ in range(_TIMED // len(pictures)):
            row, column = rng.integers(0, _SIDE - 40, 2)
            value = one.truth[row, column]
            part = np.s_[row : row + 8, column : column + 40]
            labels[part] = np.where(one.truth[part] == value, value, labels[part])
            measure(lambda: engine.painted(shown, labels), answered)  # noqa: B023 - called at once
            time.sleep(1)  # a person looks at the answer
    return answered, opened


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("annotator: left out, the data sets are not here")
        return
    kept = next((Path(word) for word in words if "/" in word), None)
    numbers = numbers_in(words)
    with tempfile.TemporaryDirectory() as folder:
        if "dense" in words:
            compare_dense(Path(folder), names_in(words, SETS), numbers or [3.0])
            return
        if "seconds" in words or not words:
            clock(Path(folder))
        if "seconds" not in words:
            compare(Path(folder), names_in(words, SETS), int(numbers[0]) if numbers else 3, kept)
