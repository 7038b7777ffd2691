"""``python -m tests.faults [--share SHARE] [ID...]``: inject the faults named, or all of them.

A full run takes about 50 minutes on two idle cores, half of them for runs of two ranks (F24, F25).
``--share 0.1`` tries a tenth of each.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tests.faults.common import FAULTS, Fault, Lab, Skipped, Tally, load


def _try(lab: Lab, one: Fault, share: float) -> tuple[tuple[str, ...], Tally]:
    """Inject a fault; return its row of the table, and its outcome."""
    begin, skipped, tally = time.monotonic(), "", Tally()
    try:
        tally = one.inject(lab, share)
    except Skipped as reason:
        skipped = f"skipped: {reason}"
    except AssertionError as error:  # already without a fault
        tally.attempts, tally.failures = 1, [f"before any fault: {error}"]
    lab.clear()
    counts = ("-", "-") if skipped else (str(tally.attempts), str(tally.survived))
    seconds = f"{time.monotonic() - begin:.0f} s"
    return (one.name, one.text, *counts, skipped or one.bar, seconds), tally


def main(words: list[str]) -> int:
    """Inject, print one table and the failures; return 1 where a bar is missed."""
    load()
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="ID", help="such as F1; none means all")
    parser.add_argument("--share", type=float, default=1.0, help="of the attempts (default: 1)")
    asked = parser.parse_args(words)
    unknown = set(asked.names) - {one.name for one in FAULTS}
    if unknown:
        parser.error(f"no fault {sorted(unknown)[0]}; there are F1 to F38")
    table = Table("", "fault", "attempts", "survived", "bar: all of them", "", box=box.SIMPLE_HEAD)
    missed = False
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        lab = Lab(Path(folder))
        for one in FAULTS:
            if asked.names and one.name not in asked.names:
                continue
            row, tally = _try(lab, one, asked.share)
            table.add_row(*row)
            print("  ".join(row), *tally.failures, sep="\n    ", file=sys.stderr, flush=True)
            missed = missed or bool(tally.failures)
    Console(width=110, markup=False, highlight=False).print(table)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
