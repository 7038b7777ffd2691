"""Cross-validation: every image gets a mask, and a score, from a model that never saw it.

The images are divided into folds. For each fold a model is trained on the other folds and predicts
the images of this one. ``runs/NAME/fold-1`` and so on are ordinary runs. ``runs/NAME/masks`` and
``runs/NAME/confidence`` hold their predictions. ``runs/NAME/folds.json`` says which image is in
which fold and which folds are done. So a run that was stopped anywhere goes on exactly.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unetseg import plugins
from unetseg.arguments import Reports, public, several
from unetseg.classes import ClassTable
from unetseg.dataset import splits
from unetseg.dataset.folder import LabelledFolder
from unetseg.dataset.store import open_store
from unetseg.devices import pick_device
from unetseg.errors import InputError, arg, either
from unetseg.network.unet import build_network
from unetseg.pictures import masks, reading
from unetseg.prediction import model_file
from unetseg.prediction.run_folder import RunFolder, read_history, refuse_foreign, resolve_model
from unetseg.progress import Note, OnProgress, warn
from unetseg.ranks import join, world
from unetseg.results import Result, Table
from unetseg.scoring.metrics import ScoredImage, Scores
from unetseg.settings import PatchSettings, TrainSettings
from unetseg.signals import catching
from unetseg.text import plural, quote, show
from unetseg.training.artefacts import write_config
from unetseg.training.fold_loop import FoldLoop, content_of, read_folder
from unetseg.training.fold_record import FoldImage, FoldRecord
from unetseg.training.forecast import check_budget, check_spreading
from unetseg.training.recipe import network_settings, resolve
from unetseg.training.run import (
    check_agreement,
    check_resumable,
    check_state,
    cutting_asked,
    like_model,
    names_asked,
    train_line,
)
from unetseg.training.starting import check_channels

DEFAULT_FOLDS = 5
DEFAULT_FOLDER = Path("data/train")


@dataclass(frozen=True, eq=False, repr=False)
class CrossValidation(Result):
    """The result of a run with folds.

    Attributes:
        run: Its folder.
        folder: The labelled images.
        folds: How many.
        images: All images, in natural order.
        scores: Scores of all images, pooled; each was predicted by the model that held it out.
        classes: Classes of the masks.
        seconds: Time of the whole, sessions before a resume included.
        patches: Patches trained on in all folds, repetitions counted.
        settings: How each fold was trained, as resolved: fields of `TrainSettings`. ``seed`` and
            ``budget`` are those of the whole.
        cutting: How patches were cut: fields of `PatchSettings`.
        content: SHA-256 of the images and of the content of their masks.
        version: Version of the unetseg that made the folds.
        already: The run had been finished before; nothing was done.
    """

    run: RunFolder
    folder: Path
    folds: int
    images: tuple[FoldImage, ...]
    scores: Scores
    classes: ClassTable
    seconds: float
    patches: int
    settings: Mapping[str, Any]
    cutting: Mapping[str, Any]
    content: str
    version: str
    already: bool = False

    @property
    def masks(self) -> Path:
        """The folder of the masks, ``<stem>.png`` each, encoded as ``predict`` does."""
        return self.run.masks

    def line(self) -> str:
        """Return the run, its folds, and the mean IoU."""
        return f"{self.run.path}: {plural(self.folds, 'fold')}, {self.scores.line()}"

    def table(self, baselines: str = "") -> Table:
        """Return the scores of each class; ``baselines`` is a line about simple methods."""
        images, folds = plural(len(self.images), "image"), plural(self.folds, "fold")
        title = f"{images}, each scored by a model that never saw it ({folds})"
        return self.scores.table(title, baselines)

    def tables(self) -> tuple[Table, ...]:
        """Return the scores of each class."""
        return (self.table(),)

    def records(self) -> list[dict[str, Any]]:
        """Return a row a class, as `Scores.records` does."""
        return self.scores.records()

    def scored_image(self, k: int) -> ScoredImage:
        """Return the k-th image with its true mask, its prediction and the confidence of that.

        Raises:
            InputError: A file is gone, damaged, or of another size.
        """
        one, selection = self.images[k], PatchSettings(**self.cutting).selection
        made, sure = self.masks / f"{one.name}.png", self.run.confidence / f"{one.name}.png"
        image, truth = one.pair.read_labelled(self.classes, selection)
        prediction = masks.decode(reading.read_mask(made), self.classes, made)
        confidence = reading.read_image(sure)[..., 0]
        for path, values in ((one.mask, truth), (made, prediction), (sure, confidence)):
            changed = "the folder has changed: train again"
            masks.check_same_size(path, values.shape, image.shape[:2], changed)
        share = confidence.astype(np.float32) / np.float32(255)
        return ScoredImage(one.name, image, truth, prediction, share)

    def histories(self) -> dict[str, list[dict[str, str]]]:
        """Return the rows of each fold's ``history.csv``, by "fold 1" and so on."""
        numbers = range(1, self.folds + 1)
        return {f"fold {n}": read_history(self.run.fold(n).history) for n in numbers}


