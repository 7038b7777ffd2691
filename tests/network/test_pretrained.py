"""The pretrained encoder: a second implementation agrees, and photographs get their names."""

import io
from pathlib import Path

import imageio.v3 as imageio
import pytest
import sklearn
import torch
import torch.nn.functional as F

from unetseg.features.encoder_weights import _installed, read_encoder_weights
from unetseg.network.optimizers import average_weights, build_optimizer
from unetseg.network.pretrained import (
    PretrainedEncoder,
    fold_weights,
    frozen_state,
    learned_state,
)
from unetseg.network.unet import build_network

PHOTOGRAPHS = Path(sklearn.__file__).parent / "datasets" / "images"
DAISY, PALACE = 985, 698  # numbers of ImageNet's classes
STRIDES = (2, 4, 8, 16, 32)


@pytest.fixture(scope="module")
def original():
    """The weights as they were published."""
    return torch.load(io.BytesIO(_installed()), weights_only=True)


@pytest.fixture(scope="module")
def encoder():
    found = PretrainedEncoder()
    found.load_state_dict(read_encoder_weights())
    return found


class Original:
    """EfficientNet-Lite0 written a second time: batch normalisation apart, TensorFlow's padding."""

    BLOCKS = (  # kernel, stride, expansion; channels follow from the weights
        "3 1 1, 3 2 6, 3 1 6, 5 2 6, 5 1 6, 3 2 6, 3 1 6, 3 1 6, 5 1 6, 5 1 6, 5 1 6, "
        "5 2 6, 5 1 6, 5 1 6, 5 1 6, 3 1 6"
    )

    def __init__(self, state):
        self.state = state

    def normalise(self, x, name):
        mean, variance, scale, shift = (
            self.state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    def convolve(self, x, name, stride=1):
        weight = self.state[f"{name}.weight"]
        kernel, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
        filled = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in filled)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, stride=stride, groups=groups)

    def features(self, x):
        """Return the output of every block."""
        x = F.relu6(self.normalise(self.convolve(x, "_conv_stem", 2), "_bn0"))
        outputs = []
        for number, words in enumerate(self.BLOCKS.split(", ")):
            _, stride, expansion = map(int, words.split())
            name, y = f"_blocks.{number}", x
            if expansion > 1:
                y = F.relu6(
                    self.normalise(self.convolve(y, f"{name}._expand_conv"), f"{name}._bn0")
                )
            y = self.convolve(y, f"{name}._depthwise_conv", stride)
            y = F.relu6(self.normalise(y, f"{name}._bn1"))
            y = self.normalise(self.convolve(y, f"{name}._project_conv"), f"{name}._bn2")
            x = x + y if x.shape == y.shape else y
            outputs.append(x)
        return outputs

    def class_of(self, feature):
        """Return the class of ImageNet for the last feature (1, 320, h, w)."""
        x = F.relu6(self.normalise(self.convolve(feature, "_conv_head"), "_bn1")).mean((2, 3))
        return int((x @ self.state["_fc.weight"].T + self.state["_fc.bias"]).argmax())


def photograph(name):
    """Return the middle of a photograph of scikit-learn's, as the encoder takes it."""
    pixels = torch.from_numpy(imageio.imread(PHOTOGRAPHS / name)).permute(2, 0, 1)[None].float()
    side = min(pixels.shape[2:])
    top, left = ((n - side) // 2 for n in pixels.shape[2:])
    middle = pixels[:, :, top : top + side, left : left + side]
    return (F.interpolate(middle, (224, 224), mode="bilinear", antialias=True) - 127) / 128


def test_features_are_those_of_a_second_implementation_but_for_float16(encoder, original):
    image = photograph("china.jpg")
    found = encoder(image)
    blocks = Original(original).features(image)
    last = [max(i for i, b in enumerate(blocks) if b.shape[-1] * s == 224) for s in STRIDES]
    for feature, number in zip(found, last, strict=True):
        error = (feature - blocks[number]).norm() / blocks[number].norm()
        assert error < 0.012


@pytest.mark.parametrize(("name", "expected"), [("flower.jpg", DAISY), ("china.jpg", PALACE)])
def test_imagenet_calls_a_photograph_by_its_name(encoder, original, name, expected):
    assert Original(original).class_of(encoder(photograph(name))[-1]) == expected


def test_features_have_the_declared_channels_strides_and_no_gradient(encoder):
    features = encoder(torch.zeros(2, 3, 64, 96, requires_grad=True))
    assert [f.shape for f in features] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(encoder.channels, STRIDES, strict=True)
    ]
    assert not any(f.requires_grad for f in features)
    assert frozen_state(encoder).keys() == encoder.state_dict().keys()


