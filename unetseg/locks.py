"""One owner of a folder at a time: a lock of the kernel, and a file that says who holds it."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from unetseg import files
from unetseg.errors import MachineError
from unetseg.text import show

_LOOK = 0.2  # seconds; another process that calls `is_held` is done by then
# Seconds; even on a busy machine, a process that takes a folder has written its name by then.
_PATIENCE = 5.0


def is_held(folder: Path) -> bool:
    """Tell whether a process holds the folder now."""
    if not _lock(folder).exists():
        return False
    try:
        with FileLock(_lock(folder), timeout=_LOOK):
            return False
    except Timeout:
        return True
    except OSError:  # the folder of somebody else, in which we may not write
        return _holder(folder).exists()


@contextmanager
def held(folder: Path, remedy: str, what: Path | None = None) -> Iterator[None]:
    """Hold a folder for this process while the block runs; the folder is made where it is missing.

    The lock is the kernel's, so it ends with the process, however that ends.

    Args:
        folder: The folder of ``.lock`` and ``.holder``.
        remedy: The advice of a message to a second process.
        what: The object that a message names; None names ``folder``.

    Raises:
        MachineError: Another process holds it; the message says which.
    """
    files.make_folder(folder)
    lock, end = FileLock(_lock(folder), timeout=_LOOK), time.monotonic() + _PATIENCE
    while not lock.is_locked:
        try:
            lock.acquire()
        except Timeout:
            holder = _name_of_holder(folder)
            if not holder and time.monotonic() < end:
                continue  # it has just taken the folder, or only looks at it
            text = f"in use by {holder or 'another process'}"
            raise MachineError(what or folder, text, remedy) from None
        except OSError as error:
            raise files.machine_error(_lock(folder), error) from None
    try:
        holder = f"process {os.getpid()} on {socket.gethostname()}"
        files.write_bytes(_holder(folder), holder.encode())
        yield
    finally:
        with suppress(OSError):
            _holder(folder).unlink()
        lock.release()


def remove(folder: Path) -> None:
    """Remove the files of `held` from a folder that nobody holds."""
    for path in (_lock(folder), _holder(folder)):
        path.unlink(missing_ok=True)


def _lock(folder: Path) -> Path:
    return folder / ".lock"


def _holder(folder: Path) -> Path:
    """Return the name of the process that holds the lock.

    It has a file of its own, as Windows lets nobody read one that is locked.
    """
    return folder / ".holder"


def _name_of_holder(folder: Path) -> str:
    """Return the process that holds the lock; "" where it has not said so yet."""
    with suppress(OSError):
        return show(_holder(folder).read_text("utf-8", "replace"))
    return ""
