"""Training a network on a patch store or a folder: which run, from where, with what."""

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unetseg import checkpoints
from unetseg.config import (
    PatchSettings,
    TrainSettings,
)
from unetseg.errors import InputError, quote
from unetseg.interrupts import catching
from unetseg.preparation import build_store
from unetseg.progress import Note, OnProgress, ignore
from unetseg.runs import RunFolder, State
from unetseg.store import StoreInfo, open_store
from unetseg.trainer import Trainer, TrainResult, resolve


def train(
    source: str | os.PathLike[str] | None = None,
    *,
    run: str | os.PathLike[str] = "default",
    patches: PatchSettings | None = None,
    classes: Path | None = None,
    ignored: tuple[int | str, ...] = (),
    start_from: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    started: float | None = None,
    on_progress: OnProgress = ignore,
    **settings: Any,
) -> TrainResult:
    """Train a network; the model so far is in the run's folder from its first save on.

    Args:
        source: A patch store, or a folder of labelled images that is cut into one first, kept in
            the run's folder. None means ``data/patches.h5``; with ``resume`` the run's own.
        run: Name ("wide" is ``runs/wide``) or folder of the run.
        patches: How a folder is cut; None for the defaults.
        classes: A ``classes.toml`` for a folder that has none.
        ignored: Mask values or colours of a folder to leave out.
        start_from: A model (name of a run, folder or file) whose weights are the start.
        resume: Go on with an interrupted run, exactly where it stopped.
        overwrite: Start again in the folder of an earlier run.
        started: `time.monotonic` when the whole command began, from which ``budget`` counts.
        on_progress: Receives `Plan`, `Progress`, `EpochDone` and `Note` records.
        settings: Fields of `TrainSettings`. With ``resume`` they must agree with the run's.

    Raises:
        InputError: Wrong settings, a bad store or folder, a run in the wrong state for this.
        MachineError: The folder is in use, or the disk or the memory failed.
        DivergenceError: The loss stopped being finite.
        Interrupted: A signal came; everything is saved for ``resume``.
    """
    started = time.monotonic() if started is None else started
    folder = RunFolder(run)
    given = TrainSettings(**settings)
    with folder.locked(), catching() as caught:
        state = folder.state()
        _check_state(folder, state, source, resume, overwrite)
        if state == "finished" and resume:
            return _finished_result(folder)
        if not resume:
            path = _store_path(source, folder, patches, classes, ignored, on_progress)
            with open_store(path) as opened:
                resolved = resolve(_like_model(given, settings, start_from), opened.info.size)
                trainer = Trainer(opened, folder, resolved, started, caught, on_progress)
                named = {"from": start_from, "classes": classes}
                trainer.given = {k: str(v) for k, v in named.items() if v is not None}
                trainer.start(start_from)
                return trainer.run()
        saved, used, warning = checkpoints.read_checkpoint_with_fallback(folder.checkpoint)
        if warning:
            on_progress(Note(warning, warning=True))
        recorded = TrainSettings(**saved["settings"])
        with open_store(saved["store"]) as opened:
            asked = {**settings, **_cutting_asked(opened.info, source, patches, ignored)}
            named = {"from": start_from, "classes": classes}
            asked |= {k: str(v) for k, v in named.items() if v is not None}
            _check_agreement(recorded, asked, saved, source)
            trainer = Trainer(opened, folder, recorded, started, caught, on_progress)
            trainer.restore(saved, used)
            return trainer.run()


