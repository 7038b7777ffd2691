"""A network over a whole image: overlapping windows, averaged, in bounded memory.

Windows are computed row by row. Their weighted probabilities are summed in a band as high as the
rows at hand; lines that no later window touches are divided by their weights and handed on. The
probabilities of the whole image need never exist at once.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetseg.calibration import scale_
from unetseg.patches import pad_to, starts, window_weights


class Segmenter:
    """One network or several (their probabilities averaged) with all it takes to cover an image.

    Args:
        networks: Each maps (N, C, S, S) float32 to logits (N, K, S, S); moved to ``device``.
        means: Of each network, per channel, in the units of the training images.
        stds: Likewise, above 0.
        size: Side S of a window in pixels.
        stride: Pixels between windows, 1 to ``size``.
        weights: "gaussian" or "uniform", see `unetseg.patches.window_weights`.
        flips: Symmetries to average over besides the plain view, each a tuple of axes to flip:
            (-1,) left-right, (-2,) up-down, (-2, -1) both.
        batch_size: Windows computed at once.
        temperature: Above 0; what `bands`, `probabilities` and confidences are is softmax(log(p) /
            T) of the averages p over windows, networks and views. No label changes.
        device: Where to compute.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        size: int,
        means: Sequence[Sequence[float]],
        stds: Sequence[Sequence[float]],
        stride: int,
        weights: str = "gaussian",
        flips: Sequence[tuple[int, ...]] = (),
        batch_size: int = 16,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.networks = [
            n.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for n in networks
        ]
        self.size, self.stride, self.batch_size = size, stride, batch_size
        self.temperature = temperature
        self.views: list[tuple[int, ...]] = [(), *flips]
        self._weights = torch.from_numpy(window_weights(size, weights)).to(self.device)
        # Networks that are normalised alike see one and the same batch.
        groups: dict[tuple[tuple[float, ...], tuple[float, ...]], list[nn.Module]] = {}
        for network, mean, std in zip(self.networks, means, stds, strict=True):
            groups.setdefault((tuple(mean), tuple(std)), []).append(network)
        self._groups = [
            (self._per_channel(mean), self._per_channel(std), members)
            for (mean, std), members in groups.items()
        ]

    def _per_channel(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self.device).view(-1, 1, 1)

    def labels(
        self, image: NDArray[Any], shape: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Return the most probable class of each pixel of an image (H, W, C).

        Args:
            image: As for `bands`.
            shape: Height and width wanted; None, the image's own. Others are reached by bilinear
                interpolation of the probabilities, which keeps borders smooth.

        Returns:
            (H, W) uint8 class indices, or of ``shape``.
        """
        rows = [_labels(band) for band in self._averages(image, shape)]
        return torch.cat(rows).numpy()

    def labels_and_confidence(
        self, image: NDArray[Any], shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return `labels` and the probability (H, W) float32 of each; ``shape`` as there.

        The probabilities of the other classes never exist for the whole image at once.
        """
        labels, confidence = [], []
        for band in self._averages(image, shape):
            labels.append(_labels(band))
            confidence.append(self._scaled(band).amax(0).cpu())
        return torch.cat(labels).numpy(), torch.cat(confidence).numpy()

    def labels_and_probabilities(
        self, image: NDArray[Any], shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return `labels` and `probabilities`, computed at once."""
        labels, probabilities = [], []
        for band in self._averages(image, shape):
            labels.append(_labels(band))
            probabilities.append(self._scaled(band).cpu())
        return torch.cat(labels).numpy(), torch.cat(probabilities, 1).numpy()

    def probabilities(
        self, image: NDArray[Any], shape: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Return the class probabilities (K, H, W) float32, summing to 1; ``shape`` as above."""
        bands = [self._scaled(band).cpu() for band in self._averages(image, shape)]
        return torch.cat(bands, 1).numpy()

    def bands(self, image: NDArray[Any]) -> Iterator[Tensor]:
        """Yield the probabilities of an image from top to bottom in bands (K, rows, W) float32.

        Args:
            image: (H, W, C) in the units and channels of the training images. One smaller than a
                window is reflected up to its size first, and cut back.
        """
        return map(self._scaled, self._averages(image))

    @torch.inference_mode()
    def _scaled(self, band: Tensor) -> Tensor:
        return scale_(band, self.temperature)

    def _averages(
        self, image: NDArray[Any], shape: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Yield `bands` of ``shape``, interpolated where need be, before any temperature."""
        bands, own = self._averages_of(image), (image.shape[0], image.shape[1])
        return bands if shape in (None, own) else resized(bands, own[0], shape)

    @torch.inference_mode()
    def _averages_of(self, image: NDArray[Any]) -> Iterator[Tensor]:
        height, width = image.shape[:2]
        image = pad_to(image, self.size, self.size)
        rows = starts(image.shape[0], self.size, self.stride)
        columns = starts(image.shape[1], self.size, self.stride)
        together = max(1, self.batch_size // len(columns))  # rows of windows that fill a batch
        total = weight = None
        for first in range(0, len(rows), together):
            group = rows[first : first + together]
            top = int(group[0])
            bottom = int(group[-1]) + self.size
            corners = [(int(r), int(c)) for r in group for c in columns]
            for begin in range(0, len(corners), self.batch_size):
                batch = corners[begin : begin + self.batch_size]
                probabilities = self._windows(image, batch)  # (n, K, S, S)
                if total is None or weight is None:
                    total = probabilities.new_zeros(probabilities.shape[1], 0, image.shape[1])
                    weight = probabilities.new_zeros(0, image.shape[1])
                if total.shape[1] < bottom - top:
                    grow = bottom - top - total.shape[1]
                    total = nn.functional.pad(total, (0, 0, 0, grow))
                    weight = nn.functional.pad(weight, (0, 0, 0, grow))
                for (row, column), window in zip(batch, probabilities, strict=True):
                    place = (
                        slice(row - top, row - top + self.size),
                        slice(column, column + self.size),
                    )
                    total[:, *place].addcmul_(window, self._weights)
                    weight[place] += self._weights
            assert total is not None
            assert weight is not None
            following = first + together
            done = int(rows[following]) - top if following < len(rows) else image.shape[0] - top
            visible = min(done, height - top)
            if visible > 0:
                yield total[:, :visible, :width] / weight[:visible, :width]
            total, weight = total[:, done:].clone(), weight[done:].clone()

    def _windows(self, image: NDArray[Any], corners: list[tuple[int, int]]) -> Tensor:
        """Return the softmax of the windows at ``corners``: (n, K, S, S), averaged over views."""
        s = self.size
        stack = np.stack([image[r : r + s, c : c + s] for r, c in corners])  # (n, S, S, C)
        if stack.dtype == np.uint16:
            stack = stack.astype(np.float32)  # torch computes little on uint16
        batch = torch.from_numpy(stack).to(self.device).permute(0, 3, 1, 2).float()
        result: Tensor | None = None
        for mean, std, networks in self._groups:
            seen = (batch - mean) / std
            for network, axes in itertools.product(networks, self.views):
                with torch.autocast(  # as in training
                    self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"
                ):
                    logits = network(seen.flip(axes) if axes else seen)
                view = logits.float().softmax(1)
                view = view.flip(axes) if axes else view
                result = view if result is None else result.add_(view)
        assert result is not None
        return result.div_(len(self.networks) * len(self.views))


def _labels(band: Tensor) -> Tensor:
    return band.argmax(0).to(torch.uint8).cpu()


def resized(bands: Iterable[Tensor], height: int, shape: tuple[int, int]) -> Iterator[Tensor]:
    """Interpolate an image that comes in bands; what goes out comes in bands, too.

    Equal to `torch.nn.functional.interpolate` of the whole image, mode "bilinear", within rounding.

    Args:
        bands: (K, rows, W) float32, from top to bottom.
        height: Rows of all of them together.
        shape: Height and width wanted.

    Yields:
        (K, rows, ``shape[1]``), ``shape[0]`` rows together.
    """
    # Where in the image the centre of each wanted row lies, and the rows above and below it.
    places = ((torch.arange(shape[0]) + 0.5) * (height / shape[0]) - 0.5).clamp(0, height - 1)
    above = places.long()
    below, share = (above + 1).clamp_max(height - 1), (places - above)[:, None]
    held, first, done = None, 0, 0  # rows at hand, the number of their first, rows handed on
    for band in bands:
        band = nn.functional.interpolate(band[None], (band.shape[1], shape[1]), mode="bilinear")[0]
        held = band if held is None else torch.cat([held, band], 1)
        ready = int(torch.searchsorted(below, first + held.shape[1]))
        if ready > done:
            rows, device = slice(done, ready), held.device
            upper, lower = (
                held.index_select(1, (numbers[rows] - first).to(device))
                for numbers in (above, below)
            )
            yield upper.lerp(lower, share[rows].to(device))
            done = ready
        if ready < shape[0]:
            unneeded = min(int(above[ready]) - first, held.shape[1])
            held, first = held[:, unneeded:], first + unneeded
