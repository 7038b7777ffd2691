"""Held-out score of whole runs by budget, on lines-ellipses and camvid-100; seeds, medians.

``python -m tests.benchmarks accuracy [SECONDS... SET...]`` takes other budgets, or one set. The
held-out images never take part in training: every fifth image of lines-ellipses, one whole sequence
of camvid-100.
"""

import statistics
import tempfile
import time
from pathlib import Path

from tests.benchmarks.common import (
    DATA,
    camvid,
    lines_ellipses,
    machine,
    names_in,
    numbers_in,
    print_table,
)
from unetseg import PatchSettings, evaluate, train
from unetseg.scoring.metrics import Scores

BUDGETS = (60.0, 120.0, 180.0, 300.0)
SEEDS = (0, 1, 2)
SETS = {"lines-ellipses": lines_ellipses, "camvid-100": camvid}


def scores_of(train_folder: Path, test_folder: Path, root: Path, seed: int, **settings) -> Scores:
    """Return the scores on ``test_folder`` of a run on all of ``train_folder``."""
    run, cut = root / f"run-{time.monotonic_ns()}", PatchSettings(val=0, seed=seed)
    result = train(train_folder, run=run, seed=seed, patches=cut, **settings)
    scores = evaluate(test_folder, model=[str(run)]).scores
    done = f"{result.patches} patches, mean IoU {scores.mean_iou:.4f}"
    print(f"{train_folder.name}, seed {seed}, {settings}: {done}", flush=True)
    return scores


def score(train_folder: Path, test_folder: Path, root: Path, seed: int, **settings) -> float:
    """Return the pooled mean IoU; see `scores_of`."""
    return scores_of(train_folder, test_folder, root, seed, **settings).mean_iou or 0.0


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("accuracy: left out, the data sets are not here")
        return
    budgets, chosen = numbers_in(words) or BUDGETS, names_in(words, SETS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in chosen:
            folders = SETS[name](root / name)
            for budget in budgets:
                found = [score(*folders, root, seed, budget=budget) for seed in SEEDS]
                rows.append((name, budget, statistics.median(found), min(found), max(found)))
                print_table("so far", ["set", "budget s", "median", "least", "most"], rows[-1:])
    columns = ["set", "budget s", "mean IoU, median", "least", "most"]
    print_table(f"Score by budget, {len(SEEDS)} seeds ({machine()})", columns, rows)
