"""Touching ellipses told apart: panoptic quality, count error, sizes, and the time of large images.

``python -m tests.benchmarks objects [SECONDS]`` trains for so long (180). The other side, in the
same run, is plain connected parts of the same masks.
"""

import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage import draw, measure

from tests.benchmarks.common import machine, print_table
from unetseg import Model, PatchSettings, SynthSettings, build_store, synthesize, train
from unetseg.dataset.synthesis import TOUCHING_CLASSES
from unetseg.objects.files import write_objects
from unetseg.objects.separation import find_objects, object_classes
from unetseg.scoring.panoptic import Matches, match_objects, object_scores

SEEDS = (0, 1, 2)
SIDE, CELL = 4096, 40  # pixels of the large image, and of the square that each object has


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
    """Train on one set of touching ellipses, and score both ways on its test images."""
    settings = SynthSettings(touching=True, seed=seed)
    home, run = root / f"set-{seed}", root / f"run-{seed}"
    _, test = synthesize(home, n=40, n_test=20, settings=settings)
    store = root / f"{seed}.h5"
    build_store(home / "train", store, PatchSettings(val=0, seed=seed))
    train(store, run=run, budget=seconds, seed=seed)
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


def large(root: Path) -> None:
    """Time separation, label image, table and polygons of 10,000 objects in 4096 x 4096 pixels."""
    rng = np.random.default_rng(0)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for row in range(CELL // 2, SIDE - CELL // 2, CELL):
        for column in range(CELL // 2, SIDE - CELL // 2, CELL):
            radii, angle = rng.uniform(12, 21, 2), rng.uniform(0, np.pi)
            labels[draw.ellipse(row, column, *radii, shape=labels.shape, rotation=angle)] = 1
    image = rng.integers(0, 255, (SIDE, SIDE, 1)).astype(np.uint8)
    begin = time.perf_counter()
    found = find_objects(labels, {1: None})
    middle = time.perf_counter()
    rows = list(write_objects(root / "large.tif", found, TOUCHING_CLASSES, image))
    end = time.perf_counter()
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    line = (len(rows), middle - begin, end - middle, end - begin, peak)
    columns = ["objects", "told apart s", "files s", "together s", "peak GB of the process"]
    print_table(f"{SIDE} x {SIDE} pixels ({machine()})", columns, [line])


def main(words: list[str]) -> None:
    """Measure and print."""
    seconds = float(words[0]) if words else 180.0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        large(root)
        found = [quality(root, seconds, seed) for seed in SEEDS if seconds]
    rows = []
    for of_seeds in zip(*found, strict=True):
        values = zip(*(row[1:] for row in of_seeds), strict=True)
        rows.append((of_seeds[0][0], *(statistics.median(value) for value in values)))
    columns = ["objects", "panoptic quality", "F1", "count error", "size, median error"]
    print_table(f"{seconds:g} s, medians of {len(SEEDS)} seeds ({machine()})", columns, rows)
