"""Very many images or patches: memory and time of the parts that know of all of them.

``python -m tests.benchmarks million [IMAGES] [GIGABYTES]``: seconds, memory and sizes for that many
images (100,000 by default), and a store of so many gigabytes (2) read from a cold disk.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.benchmarks.common import machine, print_table
from tests.benchmarks.predict import peak
from unetseg.classes import table_of
from unetseg.dataset import pairing, splits
from unetseg.dataset.store import Source, StoreInfo, open_store
from unetseg.dataset.store_writer import write_store
from unetseg.network.unet import build_network
from unetseg.prediction import jobs, model_file
from unetseg.prediction.model_file import ModelCard, ModelSource
from unetseg.settings import WHOLE
from unetseg.training.batches import Patches, epoch_order

_SIDE = 16  # of tiny images and patches
_LARGE = 136  # stored side of patches of 96: 96 + 2 x 20


class _Table:
    """Times parts, one after the other."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float, str]] = []

    def timed(self, name: str, work: Callable[[], Any], note: str = "") -> Any:
        """Call ``work`` and add its row."""
        begin, wall = time.process_time(), time.perf_counter()
        result = work()
        spent = time.perf_counter() - wall, time.process_time() - begin
        self.rows.append((name, *spent, note))
        return result


def main(words: list[str]) -> None:
    """Measure and print."""
    count = int(words[0]) if words else 100_000
    gigabytes = float(words[1]) if len(words) > 1 else 2.0
    table = _Table()
    for patches in (10**6, 2 * 10**7):
        table.timed(f"order of {patches:,} patches", lambda n=patches: epoch_order(n, 0, 0))
    with tempfile.TemporaryDirectory(dir=".") as place:
        home = Path(place)
        _names(table, home, count)
        info = _small_store(table, home, count)
        _model(table, home, info)
        _large_store(table, home, gigabytes)
        for images in sorted({min(count, 1000), min(count, 10_000)}):
            _check(table, home / f"check-{images}", images)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    columns = ["part", "seconds", "of a core", ""]
    title = f"{count:,} images ({machine()}; peak memory {memory:.1f} GiB)"
    print_table(title, columns, table.rows)


def _names(table: _Table, home: Path, count: int) -> None:
    """Listing, pairing and splitting, and the work of `predict` before the first image."""
    for name in ("images", "masks"):
        (home / name).mkdir()
    Image.fromarray(np.zeros((_SIDE, _SIDE), np.uint8)).save(home / "one.png")
    picture = (home / "one.png").read_bytes()
    for k in range(count):
        (home / "images" / f"img_{k:07d}.png").write_bytes(picture)
        (home / "masks" / f"mask_{k:07d}.png").write_bytes(picture)
    pairs = table.timed("list and pair a folder", lambda: pairing.find_pairs(home))
    names, rng = [pair.name for pair in pairs], np.random.default_rng(0)
    hashes, present = [f"{k:064x}" for k in range(count)], rng.random((count, 3)) < 0.9
    groups = [name[:-1] for name in names]  # of ten each
    table.timed("split", lambda: splits.split_groups(names, present, hashes, 0.2, 0))
    table.timed("split by group", lambda: splits.split_groups(groups, present, hashes, 0.2, 0))
    table.timed("five folds by group", lambda: splits.split_folds(groups, present, hashes, 5, 0))
    found = table.timed("predict: list", lambda: jobs.find_images([home / "images"]))
    wanted = jobs.Wanted(home / "out", overlay=False)
    made = table.timed(
        "predict: read the headers",
        lambda: jobs.make_jobs(found, wanted, WHOLE),
    )
    table.timed("predict: check what is in the way", lambda: jobs.check_places(made, False))


def _small_store(table: _Table, home: Path, count: int) -> StoreInfo:
    """A store with a tiny patch of each image to train on, and the others held out."""
    sources = tuple(
        Source(f"img_{k:07d}.png", f"{k:064x}", f"img_{k:07d}", split, _SIDE, _SIDE)
        for k in range(count)
        for split in ("val" if k % 5 == 0 else "train",)
    )
    info = StoreInfo(
        size=_SIDE, margin=0, seed=0, settings={}, folder=".", classes=table_of([0, 1]),
        mean=(0.0,), std=(1.0,), dtype="uint8", channels=1, scale=1.0,
        class_pixels_train=(1, 1), class_pixels_val=(1, 1), sources=sources, version="0",
        created="2026-01-01T00:00:00",
    )  # fmt: skip
    image, mask = np.zeros((_SIDE, _SIDE, 1), np.uint8), np.zeros((_SIDE, _SIDE), np.uint8)
    train = [k for k, source in enumerate(sources) if source.split == "train"]
    patches = ((image, mask, k, (0, 0)) for k in train)
    held_out = ((image, mask) for _ in range(count - len(train)))
    path = home / "small.h5"
    table.timed("store: write", lambda: write_store(path, info, len(train), patches, held_out))
    size = f"{path.stat().st_size / 2**20:,.0f} MiB, tiny images"
    opened = table.timed("store: open, verified", lambda: open_store(path), size)
    table.timed(
        "store: name each held-out image once",
        lambda: [opened.held_out(k)[2] for k in range(opened.held_out_count)],
    )
    return info


