"""The table of areas, objects and confidence in each image, and how CSV files are written.

CSV files are UTF-8, with points in numbers and no text that a spreadsheet would run.
"""

import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unetseg import files
from unetseg.dataset.naming import natural_key
from unetseg.errors import InputError, arg
from unetseg.records import FloatArray, IntArray
from unetseg.text import show

COLUMNS = (
    "image",
    "class",
    "pixels",
    "area_fraction",
    "objects",
    "mean_object_area",
    "median_object_area",
    "largest_object_area",
    "area_unit",
    "mean_confidence",
    "seconds",
)
Cell = str | float | None
_WORDS = ("image", "class", "unit", "area_unit")  # texts, even where they look like numbers

# A spreadsheet takes a text that begins with one of these for a formula. An apostrophe before it
# prevents that and is not shown. A text that begins with an apostrophe gets a second one, so that
# every text can be read back.
_GUARDED = ("=", "+", "-", "@", "'")


@dataclass(frozen=True)
class ImageSummary:
    """The facts about one image for the table.

    Attributes:
        name: The name of the image's file, without its folder.
        pixels: (K,) int64: the number of pixels of each of the K classes in the mask.
        areas: K arrays (n,) int64: the areas of the objects of each class in pixels, in any order.
        confidence: (2, K) float64: for the pixels that were predicted as each class, the sum of the
            probabilities of that class, and their number.
        pixel_size: Height and width of a pixel and their unit such as "µm"; None where unknown.
        seconds: The time that the prediction took.
    """

    name: str
    pixels: IntArray
    areas: list[IntArray]
    confidence: FloatArray
    pixel_size: tuple[float, float, str] | None
    seconds: float


def summary_rows(summaries: Iterable[ImageSummary], classes: Sequence[str]) -> list[list[Cell]]:
    """Return the rows of the table: one per image and class, with every class in every image.

    ``area_fraction`` is a share of the pixels that are not ignored. Objects are those of
    `unetseg.objects.counting`. Areas are in ``area_unit``: the squared unit of the pixel size where
    it is known, else "px". ``mean_confidence`` is the mean probability of the predicted class, 0 to
    1. ``seconds`` is the time of the whole image, repeated in each of its rows. A value is None
    where there is no pixel to measure.

    Args:
        summaries: The images, each with K classes.
        classes: The names of the K classes.

    Returns:
        Rows with one cell for each of `COLUMNS`.
    """
    return [row for summary in summaries for row in _rows_of(summary, classes)]


def _rows_of(summary: ImageSummary, classes: Sequence[str]) -> list[list[Cell]]:
    total = int(summary.pixels.sum())
    area, unit = 1.0, "px"
    if summary.pixel_size is not None:
        area, unit = math.prod(summary.pixel_size[:2]), f"{summary.pixel_size[2]}²"
    rows = list[list[Cell]]()
    for k, name in enumerate(classes):
        objects, (sure, count) = summary.areas[k], summary.confidence[:, k].tolist()
        sizes: list[Cell] = [None] * 3
        if len(objects):
            sizes = [float(f(objects)) * area for f in (np.mean, np.median, np.max)]
        rows.append(
            [
                show(summary.name),
                name,
                int(summary.pixels[k]),
                int(summary.pixels[k]) / total if total else None,
                len(objects),
                *sizes,
                unit,
                sure / count if count else None,
                round(summary.seconds, 3),
            ]
        )
    return rows


def read_summary(path: Path) -> list[list[str]]:
    """Return the rows of a ``summary.csv``, each cell as its text.

    Raises:
        InputError: The file is not there, or is no such table.
        MachineError: No permission to read.
    """
    return read_table(path, COLUMNS)


def read_records(path: Path) -> list[dict[str, Cell]]:
    """Return the rows of a ``summary.csv`` in numbers and texts, by column; see `read_summary`."""
    return [
        {name: _cell_of(name, text) for name, text in zip(COLUMNS, row, strict=True)}
        for row in read_summary(path)
    ]


def summarised(path: Path) -> frozenset[str]:
    """Return the names of the images that have rows in a ``summary.csv``; none in another file."""
    try:
        return frozenset(row[0] for row in read_summary(path))
    except InputError:
        return frozenset()


