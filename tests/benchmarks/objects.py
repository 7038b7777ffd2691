"""Touching ellipses told apart: panoptic quality, count error, sizes, and the time of large images.

``python -m tests.benchmarks objects [SECONDS] [SIDE ...]`` trains for so long (180) with each of
three seeds, and times images of such sides (4096). The other side, in the same run, is plain
connected parts of the same masks.
"""

import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage import draw, measure

from tests.benchmarks.common import machine, own_memory, print_table
from unetseg import Model, PatchSettings, SynthSettings, build_store, synthesize, train
from unetseg.dataset.synthesis import TOUCHING_CLASSES
from unetseg.objects.files import write_objects
from unetseg.objects.measurement import columns
from unetseg.objects.separation import find_objects, object_classes
from unetseg.pictures import bands
from unetseg.prediction.summary import write_table
from unetseg.scoring.panoptic import Matches, match_objects, object_scores

SEEDS = (0, 1, 2)
SIDE, CELL = 4096, 40  # pixels of a large image, and of the square that each object has


def sizes_apart(truth: NDArray[np.int64], found: NDArray[np.int32]) -> list[float]:
    """Return, for each pair of objects, how far the found area is from the true one, as a share."""
    wanted = np.bincount(truth.ravel())
    sizes = np.bincount(found.ravel())
    apart = []
    for number in range(1, len(wanted)):
        inside = np.bincount(found[truth == number], minlength=len(sizes))[1:]
        if len(inside) and inside.max() > wanted[number] / 2:
            apart.append(abs(sizes[inside.argmax() + 1] - wanted[number]) / wanted[number])
    return apart


def quality(root: Path, seconds: float, seed: int) -> list[tuple[str, float, float, float, float]]:
    """Train on one set of touching ellipses, and `compare` on its test images."""
    settings = SynthSettings(touching=True, seed=seed)
    home, run = root / f"set-{seed}", root / f"run-{seed}"
    _, test = synthesize(home, n=40, n_test=20, settings=settings)
    store = root / f"{seed}.h5"
    build_store(home / "train", store, PatchSettings(val=0, seed=seed))
    train(store, run=run, budget=seconds, seed=seed)
    return compare(run, test)


def compare(run: Path, test: Path) -> list[tuple[str, float, float, float, float]]:
    """Score both ways on a folder of touching ellipses: PQ, F1, count error, error of sizes."""
    model = Model([str(run)])
    classes = object_classes(model.card.classes, ["ellipse"])
    matches: dict[str, list[list[Matches]]] = {"told apart": [], "connected parts": []}
    apart: list[float] = []
    for path in sorted((test / "images").glob("*.png")):
        truth = tifffile.imread(test / "objects" / f"{path.stem}.tif").astype(np.int64)
        labels, sure = model.labels_and_confidence(path)
        found = find_objects(labels, classes, np.rint(sure * 255).astype(np.uint8)).numbers
        matches["told apart"].append([match_objects(truth, found)])
        matches["connected parts"].append([match_objects(truth, measure.label(labels > 0))])
        apart += sizes_apart(truth, found)
    rows = []
    for way, of_images in matches.items():
        scores = object_scores(["ellipse"], of_images, [str(k) for k in range(len(of_images))])
        values = (scores.panoptic_quality, scores.f1, scores.count_error)
        size = statistics.median(apart) if way == "told apart" else float("nan")
        rows.append((way, *(value["ellipse"] or 0.0 for value in values), size))
    return rows


def draw_cells(labels: NDArray[np.uint8]) -> None:
    """Draw an ellipse into each square of a mask of zeros; neighbours touch at times."""
    rng, side = np.random.default_rng(0), len(labels)
    for row in range(CELL // 2, side - CELL // 2, CELL):
        for column in range(CELL // 2, side - CELL // 2, CELL):
            radii, angle = rng.uniform(12, 21, 2), rng.uniform(0, np.pi)
            labels[draw.ellipse(row, column, *radii, shape=labels.shape, rotation=angle)] = 1


class Memory:
    """Watches the memory of this process, without files mapped into it, every 50 ms (Linux)."""

    def __init__(self) -> None:
        self.peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, own_memory())
            time.sleep(0.05)


def large(root: Path, side: int) -> None:
    """Time separation, label image, table and polygons of an image full of objects.

    Mask, image and numbers lie on the disk, as they do for images over 100 megapixels. Seconds are
    those of the processor, so that other programs do not count.
    """
    place, shape = root / "large.tif", (side, side)
    with ExitStack() as stack:
        labels, image, numbers = (
            stack.enter_context(bands.scratch(place, shape, dtype))
            for dtype in (np.uint8, np.uint8, np.int32)
        )
        draw_cells(labels)
        rng = np.random.default_rng(1)
        for top in range(0, side, CELL):
            image[top : top + CELL] = rng.integers(0, 255, (len(image[top : top + CELL]), side))
        memory, begin = Memory(), time.process_time()
        found = find_objects(labels, {1: None}, numbers=numbers)
        middle = time.process_time()
        rows = write_objects(place, found, TOUCHING_CLASSES, image[..., None])
        header = columns(1)
        write_table(place.with_suffix(".csv"), header, ([r.get(c) for c in header] for r in rows))
        end = time.process_time()
    line = (len(found.kinds), middle - begin, end - middle, end - begin, memory.peak / 1e9)
    titles = ["objects", "told apart s", "files s", "together s", "peak GB"]
    print_table(f"{side} x {side} pixels ({machine()})", titles, [line])


def main(words: list[str]) -> None:
    """Measure and print."""
    seconds = float(words[0]) if words else 180.0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for side in map(int, words[1:] or [SIDE]):
            large(root, side)
        found = [quality(root, seconds, seed) for seed in SEEDS if seconds]
    rows = []
    for of_seeds in zip(*found, strict=True):
        values = zip(*(row[1:] for row in of_seeds), strict=True)
        rows.append((of_seeds[0][0], *(statistics.median(value) for value in values)))
    titles = ["objects", "panoptic quality", "F1", "count error", "size, median error"]
    print_table(f"{seconds:g} s, medians of {len(SEEDS)} seeds ({machine()})", titles, rows)
