"""The HTML report: whole, readable alone, true to the scores, safe with any name."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.support import NAMES, draw
from unetseg.classes import ClassTable, SegmentationClass
from unetseg.errors import InputError
from unetseg.reports import score_report
from unetseg.reports.score_report import Report, write_page
from unetseg.scoring.metrics import ScoredImage, confusion, scores

TABLE = ClassTable(
    tuple(
        SegmentationClass(name, i, colour)
        for i, (name, colour) in enumerate(
            (("ground", "#000000"), ("square", "#e69f00"), ("stripe", "#56b4e9"))
        )
    )
)
HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted\" 'it' & <b>",
    "x" * 200,
    "صورة",
    "\x1b[31mred\u202egnp",
    "{{ 7 * 7 }}{% for %}",
]
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """The content of a page; fails where tags do not match."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.pieces = [], [], []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.pieces)).replace(" ,", ",").replace(" .", ".")
        self.ids = {a["id"] for _, a in self.tags if "id" in a}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.pieces.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def make(count=9, table=TABLE, names=None, shape=(64, 56), **fields):
    names = names or [f"im{k}" for k in range(count)]
    cases = []
    for k, name in enumerate(names):
        image, truth = draw(k, shape)
        prediction = truth.copy()
        prediction[: 3 * k + 1, :20] = k % 3
        cases.append(ScoredImage(name, image, truth, prediction))
    matrices = [confusion(c.truth, c.prediction, len(table.classes)) for c in cases]
    found = scores(np.stack(matrices), names, table.names)
    rows = [
        {"epoch": str(e), "seconds": str(9 * e), "train_loss": str(1 / e), "val_mean_iou": ""}
        for e in range(1, 9)
    ]
    rows[-1]["val_mean_iou"] = "0.9"
    fields = {
        "baselines": [SimpleNamespace(name="random forest", scores=found)],
        "verdict": "the U-Net does not beat the random forest",
        "histories": {"fold-1": rows, "fold-2": rows},
        "suspects": [
            SimpleNamespace(name=names[0], score=4.0, box=(0, 0, 9, 20), text="looks moved")
        ],
        "calibration": SimpleNamespace(
            temperature=1.5,
            error=0.0125,
            confidence=(0.0,) * 9 + (0.97,),
            accuracy=(0.0,) * 9 + (0.95,),
            pixels=(0,) * 9 + (500,),
        ),
        "settings": {"epochs": 100, "from": None},
        "data": {"folder": "data/train"},
        "versions": {"torch": "2.13.0"},
        "lines": ["unetseg predict NEW"],
    } | fields
    return Report("Nine images", "one model", found, table, cases.__getitem__, **fields)


BARE = {
    "baselines": (),
    "verdict": "",
    "histories": {},
    "suspects": (),
    "calibration": None,
    "settings": {},
    "data": {},
    "versions": {},
    "lines": (),
}
OPTIONAL = {"suspects", "training", "confidence", "made-from", "next"}


def test_a_report_holds_all_sections_and_loads_nothing(tmp_path):
    write_page(tmp_path / "r.html", make())
    page = Page(tmp_path / "r.html")
    assert {"score", "classes", "images", "confusion"} | OPTIONAL <= page.ids
    assert {a["href"].removeprefix("#") for a in page.all("a")} <= page.ids
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "use", "image"}
    assert "viewport" in [m.get("name") for m in page.all("meta")]


def test_numbers_are_those_of_the_scores(tmp_path):
    report = make(12)
    found = report.scores
    write_page(tmp_path / "r.html", report)
    page = Page(tmp_path / "r.html")
    low, high = found.mean_iou_ci95
    assert f"Mean IoU {found.mean_iou:.3f} {low:.3f} to {high:.3f}" in page.text
    assert "95 % interval over 12 images" in page.text
    for name in found.classes:
        low, high = found.iou_ci95[name]
        numbers = [found.dice[name], found.precision[name], found.recall[name]]
        row = [f"{found.iou[name]:.3f}", f"{low:.3f}–{high:.3f}", *(f"{n:.3f}" for n in numbers)]
        assert re.search(f"{name} .{{0,12}}{' '.join(row)} {found.pixels[name]:,}", page.text)
    shares = found.confusion / found.confusion.sum(axis=1, keepdims=True)
    cells = [f"{100 * v:.1f}" for v in shares.ravel() if 0.001 <= v < 1]
    assert all(f" {cell} " in page.text for cell in cells)
    weakest = min(found.iou, key=found.iou.get)
    assert page.text.count("weakest") == 2
    assert re.search(f"weakest class, {weakest} {found.iou[weakest]:.3f}", page.text)
    for image in found.to_dict()["per_image"]:
        assert f"{image['name']}: {image['mean_iou']:.3f}" in page.text
    assert "1.2 percentage points" in page.text
    assert "The U-Net does not beat the random forest" in page.text


