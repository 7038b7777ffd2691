"""Which of two models, or sets of masks, is better on the same images, and whether it is chance."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.arguments import Reports, public
from unetseg.dataset import naming, pairing
from unetseg.dataset.pairing import LabelledSet
from unetseg.errors import InputError, arg, either
from unetseg.prediction import model_file
from unetseg.prediction.model_file import ModelCard
from unetseg.prediction.run_folder import open_training_store, resolve_model
from unetseg.progress import Note, OnProgress, warn
from unetseg.results import Result, Table, plain
from unetseg.scoring import intervals
from unetseg.scoring.evaluation import DEFAULT_FOLDER, Evaluation, evaluate
from unetseg.scoring.metrics import Scores, interval, iou_of, overlaps, scores
from unetseg.scoring.subjects import untrained
from unetseg.settings import PredictSettings, Selection
from unetseg.text import cut, plural, show

_LOSSES = 5  # images named
_TIE = 1e-12  # IoU closer than this differ by rounding alone


@dataclass(frozen=True)
class Difference:
    """A score of A and of B on the same images.

    Attributes:
        a: IoU of A, 0 to 1; None where neither its masks nor the true masks hold the class.
        b: IoU of B, in the same way.
        difference: ``b - a``.
        ci95: Its paired 95 % interval; None where there are too few images for one.
        won: Images in which B scores higher.
        lost: Images in which B scores lower.
        tied: Images in which both score the same. An image where no mask holds the class counts
            for none of the three.
    """

    a: float | None
    b: float | None
    difference: float | None
    ci95: tuple[float, float] | None
    won: int
    lost: int
    tied: int

    @property
    def better(self) -> str | None:
        """Return "A" or "B", "" where the interval holds 0, None where there is none."""
        if self.difference == 0:
            return ""
        if self.ci95 is None:
            return None
        return "B" if self.ci95[0] > 0 else "A" if self.ci95[1] < 0 else ""


@dataclass(frozen=True)
class Loss:
    """An image in which B scores lower than A.

    Attributes:
        name: The name of the image.
        a: Mean IoU of A on it.
        b: Mean IoU of B on it.
        weakest: The class that lost most.
    """

    name: str
    a: float
    b: float
    weakest: str


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Two models, or sets of masks, on the same images.

    Attributes:
        a: The name of A, for a heading.
        b: The name of B.
        scores_a: The scores of A.
        scores_b: The scores of B, of the same images and classes in the same order.
        mean: Mean IoU of both; its images are won by their mean over classes.
        classes: IoU of both, by class.
        losses: The five images, or fewer, that B loses by most, worst first.
        left_out: Images left out because one of the two was trained on them.
        total: Images found, those left out included.
    """

    a: str
    b: str
    scores_a: Scores
    scores_b: Scores
    mean: Difference
    classes: dict[str, Difference]
    losses: tuple[Loss, ...]
    left_out: int
    total: int

    @property
    def verdict(self) -> str:
        """The result of comparing the means, in words."""
        mean = self.mean
        if mean.better == "":
            return "no difference shown"
        if mean.better is None or mean.ci95 is None:
            return "too few images for an interval"
        low, high = sorted(map(abs, mean.ci95))
        return f"{mean.better} is better, by {low:.3f} to {high:.3f} at 95 % confidence"

    def line(self) -> str:
        """Return both sides and the verdict."""
        return f"A: {show(self.a)}; B: {show(self.b)}; {self.verdict}"

    def tables(self) -> tuple[Table, ...]:
        """Return the IoU of both sides by class, the verdict, and the images that B loses."""
        columns = ["IoU", "A", "B", "B - A", "95 %", "won", "lost", "tied"]
        rows = [(cut(name), *_cells(one)) for name, one in self.classes.items()]
        lines = [f"mean IoU: {self.verdict} (over {self.scores_a.units_in_words})"]
        for better, words in (
            ("B", "B is better"),
            ("A", "A is better"),
            ("", "no difference shown"),
        ):
            names = [show(name) for name, one in self.classes.items() if one.better == better]
            lines += [f"  {words}: {', '.join(names)}"] if names else []
        lines += ["B loses most in:"] if self.losses else []
        for loss in self.losses:
            change = f"{loss.a:.3f} -> {loss.b:.3f}, most of it {show(loss.weakest)}"
            lines.append(f"  {show(loss.name)}: {change}")
        count = plural(len(self.scores_a.names), "image")
        title = f"A: {show(self.a)}; B: {show(self.b)}; {count}"
        return (Table(title, columns, [*rows, ("mean", *_cells(self.mean))], "\n".join(lines)),)

    def records(self) -> list[dict[str, Any]]:
        """Return a row a class."""
        return [{"class": name} | plain(one) for name, one in self.classes.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON, null where undefined."""
        return {
            "a": self.a,
            "b": self.b,
            "images": len(self.scores_a.names),
            "units": self.scores_a.units,
            "left_out": self.left_out,
            "mean_iou": plain(self.mean),
            "iou": plain(self.classes),
            "losses": plain(self.losses),
            "scores_a": self.scores_a.to_dict(),
            "scores_b": self.scores_b.to_dict(),
        }


@public()
def compare(
    a: str,
    b: str,
    source: str | os.PathLike[str] | None = None,
    *,
    settings: PredictSettings | None = None,
    include_trained: bool = False,
    classes: str | os.PathLike[str] | None = None,
    ignore: int | str | Sequence[int | str] = (),
    group: str | None = None,
    on_progress: Reports = warn,
) -> Comparison:
    """Score A and B on the same images and say by how much, and how surely, B is better.

    Args:
        a: A run, a model file, or a folder of masks named like the images. A run with folds is the
            ensemble of its models. Masks are read by the folder's ``classes.toml``. Without it they
            are read with the encoding that the other side's model writes, else of the true masks.
        b: The other side, given in the same way.
        source: Folder of labelled images. None takes ``data/test`` where there is one, else the
            images that the stores of both models held out.
        settings: How models cover an image; the selection of pages and edges holds for masks, too.
        include_trained: Score images that A or B was trained on, too.
        classes: A ``classes.toml`` for the true masks instead of the folder's own.
        ignore: Values or colours in the true masks that are not scored, too.
        group: A pattern searched in the stems: intervals are taken over groups of images.
        on_progress: Receives `Note` and `Progress`.

    Raises:
        InputError: `evaluate` refuses a side; other classes on both sides; no image that neither
            was trained on.
    """
    sides = _Side(a), _Side(b)
    cards = [card for side in sides for card in side.cards]
    width = next((card.line_width for card in cards if card.line_width is not None), None)
    if source is None and DEFAULT_FOLDER.is_dir():
        source = DEFAULT_FOLDER
    if source is None:
        names, total = _held_out_by_both(sides)
        place = "the images that both hold out"
    else:
        selection = (settings or PredictSettings()).selection
        listed = functools.reduce(Selection.or_else, (card.selection for card in cards), selection)
        labelled = pairing.read_set(source, classes, selection=listed, line_width=width)
        names, total = _fit_to_score(labelled, sides, include_trained, selection)
        place = show(source)
    left_out = total - len(names)
    if left_out:
        text = f"{left_out} of {total} images were trained on by A or B, left out"
        on_progress(Note(f"{text}; {len(names)} scored", warning=source is not None))
    on_progress(
        Note(f"scoring A, {show(a)}, and B, {show(b)}, on {plural(len(names), 'image')} of {place}")
    )
    bare = source is None or labelled.classes is None

    def score(side: _Side, other: _Side) -> Evaluation:
        as_written_by = [other.name] if bare and not other.is_masks else None
        return evaluate(
            source,
            model=as_written_by if side.is_masks else [side.name],
            predictions=side.name if side.is_masks else None,
            settings=settings,
            include_trained=True,  # those to leave out are not among `names`
            classes=classes,
            ignore=ignore,
            line_width=width if source is not None else None,
            group=group,
            only=names,
            on_progress=_without_notes(on_progress),
        )

    found = score(*sides), score(*sides[::-1])
    one, other = _align(found[0].scores, found[1].scores, sides)
    mean_ends, class_ends = intervals.of_differences(
        *overlaps(one.matrices, one.groups), *overlaps(other.matrices, one.groups)
    )
    per_class = iou_of(one.matrices), iou_of(other.matrices)  # (n, C) each
    per_image = _image_means(per_class[0]), _image_means(per_class[1])  # (n,) each
    return Comparison(
        a=a,
        b=b,
        scores_a=one,
        scores_b=other,
        mean=_difference(one.mean_iou, other.mean_iou, mean_ends, *per_image),
        classes={
            name: _difference(
                one.iou[name],
                other.iou[name],
                class_ends[c],
                per_class[0][:, c],
                per_class[1][:, c],
            )
            for c, name in enumerate(one.classes)
        },
        losses=_losses(one, *per_image, *per_class),
        left_out=left_out,
        total=total,
    )


class _Side:
    """A or B: masks in a folder, or a model.

    Attributes:
        name: The name as it was given.
        is_masks: Whether it is a folder of pictures without a model.
        files: The files of its models.
        cards: The cards of its models.
    """

    def __init__(self, name: str) -> None:
        self.name, self.is_masks = name, _is_masks(Path(name))
        self.files = [] if self.is_masks else resolve_model(name)
        self.cards: list[ModelCard] = [model_file.read_card(file) for file in self.files]


def _is_masks(path: Path) -> bool:
    model = model_file.MODEL_NAME
    if not path.is_dir() or (path / model).exists() or any(path.glob(f"fold-*/{model}")):
        return False
    try:
        return bool(naming.list_images(path))
    except InputError:  # the folder holds no pictures, so the name may be that of a run
        return False


def _fit_to_score(
    labelled: LabelledSet, sides: Sequence[_Side], include_trained: bool, selection: Selection
) -> tuple[set[str], int]:
    """Return the stems of a folder that neither side was trained on, and how many it has.

    Each side knows its images by the part of the files that it was trained on.
    """
    pairs = pairing.find_pairs(labelled)
    kept = list(pairs)
    for side in () if include_trained else sides:
        if side.cards:
            part = selection.or_else(side.cards[0].selection)
            kept = untrained(kept, side.cards, part)
    if not kept:
        text = f"all {len(pairs)} images were trained on by A or B"
        remedy = f"name other images, or give {arg('include_trained', True)}"
        raise InputError(labelled.folder, text, remedy)
    return {pair.name for pair in kept}, len(pairs)


def _held_out_by_both(sides: Sequence[_Side]) -> tuple[set[str], int]:
    """Return the stems that the stores of both models hold out, and how many images A's has."""
    line = either("unetseg compare A B FOLDER", "unetseg.compare(A, B, FOLDER)")
    remedy, folder = f"name a folder of labelled images: {line}", either("FOLDER", "source")
    for side in sides:
        if side.is_masks:
            raise InputError(folder, f"is missing, and {show(side.name)} holds masks alone", remedy)
        if len(side.files) > 1:
            text = f"is {len(side.files)} models, which together were trained on all their images"
            raise InputError(side.name, text, remedy)
    stores = [open_training_store(side.cards[0], side.files[0], remedy) for side in sides]
    seen = frozenset.union(*(side.cards[0].trained_on for side in sides))
    common = set.intersection(
        *({(Path(s.name).stem, s.sha256) for s in store.info.held_out} for store in stores)
    )
    names = {stem for stem, digest in common if digest not in seen}
    if not names:
        text = "is missing, and the models' stores hold out no image that both have not seen"
        raise InputError(folder, text, remedy)
    return names, len(stores[0].info.sources)


def _without_notes(on_progress: OnProgress) -> OnProgress:
    """Return a callback that drops notes about one side alone, but keeps warnings."""

    def passed_on(record: object) -> None:
        if not isinstance(record, Note) or record.warning:
            on_progress(record)

    return passed_on


def _align(one: Scores, other: Scores, sides: Sequence[_Side]) -> tuple[Scores, Scores]:
    """Return both scores with images and classes in the order of A's.

    Raises:
        InputError: Other classes on both sides, or other true masks.
    """
    classes = tuple(dict.fromkeys((*one.classes, *other.classes)))
    alike = len(classes) == len(one.classes) == len(other.classes)
    if not alike and not all(side.is_masks for side in sides):
        text = f"has the classes {', '.join(other.classes)}; A has {', '.join(one.classes)}"
        raise InputError(sides[1].name, text, "compare models or masks of the same classes")
    first, second = (_arrange(s, one.names, classes) for s in (one, other))
    differing = (first.sum(axis=2) != second.sum(axis=2)).any(axis=1)
    if differing.any():
        name = one.names[int(differing.argmax())]
        text = f"A and B are scored on other pixels of {show(name)}"
        remedy = "name a folder of labelled images; where a model ignores an area, pass "
        raise InputError("compare", text, remedy + arg("whole"))
    one, other = (scores(m, one.names, classes, one.groups) for m in (first, second))
    return one, other


def _arrange(found: Scores, names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the matrices (n, C, C) of images and classes in this order; missing classes have 0."""
    rows = [found.names.index(name) for name in names]
    places = [classes.index(name) for name in found.classes]
    matrices = np.zeros((len(names), len(classes), len(classes)), np.int64)
    matrices[np.ix_(range(len(names)), places, places)] = found.matrices[rows]
    return matrices


def _image_means(iou: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean (n,) of the defined IoUs (n, C) of each image; NaN where none is defined."""
    defined = ~np.isnan(iou)
    count = defined.sum(axis=1)
    total = np.where(defined, iou, 0.0).sum(axis=1)
    mean: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def _difference(
    a: float | None,
    b: float | None,
    ends: NDArray[np.float64],
    images_a: NDArray[np.float64],
    images_b: NDArray[np.float64],
) -> Difference:
    """Return a difference; ``images_a`` and ``images_b`` (n,) are the IoU of each image."""
    shown = ~(np.isnan(images_a) & np.isnan(images_b))
    gain = _gain(images_a, images_b)[shown]
    won, lost = int((gain > _TIE).sum()), int((gain < -_TIE).sum())
    return Difference(
        a=a,
        b=b,
        difference=None if a is None or b is None else b - a,
        ci95=interval(ends),
        won=won,
        lost=lost,
        tied=len(gain) - won - lost,
    )


def _gain(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU of B less that of A.

    If neither truth nor prediction holds a class, its IoU counts as 1.
    """
    gain: NDArray[np.float64] = np.nan_to_num(b, nan=1.0) - np.nan_to_num(a, nan=1.0)
    return gain


def _losses(
    found: Scores,
    mean_a: NDArray[np.float64],
    mean_b: NDArray[np.float64],
    class_a: NDArray[np.float64],
    class_b: NDArray[np.float64],
) -> tuple[Loss, ...]:
    gain = _gain(mean_a, mean_b)
    weakest = _gain(class_a, class_b).argmin(axis=1)
    worst = [int(k) for k in np.argsort(gain, kind="stable")[:_LOSSES] if gain[k] < -_TIE]
    return tuple(
        Loss(found.names[k], float(mean_a[k]), float(mean_b[k]), found.classes[weakest[k]])
        for k in worst
    )


def _cells(one: Difference) -> tuple[object, ...]:
    difference = None if one.difference is None else f"{one.difference:+.3f}"
    ends = f"{one.ci95[0]:+.3f} to {one.ci95[1]:+.3f}" if one.ci95 else None
    return one.a, one.b, difference, ends, one.won, one.lost, one.tied
