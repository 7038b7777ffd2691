"""The objects of a report: scores with intervals, and outlines that say what has no pair."""

import re
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

import unetseg
from unetseg import SynthSettings
from unetseg.cli.app import main
from unetseg.pictures import drawing
from unetseg.progress import silent
from unetseg.reports.object_part import object_part

SHAPE = (90, 110)


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """Return a folder of touching ellipses, and write masks to score: one object is missing."""
    monkeypatch.chdir(tmp_path)
    settings = SynthSettings(touching=True, height=SHAPE[0], width=SHAPE[1])
    folder, _ = unetseg.synthesize("data", n=4, n_test=1, settings=settings)
    shutil.copytree(folder / "masks", "made")
    numbers = tifffile.imread(folder / "objects/0001.tif")
    biggest = np.bincount(numbers[numbers > 0]).argmax()
    picture = Image.open("made/0001.png")
    pixels = np.array(picture)
    pixels[numbers == biggest] = 0
    changed = Image.fromarray(pixels)
    changed.putpalette(picture.getpalette())
    changed.save("made/0001.png")
    return folder, biggest


def test_the_worst_median_and_best_image_are_shown_with_what_has_no_pair(cells):
    folder, _ = cells
    found = unetseg.evaluate(folder, predictions="made", objects="all")
    counted = found.objects
    part = object_part(found, counted, silent)
    (row,) = part["rows"]
    assert (row["name"], row["predicted"]) == ("ellipse", row["true"] - 1)
    assert [value for value, _ in row["scores"]] == [
        counted.panoptic_quality["ellipse"],
        counted.f1["ellipse"],
        counted.count_error["ellipse"],
    ]
    assert part["examples"][0]["name"] == "0001"
    assert [len(example["pictures"]) for example in part["examples"]] == [3, 3, 3]
    assert part["examples"][0]["value"] < 1 == part["examples"][2]["value"]


def test_a_missed_object_is_outlined_in_its_colour():
    numbers = np.zeros((40, 40), np.int32)
    numbers[2:18, 2:18], numbers[20:38, 20:38] = 1, 2
    grey = np.full((40, 40, 3), 100, np.uint8)
    picture = drawing.outline_objects(grey, numbers, numbers == 2, "#0072b2")
    assert picture[2, 10].tolist() == [255, 255, 255]
    assert picture[20, 30].tolist() == picture[21, 30].tolist() == [0, 0x72, 0xB2]
    assert picture[19, 30].tolist() == [100, 100, 100]  # outlines lie inside
    assert (picture[5:15, 5:15] > 150).any()  # its number


def test_evaluate_writes_a_page_with_its_objects(cells):
    folder, _ = cells
    words = ["evaluate", str(folder), "--predictions", "made", "--objects", "all"]
    assert main([*words, "--html", "r.html"]) == 0
    with open("r.html", encoding="utf-8") as file:
        page = file.read()
    section = re.search(r'<section id="objects">.*?</section>', page, re.S)
    assert section
    assert section[0].count("<img") == 9
    assert 'href="#objects"' in page
    assert main([*words[:4], "--html", "plain.html"]) == 0
    with open("plain.html", encoding="utf-8") as file:
        assert 'id="objects"' not in file.read()
