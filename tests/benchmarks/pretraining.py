"""Whether a start from unlabelled images pays: hidden blocks filled in first, labels learnt after.

``python -m tests.benchmarks pretraining [PATCHES [SEEDS [SET...]]]``. All is counted in patches, of
which one costs the same in both stages. The same network first reconstructs the pixels of hidden
blocks in all training images. This follows He et al. (2022), "Masked autoencoders are scalable
vision learners", with convolutions. From those weights, with a new head, it then learns the few
labelled images.
"""

import statistics
import tempfile
from pathlib import Path

import torch
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
from unetseg import PatchSettings, build_store, train
from unetseg.dataset.pairing import find_pairs
from unetseg.training.batches import Batches
from unetseg.training.learner import Learner

PATCHES, SEEDS = 2560, 3
SETS = {"lines-ellipses": (lines_ellipses, (5, 10)), "camvid-100": (camvid, (10,))}
_SHARE = 0.25  # of the patches, on which labels are not looked at
_BLOCK, _HIDDEN = 16, 0.5  # side in pixels; share of the blocks
_SIZE, _PER_IMAGE = 96, 16  # of the labelled patches
_WAYS = {  # patches with labels and without, as shares
    "labels only": (1, 0),
    "a quarter without labels": (1 - _SHARE, _SHARE),
    "that quarter on top": (1, _SHARE),
}


class Hidden(Batches):
    """Batches in which half the blocks of each image are the set's mean."""

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return images, and masks that are not used."""
        self._whole, masks = super().batch(epoch, step)
        self._hidden = blocks(self._whole)
        return self._whole.masked_fill(self._hidden, 0.0), masks

    def error(self, outputs: Tensor, *_) -> Tensor:
        """Return the mean squared error in hidden pixels, in variances of the set."""
        errors = (outputs[:, : self._whole.shape[1]] - self._whole).square().mean(1, keepdim=True)
        return errors[self._hidden].mean()


class Reconstruction(Learner):
    """Learns the pixels of hidden blocks in the first outputs."""

    def __init__(self, batches: Hidden, *arguments) -> None:
        super().__init__(batches, *arguments)
        self.loss = batches.error


def blocks(pictures: Tensor) -> Tensor:
    """Return which pixels of (N, C, H, W) are hidden: (N, 1, H, W) bool, whole blocks."""
    count, _, height, width = pictures.shape
    chosen = torch.rand(count, 1, -(-height // _BLOCK), -(-width // _BLOCK)) < _HIDDEN
    pixels = chosen.repeat_interleave(_BLOCK, 2).repeat_interleave(_BLOCK, 3)
    return pixels[:, :, :height, :width].to(pictures.device)


def pretrain(folder: Path, run: Path, patches: float, seed: int) -> str:
    """Reconstruct ``patches`` patches of the images of ``folder``, each seen once."""
    per_image = max(1, round(patches / len(find_pairs(folder))))
    settings = PatchSettings(size=_SIZE, per_image=per_image, val=0, rare=0, seed=seed)
    build_store(folder, run.with_suffix(".h5"), settings)
    trainer = train_as(Hidden, run.with_suffix(".h5"), run, Reconstruction, epochs=1, seed=seed)
    learner = trainer.learner
    learner.average.module.head.reset_parameters()
    trainer.save("final")
    loss = trainer.course.history[-1]["train_loss"]
    print(f"reconstructed {learner.position.patches_seen}, loss {loss:.3f}")
    return str(run)


def measure(everything: Path, test: Path, count: int, seed: int, patches: int) -> dict[str, float]:
    """Return the held-out score of each way from ``count`` labelled images, drawn by ``seed``."""
    root = everything.parent / f"{count}-{seed}"
    few = draw_pairs(everything, count, seed, root / "labelled")
    settings = PatchSettings(size=_SIZE, per_image=_PER_IMAGE, val=0, seed=seed)
    build_store(few, root / "labelled.h5", settings)
    start = pretrain(everything, root / "start", _SHARE * patches, seed)
    found = {}
    for number, (name, (labelled, unlabelled)) in enumerate(_WAYS.items()):
        epochs = max(1, round(labelled * patches / (count * _PER_IMAGE)))
        run, origin = root / f"run-{number}", start if unlabelled else None
        train(root / "labelled.h5", run=run, start_from=origin, epochs=epochs, seed=seed)
        found[name] = quick_scores(run, test).mean_iou or 0.0
        print(f"{count} images, seed {seed}, {name}: {found[name]:.4f}", flush=True)
    return found


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("pretraining: left out, the data sets are not here")
        return
    patches = int(words[0]) if words else PATCHES
    seeds = int(words[1]) if len(words) > 1 else SEEDS
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in words[2:] or SETS:
            make, counts = SETS[name]
            folders = make(Path(folder) / name)
            for count in counts:
                found = [measure(*folders, count, seed, patches) for seed in range(seeds)]
                first = [scores["labels only"] for scores in found]
                for way in _WAYS:
                    s = [scores[way] for scores in found]
                    gain = statistics.median(a - b for a, b in zip(s, first, strict=True))
                    rows.append((name, count, way, statistics.median(s), min(s), max(s), gain))
    columns = ["set", "images", "trained on", "mean IoU, median", "least", "most", "difference"]
    print_table(f"Score by start, {patches} patches, {seeds} seeds ({machine()})", columns, rows)
