"""Held-out images as a training scores them, and as `validation.png` shows them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unetseg
from tests.support import QUICK, read, scribble, write_set
from unetseg.dataset.store import open_store
from unetseg.network.unet import build_compact
from unetseg.pictures import drawing
from unetseg.prediction.segmenter import Segmenter
from unetseg.progress import silent
from unetseg.training import artefacts
from unetseg.training.validation import validate


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


def test_small_held_out_images_are_scored_in_batches_as_each_alone(empty, monkeypatch):
    write_set("set", 12, shape=(24, 30))
    unetseg.build_store("set", "p.h5", unetseg.PatchSettings(size=16, per_image=1, val=0.75))
    torch.manual_seed(0)
    network, together, counts = build_compact(1, 3, width=4, depth=2), Segmenter.together, []

    def counted(self, images):
        counts.append(len(images))
        return together(self, images)

    def scored():
        counts.clear()
        return validate(open_store("p.h5"), network, torch.device("cpu"), silent, lambda: None)

    monkeypatch.setattr(Segmenter, "together", counted)
    found = scored()
    assert counts == [9]
    monkeypatch.setattr(Segmenter, "batches", lambda self, items, shape_of: ([k] for k in items))
    alone = scored()
    assert counts == [1] * 9
    np.testing.assert_array_equal(found.scores.matrices, alone.scores.matrices)
    assert found.loss == pytest.approx(alone.loss, abs=1e-6)
    assert (found.scores.matrices.sum((0, 1)) > 0).sum() > 1  # several classes are predicted