def test_cells_of_the_confusion_are_the_darker_the_more_pixels_they_hold(tmp_path):
    write_page(tmp_path / "r.html", make(9))
    found = re.findall(
        r'style="--shade: ([\d.]+)"\s+title="([\d,]+) pixels of (\w+)',
        (tmp_path / "r.html").read_text("utf-8"),
    )
    assert len(found) == 9
    for name in NAMES:
        row = [(int(n.replace(",", "")), float(shade)) for shade, n, true in found if true == name]
        assert sorted(row) == sorted(row, key=lambda cell: cell[1])
        assert max(row)[1] > 0.5


def test_intervals_over_groups_say_so(tmp_path):
    report = make(12)
    groups = tuple(n[-1] for n in report.scores.names)
    found = scores(report.scores.matrices, report.scores.names, TABLE.names, groups)
    write_page(tmp_path / "r.html", dataclasses.replace(report, scores=found))
    assert "over 10 groups" in Page(tmp_path / "r.html").text


def test_a_report_of_scores_alone_leaves_out_the_rest(tmp_path):
    report = make(**BARE)
    nothing = dict.fromkeys(TABLE.names)
    bare = dataclasses.replace(report.scores, mean_iou_ci95=None, iou_ci95=nothing)
    write_page(tmp_path / "r.html", dataclasses.replace(report, scores=bare))
    page = Page(tmp_path / "r.html")
    assert not page.ids & OPTIONAL
    assert "too few images for an interval" in page.text
    assert {a["href"] for a in page.all("a")} == {"#classes", "#images", "#confusion"}


def test_what_is_not_defined_is_a_dash(tmp_path):
    table = ClassTable((*TABLE.classes, SegmentationClass("never", 3, "#009e73")))
    rows = [{"seconds": "nan", "train_loss": "inf"}, {"seconds": "", "train_loss": "x"}, {}]
    write_page(tmp_path / "r.html", make(table=table, histories={"a": rows}))
    page = Page(tmp_path / "r.html")
    assert "left out of the mean: never." in page.text
    assert re.search(r"never - - - - - 0 ", page.text)
    assert re.search(r"never - - - - ", page.text)  # in the confusion
    assert "training" not in page.ids
    assert not re.search(r"\b(nan|inf|None)\b", page.text, re.IGNORECASE)


def test_images_without_a_pixel_that_counts_are_named_by_number(tmp_path):
    report = make(5, **BARE)
    matrices = report.scores.matrices.copy()
    matrices[2] = 0
    found = scores(matrices, report.scores.names, TABLE.names)
    write_page(tmp_path / "some.html", dataclasses.replace(report, scores=found))
    page = Page(tmp_path / "some.html")
    assert "Without a pixel that counts, and left out: 1." in page.text
    assert len(page.all("img")) == 4 * 4
    found = scores(matrices * 0, report.scores.names, TABLE.names)
    write_page(tmp_path / "none.html", dataclasses.replace(report, scores=found))
    page = Page(tmp_path / "none.html")
    assert "Nothing could be scored" in page.text
    assert not page.all("img")


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (2, 2), (7, 7), (8, 7), (100, 7)])
def test_worst_middle_and_best_images_are_shown_once(tmp_path, count, shown):
    report = make(count, shape=(40, 40), **BARE)
    write_page(tmp_path / "r.html", report)
    page = Page(tmp_path / "r.html")
    assert len(page.all("figure")) == shown
    values = sorted(i["mean_iou"] for i in report.scores.to_dict()["per_image"])
    captions = re.findall(r"<figcaption><b>([\d.]+)</b>", page.source)
    chosen = [values[k] for k in dict(score_report._chosen(count))]
    assert captions == [f"{v:.3f}" for v in chosen]
    assert chosen[0] == values[0]
    assert chosen[-1] == values[-1]


def test_names_are_shown_and_never_obeyed(tmp_path):
    table = ClassTable(tuple(SegmentationClass(n, i, "#112233") for i, n in enumerate(HOSTILE[:3])))
    texts = {n: n for n in HOSTILE}
    report = make(6, table, HOSTILE, settings=texts, data=texts, versions=texts, lines=HOSTILE)
    rows = report.histories["fold-1"]
    suspects = [SimpleNamespace(name=n, score=1.0, box=(0, 0, 5, 5), text=n) for n in HOSTILE]
    baselines = [SimpleNamespace(name=n, scores=report.scores) for n in HOSTILE]
    report = dataclasses.replace(
        report,
        title=HOSTILE[0],
        subject=HOSTILE[5],
        suspects=suspects,
        histories=dict.fromkeys(HOSTILE, rows),
        baselines=baselines,
        verdict=HOSTILE[0],
    )
    write_page(tmp_path / "r.html", report)
    page = Page(tmp_path / "r.html")
    assert "script" not in {tag for tag, _ in page.tags}
    assert len(page.all("b")) == 12  # ours, one a picture
    assert not any(k.startswith("on") for _, a in page.tags for k in a)
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[5]):
        assert page.text.count(name) >= 6
    assert r"\x1b[31mred\u202egnp" in page.text
    assert not set("\x1b\u202e") & set(page.source)


