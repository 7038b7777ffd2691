"""A page of pictures that shows the masks suspected to be wrong."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from unetseg import files
from unetseg.classes import IGNORED, ClassTable
from unetseg.pictures import drawing
from unetseg.progress import OnProgress, silent, steps
from unetseg.reports import rendering, views
from unetseg.scoring.metrics import ScoredImage
from unetseg.scoring.suspects import Suspect

_SURROUNDINGS = 128  # pixels: the least side of the square shown around a suspected place


def write_suspects(
    path: str | os.PathLike[str],
    suspects: Sequence[Suspect],
    read: Callable[[str], ScoredImage],
    classes: ClassTable,
    subject: str,
    on_progress: OnProgress = silent,
) -> None:
    """Write one HTML file, readable offline: image, mask and prediction around each place.

    Args:
        path: The file; replaced where it is there.
        suspects: The suspects to show, in order.
        read: Reads the image of a name with its masks.
        classes: Names and colours.
        subject: A line that names the masks and the model.
        on_progress: Receives `Progress`.

    Raises:
        InputError: An image cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    unpainted = None
    if suspects:
        truth = read(suspects[0].name).truth
        unpainted = drawing.prevailing(np.bincount(truth.ravel(), minlength=IGNORED)[:IGNORED])
    page = rendering.render(
        "suspects.html",
        "Suspected masks",
        cards=list(suspect_cards(suspects, read, classes, unpainted, on_progress)),
        subject=subject,
        classes=classes.classes,
        unpainted=unpainted,
    )
    files.write_bytes(path, page)


def suspect_cards(
    suspects: Sequence[Suspect],
    read: Callable[[str], ScoredImage],
    classes: ClassTable,
    unpainted: int | None,
    on_progress: OnProgress,
) -> Iterator[dict[str, Any]]:
    """Yield the values of the macro ``card``: the pictures around each place, and its frame.

    The arguments are those of `write_suspects`, and the class that is not painted.
    """
    for suspect in steps(suspects, "drawing", "suspects", on_progress, name=lambda one: one.name):
        image = read(suspect.name)
        height, width = image.truth.shape
        view = views.around((height, width), suspect.box, _SURROUNDINGS)
        yield {
            "name": suspect.name,
            "score": suspect.score,
            "text": suspect.text,
            "caption": view.caption,
            "frame": view.frame(suspect.box),
            "pictures": views.pictures(
                ("image", "mask", "prediction"), view.draw_enlarged(image), classes, unpainted
            ),
        }
