"""The ground of the faults: a small job to harm, processes to harm it in, and how results compare.

A fault is a function of the laboratory and of the share of its cases to try. It returns a `Tally`;
the bar is the same for all: every attempt survives.

Most children are forked from one process that has imported torch already, so that an attempt takes
a fraction of a second. They are processes of their own in every other way.
"""

import csv
import functools
import hashlib
import importlib
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the forked ones inherit it

from tests.support import write_set

ROOT = Path(__file__).parents[2]
TIMES = ("seconds", "patches_per_second")  # columns of a history that no two runs share
TRAIN = (
    *("train", "--epochs", "3", "--width", "4", "--depth", "2", "--batch-size", "8"),
    *("--device", "cpu"),
)
PREDICT = ("predict", "data/test", "--device", "cpu")
LIMIT = 120.0  # seconds after which a child counts as hanging, on a machine with other work


class Skipped(Exception):  # noqa: N818 - no error: this machine cannot inject the fault
    """The fault cannot be injected here; the text says why."""


@dataclass
class Tally:
    """The number of attempts, and the failures of those that did not survive."""

    attempts: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        """Attempts in which everything that is promised held."""
        return self.attempts - len(self.failures)

    @contextmanager
    def attempt(self, case: object) -> Iterator[None]:
        """Count one attempt; an error inside is its failure and goes no further."""
        self.attempts += 1
        try:
            yield
        except Skipped:
            raise
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1].line
            said = str(error).partition("\nassert ")[0]  # pytest adds the values compared
            self.failures.append(f"{case}: {said or line}")


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        name: Its name in the list of promises, as "F1".
        text: The harm and its victim.
        bar: The condition that must hold in every attempt.
        quick: Share of the cases that ``make test`` tries; 0 leaves the fault to ``make faults``.
        inject: The function that tries it.
    """

    name: str
    text: str
    bar: str
    quick: float
    inject: "Callable[[Lab, float], Tally]"


FAULTS: list[Fault] = []


def fault(name: str, text: str, bar: str, quick: float) -> Callable[..., Any]:
    """Register the function below as a fault; see `Fault` for the arguments."""

    def register(function: "Callable[[Lab, float], Tally]") -> Any:
        FAULTS.append(Fault(name, text, bar, quick, function))
        return function

    return register


def load() -> None:
    """Import every module of faults, in the order of the table."""
    for name in (
        "kills",
        "signals",
        "limits",
        "runs",
        "damage",
        "attacks",
        "surroundings",
        "labelling",
        "ranks",
    ):
        importlib.import_module(f"tests.faults.{name}")


def some(cases: Sequence[Any], share: float) -> list[Any]:
    """Return this share of the cases, at least one: the first, the last, and others between."""
    count = max(1, min(len(cases), round(share * len(cases))))
    return [cases[round(i * (len(cases) - 1) / max(1, count - 1))] for i in range(count)]


# --- children --------------------------------------------------------------------------------


@functools.cache
def _forks() -> Any:
    context = multiprocessing.get_context("forkserver")
    commands = ("app", "train", "predict", "synth", "patch", "info", "evaluate", "tables", "label")
    rooms = (
        *("training.run", "training.folds", "prediction.session", "dataset.cutting"),
        *("scoring.evaluation", "reports.gathering", "labelling.server"),
    )
    # The modules that the first optimizer, image and save import.
    late = ("torch._dynamo", "PIL.AvifImagePlugin", "safetensors.torch", "numpy.ctypeslib")
    ours = [*(f"unetseg.cli.{name}" for name in commands), *(f"unetseg.{name}" for name in rooms)]
    context.set_forkserver_preload([*ours, *late])
    return context


class Child:
    """A process that works in ``folder``, in a session of its own.

    Args:
        folder: Its current folder.
        work: Returns the exit code; a ``functools.partial`` of a module's function.
        before: A function that the process calls first: it sets limits, or harms the program.
    """

    def __init__(
        self, folder: Path, work: Callable[[], int | None], before: Callable[[], None] | None = None
    ) -> None:
        self.folder = folder
        self._logs = folder.parent / f"{folder.name}.out", folder.parent / f"{folder.name}.err"
        for log in self._logs:
            log.touch()  # it is empty until the process has begun
        self._process = _forks().Process(
            target=_enter, args=(folder, self._logs, work, before), daemon=True
        )
        self._process.start()
        self.pid: int = self._process.pid

    @property
    def code(self) -> int | None:
        """Exit code, the negative number of the signal that ended it, or None while it runs."""
        code: int | None = self._process.exitcode
        return code

    @property
    def out(self) -> str:
        """Its output so far on stdout."""
        return self._logs[0].read_text(errors="replace")

    @property
    def err(self) -> str:
        """Its output so far on stderr."""
        return self._logs[1].read_text(errors="replace")

    def wait(self, seconds: float = LIMIT) -> int:
        """Return the exit code; a child that takes longer is killed and is a failure."""
        self._process.join(seconds)
        if self.code is None:
            self.kill()
            raise AssertionError(f"still running after {seconds:.0f} s: {self.err[-300:]}")
        return self.code

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal; SIGKILL is waited for."""
        if self.code is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signum)
        if signum == signal.SIGKILL:
            self._process.join()

    def orphans(self) -> list[int]:
        """Return the processes of its session that outlived it."""
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if
                _session(pid) == self.pid]  # fmt: skip


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _enter(folder: Path, logs: Sequence[Path], work: Any, before: Any) -> None:
    """Become a process as a shell would have started it, then work."""
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, log in enumerate(logs, 1):
        os.dup2(os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs of a script inherit it ignored
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    code: int | None = 99
    try:
        if before:
            before()
        code = work()
    except BaseException:
        traceback.print_exc()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError):
            stream.flush()
    os._exit(code or 0)


