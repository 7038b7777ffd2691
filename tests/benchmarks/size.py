"""Cost against size: patches a second and memory at 1, 4 and 16 times the patches.

Patches a second of processor time beside those of the clock: the ones that another program's work
does not change. Memory is that which the system cannot take back: pages of the file are left out.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.common import advance, machine, new_learner, own_memory, print_table
from unetseg import PatchSettings, build_store, open_store, synthesize

_STEPS = 60


def measure(path: str, from_disk: str) -> None:
    """Print patches by the clock's second, by the processor's, and MB, in a process of its own."""
    from unetseg.training import batches

    if from_disk == "disk":
        batches.memory_of = lambda _: 0  # as on a machine whose memory is too small
    learner = new_learner(open_store(path))
    advance(learner)  # the first also allocates
    first, begin, busy = learner.position.patches_seen, time.perf_counter(), time.process_time()
    for _ in range(_STEPS):
        advance(learner)
    patches = learner.position.patches_seen - first
    clock, busy = time.perf_counter() - begin, time.process_time() - busy
    print(patches / clock, patches / busy, own_memory() / 2**20)


def main(_: list[str]) -> None:
    """Measure and print."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesize(root / "data", n=100, n_test=0)
        first = None
        for times in (1, 4, 16):
            path = root / f"{times}.h5"
            begin = time.perf_counter()
            settings = PatchSettings(size=96, per_image=20 * times, val=0)
            build_store(root / "data/train", path, settings)
            cutting = time.perf_counter() - begin
            for where in ("memory", "disk"):
                code = (
                    "import sys; from tests.benchmarks.size import measure; measure(*sys.argv[1:])"
                )
                command = [sys.executable, "-c", code, str(path), where]
                found = subprocess.check_output(command, text=True).split()[-3:]
                rate, busy, memory = map(float, found)
                first = first or busy
                rows.append((2000 * times, where, rate, busy, busy / first, memory, cutting))
            path.unlink()
    columns = ["patches", "from", "patches/s", "patches/CPU s", "ratio", "memory MB", "cutting s"]
    print_table(f"Cost against size ({machine()})", columns, rows)
