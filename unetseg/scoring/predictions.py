"""A model's predictions of images that are scored; where they are kept, each is made once."""

import math
import os
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.prediction.model import AnyImage, Model
from unetseg.scoring.curves import count_probabilities

Labels = NDArray[np.uint8]


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
        image = self._image(k)
        if self._curves:
            found = self._counted(image, truth)
        elif sure or self._kept:
            found = Predicted(*self._model.labels_and_confidence(image))
        else:
            return Predicted(self._model.labels(image))
        if self._kept:
            self._kept.write(k, found)
        return found

    def _counted(self, image: AnyImage, truth: Labels) -> Predicted:
        """Predict an image, and count its probabilities band by band."""
        labels, confidence, row = list[Labels](), list[NDArray[np.float32]](), 0
        counts = np.zeros((), np.int64)
        for band, shares in self._model.labelled_bands(image):  # (rows, W), (K, rows, W)
            counts = counts + count_probabilities(shares, truth[row : row + len(band)])
            row += len(band)
            labels.append(band)
            confidence.append(shares.max(0))
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
