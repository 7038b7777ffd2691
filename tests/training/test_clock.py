"""Clocks: the share of a training that is done, by steps and by time."""

import time

import pytest

from unetseg.training.clock import BudgetClock, StepClock


def test_a_clock_of_steps_counts_steps_and_patches_whatever_the_time():
    clock = StepClock(epochs=4, steps_per_epoch=5, patches_per_epoch=36)
    assert (clock.expected_steps, clock.expected_patches(7)) == (20, 144)
    assert [clock.read(step) for step in (0, 5, 20)] == [0, 0.25, 1]
    assert clock.expected_seconds(step=15, step_seconds=2.0) == 10
    clock.share = clock.read(20)
    assert clock.is_over
    assert clock.left() == 0


def test_a_clock_of_time_ends_where_the_next_step_would_end_too_late(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = BudgetClock(available=10.0, step_seconds=2.0)
    assert clock.expected_steps == 5
    shares = []
    for now in (100.0, 104.0, 108.5, 109.0):
        clock.share = clock.read(step=0)
        shares.append(clock.share)
        assert clock.is_over == (now >= 109)
    assert shares == pytest.approx([0.1, 0.5, 0.95, 1.0])  # of the middle of the next step
    clock.share = 0.5
    assert clock.left() == pytest.approx(9)
    assert clock.expected_patches(40) == 80


def test_a_clock_of_time_goes_on_where_an_earlier_session_stopped():
    clock = BudgetClock(available=6.0, step_seconds=0.0001, seconds_before=4.0, expected_steps=7)
    assert clock.expected_steps == 7
    assert clock.read(step=3) == pytest.approx(0.4, abs=0.02)
    assert clock.seconds() == pytest.approx(4.0, abs=0.2)
