"""Simple methods score as worked by hand, learn as much as they can, and are compared honestly."""

import sys

import numpy as np
import pytest
from scipy import ndimage

from tests.support import NAMES, draw
from unetseg.errors import InputError
from unetseg.scoring import baselines
from unetseg.scoring.baselines import (
    Baseline,
    Forest,
    compare_with_baselines,
    draw_samples,
    forest_of_folds,
    most_common,
)
from unetseg.scoring.metrics import ScoredImage, scores


@pytest.fixture
def small(monkeypatch):
    """Forests of few trees: their scores do not matter to the nearest hundredth."""
    monkeypatch.setattr(baselines, "_TREES", 8)
    monkeypatch.setattr(baselines, "_JOBS", 1)


def found(*matrices, names=None, groups=None, classes=("a", "b")):
    names = names or [f"im{k}" for k in range(len(matrices))]
    return scores(np.array(matrices, np.int64), names, classes, groups)


def fitted(*pairs, classes=3, seed=0):
    """Return a forest that learnt from images and masks."""
    forest = Forest(classes)
    forest.fit(draw_samples(pairs, classes, seed), seed)
    return forest


def case(number, **look):
    image, mask = draw(number, **look)
    return ScoredImage(f"im{number}", image, mask, np.zeros_like(mask))


def test_the_most_common_class_everywhere_has_its_share_as_iou():
    # 100 true pixels: 70 of a, 30 of b; a everywhere: IoU of a 70 / 100, of b 0
    own = found([[60, 10], [5, 25]], groups=["g"])
    baseline = most_common(own, [900, 100])
    assert baseline.name == "most common class"
    assert baseline.scores.iou == {"a": 0.7, "b": 0.0}
    assert baseline.scores.confusion.tolist() == [[70, 0], [30, 0]]
    assert (baseline.scores.names, baseline.scores.groups) == (own.names, own.groups)


def test_each_image_takes_the_most_common_class_of_its_own_training_pixels():
    own = found([[6, 0], [0, 4]], [[6, 0], [0, 4]])
    baseline = most_common(own, [[9, 1], [1, 9]])
    assert baseline.scores.matrices.tolist() == [[[6, 0], [4, 0]], [[0, 6], [0, 4]]]


def test_a_forest_learns_classes_that_grey_tells_apart(small):
    forest = fitted(*(draw(k) for k in range(6)))
    for k in range(6, 9):
        image, mask = draw(k)
        assert (forest.predict(image) == mask).mean() > 0.98


def test_a_forest_learns_classes_that_colour_alone_tells_apart(small):
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(2):
        mask = (ndimage.gaussian_filter(rng.normal(size=(40, 40)), 4) > 0).astype(np.uint8)
        image = np.full((40, 40, 3), 90, np.uint8)
        image[mask == 1] = (60, 90, 120)  # as bright
        pairs.append((image, mask))
    forest = fitted(pairs[0], classes=2)
    assert (forest.predict(pairs[1][0]) == pairs[1][1]).mean() > 0.97


def test_equal_channels_are_learnt_as_one(small):
    image, mask = draw(0)
    one, three = fitted((image, mask)), fitted((image.repeat(3, axis=2), mask))
    other = draw(1)[0]
    same = one.predict(other) == three.predict(other.repeat(3, axis=2))
    assert same.all()


def test_ignored_pixels_are_not_learnt(small):
    image, mask = draw(0)
    mask[mask == 2] = 255
    forest = fitted((image, mask))
    assert set(np.unique(forest.predict(image))) == {0, 1}


def test_the_same_seed_gives_the_same_forest(small):
    pairs = [draw(k) for k in range(3)]
    one, other = (fitted(*pairs, seed=4).predict(draw(9)[0]) for _ in range(2))
    assert (one == other).all()


def test_an_image_read_in_bands_is_classified_as_whole(small, monkeypatch):
    forest = fitted(draw(0))
    image = draw(1, shape=(130, 56))[0]
    whole = forest.predict(image)
    monkeypatch.setattr(baselines, "_BAND", 7 * 56)
    assert (forest.predict(image) == whole).all()


def test_filters_answer_a_slope_and_a_valley_as_calculus_does():
    x = np.arange(64, dtype=np.float32)
    slope = np.broadcast_to(3 * x, (64, 64))[..., None]
    valley = np.broadcast_to((x - 32) ** 2 / 2, (64, 64))[..., None]
    middle = np.s_[28:36, 28:36]
    for scale in range(3):  # sigma 0.5, 1, 2: the border is far
        first = 1 + 4 * scale  # after grey itself: smooth, gradient, both eigenvalues
        planes = baselines._filter(slope)[middle]
        np.testing.assert_allclose(planes[..., first + 1], 3, rtol=1e-3)
        planes = baselines._filter(valley)[middle]
        np.testing.assert_allclose(planes[..., first + 2], 1, rtol=1e-2)
        np.testing.assert_allclose(planes[..., first + 3], 0, atol=1e-2)


