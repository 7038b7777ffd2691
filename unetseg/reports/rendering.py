"""How HTML pages are made: one file, no script, nothing loaded, every text escaped."""

import base64
import functools
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from unetseg.errors import as_option, worded
from unetseg.pictures import writing
from unetseg.text import show


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unetseg.reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(name=show, number=number, interval=interval, count="{:,}".format)
    environment.filters["options"] = functools.partial(worded, wording=as_option)
    return environment


def render(template: str, title: str, **contents: Any) -> bytes:
    """Return a page in UTF-8.

    Every value is escaped. The filter ``name`` makes characters visible that are not printable:
    they could turn or hide the text around them.

    Args:
        template: Name of a file in ``templates/``.
        title: Title of the window.
        **contents: The values that the template names; a missing one is an error.
    """
    text = _environment().get_template(template).render(title=title, **contents)
    return text.encode("utf-8", "backslashreplace")


def number(value: float | None) -> str:
    """Return a fraction with three decimals; "-" where it is not defined."""
    return "-" if value is None else f"{value:.3f}"


def interval(bounds: tuple[float, float] | None, between: str = "–") -> str:
    """Return the ends of an interval with three decimals; "-" where there is none."""
    return "-" if bounds is None else f"{bounds[0]:.3f}{between}{bounds[1]:.3f}"


def picture_uri(picture: NDArray[np.uint8], lossy: bool = True) -> str:
    """Return a picture ``(H, W, 3)`` uint8 as a data URI, JPEG where ``lossy``, else PNG."""
    data = base64.b64encode(writing.encode_picture(picture, lossy)).decode()
    return f"data:image/{'jpeg' if lossy else 'png'};base64,{data}"
