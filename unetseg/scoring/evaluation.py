"""Scoring masks against the truth: a model's own, or masks made by any program."""

import itertools
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg.arguments import Names, Reports, public, several
from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import naming, pairing, splits
from unetseg.dataset.geometry import SPARSE
from unetseg.dataset.naming import Pair
from unetseg.dataset.pairing import LabelledSet
from unetseg.dataset.store import Store
from unetseg.errors import InputError, arg, either
from unetseg.objects.files import find_label_image
from unetseg.objects.separation import Objects, find_objects, object_classes
from unetseg.pictures import masks, reading, transforms
from unetseg.pictures.bands import Rows
from unetseg.prediction import model_file
from unetseg.prediction.model import AnyImage, Model
from unetseg.prediction.model_file import ModelCard
from unetseg.prediction.run_folder import NAME_A_FOLDER, open_training_store, resolve_model
from unetseg.prediction.segmenter import Computed, Segmenter, labels_of
from unetseg.progress import Note, OnProgress, Progress, silent, steps, warn
from unetseg.ranks import join, world
from unetseg.results import Result, Table
from unetseg.scoring.boundaries import Boundaries, boundary_scores, pool_boundaries
from unetseg.scoring.curves import AREAS, CurveCounts, Curves
from unetseg.scoring.metrics import ScoredImage, Scores, confusion, mean_of_defined, scores
from unetseg.scoring.panoptic import ObjectScores, match_objects, object_scores
from unetseg.scoring.predictions import Labels, PassedProbabilities, Predicted, Predictions
from unetseg.settings import WHOLE, PredictSettings, Selection, check_line_width
from unetseg.signals import catching
from unetseg.text import plural, quote, show

DEFAULT_FOLDER = Path("data/test")
_FEW = 0.01  # the share of an image's labelled pixels that made masks may leave without a class


@dataclass(frozen=True)
class Subject:
    """Labelled images, and a way to a predicted mask of each: all that scoring needs.

    Attributes:
        title: The subject of the scores, for a heading: "wide on data/test".
        classes: The meaning of class indices: the model's classes, or those found.
        names: Names of the images, no two alike.
        groups: The group of each image, over which intervals are taken; its name where there are
            no groups.
        image: Reads the k-th image, (H, W, C).
        truth: Reads the k-th true mask, (H, W) class indices, 255 ignored.
        prediction: Takes k, its true mask, and whether the confidence is wanted.
        trained_on: Number of images left out because the model was trained on them.
        numbers: Takes k and its true mask. Reads the label image (H, W) of the true objects; None
            where there is none.
        expect: Takes the numbers of the images whose predictions will be asked for, in order.
        model: The file of the (first) model; None where masks are scored.
    """

    title: str
    classes: ClassTable
    names: Sequence[str]
    groups: Sequence[str]
    image: Callable[[int], NDArray[Any]]
    truth: Callable[[int], Labels]
    prediction: Callable[[int, Labels, bool], Predicted]
    trained_on: int = 0
    numbers: Callable[[int, Labels], NDArray[Any] | None] = lambda _, truth: None
    expect: Callable[[Sequence[int]], None] = lambda _: None
    model: Path | None = None

    def scored_image(self, k: int) -> ScoredImage:
        """Read and predict the k-th image, with its confidence where it is known."""
        truth = self.truth(k)
        found = self.prediction(k, truth, True)
        return ScoredImage(self.names[k], self.image(k), truth, found.labels, found.confidence)


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """The images that were scored, and their scores.

    Attributes:
        scores: The scores, pooled over all images.
        subject: The images that were scored.
        boundaries: How far borders lie from the true ones; None where that was not asked for.
        objects: How well objects were found; None where that was not asked for.
        curves: The curves of all thresholds; None where they were not asked for.
    """

    scores: Scores
    subject: Subject
    boundaries: Boundaries | None = None
    objects: ObjectScores | None = None
    curves: Curves | None = None

    @property
    def total(self) -> int:
        """Number of images found, those left out included."""
        return len(self.subject.names) + self.subject.trained_on

    def line(self) -> str:
        """Return the title of the evaluation and the mean IoU."""
        return f"{show(self.subject.title)}: {self.scores.line()}"

    def tables(self) -> tuple[Table, ...]:
        """Return the scores of each class, and a table for all else that was asked for."""
        count = plural(len(self.subject.names), "image")
        others = [one.table() for one in (self.boundaries, self.objects, self.curves) if one]
        return self.scores.table(f"{show(self.subject.title)}: {count}"), *others

    def to_dict(self) -> dict[str, Any]:
        """Return the scores in plain types for JSON."""
        about = {"title": self.subject.title, "trained_on": self.subject.trained_on}
        more = {"boundary": self.boundaries, "objects": self.objects, "curves": self.curves}
        return about | self.scores.to_dict() | {k: v.to_dict() for k, v in more.items() if v}

    def records(self) -> list[dict[str, Any]]:
        """Return a row a class, as `Scores.records` does, with the other scores asked for."""
        rows = self.scores.records()
        for row in rows:
            name = row["class"]
            if self.boundaries:
                row["surface_dice"] = self.boundaries.surface_dice[name]
                row["hd95"] = self.boundaries.distance[name]
            if self.curves:
                row |= {area: of[name] for area, of in self.curves.to_dict().items()}
        return rows

    def image_records(self) -> list[dict[str, Any]]:
        """Return a row an image, as ``evaluate --csv`` writes it; None where undefined.

        The distance of a border that only one of the masks has is infinite.
        """
        scores, classes = self.scores, self.scores.classes
        measures = scores.of_images()
        rows: list[dict[str, Any]] = [
            {"image": name, "mean_iou": mean_of_defined(ious)}
            for name, ious in zip(scores.names, measures["iou"], strict=True)
        ]
        for measure, values in measures.items():
            for row, of_image in zip(rows, values.tolist(), strict=True):
                for name, value in zip(classes, of_image, strict=True):
                    row[f"{measure}_{name}"] = None if math.isnan(value) else value
        edges = self.boundaries.images if self.boundaries else ()
        for row, edge in zip(rows, edges, strict=bool(edges)):
            for measure, of_classes in (
                ("surface_dice", edge.surface_dice),
                ("hd95", edge.distance),
            ):
                for name, value in zip(classes, of_classes, strict=True):
                    row[f"{measure}_{name}"] = value
        areas = self.curves.images if self.curves else ()
        for row, area in zip(rows, areas, strict=bool(areas)):
            for measure in AREAS:
                for name in classes:
                    row[f"{measure}_{name}"] = area[name] and getattr(area[name], measure)
        return rows


