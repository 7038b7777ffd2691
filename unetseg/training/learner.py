"""A network that learns from batches, step by step: its optimizer and its averaged weights."""

import itertools
import math
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unetseg.classes import IGNORED
from unetseg.errors import DivergenceError, arg
from unetseg.network.losses import build_loss, class_weights
from unetseg.network.optimizers import average_weights, build_optimizer, match_layouts
from unetseg.network.pretrained import frozen_digest, frozen_state, learned_state
from unetseg.ranks import world
from unetseg.training.batches import Batches
from unetseg.training.checkpoint import LearnerState, Position
from unetseg.training.recipe import Recipe


class Step(NamedTuple):
    """A step that was done. Its results are still on the device."""

    number: int
    lr: float
    loss: Tensor
    norm: Tensor  # of the gradient
    pixels: Tensor  # over which all ranks took the loss


class Learner:
    """A network that learns, and how far it has come in the order of the patches.

    Each of several processes has one; their states are the same after every step.

    Args:
        batches: The batches to learn from.
        recipe: How.
        network: The network that learns; it is moved to the device of the batches.
        expected_steps: Steps of the whole training, of which the averaged weights look back over
            the share ``recipe.ema``.
        saved: The state to go on from, of a learner like this one.

    Attributes:
        network: The network that learns.
        average: The network's averaged weights.
        optimizer: The optimizer of the weights.
        position: How far the learning has come.
    """

    def __init__(
        self,
        batches: Batches,
        recipe: Recipe,
        network: nn.Module,
        expected_steps: int,
        saved: LearnerState | None = None,
    ) -> None:
        self.batches, self.recipe, self.ranks = batches, recipe, world()
        self.network: nn.Module = network.to(batches.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = average_weights(self.network, recipe.ema * expected_steps)
        self.optimizer = build_optimizer(
            self.network, recipe.optimizer, recipe.lr, recipe.weight_decay
        )
        weights = torch.from_numpy(class_weights(np.array(batches.info.class_pixels_train)))
        self.loss = build_loss(recipe.loss, weights.to(batches.device), self.ranks.total)
        self.position = Position(0, 0, 0, 0) if saved is None else saved.position
        if saved is not None:
            self.network.load_state_dict(frozen_state(self.network) | saved.network)
            self.average.load_state_dict(frozen_state(self.average) | saved.average)
            self.optimizer.load_state_dict(saved.optimizer)
            match_layouts(self.optimizer)
        self.parallel = self._in_parallel()
        if saved is not None:
            torch.set_rng_state(saved.torch_random)
            if batches.device.type == "cuda" and saved.cuda_random is not None:
                torch.cuda.set_rng_state(saved.cuda_random, batches.device)

    def _in_parallel(self) -> nn.Module:
        """Return a module that gives the network's logits, and the mean of all ranks' gradients.

        Batch normalisation takes the statistics of the whole batch on CUDA. Torch has nothing like
        it for a CPU; there each rank takes those of its own part.
        """
        if self.ranks.size == 1:
            return self.network
        network = self.network
        if self.batches.device.type == "cuda":
            # SyncBatchNorm wraps a copy that shares the parameters, so the network we save stays an
            # ordinary one.
            tensors = {id(t): t for t in itertools.chain(network.parameters(), network.buffers())}
            network = nn.SyncBatchNorm.convert_sync_batchnorm(  # type: ignore[no-untyped-call]
                deepcopy(network, tensors)
            )
        parallel = DistributedDataParallel(network)
        parallel.broadcast_buffers = False  # `learn` averages them
        return parallel

    @property
    def averaged(self) -> nn.Module:
        """The network to predict with."""
        module: nn.Module = self.average.module if self.recipe.ema else self.network
        return module

    # -- steps ------------------------------------------------------------------------------

    @property
    def epoch_is_whole(self) -> bool:
        """Whether every patch was seen in this epoch."""
        return self.position.step_in_epoch == self.batches.steps_per_epoch

    def advance(self, lr: float) -> Step:
        """Learn from the next batch at this learning rate, and count it."""
        done = self.learn(lr)
        self.average.update_parameters(self.network)
        at = self.position
        self.position = replace(
            at,
            step=at.step + 1,
            step_in_epoch=at.step_in_epoch + 1,
            patches_seen=at.patches_seen + len(self.batches.indices(at.epoch, at.step_in_epoch)),
        )
        return done

    def close_epoch(self) -> None:
        """Go on to the next epoch, even if patches of this one are left."""
        self.position = replace(self.position, epoch=self.position.epoch + 1, step_in_epoch=0)

    def learn(self, lr: float) -> Step:
        """Do a step of the optimizer on the next batch, without waiting for its results."""
        pictures, masks = self.batches.batch(self.position.epoch, self.position.step_in_epoch)
        pixels = self.ranks.sum_((masks != IGNORED).sum())
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("share", 1.0)
        self.parallel.train()
        several = self.ranks.size > 1
        if several:
            self._reseed()
        half = self.recipe.precision == "bfloat16"
        with torch.autocast(self.batches.device.type, torch.bfloat16, enabled=half):
            logits = self.parallel(pictures)
        # DDP averages the gradients over the ranks. Dividing by their number here makes the result
        # the mean over the pixels of all ranks.
        count = pixels.clamp_min(1) / self.ranks.size if several else None
        loss = self.loss(logits.float(), masks, count)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.ranks.average_([b for b in self.network.buffers() if b.is_floating_point()])
        return Step(self.position.step + 1, lr, loss.detach(), norm, pixels)

    def _reseed(self) -> None:
        """Give this rank random numbers of its own for a step, for networks that draw some.

        They follow from the position alone, so that no rank has a state to be saved.
        """
        at = self.position
        place = [self.recipe.seed, at.epoch, at.step_in_epoch, self.ranks.rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def read(self, steps: Sequence[Step]) -> list[tuple[float, int]]:
        """Wait for steps; return the loss of each, and the pixels over which it was taken.

        Raises:
            DivergenceError: A loss or the norm of a gradient is not finite.
        """
        if not steps:
            return []
        means = self.ranks.sum_(torch.stack([step.loss for step in steps])) / self.ranks.size
        norms = torch.stack([step.norm for step in steps]).tolist()
        pixels = torch.stack([step.pixels for step in steps]).tolist()
        results = list(zip(means.tolist(), pixels, strict=True))
        for step, (loss, _), norm in zip(steps, results, norms, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                text = f"the loss is not finite ({loss}) at step {step.number}, "
                text += f"learning rate {step.lr:.3g}"
                raise DivergenceError("training", text, f"try a smaller {arg('lr')}")
        return results

    # -- saving -----------------------------------------------------------------------------

    def state(self) -> LearnerState:
        """Return all that decides the next steps, for a checkpoint."""
        device = self.batches.device
        return LearnerState(
            position=self.position,
            network=learned_state(self.network),
            average=learned_state(self.average),
            frozen=frozen_digest(self.network),
            optimizer=self.optimizer.state_dict(),
            torch_random=torch.get_rng_state(),
            cuda_random=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        )


def measure_rate(batches: Batches, recipe: Recipe, network: nn.Module) -> float:
    """Return the patches a second of real steps, taken on a copy that is then thrown away.

    Raises:
        DivergenceError: The loss of the first step is not finite.
    """
    cuda = batches.device.type == "cuda"
    # The number of steps that there is time for must not show in a run's random numbers.
    with torch.random.fork_rng([batches.device] if cuda else []):
        copy = Learner(batches, recipe, deepcopy(network), 1)
        copy.read([copy.learn(0.0)])  # the first step also allocates
        begin, steps, seconds = time.monotonic(), 0, 0.0
        while steps < 5 and seconds < 1.5:
            copy.learn(0.0)
            steps += 1
            (seconds,) = copy.ranks.maximum(time.monotonic() - begin)
        if cuda:
            torch.cuda.synchronize()
        return steps * batches.size / (time.monotonic() - begin)
