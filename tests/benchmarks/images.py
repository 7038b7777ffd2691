"""Held-out score against the number of training images, lines-ellipses, 180 seconds each.

The other side is the random forest of unetseg.scoring.baselines on the same images: the score
that needs no network.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.accuracy import SEEDS, score
from tests.benchmarks.common import (
    DATA,
    draw_pairs,
    lines_ellipses,
    machine,
    numbers_in,
    print_table,
    read_set,
)
from unetseg.scoring.baselines import Forest, draw_samples
from unetseg.scoring.metrics import confusion, scores

COUNTS = (5, 10, 20, 40, 80)
CLASSES = ("background", "ellipse", "line")
_BUDGET = 180.0


def forest_score(train_folder: Path, test_folder: Path, seed: int) -> float:
    """Return the pooled mean IoU of the random forest."""
    forest = Forest(len(CLASSES))
    pairs = ((one.image, one.truth) for one in read_set(train_folder)[0])
    forest.fit(draw_samples(pairs, len(CLASSES), seed), seed)
    matrices = [
        confusion(one.truth, forest.predict(one.image), len(CLASSES))
        for one in read_set(test_folder)[0]
    ]
    names = [str(k) for k in range(len(matrices))]
    return scores(np.stack(matrices), names, CLASSES).mean_iou or 0.0


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("images: left out, the data sets are not here")
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        everything, test = lines_ellipses(root)
        for count in map(int, numbers_in(words) or COUNTS):
            ours, theirs = [], []
            for seed in SEEDS:
                part = draw_pairs(everything, count, seed, root / f"{count}-{seed}")
                ours.append(score(part, test, root, seed, budget=_BUDGET))
                theirs.append(forest_score(part, test, seed))
            row = (count, statistics.median(ours), min(ours), max(ours), statistics.median(theirs))
            rows.append(row)
    columns = ["images", "unetseg, median", "least", "most", "random forest, median"]
    print_table(f"Score by images, {_BUDGET:.0f} s each ({machine()})", columns, rows)
