"""Starts of a training: how a session learns the speed of its machine."""

import time

import pytest

from unetseg.progress import silent
from unetseg.signals import Caught
from unetseg.training.starting import Session


@pytest.mark.parametrize(
    ("wall", "processor", "slowness"), [(10, 10, 1), (10, 20, 1), (10, 4, 2.5)]
)
def test_a_session_knows_how_slow_other_work_makes_it(monkeypatch, wall, processor, slowness):
    clocks = {"monotonic": 500.0, "process_time": 3.0}
    for name in clocks:
        monkeypatch.setattr(time, name, lambda name=name: clocks[name])
    session = Session(0.0, Caught(), silent)
    clocks["monotonic"] += wall
    clocks["process_time"] += processor
    assert session.slowness == pytest.approx(slowness)
