"""``python -m unetseg``: the same as the command ``unetseg``."""

import gc
import os
import sys


def main() -> int:
    """Run ``unetseg`` and return its exit code; Ctrl-C while it still starts is no traceback."""
    hook, sys.unraisablehook = sys.unraisablehook, _end_on_ctrl_c
    try:
        from unetseg.cli import app

        return app.main()
    except KeyboardInterrupt:  # during imports, before `app.main` can catch it
        return 130
    finally:
        sys.unraisablehook = hook
        # At its end Python searches all objects for cycles: a second of work where torch is
        # imported, and more beside other work. The system takes the memory back anyway.
        gc.freeze()


def _end_on_ctrl_c(dropped: "sys.UnraisableHookArgs") -> None:
    """End on a Ctrl-C that Python drops, because it came in a callback, such as one of an import.

    Args:
        dropped: The exception that no caller can receive.
    """
    if dropped.exc_type is KeyboardInterrupt:
        os._exit(130)
    sys.__unraisablehook__(dropped)


if __name__ == "__main__":  # spawned workers import this module again
    sys.exit(main())
