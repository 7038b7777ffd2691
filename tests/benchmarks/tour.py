"""From raw images to masks of others: the page of `unetseg label`, used by a simulated person.

``python -m tests.benchmarks tour [STROKES] [SECONDS] [SET]`` hides the masks of up to 50 images of
membranes-20, which has 20. In Chromium, the person labels 12 of them, in the order that the page
suggests. Up to 30 strokes an image lie at the largest errors of the answer. Each stroke takes three
seconds with the look at its answer. The network learns in rounds of a minute meanwhile. A round
after the last stroke ends it, and its model predicts all other images.
"""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.annotator import BRUSH, find_stroke
from tests.benchmarks.common import (
    DATA,
    Labelled,
    copy_pairs,
    draw_pairs,
    machine,
    numbers_in,
    print_table,
    read_set,
    write_values,
)
from tests.benchmarks.pretrained import SETS
from tests.labelling.browsing import ARGUMENTS, CHROMIUM, NOTHING, Window, serving
from unetseg import evaluate
from unetseg.dataset import pairing
from unetseg.pictures import writing

_IMAGES, _LABELLED = 50, 12  # in the folder, and labelled by hand
_STROKES, _PACE = 30, 3.0  # strokes an image; seconds of a stroke
_ROUND = "1m"


class Person:
    """Somebody at the page who knows the truth.

    Args:
        tab: The page.
        images: The images with their true classes.
        strokes: The most strokes in an image.
        pace: Seconds from a stroke to the next.
    """

    def __init__(self, tab: Window, images: list[Labelled], strokes: int, pace: float) -> None:
        self._tab, self._most, self._pace = tab, strokes, pace
        self._truth = {one.name: one.truth for one in images}
        self.strokes = 0

    def label(self) -> None:
        """Paint in the open image where it is wrong, and accept it."""
        number, name = self._tab.ask("[unetseg.session.image.number, unetseg.session.image.name]")
        self._tab.choose("brush", 2 * BRUSH + 1)
        self._tab.press("f")
        truth = self._truth[Path(name).stem]
        for _ in range(self._most):
            end = time.monotonic() + self._pace
            points = find_stroke(truth, self._shown(), self._tab.labels())
            if not points:
                break
            self._tab.choose(index=int(truth[points[0]]))
            self._tab.paint(*((x + 0.5, y + 0.5) for y, x in points))
            self._tab.saved()
            self.strokes += 1
            time.sleep(max(0.0, end - time.monotonic()))
        self._tab.until("unetseg.session.answer", 60)
        self._tab.press("Enter")
        images = "unetseg.session.project.images"
        self._tab.until(f"{images}[{number}].state === 'accepted' && !unetseg.session.busy", 60)
        if self._tab.ask(f"{images}.some((image) => image.state !== 'accepted')"):
            self._tab.until(f"unetseg.session.image.number !== {number}", 60)

    def _shown(self) -> np.ndarray:
        """Return the answer; before it comes, the strokes with the first class around them."""
        if self._tab.ask("Boolean(unetseg.session.answer)"):
            return self._tab.answer()
        painted = self._tab.labels()
        return np.where(painted == NOTHING, painted.min(), painted)


@dataclass(frozen=True)
class Labelling:
    """The work of somebody at the page.

    Attributes:
        strokes: The number of strokes.
        minutes: The time from the start to the last accepted image.
        score: The running score that the page shows then.
        accepted: The names of the accepted images.
    """

    strokes: int
    minutes: float
    score: dict[str, Any]
    accepted: list[str]


def label_some(folder: Path, hidden: list[Labelled], strokes: int, pace: float) -> Labelling:
    """Label images of a folder in the page, and wait for a network that knows all strokes."""
    from playwright.sync_api import sync_playwright

    begin = time.monotonic()
    with serving(folder, "--budget", _ROUND, train="--train") as address, sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        tab = Window(context.new_page(), address)
        person = Person(tab, hidden, strokes, pace)
        for _ in range(min(_LABELLED, len(hidden))):
            person.label()
            minutes = (time.monotonic() - begin) / 60
            print(f"{minutes:.1f} min, {person.strokes} strokes", flush=True)
        project = "unetseg.session.project"
        done = tab.ask(f"{project}.images.filter((i) => i.state === 'accepted').map((i) => i.name)")
        shown, last = tab.ask(f"[{project}.score, {project}.training.round]")
        ended = f"t.round > {last} && t.state === 'waiting' || t.round > {last + 1}"
        tab.until(f"((t) => {ended})({project}.training)", 600)
        browser.close()
    return Labelling(person.strokes, minutes, shown, [Path(name).stem for name in done])


def draw_images(name: str, root: Path) -> Path:
    """Return a folder of images of a set with their masks as values."""
    train, apart = SETS[name](root / name)
    every = copy_pairs([*pairing.find_pairs(train), *pairing.find_pairs(apart)], root / "all")
    if (train / "classes.toml").exists():
        shutil.copy(train / "classes.toml", every)
    return write_values(draw_pairs(every, _IMAGES, 0, root / "drawn"), root / "hidden")


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists() or CHROMIUM is None:
        print("tour: left out, the data sets or Chromium are not here")
        return
    given = numbers_in(words)
    strokes, pace = *given[:2], *(_STROKES, _PACE)[len(given) :]
    (name, *_) = [word for word in words if word in SETS] or ["membranes-20"]
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        os.chdir(root)
        hidden = draw_images(name, root)
        images, table = read_set(hidden)
        folder = root / "mine"
        for one in images:
            writing.write_picture(folder / "images" / f"{one.name}.png", one.image)
        pairing.write_classes(folder, table)
        work = label_some(folder, images, int(strokes), pace)
        parts = {"accepted": [], "others": []}
        for pair in pairing.find_pairs(hidden):
            parts["accepted" if pair.image.stem in work.accepted else "others"].append(pair)
        for part, pairs in parts.items():
            pairing.write_classes(copy_pairs(pairs, root / part), table)
        accepted = evaluate(root / "accepted", predictions=folder / "masks").scores
        others = evaluate(root / "others", model="label").scores
    rows = [
        ("the page", work.score["mean_iou"], work.score["interval"], work.score["images"]),
        ("accepted masks", accepted.mean_iou, accepted.mean_iou_ci95, len(accepted.names)),
        ("the network on other images", others.mean_iou, others.mean_iou_ci95, len(others.names)),
    ]
    lines = [
        (kind, score, "{:.3f} to {:.3f}".format(*between) if between else "", count)
        for kind, score, between, count in rows
    ]
    title = f"{name}, {work.strokes} strokes in {work.minutes:.1f} minutes ({machine()})"
    print_table(title, ["scored by", "mean IoU", "95 %", "images"], lines)
