"""Patches a second, loading and augmentation included, and how near the machine's limit that is.

The other side is the published recipe trained the plain way: its 64-base network, float32,
contiguous layout, SGD. A DataLoader with two workers reads its patches from PNG files. Where the
processor multiplies bfloat16 faster, ours are measured in both precisions; the machine's rate is
always that of float32.

``python -m tests.benchmarks speed shares`` measures only the share of the machine's rate. It counts
processor time of one thread, and steps take turns with matrix products: other work changes little.
"""

import itertools
import tempfile
import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.common import (
    advance,
    advance_for,
    count_processor_time,
    machine,
    matmul_rate,
    new_learner,
    print_table,
)
from unetseg import PatchSettings, build_store, open_store, synthesize
from unetseg.devices import is_fast_in_bfloat16
from unetseg.network.unet import build_network
from unetseg.training.learner import Learner

_SECONDS = 20.0  # measured on each side


class _PngPatches(Dataset):
    def __init__(self, root: Path, count: int) -> None:
        self.root, self.count = root, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = iio.imread(self.root / f"{index}.png").astype(np.float32) / 255
        mask = iio.imread(self.root / f"{index}m.png").astype(np.int64)
        return torch.from_numpy(image)[None], torch.from_numpy(mask)


def published_rate(store, root: Path) -> float:
    """Return the patches a second of the published recipe, batches of 16."""
    core = slice(store.info.margin, store.info.margin + store.info.size)
    count = min(400, len(store.images))
    for i in range(count):
        iio.imwrite(root / f"{i}.png", store.images[i][core, core, 0])
        iio.imwrite(root / f"{i}m.png", np.minimum(store.masks[i][core, core], 2))
    network = build_network("classic", 1, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    loader = DataLoader(_PngPatches(root, count), 16, shuffle=True, num_workers=2)
    seen, begin = 0, None
    for images, masks in loader:
        optimizer.zero_grad()
        F.cross_entropy(network(images), masks).backward()
        optimizer.step()
        if begin is None:  # the first batch also starts the workers
            begin = time.perf_counter()
            continue
        seen += len(images)
        if time.perf_counter() - begin > _SECONDS:
            break
    return seen / (time.perf_counter() - begin)


def our_rate(store, name: str, precision: str) -> tuple[float, float, float]:
    """Return patches a second, the share of a step outside the arithmetic, operations a patch."""
    learner = new_learner(store, network=name, precision=precision)
    rate, step_seconds = advance_for(learner, _SECONDS)
    operations = operations_of(learner)

    repeats, begin = 20, time.perf_counter()
    for i in range(repeats):
        learner.batches.batch(0, i % learner.batches.steps_per_epoch)
        learner.average.update_parameters(learner.network)
    outside = (time.perf_counter() - begin) / repeats / step_seconds
    return rate, outside, operations


def shares(store) -> None:
    """Print the share of the rate of matrix products that each network trains at."""
    count_processor_time()
    rows = []
    for name, precision in itertools.product(("compact", "fused"), precisions()):
        learner, seconds = new_learner(store, network=name, precision=precision), []
        work = operations_of(learner)
        a, b = torch.randn(2, 2048, 2048)
        for _ in range(20):
            begin = time.process_time()
            a @ b
            between = time.process_time()
            advance(learner)
            seconds.append((between - begin, time.process_time() - between))
        product, step = np.median(seconds[5:], 0)  # the first steps also allocate
        limit, patches = 2 * 2048**3 / product, learner.batches.size
        share = f"{100 * work * patches / step / limit:.0f} %"
        rows.append((f"{name}, {precision}", 1e3 * step, patches / step, limit / 1e9, share))
    columns = ["", "ms a step", "patches/s", "float32 GFLOP/s", "share"]
    print_table(f"Training with one thread, 96 x 96 grey ({machine()})", columns, rows)


def precisions() -> tuple[str, ...]:
    """Return the precisions in which training is measured here."""
    fast = is_fast_in_bfloat16(torch.device("cpu"))
    return ("float32", "bfloat16") if fast else ("float32",)


def operations_of(learner: Learner) -> float:
    """Return the operations of a step for each patch, forwards and backwards."""
    pictures, masks = learner.batches.batch(0, 0)
    with FlopCounterMode(display=False) as counter:
        learner.loss(learner.network(pictures), masks).backward()
    learner.optimizer.zero_grad()
    return counter.get_total_flops() / len(pictures)


def main(words: list[str]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthesize(root / "data", n=80, n_test=0)
        settings = PatchSettings(size=96, per_image=20, val=0)
        build_store(root / "data/train", root / "patches.h5", settings)
        store = open_store(root / "patches.h5")
        if "shares" in words:
            shares(store)
            return
        limit, half = matmul_rate(), matmul_rate(dtype=torch.bfloat16)
        found = [
            (f"unetseg {name}, {precision}", *our_rate(store, name, precision))
            for precision, name in itertools.product(precisions(), ("compact", "classic"))
        ]
        (root / "png").mkdir()
        published = published_rate(store, root / "png")
        operations = found[1][3]  # of the same network, classic
        found.append(("published recipe, plain", published, "", operations))
        limit = max(limit, matmul_rate())
        rows = [
            (name, rate, rate / published, count / 1e9, rate * count / limit, outside)
            for name, rate, outside, count in found
        ]
    columns = ["", "patches/s", "ratio", "GFLOP/patch", "share of matmul rate", "outside share"]
    rates = f"{limit / 1e9:.0f} GFLOP/s, in bfloat16 {half / 1e9:.0f}"
    print_table(f"Training, 96 x 96 grey ({machine()}; {rates})", columns, rows)
