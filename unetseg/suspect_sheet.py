"""A page of pictures that shows the masks suspected to be wrong."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from unetseg import atomic, drawing, pages, pixels
from unetseg.cases import Case
from unetseg.classes import ClassTable
from unetseg.errors import show
from unetseg.progress import OnProgress, Progress, ignore
from unetseg.suspects import Suspect

_SIDE = 480  # pixels of a picture at most
_PLACE = 128  # pixels around a suspected place at least
_SMALL = 240  # smaller pictures are enlarged by whole numbers, so that pixels stay sharp

_TEMPLATE = """
<h1>Suspected masks</h1>
<p>{{ subject|name }}</p>
<p class="soft small">The likeliest mistake first. The frame is around the place. The score says how
far a mask is above the usual of the set; over 3 is rare among correct masks.</p>
<ul class="key">
{% for c in table.classes %}
<li><span class="swatch" style="background: {{ c.colour }}"></span>
<span class="clamp">{{ c.name|name }}{{ " (not painted)" if loop.index0 == plain }}</span></li>
{% endfor %}
</ul>
<div class="cards">
{% for one in cards %}
<figure>
<figcaption><b>{{ loop.index }}. <bdi>{{ one.name|name }}</bdi></b> (score {{ one.score }}):
<bdi>{{ one.text|name }}</bdi>
{%- if one.caption %} ({{ one.caption }}){% endif %}</figcaption>
<div class="pictures three">
{% for title, uri, height, width in one.pictures %}
<div><div class="frame"><img src="{{ uri }}" alt="{{ title }}" width="{{ width }}"
 height="{{ height }}"><i style="{{ one.frame }}"></i></div>
<p>{{ title }}</p></div>
{% endfor %}
</div>
</figure>
{% else %}
<p>Nothing speaks against any mask.</p>
{% endfor %}
</div>
"""


def write_suspects(
    path: str | os.PathLike[str],
    suspects: Sequence[Suspect],
    case: Callable[[str], Case],
    classes: ClassTable,
    subject: str,
    on_progress: OnProgress = ignore,
) -> None:
    """Write one HTML file, readable offline: image, mask and prediction around each place.

    Args:
        path: The file; replaced where it is there.
        suspects: Those shown, in order.
        case: Reads the image of a name, with its masks.
        classes: Names and colours.
        subject: One line: which masks, against which model.
        on_progress: Receives `Progress`.

    Raises:
        InputError: An image cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    plain = drawing.commonest(case(suspects[0].name).truth) if suspects else None
    cards = list(_cards(suspects, case, classes, plain, on_progress))
    page = pages.render(
        "Suspected masks", _TEMPLATE, cards=cards, subject=subject, table=classes, plain=plain
    )
    atomic.write_bytes(path, page)


def _cards(
    suspects: Sequence[Suspect],
    case: Callable[[str], Case],
    classes: ClassTable,
    plain: int | None,
    on_progress: OnProgress,
) -> Iterator[dict[str, Any]]:
    for done, suspect in enumerate(suspects, 1):
        one = case(suspect.name)
        top, left, height, width = _window(one.truth.shape, suspect.box)
        window = np.s_[top : top + height, left : left + width]
        shape = pixels.scaled_size(height, width, min(1.0, _SIDE / max(height, width)))
        factor = max(1, _SMALL // max(shape))
        image = pixels.rescale_image(drawing.to_display(one.image)[window], shape)
        masks = (
            pixels.rescale_mask(np.ascontiguousarray(mask[window]), shape)
            for mask in (one.truth, one.prediction)
        )
        drawn = [image, *(drawing.blend(image, mask, classes, plain) for mask in masks)]
        drawn = [p.repeat(factor, axis=0).repeat(factor, axis=1) for p in drawn]
        part = (height, width) != one.truth.shape
        yield {
            "name": suspect.name,
            "score": f"{suspect.score:.1f}",
            "text": suspect.text,
            "caption": f"from row {top}, column {left}" if part else "",
            "frame": _frame(suspect.box, (top, left, height, width)),
            "pictures": [
                (title, pages.picture_uri(p), *p.shape[:2])
                for title, p in zip(("image", "mask", "model"), drawn, strict=True)
            ],
        }
        on_progress(Progress("drawing", done, len(suspects), "suspects", show(suspect.name)))


def _window(shape: tuple[int, ...], box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return the square around a box, or the whole image where little would be left out."""
    side = max(_PLACE, 3 * max(box[2:]))
    if 2 * side > max(shape):
        return 0, 0, shape[0], shape[1]
    rows, columns = min(shape[0], side), min(shape[1], side)
    top = int(np.clip(box[0] + box[2] // 2 - rows // 2, 0, shape[0] - rows))
    left = int(np.clip(box[1] + box[3] // 2 - columns // 2, 0, shape[1] - columns))
    return top, left, rows, columns


def _frame(box: tuple[int, int, int, int], window: tuple[int, int, int, int]) -> str:
    """Return where a box is in a window, as CSS."""
    top, left, height, width = window
    places = {
        "top": (box[0] - top) / height,
        "left": (box[1] - left) / width,
        "height": box[2] / height,
        "width": box[3] / width,
    }
    return "; ".join(f"{name}: {100 * value:.2f}%" for name, value in places.items())
