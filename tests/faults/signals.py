"""Signals: sent by people, schedulers, terminals and pipes."""

import functools
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.faults.common import (
    TRAIN,
    Lab,
    Tally,
    assert_plain,
    assert_same_run,
    command,
    environment,
    fault,
    go_on,
    once,
    run,
    save_often,
    some,
    start,
    until,
)

_PROMISED = 10.0  # seconds from a signal to the end of the process
# Where training is when the signal comes: the call that it comes before, and which one of these.
_PLACES = {
    "first batch": ("unetseg.training.batches:Batches", "batch", 0),
    "warm-up": ("unetseg.training.learner:Learner", "learn", 1),
    "step": ("unetseg.training.learner:Learner", "learn", 9),
    "late step": ("unetseg.training.learner:Learner", "learn", 16),
    "end of an epoch": ("unetseg.training.loop:Trainer", "_add_row", 0),
    "validation": ("unetseg.training.loop", "validate", 0),
    "last validation": ("unetseg.training.loop", "calibrate", 0),
    "save": ("unetseg.training.checkpoint", "write_checkpoint", 2),
    "save of the model": ("unetseg.prediction.model_file", "write_model", 1),
}


def _send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def _harm(place: str, *numbers: int) -> None:
    """Make `train` get signals at a place."""
    save_often()
    once(*_PLACES[place], functools.partial(_send, *numbers))


def _stop(lab: Lab, place: str, *numbers: int) -> None:
    """Stop a training by signals at a place, check how it ends, and go on."""
    home = lab.copy(lab.made)
    child = start(home, *TRAIN, before=functools.partial(_harm, place, *numbers))
    code = child.wait()
    assert code == 128 + numbers[0], f"exit {code}: {child.err[-300:]}"
    assert_plain(child.err)
    assert not child.orphans(), "processes are left"
    child = go_on(home)
    assert child.wait() == 0, child.err[-300:]
    assert_same_run(home, lab.trained)


@fault(
    "F11", "train: SIGINT, SIGTERM, SIGHUP at nine places", "128 + number, same bits", quick=0.12
)
def stopped_by_a_signal(lab: Lab, share: float) -> Tally:
    tally = Tally()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number, place in some([(n, p) for p in _PLACES for n in numbers], share):
        with tally.attempt(f"{number.name} at {place}"):
            _stop(lab, place, number)
    return tally


@fault("F11", "train: a second signal", "leaves at once, same bits", quick=0.25)
def stopped_by_a_second_signal(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for place in some(["step", "late step", "validation", "save"], share):
        with tally.attempt(place):
            _stop(lab, place, signal.SIGINT, signal.SIGINT)
    return tally


@fault("F12", "train: signals from outside, at any time", "ends in 10 s, no orphans", quick=0.1)
def stopped_from_outside(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for i in some(range(20), share):
        number = (signal.SIGINT, signal.SIGTERM)[i % 2]
        with tally.attempt(f"{number.name} {i}"):
            home = lab.copy(lab.made)
            child = start(home, *TRAIN, "--run", "long", "--epochs", "100000")
            until(child, (home / "runs/long/samples.png").exists)
            time.sleep(0.05 * i)
            os.killpg(child.pid, number) if i % 4 < 2 else child.kill(number)
            assert child.wait(_PROMISED) == 128 + number, f"exit {child.code}: {child.err[-300:]}"
            assert_plain(child.err)
            assert not child.orphans(), "processes are left"
            assert (home / "runs/long/last.pt").exists(), "nothing is saved"
    return tally


@fault("F11", "signals while Python still imports", "ends in 10 s, no traceback", quick=0.17)
def stopped_at_import(lab: Lab, share: float) -> Tally:
    tally, home = Tally(), lab.made
    cases = [(n, d) for n in (signal.SIGINT, signal.SIGTERM) for d in (0.3, 0.6, 1.0)]
    for number, delay in some(cases, share):
        with tally.attempt(f"{number.name} after {delay} s"):
            process = subprocess.Popen(
                command(*TRAIN, "--run", "imported"),
                cwd=home,
                env=environment(),
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
            time.sleep(delay)
            process.send_signal(number)
            _, said = process.communicate(timeout=_PROMISED)
            # Before the first line of unetseg runs, Python ends as it does by default: by the
            # signal, or with 1 while it imports `site`.
            of_python = (1,) if "<frozen site>" in said and "unetseg/" not in said else ()
            due = (128 + number, -number, *of_python)
            assert process.returncode in due, f"exit {process.returncode}"
            if "unetseg/" in said or process.returncode > 1:
                assert_plain(said)
    return tally


def _ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _nohup(lab: Lab, home: Path) -> None:
    child = start(home, *TRAIN, before=_ignore_hangup)
    until(child, (home / "runs/default/samples.png").exists)
    child.kill(signal.SIGHUP)
    assert child.wait() == 0, child.err[-300:]
    assert_same_run(home, lab.trained)


def _stop_and_continue(lab: Lab, home: Path) -> None:
    child = start(home, *TRAIN)
    until(child, (home / "runs/default/samples.png").exists)
    child.kill(signal.SIGSTOP)
    time.sleep(0.3)
    child.kill(signal.SIGCONT)
    assert child.wait() == 0, child.err[-300:]
    assert_same_run(home, lab.trained)


def _close_stdout() -> None:
    """Leave the process without a stdout, as ``>&-`` does."""
    import sys

    os.close(1)
    sys.stdout = None  # the signals that Python finds then


def _to_full_disk(number: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def _closed_stdout(lab: Lab, home: Path) -> None:
    child = run(home, *TRAIN, before=_close_stdout)
    assert child.code == 3, f"exit {child.code}"
    assert "standard output: closed" in child.err, child.err[-300:]
    assert_plain(child.err)
    assert_same_run(home, lab.trained)


def _full_stdout(lab: Lab, home: Path) -> None:
    child = run(home, *TRAIN, before=functools.partial(_to_full_disk, 1))
    assert child.code == 3, f"exit {child.code}"
    assert_plain(child.err)
    assert_same_run(home, lab.trained)


def _full_stderr(lab: Lab, home: Path) -> None:
    child = run(home, *TRAIN, before=functools.partial(_to_full_disk, 2))
    assert child.code == 0, f"exit {child.code}"
    assert_same_run(home, lab.trained)


def _head(lab: Lab, home: Path) -> None:
    line = f"{' '.join(command('info', 'runs/default'))} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=lab.trained, env=environment(), capture_output=True, text=True
    )
    assert done.returncode in (0, 141), f"exit {done.returncode}"
    assert done.stderr == "", done.stderr


@fault("F13", "nohup, stop and continue, closed and full outputs", "the work is kept", quick=0.5)
def outputs_and_terminals(lab: Lab, share: float) -> Tally:
    cases = (_nohup, _stop_and_continue, _closed_stdout, _full_stdout, _full_stderr, _head)
    tally = Tally()
    for case in some(cases, share):
        with tally.attempt(case.__name__.strip("_").replace("_", " ")):
            case(lab, lab.copy(lab.made))
    return tally
