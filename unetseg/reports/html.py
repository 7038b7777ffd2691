"""How our HTML pages are made: one file, no script, nothing loaded, every text escaped."""

import base64
import functools
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from unetseg.errors import as_option, worded
from unetseg.pictures import writing
from unetseg.text import show

# Colours have one accent, and one for what is wrong; those of lines (s0 to s5) are told apart on
# white and on black. A chart's places are percentages, so it needs no size but its height.
_STYLE = """
  :root { color-scheme: light dark; --ink: #1c2126; --soft: #5b6570; --rule: #e3e6e9;
    --page: #fff; --panel: #f5f7f8; --accent: #0b6e8f; --error: #c4552d;
    --s0: #0b6e8f; --s1: #d55e00; --s2: #00835f; --s3: #a3478a; --s4: #9a7500; --s5: #5b6570 }
  @media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #9aa4ae; --rule: #343b42;
    --page: #14181b; --panel: #1d2226; --accent: #5fb8d8; --error: #e98a63;
    --s0: #5fb8d8; --s1: #f0914d; --s2: #3fbf97; --s3: #d98cc4; --s4: #d9b53c; --s5: #9aa4ae } }
  * { box-sizing: border-box }
  html { -webkit-text-size-adjust: 100%; text-size-adjust: 100% }
  body { margin: 0 auto; max-width: 68rem; padding: 2.5rem 1.5rem 4rem; background: var(--page);
    color: var(--ink); overflow-wrap: anywhere; font: 16px/1.55 -apple-system, "Segoe UI", Roboto,
    "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif }
  h1 { font-size: 1.75rem; line-height: 1.25; font-weight: 650; margin: 0 0 .4rem }
  h2 { font-size: 1.2rem; font-weight: 650; margin: 0 0 .4rem }
  h3 { font-size: .95rem; font-weight: 600; margin: 0 0 .6rem }
  p { margin: 0 0 .8rem; max-width: 44rem }
  section { margin-top: 3.5rem }
  a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .25em }
  .soft, figcaption { color: var(--soft) } .small, figcaption { font-size: .875rem }
  nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin-top: 2rem; padding: .6rem 0;
    border: solid var(--rule); border-width: 1px 0; font-size: .9rem }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums }
  th { font-weight: 500; color: var(--soft); font-size: .85rem; text-align: left }
  td, th { padding: .4rem .9rem .4rem 0 } .n { text-align: right }
  td.n, td.range { white-space: nowrap }
  tbody tr { border-top: 1px solid var(--rule) }
  tr > :last-child { padding-right: 0 }

  svg { display: block; width: 100%; overflow: visible }
  .track { fill: var(--rule) } .bar { fill: var(--accent) }
  .whisker { stroke: var(--ink); stroke-width: 1.5 }
  .axis { stroke: var(--soft) } .grid { stroke: var(--rule) }
  .tick, .unit { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums }
  .mark { stroke: var(--ink); stroke-width: 1.5 }
  .ideal { stroke: var(--soft); stroke-dasharray: 4 4 }
  .dot { fill: var(--accent); stroke: var(--page) }
  polyline { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round;
    vector-effect: non-scaling-stroke } circle[class^=series] { fill: var(--c) }
  .series-0 { --c: var(--s0) } .series-1 { --c: var(--s1) } .series-2 { --c: var(--s2) }
  .series-3 { --c: var(--s3) } .series-4 { --c: var(--s4) } .series-5 { --c: var(--s5) }
  polyline.dashed { stroke-dasharray: 5 4 }
  .strip { margin: 1.2rem 1rem 2.2rem; width: calc(100% - 2rem) }
  .plot { margin: .8rem 1rem 3rem 2.6rem; width: calc(100% - 3.6rem) }
  .square { max-width: 280px }
  .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
    gap: 1rem 3rem; margin-top: 1.2rem }

  .key { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: 0 0 1.2rem;
    list-style: none; font-size: .875rem }
  .key.close { margin-bottom: .4rem }
  .key li { display: flex; align-items: baseline; gap: .45rem; min-width: 0 }
  .clamp { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
    overflow: hidden; min-width: 0; max-width: 17rem }
  .swatch { flex: none; display: inline-block; width: .85em; height: .85em; border-radius: 2px;
    box-shadow: 0 0 0 1px rgba(128, 128, 128, .55) }
  .stroke { flex: none; align-self: center; width: 1.3em; border-top: 2px solid var(--c) }
  .stroke.dashed { border-top-style: dashed }
  .tag { flex: none; font-size: .75rem; line-height: 1.5; padding: 0 .45em; border-radius: 3px;
    border: 1px solid var(--error); color: var(--error) }

  figure { margin: 0 0 2rem; break-inside: avoid } figcaption { margin-bottom: .5rem }
  figcaption b { color: var(--ink); font-weight: 600 }
  .pictures { display: flex; gap: .6rem } .pictures div { flex: 0 1 auto; min-width: 0 }
  .pictures img { display: block; max-width: 100%; max-height: 22rem; width: auto; height: auto;
    border-radius: 2px } .pictures p { margin: .2rem 0 0; font-size: .8rem; color: var(--soft) }
  .pictures .frame { position: relative; width: fit-content }
  .frame i { position: absolute; border: 2px solid #fff; border-radius: 2px;
    outline: 2px solid #000; min-width: 8px; min-height: 8px }
  .cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr));
    gap: .5rem 2.5rem }

  details { border-top: 1px solid var(--rule) }
  summary { cursor: pointer; padding: .6rem 0; font-weight: 500 }
  .pairs { margin-bottom: 1rem; font-size: .875rem }
  .pairs th { vertical-align: top; min-width: 6rem; max-width: 14rem }
  pre { background: var(--panel); padding: .9rem 1rem; margin: 0; border-radius: 4px;
    white-space: pre-wrap; font: .875rem/1.7 ui-monospace, Menlo, Consolas, "Liberation Mono",
    monospace }

  @media (max-width: 640px) {
    body { padding: 1.5rem 1rem 3rem } section { margin-top: 2.6rem } h1 { font-size: 1.4rem }
    .four { flex-wrap: wrap } .four > div { flex-basis: calc(50% - .3rem) }
    .three { gap: .4rem } .three > div { flex-basis: 33.3% }
  }
  @media print {
    body { max-width: none; padding: 0; font-size: 10pt } nav { display: none }
    section { margin-top: 1.6rem } .cards, .charts { grid-template-columns: 1fr 1fr }
    h2, h3 { break-after: avoid } tr { break-inside: avoid }
    * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
    details::details-content { content-visibility: visible; block-size: auto }
  }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="unetseg">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title|name }}</title>
<style>{{ style }}</style>
</head>
<body>
{{ body }}
</body>
</html>
"""


def render(title: str, template: str, style: str = "", **contents: Any) -> bytes:
    """Return a page in UTF-8.

    Args:
        title: Of the window.
        template: The body, in Jinja2; every value is escaped, and the filter ``name`` makes visible
            what in a text is not printable, which could turn or hide what stands around it.
        style: CSS beside that of all pages; it comes from a module, never from a value.
        **contents: What the template names; a name that is missing is an error.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(name=show, number=number, interval=interval, count="{:,}".format)
    environment.filters["options"] = functools.partial(worded, wording=as_option)
    body = Markup(environment.from_string(template).render(**contents))
    page = environment.from_string(_PAGE)
    text = page.render(title=title, style=Markup(_STYLE + style), body=body)
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