def _model(table: _Table, home: Path, info: StoreInfo) -> None:
    """A model file that names all images, as each does."""
    card = ModelCard(
        network="compact", settings={"width": 4, "depth": 1}, channels=1, classes=info.classes,
        mean=info.mean, std=info.std, dtype="uint8", scale=1.0, patch_size=_SIDE, symmetries=(),
        scores={}, name="run", store="small.h5", store_hash="0" * 64,
        sources=tuple(ModelSource(s.name, s.sha256, s.split) for s in info.sources),
        trained="2026-01-01T00:00:00", patches_seen=1,
    )  # fmt: skip
    state, path = build_network("compact", 1, 2, **card.settings).state_dict(), home / "m"
    table.timed("model: write, at each save", lambda: model_file.write_model(path, state, card))
    size = path.stat().st_size
    note = f"{size / 2**20:,.1f} MiB, {size / len(info.sources):.0f} bytes an image"
    table.timed("model: read", lambda: _outcome(lambda: model_file.load_model(path)), note)


_LOOK = """
import time
from unetseg import inspect_folder
begin = time.perf_counter(), time.process_time()
inspect_folder(sys.argv[1])
print(time.perf_counter() - begin[0])
print(time.process_time() - begin[1])
print(size())
"""


def _check(table: _Table, folder: Path, count: int) -> None:
    """Look at labelled images of smooth noise, in a process of its own, as `check` does."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8))
        image = coarse.resize((64, 64), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{k}.png")
        Image.fromarray(np.asarray(image) // 128).save(folder / "masks" / f"{k}.png")
    times, memory = peak(_LOOK, folder)
    table.rows.append((f"check: {count:,} of 64 x 64", *times, f"{memory:,.0f} MB in all"))


def _outcome(work: Callable[[], object]) -> None:
    try:
        work()
    except model_file.InputError as error:
        print(error)


def _large_store(table: _Table, home: Path, gigabytes: float) -> None:
    """A store read at random from a disk whose cache is empty, as where memory is too small."""
    count = int(gigabytes * 1e9 / _LARGE**2 / 4)
    source = Source("a.png", "0" * 64, "a", "train", 4096, 4096)
    info = StoreInfo(
        size=96, margin=20, seed=0, settings={}, folder=".", classes=table_of([0, 1]),
        mean=(0.0,) * 3, std=(1.0,) * 3, dtype="uint8", channels=3, scale=1.0,
        class_pixels_train=(1, 1), class_pixels_val=(1, 1), sources=(source,), version="0",
        created="2026-01-01T00:00:00",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (_LARGE, _LARGE, 3), np.uint8)
    mask = np.zeros((_LARGE, _LARGE), np.uint8)
    path = home / "large.h5"
    patches = ((image, mask, 0, (0, 0)) for _ in range(count))
    note = f"{count:,} patches of {_LARGE} x {_LARGE}, RGB"
    table.timed(f"store of {gigabytes:g} GB: write", lambda: write_store(
        path, info, count, patches, ()), note)  # fmt: skip
    table.timed("... open, verified", lambda: open_store(path))
    order = epoch_order(count, 0, 0)[: min(count, 4000) // 8 * 8].reshape(-1, 8)
    for name, cold in (("from the system's cache", False), ("from the disk", True)):
        if cold:
            _forget(path)
        part = f"... {order.size:,} at random {name}"
        table.timed(part, lambda: _read_at_random(path, order))
        seconds = table.rows[-1][1]
        table.rows[-1] = (*table.rows[-1][:3], f"{order.size / seconds:,.0f} patches a second")


def _read_at_random(path: Path, order: NDArray[np.int64]) -> None:
    opened = open_store(path, verify=False)
    info, cpu = opened.info, torch.device("cpu")
    # So many processes that none has room for a copy of its own.
    data = Patches(opened.images, opened.masks, info.mean, info.std, cpu, processes=10**9)
    for indices in order:
        data.batch(indices)


def _forget(path: Path) -> None:
    """Drop the system's copy of a file in memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
