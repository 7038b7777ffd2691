"""One HTML file that shows how good a model is, where it fails, and what it was made from."""

import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from unetseg import files
from unetseg.classes import IGNORED, ClassTable
from unetseg.pictures import drawing
from unetseg.progress import OnProgress, Progress, ignore
from unetseg.reports import charts, html, views
from unetseg.reports.views import Drawn, View
from unetseg.scoring.metrics import ScoredImage, Scores
from unetseg.text import show

if TYPE_CHECKING:  # what these hold is shown here, never computed
    from unetseg.prediction.calibration import Calibration
    from unetseg.scoring.baselines import Baseline
    from unetseg.scoring.suspects import Suspect

_PLACE = 120  # pixels around a suspected place at least
_SUSPECTS = 8
_WORST, _MEDIAN, _BEST = 3, 2, 2
_ENOUGH = 0.5  # a cut-out is shown where it holds this share of the wrong pixels


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        title: The heading.
        subject: One line: which model, trained on what, scored on what.
        scores: Of all images, with intervals where they are known.
        classes: Names and colours, in the order of ``scores.classes``.
        case: Returns the k-th image of ``scores`` with its masks.
        baselines: What simple methods reach on the same images.
        verdict: How the model compares with them, in one line.
        histories: By name of a fold or run, the rows of its ``history.csv``.
        suspects: Masks that may be wrong, the likeliest first; their images are among ``scores``.
        calibration: Whether probabilities can be believed; None where they are not known.
        settings: As used; shown as text.
        data: What was trained and scored on: folder, number of images, hash of pixels.
        versions: By name of a program.
        lines: What to type next.
    """

    title: str
    subject: str
    scores: Scores
    classes: ClassTable
    case: Callable[[int], ScoredImage]
    baselines: Sequence["Baseline"] = ()
    verdict: str = ""
    histories: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    suspects: Sequence["Suspect"] = ()
    calibration: "Calibration | None" = None
    settings: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[str] = ()


def write_report(
    path: str | os.PathLike[str],
    report: Report,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> None:
    """Write one HTML file that needs no other file and no network, whole or not at all.

    Pictures are at most 480 pixels wide and high: larger images are cut to where most of the wrong
    pixels lie, or shrunk where no cut would hold half of them; the caption says which.

    Args:
        path: The file.
        report: What it says.
        overwrite: Replace a file that is there.
        on_progress: Receives `Progress` as pictures are drawn.

    Raises:
        InputError: ``path`` exists, or an image cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    files.refuse_existing(Path(path), overwrite)
    contents = _contents(report, on_progress)
    files.write_bytes(path, html.render(report.title, _TEMPLATE, _STYLE, **contents))


def _contents(report: Report, on_progress: OnProgress) -> dict[str, Any]:
    """Return what the template shows."""
    scores, ranked = report.scores, _ranked(report.scores)
    background = _background(scores)
    curves = _curves(report.histories)
    reliability = _reliability(report.calibration)
    sections = [
        ("classes", "Classes", True),
        ("images", "Images", bool(ranked)),
        ("suspects", "Suspected masks", bool(report.suspects)),
        ("confusion", "Confusion", True),
        ("training", "Training", bool(curves)),
        ("confidence", "Confidence", reliability is not None),
        ("made-from", "Made from", bool(report.settings or report.data or report.versions)),
        ("next", "What next", bool(report.lines)),
    ]
    return {
        "report": report,
        "scores": scores,
        "units": _units(scores),
        "headline": _headline(scores),
        "no_interval": "the same score in all, which gives no interval"
        if scores.units > 1 and scores.mean_iou in (0, 1)
        else "too few images for an interval",
        "bar": charts.interval_bar,
        "sections": [(anchor, title) for anchor, title, shown in sections if shown],
        "rows": _class_rows(scores, report.classes),
        "weakest": scores.weakest,
        "background": None if background is None else scores.classes[background],
        "errors": drawing.ERROR_COLOURS,
        "strip": _strip(scores, ranked),
        "spread": _spread([value for _, value in ranked]),
        "unscored": len(scores.names) - len(ranked),
        "examples": list(_drawn_examples(report, ranked, background, on_progress)),
        "suspects": list(_drawn_suspects(report, background, on_progress)),
        "confusion": _confusion_rows(scores),
        "curves": curves,
        "series": charts.SERIES,
        "reliability": reliability,
    }