def _check_state(
    folder: RunFolder,
    state: State,
    source: str | os.PathLike[str] | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Raise `InputError`, with the line to type, where the folder's state forbids this call."""
    line = "unetseg train" if source is None else f"unetseg train {quote(source)}"
    if state == "new" and resume:
        text = "nothing is saved there to go on from"
        raise InputError(folder.path, text, "leave --resume out to start")
    if resume or overwrite or state == "new":
        return
    if state == "finished":
        other = RunFolder(folder.path.with_name(f"{folder.name}-2"))
        remedy = f"start another with: {line}{other.option()}"
        raise InputError(folder.path, "holds a finished run", remedy)
    remedy = (
        f"go on with: {folder.resume_line()}, or start again with: "
        f"{line}{folder.option()} --overwrite"
    )
    raise InputError(folder.path, "holds an interrupted run", remedy)


def _finished_result(folder: RunFolder) -> TrainResult:
    card = checkpoints.read_card(folder.model)
    names = tuple(s.name for s in card.sources if s.split == "val")
    return TrainResult(folder, None, names, 0.0, card.patches_seen, card.kept, already=True)


def _store_path(
    source: str | os.PathLike[str] | None,
    folder: RunFolder,
    patches: PatchSettings | None,
    classes: Path | None,
    ignored: tuple[int | str, ...],
    on_progress: OnProgress,
) -> Path:
    path = Path("data/patches.h5" if source is None else source)
    if path.is_dir():
        summary = build_store(
            path,
            folder.store,
            patches or PatchSettings(),
            classes=classes,
            ignored=ignored,
            overwrite=True,
            on_progress=on_progress,
        )
        on_progress(summary)
        return folder.store
    if patches or classes or ignored:
        text = "options that cut patches need a folder of images"
        raise InputError(path, text, "give them to unetseg patch")
    if source is None and not path.exists():
        text = "not found"
        raise InputError(path, text, "run unetseg patch first, or name a store or a folder")
    return path


def _like_model(
    given: TrainSettings, asked: Mapping[str, Any], start_from: str | None
) -> TrainSettings:
    """Return the settings with the network of the model whose weights are the start.

    Raises:
        InputError: Another network was asked for.
    """
    if start_from is None:
        return given
    path = checkpoints.resolve_model(start_from)[0]
    card = checkpoints.read_card(path)
    theirs = {"network": card.network, "width": None, "depth": None} | dict(card.settings)
    for key in ("network", "width", "depth"):
        if asked.get(key) is not None and asked[key] != theirs[key]:
            text = f"{asked[key]}, but the model to start from has {theirs[key] or 'its own'}"
            raise InputError(f"--{key}", text, "leave it out, or choose another --from")
    return dataclasses.replace(
        given, network=card.network, width=theirs["width"], depth=theirs["depth"]
    )


def _check_agreement(
    recorded: TrainSettings,
    asked: Mapping[str, Any],
    saved: Mapping[str, Any],
    source: str | os.PathLike[str] | None,
) -> None:
    """Raise `InputError` listing what was asked for and differs from the interrupted run."""
    before = dataclasses.asdict(recorded) | saved["given"]
    differing = [
        f"--{key.replace('_', '-')} {before.get(key, 'as it was')} -> {value}"
        for key, value in asked.items()
        if value is not None and before.get(key) != value
    ]
    is_store = source is not None and not Path(source).is_dir()
    if is_store and os.path.realpath(source or "") != os.path.realpath(saved["store"]):
        differing.append(f"store {saved['store']} -> {source}")
    if differing:
        text = "differs from the interrupted run: " + ", ".join(differing)
        raise InputError("--resume", text, "leave these options out, or start another --run")


def _cutting_asked(
    info: StoreInfo,
    source: str | os.PathLike[str] | None,
    patches: PatchSettings | None,
    ignored: tuple[int | str, ...],
) -> dict[str, Any]:
    """Return what of the options that cut patches is not as in the store, by option."""
    asked: dict[str, Any] = {}
    if patches:
        given, usual = dataclasses.asdict(patches), dataclasses.asdict(PatchSettings())
        asked |= {
            k: v
            for k, v in given.items()
            if v != usual[k] and k in info.settings and info.settings[k] != v
        }
    if source is not None and Path(source).is_dir() and str(source) != info.folder:
        asked["folder"] = source
    others = [item for item in ignored if item not in info.classes.ignore]
    return asked | ({"ignore": others} if others else {})
