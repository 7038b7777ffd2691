"""The figures of `rivals` as a file that grows by each run, and the plot of all of them."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import groupby
from pathlib import Path

RESULTS, PLOT = Path(__file__).with_name("rivals.csv"), Path(__file__).with_name("rivals.svg")
_COLOURS = {
    "unetseg": "#0b7fab",
    "nnunet": "#d1603d",
    "monai": "#8a63d2",
    "recipe": "#7a8793",
    "forest": "#3c9a5f",
}
_LEFT, _WIDTH, _ROW, _GAP = 130, 480, 20, 46  # pixels


@dataclass(frozen=True)
class Row:
    """The score of one method on one set after one time.

    Attributes:
        data: The name of the set.
        minutes: The time from the folder of labelled images to the trained model.
        method: The name of the method.
        mean_iou: The pooled mean IoU on the images apart, 0 to 1.
        low: The lower end of its 95 % interval.
        high: The upper end.
        less: How much lower the mean IoU is than that of unetseg; empty for unetseg.
        between: The 95 % interval of that difference, in words.
        where: The date and the machine.
    """

    data: str
    minutes: float
    method: str
    mean_iou: float
    low: float
    high: float
    less: str
    between: str
    where: str


def add_rows(rows: Iterable[Row], path: Path = RESULTS) -> list[Row]:
    """Put rows into the file, each instead of an older one of its kind; return all in order."""
    known = {_kind(row): row for row in [*_read(path), *rows]}
    every = sorted(known.values(), key=lambda row: (row.data, row.minutes, -row.mean_iou))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__annotations__))
        writer.writeheader()
        writer.writerows(asdict(row) for row in every)
    return every


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    numbers = ("minutes", "mean_iou", "low", "high")
    with open(path, newline="") as file:
        return [
            Row(**{key: float(v) if key in numbers else v for key, v in line.items()})  # type: ignore[arg-type]
            for line in csv.DictReader(file)
        ]


def _kind(row: Row) -> tuple[str, float, str]:
    return row.data, row.minutes, row.method


def draw(rows: Sequence[Row], path: Path = PLOT) -> None:
    """Write the scores with their intervals as an SVG, a block of rows for each set and time."""
    parts, y = [], 4
    for (name, minutes), group in groupby(rows, lambda row: (row.data, row.minutes)):
        block = list(group)
        ends = (
            math.floor(20 * min(row.low for row in block)) / 20,
            math.ceil(20 * max(row.high for row in block)) / 20,
        )
        parts.append(_text(0, y + 14, f"{name}, {minutes:g} minutes", weight=600))
        top = y + 24
        for place, row in enumerate(block):
            parts.append(_interval(row, top + place * _ROW + _ROW / 2, ends))
        y = top + len(block) * _ROW
        parts.append(_axis(y, ends))
        y += _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 70} {y}"'
    style = ' font-family="system-ui, sans-serif" font-size="13" fill="#6e7781">'
    path.write_text(head + style + "\n" + "\n".join(parts) + "\n</svg>\n", "utf-8")


def _interval(row: Row, y: float, ends: tuple[float, float]) -> str:
    colour = _COLOURS[row.method]
    low, middle, high = (_x(v, ends) for v in (row.low, row.mean_iou, row.high))
    return (
        _text(_LEFT - 12, y + 4, row.method, anchor="end")
        + f'<path d="M{low:.1f} {y:g}H{high:.1f}" stroke="{colour}" stroke-width="2"/>'
        + f'<circle cx="{middle:.1f}" cy="{y:g}" r="5" fill="{colour}"/>'
        + _text(_LEFT + _WIDTH + 12, y + 4, f"{row.mean_iou:.3f}")
    )


def _axis(y: float, ends: tuple[float, float]) -> str:
    line = f'<path d="M{_LEFT} {y:g}h{_WIDTH}" stroke="#8c959f"/>'
    marks = [ends[0] + (ends[1] - ends[0]) * k / 4 for k in range(5)]
    return line + "".join(_text(_x(v, ends), y + 16, f"{v:.3g}", anchor="middle") for v in marks)


def _x(value: float, ends: tuple[float, float]) -> float:
    return _LEFT + _WIDTH * (value - ends[0]) / (ends[1] - ends[0])


def _text(x: float, y: float, words: str, anchor: str = "start", weight: int = 400) -> str:
    place = f'x="{x:.1f}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}"'
    return f"<text {place}>{escape(words)}</text>"
