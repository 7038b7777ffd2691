"""Charts as inline SVG that fit any width: places across are percentages, text keeps its size.

Colours come from the page (the classes ``series-0`` and so on, ``axis``, ``accent``); every text is
escaped.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

SERIES = 6  # colours of lines; further lines are dashed
_HEIGHT = 220  # pixels of a line chart
_DOT = 9  # pixels from dot to dot in a column
_COLUMNS = 40  # dots that lie within a 40th of the width stand in one column
_TICKS = 6  # round numbers on an axis, at most
_MOST_POINTS = 300  # a line is drawn with so many points: nobody would see more


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: Shown on hover.
        points: (x, y), x ascending, all finite.
    """

    name: str
    points: tuple[tuple[float, float], ...]


def ticks(low: float, high: float) -> list[float]:
    """Return at most six round numbers (1, 2 or 5 times a power of ten apart) in a range."""
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / _TICKS))
    step *= next(k for k in (1, 2, 5, 10, 20) if (high - low) / (step * k) <= _TICKS - 1 + 1e-9)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def interval_bar(value: float | None, interval: tuple[float, float] | None) -> Markup:
    """Draw a fraction 0 to 1 as a bar, and its interval as a line with ends above it."""
    parts = [Markup('<rect class="track" width="100%" height="6" y="8" rx="2"/>')]
    if value is not None:
        bar = '<rect class="bar" width="{}%" height="6" y="8" rx="2"/>'
        parts.append(Markup(bar).format(_percent(value)))
    if value is not None and interval is not None:
        low, high = (_percent(v) for v in interval)
        line = '<line class="whisker" x1="{}%" x2="{}%" y1="{}" y2="{}"/>'
        for x1, x2, y1, y2 in ((low, high, 3, 3), (low, low, 0, 6), (high, high, 0, 6)):
            parts.append(Markup(line).format(x1, x2, y1, y2))
    return _svg("interval", 14, parts)


def strip_plot(values: Sequence[tuple[str, float]], marked: float | None) -> Markup:
    """Draw a dot for each named fraction 0 to 1; those that would overlap stand in a column.

    A column stands at the mean of its dots (Wilkinson 1999, "Dot plots").

    Args:
        values: Names, shown on hover, and fractions; at least one.
        marked: The place of a line, if any.
    """
    low = min(0.9, math.floor(min(v for _, v in values) * 10 + 1e-9) / 10)
    shares = [(name, value, (value - low) / (1 - low)) for name, value in values]
    columns: dict[int, list[tuple[str, float, float]]] = {}
    for item in sorted(shares, key=lambda item: item[1]):
        columns.setdefault(round(item[2] * _COLUMNS), []).append(item)
    tallest = max(map(len, columns.values()))
    step = min(_DOT, 200 / tallest)  # hundreds of equal values overlap instead
    height = max(56, round(step * tallest) + 20)
    parts = [_x_axis(ticks(low, 1), low, 1, height)]
    if marked is not None and marked >= low:
        line = '<line class="mark" x1="{0}%" x2="{0}%" y1="0" y2="{1}"/>'
        parts.append(Markup(line).format(_percent((marked - low) / (1 - low)), height))
    for column in columns.values():
        x = _percent(sum(share for _, _, share in column) / len(column))
        for level, (name, value, _) in enumerate(column):
            dot = '<circle class="dot" cx="{}%" cy="{}" r="4"><title>{}: {:.3f}</title></circle>'
            y = round(height - 3 - step * (level + 0.5), 1)
            parts.append(Markup(dot).format(x, y, name, value))
    return _svg("strip", height, parts, "Scores of the images")


def line_plot(
    lines: Sequence[Line], y_name: str, x_name: str, y_top: float | None = None
) -> Markup:
    """Draw lines over common axes with numbers; y begins at 0.

    Args:
        lines: The lines; together they have at least one point.
        y_name: The name of the vertical axis; it is read out, while the page has it as a heading.
        x_name: The text below the axis, such as "minutes".
        y_top: Highest y; by default the greatest value.
    """
    points = [p for line in lines for p in line.points]
    right = max(max(x for x, _ in points), 1e-9)
    top = y_top or max(max(y for _, y in points), 1e-9)
    parts = [_y_axis(ticks(0, top), top), _x_axis(ticks(0, right), 0, right, _HEIGHT, x_name)]
    inner = []
    for i, line in enumerate(lines):
        path = " ".join(f"{x / right * 100:.2f},{100 - y / top * 100:.2f}" for x, y in _thin(line))
        if len(line.points) == 1:  # a line of one point is not drawn
            dot = '<circle class="series-{}" cx="{}%" cy="{}%" r="3"><title>{}</title></circle>'
            x, y = line.points[0]
            place = _percent(x / right), _percent(1 - y / top)
            parts.append(Markup(dot).format(i % SERIES, *place, line.name))
        elif line.points:
            text = '<polyline class="series-{}{}" points="{}"><title>{}</title></polyline>'
            dashed = " dashed" if i >= SERIES else ""
            inner.append(Markup(text).format(i % SERIES, dashed, path, line.name))
    parts.append(_stretched(inner))
    return _svg("plot", _HEIGHT, parts, f"{y_name} by {x_name}")


