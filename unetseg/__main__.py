"""``python -m unetseg``: the same as the command ``unetseg``."""

import sys


def main() -> int:
    """Run ``unetseg`` and return its exit code; Ctrl-C while it still starts is no traceback."""
    try:
        from unetseg.cli import app

        return app.main()
    except KeyboardInterrupt:  # during imports, before `app.main` can catch it
        return 130


if __name__ == "__main__":  # spawned workers import this module again
    sys.exit(main())
