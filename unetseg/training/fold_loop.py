"""Going through the folds: each is trained, and predicts the images that it held out."""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.dataset.cutting import cut_images
from unetseg.dataset.findings.finding import Commands
from unetseg.dataset.folder import LabelledFolder
from unetseg.dataset.spreading import SpreadMask
from unetseg.errors import InputError, Interrupted, arg, either
from unetseg.pictures import writing
from unetseg.prediction import model_file
from unetseg.prediction.model import Model
from unetseg.prediction.run_folder import LABEL, RunFolder, previous_path
from unetseg.progress import Note, OnProgress, steps
from unetseg.scoring.metrics import confusion
from unetseg.scoring.predictions import NumberedPredictions, PassedProbabilities
from unetseg.settings import PatchSettings, PredictSettings
from unetseg.signals import Caught
from unetseg.text import plural
from unetseg.training.fold_record import FoldDone, FoldImage, FoldRecord
from unetseg.training.forecast import Afterwards
from unetseg.training.run import begin_run, resume_run
from unetseg.training.starting import Session

_TRAIN_ANEW = f"train a new {arg('run')} on its folder"


def read_folder(
    source: str | os.PathLike[str],
    cutting: PatchSettings,
    classes: Path | None,
    ignored: tuple[int | str, ...],
    on_progress: OnProgress,
) -> LabelledFolder:
    """Read the folder that is divided into folds, without held-out images."""
    # Folds replace the held-out share. A share of 0 also avoids the warning that few images are
    # held out.
    cutting = dataclasses.replace(cutting, val=0.0)
    labelled = LabelledFolder(
        source, cutting, classes=classes, ignored=ignored, on_progress=on_progress
    )
    if any(s.pair.drawn is not None for s in labelled.surveys):
        text = "its labels are shapes, and folds score mask files"
        remedy = f"make masks of them: {either(*Commands(labelled.root).convert())}"
        raise InputError(labelled.root, text, remedy)
    return labelled


