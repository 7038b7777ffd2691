"""Patches a second of one process and of two that share its threads, started by torchrun.

With as many threads in all, two processes can gain where threads wait for each other, and lose by
what they exchange at every step. Both are measured in turn, so that what else the machine does
falls on both.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.benchmarks.common import machine, print_table
from unetseg.config import PatchSettings, TrainSettings
from unetseg.distributed import join
from unetseg.interrupts import Caught
from unetseg.preparation import build_store, synthesize
from unetseg.progress import ignore
from unetseg.runs import RunFolder
from unetseg.store import open_store
from unetseg.trainer import Trainer, resolve

_SECONDS = 10.0  # of each measurement
_TURNS = 3
_BATCHES = (8, 32)  # patches of all processes together; 8 is the default at this size


def rate_of(processes: int, threads: int, batch: int, store: Path) -> float:
    """Return the patches a second of so many processes with so many threads each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "--", "tests.benchmarks.ranks"]
    done = subprocess.run(
        [*command, str(store), str(batch)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout)


def work(store: str, batch: str) -> None:
    """Measure in one of the processes; the first of them prints the rate of all."""
    with join() as world, tempfile.TemporaryDirectory() as folder:
        settings = resolve(TrainSettings(batch_size=int(batch), epochs=1, device="cpu"), 96)
        run = RunFolder(Path(folder) / "run")
        trainer = Trainer(open_store(store), run, settings, time.monotonic(), Caught(), ignore)
        trainer.start(None)
        steps, seconds, begin = 0, 0.0, time.perf_counter()
        while seconds < _SECONDS:
            trainer.learn(trainer.indices(steps % trainer.steps_per_epoch), 1e-3)
            trainer.average.update_parameters(trainer.network)
            steps += 1
            (seconds,) = world.maximum(time.perf_counter() - begin)  # as after every step of a run
        if world.is_writer:
            print(steps * trainer.batch_size / seconds)


def main(_: list[str]) -> None:
    """Measure and print."""
    threads = max(2, torch.get_num_threads() // 2 * 2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesize(root / "data", n=40, n_test=0)
        store = root / "patches.h5"
        build_store(root / "data/train", store, PatchSettings(size=96, per_image=20, val=0))
        rows = []
        for batch in _BATCHES:
            turns = [
                [rate_of(n, threads // n, batch, store) for n in (1, 2)] for _ in range(_TURNS)
            ]
            ratio = statistics.median(two / one for one, two in turns)
            rows.append(
                (batch, *(statistics.median(side) for side in zip(*turns, strict=True)), ratio)
            )
    columns = ["batch", f"1 x {threads} threads", f"2 x {threads // 2} threads", "ratio"]
    print_table(f"Patches a second, 96 x 96 grey ({machine()})", columns, rows)


if __name__ == "__main__":
    work(*sys.argv[1:])
