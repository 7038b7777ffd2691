"""A command of unetseg that stops when the process that started it has gone, however it ended.

``python -m unetseg.labelling.child train FOLDER`` is ``unetseg train FOLDER``. Its standard input
is a pipe, and the process that starts it holds the other end. The system closes that end with it.
"""

import os
import runpy
import signal
import sys
import threading


def take_pipe() -> int:
    """Return the pipe under another number; standard input is empty from then on.

    On Windows, who asks about a pipe waits for the one who reads from it. Libraries ask about
    standard input when they are imported.
    """
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return pipe


def _stop_with_parent(pipe: int) -> None:
    """Wait until the pipe is closed, and then stop as on SIGTERM: where all files are whole.

    Windows has this signal inside a process, and Python handles it in the main thread there, too.
    """
    while os.read(pipe, 1):
        pass
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    if sys.platform != "win32":
        # A process that rests is sent it when its parent has gone, and goes on. A second signal
        # would end the process at once.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)  # it rests, even where the server does not
    threading.Thread(
        target=_stop_with_parent, args=(take_pipe(),), name="parent", daemon=True
    ).start()
    runpy.run_module("unetseg", run_name="__main__", alter_sys=True)
