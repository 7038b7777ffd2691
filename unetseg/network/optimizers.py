"""How weights move: the optimizer, the course of its learning rate, and averaged weights."""

import math
from collections.abc import Sequence
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

DEFAULT_LR = {"muon": 0.02, "adamw": 4e-3, "sgd": 0.1}
DEFAULT_WEIGHT_DECAY = {"muon": 1e-2, "adamw": 1e-2, "sgd": 1e-4}
_WARM_UP = 0.1  # share of a one-cycle schedule over which the rate rises
_WIDEST = 256  # rows and columns: a larger matrix takes longer to make orthogonal than a batch
_FIRST, _LAST = 1 / 25, 1e-3  # rates at the start and the end, as shares of the highest


class Muon(torch.optim.AdamW):
    """Momentum, made orthogonal: each matrix of weights moves alike in all its directions.

    Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks". The gradients
    of a convolution are nearly of low rank; a step along their momentum moves few directions and
    leaves the rest untrained. Here the momentum M = U S V^T is replaced by about U V^T before it is
    taken off the weights. The matrix of a convolution is (first axis, all others). Torch's own
    ``Muon`` refuses weights of four axes, and computes in bfloat16, which many CPUs emulate.

    Args:
        groups: Groups of AdamW; those with ``"orthogonal": True`` move as above, the others by
            AdamW.
        momentum: Momentum of the orthogonal groups, as in Nesterov's method.
        lr: Highest learning rate; a group moves by its ``"share"`` of it.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all weights that have a gradient."""
        for group in self.param_groups:
            if group.get("orthogonal"):
                self._move(group)
        super().step(closure)

    def _move(self, group: dict[str, Any]) -> None:
        """Move the weights of a group by one step of Muon."""
        weights = [p for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in weights]
        averages = []
        for weight in weights:
            state = self.state[weight]
            if not state:
                # AdamW expects "step" in every state that it loads from a checkpoint.
                state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
            averages.append(state["momentum"])
        torch._foreach_lerp_(averages, gradients, 1 - self.momentum)
        torch._foreach_lerp_(gradients, averages, self.momentum)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        # The columns may stand in any order; the order of the memory, channels last, needs no copy.
        lasts = [gradient.movedim(1, -1) for gradient in gradients]
        directions = orthogonalize([last.reshape(len(last), -1) for last in lasts])
        for weight, last, direction in zip(weights, lasts, directions, strict=True):
            longer = max(1.0, direction.shape[0] / direction.shape[1]) ** 0.5
            step = direction.reshape(last.shape).movedim(-1, 1)
            weight.sub_(step, alpha=group["lr"] * longer)
            weight.grad = None  # AdamW skips weights without a gradient


def orthogonalize(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return about U V^T of each matrix U S V^T: singular values of 0.7 to 1.2, but tiny ones.

    The function takes three steps of the odd polynomial of degree five that Jordan et al. (2024)
    chose. Their five steps take longer and train no better. Each step is a polynomial in X X^T
    times X, and such polynomials commute. So only the small square matrices are iterated, and those
    of one size together.

    Args:
        matrices: (rows, columns) float32 each.
    """
    a, b, c = 3.4445, -4.7750, 2.0315

    def polynomial(gram: Tensor) -> Tensor:
        found = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        found.diagonal(dim1=1, dim2=2).add_(a)
        return found

    wides = [m.T if m.shape[0] > m.shape[1] else m for m in matrices]
    results = [torch.empty(0)] * len(matrices)
    for side in {len(wide) for wide in wides}:
        members = [i for i, wide in enumerate(wides) if len(wide) == side]
        gram = torch.stack([wides[i] @ wides[i].T for i in members])  # (n, side, side)
        squares = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-24
        gram /= squares
        factor = whole = polynomial(gram)
        for _ in range(2):
            gram = factor @ gram @ factor
            factor = polynomial(gram)
            whole = factor @ whole
        whole *= squares.rsqrt()
        for i, square in zip(members, whole, strict=True):
            turned = square @ wides[i]
            results[i] = turned.T if wides[i] is not matrices[i] else turned
    return results


def build_optimizer(
    network: nn.Module, name: str, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return the optimizer ``name`` ("muon", "adamw" or "sgd") over a network's weights.

    The caller sets each group's ``lr``, times its ``share`` where it has one. Biases and the scales
    of normalisation layers are not decayed, because pulling them to zero regularises nothing. The
    source is He et al. (2019), "Bag of tricks for image classification". Weights that take no
    gradient are left out.
    """
    moving = _moving(network)
    weights = [p for p in moving if p.ndim > 1]
    others = [p for p in moving if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others},
    ]
    if name == "muon":
        # The first layer reads pixels and the last one writes classes: their directions have a
        # meaning, so they must not all move alike.
        share = DEFAULT_LR["adamw"] / DEFAULT_LR["muon"]
        hidden = [p for p in weights[1:-1] if min(len(p), p[0].numel()) <= _WIDEST]
        taken = set(map(id, hidden))
        rest = [p for p in weights if id(p) not in taken]
        groups = [
            {"params": hidden, "weight_decay": weight_decay, "orthogonal": True},
            {"params": rest, "weight_decay": weight_decay, "share": share},
            {"params": others, "share": share},
        ]
        return Muon([group for group in groups if group["params"]], lr=lr)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, weight_decay=0.0, fused=True)
    return torch.optim.SGD(groups, lr=lr, weight_decay=0.0, momentum=0.9, nesterov=True, fused=True)


def rate_at(schedule: str, progress: float) -> float:
    """Return the learning rate as a share of the highest, at a share of the training.

    The rate depends on the share done and on nothing else. So it needs no state to resume, and
    works for a number of steps as for a budget of time. Torch's schedulers do neither.

    Args:
        schedule: "one-cycle", "cosine" or "steps". "one-cycle" rises along a cosine over the first
            tenth, then falls along one to a thousandth (Smith and Topin, 2018). "cosine" is that of
            Loshchilov and Hutter (2017). "steps" multiplies by 0.1 at 30, 60 and 90 %.
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
        network: The trained network; its buffers are averaged too, so no statistics need
            recomputing.
        steps_back: Steps over which the average looks back, at least 1. At the start it looks back
            over a tenth of the steps so far, so that the first random weights are soon forgotten.
    """
    return _Averages(network, math.exp(-1 / max(steps_back, 1e-3)))


class _Averages(AveragedModel):
    """Averaged weights of torch whose `update_parameters` never waits for the device.

    Torch keeps the count of steps on the device, and a decay that depends on it would have to be
    read back at every step. Here the count is kept on the CPU.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the averages towards the buffers of ``model`` and the parameters that learn."""
        averages, currents = ([*_moving(m), *m.buffers()] for m in (self.module, model))
        n = int(self.n_averaged)
        share = 1 - min(self.decay, (1 + n) / (10 + n)) if n else 1.0
        floating = [average.is_floating_point() for average in averages]
        torch._foreach_lerp_(
            list(compress(averages, floating)), list(compress(currents, floating)), share
        )
        for average, current in zip(averages, currents, strict=True):
            if not average.is_floating_point():  # a counter of batches
                average.copy_(current)
        self.n_averaged += 1


def _moving(network: nn.Module) -> list[nn.Parameter]:
    return [p for p in network.parameters() if p.requires_grad]


def match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments of an optimizer the memory layout of their weights.

    The fused optimizers go through weights and moments in the order of memory. A checkpoint holds
    contiguous tensors, while weights are channels last.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter).copy_(value)
