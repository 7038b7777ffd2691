"""How long `convert` takes for masks with smooth edges and masks saved as JPEG.

``python -m tests.benchmarks converting [IMAGES]`` converts IMAGES masks of each kind (4 by
default). It prints the processor's seconds for each megapixel, beside those that decoding and
encoding once take.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from tests.benchmarks.common import machine, print_table
from unetseg.dataset.conversion.copying import convert_folder

_SHAPE = (1024, 1280)
_COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255), (0, 255, 0)], np.uint8)
_ENDINGS = {"smoothed PNG": "png", "smoothed JPEG, quality 90": "jpg"}


def draw(number: int) -> Image.Image:
    """Return forty ellipses of three classes, smoothed by a Gaussian of one pixel."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[: _SHAPE[0], : _SHAPE[1]]
    mask = np.zeros(_SHAPE, np.uint8)
    for _ in range(40):
        height, width = rng.integers(10, 90, 2)
        row, column = rng.integers(0, _SHAPE[0]), rng.integers(0, _SHAPE[1])
        mask[((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1] = rng.integers(
            1, 4
        )
    return Image.fromarray(_COLOURS[mask]).filter(ImageFilter.GaussianBlur(1))


def main(arguments: Sequence[str]) -> None:
    """Measure both kinds and print a table."""
    count, rows = int(arguments[0]) if arguments else 4, []
    megapixels = count * _SHAPE[0] * _SHAPE[1] / 1e6
    with tempfile.TemporaryDirectory() as folder:
        for kind, ending in _ENDINGS.items():
            root = Path(folder, ending)
            for name in ("images", "masks"):
                (root / name).mkdir(parents=True)
            for k in range(count):
                noise = np.random.default_rng(k).integers(0, 256, _SHAPE).astype(np.uint8)
                Image.fromarray(noise).save(root / f"images/{k}.png")
                draw(k).save(root / f"masks/{k}.{ending}", quality=90)
            start = time.process_time()
            for k in range(count):
                Image.open(root / f"masks/{k}.{ending}").convert("P").save(root / f"{k}.png")
            plain = time.process_time() - start
            start = time.process_time()
            convert_folder(root, Path(folder, f"{ending}-out"), limit=0.2)
            taken = time.process_time() - start
            rows.append((kind, taken / megapixels, plain / megapixels))
    columns = ["masks", "convert, s/megapixel", "decode and encode once"]
    print_table(f"Repairing {count} masks of each kind ({machine()})", columns, rows)
