"""The scores of simple methods on the same images: a baseline that a network has to beat."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unetseg.classes import IGNORED
from unetseg.errors import InputError, arg
from unetseg.progress import OnProgress, Progress, silent
from unetseg.scoring.metrics import ScoredImage, Scores, confusion, scores

MOST_COMMON, FOREST = "most common class", "random forest"

_SIGMAS = (0.5, 1, 2, 4, 8)  # pixels: these find thin lines as well as blobs of thirty pixels
_HALO = 3 * 8 + 2  # a filter reaches so many rows
_TREES, _DEPTH = 50, 20
_PIXELS = 40_000  # a forest learns from so many: half scored 0.01 less, more took too long
_PIXELS_OF_IMAGE = 8_000
_POOL = 4 * _PIXELS  # at most so many pixels are held, from which the former are drawn
_BAND = 250_000  # so many pixels are filtered and classified at once
_CLASSIFIED = 10_000_000  # of a set with folds, so many pixels are classified: 20 seconds
_JOBS = 2
_WIDEST = 16  # at least every so many-th row and column is classified
_PROBE = 200  # pixels: the side of the square on which speed is measured
# Classifying a pixel, and learning from it, take so many times its filtering by one thread. On the
# sets tried they took 6 to 16 and 420 to 670 times; both are shared by `_JOBS` threads.
_CLASSIFYING, _FITTING = 12.0, 550.0


@dataclass(frozen=True)
class Baseline:
    """The scores of a simple method.

    Attributes:
        name: "most common class" or "random forest".
        scores: Its scores on the same images as the network's.
    """

    name: str
    scores: Scores


def most_common(found: Scores, train_pixels: ArrayLike) -> Baseline:
    """Score one class everywhere: the most common one of the training pixels.

    Args:
        found: Scores of any method on the images; only the true pixels of its matrices count.
        train_pixels: Number of training pixels of each class, (C,). Where the n images were scored
            by models with different training images, (n, C).

    Raises:
        ValueError: The number of classes or images differs.
    """
    images, count = len(found.names), len(found.classes)
    winners = np.broadcast_to(np.asarray(train_pixels), (images, count)).argmax(axis=1)
    matrices = np.zeros_like(found.matrices)
    matrices[np.arange(images), :, winners] = found.matrices.sum(axis=2)
    return Baseline(MOST_COMMON, scores(matrices, found.names, found.classes, found.groups))


@dataclass(frozen=True)
class Sample:
    """Labelled pixels of an image.

    Attributes:
        features: (n, F) float32.
        labels: (n,) uint8 class indices.
        pixels: (C,) int64, all labelled pixels of the image by class.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.uint8]
    pixels: NDArray[np.int64]