def update_summary(
    path: Path,
    summaries: Sequence[ImageSummary],
    classes: Sequence[str],
    overwrite: bool = False,
) -> None:
    """Write the table, or put new rows into a table that exists.

    The rows of an image that is done again are replaced in their place. Rows of other images stay,
    and new images follow at the end. Without ``summaries`` nothing is written.

    Args:
        path: The file.
        summaries: The images that are new or done again.
        classes: The names of their classes.
        overwrite: Replace a file that is no such table.

    Raises:
        InputError: The file is no such table.
        MachineError: It cannot be read or written.
    """
    kept, foreign = list[list[str]](), False
    if path.exists():
        try:
            kept = read_summary(path)
        except InputError as error:
            if not overwrite:
                remedy = f"choose another {arg('out')}, or {arg('overwrite', True)}"
                raise InputError(path, error.problem, remedy) from None
            foreign = True
    if summaries or foreign:
        write_table(path, COLUMNS, _merged(kept, summary_rows(summaries, classes)))


def _merged(old: Sequence[Sequence[Cell]], new: Sequence[Sequence[Cell]]) -> list[Sequence[Cell]]:
    """Return old and new rows, grouped by image in the order in which images first appear."""
    by_image: dict[Cell, list[Sequence[Cell]]] = {}
    for row in old:
        by_image.setdefault(row[0], []).append(row)
    by_image |= {row[0]: [] for row in new}
    for row in new:
        by_image[row[0]].append(row)
    return [row for rows in by_image.values() for row in rows]


# --- tables ----------------------------------------------------------------------------------


def join_tables(tables: Iterable[Path], path: Path) -> None:
    """Write several tables as one, in the natural order of their names.

    Where tables differ in their columns, a row has empty cells in the columns it lacks.

    Raises:
        MachineError: A table cannot be read, or the whole not be written.
    """
    paths = sorted(tables, key=lambda table: natural_key(table.stem))
    headers = [next(iter_cells(table), []) for table in paths]
    header = list(dict.fromkeys(name for one in headers for name in one))

    def rows() -> Iterator[list[Cell]]:
        for table, own in zip(paths, headers, strict=True):
            for line in itertools.islice(iter_cells(table), 1, None):
                cells = dict(zip(own, line, strict=False))
                yield [_cell_of(name, cells.get(name, "")) for name in header]

    write_table(path, header, rows())


def _cell_of(column: str, text: str) -> Cell:
    """Return the number that a cell of a table of objects holds, or its text; None where empty."""
    if column in _WORDS or not text:
        return text or None
    return float(text)


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]], digits: int = 10
) -> None:
    """Write a table, whole or not at all.

    Args:
        path: The file.
        header: Names of the columns.
        rows: A cell for each column: a text (put on one line as `text.show` does), a number, or
            None for an empty cell.
        digits: The number of significant digits to which fractions are rounded.

    Raises:
        ValueError: A row has another length, or a number is not finite.
        InputError: ``path`` is a folder or a device.
        MachineError: The disk is full, permission is missing.
    """
    with (
        files.writing(path) as file,
        io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        for row in itertools.chain([header], rows):
            if len(row) != len(header):
                raise ValueError(f"{len(row)} cells in {len(header)} columns")
            writer.writerow(_to_cell(value, digits) for value in row)


def read_table(path: Path, header: Sequence[str]) -> list[list[str]]:
    """Return the rows of a table that `write_table` wrote, each cell as its text.

    Raises:
        InputError: The file is not there, or is no table with these columns.
        MachineError: No permission to read.
    """
    first, *rows = read_cells(path) or [[]]
    if first != list(header) or any(len(row) != len(header) for row in rows):
        text = f"is no table of unetseg with the columns {', '.join(header)}"
        raise InputError(path, text, "choose another place, or remove it")
    return rows


def read_cells(path: Path) -> list[list[str]]:
    """Return the lines of a table, the header first; [] where the file is no text.

    Raises:
        InputError: The file is not there.
        MachineError: No permission to read.
    """
    try:
        return list(iter_cells(path))
    except (ValueError, csv.Error):  # the file is no UTF-8, or no CSV
        return []


def iter_cells(path: Path) -> Iterator[list[str]]:
    """Yield the lines of a table, the header first.

    Raises:
        InputError: The file is not there.
        MachineError: No permission to read.
        ValueError: The file is no UTF-8.
        csv.Error: The file is no CSV.
    """
    with (
        files.open_regular(path) as file,
        io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
    ):
        for line in csv.reader(text):
            yield [_from_cell(cell) for cell in line]


def _to_cell(value: Cell, digits: int) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        text = show(value)
        return f"'{text}" if text.startswith(_GUARDED) else text
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} in a table")
    return f"{value:.{digits}g}"


def _from_cell(cell: str) -> str:
    return cell.removeprefix("'")
