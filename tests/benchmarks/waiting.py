"""How threads wait for each other, and how many there should be beside other work.

Between the parallel parts of a step a thread can wait in a busy loop, or asleep. The environment
says which, and GNU's OpenMP reads it when it loads, so each measurement is a process of its own.
The first table has patches a second, alone and of two trainings side by side.

The second has trainings of a minute on lines-ellipses beside as many busy processes as there are
cores. All threads compute to the end there, or their number follows the speed of steps, as in any
training with a budget. ``waiting beside`` prints this table alone.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.budget import busy
from tests.benchmarks.common import (
    DATA,
    advance_for,
    lines_ellipses,
    machine,
    new_learner,
    print_table,
)
from unetseg import PatchSettings, build_store, evaluate, open_store, synthesize, train
from unetseg.cli.app import WAITING
from unetseg.training import starting
from unetseg.training.threads import Threads

_SECONDS, _BUDGET = 10.0, 60.0
_WAYS = {
    "asleep": {"OMP_WAIT_POLICY": "passive"},
    "busy for 0.05 ms, then asleep: the commands' own": WAITING,
    "OpenMP's own default": {},
}


def measure(path: str) -> None:
    """Print patches a second, in a process of its own."""
    print(advance_for(new_learner(open_store(path)), _SECONDS)[0])


def rates(path: Path, count: int, way: dict[str, str]) -> list[float]:
    """Return the patches a second of ``count`` trainings at once."""
    code = "import sys; from tests.benchmarks.waiting import measure; measure(sys.argv[1])"
    kept = {k: v for k, v in os.environ.items() if k not in WAITING}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            env=kept | way,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    return [float(process.communicate()[0].split()[-1]) for process in started]


def train_beside(source: str, test: str, kept: bool) -> None:
    """Train beside other work, in a process of its own; print patches, score and seconds."""
    if kept:
        starting.Threads = lambda _: Threads(None)  # type: ignore[assignment, misc]
    begin = time.monotonic()
    found = train(source, run=f"{source}-{kept}", patches=PatchSettings(val=0), budget=_BUDGET)
    seconds = time.monotonic() - begin
    print(found.patches, evaluate(test, model=str(found.run.path)).scores.mean_iou, seconds)


def compare_threads(root: Path) -> None:
    """Print the second table."""
    train_folder, apart = lines_ellipses(root)
    rows = []
    for name, kept in (("all to the end", True), ("by the speed of steps", False)) * 2:
        code = (
            "import sys; from tests.benchmarks.waiting import train_beside;"
            f" train_beside({str(train_folder)!r}, {str(apart)!r}, {kept})"
        )
        with busy(0.0):
            line = [sys.executable, "-c", code]
            environment = os.environ | WAITING
            done = subprocess.run(line, stdout=subprocess.PIPE, text=True, env=environment)
        patches, score, seconds = done.stdout.split()[-3:]
        rows.append((name, int(patches), float(score), float(seconds)))
        shutil.rmtree(f"{train_folder}-{kept}")
    columns = ["threads", "patches", "mean IoU", "seconds"]
    print_table(f"{_BUDGET:.0f} s beside busy processes ({machine()})", columns, rows)


def main(words: list[str]) -> None:
    """Measure and print."""
    if DATA.exists():
        with tempfile.TemporaryDirectory() as folder:
            compare_threads(Path(folder))
    if "beside" not in words:
        compare_waiting()


def compare_waiting() -> None:
    """Print the first table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesize(root / "data", n=20, n_test=0)
        settings = PatchSettings(size=96, per_image=20, val=0)
        build_store(root / "data/train", root / "patches.h5", settings)
        for name, way in _WAYS.items():
            (alone,), pair = rates(root / "patches.h5", 1, way), rates(root / "patches.h5", 2, way)
            rows.append((name, alone, min(pair), max(pair)))
    columns = ["threads wait", "alone", "two at once: one", "the other"]
    print_table(f"Patches a second, 96 x 96 grey ({machine()})", columns, rows)
