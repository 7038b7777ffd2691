"""EfficientNet-Lite0: features learned from a million photographs, which never change.

Tan and Le (2019), "EfficientNet: rethinking model scaling for convolutional neural networks"; the
Lite variant has ReLU6 and no squeeze-and-excitation. Batch normalisation is folded into the
convolutions, and the weights are rounded to float16 once. A model file grows by 6 MB, and
features differ by about half a percent from those of the original.
"""

import hashlib
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Kernel, stride, expansion, channels and blocks of each stage (Tan and Le 2019, table 1).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_LAST_OF_STRIDE = (0, 2, 4, 10, 15)  # the last block at each stride; its output is the feature
_EPSILON = 1e-3  # of the original's batch normalisation
_DEVIATION = 0.47  # of photographs as the encoder takes them; normalised images have 1


class PretrainedEncoder(nn.Module):
    """The frozen encoder; its weights are zero until `fold_weights` or a model file fills them.

    Attributes:
        channels: The channels of the features at strides 2, 4, 8, 16 and 32.
        multiple: The grid that height and width must be on.
        reach: Pixels on each side of a pixel that a feature depends on.
    """

    channels = (16, 24, 40, 112, 320)
    multiple = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = FrozenConvolution(3, 32, 3, stride=2)
        blocks, inputs, self.reach, grid = list[nn.Module](), 32, 1, 2
        for kernel, stride, expansion, outputs, count in _STAGES:
            for i in range(count):
                step = 1 if i else stride
                blocks.append(_Block(inputs, outputs, kernel, step, expansion))
                self.reach += kernel // 2 * grid
                inputs, grid = outputs, grid * step
        self.blocks = nn.ModuleList(blocks)

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of images.

        Args:
            x: (N, 3, H, W), red, green and blue as (value - 127) / 128 of 0 to 255; H and W are
                multiples of 32.

        Returns:
            (N, c, H / s, W / s) for each of `channels` c and its stride s.
        """
        x = self.stem(x).clamp_(0, 6)
        features = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in _LAST_OF_STRIDE:
                features.append(x)
        return features


class FrozenConvolution(nn.Module):
    """A convolution with a bias that takes no gradient: as many pixels out as in, over its stride.

    Its weights are held as float16, and computed with in the type of the images. TensorFlow, where
    they were made, centres a kernel of stride 2 half a pixel farther right and down. So there the
    kernel has one more row and column, of zeros, first: that is faster than to pad the image.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        side = kernel + stride - 1
        weight = torch.zeros(outputs, inputs // groups, side, side, dtype=torch.float16)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=torch.float16), requires_grad=False)
        self.stride, self.padding, self.groups = stride, kernel // 2, groups

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride) for (N, inputs, H, W)."""
        # The conversion goes over float32, as CPUs convert float16 to bfloat16 one by one.
        weight, bias = (t.float().to(x.dtype) for t in (self.weight, self.bias))
        return F.conv2d(x, weight, bias, self.stride, self.padding, groups=self.groups)


class _Block(nn.Module):
    """An inverted residual: more channels, a convolution of each alone, fewer channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = FrozenConvolution(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = FrozenConvolution(inner, inner, kernel, stride, groups=inner)
        self.project = FrozenConvolution(inner, outputs, 1)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else self.expand(x).clamp_(0, 6)
        y: Tensor = self.project(self.depthwise(inner).clamp_(0, 6))
        return y.add_(x) if self.adds else y


def as_photographs(images: Tensor) -> Tensor:
    """Return images as the encoder takes them.

    The encoder sees the channel of a grey image three times. For two channels it sees the first,
    the second and the first. For more it sees the first three, as colours come first in images with
    infrared or depth.

    Args:
        images: (N, C, H, W), of mean 0 and deviation 1 over the training images.

    Returns:
        (N, 3, H, W), scaled to the deviation of photographs.
    """
    channels = images.shape[1]
    return images[:, [colour % channels for colour in range(3)]] * _DEVIATION


def fold_weights(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a `PretrainedEncoder` with the weights of an original.

    Args:
        original: The state of an EfficientNet-Lite0 under the names of Melas-Kyriazi's
            EfficientNet-PyTorch, on the CPU. Its head is left out.

    Raises:
        KeyError: A tensor is missing.
        ValueError: A tensor has another shape.
    """
    parts = {"stem": ("_conv_stem", "_bn0")}
    encoder = PretrainedEncoder()
    for number, block in enumerate(encoder.blocks):
        norms = 1 if block.expand is None else 0
        for part, _ in block.named_children():
            conv = f"_blocks.{number}._{part}_conv"
            parts[f"blocks.{number}.{part}"] = (conv, f"_blocks.{number}._bn{norms}")
            norms += 1
    folded = {}
    for name, (conv, norm) in parts.items():
        mean, variance = original[f"{norm}.running_mean"], original[f"{norm}.running_var"]
        factor = original[f"{norm}.weight"].float() / (variance.float() + _EPSILON).sqrt()
        weight = original[f"{conv}.weight"].float() * factor.view(-1, 1, 1, 1)
        bias = original[f"{norm}.bias"].float() - mean.float() * factor
        if encoder.get_submodule(name).stride == 2:
            weight = F.pad(weight, (1, 0, 1, 0))
        folded[f"{name}.weight"], folded[f"{name}.bias"] = weight.half(), bias.half()
    for name, wanted in encoder.state_dict().items():
        if folded[name].shape != wanted.shape:
            shapes = f"{tuple(folded[name].shape)} where {tuple(wanted.shape)} is due"
            raise ValueError(f"{name} is {shapes}")
    return folded


def frozen_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the part of a network's state that never changes: parameters without a gradient."""
    return {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}


def frozen_digest(network: nn.Module) -> str:
    """Return the SHA-256 of `frozen_state`; "" where all of a network learns."""
    state = frozen_state(network)
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest() if state else ""


def learned_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's state without `frozen_state`."""
    frozen = frozen_state(network)
    return {name: t for name, t in network.state_dict().items() if name not in frozen}
