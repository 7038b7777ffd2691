"""Whether probabilities can be believed: of pixels given 0.9, nine of ten should be right.

Networks trained for long are too sure of themselves. One number mends most of it: the logits are
divided by a temperature, fitted on held-out images (Guo et al., 2017, "On calibration of modern
neural networks"). Overlapping windows, mirrored views and ensembles leave averaged probabilities
and no logits; so here, and wherever unetseg applies a temperature T, it is applied to the logarithm
of the averaged probabilities: softmax(log(p) / T), which for a single window is the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg.classes import IGNORED

BINS = 10
SAMPLE = 200_000  # pixels that a temperature is fitted to
_VALUES = 2_000_000  # their probabilities: above ten classes, fewer pixels
TEMPERATURES = (0.2, 5.0)  # what is fitted stays within
_SMALLEST = 1e-7  # probability taken instead of a smaller one, whose logarithm would rule the fit


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be believed.

    Attributes:
        temperature: That the probabilities were scaled with; 1 changes nothing.
        error: Expected calibration error, 0 to 1: the mean over pixels of the difference between
            accuracy and mean confidence of their bin (Naeini et al., 2015; Guo et al., 2017).
        confidence: Mean probability of the predicted class, per bin of that; `BINS` bins of equal
            width from 0 to 1. An empty one has 0 here and below.
        accuracy: Share of pixels whose predicted class is the true one, per bin.
        pixels: Number of pixels per bin.
    """

    temperature: float
    error: float
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    pixels: tuple[int, ...]


class Reliability:
    """Counts over images for a `Calibration` of every pixel."""

    def __init__(self) -> None:
        self._pixels = np.zeros(BINS, np.int64)
        self._right = np.zeros(BINS, np.int64)
        self._confidence = np.zeros(BINS)

    def add(self, truth: NDArray[Any], prediction: NDArray[Any], confidence: NDArray[Any]) -> None:
        """Count pixels, of a whole image or of a part.

        Args:
            truth: Class indices, any shape; pixels of `IGNORED` are not counted.
            prediction: Likewise; the most probable classes.
            confidence: Likewise, floating, 0 to 1: their probabilities.
        """
        valid = truth != IGNORED
        sure = confidence[valid].astype(np.float64)
        bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)  # 1.0 is of the last
        right = (truth == prediction)[valid]
        self._pixels += np.bincount(bins, minlength=BINS)
        self._right += np.bincount(bins[right], minlength=BINS)
        self._confidence += np.bincount(bins, sure, minlength=BINS)

    def calibration(self, temperature: float = 1.0) -> Calibration | None:
        """Return what was counted; None for no pixel.

        Args:
            temperature: To note in it: that the probabilities were scaled with.
        """
        total = int(self._pixels.sum())
        if not total:
            return None
        each = np.maximum(self._pixels, 1)
        error = float(np.abs(self._right - self._confidence).sum() / total)
        return Calibration(
            temperature,
            error,
            tuple((self._confidence / each).tolist()),
            tuple((self._right / each).tolist()),
            tuple(self._pixels.tolist()),
        )


