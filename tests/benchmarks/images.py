"""Held-out score against the number of training images, lines-ellipses, 180 seconds each.

The other side is the random forest of unetseg.scoring.baselines on the same images: the score
that needs no network.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.accuracy import SEEDS, score
from tests.benchmarks.common import DATA, draw_pairs, lines_ellipses, machine, print_table
from unetseg.dataset import pairing
from unetseg.pictures import masks, reading
from unetseg.scoring.baselines import Forest, draw_samples
from unetseg.scoring.metrics import confusion, scores

COUNTS = (5, 10, 20, 40, 80)
CLASSES = ("background", "ellipse", "line")
_BUDGET = 180.0


def forest_score(train_folder: Path, test_folder: Path, seed: int) -> float:
    """Return the pooled mean IoU of the random forest."""
    forest = Forest(len(CLASSES))
    forest.fit(draw_samples(_read(train_folder), len(CLASSES), seed), seed)
    matrices = [
        confusion(mask, forest.predict(image), len(CLASSES)) for image, mask in _read(test_folder)
    ]
    names = [str(k) for k in range(len(matrices))]
    return scores(np.stack(matrices), names, CLASSES).mean_iou or 0.0


def _read(path: Path):
    pairs = pairing.find_pairs(path)
    found = {str(p.mask): masks.find_keys(reading.read_mask(p.mask)) for p in pairs}
    table = masks.discover(found)
    for pair in pairs:
        yield reading.read_image(pair.image), masks.decode(reading.read_mask(pair.mask), table)


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("images: left out, the data sets are not here")
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        everything, test = lines_ellipses(root)
        for count in [int(word) for word in words] or COUNTS:
            ours, theirs = [], []
            for seed in SEEDS:
                part = draw_pairs(everything, count, seed, root / f"{count}-{seed}")
                ours.append(score(part, test, root, seed, budget=_BUDGET))
                theirs.append(forest_score(part, test, seed))
            row = (count, statistics.median(ours), min(ours), max(ours), statistics.median(theirs))
            rows.append(row)
    columns = ["images", "unetseg, median", "least", "most", "random forest, median"]
    print_table(f"Score by images, {_BUDGET:.0f} s each ({machine()})", columns, rows)
