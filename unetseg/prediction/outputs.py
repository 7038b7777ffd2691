"""The files that are written for one image, and the facts about it for the table."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unetseg.classes import IGNORED
from unetseg.objects.counting import ObjectCounter
from unetseg.objects.files import companions, write_objects
from unetseg.objects.measurement import columns
from unetseg.objects.separation import Objects, find_objects
from unetseg.pictures import bands, drawing, writing
from unetseg.prediction.jobs import Job
from unetseg.prediction.model import Model, ModelInput
from unetseg.prediction.run_folder import LABEL
from unetseg.prediction.summary import ImageSummary, write_table
from unetseg.progress import OnProgress

_COUNTED = 512  # objects are counted in so many rows at once


class Outputs:
    """The files of one image, from its computed bands to the mask, which is written last.

    `take` is called first, then `write` or `write_banded`, and then `summary`.

    Args:
        model: The model.
        job: The image and the places of its files.
        picture: The opened image. The pixels that objects and the overlay need are read at once,
            unless the image is never held as a whole.
        label: The text that `make_label` returns.
    """

    def __init__(self, model: Model, job: Job, picture: ModelInput, label: str) -> None:
        self.job, self.picture = job, picture
        self._model, self._text = model, {LABEL: label}
        self._classes, self._kinds = model.card.classes, job.wanted.objects or {}
        self._place, self._shape = picture.raster.georeference, picture.raster.shape
        # So many pixels of the image stand in a row for each pixel of its overlay.
        self._step = -(-max(self._shape[:2]) // job.wanted.overlay_size)
        self._image: bands.Rows = picture.raster  # objects are measured in it
        self._shown: NDArray[Any] | None = None  # the overlay shows it
        if job.objects and not job.is_banded:
            self._image = np.asarray(picture.raster)
        if job.overlay and not job.is_banded:
            shown = bands.Blanked(picture.raster) if picture.raster.may_have_gaps else self._image
            self._shown = bands.reduce_rows(shown, self._step)
        count = len(self._classes.classes)
        self._pixels = np.zeros(count, np.int64)
        self._counter = ObjectCounter(count)
        self._sure = np.zeros((2, count))  # as in `ImageSummary`
        # Bands, where they are wanted: (rows, W) uint8, and (K, rows, W) float32.
        self._confidence: list[NDArray[np.uint8]] = []
        self._probabilities: list[NDArray[np.float32]] = []
        self._objects: Objects | None = None

    def take(
        self, computed: Iterable[tuple[NDArray[np.uint8], Tensor]]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the class indices (rows, W) of the mask, and keep other parts that are wanted.

        They are 255 where the image has no data. There, the confidence is 0 and the probabilities
        are NaN. Where rules mend the mask, it comes in one piece.

        Args:
            computed: Class indices (rows, W) and probabilities (K, rows, W) from top to bottom.
        """
        parts = self._keep(computed)
        if self._model.cleaning.changes_nothing:
            yield from parts
        else:
            yield self._model.mend(np.concatenate(list(parts)))

    def _keep(
        self, computed: Iterable[tuple[NDArray[np.uint8], Tensor]]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the class indices of the bands before they are mended."""
        row, job = 0, self.job
        for labels, shares in computed:
            probabilities = shares.cpu().numpy()
            highest = probabilities.max(0)
            if (valid := self.picture.valid(slice(row, row + len(labels)))) is not None:
                labels[~valid], highest[~valid] = IGNORED, 0
            row += len(labels)
            flat, classes = labels.ravel(), len(self._pixels)
            self._sure[0] += np.bincount(flat, highest.ravel(), 256)[:classes]
            self._sure[1] += np.bincount(flat, minlength=256)[:classes]
            if job.confidence or job.objects:
                self._confidence.append(np.rint(highest * 255).astype(np.uint8))
            if job.probabilities:
                if valid is not None:
                    probabilities[:, ~valid] = np.nan
                self._probabilities.append(probabilities)
            yield labels

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Write all files of an image whose mask (H, W) is at hand."""
        job, text, place = self.job, self._text, self._place
        confidence = np.concatenate(self._confidence) if self._confidence else None
        if job.objects:
            self._objects = find_objects(labels, self._kinds, confidence)
            self._write_objects(job.objects, self._objects, confidence)
        if job.probabilities:
            shares = np.concatenate(self._probabilities, 1)
            writing.write_float_tiff(job.probabilities, shares, text, place)
        if job.confidence and confidence is not None:
            if job.confidence.suffix == ".tif":
                # No pixel that has a class has a confidence of 0.
                bands.write_numbers(job.confidence, confidence, text, place, nodata=0)
            else:
                writing.write_picture(job.confidence, confidence[..., None], text)
        if job.overlay and self._shown is not None:
            small, plain = bands.reduce_mask(labels, self._step), self._model.card.unpainted
            numbers = None
            if self._objects:
                numbers = bands.reduce_mask(self._objects.numbers, self._step)
            overlay = drawing.overlay(self._shown, small, self._classes, plain, numbers)
            writing.write_picture(job.overlay, overlay, text)
        self._write_mask([labels])

    def write_banded(
        self, parts: Iterable[NDArray[np.uint8]], on_progress: OnProgress, check: Callable[[], None]
    ) -> None:
        """Write the files of an image that is never held as a whole.

        Args:
            parts: The mask as `take` yields it.
            on_progress: Receives `Progress` while objects are told apart.
            check: Called between their parts; may raise to stop.
        """
        if self.job.objects:
            parts = self._tell_apart(self.job.objects, parts, on_progress, check)
        self._write_mask(parts)

    def _tell_apart(
        self,
        path: Path,
        parts: Iterable[NDArray[np.uint8]],
        on_progress: OnProgress,
        check: Callable[[], None],
    ) -> Iterator[NDArray[np.uint8]]:
        """Write the objects, then yield the mask. It lies on the disk meanwhile."""
        size = self._shape[:2]
        with ExitStack() as stack:
            labels, sure, numbers = (
                stack.enter_context(bands.scratch(path, size, dtype))
                for dtype in (np.uint8, np.uint8, np.int32)
            )
            row = filled = 0
            for part in parts:
                labels[row : row + len(part)] = part
                row += len(part)
                for band in self._confidence:
                    sure[filled : filled + len(band)] = band
                    filled += len(band)
                self._confidence.clear()
            told: dict[str, Any] = {"on_progress": on_progress, "check": check}
            objects = find_objects(labels, self._kinds, sure, numbers=numbers, **told)
            self._write_objects(path, objects, sure, **told)
            # The numbers are gone before the summary is made.
            self._objects = dataclasses.replace(objects, numbers=np.zeros((0, 0), np.int32))
            for top in range(0, len(labels), _COUNTED):
                yield np.asarray(labels[top : top + _COUNTED])

    def _write_objects(
        self, path: Path, objects: Objects, confidence: NDArray[np.uint8] | None, **told: Any
    ) -> None:
        """Write the label image, the polygons and the table of the objects."""
        rows = write_objects(
            path,
            objects,
            self._classes,
            self._image,
            confidence=confidence,
            text=self._text,
            georeference=self._place,
            **told,
        )
        header, name = columns(self._shape[2]), self.job.name
        cells = ([name if c == "image" else row.get(c) for c in header] for row in rows)
        write_table(companions(path)[0], header, cells)

    def _write_mask(self, parts: Iterable[NDArray[np.uint8]]) -> None:
        """Write the mask last: where it stands, all other files of its image are complete."""
        path, table, text, place = self.job.mask, self._classes, self._text, self._place
        counted = self._count(parts)
        if path.suffix == ".tif":
            height, width, _ = self._shape
            bands.write_mask_tiff(path, counted, (height, width), table, text, place)
        else:
            writing.write_mask(path, np.concatenate(list(counted)), table, text, place)

    def _count(self, parts: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Yield the parts, counting pixels and objects on the way."""
        for labels in parts:
            self._pixels += np.bincount(labels.ravel(), minlength=256)[: len(self._pixels)]
            for top in range(0, len(labels), _COUNTED):
                self._counter.add(labels[top : top + _COUNTED])
            yield labels

    def summary(self, seconds: float) -> ImageSummary:
        """Return the facts about the image, once its files are written."""
        areas = self._counter.areas()
        if self._objects:
            for kind in self._objects.classes:
                areas[kind] = self._objects.areas[self._objects.kinds == kind]
        size = self._place.pixel_size
        return ImageSummary(self.job.name, self._pixels, areas, self._sure, size, seconds)