def _unetseg(args: Sequence[str]) -> int:
    from unetseg.cli.app import main

    return main(args)


def start(folder: Path, *args: object, before: Callable[[], None] | None = None) -> Child:
    """Start ``unetseg ARGS`` in a folder."""
    return Child(folder, functools.partial(_unetseg, [str(a) for a in args]), before)


def run(folder: Path, *args: object, before: Callable[[], None] | None = None) -> Child:
    """Run ``unetseg ARGS`` in a folder to its end."""
    child = start(folder, *args, before=before)
    child.wait()
    return child


def command(*args: object) -> list[str]:
    """Return the command line of a process that nothing is imported into beforehand."""
    return [sys.executable, "-m", "unetseg", *map(str, args)]


def environment(**changes: str | None) -> dict[str, str]:
    """Return the environment for `command`; None takes a variable away."""
    merged = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return {key: value for key, value in merged.items() if value is not None}


def until(child: Child, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something has happened that a child does."""
    end = time.monotonic() + seconds
    while not condition():
        assert child.code is None, f"exit {child.code}: {child.err[-300:]}"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def assert_plain_error(child: Child, code: int, *words: str) -> None:
    """Check the exit code, and that one plain line tells what is wrong, with these words."""
    assert child.code == code, f"exit {child.code}, not {code}: {child.err[-300:]}"
    assert_plain(child.err)
    said = child.err.splitlines()[-1] if child.err else ""
    assert said.startswith("unetseg: error: "), f"said {said!r}"
    assert all(word in said for word in words), f"{words} are not in {said!r}"


def assert_plain(text: str) -> None:
    """Check that nothing in a log is a traceback or a control character."""
    assert "Traceback" not in text, text[-500:]
    bad = [c for c in text if not c.isprintable() and c != "\n"]
    assert not bad, f"control characters {bad[:3]}"


# --- harm ------------------------------------------------------------------------------------


def save_often() -> None:
    """Make `train` save after every step: the short runs here would save twice."""
    from unetseg.training import artefacts

    assert artefacts._SAVE_SECONDS > 0
    artefacts._SAVE_SECONDS = 0.0


def each(owner: str, name: str, act: Callable[[int], None]) -> None:
    """Make every call of a function do something else first.

    Args:
        owner: Dotted name of a module, or of a module and a class of it, as in
            "unetseg.training.loop:Trainer".
        name: The name of the function or method.
        act: A function of the number of the call, from 0.
    """
    module, _, kind = owner.partition(":")
    target = importlib.import_module(module)
    target = getattr(target, kind) if kind else target
    original, calls = getattr(target, name), itertools.count()

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        act(next(calls))
        return original(*args, **kwargs)

    setattr(target, name, wrapped)


def once(owner: str, name: str, number: int, act: Callable[[], None]) -> None:
    """Make the ``number``-th call of a function, from 0, do something else first; see `each`."""
    each(owner, name, lambda call: act() if call == number else None)


# --- the laboratory --------------------------------------------------------------------------


class Lab:
    """A small job done once, and copies of it to do harm to.

    Args:
        root: An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = itertools.count()

    @functools.cached_property
    def made(self) -> Path:
        """A folder with ``data/train``, ``data/test`` and ``data/patches.h5`` of 32 patches."""
        home = self.root / "made"
        write_set(home / "data" / "train", 11)
        write_set(home / "data" / "test", 4, first=100)
        child = run(home, "patch", "--size", 32, "--per-image", 4, "--val", 0.25)
        assert child.code == 0, child.err
        return home

    @functools.cached_property
    def trained(self) -> Path:
        """The same with ``runs/default``, trained without a fault; others must equal it."""
        home = shutil.copytree(self.made, self.root / "trained")
        child = run(home, *TRAIN, before=save_often)
        assert child.code == 0, child.err
        return home

    def copy(self, of: Path) -> Path:
        """Return a new folder of one's own that holds the same as ``of``."""
        return Path(shutil.copytree(of, self.root / f"case{next(self._numbers)}"))

    def folder(self) -> Path:
        """Return a new empty folder."""
        path = self.root / f"case{next(self._numbers)}"
        path.mkdir()
        return path

    def clear(self) -> None:
        """Remove the folders of the attempts so far."""
        for path in self.root.glob("case*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def weights_of(model: Path) -> str:
    """Return the SHA-256 over the tensors of a model file, sorted by name."""
    from safetensors.numpy import load_file

    digest = hashlib.sha256()
    for name, array in sorted(load_file(model).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def history_of(run_folder: Path) -> list[dict[str, str]]:
    """Return the rows of a history without the columns that are times."""
    with (run_folder / "history.csv").open(newline="") as file:
        return [{k: v for k, v in r.items() if k not in TIMES} for r in csv.DictReader(file)]


def assert_same_run(home: Path, other: Path) -> None:
    """Check that the default runs of two folders ended with the same bits."""
    one, two = home / "runs" / "default", other / "runs" / "default"
    assert history_of(one) == history_of(two), "another history"
    same = weights_of(one / "model.safetensors") == weights_of(two / "model.safetensors")
    assert same, "other weights"


def temporaries(folder: Path) -> list[str]:
    """Return the temporary files anywhere below a folder."""
    return [str(p.relative_to(folder)) for p in folder.rglob(".*.tmp")]


def go_on(home: Path, before: Callable[[], None] | None = None) -> Child:
    """Start training again after a fault, with nothing cleaned up: resumed if anything is saved."""
    from unetseg.prediction.run_folder import RunFolder

    state = RunFolder(home / "runs" / "default").state()
    return start(home, *(TRAIN if state == "new" else ("train", "--resume")), before=before)


def need_tool(name: str) -> None:
    """Raise `Skipped` unless a Linux tool is installed."""
    if shutil.which(name) is None:
        raise Skipped(f"{name} is not installed")


def need_root() -> None:
    """Raise `Skipped` unless this process may mount and give up rights."""
    if os.geteuid() != 0:
        raise Skipped("needs root")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        raise Skipped("unshare -m is not permitted here")