class Forest:
    """A random forest that classifies each pixel by simple filters around it.

    The mean of the channels is smoothed at sigma 0.5, 1, 2, 4 and 8 pixels. The features are these
    planes, the length of their gradient and both eigenvalues of their Hessian. Where there are
    several channels, the difference of each from the mean is smoothed in the same way. This is much
    like the trainable segmentation of ImageJ, and like multiscale_basic_features of scikit-image.

    Args:
        classes: Number of classes, 1 to 255.

    Raises:
        InputError: scikit-learn is not installed.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._make = _import_forest()
        self._trees: Any = None
        self._varying = np.zeros(0, np.int64)

    def fit(self, samples: Sequence[Sample], seed: int = 0) -> None:
        """Learn from at most 40,000 pixels of the samples, drawn evenly by class.

        The weight of a class is the number of its pixels in the images, drawn or not.

        Args:
            samples: The result of `draw_samples`.
            seed: Seed of the drawing and of the trees.

        Raises:
            InputError: There are no pixels.
        """
        rng = np.random.default_rng(seed)
        labels = np.concatenate([s.labels for s in samples]) if samples else np.zeros(0, np.uint8)
        if not len(labels):
            raise InputError(FOREST, "every pixel is ignored", "look at the masks")
        chosen = _draw_evenly(labels, self._classes, _PIXELS, rng)
        features = np.concatenate([s.features for s in samples])[chosen]
        # Each branch of a tree tries a few columns drawn at random: a constant column is a wasted
        # draw.
        self._varying = np.flatnonzero(np.ptp(features, axis=0))
        drawn = np.bincount(labels[chosen], minlength=self._classes)
        weights = np.sum([s.pixels for s in samples], axis=0) / np.maximum(drawn, 1)
        self._trees = self._make(_TREES, max_depth=_DEPTH, n_jobs=_JOBS, random_state=seed)
        self._trees.fit(features[:, self._varying], labels[chosen], weights[labels[chosen]])

    def predict(self, image: NDArray[Any], step: int = 1) -> NDArray[np.uint8]:
        """Return the class of each pixel of an image (H, W, C): (H, W) uint8.

        With ``step`` > 1, only every ``step``-th row and column is classified (faster).
        """
        width, parts = image.shape[1], []
        for start, features in _bands(image):
            rows = features.reshape(-1, width, features.shape[1])
            chosen = rows[-(start // width) % step :: step, ::step]
            flat = chosen.reshape(-1, features.shape[1])[:, self._varying]
            if len(flat):
                parts.append(self._trees.predict(flat).astype(np.uint8))
        return np.concatenate(parts).reshape(-1, len(range(0, width, step)))


def draw_samples(
    pairs: Iterable[tuple[NDArray[Any], NDArray[np.uint8]]],
    classes: int,
    seed: int = 0,
    each: Callable[[int], None] = lambda done: None,
) -> list[Sample]:
    """Draw labelled pixels of each image, evenly by class.

    At most 8,000 are drawn of an image, and fewer where there are many images.

    Args:
        pairs: Images (H, W, C) and masks (H, W) of class indices, 255 ignored. One pair is held at
            a time.
        classes: Number of classes.
        seed: The seed of the drawing.
        each: Called after each image with their number so far.
    """
    rng = np.random.default_rng(seed)
    samples: list[Sample] = []
    most = _PIXELS_OF_IMAGE
    for image, mask in pairs:
        samples.append(_sample(image, mask, classes, most, rng))
        if sum(len(s.labels) for s in samples) > _POOL:
            most //= 2
            samples = [_thin(s, classes, most, rng) for s in samples]
        each(len(samples))
    return samples


def _sample(
    image: NDArray[Any],
    mask: NDArray[np.uint8],
    classes: int,
    most: int,
    rng: np.random.Generator,
) -> Sample:
    """Draw features and classes of pixels of an image, evenly over its classes."""
    labels = mask.ravel()
    chosen = np.sort(_draw_evenly(labels, classes, most, rng))
    parts = [
        features[chosen[(chosen >= start) & (chosen < start + len(features))] - start]
        for start, features in _bands(image)
    ]
    pixels = np.bincount(labels, minlength=IGNORED + 1)[:classes]
    return Sample(np.concatenate(parts), labels[chosen], pixels)


def _thin(sample: Sample, classes: int, most: int, rng: np.random.Generator) -> Sample:
    chosen = _draw_evenly(sample.labels, classes, most, rng)
    return Sample(sample.features[chosen], sample.labels[chosen], sample.pixels)


def _draw_evenly(
    labels: NDArray[np.uint8], classes: int, most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return at most ``most`` places in ``labels``, equally many of each class.

    A class that has fewer pixels gives all of them, and the other classes share the rest.
    """
    present = [p for p in (np.flatnonzero(labels == c) for c in range(classes)) if len(p)]
    chosen, left = [np.zeros(0, np.int64)], most
    for i, places in enumerate(
        sorted(present, key=len)
    ):  # rare classes first: other classes get the samples that they lack
        count = min(len(places), left // (len(present) - i))
        chosen.append(rng.choice(places, count, replace=False))
        left -= count
    return np.concatenate(chosen)


def _bands(image: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield how many pixels lie above some whole rows, and the features (pixels, F) of the rows."""
    height, width = image.shape[:2]
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        first = max(0, top - _HALO)
        part = _filter(image[first : top + rows + _HALO])
        kept = part[top - first : top - first + min(rows, height - top)]
        yield top * width, kept.reshape(-1, kept.shape[2])


def _filter(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return the features (H, W, F) float32 of an image (H, W, C); F is 21, plus 6 C if C > 1."""
    from scipy import ndimage

    values = image.astype(np.float32)
    grey = values.mean(axis=2)
    planes = [grey]
    for sigma in _SIGMAS:
        smooth = ndimage.gaussian_filter(grey, sigma, truncate=3)
        rows, columns = _slopes(smooth)
        (rr, rc), (_, cc) = _slopes(rows), _slopes(columns)
        middle, spread = (rr + cc) / 2, np.hypot((rr - cc) / 2, rc)
        planes += [smooth, np.hypot(rows, columns), middle + spread, middle - spread]
    for channel in np.moveaxis(values, 2, 0) if image.shape[2] > 1 else ():
        tint = channel - grey
        planes.append(tint)
        for sigma in _SIGMAS:
            planes.append(ndimage.gaussian_filter(tint, sigma, truncate=3) if tint.any() else tint)
    return np.stack(planes, axis=-1)


def _slopes(plane: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the central differences along rows and columns; 0 along an axis of one pixel."""
    down, right = (
        np.gradient(plane, axis=axis) if plane.shape[axis] > 1 else np.zeros_like(plane)
        for axis in (0, 1)
    )
    return down, right


def forest_of_folds(
    read: Callable[[int], ScoredImage],
    folds: Sequence[int],
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    until: float = math.inf,
    on_progress: OnProgress = silent,
) -> Baseline:
    """Score each image by a random forest that learnt from the images of the other folds.

    Where masks hold strokes, it learns from the strokes alone. A network also learns from the
    labels that `spread_labels` added to its training images. In large sets, or where time is short,
    only every second (third, ...) row and column is classified.

    Args:
        read: Reads the k-th image and its true mask; called twice for each.
        folds: The fold of each image.
        classes: Names of the classes.
        groups: The group of each image, as in `metrics.scores`.
        seed: Seed of the forests.
        until: `time.monotonic` at which it should be done.
        on_progress: Receives `Progress`.

    Raises:
        InputError: scikit-learn is not installed, all images are of one fold, there is nothing to
            learn from, or there is no time.
    """
    forest, count, images = Forest(len(classes)), len(classes), len(folds)

    def say(done: int) -> None:
        on_progress(Progress("scoring a random forest", done, 2 * images, "images"))

    labelled = ((one.image, one.truth) for one in map(read, range(images)))
    samples = draw_samples(labelled, count, seed, say)
    pixels = sum(int(s.pixels.sum()) for s in samples)
    step = math.ceil(math.sqrt(pixels / _CLASSIFIED))
    names, matrices, done = [""] * images, np.zeros((images, count, count), np.int64), images
    kinds = list(dict.fromkeys(folds))
    for fold in kinds:
        if time.monotonic() >= until:
            raise InputError(FOREST, "no time is left for it", f"give more {arg('budget')}")
        others = [s for s, own in zip(samples, folds, strict=True) if own != fold]
        begin = time.monotonic()
        forest.fit(others, seed)
        fitting = (time.monotonic() - begin) * (len(kinds) - 1)
        for k in np.flatnonzero(np.array(folds) == fold):
            one = read(int(k))
            names[k] = one.name
            begin = time.monotonic()
            predicted = forest.predict(one.image, step)
            if done == images and until < math.inf:
                due = (time.monotonic() - begin) * pixels / one.truth.size
                left = max(until - time.monotonic() - fitting, 1e-9)
                wider = min(math.ceil(step * math.sqrt(due / left)), _WIDEST)
                if wider > step:
                    step, predicted = wider, forest.predict(one.image, wider)
            matrices[k] = confusion(one.truth[::step, ::step], predicted, count)
            done += 1
            say(done)
    return Baseline(FOREST, scores(matrices, names, classes, groups))


def forest_seconds(image: NDArray[Any], pixels: int, folds: int) -> float:
    """Estimate how long `forest_of_folds` takes, by the speed of its filters on this machine.

    Args:
        image: (H, W, C), one of the images.
        pixels: The pixels of all images.
        folds: The number of folds.
    """
    from joblib import cpu_count

    part = image[:_PROBE, :_PROBE]
    for _ in range(2):  # imports and new memory make the first two calls up to three times as long
        _filter(part)
    begin = time.monotonic()
    _filter(part)
    each: float = (time.monotonic() - begin) / (part.shape[0] * part.shape[1])
    learned = min(pixels * (folds - 1) / folds, _PIXELS)
    classified = min(pixels, _CLASSIFIED)
    shared = _CLASSIFYING * classified + _FITTING * learned * folds
    times: float = 2 * pixels + shared / min(_JOBS, cpu_count())
    return each * times


def compare_with_baselines(found: Scores, baselines: Sequence[Baseline]) -> str:
    """Say in one line whether a network's mean IoU is above that of simple methods."""
    if found.mean_iou is None:
        return "The U-Net has no score to compare."
    own = f"The U-Net ({found.mean_iou:.3f})"
    known = [(b.name, b.scores.mean_iou) for b in baselines if b.scores.mean_iou is not None]
    if not known:
        return f"{own} was compared with no simpler method."
    named = " and ".join(f"the {name} ({value:.3f})" for name, value in known)
    ahead = [(name, value) for name, value in known if value >= found.mean_iou]
    if ahead:
        better = " and ".join(f"the {name} ({value:.3f})" for name, value in ahead)
        return f"{own} does NOT beat {better}: train longer, or look at the labels."
    low = found.mean_iou_ci95[0] if found.mean_iou_ci95 else None
    if low is not None and max(value for _, value in known) >= low:
        return f"{own} is above {named}, but not surely: its interval begins at {low:.3f}."
    return f"{own} beats {named}."


def _import_forest() -> Any:
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError:
        text = "needs scikit-learn, which is not installed"
        raise InputError(FOREST, text, "pip install scikit-learn") from None
    return RandomForestClassifier
