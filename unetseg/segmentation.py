"""A network over a whole image: overlapping windows, averaged, in bounded memory.

Windows are computed row by row. Their weighted probabilities are summed in a band as high as the
rows at hand; lines that no later window touches are divided by their weights and handed on. The
probabilities of the whole image need never exist at once.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetseg.patches import pad_to, starts, window_weights


class Segmenter:
    """One network or several (their probabilities averaged) with all it takes to cover an image.

    Args:
        networks: Each maps (N, C, S, S) float32 to logits (N, K, S, S); moved to ``device``.
        mean: Per channel, in the units of the training images.
        std: Likewise, above 0.
        size: Side S of a window in pixels.
        stride: Pixels between windows, 1 to ``size``.
        weights: "gaussian" or "uniform", see `unetseg.patches.window_weights`.
        flips: Symmetries to average over besides the plain view, each a tuple of axes to flip:
            (-1,) left-right, (-2,) up-down, (-2, -1) both.
        batch_size: Windows computed at once.
        device: Where to compute.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        stride: int,
        weights: str = "gaussian",
        flips: Sequence[tuple[int, ...]] = (),
        batch_size: int = 16,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.networks = [
            n.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for n in networks
        ]
        self.size, self.stride, self.batch_size = size, stride, batch_size
        self.views: list[tuple[int, ...]] = [(), *flips]
        self._weights = torch.from_numpy(window_weights(size, weights)).to(self.device)
        self._mean = torch.tensor(mean, device=self.device).view(-1, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(-1, 1, 1)

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
        if shape not in (None, image.shape[:2]):
            whole: NDArray[np.uint8] = self.probabilities(image, shape).argmax(0).astype(np.uint8)
            return whole
        rows = [band.argmax(0).to(torch.uint8).cpu() for band in self.bands(image)]
        return torch.cat(rows).numpy()

    def probabilities(
        self, image: NDArray[Any], shape: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Return the class probabilities (K, H, W) float32, summing to 1; ``shape`` as above."""
        whole = torch.cat([band.cpu() for band in self.bands(image)], 1)
        if shape not in (None, image.shape[:2]):
            whole = nn.functional.interpolate(whole[None], shape, mode="bilinear")[0]
        return whole.numpy()

    @torch.inference_mode()
    def bands(self, image: NDArray[Any]) -> Iterator[Tensor]:
        """Yield the probabilities of an image from top to bottom in bands (K, rows, W) float32.

        Args:
            image: (H, W, C) in the units and channels of the training images. One smaller than a
                window is reflected up to its size first, and cut back.
        """
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
        batch = (batch - self._mean) / self._std
        result: Tensor | None = None
        for network in self.networks:
            for axes in self.views:
                with torch.autocast(  # as in training
                    self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"
                ):
                    logits = network(batch.flip(axes) if axes else batch)
                view = logits.float().softmax(1)
                view = view.flip(axes) if axes else view
                result = view if result is None else result.add_(view)
        assert result is not None
        return result.div_(len(self.networks) * len(self.views))
