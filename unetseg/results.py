"""How results show themselves: one line, tables in a notebook, plain types, and a data frame.

The tables of a terminal and of a notebook are the same: a result makes them, and each of the two
draws them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from unetseg.errors import InputError, UnetsegError, as_argument, worded
from unetseg.text import show

Cell = Any
"""A text, a number, a `Colour`, or None for an unknown value."""


class Colour(NamedTuple):
    """A colour "#rrggbb", drawn as a patch."""

    rgb: str


class Table(NamedTuple):
    """A table as people read it.

    Attributes:
        title: Stands above it; may be empty.
        columns: The headings.
        rows: The rows, a cell for each column.
        note: Lines below it; may be empty.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


class Result:
    """The views of a result that a notebook asks for. A class says its `line` and its `tables`."""

    def line(self) -> str:
        """Return the result in one line."""
        raise NotImplementedError

    def tables(self) -> Sequence[Table]:
        """Return the tables and notes that a terminal and a notebook show."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of `to_frame`."""
        raise NotImplementedError

    def to_frame(self) -> Any:
        """Return a data frame of pandas.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError:
            text = "is needed for a data frame and not installed"
            raise InputError("pandas", text, "pip install pandas, or use to_dict()") from None
        return DataFrame(self.records())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.line()}>"

    def _repr_html_(self) -> str:
        return "".join(map(_to_html, self.tables()))


def plain(value: Any) -> Any:
    """Return a value in plain types for JSON: paths and errors as text, records as dictionaries."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Path | UnetsegError):
        return str(value)
    if hasattr(value, "tolist"):  # of numpy, which this module does not import
        return value.tolist()
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def as_word(cell: Cell) -> str:
    """Return a cell as text: "-" for an unknown value, three decimals of a fraction."""
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return "-" if cell is None else str(cell)


def _to_html(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    title = f"<b>{_text(table.title)}</b>" if table.title else ""
    note = "<br>".join(_text(line) for line in table.note.splitlines())
    return (
        f"<div>{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{note}</p></div>"
    )


def _text(text: str) -> str:
    return escape(show(worded(text, as_argument)))


def _cell(cell: Cell) -> str:
    if isinstance(cell, Colour):
        style = f"background: {escape(cell.rgb)}; padding: 0 1em"
        return f'<td><span style="{style}" title="{escape(cell.rgb)}"></span></td>'
    return f"<td>{_text(as_word(cell))}</td>"
