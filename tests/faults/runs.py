"""Run folders: several processes at once, damage between two runs, and losses without end."""

import functools
import os
import shutil
import signal
import time
from pathlib import Path

from tests.faults.common import (
    LIMIT,
    TRAIN,
    Lab,
    Tally,
    assert_plain_error,
    assert_same_run,
    fault,
    go_on,
    once,
    run,
    save_often,
    some,
    start,
    temporaries,
)


def _pause(file: Path) -> None:
    """Make `train` wait at its third step for a file to be there, so that others meet it."""

    def wait() -> None:
        while not file.exists():
            time.sleep(0.01)

    once("unetseg.training.loop:Trainer", "read_losses", 3, wait)


@fault("F21", "eight runs started into one folder", "one wins, the others name it", quick=0.2)
def several_runs_in_one_folder(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for i in some(range(5), share):
        with tally.attempt(f"time {i}"):
            home = lab.copy(lab.made)
            folders = [lab.copy(home) for _ in range(8)]
            for folder in folders:  # a folder of logs each, and one for all runs
                (folder / "runs").symlink_to(home / "runs")
            (home / "runs").mkdir()
            pause = functools.partial(_pause, home / "go")
            children = [start(folder, *TRAIN, before=pause) for folder in folders]
            deadline = time.monotonic() + LIMIT / 2
            while sum(c.code is None for c in children) > 1 and time.monotonic() < deadline:
                time.sleep(0.01)
            (home / "go").touch()
            codes = sorted(child.wait() for child in children)
            assert codes == [0] + [3] * 7, f"exit codes {codes}"
            winner = next(child for child in children if child.code == 0)
            for child in children:
                if child is not winner:
                    assert_plain_error(child, 3, "in use by", f"process {winner.pid} on ")
            assert_same_run(home, lab.trained)
    return tally


@fault("F21", "the holder of a folder killed", "the next one starts", quick=0.2)
def holder_killed(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for i in some(range(5), share):
        with tally.attempt(f"time {i}"):
            home = lab.copy(lab.made)
            child = start(home, *TRAIN, before=functools.partial(_pause, home / "never"))
            while not (home / "runs/default/samples.png").exists():
                time.sleep(0.01)
                assert child.code is None, child.err
            second = run(home, *TRAIN)
            assert_plain_error(second, 3, f"process {child.pid} on ")
            child.kill()
            assert go_on(home).wait() == 0
            assert_same_run(home, lab.trained)
    return tally


def _stopped(lab: Lab) -> Path:
    """Return a folder with a run stopped at its eighth step, and the save before it."""
    home = lab.copy(lab.made)
    child = run(home, *TRAIN, before=_stop)
    assert child.code == 143, child.err[-300:]
    return home


def _stop() -> None:
    save_often()
    stop = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    once("unetseg.training.loop:Trainer", "read_losses", 12, stop)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _older(path: Path) -> None:
    shutil.copy(path.with_name("last-previous.pt"), path)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@fault("F9", "last.pt damaged, deleted, made older", "falls back, same bits", quick=0.17)
def damaged_checkpoint(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for harm in some([_truncate, _flip, _zero, _older, _empty, Path.unlink], share):
        with tally.attempt(harm.__name__.strip("_")):
            home = _stopped(lab)
            harm(home / "runs/default/last.pt")
            child = go_on(home)
            assert child.wait() == 0, child.err[-300:]
            told = "last.pt" in child.err and "last-previous.pt" in child.err
            assert told or harm is _older, "the fall-back is not told"
            assert_same_run(home, lab.trained)
    return tally


@fault("F9", "both checkpoints damaged", "exit 2, both reasons", quick=1)
def both_checkpoints_damaged(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for harm in some([_zero], share):
        with tally.attempt(harm.__name__.strip("_")):
            home = _stopped(lab)
            for name in ("last.pt", "last-previous.pt"):
                harm(home / "runs/default" / name)
            child = go_on(home)
            child.wait()
            assert_plain_error(child, 2, "last.pt", "last-previous.pt")
    return tally


@fault("F22", "the store cut anew while a run reads it", "the old store's bits", quick=0.25)
def store_replaced(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for step in some([1, 5, 9, 14], share):
        with tally.attempt(f"at step {step}"):
            home = lab.copy(lab.made)
            again = functools.partial(_cut_anew, home, step)
            child = run(home, *TRAIN, before=again)
            assert child.code == 0, child.err[-300:]
            assert_same_run(home, lab.trained)
    return tally


def _cut_anew(home: Path, step: int) -> None:
    from unetseg import PatchSettings, build_store

    settings = PatchSettings(size=32, per_image=4, val=0.25, seed=7)
    cut = functools.partial(
        build_store, home / "data/train", home / "data/patches.h5", settings, overwrite=True
    )
    once("unetseg.training.loop:Trainer", "read_losses", step, cut)


@fault("F23", "train --lr 1e30", "exit 4, every file finite", quick=0.1)
def diverging(lab: Lab, share: float) -> Tally:
    from unetseg.prediction.model_file import load_model

    tally = Tally()
    for seed in some(range(20), share):
        with tally.attempt(f"seed {seed}"):
            home = lab.copy(lab.made)
            line = (*TRAIN, "--lr", "1e30", "--seed", seed, "--optimizer", "adamw")
            child = run(home, *line, before=save_often)
            assert_plain_error(child, 4, "step", "learning rate", "last good model")
            model = home / "runs/default/model.safetensors"
            if model.exists():
                load_model(model)  # refuses weights that are not finite
                assert str(model.relative_to(home)) in child.err, "the good file is not named"
            assert not temporaries(home), temporaries(home)
    return tally
