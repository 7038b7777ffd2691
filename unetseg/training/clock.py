"""How far a training is: by its steps, or by the time that a budget leaves for them."""

import time
from abc import ABC, abstractmethod


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


class BudgetClock(Clock):
    """A training that ends in time.

    Args:
        available: Seconds from now on in which steps can be done; what validation, saving and
            starting take is not among them.
        step_seconds: Seconds that a step takes.
        seconds_before: As in `Clock`.
        expected_steps: Steps of the whole training, where a resumed run has recorded them; None
            takes as many as there is time for.
    """

    def __init__(
        self,
        available: float,
        step_seconds: float,
        seconds_before: float = 0.0,
        expected_steps: int | None = None,
    ) -> None:
        steps = max(1, int(available / step_seconds)) if expected_steps is None else expected_steps
        super().__init__(steps, seconds_before)
        self._available, self._step_seconds = available, step_seconds

    def read(self, step: int) -> float:
        """Return the share of the time that is gone in the middle of the next step."""
        whole = max(self.seconds_before + self._available, 1e-6)
        return (self.seconds() + self._step_seconds / 2) / whole

    def expected_patches(self, seen: int) -> float:
        """Return the patches of the whole training, by the time that the first ones took."""
        return seen / max(self.share, 1e-6)

    def expected_seconds(self, step: int, step_seconds: float) -> float:
        """Return the seconds that are left for steps."""
        return max(0.0, self._available)
