"""A page of pictures that shows what was understood of a folder of labelled images."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.dataset.findings import Inspection
from unetseg.dataset.survey import Survey
from unetseg.pictures import drawing, masks, reading, transforms
from unetseg.progress import OnProgress, Progress, ignore
from unetseg.reports import html
from unetseg.text import show

_PICTURES = 100  # labelled images shown at most; more are chosen evenly
_SIDE = 320  # pixels: two of them side by side on a screen, one below the other on a phone

_STYLE = """
  body { max-width: 90rem }
  .finding { margin: .6rem 0; padding-left: .7rem; border-left: .4rem solid var(--soft) }
  .finding.error { border-color: var(--error) } .finding.warning { border-color: #e90 }
  .finding code { display: block; padding: .1rem .3rem; overflow-x: auto;
    background: var(--panel) }
  .sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr));
    gap: 1rem } .sheet figure { margin: 0 }
  .sheet div { display: flex; gap: 4px; flex-wrap: wrap; margin-bottom: .3rem }
  .sheet img { flex: 1 1 9rem; min-width: 0; max-width: 100% }
"""

_TEMPLATE = """
<h1>{{ found.folder|name }}</h1>
<p>{{ found.images }} labelled images, {{ sizes }} pixels, {{ found.channels|join(" or ") }}
channel{{ "" if found.channels == [1] else "s" }}, {{ found.dtypes|join(" and ") }}. Masks:
{% for name, count in found.mask_encodings.items() %}{{ name }} ({{ count }})
{%- if not loop.last %}, {% endif %}{% endfor %}.</p>
{% for f in findings %}
<div class="finding {{ f.severity }}"><b>{{ f.severity }}</b> {{ f.message|options }}
{% if f.line %}<code>{{ f.line }}</code>{% endif %}</div>
{% endfor %}
{% if found.classes %}
<table>
<tr><th><th>class<th>in masks<th class="n">share<th class="n">images</tr>
{% for c in found.classes %}
<tr><td><span class="swatch" style="background: {{ c.colour }}"></span><td>{{ c.name|name }}
<td>{{ c.in_masks }}<td class="n">{{ "%.2f"|format(100 * c.share) }} %
<td class="n">{{ c.images }}</tr>
{% endfor %}
</table>
{% endif %}
<p>{{ shown }}</p>
<div class="sheet">
{% for p in pictures %}
<figure><div><img alt="image" src="{{ p.image }}"><img alt="mask" src="{{ p.mask }}"></div>
<figcaption>{{ p.caption }}</figcaption></figure>
{% endfor %}
</div>
{% if found.classes_toml %}<h2>classes.toml</h2><pre>{{ found.classes_toml }}</pre>{% endif %}
"""


def write_contact_sheet(
    path: str | os.PathLike[str],
    found: Inspection,
    page: int | None = None,
    on_progress: OnProgress = ignore,
) -> None:
    """Write one HTML file, readable offline, with every image beside its painted mask.

    Args:
        path: The file.
        found: What `inspect_folder` found.
        page: Which picture of TIFFs that hold several.
        on_progress: Receives `Progress`.

    Raises:
        InputError: A file that cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    surveys = found.surveys
    count = min(len(surveys), _PICTURES)
    chosen = [surveys[i] for i in np.linspace(0, len(surveys) - 1, count).round().astype(int)]
    shown = f"{count} of {len(surveys)} images" if count < len(surveys) else "All images"
    shown += ": left as it is, right with its mask"
    if found.table is None:
        shown += " as stored, because the classes cannot be told yet"
    else:
        shown += " (a class of over half of the pixels stays unpainted)"
    data = found.to_dict()
    sizes = [f"{height} x {width}" for height, width in data["sizes"]]
    rendered = html.render(
        str(found.root),
        _TEMPLATE,
        _STYLE,
        found=data,
        sizes=sizes[0] if len(sizes) == 1 else " to ".join(sizes[:: max(1, len(sizes) - 1)]),
        findings=found.findings,
        shown=shown + ".",
        pictures=list(_pictures(chosen, found, page, on_progress)),
    )
    files.write_bytes(path, rendered)


def _pictures(
    surveys: list[Survey], found: Inspection, page: int | None, on_progress: OnProgress
) -> Iterator[dict[str, str]]:
    for i, one in enumerate(surveys):
        image = reading.read_image(one.pair.image, page)
        raw = reading.read_mask(one.pair.mask, page)
        height, width = image.shape[:2]
        factor = min(1.0, _SIDE / max(height, width))
        shape = transforms.scaled_size(height, width, factor)
        small = transforms.rescale_image(image, shape)
        if found.table is None or not len(found.halves):
            mask = _as_stored(raw, shape)
        else:
            indices = transforms.rescale_mask(masks.decode(raw, found.table, one.pair.mask), shape)
            plain = drawing.commonest(indices)
            mask = drawing.overlay(small, indices, found.table, plain)[: shape[0], : shape[1]]
        yield {
            "image": html.picture_uri(drawing.to_display(small)),
            "mask": html.picture_uri(mask),
            "caption": f"{show(one.pair.image.name)}, {show(one.pair.mask.name)}: "
            f"{height} x {width}",
        }
        on_progress(Progress("drawing", i + 1, len(surveys), "images", show(one.pair.name)))


def _as_stored(raw: masks.RawMask, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a mask whose classes are not known as a picture ``(H, W, 3)``."""
    values: NDArray[Any] = raw.values if raw.palette is None else raw.palette[raw.values]
    rows = np.arange(shape[0]) * values.shape[0] // shape[0]
    columns = np.arange(shape[1]) * values.shape[1] // shape[1]
    thin = values[rows][:, columns]
    if thin.ndim == 3:
        return np.asarray(thin, np.uint8)
    # 97 is prime to 256, so neighbouring numbers get greys far apart
    grey = thin if thin.max() > 64 else thin.astype(np.int64) * 97 % 256
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
