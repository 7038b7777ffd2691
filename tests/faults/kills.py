"""``kill -9``: at any instant, inside a save, and at every system call of one."""

import functools
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.common import (
    PREDICT,
    TRAIN,
    Child,
    Lab,
    Tally,
    assert_plain_error,
    assert_same_run,
    each,
    fault,
    go_on,
    need_tool,
    once,
    run,
    save_often,
    some,
    start,
    temporaries,
)
from tests.faults.tracing import ready, traced

# --- at any instant --------------------------------------------------------------------------


def _kill_within(child: Child, seconds: float, rng: random.Random) -> None:
    """Kill a child at a random instant; in two cases of five while it writes a file.

    A save takes so little of the time that uniform instants almost never hit it.
    """
    if rng.random() < 0.6:
        deadline, wanted = time.monotonic() + rng.uniform(0, seconds), 10**9
    else:
        deadline, wanted = time.monotonic() + seconds, rng.randrange(1, 30)
    seen: set[str] = set()
    while time.monotonic() < deadline and child.code is None and len(seen) < wanted:
        seen.update(temporaries(child.folder))
        time.sleep(0.0005)
    child.kill()


def _seconds(lab: Lab, *args: str, home: Path | None = None) -> float:
    """Return how long a command takes that nobody harms."""
    folder = lab.copy(home or lab.made)
    begin = time.monotonic()
    child = run(folder, *args, before=save_often)
    assert child.code == 0, child.err[-300:]
    return time.monotonic() - begin


def _finish(lab: Lab, home: Path) -> None:
    """Go on after a kill, and check that nothing of it is left to be seen."""
    child = go_on(home)
    assert child.wait() == 0, child.err[-300:]
    assert_same_run(home, lab.trained)
    assert not temporaries(home), temporaries(home)


@fault("F1", "train: kill -9, then go on", "same bits, nothing to clean up", quick=0.04)
def killed_training(lab: Lab, share: float) -> Tally:
    tally, seconds = Tally(), _seconds(lab, *TRAIN)
    for seed in some(range(50), share):
        with tally.attempt(f"seed {seed}"):
            home = lab.copy(lab.made)
            child = start(home, *TRAIN, before=save_often)
            _kill_within(child, seconds, random.Random(seed))
            _finish(lab, home)
    return tally


@fault("F1", "train: killed ten times in a row", "same bits, nothing to clean up", quick=0)
def training_killed_again_and_again(lab: Lab, share: float) -> Tally:
    tally, seconds = Tally(), _seconds(lab, *TRAIN)
    for seed in some(range(3), share):
        with tally.attempt(f"seed {seed}"):
            home, rng = lab.copy(lab.made), random.Random(seed)
            for _ in range(10):
                _kill_within(go_on(home, save_often), seconds / 2, rng)
            _finish(lab, home)
    return tally


_FILES = (
    ("unetseg.training.checkpoint", "write_checkpoint"),
    ("unetseg.training.artefacts", "write_history"),
    ("unetseg.prediction.model_file", "write_model"),
)


def _die_at(owner: str, name: str, number: int) -> None:
    save_often()
    once(owner, name, number, functools.partial(os.kill, os.getpid(), signal.SIGKILL))


def _count_calls(lab: Lab) -> list[tuple[str, str, int]]:
    """Return every call that training makes of the `_FILES`: owner, name, number."""
    home = lab.copy(lab.made)
    child = run(home, *TRAIN, before=_note_calls)
    assert child.code == 0, child.err[-300:]
    counts = Counter((home / "calls").read_text().split())
    return [(owner, name, i) for owner, name in _FILES for i in range(counts[name])]


def _note_calls() -> None:
    save_often()
    for owner, name in _FILES:
        each(owner, name, functools.partial(_note, Path("calls").absolute(), name))


def _note(file: Path, name: str, _: int) -> None:
    with file.open("a") as opened:
        opened.write(f"{name}\n")


@fault(
    "F1", "train: kill -9 between the files of a save", "same bits, nothing to clean up", quick=0.05
)
def killed_between_files(lab: Lab, share: float) -> Tally:
    tally, calls = Tally(), _count_calls(lab)
    for owner, name, number in some(calls, share):
        with tally.attempt(f"before {name} {number}"):
            home = lab.copy(lab.made)
            before = functools.partial(_die_at, owner, name, number)
            assert start(home, *TRAIN, before=before).wait() == -signal.SIGKILL, "not hit"
            _finish(lab, home)
    return tally


