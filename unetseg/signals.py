"""Stopping on a signal: the handler sets a flag; long loops check it and save their work."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from unetseg.errors import Interrupted

# Ctrl-C; a scheduler or `kill`; a closed terminal; Ctrl-Break. Not every platform has all.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Caught:
    """The signals that `catching` has noted so far.

    Attributes:
        signum: The number of the first signal that came, or None.
    """

    signum: int | None = None

    def check(self, what: object, remedy: str) -> None:
        """Raise `Interrupted` if a signal came; call it where stopping leaves all files whole.

        Args:
            what: The work that stops, such as the run's folder.
            remedy: How to go on: ``'go on with "unetseg train --resume"'``.
        """
        if self.signum is not None:
            name = signal.Signals(self.signum).name
            raise Interrupted(self.signum, what, f"stopped by {name}", remedy)


@contextmanager
def catching() -> Iterator[Caught]:
    """Note SIGINT, SIGTERM and SIGHUP until the block ends, instead of ending on them.

    A second signal ends the process at once with exit code 128 + its number. Signals that were
    ignored before (``nohup``, background jobs) stay ignored. A signal that arrives after the last
    `check` is raised again when the block ends, so blocks can be nested. Outside the main thread
    Python handles no signals, and nothing is caught.
    """
    caught, owner = Caught(), os.getpid()

    def note(signum: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker that inherited this handler
            _as_worker(signum)
        elif caught.signum is not None:
            _leave_at_once(signum)
        else:
            caught.signum = signum

    with _handling(note, _SIGNALS):
        yield caught
    if caught.signum is not None:  # it came after the last check; an outer block may handle it
        signal.raise_signal(caught.signum)


@contextmanager
def exiting() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `SystemExit` (128 + number) while the block runs.

    By default these signals end the process at once. Temporary files and a hidden cursor remain.
    """

    def leave(signum: int, _: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    with _handling(leave, tuple(s for s in _SIGNALS if s != signal.SIGINT)):
        yield


@contextmanager
def _handling(
    handler: Callable[[int, FrameType | None], None], signals: tuple[signal.Signals, ...]
) -> Iterator[None]:
    """Install ``handler`` while the block runs, for signals that are not ignored."""
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        # None stands for a handler that was not installed from Python and cannot be put back.
        before = {s: h for s in signals if (h := signal.getsignal(s)) not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _as_worker(signum: int) -> None:
    """End on any signal but Ctrl-C, which the main process receives as well and acts on."""
    if signum != signal.SIGINT:
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


def _leave_at_once(signum: int) -> None:
    with suppress(OSError, AttributeError):  # a closed stderr is None
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # a progress bar hides the cursor
    os._exit(128 + signum)
