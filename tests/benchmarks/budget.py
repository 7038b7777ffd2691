"""Whether ``--budget`` is kept: asked against taken, alone, beside others, and where others begin.

Each run is a process, from its start to its end: reading, cutting, training, scoring, the report.
It stands alone, beside as many busy processes as there are cores, or beside others from halfway on.
A budget that leaves no time to train is refused; then the time until that is shown.
``budget 30 120`` measures these budgets in seconds instead of 30, 120 and 600, and
``budget 30 120 one`` leaves out the folds, which takes eight minutes. The load is the mean of the
minute before a row.

``budget 30 120 one processor`` counts the processor time of one thread, so that other work on the
machine changes nothing. Instead of busy processes, each second of it counts twice.
"""

import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.common import machine, numbers_in, print_table
from unetseg import synthesize

_BUDGETS = (30, 120, 600)
_WAYS = {"alone": None, "beside busy processes": 0.0, "busy from halfway on": 0.5}
_SLOWED = {"at full speed": None, "at half the speed": 0.0, "at half from halfway on": 0.5}
_KINDS = {"one model": (), "3 folds": ("--folds", "3")}
# A process whose clock is its processor time. After some seconds, each further one counts twice.
_BY_PROCESSOR = """
import sys, time

def seconds(alone=float(sys.argv[1])):
    used = time.process_time()
    return used + max(0.0, used - alone)

time.monotonic = seconds
from unetseg.cli.app import main

begin = seconds()
code = main(sys.argv[2:])
print(seconds() - begin)
sys.exit(code)
"""


@contextmanager
def busy(after: float | None) -> Iterator[None]:
    """Keep every core busy from so many seconds on, until the block ends; None keeps none busy."""
    others: list[subprocess.Popen] = []

    def begin() -> None:
        count = os.cpu_count() or 1
        code = "while True: pass"
        others.extend(subprocess.Popen([sys.executable, "-c", code]) for _ in range(count))

    timer = threading.Timer(after or 0.0, begin)
    if after is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if after is not None:
            timer.join()
        for other in others:
            other.kill()
            other.wait()


def taken(
    folder: Path, budget: float, options: tuple[str, ...], share: float | None
) -> tuple[float, bool]:
    """Return the seconds of a training from the start of its process to its end, and its success.

    Args:
        folder: The folder of the images and of the run.
        budget: The seconds that are asked for.
        options: More options of ``unetseg train``.
        share: The share of the budget after which other processes begin; None begins none.
    """
    line = [sys.executable, "-m", "unetseg", *_words(budget, options)]
    with busy(None if share is None else share * budget):
        begin = time.monotonic()
        done = subprocess.run(line, cwd=folder, stdout=subprocess.DEVNULL)
        return time.monotonic() - begin, done.returncode == 0


def counted(
    folder: Path, budget: float, options: tuple[str, ...], share: float | None
) -> tuple[float, bool]:
    """Return the same as `taken` by the processor time of one thread.

    After ``share`` of the budget the machine is half as fast.
    """
    alone = math.inf if share is None else share * budget
    line = [sys.executable, "-c", _BY_PROCESSOR, str(alone), *_words(budget, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)
    return float(done.stdout.split()[-1]), done.returncode == 0


def _words(budget: float, options: tuple[str, ...]) -> list[str]:
    line = ["-q", "train", "data/train", *options, "--overwrite"]
    return [*line, "--budget", f"{budget:g}s", "--html", "report.html"]


def main(words: list[str]) -> None:
    """Measure and print."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesize(folder / "data", n=40, n_test=0)
        kinds = ["one model"] if "one" in words else list(_KINDS)
        ways, measure = (_SLOWED, counted) if "processor" in words else (_WAYS, taken)
        for budget in numbers_in(words) or _BUDGETS:
            for kind in kinds:
                for way, share in ways.items():
                    load = os.getloadavg()[0]
                    seconds, trained = measure(folder, budget, _KINDS[kind], share)
                    off = f"{100 * (seconds / budget - 1):+.1f} %" if trained else "refused"
                    row = (f"{budget:g} s", kind, way, f"{load:.1f}", f"{seconds:.1f} s", off)
                    print(*row, sep=", ", file=sys.stderr)  # a long benchmark may be stopped
                    rows.append(row)
    title = f"Budgets asked and times taken, 40 images of 400 x 200 with a report ({machine()})"
    print_table(title, ["budget", "run", "the machine", "load", "taken", "off by"], rows)