@public()
@join()
def evaluate(
    source: str | os.PathLike[str] | None = None,
    *,
    model: Names | None = None,
    predictions: str | os.PathLike[str] | None = None,
    settings: PredictSettings | None = None,
    include_trained: bool = False,
    classes: str | os.PathLike[str] | None = None,
    ignore: int | str | Sequence[int | str] = (),
    line_width: float | None = None,
    group: str | None = None,
    only: str | Collection[str] | None = None,
    boundary: float | None = None,
    objects: str | Sequence[str] = (),
    curves: bool = False,
    keep: bool = False,
    on_progress: Reports = warn,
) -> Evaluation:
    """Score a model, or masks made by any program, on labelled images.

    Processes started by ``torchrun`` share the images; all are given the same scores. The first of
    them alone computes the scores of ``boundary`` and ``objects``.

    Args:
        source: Folder of labelled images. None takes ``data/test`` where there is one, else the
            images that the model's own store held out.
        model: Runs, run folders or model files; several are averaged. None is the default run;
            with ``predictions``, no model.
        predictions: A folder of masks named like the images, which are scored instead of a model.
            They are read with the encoding of the true masks. With ``model``, they are read with
            the encoding that the first model writes, and pixels that this model ignores do not
            count. Images that a model was trained on are left out. Up to 1 % of the labelled
            pixels of an image may have no class in these masks; they count as wrong, as `confusion`
            says it.
        settings: How images are covered; the selection of pages and edges holds for
            ``predictions``, too.
        include_trained: Score images that the model was trained on, too.
        classes: A ``classes.toml`` for the true masks instead of the folder's own.
        ignore: Values or colours in the true masks that are not scored, in addition to those of
            the classes.
        line_width: The width in pixels, 1 to 1,000, at which lines and points among true shapes are
            drawn. None takes that of the (first) model's training.
        group: A pattern that `splits.group_of` searches in the stems. Intervals are taken over the
            groups of images that it finds. None takes the groups that a store recorded, else each
            image for itself.
        only: Stems of the images to score, others are left out; None takes all.
        boundary: The tolerance in pixels, 0 or more, by which borders are scored, too; None scores
            no borders.
        objects: Classes whose objects are scored, too, or "all".
        curves: Score every threshold, too: the areas under the ROC and the precision-recall curve.
        keep: Keep the predictions in a temporary file, 5 bytes a pixel, as long as the
            result lives. Borders and objects keep it, too. A report then predicts nothing again.
        on_progress: Receives `Note` and `Progress`.

    Raises:
        InputError: A missing or unreadable file, masks that do not fit, nothing left to score. No
            such class, a bad tolerance, or curves of masks, which have no probabilities.
        MachineError: The disk is too full to keep the predictions.
    """
    on_progress = world().only_on_rank_zero(on_progress)
    check_line_width(line_width)
    if boundary is not None and not 0 <= boundary < math.inf:
        text = f"{boundary:g} is no number of pixels, 0 or more"
        raise InputError(arg("boundary"), text, f"give {arg('boundary', 2)}")
    if source is None and DEFAULT_FOLDER.is_dir():
        source = DEFAULT_FOLDER
    chosen = None if only is None else several(only)
    kinds, keeps = several(objects), keep or bool(objects) or boundary is not None
    choice = _Choice(group, chosen, include_trained, curves, keeps)
    if curves and predictions is not None:
        raise InputError(arg("curves"), "needs the probabilities of a model", "give a model")
    ignored, names = several(ignore), None if model is None else several(model)
    if predictions is not None:
        if source is None:
            raise InputError(
                either("FOLDER", "source"), "is missing", "name the folder with the true masks"
            )
        files = [file for name in names or () for file in resolve_model(name)]
        cards = [model_file.read_card(file) for file in files]
        if settings and settings.whole:
            cards = [card.of_whole_images() for card in cards]
        card = cards[0] if cards else None
        selection = settings.selection if settings else WHOLE
        selection = selection.or_else(card.selection) if card else selection
        labelled = _read(source, classes, selection, line_width, card, on_progress)
        own = labelled.classes
        made = _find_masks(labelled, Path(predictions), selection)
        if all(os.path.realpath(path) == os.path.realpath(p.mask) for p, path in made.pairs):
            text = f"{show(predictions)} holds the true masks themselves: their score says nothing"
            on_progress(Note(text, warning=True))
        if card:
            encoding = _encoding(labelled, card.classes, ignored, classes, selection)
            subject = _masks_of(made, *encoding, cards, choice, on_progress)
        else:
            truth = own.with_ignored(ignored) if own else _discover(made, ignored)
            subject = _masks_of(made, truth, _SAME, (), choice, on_progress)
    else:
        loaded = Model(names or "default", settings)
        if source is None:
            given = {"classes": classes, "ignore": ignored or None, "line_width": line_width}
            for name in (name for name, value in given.items() if value is not None):
                raise InputError(arg(name), "is for a folder of true masks", "name one")
            subject = _held_out_by(loaded, choice, on_progress)
        else:
            labelled = _read(
                source, classes, loaded.selection, line_width, loaded.card, on_progress
            )
            encoding = _encoding(labelled, loaded.card.classes, ignored, classes, loaded.selection)
            subject = _folder_by(loaded, labelled, encoding, choice, on_progress)
    # Unknown names are refused before any image is predicted.
    object_classes(subject.classes, kinds, on_progress)
    found = _refuse_unscored(_score(subject, curves, on_progress))
    if not world().is_writer:
        return found
    return replace(
        found,
        boundaries=None if boundary is None else _boundaries(subject, boundary, on_progress),
        objects=_objects(subject, kinds, on_progress) if kinds else None,
    )


