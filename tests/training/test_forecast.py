"""Forecasts: which budgets are refused before anything is cut."""

import time

import pytest

from unetseg import InputError, synthesize
from unetseg.settings import PatchSettings, TrainSettings
from unetseg.training.forecast import check_budget
from unetseg.training.validation import Rehearsal


@pytest.fixture
def set_of_images(tmp_path):
    synthesize(tmp_path, n=10, n_test=0)
    return tmp_path / "train"


def check(folder, budget, monkeypatch, windows):
    """Check a budget on a machine that predicts windows in so many seconds, one after the other.

    Returns:
        The seconds that it took by the clock of that machine.
    """
    now = [0.0]

    def seconds(_):
        window = windows.pop(0) if len(windows) > 1 else windows[0]
        now[0] += 4 * window
        return window

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Rehearsal, "seconds", seconds)
    settings = TrainSettings(budget=budget, device="cpu", network="compact")
    try:
        check_budget(folder, PatchSettings(), settings, started=0.0)
    finally:
        monkeypatch.undo()
    return now[0]


def test_a_bad_moment_does_not_refuse_a_budget(set_of_images, monkeypatch):
    assert check(set_of_images, 30.0, monkeypatch, [0.4, 0.005]) < 2


def test_a_hopeless_budget_is_refused_after_a_few_looks(set_of_images, monkeypatch):
    windows = [1.0] * 20
    with pytest.raises(InputError) as error:
        check(set_of_images, 30.0, monkeypatch, windows)
    assert error.value.argument == "budget"
    assert len(windows) > 15
