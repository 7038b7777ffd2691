"""How far a training is: by its steps, or by the time that a budget leaves for them."""

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

_MEMORY = 0.05  # over this share of a budget the present speed of steps is measured
_MEASURING = 0.01  # of the time, at most, is spent on measuring how quick predictions are
_REMEMBERED = 5  # measurements
_LAST_MEASUREMENTS = 3  # at most, before a training ends


class Clock(ABC):
    """The time of a training, and the share of it that is done.

    With several processes each has a clock, but that of rank 0 alone is read; the others are told
    its `share`.

    Args:
        expected_steps: Steps of the whole training.
        seconds_before: Time trained in the sessions before a resume.

    Attributes:
        expected_steps: The argument of that name.
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
        """Note the seconds of a pass over the held-out images."""

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
        epochs: The number of epochs.
        steps_per_epoch: The steps of an epoch.
        patches_per_epoch: The patches of an epoch.
        seconds_before: The argument of `Clock`.
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
    """The part of a budget that is kept for the work after the steps, at any speed of the machine.

    Attributes:
        window: Seconds in which a window was predicted when this was estimated.
        scoring: Seconds of a pass over the held-out images, at that speed.
        passes: Number of these passes after the last step.
        seconds: Seconds of all other work after the last step, at that speed.
    """

    window: float
    scoring: float
    passes: float
    seconds: float

    def scoring_at(self, window: float) -> float:
        """Return the seconds of a pass when predicting a window takes ``window`` seconds."""
        return self.scoring * window / self.window

    def at(self, window: float) -> float:
        """Return the seconds that are due when predicting a window takes ``window`` seconds.

        A machine that predicts more slowly does the other work more slowly, too. A machine that
        predicts faster may do so by its GPU alone.
        """
        return self.passes * self.scoring_at(window) + self.seconds * max(1.0, window / self.window)


class BudgetClock(Clock):
    """A training that leaves enough time for the work after it, though the machine's speed changes.

    The speed of that work is measured again and again, as a machine that is busy at the start may
    be at rest later. Each step takes its part of the share that is left, so that the share never
    falls, even if less time is left than expected.

    Args:
        total: Seconds from now on until all must be done.
        batch_size: Patches of a step.
        rate: Patches trained a second, as measured before the first step.
        reserve: The time of the work after the steps, as estimated before the first.
        measure: Returns the seconds in which a window is predicted at present.
        least: Seconds in which to do steps even where ``reserve`` leaves none for them.
        seconds_before: The argument of `Clock`.
        expected_steps: Steps of the whole training, where a resumed run has recorded them; None
            takes as many as there is time for.
        share_before: The share done in the sessions before a resume; None estimates it from the
            seconds, for runs that did not record it.
    """

    def __init__(
        self,
        total: float,
        batch_size: int,
        rate: float,
        reserve: Reserve,
        measure: Callable[[], float],
        least: float = 0.0,
        seconds_before: float = 0.0,
        expected_steps: int | None = None,
        share_before: float | None = None,
    ) -> None:
        self._total, self._batch, self._reserve, self._least = total, batch_size, reserve, least
        self._measure, self._windows = measure, deque([reserve.window], maxlen=_REMEMBERED)
        self._memory = max(2.0, _MEMORY * total)
        # Sums over the last steps, in which older ones fade.
        self._seconds = self._memory / 4
        self._patches = self._seconds * rate
        steps = max(1, int(self._available / self._step_seconds))
        super().__init__(steps if expected_steps is None else expected_steps, seconds_before)
        if share_before is None:
            share_before = seconds_before / max(seconds_before + self._available, 1e-6)
        self._done = share_before
        self._reached = 0.0  # the second of this session to which `_done` belongs
        self._measured, self._cost = 0.0, 0.0  # when the speed was measured, and how long that took

    @property
    def _window(self) -> float:
        """Seconds in which a window is predicted; the median leaves out bad moments."""
        return median(self._windows)

    @property
    def _step_seconds(self) -> float:
        return self._batch * self._seconds / self._patches

    @property
    def _available(self) -> float:
        """Seconds of this session in which steps can be done, by the present speed."""
        return max(self._total - self._reserve.at(self._window), self._least)

    @property
    def _elapsed(self) -> float:
        return self.seconds() - self.seconds_before

    @property
    def _middle(self) -> float:
        """The second of this session in the middle of the next step."""
        return self._elapsed + self._step_seconds / 2

    def left(self) -> float:
        """Return the seconds that are left for steps."""
        return max(0.0, self._available - self._elapsed)

    def note_steps(self, patches: int, seconds: float) -> None:
        """Learn how fast steps are at present."""
        fading = math.exp(-seconds / self._memory)
        self._seconds = self._seconds * fading + seconds
        self._patches = self._patches * fading + patches

    def note_scoring(self, seconds: float) -> None:
        """Note the seconds of a pass over the held-out images."""
        at_first = seconds * self._reserve.window / self._window
        self._reserve = replace(self._reserve, scoring=at_first)

    def has_time_to_score(self) -> bool:
        """Return whether steps can go on after another pass over the held-out images."""
        return self._reserve.scoring_at(self._window) + self._step_seconds < self.left()

    def read(self, step: int) -> float:
        """Return the share of the training that is done in the middle of the next step.

        It never falls, so that the learning rate does not rise again, and the first step is always
        done.
        """
        self._follow_machine()
        middle = max(self._middle, self._reached)
        rest = (self._available - middle) / max(self._available - self._reached, 1e-6)
        self._done = 1 - (1 - self._done) * min(max(rest, 0.0), 1.0)
        self._reached = middle
        if step == 0:
            self._done = min(self._done, 0.99)
        return self._done

    def _follow_machine(self) -> None:
        """Measure the speed where that is due, and before the training ends."""
        if self._done == 1:
            return
        since = self._elapsed - self._measured
        if since > min(self._cost / _MEASURING, self.left() / 2):
            self._measure_speed()
        for _ in range(_LAST_MEASUREMENTS):  # a bad moment must not end a training
            if self._middle < self._available:
                return
            self._measure_speed()

    def _measure_speed(self) -> None:
        begin = self._elapsed
        self._windows.append(self._measure())
        self._measured = self._elapsed
        self._cost = self._measured - begin

    def expected_patches(self, seen: int) -> float:
        """Return the patches of the whole training, by the present speed."""
        return seen + self.left() * self._patches / self._seconds

    def expected_seconds(self, step: int, step_seconds: float) -> float:
        """Return the seconds that are left for steps."""
        return self._available
