"""Whether an image looks like those that a model was trained on, in a few numbers and plain words.

A network gives no warning on an image that it was not made for: its mask may be wrong while its
probabilities are high. Some differences between images show in plain statistics, which an eye can
check: exposure, bit depth, contrast, a negative, focus, magnification.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictInt

from unetseg.dataset.geometry import pad_to
from unetseg.pictures.bands import Rows
from unetseg.records import Number

WINDOWS = 64  # the largest number of windows in an image
SIDE = 96  # the largest side of a window; so an image is described in less than 0.1 s
FEWEST = 3  # the range of fewer training images says too little about the next image
_MANY = 8  # with fewer training images, only gross differences are told; see `AppearanceRange`
_SMALLEST = 8  # the smallest side of a window, so that half of it still has second differences
# With so many windows of so many images, a run describes its training images in about a second.
_TRAINING_WINDOWS, _TRAINING_IMAGES = 16, 100
_TINY = 1e-30  # keeps the logarithms of an empty image finite


@dataclass(frozen=True)
class Appearance:
    """The appearance of an image in numbers.

    The first four measures have one value per channel. The others have one value, the mean over the
    channels.

    Attributes:
        mean: The mean of the pixels.
        contrast: The base-2 logarithm of their standard deviation.
        low: Their 1st percentile.
        high: Their 99th percentile.
        skewness: Their third standardised moment. It is below 0 where dark pixels are few and above
            0 where bright pixels are few. A negative has the opposite sign.
        sharpness: The root mean square of the second differences (the four-neighbour Laplacian),
            divided by that of the first differences. This ratio at full resolution is divided by
            the ratio at half resolution, as a base-2 logarithm. It is about 0 for images that look
            alike at any scale, as photographs do. The source is Field (1987), "Relations between
            the statistics of natural images and the response properties of cortical cells". It is
            below 0 where the finest scale is weak, as after a blur or a resampling. White noise has
            0 too. Brightness and contrast do not change it.
        fineness: The root mean square of the Laplacian at full resolution, divided by that at half
            resolution, as a base-2 logarithm. It is 1 for white noise, about -2 for a smooth image.
            The energy of the Laplacian is a measure of focus (Pech-Pacheco et al., 2000, "Diatom
            autofocusing in brightfield microscopy"). Relative to half resolution, it also tells
            fine structures from coarse structures.
    """

    mean: tuple[Number, ...]
    contrast: tuple[Number, ...]
    low: tuple[Number, ...]
    high: tuple[Number, ...]
    skewness: tuple[Number, ...]
    sharpness: tuple[Number, ...]
    fineness: tuple[Number, ...]

    def values(self) -> list[float]:
        """Return all numbers, in the order of the attributes."""
        return [value for name in _NAMES for value in getattr(self, name)]


_NAMES = tuple(field.name for field in fields(Appearance))
_POOLED = ("skewness", "sharpness", "fineness")  # means over the channels


def sample_windows(image: Rows, size: int) -> NDArray[np.float32]:
    """Return up to `WINDOWS` windows that are spread evenly over an image.

    Args:
        image: (H, W, C); an image smaller than a window is reflected up to that size.
        size: Side S of a window.

    Returns:
        (n, S, S, C) float32.
    """
    height, width = image.shape[:2]
    if height < size or width < size:
        image = pad_to(image[0:height], size, size)
    most = math.isqrt(WINDOWS)
    tops, lefts = (
        np.linspace(0, side - size, min(most, -(-side // size))).astype(np.int64).tolist()
        for side in image.shape[:2]
    )
    strips = (image[top : top + size] for top in tops)
    return np.stack([s[:, left : left + size] for s in strips for left in lefts]).astype(np.float32)


def describe(windows: NDArray[np.float32]) -> Appearance:
    """Return the appearance of an image from its windows (n, S, S, C), where S is at least 8."""
    planes = np.ascontiguousarray(np.moveaxis(windows, 3, 0))
    table = np.array([_measures(plane) for plane in planes])
    columns = {name: tuple(table[:, k].tolist()) for k, name in enumerate(_NAMES)}
    return Appearance(**columns | {name: (fmean(columns[name]),) for name in _POOLED})


def _measures(x: NDArray[np.float32]) -> tuple[float, ...]:
    """Return the values of an `Appearance`, in order, of one channel (n, S, S)."""
    few = x[:, ::2, ::2].ravel()
    mean, spread = float(few.mean(dtype=np.float64)), float(few.std(dtype=np.float64))
    low, high = np.percentile(few, (1, 99)).tolist()
    unit = np.float32(spread if spread > _TINY else 1)  # no power of the scaled values can overflow
    away, x = few / unit - np.float32(mean / float(unit)), x / unit
    first, second = _differences(x)
    first_half, second_half = _differences(_halved(x))
    return (
        mean,
        math.log2(spread + _TINY),
        low,
        high,
        float((away * away * away).mean(dtype=np.float64)),
        second - first - (second_half - first_half),
        second - second_half,
    )


def _differences(x: NDArray[np.float32]) -> tuple[float, float]:
    """Return log2 of the root mean square of the first differences and of the Laplacian."""
    down, right = np.diff(x, axis=1), np.diff(x, axis=2)
    laplacian = down[:, 1:, 1:-1] - down[:, :-1, 1:-1]
    laplacian += right[:, 1:-1, 1:]
    laplacian -= right[:, 1:-1, :-1]
    energies = (_energy(down) + _energy(right)) / 2, _energy(laplacian)
    first, second = (math.log2(energy + _TINY) / 2 for energy in energies)
    return first, second


def _energy(x: NDArray[np.float32]) -> float:
    return float(np.square(x).mean(dtype=np.float64))


def _halved(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the image at half resolution: the means of 2 x 2 pixels."""
    even = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    rows = even[:, ::2] + even[:, 1::2]
    return np.asarray((rows[:, :, ::2] + rows[:, :, 1::2]) / 4, np.float32)


# The smallest tolerance. For intensities it is a share of the standard deviation within a typical
# training image. For the other measures it is a difference that is hardly visible.
_INTENSITY = 0.5
_GROSS = ("mean", "contrast")
_GROSS_MEAN, _GROSS_CONTRAST = 4.0, 2.0  # standard deviations; a factor of 4, as a logarithm
_LEAST = {"contrast": 0.25, "skewness": 0.3, "sharpness": 0.03, "fineness": 0.1}


@dataclass(frozen=True)
class AppearanceRange:
    """The range of the appearances of the images that a model was trained on.

    Two sets of 100 images were tried, road scenes from video and drawn lines and ellipses. Each
    image was judged by the patches of the other 99. No unchanged image was flagged. Every image was
    flagged after its brightness was divided by four, and after its values were divided by 257 (8
    bits in 16). So was every image after a blur (sigma 3), and after it was enlarged to double
    size. After a reduction to half, 87 and 100 % were flagged. As a negative, 52 and 100 % were
    flagged, because road scenes have many dark and many bright pixels. Judged by 20 others drawn at
    random, 0.2 and 1.2 % of the unchanged images were flagged; judged by 10 others, 0.5 and 2.1 %.

    The range of three to seven images says little. Then only gross differences of brightness and
    contrast count. Images of four sets, also of membranes and retinas, were judged by 3, 5 or 7
    others, drawn 300 times each. None of 43,200 unchanged ones was flagged: their means were up to
    2.2 standard deviations off, their contrast by a factor of up to 2.2. All were flagged after
    their values were divided or multiplied by 257 or multiplied by 16.

    Attributes:
        images: The number of the images.
        size: The side of the windows by which they were described.
        least: The smallest value of each measure.
        most: The largest value of each measure.
        tolerance: How far beyond these limits a value may lie, above 0.

    Raises:
        ValueError: A range is empty, or the numbers of channels differ.
    """

    images: Annotated[StrictInt, Field(ge=1)]
    size: Annotated[StrictInt, Field(ge=_SMALLEST, le=SIDE)]
    least: Appearance
    most: Appearance
    tolerance: Appearance

    def __post_init__(self) -> None:
        shapes = {
            tuple(len(getattr(end, name)) for name in _NAMES)
            for end in (self.least, self.most, self.tolerance)
        }
        channels = len(self.least.mean)
        if shapes != {tuple(1 if name in _POOLED else channels for name in _NAMES)}:
            raise ValueError("measures with different numbers of channels")
        ranges = zip(*(x.values() for x in (self.least, self.most, self.tolerance)), strict=True)
        if not all(least <= most and tolerance > 0 for least, most, tolerance in ranges):
            raise ValueError("an empty range")

    @classmethod
    def of(cls, appearances: Sequence[Appearance], size: int) -> Self:
        """Return the range over one or more images, which windows of ``size`` described.

        The tolerance is 1 + 20 / n standard deviations of the n images, because the range of few
        images is narrow. It is never smaller than a difference that hardly matters to a network.
        With fewer than eight images, it is that of gross differences alone.
        """
        channels = len(appearances[0].mean)
        table = np.array([one.values() for one in appearances])
        within = 2 ** np.median([one.contrast for one in appearances], axis=0)
        least: dict[str, Any] = dict(_LEAST)
        if len(appearances) < _MANY:
            least |= {"mean": _GROSS_MEAN * within, "contrast": _GROSS_CONTRAST}
        floor = [
            np.broadcast_to(
                least.get(name, _INTENSITY * within), 1 if name in _POOLED else channels
            )
            for name in _NAMES
        ]
        tolerance = np.maximum(table.std(0) * (1 + 20 / len(appearances)), np.concatenate(floor))
        ends = (_from_values(v, channels) for v in (table.min(0), table.max(0), tolerance))
        return cls(len(appearances), size, *ends)

    def unlike(self, image: Appearance) -> list[str]:
        """Say in plain words which measures of an image lie beyond the tolerance.

        An example is "darker in channel 2". The list is empty where all measures are within.

        Args:
            image: Described by windows of the same ``size``.

        Raises:
            ValueError: The image has another number of channels.
        """
        if len(image.mean) != len(self.least.mean):
            raise ValueError(f"{len(image.mean)} channels, not {len(self.least.mean)}")
        said: dict[str, str] = {}
        for name in _WORDS if self.images >= _MANY else _GROSS:
            implied = said.keys() & _IMPLIED_BY.get(name, ())
            if not implied and (text := self._phrase(name, image)):
                said[name] = text
        return list(said.values())

    def _phrase(self, name: str, image: Appearance) -> str:
        """Say in which way a measure is out of range in the worst channel; "" where none is."""
        found, least, most, tolerance = (
            np.array(getattr(x, name)) for x in (image, self.least, self.most, self.tolerance)
        )
        beyond = np.maximum(least - found, found - most) / tolerance
        worst = int(beyond.argmax())
        if not beyond[worst] > 1:
            return ""
        below, above = _WORDS[name]
        if name == "skewness" and least[0] <= -found[0] <= most[0]:
            below = above = "like a negative"
        where = f" in channel {worst + 1}" if len(found) > 1 else ""
        return (below if found[worst] < least[worst] else above) + where


# For each measure: the words for an image with a smaller or a larger value.
_WORDS = {
    "mean": ("darker", "brighter"),
    "contrast": ("less contrast", "more contrast"),
    "low": ("darker dark parts", "brighter dark parts"),
    "high": ("darker bright parts", "brighter bright parts"),
    "skewness": ("dark parts are rarer", "bright parts are rarer"),
    "sharpness": (
        "less sharp: blurred, enlarged or reduced",
        "sharper, or noisier",
    ),
    "fineness": ("coarser structures", "finer structures, or more noise"),
}
# A measure is left out where one of these other measures has said the same.
_IMPLIED_BY = {
    "low": ("mean", "contrast"),
    "high": ("mean", "contrast"),
    "fineness": ("sharpness",),
}


def appearance_of_patches(
    patches: NDArray[Any], sources: NDArray[np.integer[Any]], size: int
) -> AppearanceRange | None:
    """Return the range of the appearances of the images from which patches were cut.

    Args:
        patches: (N, P, P, C); only the middle of each patch is used.
        sources: (N,) the number of the image from which each patch was cut.
        size: The side of the middle, at most P.

    Returns:
        The range; None for fewer than `FEWEST` images or for a size that is too small.
    """
    side, images = min(size, SIDE), np.unique(sources)
    if len(images) < FEWEST or side < _SMALLEST:
        return None
    images = images[_spread(len(images), _TRAINING_IMAGES)]
    appearances = [describe(_windows(patches, sources == image, size, side)) for image in images]
    return AppearanceRange.of(appearances, side)


def _windows(
    patches: NDArray[Any], chosen: NDArray[np.bool_], size: int, side: int
) -> NDArray[np.float32]:
    """Return windows (n, side, side, C) from the grid that divides the chosen patches."""
    first, across = (patches.shape[1] - size) // 2, size // side
    numbers, found = np.flatnonzero(chosen), []
    for k in _spread(len(numbers) * across**2, _TRAINING_WINDOWS).tolist():
        patch, row, column = k // across**2, k // across % across, k % across
        top, left = first + row * side, first + column * side
        found.append(patches[numbers[patch], top : top + side, left : left + side])
    return np.stack(found).astype(np.float32)


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` evenly spread whole numbers below ``count``."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def _from_values(values: NDArray[np.float64], channels: int) -> Appearance:
    counts = [1 if name in _POOLED else channels for name in _NAMES]
    parts = np.split(values, np.cumsum(counts)[:-1])
    return Appearance(*(tuple(part.tolist()) for part in parts))
