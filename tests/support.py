"""Tiny labelled sets that a tiny network learns in seconds, written without unetseg."""

from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

# Settings of `unetseg.train` under which a run takes about a second.
QUICK = {
    **{"network": "compact", "width": 4, "depth": 2},
    **{"epochs": 2, "batch_size": 8, "device": "cpu"},
}
NAMES = ("ground", "square", "stripe")
VALUES_TOML = "".join(f'[[class]]\nname = "{n}"\nvalue = {v}\n' for v, n in enumerate(NAMES))


def draw(number, shape=(64, 56), channels=1, dtype=np.uint8):
    """Return image (H, W, C) and mask (H, W): 0 bright ground, 1 dark square, 2 grey stripe."""
    rng = np.random.default_rng(number)
    mask = np.zeros(shape, np.uint8)
    row, column = rng.integers(0, shape[0] - 20), rng.integers(0, shape[1] - 20)
    stripe = rng.integers(0, shape[0] - 6)
    mask[stripe : stripe + 6] = 2
    mask[row : row + 20, column : column + 20] = 1
    grey = np.array([200.0, 40.0, 120.0])[mask] + rng.normal(0, 8, shape)
    image = np.stack([grey * (1 - 0.1 * c) for c in range(channels)], -1).clip(0, 255)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1.0
    return (image / 255 * top).astype(dtype), mask


def write_set(folder, count, *, first=0, values=(0, 1, 2), toml=VALUES_TOML, ignored=None, **look):
    """Write ``images/im<k>`` and ``masks/im<k>.png``; rows 0 to 4 of a mask are ``ignored``."""
    folder = Path(folder)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for k in range(first, first + count):
        image, mask = draw(k, **look)
        write_image(folder / "images" / f"im{k}", image)
        pixels = np.array(values, np.uint8)[mask]
        if ignored is not None:
            pixels[:5] = ignored
        Image.fromarray(pixels).save(folder / "masks" / f"im{k}.png")
    if toml:
        (folder / "classes.toml").write_text(toml)
    return folder


def write_image(path, image):
    """Write (H, W, C) as PNG where PNG holds it, else as TIFF; return the file."""
    if image.dtype == np.uint8 and image.shape[2] in (1, 3):
        path = path.with_name(path.name + ".png")
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(path)
    else:
        path = path.with_name(path.name + ".tif")
        many = {"planarconfig": "contig"} if image.shape[2] > 1 else {}
        tifffile.imwrite(path, np.squeeze(image), photometric="minisblack", **many)
    return path


def same(a, b):
    """Whether two nests are equal, tensors bit by bit, with equal types."""
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b
