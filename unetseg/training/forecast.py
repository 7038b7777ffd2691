"""Whether a budget leaves time to train, said before anything is cut, and a budget that does."""

import itertools
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unetseg.dataset import pairing, splits, spreading
from unetseg.dataset.folder import LabelledFolder
from unetseg.dataset.geometry import auto_count, auto_size
from unetseg.dataset.naming import Pair
from unetseg.dataset.splits import Split
from unetseg.devices import pick_device
from unetseg.errors import InputError, arg
from unetseg.network.unet import build_network
from unetseg.pictures.opening import ImageInfo
from unetseg.pictures.transforms import scaled_size
from unetseg.scoring.predictions import PassedProbabilities
from unetseg.settings import PatchSettings, Selection, TrainSettings
from unetseg.text import format_budget, format_duration
from unetseg.training import validation
from unetseg.training.recipe import resolve

# Looking at an image, and cutting it, cost so many times its decoding.
_LOOKING, _CUTTING = 3.0, 2.0
# A bad moment of the machine must not refuse a budget. So windows are predicted for so many
# seconds, and an image is read so many times.
_LOOKING_SECONDS, _READINGS = 2.0, 3
_CLASSES = 3  # the number hardly changes the speed, and is not known before the masks are read


@dataclass(frozen=True)
class Afterwards:
    """The work of a caller after a training, for which the budget leaves time.

    Attributes:
        seconds: Its time, beside that of predicting held-out images again.
        passed: Receives the probabilities of the held-out images as the final model is scored, so
            that the caller need not predict them again. None where it does not look at them.
    """

    seconds: float = 0.0
    passed: PassedProbabilities | None = None


NOTHING = Afterwards()


@dataclass(frozen=True)
class Advice:
    """The budgets and settings that would do instead of a budget that is too small.

    Attributes:
        budget: The budget, in seconds.
        whole: Seconds in which each patch can be trained on once.
        scale: The factor by which images are resized.
    """

    budget: float
    whole: float
    scale: float

    def __str__(self) -> str:
        enough = arg("budget", format_budget(1.1 * self.whole))
        smaller = arg("scale", float(f"{self.scale / 2:.3g}"))
        return f"for one pass over all patches give {enough}, or smaller images ({smaller})"

    def error(self) -> InputError:
        """Return the error of a budget that leaves no time to train."""
        text = f"{format_duration(self.budget)} leaves no time to train"
        return InputError(arg("budget"), text, str(self))


def check_budget(
    source: str | os.PathLike[str],
    cutting: PatchSettings,
    settings: TrainSettings,
    started: float,
    after: Afterwards = NOTHING,
    folds: int = 0,
) -> None:
    """Raise `InputError` where a budget surely leaves no time to train on a folder.

    Only headers, one image and one mask are read, and the time of a prediction is measured, so that
    a refusal comes at once. One mask does not tell strokes among whole masks from a set of strokes.
    So `check_spreading` counts the time to spread labels, once all masks are read. Errors of
    reading are left to the functions that read all files with care.

    Args:
        source: The folder of labelled images.
        cutting: How it will be cut.
        settings: How it will be trained; without a budget nothing is done.
        started: `time.monotonic` when the call began.
        after: The work of the caller after the training.
        folds: Number of models to train; 0 means one, with held-out images.
    """
    if settings.budget is None:
        return
    try:
        pairs = pairing.find_pairs(source, cutting.selection, cutting.line_width)
        infos = [pair.read_info(cutting.selection) for pair in pairs]
        decoding = _seconds_to_read(pairs[0], cutting.selection)
    except InputError:
        return
    times, held_out = (folds, 1 / folds) if folds else (1, _held_out(pairs, cutting))
    spent = time.monotonic() - started + decoding * len(pairs) * _LOOKING + after.seconds
    _check(infos, cutting, settings, spent, decoding, times, held_out)


