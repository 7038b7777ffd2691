"""A page of pictures that shows the masks suspected to be wrong."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from unetseg import files
from unetseg.classes import ClassTable
from unetseg.pictures import drawing
from unetseg.progress import OnProgress, Progress, ignore
from unetseg.reports import html, views
from unetseg.scoring.metrics import ScoredImage
from unetseg.scoring.suspects import Suspect
from unetseg.text import show

_PLACE = 128  # pixels around a suspected place at least

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
{% for p in one.pictures %}
<div><div class="frame"><img src="{{ p.uri }}" alt="{{ p.title }}" width="{{ p.width }}"
 height="{{ p.height }}"><i style="{{ one.frame }}"></i></div>
<p>{{ p.title }}</p></div>
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
    case: Callable[[str], ScoredImage],
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
    page = html.render(
        "Suspected masks", _TEMPLATE, cards=cards, subject=subject, table=classes, plain=plain
    )
    files.write_bytes(path, page)


def _cards(
    suspects: Sequence[Suspect],
    case: Callable[[str], ScoredImage],
    classes: ClassTable,
    plain: int | None,
    on_progress: OnProgress,
) -> Iterator[dict[str, Any]]:
    for done, suspect in enumerate(suspects, 1):
        one = case(suspect.name)
        height, width = one.truth.shape
        view = views.around((height, width), suspect.box, _PLACE)
        factor = max(1, views.SMALL // view.longest)
        painted = views.paint(view.draw(one), classes, plain)
        yield {
            "name": suspect.name,
            "score": f"{suspect.score:.1f}",
            "text": suspect.text,
            "caption": "" if view.is_whole else f"from row {view.top}, column {view.left}",
            "frame": view.frame(suspect.box),
            "pictures": [
                views.titled(title, views.enlarge(picture, factor))
                for title, picture in zip(("image", "mask", "model"), painted, strict=True)
            ],
        }
        on_progress(Progress("drawing", done, len(suspects), "suspects", show(suspect.name)))
