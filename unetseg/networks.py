"""The networks: U-Nets after Ronneberger, Fischer and Brox (2015), and the registry of others.

A network maps normalised images (N, C, H, W) float32 of any height and width to logits
(N, K, H, W). ``multiple`` is the grid its pooling works on; ``halo`` the pixels around a pixel
that its logits depend on, from which tiles with a margin are made exact.

Both built-in networks are one class. `classic` is the published one: two convolutions a level,
64 channels at full resolution, twice as many on each level below, skips concatenated. `compact` is
made for a CPU, where full resolution costs most: 16 channels (one register of the processor's
vector unit), one convolution there and in the decoder, at most 128 channels below, skips added.
"""

import os
from collections.abc import Sequence
from importlib.metadata import EntryPoint, distributions
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unetseg.config import check_choice
from unetseg.errors import InputError, MachineError

BUILT_IN = ("compact", "classic")
GROUP = "unetseg.networks"  # of the entry points of others
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
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        encoder: Sequence[int],
        decoder: int,
        concatenate: bool,
    ) -> None:
        super().__init__()
        depth = len(widths) - 1
        self.concatenate = concatenate
        self.multiple = 2**depth
        reach = sum(n * 2**level for level, n in enumerate(encoder))
        reach += sum(decoder * 2**level for level in range(depth))
        self.halo = (-(-reach // self.multiple) + 1) * self.multiple  # and a cell of pooling
        self.encoder = nn.ModuleList(
            ConvolutionBlock(i, o, n)
            for i, o, n in zip([channels, *widths[:-1]], widths, encoder, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(i, o, 2, stride=2)
            for i, o in zip(widths[1:], widths[:-1], strict=True)
        )
        joined = 2 if concatenate else 1
        self.decoder = nn.ModuleList(ConvolutionBlock(joined * w, w, decoder) for w in widths[:-1])
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K, H, W) for normalised images (N, C, H, W)."""
        height, width = x.shape[2:]
        x = fill_to_multiple(x, self.multiple)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for up, block in zip(reversed(self.up), reversed(self.decoder), strict=True):
            skip, x = skips.pop(), up(x)
            x = block(torch.cat([skip, x], 1) if self.concatenate else skip + x)
        logits: Tensor = self.head(x)
        return logits[:, :, :height, :width]


def fill_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Return ``x`` (N, C, H, W) with border pixels repeated up to a multiple of ``multiple``."""
    bottom, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def build_compact(channels: int, classes: int, width: int = 16, depth: int = 4) -> UNet:
    """Return the network for a CPU; ``width`` channels at full resolution, ``depth`` halvings."""
    _check(width, depth)
    widths = [width * min(2**level, 8) for level in range(depth + 1)]
    return UNet(channels, classes, widths, [1] + [2] * depth, 1, concatenate=False)


def build_classic(channels: int, classes: int, width: int = 64, depth: int = 4) -> UNet:
    """Return the published network: 64-128-256-512-1024 channels by default."""
    _check(width, depth)
    widths = [width * 2**level for level in range(depth + 1)]
    return UNet(channels, classes, widths, [2] * (depth + 1), 2, concatenate=True)


def build_network(name: str, channels: int, classes: int, **settings: Any) -> nn.Module:
    """Return a new network.

    Args:
        name: "compact", "classic", or the name of an entry point in the group
            ``unetseg.networks``: a function ``build(channels, classes, **settings)``. A built-in
            name wins; ``UNETSEG_NO_PLUGINS=1`` leaves the others out.
        channels: Channels of the images.
        classes: Number of classes.
        settings: ``width`` (1 to 1024) and ``depth`` (1 to 8) for the built-in ones; None takes
            the network's own.

    Raises:
        InputError: An unknown name, or settings that the network does not take.
        MachineError: A plug-in that cannot be imported.
    """
    settings = {key: value for key, value in settings.items() if value is not None}
    build: Any = {"compact": build_compact, "classic": build_classic}.get(name)
    build = build or _load(_find_plugin(name))
    try:
        network: nn.Module = build(channels, classes, **settings)
    except TypeError as error:
        raise InputError("--network", f"{name} does not take these settings ({error})") from None
    return network


def _find_plugin(name: str) -> EntryPoint:
    """Return the entry point of that name, the first on the path; broken metadata offers none."""
    plugins: dict[str, EntryPoint] = {}
    if os.environ.get("UNETSEG_NO_PLUGINS", "0") in ("", "0"):
        for distribution in distributions():
            try:
                offered = [e for e in distribution.entry_points if e.group == GROUP]
            except Exception:  # of a distribution that need not be about networks at all
                continue
            for entry in offered:
                plugins.setdefault(entry.name, entry)
    check_choice("--network", name, (*BUILT_IN, *sorted(set(plugins) - set(BUILT_IN))))
    return plugins[name]


def _load(plugin: EntryPoint) -> Any:
    try:
        return plugin.load()
    except (Exception, SystemExit) as error:  # a stranger's module may fail in any way
        text = f"{plugin.name} ({plugin.value}) cannot be loaded: {type(error).__name__}: {error}"
        raise MachineError("--network", text, "mend or remove that plug-in") from error


def count_parameters(network: nn.Module) -> int:
    """Return how many trainable numbers a network has."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _check(width: int, depth: int) -> None:
    """Bound what a forged model file could make `UNet` allocate."""
    for option, value, most in (("--width", width, _MAX_WIDTH), ("--depth", depth, _MAX_DEPTH)):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise InputError(option, f"{value!r} is out of range", f"1 to {most}")
