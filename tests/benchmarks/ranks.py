"""Patches a second of one process and of two that share its threads, started by torchrun.

With as many threads in all, two processes can gain where threads wait for each other, and lose by
their exchange at every step. Both are measured in turn, so that other work of the machine falls on
both.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.benchmarks.common import advance, machine, new_learner, print_table, wait_for
from unetseg import PatchSettings, build_store, open_store, synthesize
from unetseg.cli.app import WAITING
from unetseg.ranks import join
from unetseg.training.loop import STEPS_PER_READ

_SECONDS = 10.0  # of each measurement
_TURNS = 3
_BATCHES = (8, 32)  # patches of all processes together; 8 is the default at this size


def rate_of(processes: int, threads: int, batch: int, store: Path, device: str = "cpu") -> float:
    """Return the patches a second of so many processes with so many threads each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "--", "tests.benchmarks.ranks"]
    done = subprocess.run(
        [*command, str(store), str(batch), device],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **WAITING},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout)


def work(store: str, batch: str, device: str) -> None:
    """Measure in one of the processes; the first of them prints the rate of all."""
    with join() as world:
        learner = new_learner(open_store(store), batch_size=int(batch), device=device)
        seconds, begin = 0.0, time.perf_counter()
        while seconds < _SECONDS:
            for _ in range(STEPS_PER_READ[learner.batches.device.type]):
                advance(learner)
            wait_for(learner.batches.device)
            (seconds,) = world.maximum(time.perf_counter() - begin)  # as after every step of a run
        if world.is_writer:
            print(learner.position.patches_seen / seconds)


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
