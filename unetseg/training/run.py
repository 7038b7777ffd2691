"""`unetseg.train`: a run, new or resumed, on a patch store or on a folder that is cut into one."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from unetseg import plugins
from unetseg.arguments import Reports, public, several
from unetseg.classes import ClassTable
from unetseg.dataset.cutting import cut_folder
from unetseg.dataset.folder import LabelledFolder
from unetseg.dataset.splits import Split
from unetseg.dataset.store import Store, StoreInfo, open_store
from unetseg.devices import all_threads_again, pick_device
from unetseg.errors import InputError, arg, as_option, either
from unetseg.prediction import model_file
from unetseg.prediction.run_folder import RunFolder, State, resolve_model
from unetseg.progress import Note, OnProgress, warn
from unetseg.ranks import join, world
from unetseg.settings import PatchSettings, TrainSettings
from unetseg.signals import catching
from unetseg.text import quote
from unetseg.training.checkpoint import TrainState, read_state
from unetseg.training.forecast import NOTHING, Afterwards, check_budget, check_spreading
from unetseg.training.loop import TrainResult
from unetseg.training.recipe import resolve
from unetseg.training.starting import Session, new_trainer, resumed_trainer


@public(TrainSettings)
@join()
def train(
    source: str | os.PathLike[str] | None = None,
    *,
    run: str | os.PathLike[str] = "default",
    patches: PatchSettings | None = None,
    classes: str | os.PathLike[str] | None = None,
    ignore: int | str | Sequence[int | str] = (),
    start_from: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    started: float | None = None,
    after: Afterwards = NOTHING,
    on_progress: Reports = warn,
    **settings: Any,
) -> TrainResult:
    """Train a network; the model so far is in the run's folder from its first save on.

    Processes started by ``torchrun`` share every batch. Store and run must have the same paths on
    all machines; rank 0 alone writes, and reports.

    Args:
        source: A patch store, or a folder of labelled images that is cut into one first, kept in
            the run's folder. None means ``data/patches.h5``; with ``resume`` the run's own.
        run: Name ("wide" is ``runs/wide``) or folder of the run.
        patches: How a folder is cut; None for the defaults.
        classes: A ``classes.toml`` for a folder that has none.
        ignore: Mask values or colours of a folder to leave out.
        start_from: A model (name of a run, folder or file) whose weights are the start.
        resume: Go on with an interrupted run, exactly where it stopped.
        overwrite: Start again in the folder of an earlier run.
        started: `time.monotonic` when the whole command began, from which ``budget`` counts.
        after: The work of the caller afterwards, for which ``budget`` leaves time, too.
        on_progress: Receives `Plan`, `Progress`, `EpochDone` and `Note` records.
        settings: Fields of `TrainSettings`, each a keyword. With ``resume`` they must agree with
            the run's.

    Raises:
        InputError: A setting is wrong, the store or folder cannot be used, or the run is in a state
            that forbids the call.
        MachineError: The folder is in use, or the disk or the memory failed.
        DivergenceError: The loss stopped being finite.
        Interrupted: A signal came; everything is saved for ``resume``.
    """
    started = time.monotonic() if started is None else started
    folder = RunFolder(run)
    given = TrainSettings(**settings)
    settings = {name: getattr(given, name) for name in settings}
    plugins.check_names(given)
    pick_device(given.device)
    ignored, classes = several(ignore), None if classes is None else Path(classes)
    start_from = None if start_from is None else os.fspath(start_from)
    ranks = world()
    check_resumable(folder, resume)
    on_progress = ranks.only_on_rank_zero(on_progress)
    # Signals are noted until the folder is let go. Where a rank is lost, torchrun sends SIGTERM to
    # the others, and they must still say so.
    with catching() as caught, folder.locked() if ranks.is_writer else nullcontext():
        session = Session(started, caught, on_progress, after)
        asked = {**settings, **names_asked(start_from, classes)}
        line = train_line(source, asked, patches, ignored)
        state = ranks.on_rank_zero(lambda: _allowed_state(folder, line, resume, overwrite))
        if state == "finished" and resume:
            return _finished_result(folder)
        if not resume:
            given = like_model(given, settings, start_from)
            if source is not None and Path(source).is_dir():
                cutting = patches or PatchSettings()
                ranks.on_rank_zero(lambda: check_budget(source, cutting, given, started, after))
                session = dataclasses.replace(session, has_worked=True)

            def check_again(labelled: LabelledFolder, splits: Sequence[Split]) -> None:
                check_spreading(labelled, [splits], given, started, after)

            chosen = patches, classes, ignored, start_from
            found = ranks.on_rank_zero(
                lambda: str(_store_path(source, folder, *chosen, on_progress, check_again))
            )
            return begin_run(Path(found), folder, given, names_asked(start_from, classes), session)

        def check(saved: TrainState, info: StoreInfo) -> None:
            asked = {
                **settings,
                **cutting_asked(info.settings, info.classes, patches, ignored),
                **names_asked(start_from, classes),
            }
            is_folder = source is not None and Path(source).is_dir()
            if source is not None and is_folder and _is_other(source, info.folder):
                asked["folder"] = os.fspath(source)
            before = dataclasses.asdict(saved.settings) | saved.given
            if source is not None and not is_folder and _is_other(source, saved.store):
                asked["store"], before["store"] = source, saved.store
            check_agreement(before, asked)

        return resume_run(folder, session, check)


@all_threads_again()
def begin_run(
    path: Path,
    folder: RunFolder,
    settings: TrainSettings,
    given: dict[str, str],
    session: Session,
) -> TrainResult:
    """Train from the start; the caller holds the lock of the folder.

    Args:
        path: The store to learn from.
        folder: The folder of the run.
        settings: How it is trained.
        given: The names that were given beside the settings, as `names_asked` returns them.
        session: The call.

    Raises:
        UnetsegError: The errors of `train`.
    """
    store = _open_on_all_ranks(path)
    recipe = resolve(settings, store.info.size)
    return new_trainer(store, folder, recipe, session, given).run()


@all_threads_again()
def resume_run(
    folder: RunFolder,
    session: Session,
    check: Callable[[TrainState, StoreInfo], None] = lambda *_: None,
) -> TrainResult:
    """Go on with an interrupted run; the caller holds the lock of the folder.

    Args:
        folder: The folder of the run.
        session: The call.
        check: A function that is given the checkpoint and the header of its store, and may raise.

    Raises:
        UnetsegError: The errors of `train`.
    """
    saved, used, warning = read_state(folder.checkpoint)
    if warning:
        session.on_progress(Note(warning, warning=True))
    store = _open_on_all_ranks(Path(saved.store))
    check(saved, store.info)
    return resumed_trainer(store, folder, saved, used, session).run()


def _open_on_all_ranks(path: Path) -> Store:
    """Open a store, which must be the same one on all ranks."""
    store = open_store(path)
    if len(set(world().gather(store.content_hash))) > 1:
        text = "is not the same store on all machines"
        raise InputError(path, text, "copy one of them to the others")
    return store


def _allowed_state(folder: RunFolder, line: str, resume: bool, overwrite: bool) -> State:
    """Return the state of a folder in which this call may go on; see `check_state`."""
    state = folder.state()
    check_state(folder, state, line, resume, overwrite)
    if resume and folder.folds.exists():
        text = "holds a run with folds"
        raise InputError(folder.path, text, folder.how_to_resume())
    return state


def train_line(
    source: str | os.PathLike[str] | None,
    asked: Mapping[str, Any],
    patches: PatchSettings | None,
    ignored: tuple[int | str, ...],
) -> str:
    """Return the command line of a call, without the run: its folder and the options given.

    Args:
        source: The argument of `train`.
        asked: Options by name.
        patches: The settings of cutting; those that differ from the defaults are given.
        ignored: The argument of `train`.
    """
    given = {**asked, **_unusual(patches)}
    if (budget := given.get("budget")) is not None:
        given["budget"] = f"{budget:g}s"
    words = [(name, value) for name, value in given.items() if value is not None]
    words += [("ignore", item) for item in ignored]
    options = "".join(f" {as_option(name, value)}" for name, value in words)
    return f"unetseg train{'' if source is None else f' {quote(os.fspath(source))}'}{options}"


def check_resumable(folder: RunFolder, resume: bool) -> None:
    """Refuse to resume a run whose folder is missing, before the lock would make the folder."""
    if resume and not folder.path.exists():
        check_state(folder, "new", "", resume, False)


def check_state(folder: RunFolder, state: State, line: str, resume: bool, overwrite: bool) -> None:
    """Raise `InputError` where the folder's state forbids the call ``line``, with a remedy."""
    if state == "new" and resume:
        text = "nothing is saved there to go on from"
        raise InputError(folder.path, text, f"leave {arg('resume', True)} out to start")
    if resume or overwrite or state == "new":
        return
    if state == "finished":
        other = RunFolder(folder.path.with_name(f"{folder.name}-2"))
        remedy = either(
            f"start another with: {line}{other.option()}",
            f"give another run, such as run={other.given!r}, or overwrite=True",
        )
        raise InputError(folder.path, "holds a finished run", remedy)
    remedy = either(
        f"go on with: {folder.resume_line()}, or start again with: "
        f"{line}{folder.option()} --overwrite",
        "give resume=True to go on, or overwrite=True to start again",
    )
    raise InputError(folder.path, "holds an interrupted run", remedy)