def evaluation_of(
    found: Scores,
    model: str | os.PathLike[str],
    passed: PassedProbabilities | None = None,
    on_progress: OnProgress = silent,
) -> Evaluation:
    """Return the evaluation of a model whose training has scored its held-out images.

    Their predictions are kept from the first request on.

    Args:
        found: The scores that the training found.
        model: The run or its model.
        passed: The probabilities that the training computed for the scores.
        on_progress: Receives `Note`.
    """
    choice = _Choice(None, None, keep=True, passed=passed)
    subject = _held_out_by(Model(model), choice, on_progress)
    return Evaluation(found, subject)


def _boundaries(subject: Subject, tolerance: float, on_progress: OnProgress) -> Boundaries:
    """Compare the borders of all images, whose predictions are kept."""
    borders = []
    names, count = subject.names, len(subject.classes.classes)
    numbers = range(len(names))
    for k in steps(numbers, "comparing borders", "images", on_progress, name=names.__getitem__):
        truth = subject.truth(k)
        labels = subject.prediction(k, truth, False).labels
        borders.append(boundary_scores(truth, labels, count, tolerance))
    return pool_boundaries(borders, subject.classes.names)


def _objects(subject: Subject, names: Sequence[str], on_progress: OnProgress) -> ObjectScores:
    """Compare the objects of all images, whose predictions are kept.

    True objects are those of a label image ``objects/<stem>.tif`` or ``.png`` beside the masks.
    Without that file they are told apart in the true mask as in a predicted mask.
    """
    matches = []
    classes = object_classes(subject.classes, names)
    stems, numbers = subject.names, range(len(subject.names))
    for k in steps(numbers, "comparing objects", "images", on_progress, name=stems.__getitem__):
        pair = read_objects(subject, classes, k)
        matches.append(
            [match_objects(pair.true[c], pair.predicted.of(c), pair.ignored) for c in classes]
        )
    kinds = [subject.classes.names[kind] for kind in classes]
    return object_scores(kinds, matches, subject.groups)


