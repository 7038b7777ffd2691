"""One HTML file that shows how good a model is, where it fails, and its origin."""

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
from unetseg.progress import OnProgress, silent, steps
from unetseg.reports import charts, rendering, views
from unetseg.reports.suspect_sheet import suspect_cards
from unetseg.reports.views import View
from unetseg.scoring.metrics import ScoredImage, Scores
from unetseg.text import plural, show

if TYPE_CHECKING:  # this module shows their values, and computes none
    from unetseg.prediction.calibration import Calibration
    from unetseg.scoring.baselines import Baseline
    from unetseg.scoring.curves import Curves
    from unetseg.scoring.suspects import Suspect

_SUSPECTS = 8
_WORST, _MEDIAN, _BEST = 3, 2, 2
_ENOUGH = 0.5  # a part of an image is shown if it holds this share of the wrong pixels


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        title: The heading.
        subject: A line that names the model, its training images and the scored images.
        scores: The scores of all images, with intervals where they are known.
        classes: Names and colours, in the order of ``scores.classes``.
        scored_image: Returns the k-th image of ``scores`` with its masks.
        baselines: The scores of simple methods on the same images.
        verdict: How the model compares with them, in one line.
        histories: The rows of ``history.csv`` by the name of a fold or run.
        suspects: Masks that may be wrong, the likeliest first; their images are among ``scores``.
        thresholds: The curves of every threshold, by class; None where they are not known.
        calibration: Whether probabilities can be believed; None where they are not known.
        settings: The settings as used; shown as text.
        data: The data of training and scoring: folder, number of images, hash of pixels.
        versions: The version of each program, by its name.
        lines: Commands to type next.
        objects: The result of `object_part`; None where objects were not scored.
    """

    title: str
    subject: str
    scores: Scores
    classes: ClassTable
    scored_image: Callable[[int], ScoredImage]
    baselines: Sequence["Baseline"] = ()
    verdict: str = ""
    histories: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    suspects: Sequence["Suspect"] = ()
    thresholds: "Curves | None" = None
    calibration: "Calibration | None" = None
    settings: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[str] = ()
    objects: Mapping[str, Any] | None = None


def write_page(
    path: str | os.PathLike[str],
    report: Report,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> None:
    """Write one HTML file that needs no other file and no network, whole or not at all.

    Pictures are at most 480 pixels wide and high. Larger images are cut to the place where most of
    the wrong pixels lie. If no cut would hold half of these, the image is shrunk. The caption says
    which was done.

    Args:
        path: The file.
        report: The content of the page.
        overwrite: Replace a file that is there.
        on_progress: Receives `Progress` as pictures are drawn.

    Raises:
        InputError: ``path`` exists, or an image cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    files.check_writable(Path(path), overwrite)
    contents = _contents(report, on_progress)
    files.write_bytes(path, rendering.render("score.html", report.title, **contents))


def _contents(report: Report, on_progress: OnProgress) -> dict[str, Any]:
    """Return the values of the template."""
    scores, ranked = report.scores, _ranked(report.scores)
    background = drawing.prevailing(scores.confusion.sum(axis=1))
    curves = _curves(report.histories)
    reliability = _reliability(report.calibration)
    sections = [
        ("classes", "Classes", True),
        ("images", "Images", bool(ranked)),
        ("objects", "Objects", report.objects is not None),
        ("suspects", "Suspected masks", bool(report.suspects)),
        ("confusion", "Confusion", True),
        ("thresholds", "Thresholds", bool(report.thresholds)),
        ("training", "Training", bool(curves)),
        ("confidence", "Confidence", reliability is not None),
        ("made-from", "Made from", bool(report.settings or report.data or report.versions)),
        ("next", "Next steps", bool(report.lines)),
    ]
    return {
        "report": report,
        "scores": scores,
        "units": scores.units_in_words,
        "headline": _headline(scores),
        "no_interval": "the same score in all, which gives no interval"
        if scores.units > 1 and scores.mean_iou in (0, 1)
        else "too few images for an interval",
        "bar": charts.interval_bar,
        "sections": [(anchor, title) for anchor, title, shown in sections if shown],
        "rows": _class_rows(scores, report.classes),
        "weakest": scores.weakest,
        "background": background,
        "errors": drawing.ERROR_COLOURS,
        "strip": _strip(scores, ranked),
        "spread": _spread([value for _, value in ranked]),
        "unscored": len(scores.names) - len(ranked),
        "examples": list(_drawn_examples(report, ranked, background, on_progress)),
        "suspects": _drawn_suspects(report, background, on_progress),
        "objects": report.objects,
        "confusion": _confusion_rows(scores),
        "thresholds": _thresholds(report.thresholds),
        "curves": curves,
        "series": charts.SERIES,
        "reliability": reliability,
    }


