"""Tables as CSV files: UTF-8, points in numbers, and no text that a spreadsheet would run."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from unetseg import files
from unetseg.errors import InputError
from unetseg.text import show

# A spreadsheet takes a text that begins so for a formula. An apostrophe before it is shown by none;
# one that belongs to a text gets another, so that every text can be had back.
_GUARDED = ("=", "+", "-", "@", "'")


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[str | float | None]]
) -> None:
    """Write a table, whole or not at all.

    Args:
        path: The file.
        header: Names of the columns.
        rows: Cells, one a column: text (put on one line as `text.show` does), numbers (fractions
            with up to ten digits), or None for an empty cell.

    Raises:
        ValueError: A row of another length, or a number that is not finite.
        InputError: ``path`` is a folder or a device.
        MachineError: The disk is full, permission is missing.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells in {len(header)} columns")
        writer.writerow(map(_to_cell, row))
    files.write_bytes(path, text.getvalue().encode())


def read_table(path: Path, header: Sequence[str]) -> list[list[str]]:
    """Return the rows of a table that `write_table` wrote, each cell as its text.

    Raises:
        InputError: Not there, or no table with these columns.
        MachineError: No permission to read.
    """
    with files.open_regular(path) as file:
        content = file.read()
    try:
        lines = csv.reader(io.StringIO(content.decode(), newline=""))
        first, *rows = [[_from_cell(cell) for cell in line] for line in lines]
    except (ValueError, csv.Error):  # no UTF-8, no line
        first, rows = [], []
    if first != list(header) or any(len(row) != len(header) for row in rows):
        text = f"is no table of unetseg with the columns {', '.join(header)}"
        raise InputError(path, text, "choose another place, or remove it")
    return rows


def _to_cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        text = show(value)
        return f"'{text}" if text.startswith(_GUARDED) else text
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} in a table")
    return f"{value:.10g}"


def _from_cell(cell: str) -> str:
    return cell.removeprefix("'")
