"""Scoring masks against the truth: a model's own, or masks made by any program."""

import functools
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unetseg.arguments import Names, Reports, public, several
from unetseg.dataset.geometry import SPARSE
from unetseg.dataset.shapes import describe_hidden
from unetseg.errors import InputError, arg, either
from unetseg.objects.separation import object_classes
from unetseg.prediction.model import Model
from unetseg.prediction.model_file import read_card
from unetseg.prediction.run_folder import resolve_model
from unetseg.progress import Note, OnProgress, silent, steps, warn
from unetseg.ranks import join, world
from unetseg.results import Result, Table
from unetseg.scoring.boundaries import Boundaries, boundary_scores, pool_boundaries
from unetseg.scoring.curves import AREAS, CurveCounts, Curves
from unetseg.scoring.made_masks import MadeMasks
from unetseg.scoring.metrics import Scores, confusion, mean_of_defined, scores
from unetseg.scoring.panoptic import ObjectScores, match_objects, object_scores
from unetseg.scoring.predictions import NumberedPredictions, PassedProbabilities
from unetseg.scoring.subjects import (
    Choice,
    Predicting,
    Subject,
    folder_by_masks,
    folder_by_model,
    held_out_by_model,
)
from unetseg.scoring.truth import Truth, TruthOptions, read_folder, truth_of
from unetseg.settings import PredictSettings, check_line_width
from unetseg.signals import catching
from unetseg.text import plural, show

DEFAULT_FOLDER = Path("data/test")


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
    kinds, options = several(objects), TruthOptions(classes, several(ignore), line_width)
    names = () if model is None else several(model)
    choice = Choice(group, None if only is None else several(only), include_trained)
    if curves and predictions is not None:
        raise InputError(arg("curves"), "needs the probabilities of a model", "give a model")
    if predictions is not None:
        subject = _subject_by_masks(
            source, options, Path(predictions), names, settings, choice, on_progress
        )
    else:
        loaded = Model(names or "default", settings)
        keeps = keep or bool(objects) or boundary is not None
        predicting = functools.partial(NumberedPredictions, keep=keeps, curves=curves)
        subject = _subject_by_model(source, options, loaded, choice, predicting, on_progress)
    # Unknown names are refused before any image is predicted.
    object_classes(subject.classes, kinds, on_progress)
    found = _score(subject, curves, on_progress)
    if not world().is_writer:
        return found
    return replace(
        found,
        boundaries=None if boundary is None else _boundaries(subject, boundary, on_progress),
        objects=_objects(subject, kinds, on_progress) if kinds else None,
    )


def _subject_by_masks(
    source: str | os.PathLike[str] | None,
    options: TruthOptions,
    predictions: Path,
    models: Sequence[str | os.PathLike[str]],
    settings: PredictSettings | None,
    choice: Choice,
    on_progress: OnProgress,
) -> Subject:
    """Return the images to score by masks that are there already; see `evaluate`."""
    if source is None:
        raise InputError(
            either("FOLDER", "source"), "is missing", "name the folder with the true masks"
        )
    settings = settings or PredictSettings()
    cards = [read_card(file) for name in models for file in resolve_model(name)]
    if settings.whole:
        cards = [card.of_whole_images() for card in cards]
    card = cards[0] if cards else None
    selection = settings.selection.or_else(card.selection) if card else settings.selection
    labelled = read_folder(source, options, selection, card, on_progress)
    made = MadeMasks(predictions, labelled, selection)
    made.warn_of_truth(on_progress)
    if card:
        truth = truth_of(labelled, options, selection, card)
    else:
        own, ignored = labelled.classes, options.ignored
        table = own.with_ignored(ignored) if own else made.discover(ignored)
        truth = Truth(labelled, selection, table)
    return folder_by_masks(truth, made, cards, choice, on_progress)


def _subject_by_model(
    source: str | os.PathLike[str] | None,
    options: TruthOptions,
    model: Model,
    choice: Choice,
    predicting: Predicting,
    on_progress: OnProgress,
) -> Subject:
    """Return the images to score by a model's predictions; see `evaluate`."""
    if source is None:
        given = {
            "classes": options.classes,
            "ignore": options.ignored or None,
            "line_width": options.line_width,
        }
        for name in (name for name, value in given.items() if value is not None):
            raise InputError(arg(name), "is for a folder of true masks", "name one")
        for name in ("page", "channels"):  # these are parts of files, which a store does not hold
            if getattr(model.settings, name) not in (None, ()):
                raise InputError(arg(name), "is for a folder of labelled images", "name one")
        return held_out_by_model(model, choice, predicting, on_progress)
    labelled = read_folder(source, options, model.selection, model.card, on_progress)
    truth = truth_of(labelled, options, model.selection, model.card)
    return folder_by_model(truth, model, choice, predicting, on_progress)


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
    predicting = functools.partial(NumberedPredictions, keep=True, passed=passed)
    every = Choice(include_trained=True)  # as scored: a model to start from may know some of them
    return Evaluation(found, held_out_by_model(Model(model), every, predicting, on_progress))


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
            truth, hidden_here = subject.truth_and_hidden(k)
            predicted = subject.prediction(k, truth, False)
            if predicted.counts is not None:
                counts.add(predicted.counts)
            matrix = confusion(truth, predicted.labels, len(classes))
            mine.append((matrix.tolist(), truth.size, predicted.missed, hidden_here))
        found = world().collect(mine)
    matrices = np.array([matrix for matrix, *_ in found])
    labelled = matrices.sum() / sum(size for _, size, *_ in found)
    if hidden := [names for *_, names in found if names]:
        on_progress(Note(describe_hidden(hidden), warning=True))
    if missed := sum(missed for _, _, missed, _ in found):
        text = f"{plural(missed, 'pixel')}, {100 * missed / matrices.sum():.2g} % of those scored"
        on_progress(Note(f"{text}, have no class in the masks: they count as wrong", warning=True))
    if 0 < labelled < SPARSE:
        text = f"{100 * labelled:.3g} % of the pixels are labelled; the scores count these alone"
        on_progress(Note(text))
    shown = matrices.sum((0, 2))
    if lacking := [show(name) for name, pixels in zip(classes, shown, strict=True) if not pixels]:
        text = f"no true mask shows {', '.join(lacking)}: the scores say nothing of how it is found"
        on_progress(Note(text, warning=True))
    if not matrices.any():
        raise InputError("evaluate", "every pixel of every mask is ignored", "look at the masks")
    found_scores = scores(matrices, names, classes, subject.groups)
    return Evaluation(found_scores, subject, curves=counts.curves() if curves else None)


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
    """Compare the objects of all images, whose predictions are kept."""
    matches = []
    classes = object_classes(subject.classes, names)
    stems, numbers = subject.names, range(len(subject.names))
    for k in steps(numbers, "comparing objects", "images", on_progress, name=stems.__getitem__):
        pair = subject.object_pair(k, classes)
        matches.append(
            [match_objects(pair.true[c], pair.predicted.of(c), pair.ignored) for c in classes]
        )
    kinds = [subject.classes.names[kind] for kind in classes]
    return object_scores(kinds, matches, subject.groups)
