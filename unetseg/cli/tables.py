"""The results that commands end in, as tables or files."""

import json
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from unetseg import files
from unetseg.cli.console import print_line, print_table, swatch
from unetseg.display import make_console
from unetseg.text import plural, show

if TYPE_CHECKING:
    from unetseg.classes import ClassTable
    from unetseg.dataset.cutting import StoreSummary
    from unetseg.scoring.boundaries import Boundaries
    from unetseg.scoring.curves import Curves
    from unetseg.scoring.metrics import Scores
    from unetseg.scoring.panoptic import ObjectScores

# Up to this many classes, the confusion matrix has room for six letters of each name.
_WIDE_CLASSES = 8


def print_store(summary: "StoreSummary") -> None:
    """Print the content of a new store: the pixels of each class, patches, a ``classes.toml``."""
    _print_class_pixels(summary)
    if not summary.classes_file:
        print_classes_found(summary.info.classes, Path(summary.info.folder))


def print_classes_found(table: "ClassTable", folder: Path) -> None:
    """Print the ``classes.toml`` that says how the masks of ``folder`` were understood."""
    path = folder / "classes.toml"
    print_line(f"Classes as found in the masks; to name them, save this as {show(path)}:")
    print_line("\n".join(f"    {line}".rstrip() for line in table.to_toml().rstrip().split("\n")))


def write_json(path: Path | None, data: object) -> None:
    """Write a result as JSON and say so; None is a file not asked for."""
    if path:
        text = json.dumps(data, indent=2, allow_nan=False)
        files.write_bytes(path, f"{text}\n".encode())
        print_line(f"Wrote {path}.")


def _print_class_pixels(summary: "StoreSummary") -> None:
    from unetseg.dataset.geometry import SPARSE

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
        f"{plural(len(info.sources), 'image')}: {len(info.sources) - held_out:,} to train on, "
        f"{held_out:,} held out whole",
        columns,
        rows,
    )
    patches = plural(summary.patches, "patch", "patches")
    ignored = f", {', '.join(map(str, info.classes.ignore))} ignored" if info.classes.ignore else ""
    print_line(
        f"Wrote {summary.path}: {patches} of {info.size} x {info.size} pixels "
        f"({100 * summary.used_share:.0f} % of the labelled pixels are used{ignored})."
    )
    if summary.labelled_share < SPARSE:
        print_line(
            f"{100 * summary.labelled_share:.3g} % of the pixels are labelled. Scores count these "
            "alone; strokes keep away from borders, so whole masks would score lower."
        )


def print_scores(scores: "Scores", title: str, baselines: str = "") -> None:
    """Print the scores of each class with their intervals, the means, and a score to compare with.

    ``baselines`` is a line about the scores of simple methods. Where it is empty, the line gives
    the score of the most common class.
    """
    rows = [
        (
            cut(name)
            + (" (weakest)" if name == scores.weakest and len(scores.classes) > 2 else ""),
            scores.iou[name],
            _interval(scores.iou_ci95[name]),
            scores.dice[name],
            scores.precision[name],
            scores.recall[name],
            f"{scores.pixels[name]:,}",
        )
        for name in scores.classes
    ]
    columns = ["class", "IoU", "95 %", "Dice", "prec.", "recall", "pixels"]  # fit 80 columns
    print_table(title, columns, rows)
    print_line(f"mean IoU {_number(scores.mean_iou)}, {_mean_interval(scores)}")
    if scores.absent:
        print_line(f"  absent, left out of the mean: {', '.join(map(show, scores.absent))}")
    print_line(
        f"  without {show(cut(scores.classes[0], 12))}: {_number(scores.mean_iou_without_first)}; "
        f"mean over images: {_number(scores.mean_iou_per_image)}; "
        f"pixels right: {_number(scores.pixel_accuracy)}"
    )
    print_line(f"  {baselines or _most_common_line(scores)}")


def _most_common_line(scores: "Scores") -> str:
    from unetseg.scoring.baselines import most_common

    baseline = most_common(scores, scores.confusion.sum(axis=1)).scores.mean_iou
    return f"the most common class everywhere would score {_number(baseline)}"


def _mean_interval(scores: "Scores") -> str:
    """Return the interval of the mean in words, or the reason why there is none."""
    if scores.mean_iou_ci95:
        low, high = scores.mean_iou_ci95
        return f"95 % interval {low:.3f} to {high:.3f} over {scores.units_in_words}"
    if scores.mean_iou is None:
        return "nothing was scored"
    if scores.mean_iou in (0, 1):
        return f"the same in every image, which gives no interval ({scores.units_in_words})"
    return f"too few images for an interval ({scores.units_in_words})"


def _interval(ends: tuple[float, float] | None) -> str | None:
    """Return an interval such as "0.93-0.98", with a third digit where it is narrow."""
    if ends is None:
        return None
    digits = 2 if ends[1] - ends[0] >= 0.01 else 3
    return f"{ends[0]:.{digits}f}-{ends[1]:.{digits}f}"


def cut(name: str, length: int = 24) -> str:
    """Return a name, without its end where it is longer than ``length``."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


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
    rows = []
    for name, quality in counted.panoptic_quality.items():
        ends = {key: _interval(of_class[name]) or "" for key, of_class in counted.intervals.items()}
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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
