"""Scribbles beside dense masks: the score on dense masks apart, after the same time.

``python -m tests.benchmarks scribbles [SECONDS... SET...]`` takes other budgets or sets;
``processor`` counts them in processor time of one thread, for a machine that does other work. A
scribble is a stroke drawn at random inside a class, about as long as three letters. One pixel in a
hundred is labelled, and each class of an image has at least one stroke.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from tests.benchmarks.accuracy import SETS, score
from tests.benchmarks.common import DATA, machine, print_table
from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import pairing
from unetseg.dataset.cutting import LabelledFolder
from unetseg.pictures import masks, reading
from unetseg.settings import PatchSettings

_SHARE, _SECONDS, _SEEDS = 0.01, (90.0,), (0, 1)


def scribble(
    mask: NDArray[np.uint8], share: float, rng: np.random.Generator, radius: int = 1
) -> NDArray[np.uint8]:
    """Return a mask of which about ``share`` of the pixels are kept, in strokes; the rest is 255.

    Args:
        mask: (H, W) class indices, 255 ignored.
        share: The share of all pixels to keep.
        rng: Draws the strokes.
        radius: Pixels from the middle of a stroke to its side.
    """
    drawn = np.zeros(mask.shape, bool)
    present = np.unique(mask[mask != IGNORED])
    for turn in range(10_000):
        if turn >= len(present) and drawn.sum() >= share * mask.size:
            break
        inside = mask == present[turn % len(present)]
        room = ndimage.binary_erosion(inside, iterations=radius)
        room = room if room.any() else inside
        row, column = (int(v) for v in rng.choice(np.argwhere(room)))
        angle = rng.uniform(0, 2 * np.pi)
        stroke = np.zeros(mask.shape, bool)
        y, x = float(row), float(column)
        for _ in range(30):
            if not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]) or not room[int(y), int(x)]:
                break
            stroke[int(y), int(x)] = True
            angle += rng.normal(0, 0.2)
            y, x = y + np.sin(angle), x + np.cos(angle)
        drawn |= ndimage.binary_dilation(stroke, iterations=radius) & inside
    return np.where(drawn, mask, IGNORED).astype(np.uint8)


def rewrite(folder: Path, target: Path, share: float | None = None) -> Path:
    """Write a copy of a folder of labelled images whose masks are values: whole, or scribbles."""
    table = LabelledFolder(folder, PatchSettings(val=0)).table
    values = ClassTable(
        tuple(replace(entry, value=i) for i, entry in enumerate(table.classes)), (IGNORED,)
    )
    kept = total = 0
    for number, pair in enumerate(pairing.find_pairs(folder)):
        mask = masks.decode(pair.read_mask(), table, pair.mask)
        if share is not None:
            mask = scribble(mask, share, np.random.default_rng(number))
        kept, total = kept + int((mask != IGNORED).sum()), total + mask.size
        image = reading.read_image(pair.image)
        pairing.write_labelled(target, pair.image.stem, image, mask, values)
    pairing.write_classes(target, values)
    print(f"{target.name}: {100 * kept / total:.2f} % of the pixels are labelled", flush=True)
    return target


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("scribbles: left out, the data sets are not here")
        return
    budgets = [float(word) for word in words if word.isdecimal()] or _SECONDS
    names = [word for word in words if word in SETS] or list(SETS)
    if "processor" in words:
        torch.set_num_threads(1)
        time.monotonic = time.process_time  # the clock that training and its budget go by
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in names:
            train, apart = SETS[name](root / name)
            dense, test = (
                rewrite(train, root / name / "dense"),
                rewrite(apart, root / name / "apart"),
            )
            sparse = rewrite(train, root / name / "scribbles", _SHARE)
            for budget in budgets:
                pairs = [
                    [score(source, test, root, seed, budget=budget) for source in (dense, sparse)]
                    for seed in _SEEDS
                ]
                full, some = (statistics.median(side) for side in zip(*pairs, strict=True))
                share = statistics.median(b / a for a, b in pairs)
                rows.append((name, budget, full, some, share))
                print_table("so far", [""] * 5, rows[-1:])
    columns = ["set", "budget s", "dense masks", "scribbles", "share"]
    print_table(f"Mean IoU, {len(_SEEDS)} seeds ({machine()})", columns, rows)
