"""Cutting a folder of labelled images into patch stores."""

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unetseg import __version__
from unetseg.arguments import Reports, public, several
from unetseg.dataset.folder import LabelledFolder
from unetseg.dataset.geometry import (
    SPARSE,
    auto_count,
    auto_size,
    covered_pixels,
    cut,
    margin_of,
    pad_for_cutting,
    sample_corners,
    symmetries_of,
)
from unetseg.dataset.splits import Split, has_parts, split_groups, split_parts
from unetseg.dataset.store import Source, StoreInfo
from unetseg.dataset.store_writer import write_store
from unetseg.errors import InputError, arg
from unetseg.progress import Note, OnProgress, warn
from unetseg.records import to_plain
from unetseg.results import Result, Table
from unetseg.settings import PatchSettings
from unetseg.signals import Caught, catching
from unetseg.text import plural, show

if TYPE_CHECKING:
    from unetseg.dataset.spreading import SpreadMask

_AUTO_BYTES = 1 << 30  # the most that is stored where the number of patches is chosen here


@dataclass(frozen=True, repr=False)
class StoreSummary(Result):
    """The content of a store that was just cut.

    Attributes:
        path: The store.
        info: The header of the store: classes, split, sizes.
        classes_file: The ``classes.toml`` that was read; None where classes are the values found.
        patches: The number of patches cut from the training images.
        used_share: The share of the training images' labelled pixels that lie in a patch.
        labelled_share: The share of all images' pixels that are labelled.
        missing: The names of classes that no held-out image shows.
        rare: The names of classes that only one held-out image shows.
    """

    path: Path
    info: StoreInfo
    classes_file: Path | None
    patches: int
    used_share: float
    labelled_share: float
    missing: tuple[str, ...]
    rare: tuple[str, ...]

    def __str__(self) -> str:
        return self.line()

    def line(self) -> str:
        """Return the number of patches and of images."""
        info = self.info
        held_out = plural(len(info.held_out), "image")
        return (
            f"{self.path}: {plural(self.patches, 'patch', 'patches')} of {info.size} x {info.size} "
            f"pixels from {plural(len(info.sources) - len(info.held_out), 'image')}, {held_out} "
            "held out whole"
        )

    def tables(self) -> tuple[Table, ...]:
        """Return the pixels of each class on both sides of the split."""
        info, held_out = self.info, len(self.info.held_out)
        cells = []
        for pixels in (info.class_pixels_train, info.class_pixels_val):
            total = max(sum(pixels), 1)
            cells += [[f"{n:,}" for n in pixels], [f"{100 * n / total:.2f} %" for n in pixels]]
        heads = ["train pixels", "share", "held-out pixels", "share"]
        ignore = info.classes.ignore
        ignored = f", {', '.join(map(str, ignore))} ignored" if ignore else ""
        note = (
            f"Wrote {self.path}: {plural(self.patches, 'patch', 'patches')} of {info.size} x "
            f"{info.size} pixels ({100 * self.used_share:.0f} % of the labelled pixels are used"
            f"{ignored})."
        )
        if self.labelled_share < SPARSE:
            note += (
                f"\n{100 * self.labelled_share:.3g} % of the pixels are labelled. Scores count "
                "these alone; strokes keep away from borders, so whole masks would score lower."
            )
        if spread := info.settings.get("spread_share"):
            note += (
                f"\nTraining learns from {100 * spread:.3g} % more of the pixels, to which labels "
                "were spread. These are never scored."
            )
        title = f"{plural(len(info.sources), 'image')}: {len(info.sources) - held_out:,} to train "
        title += f"on, {held_out:,} held out whole"
        columns = info.classes.table(*zip(heads, cells, strict=True))
        return (columns._replace(title=title, note=note),)

    def records(self) -> list[dict[str, Any]]:
        """Return a row a class, with its pixels on both sides of the split."""
        counts = zip(self.info.class_pixels_train, self.info.class_pixels_val, strict=True)
        return [
            {"class": name, "train_pixels": train, "held_out_pixels": held_out}
            for name, (train, held_out) in zip(self.info.classes.names, counts, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON."""
        return super().to_dict() | {"info": to_plain(self.info)}


@public()
def build_store(
    source: str | os.PathLike[str] = "data/train",
    out: str | os.PathLike[str] = "data/patches.h5",
    patches: PatchSettings | None = None,
    *,
    classes: str | os.PathLike[str] | None = None,
    ignore: int | str | Sequence[int | str] = (),
    overwrite: bool = False,
    on_progress: Reports = warn,
) -> StoreSummary:
    """Cut a folder of labelled images into a patch store.

    Args:
        source: Folder of labelled images, laid out as `find_pairs` reads it.
        out: The store to write.
        patches: Patch size and number, split, scale, seed.
        classes: A ``classes.toml`` to use; None takes the folder's own, or the values found.
        ignore: Mask values or colours that are neither trained on nor scored.
        overwrite: Replace a store that is there.
        on_progress: Receives `Progress` and `Note`.

    Raises:
        InputError: Anything in the folder that cannot be read safely in one way.
        MachineError: The disk is full, or writing is not permitted.
    """
    settings, out = patches or PatchSettings(), Path(out)
    if out.exists() and not overwrite:
        raise InputError(
            out, "already exists", f"choose another {arg('out')}, or {arg('overwrite', True)}"
        )
    found = None if classes is None else Path(classes)
    return cut_folder(source, out, settings, found, several(ignore), on_progress)


def cut_folder(
    source: str | os.PathLike[str],
    out: Path,
    settings: PatchSettings,
    classes: Path | None,
    ignored: Sequence[int | str],
    on_progress: OnProgress,
    check: Callable[[LabelledFolder, list[Split]], None] = lambda *_: None,
    learned: Collection[str] = (),
) -> StoreSummary:
    """Cut a folder of labelled images as `build_store` does; an earlier store is replaced.

    Args:
        source: The folder.
        out: The store to write.
        settings: How it is cut.
        classes: The ``classes.toml`` that `build_store` takes.
        ignored: The mask values or colours that `build_store` ignores.
        on_progress: Receives `Progress` and `Note`.
        check: Called with the folder and the side of each image, once all files are read. It may
            raise an error that ends the work.
        learned: `transforms.pixel_hash` of the images that the weights to start from have learned.
    """
    on_progress(Note(f"cutting the labelled images of {show(Path(source))} into {show(out)}"))
    labelled = LabelledFolder(
        source, settings, classes=classes, ignored=ignored, on_progress=on_progress
    )
    splits = _split(labelled, learned)
    check(labelled, splits)
    summary = cut_images(labelled, out, splits, labelled.spread([splits])[0])
    for names, problem in (
        (summary.missing, "no held-out image has {}: there will be no score for it"),
        (summary.rare, "only one held-out image has {}: its score will say little"),
    ):
        if names:
            text = problem.format(", ".join(map(show, names)))
            on_progress(Note(text, warning=True))
    return summary


def _split(labelled: LabelledFolder, learned: Collection[str]) -> list[Split]:
    """Return the side of each image: as the parts of the set say, else by chance."""
    settings, parts = labelled.settings, [survey.pair.part for survey in labelled.surveys]
    if has_parts(parts, settings):
        return split_parts(parts, labelled.hashes)
    return split_groups(
        labelled.groups,
        labelled.counts > 0,
        labelled.hashes,
        settings.held_out_share,
        settings.seed,
        labelled.labelled_shares < SPARSE,
        np.array([sha256 in learned for sha256 in labelled.hashes]),
    )


def cut_images(
    labelled: LabelledFolder,
    out: Path,
    splits: Sequence[Split],
    spread: "Mapping[int, SpreadMask]",
    settings: PatchSettings | None = None,
) -> StoreSummary:
    """Write a store of the images, each on the side of the split that ``splits`` names.

    Args:
        labelled: The folder of the images.
        out: The store; an earlier file is replaced.
        splits: The side of each image.
        spread: The masks with spread labels, as `LabelledFolder.spread` returns them for this
            split.
        settings: None takes the settings of the folder. Others must have the same ``selection``,
            ``group`` and ``scale``.

    Raises:
        MachineError: The disk is full, or writing is not permitted.
        Interrupted: A signal came.
    """
    settings = settings or labelled.settings
    coverage: list[tuple[int, int]] = []
    with catching() as caught:
        info, per_image = _plan(labelled, splits, settings)
        info = _with_spread(info, labelled, spread)
        cutter = _Cutter(labelled, info, per_image, settings, caught)
        patches, held_out = cutter.patches(coverage, spread), cutter.held_out()
        write_store(out, info, sum(per_image), patches, held_out)
    used, all_labelled = np.sum(coverage, 0).tolist()
    return _summary(out, info, labelled, sum(per_image), used / max(all_labelled, 1))


def _plan(
    labelled: LabelledFolder, splits: Sequence[Split], settings: PatchSettings
) -> tuple[StoreInfo, list[int]]:
    """Return the store's header, and the number of patches of each image (0 if held out)."""
    surveys, channels, area = labelled.surveys, labelled.channels, labelled.inspection.ignored_area
    shapes = labelled.shapes
    train = [i for i, split in enumerate(splits) if split == "train"]
    size = settings.size or auto_size([shapes[i] for i in train])
    per_image = [0] * len(surveys)
    for i in train:
        per_image[i] = settings.per_image or auto_count(shapes[i], size, settings.rare)
    if settings.per_image is None:
        itemsize = np.dtype(surveys[0].info.dtype).itemsize
        patch_bytes = (size + 2 * margin_of(size)) ** 2 * (channels * itemsize + 1)
        excess = sum(per_image) * patch_bytes / _AUTO_BYTES
        per_image = [math.ceil(c / excess) for c in per_image] if excess > 1 else per_image
    mean, std = labelled.statistics(train)
    sides = np.array(splits)
    pixels = {side: labelled.counts[sides == side].sum(0).tolist() for side in ("train", "val")}
    info = StoreInfo(
        size=size,
        margin=margin_of(size),
        seed=settings.seed,
        settings=dataclasses.asdict(settings)
        | {
            "symmetries": sorted(symmetries_of(labelled.inspection.halves[train])),
            "ignored_area": to_plain(area) if area else None,
            "grey": channels == 3 and any(s.channels == 1 for s in surveys),
        },
        folder=str(labelled.root),
        classes=labelled.table,
        mean=mean,
        std=std,
        dtype=surveys[0].info.dtype,
        channels=channels,
        scale=settings.scale,
        class_pixels_train=tuple(pixels["train"]),
        class_pixels_val=tuple(pixels["val"]),
        sources=tuple(
            Source(
                s.pair.file_name,
                s.sha256,
                group,
                split,
                *(shape if split == "train" else s.shape),
            )
            for s, group, split, shape in zip(surveys, labelled.groups, splits, shapes, strict=True)
        ),
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return info, per_image


def _with_spread(
    info: StoreInfo, labelled: LabelledFolder, spread: "Mapping[int, SpreadMask]"
) -> StoreInfo:
    """Return the header of a store with the spread labels among its training pixels."""
    if not spread:
        return info
    added = np.zeros(len(labelled.table.classes))
    for i, found in spread.items():
        full = math.prod(labelled.surveys[i].shape) / math.prod(found.shape)
        added += found.counts * full - labelled.counts[i]
    train = [i for i, source in enumerate(info.sources) if source.split == "train"]
    pixels = np.maximum(np.rint(info.class_pixels_train + added), 0).astype(int)
    share = float(added.sum() / labelled.pixels[train].sum())
    return dataclasses.replace(
        info,
        class_pixels_train=tuple(pixels.tolist()),
        settings=info.settings | {"spread_share": share},
    )


@dataclass(frozen=True)
class _Cutter:
    """Reads the images once more and cuts them.

    Attributes:
        labelled: All images.
        info: The header of the store.
        per_image: The number of patches of each image, 0 where it is held out.
        settings: How they are cut.
        caught: Signals.
    """

    labelled: LabelledFolder
    info: StoreInfo
    per_image: list[int]
    settings: PatchSettings
    caught: Caught

    def patches(
        self, coverage: list[tuple[int, int]], spread: "Mapping[int, SpreadMask]"
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], int, tuple[int, int]]]:
        """Yield every patch: image, mask, index of its source, corner of its core.

        Args:
            coverage: Receives of each image, once its corners are drawn, its labelled pixels in at
                least one patch, and all its labelled pixels.
            spread: The masks of images whose labels are spread; their corners lie on strokes, too.
        """
        size = self.info.size
        cut_up = [i for i, count in enumerate(self.per_image) if count]
        for index in self.labelled.steps(cut_up, "cutting", self.caught):
            image, mask = self.labelled.read(index, self.info.scale)
            rng = np.random.default_rng([self.settings.seed, index])
            corners = sample_corners(mask, size, self.per_image[index], self.settings.rare, rng)
            coverage.append(covered_pixels(mask, corners, size))
            if index in spread:
                mask = spread[index].read()
            padded_image, padded_mask = pad_for_cutting(image, mask, size)
            for corner in corners:
                place = (int(corner[0]), int(corner[1]))
                yield cut(padded_image, place, size), cut(padded_mask, place, size), index, place

    def held_out(self) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
        """Yield the held-out images whole and at full size, as ``predict`` gets them."""
        whole = [i for i, source in enumerate(self.info.sources) if source.split == "val"]
        for index in self.labelled.steps(whole, "holding out", self.caught):
            yield self.labelled.read(index, 1.0)


def _summary(
    out: Path, info: StoreInfo, labelled: LabelledFolder, count: int, used_share: float
) -> StoreSummary:
    """Return the summary of a store of so many patches that was written."""
    held_out = [s.split == "val" for s in info.sources]
    having = (labelled.counts[held_out] > 0).sum(0)  # held-out images that have each class
    names = info.classes.names
    return StoreSummary(
        out,
        info,
        labelled.inspection.classes_file,
        count,
        used_share,
        labelled.labelled_share,
        tuple(n for n, h in zip(names, having, strict=True) if h == 0) if any(held_out) else (),
        tuple(n for n, h in zip(names, having, strict=True) if h == 1),
    )
