"""The number of threads that a training computes with where other work shares the processors."""

import torch

_SHARED = 1.25  # a second of a processor takes so many, or more, where others work, too
_FIRST = 2.0  # seconds until the first trial
_PAUSE = 50.0  # a pause after a trial is so many times as long as it
_STEPS = 3  # that are timed, after one that prepares the work of another number
_FASTER = 0.9  # a better number takes this share of the time, or less


class Threads:
    """Goes over to half as many threads, or to twice as many, where steps are quicker then.

    The threads of a step wait for each other many times. If other work holds one of them up, all
    wait, and a single thread can be several times as fast. So a few steps are done with another
    number now and then. The last bits of a step depend on that number. Only a training that ends by
    time may change it, because its bits depend on the speed of the machine anyway.

    Args:
        slowness: The seconds that a second of one processor has taken so far. None keeps the
            number of threads.

    Attributes:
        most: The most threads.
    """

    def __init__(self, slowness: float | None) -> None:
        self.most = torch.get_num_threads()
        self._is_kept = slowness is None or self.most == 1
        self._chosen = self.most if slowness is None or slowness < _SHARED else 1
        self._tries_more = True  # threads at the next trial, if there are more
        self._until = _FIRST
        self._times: list[float] = []  # of the steps since the number last changed
        self._chosen_seconds: float | None = None  # of a step, while another number is tried
        self._compute_with(self._chosen)

    def note_step(self, seconds: float) -> None:
        """Learn how long the last step took; set the number of threads for the next one."""
        if self._is_kept:
            return
        self._times.append(seconds)
        self._until -= seconds
        if len(self._times) <= _STEPS:
            return
        mean = sum(self._times[-_STEPS:]) / _STEPS
        if self._chosen_seconds is not None:
            self._end_trial(mean < _FASTER * self._chosen_seconds)
        elif self._until <= 0:
            self._begin_trial(mean)

    def _begin_trial(self, mean: float) -> None:
        others = {-(-self._chosen // 2), min(self.most, 2 * self._chosen)} - {self._chosen}
        self._chosen_seconds = mean
        self._compute_with(max(others) if self._tries_more else min(others))

    def _end_trial(self, is_better: bool) -> None:
        self._chosen_seconds = None
        if is_better:  # so that the next number in this direction is tried at once
            self._chosen = torch.get_num_threads()
        else:
            self._until = _PAUSE * sum(self._times)
            self._tries_more = not self._tries_more
        self._compute_with(self._chosen)

    def _compute_with(self, number: int) -> None:
        torch.set_num_threads(number)
        self._times.clear()
