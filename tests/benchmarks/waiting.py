"""How threads wait for each other: patches a second alone, and of two trainings side by side.

Between the parallel parts of a step a thread can wait in a busy loop, or asleep. The environment
says which, and GNU's OpenMP reads it when it loads, so each measurement is a process of its own.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.common import advance_for, machine, new_learner, print_table
from unetseg import PatchSettings, build_store, open_store, synthesize
from unetseg.cli.app import WAITING

_SECONDS = 10.0
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


def main(_: list[str]) -> None:
    """Measure and print."""
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