def pictures(page):
    for attrs in page.all("img"):
        kind, data = attrs["src"].removeprefix("data:image/").split(";base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.format.lower() == kind
        assert picture.size == (int(attrs["width"]), int(attrs["height"]))
        yield attrs["alt"], picture


def test_small_pictures_are_enlarged_and_error_maps_exact(tmp_path):
    report = make(1, **BARE)
    write_page(tmp_path / "r.html", report)
    found = dict(pictures(Page(tmp_path / "r.html")))
    assert list(found) == ["image", "true mask", "prediction", "errors"]
    assert {p.size for p in found.values()} == {(56 * 4, 64 * 4)}  # 4 x 64 is 240 and more
    case, errors = report.scored_image(0), np.asarray(found["errors"])[::4, ::4]
    painted = (errors != errors[..., :1]).any(axis=2)
    np.testing.assert_array_equal(painted, case.truth != case.prediction)


def test_large_images_are_cut_to_the_errors_or_shrunk(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (900, 1300, 3), np.uint8)
    truth = np.zeros((900, 1300), np.uint8)
    cluster, spread = truth.copy(), truth.copy()
    cluster[700:720, 1000:1100] = 1
    cluster[0, :100] = 2
    spread[::50, ::50] = 1
    cases = [ScoredImage(n, image, truth, p) for n, p in (("cluster", cluster), ("spread", spread))]
    found = scores(
        np.stack([confusion(c.truth, c.prediction, 3) for c in cases]), ["cluster", "spread"],
        TABLE.names,
    )  # fmt: skip
    suspect = SimpleNamespace(name="cluster", score=5.0, box=(700, 1000, 20, 100), text="odd")
    write_page(
        tmp_path / "r.html", Report("t", "s", found, TABLE, cases.__getitem__, suspects=[suspect])
    )
    page = Page(tmp_path / "r.html")
    assert re.search(r"cluster, rows \d+ to \d+, columns \d+ to \d+ of 900 x 1300: 95 %", page.text)
    assert "spread, 900 x 1300, shrunk to 37 %" in page.text
    assert all(max(p.size) <= 480 for _, p in pictures(page))
    # 300 rows around row 710 and columns around 1050, of which the box takes 20 and 100
    assert "odd (rows 560 to 859, columns 900 to 1199 of 900 x 1300)" in page.text
    (box,) = {a["style"] for a in page.all("i") if "top:" in a.get("style", "")}
    assert re.findall(r"[\d.]+%", box) == ["46.67%", "33.33%", "6.67%", "33.33%"]


def test_a_report_of_a_hundred_images_stays_small(tmp_path):
    names = [f"im{k}" for k in range(100)]
    suspects = [
        SimpleNamespace(name=n, score=1.0, box=(100, 100, 50, 50), text="odd") for n in names
    ]
    report = make(names=names, shape=(240, 320), suspects=suspects)
    write_page(tmp_path / "r.html", report)
    assert (tmp_path / "r.html").stat().st_size < 5_000_000
    assert f"{score_report._SUSPECTS} of 100 are shown" in Page(tmp_path / "r.html").text


def test_a_file_is_replaced_only_where_that_is_wanted(tmp_path):
    path = tmp_path / "r.html"
    path.write_text("mine")
    with pytest.raises(InputError, match="already exists; choose another name, or overwrite=True"):
        write_page(path, make(1, **BARE))
    assert path.read_text() == "mine"
    write_page(path, make(1, **BARE), overwrite=True)
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_an_image_that_cannot_be_read_leaves_no_file(tmp_path):
    def gone(k):
        raise InputError(k, "not found")

    with pytest.raises(InputError, match="not found"):
        write_page(tmp_path / "r.html", dataclasses.replace(make(1, **BARE), scored_image=gone))
    assert not list(tmp_path.iterdir())


def test_progress_names_the_images_drawn(tmp_path):
    seen = []
    write_page(tmp_path / "r.html", make(2), on_progress=seen.append)
    assert [(p.done, p.total, p.unit) for p in seen] == [
        (1, 2, "images"),
        (2, 2, "images"),
        (1, 1, "suspects"),
    ]
