"""The learning rate at hand-worked points, the averages against a loop of one's own."""

import math

import pytest
import torch
from torch import nn

from unetseg.network.optimizers import average_weights, build_optimizer, orthogonalize, rate_at


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("one-cycle", 0.0, 1 / 25),
        ("one-cycle", 0.05, (1 / 25 + 1) / 2),  # halfway up
        ("one-cycle", 0.1, 1.0),
        ("one-cycle", 0.55, (1 + 1e-3) / 2),  # halfway down
        ("one-cycle", 1.0, 1e-3),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.25, 0.5 + math.sqrt(2) / 4),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("steps", 0.0, 1.0),
        ("steps", 0.299, 1.0),
        ("steps", 0.3, 0.1),
        ("steps", 0.599, 0.1),
        ("steps", 0.6, 0.01),
        ("steps", 0.9, 0.001),
        ("steps", 1.0, 0.001),
    ],
)
def test_rate_at_points_worked_by_hand(schedule, progress, expected):
    assert rate_at(schedule, progress) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "steps"])
def test_rate_falls_after_the_warm_up(schedule):
    rates = [rate_at(schedule, 0.1 + 0.9 * k / 200) for k in range(201)]
    assert rates == sorted(rates, reverse=True)
    assert all(0 <= r <= 1 for r in rates)


def test_rate_rises_in_the_warm_up_without_a_jump_at_its_end():
    rates = [rate_at("one-cycle", 0.1 * k / 100) for k in range(101)]
    assert rates == sorted(rates)
    assert rate_at("one-cycle", 0.1 - 1e-9) == pytest.approx(rate_at("one-cycle", 0.1))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
    )


# With no gradient, the decay alone moves a weight: w (1 - lr x decay). Nesterov's step takes the
# first gradient once and its momentum of 0.9.
@pytest.mark.parametrize(("name", "times"), [("adamw", 1), ("muon", 1), ("sgd", 1.9)])
def test_weights_decay_and_biases_and_norms_do_not(name, times):
    net = network()
    optimizer = build_optimizer(net, name, 0.1, 0.5)
    for group in optimizer.param_groups:
        group.pop("share", None)
    before = [p.detach().clone() for p in net.parameters()]
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for old, new in zip(before, net.parameters(), strict=True):
        expected = old * (1 - 0.1 * 0.5 * times) if old.ndim > 1 else old
        torch.testing.assert_close(new.detach(), expected)


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_every_parameter_is_trained_once(name):
    net = network()
    groups = build_optimizer(net, name, 0.1, 0.5).param_groups
    listed = [id(p) for g in groups for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in net.parameters())
    assert all(g["lr"] == 0.1 for g in groups)


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16)])
def test_orthogonalize_makes_all_directions_about_equally_long(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = torch.logspace(0, -1, len(s))  # the shortest a tenth of the longest
    other = torch.randn(5, 9)
    found, _, same = orthogonalize([u * s @ v, other, 3 * (u * s @ v)])
    torch.testing.assert_close(found, same)  # a longer matrix has the same directions
    turned = u.T @ found @ v.T  # diagonal where U and V are those of the matrix
    lengths = turned.diagonal()
    torch.testing.assert_close(turned, lengths.diag(), atol=1e-4, rtol=0)
    assert 0.5 < float(lengths.min()) <= float(lengths.max()) < 1.3


def test_muon_moves_hidden_weights_by_the_rate_and_the_ends_by_adamw():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1))
    optimizer = build_optimizer(net, "muon", 0.02, 0.0)
    before = [layer.weight.detach().clone() for layer in net]
    gradient = torch.randn(4, 4, 3, 3)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    net[1].weight.grad = gradient.clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.02 * group.get("share", 1.0)
    optimizer.step()
    step = before[1] - net[1].weight.detach()
    # The first momentum is a multiple of the gradient, whose length is not looked at.
    torch.testing.assert_close(step.view(4, 36), 0.02 * orthogonalize([gradient.view(4, 36)])[0])
    for k in (0, 2):  # the first step of AdamW is its rate, with the sign of the gradient
        torch.testing.assert_close((before[k] - net[k].weight.detach()).abs().mean().item(), 4e-3)


def test_muon_leaves_the_widest_weights_to_adamw():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 257, 1), nn.Conv2d(257, 257, 1))
    net.append(nn.Conv2d(257, 2, 1))
    turned, rest, _ = build_optimizer(net, "muon", 0.02, 0.0).param_groups
    assert [p.shape[:2] for p in turned["params"]] == [(257, 2)]
    assert [p.shape[:2] for p in rest["params"]] == [(2, 1), (257, 257), (2, 257)]


def test_muon_goes_on_from_its_saved_state():
    def steps(net, optimizer, seeds):
        for seed in seeds:
            for i, p in enumerate(net.parameters()):
                rng = torch.Generator().manual_seed(100 * seed + i)
                p.grad = torch.randn(p.shape, generator=rng)
            optimizer.step()

    straight, stopped = network(), network()
    whole = build_optimizer(straight, "muon", 0.02, 0.1)
    steps(straight, whole, range(6))
    first = build_optimizer(stopped, "muon", 0.02, 0.1)
    steps(stopped, first, range(3))
    second = build_optimizer(stopped, "muon", 0.02, 0.1)
    second.load_state_dict(first.state_dict())
    steps(stopped, second, range(3, 6))
    for one, other in zip(straight.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(one, other)


def test_sgd_has_nesterov_momentum():
    (group, _) = build_optimizer(network(), "sgd", 0.1, 0.0).param_groups
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_averages_equal_a_loop_by_hand():
    net = network()
    average = average_weights(net, 30.0)
    rng = torch.Generator().manual_seed(1)
    expected = None
    for step in range(25):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn(p.shape, generator=rng))
            net[1].running_mean.add_(torch.randn(3, generator=rng))
        net[1].num_batches_tracked.add_(1)
        average.update_parameters(net)
        current = [t.detach().clone().double() for t in net.state_dict().values()]
        if expected is None:
            expected = current
            continue
        decay = min(math.exp(-1 / 30), (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * c for e, c in zip(expected, current, strict=True)]
    found = average.module.state_dict()
    for (name, value), slow in zip(found.items(), expected, strict=True):
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), slow, atol=1e-5, rtol=1e-5)
        else:
            assert value == 25, name


def test_averages_of_what_does_not_move_stay():
    net = network()
    average = average_weights(net, 10.0)
    for _ in range(5):
        average.update_parameters(net)
    for one, other in zip(
        average.module.state_dict().values(), net.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other)
