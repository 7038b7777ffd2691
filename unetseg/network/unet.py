"""The networks: U-Nets after Ronneberger, Fischer and Brox (2015), and the registry of others.

A network maps normalised images (N, C, H, W) float32 of any height and width to logits
(N, K, H, W). ``multiple`` is the grid that its pooling works on. ``halo`` is the number of pixels
around a pixel on which its logits depend; a margin of that width makes tiles exact.

Both built-in networks are one class. `classic` is the published one: two convolutions a level,
64 channels at full resolution, twice as many on each level below, skips concatenated. `compact` is
made for a CPU, where full resolution costs most. It has 16 channels there (one register of the
processor's vector unit) and at most 128 below. It has one convolution there and in the decoder, and
its skips are added.

`fused` is `compact` with the features of a pretrained encoder added on the way down. Full
resolution and fine lines are learned as in `compact`. The features were learned from a million
photographs and never change.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unetseg import plugins
from unetseg.errors import InputError, arg
from unetseg.network.pretrained import PretrainedEncoder, as_photographs

_MAX_WIDTH, _MAX_DEPTH = 1024, 8


class ConvolutionBlock(nn.Sequential):
    """3 x 3 convolutions without bias, each followed by batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, count: int) -> None:
        layers: list[nn.Module] = []
        for i in range(count):
            layers += [
                nn.Conv2d(outputs if i else inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Doubling(nn.ConvTranspose2d):
    """A transposed convolution that makes 2 x 2 pixels of each pixel.

    In training on a CPU in bfloat16 it is computed as a matrix product: its gradient takes half as
    long.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return (N, outputs, 2 H, 2 W) for (N, inputs, H, W)."""
        if not _is_multiplied(self, x):
            return super().forward(x, output_size)
        count, channels, height, width = x.shape
        # Rows of the matrix are the row and the column among the 2 x 2 pixels, then the channel.
        matrix = self.weight.permute(2, 3, 1, 0).reshape(-1, channels)
        bias = None if self.bias is None else self.bias.repeat(4)
        parts = F.linear(x.permute(0, 2, 3, 1), matrix, bias)  # (N, H, W, 4 outputs)
        rows = parts.view(count, height, width, 2, 2, -1).transpose(2, 3)
        return rows.reshape(count, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def _is_multiplied(layer: nn.Module, x: Tensor) -> bool:
    """Return whether a `Doubling` computes ``x`` as a matrix product."""
    return layer.training and x.is_cpu and x.dtype == torch.bfloat16


class UNet(nn.Module):
    """A U-Net with batch normalisation and zero-padded convolutions: as many pixels out as in.

    Args:
        channels: Channels C of the images.
        classes: Number K of classes.
        widths: Channels of each level, full resolution first; one more than the image is halved.
        encoder: Convolutions of each level on the way down.
        decoder: Convolutions of each level on the way up.
        concatenate: Join a skip by concatenation; else by addition, which halves the cost of the
            decoder's first convolution.
        features: Channels of features to add behind the levels below full resolution, in their
            order; fewer than there are levels leave the lowest without.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        encoder: Sequence[int],
        decoder: int,
        concatenate: bool,
        features: Sequence[int] = (),
    ) -> None:
        super().__init__()
        depth = len(widths) - 1
        self.concatenate = concatenate
        self.multiple = 2**depth
        reach = sum(n * 2**level for level, n in enumerate(encoder))
        reach += sum(decoder * 2**level for level in range(depth))
        self.halo = (-(-reach // self.multiple) + 1) * self.multiple  # plus a cell of the pooling
        self.encoder = nn.ModuleList(
            ConvolutionBlock(i, o, n)
            for i, o, n in zip([channels, *widths[:-1]], widths, encoder, strict=True)
        )
        self.joins = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o))
            for i, o in zip(features, widths[1:], strict=False)
        )
        self.up = nn.ModuleList(
            Doubling(i, o) for i, o in zip(widths[1:], widths[:-1], strict=True)
        )
        joined = 2 if concatenate else 1
        self.decoder = nn.ModuleList(ConvolutionBlock(joined * w, w, decoder) for w in widths[:-1])
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """Return logits (N, K, H, W) for normalised images (N, C, H, W).

        Args:
            x: The images.
            features: (N, c, H / s, W / s) at s of 2, 4, ..., of the channels c declared. With
                them, H and W are multiples of ``multiple``.
        """
        height, width = x.shape[2:]
        x = fill_to_multiple(x, self.multiple)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            if 1 <= level <= len(self.joins):
                x = F.relu(x + self.joins[level - 1](features[level - 1]), inplace=True)
            skips.append(x)
        skips.pop()
        for up, block in zip(reversed(self.up), reversed(self.decoder), strict=True):
            skip, x = skips.pop(), up(x)
            if self.concatenate:
                x = torch.cat([skip, x], 1)
            elif _is_multiplied(up, skip):  # in place on a view, all gradients would be copied
                x = x + skip
            else:
                x = x.add_(skip)
            x = block(x)
        logits: Tensor = self.head(x)
        return logits[:, :, :height, :width]


class FusedUNet(nn.Module):
    """`compact` with the features of a frozen encoder, each at the level of its stride.

    Features of larger strides than that of the lowest level are enlarged to that level and joined
    to its own. By default these are the features of stride 32.

    The encoder sees three channels, which `as_photographs` makes; the learned part sees all.

    Args:
        channels: Channels C of the images.
        classes: Number K of classes.
        widths: The widths of `UNet`.
    """

    def __init__(self, channels: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.pretrained = PretrainedEncoder()
        given, depth = self.pretrained.channels, len(widths) - 1
        self.lowest = min(depth, len(given))
        features = [*given[: self.lowest - 1], sum(given[self.lowest - 1 :])]
        self.unet = UNet(channels, classes, widths, [1] + [2] * depth, 1, False, features)
        self.multiple = max(self.unet.multiple, self.pretrained.multiple)
        # The features of stride 32 reach farthest. They are enlarged with the neighbours of a cell,
        # then pass through the levels below and the decoder (one convolution at each level).
        below = self.unet.multiple - 1 if depth <= len(given) else self.unet.halo
        reach = self.pretrained.reach + self.pretrained.multiple + below
        self.halo = -(-max(reach, self.unet.halo) // self.multiple) * self.multiple

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H, W) for normalised images (N, C, H, W)."""
        height, width = x.shape[2:]
        x = fill_to_multiple(x, self.multiple)
        with torch.no_grad():
            features = self.pretrained(as_photographs(x))
            lowest, *lower = features[self.lowest - 1 :]
            enlarged = [
                F.interpolate(feature, scale_factor=2.0**times, mode="bilinear")
                for times, feature in enumerate(lower, 1)
            ]
            features[self.lowest - 1 :] = [torch.cat([lowest, *enlarged], 1)]
        logits: Tensor = self.unet(x, features)
        return logits[:, :, :height, :width]


def fill_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Return ``x`` (N, C, H, W), reflected at its lower and right border to whole cells of a grid.

    Repeated border pixels would make streaks, which a network takes for lines.

    Args:
        x: The images.
        multiple: The side of a cell.
    """
    height, width = x.shape[2:]
    if height % multiple:
        x = x.index_select(2, filled_places(height, multiple).to(x.device))
    if width % multiple:  # `index_select` takes several times as long along rows
        x = x[..., filled_places(width, multiple).to(x.device)]
    return x


def filled_places(length: int, multiple: int) -> Tensor:
    """Return the row of an image for each row of one that is filled up to a multiple.

    In cells of 4, a length of 5 becomes 0 1 2 3 4 4 3 2.
    """
    filled = (length + multiple - 1) // multiple * multiple
    there = torch.arange(length)
    # An image narrower than the filling is reflected again. ONNX knows no remainder by a size.
    return torch.cat([there, there.flip(0)]).repeat(multiple)[:filled]


def build_compact(channels: int, classes: int, width: int = 16, depth: int = 4) -> UNet:
    """Return the network for a CPU; ``width`` channels at full resolution, ``depth`` halvings."""
    _check(width, depth)
    widths = [width * min(2**level, 8) for level in range(depth + 1)]
    return UNet(channels, classes, widths, [1] + [2] * depth, 1, concatenate=False)


def build_fused(channels: int, classes: int, width: int = 16, depth: int = 4) -> FusedUNet:
    """Return `compact` with pretrained features; they are zero until their weights are loaded."""
    _check(width, depth)
    return FusedUNet(channels, classes, [width * min(2**level, 8) for level in range(depth + 1)])


def build_classic(channels: int, classes: int, width: int = 64, depth: int = 4) -> UNet:
    """Return the published network: 64-128-256-512-1024 channels by default."""
    _check(width, depth)
    widths = [width * 2**level for level in range(depth + 1)]
    return UNet(channels, classes, widths, [2] * (depth + 1), 2, concatenate=True)


def build_network(name: str, channels: int, classes: int, **settings: Any) -> nn.Module:
    """Return a new network.

    Args:
        name: "fused", "compact", "classic", or the name of an entry point in the group
            ``unetseg.networks``: a function ``build(channels, classes, **settings)``.
        channels: Channels of the images.
        classes: Number of classes.
        settings: ``width`` (1 to 1024) and ``depth`` (1 to 8) for the built-in ones; None takes
            the network's own.

    Raises:
        InputError: A name that nobody offers, or settings that the network does not take.
        MachineError: A plug-in that cannot be imported, or fails.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    plugin = plugins.choose(plugins.NETWORKS, name)
    build = plugins.load(plugin) if plugin else _BUILT_IN[name]
    try:
        signature(build).bind(channels, classes, **settings)
    except TypeError as error:
        raise InputError(arg("network"), f"{name} does not take these settings ({error})") from None
    with plugins.plugin_errors(plugin):
        network = build(channels, classes, **settings)
        if not isinstance(network, nn.Module):
            raise TypeError(f"{name} is of type {type(network).__name__}, no torch.nn.Module")
    return network


_BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "fused": build_fused,
    "compact": build_compact,
    "classic": build_classic,
}


def can_be_seamless(network: nn.Module) -> bool:
    """Return whether a network says what tiles with a margin need: ``multiple`` and ``halo``."""
    return hasattr(network, "multiple") and hasattr(network, "halo")


def fold_normalisation(network: nn.Module) -> nn.Module:
    """Return a copy for inference, with batch normalisation folded into the convolutions before it.

    The copy gives the same logits but for rounding, with one pass over memory less a layer. Layers
    that are neighbours in an `nn.Sequential` are folded; the rest stays as it is.
    """
    network = deepcopy(network).eval()
    for block in network.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for i, (first, second) in enumerate(pairwise(list(block))):
            if type(first) is nn.Conv2d and type(second) is nn.BatchNorm2d:
                block[i], block[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return network


def count_parameters(network: nn.Module) -> int:
    """Return how many trainable numbers a network has."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _check(width: int, depth: int) -> None:
    """Bound the memory that a forged model file could make `UNet` allocate."""
    limits = ((arg("width"), width, _MAX_WIDTH), (arg("depth"), depth, _MAX_DEPTH))
    for option, value, most in limits:
        if not isinstance(value, int) or not 1 <= value <= most:
            raise InputError(option, f"{value!r} is out of range", f"1 to {most}")