@dataclass(frozen=True)
class ObjectPair:
    """The objects of one image.

    Attributes:
        true: A label image (H, W) of the true objects of each class.
        predicted: The predicted objects.
        ignored: (H, W) pixels that do not count.
    """

    true: Mapping[int, NDArray[Any]]
    predicted: Objects
    ignored: NDArray[np.bool_]


def read_objects(subject: Subject, classes: Mapping[int, int | None], k: int) -> ObjectPair:
    """Read and predict the k-th image, and tell its objects apart.

    Args:
        subject: The images with truth and prediction.
        classes: The classes and borders that `object_classes` returns.
        k: The place of the image.

    Raises:
        InputError: An image or mask cannot be read, or a label image has another size.
    """
    truth = subject.truth(k)
    found = subject.prediction(k, truth, True)
    sure = found.confidence
    confidence = None if sure is None else np.rint(sure * 255).astype(np.uint8)
    true = _true_objects(subject.numbers(k, truth), truth, classes)
    return ObjectPair(true, find_objects(found.labels, classes, confidence), truth == IGNORED)


def _true_objects(
    numbers: NDArray[Any] | None, truth: Labels, classes: Mapping[int, int | None]
) -> dict[int, NDArray[Any]]:
    """Return a label image for each class, from the one given or else from the true mask."""
    if numbers is None:
        found = find_objects(truth, classes)
        return {kind: found.of(kind) for kind in classes}
    return {
        kind: np.where(np.isin(truth, [kind] if border is None else [kind, border]), numbers, 0)
        for kind, border in classes.items()
    }


def _read_numbers(
    root: Path, stem: str, truth: Labels, selection: Selection
) -> NDArray[Any] | None:
    """Return the label image of an image's true objects; None where there is none."""
    path = find_label_image(root, stem)
    if path is None:
        return None
    numbers = reading.read_mask(path, selection).values
    if numbers.shape != truth.shape:
        text = f"is {numbers.shape} pixels, the mask is {truth.shape}"
        raise InputError(path, text, "make it anew from the mask")
    return numbers


@dataclass(frozen=True)
class _Choice:
    """The images to score, their groups, and the kinds of scores; see `evaluate`."""

    group: str | None
    only: Collection[str] | None
    include_trained: bool = False
    curves: bool = False
    keep: bool = False
    passed: PassedProbabilities | None = None

    def takes(self, name: str) -> bool:
        """Return whether an image is among those asked for."""
        return self.only is None or name in self.only

    def groups(self, names: Sequence[str]) -> list[str]:
        """Return the group of each image; its name where there are none."""
        return splits.groups_of(names, self.group)

    def predictions(self, model: Model, image: Callable[[int], AnyImage]) -> Predictions:
        """Return the predictions of the images that ``image`` returns by number."""
        return Predictions(model, image, self.keep, self.curves, self.passed)


def untrained(
    pairs: Sequence[Pair], cards: Sequence[ModelCard], selection: Selection = WHOLE
) -> list[Pair]:
    """Return the pairs whose image, by its pixels, none of the models was trained on."""
    trained = _trained_on(cards)
    if not trained:
        return list(pairs)
    mine = [
        transforms.pixel_hash(p.read_image(selection)) not in trained
        for p in world().own_items(pairs)
    ]
    return [p for p, kept in zip(pairs, world().collect(mine), strict=True) if kept]


def _trained_on(cards: Sequence[ModelCard]) -> frozenset[str]:
    return frozenset[str]().union(*(card.trained_on for card in cards))