def reliability_plot(bins: Iterable[tuple[float, float, int]]) -> Markup:
    """Draw the share of right predictions against their probability; the diagonal is perfect.

    Args:
        bins: Mean confidence and accuracy (fractions 0 to 1) and number of pixels of each bin;
            those without pixels are left out. A dot's area goes with its pixels.
    """
    filled = [b for b in bins if b[2] > 0]
    most = max((n for _, _, n in filled), default=1)
    numbers = [k / 5 for k in range(6)]
    path = " ".join(f"{100 * c:.2f},{100 - 100 * a:.2f}" for c, a, _ in filled)
    parts = [
        _y_axis(numbers, 1),
        _x_axis(numbers, 0, 1, 280, "probability given"),
        Markup('<line class="ideal" x1="0%" y1="100%" x2="100%" y2="0%"/>'),
        _stretched([Markup('<polyline class="series-0" points="{}"/>').format(path)]),
    ]
    for confidence, accuracy, pixels in filled:
        text = (
            '<circle class="dot" cx="{}%" cy="{}%" r="{:.1f}"><title>given {:.2f}, right {:.2f}, '
            "{:,} pixels</title></circle>"
        )
        radius = 3 + 6 * math.sqrt(pixels / most)
        place = _percent(confidence), _percent(1 - accuracy)
        parts.append(Markup(text).format(*place, radius, confidence, accuracy, pixels))
    return _svg("plot square", 280, parts, "Share right by probability given")


def _svg(kind: str, height: int, parts: Sequence[Markup], label: str = "") -> Markup:
    """Put ``parts`` into a picture; without a ``label`` the text around it says the same."""
    text = '<svg class="{}" height="{}" {}>{}</svg>'
    spoken = 'role="img" aria-label="{}"' if label else 'aria-hidden="true"'
    return Markup(text).format(kind, height, Markup(spoken).format(label), Markup("").join(parts))


def _stretched(parts: Sequence[Markup]) -> Markup:
    """Put shapes in coordinates 0 to 100 over the whole chart; lines keep their width."""
    text = (
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{}</svg>'
    )
    return Markup(text).format(Markup("").join(parts))


def _x_axis(
    numbers: Sequence[float], low: float, high: float, height: int, name: str = ""
) -> Markup:
    """Draw the line at ``height`` with numbers below it, and the name of their unit."""
    parts = [Markup('<line class="axis" x1="0%" x2="100%" y1="{0}" y2="{0}"/>').format(height)]
    for number in numbers:
        text = '<text class="tick" x="{}%" y="{}" text-anchor="middle">{:g}</text>'
        place = _percent((number - low) / (high - low or 1))
        parts.append(Markup(text).format(place, height + 17, number))
    if name:
        text = '<text class="unit" x="100%" y="{}" text-anchor="end">{}</text>'
        parts.append(Markup(text).format(height + 35, name))
    return Markup("").join(parts)


def _y_axis(numbers: Sequence[float], top: float) -> Markup:
    """Draw a faint line across at each number, which stands left of it."""
    parts = []
    for number in numbers:
        text = (
            '<line class="grid" x1="0%" x2="100%" y1="{0}%" y2="{0}%"/>'
            '<text class="tick" x="-8" y="{0}%" dy="4" text-anchor="end">{1:g}</text>'
        )
        parts.append(Markup(text).format(_percent(1 - number / top), number))
    return Markup("").join(parts)


def _percent(share: float) -> str:
    """Return a fraction as a percentage with two decimals, kept within 0 and 100."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}"


def _thin(line: Line) -> list[tuple[float, float]]:
    """Return at most about `_MOST_POINTS` of a line's points, the last one among them."""
    step = max(1, len(line.points) // _MOST_POINTS)
    thin = list(line.points[::step])
    return thin if (len(line.points) - 1) % step == 0 else [*thin, line.points[-1]]
