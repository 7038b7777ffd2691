"""strace on one part of a child's work: the child waits for strace where that part begins."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from tests.faults.common import Child, Skipped


def ready() -> None:
    """Wait, in the child, for strace to be attached: earlier calls are not traced."""
    os.kill(os.getpid(), signal.SIGSTOP)


def traced(child: Child, *options: str) -> subprocess.Popen[str]:
    """Attach strace to a child that waits in `ready`, and let it go on."""
    while child.code is None and _state(child) != "T":
        time.sleep(0.002)
    assert child.code is None, child.err[-300:]
    tracer = subprocess.Popen(
        ["strace", "-qq", "-y", *options, "-p", str(child.pid)],
        stderr=subprocess.DEVNULL,
        text=True,
    )
    while not re.search(r"TracerPid:\t[1-9]", Path(f"/proc/{child.pid}/status").read_text()):
        if tracer.poll() is not None:
            child.kill()
            raise Skipped("strace may not attach to a process here")
        time.sleep(0.002)
    child.kill(signal.SIGCONT)
    return tracer


def _state(child: Child) -> str:
    """Return the letter that Linux shows for the state of a process."""
    return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]
