"""Whether a budget leaves time to train, said before anything is cut, and a budget that does."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unetseg.dataset import pairing, splits
from unetseg.dataset.geometry import auto_count, auto_size
from unetseg.dataset.naming import Pair
from unetseg.devices import pick_device
from unetseg.errors import InputError, arg
from unetseg.network.unet import build_network
from unetseg.pictures.transforms import scaled_size
from unetseg.scoring.predictions import PassedProbabilities
from unetseg.settings import PatchSettings, Selection, TrainSettings
from unetseg.text import format_budget, format_duration
from unetseg.training import validation
from unetseg.training.recipe import resolve

# Looking at an image, and cutting it, cost so many times its decoding.
_LOOKING, _CUTTING = 3.0, 2.0
_LOOKING_SECONDS = 2.0  # a bad moment of the machine must not refuse a budget
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
    a refusal comes at once. One mask does not tell strokes among whole masks from a set of strokes,
    so the time to spread labels is not counted. Errors of reading are left to the functions that
    read all files with care.

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
    shapes = [scaled_size(one.height, one.width, cutting.scale) for one in infos]
    size, channels = cutting.size or auto_size(shapes), max(one.channels for one in infos)
    recipe = resolve(settings, size)
    with torch.random.fork_rng([]):  # a run draws the same numbers whether this was done or not
        network = build_network(recipe.network, channels, _CLASSES, **recipe.network_settings)
    device = pick_device(recipe.device)
    times, held_out = (folds, 1 / folds) if folds else (1, _held_out(pairs, cutting))
    windows = held_out * validation.windows_of(shapes, size, network, device)
    patches = sum(cutting.per_image or auto_count(shape, size, cutting.rare) for shape in shapes)
    spent = time.monotonic() - started + after.seconds
    spent += decoding * len(pairs) * (_LOOKING + _CUTTING * times)
    spent += times
    predicted = times * windows
    rehearsal = validation.Rehearsal(network, channels, size, device)
    window, until = math.inf, time.monotonic() + _LOOKING_SECONDS
    while time.monotonic() < until:
        window = min(window, rehearsal.seconds())
        if spent + predicted * window <= settings.budget:
            return
    whole = spent + predicted * window
    whole += times * (1 - held_out) * patches * window / validation.FORWARD_SHARE
    raise Advice(settings.budget, whole, cutting.scale).error()


def _held_out(pairs: Sequence[Pair], cutting: PatchSettings) -> float:
    """Return the share of the images that will be held out."""
    parts = [pair.part for pair in pairs]
    if splits.has_parts(parts, cutting):
        return 1 - parts.count("train") / len(parts)
    return cutting.held_out_share


def _seconds_to_read(pair: Pair, selection: Selection) -> float:
    begin = time.monotonic()
    pair.read_image(selection)
    pair.read_mask(selection)
    return time.monotonic() - begin
