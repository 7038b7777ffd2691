"""Which image goes to which files, and how a file of an earlier call is known."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from unetseg import files
from unetseg.dataset import naming
from unetseg.errors import InputError, MachineError, arg
from unetseg.objects.files import OBJECTS, companions, is_own
from unetseg.pictures import bands, reading
from unetseg.prediction.model import Model
from unetseg.prediction.run_folder import LABEL, label_of, refuse_foreign
from unetseg.progress import Note, OnProgress, silent
from unetseg.settings import Selection
from unetseg.text import show

OVERLAY_SIZE = 2000  # pixels along the longer side: as much as a screen shows
PAGES = "pages"  # the folder of the masks of single pages
OBJECT_TABLE = "objects.csv"


@dataclass(frozen=True)
class Wanted:
    """The files that are wanted for each image; `predict` explains its arguments of these names.

    Attributes:
        overlay: None draws overlays of images that are not too large.
        objects: The classes and borders that `object_classes` returns; None for no objects.
    """

    out: Path
    format: str = "auto"
    overlay: bool | None = None
    probabilities: bool = False
    confidence: bool = False
    objects: Mapping[int, int | None] | None = None
    overlay_size: int = OVERLAY_SIZE


@dataclass(frozen=True)
class Job:
    """One image, and the place of each file that is written for it; None where one is not wanted.

    Attributes:
        wanted: The files that are wanted.
        image: The file of the image.
        page: The number of the picture in the file, where each is an image; else None.
        view: The mask of its field of view; None where there is none.
        pixels: The number of its pixels according to its header; 1 where that cannot be read.
        is_placed: Whether it has a place on a map.
    """

    wanted: Wanted
    image: Path
    page: int | None = None
    view: Path | None = None
    pixels: int = 1
    is_placed: bool = False

    @property
    def is_large(self) -> bool:
        """Whether the image has too many pixels for pictures that need it as a whole."""
        return self.pixels > bands.LARGE

    @property
    def is_banded(self) -> bool:
        """Whether the image is never held as a whole."""
        return self.is_large and self._suffix == ".tif"

    @property
    def name(self) -> str:
        """The name of the image in tables: of a page as if it were a file of its own."""
        return f"{self._stem}{self.image.suffix}"

    @property
    def mask(self) -> Path:
        """The mask; it is written last."""
        return self._place("" if self.page is None else PAGES, self._suffix)

    @property
    def overlay(self) -> Path | None:
        """The overlay."""
        asked = self.wanted.overlay
        drawn = not self.is_large if asked is None else asked
        return self._place("overlays", ".png") if drawn else None

    @property
    def probabilities(self) -> Path | None:
        """The probabilities of all classes."""
        return self._place("probabilities", ".tif") if self.wanted.probabilities else None

    @property
    def confidence(self) -> Path | None:
        """The probability of each pixel's class."""
        return self._place("confidence", self._suffix) if self.wanted.confidence else None

    @property
    def objects(self) -> Path | None:
        """The label image of the objects."""
        return self._place(OBJECTS, ".tif") if self.wanted.objects is not None else None

    @property
    def map_objects(self) -> Path | None:
        """The outlines of the objects in the coordinates of the map."""
        return companions(self.objects)[2] if self.objects and self.is_placed else None

    @property
    def has_companions(self) -> bool:
        """Whether the table and the outlines of the objects are there, if objects are wanted."""
        wanted = companions(self.objects)[:2] if self.objects else ()
        return all(place.exists() for place in wanted)

    @property
    def places(self) -> list[Path]:
        """The pictures that are written."""
        places = (self.mask, self.overlay, self.probabilities, self.confidence, self.objects)
        return [place for place in places if place]

    @property
    def stack(self) -> Path | None:
        """The stack in which the masks of all pages of the file are joined."""
        return None if self.page is None else self.wanted.out / f"{self.image.stem}.tif"

    @property
    def _stem(self) -> str:
        return self.image.stem if self.page is None else f"{self.image.stem}-{self.page:03}"

    @property
    def _suffix(self) -> str:
        """The suffix of mask and confidence."""
        chosen = "tif" if self.is_large or self.is_placed else "png"
        return f".{chosen if self.wanted.format == 'auto' else self.wanted.format}"

    def _place(self, folder: str, suffix: str) -> Path:
        return self.wanted.out / folder / f"{self._stem}{suffix}"


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the images that files and folders name.

    Raises:
        InputError: There is no image, or the only one does not exist.
        MachineError: No permission to read a folder, or the only image.
    """
    found: list[Path] = []
    for item in map(Path, inputs):
        if not _is_folder(item):
            found.append(item)
            continue
        inside = item / "images"
        found += naming.list_images(inside if inside.is_dir() else item)
    if not found:
        raise InputError("predict", "no image is named", "name images or folders of images")
    if len(found) == 1:
        files.open_regular(found[0]).close()  # raises before a model is loaded
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # the folder around it is closed; reading the file will say so
        return False


def make_jobs(
    images: Sequence[Path],
    wanted: Wanted,
    selection: Selection,
    views: Mapping[Path, Path] = MappingProxyType({}),
) -> list[Job]:
    """Return a job for each image, and for each page where pages are images.

    Args:
        images: The files of the images.
        wanted: The files that are wanted.
        selection: The part of each image file that is used.
        views: The mask of the field of view of each image, where there are any.

    Raises:
        InputError: An image is too large for a picture that is asked for.
    """
    found = [job for one in images for job in _jobs_of(one, views.get(one), wanted, selection)]
    for job in found:
        for kind in ("overlay", "probabilities", "confidence"):
            if job.is_large and getattr(wanted, kind):
                text = (
                    f"{show(job.image)} has {job.pixels / 1e6:,.0f} megapixels, "
                    f"over {bands.LARGE / 1e6:.0f}"
                )
                raise InputError(arg(kind), text, "cut it, or leave the option out")
    return found


def _jobs_of(image: Path, view: Path | None, wanted: Wanted, selection: Selection) -> Iterator[Job]:
    """Yield the job of an image, or the jobs of its pages where each is an image."""
    try:
        count = reading.read_info(image).pages if selection.page == "all" else 1
    except (InputError, MachineError):  # the image fails later, in its turn
        count = 1
    for page in range(count) if count > 1 else [None]:
        job = Job(wanted, image, page, view)
        one = selection if page is None else dataclasses.replace(selection, page=page)
        try:
            with bands.open_raster(image, one) as raster:
                job = dataclasses.replace(
                    job,
                    pixels=raster.info.height * raster.info.width,
                    is_placed=raster.georeference.is_on_map,
                )
        except (InputError, MachineError):  # the image fails later, in its turn
            pass
        yield job


def check_places(jobs: Iterable[Job], overwrite: bool) -> None:
    """Raise `InputError` where an output would replace another one, an input or a foreign file."""
    owners: dict[str, Job] = {}
    inputs = {os.path.realpath(job.image) for job in jobs}
    for job in jobs:
        for place in filter(None, (*job.places, job.map_objects, job.stack)):
            # Some file systems do not tell A.png from a.png.
            owner = owners.setdefault(str(place.with_suffix("")).casefold(), job)
            is_shared = place == job.stack and owner.image == job.image  # by the pages of one file
            if owner is not job and not is_shared:
                text = (
                    f"and {show(job.image)} would both be written to {show(place.with_suffix(''))}"
                )
                remedy = f"predict them apart, with another {arg('out')}"
                raise InputError(owner.image, text, remedy)
            if os.path.realpath(place) in inputs:
                raise InputError(place, "would overwrite an input", f"choose another {arg('out')}")
            if not overwrite and place != job.map_objects:
                refuse_foreign(place, "out")
        if job.objects and not overwrite:
            for place in (*companions(job.objects), job.wanted.out / OBJECT_TABLE):
                refuse_foreign(place, "out", is_own)


def join_pages(
    jobs: Iterable[Job], failed: Iterable[Job], on_progress: OnProgress = silent
) -> None:
    """Join the masks of the pages of each file into a stack with the axes of the file.

    A file with a page that failed, or with pages of several sizes, has no stack.
    """
    stacks: dict[Path, list[Job]] = {}
    without = {job.stack for job in failed}
    for job in jobs:
        if job.stack and job.stack not in without:
            stacks.setdefault(job.stack, []).append(job)
    for stack, pages in stacks.items():
        label = json.dumps({"pages": [label_of(job.mask) for job in pages]})
        if label_of(stack) == label:
            continue
        info = reading.read_info(pages[0].image)
        masks = [reading.read_mask(job.mask) for job in pages]
        if len({mask.values.shape for mask in masks}) > 1:
            text = f"{show(pages[0].image)} has pages of several sizes: its masks are not joined"
            on_progress(Note(text))
            continue
        sizes, axes = info.stack, "".join(a for a in info.axes if a not in "YXSC")
        if math.prod(sizes) != len(pages):  # pages of several series
            sizes, axes = (len(pages),), "Q"
        values = np.stack([mask.values for mask in masks])
        shape = (*sizes, *values.shape[1:])
        bands.write_stack(
            stack, values.reshape(shape), f"{axes}YX", masks[0].palette, {LABEL: label}
        )


# --- earlier results -------------------------------------------------------------------------


def make_label(model: Model, job: Job, hash_of: Callable[[Path], str]) -> str:
    """Return the text in the files of a job: it is equal for equal models, input and options.

    ``hash_of`` is `hash_file`, or remembers its results.
    """
    settings, selection, wanted = model.settings, model.selection, job.wanted
    options: dict[str, Any] = {
        "stride": model.segmenter.stride,  # null is seamless
        "shifts": model.segmenter.shifts,
        "weights": settings.weights,
        "tta": settings.tta,
        "page": selection.page if job.page is None else job.page,
        "largest": settings.largest,
        "min_size": settings.min_size,
        "fill_holes": settings.fill_holes,
    }
    for switch in ("convert_depth", "whole"):
        if getattr(settings, switch):
            options[switch] = True
    if selection.channels:
        options["channels"] = selection.channels
    if selection.crop:
        options["crop"] = selection.crop
    if job.view:
        options["fov"] = hash_of(job.view)
    if job.overlay and wanted.overlay_size != OVERLAY_SIZE:
        options["overlay_size"] = wanted.overlay_size
    if wanted.objects:
        options["objects"] = [model.card.classes.names[kind] for kind in wanted.objects]
    data = {"model": model.digest, "input": hash_of(job.image), "options": options}
    return json.dumps(data, sort_keys=True)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; see `files.open_regular` for the errors."""
    with files.open_regular(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise MachineError(path, f"not readable: {error}", "try again") from None
