"""Writing a mask for every image: models loaded, images covered, results put in their places."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import atomic, checkpoints, drawing, folder, images
from unetseg.checkpoints import ModelCard
from unetseg.config import PredictSettings
from unetseg.devices import pick_device
from unetseg.errors import InputError, MachineError, UnetsegError, show
from unetseg.interrupts import catching
from unetseg.pixels import convert_depth
from unetseg.progress import Note, OnProgress, Progress, ignore
from unetseg.segmentation import Segmenter

_OVERLAYS = 20  # images up to which overlays are drawn without being asked for
_FLIPS: dict[str, tuple[int, ...]] = {"hflip": (-1,), "vflip": (-2,)}


class Model:
    """One model file, or several as an ensemble, ready for images.

    Args:
        names: Runs, run folders or model files; their classes and channels must agree.
        settings: How images are covered; None for the defaults.

    Raises:
        InputError: A model that cannot be read, or models that do not go together.

    Attributes:
        card: What the (first) model says about itself.
        cards: The same of all.
        paths: Their files.
        segmenter: Their networks, and how they cover an image.
        digest: SHA-256 over the models' files: part of what makes two predictions equal.
    """

    def __init__(self, names: Sequence[str], settings: PredictSettings | None = None) -> None:
        self.settings = settings = settings or PredictSettings()
        self.paths = [path for name in names for path in checkpoints.resolve_model(name)]
        if not self.paths:
            raise InputError("model", "none is named", "name a run or a model file")
        loaded = [checkpoints.load_model(path) for path in self.paths]
        self.cards: list[ModelCard] = [card for _, card in loaded]
        self.card = self.cards[0]
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
            [network for network, _ in loaded],
            size=self.card.patch_size,
            means=[card.mean for card in self.cards],
            stds=[card.std for card in self.cards],
            stride=settings.stride_for(self.card.patch_size),
            weights=settings.weights,
            flips=flips,
            batch_size=settings.batch_size,
            temperature=fmean(card.temperature for card in self.cards),
            device=pick_device(settings.device),
        )

    def _check_alike(self, path: Path, card: ModelCard) -> None:
        for what in ("classes", "channels", "scale", "patch_size", "dtype"):
            if getattr(card, what) != getattr(self.card, what):
                text = f"another {what.replace('_', ' ')} than {show(self.paths[0])}"
                raise InputError(path, text, "average models of one kind only")

    def __str__(self) -> str:
        others = f" and {len(self.cards) - 1} more" if len(self.cards) > 1 else ""
        state = "" if self.card.finished else ", its training was not finished"
        return (
            f"{show(self.paths[0])}{others} ({self.card.network}, trained {self.card.trained[:10]} "
            f"on {self.card.images_trained_on} images{state})"
        )

    def read(self, path: Path) -> NDArray[Any]:
        """Read an image in the channels, the bit depth and the scale of the training images.

        Raises:
            InputError: Not an image, or with other channels.
        """
        image = images.read_scaled(path, self.card.channels, self.card.scale, self.settings.page)
        return convert_depth(image, np.dtype(self.card.dtype), path)

    def labels(
        self, image: NDArray[Any], shape: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Return (H, W) uint8 class indices for an image as `read` returns it.

        ``shape`` is the height and width wanted; None keeps the image's own.
        """
        return self.segmenter.labels(image, shape)

    def probabilities(self, image: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
        """Return (K, H, W) float32 probabilities of ``shape``, summing to 1 over K.

        They are scaled by the model's temperature, an ensemble's by the mean of theirs.
        """
        return self.segmenter.probabilities(image, shape)

    def labels_and_confidence(
        self, image: NDArray[Any], shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return `labels` and the probability, 0 to 1, of each: (H, W) uint8 and float32."""
        return self.segmenter.labels_and_confidence(image, shape)


@dataclass(frozen=True)
class Predictions:
    """What `predict` did.

    Attributes:
        out: The folder of masks.
        written: Masks written, in the order of the inputs.
        skipped: Masks that were there already, made by the same model, input and options.
        failed: Each input that could not be read, with its error.
        overlays: Overlays written.
        pixels: Share of each class over the written masks, by name.
    """

    out: Path
    written: tuple[Path, ...]
    skipped: tuple[Path, ...]
    failed: tuple[tuple[Path, UnetsegError], ...]
    overlays: tuple[Path, ...]
    pixels: dict[str, float]


@dataclass(frozen=True)
class _Job:
    """One image and all that is written for it."""

    image: Path
    mask: Path
    overlay: Path | None
    probabilities: Path | None


def predict(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    models: Sequence[str] = ("default",),
    out: str | os.PathLike[str] = "predictions",
    settings: PredictSettings | None = None,
    overlay: bool | None = None,
    probabilities: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> Predictions:
    """Write a mask for every image; what an equal earlier call wrote is left as it is.

    Args:
        inputs: Images, or folders of images (or of labelled images: then their ``images/``).
        models: Runs, run folders or model files; several are averaged.
        out: Folder of the masks, ``<stem>.png`` each.
        settings: How images are covered; None for the defaults.
        overlay: Draw overlays; None draws them for up to 20 images.
        probabilities: Write (K, H, W) float32 TIFFs, too.
        overwrite: Replace files that unetseg did not write.
        on_progress: Receives `Note` and `Progress`.

    Raises:
        InputError: Before any work: no image, two images of one stem, a file in the way, a model
            that cannot be read. An image that cannot be read, whyever, is in ``failed`` instead.
        MachineError: The disk is full, or writing is not permitted; a folder that must not be read.
    """
    settings, out = settings or PredictSettings(), Path(out)
    sources = _collect(inputs)
    overlay = len(sources) <= _OVERLAYS if overlay is None else overlay
    jobs = [_job(source, out, overlay, probabilities) for source in sources]
    _check_places(jobs, overwrite)
    model = Model(models, settings)
    count = f"{len(jobs)} images" if len(jobs) > 1 else show(jobs[0].image)
    on_progress(Note(f"predicting {count} with {model}"))
    written, skipped, failed, overlays = [], [], [], []
    pixels, said = np.zeros(len(model.card.classes.classes), np.int64), False
    with catching() as caught:
        for i, job in enumerate(jobs):
            caught.check(out, "run the same line again: what is done is kept")
            try:
                text = _label(model, job, settings)
                source = None if _is_done(job, text) else _read(model, job)
            except (InputError, MachineError) as error:
                failed.append((job.image, error))
            else:
                if source is None:
                    skipped.append(job.mask)
                else:
                    if source.info.alpha and not said:
                        on_progress(Note(f"{show(job.image)}: transparency is left out"))
                        said = True
                    pixels += _write(model, job, source, text)
                    written.append(job.mask)
                    overlays += [job.overlay] if job.overlay else []
            on_progress(Progress("predicting", i + 1, len(jobs), "images", show(job.image.name)))
    total = max(int(pixels.sum()), 1)
    shares = {n: int(p) / total for n, p in zip(model.card.classes.names, pixels, strict=True)}
    return Predictions(out, tuple(written), tuple(skipped), tuple(failed), tuple(overlays), shares)


def _collect(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the images that files and folders name.

    Raises:
        InputError: There is none, or the only one is not there.
        MachineError: No permission to read a folder, or the only image.
    """
    found: list[Path] = []
    for item in map(Path, inputs):
        if not _is_folder(item):
            found.append(item)
            continue
        inside = item / "images"
        found += folder.list_images(inside if inside.is_dir() else item)
    if not found:
        raise InputError("predict", "no image is named", "name images or folders of images")
    if len(found) == 1:
        atomic.open_regular(found[0]).close()  # says what is wrong before a model is loaded
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # in a closed folder, say: reading it will tell
        return False


def _job(source: Path, out: Path, overlay: bool, probabilities: bool) -> _Job:
    return _Job(
        source,
        out / f"{source.stem}.png",
        out / "overlays" / f"{source.stem}.png" if overlay else None,
        out / "probabilities" / f"{source.stem}.tif" if probabilities else None,
    )


def _check_places(jobs: list[_Job], overwrite: bool) -> None:
    """Raise `InputError` where outputs would meet each other, an input, or a stranger's file."""
    places: dict[str, Path] = {}
    inputs = {os.path.realpath(job.image) for job in jobs}
    for job in jobs:
        key = str(job.mask).casefold()  # some file systems do not tell A.png from a.png
        if key in places:
            text = f"and {show(job.image)} would both be written to {show(job.mask)}"
            raise InputError(places[key], text, "predict them apart, with another --out")
        places[key] = job.image
        for place in (job.mask, job.overlay, job.probabilities):
            if place and os.path.realpath(place) in inputs:
                raise InputError(place, "would overwrite an input", "choose another --out")
            if place and place.exists() and not overwrite and not _read_label(place):
                text = "already exists and was not written by unetseg"
                raise InputError(place, text, "choose another --out, or --overwrite")


_TEXT = "unetseg"  # key of the text in a file that says what made it


def _label(model: Model, job: _Job, settings: PredictSettings) -> str:
    """Return what makes two predictions equal: the models, the input and the options."""
    options = {
        "stride": settings.stride_for(model.card.patch_size),
        "weights": settings.weights,
        "tta": settings.tta,
        "page": settings.page,
    }
    data = {
        "model": model.digest,
        "input": _file_hash(job.image),
        "options": options,
    }
    return json.dumps(data, sort_keys=True)


def _file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; see `atomic.open_regular` for what it raises."""
    with atomic.open_regular(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise MachineError(path, f"not readable: {error}", "try again") from None


def _is_done(job: _Job, text: str) -> bool:
    places = [p for p in (job.mask, job.overlay, job.probabilities) if p]
    return all(_read_label(p) == text for p in places)


def _read_label(path: Path) -> str:
    """Return what `_label` said of a file; "" where there is none or unetseg did not write it."""
    try:
        return images.read_text(path).get(_TEXT, "")
    except InputError:  # not even a picture
        return ""


@dataclass(frozen=True)
class _Source:
    """An image as read: its header, as the model takes it, and as it is drawn over."""

    info: images.ImageInfo
    image: NDArray[Any]
    picture: NDArray[Any] | None


def _read(model: Model, job: _Job) -> _Source:
    """Read all that `_write` needs. Raises `InputError` and `MachineError` on what cannot be."""
    image, page = model.read(job.image), model.settings.page
    picture = images.read_image(job.image, page) if job.overlay else None
    return _Source(images.read_info(job.image, page), image, picture)


def _write(model: Model, job: _Job, source: _Source, text: str) -> NDArray[np.int64]:
    """Predict one image and write all that is wanted, the mask last; return pixels per class."""
    shape = (source.info.height, source.info.width)
    if job.probabilities:
        labels, shares = model.segmenter.labels_and_probabilities(source.image, shape)
        images.write_float_tiff(job.probabilities, shares, {_TEXT: text})
    else:
        labels = model.labels(source.image, shape)
    if job.overlay and source.picture is not None:
        plain = drawing.commonest(labels)
        picture = drawing.overlay(source.picture, labels, model.card.classes, plain)
        images.write_picture(job.overlay, picture, {_TEXT: text})
    images.write_mask(job.mask, labels, model.card.classes, {_TEXT: text})
    return np.bincount(labels.ravel(), minlength=len(model.card.classes.classes))
