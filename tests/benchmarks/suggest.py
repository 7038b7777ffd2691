"""Whether `unetseg suggest` pays: ten more images, chosen by it or at random, lines-ellipses.

``python -m tests.benchmarks suggest [PATCHES [SEEDS]]``. A model of 10 random images of the 80
chooses 10 of the other 70. Ten more at random are drawn by the same seed. The two sets of 20 are
then trained on afresh, each with PATCHES patches, repetitions counted. The models are scored on the
20 images kept apart. Work is counted in patches, since on a busy machine equal times are unequal
work.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.common import DATA, copy_pairs, lines_ellipses, machine, print_table
from unetseg import PatchSettings, build_store, evaluate, suggest_images, train
from unetseg.dataset import naming, pairing

PATCHES, SEEDS = 2000, 5
_MORE = 10


def fit(source: Path, run: Path, seed: int, patches: int) -> None:
    """Train on all images of a folder."""
    store = run.with_suffix(".h5")
    stored = build_store(source, store, PatchSettings(val=0, seed=seed)).patches
    train(store, run=run, seed=seed, epochs=max(1, round(patches / stored)))


def score(test: Path, run: Path) -> float:
    """Return the pooled mean IoU of a run."""
    return evaluate(test, model=[str(run)]).scores.mean_iou or 0.0


def measure(everything: Path, test: Path, root: Path, seed: int, patches: int) -> list[float]:
    """Return the scores with 10 images, with 10 suggested ones more, with 10 random ones more."""
    pairs = list(pairing.find_pairs(everything))
    order = np.random.default_rng(seed).permutation(len(pairs))
    first, others = ([pairs[i] for i in part] for part in np.split(order, [_MORE]))
    copy_pairs(first, root / "first")
    copy_pairs(others, root / "others")
    fit(root / "first", root / "run-first", seed, patches)
    done = suggest_images(
        root / "others/images", model=[str(root / "run-first")], n=_MORE, out=root / "suggested"
    )
    names = {naming.stem_of(s.image) for s in done.chosen}
    more = {"suggested": [p for p in others if p.name in names], "random": others[:_MORE]}
    found = [score(test, root / "run-first")]
    for name, added in more.items():
        source = copy_pairs([*first, *added], root / f"with-{name}")
        fit(source, root / f"run-{name}", seed, patches)
        found.append(score(test, root / f"run-{name}"))
    print(f"seed {seed}: " + ", ".join(f"{value:.4f}" for value in found), flush=True)
    return found


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("suggest: left out, the data sets are not here")
        return
    patches = int(words[0]) if words else PATCHES
    seeds = int(words[1]) if len(words) > 1 else SEEDS
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        sets = lines_ellipses(root)
        found = [measure(*sets, root / str(seed), seed, patches) for seed in range(seeds)]
    first, suggested, random = zip(*found, strict=True)
    differences = [a - b for a, b in zip(suggested, random, strict=True)]
    names = (f"{_MORE} images", f"and {_MORE} suggested", f"and {_MORE} at random")
    rows = [
        (name, statistics.median(s), min(s), max(s))
        for name, s in zip(names, (first, suggested, random), strict=True)
    ]
    rows.append(
        ("suggested - random", statistics.median(differences), min(differences), max(differences))
    )
    print_table(
        f"Score after {patches} patches, {seeds} seeds ({machine()})",
        ["trained on", "mean IoU, median", "least", "most"],
        rows,
    )
    wins = sum(d > 0 for d in differences)
    print(f"suggested images were better than random ones in {wins} of {seeds} seeds")
