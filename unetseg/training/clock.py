"""How far a training is: by its steps, or by the time that a budget leaves for them."""

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from statistics import median

_MEMORY = 20.0  # seconds over which the present speed of steps is taken
_MEASURING = 0.01  # of the time, at most, is spent on measuring how quick predictions are
_MEASURING_LAST = 0.2  # the same share shortly before the end
_REMEMBERED = 5  # measurements
_IN_DOUBT = 3  # measurements at once, most of those remembered, where the machine seems to change
_ALIKE = 0.3  # the part by which a measurement differs from the others on the same machine


class Clock(ABC):
    """The time of a training, the share of it that is done, and the time that is left.

    With several processes each has a clock, but that of rank 0 alone is read; the others are told
    its `share`.

    Args:
        expected_steps: Steps of the whole training.
        rate: Patches trained a second, as measured before the first step.
        seconds_before: Time trained in the sessions before a resume.

    Attributes:
        expected_steps: The argument of that name.
        share: The share of the training that is done, as all processes last agreed on. It decides
            the learning rate and the end.
    """

    def __init__(self, expected_steps: int, rate: float, seconds_before: float) -> None:
        self.expected_steps = expected_steps
        self.seconds_before = seconds_before
        self.share = 0.0
        self._began = time.monotonic()
        # Sums over the last steps, in which older ones fade.
        self._seconds = _MEMORY / 4
        self._patches = self._seconds * rate

    @property
    def is_over(self) -> bool:
        """Whether the training has used up its steps or its time."""
        return self.share >= 1

    @property
    def rate(self) -> float:
        """Patches trained a second at present."""
        return self._patches / self._seconds

    def seconds(self) -> float:
        """Return the time trained so far, sessions before a resume included."""
        return self.seconds_before + time.monotonic() - self._began

    def note_steps(self, patches: int, seconds: float) -> None:
        """Learn how fast steps are at present: ``patches`` took so many ``seconds``."""
        fading = math.exp(-seconds / _MEMORY)
        self._seconds = self._seconds * fading + seconds
        self._patches = self._patches * fading + patches

    def has_time_to_score(self) -> bool:
        """Return whether steps can go on after another pass over the held-out images."""
        return True

    @abstractmethod
    def note_scoring(self, seconds: float) -> None:
        """Note the seconds of a pass over the held-out images."""

    @abstractmethod
    def left(self) -> float:
        """Return the seconds until the last score is there, by the present speed."""

    @abstractmethod
    def read(self, step: int) -> float:
        """Return the share of the training that is done after ``step`` steps, from 0 on."""

    @abstractmethod
    def expected_patches(self, seen: int) -> float:
        """Return the patches of the whole training, of which ``seen`` are done."""


