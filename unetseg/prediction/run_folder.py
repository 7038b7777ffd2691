"""The folder of a run: its files, its state, who is training in it, and finding its model."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from unetseg import files, locks
from unetseg.dataset.store import Store, open_store
from unetseg.errors import InputError, UnetsegError, arg, either
from unetseg.pictures import reading
from unetseg.prediction.model_file import MODEL_NAME, ModelCard, read_card
from unetseg.prediction.summary import read_cells, write_table
from unetseg.records import to_plain
from unetseg.results import Result, Table
from unetseg.settings import RUNS
from unetseg.text import format_duration, plural, quote, show

FOLDS_FORMAT = "unetseg-folds"
FOLDS_VERSION = 1
LABEL = "unetseg"  # the key of the text in a picture that says how unetseg made it

State = Literal["new", "interrupted", "finished"]
NAME_A_FOLDER = "name a folder of labelled images: " + either(
    "unetseg evaluate FOLDER", "unetseg.evaluate(FOLDER)"
)
STORE_NAME = "patches.h5"


def previous_path(path: Path) -> Path:
    """Return where the checkpoint before ``path`` is kept: last.pt -> last-previous.pt."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


class RunFolder(Result):
    """The files of one training run, and their names.

    Attributes:
        path: The folder; a bare name "wide" means ``runs/wide``.
    """

    def __init__(self, name: str | os.PathLike[str]) -> None:
        text = os.fspath(name)
        bare = os.sep not in text and "/" not in text and text not in (".", "..")
        if not text:
            raise InputError(arg("run"), "is empty", "give a name")
        self.path = RUNS / text if bare else Path(text)
        self.name = self.path.name

    def line(self) -> str:
        """Return the path."""
        return str(self.path)

    def tables(self) -> tuple[Table, ...]:
        """Return a table with the facts of the run."""
        found = _summarize(self)
        return (table_of_runs([found])._replace(title=str(self.path)),) if found else ()

    def to_dict(self) -> dict[str, Any]:
        """Return the facts of the run in plain types for JSON."""
        found = _summarize(self)
        facts = {f.name: getattr(found, f.name) for f in fields(RunSummary)} if found else {}
        card = facts.get("card")
        return {"path": str(self.path), **facts, "card": to_plain(card) if card else None}

    def records(self) -> list[dict[str, Any]]:
        """Return a row an epoch: ``history.csv`` in numbers; None where nothing was measured."""
        rows = read_history(self.history)
        return [{k: float(v) if v else None for k, v in row.items()} for row in rows]

    @property
    def model(self) -> Path:
        """The model file, with the weights to predict with."""
        return self.path / MODEL_NAME

    @property
    def checkpoint(self) -> Path:
        """The checkpoint, from which a resume goes on."""
        return self.path / "last.pt"

    @property
    def store(self) -> Path:
        """The store of the patches that ``train FOLDER`` cuts."""
        return self.path / STORE_NAME

    @property
    def history(self) -> Path:
        """The table with one row per epoch."""
        return self.path / "history.csv"

    @property
    def config(self) -> Path:
        """The settings of the run, with all defaults filled in."""
        return self.path / "config.toml"

    @property
    def samples(self) -> Path:
        """A picture of the first augmented batch, with its classes painted."""
        return self.path / "samples.png"

    @property
    def validation(self) -> Path:
        """A picture of held-out images with their true and their predicted masks."""
        return self.path / "validation.png"

    @property
    def events(self) -> Path:
        """The folder of the events that TensorBoard shows."""
        return self.path / "events"

    @property
    def folds(self) -> Path:
        """The record of a run with folds: how images are divided, and which folds are done."""
        return self.path / "folds.json"

    @property
    def masks(self) -> Path:
        """The folder of masks of a run with folds, each by a model that never saw the image."""
        return self.path / "masks"

    @property
    def confidence(self) -> Path:
        """The folder of pictures that say how confident these masks are."""
        return self.path / "confidence"

    def fold(self, number: int) -> "RunFolder":
        """Return the folder of one fold, counted from 1: an ordinary run."""
        return RunFolder(os.path.join(self.path, f"fold-{number}"))  # never a bare name

    def read_folds(self) -> dict[str, Any]:
        """Return the content of ``folds.json``; only its key "finished" is checked.

        Raises:
            InputError: There is none, or it is damaged or of another program.
            MachineError: No permission to read.
        """
        with files.open_regular(self.folds) as file:
            try:
                data = json.loads(file.read())
                if data["format"] != FOLDS_FORMAT or data["version"] > FOLDS_VERSION:
                    raise ValueError(f"{data['format']}, version {data['version']}")
                if not isinstance(data["finished"], bool):
                    raise TypeError("finished is neither true nor false")
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                text = f"not readable as the folds of a run ({error})"
                raise InputError(
                    self.folds, text, f"train again with {arg('overwrite', True)}"
                ) from None
        return dict(data)

    def state(self) -> State:
        """Return how far the run in this folder has come."""
        if self.folds.exists():
            try:
                return "finished" if self.read_folds()["finished"] else "interrupted"
            except InputError:
                return "interrupted"
        if not self.checkpoint.exists() and not self.model.exists():
            return "new"
        try:
            return "finished" if read_card(self.model).finished else "interrupted"
        except InputError:
            return "interrupted"

    def option(self, option: str = "--run") -> str:
        """Return `` --run NAME`` to append to a command; the default run needs nothing.

        Args:
            option: The option that takes the name; "" where the name is an argument.
        """
        if self.path == RUNS / "default":
            return ""
        name = self.given
        if len(self.path.parts) == 1:
            name = os.path.join(".", name)  # a bare name would stand for a folder in runs/
        return f" {option} {quote(show(name))}" if option else f" {quote(show(name))}"

    def resume_line(self) -> str:
        """Return the command line that goes on with the run."""
        return f"unetseg train --resume{self.option()}"

    @property
    def given(self) -> str:
        """The name that a person gives for it, or the path where it is not in ``runs/``."""
        return self.name if self.path == RUNS / self.name else str(self.path)

    def how_to_resume(self) -> str:
        """Return the command or the call that goes on with the run."""
        function = "cross_validate" if self.folds.exists() else "train"
        run = "" if self.path == RUNS / "default" else f"run={self.given!r}, "
        called = f"unetseg.{function}({run}resume=True)"
        return f"go on with: {either(self.resume_line(), called)}"

    def clear(self, keep: Path | None = None) -> None:
        """Remove the files that a run writes, those of its folds included, except ``keep``.

        Other files of the folder stay, and so does a mask that unetseg did not write.
        """
        for path in (
            self.folds,  # first, because a folder with this file counts as a run with folds
            self.model,
            self.checkpoint,
            previous_path(self.checkpoint),
            self.store,
            self.history,
            self.config,
            self.samples,
            self.validation,
        ):
            with suppress(FileNotFoundError):
                if keep is None or not path.samefile(keep):
                    path.unlink()
        for path in self.events.glob("events.out.tfevents.*"):
            path.unlink()
        _remove_if_empty(self.events)
        for path in self.path.glob("fold-*"):
            if re.fullmatch(r"fold-\d+", path.name) and path.is_dir():
                RunFolder(os.path.join(path.parent, path.name)).clear(keep)
                _remove_if_empty(path)
        for folder in (self.masks, self.confidence):
            for path in folder.glob("*.png"):
                if label_of(path):
                    path.unlink()
            _remove_if_empty(folder)

    def is_locked(self) -> bool:
        """Tell whether a process is training in the folder now."""
        return locks.is_held(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process, as `locks.held` does, while a block runs.

        A folder that was made for a call that is then refused is removed again.
        """
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            with locks.held(self.path, f"choose another {arg('run')}, or wait for it"):
                yield
        except InputError:
            if missing and self.path.is_dir() and self.state() == "new":
                self.clear()
                locks.remove(self.path)
                for path in missing:
                    _remove_if_empty(path)
            raise


def label_of(picture: Path) -> str:
    """Return the note in a picture that unetseg wrote; "" in any other picture."""
    try:
        return reading.read_text(picture).get(LABEL, "")
    except InputError:  # not there, or no picture
        return ""


def refuse_foreign(path: Path, argument: str, is_own: Callable[[Path], object] = label_of) -> None:
    """Raise `InputError` where a file stands that unetseg did not write.

    Args:
        path: The file that is to be written.
        argument: The argument with which another place is chosen.
        is_own: Tells whether unetseg wrote a file that exists.
    """
    if path.exists() and not is_own(path):
        text = "already exists and was not written by unetseg"
        remedy = f"choose another {arg(argument)}, or {arg('overwrite', True)}"
        raise InputError(path, text, remedy)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@dataclass(frozen=True)
class RunSummary:
    """One run in a list of all.

    Attributes:
        name: The name of the run, as ``--run`` takes it.
        state: "interrupted", "finished", "running", or "unreadable" where a file cannot be opened.
        card: The card of its model, with folds that of the first fold. None where no model is saved
            yet or it cannot be read.
        seconds: How long it was trained; None where that is not recorded.
        folds: The number of its folds; 0 for an ordinary run.
        images: The number of images it was trained on; with folds, of all images.
        patches: The number of patches it was trained on, repetitions counted; with folds, over all
            finished folds.
        mean_iou: The mean IoU on the held-out images, with folds on all images; None where it is
            not recorded.
    """

    name: str
    state: str
    card: ModelCard | None = None
    seconds: float | None = None
    folds: int = 0
    images: int | None = None
    patches: int | None = None
    mean_iou: float | None = None


def list_runs() -> tuple[RunSummary, ...]:
    """Return the runs in ``runs/``, sorted by name; folders that hold no run are left out."""
    found = []
    for path in sorted(RUNS.glob("*")):
        try:
            one = _summarize(RunFolder(path)) if path.is_dir() else None
        except (UnetsegError, OSError):  # for example a folder of another person
            one = RunSummary(path.name, "unreadable")
        if one:
            found.append(one)
    return tuple(found)


def table_of_runs(found: Iterable[RunSummary]) -> Table:
    """Return runs as people read them."""
    rows = []
    for one in found:
        card = one.card
        rows.append(
            (
                one.name,
                one.state,
                card and card.trained[:10],
                card and card.network,
                f"{one.images}, {plural(one.folds, 'fold')}" if one.folds else one.images,
                one.patches if one.patches is None else f"{one.patches:,}",
                one.mean_iou,
                one.seconds and format_duration(one.seconds),
            )
        )
    columns = ["run", "state", "trained", "network", "images", "patches", "mean IoU", "time"]
    note = "mean IoU of the held-out images, with folds of all images; '-' where none is recorded"
    return Table("", columns, rows, note)


def _summarize(run: RunFolder) -> RunSummary | None:
    """Return the facts about a run; None where the folder holds no run."""
    state = "running" if run.is_locked() else run.state()
    if state == "new":
        return None
    if run.folds.exists():
        return _summarize_folds(run, state)
    card, seconds = None, None
    with suppress(InputError):
        card = read_card(run.model)
    with suppress(UnetsegError, KeyError, ValueError, IndexError):
        seconds = float(read_history(run.history)[-1]["seconds"])
    if card is None:
        return RunSummary(run.name, state, None, seconds)
    count, score = card.images_trained_on, card.scores.get("mean_iou")
    return RunSummary(run.name, state, card, seconds, 0, count, card.patches_seen, score)


def _summarize_folds(run: RunFolder, state: str) -> RunSummary:
    """Return the line of a run with folds in the list of all runs."""
    card, data = None, {}
    with suppress(InputError):
        card = read_card(run.fold(1).model)
    with suppress(InputError):
        data = run.read_folds()
    try:
        return RunSummary(
            run.name,
            state,
            card,
            float(data["seconds"]),
            int(data["folds"]),
            len(data["images"]),
            sum(int(one["patches"]) for one in data["done"]),
            data["scores"] and data["scores"]["mean_iou"],
        )
    except (KeyError, TypeError, ValueError):
        return RunSummary(run.name, state, card)


def write_history(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``history.csv``: one row per epoch, an empty cell where nothing was measured."""
    write_table(path, list(rows[0]), [list(row.values()) for row in rows], digits=6)


def read_history(path: Path) -> list[dict[str, str]]:
    """Return the rows of a ``history.csv``, each cell as its text.

    Raises:
        InputError: Not there.
        MachineError: No permission to read.
    """
    header, *rows = read_cells(path) or [[]]
    return [dict(zip(header, row, strict=False)) for row in rows]


# --- finding a model, and its training images --------------------------------------------------


def resolve_model(name: str | os.PathLike[str]) -> list[Path]:
    """Return the model files that ``name`` stands for.

    Args:
        name: A file, the folder of a run, or the name of a run in ``runs/``. A run with folds
            stands for the models of all its folds.

    Raises:
        InputError: There is none; the message lists the runs there are.
    """
    for path in (Path(name), RUNS / name):
        if path.is_dir():
            models = [path / MODEL_NAME]
            if not models[0].exists():
                models = sorted(path.glob(f"fold-*/{MODEL_NAME}"), key=_fold_number)
            if models:
                return models
        elif path.exists():
            return [path]
    plain = {m.parent.name for m in RUNS.glob(f"*/{MODEL_NAME}")}
    runs = sorted(plain | {m.parts[-3] for m in RUNS.glob(f"*/fold-1/{MODEL_NAME}")})
    remedy = (
        f"runs there are: {', '.join(runs)}"
        if runs
        else f"{either('run unetseg train', 'call unetseg.train')} first"
    )
    raise InputError(name, "no model of this name", remedy)


def _fold_number(model: Path) -> tuple[int, str]:
    digits = model.parent.name.removeprefix("fold-")
    return int(digits) if digits.isdecimal() else 0, digits


def open_training_store(card: ModelCard, file: Path, remedy: str = NAME_A_FOLDER) -> Store:
    """Open the store that a model was trained on, even where it was moved with its run.

    Args:
        card: The card of the model.
        file: The file of the model.
        remedy: The advice of the message where it is not there.

    Raises:
        InputError: It is not there, or cannot be read.
    """
    path, beside = Path(card.store), file.parent / STORE_NAME
    if path.exists():
        return open_store(path)
    if beside.exists():
        opened = open_store(beside)
        if opened.content_hash == card.store_hash:
            return opened
    text = "not found, and no folder was named"
    raise InputError(path, text, remedy)
