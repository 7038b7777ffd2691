"""The number of threads of a training, on machines whose speed is made up."""

import pytest
import torch

from unetseg.training.threads import Threads


class Machine:
    """A machine whose steps take so many seconds by the number of threads; time is counted.

    Args:
        monkeypatch: Pytest's.
        most: The threads at the beginning.
        slowness: Of `Threads`.
    """

    def __init__(self, monkeypatch, most, slowness=1.0):
        self.number = most
        monkeypatch.setattr(
            torch, "set_num_threads", lambda number: setattr(self, "number", number)
        )
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.number)
        self.threads = Threads(slowness)

    def work(self, steps, seconds_of):
        """Do steps; return how many of them were done with each number of threads."""
        done = dict.fromkeys(seconds_of, 0)
        for _ in range(steps):
            done[self.number] += 1
            self.threads.note_step(seconds_of[self.number])
        return done


def test_an_idle_machine_keeps_all_threads_and_loses_less_than_a_hundredth(monkeypatch):
    times = {2: 0.1, 1: 0.16}
    done = Machine(monkeypatch, 2).work(10_000, times)
    assert done[1] > 10
    taken = sum(times[number] * count for number, count in done.items())
    assert taken < 1.01 * 10_000 * times[2]


def test_beside_other_work_one_thread_goes_on_until_the_machine_is_idle(monkeypatch):
    machine = Machine(monkeypatch, 2)
    busy = machine.work(1000, {2: 1.5, 1: 0.2})
    assert busy[2] < 20
    assert machine.number == 1
    machine.work(5000, {2: 0.1, 1: 0.16})
    assert machine.number == 2


def test_a_number_that_is_hardly_quicker_is_not_taken(monkeypatch):
    assert Machine(monkeypatch, 2).work(1000, {2: 0.1, 1: 0.095})[1] < 60


@pytest.mark.parametrize("best", [1, 2, 3, 6])
def test_the_best_number_is_found_step_by_step(monkeypatch, best):
    machine = Machine(monkeypatch, 6)
    times = {n: 0.1 * 2 ** abs(n - best) for n in range(1, 7)}
    machine.work(3000, times)
    assert times[machine.number] == min(times.values())


def test_a_single_thread_stays_one(monkeypatch):
    assert Machine(monkeypatch, 1).work(1000, {1: 0.1}) == {1: 1000}


def test_a_machine_that_is_shared_from_the_beginning_begins_with_one_thread(monkeypatch):
    machine = Machine(monkeypatch, 8, slowness=2.0)
    assert machine.number == 1
    done = machine.work(200, {8: 0.1, 4: 0.2, 2: 0.4, 1: 0.8})
    assert machine.number == 8
    assert done[8] > 150


def test_a_training_by_epochs_keeps_the_number(monkeypatch):
    assert Machine(monkeypatch, 2, slowness=None).work(500, {2: 2.0, 1: 0.1}) == {2: 500, 1: 0}
