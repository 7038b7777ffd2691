"""The terminal: results go to stdout, progress and warnings to stderr.

Names of files and classes come from outside. They are never read as markup, and their control
characters are shown as escapes.
"""

import re
from collections.abc import Sequence
from contextlib import suppress

from rich import box
from rich.table import Column, Table
from rich.text import Text

from unetseg import display
from unetseg.display import as_text, make_console
from unetseg.errors import UnetsegError, as_option, worded
from unetseg.results import Colour, as_word

# "12", "-0.5", "97 %", "3.4 MB", "120 /s", and "-" for a missing value
_NUMBER = re.compile(r"-|[-+]?\d[\d.,]*( ?%| [\w/]{1,4})?")

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Leave out progress, notes and hints where ``quiet`` is true; warnings and results stay."""
    global _quiet
    _quiet = quiet


def print_line(text: object = "") -> None:
    """Print a result on stdout, one line or several. Long lines are not broken."""
    make_console().print(_as_text(text), soft_wrap=True)


def print_next(*commands: str) -> None:
    """Print the commands to type next on stdout, one a line. ``--quiet`` leaves them out."""
    if not _quiet:
        print_line("\n".join(["Next:", *(f"  {command}" for command in commands)]))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = ""
) -> None:
    """Print a table on stdout.

    Columns of numbers are right-aligned. Names that do not fit are folded, never cut.

    Args:
        title: Stands above the table; may be empty.
        columns: The heading of each column.
        rows: Each row has one value a column: a text, a `Colour`, or a number. None is shown as
            "-", a float with three decimals.
        note: Stands below the table; may be empty.
    """
    texts = [[_as_cell(value) for value in row] for row in rows]
    numeric = [
        bool(texts) and all(_is_number(row[i]) for row in texts) for i in range(len(columns))
    ]
    headers = [
        Column(_as_text(name), justify="right", no_wrap=True)
        if right
        else Column(_as_text(name), overflow="fold")
        for name, right in zip(columns, numeric, strict=True)
    ]
    table = Table(*headers, box=box.SIMPLE_HEAD)
    for row in texts:
        table.add_row(*row)
    console = make_console()
    if title:
        console.print(_as_text(title, "bold"), soft_wrap=True)
    console.print(table)
    if note:
        console.print(_as_text(note), soft_wrap=True)


def swatch(colour: str) -> Text:
    """Return two cells painted in ``colour`` ("#rrggbb"), or its name where there is no colour."""
    console = make_console()
    if console.color_system is None or console.no_color:
        return Text(colour)
    return Text("  ", style=f"on {colour}")


class ProgressDisplay(display.ProgressDisplay):
    """The display of a command: it says options, and ``--quiet`` leaves warnings only."""

    def __init__(self) -> None:
        super().__init__(as_option, _quiet)

    def fail(self, error: UnetsegError) -> None:
        """Print one line that says why one input of several failed, even with ``--quiet``."""
        with suppress(OSError):
            self._print(Text(f"unetseg: error: {worded(error.message, as_option)}"))


def _as_text(value: object, style: str = "") -> Text:
    return as_text(value, style, as_option)


def _as_cell(value: object) -> Text:
    return swatch(value.rgb) if isinstance(value, Colour) else _as_text(as_word(value))


def _is_number(text: Text) -> bool:
    return _NUMBER.fullmatch(text.plain) is not None
