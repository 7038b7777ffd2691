"""The worth of each default: the held-out score after a fixed time with one of them changed.

``python -m tests.benchmarks choices [SECONDS [SEEDS [SET...]]]``. Chosen on splits of the training
images: those that `accuracy` scores on take no part. Every seed goes through all variants before
the next, so that a machine that grows slower is slower for all of them.
"""

import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.common import DATA, camvid, lines_ellipses, machine, print_table
from unetseg import PatchSettings, build_store, open_store, train
from unetseg.settings import TrainSettings
from unetseg.training.recipe import resolve

SECONDS, SEEDS = 90.0, 2
SPLITS = {
    "lines-ellipses": (lines_ellipses, PatchSettings()),
    "camvid-100": (camvid, PatchSettings(group=r"^(.*)\d{3}$")),
}


def variants(size: int) -> dict[str, dict[str, object]]:
    """Return the changes of the defaults, by their names in the table."""
    batch_size = resolve(TrainSettings(), size).batch_size
    return {
        "the defaults": {},
        "AdamW": {"optimizer": "adamw"},
        "SGD": {"optimizer": "sgd"},
        "compact, width 8": {"width": 8},
        "plain U-Net, width 8": {"network": "classic", "width": 8},
        "batches twice as large": {"batch_size": 2 * batch_size},
        "unweighted cross-entropy": {"loss": "ce"},
        "strong augmentation": {"augment": "strong"},
        "float32": {"precision": "float32"},
    }


def measure(store: Path, root: Path, seconds: float, seeds: int) -> list[list[object]]:
    """Return a row a variant: its name, the median, the least and the most of its scores."""
    opened = open_store(store)
    chosen = variants(opened.info.size)
    found: dict[str, list[float]] = {name: [] for name in chosen}
    for seed in range(seeds):
        for number, (name, settings) in enumerate(chosen.items()):
            run = root / f"{store.stem}-{seed}-{number}"
            result = train(store, run=run, seed=seed, budget=seconds, **settings)
            assert result.scores is not None
            found[name].append(result.scores.mean_iou or 0.0)
            line = f"{found[name][-1]:.4f} after {result.patches} patches"
            print(f"{store.stem}, seed {seed}, {name}: {line}", flush=True)
    first = statistics.median(found["the defaults"])
    return [
        [store.stem, name, statistics.median(s), min(s), max(s), statistics.median(s) - first]
        for name, s in found.items()
    ]


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("choices: left out, the data sets are not here")
        return
    seconds = float(words[0]) if words else SECONDS
    seeds = int(words[1]) if len(words) > 1 else SEEDS
    chosen = words[2:] or list(SPLITS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in chosen:
            make, patches = SPLITS[name]
            train_folder, _ = make(root / name)
            build_store(train_folder, root / f"{name}.h5", patches)
            rows += measure(root / f"{name}.h5", root, seconds, seeds)
    columns = ["set", "changed", "mean IoU, median", "least", "most", "difference"]
    print_table(f"Score after {seconds:g} s, {seeds} seeds ({machine()})", columns, rows)
