"""The records that long work reports while it runs, which a callback shows or ignores."""

import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from unetseg.errors import UnetsegWarning, as_argument, worded
from unetseg.text import format_duration, format_rate, human_bytes, plural, show


@dataclass(frozen=True)
class Progress:
    """How far a stage of the work has come.

    Attributes:
        stage: The work, as a verb phrase: "cutting patches".
        done: Units finished, 0 to ``total``.
        total: Units in all.
        unit: Plural noun of a unit: "images", "patches".
        detail: More about the present unit, such as the name of its file; may be empty.
        seconds_left: Expected time until all units are finished. None leaves the estimate to the
            display.
    """

    stage: str
    done: float
    total: float
    unit: str
    detail: str = ""
    seconds_left: float | None = None

    @property
    def units(self) -> str:
        """The units in all: "20 images", "1 patch"."""
        singular = re.sub("(?<=ch)es$|s$", "", self.unit)
        return plural(round(self.total), singular, self.unit)

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.stage}: {self.done:,.0f} of {self.units}{detail}"


@dataclass(frozen=True)
class Note:
    """One line that says what will be done, or a warning (``warning=True``)."""

    text: str
    warning: bool = False

    def __str__(self) -> str:
        return worded(self.message, as_argument)

    @property
    def message(self) -> str:
        """The line, in which an `unetseg.errors.arg` is still a mark."""
        return f"warning: {self.text}" if self.warning else self.text


@dataclass(frozen=True)
class Plan:
    """The plan of a run, measured on this machine before its first step.

    Attributes:
        network: Name of the network.
        parameters: Number of its trainable parameters.
        patches: Patches in an epoch.
        epochs: Epochs that will be run; the last one may be run in part.
        patches_per_second: The measured rate of training, augmentation included.
        seconds: Expected time until training ends.
        memory: Bytes of patches held in memory.
        device: The device that trains, in words.
        resumed: Step from which the run goes on; 0 for a new run.
    """

    network: str
    parameters: int
    patches: int
    epochs: int
    patches_per_second: float
    seconds: float
    memory: int
    device: str
    resumed: int

    def __str__(self) -> str:
        end = datetime.fromtimestamp(time.time() + self.seconds).strftime("%H:%M")
        start = f"going on from step {self.resumed}: " if self.resumed else ""
        return (
            f"{start}{self.network} ({self.parameters / 1e6:.2f} million parameters) on "
            f"{self.device}: {format_rate(self.patches_per_second)} patches a second, "
            f"{plural(self.epochs, 'epoch')} of {self.patches:,}, {human_bytes(self.memory)} of "
            f"patches in memory, done in about {format_duration(self.seconds)} (at {end})"
        )


@dataclass(frozen=True)
class EpochDone:
    """The row of ``history.csv`` for an epoch that has ended.

    Attributes:
        row: epoch, step, seconds and patches so far; lr, train_loss, patches_per_second; val_loss,
            val_mean_iou and iou_<class>, None where this epoch was not validated.
        seconds_left: Expected time until training ends.
    """

    row: Mapping[str, float | None]
    seconds_left: float

    def __str__(self) -> str:
        iou = self.row["val_mean_iou"]
        scored = "" if iou is None else f", held-out mean IoU {iou:.4f}"
        return (
            f"epoch {self.row['epoch']:.0f}: loss {self.row['train_loss']:.4f}{scored}, "
            f"{format_rate(self.row['patches_per_second'] or 0)} patches a second, "
            f"{format_duration(self.seconds_left)} left"
        )


Item = TypeVar("Item")
OnProgress = Callable[[object], None]
"""Receives `Progress`, `Note`, `Plan` and `EpochDone` records."""

_INSIDE = ("unetseg.", "contextlib")  # modules whose frames are no caller of unetseg


def steps(
    items: Sequence[Item],
    stage: str,
    unit: str,
    on_progress: OnProgress,
    *,
    name: Callable[[Item], str] = lambda _: "",
    check: Callable[[], None] = lambda: None,
) -> Iterator[Item]:
    """Yield the items one after the other, and report each when the caller is done with it.

    Args:
        items: The items, in order.
        stage: The work on the items, as a verb phrase: "reading".
        unit: Plural noun of an item: "images".
        on_progress: Receives a `Progress` after each item.
        name: Returns the name of an item for the report.
        check: Called before each item; may stop the work by an error (`signals.Caught.check`).
    """
    for done, item in enumerate(items, 1):
        check()
        yield item
        on_progress(Progress(stage, done, len(items), unit, show(name(item))))


def silent(_: object) -> None:
    """Drop every report."""


def warn(record: object) -> None:
    """Pass a warning on to Python's `warnings`, at the line that called unetseg; drop the rest.

    It is the default of ``on_progress`` in the public functions.
    """
    if isinstance(record, Note) and record.warning:
        level, frame = 1, sys._getframe()
        while frame.f_back and frame.f_globals.get("__name__", "").startswith(_INSIDE):
            level, frame = level + 1, frame.f_back
        warnings.warn(worded(record.text, as_argument), UnetsegWarning, stacklevel=level)
