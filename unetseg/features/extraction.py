"""The features of each pixel of an image, before anything is painted, at six resolutions.

Level k has the resolution of the picture divided by 2^k. Levels 1 to 5 hold the features of the
pretrained encoder at strides 2 to 32. Levels 0 to 3 also hold a few filters of the picture at that
resolution, as in ImageJ's trainable segmentation. They find fine lines and plain colours. No level
is ever enlarged as a whole, so that a picture of four megapixels takes 160 MB. Levels 0 to 4 can
also hold the encoder's features of the picture at double size, which show small things.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unetseg import devices
from unetseg.features.encoder_weights import read_encoder_weights
from unetseg.network.pretrained import PretrainedEncoder, as_photographs
from unetseg.network.unet import fill_to_multiple
from unetseg.pictures.transforms import fit_channels, halve_image

MAX_PIXELS = 2048 * 2048  # a larger picture is halved: features take a second and 160 MB at most
_FILTERED = 4  # levels with filters; the last of them smooths over about 16 pixels
_FARTHEST = 200.0  # deviations from the mean: float16 holds the square of no more than 255
_FLAT = 1e-4  # of the mean: a picture with a smaller deviation is blank
_REACH = 4  # pixels that a filter looks at on each side
_ROWS = 64  # so many rows are filtered at once


@dataclass(frozen=True)
class Features:
    """The features of an image.

    Attributes:
        levels: (F_k, rows / 2^k, columns / 2^k) float16 for k from 0. Rows and columns of the
            picture are filled up to multiples of 32.
        shape: Rows and columns of the picture, which may be reduced.
        scale: Pixels of the image along a pixel of the picture: 1, 2, 4, ...
        groups: The numbers of features of the same kind that follow each other, over all levels.
        channels: The number of channels of the picture. They are the first features of level 0.
    """

    levels: tuple[Tensor, ...]
    shape: tuple[int, int]
    scale: int
    groups: tuple[int, ...]
    channels: int

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the features take."""
        return sum(level.nbytes for level in self.levels)

    def at(self, rows: NDArray[Any], columns: NDArray[Any]) -> Tensor:
        """Return the features of n pixels, between the cells of a level by bilinear interpolation.

        Args:
            rows: (n,) row numbers in the image.
            columns: (n,) column numbers in the image.

        Returns:
            (n, F) float32; F is the sum of the levels' features.
        """
        parts = []
        for k, level in enumerate(self.levels):
            (top, bottom, down), (left, right, across) = (
                _neighbours(numbers, self.scale * 2**k, size)
                for numbers, size in zip((rows, columns), level.shape[1:], strict=True)
            )
            upper, lower = (
                torch.lerp(level[:, row, left].float(), level[:, row, right].float(), across)
                for row in (top, bottom)
            )
            parts.append(torch.lerp(upper, lower, down))
        return torch.cat(parts).T.contiguous()


def reduced_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of the picture that is described instead of an image of a size."""
    while height * width > MAX_PIXELS:
        height, width = -(-height // 2), -(-width // 2)
    return height, width


class Extractor:
    """Computes features; its encoder takes 14 MB.

    The mean and the deviation of the first image that is not blank normalise all images, and its
    channels are expected of all. So the images of a project are described alike, dark ones and
    those of 16 bits too.
    """

    def __init__(self) -> None:
        encoder = PretrainedEncoder()
        encoder.load_state_dict(read_encoder_weights())
        self._fast = devices.is_fast_in_bfloat16(torch.device("cpu"))
        self._encoder = encoder.eval()
        self._range: tuple[Tensor, Tensor] | None = None

    @torch.inference_mode()
    def extract(
        self,
        image: NDArray[Any],
        pause: Callable[[], None] = lambda: None,
        finely: bool = False,
    ) -> Features:
        """Return the features of an image (H, W, C) of any depth.

        Args:
            image: uint8, uint16 or float32, with finite values.
            pause: A function that is called many times meanwhile. It may wait, and it may raise an
                error that ends the work.
            finely: The encoder's features of the picture at double size are added, in which it
                sees small things. That takes four times as long, and twice the memory.

        Raises:
            InputError: The image has other channels than that one, and neither is grey.
        """
        if self._range is not None:
            image = fit_channels(image, self._range[0].shape[1], "the image")
        scale, size = 1, reduced_size(*image.shape[:2])
        while image.shape[:2] != size:
            image, scale = halve_image(image), 2 * scale
            pause()
        picture = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
        mean, deviation = self._range or self._measure(picture)
        picture = ((picture - mean) / deviation).clamp_(-_FARTHEST, _FARTHEST)
        picture = fill_to_multiple(picture, self._encoder.multiple)
        pause()
        parts = [[], *([level] for level in self._encode(picture, pause))]
        if finely:
            large = F.interpolate(picture, scale_factor=2.0, mode="bilinear")
            # Its strides 2 to 32 are 1 to 16 of the picture.
            for level, added in zip(parts, self._encode(large, pause), strict=False):
                level.append(added)
        for k in range(_FILTERED):
            parts[k].insert(0, _filter(picture[0], k == 0, pause))
            picture = F.avg_pool2d(picture, 2)
        return Features(
            tuple(torch.cat(level) for level in parts),
            (image.shape[0], image.shape[1]),
            scale,
            tuple(len(part) for level in parts for part in level),
            image.shape[2],
        )

    def _measure(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of a picture, and keep them unless it shows nothing."""
        deviation, mean = torch.std_mean(picture, (2, 3), correction=0, keepdim=True)
        found = mean, deviation.clamp_min(1e-6)
        if (deviation > _FLAT * mean.abs()).any():
            self._range = found
        return found

    def _encode(self, picture: Tensor, pause: Callable[[], None]) -> list[Tensor]:
        """Return the encoder's features of a picture (1, C, H, W): (c, H / s, W / s) float16."""
        x = as_photographs(picture)
        x = x.to(torch.bfloat16) if self._fast else x
        handles = [
            layer.register_forward_hook(lambda *_: pause())
            for layer in (self._encoder.stem, *self._encoder.blocks)
        ]
        try:
            # Channels last: twice as fast on a CPU.
            levels = self._encoder(x.contiguous(memory_format=torch.channels_last))
        finally:
            for handle in handles:
                handle.remove()
        return [level[0].half().contiguous() for level in levels]


