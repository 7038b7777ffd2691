"""A folder of labelled images, read and judged once: its classes, counts, pixels and strokes."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.dataset.findings.inspection import inspect_folder
from unetseg.dataset.geometry import SPARSE, auto_size
from unetseg.dataset.splits import Split, groups_of
from unetseg.dataset.survey import Survey
from unetseg.errors import InputError, arg
from unetseg.pictures import transforms
from unetseg.pictures.transforms import scaled_size
from unetseg.progress import Note, OnProgress, silent, steps
from unetseg.settings import PatchSettings
from unetseg.signals import Caught, catching

if TYPE_CHECKING:
    from unetseg.dataset.spreading import SpreadMask

_LEAST_SIDE = 16  # pixels: the smallest patch
_WORTH_SAYING = 0.01  # share of ignored pixels: fewer are the borders of objects


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
        longest = max(max(shape) for shape in self.shapes)
        if settings.size and settings.size > longest:
            fitting = arg("size", auto_size(self.shapes))
            text = f"a patch of {settings.size} pixels is larger than every image, whose longest "
            text += f"side is {longest}: the rest of it is padding; {fitting} would fit"
            self.on_progress(Note(text, warning=True))

    def _ignored(self) -> Iterator[str]:
        """Say how a prediction treats the pixels that masks ignore, unless masks hold strokes."""
        missing = sum(s.missing for s in self.surveys)
        if missing:
            part = missing / (missing + int(self.pixels.sum()))
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
    def shapes(self) -> list[tuple[int, int]]:
        """Height and width of each image, scaled as the settings say."""
        return [scaled_size(*s.shape, self.settings.scale) for s in self.surveys]

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(n, C)`` pixels of each class in each mask."""
        return self.inspection.counts

    @property
    def labelled_shares(self) -> NDArray[np.float64]:
        """``(n,)`` share of each image's pixels with data that are labelled, 0 to 1."""
        shares: NDArray[np.float64] = self.counts.sum(1) / self.pixels
        return shares

    @property
    def labelled_share(self) -> float:
        """The share of all images' pixels with data that are labelled, 0 to 1."""
        return float(self.counts.sum() / self.pixels.sum())

    @property
    def pixels(self) -> NDArray[np.int64]:
        """``(n,)`` pixels of each image that have data."""
        return np.array([math.prod(s.shape) - s.missing for s in self.surveys])

    @property
    def hashes(self) -> list[str]:
        """SHA-256 of each image's pixels."""
        return [s.sha256 for s in self.surveys]

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
        from unetseg.dataset import spreading  # imports torch

        with catching() as caught:

            def through(indices: Sequence[int], stage: str) -> Iterator[int]:
                return self.steps(indices, stage, caught)

            return spreading.spread_labels(
                works,
                len(self.table.classes),
                self._read_open,
                through,
                spreading.can_be_fine(self.shapes),
            )

    def strokes(self, splits: Sequence[Split]) -> tuple[list[int], list[int]]:
        """Return the images of whose strokes labels are spread, and those to which they are spread.

        There are none where most of the training images' pixels are labelled, or where nothing is
        to be spread.
        """
        train = [i for i, side in enumerate(splits) if side == "train"]
        area = self.inspection.ignored_area
        room = self.pixels - (int(area.pixels.sum()) if area else 0)
        labelled = self.counts.sum(1)
        if not self.settings.spread or labelled[train].sum() >= SPARSE * room[train].sum():
            return [], []
        return train, [i for i in train if labelled[i] < SPARSE * room[i]]

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
        """Return an image (H, W, C), resized by a factor, and its mask (H, W) of class indices.

        Raises:
            InputError: The pixels of the image are not those that its survey saw.
        """
        survey, selection = self.surveys[index], self.settings.selection
        pair = survey.pair
        image, mask = pair.read_labelled(self.table, selection)
        # Models name the images that they learned from by the hash of the survey.
        if transforms.pixel_hash(image) != survey.sha256:
            text = "has changed since it was looked at"
            raise InputError(pair.image, text, "run the same line again")
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

    def statistics(self, indices: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the mean and the deviation of each channel; a constant channel has deviation 1."""
        total, squares, pixels = np.sum([self._sums_of(i) for i in indices], 0)  # each (C,)
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
