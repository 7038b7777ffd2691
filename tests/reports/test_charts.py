"""Charts: numbers on axes, shapes where their numbers are, text that cannot break out."""

import re
import xml.etree.ElementTree as ET

import pytest

from unetseg.reports import charts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.6, 1, [0.6, 0.7, 0.8, 0.9, 1]),
        (0, 1.13, [0, 0.5, 1]),
        (0, 47, [0, 10, 20, 30, 40]),
        (0, 3e-5, [0, 1e-5, 2e-5, 3e-5]),
        (2, 2, [2]),
    ],
)
def test_ticks_are_round_and_few(low, high, expected):
    assert charts.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("exponent", range(-4, 5))
def test_ticks_never_crowd_and_never_vanish(exponent):
    for k in range(1, 100):
        found = charts.ticks(0, k * 10.0**exponent)
        assert 2 <= len(found) <= 6
        assert 0 <= min(found) <= max(found) <= k * 10.0**exponent * (1 + 1e-9)


def parsed(svg):
    return ET.fromstring(str(svg))


def test_bars_end_at_their_value_and_lines_at_their_interval():
    svg = parsed(charts.interval_bar(0.25, (0.2, 0.5)))
    assert [r.get("width") for r in svg.iter("rect")] == ["100%", "25.00%"]
    assert {(x.get("x1"), x.get("x2")) for x in svg.iter("line")} == {
        ("20.00%", "50.00%"),
        ("20.00%", "20.00%"),
        ("50.00%", "50.00%"),
    }
    assert not list(parsed(charts.interval_bar(0.25, None)).iter("line"))
    assert len(list(parsed(charts.interval_bar(None, None)).iter("rect"))) == 1


def test_every_image_has_a_dot_and_no_two_share_a_place():
    values = [(f"<{k}>", 0.5 + k % 7 / 14) for k in range(300)]
    dots = list(parsed(charts.strip_plot(values, 0.75)).iter("circle"))
    assert sorted(d.find("title").text for d in dots) == sorted(f"{n}: {v:.3f}" for n, v in values)
    assert len({(d.get("cx"), d.get("cy")) for d in dots}) == 300


def test_dots_stand_at_their_value():
    svg = parsed(charts.strip_plot([("a", 0.6), ("b", 0.8), ("c", 1.0)], 0.8))
    assert [c.get("cx") for c in svg.iter("circle")] == ["0.00%", "50.00%", "100.00%"]
    (mark,) = (x for x in svg.iter("line") if x.get("class") == "mark")
    assert mark.get("x1") == "50.00%"


def test_lines_pass_through_their_points():
    lines = [charts.Line("a", ((0, 1.0), (5, 0.5), (10, 0.0))), charts.Line("b", ((10, 0.25),))]
    svg = parsed(charts.line_plot([*lines, charts.Line("none", ())], "loss", "minutes"))
    (line,) = svg.iter("polyline")
    assert line.get("points") == "0.00,0.00 50.00,50.00 100.00,100.00"
    (dot,) = svg.iter("circle")
    assert (dot.get("cx"), dot.get("cy")) == ("100.00%", "75.00%")
    assert "minutes" in [t.text for t in svg.iter("text")]


def test_long_lines_are_thinned_and_keep_both_ends():
    points = tuple((float(x), x % 7 + 1.0) for x in range(10_001))
    (line,) = parsed(charts.line_plot([charts.Line("a", points)], "y", "x")).iter("polyline")
    drawn = line.get("points").split()
    assert 250 < len(drawn) < 350
    assert (drawn[0].split(",")[0], drawn[-1].split(",")[0]) == ("0.00", "100.00")


def test_lines_beyond_the_colours_are_dashed():
    lines = [charts.Line(str(k), ((0, 0.0), (1, 1.0))) for k in range(8)]
    classes = [x.get("class") for x in parsed(charts.line_plot(lines, "y", "x")).iter("polyline")]
    assert len(set(classes)) == 8
    assert classes[6:] == ["series-0 dashed", "series-1 dashed"]


def test_empty_bins_of_confidence_are_left_out():
    svg = parsed(charts.reliability_plot([(0.0, 0.0, 0), (0.55, 0.5, 10), (0.95, 0.9, 1000)]))
    dots = [(c.get("cx"), c.get("cy")) for c in svg.iter("circle")]
    assert dots == [("55.00%", "50.00%"), ("95.00%", "10.00%")]


def test_names_cannot_break_out_of_a_chart():
    name = "</title><script>alert('x')</script>\""
    line = charts.Line(name, ((0, 0.0), (1, 1.0)))
    for svg in (
        charts.strip_plot([(name, 0.5)], None),
        charts.line_plot([line], name, name),
        charts.line_plot([charts.Line(name, ((1, 1.0),))], name, name),
    ):
        assert not re.search("<script", svg)
        assert name in "".join(parsed(svg).itertext())
