"""The events for TensorBoard where it is installed; where it is not, nothing at all."""

import signal
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

import unetseg
from tests.support import NAMES, QUICK
from unetseg.errors import Interrupted
from unetseg.progress import Progress
from unetseg.training.artefacts import TensorBoard


class Writer:
    """The calls of `SummaryWriter`; the part of it that unetseg uses."""

    made: "list[Writer]"

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step = folder, purge_step
        self.scalars, self.images, self.closed = [], [], False
        Writer.made.append(self)

    def add_scalar(self, tag, value, step):
        assert not self.closed
        self.scalars.append((tag, step, value))

    def add_image(self, tag, picture, step, dataformats):
        assert dataformats == "HWC"
        self.images.append((tag, step, picture))

    def close(self):
        self.closed = True


@pytest.fixture
def writers(monkeypatch):
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "made", [], raising=False)
    return Writer.made


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def test_nothing_is_written_and_nothing_said_where_it_is_not_installed(without, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        board = TensorBoard(tmp_path / "events", 0)
        board.add_row({"epoch": 1, "lr": 0.1})
        board.close()
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_it_leaves_no_folder(home, without):
    unetseg.train(run="n", **{**QUICK, "epochs": 1})
    assert not Path("runs/n/events").exists()


def test_a_run_writes_its_scores_by_epoch_and_pictures_at_validations(home, writers):
    unetseg.train(run="e", **{**QUICK, "epochs": 3, "validate": 2})
    (writer,) = writers
    assert Path(writer.folder) == Path("runs/e/events")
    assert writer.purge_step == 1
    assert writer.closed
    steps = {}
    for tag, step, _ in writer.scalars:
        steps.setdefault(tag, []).append(step)
    whole = {tag: [1, 2, 3] for tag in ("loss/train", "lr", "patches a second")}
    scored = {"loss/held-out", "IoU/mean", *(f"IoU/class {name}" for name in NAMES)}
    assert steps == whole | {tag: [2, 3] for tag in scored}
    assert [step for _, step, _ in writer.images] == [2, 3]
    last = unetseg.Model(["e"]).card.scores
    assert writer.scalars[-1] == (f"IoU/class {NAMES[-1]}", 3, last["iou"][NAMES[-1]])
    (_, _, picture) = writer.images[-1]
    assert picture.dtype == np.uint8
    assert picture.shape[0] >= 3 * 64  # a row for each of 3 held-out images
    assert picture.shape[1] >= 3 * 56  # image, truth, prediction


def test_a_resumed_run_takes_the_place_of_what_was_not_saved(home, writers):
    def stop(record):  # in the second epoch, after the third step of five
        if isinstance(record, Progress) and record.stage == "training" and record.done == 60:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        unetseg.train(run="e", **{**QUICK, "epochs": 3}, on_progress=stop)
    unetseg.train(run="e", resume=True)
    first, second = writers
    assert first.closed
    assert {step for _, step, _ in first.scalars} == {1}
    assert second.purge_step == 2
    assert {step for _, step, _ in second.scalars} == {2, 3}
