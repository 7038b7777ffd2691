"""Images of 2048 x 2048: the time of a whole run, part by part."""

import tempfile
import time
from pathlib import Path

from tests.benchmarks.common import machine, print_table
from unetseg import build_store, evaluate, predict, synthesize, train
from unetseg.synthesis import SynthSettings


def main(_: list[str]) -> None:
    """Measure and print."""
    rows = []

    def timed(name: str, work, *arguments, **settings):
        begin = time.perf_counter()
        result = work(*arguments, **settings)
        rows.append((name, time.perf_counter() - begin))
        return result

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shape = SynthSettings(2048, 2048, max_shapes=200)
        timed("synth, 12 images", synthesize, root, n=10, n_test=2, settings=shape)
        summary = timed("patch", build_store, root / "train", root / "patches.h5")
        patches = summary.patches
        timed(f"train, {patches} patches x 1", train, root / "patches.h5", run=root / "r", epochs=1)
        model = [str(root / "r")]
        timed("predict, 2 images", predict, [root / "test"], models=model, out=root / "out")
        timed("evaluate, 2 images", evaluate, root / "test", models=model)
    print_table(f"A run on images of 2048 x 2048 ({machine()})", ["part", "seconds"], rows)
