"""The held-out images as `validation.png` shows them: truth and prediction."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unetseg
from tests.support import QUICK, read, scribble, write_set
from unetseg.pictures import drawing
from unetseg.training import artefacts


@pytest.fixture
def shown(empty, monkeypatch):
    """Images, truths and predictions of which the last picture of a training was drawn."""
    seen, draw = [], drawing.validation_sheet

    def keep(rows, classes):
        seen[:] = rows
        return draw(rows, classes)

    monkeypatch.setattr(artefacts.drawing, "validation_sheet", keep)
    return seen


def train(folder):
    """Train for a moment on a folder of images and masks."""
    cut = unetseg.PatchSettings(size=32, per_image=4, val=0.25)
    unetseg.train(folder, run="r", patches=cut, ignore=255, **{**QUICK, "epochs": 1})


def test_ignored_areas_are_hatched_in_truth_and_prediction_alike(shown):
    train(write_set("set", 8, ignored=255))
    assert len(shown) == 2
    for _, truth, predicted in shown:
        np.testing.assert_array_equal(truth[:5], 255)
        np.testing.assert_array_equal(predicted == 255, truth == 255)
    assert Path("runs/r/validation.png").is_file()


def test_under_strokes_the_whole_prediction_is_shown(shown):
    write_set("set", 8)
    for path in Path("set/masks").iterdir():
        Image.fromarray(scribble(read(path))).save(path)
    train("set")
    for _, truth, predicted in shown:
        assert (truth == 255).mean() > 0.5
        assert (predicted != 255).all()