def _kill_a_writer(lab: Lab, share: float, check: Callable[[Path], None], *args: str) -> Tally:
    """Kill a command that writes to ``out`` or the like, and run it again."""
    home = lab.trained
    tally, seconds = Tally(), _seconds(lab, *args, home=home)
    for seed in some(range(50), share):
        with tally.attempt(f"seed {seed}"):
            folder = lab.copy(home)
            _kill_within(start(folder, *args), seconds, random.Random(seed))
            check(folder)
            again = [*args, "--overwrite"] if args[0] in ("synth", "patch") else list(args)
            child = run(folder, *again)
            assert child.code == 0, child.err[-300:]
            check(folder)
            assert not temporaries(folder), temporaries(folder)
    return tally


def _whole_store(folder: Path) -> None:
    from unetseg.dataset.store import open_store

    if (folder / "new.h5").exists():
        open_store(folder / "new.h5")  # reads and checks all of it


def _whole_pictures(folder: Path) -> None:
    from unetseg.pictures.reading import read_image

    for path in [*folder.glob("predictions/**/*.png"), *folder.glob("drawn/**/*.png")]:
        if not path.name.startswith("."):
            read_image(path)


def _images_with_masks(folder: Path) -> None:
    _whole_pictures(folder)
    for path in folder.glob("drawn/*/images/[!.]*.png"):
        assert (path.parents[1] / "masks" / path.name).exists(), f"{path} without its mask"


@fault("F4", "patch: kill -9", "no store, or a whole one", quick=0.02)
def killed_patch(lab: Lab, share: float) -> Tally:
    args = ("patch", "--size", "32", "--per-image", "20", "--out", "new.h5")
    return _kill_a_writer(lab, share, _whole_store, *args)


@fault("F5", "predict: kill -9", "no picture, or a whole one", quick=0.02)
def killed_predict(lab: Lab, share: float) -> Tally:
    return _kill_a_writer(lab, share, _whole_pictures, *PREDICT)


@fault("F5", "synth: kill -9", "no image without its mask", quick=0.02)
def killed_synth(lab: Lab, share: float) -> Tally:
    args = ("synth", "--n", "20", "--n-test", "5", "--out", "drawn")
    return _kill_a_writer(lab, share, _images_with_masks, *args)


# --- at every system call of a save ----------------------------------------------------------

_CALLS = "%file,%desc"
# The calls that a disk can make fail, and with which error; a look at a file (stat, lseek) is left
# alone.
_CAN_FAIL = {
    "EIO": {"openat", "read", "write", "pwrite64", "fsync", "close", "ftruncate", "fallocate",
            "rename", "link", "linkat", "unlink"},
    "ENOSPC": {"openat", "write", "pwrite64", "fsync", "close", "fallocate", "rename", "link"},
}  # fmt: skip


def _save_run(folder: Path, generation: int) -> int:
    """Write the files of a save as `train` does: model, history, checkpoint of one generation."""
    from unetseg.prediction.model_file import load_model, write_model
    from unetseg.prediction.run_folder import write_history
    from unetseg.training.checkpoint import read_checkpoint, write_checkpoint

    _, card = load_model(folder / "start.safetensors")
    state = read_checkpoint(folder / "start.pt")
    state["position"]["step"] = generation
    weights = {name: tensor + generation for name, tensor in state["network"].items()}
    ready()
    write_model(folder / "model.safetensors", weights, card)
    write_history(folder / "history.csv", [{"epoch": generation}])
    write_checkpoint(folder / "last.pt", state)
    return 0


def _save_store(folder: Path, generation: int) -> int:
    """Write the store once more, with another seed in its header."""
    import dataclasses

    from unetseg.dataset.store import open_store
    from unetseg.dataset.store_writer import write_store

    old = open_store(folder / "start.h5")
    info = dataclasses.replace(old.info, seed=generation)
    rows = zip(old.images, old.masks, old.source.tolist(), old.corner, strict=True)
    whole = (old.held_out(k)[:2] for k in range(old.held_out_count))
    ready()
    write_store(folder / "patches.h5", info, len(old.images), rows, whole)
    return 0


def _save_mask(folder: Path, generation: int) -> int:
    """Write a prediction."""
    import numpy as np

    from unetseg.classes import table_of
    from unetseg.pictures.writing import write_mask

    table = table_of([0, 1, 2])
    ready()
    write_mask(folder / "mask.png", np.full((64, 64), generation, np.uint8), table)
    return 0


_SAVES = {"run": _save_run, "store": _save_store, "mask": _save_mask}


def _saving(kind: str, folder: Path, generation: int) -> int:
    """Save as a command would: an error of ours is its exit code, and a line."""
    import sys

    from unetseg.errors import UnetsegError

    try:
        return _SAVES[kind](folder, generation)
    except UnetsegError as error:
        sys.stderr.write(f"unetseg: error: {error}\n")
        return error.exit_code