def _filter(picture: Tensor, finest: bool, pause: Callable[[], None]) -> Tensor:
    """Return the filters (F, H, W) float16 of a picture (C, H, W).

    Two filters of each channel are the smoothed channel and its square. Four filters of the mean of
    the channels are the length of the gradient, both eigenvalues of the Hessian and the local
    deviation. At the finest level the channels themselves stand first.
    """
    channels, height, width = picture.shape
    first = channels if finest else 0
    found = torch.empty(first + 2 * channels + 4, height, width, dtype=torch.float16)
    if finest:
        found[:channels] = picture
    padded = F.pad(picture, (_REACH,) * 4, mode="replicate")
    for top in range(0, height, _ROWS):  # bands stay in the processor's cache
        rows = min(_ROWS, height - top)
        band = padded[:, top : top + rows + 2 * _REACH]
        for place, planes in enumerate(_filter_band(band), first):
            found[place, top : top + rows] = planes
        pause()
    return found


def _filter_band(band: Tensor) -> Iterator[Tensor]:
    """Yield the filters (h, w) of a band (C, h + 8, w + 8): 2 C and 4 more."""
    smooth = _smooth(band)  # (C, h + 4, w + 4)
    inner = smooth[:, 2:-2, 2:-2]
    yield from inner
    yield from inner.square()
    level = smooth.mean(0)
    down, right = _slope(level, 0), _slope(level, 1)  # two rows less, two columns less
    yield torch.hypot(down[1:-1, 2:-2], right[2:-2, 1:-1])
    both = _slope(down, 1)[1:-1, 1:-1]
    down_twice, right_twice = _slope(down, 0)[:, 2:-2], _slope(right, 1)[2:-2]
    middle = (down_twice + right_twice) / 2
    spread = torch.hypot((down_twice - right_twice) / 2, both)
    yield middle + spread
    yield middle - spread
    squares = _smooth(band[:, 2:-2, 2:-2].mean(0).square()[None])[0]
    yield (squares - level[2:-2, 2:-2].square()).clamp_min_(0).sqrt_()


def _smooth(planes: Tensor) -> Tensor:
    """Return planes (n, h + 4, w + 4) smoothed by a Gaussian of sigma 1: (n, h, w)."""
    for axis in (1, 2):
        size = planes.shape[axis] - 4
        parts = [planes.narrow(axis, start, size) for start in range(5)]
        # The binomial weights 1 4 6 4 1.
        planes = torch.add(parts[0] + parts[4], parts[1] + parts[3], alpha=4)
        planes = planes.add_(parts[2], alpha=6).mul_(1 / 16)
    return planes


def _slope(plane: Tensor, axis: int) -> Tensor:
    """Return the central differences along an axis, which loses its first and last place."""
    size = plane.shape[axis] - 2
    return (plane.narrow(axis, 2, size) - plane.narrow(axis, 0, size)).mul_(0.5)


def _neighbours(numbers: NDArray[Any], step: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells before and after pixels, and the share of the way to the second, 0 to 1.

    Args:
        numbers: Row or column numbers of pixels.
        step: Pixels along a cell: cell 0 of step 4 has its centre between pixels 1 and 2.
        size: The number of cells.
    """
    places = (torch.from_numpy(np.asarray(numbers, np.float32)) + 0.5) / step - 0.5
    places = places.clamp_(0, size - 1)
    before = places.long()
    return before, (before + 1).clamp_max_(size - 1), places - before
