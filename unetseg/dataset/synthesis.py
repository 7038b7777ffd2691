"""Grey images of lines and ellipses with their masks: a set whose answer is known exactly."""

import math
import os
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg.arguments import Reports, public
from unetseg.classes import ClassTable, SegmentationClass
from unetseg.dataset import pairing
from unetseg.errors import InputError, arg
from unetseg.objects.borders import outlined
from unetseg.objects.files import OBJECTS
from unetseg.pictures import bands
from unetseg.progress import Note, steps, warn
from unetseg.settings import SynthSettings
from unetseg.signals import catching
from unetseg.text import plural, show

CLASSES = ClassTable(
    (
        SegmentationClass("background", 0, "#000000"),
        SegmentationClass("line", 1, "#ff0000"),
        SegmentationClass("ellipse", 2, "#00ff00"),
    )
)
_LINE, _ELLIPSE = 1, 2
# The classes of touching ellipses; `unetseg convert --instances` makes the same ones.
TOUCHING_CLASSES = ClassTable(
    (
        SegmentationClass("background", 0, "#000000"),
        SegmentationClass("ellipse", 1, "#00ff00"),
        SegmentationClass("ellipse border", 2, "#ffff00"),
    )
)
_GAP = 2.5  # pixels that touching ellipses are grown by, so that neighbours meet


