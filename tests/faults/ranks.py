"""Several processes as one run: a rank, or its starter, dies, hangs or is told to stop."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.common import (
    LIMIT,
    TRAIN,
    Lab,
    Skipped,
    Tally,
    assert_plain,
    assert_same_run,
    environment,
    fault,
    some,
)

_LONG = (*TRAIN, "--epochs", "40")  # the last of two is taken; about ten seconds


class _Job:
    """A run of two ranks, started by torchrun in a folder."""

    def __init__(self, home: Path, *args: str) -> None:
        self.home, self._log = home, home / "torchrun.err"
        line = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        with self._log.open("w") as log:
            self.agent = subprocess.Popen(
                [sys.executable, *line, "-m", "unetseg", *args],
                cwd=home,
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.ranks: list[int] = []

    @property
    def err(self) -> str:
        """The output of all of them."""
        return self._log.read_text(errors="replace")

    def wait_for_save(self) -> None:
        """Return when the run has saved something and its ranks are known."""
        deadline = time.monotonic() + LIMIT
        while not (self.home / "runs/default/model.safetensors").exists():
            assert self.agent.poll() is None, self.err[-500:]
            assert time.monotonic() < deadline, "nothing is saved"
            time.sleep(0.05)
        self.ranks = _children(self.agent.pid)
        assert len(self.ranks) == 2, f"{len(self.ranks)} ranks"

    def end(self, seconds: float) -> int:
        """Return torchrun's exit code; check that its ranks end in this time, too."""
        deadline = time.monotonic() + seconds
        try:
            code = self.agent.wait(seconds)
            while time.monotonic() < deadline and any(map(_is_alive, self.ranks)):
                time.sleep(0.05)
            assert not any(map(_is_alive, self.ranks)), "ranks are left"
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:.0f} s") from None
        finally:
            for pid in (*self.ranks, self.agent.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return code


def _children(parent: int) -> list[int]:
    """Return the processes that a process started, in the order of their numbers."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return sorted(map(int, text.split()))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _straight(lab: Lab) -> Path:
    """Return a folder with a run of two ranks that nobody harmed."""
    home = lab.copy(lab.made)
    code = (job := _Job(home, *_LONG)).end(2 * LIMIT)
    if code and "distributed" in job.err and "No module" in job.err:
        raise Skipped("torchrun does not work here")
    assert code == 0, job.err[-500:]
    return home


def _resume(home: Path, straight: Path) -> None:
    job = _Job(home, "train", "--resume")
    assert job.end(2 * LIMIT) == 0, job.err[-500:]
    assert_same_run(home, straight)


def _harmed(lab: Lab, share: float, cases: int, harm: Callable[[_Job, int], None]) -> Tally:
    """Harm runs that have saved something, and go on from the remains of each.

    ``harm`` is given the run and the number of the case, and sees to it that the run ends.
    """
    straight, tally = _straight(lab), Tally()
    for case in some(range(cases), share):
        with tally.attempt(f"case {case}"):
            home = lab.copy(lab.made)
            job = _Job(home, *_LONG)
            job.wait_for_save()
            harm(job, case)
            _resume(home, straight)
    return tally


@fault("F24", "two ranks: kill -9 of one", "all end in 30 s, same bits", quick=0)
def killed_rank(lab: Lab, share: float) -> Tally:
    def harm(job: _Job, case: int) -> None:
        rng = random.Random(case)
        time.sleep(rng.uniform(0, 2))
        os.kill(rng.choice(job.ranks), signal.SIGKILL)
        assert job.end(30) != 0, "exit 0"

    return _harmed(lab, share, 20, harm)


@fault("F25", "two ranks: kill -9 of torchrun", "the ranks end in 10 s, same bits", quick=0)
def killed_agent(lab: Lab, share: float) -> Tally:
    def harm(job: _Job, case: int) -> None:
        time.sleep(0.3 * case)
        job.agent.kill()
        job.end(10)

    return _harmed(lab, share, 5, harm)


@fault("F25", "two ranks: SIGTERM to torchrun", "saved, ended in 30 s, same bits", quick=0)
def stopped_agent(lab: Lab, share: float) -> Tally:
    def harm(job: _Job, case: int) -> None:
        time.sleep(0.3 * case)
        job.agent.terminate()
        assert job.end(30) != 0, "exit 0"
        ours = "\n".join(li for li in job.err.splitlines() if li.startswith("unetseg"))
        assert "everything is saved" in ours, job.err[-500:]
        assert_plain(ours)

    return _harmed(lab, share, 5, harm)


@fault("F25", "two ranks: SIGSTOP of one", "the other gives up after 120 s", quick=0)
def stopped_rank(lab: Lab, share: float) -> Tally:
    def harm(job: _Job, case: int) -> None:
        os.kill(job.ranks[case], signal.SIGSTOP)
        assert job.end(180) != 0, "exit 0"

    return _harmed(lab, share, 2, harm)
