"""Clocks: the share of a training that is done, by steps and by time."""

import time

import numpy as np
import pytest

from unetseg.training.clock import BudgetClock, Reserve, StepClock

NO_RESERVE = Reserve(window=1.0, scoring=0.0, passes=0.0, seconds=0.0)


def test_a_clock_of_steps_counts_steps_and_patches_whatever_the_time():
    clock = StepClock(epochs=4, steps_per_epoch=5, patches_per_epoch=36)
    assert (clock.expected_steps, clock.expected_patches(7)) == (20, 144)
    assert [clock.read(step) for step in (0, 5, 20)] == [0, 0.25, 1]
    assert clock.expected_seconds(step=15, step_seconds=2.0) == 10
    clock.share = clock.read(20)
    assert clock.is_over
    assert clock.left() == 0


def clock_of(total, monkeypatch, reserve=NO_RESERVE, window=lambda _: 1.0, cost=0.0, **others):
    """Return a clock of time with steps of 2 seconds, and a function that sets its time.

    Args:
        total, reserve, others: Of the clock.
        monkeypatch: Pytest's.
        window: Gives the seconds of a window at each second.
        cost: Seconds of measuring that.
    """
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def measure():
        now[0] += cost
        return window(now[0] - 100.0)

    clock = BudgetClock(total, 8, 4.0, reserve, measure, **others)

    def at(seconds):
        now[0] = 100.0 + seconds
        clock.share = clock.read(step=1)
        return clock.share

    return clock, at


class Course:
    """The shares that a clock gives, by second, while steps take ``step_seconds`` until its end."""

    def __init__(self, clock, at, step_seconds=2.0):
        self.seconds, self.shares = [], []
        second = 0.0
        while not clock.is_over:
            self.shares.append(at(second))
            self.seconds.append(second)
            clock.note_steps(8, step_seconds)
            second = clock.seconds() + step_seconds
        self.end = self.seconds[-1]
        self.rises = np.diff(self.shares)

    def at(self, second):
        return np.interp(second, self.seconds, self.shares)


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
    assert clock.left() == pytest.approx(6)
    assert clock.expected_patches(16) == pytest.approx(40)  # 4 a second for 6 seconds more


@pytest.mark.parametrize("recorded", [0.0, 0.62, 0.99, 1.0])
def test_a_resumed_clock_of_time_goes_on_from_the_share_that_was_done(monkeypatch, recorded):
    # By the seconds alone, half of the training would be done.
    clock, at = clock_of(50.0, monkeypatch, seconds_before=50.0, share_before=recorded)
    first, middle, last = at(0), at(24), at(49)
    assert first == pytest.approx(recorded + (1 - recorded) / 50)
    assert middle == pytest.approx(recorded + (1 - recorded) / 2)
    assert last == 1
    assert clock.is_over


def test_a_run_that_did_not_record_its_share_goes_on_by_its_seconds(monkeypatch):
    _, at = clock_of(50.0, monkeypatch, seconds_before=50.0)
    assert at(0) == pytest.approx(0.51)


def test_what_follows_the_steps_is_kept_free_at_the_speed_of_predictions():
    reserve = Reserve(window=0.5, scoring=4.0, passes=2.0, seconds=2.0)
    assert (reserve.at(0.5), reserve.at(1.0), reserve.at(0.25)) == (10.0, 20.0, 6.0)


RESERVE = Reserve(window=1.0, scoring=10.0, passes=1.0, seconds=0.0)


def test_a_machine_that_grows_slower_ends_training_sooner_without_a_jump(monkeypatch):
    clock, at = clock_of(110.0, monkeypatch, RESERVE, lambda s: 1.0 if s < 50 else 3.0, cost=0.1)
    course = Course(clock, at)
    assert course.end == pytest.approx(80, abs=2)  # three times 10 seconds are kept
    assert course.at(48) == pytest.approx(0.49, abs=0.01)
    assert course.rises.min() >= 0
    assert course.rises.max() < 0.1


def test_a_machine_that_is_busy_at_first_is_trained_on_until_the_end(monkeypatch):
    # The first measurement keeps 100 of 104 seconds, so that 5 are left for steps.
    busy = Reserve(window=10.0, scoring=100.0, passes=1.0, seconds=0.0)
    clock, at = clock_of(
        104.0, monkeypatch, busy, lambda s: 10.0 if s < 3 else 1.0, cost=0.02, least=5.0
    )
    course = Course(clock, at, step_seconds=0.5)
    assert course.end == pytest.approx(94, abs=1)
    assert course.at(10) < 0.9  # the rest is not trained at the end of the schedule
    assert course.rises.min() >= 0


def test_a_bad_moment_does_not_end_a_training(monkeypatch):
    bad = []

    def window(second):  # the first measurement after 70 seconds finds a busy machine
        if second < 70 or bad:
            return 1.0
        bad.append(second)
        return 12.0

    clock, at = clock_of(110.0, monkeypatch, RESERVE, window, cost=0.4)
    assert Course(clock, at).end == pytest.approx(100, abs=2)
    assert bad[0] < 90


def test_measuring_takes_a_hundredth_of_the_time(monkeypatch):
    times = []

    def window(second):
        times.append(second)
        return 1.0

    clock, at = clock_of(1000.0, monkeypatch, NO_RESERVE, window, cost=0.1)
    Course(clock, at)
    assert 40 < len(times) < 120


def test_a_measured_pass_replaces_the_estimate(monkeypatch):
    clock, at = clock_of(104.0, monkeypatch, RESERVE)
    clock.note_scoring(24.0)
    assert at(39) == pytest.approx(0.5)  # of 104 - 24 seconds
    assert clock.has_time_to_score()
    at(55)
    assert not clock.has_time_to_score()  # 24 seconds and a step do not fit into 25


def test_a_little_is_trained_even_where_what_follows_needs_all_the_time(monkeypatch):
    reserve = Reserve(window=1.0, scoring=100.0, passes=1.0, seconds=0.0)
    clock, at = clock_of(60.0, monkeypatch, reserve, least=6.0)
    assert clock.expected_steps == 3
    assert [at(0), at(5)] == pytest.approx([1 / 6, 1.0])


def test_the_first_step_is_done_however_late_it_is(monkeypatch):
    clock, at = clock_of(10.0, monkeypatch)
    monkeypatch.setattr(time, "monotonic", lambda: 500.0)
    assert clock.read(step=0) == 0.99
    assert at(400) == 1


def test_a_clock_of_time_goes_on_where_an_earlier_session_stopped(monkeypatch):
    clock, at = clock_of(6.0, monkeypatch, seconds_before=4.0, expected_steps=7)
    assert clock.expected_steps == 7
    assert at(0) == pytest.approx(0.5)  # half a step later than 0.4
    assert clock.seconds() == 4.0
