"""Clocks: the share of a training that is done, by steps and by time."""

import time

import pytest

from unetseg.training.clock import BudgetClock, Reserve, StepClock

NO_RESERVE = Reserve(rate=4.0, scoring=0.0, passes=0.0, seconds=0.0)


def test_a_clock_of_steps_counts_steps_and_patches_whatever_the_time():
    clock = StepClock(epochs=4, steps_per_epoch=5, patches_per_epoch=36)
    assert (clock.expected_steps, clock.expected_patches(7)) == (20, 144)
    assert [clock.read(step) for step in (0, 5, 20)] == [0, 0.25, 1]
    assert clock.expected_seconds(step=15, step_seconds=2.0) == 10
    clock.share = clock.read(20)
    assert clock.is_over
    assert clock.left() == 0


def clock_of(total, monkeypatch, reserve=NO_RESERVE, **others):
    """Return a clock of time with steps of 2 seconds, and a function that sets its time."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = BudgetClock(total, 8, reserve, **others)

    def at(seconds):
        now[0] = 100.0 + seconds
        clock.share = clock.read(step=1)
        return clock.share

    return clock, at


def test_a_clock_of_time_ends_where_the_next_step_would_end_too_late(monkeypatch):
    clock, at = clock_of(10.0, monkeypatch)
    assert clock.expected_steps == 5
    shares = []
    for seconds in (0, 4, 8.5, 9):
        shares.append(at(seconds))
        assert clock.is_over == (seconds >= 9)
    assert shares == pytest.approx([0.1, 0.5, 0.95, 1.0])  # of the middle of the next step


def test_a_clock_of_time_says_what_is_left(monkeypatch):
    clock, at = clock_of(10.0, monkeypatch)
    at(4)
    assert clock.left() == pytest.approx(4)
    assert clock.expected_patches(40) == 80


def test_what_follows_the_steps_is_kept_free_at_the_present_speed(monkeypatch):
    # 16 patches of scoring, twice, are 8 seconds at 4 patches a second, and 2 seconds come on top.
    reserve = Reserve(rate=4.0, scoring=16.0, passes=2.0, seconds=2.0)
    assert (reserve.at(4.0), reserve.at(2.0), reserve.at(8.0)) == (10.0, 20.0, 6.0)
    clock, at = clock_of(110.0, monkeypatch, reserve)
    assert at(49) == pytest.approx(0.5)  # of 100 seconds
    clock.note_steps(patches=2000, seconds=1000)  # the machine takes twice as long from now on
    assert at(49) == pytest.approx(51 / 90, rel=0.01)  # half a step is two seconds now
    clock.note_steps(patches=8000, seconds=1000)
    assert at(49) == pytest.approx(51 / 90, rel=0.01)  # the share never falls


def test_a_measured_pass_replaces_the_estimate(monkeypatch):
    reserve = Reserve(rate=4.0, scoring=16.0, passes=1.0, seconds=0.0)
    clock, at = clock_of(104.0, monkeypatch, reserve)
    clock.note_scoring(24.0)
    assert at(39) == pytest.approx(0.5)  # of 104 - 24 seconds
    assert clock.has_time_to_score()
    at(55)
    assert not clock.has_time_to_score()  # 24 seconds and a step do not fit into 25


def test_a_little_is_trained_even_where_what_follows_needs_all_the_time(monkeypatch):
    reserve = Reserve(rate=4.0, scoring=400.0, passes=1.0, seconds=0.0)
    clock, at = clock_of(60.0, monkeypatch, reserve, least=6.0)
    assert clock.expected_steps == 3
    assert [at(0), at(5)] == pytest.approx([1 / 6, 1.0])


def test_the_first_step_is_done_however_late_it_is(monkeypatch):
    clock, at = clock_of(10.0, monkeypatch)
    monkeypatch.setattr(time, "monotonic", lambda: 500.0)
    assert clock.read(step=0) == 0.99
    assert at(400) > 1


def test_a_clock_of_time_goes_on_where_an_earlier_session_stopped(monkeypatch):
    reserve = Reserve(rate=1e5, scoring=0.0, passes=0.0, seconds=0.0)
    clock, at = clock_of(6.0, monkeypatch, reserve, seconds_before=4.0, expected_steps=7)
    assert clock.expected_steps == 7
    assert at(0) == pytest.approx(0.4, abs=0.01)
    assert clock.seconds() == 4.0
