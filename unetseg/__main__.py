"""``python -m unetseg``: the same as the command ``unetseg``."""

import sys

from unetseg.cli.app import main

if __name__ == "__main__":  # spawned workers import this module again
    sys.exit(main())