def _finished_result(folder: RunFolder) -> TrainResult:
    """Return the result of a run that had finished before this call."""
    card = model_file.read_card(folder.model)
    names = tuple(s.name for s in card.sources if s.split == "val")
    return TrainResult(folder, None, names, 0.0, card.patches_seen, card.kept, already=True)


def _store_path(
    source: str | os.PathLike[str] | None,
    folder: RunFolder,
    patches: PatchSettings | None,
    classes: Path | None,
    ignored: tuple[int | str, ...],
    start_from: str | None,
    on_progress: OnProgress,
    check: Callable[[LabelledFolder, list[Split]], None],
) -> Path:
    """Return the store to train on; a folder of labelled images is cut into one first.

    The arguments are those of `train` and of `cut_folder`.

    Raises:
        InputError: The store is not found, or options of cutting are given for a store.
    """
    path = Path("data/patches.h5" if source is None else source)
    if path.is_dir():
        given, settings = path if source is None else source, patches or PatchSettings()
        learned = (
            model_file.read_card(resolve_model(start_from)[0]).trained_on if start_from else ()
        )
        summary = cut_folder(
            given, folder.store, settings, classes, ignored, on_progress, check, learned
        )
        on_progress(summary)
        return folder.store
    if patches or classes or ignored:
        text = "options that cut patches need a folder of images"
        raise InputError(
            path, text, either("give them to unetseg patch", "give them to unetseg.build_store")
        )
    if source is None and not path.exists():
        first = either("run unetseg patch", "call unetseg.build_store")
        remedy = f"{first} first, or name a store or a folder"
        raise InputError(path, "not found", remedy)
    return path


