"""How long ``unetseg train`` takes to its first line and first step, beside importing torch."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.common import machine, print_table
from unetseg import PatchSettings, build_store, synthesize

_REPEATS = 3
_TORCH = "import torch"
# Each moment is the wall clock and the processor seconds of this process since it began.
_TRAIN = """
import json, os, sys, time
from unetseg import display
from unetseg.cli.app import main
from unetseg.progress import Progress

moments, show = {}, display.ProgressDisplay.__call__

def noted(self, record):
    show(self, record)
    is_step = isinstance(record, Progress) and record.stage == "training"
    for name in ("line", "step") if is_step else ("line",):
        moments.setdefault(name, (time.time(), time.process_time()))
    if is_step:
        print(json.dumps(moments), flush=True)
        os._exit(0)

display.ProgressDisplay.__call__ = noted
main(sys.argv[1:])
"""


def run(code: str, *words: object) -> tuple[float, str]:
    """Run code in a process of its own; return when it began, and its last line."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, words)]
    began = time.time()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return began, done.stdout.rpartition("\n")[0].rpartition("\n")[2]


def main(_: list[str]) -> None:
    """Measure and print."""
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesize(root / "data", n=8, n_test=0)
        build_store(root / "data/train", root / "patches.h5", PatchSettings(val=0))
        for k in range(_REPEATS):  # in turn, so that other work on the machine meets all alike
            after = "; import time; print(time.time(), time.process_time())"
            began, said = run(_TORCH + after)
            wall, cpu = map(float, said.split())
            found.setdefault("importing torch alone", []).append((wall - began, cpu))
            for name, source in (("folder", "data/train"), ("store", "patches.h5")):
                words = ("train", root / source, "--epochs", 1, "--run", root / f"{name}{k}")
                began, said = run(_TRAIN, *words)
                for moment, (wall, cpu) in json.loads(said).items():
                    found.setdefault(f"{name}: first {moment}", []).append((wall - began, cpu))
    rows = [
        (name, *(statistics.median(values) for values in zip(*times, strict=True)))
        for name, times in found.items()
    ]
    title = f"The start of train, medians of {_REPEATS} ({machine()})"
    print_table(title, ["until", "seconds", "processor seconds"], rows)
