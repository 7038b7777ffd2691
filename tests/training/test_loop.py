"""When losses are read from the device, and the files at the end of a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import unetseg
from tests.support import QUICK, count_predictions, rows_of, without_times
from unetseg.dataset.store import open_store
from unetseg.errors import DivergenceError
from unetseg.prediction.calibration import PixelSample
from unetseg.prediction.likeness import AppearanceRange, describe, sample_windows
from unetseg.prediction.model_file import read_card
from unetseg.records import read_record
from unetseg.training import artefacts, loop
from unetseg.training.learner import Learner


def card_of(run):
    return read_card(f"runs/{run}/model.safetensors")


@pytest.mark.parametrize("every", [3, 20])  # of 5 steps an epoch
def test_how_seldom_losses_are_read_changes_no_history_and_no_weight(home, monkeypatch, every):
    unetseg.train(run="each", **{**QUICK, "validate": 1})
    monkeypatch.setitem(loop.STEPS_PER_READ, "cpu", every)
    unetseg.train(run="seldom", **{**QUICK, "validate": 1})
    assert without_times(rows_of("seldom")) == without_times(rows_of("each"))
    one, other = (load_file(f"runs/{run}/model.safetensors") for run in ("each", "seldom"))
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


def count_reads(monkeypatch):
    reads = []
    read = Learner.read

    def spy(self, steps):
        reads.append((self.position.step, len(steps)))
        return read(self, steps)

    monkeypatch.setattr(Learner, "read", spy)
    return reads


@pytest.mark.parametrize(
    ("every", "expected"),
    [(1, [(k, 1) for k in range(1, 11)]), (3, [(3, 3), (5, 2), (8, 3), (10, 2)])],
)
def test_losses_are_read_every_few_steps_and_at_the_end_of_an_epoch(
    home, monkeypatch, every, expected
):
    monkeypatch.setitem(loop.STEPS_PER_READ, "cpu", every)
    reads = count_reads(monkeypatch)
    unetseg.train(run="looks", **QUICK)
    assert [read for read in reads[1:] if read[1]] == expected  # the first measures the rate


def poison(monkeypatch, step):
    """Make the loss of a step NaN."""
    learn = Learner.learn

    def spoilt(self, lr):
        done = learn(self, lr)
        return done._replace(loss=done.loss * float("nan")) if done.number == step else done

    monkeypatch.setattr(Learner, "learn", spoilt)


@pytest.mark.parametrize(("every", "noticed"), [(1, 7), (3, 8), (20, 10)])
def test_a_loss_that_is_not_finite_is_noticed_when_it_is_read_next(
    home, monkeypatch, every, noticed
):
    monkeypatch.setitem(loop.STEPS_PER_READ, "cpu", every)
    poison(monkeypatch, 7)
    reads = count_reads(monkeypatch)
    with pytest.raises(DivergenceError, match=r"not finite \(nan\) at step 7, learning rate"):
        unetseg.train(run="nan", **QUICK)
    # On a CPU the step at which it is noticed is the step itself.
    assert reads[-1][0] == noticed
    assert card_of("nan").patches_seen == 36  # the epoch before is saved


def test_a_first_loss_that_is_not_finite_leaves_the_earlier_run_as_it_was(home, monkeypatch):
    before = Path("runs/default/model.safetensors").read_bytes()
    poison(monkeypatch, 1)
    with pytest.raises(DivergenceError, match=r"not finite \(nan\) at step 1, learning rate 0"):
        unetseg.train(overwrite=True, **QUICK)
    assert Path("runs/default/model.safetensors").read_bytes() == before


def test_nothing_is_saved_with_a_step_whose_loss_was_not_read(home, monkeypatch):
    monkeypatch.setitem(loop.STEPS_PER_READ, "cpu", 20)
    monkeypatch.setattr(artefacts, "_SAVE_SECONDS", 0.0)  # after every step
    poison(monkeypatch, 3)
    with pytest.raises(DivergenceError, match="at step 3,"):
        unetseg.train(run="nan", **QUICK)
    assert card_of("nan").patches_seen == 16  # of two steps of 8


def test_a_finished_model_has_a_temperature_fitted_to_its_held_out_images(home):
    card = card_of("default")
    assert card.temperature != 1.0
    opened = open_store("data/patches.h5")
    model = unetseg.Model(["default"])
    model.segmenter.temperature = 1.0
    sample = PixelSample(seed=0)
    for k in range(opened.held_out_count):
        image, mask, _ = opened.held_out(k)
        shares = torch.from_numpy(model.segmenter.probabilities(image))
        sample.add(k, shares, torch.from_numpy(np.array(mask)))
    assert card.temperature == pytest.approx(sample.temperature(), rel=2e-3)
    found = card.scores["calibration"]
    assert found == {"error": pytest.approx(sample.calibration().error, abs=1e-3)} | {
        "temperature": card.temperature
    }


def test_the_end_of_a_run_predicts_each_held_out_image_once(home, monkeypatch):
    """Scores, temperature and validation.png all come of one pass."""
    seen = count_predictions(monkeypatch)
    unetseg.train(run="once", **{**QUICK, "epochs": 1})
    assert list(seen.values()) == [1] * 3
    assert (home / "runs/once/validation.png").exists()


def test_a_run_that_goes_on_has_no_temperature_yet(home, monkeypatch):
    monkeypatch.setattr(artefacts, "_SAVE_SECONDS", 0.0)
    poison(monkeypatch, 8)
    with pytest.raises(DivergenceError):
        unetseg.train(run="on", **QUICK)
    card = card_of("on")
    assert (card.temperature, "calibration" in card.scores) == (1.0, False)


def test_a_model_knows_what_its_training_images_look_like(home):
    unetseg.train(run="seen", **QUICK)
    card, store = card_of("seen"), open_store(card_of("seen").store)
    looks = read_record(AppearanceRange, card.looks, "looks")
    assert looks.images == card.images_trained_on
    for k in range(store.held_out_count):
        image, _, _ = store.held_out(k)
        assert looks.unlike(describe(sample_windows(image, looks.size))) == []
        assert looks.unlike(describe(sample_windows(255 - image, looks.size)))
