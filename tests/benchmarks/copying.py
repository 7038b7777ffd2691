"""Whether it pays to copy rare objects between the patches of a batch.

``python -m tests.benchmarks copying [SEEDS [SET...]]``. Objects are connected pixels of rare
classes. Half of the objects of a patch are pasted over its neighbour in the batch, in their place.
The method follows Ghiasi et al. (2021), "Simple copy-paste is a strong data augmentation method".
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy import ndimage
from torch import Tensor

from tests.benchmarks.common import (
    DATA,
    camvid,
    draw_pairs,
    lines_ellipses,
    machine,
    print_table,
    quick_scores,
    train_as,
)
from unetseg import PatchSettings, build_store
from unetseg.training.batches import Batches

SEEDS = 3
SETS = {  # how the folders are made, the labelled images, the patches trained on
    "lines-ellipses": (lines_ellipses, 10, 2560),
    "camvid-100": (camvid, 55, 5280),
}
_RARE = 0.25  # of an equal share of the pixels: classes below are copied
_SIZE, _PER_IMAGE = 96, 16


def rare_classes(pixels: Sequence[int]) -> list[int]:
    """Return the classes that hold far fewer pixels than others."""
    return [c for c, n in enumerate(pixels) if 0 < n < _RARE * sum(pixels) / len(pixels)]


class Copying(Batches):
    """Pastes rare objects of one patch of a batch into the next, after all other augmentation."""

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return images and masks."""
        pictures, masks = super().batch(epoch, step)
        rare = torch.tensor(rare_classes(self.info.class_pixels_train))
        chosen = torch.stack([some_objects(torch.isin(mask, rare)) for mask in masks]).roll(1, 0)
        pictures = torch.where(chosen[:, None], pictures.roll(1, 0), pictures)
        return pictures, torch.where(chosen, masks.roll(1, 0), masks)


def some_objects(mask: Tensor) -> Tensor:
    """Return the connected parts of ``mask`` (H, W) bool, each with a chance of one half."""
    labels, count = ndimage.label(mask.numpy())
    kept = torch.rand(count + 1) < 0.5
    kept[0] = False  # the pixels between them
    return kept[torch.from_numpy(labels).long()]


def score(kind: type[Batches], store: Path, test: Path, run: Path, **settings) -> list[float]:
    """Return the mean IoU on ``test`` of a run, and that of the rare classes alone."""
    trainer = train_as(kind, store, run, **settings)
    scores = quick_scores(run, test)
    info = trainer.artefacts.opened.info
    names = [info.classes.names[c] for c in rare_classes(info.class_pixels_train)]
    print(f"{run}: {scores.mean_iou:.4f}", {n: round(scores.iou[n] or 0.0, 3) for n in names})
    return [scores.mean_iou or 0.0, statistics.mean(scores.iou[name] or 0.0 for name in names)]


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("copying: left out, the data sets are not here")
        return
    seeds = int(words[0]) if words else SEEDS
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in words[1:] or SETS:
            make, count, patches = SETS[name]
            root = Path(folder) / name
            everything, test = make(root)
            found: dict[type[Batches], list[list[float]]] = {Batches: [], Copying: []}
            for seed in range(seeds):
                part = draw_pairs(everything, count, seed, root / f"labelled-{seed}")
                cut = PatchSettings(size=_SIZE, per_image=_PER_IMAGE, val=0, seed=seed)
                build_store(part, root / f"{seed}.h5", cut)
                epochs = max(1, round(patches / (count * _PER_IMAGE)))
                for kind, scores in found.items():
                    run = root / f"{kind.__name__}-{seed}"
                    store = root / f"{seed}.h5"
                    scores.append(score(kind, store, test, run, epochs=epochs, seed=seed))
            for column, classes in enumerate(("all", "rare")):
                plain, copied = ([s[column] for s in scores] for scores in found.values())
                gains = [b - a for a, b in zip(plain, copied, strict=True)]
                medians = map(statistics.median, (plain, copied, gains))
                rows.append((name, count, classes, *medians, min(gains), max(gains)))
    columns = ["set", "images", "classes", "plain", "copying", "gain, median", "least", "most"]
    print_table(f"Mean IoU by copying, {seeds} seeds ({machine()})", columns, rows)