# --- numbers and words -----------------------------------------------------------------------


def _units(scores: Scores) -> str:
    """Return over what intervals are taken: "20 images", "6 groups"."""
    kind = "image" if scores.units == len(scores.names) else "group"
    return f"{scores.units:,} {kind}{'' if scores.units == 1 else 's'}"


def _headline(scores: Scores) -> list[str]:
    """Return the score in plain words, and what is to be expected of other images."""
    if scores.mean_iou is None:
        return ["Nothing could be scored: no image holds a pixel that counts."]
    scored = len(scores.classes) - len(scores.absent)
    over = "" if scored == 1 else f", averaged over {scored} classes"
    share = f"{100 * scores.mean_iou:.0f} %"
    lines = [
        f"Of the pixels that the true mask or the model gives to a class, {share} get it from "
        f"both{over}. A perfect model would reach 1."
    ]
    if scores.mean_iou_ci95 is None:
        lines.append("On other images of this kind the score may be quite different.")
    else:
        lines.append("Over ever more images of this kind it would likely settle in the interval.")
    return lines


def _background(scores: Scores) -> int | None:
    """Return the class that more than half of all true pixels have, if there is one."""
    counts = scores.confusion.sum(axis=1)
    return int(counts.argmax()) if counts.max() * 2 > counts.sum() else None


def _class_rows(scores: Scores, classes: ClassTable) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "colour": one.colour,
            "iou": scores.iou[name],
            "interval": scores.iou_ci95[name],
            "dice": scores.dice[name],
            "precision": scores.precision[name],
            "recall": scores.recall[name],
            "pixels": scores.pixels[name],
        }
        for name, one in zip(scores.classes, classes.classes, strict=True)
    ]


def _ranked(scores: Scores) -> list[tuple[int, float]]:
    """Return (index, mean IoU) of the images that have one, the worst first."""
    values = [image["mean_iou"] for image in scores.to_dict()["per_image"]]
    known = [(k, value) for k, value in enumerate(values) if value is not None]
    return sorted(known, key=lambda item: item[1])


