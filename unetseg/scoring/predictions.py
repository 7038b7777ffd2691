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
from numpy.typing import NDArray

from unetseg import files
from unetseg.pictures.bands import Rows
from unetseg.prediction.model import AnyImage, Model
from unetseg.prediction.segmenter import Computed
from unetseg.scoring.curves import count_probabilities

Labels = NDArray[np.uint8]
_Image = tuple[Rows | Computed, tuple[int, int]]  # as the segmenter takes it, and its own shape


@dataclass(frozen=True)
class Predicted:
    """The predicted mask of an image.

    Attributes:
        labels: (H, W) class indices.
        confidence: (H, W) float32, the probability of each label, 0 to 1. It is None where it is
            not wanted, or where only masks are known.
        counts: The counts of `count_probabilities`, where curves are wanted; None in a prediction
            that was kept.
    """

    labels: Labels
    confidence: NDArray[np.float32] | None = None
    counts: NDArray[np.int64] | None = None


class Predictions:
    """Predicts images by their numbers.

    Args:
        model: The model that predicts.
        image: Returns the k-th image, as the methods of the model take it.
        keep: Keep labels and confidence on the disk, 5 bytes a pixel, so that no image is predicted
            twice. They lie in the folder for temporary files, in a file without a name. It is gone
            with this object.
        curves: Count the probabilities as each image is predicted.
    """

    def __init__(
        self, model: Model, image: Callable[[int], AnyImage], keep: bool, curves: bool
    ) -> None:
        self._model, self._image, self._curves = model, image, curves
        self._kept = _Kept() if keep else None
        self._coming: Iterator[list[tuple[int, NDArray[Any], tuple[int, int]]]] = iter(())
        self._ready: dict[int, _Image] = {}

    def expect(self, numbers: Sequence[int]) -> None:
        """Say which images will be asked for next, in this order: small ones come in batches."""
        kept = self._kept.places if self._kept else {}
        scaled = ((k, *self._model.scaled(self._image(k))) for k in numbers if k not in kept)
        self._coming = self._model.segmenter.batches(
            scaled, lambda one: (one[1].shape[0], one[1].shape[1])
        )

    def _scaled(self, k: int) -> _Image:
        """Return the k-th image as the segmenter takes it, and the shape of its mask."""
        if k not in self._ready and (batch := next(self._coming, None)):
            numbers, images, shapes = zip(*batch, strict=True)
            found = zip(self._model.segmenter.together(images), shapes, strict=True)
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
        if self._kept and k in self._kept.places:
            return self._kept.read(k)
        image, segmenter = self._scaled(k), self._model.segmenter
        if self._curves:
            found = self._counted(image, truth)
        elif sure or self._kept:
            labels, confidence = segmenter.labels_and_confidence(*image)
            found = Predicted(self._model.finish(labels), confidence)
        else:
            return Predicted(self._model.finish(segmenter.labels(*image)))
        if self._kept:
            self._kept.write(k, found)
        return found

    def _counted(self, image: _Image, truth: Labels) -> Predicted:
        """Predict an image, and count its probabilities band by band."""
        labels, confidence, row = list[Labels](), list[NDArray[np.float32]](), 0
        counts = np.zeros((), np.int64)
        for band, shares in self._model.segmenter.labelled_bands(*image):
            plain = shares.numpy(force=True)  # (K, rows, W)
            counts = counts + count_probabilities(plain, truth[row : row + len(band)])
            row += len(band)
            labels.append(band)
            confidence.append(plain.max(0))
        whole = self._model.finish(np.concatenate(labels))
        return Predicted(whole, np.concatenate(confidence), counts)


class _Kept:
    """Labels and confidence of images in a file without a name, one image after the other.

    Attributes:
        places: The offset in the file, and the shape (H, W), of each image by its number.
    """

    def __init__(self) -> None:
        self.places: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._folder = Path(tempfile.gettempdir())
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives on
        except OSError as error:
            raise files.machine_error(self._folder, error) from None
        weakref.finalize(self, self._file.close)

    def write(self, k: int, found: Predicted) -> None:
        """Append the prediction of the k-th image."""
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(found.labels.tobytes())
            self._file.write(np.asarray(found.confidence).tobytes())
            self._file.flush()
        except OSError as error:
            raise files.machine_error(self._folder, error) from None
        self.places[k] = place, found.labels.shape

    def read(self, k: int) -> Predicted:
        """Return the prediction of the k-th image, without its counts."""
        place, shape = self.places[k]
        self._file.seek(place)
        pixels = math.prod(shape)
        labels = np.frombuffer(bytearray(self._file.read(pixels)), np.uint8)
        confidence = np.frombuffer(bytearray(self._file.read(4 * pixels)), np.float32)
        return Predicted(labels.reshape(shape), confidence.reshape(shape))
