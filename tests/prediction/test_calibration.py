"""Calibration: hand-worked bins, another library's error, and temperatures that are known."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from unetseg.prediction.calibration import PixelSample, Reliability, fit_temperature, scale_


def world(count, classes=3, sharpness=1.0, seed=0):
    """Return probabilities (K, N) that are too sure by a known factor, and true classes (N,)."""
    rng = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(classes, count, generator=rng)
    truth = torch.multinomial(logits.softmax(0).T, 1, generator=rng)[:, 0]
    return (logits * sharpness).softmax(0), truth


def counted(probabilities, truth):
    found = Reliability()
    confidence, prediction = probabilities.max(0)
    found.add(truth.numpy(), prediction.numpy(), confidence.numpy())
    return found.calibration()


def test_bins_and_error_worked_by_hand():
    truth = np.array([[0, 1, 1], [255, 0, 1]], np.uint8)
    prediction = np.array([[0, 1, 0], [1, 0, 1]], np.uint8)
    confidence = np.array([[0.95, 0.85, 0.65], [0.95, 1.0, 0.6]], np.float32)
    counts = Reliability()
    for row in range(2):  # in parts, as bands come
        counts.add(truth[row], prediction[row], confidence[row])
    found = counts.calibration(1.5)
    assert found.temperature == 1.5
    assert found.pixels == (0, 0, 0, 0, 0, 0, 2, 0, 1, 2)
    assert found.accuracy == (0, 0, 0, 0, 0, 0, 0.5, 0, 1, 1)
    np.testing.assert_allclose(found.confidence[6:], [0.625, 0, 0.85, 0.975], atol=1e-7)
    # (2 |0.5 - 0.625| + |1 - 0.85| + 2 |1 - 0.975|) / 5
    assert found.error == pytest.approx((0.25 + 0.15 + 0.05) / 5)


def test_no_pixel_has_no_calibration():
    counts = Reliability()
    counts.add(np.full(3, 255, np.uint8), np.zeros(3, np.uint8), np.ones(3, np.float32))
    assert counts.calibration() is None


@pytest.mark.parametrize("classes", [2, 7])
def test_the_error_is_that_of_torchmetrics(classes):
    shares, truth = world(5000, classes, 2.5)
    expected = multiclass_calibration_error(shares.T, truth, classes, n_bins=10, norm="l1")
    assert counted(shares, truth).error == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_scaling_divides_the_logits(temperature):
    logits = torch.randn(4, 5, 6)
    found = scale_(logits.softmax(0), temperature)
    torch.testing.assert_close(found, (logits / temperature).softmax(0))


def test_scaling_is_in_place_and_stands_zeros():
    shares = torch.tensor([[1.0, 0.5], [0.0, 0.5], [0.0, 0.0]])
    found = scale_(shares, 5.0)
    assert found is shares
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.sum(0), torch.ones(2))


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 1.7, 3.0])
def test_the_temperature_that_made_probabilities_too_sure_is_found(sharpness):
    shares, truth = world(60_000, 3, sharpness)
    assert fit_temperature(shares, truth) == pytest.approx(sharpness, rel=0.03)


def test_the_temperature_is_where_a_grid_search_finds_the_least_loss():
    shares, truth = world(3000, 4, 2.0, seed=3)
    grid = np.geomspace(0.2, 5, 3000)
    logs = shares.double().log()
    losses = [float(-(logs / t).log_softmax(0).gather(0, truth[None]).mean()) for t in grid]
    assert fit_temperature(shares, truth) == pytest.approx(grid[np.argmin(losses)], rel=2e-3)


def test_temperatures_are_bounded():
    shares = torch.tensor([0.9, 0.1])[:, None].expand(2, 10)
    assert fit_temperature(shares, torch.zeros(10, dtype=torch.long)) == 0.2  # always right
    assert fit_temperature(shares, torch.ones(10, dtype=torch.long)) == 5.0
    assert fit_temperature(shares[:, :0], torch.zeros(0, dtype=torch.long)) == 1.0


def add_images(sample, number, sharpness=2.0, size=(40, 50), cut=()):
    """Add images of `world`; ``cut`` says where they are cut into bands."""
    for k in range(number):
        shares, truth = world(size[0] * size[1], 3, sharpness, seed=k)
        shares, truth = shares.view(3, *size), truth.view(size).to(torch.uint8)
        for rows in np.split(np.arange(size[0]), cut):
            sample.add(k, shares[:, rows], truth[rows])


def test_a_sample_is_bounded_and_as_large_a_share_of_every_image():
    sample = PixelSample(limit=3000)
    add_images(sample, 8)  # 2000 pixels each
    pixels = sample._pixels()
    assert 1200 < len(pixels.truth) <= 3000
    counts = np.bincount(pixels.images, minlength=8)
    np.testing.assert_allclose(counts, counts.mean(), rtol=0.25)


def test_many_classes_are_sampled_less():
    sample = PixelSample()
    shares = torch.full((64, 200, 300), 1 / 64)
    sample.add(0, shares, torch.zeros(200, 300, dtype=torch.uint8))
    assert 10_000 < len(sample._pixels().truth) <= 2_000_000 // 64


def test_bands_and_ignored_pixels_do_not_change_a_sample():
    whole, cut = PixelSample(limit=3000), PixelSample(limit=3000)
    add_images(whole, 5)
    add_images(cut, 5, cut=(3, 4, 30))
    assert whole.calibration() == cut.calibration()
    ignored = torch.full((4, 4), 255, dtype=torch.uint8)
    cut.add(5, torch.full((3, 4, 4), 1 / 3), ignored)
    assert whole.temperature() == cut.temperature()


def pooled(limit):
    """Return the samples of one process for 6 images, and of two for 3 each, the latter pooled."""
    alone, first, second = (PixelSample(limit=limit, seed=k) for k in range(3))
    for k in range(6):
        shares, truth = world(2000, 3, 2.0, seed=k)
        for one in (alone, second if k % 2 else first):
            one.add(k, shares[:, None], truth[None])
    sent = []
    second.pool(lambda rows: sent.append(rows) or rows)
    first.pool(lambda rows: torch.cat([rows, sent.pop(0)]))
    return alone, first


def test_the_samples_of_two_processes_make_that_of_one():
    alone, both = pooled(limit=20_000)  # all pixels
    assert both.temperature() == pytest.approx(alone.temperature(), rel=1e-3)
    assert both.calibration().error == pytest.approx(alone.calibration().error, abs=1e-4)
    assert sorted(both._pixels().images) == sorted(alone._pixels().images)


def test_a_pooled_sample_is_bounded_and_as_large_a_share_of_every_image():
    _, both = pooled(limit=3000)
    images = both._pixels().images
    assert 1200 < len(images) <= 3000
    counts = np.bincount(images, minlength=6)
    np.testing.assert_allclose(counts, counts.mean(), rtol=0.25)


def test_what_is_fitted_is_estimated_on_the_other_half_of_the_images():
    sample, halves = PixelSample(), [PixelSample(), PixelSample()]
    worlds = [world(2000, 3, 1.5 + k % 2, seed=k) for k in range(6)]
    for k, (shares, truth) in enumerate(worlds):
        for one in (sample, halves[k % 2]):
            one.add(k, shares[:, None], truth[None])
    found = sample.calibration()
    assert found.temperature == sample.temperature()
    assert halves[0].temperature() == pytest.approx(1.5, rel=0.1)
    assert halves[1].temperature() == pytest.approx(2.5, rel=0.1)
    expected = Reliability()
    for k, (shares, truth) in enumerate(worlds):
        scaled = scale_(shares.clone(), halves[1 - k % 2].temperature())
        confidence, prediction = scaled.max(0)
        expected.add(truth.numpy(), prediction.numpy(), confidence.numpy())
    wanted = expected.calibration()
    assert found.pixels == wanted.pixels
    assert found.accuracy == wanted.accuracy
    np.testing.assert_allclose(found.confidence, wanted.confidence, atol=1e-6)
    assert found.error == pytest.approx(wanted.error, abs=1e-6)


def test_scaling_mends_probabilities_that_are_too_sure():
    sample = PixelSample()
    add_images(sample, 6, sharpness=3.0)
    shares, truth = world(12_000, 3, 3.0, seed=9)
    assert counted(shares, truth).error > 0.1
    assert sample.calibration().error < 0.02


def test_one_image_gives_a_temperature_and_no_estimate_of_what_it_does():
    sample = PixelSample()
    add_images(sample, 1, size=(200, 200))
    assert sample.temperature() == pytest.approx(2.0, rel=0.05)
    assert sample.calibration() is None
    assert PixelSample().calibration() is None
    assert PixelSample().temperature() == 1.0
