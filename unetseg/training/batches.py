"""Batches of stored patches: read from memory or from the disk, drawn in order, augmented."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg.classes import IGNORED
from unetseg.dataset.store import Store
from unetseg.devices import memory_of, pick_device, to_device
from unetseg.network import augmentation
from unetseg.ranks import world
from unetseg.settings import split_augment
from unetseg.training.recipe import Recipe, choose_symmetries


class Patches:
    """All training patches, ready to be drawn in any order.

    Args:
        images: (N, P, P, C) in the sources' own dtype; may be a memory map.
        masks: (N, P, P) uint8 class indices, 255 ignored; may be a memory map.
        mean: The mean of each channel.
        std: The standard deviation of each channel.
        device: The device of the batches. Patches that fit into half of its memory are kept there.
        processes: The number of processes that share the memory of this machine. Each keeps its own
            copy. A GPU belongs to one process alone.
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

    @property
    def bytes_in_memory(self) -> int:
        """The bytes of memory that the patches take; 0 where they are read from the disk."""
        return self._images.nbytes + self._masks.nbytes if self.in_memory else 0

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return normalised images (n, C, P, P), channels last, and masks (n, P, P) uint8."""
        if self._resident:
            where = to_device(torch.from_numpy(indices), self.device)
            images, masks = self._resident[0][where], self._resident[1][where]
        else:
            images = to_device(_tensor(self._images[indices]), self.device)
            masks = to_device(torch.from_numpy(self._masks[indices]), self.device)
        return images.permute(0, 3, 1, 2).float().sub_(self._mean).mul_(self._scale), masks


class Batches:
    """The batch of each step of a training: a function of the seed, the epoch and the step alone.

    The patches of a step and their augmentation are drawn for all processes together, and each
    process is given its part.

    Args:
        opened: The store of the patches.
        recipe: Batch size, seed, augmentation and device.

    Attributes:
        info: The header of the store.
        device: The device of the batches.
        data: The patches.
        size: The number of patches of a step, over all processes.
        steps_per_epoch: The number of steps in which each patch is seen once.
        symmetries: The symmetries that augmentation uses.
        augmentation: The ranges that random changes are drawn from.
    """

    def __init__(self, opened: Store, recipe: Recipe) -> None:
        self.info, self.ranks, self._seed = opened.info, world(), recipe.seed
        self.device = pick_device(recipe.device)
        self.data = Patches(
            opened.images,
            opened.masks,
            self.info.mean,
            self.info.std,
            self.device,
            self.ranks.local_size,
        )
        count = len(self.data)
        self.size = min(recipe.batch_size, count)
        # A last batch of one patch joins the one before: batch normalisation needs several values.
        alone = count % self.size == 1 < self.size < count
        self.steps_per_epoch = -(-count // self.size) - alone
        preset, plugin = split_augment(recipe.augment)
        self.symmetries = choose_symmetries(recipe, self.info)
        self.augmentation = augmentation.preset(preset, self.symmetries)
        self._change = augmentation.load_plugin(plugin) if plugin else None
        self._order = functools.lru_cache(1)(functools.partial(epoch_order, count, recipe.seed))

    def indices(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the numbers of the patches of a step, counted within its epoch."""
        begin = step * self.size
        last = step == self.steps_per_epoch - 1
        return self._order(epoch)[begin : None if last else begin + self.size]

    def batch(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return this rank's part of the augmented batch of a step.

        No rank may miss a step. A rank for which the batch holds no patch takes the first, and
        ignores all its pixels.

        Returns:
            Images (n, C, S, S) float32, masks (n, S, S) int64.
        """
        indices = self.indices(epoch, step)
        seed = np.random.SeedSequence([self._seed, epoch, step])
        generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        drawn = augmentation.draw(len(indices), self.augmentation, generator)
        spare = self.ranks.rank >= len(indices)
        part = slice(1) if spare else self.ranks.own_slice
        drawn = drawn[part]
        batch = augmentation.apply(*self.data.batch(indices[part]), drawn, self.info.size)
        pictures, masks = self._change(*batch, drawn) if self._change else batch
        return pictures, masks.fill_(IGNORED) if spare else masks


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of ``count`` patches in an epoch: a function of seed and epoch alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _tensor(images: NDArray[Any]) -> Tensor:
    """Return images as a tensor; torch computes little on uint16, so that becomes float32."""
    wide = images.dtype.itemsize == 2
    return torch.from_numpy(images.astype(np.float32) if wide else np.ascontiguousarray(images))
