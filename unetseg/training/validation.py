"""The scores of a network on the held-out images, and pictures of the first of them."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetseg.classes import IGNORED
from unetseg.dataset.geometry import SPARSE
from unetseg.dataset.store import Store, StoreInfo
from unetseg.network.labels import labels_of
from unetseg.network.unet import can_be_seamless
from unetseg.pictures.bands import Rows
from unetseg.pictures.transforms import rescale_image, scaled_size
from unetseg.prediction.calibration import PixelSample
from unetseg.prediction.segmenter import Computed, Segmenter, computed_pixels
from unetseg.progress import OnProgress, Progress
from unetseg.ranks import world
from unetseg.scoring.metrics import Scores, confusion, scores
from unetseg.scoring.predictions import PassedProbabilities
from unetseg.settings import PredictSettings
from unetseg.text import show

FORWARD_SHARE = 0.4  # a window predicted costs about this much of a patch trained
_TIME_SHARE = 0.1
_TRIED = 2**17  # pixels that are predicted to measure the time of a window
_SHOWN = 4  # held-out images that people are shown

Picture = tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.uint8]]
"""An image (H, W, C), its true labels (H, W), and the predicted ones (H, W)."""


@dataclass(frozen=True)
class Validation:
    """The scores and predictions of a network on the held-out images.

    Attributes:
        scores: Its scores on all of them.
        loss: Mean negative log-likelihood of the true classes.
        labels: The predicted labels (H, W) of the first images, by their numbers.
    """

    scores: Scores
    loss: float
    labels: Mapping[int, NDArray[np.uint8]]

    def pictures(self, opened: Store) -> list[Picture]:
        """Return the first images of the store with their truth and the predicted labels.

        Pixels that the truth ignores are ignored in the prediction, too: nothing there is right or
        wrong. Under a truth of strokes alone, the whole prediction stays, as it is all there is to
        see.
        """
        shown = ((*opened.held_out(k)[:2], labels) for k, labels in self.labels.items())
        return [(image, truth, _judged(truth, labels)) for image, truth, labels in shown]

    def columns(self) -> dict[str, float | None]:
        """Return the cells of ``history.csv`` that hold scores."""
        ious = {f"iou_{name}": value for name, value in self.scores.iou.items()}
        return {"val_loss": self.loss, "val_mean_iou": self.scores.mean_iou, **ious}


def _judged(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a prediction (H, W) without the pixels that its truth ignores.

    A truth of strokes alone leaves the whole prediction.
    """
    ignored = truth == IGNORED
    if 1 - ignored.mean() < SPARSE:
        return predicted
    return np.where(ignored, np.uint8(IGNORED), predicted)


def validate(
    opened: Store,
    network: nn.Module,
    device: torch.device,
    on_progress: OnProgress,
    check: Callable[[], None],
    sample: PixelSample | None = None,
    passed: PassedProbabilities | None = None,
) -> Validation | None:
    """Score a network on the whole held-out images, as ``predict`` would by default.

    Several processes share the images. Each is given all scores, equal to those of one process.

    Args:
        opened: The store.
        network: The network that is scored.
        device: The device that computes.
        on_progress: Receives `Progress`.
        check: A function that is called before each image, and may raise to stop.
        sample: Takes a sample of the probabilities on the way.
        passed: Takes all of them, as far as it has room.

    Returns:
        None where no image is held out.
    """
    if opened.held_out_count == 0:
        return None
    segmenter = _segmenter(network, opened.info.size, opened.info.mean, opened.info.std, device)
    ranks, found, labels = world(), [], dict[int, NDArray[np.uint8]]()
    mine = ranks.own_items(range(opened.held_out_count))
    for k, image in _in_batches(opened, segmenter, mine):
        check()
        _, mask, source = opened.held_out(k)
        row, pixels = 0, 0
        parts, logs = list[Tensor](), list[float]()
        for band in segmenter.bands(image, mask.shape[:2]):
            truth = torch.from_numpy(np.array(mask[row : row + band.shape[1]])).to(band.device)
            row += band.shape[1]
            likelihood, labelled = _log_likelihood(band, truth)
            logs.append(likelihood)
            pixels += labelled
            parts.append(labels_of(band))
            if sample:
                sample.add(k, band, truth)
            if passed:
                passed.add(k, band, mask.size)
        whole = torch.cat(parts).numpy()
        if len(labels) < _SHOWN:
            labels[k] = whole
        matrix = confusion(mask, whole, len(opened.info.classes.classes)).tolist()
        found.append((matrix, Path(source.name).stem, source.group, logs, pixels))
        on_progress(Progress("scoring", len(found), len(mine), "images", show(source.name)))
    matrices, names, groups, all_logs, counts = zip(*ranks.collect(found), strict=True)
    log_sum = sum(itertools.chain.from_iterable(all_logs))
    pooled = scores(np.array(matrices), names, opened.info.classes.names, groups)
    return Validation(pooled, -log_sum / max(sum(counts), 1), labels)


