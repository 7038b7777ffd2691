"""Forecasts: which budgets are refused before anything is cut."""

import time
from pathlib import Path

import pytest
from PIL import Image

from tests.support import QUICK, read, scribble, write_set
from unetseg import InputError, cross_validate, synthesize, train
from unetseg.dataset import spreading
from unetseg.dataset.folder import LabelledFolder
from unetseg.dataset.naming import Pair
from unetseg.features.extraction import Extractor
from unetseg.features.head import Head
from unetseg.prediction.run_folder import RunFolder
from unetseg.progress import Progress
from unetseg.settings import PatchSettings, TrainSettings
from unetseg.training.forecast import check_budget, check_spreading
from unetseg.training.validation import Rehearsal


@pytest.fixture
def set_of_images(tmp_path):
    synthesize(tmp_path, n=10, n_test=0)
    return tmp_path / "train"


def check(folder, budget, monkeypatch, windows, readings=(0.0,)):
    """Check a budget on a machine that takes so many seconds, one after the other.

    Args:
        windows: The seconds in which it predicts windows.
        readings: The seconds in which it reads an image.

    Returns:
        The seconds that it took by the clock of that machine.
    """
    now, readings, read = [0.0], list(readings), Pair.read_image

    def read_slowly(*arguments):
        now[0] += readings.pop(0) if len(readings) > 1 else readings[0]
        return read(*arguments)

    def seconds(_):
        window = windows.pop(0) if len(windows) > 1 else windows[0]
        now[0] += 4 * window
        return window

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Rehearsal, "seconds", seconds)
    monkeypatch.setattr(Pair, "read_image", read_slowly)
    settings = TrainSettings(budget=budget, device="cpu", network="compact")
    try:
        check_budget(folder, PatchSettings(), settings, started=0.0)
    finally:
        monkeypatch.undo()
    return now[0]


def test_a_bad_moment_does_not_refuse_a_budget(set_of_images, monkeypatch):
    assert check(set_of_images, 30.0, monkeypatch, [0.4, 0.005]) < 2


def test_an_image_that_is_read_slowly_once_does_not_refuse_a_budget(set_of_images, monkeypatch):
    slow_once, slow = [3.0, 0.01], [3.0]  # each of 10 images is read 5 times
    assert check(set_of_images, 30.0, monkeypatch, [0.005], slow_once) < 5
    with pytest.raises(InputError, match="leaves no time to train"):
        check(set_of_images, 30.0, monkeypatch, [0.005], slow)


def test_a_hopeless_budget_is_refused_after_a_few_looks(set_of_images, monkeypatch):
    windows = [1.0] * 20
    with pytest.raises(InputError) as error:
        check(set_of_images, 30.0, monkeypatch, windows)
    assert error.value.argument == "budget"
    assert len(windows) > 15


@pytest.fixture
def strokes(empty):
    """Six images of 64 x 56 pixels with strokes, of which 3,584 each can be labelled."""
    write_set("set", 6)
    for number, path in enumerate(sorted(Path("set/masks").iterdir())):
        Image.fromarray(scribble(read(path), number)).save(path)
    return Path("set")


def spreading_in(features, classes):
    """Return the method of a rehearsal on a machine that spreads labels in so many seconds."""
    pixels = 64 * 56
    return lambda _: (features / pixels, classes / pixels)


def check_strokes(folder, budget, monkeypatch, divisions, spread=True):
    """Check a budget where features of an image take 10 s, and a class 1 s, and all else nothing.

    Only the second that each network costs beside its training is added.
    """
    monkeypatch.setattr(time, "monotonic", iter(range(0, 10**6)).__next__)
    monkeypatch.setattr(Rehearsal, "seconds", lambda _: 0.0)
    monkeypatch.setattr(spreading.Rehearsal, "seconds", spreading_in(10.0, 1.0))
    monkeypatch.setattr("unetseg.training.forecast._seconds_to_read", lambda *_: 0.0)
    settings = TrainSettings(budget=budget, device="cpu", network="compact")
    labelled = LabelledFolder(folder, PatchSettings(spread=spread), ignored=(255,))
    check_spreading(labelled, divisions, settings, started=time.monotonic() + 1)


TRAIN, VAL = ["train"], ["val"]


@pytest.mark.parametrize(
    ("divisions", "seconds"),
    [
        ([5 * TRAIN + VAL], 5 * 11 + 1),
        # Image 0 normalises the first two folds, so that features are computed twice.
        (
            [2 * TRAIN + 2 * VAL + 2 * TRAIN, 4 * TRAIN + 2 * VAL, 2 * VAL + 4 * TRAIN],
            6 * 10 + 4 * 10 + 12 + 3,
        ),
    ],
)
def test_the_time_to_spread_labels_counts(strokes, monkeypatch, divisions, seconds):
    check_strokes(strokes, seconds, monkeypatch, divisions)
    with pytest.raises(InputError, match="leaves no time to train") as error:
        check_strokes(strokes, seconds - 1, monkeypatch, divisions)
    assert error.value.argument == "budget"
    check_strokes(strokes, 5, monkeypatch, divisions, spread=False)


@pytest.mark.parametrize(
    "call",
    [lambda **how: train("set", **how), lambda **how: cross_validate("set", folds=2, **how)],
    ids=["train", "folds"],
)
def test_a_budget_that_spreading_uses_up_is_refused_before_it(strokes, monkeypatch, call):
    monkeypatch.setattr(spreading.Rehearsal, "seconds", spreading_in(1000.0, 0.0))
    settings = {name: value for name, value in QUICK.items() if name != "epochs"}
    stages = []
    with pytest.raises(InputError, match="budget: 10 min leaves no time to train") as error:
        call(
            budget=600.0,
            ignore=255,
            on_progress=lambda r: isinstance(r, Progress) and stages.append(r.stage),
            **settings,
        )
    assert error.value.argument == "budget"
    assert set(stages) & {"learning the strokes of", "spreading the labels of"} == set()
    assert RunFolder("default").state() == "new"


@pytest.mark.parametrize("finely", [False, True])
def test_a_rehearsal_takes_the_time_of_features_and_of_classes_apart(monkeypatch, finely):
    now, extract, classify = [0.0], Extractor.extract, Head.classify

    def slow_extract(*args, **how):
        assert how == {"finely": finely}
        now[0] += 8.0
        return extract(*args, **how)

    def slow_classify(*args, **how):
        now[0] += 2.0
        return classify(*args, **how)

    rehearsal = spreading.Rehearsal(3, 5, finely)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Extractor, "extract", slow_extract)
    monkeypatch.setattr(Head, "classify", slow_classify)
    assert rehearsal.seconds() == (8 / 512**2, 2 / 512**2)
