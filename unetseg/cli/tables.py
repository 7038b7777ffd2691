"""The tables that commands end in, and the live one of training."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from unetseg.cli.console import print_line, print_table, swatch
from unetseg.errors import show

if TYPE_CHECKING:
    from unetseg.metrics import Scores
    from unetseg.preparation import StoreSummary

_ROWS = 8  # epochs shown at once


def print_store(summary: "StoreSummary") -> None:
    """Print what was cut: classes with their pixels on both sides, patches, a ``classes.toml``."""
    _print_class_pixels(summary)
    if not summary.classes_file:
        _print_classes_found(summary)


def _print_classes_found(summary: "StoreSummary") -> None:
    """Where no ``classes.toml`` said so, print one that says what was understood."""
    path = Path(summary.info.folder) / "classes.toml"
    print_line(f"Classes as found in the masks; to name them, save this as {show(path)}:")
    lines = summary.info.classes.to_toml().rstrip().split("\n")
    print_line("\n".join(f"    {line}".rstrip() for line in lines))


def _print_class_pixels(summary: "StoreSummary") -> None:
    info = summary.info
    train, val = info.class_pixels_train, info.class_pixels_val
    totals = max(sum(train), 1), max(sum(val), 1)
    rows = []
    for i, entry in enumerate(info.classes.classes):
        key = info.classes.key(i)
        rows.append(
            (
                swatch(entry.colour),
                entry.name,
                str(key),
                f"{train[i]:,}",
                f"{100 * train[i] / totals[0]:.2f} %",
                f"{val[i]:,}",
                f"{100 * val[i] / totals[1]:.2f} %",
            )
        )
    held_out = len(info.held_out)
    columns = ["", "class", "in masks", "train pixels", "share", "held-out pixels", "share"]
    print_table(
        f"{len(info.sources)} images: {len(info.sources) - held_out} to train on, {held_out} "
        f"held out whole",
        columns,
        rows,
    )
    ignored = f", {', '.join(map(str, info.classes.ignore))} ignored" if info.classes.ignore else ""
    print_line(
        f"Wrote {summary.path}: {summary.patches:,} patches of {info.size} x {info.size} pixels "
        f"({100 * summary.used_share:.0f} % of the labelled pixels are used{ignored})."
    )


def print_scores(scores: "Scores", title: str) -> None:
    """Print the table of per-class scores, then the means."""
    worst = min(
        (name for name in scores.classes if scores.iou[name] is not None),
        key=lambda name: scores.iou[name] or 0.0,
        default="",
    )
    rows = [
        (
            name + (" (weakest)" if name == worst and len(scores.classes) > 2 else ""),
            scores.iou[name],
            scores.dice[name],
            scores.precision[name],
            scores.recall[name],
            f"{scores.pixels[name]:,}",
        )
        for name in scores.classes
    ]
    columns = ["class", "IoU", "Dice", "precision", "recall", "pixels"]
    print_table(title, columns, rows)
    absent = f" ({', '.join(map(show, scores.absent))} absent, left out)" if scores.absent else ""
    print_line(f"mean IoU {_number(scores.mean_iou)}{absent}")
    print_line(
        f"  without {show(scores.classes[0])}: {_number(scores.mean_iou_without_first)}; "
        f"mean over images: {_number(scores.mean_iou_per_image)}; "
        f"pixels right: {_number(scores.pixel_accuracy)}"
    )


def print_confusion(scores: "Scores") -> None:
    """Print the confusion matrix: percent of each true class (row) by predicted class (column)."""
    names = [show(name) for name in scores.classes]
    rows = []
    for name, counts in zip(names, scores.confusion.tolist(), strict=True):
        total = sum(counts)
        rows.append((name, *(f"{100 * c / total:.1f}" if total else None for c in counts)))
    note = "percent of the pixels of each true class (row) by predicted class (column)"
    print_table("Confusion", ["truth", *_short(names)], rows, note)


def _short(names: list[str]) -> list[str]:
    """Return names short enough for a column of numbers; numbered where cut ones would clash."""
    cut = [name[:6] for name in names]
    return cut if len(set(cut)) == len(cut) else [f"{i}:{n[:4]}" for i, n in enumerate(names)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


class TrainingView:
    """The live table of a run: its plan, then the last epochs, newest at the bottom."""

    def __init__(self) -> None:
        self._plan = ""
        self._rows: list[dict[str, float | None]] = []

    def __call__(self, record: object) -> RenderableType:
        """Take a record of training in, and return what is to be shown from now on."""
        from unetseg.progress import EpochDone

        if isinstance(record, EpochDone):
            self._rows = [*self._rows, dict(record.row)][-_ROWS:]
        else:
            self._plan = str(record)
        if not self._rows:
            return Text(self._plan)
        return Group(Text(self._plan), self._table())

    def _table(self) -> Table:
        names = [key.removeprefix("iou_") for key in self._rows[0] if key.startswith("iou_")]
        shown = names[:6]  # more columns do not fit a terminal; the end table has all
        table = Table(box=box.SIMPLE_HEAD)
        for title in ("epoch", "loss", "mean IoU", *(show(n)[:12] for n in shown), "patches/s"):
            table.add_column(Text(title), justify="right")
        for row in self._rows:
            scored = ("val_mean_iou", *(f"iou_{name}" for name in shown))
            cells = (f"{row[key]:.3f}" if row[key] is not None else "" for key in scored)
            table.add_row(
                f"{row['epoch']:.0f}",
                f"{row['train_loss']:.4f}",
                *cells,
                f"{row['patches_per_second']:.0f}",
            )
        return table
