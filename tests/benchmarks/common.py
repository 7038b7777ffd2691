"""The ground of the benchmarks: the machine's own rates, data sets, folders, a plain table."""

import os
import platform
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from tests.support import DATA
from unetseg import PredictSettings, evaluate
from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import pairing
from unetseg.dataset.folder import LabelledFolder
from unetseg.dataset.naming import Pair
from unetseg.dataset.store import Store, open_store
from unetseg.pictures import discovery, masks, reading
from unetseg.prediction.run_folder import RunFolder
from unetseg.progress import silent
from unetseg.scoring.metrics import Scores
from unetseg.settings import PatchSettings, TrainSettings
from unetseg.signals import Caught
from unetseg.training.artefacts import Artefacts
from unetseg.training.batches import Batches
from unetseg.training.clock import StepClock
from unetseg.training.learner import Learner, measure_rate
from unetseg.training.loop import STEPS_PER_READ, Course, Trainer
from unetseg.training.recipe import resolve
from unetseg.training.starting import new_network
from unetseg.training.threads import Threads


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout, and below it the line that measures it again."""
    line = f'make bench ARGS="{" ".join(sys.argv[1:])}"'
    table = Table(*columns, title=title, caption=line, box=box.SIMPLE_HEAD)
    table.title_justify = table.caption_justify = "left"
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    Console(width=110).print(table)


def machine() -> str:
    """Return the date and the machine on which a table is measured (Linux)."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text("ascii"))
    processor = f"{found[1]}, {platform.machine()}" if found else platform.machine()
    date = time.strftime("%Y-%m-%d")
    return f"{date}, {processor}, {os.cpu_count()} cores, torch {torch.__version__}"


def numbers_in(words: Sequence[str]) -> list[float]:
    """Return the words that are numbers."""
    return [float(word) for word in words if word.replace(".", "", 1).isdecimal()]


def names_in(words: Sequence[str], choices: Iterable[str]) -> list[str]:
    """Return the words that are among the choices; all choices where no word is."""
    every = list(choices)
    return [word for word in words if word in every] or every


