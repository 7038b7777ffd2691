"""The ground of the tests: tiny labelled sets, written without unetseg; runs, models, pictures."""

import csv
import io
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image
from safetensors.numpy import load_file

from unetseg.classes import IGNORED
from unetseg.errors import as_option, worded
from unetseg.features import encoder_weights
from unetseg.prediction.model_file import load_model, read_card, write_model
from unetseg.prediction.segmenter import Computed, Segmenter
from unetseg.progress import Note, Progress

# Real images, which not every checkout has.
DATA = Path(os.environ.get("UNETSEG_DATA", Path(__file__).parents[1] / "../shared/data"))
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


def scribble(mask, seed=0, discs=3):
    """Return a few discs of true labels in each class, the rest unpainted."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(mask.shape)
    near = np.zeros(mask.shape, bool)
    for value in np.unique(mask):
        places = np.argwhere(mask == value)
        for row, column in places[rng.integers(0, len(places), discs)]:
            near |= (rows - row) ** 2 + (columns - column) ** 2 <= 4
    return np.where(near, mask, IGNORED).astype(np.uint8)


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


def write_tiff(name, shape=(300, 210), **options):
    """Write a grey TIFF whose sides are multiples of no window; return the image."""
    image, _ = draw(7, shape)
    tifffile.imwrite(name, image[..., 0], **options)
    return image


def write_images(folder, count, **look):
    """Write ``im<k>`` as `draw` makes them into a folder, without masks; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        write_image(folder / f"im{k}", draw(k, **look)[0])
    return folder


def wait_until(condition, seconds=60):
    """Ask until a condition holds; return what it gave then."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"nothing happened in {seconds} s"
        time.sleep(0.005)
    return found


def count_predictions(monkeypatch):
    """Return the counts of how often each image is predicted from now on, by its pixels."""
    seen, averages, together = Counter(), Segmenter._averages_of, Segmenter.together

    def counted_alone(self, image):
        if not isinstance(image, Computed):
            seen[image[0 : image.shape[0]].tobytes()] += 1
        return averages(self, image)

    def counted_together(self, images):
        if len(images) > 1:
            seen.update(image[0 : image.shape[0]].tobytes() for image in images)
        return together(self, images)

    monkeypatch.setattr(Segmenter, "_averages_of", counted_alone)
    monkeypatch.setattr(Segmenter, "together", counted_together)
    return seen


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


def rows_of(run):
    """Return the rows of a run's history as dicts of texts."""
    with open(Path("runs") / run / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    times = ("seconds", "patches_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def changed_encoder_weights():
    """Return the installed weights of the encoder with another first convolution."""
    original = torch.load(io.BytesIO(encoder_weights._installed()), weights_only=True)
    return {**original, "_conv_stem.weight": original["_conv_stem.weight"] * 0.5}


def weights(run):
    return load_file(f"runs/{run}/model.safetensors")


def assert_equal_runs(one, other):
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert without_times(rows_of(one)) == without_times(rows_of(other))
    assert read_card(f"runs/{one}/model.safetensors").scores == (
        read_card(f"runs/{other}/model.safetensors").scores
    )


def stopping(when):
    """Return an on_progress that sends this process SIGTERM once, where ``when(record)``."""
    sent = []

    def report(record):
        if not sent and when(record):
            sent.append(record)
            signal.raise_signal(signal.SIGTERM)

    return report


def at_step(number):
    return lambda r: isinstance(r, Progress) and r.stage == "training" and r.done >= number


def at_patches(number):
    return lambda r: isinstance(r, Progress) and r.stage == "training" and r.done == number


def read(path):
    """Return the pixels of a file as Pillow reads them: palette masks as their values."""
    with Image.open(path) as picture:
        return np.array(picture)


def with_card(run, new, **changes):
    """Write the model of a run again as run ``new``, with changes to its card."""
    network, card = load_model(f"runs/{run}/model.safetensors")
    Path(f"runs/{new}").mkdir()
    write_model(f"runs/{new}/model.safetensors", network.state_dict(), replace(card, **changes))


def pil(pixels, kind="PNG", mode=None, palette=None, **options) -> bytes:
    picture = Image.fromarray(pixels)
    picture = picture.convert(mode) if mode else picture
    if palette:
        picture.putpalette(palette)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def tif(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def typed(error) -> str:
    """Return an error as the command line says it."""
    return worded(error.message, as_option)


def put(folder: Path, data: bytes, name: str = "a.png") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def said(run):
    """Return (result of ``run(on_progress)``, the text of its notes)."""
    seen = []
    result = run(seen.append)
    return result, "\n".join(r.text for r in seen if isinstance(r, Note))


def masks_of(folder):
    """Return the masks (H, W) in a folder by their stems."""
    return {p.stem: read(p) for p in sorted(Path(folder).glob("*.png"))}
