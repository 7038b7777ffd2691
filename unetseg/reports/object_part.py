"""The part of a report about objects: how well they are told apart, and pictures of some."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.objects.separation import object_classes
from unetseg.pictures import drawing
from unetseg.progress import OnProgress, steps
from unetseg.reports import views
from unetseg.reports.views import View
from unetseg.scoring.evaluation import Evaluation
from unetseg.scoring.panoptic import ObjectScores, paired_pixels
from unetseg.scoring.subjects import ObjectPair


def object_part(
    found: Evaluation, counted: ObjectScores, on_progress: OnProgress
) -> dict[str, Any]:
    """Return the values of the template for the objects of an evaluation.

    The images with the worst, the median and the best panoptic quality are shown.

    Args:
        found: The evaluation.
        counted: The scores of its objects.
        on_progress: Receives `Progress`.

    Raises:
        InputError: An image cannot be read any more.
    """
    return {
        "rows": _rows(counted, found.subject.classes),
        "missed": drawing.ERROR_COLOURS["missed"],
        "claimed": drawing.ERROR_COLOURS["claimed"],
        "examples": list(_examples(found, counted, on_progress)),
    }


def _rows(counted: ObjectScores, table: ClassTable) -> list[dict[str, Any]]:
    """Return the rows of the table of objects, one a class."""
    colours = {one.name: one.colour for one in table.classes}
    scores = {
        "panoptic_quality": counted.panoptic_quality,
        "f1": counted.f1,
        "count_error": counted.count_error,
    }
    return [
        {
            "name": name,
            "colour": colours[name],
            "true": counted.true[name],
            "predicted": counted.predicted[name],
            "scores": [(of[name], counted.intervals[key][name]) for key, of in scores.items()],
        }
        for name in counted.true
    ]


def _examples(
    found: Evaluation, counted: ObjectScores, on_progress: OnProgress
) -> Iterator[dict[str, Any]]:
    """Yield for each example its pictures: the image, its true and its predicted objects."""
    subject = found.subject
    classes = object_classes(subject.classes, list(counted.true))
    known = [(value, k) for k, value in enumerate(counted.quality_per_image) if value is not None]
    known.sort()
    places = sorted({0, len(known) // 2, len(known) - 1}) if known else []
    chosen = [known[place] for place in places]
    for value, k in steps(
        chosen, "drawing objects", "images", on_progress, name=lambda one: subject.names[one[1]]
    ):
        pair = subject.object_pair(k, classes)
        true, predicted, missed, claimed = _compared(pair, classes)
        view = views.fullest(missed | claimed)
        shown = _enlarged(view.of(drawing.to_display(subject.image(k))))
        titles = ("image", "true objects", "predicted objects")
        pictures = (
            shown,
            _outlined(shown, view, true, missed, "missed"),
            _outlined(shown, view, predicted, claimed, "claimed"),
        )
        yield {
            "name": subject.names[k],
            "value": value,
            "caption": view.caption,
            "pictures": [views.titled(t, p) for t, p in zip(titles, pictures, strict=True)],
        }


def _compared(
    pair: ObjectPair, classes: Mapping[int, int | None]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return true and predicted numbers over all classes, and where objects of each lack a pair."""
    shape = pair.ignored.shape
    true = np.zeros(shape, np.int64)
    missed, claimed = np.zeros(shape, bool), np.zeros(shape, bool)
    for kind in classes:
        predicted = pair.predicted.of(kind)
        has_pair, is_pair = paired_pixels(pair.true[kind], predicted, pair.ignored)
        missed |= (pair.true[kind] > 0) & ~has_pair
        claimed |= (predicted > 0) & ~is_pair
        true = np.where(pair.true[kind] > 0, pair.true[kind], true)
    return true, pair.predicted.numbers, missed & ~pair.ignored, claimed & ~pair.ignored


def _outlined(
    shown: NDArray[np.uint8],
    view: View,
    numbers: NDArray[np.integer[Any]],
    wrong: NDArray[np.bool_],
    kind: str,
) -> NDArray[np.uint8]:
    part, marked = _enlarged(view.of(numbers)), _enlarged(view.of(wrong))
    return drawing.outline_objects(shown, part, marked, drawing.ERROR_COLOURS[kind])


def _enlarged(values: NDArray[Any]) -> NDArray[Any]:
    """Return a part of an image enlarged, so that there is room for numbers."""
    return views.enlarge(values, max(1, views.SIDE // max(values.shape[:2])))
