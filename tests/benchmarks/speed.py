"""Patches a second, loading and augmentation included, and how near the machine's limit that is.

The other side is the published recipe trained the plain way: its 64-base network, float32,
contiguous layout, SGD. A DataLoader with two workers reads its patches from PNG files. Where the
processor multiplies bfloat16 faster, ours are measured in both precisions; the machine's rate is
always that of float32.

``python -m tests.benchmarks speed shares`` measures only the share of the machine's rate. It counts
processor time of one thread, and steps take turns with matrix products: other work changes little.
The recipe's patches are in memory there, so that its steps are the arithmetic alone.

``python -m tests.benchmarks speed profile`` prints the share of each operation in a step. With a
C++ compiler, ``speed compiled`` compares steps with those of a network that `torch.compile` has
compiled. All three take ``float32`` or ``bfloat16`` to measure one precision alone.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.common import (
    advance,
    advance_for,
    count_processor_time,
    machine,
    matmul_rate,
    names_in,
    new_learner,
    print_table,
)
from unetseg import PatchSettings, build_store, open_store, synthesize
from unetseg.devices import is_fast_in_bfloat16
from unetseg.network.unet import build_network
from unetseg.training.learner import Learner

_SECONDS = 20.0  # measured on each side
_BATCH = 16  # patches of the recipe
_NETWORKS = ("compact", "fused", "classic")
_QUICK = _NETWORKS[:2]  # those that are made for a CPU
_SHOWN = 14  # operations of a profile


class _PngPatches(Dataset):
    def __init__(self, root: Path, count: int) -> None:
        self.root, self.count = root, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = iio.imread(self.root / f"{index}.png").astype(np.float32) / 255
        mask = iio.imread(self.root / f"{index}m.png").astype(np.int64)
        return torch.from_numpy(image)[None], torch.from_numpy(mask)


class _Recipe:
    """The published recipe: its network, trained by SGD."""

    def __init__(self) -> None:
        self._network = build_network("classic", 1, 3)
        self._optimizer = torch.optim.SGD(self._network.parameters(), lr=0.01, momentum=0.9)

    def advance(self, images: torch.Tensor, masks: torch.Tensor) -> None:
        """Learn from a batch."""
        self._optimizer.zero_grad()
        F.cross_entropy(self._network(images), masks).backward()
        self._optimizer.step()


def published_rate(store, root: Path) -> float:
    """Return the patches a second of the published recipe."""
    core = slice(store.info.margin, store.info.margin + store.info.size)
    count = min(400, len(store.images))
    for i in range(count):
        iio.imwrite(root / f"{i}.png", store.images[i][core, core, 0])
        iio.imwrite(root / f"{i}m.png", np.minimum(store.masks[i][core, core], 2))
    recipe = _Recipe()
    loader = DataLoader(_PngPatches(root, count), _BATCH, shuffle=True, num_workers=2)
    seen, begin = 0, None
    for images, masks in loader:
        recipe.advance(images, masks)
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


def shares(store, chosen: Sequence[str]) -> None:
    """Print the share of the rate of matrix products that each network trains at."""
    count_processor_time()
    recipe, batch = _Recipe(), (torch.randn(_BATCH, 1, 96, 96), torch.ones(_BATCH, 96, 96).long())
    with FlopCounterMode(display=False) as counter:  # this first step also allocates
        recipe.advance(*batch)
    step, limit = _in_turns(lambda: recipe.advance(*batch), 3)
    work, published = counter.get_total_flops() / _BATCH, _BATCH / step
    rows = [_share_of("published recipe, float32", step, _BATCH, work, limit, published)]
    for name, precision in itertools.product(_QUICK, chosen):
        learner = new_learner(store, network=name, precision=precision)
        work, patches = operations_of(learner), learner.batches.size
        for _ in range(5):  # the first steps also allocate
            advance(learner)
        step, limit = _in_turns(lambda one=learner: advance(one), 15)
        rows.append(_share_of(f"{name}, {precision}", step, patches, work, limit, published))
    columns = ["", "ms a step", "patches/s", "ratio", "float32 GFLOP/s", "share"]
    print_table(f"Training with one thread, 96 x 96 grey ({machine()})", columns, rows)


def _in_turns(work: Callable[[], None], turns: int) -> tuple[float, float]:
    """Return the processor seconds of a call, and the rate of matrix products between the calls."""
    a, b = torch.randn(2, 2048, 2048)
    a @ b
    seconds = []
    for _ in range(turns):
        begin = time.process_time()
        a @ b
        between = time.process_time()
        work()
        seconds.append((between - begin, time.process_time() - between))
    product, call = np.median(seconds, 0)
    return float(call), 2 * 2048**3 / float(product)


def _share_of(
    name: str, step: float, patches: int, work: float, limit: float, published: float
) -> tuple[object, ...]:
    """Return a row of `shares`.

    Args:
        name: The network and its precision.
        step: Seconds of a step.
        patches: Patches of a step.
        work: Operations a patch.
        limit: The rate of matrix products, operations a second.
        published: Patches a second of the published recipe.
    """
    rate = patches / step
    share = f"{100 * work * rate / limit:.0f} %"
    return name, 1e3 * step, rate, rate / published, limit / 1e9, share


def profile(store, chosen: Sequence[str]) -> None:
    """Print where the time of a step goes, by the profiler of torch."""
    count_processor_time()
    for name, precision in itertools.product(_QUICK, chosen):
        learner, steps = new_learner(store, network=name, precision=precision), 10
        for _ in range(5):  # the first steps also allocate
            advance(learner)
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(steps):
                advance(learner)
        found = profiler.key_averages()
        total = sum(event.self_cpu_time_total for event in found)
        inner = sum(e.cpu_time_total for e in found if e.key.startswith("Optimizer.step#"))
        rows = [("the optimizer, with all that it calls", f"{100 * inner / total:.1f} %", "")]
        for event in sorted(found, key=lambda e: -e.self_cpu_time_total)[:_SHOWN]:
            share = f"{100 * event.self_cpu_time_total / total:.1f} %"
            rows.append((event.key, share, event.count / steps))
        title = f"A step of {name}, {precision}, one thread: {total / steps / 1e3:.0f} ms"
        print_table(f"{title} ({machine()})", ["operation", "share", "calls"], rows)


def compiled(store, chosen: Sequence[str]) -> None:
    """Print how much quicker steps are where torch compiles the network."""
    torch.set_num_threads(1)
    rows = []
    for name, precision in itertools.product(_QUICK, chosen):
        plain, other = (new_learner(store, network=name, precision=precision) for _ in range(2))
        other.network.compile()
        begin = time.perf_counter()
        advance(other)
        waited, seconds = time.perf_counter() - begin, []
        for _ in range(15):
            begin = time.process_time()
            advance(plain)
            between = time.process_time()
            advance(other)
            seconds.append((between - begin, time.process_time() - between))
        before, after = np.median(seconds[5:], 0)  # the first steps also allocate
        rows.append((f"{name}, {precision}", 1e3 * before, 1e3 * after, before / after, waited))
    columns = ["", "ms a step", "compiled", "ratio", "seconds of the first step"]
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
        for part in (shares, profile, compiled):
            if part.__name__ in words:
                part(store, names_in(words, precisions()))
                return
        limit, half = matmul_rate(), matmul_rate(dtype=torch.bfloat16)
        found = [
            (f"unetseg {name}, {precision}", *our_rate(store, name, precision))
            for precision, name in itertools.product(precisions(), _NETWORKS)
        ]
        (root / "png").mkdir()
        published = published_rate(store, root / "png")
        operations = found[_NETWORKS.index("classic")][3]  # of the same network
        found.append(("published recipe, plain", published, "", operations))
        limit = max(limit, matmul_rate())
        rows = [
            (name, rate, rate / published, count / 1e9, rate * count / limit, outside)
            for name, rate, outside, count in found
        ]
    columns = ["", "patches/s", "ratio", "GFLOP/patch", "share of matmul rate", "outside share"]
    rates = f"{limit / 1e9:.0f} GFLOP/s, in bfloat16 {half / 1e9:.0f}"
    print_table(f"Training, 96 x 96 grey ({machine()}; {rates})", columns, rows)
