"""Predictions of images that are scored: which are made, when, and that batches change none."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import unetseg
from tests.support import QUICK, count_predictions, draw, write_set
from unetseg.errors import InputError, MachineError
from unetseg.prediction.calibration import scale_
from unetseg.prediction.model import Model
from unetseg.prediction.segmenter import Segmenter
from unetseg.scoring import predictions
from unetseg.scoring.predictions import NumberedPredictions, PassedProbabilities

SMALL = {"shape": (40, 36)}  # four windows of 32 x 32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run, and with nine small labelled images, the fifth of another size."""
    root = tmp_path_factory.mktemp("predictions")
    with pytest.MonkeyPatch.context() as context:
        context.chdir(root)
        write_set("train", 6)
        patches = unetseg.PatchSettings(size=32, per_image=8)
        unetseg.train("train", patches=patches, **QUICK)
        write_set("small", 9, first=20, **SMALL)
    return root


@pytest.fixture(autouse=True)
def home(made, monkeypatch):
    monkeypatch.chdir(made)


def predictions_of(count, keep=False, curves=False):
    images = [draw(20 + k, (90, 80) if k == 4 else (40, 36))[0] for k in range(count)]
    asked = []

    def image(k):
        asked.append(k)
        return images[k]

    model = Model("default", unetseg.PredictSettings(batch_size=20))
    return NumberedPredictions(model, image, keep, curves), asked, images


def truth_of(image):
    return np.zeros(image.shape[:2], np.uint8)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("curves", [False, True])
@pytest.mark.parametrize("order", [range(9), range(0, 9, 2), [3, 1, 2, 0]])
def test_images_that_are_expected_are_predicted_as_each_alone(keep, curves, order):
    together, _, images = predictions_of(9, keep, curves)
    alone, _, _ = predictions_of(9, keep, curves)
    together.expect(order)
    for k in order:
        found, expected = (one(k, truth_of(images[k]), True) for one in (together, alone))
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-6)
        if curves:
            assert found.counts.sum() == expected.counts.sum() == 3 * images[k].size


def test_expected_images_are_read_once_and_no_farther_than_a_batch():
    together, asked, images = predictions_of(9)
    together.expect(range(9))
    together(0, truth_of(images[0]), False)
    assert asked == [0, 1, 2, 3, 4]  # the large one is found to be too much for the batch
    for k in range(1, 9):
        together(k, truth_of(images[k]), False)
    assert asked == list(range(9))


def test_an_image_that_was_not_expected_is_predicted_all_the_same():
    together, _, images = predictions_of(9)
    together.expect([0, 1])
    expected = predictions_of(9)[0]
    for k in (6, 0, 6, 1, 0):
        found = together(k, truth_of(images[k]), False).labels
        np.testing.assert_array_equal(found, expected(k, truth_of(images[k]), False).labels)


def test_an_evaluation_of_small_images_predicts_each_once_with_equal_scores(monkeypatch):
    alone = unetseg.evaluate("small", settings=unetseg.PredictSettings(batch_size=1))
    seen = count_predictions(monkeypatch)
    found = unetseg.evaluate("small", boundary=1, objects="all", curves=True)
    assert list(seen.values()) == [1] * 9
    np.testing.assert_array_equal(found.scores.confusion, alone.scores.confusion)
    assert [row["image"] for row in found.image_records()] == [f"im{k}" for k in range(20, 29)]


def test_an_image_that_cannot_be_read_is_named_in_an_evaluation(tmp_path):
    folder = write_set(tmp_path / "bad", 4, first=20, **SMALL)
    pixels = (folder / "images/im22.png").read_bytes()
    (folder / "images/im22.png").write_bytes(pixels[:-40])
    with pytest.raises(InputError) as caught:
        unetseg.evaluate(folder)
    assert Path(str(caught.value.what)).name == "im22.png"


# --- probabilities that a pass has computed ---------------------------------------------------

SHAPE = (3, 20, 10)  # classes, rows, columns: 2,400 bytes
# A model without a network that has one rule: the first pixel is ignored.
MODEL = SimpleNamespace(
    segmenter=Segmenter([], size=16, means=[], stds=[], temperature=2.0),
    finish=lambda labels, valid=None: np.where(np.arange(200).reshape(20, 10) == 0, 255, labels),
)


def random_image(seed):
    """Return probabilities of an image."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).softmax(0)


def add(passed, number, image):
    """Add an image in two bands."""
    for band in image.split(13, dim=1):
        passed.add(number, band, pixels=200)


def test_kept_probabilities_give_the_labels_and_the_confidence_of_the_model():
    passed, images = PassedProbabilities(), {k: random_image(k) for k in (4, 7)}
    for number, image in images.items():
        add(passed, number, image)
    predicted = NumberedPredictions(MODEL, pytest.fail, keep=False, curves=False, passed=passed)
    for number, image in images.items():
        found = predicted(number, np.zeros(SHAPE[1:], np.uint8), sure=True)
        labels = image.argmax(0).numpy()
        assert found.labels[0, 0] == 255
        np.testing.assert_array_equal(found.labels.ravel()[1:], labels.ravel()[1:])
        scaled = scale_(image.clone(), 2.0).amax(0).numpy()
        np.testing.assert_array_equal(found.confidence, scaled)
    assert passed.computed(5) is None


def test_images_beyond_the_limit_are_not_kept():
    passed = PassedProbabilities(limit=5000)
    for number in range(4):
        add(passed, number, random_image(number))
    known = [passed.computed(number) is not None for number in range(4)]
    assert known == [True, True, False, False]
    assert passed.share_missing(pixels=800, classes=3) == pytest.approx(1 - 5000 / 9600)
    assert passed.share_missing(pixels=400, classes=3) == 0
    assert passed.share_missing(pixels=0, classes=3) == 0


def test_a_full_disk_keeps_nothing_and_ends_nothing(monkeypatch):
    passed = PassedProbabilities()
    add(passed, 0, random_image(0))

    def fail(*_):
        raise MachineError("tmp", "no space left", "")

    monkeypatch.setattr(predictions._Kept, "add", fail)
    add(passed, 1, random_image(1))
    add(passed, 2, random_image(2))
    assert [passed.computed(number) for number in range(3)] == [None] * 3
