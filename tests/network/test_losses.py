import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unetseg.errors import InputError
from unetseg.network.losses import build_loss, class_weights

NAMES = ["ce", "weighted-ce", "dice", "ce+dice", "weighted-ce+dice"]
WEIGHTS = torch.tensor([0.5, 1.0, 3.0, 2.0])


def random_batch(seed=0, ignored=0.2, shape=(3, 4, 6, 5)):
    """Logits (N, C, H, W), channels last, that take a gradient, and their target (N, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    target[torch.rand(target.shape, generator=generator) < ignored] = 255
    return logits.requires_grad_(), target


def gradient(loss, logits, *arguments):
    return torch.autograd.grad(loss(logits, *arguments), logits)[0]


def dice_by_hand(logits, target):
    """Dice loss of pixels in a list, class by class."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p, target = np.moveaxis(p, 1, -1)[target != 255], target[target != 255]
    scores = [
        2 * p[target == c, c].sum() / (p[:, c].sum() + (target == c).sum()) for c in set(target)
    ]
    return 1 - np.mean(scores)


def test_cross_entropy_and_its_gradient_equal_torchs():
    logits, target = random_batch()

    def oracle(logits, target):
        return F.cross_entropy(logits, target, ignore_index=255)

    loss = build_loss("ce")
    torch.testing.assert_close(loss(logits, target), oracle(logits, target))
    torch.testing.assert_close(gradient(loss, logits, target), gradient(oracle, logits, target))


def test_weighted_cross_entropy_is_torchs_weighted_sum_over_the_number_of_valid_pixels():
    logits, target = random_batch()
    total = F.cross_entropy(logits, target, WEIGHTS, ignore_index=255, reduction="sum")
    loss = build_loss("weighted-ce", WEIGHTS)(logits, target)
    torch.testing.assert_close(loss, total / (target != 255).sum())


@pytest.mark.parametrize("seed", range(3))
def test_dice_equals_the_formula_worked_class_by_class(seed):
    logits, target = random_batch(seed)
    loss = build_loss("dice")(logits, target).item()
    assert loss == pytest.approx(dice_by_hand(logits.detach().numpy(), target.numpy()), abs=1e-6)


@pytest.mark.slow  # for the import of MONAI, which takes seconds
def test_dice_and_its_gradient_equal_those_of_monai():
    monai = pytest.importorskip("monai.losses")
    logits, target = random_batch(ignored=0)
    oracle = monai.DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=0, smooth_dr=0)
    loss, expected = build_loss("dice"), oracle(logits, target[:, None])
    torch.testing.assert_close(loss(logits, target), expected)
    expected_gradient = torch.autograd.grad(expected, logits)[0]
    torch.testing.assert_close(gradient(loss, logits, target), expected_gradient)


def test_dice_leaves_out_a_class_that_the_truth_does_not_hold():
    # Half of the probability on the true class 0, at both pixels: 2 * 1 / (1 + 2).
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).view(1, 3, 1, 1).expand(1, 3, 1, 2)
    target = torch.zeros(1, 1, 2, dtype=torch.int64)
    assert build_loss("dice")(logits, target).item() == pytest.approx(1 - 2 / 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_prediction_loses_nothing(name):
    target = torch.tensor([[[0, 1], [2, 255]]])
    logits = 100 * F.one_hot(target % 255, 4).movedim(-1, 1).float()
    assert build_loss(name, WEIGHTS)(logits, target).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_change_nothing_and_get_no_gradient(name):
    logits, target = random_batch(shape=(1, 4, 6, 5), ignored=0)
    target[0, 4:] = 255
    loss = build_loss(name, WEIGHTS)
    torch.testing.assert_close(loss(logits, target), loss(logits[:, :, :4], target[:, :4]))
    assert gradient(loss, logits, target)[:, :, 4:].abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_valid_pixels_gives_0_with_a_zero_gradient(name):
    logits, target = random_batch(ignored=2)
    loss = build_loss(name, WEIGHTS)
    assert loss(logits, target) == 0
    assert gradient(loss, logits, target).abs().max() == 0


def test_a_sum_is_the_sum_of_its_parts():
    batch = random_batch()
    parts = build_loss("weighted-ce", WEIGHTS)(*batch) + build_loss("dice")(*batch)
    torch.testing.assert_close(build_loss("weighted-ce+dice", WEIGHTS)(*batch), parts)


@pytest.mark.parametrize("name", ["ce", "weighted-ce"])
def test_parts_of_a_batch_add_up_when_divided_by_the_count_of_all(name):
    logits, target = random_batch()
    loss, count = build_loss(name, WEIGHTS), (target != 255).sum()
    parts = loss(logits[:1], target[:1], count) + loss(logits[1:], target[1:], count)
    torch.testing.assert_close(parts, loss(logits, target))


def test_dice_of_a_part_with_the_sums_of_the_other_ranks_is_that_of_all():
    logits, target = random_batch()
    kept = []
    build_loss("dice", total=lambda s: kept.append(s.detach()) or s)(logits[1:], target[1:])
    ranked = build_loss("dice", total=lambda sums: sums + kept[0])
    whole = build_loss("dice")
    torch.testing.assert_close(ranked(logits[:1], target[:1]), whole(logits, target))
    part = gradient(lambda x, t: ranked(x[:1], t[:1]), logits, target)[:1]
    torch.testing.assert_close(part, gradient(whole, logits, target)[:1])


def test_logits_in_half_precision_give_a_float32_loss_of_float32_sums():
    logits, target = random_batch(shape=(2, 3, 64, 64))
    half = logits.detach().bfloat16()
    loss = build_loss("ce+dice")
    assert loss(half, target).dtype == torch.float32
    torch.testing.assert_close(loss(half, target), loss(half.float(), target))


@pytest.mark.parametrize("name", ["", "focal", "ce+", "ce+focal", "ce+ce"])
def test_an_unknown_loss_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match="one of ce, weighted-ce, dice"):
        build_loss(name)


def test_weighted_cross_entropy_without_weights_is_refused():
    with pytest.raises(InputError, match="weights"):
        build_loss("weighted-ce+dice")


def test_class_weights_are_inverse_roots_of_the_shares_with_mean_1_over_pixels():
    # Shares 0.64 and 0.36, roots 0.8 and 0.6: sum(f / sqrt f) = 1.4.
    weights = class_weights(np.array([64, 0, 36]))
    np.testing.assert_allclose(weights, [1 / 0.8 / 1.4, 0, 1 / 0.6 / 1.4], rtol=1e-6)
    assert weights.dtype == np.float32


def test_the_rarest_class_weighs_at_most_32_times_the_commonest():
    weights = class_weights(np.array([10**9, 1]))
    assert 31 < weights[1] / weights[0] < 32
