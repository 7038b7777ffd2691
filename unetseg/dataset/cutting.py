"""Cutting folders of labelled images into patch stores."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unetseg import __version__
from unetseg.arguments import Reports, public, several
from unetseg.classes import ClassTable
from unetseg.dataset.findings.inspection import inspect_folder
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
from unetseg.dataset.splits import Split, groups_of, has_parts, split_groups, split_parts
from unetseg.dataset.store import Source, StoreInfo
from unetseg.dataset.store_writer import write_store
from unetseg.dataset.survey import Survey
from unetseg.errors import InputError, arg
from unetseg.pictures import transforms
from unetseg.pictures.transforms import scaled_size
from unetseg.progress import Note, OnProgress, silent, steps, warn
from unetseg.records import to_plain
from unetseg.results import Result, Table
from unetseg.settings import PatchSettings
from unetseg.signals import Caught, catching
from unetseg.text import plural, show

if TYPE_CHECKING:
    from unetseg.dataset.spreading import SpreadMask

_LEAST_SIDE = 16  # pixels: the smallest patch
_WORTH_SAYING = 0.01  # share of ignored pixels: fewer are the borders of objects
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
    check: "Callable[[LabelledFolder, list[Split]], None]" = lambda *_: None,
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
    """
    on_progress(Note(f"cutting the labelled images of {show(Path(source))} into {show(out)}"))
    labelled = LabelledFolder(
        source, settings, classes=classes, ignored=ignored, on_progress=on_progress
    )
    splits = _split(labelled)
    check(labelled, splits)
    summary = labelled.cut(out, splits, labelled.spread([splits])[0])
    for names, problem in (
        (summary.missing, "no held-out image has {}: there will be no score for it"),
        (summary.rare, "only one held-out image has {}: its score will say little"),
    ):
        if names:
            text = problem.format(", ".join(map(show, names)))
            on_progress(Note(text, warning=True))
    return summary


def _split(labelled: "LabelledFolder") -> list[Split]:
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
    )


