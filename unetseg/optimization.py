"""How weights move: the optimizer, the course of its learning rate, and averaged weights."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

DEFAULT_LR = {"adamw": 4e-3, "sgd": 0.1}
DEFAULT_WEIGHT_DECAY = {"adamw": 1e-2, "sgd": 1e-4}
_WARM_UP = 0.1  # share of a one-cycle schedule over which the rate rises
_FIRST, _LAST = 1 / 25, 1e-3  # of the highest rate


def build_optimizer(
    network: nn.Module, name: str, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return the optimizer ``name`` ("adamw" or "sgd") over a network's weights.

    Biases and the scales of normalisation layers are not decayed: pulling them to zero regularises
    nothing (He et al., 2019, "Bag of tricks for image classification").
    """
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others},
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=0.0, fused=True)
    return torch.optim.SGD(groups, lr=lr, weight_decay=0.0, momentum=0.9, nesterov=True, fused=True)


def rate_at(schedule: str, progress: float) -> float:
    """Return the learning rate as a share of the highest, at a share of the training.

    A function of the share done and of nothing else, so that it needs no state to resume and works
    for a number of steps and for a budget of time alike, which torch's schedulers do not.

    Args:
        schedule: "one-cycle" (Smith and Topin, 2018: a cosine up over the first tenth, one down to
            a thousandth), "cosine" (Loshchilov and Hutter, 2017), or "steps" (x 0.1 at 30, 60 and
            90 %).
        progress: Share of the training done, 0 to 1.
    """
    if schedule == "steps":
        return 0.1 ** min(3, int(progress / 0.3 + 1e-9))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if progress < _WARM_UP:
        return _FIRST + (1 - _FIRST) * 0.5 * (1 - math.cos(math.pi * progress / _WARM_UP))
    left = (1 - progress) / (1 - _WARM_UP)
    return _LAST + (1 - _LAST) * 0.5 * (1 - math.cos(math.pi * left))


def average_weights(network: nn.Module, steps_back: float) -> AveragedModel:
    """Return a copy of ``network`` whose ``update_parameters`` keeps an exponential average.

    Args:
        network: What is trained; its buffers are averaged too, so no statistics need recomputing.
        steps_back: Steps over which the average looks back, at least 1. At the start it looks back
            over a tenth of the steps so far, so that the first random weights are soon forgotten.
    """
    decay = math.exp(-1 / max(steps_back, 1e-3))

    def update(averages: Iterable[Tensor], currents: Iterable[Tensor], count: Tensor | int) -> None:
        averages, currents = list(averages), list(currents)
        n = int(count)
        if averages[0].is_floating_point():
            share = 1 - min(decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(averages, currents, share)
        else:  # counters of batches
            torch._foreach_copy_(averages, currents)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments of an optimizer the memory layout of their weights.

    The fused optimizers go through both in the order of memory; in a checkpoint every tensor is
    contiguous, while weights are channels last.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)
