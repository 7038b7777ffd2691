"""A page of pictures that shows how a folder of labelled images was understood."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.dataset.findings.inspection import Inspection
from unetseg.dataset.survey import Survey
from unetseg.pictures import drawing, masks, transforms
from unetseg.progress import OnProgress, silent, steps
from unetseg.reports import rendering
from unetseg.settings import WHOLE, Selection
from unetseg.text import show

_PICTURES = 100  # labelled images shown at most; more are chosen evenly
_SIDE = 320  # pixels: two of them side by side on a screen, one below the other on a phone


def write_contact_sheet(
    path: str | os.PathLike[str],
    found: Inspection,
    selection: Selection = WHOLE,
    on_progress: OnProgress = silent,
) -> None:
    """Write one HTML file, readable offline, with every image beside its painted mask.

    Args:
        path: The file.
        found: The result of `inspect_folder`.
        selection: The part of image files that is used.
        on_progress: Receives `Progress`.

    Raises:
        InputError: A file that cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    surveys = found.surveys
    count = min(len(surveys), _PICTURES)
    chosen = [surveys[i] for i in np.linspace(0, len(surveys) - 1, count).round().astype(int)]
    shown = f"{count} of {len(surveys)} images" if count < len(surveys) else "All images"
    painted = (
        "as stored, because the classes cannot be told yet"
        if found.table is None
        else "(a class of over half of the pixels stays unpainted)"
    )
    data = found.to_dict()
    sizes = [f"{height} x {width}" for height, width in data["sizes"]]
    rendered = rendering.render(
        "dataset.html",
        str(found.root),
        found=data,
        sizes=" to ".join(dict.fromkeys((*sizes[:1], *sizes[-1:]))),
        findings=found.findings,
        shown=f"{shown}: left the image alone, right with its mask {painted}.",
        pictures=list(_pictures(chosen, found, selection, on_progress)),
    )
    files.write_bytes(path, rendered)


def _pictures(
    surveys: list[Survey], found: Inspection, selection: Selection, on_progress: OnProgress
) -> Iterator[dict[str, str]]:
    table = found.table if len(found.halves) else None
    plain = None if table is None else drawing.prevailing(found.counts.sum(0))
    drawn = steps(surveys, "drawing", "images", on_progress, name=lambda one: one.pair.name)
    for one in drawn:
        if table is None:
            image, labels = one.pair.read_image(selection), None
        else:
            image, labels = one.pair.read_labelled(table, selection)
        height, width = image.shape[:2]
        factor = min(1.0, _SIDE / max(height, width))
        shape = transforms.scaled_size(height, width, factor)
        small = transforms.rescale_image(image, shape)
        if table is None or labels is None:
            mask = _as_stored(one.pair.read_mask(selection), shape)
        else:
            indices = transforms.rescale_mask(labels, shape)
            mask = drawing.overlay(small, indices, table, plain)[: shape[0], : shape[1]]
        yield {
            "image": rendering.picture_uri(drawing.to_display(small)),
            "mask": rendering.picture_uri(mask),
            "caption": f"{show(one.pair.file_name)}, {show(one.pair.mask.name)}: "
            f"{height} x {width}",
        }


def _as_stored(raw: masks.RawMask, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a mask whose classes are not known as a picture ``(H, W, 3)``."""
    values: NDArray[Any] = raw.values if raw.palette is None else raw.palette[raw.values]
    rows = np.arange(shape[0]) * values.shape[0] // shape[0]
    columns = np.arange(shape[1]) * values.shape[1] // shape[1]
    thin = values[rows][:, columns]
    if thin.ndim == 3:
        return np.asarray(thin, np.uint8)
    # 97 has no divisor in common with 256, so that neighbouring numbers get greys far apart.
    grey = thin if thin.max() > 64 else thin.astype(np.int64) * 97 % 256
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
