"""The results that commands end in, as tables or files."""

import json
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from unetseg import files
from unetseg.cli.console import print_line, print_table
from unetseg.display import make_console
from unetseg.results import Result
from unetseg.text import cut, show

if TYPE_CHECKING:
    from unetseg.classes import ClassTable
    from unetseg.dataset.cutting import StoreSummary
    from unetseg.scoring.metrics import Scores

# Up to this many classes, the confusion matrix has room for six letters of each name.
_WIDE_CLASSES = 8


def show_tables(result: Result) -> None:
    """Print the tables of a result."""
    for table in result.tables():
        print_table(*table)


def print_store(summary: "StoreSummary") -> None:
    """Print the content of a new store: the pixels of each class, patches, a ``classes.toml``."""
    show_tables(summary)
    if not summary.classes_file:
        print_classes_found(summary.info.classes, Path(summary.info.folder))


def print_classes_found(table: "ClassTable", folder: Path) -> None:
    """Print the ``classes.toml`` that says how the masks of ``folder`` were understood."""
    path = folder / "classes.toml"
    print_line(f"Classes as found in the masks; to name them, save this as {show(path)}:")
    print_line(indent(table.to_short_toml(), "    "))


def write_json(path: Path | None, data: object) -> None:
    """Write a result as JSON and say so; None stands for no file."""
    if path:
        text = json.dumps(data, indent=2, allow_nan=False)
        files.write_bytes(path, f"{text}\n".encode())
        print_line(f"Wrote {path}.")


def print_confusion(scores: "Scores") -> None:
    """Print the confusion matrix: percent of each true class (row) by predicted class (column).

    Up to 12 classes fit 80 columns.
    """
    few = len(scores.classes) <= _WIDE_CLASSES
    headings, names = _headings([show(name) for name in scores.classes], 6 if few else 4)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(Text("truth"), no_wrap=True)
    for heading in headings:
        table.add_column(Text(heading), justify="right", no_wrap=True, min_width=5 if few else 4)
    for name, counts in zip(names, scores.confusion.tolist(), strict=True):
        total = sum(counts)
        cells = (_percent(c / total) if total else "-" for c in counts)
        table.add_row(Text(cut(name, 18)), *cells)
    print_line("Confusion: percent of the pixels of each true class (row) by predicted (column)")
    make_console().print(table)


def _headings(names: list[str], width: int) -> tuple[list[str], list[str]]:
    """Return headings for columns and names for rows, numbered where short names would be equal."""
    headings = [name[:width] for name in names]
    if len(set(headings)) == len(headings):
        return headings, names
    return [str(i) for i in range(len(names))], [f"{i} {name}" for i, name in enumerate(names)]


def _percent(share: float) -> str:
    """Return a share in percent, with four characters at most."""
    text = f"{100 * share:.1f}"
    return "100" if text == "100.0" else text