def test_a_pixel_farther_than_the_reach_changes_no_feature(encoder):
    image = torch.rand(1, 3, 32, 1600)
    before, after = encoder(image), encoder(image.index_fill(3, torch.tensor([800]), 1.0))
    for one, other, stride in zip(before, after, STRIDES, strict=True):
        columns = (one != other).any(1).any(1)[0].nonzero().flatten()
        near = columns * stride, (columns + 1) * stride - 1  # the pixels that a cell covers
        assert 800 - near[1].min() <= encoder.reach
        assert near[0].max() - 800 <= encoder.reach


def fused(channels=3, depth=4):
    """Return the network with its pretrained weights."""
    torch.manual_seed(0)
    network = build_network("fused", channels, 2, width=4, depth=depth).eval()
    network.pretrained.load_state_dict(read_encoder_weights())
    return network


@pytest.mark.parametrize("depth", [1, 2, 4, 5, 6])
def test_a_tile_with_a_halo_equals_the_whole_strip(depth):
    network = fused(depth=depth).double()
    halo, tile = network.halo, 64
    image = torch.randn(1, 3, 32, 2 * halo + 3 * tile, dtype=torch.float64)
    with torch.inference_mode():
        whole = network(image)
        for left in (halo, halo + 2 * tile):
            part = network(image[..., left - halo : left + tile + halo])
            expected = whole[..., left : left + tile]
            torch.testing.assert_close(part[..., halo : halo + tile], expected)
        nearer = network(image[..., halo - halo // 2 : halo + tile + halo // 2])
    wrong = nearer[..., halo // 2 : halo // 2 + tile] - whole[..., halo : halo + tile]
    assert wrong.abs().max() > 1e-12  # nor is the halo many times the needed one


@pytest.mark.parametrize(("channels", "seen"), [(1, [0, 0, 0]), (2, [0, 1, 0]), (5, [0, 1, 2])])
def test_the_encoder_sees_three_channels_of_any_number(channels, seen):
    network = fused(channels)
    image = torch.randn(1, channels, 32, 32)
    taken = []
    network.pretrained.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    network(image)
    torch.testing.assert_close(taken[0], image[:, seen] * 0.47)


def test_only_what_learns_moves_and_is_copied_into_checkpoints():
    network = fused()
    before = {name: t.clone() for name, t in frozen_state(network).items()}
    average = average_weights(network, 10)
    optimizer = build_optimizer(network, "muon", 0.02, 0.01)
    for _ in range(2):
        network.train()(torch.randn(2, 3, 32, 32)).square().mean().backward()
        optimizer.step()
        average.update_parameters(network)
    for state in (frozen_state(network), frozen_state(average.module)):
        assert all(torch.equal(state[name], before[name]) for name in before)
    assert not learned_state(network).keys() & before.keys()
    assert learned_state(network).keys() | before.keys() == network.state_dict().keys()
    moving = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert moving == {id(p) for p in network.parameters() if p.requires_grad}


def test_weights_of_another_network_are_refused_before_anything_is_computed(original):
    with pytest.raises(KeyError, match="_conv_stem"):
        fold_weights({name: t for name, t in original.items() if "_conv_stem" not in name})
    with pytest.raises(ValueError, match=r"stem.weight is \(16, .* where \(32, "):
        fold_weights(
            original
            | {"_conv_stem.weight": torch.zeros(16, 3, 3, 3)}
            | {
                f"_bn0.{k}": torch.ones(16)
                for k in ("weight", "bias", "running_mean", "running_var")
            }
        )
