"""The labelling page: killed and stopped while somebody paints."""

import functools
import os
import random
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from tests.faults.common import (
    LIMIT,
    Child,
    Lab,
    Tally,
    assert_plain_error,
    fault,
    some,
    start,
    until,
)
from tests.labelling.asking import connect, painting
from tests.support import read, write_images

_SHAPE, _IMAGES = (64, 56), 3
_LABEL = ("label", "set", "--no-browser", "--no-train")


@dataclass
class Painter:
    """Paints as a page does: one stroke after the other, each until it is said to be saved.

    Attributes:
        due: ``(H, W)`` labels of each image by the strokes that were said to be saved.
        pending: The image and the labels if the stroke on its way had arrived, or None.
        count: Strokes that were said to be saved.
    """

    address: str
    rng: random.Random
    due: list[np.ndarray]
    pending: tuple[int, np.ndarray] | None = None
    count: int = 0
    _client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._client = connect(self.address, LIMIT)

    def paint(self) -> None:
        """Paint a rectangle of one class, or erase one."""
        number, value = self.rng.randrange(_IMAGES), self.rng.choice([0, 1, 255])
        height, width = self.rng.randint(1, 20), self.rng.randint(1, 20)
        y, x = self.rng.randint(0, _SHAPE[0] - height), self.rng.randint(0, _SHAPE[1] - width)
        labels = self.due[number].copy()
        part = labels[y : y + height, x : x + width]
        part[:] = value
        self.pending = number, labels
        path, body = painting(number, x, y, part, f"s{self.count}")
        answer = self._client.put(path, content=body)
        assert answer.json() == {"saved": True}, answer.text
        self.due[number], self.pending = labels, None
        self.count += 1

    def paint_until_it_ends(self) -> None:
        """Paint until the server does not answer any more."""
        while True:
            try:
                self.paint()
            except httpx.HTTPError:
                return

    def assert_nothing_lost(self, found: list[np.ndarray]) -> None:
        """Check labels: all that was said to be saved, and the stroke on its way wholly or not."""
        for number, labels in enumerate(found):
            allowed = [self.due[number]]
            if self.pending and self.pending[0] == number:
                allowed.append(self.pending[1])
            assert any(np.array_equal(labels, a) for a in allowed), f"image {number}"


def open_page(folder: Path, seed: int) -> tuple[Child, Painter]:
    """Write images, start `label` on them, and return its process and somebody who paints."""
    write_images(folder / "set" / "images", _IMAGES, shape=_SHAPE)
    due = [np.full(_SHAPE, 255, np.uint8) for _ in range(_IMAGES)]
    child = start(folder, *_LABEL, before=functools.partial(_save_always, seed % 2 == 0))
    until(child, lambda: "Ctrl-C" in child.out, LIMIT)  # the line after the address
    address = next(w for w in child.out.split() if "token=" in w)
    return child, Painter(address, random.Random(seed), due)


def _save_always(wanted: bool) -> None:
    """Make every second server write masks without waiting, so that a kill hits it in a save."""
    from unetseg.labelling import project

    assert project._QUIET > 0
    if wanted:
        project._QUIET = 0.0


def _mask(folder: Path, number: int) -> np.ndarray:
    return read(folder / "set" / "masks" / f"im{number}.png")


def _reopen(folder: Path) -> list[np.ndarray]:
    """Open and close the folder, as the next `label` does, and return its masks."""
    from unetseg.labelling.project import open_project

    with open_project(folder / "set"):
        pass
    assert not list((folder / "set" / ".unetseg" / "journal").iterdir())
    return [_mask(folder, number) for number in range(_IMAGES)]


@fault("F37", "label: kill -9 while somebody paints", "no saved stroke lost", quick=0.03)
def killed_while_painting(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for seed in some(range(100), share):
        with tally.attempt(f"seed {seed}"):
            folder, rng = lab.folder(), random.Random(seed)
            child, painter = open_page(folder, seed)
            for _ in range(rng.randint(0, 30)):
                painter.paint()
            timer = threading.Timer(rng.uniform(0, 0.3), child.kill)
            timer.start()
            painter.paint_until_it_ends()
            timer.join()
            assert child.wait() == -signal.SIGKILL
            for number in range(_IMAGES):
                _mask(folder, number)  # each is whole
            painter.assert_nothing_lost(_reopen(folder))
    return tally


@fault("F38", "label: Ctrl-C, SIGTERM, SIGHUP", "128 + number, all in the masks", quick=0.17)
def stopped_while_painting(lab: Lab, share: float) -> Tally:
    tally = Tally()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for seed in some(range(6), share):
        with tally.attempt(f"seed {seed}"):
            folder = lab.folder()
            child, painter = open_page(folder, seed)
            for _ in range(5):
                painter.paint()
            number = numbers[seed % 3]
            timer = threading.Timer(0.1, functools.partial(os.kill, child.pid, number))
            timer.start()
            painter.paint_until_it_ends()
            timer.join()
            assert child.wait(10) == 128 + number
            assert_plain_error(child, 128 + number, "all strokes are saved")
            assert not list((folder / "set" / ".unetseg" / "journal").iterdir())
            painter.assert_nothing_lost([_mask(folder, k) for k in range(_IMAGES)])
    return tally