def _log_likelihood(band: Tensor, truth: Tensor) -> tuple[float, int]:
    """Return the sum of the logarithms of the true classes' probabilities, and their pixels."""
    valid = truth != IGNORED
    chosen = band.gather(0, truth.long().where(valid, 0)[None])[0][valid]
    return float(chosen.clamp_min(1e-7).log().sum()), int(valid.sum())


def _in_batches(
    opened: Store, segmenter: Segmenter, numbers: Sequence[int]
) -> Iterator[tuple[int, Rows | Computed]]:
    """Yield held-out images in the scale of the patches; small ones are computed in batches."""
    sources, scale = opened.info.held_out, opened.info.scale

    def size(k: int) -> tuple[int, int]:
        return scaled_size(sources[k].height, sources[k].width, scale)

    for batch in segmenter.batches(numbers, size):
        images = [rescale_image(opened.held_out(k)[0], size(k)) for k in batch]
        yield from zip(batch, segmenter.together(images), strict=True)


def _segmenter(
    network: nn.Module,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> Segmenter:
    """Return a network as ``predict`` runs it by default; for the arguments see `Segmenter`."""
    defaults = PredictSettings()
    return Segmenter(
        [network],
        size=size,
        means=[mean],
        stds=[std],
        stride=defaults.stride_for(size, can_be_seamless(network)),
        shifts=defaults.shifts,
        weights=defaults.weights,
        device=device,
    )


def calibrate(sample: PixelSample) -> dict[str, float | None]:
    """Return the temperature that fits a sample of held-out pixels, and the calibration error.

    Returns:
        "temperature", and "error", which is None where the images are too few to tell.
    """
    if world().size > 1:
        sample.pool(world().concatenate)
    found = sample.calibration()
    temperature = found.temperature if found else sample.temperature()
    return {"error": found.error if found else None, "temperature": temperature}


def windows(info: StoreInfo, network: nn.Module, device: torch.device) -> float:
    """Return how many patches have the pixels that a validation computes."""
    shapes = [scaled_size(one.height, one.width, info.scale) for one in info.held_out]
    return windows_of(shapes, info.size, network, device)


def windows_of(
    shapes: Iterable[tuple[int, int]], size: int, network: nn.Module, device: torch.device
) -> float:
    """Return how many patches of ``size`` have the pixels that predicting images computes.

    Args:
        shapes: (height, width) of each image as the network takes it.
        size: Side of a patch.
        network: The network that predicts.
        device: The device that computes.
    """
    defaults = PredictSettings()
    stride = defaults.stride_for(size, can_be_seamless(network))
    computed = (
        computed_pixels(shape, [network], size, stride, defaults.shifts, device) for shape in shapes
    )
    return sum(computed) / size**2


class Rehearsal:
    """Predicts a small image as a validation does, to tell how long one takes at present.

    The time of training steps does not tell: other work slows down short parallel parts most, and
    training has more of them.

    Args:
        network: The network that predicts; a copy of it is used.
        channels: The channels of an image.
        size: Side of a window.
        device: The device that computes.
    """

    def __init__(self, network: nn.Module, channels: int, size: int, device: torch.device) -> None:
        side = max(size, math.isqrt(_TRIED))
        self._segmenter = _segmenter(network, size, [0.5] * channels, [0.3] * channels, device)
        self._image = np.random.default_rng(0).random((side, side, channels), np.float32)
        self._windows = windows_of([(side, side)], size, network, device)

    def seconds(self) -> float:
        """Return the seconds that predicting a window takes on this machine at present.

        The first call also allocates, which takes longer.
        """
        begin = time.monotonic()
        self._segmenter.labels(self._image)
        return (time.monotonic() - begin) / self._windows


def interval(windows: float, patches: int) -> int:
    """Return the epochs between validations that keep them under a tenth of the time.

    It is counted and not measured, so that a resumed run validates at the same epochs.

    Args:
        windows: The result of `windows`.
        patches: Patches of an epoch.
    """
    return max(1, math.ceil(windows * FORWARD_SHARE / (_TIME_SHARE * patches)))