def _chosen(count: int) -> list[tuple[int, str]]:
    """Return which places of a ranking, worst first, are shown, each with what it stands for."""
    if count <= _WORST + _MEDIAN + _BEST:
        return [(place, "") for place in range(count)]
    middle = max(_WORST, (count - _MEDIAN) // 2)
    return [
        *((place, "among the worst") for place in range(_WORST)),
        *((place, "in the middle") for place in range(middle, middle + _MEDIAN)),
        *((place, "among the best") for place in range(count - _BEST, count)),
    ]


def _strip(scores: Scores, ranked: Sequence[tuple[int, float]]) -> Markup | None:
    """Return the chart of all images; None where there are fewer than two."""
    named = [(show(scores.names[k]), value) for k, value in ranked]
    if len(named) < 2:
        return None
    return charts.strip_plot(named, statistics.median(v for _, v in named))


def _spread(values: Sequence[float]) -> str:
    """Return in words how the scores of the images lie, given in ascending order."""
    if len(values) < 2:
        return ""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    text = f"Median {median:.3f} (the line), lowest {values[0]:.3f}, highest {values[-1]:.3f}"
    if len(values) < 4:
        return f"{text}."
    return f"{text}; the middle half lies between {low:.3f} and {high:.3f}."


def _confusion_rows(scores: Scores) -> list[dict[str, Any]]:
    """Return a row for each true class: its name, and share and shade of each predicted one."""
    rows = []
    for i, counts in enumerate(scores.confusion.tolist()):
        total = sum(counts)
        cells = [
            {
                "text": _cell(count / total if total else None),
                "right": i == j,
                # The root makes a few percent visible; text is readable on the darkest.
                "shade": f"{0.55 * math.sqrt(count / max(total, 1)):.3f}",
                "faint": count < 0.001 * total,
                "hover": f"{count:,} pixels of {show(scores.classes[i])}, predicted as "
                f"{show(scores.classes[j])}",
            }
            for j, count in enumerate(counts)
        ]
        rows.append({"name": scores.classes[i], "cells": cells})
    return rows


def _cell(share: float | None) -> str:
    """Return a share in percent, short: "97.2", "<0.1", "100", "" where it is 0."""
    if share is None:
        return "-"
    if share == 0:
        return ""
    if share == 1:
        return "100"
    return "<0.1" if share < 0.001 else f"{min(100 * share, 99.9):.1f}"


def _curves(histories: Mapping[str, Sequence[Mapping[str, str]]]) -> list[dict[str, Any]]:
    """Return the charts of training: title and SVG; those without a number are left out."""
    found = []
    for title, key, top in (
        ("Training loss", "train_loss", None),
        ("Mean IoU of held-out images", "val_mean_iou", 1.0),
    ):
        timed = {name: _points(rows, "seconds", key) for name, rows in histories.items()}
        x_name, unit = _time_unit([x for points in timed.values() for x, _ in points])
        lines = [
            charts.Line(show(name), tuple((x / unit, y) for x, y in points))
            for name, points in timed.items()
        ]
        if any(line.points for line in lines):
            found.append({"title": title, "svg": charts.line_plot(lines, title, x_name, top)})
    return found


def _points(rows: Sequence[Mapping[str, str]], x: str, y: str) -> list[tuple[float, float]]:
    """Return the pairs of two columns where both hold a number."""
    pairs = [(_parsed(row.get(x)), _parsed(row.get(y))) for row in rows]
    return sorted((a, b) for a, b in pairs if a is not None and b is not None)


def _parsed(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _time_unit(seconds: Sequence[float]) -> tuple[str, float]:
    longest = max(seconds, default=0.0)
    if longest < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 3 * 3600 else ("hours", 3600.0)


def _reliability(calibration: "Calibration | None") -> dict[str, Any] | None:
    if calibration is None or not any(calibration.pixels):
        return None
    bins = zip(calibration.confidence, calibration.accuracy, calibration.pixels, strict=True)
    return {
        "svg": charts.reliability_plot(bins),
        "error": calibration.error,
    }


# --- pictures --------------------------------------------------------------------------------


def _worst_view(case: ScoredImage) -> tuple[View, str]:
    """Return where most of the wrong pixels lie, else the whole image, and its caption."""
    wrong = (case.truth != case.prediction) & (case.truth != IGNORED)
    view = views.fullest(wrong)
    held = view.of(wrong).sum()
    if view.is_whole or held == 0 or held < _ENOUGH * wrong.sum():
        view = views.whole(view.shape)
        return view, view.caption
    share = f"{100 * held / wrong.sum():.0f} % of the wrong pixels are here"
    return view, f"{view.caption}: {share}"


def _box_view(case: ScoredImage, box: tuple[int, int, int, int]) -> View:
    """Return the surroundings of a box, or the whole image where the box is a good part of it."""
    height, width = case.truth.shape
    view = views.around((height, width), box, _PLACE)
    return view if view.longest <= views.SIDE else views.whole(view.shape)


def _drawn(view: View, case: ScoredImage) -> Drawn:
    """Return image, truth and prediction as drawn, small ones enlarged."""
    factor = -(-views.SMALL // view.longest)
    shown, truth, prediction = (views.enlarge(one, factor) for one in view.draw(case))
    return shown, truth, prediction


def _pictures(
    titles: Sequence[str], drawn: Drawn, classes: ClassTable, background: int | None
) -> list[dict[str, Any]]:
    """Return the image and both masks painted over it, as the template names them."""
    painted = views.paint(drawn, classes, background)
    return [views.titled(*pair) for pair in zip(titles, painted, strict=True)]


def _drawn_examples(
    report: Report,
    ranked: Sequence[tuple[int, float]],
    background: int | None,
    on_progress: OnProgress,
) -> Iterator[dict[str, Any]]:
    """Yield the pictures of the worst, some middle and the best images."""
    chosen = _chosen(len(ranked))
    for done, (place, kind) in enumerate(chosen):
        k, value = ranked[place]
        case = report.case(k)
        view, caption = _worst_view(case)
        drawn = _drawn(view, case)
        titles = ("image", "true mask", "prediction")
        yield {
            "name": report.scores.names[k],
            "kind": kind,
            "value": value,
            "caption": caption,
            "pictures": [
                *_pictures(titles, drawn, report.classes, background),
                views.titled("errors", drawing.error_map(*drawn, background), lossy=False),
            ],
        }
        name = show(report.scores.names[k])
        on_progress(Progress("drawing", done + 1, len(chosen), "images", name))


def _drawn_suspects(
    report: Report, background: int | None, on_progress: OnProgress
) -> Iterator[dict[str, Any]]:
    """Yield the pictures around each suspected place, and where it is in them."""
    indices = {name: k for k, name in enumerate(report.scores.names)}
    suspects = report.suspects[:_SUSPECTS]
    for done, suspect in enumerate(suspects):
        case = report.case(indices[suspect.name])
        view = _box_view(case, suspect.box)
        titles = ("image", "mask", "prediction")
        yield {
            "name": suspect.name,
            "text": suspect.text,
            "caption": view.caption,
            "frame": view.frame(suspect.box),
            "pictures": _pictures(titles, _drawn(view, case), report.classes, background),
        }
        on_progress(Progress("drawing", done + 1, len(suspects), "suspects", show(suspect.name)))


# --- the page --------------------------------------------------------------------------------

_STYLE = """
  .head { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 4fr); gap: 2rem 4rem;
    margin-top: 2.2rem; align-items: start }
  .big { font-size: 5rem; line-height: 1; font-weight: 300; letter-spacing: -.03em;
    color: var(--accent); font-variant-numeric: tabular-nums; margin: 0 0 .5rem }
  .lead { font-size: 1.15rem; font-variant-numeric: tabular-nums }
  .facts { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem 2rem; margin: 1.6rem 0 0 }
  .facts dt { font-size: .85rem; color: var(--soft) } .facts div { min-width: 0 }
  .facts dd { margin: 0; font-size: 1.1rem; font-variant-numeric: tabular-nums }
  .baselines { width: 100%; margin-bottom: .8rem } .baselines td:nth-child(2) { width: 45% }
  .baselines .other .bar { fill: var(--soft) } .baselines tr:first-child { border: 0 }

  .classes { width: 100% } .classes .chart { width: 24% } .classes td.iou { font-weight: 600 }
  .of div { display: flex; align-items: baseline; gap: .6rem }

  .scroll { overflow-x: auto; padding-bottom: .5rem; overflow-wrap: normal }
  .confusion tr > * { padding: 0 } .confusion tbody tr { border: 0 }
  .confusion td { min-width: 3.2rem; height: 2.3rem; text-align: center; font-size: .875rem;
    border: 1px solid var(--page); position: relative }
  .confusion td::before { content: ""; position: absolute; inset: 0; opacity: var(--shade);
    background: var(--error) } .confusion td.right::before { background: var(--accent) }
  .confusion td span { position: relative } .confusion td.right { font-weight: 600 }
  .confusion thead th { vertical-align: bottom; padding-bottom: .4rem }
  .confusion thead span { writing-mode: vertical-rl; transform: rotate(180deg); margin: auto;
    max-height: 8rem; overflow: hidden; white-space: nowrap; text-overflow: ellipsis;
    display: block; line-height: 1.3 }
  .confusion tbody th { position: sticky; left: 0; z-index: 1; background: var(--page);
    padding-right: .8rem; text-align: right }
  .confusion tbody th span { display: block; max-width: 9rem; overflow: hidden;
    white-space: nowrap; text-overflow: ellipsis; margin-left: auto }

  @media (max-width: 640px) {
    .head { grid-template-columns: minmax(0, 1fr); margin-top: 1.6rem } .big { font-size: 4rem }
    .classes thead { display: none } .classes, .classes tbody { display: block }
    .classes tr { display: grid; grid-template-columns: repeat(4, 1fr); padding: .7rem 0;
      gap: 0 .6rem }
    .classes td { padding: 0; text-align: left } .classes .of { grid-column: 1 / 4 }
    .classes .iou, .classes .range { grid-column: 4; text-align: right }
    .classes .chart { width: auto; grid-column: 1 / 4; align-self: center }
    .classes .range, .classes [data-name] { font-size: .85rem }
    .classes [data-name] { margin-top: .3rem }
    .classes [data-name]:last-child { text-align: right }
    .classes [data-name]::before { content: attr(data-name); display: block;
      color: var(--soft); font-size: .75rem }
    .confusion tbody th span { max-width: 6rem }
  }
  @media print { .scroll { overflow: visible } }
"""

_TEMPLATE = """
{% macro key(colour, text) %}
<i class="swatch" style="background: {{ colour }}"></i>
<span class="clamp" title="{{ text|name }}"><bdi>{{ text|name }}</bdi></span>
{% endmacro %}
{% macro pairs(title, items) %}
{% if items %}
<details><summary>{{ title }}</summary>
<table class="pairs">
{% for key, value in items.items() %}
<tr><th scope="row"><bdi>{{ key|name }}</bdi></th>
<td><bdi>{{ "-" if value is none else value|name }}</bdi></td></tr>
{% endfor %}
</table></details>
{% endif %}
{% endmacro %}
<header>
<h1><bdi>{{ report.title|name }}</bdi></h1>
<p class="soft"><bdi>{{ report.subject|name }}</bdi></p>
</header>
<main>
<div class="head" id="score">
<div>
<h2>Mean IoU</h2>
<p class="big">{{ scores.mean_iou|number }}</p>
{% if scores.mean_iou_ci95 %}
<p class="lead">{{ scores.mean_iou_ci95|interval(" to ") }}
<span class="soft">95 % interval over {{ units }}</span></p>
{% else %}
<p class="lead">{{ units }}: {{ no_interval }}</p>
{% endif %}
{% for line in headline %}
<p>{{ line }}</p>
{% endfor %}
</div>
<div>
{% if report.baselines %}
<h2>Beside simple methods</h2>
<table class="baselines">
<tr><td>this model</td><td>{{ bar(scores.mean_iou, scores.mean_iou_ci95) }}</td>
<td class="n">{{ scores.mean_iou|number }}</td></tr>
{% for baseline in report.baselines %}
<tr class="other"><td><bdi>{{ baseline.name|name }}</bdi></td>
<td>{{ bar(baseline.scores.mean_iou, baseline.scores.mean_iou_ci95) }}</td>
<td class="n">{{ baseline.scores.mean_iou|number }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% if report.verdict %}
<p>{{ report.verdict[:1]|upper }}{{ report.verdict[1:]|name }}</p>
{% endif %}
<dl class="facts">
<div><dt>images scored</dt><dd>{{ scores.names|length|count }}</dd></div>
<div><dt>share of pixels right</dt><dd>{{ scores.pixel_accuracy|number }}</dd></div>
<div><dt>mean IoU of single images</dt><dd>{{ scores.mean_iou_per_image|number }}</dd></div>
{% if weakest is not none %}
<div><dt><span class="clamp" title="{{ weakest|name }}">weakest class, <bdi>
{{- weakest|name }}</bdi></span></dt><dd>{{ scores.iou[weakest]|number }}</dd></div>
{% endif %}
</dl>
</div>
</div>
<nav aria-label="Sections">
{% for anchor, title in sections %}
<a href="#{{ anchor }}">{{ title }}</a>
{% endfor %}
</nav>

<section id="classes">
<h2>Classes</h2>
<p class="soft small">IoU over all images: the line above a bar is its 95 % interval.
{% if scores.absent %}
Neither in a true mask nor predicted, and left out of the mean:
{% for name in scores.absent %}<bdi>{{ name|name }}</bdi>{{ "." if loop.last else ", " }}
{%- endfor %}
{% endif %}
</p>
<table class="classes">
<thead><tr><th>class</th><th class="n">IoU</th><th></th><th>95 % interval</th>
<th class="n">Dice</th><th class="n">precision</th><th class="n">recall</th>
<th class="n">pixels</th></tr></thead>
<tbody>
{% for row in rows %}
<tr>
<td class="of"><div>{{ key(row.colour, row.name) }}
{%- if row.name == weakest %}<span class="tag">weakest</span>{% endif %}</div></td>
<td class="n iou">{{ row.iou|number }}</td>
<td class="chart">{{ bar(row.iou, row.interval) }}</td>
<td class="range">{{ row.interval|interval }}</td>
<td class="n" data-name="Dice">{{ row.dice|number }}</td>
<td class="n" data-name="precision">{{ row.precision|number }}</td>
<td class="n" data-name="recall">{{ row.recall|number }}</td>
<td class="n" data-name="pixels">{{ row.pixels|count }}</td>
</tr>
{% endfor %}
</tbody>
</table>
</section>

{% if examples %}
<section id="images">
<h2>Images</h2>
{% if strip %}
<p class="soft small">A dot is the mean IoU of one image; resting on it shows the name.
{{ spread }}
{% if unscored %}
Without a pixel that counts, and left out: {{ unscored }}.
{% endif %}
</p>
{{ strip }}
{% endif %}
<ul class="key close" aria-label="Classes">
{% for row in rows %}
<li>{{ key(row.colour, row.name) }}{{ "(not painted)" if row.name == background }}</li>
{% endfor %}
</ul>
<ul class="key" aria-label="Errors">
{% if background is not none %}
<li><i class="swatch" style="background: {{ errors.missed }}"></i>missed: predicted as the
background</li>
<li><i class="swatch" style="background: {{ errors.claimed }}"></i>claimed where the background
is</li>
{% endif %}
<li><i class="swatch" style="background: {{ errors.confused }}"></i>another class</li>
</ul>
{% for example in examples %}
<figure>
<figcaption><b>{{ example.value|number }}</b> <bdi>{{ example.name|name }}</bdi>
{%- if example.kind %}, {{ example.kind }}{% endif %}
{%- if example.caption %}, {{ example.caption }}{% endif %}</figcaption>
<div class="pictures four">
{% for p in example.pictures %}
<div><img src="{{ p.uri }}" alt="{{ p.title }}" width="{{ p.width }}" height="{{ p.height }}">
<p>{{ p.title }}</p></div>
{% endfor %}
</div>
</figure>
{% endfor %}
</section>
{% endif %}

{% if suspects %}
<section id="suspects">
<h2>Suspected masks</h2>
<p class="soft small">Where mask and model disagree most, the likeliest mistake in a mask first:
look at them before trusting the scores.
{% if report.suspects|length > suspects|length %}
{{ suspects|length }} of {{ report.suspects|length|count }} are shown.
{% endif %}
</p>
<div class="cards">
{% for suspect in suspects %}
<figure>
<figcaption><b>{{ loop.index }}. <bdi>{{ suspect.name|name }}</bdi></b>
<bdi>{{ suspect.text|name }}</bdi>
{%- if suspect.caption %} ({{ suspect.caption }}){% endif %}</figcaption>
<div class="pictures three">
{% for p in suspect.pictures %}
<div><div class="frame"><img src="{{ p.uri }}" alt="{{ p.title }}" width="{{ p.width }}"
 height="{{ p.height }}"><i style="{{ suspect.frame }}"></i></div>
<p>{{ p.title }}</p></div>
{% endfor %}
</div>
</figure>
{% endfor %}
</div>
</section>
{% endif %}

<section id="confusion">
<h2>Confusion</h2>
<p class="soft small">Of the pixels of each true class (rows), the percentage predicted as each
class (columns).</p>
<div class="scroll" tabindex="0" role="region" aria-label="Confusion">
<table class="confusion">
<thead><tr><th></th>
{% for row in confusion %}
<th scope="col"><span title="{{ row.name|name }}">{{ row.name|name }}</span></th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in confusion %}
<tr><th scope="row"><span title="{{ row.name|name }}">{{ row.name|name }}</span></th>
{% for cell in row.cells %}
<td{{ ' class="right"'|safe if cell.right }} style="--shade: {{ cell.shade }}"
 title="{{ cell.hover }}"><span{{ ' class="soft"'|safe if cell.faint }}>{{ cell.text }}</span></td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
</section>

{% if curves %}
<section id="training">
<h2>Training</h2>
{% if report.histories|length > 1 %}
<ul class="key" aria-label="Lines">
{% for name in report.histories %}
<li><i class="stroke series-{{ loop.index0 % series }}{{ " dashed" if loop.index0 >= series }}"></i>
<span class="clamp"><bdi>{{ name|name }}</bdi></span></li>
{% endfor %}
</ul>
{% endif %}
<div class="charts">
{% for curve in curves %}
<div><h3>{{ curve.title }}</h3>
{{ curve.svg }}
</div>
{% endfor %}
</div>
</section>
{% endif %}

{% if reliability %}
<section id="confidence">
<h2>Confidence</h2>
<p class="soft small">How often a pixel was right, by the probability the model gave it: on the
dashed line probabilities are true. The larger a dot, the more pixels.</p>
<p>Expected calibration error {{ reliability.error|number }}: the probabilities are off by
{{ "%.1f"|format(100 * reliability.error) }} percentage points on average.</p>
<h3>Share right</h3>
{{ reliability.svg }}
</section>
{% endif %}

{% if report.settings or report.data or report.versions %}
<section id="made-from">
<h2>Made from</h2>
{{ pairs("Data", report.data) }}
{{ pairs("Settings", report.settings) }}
{{ pairs("Versions", report.versions) }}
</section>
{% endif %}

{% if report.lines %}
<section id="next">
<h2>What next</h2>
<pre>{% for line in report.lines %}{{ line|name }}
{% endfor %}</pre>
</section>
{% endif %}
</main>
"""
