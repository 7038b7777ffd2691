"""What learns from patches, step by step: a network, its optimizer, its averaged weights."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unetseg import plugins
from unetseg.classes import IGNORED
from unetseg.dataset.store import Store, StoreInfo
from unetseg.devices import is_fast_in_bfloat16, pick_device
from unetseg.errors import InputError, arg
from unetseg.network import augmentation
from unetseg.network.losses import build_loss, class_weights
from unetseg.network.optimizers import (
    DEFAULT_LR,
    DEFAULT_WEIGHT_DECAY,
    average_weights,
    build_optimizer,
    match_layouts,
)
from unetseg.network.pretrained import frozen_digest, frozen_state, learned_state
from unetseg.network.unet import FusedUNet, build_network
from unetseg.prediction.encoder_weights import read_encoder_weights
from unetseg.ranks import world
from unetseg.settings import DEFAULT_EPOCHS, SYMMETRIES, TrainSettings, split_augment
from unetseg.training.batches import Patches, epoch_order

_POSITION = ("epoch", "step_in_epoch", "step", "patches_seen")


def resolve(settings: TrainSettings, size: int) -> TrainSettings:
    """Return the settings with what follows from others, and from the patch size, filled in.

    Raises:
        InputError: A batch too small for the processes that share it.
    """
    ranks, device = world().size, pick_device(settings.device)
    if settings.epochs is None and settings.budget is None:
        settings = dataclasses.replace(settings, epochs=DEFAULT_EPOCHS)
    if settings.batch_size is None:
        # Many small steps learn more in the same time than few large ones, down to about 8 patches
        # of 96 x 96 on a CPU; a GPU needs more work at once to be busy.
        batch = max(2, round(8 * 96**2 / size**2))
        if device.type == "cuda":
            batch *= 8
        settings = dataclasses.replace(settings, batch_size=max(batch, ranks))
    elif settings.batch_size < ranks:
        text = f"{settings.batch_size} patches a step for {ranks} processes"
        raise InputError(arg("batch_size"), text, "give at least one for each")
    if settings.precision == "auto":
        fast = is_fast_in_bfloat16(device)
        settings = dataclasses.replace(settings, precision="bfloat16" if fast else "float32")
    lr, decay = settings.lr, settings.weight_decay
    return dataclasses.replace(
        settings,
        lr=DEFAULT_LR[settings.optimizer] if lr is None else lr,
        weight_decay=DEFAULT_WEIGHT_DECAY[settings.optimizer] if decay is None else decay,
    )


class Step(NamedTuple):
    """A step done: what it gave, still on its device."""

    number: int
    lr: float
    loss: Tensor
    norm: Tensor  # of the gradient
    pixels: Tensor  # that the loss was taken over, by all ranks


class Learner:
    """A network that learns, and the place in the order of the patches that it has come to.

    Each of several processes has one; their states are the same after every step. The patches of a
    step and their augmentation are drawn for all of them, and each learns from its part.

    Args:
        opened: What is learned from.
        settings: Resolved ones, see `resolve`.

    Attributes:
        network: What learns, from `take` on.
        average: Its averaged weights, from `average_over` on.
        symmetries: Those that augmentation uses.
        epoch: Epochs done.
        step_in_epoch: Steps done in this one.
        step: Steps done in all.
        patches_seen: Patches learned from, repetitions counted.
    """

    def __init__(self, opened: Store, settings: TrainSettings) -> None:
        info = opened.info
        self.info, self.settings, self.ranks = info, settings, world()
        self.device = pick_device(settings.device)
        self.data = Patches(
            opened.images, opened.masks, info.mean, info.std, self.device, self.ranks.local_size
        )
        assert settings.batch_size is not None  # `resolve` filled it in
        self.batch_size = min(settings.batch_size, len(self.data))
        # A last batch of one patch joins the one before: batch normalisation needs several values.
        alone = len(self.data) % self.batch_size == 1 < self.batch_size < len(self.data)
        self.steps_per_epoch = -(-len(self.data) // self.batch_size) - alone
        name, own = split_augment(settings.augment)
        self.symmetries = _choose_symmetries(settings, info)
        self.augmentation = augmentation.preset(name, self.symmetries)
        self.change = augmentation.load_plugin(own) if own else None
        weights = torch.from_numpy(class_weights(np.array(info.class_pixels_train)))
        self.loss = build_loss(settings.loss, weights.to(self.device), self.ranks.total)
        given = {"width": settings.width, "depth": settings.depth}
        self.network_settings = {k: v for k, v in given.items() if v is not None}
        self.epoch = self.step_in_epoch = self.step = self.patches_seen = 0

    def build(self) -> nn.Module:
        """Return a new network for these patches, its pretrained part as it was taught elsewhere.

        Raises:
            InputError: Unknown names or settings, or weights that cannot be read.
            MachineError: The installed weights are missing or damaged.
        """
        network = build_network(
            self.settings.network,
            self.info.channels,
            len(self.info.classes.classes),
            **self.network_settings,
        )
        if isinstance(network, FusedUNet):
            network.pretrained.load_state_dict(read_encoder_weights(self.settings.weights))
        elif self.settings.weights is not None:
            text = f"the network {self.settings.network} has no pretrained part"
            raise InputError(
                arg("weights"), text, f"leave it out, or add {arg('network', 'fused')}"
            )
        elif callable(load := getattr(network, "load_pretrained", None)):
            with plugins.plugin_errors(plugins.choose(plugins.NETWORKS, self.settings.network)):
                load()
        return network

    def take(self, network: nn.Module) -> None:
        """Make ``network`` the one that learns: on its device, with an optimizer of its own."""
        settings = self.settings
        assert settings.lr is not None
        assert settings.weight_decay is not None
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(
            self.network, settings.optimizer, settings.lr, settings.weight_decay
        )
        self.parallel = self._in_parallel(self.network)

    def average_over(self, steps: int) -> None:
        """Average the weights from here on as suits a training of so many steps."""
        self.average = average_weights(self.network, self.settings.ema * steps)

    @property
    def averaged(self) -> nn.Module:
        """The network to predict with."""
        module: nn.Module = self.average.module if self.settings.ema else self.network
        return module

    def _in_parallel(self, network: nn.Module) -> nn.Module:
        """Return what gives a network's logits, and the mean of all ranks' gradients, in training.

        Batch normalisation takes the statistics of the whole batch on CUDA; on a CPU, for which
        torch has none such, those of a rank's own part.
        """
        if self.ranks.size == 1:
            return network
        if self.device.type == "cuda":
            # Other modules with the same tensors: what is saved and predicted with stays plain.
            tensors = {id(t): t for t in itertools.chain(network.parameters(), network.buffers())}
            network = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
                deepcopy(network, tensors)
            )
        parallel = DistributedDataParallel(network)
        parallel.broadcast_buffers = False  # `learn` averages them
        return parallel

    # -- steps ------------------------------------------------------------------------------

    def advance(self, lr: float) -> Step:
        """Learn from the next batch at this learning rate, and count it."""
        indices = self.indices(self.step_in_epoch)
        done = self.learn(indices, lr)
        self.average.update_parameters(self.network)
        self.step += 1
        self.step_in_epoch += 1
        self.patches_seen += len(indices)
        return done

    def close_epoch(self) -> None:
        """Go on to the next epoch, wherever in this one the learning stands."""
        self.epoch += 1
        self.step_in_epoch = 0

    def indices(self, step_in_epoch: int) -> NDArray[np.int64]:
        """Return the numbers of the patches of a step of this epoch."""
        if getattr(self, "_order_epoch", None) != self.epoch:
            self._order = epoch_order(len(self.data), self.settings.seed, self.epoch)
            self._order_epoch = self.epoch
        begin = step_in_epoch * self.batch_size
        last = step_in_epoch == self.steps_per_epoch - 1
        return self._order[begin : None if last else begin + self.batch_size]

    def batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return this rank's part of the augmented batch.

        Args:
            indices: Of all patches of the step. A rank for which there is none takes the first and
                ignores all its pixels, as no rank may miss a step.

        Returns:
            Images (n, C, S, S) float32, masks (n, S, S) int64.
        """
        seed = np.random.SeedSequence([self.settings.seed, self.epoch, self.step_in_epoch])
        generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        drawn = augmentation.draw(len(indices), self.augmentation, generator)
        spare = self.ranks.rank >= len(indices)
        part = slice(1) if spare else self.ranks.own_slice
        drawn = drawn[part]
        batch = augmentation.apply(*self.data.batch(indices[part]), drawn, self.info.size)
        pictures, masks = self.change(*batch, drawn) if self.change else batch
        return pictures, masks.fill_(IGNORED) if spare else masks

    def learn(self, indices: NDArray[np.int64], lr: float) -> Step:
        """Do one step of the optimizer, without waiting for what it gives."""
        pictures, masks = self.batch(indices)
        pixels = self.ranks.sum_((masks != IGNORED).sum())
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("share", 1.0)
        self.parallel.train()
        several = self.ranks.size > 1
        if several:
            self._reseed()
        half = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits = self.parallel(pictures)
        # The mean over ranks, which is what gradients are, is then that over all their pixels.
        count = pixels.clamp_min(1) / self.ranks.size if several else None
        loss = self.loss(logits.float(), masks, count)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.ranks.average_([b for b in self.network.buffers() if b.is_floating_point()])
        return Step(self.step + 1, lr, loss.detach(), norm, pixels)

    def _reseed(self) -> None:
        """Give this rank random numbers of its own for a step, for networks that draw some.

        They follow from the position alone: with several ranks none has a state to be saved.
        """
        place = [self.settings.seed, self.epoch, self.step_in_epoch, self.ranks.rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def read(self, steps: Sequence[Step]) -> list[tuple[float, float, int]]:
        """Wait for steps; return the loss, the norm of the gradient and the pixels of each."""
        if not steps:
            return []
        means = self.ranks.sum_(torch.stack([step.loss for step in steps])) / self.ranks.size
        norms = torch.stack([step.norm for step in steps])
        pixels = torch.stack([step.pixels for step in steps])
        return list(zip(means.tolist(), norms.tolist(), pixels.tolist(), strict=True))

    def measure_rate(self, look: Callable[[Sequence[Step]], object]) -> float:
        """Return the patches a second of real steps, taken on copies that are then thrown away.

        Args:
            look: Is given the first step, to wait for it by `read` and to refuse what it gave.
        """
        kept = self.network, self.parallel, self.optimizer
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            # How many steps there is time for must not show in a run.
            with torch.random.fork_rng(devices):
                self.network = deepcopy(self.network)
                self.parallel = self._in_parallel(self.network)
                self.optimizer = build_optimizer(self.network, self.settings.optimizer, 1e-6, 0.0)
                look([self.learn(self.indices(0), 0.0)])  # the first step also allocates
                begin, steps, seconds = time.monotonic(), 0, 0.0
                while steps < 5 and seconds < 1.5:
                    self.learn(self.indices(0), 0.0)
                    steps += 1
                    (seconds,) = self.ranks.maximum(time.monotonic() - begin)
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                return steps * self.batch_size / (time.monotonic() - begin)
        finally:
            self.network, self.parallel, self.optimizer = kept

    # -- saving -----------------------------------------------------------------------------

    def position(self) -> dict[str, int]:
        """Return how far the learning has come."""
        return {name: getattr(self, name) for name in _POSITION}

    def state(self) -> dict[str, Any]:
        """Return all that decides the next steps but the position, for a checkpoint.

        Weights that take no gradient are named by their digest.
        """
        on_cuda = self.device.type == "cuda"
        return {
            "network": learned_state(self.network),
            "average": learned_state(self.average),
            "frozen": frozen_digest(self.network),
            "optimizer": self.optimizer.state_dict(),
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take over `state` and `position` of a checkpoint, after `take` and `average_over`."""
        self.network.load_state_dict(frozen_state(self.network) | saved["network"])
        self.average.load_state_dict(frozen_state(self.average) | saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        match_layouts(self.optimizer)
        torch.set_rng_state(saved["torch_random"])
        if self.device.type == "cuda" and (state := saved.get("cuda_random")) is not None:
            torch.cuda.set_rng_state(state, self.device)
        for name in _POSITION:
            setattr(self, name, saved["position"][name])


def _choose_symmetries(settings: TrainSettings, info: StoreInfo) -> frozenset[str]:
    """Return the symmetries that the settings stand for with this store."""
    if split_augment(settings.augment)[0] == "none" or settings.symmetries == "none":
        return frozenset()
    if settings.symmetries == "auto":
        found = info.settings.get("symmetries", ())
        return frozenset(name for name in SYMMETRIES if name in found)
    return frozenset(settings.symmetries.split(","))
