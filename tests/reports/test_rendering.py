"""How pages are made: from files that are installed, with every value escaped."""

import re
from importlib import resources

import jinja2
import pytest

from unetseg.reports import rendering

TEMPLATES = resources.files("unetseg.reports") / "templates"


def test_templates_are_part_of_the_package():
    names = {path.name for path in TEMPLATES.iterdir()}
    assert {"page.html", "macros.html", "style.css", "score.html", "suspects.html"} <= names


def test_templates_hold_no_script_and_load_nothing():
    for path in TEMPLATES.iterdir():
        text = path.read_text("utf-8")
        assert not re.search(r"<script|<link|https?://|@import|url\(", text)


def test_every_value_is_escaped():
    text = rendering.render(
        "suspects.html", "<b>", cards=[], subject="<script>", classes=[], unpainted=None
    ).decode()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<title>&lt;b&gt;</title>" in text


def test_a_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="subject"):
        rendering.render("suspects.html", "title", cards=[], classes=[], unpainted=None)
