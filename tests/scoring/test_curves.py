"""Areas under curves, against scikit-learn, and the output of the command."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from unetseg.scoring.curves import CurveCounts, count_probabilities


def curves_of(images, classes):
    """Return the curves of images from the counts of `count_probabilities` in each."""
    counts = CurveCounts(classes)
    for one in images:
        counts.add(one)
    return counts.curves()


def drawn(kind, seed=0, size=(3, 60, 80)):
    """Return probabilities (C, H, W) float32 and a truth (H, W) that follows them, part ignored."""
    rng = np.random.default_rng(seed)
    logits = {
        "even": rng.normal(0, 1, size),
        "sure": rng.normal(0, 8, size),
        "saturated": rng.normal(0, 60, size),
    }[kind]
    truth = (logits + rng.gumbel(0, 2, size) * logits.std()).argmax(0).astype(np.uint8)
    truth[:5] = 255
    logits -= logits.max(0)
    probabilities = np.exp(logits) / np.exp(logits).sum(0)
    return probabilities.astype(np.float32), truth


@pytest.mark.parametrize("kind", ["even", "sure", "saturated"])
def test_areas_are_those_of_scikit_learn(kind):
    probabilities, truth = drawn(kind)
    found = curves_of([count_probabilities(probabilities, truth)], "abc").pooled
    known = truth != 255
    for index, name in enumerate("abc"):
        own, p = truth[known] == index, probabilities[index][known].astype(np.float64)
        areas = found[name].areas
        assert areas.roc_auc == pytest.approx(roc_auc_score(own, p), abs=1e-3)
        expected = average_precision_score(own, p)
        assert areas.average_precision == pytest.approx(expected, abs=1e-3)


def test_the_curves_of_images_are_those_of_their_pixels_together():
    images = [drawn("sure", seed) for seed in (1, 2)]
    found = curves_of([count_probabilities(*one) for one in images], "abc")
    whole = np.concatenate([p for p, _ in images], 1), np.concatenate([t for _, t in images])
    assert found.pooled == curves_of([count_probabilities(*whole)], "abc").pooled
    alone = curves_of([count_probabilities(*images[0])], "abc").pooled
    assert found.images[0] == {name: curve.areas for name, curve in alone.items()}


def test_a_class_that_is_nowhere_or_everywhere_has_no_curve():
    probabilities = np.full((2, 1, 4), 0.5, np.float32)
    found = curves_of([count_probabilities(probabilities, np.zeros((1, 4), np.uint8))], "ab")
    assert found.pooled == {"a": None, "b": None}
    assert found.to_dict()["roc_auc"] == {"a": None, "b": None}


def test_areas_of_four_pixels_are_those_worked_by_hand():
    # Sorted by probability: of the class, another, of the class, another. Precision is 1 at recall
    # 1/2 and 2/3 at recall 1; 3 of the 4 pairs are in the right order.
    own = np.array([[0.9, 0.7, 0.4, 0.1]], np.float32)
    truth = np.array([[0, 1, 0, 1]], np.uint8)
    found = curves_of([count_probabilities(np.stack([own, 1 - own]), truth)], "ab").pooled["a"]
    assert found.areas.roc_auc == 0.75
    assert found.areas.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert found.roc == ((0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1))
    assert found.precision_recall == ((0.5, 1), (0.5, 0.5), (1, pytest.approx(2 / 3)), (1, 0.5))
