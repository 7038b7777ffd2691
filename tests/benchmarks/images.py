"""Held-out score against the number of training images: the default network and two others.

``python -m tests.benchmarks images [COUNTS... SET...]`` takes other counts or sets; one set has 80
images to draw from, the others 55, 15 and 14. ``minute`` among the words trains for 60 seconds
instead of 180, and ``once`` takes one seed instead of three. ``processor`` counts in processor time
of one thread, for a machine that does other work. The networks learn from the same images, and so
does the random forest of `unetseg.scoring.baselines`: the score that needs no network.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.accuracy import SEEDS, score
from tests.benchmarks.common import (
    DATA,
    count_processor_time,
    draw_pairs,
    machine,
    numbers_in,
    print_table,
    read_set,
)
from tests.benchmarks.pretrained import SETS
from unetseg.scoring.baselines import Forest, draw_samples
from unetseg.scoring.metrics import confusion, scores

COUNTS = (5, 10, 20, 40, 80)
_NETWORKS = ("fused", "compact")


def forest_score(train_folder: Path, test_folder: Path, seed: int) -> float:
    """Return the pooled mean IoU of the random forest."""
    images, table = read_set(train_folder)
    classes = len(table.classes)
    forest = Forest(classes)
    forest.fit(draw_samples(((i.image, i.truth) for i in images), classes, seed), seed)
    matrices = [
        confusion(one.truth, forest.predict(one.image), classes) for one in read_set(test_folder)[0]
    ]
    names = [str(k) for k in range(len(matrices))]
    return scores(np.stack(matrices), names, table.names).mean_iou or 0.0


def cells(everything: Path, test: Path, count: int, seeds: Sequence[int], budget: float) -> list:
    """Return the cells of a row: each network's median with its range, and the forest's median."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parts = [(draw_pairs(everything, count, seed, root / f"{seed}"), seed) for seed in seeds]
        found = [
            [score(part, test, root, seed, budget=budget, network=name) for part, seed in parts]
            for name in _NETWORKS
        ]
        forests = [forest_score(part, test, seed) for part, seed in parts]
    medians = [f"{statistics.median(s):.3f} ({min(s):.3f} to {max(s):.3f})" for s in found]
    return [*medians, statistics.median(forests)]


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("images: left out, the data sets are not here")
        return
    if "processor" in words:
        count_processor_time()
    budget = 60.0 if "minute" in words else 180.0
    seeds = SEEDS[:1] if "once" in words else SEEDS
    names = [name for name in SETS if name in words] or ["lines-ellipses"]
    columns = ["set", "images", *(f"{n}, median (least to most)" for n in _NETWORKS), "forest"]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in names:
            everything, test = SETS[name](root / name)
            for count in map(int, numbers_in(words) or COUNTS):
                if count > len(list((everything / "images").iterdir())):
                    continue
                rows.append((name, count, *cells(everything, test, count, seeds, budget)))
                print_table("so far", columns, rows[-1:])
    print_table(f"Score by images, {budget:.0f} s each ({machine()})", columns, rows)