def test_pixels_are_drawn_evenly_and_what_a_rare_class_leaves_goes_to_the_others():
    labels = np.array([0] * 100 + [1] * 100 + [2] * 4 + [255] * 50, np.uint8)
    chosen = baselines._draw_evenly(labels, 3, 64, np.random.default_rng(0))
    assert np.bincount(labels[chosen], minlength=3).tolist() == [30, 30, 4]
    assert len(set(chosen)) == 64


def test_samples_of_many_images_stay_within_bounds(monkeypatch):
    monkeypatch.setattr(baselines, "_POOL", 3000)
    monkeypatch.setattr(baselines, "_PIXELS_OF_IMAGE", 1000)
    drawn = baselines.draw_samples((draw(k) for k in range(12)), 3)
    sizes = [len(s.labels) for s in drawn]
    assert sum(sizes) <= 3000
    assert max(sizes) - min(sizes) <= 3


def test_each_image_is_scored_by_a_forest_that_did_not_see_it(small):
    # Image and mask of fold 2 contradict the others': only who saw it could score it well.
    def read(k):
        one = case(k)
        return ScoredImage(
            one.name, one.image, 2 - one.truth if k == 3 else one.truth, one.prediction
        )

    done = []
    baseline = forest_of_folds(
        read, [1, 1, 3, 2], NAMES, groups=["g", "g", "h", "i"], on_progress=done.append
    )
    assert baseline.scores.names == ("im0", "im1", "im2", "im3")
    assert baseline.scores.groups == ("g", "g", "h", "i")
    shares = baseline.scores.matrices.trace(axis1=1, axis2=2) / baseline.scores.matrices.sum((1, 2))
    assert shares[3] < 0.4 < shares[:3].min()
    assert [p.done for p in done] == list(range(1, 9))


def test_one_fold_leaves_nothing_to_learn_from(small):
    with pytest.raises(InputError, match="random forest"):
        forest_of_folds(case, [1, 1], NAMES)


def test_masks_that_are_ignored_whole_are_an_error():
    with pytest.raises(InputError, match="ignored"):
        fitted((draw(0)[0], np.full((64, 56), 255, np.uint8)))


def test_a_missing_scikit_learn_is_said_with_the_line_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(InputError, match=r"; pip install scikit-learn$"):
        Forest(2)


def of(mean, names=("a",)):
    """Return scores with a mean IoU of about ``mean``: right pixels of 100,000 in both classes."""
    wrong = round(100_000 * (1 - mean) / (1 + mean))
    matrix = [[100_000 - wrong, wrong], [wrong, 100_000 - wrong]]
    return found(*[matrix] * len(names), names=list(names))


COMMON, FOREST = Baseline("most common class", of(0.25)), Baseline("random forest", of(0.924))


@pytest.mark.parametrize(
    ("own", "theirs", "line"),
    [
        (
            of(0.953),
            [COMMON, FOREST],
            "The U-Net (0.953) beats the most common class (0.250) and the random forest (0.924).",
        ),
        (
            of(0.9),
            [COMMON, FOREST],
            "The U-Net (0.900) does NOT beat the random forest (0.924): train longer, or look at "
            "the labels.",
        ),
        (
            FOREST.scores,
            [FOREST],
            "The U-Net (0.924) does NOT beat the random forest (0.924): train longer, or look at "
            "the labels.",
        ),
        (of(0.9), [], "The U-Net (0.900) was compared with no simpler method."),
        (found([[0, 0], [0, 0]]), [FOREST], "The U-Net has no score to compare."),
    ],
)
def test_one_line_says_whether_the_network_is_better(own, theirs, line):
    assert compare_with_baselines(own, theirs) == line


def test_a_lead_within_the_interval_is_not_called_sure():
    own = found(*[[[90 + k, 10 - k], [k, 100 - k]] for k in (0, 4, 9, 2)])
    low, _ = own.mean_iou_ci95
    baseline = Baseline("random forest", of((low + own.mean_iou) / 2))
    assert "above the random forest" in compare_with_baselines(own, [baseline])
    assert f"not surely: its interval begins at {low:.3f}" in compare_with_baselines(
        own, [baseline]
    )


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_forest_may_classify_every_few_rows_and_columns(step, monkeypatch, small):
    image, mask = draw(0, shape=(60, 41))
    forest = fitted((image, mask))
    monkeypatch.setattr(baselines, "_BAND", 7 * 41)  # bands of 7 rows, which no step divides
    thin = forest.predict(image)[::step, ::step]
    np.testing.assert_array_equal(forest.predict(image, step), thin)
