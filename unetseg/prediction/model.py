"""A model ready for images: one file or an ensemble, and images in the form that it takes."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from unetseg.arguments import Names, public, several
from unetseg.classes import IGNORED
from unetseg.devices import pick_device
from unetseg.errors import InputError, arg
from unetseg.network.unet import can_be_seamless
from unetseg.objects.counting import PostProcessing, clean
from unetseg.objects.separation import object_classes, with_objects
from unetseg.pictures import bands, reading, transforms
from unetseg.pictures.transforms import rescale_image, scaled_size
from unetseg.prediction import model_file
from unetseg.prediction.likeness import AppearanceRange, describe, sample_windows
from unetseg.prediction.model_file import ModelCard
from unetseg.prediction.run_folder import resolve_model
from unetseg.prediction.segmenter import Segmenter
from unetseg.records import read_record, to_plain
from unetseg.results import Result, Table
from unetseg.settings import WHOLE, PredictSettings, Selection
from unetseg.text import nearest, plural, show

AnyImage = Any
"""A path, a picture of Pillow, or an array; see `Model.read`."""

_FLIPS: dict[str, tuple[int, ...]] = {"hflip": (-1,), "vflip": (-2,)}


class Model(Result):
    """One model file, or several as an ensemble, ready for images.

    Args:
        names: A run, its folder or a model file; several are averaged, if their
            classes and channels agree.
        settings: How images are covered, and masks mended; None for the defaults.

    Raises:
        InputError: A model cannot be read, models do not go together, or settings do not fit.

    Attributes:
        card: The card of the (first) model.
        cards: The cards of all models.
        paths: The files of all models.
        selection: The part of an image file that is used: as the settings say, else as in training.
        segmenter: Runs the networks over an image.
        digest: SHA-256 over the files of all models; predictions are equal only where it is.
        cleaning: The rules by which a mask is mended.
        appearance: The look of the (first) model's training images; None where unknown.
    """

    @public()
    def __init__(self, names: Names, settings: PredictSettings | None = None) -> None:
        self.settings = settings = settings or PredictSettings()
        self.paths = [path for name in several(names) for path in resolve_model(name)]
        if not self.paths:
            raise InputError("model", "none is named", "name a run or a model file")
        loaded = [model_file.load_model(path) for path in self.paths]
        networks = [network for network, _ in loaded]
        self.cards: list[ModelCard] = [
            card.of_whole_images() if settings.whole else card for _, card in loaded
        ]
        self.card = self.cards[0]
        self.selection = settings.selection.or_else(self.card.selection)
        for path, card in zip(self.paths, self.cards, strict=True):
            self._check_alike(path, card)
        self.digest = hashlib.sha256(
            b"".join(hashlib.sha256(p.read_bytes()).digest() for p in self.paths)
        ).hexdigest()
        flips: list[tuple[int, ...]] = (
            [_FLIPS[s] for s in _FLIPS if s in self.card.symmetries] if settings.tta else []
        )
        if len(flips) == 2:
            flips.append((-2, -1))
        self.segmenter = Segmenter(
            networks,
            size=self.card.patch_size,
            means=[card.mean for card in self.cards],
            stds=[card.std for card in self.cards],
            stride=settings.stride_for(
                self.card.patch_size, all(can_be_seamless(network) for network in networks)
            ),
            shifts=settings.shifts,
            weights=settings.weights,
            flips=flips,
            batch_size=settings.batch_size,
            temperature=fmean(card.temperature for card in self.cards),
            device=pick_device(settings.device),
        )
        self.appearance = (
            read_record(AppearanceRange, self.card.looks, "looks of the training images")
            if self.card.looks
            else None
        )
        borders = object_classes(self.card.classes, with_objects(self.card.classes))
        self.cleaning = PostProcessing(
            self._indices(arg("largest"), settings.largest),
            settings.min_size,
            self._indices(arg("fill_holes"), settings.fill_holes),
            tuple((k, b) for k, b in borders.items() if b is not None),
        )

    def _check_alike(self, path: Path, card: ModelCard) -> None:
        for what in ("classes", "channels", "scale", "patch_size", "dtype", "selection"):
            if getattr(card, what) != getattr(self.card, what):
                text = f"another {what.replace('_', ' ')} than {show(self.paths[0])}"
                raise InputError(path, text, "average models of one kind only")

    def _indices(self, option: str, names: Sequence[str]) -> tuple[int, ...]:
        known = self.card.classes.names
        for name in names:
            if name not in known:
                remedy = f"{nearest(name, known)}one of {', '.join(map(show, known))}"
                raise InputError(option, f"{name!r} is no class of the model", remedy)
        return tuple(known.index(name) for name in names)

    def __str__(self) -> str:
        others = f" and {len(self.cards) - 1} more" if len(self.cards) > 1 else ""
        state = "" if self.card.finished else ", its training was not finished"
        return (
            f"{show(self.paths[0])}{others} ({self.card.network}, trained {self.card.trained[:10]} "
            f"on {plural(self.card.images_trained_on, 'image')}{state})"
        )

    def line(self) -> str:
        """Return the file, the network, and how it was trained."""
        return str(self)

    def tables(self) -> tuple[Table, ...]:
        """Return the facts of the (first) model, and its classes."""
        return model_file.tables_of(self.card, str(self))

    def to_dict(self) -> dict[str, Any]:
        """Return the files and cards in plain types for JSON."""
        return {"paths": list(map(str, self.paths)), "cards": list(map(to_plain, self.cards))}

    def records(self) -> list[dict[str, Any]]:
        """Return a row a class."""
        return self.card.classes.records()

    def open(self, path: Path, page: int | None = None) -> "ModelInput":
        """Open an image whose rows come in the channels, depth and scale of the training images.

        Args:
            path: The file.
            page: The number of the picture to take; None takes that of the selection.

        Raises:
            InputError: The file is no image, or has other channels. Damaged pixels are found only
                when they are read.
        """
        selection = self.selection if page is None else replace(self.selection, page=page)
        picture = ModelInput(path, self.card, selection, convert_depth=self.settings.convert_depth)
        picture.outside = self.outside(picture.raster.shape[0], picture.raster.shape[1])
        return picture

    def outside(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """Return which pixels of an image are ignored as in training; see `ModelCard.outside`."""
        return self.card.outside(height, width, self.selection)

    def ignore_outside(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return class indices (H, W) that are 255 where `outside` says so."""
        return self.card.ignore_outside(labels, self.selection)

    @public()
    def read(self, image: AnyImage, page: int | None = None) -> NDArray[Any]:
        """Return an image (H, W, C) in the channels and the depth of the training images.

        Args:
            image: A file, a picture of Pillow, or an array (H, W) or (H, W, C) as a file holds it.
                Whole numbers may have any type that holds those of the training images.
            page: The number of the picture to take, as in `open`; it counts for files alone.

        Raises:
            InputError: The file or the array is no image, or has other channels or another depth.
        """
        return self._read(image, page)[0]

    def _read(
        self, image: AnyImage, page: int | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the image as `read`, and which pixels (H, W) hold data; None where all do."""
        if isinstance(image, str | os.PathLike):
            with self.open(Path(image), page) as picture:
                return picture.whole()
        convert_depth = self.settings.convert_depth
        pixels = reading.as_image(image, self.card.channels, np.dtype(self.card.dtype))
        return as_trained(pixels, self.card, "image", convert_depth=convert_depth), None

    def scaled(
        self, image: AnyImage
    ) -> tuple[NDArray[Any], tuple[int, int], NDArray[np.bool_] | None]:
        """Return an image as the networks take it, its height and width, and its known pixels.

        The latter (H, W) are those that hold data; None where all do. See `read`.
        """
        pixels, valid = self._read(image)
        return *self._fitted(pixels), valid

    def _fitted(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, int]]:
        height, width, _ = pixels.shape
        size = scaled_size(height, width, self.card.scale)
        return rescale_image(pixels, size), (height, width)

    def unlike(self, picture: "ModelInput") -> str:
        """Say how an image differs from the training images; "" where no difference is known.

        Raises:
            InputError: The pixels are damaged.
        """
        if self.appearance is None:
            return ""
        found = describe(sample_windows(picture, self.appearance.size))
        return "; ".join(self.appearance.unlike(found))

    @public()
    def labels(self, image: AnyImage) -> NDArray[np.uint8]:
        """Return (H, W) uint8 class indices for an image as `read` takes it; 255 is ignored.

        Pixels without data in a file are ignored, as `predict` ignores them.
        """
        pixels, valid = self._read(image)
        return self.finish(self.segmenter.labels(*self._fitted(pixels)), valid)

    def finish(
        self, labels: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None
    ) -> NDArray[np.uint8]:
        """Return the class indices (H, W) of a whole image, mended, and ignored as in training.

        Pixels that are not ``valid`` (H, W) are ignored, too.
        """
        if valid is not None:
            labels = np.where(valid, labels, np.uint8(IGNORED))
        return self.mend(self.ignore_outside(labels))

    def mend(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return class indices (H, W) after the rules of the settings have mended them."""
        return clean(labels, self.cleaning)

    @public()
    def probabilities(self, image: AnyImage) -> NDArray[np.float32]:
        """Return (K, H, W) float32 probabilities, summing to 1 over K, for an image as for `read`.

        They are scaled by the model's temperature, in an ensemble by the mean temperature.
        """
        return self.segmenter.probabilities(*self.scaled(image)[:2])

    @public()
    def labels_and_confidence(
        self, image: AnyImage
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return `labels` and the highest probability, 0 to 1, of each pixel: uint8 and float32."""
        pixels, valid = self._read(image)
        labels, confidence = self.segmenter.labels_and_confidence(*self._fitted(pixels))
        return self.finish(labels, valid), confidence


def as_trained(
    image: NDArray[Any],
    card: ModelCard,
    what: object,
    *,
    convert_depth: bool = False,
    stored: str = "",
) -> NDArray[Any]:
    """Return an image (H, W, C) in the channels and the depth of a model's training images.

    Args:
        image: uint8, uint16 or float32.
        card: The card of the model.
        what: The image, for a message.
        convert_depth: Whether another depth is converted, as in `PredictSettings`.
        stored: The dtype of the file, for a message.

    Raises:
        InputError: It has other channels or another depth.
    """
    image = transforms.fit_channels(image, card.channels, what, takes_grey=card.takes_grey)
    return transforms.convert_depth(
        image, np.dtype(card.dtype), what, is_meant=convert_depth, stored=stored
    )


class ModelInput:
    """An open image in the channels, depth and scale of the training images; a context manager.

    Rows are decoded when they are asked for. At a scale other than 1, the first request decodes the
    whole image. Pixels without data get the mean of the training images.

    Attributes:
        raster: The file, in its own size.
        shape: Height, width and channels in the form that the model takes.
        outside: Which pixels (H, W) of the file are ignored; None for none.
    """

    def __init__(
        self,
        path: Path,
        card: ModelCard,
        selection: Selection = WHOLE,
        *,
        convert_depth: bool = False,
    ) -> None:
        self.path, self._card, self._convert_depth = path, card, convert_depth
        self.raster = bands.open_raster(path, selection)
        height, width, _ = self.raster.shape
        self.shape = (*scaled_size(height, width, card.scale), card.channels)
        self._whole: NDArray[Any] | None = None
        self.outside: NDArray[np.bool_] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.raster.close()

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return rows (n, W, C) in the dtype of the training images."""
        if self._whole is None and self._card.scale == 1:
            return self._converted(rows)[0]
        return self.load()[rows]

    def load(self) -> NDArray[Any]:
        """Return the whole image, decoded once: rows no longer need the file."""
        if self._whole is None:
            self._whole = rescale_image(self.whole()[0], (self.shape[0], self.shape[1]))
        return self._whole

    def whole(self) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the image (H, W, C) in the size of the file, and which pixels (H, W) hold data.

        The latter is None where all do.
        """
        return self._converted(slice(0, self.raster.shape[0]))

    def leave_out(self, pixels: NDArray[np.bool_]) -> None:
        """Ignore these pixels (H, W) of the file, too."""
        self.outside = pixels if self.outside is None else self.outside | pixels

    def valid(self, rows: slice) -> NDArray[np.bool_] | None:
        """Return which pixels (n, W) of rows of the file are to get a class; None where all are."""
        valid = self.raster.valid(rows)
        if self.outside is None:
            return valid
        inside = ~self.outside[rows]
        return inside if valid is None else valid & inside

    def _converted(self, rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        image, valid = self.raster.with_valid(rows)
        image = as_trained(
            image,
            self._card,
            self.path,
            convert_depth=self._convert_depth,
            stored=self.raster.info.stored,
        )
        if valid is None:
            return image, None
        return bands.fill_missing(image, valid, self._card.mean), valid
