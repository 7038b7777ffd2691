"""A command of unetseg that stops when the process that started it has gone, however it ended.

``python -m unetseg.labelling.child train FOLDER`` is ``unetseg train FOLDER``. Its standard input
is a pipe, and the process that starts it holds the other end. The system closes that end with it.
"""

import os
import runpy
import signal
import threading


def _stop_with_parent() -> None:
    """Wait until the pipe is closed, and then stop as on SIGTERM: where all files are whole."""
    while os.read(0, 1):
        pass
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    if hasattr(signal, "SIGHUP"):
        # A process that rests is sent it when its parent has gone, and goes on. A second signal
        # would end the process at once.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_stop_with_parent, name="parent", daemon=True).start()
    runpy.run_module("unetseg", run_name="__main__", alter_sys=True)
