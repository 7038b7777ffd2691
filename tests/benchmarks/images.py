"""Held-out score against the number of training images, lines-ellipses, 180 seconds each.

The other side is a random forest of pixels on multi-scale filters (scikit-learn), trained on the
same images: what one has without a network.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from tests.benchmarks.accuracy import SEEDS, score
from tests.benchmarks.common import DATA, copy_pairs, lines_ellipses, machine, print_table
from unetseg import folder, images, masks
from unetseg.metrics import confusion, scores

COUNTS = (5, 10, 20, 40, 80)
_BUDGET = 180.0
_SIGMAS = (0.5, 1, 2, 4, 8)
_PIXELS = 20_000  # drawn from each image


def features(image: np.ndarray) -> np.ndarray:
    """Return (H * W, 4 * scales): smoothed intensity, gradient, both Hessian eigenvalues."""
    grey = image[..., 0].astype(np.float32) / 255
    planes = []
    for sigma in _SIGMAS:
        planes += [
            ndimage.gaussian_filter(grey, sigma),
            ndimage.gaussian_gradient_magnitude(grey, sigma),
        ]
        rr, rc, cc = (
            ndimage.gaussian_filter(grey, sigma, order) for order in ((2, 0), (1, 1), (0, 2))
        )
        middle, spread = (rr + cc) / 2, np.hypot((rr - cc) / 2, rc)
        planes += [middle + spread, middle - spread]
    return np.stack(planes, -1).reshape(-1, len(planes))


def forest_score(train_folder: Path, test_folder: Path, seed: int) -> float:
    """Return the pooled mean IoU of the random forest."""
    rng = np.random.default_rng(seed)
    x, y = [], []
    for image, mask in _read(train_folder):
        chosen = rng.choice(mask.size, _PIXELS)
        x.append(features(image)[chosen])
        y.append(mask.ravel()[chosen])
    forest = RandomForestClassifier(50, max_depth=20, n_jobs=2, random_state=seed)
    forest.fit(np.concatenate(x), np.concatenate(y))
    matrices = [
        confusion(mask, forest.predict(features(image)).reshape(mask.shape), 3)
        for image, mask in _read(test_folder)
    ]
    found = scores(np.stack(matrices), [str(i) for i in range(len(matrices))], "abc")
    return found.mean_iou or 0.0


def _read(path: Path):
    pairs = folder.find_pairs(path)
    found = {str(p.mask): masks.find_keys(images.read_mask(p.mask)) for p in pairs}
    table = masks.discover(found)
    for pair in pairs:
        yield images.read_image(pair.image), masks.decode(images.read_mask(pair.mask), table)


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("images: left out, the data sets are not here")
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        everything, test = lines_ellipses(root)
        for count in [int(word) for word in words] or COUNTS:
            ours, theirs = [], []
            for seed in SEEDS:
                pairs = list(folder.find_pairs(everything))
                drawn = np.random.default_rng(seed).permutation(len(pairs))[:count]
                part = root / f"{count}-{seed}-{time.monotonic_ns()}"
                copy_pairs((pairs[i] for i in drawn), part)
                ours.append(score(part, test, root, seed, budget=_BUDGET))
                theirs.append(forest_score(part, test, seed))
            row = (count, statistics.median(ours), min(ours), max(ours), statistics.median(theirs))
            rows.append(row)
    columns = ["images", "unetseg, median", "least", "most", "random forest, median"]
    print_table(f"Score by images, {_BUDGET:.0f} s each ({machine()})", columns, rows)
