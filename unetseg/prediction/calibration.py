"""Whether probabilities can be believed: of ten pixels given 0.9, nine should be right.

Networks that were trained for long are too sure of themselves. One number mends most of that: the
logits are divided by a temperature, which is fitted on held-out images. The source is Guo et al.
(2017), "On calibration of modern neural networks". Overlapping windows, mirrored views and
ensembles leave averaged probabilities instead of logits. So unetseg always applies a temperature T
to the logarithm of the averaged probabilities: softmax(log(p) / T). For a single window that is the
same.
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
SAMPLE = 200_000  # a temperature is fitted to at most so many pixels
_VALUES = 2_000_000  # and to so many probabilities, so that more than ten classes get fewer pixels
TEMPERATURES = (0.2, 5.0)  # the range of a fitted temperature
_SMALLEST = 1e-7  # smaller probabilities are raised to it: their logarithms would rule the fit


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be believed.

    Attributes:
        temperature: The temperature by which the probabilities were scaled; 1 changes nothing.
        error: Expected calibration error, 0 to 1 (Naeini et al., 2015; Guo et al., 2017). It is the
            mean over pixels of the difference between accuracy and mean confidence of their bin.
        confidence: The mean probability of the predicted class in each bin. There are `BINS` bins
            of equal width from 0 to 1. An empty bin has 0 in this and the next attributes.
        accuracy: The share of pixels in each bin whose predicted class is the true class.
        pixels: The number of pixels in each bin.
    """

    temperature: float
    error: float
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    pixels: tuple[int, ...]


class Reliability:
    """Counts the pixels of several images for a `Calibration`."""

    def __init__(self) -> None:
        self._pixels = np.zeros(BINS, np.int64)
        self._right = np.zeros(BINS, np.int64)
        self._confidence = np.zeros(BINS)

    def add(self, truth: NDArray[Any], prediction: NDArray[Any], confidence: NDArray[Any]) -> None:
        """Count the pixels of an image or of a part of it.

        Args:
            truth: True class indices, any shape; pixels of `IGNORED` are not counted.
            prediction: The most probable classes, in the same shape.
            confidence: The probabilities of these classes, floating, 0 to 1, in the same shape.
        """
        valid = truth != IGNORED
        sure = confidence[valid].astype(np.float64)
        bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)  # 1.0 belongs to the last bin
        right = (truth == prediction)[valid]
        self._pixels += np.bincount(bins, minlength=BINS)
        self._right += np.bincount(bins[right], minlength=BINS)
        self._confidence += np.bincount(bins, sure, minlength=BINS)

    def calibration(self, temperature: float = 1.0) -> Calibration | None:
        """Return the calibration of all counted pixels; None where there are none.

        Args:
            temperature: The temperature by which the probabilities were scaled, to be noted.
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
    """A random sample of the pixels of several images, of bounded size and uniform.

    Each pixel draws a random number and stays while that number is below a bar. Whenever too many
    pixels have gathered, the bar is halved, and pixels above it are dropped. So the number of
    images need not be known beforehand.

    Args:
        limit: The largest number of pixels to hold; with more than ten classes fewer are held.
        seed: The seed of the random numbers. Equal images in equal order give an equal sample,
            however they are cut into bands.
    """

    def __init__(self, limit: int = SAMPLE, seed: int = 0) -> None:
        self._limit, self._rng, self._bar = limit, np.random.default_rng(seed), 1.0
        self._parts: list[_Pixels] = []

    def add(self, image: int, probabilities: Tensor, truth: Tensor) -> None:
        """Take pixels from an image, or from one of the bands into which it is cut.

        Args:
            image: The number of the image.
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
        """Drop pixels until their number is within the limit."""
        limit = min(self._limit, _VALUES // classes)
        while sum(len(p.draws) for p in self._parts) > limit:
            self._bar /= 2
            self._parts = [p.where(p.draws < self._bar) for p in self._parts]

    def pool(self, concatenate: Callable[[Tensor], Tensor]) -> None:
        """Merge the samples of all processes, each of which saw other images.

        Args:
            concatenate: Returns the concatenated rows of the tensors ``(n, ...)`` of all processes.
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
        """Return the temperature that fits the sampled pixels best; 1 where there are none."""
        return self._pixels().temperature()

    def calibration(self) -> Calibration | None:
        """Estimate the calibration on images to which the temperature was not fitted.

        The images are divided into two halves. Each half is scaled by the temperature that fits the
        other half.

        Returns:
            The scores of both halves together, with the temperature that fits all images. None
            where a half holds no pixel, as with a single image.
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
    """N sampled pixels: draws (N,), image numbers (N,), probabilities (K, N), truth (N,)."""

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

    The order of the classes stays, except for values so close that they round to the same number.
    """
    if temperature != 1:  # p^(1/T), divided by its sum, is the same softmax
        probabilities.clamp_min_(_SMALLEST).pow_(1 / temperature)
        probabilities.div_(probabilities.sum(0))
    return probabilities


def fit_temperature(probabilities: Tensor, truth: Tensor) -> float:
    """Return the T of `scale_` for which the true classes are most likely.

    The mean negative log-likelihood is convex in 1 / T. The sign of its derivative says on
    which side the best T lies. Bisection finds the best T within a thousandth.

    Args:
        probabilities: ``(K, N)`` floating, summing to 1 over K.
        truth: ``(N,)`` int64 class indices, none ignored.

    Returns:
        A number within `TEMPERATURES`; 1 where N is 0.
    """
    if not len(truth):
        return 1.0
    # The classes are the first axis: sums over a short last axis are several times slower.
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
