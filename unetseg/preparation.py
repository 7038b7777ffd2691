"""Making what training reads: synthetic sets, and patch stores from folders of labelled images."""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import __version__, folder, images, masks, pixels, synthesis
from unetseg.augmentation import symmetries_of
from unetseg.classes import ClassTable
from unetseg.config import PatchSettings
from unetseg.errors import InputError, show
from unetseg.inspection import Survey, inspect_folder
from unetseg.interrupts import catching
from unetseg.patches import (
    auto_count,
    auto_size,
    covered_share,
    cut,
    margin_of,
    pad_for_cutting,
    sample_corners,
)
from unetseg.pixels import scaled_size
from unetseg.progress import Note, OnProgress, Progress, ignore
from unetseg.store import Source, StoreInfo, write_store
from unetseg.synthesis import SynthSettings

_AUTO_BYTES = 1 << 30  # what --per-image auto stores at most


def synthesize(
    out: str | os.PathLike[str] = "data",
    *,
    n: int = 100,
    n_test: int = 10,
    settings: SynthSettings | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> tuple[Path, Path]:
    """Write a synthetic set of lines and ellipses whose true masks are known.

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
    for option, count, least in (("--n", n, 1), ("--n-test", n_test, 0)):
        if not least <= count <= 10**6:
            raise InputError(option, f"{count} is out of range", f"{least} to 1000000")
    parts = [(Path(out) / split, split, count) for split, count in (("train", n), ("test", n_test))]
    for path, _, _ in parts:
        if not overwrite and _labelled_files(path):
            whole = (path / "classes.toml").exists()
            text = "already holds labelled images" if whole else "holds a half-written set"
            raise InputError(path, text, "choose another --out, or --overwrite")
        _check_strangers(path)
    done = 0
    size = f"{settings.height} rows x {settings.width} columns"
    on_progress(Note(f"drawing {n + n_test} images of {size} into {show(out)}"))
    with catching() as caught:
        for path, split, count in parts:
            for old in _labelled_files(path):
                old.unlink()
            for index in range(count):
                caught.check(path, "run the same line again with --overwrite")
                image, mask = synthesis.draw_image(settings, split, index)
                folder.write_labelled(path, f"{index:04d}", image, mask, synthesis.CLASSES)
                done += 1
                on_progress(Progress("drawing", done, n + n_test, "images"))
            if count:
                folder.write_classes(path, synthesis.CLASSES)
    return parts[0][0], parts[1][0]


def _labelled_files(path: Path) -> list[Path]:
    """Return what an earlier `synthesize` wrote, its mark of completeness first."""
    parts = ("classes.toml", "images/*.png", "masks/*.png")
    files = [file for part in parts for file in sorted(path.glob(part))]
    return [f for f in files if f.suffix == ".toml" or re.fullmatch("[0-9]{4,6}", f.stem)]


def _check_strangers(path: Path) -> None:
    """Refuse a folder with pictures that `synthesize` did not draw: they are left alone."""
    ours = set(_labelled_files(path))
    others = [f for part in ("images", "masks") for f in sorted((path / part).glob("[!.]*"))]
    for file in others:
        if file not in ours:
            text = f"holds {show(file.name)}, which synth did not draw"
            raise InputError(path, text, "choose another --out")


@dataclass(frozen=True)
class StoreSummary:
    """What was cut into a store.

    Attributes:
        path: The store.
        info: Its header: classes, split, sizes.
        classes_file: The ``classes.toml`` that was read; None where classes are the values found.
        patches: How many were cut from the training images.
        used_share: Share of the training images' labelled pixels that is in at least one patch.
        missing: Names of classes that no held-out image has.
        rare: Names of classes that only one held-out image has.
    """

    path: Path
    info: StoreInfo
    classes_file: Path | None
    patches: int
    used_share: float
    missing: tuple[str, ...]
    rare: tuple[str, ...]

    def __str__(self) -> str:
        info = self.info
        held_out = len(info.held_out)
        return (
            f"{self.path}: {self.patches} patches of {info.size} x {info.size} pixels from "
            f"{len(info.sources) - held_out} images, {held_out} images held out whole"
        )


def build_store(
    source: str | os.PathLike[str] = "data/train",
    out: str | os.PathLike[str] = "data/patches.h5",
    settings: PatchSettings | None = None,
    *,
    classes: Path | None = None,
    ignored: Sequence[int | str] = (),
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> StoreSummary:
    """Cut a folder of labelled images into a patch store.

    Args:
        source: Folder of labelled images, laid out as `unetseg.folder.find_pairs` reads it.
        out: The store to write.
        settings: Patch size and number, split, scale, seed.
        classes: A ``classes.toml`` to use; None takes the folder's own, or the values found.
        ignored: Mask values or colours that are neither trained on nor scored.
        overwrite: Replace a store that is there.
        on_progress: Receives `Progress` and `Note`.

    Raises:
        InputError: Anything in the folder that cannot be read safely in one way.
        MachineError: The disk is full, or writing is not permitted.
    """
    settings, out = settings or PatchSettings(), Path(out)
    if out.exists() and not overwrite:
        raise InputError(out, "already exists", "choose another --out, or --overwrite")
    root = Path(source)
    on_progress(Note(f"cutting the labelled images of {show(root)} into {show(out)}"))
    found = inspect_folder(
        root, settings, classes=classes, ignored=ignored, on_progress=on_progress
    )
    found.refuse()
    assert found.table is not None
    for finding in found.findings:
        on_progress(Note(str(finding), warning=finding.severity == "warning"))
    with catching() as caught:
        surveys = list(found.surveys)
        info, per_image = _plan(root, surveys, found.table, found.halves, settings)
        cutter = _Cutter(surveys, info, per_image, settings, on_progress, caught.check)
        write_store(out, info, sum(per_image), cutter.patches(), cutter.held_out())
    summary = _summary(out, info, found.classes_file, sum(per_image), cutter, found.counts)
    for names, problem in (
        (summary.missing, "no held-out image has {}: there will be no score for it"),
        (summary.rare, "only one held-out image has {}: its score will say little"),
    ):
        if names:
            text = problem.format(", ".join(map(show, names)))
            on_progress(Note(text, warning=True))
    return summary


def _plan(
    root: Path,
    surveys: list[Survey],
    table: ClassTable,
    halves: NDArray[np.int64],
    settings: PatchSettings,
) -> tuple[StoreInfo, list[int]]:
    """Return the store's header, and how many patches each image gives (0 where held out)."""
    counts = halves[:, 0].sum(1)  # (images, classes)
    names = [s.pair.name for s in surveys]
    groups = [folder.group_of(n, settings.group) for n in names] if settings.group else names
    splits = folder.split_groups(
        groups,
        counts > 0,
        [s.sha256 for s in surveys],
        settings.val,
        settings.seed,
    )
    shapes = [scaled_size(*s.shape, settings.scale) for s in surveys]
    train = [i for i, split in enumerate(splits) if split == "train"]
    size = settings.size or auto_size([shapes[i] for i in train])
    channels = max(s.channels for s in surveys)
    per_image = [0] * len(surveys)
    for i in train:
        per_image[i] = settings.per_image or auto_count(shapes[i], size, settings.rare)
    if settings.per_image is None:
        itemsize = np.dtype(surveys[0].info.dtype).itemsize
        patch_bytes = (size + 2 * margin_of(size)) ** 2 * (channels * itemsize + 1)
        excess = sum(per_image) * patch_bytes / _AUTO_BYTES
        per_image = [math.ceil(count / excess) for count in per_image] if excess > 1 else per_image
    mean, std = _statistics([surveys[i] for i in train], channels, settings)
    pixels = {name: counts[[split == name for split in splits]].sum(0) for name in ("train", "val")}
    info = StoreInfo(
        size=size,
        margin=margin_of(size),
        seed=settings.seed,
        settings=dataclasses.asdict(settings)
        | {"symmetries": sorted(symmetries_of(halves[train]))},
        folder=str(root),
        classes=table,
        mean=mean,
        std=std,
        dtype=surveys[0].info.dtype,
        channels=channels,
        scale=settings.scale,
        class_pixels_train=tuple(int(c) for c in pixels["train"]),
        class_pixels_val=tuple(int(c) for c in pixels["val"]),
        sources=tuple(
            Source(
                s.pair.image.name, s.sha256, group, split, *(shape if split == "train" else s.shape)
            )
            for s, group, split, shape in zip(surveys, groups, splits, shapes, strict=True)
        ),
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return info, per_image


def _statistics(
    surveys: list[Survey], channels: int, settings: PatchSettings
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel over the images; a constant one gets 1."""
    total, squares, pixels = np.zeros(channels), np.zeros(channels), 0
    for s in surveys:
        image = images.read_scaled(s.pair.image, channels, settings.scale, settings.page)
        image = image.astype(np.float64)
        total += image.sum((0, 1))
        squares += (image**2).sum((0, 1))
        pixels += image.shape[0] * image.shape[1]
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


class _Cutter:
    """Reads the images once more and cuts them; counts which labelled pixels are used."""

    def __init__(
        self,
        surveys: list[Survey],
        info: StoreInfo,
        per_image: list[int],
        settings: PatchSettings,
        on_progress: OnProgress,
        check: Callable[[object, str], None],
    ) -> None:
        self.surveys, self.info, self.per_image = surveys, info, per_image
        self.settings, self.on_progress, self.check = settings, on_progress, check
        self.used = self.labelled = self.done = 0

    def patches(
        self,
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], int, tuple[int, int]]]:
        """Yield every patch: image, mask, index of its source, corner of its core."""
        size = self.info.size
        for index, (s, count) in enumerate(zip(self.surveys, self.per_image, strict=True)):
            if not count:
                continue
            image, mask = self._read(s, self.info.scale)
            rng = np.random.default_rng([self.settings.seed, index])
            corners = sample_corners(mask, size, count, self.settings.rare, rng)
            used, labelled = covered_share(mask, corners, size)
            self.used, self.labelled = self.used + used, self.labelled + labelled
            padded_image, padded_mask = pad_for_cutting(image, mask, size)
            for corner in corners:
                place = (int(corner[0]), int(corner[1]))
                yield cut(padded_image, place, size), cut(padded_mask, place, size), index, place

    def held_out(self) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
        """Yield the held-out images whole and at full size, as ``predict`` gets them."""
        for s, source in zip(self.surveys, self.info.sources, strict=True):
            if source.split == "val":
                yield self._read(s, 1.0)

    def _read(self, s: Survey, scale: float) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        self.check(self.info.folder, "run the same line again")
        image = images.read_scaled(s.pair.image, self.info.channels, scale, self.settings.page)
        mask = masks.decode(
            images.read_mask(s.pair.mask, self.settings.page), self.info.classes, s.pair.mask
        )
        self.done += 1
        text = show(s.pair.name)
        self.on_progress(Progress("cutting", self.done, len(self.surveys), "images", text))
        return image, pixels.rescale_mask(mask, (image.shape[0], image.shape[1]))


def _summary(
    out: Path,
    info: StoreInfo,
    classes_file: Path | None,
    count: int,
    cutter: _Cutter,
    counts: NDArray[np.int64],
) -> StoreSummary:
    held_out = [s.split == "val" for s in info.sources]
    having = (counts[held_out] > 0).sum(0)  # held-out images that have each class
    names = info.classes.names
    return StoreSummary(
        out,
        info,
        classes_file,
        count,
        cutter.used / max(cutter.labelled, 1),
        tuple(n for n, h in zip(names, having, strict=True) if h == 0) if any(held_out) else (),
        tuple(n for n, h in zip(names, having, strict=True) if h == 1),
    )