@public(TrainSettings)
@join()
def cross_validate(
    source: str | os.PathLike[str] | None = None,
    *,
    folds: int | None = None,
    run: str | os.PathLike[str] = "default",
    patches: PatchSettings | None = None,
    classes: str | os.PathLike[str] | None = None,
    ignore: int | str | Sequence[int | str] = (),
    start_from: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    started: float | None = None,
    after: Callable[[FoldRecord], float] = lambda _: 0.0,
    on_progress: Reports = warn,
    **settings: Any,
) -> CrossValidation:
    """Train a model for each fold of a folder, and score every image by the one that held it out.

    Args:
        source: Folder of labelled images; None means ``data/train``, with ``resume`` the run's.
        folds: How many, 2 or more; None means 5, with ``resume`` the run's.
        run: Name ("wide" is ``runs/wide``) or folder of the run.
        patches: How the folder is cut; of it ``group`` and ``seed`` make the folds, too, and
            ``val`` is not used.
        classes: A ``classes.toml`` for a folder that has none.
        ignore: Mask values or colours of the folder to leave out.
        start_from: A model (name of a run, folder or file) whose weights are the start of every
            fold. It must not have been trained on these images.
        resume: Go on with an interrupted run, exactly where it stopped.
        overwrite: Start again in the folder of an earlier run.
        started: `time.monotonic` when the whole command began, from which ``budget`` counts.
        after: Estimates the seconds of the caller's later work, for which ``budget`` leaves time,
            too. It is asked before each fold, as the machine may grow slower.
        on_progress: Receives `Plan`, `Progress`, `EpochDone` and `Note` records, and the
            `StoreSummary` of the first fold.
        settings: Fields of `TrainSettings`, each a keyword; ``budget`` is the time of the whole.
            With ``resume`` they must agree with the run's.

    Raises:
        InputError: Wrong settings, a bad folder, too few images or groups, a run in the wrong
            state for this.
        MachineError: The folder is in use, or the disk or the memory failed.
        DivergenceError: The loss stopped being finite.
        Interrupted: A signal came; everything is saved for ``resume``.
    """
    started = time.monotonic() if started is None else started
    if world().size > 1:
        text = f"is for one process, torchrun started {world().size}"
        raise InputError(arg("folds"), text, "leave torchrun out")
    given = TrainSettings(**settings)
    settings = {name: getattr(given, name) for name in settings}
    _check_options(folds, patches, settings)
    ignored, classes = several(ignore), None if classes is None else Path(classes)
    start_from = None if start_from is None else os.fspath(start_from)
    plugins.check_names(given)
    pick_device(given.device)
    place = RunFolder(run)
    check_resumable(place, resume)
    with place.locked(), catching() as caught:
        state = place.state()
        names = names_asked(start_from, classes)
        options = {"folds": folds or DEFAULT_FOLDS, **settings, **names}
        line = train_line(source, options, patches, ignored)
        check_state(place, state, line, resume, overwrite)
        if resume:
            record, labelled = FoldRecord.read(place), None
            asked = {
                **cutting_asked(
                    dataclasses.asdict(record.cutting), record.classes, patches, ignored
                ),
                **settings,
                **names,
                "folds": folds,
                "folder": None if source is None else str(Path(source)),
            }
            check_agreement(_settled(record), asked)
            if state == "finished":
                return dataclasses.replace(_result(place, record), already=True)
        else:
            root, count = _folder_of(source), folds or DEFAULT_FOLDS
            found = root if source is None else source
            cutting = patches or PatchSettings()
            given = like_model(given, settings, start_from)
            check_budget(found, cutting, given, started, folds=count)
            on_progress(
                Note(f"dividing the labelled images of {show(root)} into {plural(count, 'fold')}")
            )
            labelled = read_folder(found, cutting, classes, ignored, on_progress)
            record = FoldRecord(
                folder=str(root),
                folds=count,
                images=_divide(labelled, count, cutting.seed),
                classes=labelled.table,
                settings=resolve(given, labelled.inspection.size),
                cutting=dataclasses.replace(cutting, size=labelled.inspection.size, val=1 / count),
                given=names,
                ignored=ignored,
                content=content_of(labelled),
            )
            divisions = [record.splits(fold) for fold in range(1, count + 1)]
            check_spreading(labelled, divisions, given, started)
            _check_models(place, record, labelled, start_from)
            _warn_of_lone_classes(record, labelled, on_progress)
        loop = FoldLoop(place, record, labelled, started, caught, after, on_progress)
        if not resume:
            _make_room(place, record, overwrite)
            loop.save()
        return _result(place, loop.finish())