class _Saves:
    """Saves of one kind: the files of generation 1, which stand, and of 2, which is written."""

    def __init__(self, lab: Lab, kind: str) -> None:
        self.lab, self.kind = lab, kind
        self.old = lab.folder()
        source = lab.trained
        shutil.copy(source / "runs/default/model.safetensors", self.old / "start.safetensors")
        shutil.copy(source / "runs/default/last.pt", self.old / "start.pt")
        shutil.copy(source / "data/patches.h5", self.old / "start.h5")
        self._save(self.old, 1)
        self.new = lab.copy(self.old)
        self.calls = self._save(self.new, 2)

    def _save(self, folder: Path, generation: int) -> dict[str, int]:
        """Save without a fault; return how often each system call was made."""
        child = self._start(folder, generation)
        with tempfile.NamedTemporaryFile("r") as log:
            traced(child, "-e", f"trace={_CALLS}", "-o", log.name).wait()
            assert child.wait() == 0, child.err
            self.log = log.read()
        return Counter(m[1] for m in re.finditer(r"^(\w+)\(", self.log, re.MULTILINE))

    def _start(self, folder: Path, generation: int) -> Child:
        return Child(folder, functools.partial(_saving, self.kind, folder, generation))

    def points(self) -> list[tuple[str, int]]:
        """Return every system call of the save, by its name and its number among its like."""
        return [(name, i + 1) for name, count in self.calls.items() for i in range(count)]

    def harm(self, call: str, number: int, effect: str) -> tuple[Path, Child]:
        """Save with something done to one system call."""
        folder = self.lab.copy(self.old)
        child = self._start(folder, 2)
        inject = f"inject={call}:{effect}:when={number}"
        traced(child, "-e", f"trace={call}", "-e", inject, "-o", os.devnull).wait()
        child.wait()
        return folder, child

    def check(self, folder: Path) -> Iterator[str]:
        """Yield "old" or "new" for each file of the save; anything else is a third state."""
        for path in self.new.iterdir():
            content = path.read_bytes()
            before = self.old / path.name
            old = before.read_bytes() if before.exists() else None
            found = folder / path.name
            now = found.read_bytes() if found.exists() else None
            assert now in (old, content), f"{path.name} is neither the old file nor the new one"
            if old != content:
                yield "new" if now == content else "old"


@fault("F2", "every system call of a save: kill -9", "the old file or the new one", quick=0.02)
def killed_at_every_call(lab: Lab, share: float) -> Tally:
    need_tool("strace")
    tally = Tally()
    for kind in _SAVES:
        saves = _Saves(lab, kind)
        for call, number in some(saves.points(), share):
            with tally.attempt(f"{kind}: {call} {number}"):
                folder, child = saves.harm(call, number, "signal=SIGKILL")
                assert child.code == -signal.SIGKILL, f"exit {child.code}: not hit"
                list(saves.check(folder))
    return tally


@fault("F3", "every system call of a save: EIO, ENOSPC", "exit 3 and the old file", quick=0.02)
def failing_at_every_call(lab: Lab, share: float) -> Tally:
    need_tool("strace")
    tally = Tally()
    for kind in _SAVES:
        saves = _Saves(lab, kind)
        points = [
            (*p, e) for e, calls in _CAN_FAIL.items() for p in saves.points() if p[0] in calls
        ]
        for call, number, error in some(points, share):
            with tally.attempt(f"{kind}: {call} {number} {error}"):
                folder, child = saves.harm(call, number, f"error={error}")
                found = list(saves.check(folder))
                if child.code == 0:  # a call that the save does without
                    assert "old" not in found, "said to be saved and is not"
                else:
                    assert_plain_error(child, 3)
                    told = "written, but" in child.err or kind == "run"  # which is three files
                    assert "new" not in found or told, f"replaced: {child.err}"
    return tally


@fault("F6", "order of a save, as strace sees it", "flush, rename, flush the folder", quick=1)
def order_of_a_save(lab: Lab, share: float) -> Tally:
    need_tool("strace")
    tally = Tally()
    for kind in some(list(_SAVES), share):
        with tally.attempt(kind):
            log = _Saves(lab, kind).log
            renames = list(re.finditer(r'^rename\("([^"]+)", "([^"]+)"\)', log, re.MULTILINE))
            assert renames
            for rename in renames:
                temporary, folder = rename[1], str(Path(rename[2]).parent)
                flushed = rf"^fsync\(\d+<{re.escape(temporary)}>\)"
                assert re.search(flushed, log[: rename.start()], re.MULTILINE), "not flushed before"
                after = re.search(r"^fsync\(\d+<(.*?)>\)", log[rename.end() :], re.MULTILINE)
                flushed_after = after[1] if after else None
                assert flushed_after == folder, f"{flushed_after} is flushed after, not {folder}"
    return tally
