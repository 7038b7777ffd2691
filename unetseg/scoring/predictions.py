"""A model's predictions of images that are scored; where they are kept, each is made once.

Images that will be asked for one after the other are predicted in batches.
"""

import math
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg import files
from unetseg.errors import MachineError
from unetseg.pictures.bands import Rows
from unetseg.prediction.model import AnyImage, Model
from unetseg.prediction.segmenter import Computed
from unetseg.scoring.curves import count_probabilities

Labels = NDArray[np.uint8]
# An image as the segmenter takes it, its own shape, and which of its pixels hold data.
_Image = tuple[Rows | Computed, tuple[int, int], NDArray[np.bool_] | None]


@dataclass(frozen=True)
class Predicted:
    """The predicted mask of an image.

    Attributes:
        labels: (H, W) class indices.
        confidence: (H, W) float32, the probability of each label, 0 to 1. It is None where it is
            not wanted, or where only masks are known.
        counts: The counts of `count_probabilities`, where curves are wanted; None in a prediction
            that was kept.
        missed: The number of pixels that have a class in the true mask, and none in a made one.
    """

    labels: Labels
    confidence: NDArray[np.float32] | None = None
    counts: NDArray[np.int64] | None = None
    missed: int = 0


class _Kept:
    """Arrays of images in a file without a name, in the order in which they came."""

    def __init__(self) -> None:
        self._places: dict[int, list[tuple[int, tuple[int, ...], np.dtype[Any]]]] = {}
        self._folder = Path(tempfile.gettempdir())
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives on
        except OSError as error:
            raise files.machine_error(self._folder, error) from None
        weakref.finalize(self, self._file.close)

    def __contains__(self, k: int) -> bool:
        """Whether arrays of the k-th image are kept."""
        return k in self._places

    def add(self, k: int, *arrays: NDArray[Any]) -> None:
        """Append arrays to those of the k-th image."""
        try:
            for array in arrays:
                place = self._file.seek(0, os.SEEK_END), array.shape, array.dtype
                self._file.write(array.tobytes())
                self._file.flush()
                self._places.setdefault(k, []).append(place)
        except OSError as error:
            raise files.machine_error(self._folder, error) from None

    def read(self, k: int) -> list[NDArray[Any]]:
        """Return the arrays of the k-th image."""
        return [self._read(*place) for place in self._places[k]]

    def _read(self, place: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        self._file.seek(place)
        content = bytearray(self._file.read(math.prod(shape) * dtype.itemsize))
        return np.frombuffer(content, dtype).reshape(shape)


class PassedProbabilities:
    """The probabilities that a pass over images has computed, so that none is predicted again.

    They lie on the disk, 4 bytes a pixel and class, in the folder for temporary files. Images for
    which the limit or the disk leaves no room are not kept.

    Args:
        limit: Bytes on the disk, at most.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self._limit, self._used = limit, 0
        self._kept: _Kept | None = None

    def __contains__(self, k: int) -> bool:
        """Whether the k-th image is kept."""
        return self._kept is not None and k in self._kept

    def share_missing(self, pixels: int, classes: int) -> float:
        """Return the share of images with so many pixels in all that there is no room for."""
        return max(0.0, 1 - self._limit / max(4 * pixels * classes, 1))

    def add(self, k: int, band: Tensor, pixels: int) -> None:
        """Keep a band of an image; the bands of an image come one after the other.

        Args:
            k: The number of the image.
            band: The probabilities (K, rows, W) float32, before any temperature.
            pixels: The pixels of the whole image.
        """
        if k not in self and self._used + 4 * len(band) * pixels > self._limit:
            return
        try:
            self._kept = self._kept or _Kept()
            self._kept.add(k, band.numpy(force=True))
        except MachineError:  # no image that was kept so far is worth the end of a training
            self._kept, self._limit = None, 0
        self._used += 4 * band.numel()

    def computed(self, k: int) -> Computed | None:
        """Return an image with its probabilities; None where it is not kept."""
        if self._kept is None or k not in self:
            return None
        averages = torch.cat([torch.from_numpy(band) for band in self._kept.read(k)], 1)
        return Computed(tuple(averages.shape[1:]), averages)


class NumberedPredictions:
    """Predicts images by their numbers.

    Args:
        model: The model that predicts.
        image: Returns the k-th image, as the methods of the model take it.
        keep: Keep labels and confidence on the disk, 5 bytes a pixel, so that no image is predicted
            twice. They lie in the folder for temporary files, in a file without a name. It is gone
            with this object.
        curves: Count the probabilities as each image is predicted.
        passed: The probabilities that a pass of the same model over the same images computed.
    """

    def __init__(
        self,
        model: Model,
        image: Callable[[int], AnyImage],
        keep: bool = False,
        curves: bool = False,
        passed: PassedProbabilities | None = None,
    ) -> None:
        self._model, self._image, self._curves, self._passed = model, image, curves, passed
        self._kept = _Kept() if keep else None
        self._coming: Iterator[list[tuple[Any, ...]]] = iter(())
        self._ready: dict[int, _Image] = {}

    def expect(self, numbers: Sequence[int]) -> None:
        """Say which images will be asked for next, in this order: small ones come in batches."""
        known = [one for one in (self._kept, self._passed) if one]
        new = (k for k in numbers if not any(k in one for one in known))
        scaled = ((k, *self._model.scaled(self._image(k))) for k in new)
        self._coming = self._model.segmenter.batches(
            scaled, lambda one: (one[1].shape[0], one[1].shape[1])
        )

    def _scaled(self, k: int) -> _Image:
        """Return the k-th image as the segmenter takes it, and the shape of its mask."""
        if self._passed and (known := self._passed.computed(k)):
            return known, (known.shape[0], known.shape[1]), None
        if k not in self._ready and (batch := next(self._coming, None)):
            numbers, images, *others = zip(*batch, strict=True)
            found = zip(self._model.segmenter.together(images), *others, strict=True)
            self._ready = dict(zip(numbers, found, strict=True))
        return self._ready.pop(k) if k in self._ready else self._model.scaled(self._image(k))

    def __call__(self, k: int, truth: Labels, sure: bool) -> Predicted:
        """Return the prediction of the k-th image.

        Args:
            k: The number of the image.
            truth: Its true mask (H, W), which curves need.
            sure: Whether the confidence is wanted; a prediction that is kept has it anyway.

        Raises:
            InputError: The image cannot be read.
            MachineError: The disk is full, and the like.
        """
        if self._kept and k in self._kept:
            labels, confidence = self._kept.read(k)
            return Predicted(labels, confidence)
        image, shape, valid = self._scaled(k)
        segmenter = self._model.segmenter
        if self._curves:
            found = self._counted(image, shape, truth, valid)
        elif sure or self._kept:
            labels, confidence = segmenter.labels_and_confidence(image, shape)
            found = Predicted(self._model.finish(labels, valid), confidence)
        else:
            return Predicted(self._model.finish(segmenter.labels(image, shape), valid))
        if self._kept:
            self._kept.add(k, found.labels, np.asarray(found.confidence))
        return found

    def _counted(
        self,
        image: Rows | Computed,
        shape: tuple[int, int],
        truth: Labels,
        valid: NDArray[np.bool_] | None,
    ) -> Predicted:
        """Predict an image, and count its probabilities band by band."""
        labels, confidence, row = list[Labels](), list[NDArray[np.float32]](), 0
        counts = np.zeros((), np.int64)
        for band, shares in self._model.segmenter.labelled_bands(image, shape):
            plain = shares.numpy(force=True)  # (K, rows, W)
            counts = counts + count_probabilities(plain, truth[row : row + len(band)])
            row += len(band)
            labels.append(band)
            confidence.append(plain.max(0))
        whole = self._model.finish(np.concatenate(labels), valid)
        return Predicted(whole, np.concatenate(confidence), counts)
