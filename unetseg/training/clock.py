"""How far a training is: by its steps, or by the time that a budget leaves for them."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

_MEMORY = 0.05  # over this share of a budget the present speed is measured


class Clock(ABC):
    """The time of a training, and the share of it that is done.

    With several processes each has a clock, but that of rank 0 alone is read; the others are told
    its `share`.

    Args:
        expected_steps: Steps of the whole training.
        seconds_before: Time trained in the sessions before a resume.

    Attributes:
        expected_steps: As given.
        share: The share of the training that is done, as all processes last agreed on. It decides
            the learning rate and the end.
    """

    def __init__(self, expected_steps: int, seconds_before: float) -> None:
        self.expected_steps = expected_steps
        self.seconds_before = seconds_before
        self.share = 0.0
        self._began = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the training has used up its steps or its time."""
        return self.share >= 1

    def seconds(self) -> float:
        """Return the time trained so far, sessions before a resume included."""
        return self.seconds_before + time.monotonic() - self._began

    def left(self) -> float:
        """Return the seconds that the rest of the training will take, by its speed so far."""
        return max(0.0, self.seconds() * (1 - self.share) / max(self.share, 1e-6))

    def note_steps(self, patches: int, seconds: float) -> None:  # noqa: B027
        """Learn how fast steps are at present: ``patches`` took so many ``seconds``."""

    def note_scoring(self, seconds: float) -> None:  # noqa: B027
        """Learn what a pass over the held-out images costs."""

    def has_time_to_score(self) -> bool:
        """Return whether steps can go on after another pass over the held-out images."""
        return True

    @abstractmethod
    def read(self, step: int) -> float:
        """Return the share of the training that is done after ``step`` steps, from 0 on."""

    @abstractmethod
    def expected_patches(self, seen: int) -> float:
        """Return the patches of the whole training, of which ``seen`` are done."""

    @abstractmethod
    def expected_seconds(self, step: int, step_seconds: float) -> float:
        """Return the seconds that the rest takes, if a step takes ``step_seconds``."""


class StepClock(Clock):
    """A training of a number of epochs.

    Args:
        epochs: How many.
        steps_per_epoch: Steps of one.
        patches_per_epoch: Patches of one.
        seconds_before: As in `Clock`.
    """

    def __init__(
        self, epochs: int, steps_per_epoch: int, patches_per_epoch: int, seconds_before: float = 0.0
    ) -> None:
        super().__init__(epochs * steps_per_epoch, seconds_before)
        self._patches = epochs * patches_per_epoch

    def read(self, step: int) -> float:
        """Return the share of the steps that is done."""
        return step / self.expected_steps

    def expected_patches(self, seen: int) -> float:
        """Return the patches of all epochs."""
        return self._patches

    def expected_seconds(self, step: int, step_seconds: float) -> float:
        """Return the seconds of the steps that are left."""
        return (self.expected_steps - step) * step_seconds


@dataclass(frozen=True)
class Reserve:
    """The part of a budget that is kept for what follows the steps, at any speed of the machine.

    Attributes:
        rate: Patches trained a second when this was estimated.
        scoring: What a pass over the held-out images costs, in patches trained.
        passes: Such passes after the last step.
        seconds: All other work after the last step, at that ``rate``.
    """

    rate: float
    scoring: float
    passes: float
    seconds: float

    def at(self, rate: float) -> float:
        """Return the seconds that are due when ``rate`` patches a second are trained.

        A machine that trains more slowly does the other work more slowly, too. One that trains
        faster may do so by its GPU alone.
        """
        return self.passes * self.scoring / rate + self.seconds * max(1.0, self.rate / rate)


class BudgetClock(Clock):
    """A training that ends in time for what follows it, though the speed of the machine changes.

    Args:
        total: Seconds from now on until all must be done.
        batch_size: Patches of a step.
        reserve: What follows the steps, as estimated before the first.
        least: Seconds in which to do steps even where ``reserve`` leaves none for them.
        seconds_before: As in `Clock`.
        expected_steps: Steps of the whole training, where a resumed run has recorded them; None
            takes as many as there is time for.
    """

    def __init__(
        self,
        total: float,
        batch_size: int,
        reserve: Reserve,
        least: float = 0.0,
        seconds_before: float = 0.0,
        expected_steps: int | None = None,
    ) -> None:
        self._total, self._batch, self._reserve, self._least = total, batch_size, reserve, least
        self._memory = max(2.0, _MEMORY * total)
        # Sums over the last steps, in which older ones fade.
        self._seconds = self._memory / 4
        self._patches = self._seconds * reserve.rate
        steps = max(1, int(self._available / self._step_seconds))
        super().__init__(steps if expected_steps is None else expected_steps, seconds_before)

    @property
    def _rate(self) -> float:
        return self._patches / self._seconds

    @property
    def _step_seconds(self) -> float:
        return self._batch / self._rate

    @property
    def _available(self) -> float:
        """Seconds of this session in which steps can be done, by the present speed."""
        return max(self._total - self._reserve.at(self._rate), self._least)

    def note_steps(self, patches: int, seconds: float) -> None:
        """Learn how fast steps are at present."""
        fading = math.exp(-seconds / self._memory)
        self._seconds = self._seconds * fading + seconds
        self._patches = self._patches * fading + patches

    def note_scoring(self, seconds: float) -> None:
        """Learn what a pass over the held-out images costs."""
        self._reserve = replace(self._reserve, scoring=seconds * self._rate)

    def has_time_to_score(self) -> bool:
        """Return whether steps can go on after another pass over the held-out images."""
        left = self._available - (self.seconds() - self.seconds_before)
        return self._reserve.scoring / self._rate + self._step_seconds < left

    def read(self, step: int) -> float:
        """Return the share of the time that is gone in the middle of the next step.

        It never falls, so that the learning rate does not rise again, and the first step is always
        done.
        """
        whole = max(self.seconds_before + self._available, 1e-6)
        gone = (self.seconds() + self._step_seconds / 2) / whole
        return max(self.share, gone if step else min(gone, 0.99))

    def expected_patches(self, seen: int) -> float:
        """Return the patches of the whole training, by the time that the first ones took."""
        return seen / max(self.share, 1e-6)

    def expected_seconds(self, step: int, step_seconds: float) -> float:
        """Return the seconds that are left for steps."""
        return self._available