class PixelSample:
    """A random sample of the pixels of images, every one as likely, bounded in size.

    Each pixel draws a number and stays while that is below a bar. Whenever too many have gathered,
    the bar is halved, and those above it go. So nothing need be known of the images to come.

    Args:
        limit: Most pixels held; above ten classes fewer are.
        seed: Of the draws; with the same images in the same order the sample is the same, however
            they are cut into bands.
    """

    def __init__(self, limit: int = SAMPLE, seed: int = 0) -> None:
        self._limit, self._rng, self._bar = limit, np.random.default_rng(seed), 1.0
        self._parts: list[_Pixels] = []

    def add(self, image: int, probabilities: Tensor, truth: Tensor) -> None:
        """Look at an image, or at one of the bands that it is cut into.

        Args:
            image: Its number.
            probabilities: ``(K, rows, W)`` floating, summing to 1 over K, not yet scaled by a
                temperature; on any device.
            truth: ``(rows, W)`` class indices, 255 ignored.
        """
        draws = self._rng.random(truth.numel(), np.float32)
        truth = truth.reshape(-1).cpu()
        kept = torch.from_numpy(draws < self._bar) & (truth != IGNORED)
        chosen = kept.nonzero()[:, 0]
        shares = probabilities.flatten(1)[:, chosen.to(probabilities.device)].cpu()
        images = np.full(len(chosen), image)
        part = _Pixels(draws[chosen.numpy()], images, shares, truth[chosen].long())
        self._parts.append(part)
        self._bound(len(shares))

    def _bound(self, classes: int) -> None:
        """Let pixels go until no more are held than may be."""
        limit = min(self._limit, _VALUES // classes)
        while sum(len(p.draws) for p in self._parts) > limit:
            self._bar /= 2
            self._parts = [p.where(p.draws < self._bar) for p in self._parts]

    def pool(self, concatenate: Callable[[Tensor], Tensor]) -> None:
        """Take in the samples of other processes, which looked at other images.

        Args:
            concatenate: Returns the rows of a tensor ``(n, ...)`` of all processes.
        """
        bars = concatenate(torch.tensor([self._bar], dtype=torch.float64))
        self._bar = float(bars.min())
        own = self._pixels()
        own = own.where(own.draws < self._bar)
        draws, images, shares, truth = (
            concatenate(rows)
            for rows in (
                torch.from_numpy(own.draws),
                torch.from_numpy(own.images),
                own.shares.T,
                own.truth,
            )
        )
        self._parts = [_Pixels(draws.numpy(), images.numpy(), shares.T, truth)]
        self._bound(shares.shape[1])

    def temperature(self) -> float:
        """Return the temperature that fits all pixels best; 1 where there are none."""
        return self._pixels().temperature()

    def calibration(self) -> Calibration | None:
        """Estimate what scaling by `temperature` gives on images that it was not fitted to.

        The temperature of every other image is that fitted to the rest, and the other way round.

        Returns:
            The scores of both halves together, and the temperature of all images; None where a half
            holds no pixel, as with a single image.
        """
        pixels, counts = self._pixels(), Reliability()
        odd = np.unique(pixels.images, return_inverse=True)[1] % 2 == 1
        if not odd.any():
            return None
        for half in (odd, ~odd):
            measured = pixels.where(half)
            prediction = measured.shares.argmax(0)
            confidence = scale_(measured.shares, pixels.where(~half).temperature()).amax(0)
            counts.add(measured.truth.numpy(), prediction.numpy(), confidence.numpy())
        return counts.calibration(pixels.temperature())

    def _pixels(self) -> "_Pixels":
        return _Pixels(
            np.concatenate([p.draws for p in self._parts] or [np.empty(0, np.float32)]),
            np.concatenate([p.images for p in self._parts] or [np.empty(0, np.int64)]),
            torch.cat([p.shares for p in self._parts] or [torch.empty(1, 0)], 1),
            torch.cat([p.truth for p in self._parts] or [torch.empty(0, dtype=torch.long)]),
        )


@dataclass(frozen=True)
class _Pixels:
    """N sampled pixels: draws (N,), numbers of images (N,), probabilities (K, N), truth (N,)."""

    draws: NDArray[np.float32]
    images: NDArray[np.int64]
    shares: Tensor
    truth: Tensor

    def where(self, kept: NDArray[np.bool_]) -> "_Pixels":
        chosen = torch.from_numpy(kept)
        return _Pixels(
            self.draws[kept], self.images[kept], self.shares[:, chosen], self.truth[chosen]
        )

    def temperature(self) -> float:
        return fit_temperature(self.shares, self.truth)


def scale_(probabilities: Tensor, temperature: float) -> Tensor:
    """Turn probabilities ``(K, ...)`` into softmax(log(p) / T) over K, in place; return them.

    The order of the classes stays, but for values so near that they round to the same.
    """
    if temperature != 1:  # p^(1/T) over its sum is the same
        probabilities.clamp_min_(_SMALLEST).pow_(1 / temperature)
        probabilities.div_(probabilities.sum(0))
    return probabilities


def fit_temperature(probabilities: Tensor, truth: Tensor) -> float:
    """Return the T of `scale_` for which the true classes are most likely.

    The mean negative log-likelihood is convex in 1 / T; the sign of its derivative says on which
    side of a T the best one lies, and T is found to a thousandth of itself by halving.

    Args:
        probabilities: ``(K, N)`` floating, summing to 1 over K.
        truth: ``(N,)`` int64 class indices, none ignored.

    Returns:
        Within `TEMPERATURES`; 1 where N is 0.
    """
    if not len(truth):
        return 1.0
    # Classes first: sums over a short last axis are several times slower.
    logs = probabilities.float().clamp_min(_SMALLEST).log().contiguous()
    wanted = float(logs.gather(0, truth[None]).double().mean())

    def too_sharp(temperature: float) -> bool:
        expected = ((logs / temperature).softmax(0) * logs).sum(0)
        return float(expected.double().mean()) > wanted

    low, high = TEMPERATURES
    if not too_sharp(low):
        return low
    if too_sharp(high):
        return high
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if too_sharp(middle) else (low, middle)
    return math.sqrt(low * high)