def _choose(
    root: Path,
    pairs: Sequence[Pair],
    cards: Sequence[ModelCard],
    selection: Selection,
    choice: _Choice,
    on_progress: OnProgress,
) -> tuple[list[Pair], int]:
    """Return the pairs to score, and how many are left out because a model was trained on them.

    Raises:
        InputError: No pair is left.
    """
    pairs = [pair for pair in pairs if choice.takes(pair.name)]
    if not pairs:
        raise InputError(root, "holds none of the images asked for", "check their names")
    chosen = pairs if choice.include_trained else untrained(pairs, cards, selection)
    left_out = len(pairs) - len(chosen)
    if not chosen:
        text = f"all {plural(len(pairs), 'image')} were trained on"
        raise InputError(root, text, f"name other images, or give {arg('include_trained', True)}")
    if left_out:
        text = f"{left_out} of {len(pairs)} images were trained on, left out; {len(chosen)} scored"
        on_progress(Note(text, warning=True))
    return chosen, left_out


def _read(
    source: str | os.PathLike[str],
    classes: str | os.PathLike[str] | None,
    selection: Selection,
    line_width: float | None,
    card: ModelCard | None,
    on_progress: OnProgress,
) -> LabelledSet:
    """Read a folder of labelled images; its lines are as wide as asked for, else as in training."""
    width = card.line_width if card and line_width is None else line_width
    labelled = pairing.read_set(source, classes, selection=selection, line_width=width)
    for text in labelled.warnings:
        on_progress(Note(f"{show(labelled.folder)}: {text}", warning=True))
    return labelled


def _folder_by(
    model: Model,
    labelled: LabelledSet,
    encoding: tuple[ClassTable, NDArray[np.uint8]],
    choice: _Choice,
    on_progress: OnProgress,
) -> Subject:
    """Return the images of a folder, predicted by a model that was not trained on them."""
    selection, root = model.selection, labelled.folder
    pairs = pairing.find_pairs(labelled)
    chosen, left_out = _choose(root, pairs, model.cards, selection, choice, on_progress)
    groups = choice.groups([pair.file_stem for pair in chosen])
    on_progress(Note(f"scoring {plural(len(chosen), 'image')} of {show(root)} with {model}"))
    predictions = choice.predictions(model, lambda k: _seen(chosen[k], model))

    return Subject(
        title=f"{model.card.name} on {root}",
        classes=model.card.classes,
        names=[pair.name for pair in chosen],
        groups=groups,
        image=lambda k: chosen[k].read_image(selection),
        truth=lambda k: model.ignore_outside(_read_truth(chosen[k], *encoding, selection)),
        prediction=predictions,
        trained_on=left_out,
        numbers=lambda k, truth: _read_numbers(root, chosen[k].name, truth, selection),
        expect=predictions.expect,
        model=model.paths[0],
    )


def _seen(pair: Pair, model: Model) -> Any:
    """Return the image of a pair as the model's methods take it: a file, or a page of one."""
    return pair.image if pair.page is None else model.read(pair.image, pair.page)


def _held_out_by(model: Model, choice: _Choice, on_progress: OnProgress) -> Subject:
    """Return the images that the model's own store held out, predicted by the model."""
    opened = open_training_store(model.card, model.paths[0])
    path = opened.path
    info, card = opened.info, model.card
    if opened.content_hash != card.store_hash:  # with equal hashes, only names and colours differ
        alike = info.channels == card.channels and info.dtype == card.dtype
        if not alike or info.scale != card.scale or info.classes.names != card.classes.names:
            text = "has other classes, channels or scale than when the model was trained"
            raise InputError(path, text, NAME_A_FOLDER)
        text = f"{show(path)} is another store than the one the model was trained on"
        on_progress(Note(text, warning=True))
    trained = _trained_on(model.cards)
    kept = [
        k
        for k, source in enumerate(info.held_out)
        if source.sha256 not in trained and choice.takes(Path(source.name).stem)
    ]
    if not kept:
        text = "holds out no image that the model has not seen"
        raise InputError(path, text, NAME_A_FOLDER)
    total = len(info.sources)
    on_progress(
        Note(f"{total - len(kept)} of {total} images were trained on, left out; {len(kept)} scored")
    )
    stems = [Path(info.held_out[k].name).stem for k in kept]
    groups = choice.groups(stems) if choice.group else [info.held_out[k].group for k in kept]
    on_progress(Note(f"scoring {plural(len(kept), 'held-out image')} of {show(path)} with {model}"))
    predictions = choice.predictions(model, lambda number: opened.held_out(number)[0])
    return Subject(
        title=f"{card.name} on the images its store held out",
        classes=card.classes,
        names=stems,
        groups=groups,
        image=lambda k: np.asarray(opened.held_out(kept[k])[0]),
        truth=lambda k: model.ignore_outside(np.asarray(opened.held_out(kept[k])[1])),
        prediction=lambda k, truth, sure: predictions(kept[k], truth, sure),
        trained_on=total - len(kept),
        expect=lambda numbers: predictions.expect([kept[k] for k in numbers]),
        model=model.paths[0],
    )


