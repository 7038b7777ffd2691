"""``python -m unetseg``: the same as the command ``unetseg``."""

import gc
import sys


def main() -> int:
    """Run ``unetseg`` and return its exit code; Ctrl-C while it still starts is no traceback."""
    try:
        from unetseg.cli import app

        return app.main()
    except KeyboardInterrupt:  # during imports, before `app.main` can catch it
        return 130
    finally:
        # At its end Python searches all objects for cycles: a second of work where torch is
        # imported, and more beside other work. The system takes the memory back anyway.
        gc.freeze()


if __name__ == "__main__":  # spawned workers import this module again
    sys.exit(main())