class LabelledFolder:
    """A folder of labelled images that is read once and can be cut into several stores.

    Args:
        source: The folder.
        settings: How it is cut.
        classes: The ``classes.toml`` that `build_store` takes.
        ignored: The mask values or colours that `build_store` ignores.
        on_progress: Receives `Progress` and `Note`.

    Raises:
        InputError: Anything in the folder that cannot be read safely in one way.

    Attributes:
        root: The folder.
        settings: The settings by which it is cut.
        inspection: The facts and the faults of its images.
        table: The classes.
        channels: The largest number of channels of any image. A grey image among RGB ones is stored
            with 3.
        groups: The group of each image, as `splits.groups_of` returns it.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        settings: PatchSettings,
        *,
        classes: Path | None = None,
        ignored: Sequence[int | str] = (),
        on_progress: OnProgress = silent,
    ) -> None:
        self.root, self.settings, self.on_progress = Path(source), settings, on_progress
        self.inspection = inspect_folder(
            source, settings, classes=classes, ignore=ignored, on_progress=on_progress
        )
        self.inspection.refuse()
        assert self.inspection.table is not None
        self.table: ClassTable = self.inspection.table
        for finding in self.inspection.findings:
            on_progress(Note(finding.message, warning=finding.severity == "warning"))
        for text in self._ignored():
            on_progress(Note(text))
        self.channels = max(s.channels for s in self.inspection.surveys)
        self._check_sizes()
        self.groups = groups_of([s.pair.file_stem for s in self.inspection.surveys], settings.group)
        self._sums: dict[int, NDArray[np.float64]] = {}

    def _check_sizes(self) -> None:
        """Refuse a scale that leaves nothing to see; warn of patches that are mostly padding."""
        settings = self.settings
        whole = max((s.shape for s in self.surveys), key=min)  # the most that any image has
        left = scaled_size(*whole, settings.scale)
        if min(left) < _LEAST_SIDE <= min(whole):
            text = f"{settings.scale:g} leaves {left[0]} x {left[1]} pixels of an image of "
            least = math.ceil(1000 * _LEAST_SIDE / min(whole)) / 1000
            remedy = f"give {arg('scale', least)} or more"
            raise InputError(arg("scale"), f"{text}{whole[0]} x {whole[1]}", remedy)
        shapes = [scaled_size(*s.shape, settings.scale) for s in self.surveys]
        longest = max(max(shape) for shape in shapes)
        if settings.size and settings.size > longest:
            fitting = arg("size", auto_size(shapes))
            text = f"a patch of {settings.size} pixels is larger than every image, whose longest "
            text += f"side is {longest}: the rest of it is padding; {fitting} would fit"
            self.on_progress(Note(text, warning=True))

    def _ignored(self) -> Iterator[str]:
        """Say how a prediction treats the pixels that masks ignore, unless masks hold strokes."""
        missing = sum(s.missing for s in self.surveys)
        if missing:
            part = missing / (missing + int(self._pixels.sum()))
            yield f"{100 * part:.2g} % of the pixels have no data: train and predict ignore them"
        share = 1 - self.labelled_share
        area = self.inspection.ignored_area
        always = float(area.pixels.mean()) if area else 0.0
        if area:
            text = f"{100 * always:.2g} % of the pixels are ignored in every image"
            yield f"{text}; predict ignores them in images of {area.height} x {area.width} pixels"
        elif self.settings.crop:
            yield f"predict ignores the edges, too: {self.settings.crop}"
        if share - always > _WORTH_SAYING and share < 1 - SPARSE and not self.settings.crop:
            text = f"{100 * (share - always):.2g} % of the pixels are ignored"
            yield f"{text} in one image and not in another; predict will give them a class"

    @property
    def surveys(self) -> tuple[Survey, ...]:
        """The labelled images, in natural order."""
        return self.inspection.surveys

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(n, C)`` pixels of each class in each mask."""
        return self.inspection.counts

    @property
    def labelled_shares(self) -> NDArray[np.float64]:
        """``(n,)`` share of each image's pixels with data that are labelled, 0 to 1."""
        shares: NDArray[np.float64] = self.counts.sum(1) / self._pixels
        return shares

    @property
    def labelled_share(self) -> float:
        """The share of all images' pixels with data that are labelled, 0 to 1."""
        return float(self.counts.sum() / self._pixels.sum())

    @property
    def _pixels(self) -> NDArray[np.int64]:
        """``(n,)`` pixels of each image that have data."""
        return np.array([math.prod(s.shape) - s.missing for s in self.surveys])

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of each image's pixels."""
        return [s.sha256 for s in self.surveys]

    def cut(
        self,
        out: Path,
        splits: Sequence[Split],
        spread: "Mapping[int, SpreadMask]",
        settings: PatchSettings | None = None,
    ) -> StoreSummary:
        """Write a store of the images, each on the side of the split that ``splits`` names.

        Args:
            out: The store; an earlier file is replaced.
            splits: The side of each image.
            spread: The masks with spread labels, as `spread` returns them for this split.
            settings: None takes the settings of the folder. Others must have the same
                ``selection``, ``group`` and ``scale``.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
            Interrupted: A signal came.
        """
        settings = settings or self.settings
        coverage: list[tuple[int, int]] = []
        with catching() as caught:
            info, per_image = self._plan(splits, settings)
            info = self._with_spread(info, spread)
            cutter = _Cutter(self, info, per_image, settings, caught)
            patches, held_out = cutter.patches(coverage, spread), cutter.held_out()
            write_store(out, info, sum(per_image), patches, held_out)
        used, labelled = np.sum(coverage, 0).tolist()
        share = used / max(labelled, 1)
        file = self.inspection.classes_file
        return _summary(out, info, file, sum(per_image), share, self.labelled_share, self.counts)

    def spread(self, divisions: Sequence[Sequence[Split]]) -> "list[dict[int, SpreadMask]]":
        """Return the spread masks of training images with strokes, by the images' numbers.

        Args:
            divisions: The side of each image, once for each network that will be trained.

        Returns:
            The masks of each of them. There are none where `strokes` finds none.

        Raises:
            Interrupted: A signal came.
        """
        works = [self.strokes(splits) for splits in divisions]
        if not any(sparse for _, sparse in works):
            return [{} for _ in works]
        from unetseg.dataset.spreading import spread_labels  # imports torch

        with catching() as caught:

            def through(indices: Sequence[int], stage: str) -> Iterator[int]:
                return self.steps(indices, stage, caught)

            return spread_labels(works, len(self.table.classes), self._read_open, through)

    def strokes(self, splits: Sequence[Split]) -> tuple[list[int], list[int]]:
        """Return the images of whose strokes labels are spread, and those to which they are spread.

        There are none where most of the training images' pixels are labelled, or where nothing is
        to be spread.
        """
        train = [i for i, side in enumerate(splits) if side == "train"]
        area = self.inspection.ignored_area
        room = self._pixels - (int(area.pixels.sum()) if area else 0)
        labelled = self.counts.sum(1)
        if not self.settings.spread or labelled[train].sum() >= SPARSE * room[train].sum():
            return [], []
        return train, [i for i in train if labelled[i] < SPARSE * room[i]]

    def _with_spread(self, info: StoreInfo, spread: "Mapping[int, SpreadMask]") -> StoreInfo:
        """Return the header of a store with the spread labels among its training pixels."""
        if not spread:
            return info
        added = np.zeros(len(self.table.classes))
        for i, found in spread.items():
            full = math.prod(self.surveys[i].shape) / math.prod(found.shape)
            added += found.counts * full - self.counts[i]
        train = [i for i, source in enumerate(info.sources) if source.split == "train"]
        pixels = np.maximum(np.rint(info.class_pixels_train + added), 0).astype(int)
        return dataclasses.replace(
            info,
            class_pixels_train=tuple(pixels.tolist()),
            settings=info.settings
            | {"spread_share": float(added.sum() / self._pixels[train].sum())},
        )

    def _plan(
        self, splits: Sequence[Split], settings: PatchSettings
    ) -> tuple[StoreInfo, list[int]]:
        """Return the store's header, and the number of patches of each image (0 if held out)."""
        surveys, counts = self.surveys, self.counts
        shapes = [scaled_size(*s.shape, settings.scale) for s in surveys]
        train = [i for i, split in enumerate(splits) if split == "train"]
        size = settings.size or auto_size([shapes[i] for i in train])
        per_image = [0] * len(surveys)
        for i in train:
            per_image[i] = settings.per_image or auto_count(shapes[i], size, settings.rare)
        if settings.per_image is None:
            itemsize = np.dtype(surveys[0].info.dtype).itemsize
            patch_bytes = (size + 2 * margin_of(size)) ** 2 * (self.channels * itemsize + 1)
            excess = sum(per_image) * patch_bytes / _AUTO_BYTES
            per_image = [math.ceil(c / excess) for c in per_image] if excess > 1 else per_image
        mean, std = self._statistics(train)
        pixels = {side: counts[[s == side for s in splits]].sum(0) for side in ("train", "val")}
        info = StoreInfo(
            size=size,
            margin=margin_of(size),
            seed=settings.seed,
            settings=dataclasses.asdict(settings)
            | {
                "symmetries": sorted(symmetries_of(self.inspection.halves[train])),
                "ignored_area": to_plain(area) if (area := self.inspection.ignored_area) else None,
                "grey": self.channels == 3 and any(s.channels == 1 for s in surveys),
            },
            folder=str(self.root),
            classes=self.table,
            mean=mean,
            std=std,
            dtype=surveys[0].info.dtype,
            channels=self.channels,
            scale=settings.scale,
            class_pixels_train=tuple(int(c) for c in pixels["train"]),
            class_pixels_val=tuple(int(c) for c in pixels["val"]),
            sources=tuple(
                Source(
                    s.pair.file_name,
                    s.sha256,
                    group,
                    split,
                    *(shape if split == "train" else s.shape),
                )
                for s, group, split, shape in zip(surveys, self.groups, splits, shapes, strict=True)
            ),
            version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return info, per_image

    def steps(self, indices: Sequence[int], stage: str, caught: Caught) -> Iterator[int]:
        """Yield the numbers of images one by one, with reports, until a signal comes."""
        return steps(
            indices,
            stage,
            "images",
            self.on_progress,
            name=lambda i: self.surveys[i].pair.name,
            check=lambda: caught.check(str(self.root), "run the same line again"),
        )

    def read(self, index: int, scale: float) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return an image (H, W, C), resized by a factor, and its mask (H, W) of class indices."""
        pair, selection = self.surveys[index].pair, self.settings.selection
        image, mask = pair.read_labelled(self.table, selection)
        image = pair.scaled(image, self.channels, scale)
        return image, transforms.rescale_mask(mask, (image.shape[0], image.shape[1]))

    def _read_open(self, index: int) -> tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.bool_]]:
        """Return an image, its mask, and which pixels (H, W) may be labelled.

        Cropped edges, pixels without data and the area that all masks ignore may not.
        """
        image, mask = self.read(index, self.settings.scale)
        survey, selection = self.surveys[index], self.settings.selection
        is_open = np.zeros(survey.shape, np.uint8)
        is_open[selection.inner(*survey.shape)] = 1
        area = self.inspection.ignored_area
        if area and area.pixels.shape == survey.shape:
            is_open[area.pixels] = 0
        missing = survey.read_missing(selection)
        if missing is not None and missing.shape == survey.shape:
            is_open[missing] = 0
        return image, mask, transforms.rescale_mask(is_open, mask.shape) > 0

    def _statistics(self, train: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the mean and the deviation of each channel; a constant channel has deviation 1."""
        total, squares, pixels = np.sum([self._sums_of(i) for i in train], 0)  # each (C,)
        mean = total / pixels
        std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
        std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)
        return tuple(mean.tolist()), tuple(std.tolist())

    def _sums_of(self, index: int) -> NDArray[np.float64]:
        """Return ``(3, C)``: sums of an image's values and of their squares, and its pixels."""
        if index not in self._sums:
            pair, settings = self.surveys[index].pair, self.settings
            image = pair.read_image(settings.selection)
            image = pair.scaled(image, self.channels, settings.scale).astype(np.float64)
            pixels = np.full(self.channels, image.shape[0] * image.shape[1])
            self._sums[index] = np.stack([image.sum((0, 1)), (image**2).sum((0, 1)), pixels])
        return self._sums[index]


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
    out: Path,
    info: StoreInfo,
    classes_file: Path | None,
    count: int,
    used_share: float,
    labelled_share: float,
    counts: NDArray[np.int64],
) -> StoreSummary:
    """Return the summary of a store that was written."""
    held_out = [s.split == "val" for s in info.sources]
    having = (counts[held_out] > 0).sum(0)  # held-out images that have each class
    names = info.classes.names
    return StoreSummary(
        out,
        info,
        classes_file,
        count,
        used_share,
        labelled_share,
        tuple(n for n, h in zip(names, having, strict=True) if h == 0) if any(held_out) else (),
        tuple(n for n, h in zip(names, having, strict=True) if h == 1),
    )