@public()
def load_cross_validation(run: str | os.PathLike[str] = "default") -> CrossValidation:
    """Return the result of a finished run with folds from its files.

    Args:
        run: Name or folder of the run.

    Raises:
        InputError: No run with folds, one that is not finished, or a damaged one.
        MachineError: No permission to read.
    """
    place = RunFolder(run)
    record = FoldRecord.read(place)
    if len(record.done) < record.folds:
        text = f"{len(record.done)} of its {record.folds} folds are finished"
        raise InputError(place.path, text, place.how_to_resume())
    return _result(place, record)


def _result(run: RunFolder, record: FoldRecord) -> CrossValidation:
    """Return the result of a run whose folds are all done."""
    return CrossValidation(
        run=run,
        folder=Path(record.folder),
        folds=record.folds,
        images=record.images,
        scores=record.pooled(),
        classes=record.classes,
        seconds=record.seconds,
        patches=sum(done.patches for done in record.done),
        settings=dataclasses.asdict(record.settings),
        cutting=dataclasses.asdict(record.cutting),
        content=record.content,
        version=record.unetseg,
    )


# --- starting --------------------------------------------------------------------------------


def _check_options(
    folds: int | None, patches: PatchSettings | None, settings: Mapping[str, Any]
) -> None:
    """Raise `InputError` for options that do not go with folds."""
    if folds is not None and folds < 2:
        text = f"{folds} is no cross-validation, as nothing would be left to train on"
        raise InputError(arg("folds"), text, f"give {arg('folds', 2)} or more")
    if patches and patches.val != PatchSettings().val:
        text = f"excludes {arg('val')}, as each image is held out once"
        raise InputError(arg("folds"), text, f"leave {arg('val')} out")
    if settings.get("patience") is not None:
        text = (
            f"excludes {arg('patience')}, which would choose each model by the images that score it"
        )
        raise InputError(arg("folds"), text, f"give {arg('epochs')} or {arg('budget')}")


def _folder_of(source: str | os.PathLike[str] | None) -> Path:
    """Return the folder to divide. Raises `InputError` for a store, which is divided already."""
    path = DEFAULT_FOLDER if source is None else Path(source)
    if source is None and not path.is_dir():
        text = "needs a folder of labelled images"
        line = either("unetseg train FOLDER --folds 5", "unetseg.cross_validate(FOLDER)")
        raise InputError(arg("folds"), text, f"name one: {line}")
    if path.is_file():
        text = f"is a file; {arg('folds')} divides the images of a folder anew"
        try:
            home = open_store(path).info.folder
        except InputError:
            home = "FOLDER"
        line = either(f"unetseg train {quote(home)} --folds 5", repr(home))
        raise InputError(path, text, f"name the folder: {line}")
    return path