def count_processor_time() -> None:
    """Let training count its budget in processor time of one thread, on a busy machine."""
    torch.set_num_threads(1)
    time.monotonic = time.process_time  # the clock that training and its budget go by


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def matmul_rate(size: int = 2048, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    """Return the floating-point operations a second of a matrix product, best of 5.

    A product of size n takes 2 n^3 operations.
    """
    a, b = torch.randn(2, size, size, dtype=dtype, device=device)
    a @ b
    best = float("inf")
    for _ in range(5):
        wait_for(device)
        begin = time.perf_counter()
        a @ b
        wait_for(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def wait_for(device: str | torch.device) -> None:
    """Wait until a device has done its work; a CPU has when a call returns."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def own_memory() -> int:
    """Return the bytes of memory of this process, without files mapped into it (Linux)."""
    status = Path("/proc/self/status").read_text("ascii")
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


@dataclass(frozen=True)
class Labelled:
    """An image (H, W, C) and its true classes (H, W)."""

    name: str
    image: NDArray[Any]
    truth: NDArray[np.uint8]


def read_set(folder: Path) -> tuple[list[Labelled], ClassTable]:
    """Return all labelled images of a folder, and its classes."""
    pairs = pairing.find_pairs(folder)
    raw = {str(p.mask): reading.read_mask(p.mask) for p in pairs}
    table = pairing.load_classes(folder) or discovery.discover(
        {name: masks.find_keys(mask) for name, mask in raw.items()}
    )
    found = [
        Labelled(p.name, reading.read_image(p.image), masks.decode(raw[str(p.mask)], table))
        for p in pairs
    ]
    return found, table


def copy_pairs(pairs: Iterable[Pair], target: Path) -> Path:
    """Copy images and masks into a folder of labelled images."""
    for pair in pairs:
        for part, path in (("images", pair.image), ("masks", pair.mask)):
            (target / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / part / path.name)
    return target


def write_values(
    folder: Path,
    target: Path,
    change: Callable[[NDArray[np.uint8], int], NDArray[np.uint8]] | None = None,
) -> Path:
    """Write a copy of a folder of labelled images whose masks are values, 255 where ignored.

    Args:
        folder: The folder of labelled images.
        target: The copy.
        change: Takes a mask (H, W) and the number of its image; returns the part of the mask that
            is kept.
    """
    table = LabelledFolder(folder, PatchSettings(val=0)).table
    values = ClassTable(
        tuple(replace(entry, value=i) for i, entry in enumerate(table.classes)), (IGNORED,)
    )
    kept = total = 0
    for number, pair in enumerate(pairing.find_pairs(folder)):
        mask = masks.decode(pair.read_mask(), table, pair.mask)
        mask = mask if change is None else change(mask, number)
        kept, total = kept + int((mask != IGNORED).sum()), total + mask.size
        image = reading.read_image(pair.image)
        pairing.write_labelled(target, pair.image.stem, image, mask, values)
    pairing.write_classes(target, values)
    print(f"{target.name}: {100 * kept / total:.2f} % of the pixels are labelled", flush=True)
    return target


def draw_pairs(source: Path, count: int, seed: int, target: Path) -> Path:
    """Copy ``count`` labelled images of a folder, drawn by ``seed``, and its classes."""
    pairs = pairing.find_pairs(source)
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:count]
    copy_pairs((pairs[i] for i in drawn), target)
    if (source / "classes.toml").exists():
        shutil.copy(source / "classes.toml", target)
    return target


def new_learner(store: Store, **settings) -> Learner:
    """Return the learner of a store's patches with these settings."""
    recipe = resolve(TrainSettings(epochs=1, **settings), store.info.size)
    return Learner(Batches(store, recipe), recipe, new_network(recipe, store.info), 1000)


def advance(learner: Learner) -> None:
    """Learn from the next batch, after the last from the first."""
    learner.advance(1e-3)
    if learner.epoch_is_whole:
        learner.close_epoch()


def advance_for(learner: Learner, seconds: float) -> tuple[float, float]:
    """Learn for so long, after a first step that also allocates.

    Returns:
        Patches a second, and the seconds of a step.
    """
    advance(learner)
    wait_for(learner.batches.device)
    first, begin = learner.position, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        for _ in range(STEPS_PER_READ[learner.batches.device.type]):
            advance(learner)
        wait_for(learner.batches.device)
    passed, last = time.perf_counter() - begin, learner.position
    return (last.patches_seen - first.patches_seen) / passed, passed / (last.step - first.step)


def train_as(
    kind: type[Batches], store: Path, run: Path, learner: type[Learner] = Learner, **settings
) -> Trainer:
    """Train on batches of a class from the start to the end; the model is in the folder ``run``."""
    opened = open_store(store)
    recipe = resolve(TrainSettings(**settings), opened.info.size)
    torch.manual_seed(recipe.seed)
    batches, network = kind(opened, recipe), new_network(recipe, opened.info)
    rate = measure_rate(batches, recipe, network)
    clock = StepClock(recipe.epochs, batches.steps_per_epoch, len(batches.data), rate)
    trainer = Trainer(
        learner(batches, recipe, network, clock.expected_steps),
        clock,
        Artefacts(opened, RunFolder(run), recipe),
        Course(validate_every=1),
        Threads(None),
        None,
        Caught(),
        silent,
    )
    trainer.run()
    return trainer


def quick_scores(run: Path, test: Path) -> Scores:
    """Return the scores of a run on whole images, windows side by side: a quarter of the time."""
    return evaluate(test, model=[str(run)], settings=PredictSettings(stride="100%")).scores


def lines_ellipses(target: Path) -> tuple[Path, Path]:
    """Return folders to train on and to score: every fifth image in natural order is kept apart."""
    pairs = pairing.find_pairs(DATA / "lines-ellipses")
    train = [p for i, p in enumerate(pairs) if i % 5]
    test = [p for i, p in enumerate(pairs) if i % 5 == 0]
    return copy_pairs(train, target / "train"), copy_pairs(test, target / "test")


def camvid(target: Path) -> tuple[Path, Path]:
    """Return folders to train on and to score: the sequence 0016E5 is kept apart."""
    pairs = pairing.find_pairs(DATA / "camvid-100")
    apart = re.compile("^0016E5")
    folders = (
        copy_pairs((p for p in pairs if not apart.search(p.name)), target / "train"),
        copy_pairs((p for p in pairs if apart.search(p.name)), target / "test"),
    )
    names = [
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ]
    text = "ignore = [11]\n" + "".join(
        f'[[class]]\nname = "{name}"\nvalue = {value}\n' for value, name in enumerate(names)
    )
    for path in folders:
        (path / "classes.toml").write_text(text)
    return folders
