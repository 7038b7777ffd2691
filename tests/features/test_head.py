import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.support import draw, scribble
from unetseg.classes import IGNORED
from unetseg.features import extraction as features_module, head as head_module
from unetseg.features.extraction import Extractor, Features
from unetseg.features.head import Head, Sample, adapt_head, draw_sample, fit_head, smooth


@pytest.fixture(scope="module")
def extractor():
    return Extractor()


@pytest.fixture(scope="module")
def images(extractor):
    """Two images of three classes: features, truth, scribbles."""
    return [(extractor.extract(im), mask, scribble(mask)) for im, mask in (draw(0), draw(1))]


def random_features(shape=(96, 160)):
    torch.manual_seed(0)
    counts = (3, 2, 4, 2, 3, 5)
    sizes = [tuple(s // 2**k for s in shape) for k in range(6)]
    levels = [torch.randn(n, *size).half() for n, size in zip(counts, sizes, strict=True)]
    return Features(tuple(levels), (shape[0] - 7, shape[1] - 30), 1, counts, 2)


def test_an_answer_is_what_enlarging_all_features_would_give(monkeypatch):
    features = random_features()
    monkeypatch.setattr(head_module, "_ROWS", 32)
    weights, bias = torch.randn(19, 3), torch.randn(3)
    got = Head(weights, bias, torch.tensor([1, 4, 7])).classify(features)
    enlarged = None
    for level in features.levels[::-1]:
        finer = level.float()[None]
        if enlarged is not None:
            up = F.interpolate(enlarged, scale_factor=2.0, mode="bilinear")
            finer = torch.cat([finer, up], 1)
        enlarged = finer
    logits = torch.einsum("fk,fhw->khw", weights, enlarged[0]) + bias[:, None, None]
    smoothed = smooth(torch.softmax(logits, 0), features.levels[0][:2].float().mean(0))
    expected = np.array([1, 4, 7])[smoothed.max(0).indices][:89, :130]
    assert got.shape == (89, 130)
    assert (got == expected).mean() > 0.9995  # ties of rounding


def test_pixels_that_a_head_is_not_sure_of_stay_open():
    features = random_features()
    head = Head(torch.randn(19, 3), torch.randn(3), torch.tensor([1, 4, 7]))
    every = head.classify(features)
    few, fewer = (head.classify(features, least=least) for least in (0.5, 0.9))
    for found in (few, fewer):
        assert (found[found != IGNORED] == every[found != IGNORED]).all()
    assert 0 < (few == IGNORED).sum() < (fewer == IGNORED).sum() < every.size
    assert (few[fewer != IGNORED] != IGNORED).all()


def test_threads_finish_bands_at_the_same_time_each_alone(monkeypatch):
    features, head = random_features(), Head(torch.randn(19, 3), torch.randn(3), torch.arange(3))
    monkeypatch.setattr(head_module, "_ROWS", 32)
    expected = head.classify(features)
    all_there, counts = threading.Barrier(3), []

    def wait(planes, guide):
        all_there.wait(20)
        counts.append(torch.get_num_threads())
        return smooth(planes, guide)

    monkeypatch.setattr(head_module, "smooth", wait)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found = head.classify(features)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert counts == [1, 1, 1]
    np.testing.assert_array_equal(found, expected)


def test_smoothing_takes_grains_away_and_keeps_edges():
    torch.manual_seed(0)
    truth = torch.zeros(60, 60)
    truth[:, 23:] = 1
    grainy = (truth + 0.8 * torch.randn(60, 60)).clamp(-0.5, 1.5)
    planes = torch.stack([1 - grainy, grainy])
    found = smooth(planes.clone(), 2 * truth)
    torch.testing.assert_close(found.sum(0), torch.ones(60, 60), atol=1e-4, rtol=0)
    wrong, before = ((p.max(0).indices != truth).float() for p in (found, planes))
    assert before.mean() > 0.2
    assert wrong.mean() < 0.01
    assert wrong[:, 21:25].mean() < 0.02


def test_smoothing_is_the_published_formula():
    from scipy.ndimage import uniform_filter

    rng = np.random.default_rng(0)
    guide, plane = rng.normal(size=(40, 50)), rng.random((40, 50))
    small, half = (v.reshape(20, 2, 25, 2).mean((1, 3)) for v in (guide, plane))

    def mean(values):
        return uniform_filter(values, 5, mode="nearest")

    covariance = mean(small * half) - mean(small) * mean(half)
    slope = covariance / (mean(small**2) - mean(small) ** 2 + 0.01)
    line = np.stack([mean(slope), mean(mean(half) - slope * mean(small))])
    line = F.interpolate(torch.from_numpy(line)[None], scale_factor=2.0, mode="bilinear")[0]
    line = line.numpy()
    planes = torch.from_numpy(np.stack([plane, 1 - plane]).astype(np.float32))
    got = smooth(planes, torch.from_numpy(guide.astype(np.float32)))
    np.testing.assert_allclose(got[0], line[0] * guide + line[1], atol=1e-4)


def test_few_strokes_predict_the_rest_and_another_image(images):
    (one, truth, painted), (other, second, _) = images
    head = fit_head([draw_sample(one, painted)])
    assert (head.classify(one) == truth).mean() > 0.95
    assert (head.classify(other) == second).mean() > 0.9


def test_one_class_is_no_head(images):
    (features, truth, _), _ = images
    painted = np.where(truth == 1, 1, IGNORED).astype(np.uint8)
    assert fit_head([draw_sample(features, painted)]) is None


def test_nothing_painted_is_an_empty_sample(images):
    (features, truth, _), _ = images
    sample = draw_sample(features, np.full_like(truth, IGNORED))
    assert len(sample.labels) == 0


def test_classes_need_not_follow_each_other(images):
    (features, truth, painted), _ = images
    values = np.array([7, 2, 30, *[IGNORED] * 253], np.uint8)
    head = fit_head([draw_sample(features, values[painted])])
    assert head.classes.tolist() == [2, 7, 30]
    assert (head.classify(features) == values[truth]).mean() > 0.95


def test_a_sample_counts_all_painted_pixels(images, monkeypatch):
    (features, truth, _), _ = images
    monkeypatch.setattr(head_module, "_OF_CLASS", 10)
    sample = draw_sample(features, truth)
    assert np.bincount(sample.labels).tolist() == [10, 10, 10]
    assert sample.totals[:3].tolist() == np.bincount(truth.ravel()).tolist()


def test_few_pixels_of_an_image_hold_all_its_classes(images):
    (features, truth, _), _ = images
    labels = np.where(truth == 1, IGNORED, truth).astype(np.uint8)
    labels[np.unravel_index(np.flatnonzero(truth == 1)[:2], truth.shape)] = 1
    sample = draw_sample(features, labels)
    assert np.bincount(sample.labels[:7]).tolist() == [3, 2, 2]
    assert fit_head([sample], most=7).classes.tolist() == [0, 1, 2]


def test_a_sample_among_many_holds_the_pixels_that_a_head_learns_from(images):
    (features, truth, _), (others, other_truth, _) = images
    many = [draw_sample(features, truth), *[draw_sample(others, other_truth)] * 9]
    few = [draw_sample(features, truth, 30), *[draw_sample(others, other_truth, 30)] * 9]
    assert len(few[0].labels) == 30
    one, other = fit_head(many, most=300), fit_head(few, most=300)
    assert torch.equal(one.weights, other.weights)
    assert torch.equal(one.bias, other.bias)


def test_another_stroke_keeps_most_of_the_pixels_drawn(images, monkeypatch):
    (features, truth, _), _ = images
    monkeypatch.setattr(head_module, "_OF_CLASS", 100)
    before = truth.copy()
    before[:, 50:] = IGNORED  # and now six more columns of 56
    rows = [{tuple(r) for r in draw_sample(features, m).features.tolist()} for m in (before, truth)]
    assert len(rows[0] & rows[1]) > 0.7 * len(rows[0])


def test_the_search_begins_at_the_last_head(images, monkeypatch):
    (features, truth, painted), _ = images
    sample = draw_sample(features, painted)
    head = fit_head([sample])
    monkeypatch.setattr(head_module, "_STEPS", 1)
    cold, warm = fit_head([sample]), fit_head([sample], head)
    wrong = [(h.classify(features) != truth).sum() for h in (cold, warm, head)]
    assert (head.weights - warm.weights).norm() < 0.2 * (head.weights - cold.weights).norm()
    assert wrong[1] <= wrong[0]


def test_a_class_may_come_and_go(images):
    (features, truth, painted), _ = images
    two = np.where(painted == 2, IGNORED, painted).astype(np.uint8)
    head = fit_head([draw_sample(features, two)])
    assert head.classes.tolist() == [0, 1]
    head = fit_head([draw_sample(features, painted)], head)
    assert head.classes.tolist() == [0, 1, 2]
    assert (head.classify(features) == truth).mean() > 0.95
    head = fit_head([draw_sample(features, two)], head)
    assert head.classes.tolist() == [0, 1]


def pixels_of(counts):
    """Draw pixels with four features, of classes that overlap: features and labels."""
    torch.manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return torch.randn(len(labels), 4) + 1.5 * labels[:, None], labels


def fitted(counts):
    """Return a head for painted pixels of classes 0, 1, ..., and the samples."""
    features, labels = pixels_of(counts)
    samples = [Sample(features, labels, torch.bincount(labels, minlength=IGNORED), (4,))]
    return fit_head(samples, penalty=1e-5), samples


def test_a_head_adapts_to_the_shares_of_the_pixels_that_nobody_painted():
    head, samples = fitted([2_000, 2_000, 2_000])
    features, labels = pixels_of([18_000, 1_500, 500])
    adapted = adapt_head(head, samples, features.half())
    assert torch.equal(adapted.weights, head.weights)
    shares = torch.softmax(adapted.bias - head.bias, 0)  # the strokes had equal shares
    np.testing.assert_allclose(shares, [0.9, 0.075, 0.025], atol=0.01)
    before, after = (
        ((features @ h.weights + h.bias).argmax(1) != labels).float().mean()
        for h in (head, adapted)
    )
    assert after < 0.6 * before


def test_shares_are_estimated_against_the_weights_that_the_classes_learned_with():
    head, samples = fitted([900, 100])  # these weigh as 3 to 1
    features, _ = pixels_of([3_000, 1_000])
    adapted = adapt_head(head, samples, features)
    np.testing.assert_allclose(adapted.bias, head.bias, atol=0.15)


def test_a_class_that_no_pixel_shows_keeps_a_finite_bias():
    head, samples = fitted([2_000, 2_000, 2_000])
    features, _ = pixels_of([2_000, 2_000])
    adapted = adapt_head(head, samples, features - 100)
    assert adapted.bias.isfinite().all()
    assert adapt_head(head, samples, features).bias[2] < head.bias[2] - 1


def test_entropy_is_high_where_a_head_is_unsure(images):
    (seen, _, painted), (features, truth, _) = images
    head = fit_head([draw_sample(seen, painted)])
    rows, columns = np.indices(truth.shape)
    entropy = head.entropy(features.at(rows.ravel(), columns.ravel())).reshape(truth.shape)
    assert entropy.min() >= 0
    assert entropy.max() <= 1
    wrong = head.classify(features) != truth
    assert wrong.sum() > 50  # on the image that was painted, a few pixels would decide
    assert entropy[wrong].mean() > 2 * entropy[~wrong].mean()


def test_strokes_on_a_large_image_are_learned_at_its_reduced_scale(extractor, monkeypatch):
    monkeypatch.setattr(features_module, "MAX_PIXELS", 80 * 80)
    image, mask = draw(3, (128, 120))
    features = extractor.extract(image)
    head = fit_head([draw_sample(features, scribble(mask, discs=6))])
    answer = head.classify(features)
    assert answer.shape == (64, 60)
    assert (answer.repeat(2, 0).repeat(2, 1) == mask).mean() > 0.93
