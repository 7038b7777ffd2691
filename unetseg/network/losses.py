"""Losses over pixels, and the class weights that one of them takes."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg import plugins
from unetseg.classes import IGNORED
from unetseg.errors import InputError, arg

_RAREST = 1e-3  # a class with a smaller share of the pixels weighs as if it had this share


class Loss(Protocol):
    """The function that `build_loss` returns."""

    def __call__(
        self, logits: Tensor, target: Tensor, valid_count: Tensor | float | None = None
    ) -> Tensor:
        """Return the loss, a scalar float32; 0 with a zero gradient where no pixel is valid.

        Args:
            logits: ``(N, C, H, W)`` floating.
            target: ``(N, H, W)`` int64, 0 to C - 1, or `IGNORED`: such pixels count nowhere.
            valid_count: The divisor of the cross-entropy's sum; None for the number of valid pixels
                here. For gradients that are averaged over R ranks it is the number over all of
                them, divided by R.
        """


def build_loss(
    name: str,
    class_weights: Tensor | None = None,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> Loss:
    """Return the loss called ``name``: "ce", "weighted-ce", "dice", a sum such as "ce+dice", or
    a plug-in's.

    Cross-entropy is the mean over valid pixels of -w_t log p_t, where t is the true class and p the
    softmax. The weight w_t is 1, or the class weight for "weighted-ce". The divisor stays the
    number of pixels, so that parts of a batch add up.

    Dice is ``1 - mean_c 2 sum(p_c t_c) / (sum(p_c) + sum(t_c))``, where t_c is the one-hot truth.
    The sums go over the valid pixels of the whole batch, the mean over the classes that the truth
    holds. The denominator without squares is that of Drozdzal et al. (2016), "The importance of
    skip connections", eq. 1. The sums over the batch are those of Isensee et al. (2021), "nnU-Net".

    Args:
        name: A name in `unetseg.settings.LOSSES`, or an entry point in the group
            ``unetseg.losses``: a function ``build(class_weights)``, see `_build_plugin`.
        class_weights: ``(C,)`` float32, for "weighted-ce" only.
        total: Adds Dice's sums over ranks: `World.total`, through which gradients flow, makes the
            Dice of all ranks' pixels exact.

    Raises:
        InputError: A name that nobody offers, or "weighted-ce" without weights.
        MachineError: A plug-in that cannot be imported, or fails.
    """
    if plugin := plugins.choose(plugins.LOSSES, name):
        return _build_plugin(plugin, class_weights)
    parts = name.split("+")
    if "weighted-ce" in parts and class_weights is None:
        raise InputError(
            arg("loss"), "weighted-ce without class weights", "give them, or choose ce"
        )

    def loss(logits: Tensor, target: Tensor, valid_count: Tensor | float | None = None) -> Tensor:
        log_p = logits.float().log_softmax(1)  # (N, C, H, W)
        valid = target != IGNORED
        count = valid.sum().clamp_min(1) if valid_count is None else valid_count
        value = log_p.new_zeros(())
        for part in parts:
            if part == "dice":
                value = value + _dice(log_p, target, valid, total)
            else:
                weights = class_weights if part == "weighted-ce" else None
                value = value + _cross_entropy_sum(log_p, target, valid, weights) / count
        return value

    return loss


def _build_plugin(plugin: plugins.Plugin, class_weights: Tensor | None) -> Loss:
    """Return the loss of a plug-in.

    Its ``build(class_weights)`` is given weights (C,) float32 as `class_weights` makes them, and
    returns a function. That function maps logits (N, C, H, W) float32 and targets (N, H, W) int64
    with `IGNORED` to a scalar. Under several ranks each takes the loss over its own part of the
    batch, and the gradients are averaged.
    """
    build = plugins.load(plugin)
    with plugins.plugin_errors(plugin):
        chosen = build(class_weights)

    def loss(logits: Tensor, target: Tensor, valid_count: Tensor | float | None = None) -> Tensor:
        with plugins.plugin_errors(plugin):
            value = chosen(logits, target)
            if not isinstance(value, Tensor) or value.ndim:
                found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"the loss is {found}, no scalar tensor")
        return value

    return loss


def class_weights(pixel_counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the weights of "weighted-ce" for classes of so many pixels.

    w_c is ``1 / sqrt(max(f_c, 0.001))``, where f_c is the share of class c. It is scaled so that
    the mean over pixels, ``sum(f_c w_c)``, is 1. Mahajan et al. (2018) sample by the same inverse
    square root of the frequency. The bound lets no class weigh over 32 times another. An absent
    class weighs 0.

    Args:
        pixel_counts: ``(C,)``, at least one of them above 0.

    Returns:
        ``(C,)`` float32.
    """
    share = pixel_counts / pixel_counts.sum()
    weights = np.where(share > 0, 1 / np.sqrt(np.maximum(share, _RAREST)), 0)
    return np.asarray(weights / (share * weights).sum(), np.float32)


def _cross_entropy_sum(
    log_p: Tensor, target: Tensor, valid: Tensor, weights: Tensor | None
) -> Tensor:
    # gather, not nll_loss: twice as fast on a CPU for channels-last logits, and its 2-D form has
    # no deterministic kernel on CUDA.
    true = torch.where(valid, target, 0)
    scale = valid if weights is None else weights.to(log_p.device)[true] * valid
    return -(log_p.gather(1, true[:, None])[:, 0] * scale).sum()


def _dice(
    log_p: Tensor, target: Tensor, valid: Tensor, total: Callable[[Tensor], Tensor]
) -> Tensor:
    classes = torch.arange(log_p.shape[1], device=log_p.device)
    truth = (target[..., None] == classes).permute(0, 3, 1, 2).float()  # ignored: all zero
    p = log_p.exp()
    sums = [p * truth, p * valid[:, None], truth]
    both, claimed, true = total(torch.stack([s.sum((0, 2, 3)) for s in sums])).unbind()  # (C,)
    present = (true > 0).float()
    missed = present - both * 2 / (claimed + true).clamp_min(1e-6)  # 0 where absent
    return missed.sum() / present.sum().clamp_min(1)
