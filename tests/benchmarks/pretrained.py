"""``fused`` beside ``compact``: held-out score after the same time, speed and memory of training.

``python -m tests.benchmarks pretrained [SECONDS... SET...]`` takes other budgets or sets. ``cost``
among the words leaves the scores out. ``processor`` counts budgets in processor time of one thread,
for a machine that does other work. The two networks take turns, seed by seed. The held-out images
are every fifth of lines-ellipses, a whole video of camvid-100, the last six slices of membranes-20,
and every fourth of drive-20.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.accuracy import SETS as ACCURACY_SETS, score
from tests.benchmarks.common import (
    DATA,
    advance_for,
    copy_pairs,
    count_processor_time,
    machine,
    names_in,
    new_learner,
    numbers_in,
    print_table,
)
from unetseg import (
    PatchSettings,
    SynthSettings,
    build_store,
    convert_folder,
    predict,
    synthesize,
)
from unetseg.dataset.pairing import find_pairs
from unetseg.dataset.store import open_store

_SECONDS, _SEEDS = (60.0, 180.0), (0, 1, 2)
_NETWORKS = ("compact", "fused")
_SIDES = (96, 192, 224)  # of patches, in pixels


def membranes(target: Path) -> tuple[Path, Path]:
    """Return folders to train on and to score: the last six slices are kept apart."""
    pairs = sorted(find_pairs(DATA / "membranes-20"), key=lambda pair: int(Path(pair.image).stem))
    return copy_pairs(pairs[:14], target / "train"), copy_pairs(pairs[14:], target / "test")


def drive(target: Path) -> tuple[Path, Path]:
    """Return folders to train on and to score: every fourth image is kept apart."""
    convert_folder(DATA / "drive-20", target / "all", fov="mask")
    pairs = find_pairs(target / "all")
    train = copy_pairs((p for i, p in enumerate(pairs) if i % 4), target / "train")
    test = copy_pairs((p for i, p in enumerate(pairs) if i % 4 == 0), target / "test")
    for folder in (train, test):
        shutil.copy(target / "all" / "classes.toml", folder)
    return train, test


SETS: dict[str, Callable[[Path], tuple[Path, Path]]] = {
    **ACCURACY_SETS,
    "membranes-20": membranes,
    "drive-20": drive,
}


def scores(root: Path, names: list[str], budgets: list[float]) -> None:
    """Print the held-out score of both after each budget."""
    rows = []
    for name in names:
        folders = SETS[name](root / name)
        for budget in budgets:
            pairs = [
                [score(*folders, root, seed, budget=budget, network=n) for n in _NETWORKS]
                for seed in _SEEDS
            ]
            gains = [fused - compact for compact, fused in pairs]
            for number, network in enumerate(_NETWORKS):
                s = [pair[number] for pair in pairs]
                gain = statistics.median(gains) if number else ""
                rows.append((name, budget, network, statistics.median(s), min(s), max(s), gain))
            print_table("so far", [""] * 7, rows[-2:])
    columns = ["set", "budget s", "network", "mean IoU, median", "least", "most", "gain"]
    print_table(f"Score by network, {len(_SEEDS)} seeds ({machine()})", columns, rows)


def cost(root: Path) -> None:
    """Print patches a second of both by patch size, memory of training, time of predicting."""
    synthesize(root / "set", n=8, n_test=0, settings=SynthSettings(height=448, width=448))
    rows = []
    for side in _SIDES:
        store = root / f"{side}.h5"
        build_store(root / "set" / "train", store, PatchSettings(size=side, val=0))
        opened = open_store(store)
        learners = [new_learner(opened, network=n) for n in _NETWORKS]
        rates = [[advance_for(learner, 3.0)[0] for learner in learners] for _ in range(5)]
        compact, fused = (statistics.median(r) for r in zip(*rates, strict=True))
        share = statistics.median(b / a for a, b in rates)
        rows.append((f"{side} x {side}: patches a second", compact, fused, share))
    ends = [train_apart(store, root / network, network) for network in _NETWORKS]
    rows.append(("the last: GB of memory, whole process", *ends, ends[1] / ends[0]))
    images = [str(root / "set" / "train" / "images")]
    seconds = []
    for network in _NETWORKS:
        begin = time.perf_counter()
        masks = root / f"{network}-masks"
        predict(images, model=[str(root / network)], out=masks, overlay=False)
        seconds.append(time.perf_counter() - begin)
    rows.append(("8 images of 448 x 448: seconds to predict", *seconds, seconds[1] / seconds[0]))
    print_table(f"Cost by network ({machine()})", ["", *_NETWORKS, "share"], rows)


def train_apart(store: Path, run: Path, network: str) -> float:
    """Train for a few seconds in another process; return its most memory in GB."""
    words = ["train", str(store), "--run", str(run), "--network", network, "--budget", "20s"]
    child = subprocess.Popen([sys.executable, "-m", "unetseg", "-q", *words])
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"training ended with {status}")
    return usage.ru_maxrss * 1024 / 1e9


def main(words: list[str]) -> None:
    """Measure and print."""
    budgets, names = numbers_in(words) or list(_SECONDS), names_in(words, SETS)
    with tempfile.TemporaryDirectory() as folder:
        cost(Path(folder))
        if "cost" in words:
            return
        if "processor" in words:
            count_processor_time()
        if DATA.exists():
            scores(Path(folder), names, budgets)
        else:
            print("pretrained: scores are left out, the data sets are not here")
