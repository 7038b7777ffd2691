"""Files that commit c3df6f9 wrote: later versions read them, and go on with its run."""

import csv
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import unetseg
from unetseg.dataset.store import open_store
from unetseg.prediction.model_file import load_model, read_card
from unetseg.settings import PredictSettings
from unetseg.training import validation

OLD = Path(__file__).parent / "old"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the old files as the current folder, because a checkpoint names its store."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")


def test_an_old_model_predicts_what_it_predicted(old):
    card = read_card("runs/whole/model.safetensors")
    assert (card.network, card.channels, card.patch_size) == ("compact", 1, 16)
    assert (card.classes.names, card.finished) == (("ground", "square", "stripe"), True)
    load_model("runs/whole/model.safetensors")  # compares its checksum
    unetseg.predict(["image.png"], model=["whole"], settings=PredictSettings(mode="blend"))
    now, then = (np.array(Image.open(p)) for p in ("predictions/image.png", "prediction.png"))
    assert (now == then).mean() > 0.998  # two pixels, for the rounding of another processor


def test_an_old_store_has_the_content_that_it_had(old):
    opened = open_store("patches.h5")
    assert opened.content_hash == read_card("runs/whole/model.safetensors").store_hash
    assert opened.content_hash.startswith("6bbeea23d680a40a")
    assert opened.images.shape == (8, *opened.masks.shape[1:], 1)
    assert opened.held_out_count == 2


def test_an_old_interrupted_run_goes_on_to_the_weights_of_the_one_not_interrupted(old, monkeypatch):
    then = partial(PredictSettings, mode="blend")  # how held-out images were predicted then
    monkeypatch.setattr(validation, "PredictSettings", then)
    unetseg.train(run="stopped", resume=True)
    rows, whole = (
        list(csv.DictReader(Path(f"runs/{run}/history.csv").read_text().splitlines()))
        for run in ("stopped", "whole")
    )
    for name in ("epoch", "step", "patches", "lr", "train_loss", "val_loss", "val_mean_iou"):
        for one, other in zip(rows, whole, strict=True):
            wanted = other[name] and pytest.approx(float(other[name]), rel=1e-3)
            assert (one[name] and float(one[name])) == wanted, (name, other["epoch"])
    weights, expected = (load_file(f"runs/{run}/model.safetensors") for run in ("stopped", "whole"))
    assert weights.keys() == expected.keys()
    for name, values in expected.items():  # to the bit on the processor that made them
        np.testing.assert_allclose(weights[name], values, rtol=1e-3, atol=1e-4, err_msg=name)
