"""The results that commands end in, as tables or files."""

import json
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from unetseg import files
from unetseg.cli.console import print_line, print_table
from unetseg.display import make_console
from unetseg.results import Result
from unetseg.text import cut, plural, show

if TYPE_CHECKING:
    from unetseg.classes import ClassTable
    from unetseg.dataset.cutting import StoreSummary
    from unetseg.scoring.boundaries import Boundaries
    from unetseg.scoring.curves import Curves
    from unetseg.scoring.metrics import Scores
    from unetseg.scoring.panoptic import ObjectScores

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
    print_line("\n".join(f"    {line}".rstrip() for line in table.to_toml().rstrip().split("\n")))


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


def print_boundaries(borders: "Boundaries") -> None:
    """Print the distance of predicted borders from the true ones for each class."""
    rows = []
    for name, share in borders.surface_dice.items():
        distance = borders.distance[name]
        text = "-" if distance is None else "one-sided" if isinf(distance) else f"{distance:.1f}"
        rows.append((cut(name), share, text, str(borders.one_sided[name])))
    columns = ["class", "surface Dice", "95 % Hausdorff", "images with it in one mask only"]
    note = "share of the border within the tolerance; distance in pixels, median over images"
    print_table(f"Borders, within {borders.tolerance:g} pixels", columns, rows, note)


def print_curves(curves: "Curves") -> None:
    """Print the areas under the curves of each class."""
    areas = curves.to_dict()
    rows = [(cut(name), *(areas[key][name] for key in areas)) for name in curves.pooled]
    note = "over all scored pixels, each class against the others"
    columns = ["class", "area under ROC", "area under precision-recall"]
    print_table("Curves", columns, rows, note)


def print_objects(counted: "ObjectScores") -> None:
    """Print how well objects were found, by class, each score above its interval."""
    from unetseg.scoring.metrics import ends_in_words

    rows = []
    for name, quality in counted.panoptic_quality.items():
        ends = {
            key: ends_in_words(of_class[name]) or "" for key, of_class in counted.intervals.items()
        }
        rows += [
            (
                cut(name),
                f"{counted.true[name]:,}",
                f"{counted.predicted[name]:,}",
                quality,
                counted.f1[name],
                counted.count_error[name],
            ),
            ("", "", "", ends["panoptic_quality"], ends["f1"], ends["count_error"]),
        ]
    columns = ["class", "true", "predicted", "panoptic quality", "F1", "count error"]
    note = "objects are a pair above an IoU of 0.5; below each score its 95 % interval"
    print_table(f"Objects of {plural(counted.images, 'image')}", columns, rows, note)


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
