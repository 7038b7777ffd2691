"""Training and prediction on a GPU, beside the card's own rate and beside MONAI.

Training is in bfloat16, and its share is of the rate of bfloat16 matrix products in the same run.
Where there are two GPUs, two processes train beside one. Where there is none, one line says so.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.common import (
    advance_for,
    machine,
    matmul_rate,
    median_seconds,
    new_learner,
    print_table,
)
from tests.benchmarks.predict import cover, picture
from tests.benchmarks.ranks import rate_of
from tests.benchmarks.speed import operations_of
from unetseg import PatchSettings, build_store, open_store, synthesize
from unetseg.devices import describe_device

_NETWORKS = ("fused", "compact", "classic")
_PATCHES = (96, 224)  # pixels a side
_SECONDS = 10.0  # of each measurement of training
_PRODUCT = 8192  # a side of the matrices: smaller ones leave a large card idle
_SIDES = (1000, 4096)  # of an image


def training(stores: dict[int, Path], device: str, product: int = _PRODUCT) -> None:
    """Print patches a second of each network, and the share of the rate of matrix products."""
    rows, limit = [], matmul_rate(product, torch.bfloat16, device)
    for size, path in stores.items():
        for name in _NETWORKS:
            learner = new_learner(
                open_store(path), network=name, precision="bfloat16", device=device
            )
            rate, _ = advance_for(learner, _SECONDS)
            work = operations_of(learner)
            share = f"{100 * rate * work / limit:.0f} %"
            batch = learner.batches.size
            rows.append((f"{name}, {size} x {size}", batch, rate, work / 1e9, share))
    columns = ["", "batch", "patches/s", "GFLOP/patch", "share"]
    title = f"Training in bfloat16, grey ({machine()}; {limit / 1e12:.3g} TFLOP/s)"
    print_table(title, columns, rows)


def two_processes(store: Path, device: str) -> None:
    """Print patches a second of one process and of two, each with a GPU of its own."""
    one = new_learner(open_store(store), device=device).batches.size
    rows = []
    for batch in (one, 2 * one):
        rates = [rate_of(n, 1, batch, store, device) for n in (1, 2)]
        rows.append((batch, *rates, rates[1] / rates[0]))
    print_table(f"Patches a second ({machine()})", ["batch", "1 GPU", "2 GPUs", "ratio"], rows)


def covering(device: str, sides: tuple[int, ...] = _SIDES) -> None:
    """Print megapixels a second of each way to cover an image, and the share of equal labels."""
    rows = []
    for side in sides:
        image, labels = picture(side), {}
        for kind in ("monai", "blend", "seamless"):
            work = cover(kind, device=device)
            labels[kind] = work(image)
            rate = side**2 / 1e6 / median_seconds(lambda w=work, i=image: w(i), 3)
            same = f"{100 * np.mean(labels[kind] == labels['monai']):.3f} %"
            rows.append((f"{side} x {side}, {kind}", rate, same))
    columns = ["image", "megapixels/s", "labels as MONAI's"]
    print_table(f"`compact`, windows of 96, half overlap ({machine()})", columns, rows)


def main(_: list[str]) -> None:
    """Measure and print."""
    if not torch.cuda.is_available():
        print("gpu: nothing is measured, as this machine has no GPU")
        return
    print(describe_device(torch.device("cuda")))
    with tempfile.TemporaryDirectory() as folder:
        stores = cut(Path(folder))
        training(stores, "cuda")
        if torch.cuda.device_count() > 1:
            two_processes(stores[_PATCHES[0]], "cuda")
        else:
            print("gpu: two processes are left out, as there is one GPU")
    covering("cuda")


def cut(root: Path) -> dict[int, Path]:
    """Write stores of synthetic images, and return them by the side of their patches."""
    synthesize(root / "data", n=80, n_test=0)
    stores = {size: root / f"{size}.h5" for size in _PATCHES}
    for size, path in stores.items():
        build_store(root / "data/train", path, PatchSettings(size=size, per_image=20, val=0))
    return stores