def check_spreading(
    labelled: LabelledFolder,
    divisions: Sequence[Sequence[Split]],
    settings: TrainSettings,
    started: float,
    after: Afterwards = NOTHING,
) -> None:
    """Raise `InputError` where a budget surely leaves no time to train once labels are spread.

    Args:
        labelled: The folder of labelled images, all of which were read.
        divisions: The side of each image for each network that will be trained.
        settings: How they will be trained; without a budget nothing is done.
        started: `time.monotonic` when the call began.
        after: The work of the caller after the training.
    """
    works = [labelled.strokes(sides) for sides in divisions]
    if settings.budget is None or not any(sparse for _, sparse in works):
        return
    surveys, cutting = labelled.surveys, labelled.settings
    computed, classified = spreading.pixels_of_work(works, labelled.shapes)
    finely = spreading.can_be_fine(labelled.shapes)
    rehearsal = spreading.Rehearsal(labelled.channels, len(labelled.table.classes), finely)

    def spread() -> float:
        features, classes = rehearsal.seconds()
        return computed * features + classified * classes

    spent = time.monotonic() - started + after.seconds
    decoding = _seconds_to_read(surveys[0].pair, cutting.selection)
    times, held_out = len(divisions), sum(sides.count("val") for sides in divisions)
    share = held_out / (times * len(surveys))
    infos = [one.info for one in surveys]
    _check(infos, cutting, settings, spent, decoding, times, share, spread)


def _check(
    infos: Sequence[ImageInfo],
    cutting: PatchSettings,
    settings: TrainSettings,
    spent: float,
    decoding: float,
    times: int,
    held_out: float,
    spread: Callable[[], float] = lambda: 0.0,
) -> None:
    """Raise `InputError` where all work but the training takes longer than the budget.

    Args:
        infos: The headers of the labelled images.
        cutting: How they will be cut.
        settings: How they will be trained.
        spent: Seconds of the work before the cutting, and of the caller's after the training.
        decoding: Seconds in which an image and its mask are read.
        times: The number of networks that will be trained.
        held_out: The share of the images that each of them does not see, on average.
        spread: Measures the seconds in which labels are spread.
    """
    assert settings.budget is not None
    shapes = [scaled_size(one.height, one.width, cutting.scale) for one in infos]
    size, channels = cutting.size or auto_size(shapes), max(one.channels for one in infos)
    recipe = resolve(settings, size)
    with torch.random.fork_rng([]):  # a run draws the same numbers whether this was done or not
        network = build_network(recipe.network, channels, _CLASSES, **recipe.network_settings)
    device = pick_device(recipe.device)
    windows = held_out * validation.windows_of(shapes, size, network, device)
    patches = sum(cutting.per_image or auto_count(shape, size, cutting.rare) for shape in shapes)
    spent += decoding * len(infos) * _CUTTING * times + times
    predicted = times * windows
    rehearsal = validation.Rehearsal(network, channels, size, device)
    window, added, until = math.inf, math.inf, time.monotonic() + _LOOKING_SECONDS
    while time.monotonic() < until:
        window, added = min(window, rehearsal.seconds()), min(added, spread())
        if (needed := spent + added + predicted * window) <= settings.budget:
            return
    whole = needed + times * (1 - held_out) * patches * window / validation.FORWARD_SHARE
    raise Advice(settings.budget, whole, cutting.scale).error()


def _held_out(pairs: Sequence[Pair], cutting: PatchSettings) -> float:
    """Return the share of the images that will be held out."""
    parts = [pair.part for pair in pairs]
    if splits.has_parts(parts, cutting):
        return 1 - parts.count("train") / len(parts)
    return cutting.held_out_share


def _seconds_to_read(pair: Pair, selection: Selection) -> float:
    """Return the least time of several readings of an image and its mask."""
    times = [time.monotonic()]
    for _ in range(_READINGS):
        pair.read_image(selection)
        pair.read_mask(selection)
        times.append(time.monotonic())
    return min(end - begin for begin, end in itertools.pairwise(times))
