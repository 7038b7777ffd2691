"""Batches of stored patches as tensors, from memory where the patches fit, else from the disk."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg.devices import memory_of, to_device


class Patches:
    """All training patches, ready to be drawn in any order.

    Args:
        images: (N, P, P, C) in the sources' own dtype; may be a memory map.
        masks: (N, P, P) uint8 class indices, 255 ignored; may be a memory map.
        mean: Per channel.
        std: Per channel.
        device: Where batches are wanted. Patches that fit into half of its memory are kept there.
        processes: How many on this machine share that memory; each keeps its own, but a GPU is
            one's own.
    """

    def __init__(
        self,
        images: NDArray[Any],
        masks: NDArray[np.uint8],
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        processes: int = 1,
    ) -> None:
        self.device = device
        room = memory_of(device) / 2 / (1 if device.type == "cuda" else processes)
        self.in_memory = images.nbytes + masks.nbytes <= room
        if self.in_memory:
            images, masks = np.array(images), np.array(masks)
        self._images, self._masks = images, masks
        self._resident: tuple[Tensor, Tensor] | None = None
        if self.in_memory and device.type == "cuda":
            self._resident = (_tensor(images).to(device), torch.from_numpy(masks).to(device))
        self._mean = torch.tensor(mean, device=device).view(-1, 1, 1)
        self._scale = 1 / torch.tensor(std, device=device).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return normalised images (n, C, P, P), channels last, and masks (n, P, P) uint8."""
        if self._resident:
            where = to_device(torch.from_numpy(indices), self.device)
            images, masks = self._resident[0][where], self._resident[1][where]
        else:
            images = to_device(_tensor(self._images[indices]), self.device)
            masks = to_device(torch.from_numpy(self._masks[indices]), self.device)
        return images.permute(0, 3, 1, 2).float().sub_(self._mean).mul_(self._scale), masks


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of ``count`` patches in an epoch: a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _tensor(images: NDArray[Any]) -> Tensor:
    """Return images as a tensor; torch computes little on uint16, so that becomes float32."""
    wide = images.dtype.itemsize == 2
    return torch.from_numpy(images.astype(np.float32) if wide else np.ascontiguousarray(images))