def like_model(
    given: TrainSettings, asked: Mapping[str, Any], start_from: str | None
) -> TrainSettings:
    """Return the settings with the network of the model whose weights are the start.

    Raises:
        InputError: Another network was asked for.
    """
    if start_from is None:
        return given
    path = resolve_model(start_from)[0]
    card = model_file.read_card(path)
    theirs = {"network": card.network, "width": None, "depth": None} | dict(card.settings)
    for key in ("network", "width", "depth"):
        if asked.get(key) is not None and asked[key] != theirs[key]:
            text = f"{asked[key]}, but the model to start from has {theirs[key] or 'its own'}"
            raise InputError(arg(key), text, f"leave it out, or choose another {arg('start_from')}")
    return dataclasses.replace(
        given, network=card.network, width=theirs["width"], depth=theirs["depth"]
    )


def check_agreement(before: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise `InputError` that lists the options whose values the interrupted run does not have."""
    differing = [
        f"{key if key in ('store', 'folder') else arg('start_from' if key == 'from' else key)} "
        f"{before.get(key, 'as it was')} -> {value}"
        for key, value in asked.items()
        if value is not None and before.get(key) != value
    ]
    if differing:
        text = "differs from the interrupted run: " + ", ".join(differing)
        raise InputError(
            arg("resume"), text, f"leave these options out, or start another {arg('run')}"
        )


def names_asked(start_from: str | None, classes: Path | None) -> dict[str, str]:
    """Return the model and the file of classes that were given, under their names in records."""
    named = {"from": start_from, "classes": classes}
    return {k: str(v) for k, v in named.items() if v is not None}


def cutting_asked(
    recorded: Mapping[str, Any],
    table: ClassTable,
    patches: PatchSettings | None,
    ignored: tuple[int | str, ...],
) -> dict[str, Any]:
    """Return the options of cutting that were given and differ from those ``recorded``, by name."""
    asked = {k: v for k, v in _unusual(patches).items() if k in recorded and recorded[k] != v}
    others = [item for item in ignored if item not in table.ignore]
    return asked | ({"ignore": others} if others else {})


def _unusual(patches: PatchSettings | None) -> dict[str, Any]:
    """Return the settings of cutting that differ from the defaults, by name."""
    given = dataclasses.asdict(patches or PatchSettings())
    usual = dataclasses.asdict(PatchSettings())
    return {name: value for name, value in given.items() if value != usual[name]}


def _is_other(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether two paths lead to different files."""
    return os.path.realpath(one) != os.path.realpath(other)