def score_held_out(
    opened: Store,
    segmenter: Segmenter,
    which: Sequence[int] | None = None,
    on_progress: OnProgress = silent,
    check: Callable[[], None] = lambda: None,
    observe: Callable[[int, Tensor, Tensor], None] = lambda number, band, truth: None,
) -> tuple[Scores, float]:
    """Score a network on the whole held-out images of a store.

    Args:
        opened: The store.
        segmenter: The network, and how it covers an image.
        which: Numbers of held-out images; None takes all.
        on_progress: Receives `Progress`.
        check: Called before each image is scored; may raise to stop.
        observe: A function that receives each band of an image from top to bottom. Its arguments
            are the number of the image, the probabilities (K, rows, W), and the truth (rows, W)
            uint8 on the same device.

    Several processes share the images. Each is given all scores, equal to those of one process.

    Returns:
        The scores, and the mean negative log-likelihood of the true classes.
    """
    ranks, found, count = world(), [], len(opened.info.classes.classes)
    which = range(opened.held_out_count) if which is None else which
    mine = ranks.own_items(which)
    for k, image in _in_batches(opened, segmenter, mine):
        check()
        _, mask, source = opened.held_out(k)
        row, pixels = 0, 0
        labels, logs = list[Tensor](), list[float]()
        for band in segmenter.bands(image, mask.shape[:2]):
            truth = torch.from_numpy(np.array(mask[row : row + band.shape[1]])).to(band.device)
            valid = truth != IGNORED
            chosen = band.gather(0, truth.long().where(valid, 0)[None])[0][valid]
            logs.append(float(chosen.clamp_min(1e-7).log().sum()))
            pixels += int(valid.sum())
            row += band.shape[1]
            labels.append(labels_of(band))
            observe(k, band, truth)
        matrix = confusion(mask, torch.cat(labels).numpy(), count).tolist()
        found.append((matrix, Path(source.name).stem, source.group, logs, pixels))
        on_progress(Progress("scoring", len(found), len(mine), "images", show(source.name)))
    matrices, names, groups, all_logs, counts = zip(*ranks.collect(found), strict=True)
    log_sum = sum(itertools.chain.from_iterable(all_logs))
    found_scores = scores(np.array(matrices), names, opened.info.classes.names, groups)
    return found_scores, -log_sum / max(sum(counts), 1)


def _in_batches(
    opened: Store, segmenter: Segmenter, numbers: Sequence[int]
) -> Iterator[tuple[int, Rows | Computed]]:
    """Yield held-out images in the scale of the patches; small ones are computed in batches."""
    sources, scale = opened.info.held_out, opened.info.scale

    def size(k: int) -> tuple[int, int]:
        return transforms.scaled_size(sources[k].height, sources[k].width, scale)

    for batch in segmenter.batches(numbers, size):
        images = [transforms.rescale_image(opened.held_out(k)[0], size(k)) for k in batch]
        yield from zip(batch, segmenter.together(images), strict=True)


@dataclass(frozen=True)
class _Made:
    """Masks to score: each pair of a folder with the mask made for it."""

    root: Path
    predictions: Path
    pairs: tuple[tuple[Pair, Path], ...]
    selection: Selection

    def read(self, pair: Pair, path: Path) -> masks.RawMask:
        """Read the mask that was made for an image."""
        return reading.read_mask(path, pair.taken(self.selection))


def _find_masks(labelled: LabelledSet, predictions: Path, selection: Selection) -> _Made:
    """Find the made mask of every image. Raises `InputError` where one is missing."""
    pairs = pairing.find_pairs(labelled)
    made = {naming.stem_of(p): p for p in naming.list_images(predictions)}
    made = {p.name: made[s] for p in pairs for s in (p.name, p.file_stem) if s in made}
    missing = [p.name for p in pairs if p.name not in made]
    if missing:
        text = f"no mask for {show(', '.join(missing[:3]))}" + (" ..." if missing[3:] else "")
        raise InputError(predictions, text, "masks are found by the images' stems")
    return _Made(labelled.folder, predictions, tuple((p, made[p.name]) for p in pairs), selection)


