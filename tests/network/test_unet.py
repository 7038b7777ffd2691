"""The networks: one test body for all of them, and the registry of others."""

import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unetseg.errors import InputError, UnetsegError
from unetseg.network.unet import (
    Doubling,
    build_network,
    count_parameters,
    fill_to_multiple,
    filled_places,
    fold_normalisation,
)
from unetseg.settings import NETWORKS

SMALL = {"width": 4, "depth": 2}


def small(name, channels=1, classes=3, **changes):
    torch.manual_seed(0)
    return build_network(name, channels, classes, **{**SMALL, **changes}).eval()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16), (17, 30), (31, 5), (64, 48)])
def test_any_height_and_width_come_out_as_they_went_in(name, size):
    with torch.inference_mode():
        assert small(name)(torch.zeros(2, 1, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (3, 2), (5, 40)])
def test_channels_and_classes(name, channels, classes):
    with torch.inference_mode():
        out = small(name, channels, classes)(torch.zeros(1, channels, 16, 16))
    assert out.shape == (1, classes, 16, 16)


@pytest.mark.parametrize("name", ["compact", "classic"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_pixel_farther_than_the_halo_changes_nothing(name, depth):
    network = small(name, depth=depth).double()
    halo, multiple = network.halo, network.multiple
    assert multiple == 2**depth
    assert halo % multiple == 0
    side = 2 * halo + 4 * multiple
    image = torch.randn(1, 1, side, side, dtype=torch.float64, generator=torch.Generator())
    with torch.inference_mode():
        before = network(image)
        reach = 0
        for k in range(2 * multiple):  # every place within a cell of the pooling, and the next
            y = x = side // 2 - multiple + k
            changed = image.clone()
            changed[0, 0, y, x] += 100
            touched = (network(changed) - before).abs().amax((0, 1)).nonzero()
            reach = max(reach, int((touched - torch.tensor([y, x])).abs().max()))
    assert reach <= halo
    assert reach > halo // 3  # nor is the halo many times the needed one


@pytest.mark.parametrize("name", ["compact", "classic"])
def test_tiles_with_a_halo_equal_the_whole_image(name):
    network = small(name).double()
    halo, tile = network.halo, 4 * network.multiple
    image = torch.randn(1, 1, tile * 2 + 2 * halo, tile * 3 + 2 * halo, dtype=torch.float64)
    with torch.inference_mode():
        whole = network(image)
        for row in (halo, halo + tile):
            for column in (halo, halo + 2 * tile):
                part = image[
                    ..., row - halo : row + tile + halo, column - halo : column + tile + halo
                ]
                found = network(part)[..., halo : halo + tile, halo : halo + tile]
                expected = whole[..., row : row + tile, column : column + tile]
                torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_gets_a_gradient(name):
    network = small(name).train()
    network(torch.randn(2, 1, 24, 24)).square().mean().backward()
    for key, parameter in network.named_parameters():
        if not parameter.requires_grad:  # the pretrained part
            continue
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", NETWORKS)
def test_width_and_depth_change_the_network_and_none_means_its_own(name):
    sizes = [count_parameters(small(name, **change)) for change in ({}, {"width": 8}, {"depth": 3})]
    assert sizes[0] < sizes[1]
    assert sizes[0] < sizes[2]


def test_the_classic_network_is_the_published_one():
    with torch.device("meta"):
        network = build_network("classic", 1, 2, width=None, depth=None)
    widths = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sorted(set(widths)) == [2, 64, 128, 256, 512, 1024]
    # 31.0 million with a 1-channel input and biases; batch normalisation takes their place here.
    assert count_parameters(network) == pytest.approx(31.0e6, rel=0.01)


def test_equal_seeds_make_equal_weights():
    one, two = small("compact").state_dict(), small("compact").state_dict()
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_filling_reflects_the_border():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    filled = fill_to_multiple(x, 4)
    assert filled.shape == (1, 1, 4, 4)
    assert filled[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [0, 1, 2, 2]]
    assert fill_to_multiple(filled, 4) is filled


@pytest.mark.parametrize(
    ("length", "places"),
    [
        (1, [0, 0, 0, 0, 0, 0, 0, 0]),
        (2, [0, 1, 1, 0, 0, 1, 1, 0]),  # an image narrower than the filling is reflected again
        (5, [0, 1, 2, 3, 4, 4, 3, 2]),
        (8, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_what_lies_beyond_the_border_is_its_mirror_image(length, places):
    assert filled_places(length, 8).tolist() == places


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"network: 'compat' is not known; did you mean 'compact"):
        build_network("compat", 1, 2)


@pytest.mark.parametrize("settings", [{"nonsense": 1}, {"width": 10**9}, {"depth": 10**6}])
def test_settings_that_a_network_does_not_take_are_refused(settings):
    with pytest.raises(UnetsegError):
        build_network("compact", 1, 2, **settings)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a distribution whose networks are those of a module written here."""

    def install(code, *names):
        (tmp_path / "someones_nets.py").write_text(textwrap.dedent(code))
        about = tmp_path / "someones_nets-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: someones-nets\nVersion: 1.0\n"
        )
        lines = "".join(f"{name} = someones_nets:build\n" for name in names)
        (about / "entry_points.txt").write_text(f"[unetseg.networks]\n{lines}")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delenv("UNETSEG_NO_PLUGINS", raising=False)
        monkeypatch.delitem(sys.modules, "someones_nets", raising=False)

    return install


def test_a_network_of_a_plug_in_is_built_by_its_name(plugin):
    plugin(
        """
        from torch import nn

        def build(channels, classes, kernel=1):
            return nn.Conv2d(channels, classes, kernel, padding=kernel // 2)
        """,
        "linear",
    )
    network = build_network("linear", 3, 2, kernel=5, width=None)
    assert network.kernel_size == (5, 5)
    assert network(torch.zeros(1, 3, 9, 9)).shape == (1, 2, 9, 9)
    with pytest.raises(InputError, match="linear does not take these settings"):
        build_network("linear", 3, 2, width=4)
    with pytest.raises(InputError, match="one of fused, compact, classic, linear"):
        build_network("nonsense", 3, 2)


def test_built_in_names_win_over_plug_ins(plugin):
    plugin("def build(channels, classes):\n    raise SystemExit\n", "compact")
    assert count_parameters(small("compact")) > 0


def test_a_broken_plug_in_fails_alone_and_names_itself(plugin):
    plugin("import module_that_is_not_there\n", "broken")
    assert count_parameters(small("compact")) > 0
    with pytest.raises(UnetsegError, match="someones-nets: not loaded"):
        build_network("broken", 1, 2)


def test_plug_ins_are_left_out_on_request(plugin, monkeypatch):
    plugin("def build(channels, classes):\n    raise SystemExit\n", "linear")
    monkeypatch.setenv("UNETSEG_NO_PLUGINS", "1")
    with pytest.raises(InputError, match=r"'linear' is not known; one of fused, compact, classic$"):
        build_network("linear", 1, 2)


def test_broken_metadata_of_another_distribution_costs_no_network(plugin, tmp_path):
    plugin("from torch.nn import Conv2d\ndef build(i, o):\n    return Conv2d(i, o, 1)\n", "linear")
    about = tmp_path / "a_broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: a-broken\n")
    (about / "entry_points.txt").write_bytes(b"[unetseg.networks]\n\xff\xfe = = [\n")
    assert count_parameters(small("compact")) > 0
    assert build_network("linear", 3, 2).out_channels == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_leaves_no_normalisation_and_the_same_logits(name):
    network = small(name).train()
    for _ in range(3):
        network(torch.randn(4, 1, 32, 32) * 3 + 1)  # statistics far from 0 and 1
    folded = fold_normalisation(network)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]  # the own one is kept
    assert network.training
    image = torch.randn(1, 1, 40, 24)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), network.eval()(image), atol=1e-5, rtol=1e-4)
    assert (folded.multiple, folded.halo) == (network.multiple, network.halo)


def test_folding_leaves_what_stands_apart_alone():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    for _ in range(3):
        network(torch.randn(4, 1, 16, 16))
    image = torch.randn(1, 1, 9, 9)
    folded = fold_normalisation(network)
    assert type(folded[2]) is nn.BatchNorm2d
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), network.eval()(image))


@pytest.mark.parametrize(("inputs", "outputs", "shape"), [(8, 4, (3, 5)), (16, 16, (1, 2))])
def test_a_matrix_product_doubles_an_image_as_the_transposed_convolution(inputs, outputs, shape):
    torch.manual_seed(0)
    layer, expected = Doubling(inputs, outputs), nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
    expected.load_state_dict(layer.state_dict())
    image = torch.randn(2, inputs, *shape).bfloat16()
    found = []
    for one in (layer, expected):
        seen = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            result = one(seen)
        result.backward(torch.linspace(-1, 1, result.numel()).view(result.shape).bfloat16())
        found.append([result, seen.grad, one.weight.grad, one.bias.grad])
    assert found[0][0].is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        highest = theirs.detach().float().abs().max().item()  # bfloat16 keeps 8 bits of it
        torch.testing.assert_close(ours, theirs, rtol=0, atol=highest / 100)


def test_other_images_are_doubled_by_the_transposed_convolution_itself():
    layer, image = Doubling(8, 4), torch.randn(2, 8, 3, 5)
    expected = F.conv_transpose2d(image, layer.weight, layer.bias, stride=2)
    assert torch.equal(layer(image), expected)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = layer.eval()(image.bfloat16())
        assert torch.equal(predicted, F.conv_transpose2d(image, layer.weight, layer.bias, stride=2))
