"""Intervals of pooled ratios: worked by hand, at their edges, and how often they hold the truth."""

import warnings

import numpy as np
import pytest
from scipy import stats

from unetseg.scoring.intervals import of_differences, of_ratios

# Three units of 10 pixels, one class: 9, 8 and 7 right. R = 0.8; without each 0.75, 0.8, 0.85.
PART = np.array([[9], [8], [7]])
WHOLE = np.full((3, 1), 10)


def test_an_interval_worked_by_hand():
    # s^2 = 2/3 (0.05^2 + 0 + 0.05^2) = 1/300; df 2; logit 0.8 = ln 4; slope 1 / (0.8 * 0.2)
    mean, classes = of_ratios(PART, WHOLE)
    half = 4.302653 * (1 / 300) ** 0.5 / 0.16
    expected = [4 / (4 + np.exp(half)), 4 / (4 + np.exp(-half))]
    np.testing.assert_allclose(classes, [expected], rtol=1e-6)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)  # of one class


def test_a_paired_interval_worked_by_hand():
    # The other: 10, 8, 9: R 0.9, without each 0.85, 0.95, 0.9. Deviations -0.05, 0.05, 0 less
    # -0.05, 0, 0.05 are 0, 0.05, -0.05: s^2 = 1/300 again.
    other = np.array([[10], [8], [9]])
    half = 4.302653 * (1 / 300) ** 0.5
    for ends in of_differences(PART, WHOLE, other, WHOLE):
        np.testing.assert_allclose(ends.reshape(2), [0.1 - half, 0.1 + half], rtol=1e-6)


def test_what_makes_an_image_hard_for_both_leaves_the_difference_sure():
    part = np.array([[950], [500], [800], [300]])
    whole = np.full((4, 1), 1000)
    other = part + np.array([[30], [31], [29], [30]])
    low, high = of_differences(part, whole, other, whole)[0]
    assert 0.02 < low < 0.03 < high < 0.04
    low, high = of_ratios(part, whole)[0]
    assert high - low > 0.5


def test_degrees_of_freedom_are_those_of_the_units_that_carry_weight():
    # Weights 4 : 2 : 2 : 2: Kish's number is 10^2 / (16 + 12) = 25/7, df 18/7.
    whole = np.array([[40], [20], [20], [20]])
    part = np.array([[30], [15], [18], [12]])
    without = np.array([45 / 60, 60 / 80, 57 / 80, 63 / 80])
    half = stats.t(18 / 7).ppf(0.975) * (0.75 * ((without - 0.75) ** 2).sum()) ** 0.5 / (3 / 16)
    expected = [3 / (3 + np.exp(half)), 3 / (3 + np.exp(-half))]
    np.testing.assert_allclose(of_ratios(part, whole)[1][0], expected, rtol=1e-9)


def test_equal_classes_have_the_interval_of_one_as_their_mean():
    twice = np.repeat(PART, 2, axis=1), np.repeat(WHOLE, 2, axis=1)
    np.testing.assert_allclose(of_ratios(*twice)[0], of_ratios(PART, WHOLE)[0])