# --- numbers and words -----------------------------------------------------------------------


def _headline(scores: Scores) -> list[str]:
    """Return the score in plain words, and the score to expect on other images."""
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
        lines.append("The score on all images of this kind probably lies in this range.")
    return lines


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
    """Return the places of a ranking, worst first, that are shown, each with a caption."""
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
                "hover": f"{plural(count, 'pixel')} of {show(scores.classes[i])}, predicted as "
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


def _thresholds(found: "Curves | None") -> dict[str, Any] | None:
    """Return a row for each class with its areas, and the charts of both curves."""
    if found is None:
        return None
    areas, known = found.to_dict(), {name: one for name, one in found.pooled.items() if one}
    order = {name: number for number, name in enumerate(known)}
    charted = (
        ("Recall by share of other pixels claimed (ROC)", "roc", "1 - specificity"),
        ("Precision by recall", "precision_recall", "recall"),
    )
    return {
        "rows": [
            {"name": name, "series": order.get(name), **{key: areas[key][name] for key in areas}}
            for name in found.pooled
        ],
        "charts": [
            {
                "title": title,
                "svg": charts.line_plot(
                    [charts.Line(show(name), getattr(one, key)) for name, one in known.items()],
                    title,
                    across,
                    1.0,
                ),
            }
            for title, key, across in charted
            if known
        ],
    }


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


def _worst_view(scored: ScoredImage) -> tuple[View, str]:
    """Return where most of the wrong pixels lie, else the whole image, and its caption."""
    wrong = (scored.truth != scored.prediction) & (scored.truth != IGNORED)
    view = views.fullest(wrong)
    held = view.of(wrong).sum()
    if view.is_whole or held == 0 or held < _ENOUGH * wrong.sum():
        view = views.whole(view.shape)
        return view, view.caption
    share = f"{100 * held / wrong.sum():.0f} % of the wrong pixels are here"
    return view, f"{view.caption}: {share}"


def _drawn_examples(
    report: Report,
    ranked: Sequence[tuple[int, float]],
    background: int | None,
    on_progress: OnProgress,
) -> Iterator[dict[str, Any]]:
    """Yield the pictures of the worst, some middle and the best images."""
    names = report.scores.names
    chosen = [(*ranked[place], kind) for place, kind in _chosen(len(ranked))]
    for k, value, kind in steps(
        chosen, "drawing", "images", on_progress, name=lambda one: names[one[0]]
    ):
        scored = report.scored_image(k)
        view, caption = _worst_view(scored)
        drawn = view.draw_enlarged(scored)
        titles = ("image", "true mask", "prediction")
        errors = drawing.error_map(*drawn, background)
        yield {
            "name": names[k],
            "kind": kind,
            "value": value,
            "caption": caption,
            "pictures": [
                *views.pictures(titles, drawn, report.classes, background),
                views.titled("errors", errors, lossy=False),
            ],
        }


def _drawn_suspects(
    report: Report, background: int | None, on_progress: OnProgress
) -> list[dict[str, Any]]:
    """Return the pictures around the likeliest suspected places."""
    places = {name: k for k, name in enumerate(report.scores.names)}
    return list(
        suspect_cards(
            report.suspects[:_SUSPECTS],
            lambda name: report.scored_image(places[name]),
            report.classes,
            background,
            on_progress,
        )
    )