def draw_image(
    settings: SynthSettings, split: str, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw image ``index`` of ``split`` ("train", "test").

    It depends on the settings, the split and the index alone. So a longer set begins with the
    shorter one, and ``noise`` and ``contrast`` leave every shape in its place.

    The background is Gaussian, truncated to 0.6..1.0 (redrawn, not clipped), and its mean is drawn
    per image from 0.7..0.9. Over it lie 1 to ``max_shapes`` ellipses (radii 5 to 20, axis ratio 0.5
    to 2). Over the ellipses lie 1 to ``max_shapes`` lines (length 20 to 200, half-width 1 or 2).
    Each shape has one grey value from 0..0.7, is centred anywhere in the image at any angle, and is
    cut at the border. Lengths are in pixels.

    Returns:
        The image ``(H, W, 1)`` uint8, and its mask ``(H, W)`` uint8: indices into `CLASSES`.
    """
    rng = _generator(settings, split, index)
    mean = rng.uniform(0.7, 0.9)
    ellipses = [_draw_ellipse(rng) for _ in range(rng.integers(1, settings.max_shapes + 1))]
    lines = [_draw_line(rng) for _ in range(rng.integers(1, settings.max_shapes + 1))]
    places = rng.uniform(size=(len(ellipses) + len(lines), 3))  # row, column, angle
    greys = mean + settings.contrast * (rng.uniform(0, 0.7, len(places)) - mean)

    shape = (settings.height, settings.width)
    mask = np.zeros(shape, np.uint8)
    image = _truncated_normal(rng, mean, settings.noise, shape)  # last: it takes many draws
    for label, radii, place, grey in zip(
        [_ELLIPSE] * len(ellipses) + [_LINE] * len(lines),
        ellipses + lines,
        places * (settings.height, settings.width, math.pi) - (0.5, 0.5, 0),
        greys,
        strict=True,
    ):
        window, inside = _rasterise(label, radii, place, shape)
        image[window][inside] = grey
        mask[window][inside] = label
    return np.rint(image * 255).astype(np.uint8)[..., None], mask


def _generator(settings: SynthSettings, split: str, index: int) -> np.random.Generator:
    key = (zlib.crc32(split.encode()), index)  # separate from the seed, however large that is
    return np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=key))


def draw_touching(
    settings: SynthSettings, split: str, index: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint16]]:
    """Draw image ``index`` of ``split`` with ellipses that touch.

    The background is that of `draw_image`. Ellipses of the same range of radii are thrown at random
    places until fifteen in a row find no room. Then they grow together by up to 2.5 pixels.
    Neighbours share one grey value for an image, so that their contact shows in their outline
    alone.

    Returns:
        The image ``(H, W, 1)`` uint8, its mask ``(H, W)`` uint8 and the numbers ``(H, W)`` uint16.
        The mask holds indices into `TOUCHING_CLASSES`, with the border one pixel wide inside each
        ellipse. A number is that of the pixel's ellipse, 0 in the background.
    """
    from scipy import ndimage

    rng = _generator(settings, split, index)
    mean = rng.uniform(0.7, 0.9)
    grey = mean + settings.contrast * (rng.uniform(0, 0.55) - mean)
    shape = (settings.height, settings.width)
    numbers = np.zeros(shape, np.int32)
    count = failures = 0
    while failures < 15 and count < 65535:
        place = rng.uniform(size=3) * (*shape, math.pi) - (0.5, 0.5, 0)
        window, inside = _rasterise(_ELLIPSE, _draw_ellipse(rng), place, shape)
        taken = numbers[window][inside]
        if taken.any() or not len(taken):
            failures += 1
            continue
        count, failures = count + 1, 0
        numbers[window][inside] = count
    away, nearest = ndimage.distance_transform_edt(numbers == 0, return_indices=True)
    numbers = np.where(away <= _GAP, numbers[tuple(nearest)], 0)
    image = _truncated_normal(rng, mean, settings.noise, shape)
    image[numbers > 0] = grey + settings.noise * rng.standard_normal(int((numbers > 0).sum())) / 2
    mask = outlined(numbers)
    pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)[..., None]
    return pixels, mask, numbers.astype(np.uint16)


def _draw_ellipse(rng: np.random.Generator) -> tuple[float, float]:
    """Draw two radii, both 5 to 20 and neither more than twice the other."""
    first = rng.uniform(5, 20)
    return first, rng.uniform(max(5, first / 2), min(20, 2 * first))


def _draw_line(rng: np.random.Generator) -> tuple[float, float]:
    """Draw half a length, 10 to 100, and a half-width, 1 or 2."""
    return rng.uniform(10, 100), float(rng.integers(1, 3))


def _rasterise(
    label: int, radii: tuple[float, float], place: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Return the window of the image that a shape may touch, and which of its pixels it covers.

    A pixel is covered when its centre is. Let (u, v) be the distances of that centre from the
    shape's centre, along and across, as shares of the radii. An ellipse covers u^2 + v^2 <= 1. A
    line is a rectangle and covers max(|u|, |v|) <= 1.
    """
    row, column, angle = place
    reach = math.hypot(*radii)
    window = (_span(row, reach, shape[0]), _span(column, reach, shape[1]))
    y, x = np.ogrid[window]
    u = ((x - column) * math.cos(angle) + (y - row) * math.sin(angle)) / radii[0]
    v = ((y - row) * math.cos(angle) - (x - column) * math.sin(angle)) / radii[1]
    return window, (u * u + v * v <= 1) if label == _ELLIPSE else np.maximum(abs(u), abs(v)) <= 1


def _span(centre: float, reach: float, length: int) -> slice:
    return slice(max(0, math.floor(centre - reach)), min(length, math.ceil(centre + reach) + 1))


def _truncated_normal(
    rng: np.random.Generator, mean: float, std: float, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Draw float32 values of a normal distribution given that they lie in 0.6..1.0.

    Values outside are drawn again: under a sixth at std 0.1, six sevenths at std 1.
    """
    values: NDArray[np.float32] = rng.standard_normal(shape, np.float32) * std + np.float32(mean)
    flat = values.reshape(-1)
    outside = np.flatnonzero((flat < 0.6) | (flat > 1))
    while len(outside):
        redrawn = rng.standard_normal(len(outside), np.float32) * std + np.float32(mean)
        flat[outside] = redrawn
        outside = outside[(redrawn < 0.6) | (redrawn > 1)]
    return values


@public()
def synthesize(
    out: str | os.PathLike[str] = "data",
    *,
    n: int = 100,
    n_test: int = 10,
    settings: SynthSettings | None = None,
    overwrite: bool = False,
    on_progress: Reports = warn,
) -> tuple[Path, Path]:
    """Write a synthetic set of lines and ellipses whose true masks are known.

    A set of touching ellipses has ``objects/`` beside ``masks/``: 16-bit label images, in which
    each ellipse has a number.

    Args:
        out: Folder that receives ``train/`` and ``test/``, each a folder of labelled images.
        n: Images in ``train``, 1 to 1,000,000.
        n_test: Images in ``test``, 0 to 1,000,000.
        settings: Size, seed and difficulty.
        overwrite: Replace a set that is there.
        on_progress: Receives `Progress`.

    Returns:
        The folders ``train`` and ``test``.

    Raises:
        InputError: Numbers out of range, or a set is there already.
        MachineError: The disk is full, or writing is not permitted.
    """
    settings = settings or SynthSettings()
    for option, count, least in ((arg("n"), n, 1), (arg("n_test"), n_test, 0)):
        if not least <= count <= 10**6:
            raise InputError(option, f"{count} is out of range", f"{least} to 1000000")
    parts = [(Path(out) / split, split, count) for split, count in (("train", n), ("test", n_test))]
    for path, _, _ in parts:
        if not overwrite and _labelled_files(path):
            whole = (path / "classes.toml").exists()
            text = "already holds labelled images" if whole else "holds a half-written set"
            raise InputError(
                path, text, f"choose another {arg('out')}, or {arg('overwrite', True)}"
            )
        _check_strangers(path)
    classes = TOUCHING_CLASSES if settings.touching else CLASSES
    items = [(path, split, index) for path, split, count in parts for index in range(count)]
    again = f"run the same line again with {arg('overwrite', True)}"
    size = f"{settings.height} rows x {settings.width} columns"
    on_progress(Note(f"drawing {plural(n + n_test, 'image')} of {size} into {show(out)}"))
    with catching() as caught:
        for path, _, _ in parts:
            for old in _labelled_files(path):
                old.unlink()
        for path, split, index in steps(
            items, "drawing", "images", on_progress, check=lambda: caught.check(out, again)
        ):
            stem = f"{index:04d}"
            if settings.touching:
                image, mask, numbers = draw_touching(settings, split, index)
                bands.write_numbers(path / OBJECTS / f"{stem}.tif", numbers)
            else:
                image, mask = draw_image(settings, split, index)
            pairing.write_labelled(path, stem, image, mask, classes)
        for path, _, count in parts:
            if count:
                pairing.write_classes(path, classes)
    return parts[0][0], parts[1][0]


def _labelled_files(path: Path) -> list[Path]:
    """Return the paths that an earlier `synthesize` wrote, its mark of completeness first."""
    parts = ("classes.toml", "images/*.png", "masks/*.png", f"{OBJECTS}/*.tif")
    files = [file for part in parts for file in sorted(path.glob(part))]
    return [f for f in files if f.suffix == ".toml" or re.fullmatch("[0-9]{4,6}", f.stem)]


def _check_strangers(path: Path) -> None:
    """Refuse a folder with pictures that `synthesize` did not draw: they are left alone."""
    ours = set(_labelled_files(path))
    others = [
        f for part in ("images", "masks", OBJECTS) for f in sorted((path / part).glob("[!.]*"))
    ]
    for file in others:
        if file not in ours:
            text = f"holds {show(file.name)}, which synth did not draw"
            raise InputError(path, text, f"choose another {arg('out')}")