def test_classes_that_err_in_turn_leave_their_mean_sure():
    part = np.array([[9, 7], [8, 8], [7, 9], [9, 7]])
    mean, classes = of_ratios(part, np.full((4, 2), 10))
    assert np.isnan(mean).all()  # their sum is the same in every unit: no spread to judge by
    assert (classes[:, 1] - classes[:, 0] > 0.1).all()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_units_give_no_interval(n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = *of_ratios(PART[:n], WHOLE[:n]), *of_differences(*(PART[:n], WHOLE[:n]) * 2)
    assert all(np.isnan(ends).all() for ends in found)


def test_a_class_seen_in_two_units_has_no_interval_and_takes_the_means():
    part = np.column_stack([[9, 8, 7, 9], [5, 4, 0, 0]])
    whole = np.column_stack([[10] * 4, [6, 6, 0, 0]])
    mean, classes = of_ratios(part, whole)
    assert np.isnan(classes[1]).all()
    assert np.isnan(mean).all()
    assert not np.isnan(classes[0]).any()


def test_an_absent_class_is_left_out_of_the_mean():
    part, whole = (np.column_stack([x, np.zeros(3, int)]) for x in (PART, WHOLE))
    mean, classes = of_ratios(part, whole)
    np.testing.assert_allclose(mean, of_ratios(PART, WHOLE)[0])
    assert np.isnan(classes[1]).all()


def test_a_class_that_lies_nearly_all_in_one_unit_has_no_interval():
    whole = np.array([[10_000], [10], [10], [10]])
    assert np.isnan(of_ratios(whole - 3, whole)[1]).all()


@pytest.mark.parametrize("right", [0, 10])
def test_units_that_are_all_wrong_or_all_right_give_no_interval(right):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, classes = of_ratios(np.full((5, 1), right), WHOLE[:1].repeat(5, 0))
    assert np.isnan(mean).all()
    assert np.isnan(classes).all()


def test_one_error_among_units_that_are_all_right_gives_a_sensible_interval():
    part, whole = np.full((20, 1), 100), np.full((20, 1), 100)
    part[3] = 80
    low, high = of_ratios(part, whole)[1][0]
    assert 0.9 < low < 0.97
    assert 0.99 < high < 1


def test_a_class_that_is_always_right_keeps_the_mean_of_the_others_an_interval():
    part, whole = (np.column_stack([x, WHOLE]) for x in (PART, WHOLE))
    mean, classes = of_ratios(part, whole)
    assert np.isnan(classes[1]).all()
    assert 0.5 < mean[0] < 0.9 < mean[1] < 1


def test_many_draws_at_once_are_each_alone():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 50, (6, 5, 3))
    part = rng.integers(0, whole + 1)
    together = of_ratios(part, whole)
    for k in range(6):
        for all_ends, ends in zip(together, of_ratios(part[k], whole[k]), strict=True):
            np.testing.assert_allclose(all_ends[k], ends)


def _images(rng, draws, n):
    """Return part and whole (draws, n, 2) of images of mean IoU 0.8 and 0.6, and the true mean."""
    whole = rng.integers(500, 1500, (draws, n, 2))
    quality = rng.beta([12, 9], [3, 6], whole.shape)
    return np.round(quality * whole), whole, np.array([0.8, 0.6])


def _held(ends, truth):
    return ((ends[..., 0] <= truth) & (truth <= ends[..., 1])).mean(0)


@pytest.mark.parametrize("n", [3, 4, 8, 15])
def test_19_of_20_intervals_hold_the_populations_score(n):
    part, whole, truth = _images(np.random.default_rng(n), 2000, n)
    mean, classes = of_ratios(part, whole)
    for held in (_held(mean, truth.mean()), *_held(classes, truth)):
        assert 0.92 < held < 0.98


def test_percentile_bootstrap_intervals_would_fail_that_test():
    rng = np.random.default_rng(4)
    part, whole, truth = _images(rng, 400, 4)
    counts = rng.multinomial(4, np.full(4, 0.25), (400, 300))  # (draws, resamples, n)
    ratio = (counts @ part) / (counts @ whole)
    ends = np.moveaxis(np.percentile(ratio.mean(-1), [2.5, 97.5], axis=1), 0, -1)
    assert _held(ends, truth.mean()) < 0.85


@pytest.mark.parametrize("n", [4, 15])
def test_19_of_20_paired_intervals_hold_the_true_difference(n):
    rng = np.random.default_rng(n)
    part, whole, _ = _images(rng, 2000, n)
    gain = np.round(whole * 0.03) + rng.integers(-20, 21, part.shape)
    mean, classes = of_differences(part, whole, part + gain, whole)
    for held in (_held(mean, 0.03), *_held(classes, 0.03)):
        assert 0.92 < held < 0.985
