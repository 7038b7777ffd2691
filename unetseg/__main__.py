"""``python -m unetseg``: the same as the command ``unetseg``."""

import sys


def main() -> int:
    """Run ``unetseg`` and return its exit code; Ctrl-C while it is imported is no traceback."""
    try:
        from unetseg.cli import app
    except KeyboardInterrupt:
        return 130
    return app.main()


if __name__ == "__main__":  # spawned workers import this module again
    sys.exit(main())