def content_of(labelled: LabelledFolder) -> str:
    """Return a SHA-256 of the names and pixels of all images, and of the content of their masks."""
    names = [s.pair.name for s in labelled.surveys]
    text = json.dumps([names, labelled.hashes, labelled.table.to_dict()], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    digest.update(labelled.inspection.halves.tobytes())
    return digest.hexdigest()


class FoldLoop:
    """Trains and predicts the folds that are not finished.

    Args:
        run: The folder of the whole; the caller holds its lock.
        record: The work that is to be done, and the work that is done.
        labelled: The labelled folder; None where an earlier session divided it.
        started: `time.monotonic` when this session began.
        caught: Signals.
        after: The argument of `cross_validate`.
        on_progress: Receives all records.
    """

    def __init__(
        self,
        run: RunFolder,
        record: FoldRecord,
        labelled: LabelledFolder | None,
        started: float,
        caught: Caught,
        after: Callable[[FoldRecord], float],
        on_progress: OnProgress,
    ) -> None:
        self.run, self.record, self._labelled = run, record, labelled
        self.caught, self.after, self.on_progress = caught, after, on_progress
        self._is_new = labelled is not None
        self._spread: dict[int, dict[int, SpreadMask]] = {}  # by fold, until it is cut
        self._began = started - record.seconds  # as if all sessions were one

    def save(self) -> None:
        """Write ``folds.json``: the old one stays, or this one is there whole."""
        self.record = dataclasses.replace(self.record, seconds=self.seconds())
        self.record.write(self.run)

    def seconds(self) -> float:
        """Return the time spent so far, sessions before this one included."""
        return time.monotonic() - self._began

    def finish(self) -> FoldRecord:
        """Train and predict the folds that are left, and return the record of all."""
        for fold in range(1, self.record.folds + 1):
            if fold in self.record.finished_folds:
                continue
            try:
                done = self._do(fold)
            except Interrupted as error:
                raise Interrupted(
                    error.signum,
                    self.run.path,
                    f"{self._name(fold)}: {error.problem}",
                    self.run.how_to_resume(),
                ) from None
            self.record = dataclasses.replace(self.record, done=(*self.record.done, done))
            self.save()
        return self.record

    def _name(self, fold: int) -> str:
        return f"fold {fold} of {self.record.folds}"

    def _do(self, fold: int) -> FoldDone:
        self.caught.check(self.run.path, "")  # `finish` says how to go on
        self._labelled_folder()  # a folder that has changed is said before any work
        held = self.record.held_out(fold)
        count = len(self.record.images) - len(held)
        text = f"{self._name(fold)}: {plural(count, 'image')} to train on, {len(held)} held out"
        self.on_progress(Note(text))
        passed = PassedProbabilities()
        self._train(fold, passed)
        matrices = self._predict(fold, passed)
        found = self.record.scores_of(held, matrices).mean_iou
        if found is not None:
            text = f"{self._name(fold)}: mean IoU {found:.4f} on its {plural(len(held), 'image')}"
            self.on_progress(Note(text))
        card = model_file.read_card(self.run.fold(fold).model)
        return FoldDone(fold, card.patches_seen, tuple(matrices))

    def _train(self, fold: int, passed: PassedProbabilities) -> None:
        """Train the model of a fold, or go on with it, unless it is trained already.

        Args:
            fold: The number of the fold.
            passed: Receives the probabilities of the held-out images.
        """
        place = self.run.fold(fold)
        if place.state() == "finished":
            return
        is_begun = place.checkpoint.exists() or previous_path(place.checkpoint).exists()
        spread = {} if is_begun else self._spread_labels(fold)
        begin = time.monotonic()
        budget, later = self.record.settings.budget, 0.0
        if budget is not None:  # each of the folds keeps a part of the time that is due at the end
            later = self.after(self.record) / self._left
        after = Afterwards(later, passed)
        session = Session(begin, self.caught, self.on_progress, after, has_worked=True)
        if is_begun:
            result = resume_run(place, session)
            # The time that the fold was trained in earlier sessions is not counted yet.
            self._began -= max(0.0, result.seconds - (time.monotonic() - begin))
            return
        settings = dataclasses.replace(
            self.record.settings,
            seed=_seed_of(self.record.settings.seed, fold),
            budget=self.share(),
        )
        splits, cutting = self.record.splits(fold), self.record.cutting
        labelled = self._labelled_folder()
        summary = cut_images(labelled, place.store, splits, spread, cutting)
        if fold == 1 and self._is_new:
            self.on_progress(summary)
        begin_run(place.store, place, settings, dict(self.record.given), session)

    def _spread_labels(self, fold: int) -> dict[int, SpreadMask]:
        """Return the masks of a fold with spread labels.

        Those of the later folds are made with them, because folds share the features of images.
        """
        if fold not in self._spread:
            later = set(range(fold, self.record.folds + 1))
            folds = sorted(later - self.record.finished_folds)
            divisions = [self.record.splits(n) for n in folds]
            self._spread = dict(zip(folds, self._labelled_folder().spread(divisions), strict=True))
        return self._spread.pop(fold)

    @property
    def _left(self) -> int:
        return self.record.folds - len(self.record.done)

    def share(self) -> float | None:
        """Return the seconds for the next fold, an equal share of the time left; None for epochs.

        They include its share of the time for the work after the folds.
        """
        budget = self.record.settings.budget
        if budget is None:
            return None
        share = (budget - self.seconds()) / self._left
        if not self._is_new:  # the time that a stop has cost must not use up the other folds' share
            share = max(share, budget / self.record.folds / 2)
        return max(share, 1.0)  # the least that a budget may be

    def _labelled_folder(self) -> LabelledFolder:
        """Return the labelled folder, read once a session.

        Raises:
            InputError: It has changed since the run began.
        """
        if self._labelled is None:
            record = self.record
            classes = record.given.get("classes")
            labelled = read_folder(
                Path(record.folder),
                record.cutting,
                None if classes is None else Path(classes),
                record.ignored,
                self.on_progress,
            )
            if content_of(labelled) != record.content:
                text = "has changed since the run began: other images, or other masks"
                raise InputError(record.folder, text, _TRAIN_ANEW)
            self._labelled = labelled
        return self._labelled

    def _predict(self, fold: int, passed: PassedProbabilities) -> list[NDArray[np.int64]]:
        """Write mask and confidence of each held-out image; return their confusion matrices.

        Args:
            fold: The number of the fold.
            passed: The probabilities of the held-out images that are known already.

        Raises:
            InputError: An image or a mask has changed since the run began.
        """
        record, place = self.record, self.run.fold(fold)
        cutting, selection = record.cutting, record.cutting.selection
        settings = PredictSettings(
            device=record.settings.device,
            page=cutting.page,
            channels=cutting.channels,
            crop=cutting.crop,
        )
        model, held_out = Model([str(place.path)], settings), record.held_out(fold)
        labelled, trained = self._labelled_folder(), model.card.trained_on
        places = [i for i, side in enumerate(record.splits(fold)) if side == "val"]
        numbers, matrices = range(len(held_out)), []

        def read(k: int) -> NDArray[Any]:
            return labelled.read(places[k], 1.0)[0]

        predictions = NumberedPredictions(model, read, passed=passed)
        predictions.expect(numbers)
        for k in steps(
            numbers,
            "predicting",
            "images",
            self.on_progress,
            name=lambda k: held_out[k].name,
            check=lambda: self.caught.check(self.run.path, ""),  # `finish` says how to go on
        ):
            one = held_out[k]
            if one.sha256 in trained:
                text = f"was trained on {one.name}, which its fold holds out"
                raise InputError(model.paths[0], text, f"train again with {arg('overwrite', True)}")
            truth = one.pair.labels(record.classes, selection)
            pixels = np.bincount(truth.ravel(), minlength=256)[: len(record.classes.classes)]
            if (pixels != labelled.counts[places[k]]).any():
                raise InputError(one.mask, "has changed since the run began", _TRAIN_ANEW)
            found = predictions(k, truth, True)
            name, label = f"{one.name}.png", self._label(one, model)
            grey = np.rint(np.asarray(found.confidence) * 255).astype(np.uint8)
            writing.write_picture(self.run.confidence / name, grey[..., None], label)
            writing.write_mask(self.run.masks / name, found.labels, record.classes, label)
            matrices.append(confusion(truth, found.labels, len(record.classes.classes)))
        return matrices

    def _label(self, one: FoldImage, model: Model) -> dict[str, str]:
        made = {"model": model.card.sha256, "image": one.sha256, "fold": one.fold}
        return {LABEL: json.dumps(made, sort_keys=True)}


def _seed_of(seed: int, fold: int) -> int:
    """Return a seed of its own for each fold."""
    return int(np.random.SeedSequence([seed, fold]).generate_state(1, np.uint32)[0])
