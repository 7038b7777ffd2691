"""Images of 2048 x 2048: the time of a whole run, part by part.

``python -m tests.benchmarks large [IMAGES]`` takes another number of images to train on; a fifth as
many are predicted and scored.
"""

import tempfile
import time
from pathlib import Path

from tests.benchmarks.common import machine, print_table
from unetseg import build_store, evaluate, predict, synthesize, train
from unetseg.settings import SynthSettings

IMAGES = 10


def main(words: list[str]) -> None:
    """Measure and print."""
    images = int(words[0]) if words else IMAGES
    new = -(-images // 5)
    rows = []

    def timed(name: str, work, *arguments, **settings):
        begin = time.perf_counter()
        result = work(*arguments, **settings)
        rows.append((name, time.perf_counter() - begin))
        return result

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shape = SynthSettings(2048, 2048, max_shapes=200)
        name = f"synth, {images + new} images"
        timed(name, synthesize, root, n=images, n_test=new, settings=shape)
        summary = timed(f"patch, {images} images", build_store, root / "train", root / "patches.h5")
        patches = summary.patches
        timed(f"train, {patches} patches x 1", train, root / "patches.h5", run=root / "r", epochs=1)
        model = [str(root / "r")]
        timed(f"predict, {new} images", predict, [root / "test"], model=model, out=root / "out")
        found = timed(f"evaluate, {new} images", evaluate, root / "test", model=model)
        print(f"mean IoU {found.scores.mean_iou:.3f} after one pass")
    print_table(f"A run on images of 2048 x 2048 ({machine()})", ["part", "seconds"], rows)
