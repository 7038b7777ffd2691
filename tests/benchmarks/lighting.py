"""The worth of wide changes of brightness and contrast in another light, and their price.

``python -m tests.benchmarks lighting [SEEDS]``. The default augmentation stands beside the same
with a narrow range. There are two road videos, one of them taken at dusk. A model is trained on one
and scored on the other, both ways. Lines and ellipses are scored in the light trained in, on images
held out of those that `accuracy` trains on.
"""

import dataclasses
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.common import (
    DATA,
    camvid,
    copy_pairs,
    lines_ellipses,
    machine,
    print_table,
    quick_scores,
    train_as,
)
from unetseg import PatchSettings, build_store
from unetseg.dataset.pairing import find_pairs
from unetseg.training.batches import Batches

SEEDS = 2


class Narrow(Batches):
    """Changes brightness by a fifth of a deviation and contrast by a quarter, at most."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.augmentation = dataclasses.replace(self.augmentation, brightness=0.2, contrast=1.25)


def splits(root: Path) -> dict[str, tuple[Path, Path, int]]:
    """Return folders to train on and to score, and patches to train on, by name."""
    videos, _ = camvid(root / "camvid")
    lines, _ = lines_ellipses(root / "lines")
    pairs = find_pairs(videos)
    day, dusk = ([p for p in pairs if p.name.startswith(name)] for name in ("0006R0", "0001TP"))
    drawn = find_pairs(lines)
    most = [p for i, p in enumerate(drawn) if i % 5]
    sides = {
        "trained by day, scored at dusk": (day, dusk, videos, 2400),
        "trained at dusk, scored by day": (dusk, day, videos, 2400),
        "lines and ellipses, the same light": (most, drawn[::5], lines, 5200),
    }
    found = {}
    for number, (name, (train, test, source, patches)) in enumerate(sides.items()):
        folders = [root / f"{number}-{part}" for part in ("train", "test")]
        for side, folder in zip((train, test), folders, strict=True):
            copy_pairs(side, folder)
            if (table := source / "classes.toml").exists():
                (folder / table.name).write_bytes(table.read_bytes())
        found[name] = (*folders, patches)
    return found


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("lighting: left out, the data sets are not here")
        return
    seeds = int(words[0]) if words else SEEDS
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, (train_folder, test_folder, patches) in splits(root).items():
            found: dict[type[Batches], list[float]] = {Batches: [], Narrow: []}
            for seed in range(seeds):
                store = root / f"{train_folder.name}-{seed}.h5"
                cut = build_store(train_folder, store, PatchSettings(val=0, seed=seed))
                for kind, scores in found.items():
                    run = root / f"{store.stem}-{kind.__name__}"
                    epochs = max(1, round(patches / cut.patches))
                    train_as(kind, store, run, epochs=epochs, seed=seed)
                    scores.append(quick_scores(run, test_folder).mean_iou or 0.0)
                    print(f"{name}, seed {seed}, {kind.__name__}: {scores[-1]:.4f}", flush=True)
            wide, narrow = map(statistics.median, found.values())
            gains = [a - b for a, b in zip(*found.values(), strict=True)]
            rows.append((name, wide, narrow, wide - narrow, min(gains), max(gains)))
    columns = ["", "wide, the default", "narrow", "difference", "least", "most"]
    print_table(f"Mean IoU by range of light, {seeds} seeds ({machine()})", columns, rows)