def _masks_of(
    made: _Made,
    truths: ClassTable,
    order: NDArray[np.uint8],
    cards: Sequence[ModelCard],
    choice: _Choice,
    on_progress: OnProgress,
) -> Subject:
    """Return the images of a folder, with masks made by any program.

    Args:
        made: The masks.
        truths: Classes by which the true masks are read.
        order: (256,) index of each class of ``truths`` among those of the made masks.
        cards: The models that made the masks. The masks are read by the classes of the first;
            without models by ``truths``.
        choice: Which of the images are scored.
        on_progress: Receives `Note` and `Progress`.
    """
    card = cards[0] if cards else None
    path_of = {pair.name: path for pair, path in made.pairs}
    pairs = [pair for pair, _ in made.pairs]
    kept, left_out = _choose(made.root, pairs, cards, made.selection, choice, on_progress)
    chosen = [(pair, path_of[pair.name]) for pair in kept]
    places = f"{show(made.predictions)} against {show(made.root)}"
    names = [pair.name for pair, _ in chosen]
    groups = choice.groups([pair.file_stem for pair, _ in chosen])
    on_progress(Note(f"scoring {plural(len(chosen), 'mask')} of {places}"))
    table = card.classes if card else truths
    remedy = "give each of them a class, or ignore them in the true mask"
    if card is None:
        remedy += f"; if a model ignores them, as it did in training, name it: {arg('model')}"

    def image(k: int) -> NDArray[Any]:
        pair, _ = chosen[k]
        _check_size(pair, truth(k), made.selection)
        return pair.read_image(made.selection)

    def truth(k: int) -> Labels:
        pair, _ = chosen[k]
        indices: Labels = order[pair.labels(truths, made.selection)]
        return card.ignore_outside(indices, made.selection) if card else indices

    def prediction(k: int, truth: Labels, _: bool) -> Predicted:
        pair, path = chosen[k]
        labels = naming.decode_inside(made.read(pair, path), table, made.selection, path)
        if labels.shape != truth.shape:
            text = f"{_size(labels)} pixels, the truth has {_size(truth)}"
            raise InputError(path, text, "predict at the images' own size")
        labelled = truth != IGNORED
        blank = (labels == IGNORED) & labelled
        missed = int(blank.sum())
        if missed > _FEW * labelled.sum() or (missed and len(table.classes) == 1):
            y, x = np.argwhere(blank)[0]
            text = f"{missed:,} ignored pixels where the truth has a class, first at "
            raise InputError(path, f"{text}(x {x}, y {y})", remedy)
        return Predicted(labels, missed=missed)

    title = f"{made.predictions} on {made.root}"
    return Subject(
        title,
        table,
        names,
        groups,
        image,
        truth,
        prediction,
        trained_on=left_out,
        numbers=lambda k, truth: _read_numbers(made.root, names[k], truth, made.selection),
    )


def _discover(made: _Made, ignored: tuple[int | str, ...]) -> ClassTable:
    """Return the classes found in true and predicted masks.

    Where the true masks hold colours, predicted masks with a palette are read as colours, too.
    """
    found = {str(p.mask): masks.find_keys(p.read_mask(made.selection)) for p, _ in made.pairs}
    in_colours = masks.discover(found, ignored).encoding == "colours"
    for pair, path in made.pairs:
        raw = made.read(pair, path)
        ignored_here = masks.painted_ignored(raw)
        if in_colours and raw.palette is not None:
            raw = masks.RawMask(raw.palette[raw.values])
        found[str(path)] = masks.find_keys(replace(raw, unlabelled=ignored_here))
    return masks.discover(found, ignored)


def _score(subject: Subject, curves: bool, on_progress: OnProgress) -> Evaluation:
    """Score all images; processes started together share them, and each is given all scores."""
    names, classes, mine = subject.names, subject.classes.names, []
    counts, numbers = CurveCounts(classes), world().own_items(range(len(names)))
    subject.expect(numbers)
    with catching() as caught:
        for k in steps(
            numbers,
            "scoring",
            "images",
            on_progress,
            name=names.__getitem__,
            check=lambda: caught.check("evaluate", "run the same line again"),
        ):
            truth = subject.truth(k)
            predicted = subject.prediction(k, truth, False)
            if predicted.counts is not None:
                counts.add(predicted.counts)
            matrix = confusion(truth, predicted.labels, len(classes))
            mine.append((matrix.tolist(), truth.size, predicted.missed))
        found = world().collect(mine)
    matrices = np.array([matrix for matrix, _, _ in found])
    labelled = matrices.sum() / sum(size for _, size, _ in found)
    if missed := sum(missed for _, _, missed in found):
        text = f"{plural(missed, 'pixel')}, {100 * missed / matrices.sum():.2g} % of those scored"
        on_progress(Note(f"{text}, have no class in the masks: they count as wrong", warning=True))
    if 0 < labelled < SPARSE:
        text = f"{100 * labelled:.3g} % of the pixels are labelled; the scores count these alone"
        on_progress(Note(text))
    shown = matrices.sum((0, 2))
    if lacking := [show(name) for name, pixels in zip(classes, shown, strict=True) if not pixels]:
        text = f"no true mask shows {', '.join(lacking)}: the scores say nothing of how it is found"
        on_progress(Note(text, warning=True))
    found_scores = scores(matrices, names, classes, subject.groups)
    return Evaluation(found_scores, subject, curves=counts.curves() if curves else None)


