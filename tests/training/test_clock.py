"""Clocks: the share of a training that is done, by steps and by time."""

import time

import numpy as np
import pytest

from unetseg.training.clock import BudgetClock, StepClock


def test_a_clock_of_steps_counts_steps_and_patches_whatever_the_time():
    clock = StepClock(epochs=4, steps_per_epoch=5, patches_per_epoch=36, rate=9.0)
    assert (clock.expected_steps, clock.expected_patches(7)) == (20, 144)
    assert [clock.read(step) for step in (0, 5, 20)] == [0, 0.25, 1]
    clock.share = clock.read(20)
    assert clock.is_over
    assert clock.left() == 0


@pytest.mark.parametrize(
    ("every", "passes"),  # passes that are left after 0, 1, 2, ... epochs, the last one included
    [(1, [5, 4, 3, 2, 1, 1]), (2, [3, 3, 2, 2, 1, 1]), (3, [2, 2, 2, 1, 1, 1]), (9, [1] * 6)],
)
def test_the_time_left_of_epochs_has_all_steps_and_passes(every, passes):
    clock = StepClock(5, 10, 80, rate=4.0, scoring=12.0, validate_every=every)
    for done, count in enumerate(passes):
        clock.read(10 * done)
        assert clock.left() == pytest.approx((5 - done) * 20 + 3 * count)
    clock.read(5)
    assert clock.left() == pytest.approx(4.5 * 20 + 3 * passes[0])


def test_the_time_left_is_that_of_the_present_speed_not_of_the_whole_run():
    clock = StepClock(100, 100, 800, rate=8.0, scoring=800.0)
    for _ in range(100):  # other work takes most of the machine in the first epochs
        clock.note_steps(8, 4.0)
    clock.read(1800)
    assert clock.left() == pytest.approx((82 * 800 + 82 * 800) / 2, rel=1e-3)
    for _ in range(1000):
        clock.note_steps(8, 0.1)
    clock.read(2000)
    assert clock.left() == pytest.approx((80 * 800 + 80 * 800) / 80, rel=0.01)
    clock.note_scoring(20.0)  # twice as long as the 800 patches that it was thought to cost
    assert clock.left() == pytest.approx((80 * 800 + 80 * 1600) / 80, rel=0.01)


def test_the_time_left_of_a_resumed_run_is_that_of_its_rest():
    clock = StepClock(4, 5, 40, rate=4.0, steps_before=15, seconds_before=1000.0)
    assert clock.left() == 10


def clock_of(total, monkeypatch, pass_seconds=lambda _: 0.0, cost=0.0, **others):
    """Return a clock of time with steps of 2 seconds, and a function that sets its time.

    Args:
        total, others: Of the clock.
        monkeypatch: Pytest's.
        pass_seconds: Gives the seconds of a pass over the held-out images at each second.
        cost: Seconds of measuring that.
    """
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def measure():
        now[0] += cost
        return pass_seconds(now[0] - 100.0)

    others = {"scoring": pass_seconds(0.0)} | others
    clock = BudgetClock(total, 8, 4.0, measure=measure, **others)

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


def test_the_time_left_of_a_budget_ends_with_all_that_is_due(monkeypatch):
    clock, at = clock_of(50.0, monkeypatch, lambda _: 8.0, passes=2.0, later=4.0)
    at(10)
    assert clock.left() == pytest.approx(40)
    assert clock.expected_patches(40) == pytest.approx(40 + 4 * 20)  # steps end after 30 seconds
    clock, at = clock_of(10.0, monkeypatch, lambda _: 8.0, later=4.0, least=3.0)
    assert clock.left() == pytest.approx(15)


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


PASS = 10.0  # seconds


def test_a_machine_that_grows_slower_ends_training_sooner_without_a_jump(monkeypatch):
    clock, at = clock_of(110.0, monkeypatch, lambda s: PASS if s < 50 else 3 * PASS, cost=0.1)
    course = Course(clock, at)
    assert course.end == pytest.approx(80, abs=2)  # three times 10 seconds are kept
    assert course.at(48) == pytest.approx(0.49, abs=0.01)
    assert course.rises.min() >= 0
    assert course.rises.max() < 0.1


def test_a_machine_that_is_busy_at_first_is_trained_on_until_the_end(monkeypatch):
    # The first measurement keeps 100 of 104 seconds, so that 5 are left for steps.
    clock, at = clock_of(
        104.0, monkeypatch, lambda s: 10 * PASS if s < 3 else PASS, cost=0.02, least=5.0
    )
    course = Course(clock, at, step_seconds=0.5)
    assert course.end == pytest.approx(94, abs=1)
    assert course.at(10) < 0.9  # the rest is not trained at the end of the schedule
    assert course.rises.min() >= 0


def test_a_bad_moment_does_not_end_a_training(monkeypatch):
    bad = []

    def seconds(second):  # the first measurement after 70 seconds finds a busy machine
        if second < 70 or bad:
            return PASS
        bad.append(second)
        return 12 * PASS

    clock, at = clock_of(110.0, monkeypatch, seconds, cost=0.4)
    assert Course(clock, at).end == pytest.approx(100, abs=2)
    assert bad[0] < 90


def test_measuring_takes_a_hundredth_of_the_time(monkeypatch):
    times = []

    def seconds(second):
        times.append(second)
        return 0.0

    clock, at = clock_of(1000.0, monkeypatch, seconds, cost=0.1)
    Course(clock, at)
    assert 40 < len(times) < 120


def test_a_measured_pass_replaces_the_estimate(monkeypatch):
    clock, at = clock_of(104.0, monkeypatch, lambda _: PASS)
    clock.note_scoring(24.0)
    assert at(39) == pytest.approx(0.5)  # of 104 - 24 seconds
    assert clock.has_time_to_score()
    at(55)
    assert not clock.has_time_to_score()  # 24 seconds and a step do not fit into 25


def test_a_little_is_trained_even_where_what_follows_needs_all_the_time(monkeypatch):
    clock, at = clock_of(60.0, monkeypatch, lambda _: 100.0, least=6.0)
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