def _divide(labelled: LabelledFolder, folds: int, seed: int) -> tuple[FoldImage, ...]:
    """Return the images of a folder, each with its fold."""
    numbers = splits.split_folds(labelled.groups, labelled.counts > 0, labelled.hashes, folds, seed)
    return tuple(
        FoldImage(
            *(s.pair.name, s.pair.image, s.pair.mask, s.sha256, group, int(number) + 1),
            page=s.pair.page,
        )
        for s, group, number in zip(labelled.surveys, labelled.groups, numbers, strict=True)
    )


def _settled(record: FoldRecord) -> dict[str, Any]:
    """Return the settings of a run that was begun, which those of a resume must equal."""
    cutting, settings = dataclasses.asdict(record.cutting), dataclasses.asdict(record.settings)
    own = {"folds": record.folds, "folder": record.folder}
    return {**cutting, **settings, **record.given, **own}


def _check_models(
    run: RunFolder, record: FoldRecord, labelled: LabelledFolder, start_from: str | None
) -> None:
    """Fail before the earlier run is removed, not after.

    A model to start from must not have seen the images, because their scores would be too good.

    Raises:
        InputError: The network cannot be built, or the model was trained on some of the images. Or
            it takes other channels, or belongs to the earlier run.
    """
    settings = record.settings
    sizes, classes = network_settings(settings), len(record.classes.classes)
    with torch.device("meta"):
        build_network(settings.network, labelled.channels, classes, **sizes)
    if start_from is None:
        return
    path = resolve_model(start_from)[0]
    card = model_file.read_card(path)
    check_channels(path, card, labelled.channels)
    trained = card.trained_on
    known = sum(one.sha256 in trained for one in record.images)
    if known:
        text = (
            f"{start_from} was trained on {known} of these {plural(len(record.images), 'image')}: "
        )
        text += "their scores would be too good"
        raise InputError(
            arg("start_from"), text, f"choose another model, or leave {arg('start_from')} out"
        )
    if run.path.resolve() in path.resolve().parents:
        text = f"{start_from} belongs to the run that would be replaced, and every fold starts "
        raise InputError(arg("start_from"), text + "from it", f"choose another {arg('run')}")


def _warn_of_lone_classes(
    record: FoldRecord, labelled: LabelledFolder, on_progress: OnProgress
) -> None:
    """Warn of each class that one fold alone shows: the model scored on it never learnt it."""
    folds = np.array([one.fold for one in record.images])
    for name, count in zip(record.classes.names, labelled.counts.T, strict=True):
        having = np.unique(folds[count > 0])
        if len(having) == 1:
            text = f"all images of {show(name)} are in fold {having[0]}: the model that is scored "
            on_progress(Note(text + "on it never learnt it", warning=True))


def _make_room(run: RunFolder, record: FoldRecord, overwrite: bool) -> None:
    """Remove an earlier run where that is asked for, and write the settings of this one.

    Raises:
        InputError: A file of another run or another program is in the way.
    """
    if not overwrite:
        for path in sorted(run.path.glob("fold-*")):
            if RunFolder(os.path.join(run.path, path.name)).state() != "new":
                text = "holds a run already"
                raise InputError(
                    path, text, f"choose another {arg('run')}, or {arg('overwrite', True)}"
                )
        for one in record.images:
            for home in (run.masks, run.confidence):
                refuse_foreign(home / f"{one.name}.png", "run")
    run.clear()
    cutting = dataclasses.asdict(record.cutting)
    others = {
        "source": record.folder,
        "run": str(run.path),
        "folds": record.folds,
        **record.given,
        **{k: v for k, v in cutting.items() if k not in ("val", "seed")},
        "ignore": [str(item) for item in record.ignored] or None,
    }
    write_config(run.config, record.settings, others)
