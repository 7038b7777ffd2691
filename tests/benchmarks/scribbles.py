"""Scribbles beside dense masks: the score on dense masks apart, after the same time.

``python -m tests.benchmarks scribbles [SECONDS... SET...]`` takes other budgets or sets;
``processor`` counts them in processor time of one thread, for a machine that does other work. A
scribble is a stroke drawn at random inside a class, about as long as three letters. One pixel in a
hundred is labelled, and each class of an image has at least one stroke.
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tests.benchmarks.accuracy import SETS, score
from tests.benchmarks.common import (
    DATA,
    count_processor_time,
    machine,
    names_in,
    numbers_in,
    print_table,
    write_values,
)
from unetseg.classes import IGNORED

_SHARE, _SECONDS = 0.01, (90.0,)
_SEEDS = (1, 2, 3, 4)  # the threshold of spread labels was chosen with seed 0


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


def _scribbles_of(mask: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    return scribble(mask, _SHARE, np.random.default_rng(number))


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("scribbles: left out, the data sets are not here")
        return
    budgets = numbers_in(words) or _SECONDS
    names = names_in(words, SETS)
    if "processor" in words:
        count_processor_time()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in names:
            train, apart = SETS[name](root / name)
            dense = write_values(train, root / name / "dense")
            test = write_values(apart, root / name / "apart")
            sparse = write_values(train, root / name / "scribbles", _scribbles_of)
            for budget, seed in itertools.product(budgets, _SEEDS):
                full, some = (
                    score(source, test, root, seed, budget=budget) for source in (dense, sparse)
                )
                rows.append((name, budget, seed, full, some, some / full))
                print(*rows[-1], flush=True)
    columns = ["set", "budget s", "seed", "dense masks", "scribbles", "share"]
    print_table(f"Mean IoU ({machine()})", columns, rows)