class StepClock(Clock):
    """A training of a number of epochs.

    Args:
        epochs: The number of epochs.
        steps_per_epoch: The steps of an epoch.
        patches_per_epoch: The patches of an epoch.
        rate: The argument of `Clock`.
        scoring: A pass over the held-out images takes as long as so many patches of training.
        validate_every: Epochs between these passes; another follows the last epoch.
        steps_before: Steps done in the sessions before a resume.
        seconds_before: The argument of `Clock`.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        patches_per_epoch: int,
        rate: float,
        scoring: float = 0.0,
        validate_every: int = 1,
        steps_before: int = 0,
        seconds_before: float = 0.0,
    ) -> None:
        super().__init__(epochs * steps_per_epoch, rate, seconds_before)
        self._epochs, self._patches_per_epoch = epochs, patches_per_epoch
        self._scoring, self._every = scoring, validate_every
        self._done = steps_before / steps_per_epoch  # epochs

    def note_scoring(self, seconds: float) -> None:
        """Note the seconds of a pass, which are compared with those of a patch."""
        self._scoring = seconds * self.rate

    def left(self) -> float:
        """Return the seconds of all steps and passes that are left, by the present speed."""
        last = self._epochs - 1  # the epoch after which the last pass but one may stand
        passes = 1 + last // self._every - min(int(self._done), last) // self._every
        patches = (self._epochs - self._done) * self._patches_per_epoch
        return (patches + passes * self._scoring) / self.rate

    def read(self, step: int) -> float:
        """Return the share of the steps that is done."""
        share = step / self.expected_steps
        self._done = share * self._epochs
        return share

    def expected_patches(self, seen: int) -> float:
        """Return the patches of all epochs."""
        return self._epochs * self._patches_per_epoch


class BudgetClock(Clock):
    """A training that leaves enough time for the work after it, though the machine's speed changes.

    The time of a pass over the held-out images is measured again and again, because a busy machine
    may come to rest. Each step takes its part of the share that is left, so that the share never
    falls, even if less time is left than expected.

    Args:
        total: Seconds from now on until all must be done.
        batch_size: Patches of a step.
        rate: The argument of `Clock`.
        scoring: Seconds of a pass over the held-out images, as first measured.
        measure: Measures these seconds again, in a small part of them.
        passes: Number of these passes after the last step.
        later: Seconds of all other work after the last step.
        least: Seconds in which to do steps even where none are left for them.
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
        scoring: float,
        measure: Callable[[], float],
        passes: float = 1.0,
        later: float = 0.0,
        least: float = 0.0,
        seconds_before: float = 0.0,
        expected_steps: int | None = None,
        share_before: float | None = None,
    ) -> None:
        super().__init__(1, rate, seconds_before)
        self._total, self._batch, self._least = total, batch_size, least
        self._passes, self._later = passes, later
        self._measure, self._scorings = measure, deque([scoring], maxlen=_REMEMBERED)
        self._factor = 1.0  # a whole pass takes so many times as long as was measured
        steps = max(1, int(self._available / self._step_seconds))
        self.expected_steps = steps if expected_steps is None else expected_steps
        if share_before is None:
            share_before = seconds_before / max(seconds_before + self._available, 1e-6)
        self._done = share_before
        self._reached = 0.0  # the second of this session to which `_done` belongs
        self._measured, self._cost = 0.0, 0.0  # when `measure` was called, and how long that took

    @property
    def _scoring(self) -> float:
        """Seconds of a pass at present; the median leaves out bad moments."""
        return self._factor * median(self._scorings)

    @property
    def _reserve(self) -> float:
        """Seconds of all work after the last step, at present."""
        return self._passes * self._scoring + self._later

    @property
    def _step_seconds(self) -> float:
        return self._batch / self.rate

    @property
    def _available(self) -> float:
        """Seconds of this session in which steps can be done, by the present speed."""
        return max(self._total - self._reserve, self._least)

    @property
    def _elapsed(self) -> float:
        return self.seconds() - self.seconds_before

    @property
    def _left_for_steps(self) -> float:
        return max(0.0, self._available - self._elapsed)

    def left(self) -> float:
        """Return the seconds until all is done, the work after the steps included."""
        return max(0.0, self._available + self._reserve - self._elapsed)

    def note_scoring(self, seconds: float) -> None:
        """Note the seconds of a pass, which are compared with the measured ones."""
        # A clock of coarse ticks may have measured nothing.
        self._factor = seconds / max(median(self._scorings), 1e-3)

    def has_time_to_score(self) -> bool:
        """Return whether steps can go on after another pass over the held-out images."""
        return self._scoring + self._step_seconds < self._left_for_steps

    def read(self, step: int) -> float:
        """Return the share of the training that is done in the middle of the next step.

        It never falls, so that the learning rate does not rise again, and the first step is always
        done.
        """
        if self._is_measurement_due():
            self._measure_again()
        middle = max(self._elapsed + self._step_seconds / 2, self._reached)
        rest = (self._available - middle) / max(self._available - self._reached, 1e-6)
        self._done = 1 - (1 - self._done) * min(max(rest, 0.0), 1.0)
        self._reached = middle
        if step == 0:
            self._done = min(self._done, 0.99)
        return self._done

    def _is_measurement_due(self) -> bool:
        """Whether the last one is long ago, or half as long as steps will still be done.

        So the last ones lie shortly before the end, where they matter most.
        """
        since, cost = self._elapsed - self._measured, self._cost
        due = min(cost / _MEASURING, max(cost / _MEASURING_LAST, self._left_for_steps / 2))
        return self._done < 1 and since > due

    def _measure_again(self) -> None:
        """Measure until the machine is known to be as before, or to have changed for good."""
        begin = self._elapsed
        for _ in range(_IN_DOUBT):
            known, found = median(self._scorings), self._measure()
            self._scorings.append(found)
            if abs(found - known) <= _ALIKE * known:
                break
        self._measured = self._elapsed
        self._cost = self._measured - begin

    def expected_patches(self, seen: int) -> float:
        """Return the patches of the whole training, by the present speed."""
        return seen + self._left_for_steps * self.rate