def _refuse_unscored(found: Evaluation) -> Evaluation:
    if not found.scores.confusion.any():
        raise InputError("evaluate", "every pixel of every mask is ignored", "look at the masks")
    return found


_SAME = np.arange(256, dtype=np.uint8)


def _encoding(
    labelled: LabelledSet,
    classes: ClassTable,
    ignored: tuple[int | str, ...],
    file: str | os.PathLike[str] | None,
    selection: Selection,
) -> tuple[ClassTable, NDArray[np.uint8]]:
    """Return the classes by which the folder's masks are read, and the model's index of each.

    Shapes need not show every class of the model.

    Args:
        labelled: The folder.
        classes: The classes of the model.
        ignored: Values or colours that are not scored.
        file: The file of the folder's classes, where one is given.
        selection: The part of each file that is used.

    Raises:
        InputError: The folder's classes have other names, or the model may ignore the foreground.
    """
    own, declared = labelled.classes, Path(labelled.folder, "classes.toml")
    is_file = file is not None or declared.exists()
    some = not is_file and any(pair.drawn is not None for pair in labelled.pairs)
    names = set(own.names) if own else set()
    if own and not (names <= set(classes.names) if some else names == set(classes.names)):
        text = f"names {', '.join(own.names)}; the model knows {', '.join(classes.names)}"
        place = file or (declared if declared.exists() else labelled.folder)
        raise InputError(place, text, "make the names agree")
    if own is None and IGNORED not in ignored:
        _refuse_black_and_white(labelled, classes, selection)
    table, order = (own or classes).with_ignored(ignored), _SAME.copy()
    for index, name in enumerate(table.names):
        order[index] = classes.names.index(name)
    return table, order


def _refuse_black_and_white(
    labelled: LabelledSet, classes: ClassTable, selection: Selection
) -> None:
    """Refuse masks of 0 and 255 alone where the model ignores 255: it may be their foreground.

    Args:
        labelled: A folder that does not say which classes its masks hold.
        classes: The classes of the model.
        selection: The part of each file that is used.

    Raises:
        InputError: All masks hold 0 and 255 alone, and the model has a class of another value.
    """
    has_other = any(c.value not in (None, 0) for c in classes)
    if IGNORED not in classes.ignore or not has_other or not labelled.pairs:
        return
    found, blacks, whites = set[int | str](), {0, "#000000"}, {IGNORED, "#ffffff"}
    for pair in labelled.pairs:
        if pair.drawn is not None:
            return
        found |= masks.find_keys(pair.read_mask(selection)).counts.keys()
        if not found <= blacks | whites:
            return
    if not (found & blacks and found & whites):
        return
    root = str(labelled.folder)
    made = root + "-converted"
    line = either(
        f"unetseg convert {quote(root)} {quote(made)} (--fov FOLDER)",
        f"unetseg.convert_folder({root!r}, {made!r})",
    )
    text = "255 is ignored by the model, and these masks hold 0 and 255 alone"
    remedy = f"if 255 is a class, convert them: {line}; else {arg('ignore', 255)}"
    raise InputError(root, text, remedy)


def _read_truth(
    pair: Pair, table: ClassTable, order: NDArray[np.uint8], selection: Selection
) -> NDArray[np.uint8]:
    truth: NDArray[np.uint8] = order[pair.labels(table, selection)]
    _check_size(pair, truth, selection)
    return truth


def _check_size(pair: Pair, truth: NDArray[np.uint8], selection: Selection) -> None:
    """Raise `InputError` where image and mask differ in size."""
    info = pair.read_info(selection)
    masks.check_same_size(pair.mask, truth.shape, (info.height, info.width))


def _size(mask: NDArray[np.uint8]) -> str:
    return f"{mask.shape[0]} x {mask.shape[1]}"
