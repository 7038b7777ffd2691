"""Writing a mask for every image.

An image is computed in bands of rows, and small images are computed several at once. Meanwhile a
thread reads the next images and another thread writes those before. An image over 100 megapixels is
never held as a whole: its mask is a tiled TIFF, which is written band by band.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ParamSpec, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator

from unetseg import files
from unetseg.arguments import Names, Reports, public, several
from unetseg.classes import IGNORED
from unetseg.dataset import naming
from unetseg.dataset.annotations import find_views, read_view
from unetseg.errors import InputError, MachineError, UnetsegError, arg
from unetseg.objects.counting import ObjectCounter
from unetseg.objects.files import OBJECTS, write_objects
from unetseg.objects.measurement import columns
from unetseg.objects.separation import Objects, find_objects, object_classes
from unetseg.pictures import bands, drawing, reading, writing
from unetseg.pictures.georeference import Georeference
from unetseg.prediction.model import Model, ModelInput
from unetseg.prediction.run_folder import LABEL, label_of
from unetseg.prediction.segmenter import Computed
from unetseg.prediction.summary import (
    ImageSummary,
    join_tables,
    read_records,
    update_summary,
    write_table,
)
from unetseg.progress import Note, OnProgress, Progress, warn
from unetseg.ranks import join, world
from unetseg.records import Text, read_record, to_plain
from unetseg.results import Result, Table
from unetseg.settings import PredictSettings, Selection, check_choice
from unetseg.signals import Caught, catching
from unetseg.text import plural, show

FORMATS = ("auto", "png", "tif")
OVERLAY_SIZE = 2000  # pixels along the longer side: as much as a screen shows
_WORDS = {"tiff": "tif", "geotiff": "tif"}  # other words for a format
PAGES = "pages"  # the folder of the masks of single pages
OBJECT_TABLE = "objects.csv"
_OVERLAYS = 20  # up to so many images, overlays are drawn without being asked for
_COUNTED = 512  # objects are counted in so many rows at once
_AHEAD = 25_000_000  # an image with more pixels is not decoded while another is computed
_SMALL = 2**20  # an image with more pixels is not computed together with others

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True, repr=False)
class Predictions(Result):
    """The work that `predict` did.

    Attributes:
        out: The folder of masks.
        written: Masks written, in the order of the inputs.
        skipped: Masks that an earlier call made by the same model, input and options.
        failed: Each input that could not be read, with its error.
        overlays: Overlays written.
        shares: The share of each class in the written masks, 0 to 1, by name.
        unlike: Each image that is unlike the training images, with the differences in words.
        summary: The table with one row per image and class.
        objects: The table with one row per object; None where no objects were asked for.
        counts: The number of objects in the written masks, by the classes that were asked for.
        medians: Their median area in pixels, by class; None where there are none.
        pixel_size: Height and width of a pixel and their unit, such as "µm"; None where the images
            do not say it, or differ in it.
    """

    out: Path
    written: tuple[Path, ...]
    skipped: tuple[Path, ...]
    failed: tuple[tuple[Path, UnetsegError], ...]
    overlays: tuple[Path, ...]
    shares: dict[str, float]
    unlike: tuple[tuple[Path, str], ...]
    summary: Path
    objects: Path | None = None
    counts: dict[str, int] = field(default_factory=dict)
    medians: dict[str, float | None] = field(default_factory=dict)
    pixel_size: tuple[float, float, str] | None = None

    def line(self) -> str:
        """Return how many masks were written, and where."""
        kept = f", {len(self.skipped)} were there already" if self.skipped else ""
        kept += f", {plural(len(self.failed), 'image')} failed" if self.failed else ""
        return f"{plural(len(self.written), 'mask')} written to {show(self.out)}{kept}"

    def tables(self) -> tuple[Table, ...]:
        """Return the share and the objects of each class, and the images to look at first."""
        rows = [(name, f"{100 * share:.1f} %") for name, share in self.shares.items()]
        shares = Table("Share of the pixels", ["class", "share"], rows, self.line())
        if self.counts:
            counted = [(*row, *self._counted(row[0])) for row in rows]
            columns = [*shares.columns, "objects", "median area"]
            shares = Table("Share of the pixels, and objects", columns, counted, shares.note)
        doubts = [*self.failed, *self.unlike]
        others = [(image.name, str(text)) for image, text in doubts]
        table = Table("To look at first", ["image", "why"], others)
        return (shares, table) if others else (shares,)

    def _counted(self, name: str) -> tuple[str | None, str | None]:
        """Return the number of objects and their median area; None where there are none."""
        if name not in self.counts:
            return None, None
        count, median = f"{self.counts[name]:,}", self.medians[name]
        if median is None or self.pixel_size is None:
            return count, None if median is None else f"{median:,.0f} px"
        height, width, unit = self.pixel_size
        return count, f"{median * height * width:,.4g} {unit}²"

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of ``summary.csv``: one for each image and class in the folder."""
        return read_records(self.summary) if self.summary.exists() else []


@public()
@join()
def predict(
    inputs: Names,
    *,
    model: Names = "default",
    out: str | os.PathLike[str] = "predictions",
    settings: PredictSettings | None = None,
    format: str = "auto",
    overlay: bool | None = None,
    probabilities: bool = False,
    confidence: bool = False,
    objects: str | Sequence[str] = (),
    fov: str | os.PathLike[str] | None = None,
    overlay_size: int = OVERLAY_SIZE,
    overwrite: bool = False,
    on_progress: Reports = warn,
) -> Predictions:
    """Write a mask for every image. A mask that an equal earlier call wrote stays as it is.

    Processes started by ``torchrun`` share the images.

    Args:
        inputs: Images, or folders of images (or of labelled images: then their ``images/``).
        model: Runs, run folders or model files; several are averaged.
        out: Folder of the masks, ``<stem>.png`` each, and of ``summary.csv``.
        settings: How images are covered, and masks mended; None for the defaults.
        format: The format of masks and confidence, one of `FORMATS`. "auto" is TIFF for images with
            a place on a map, which it keeps, and for those over 100 megapixels. Else it is PNG.
        overlay: Draw overlays; None draws them for up to 20 images.
        probabilities: Also write the probabilities of all classes as (K, H, W) float32 TIFFs. They
            are NaN where a pixel gets no class, because it has no data or is ignored.
        confidence: Also write the probability of each pixel's class as grey pictures, in which 255
            is certain, and 0 is a pixel that gets no class.
        objects: Classes whose touching objects are told apart, or "all". Each image gets a label
            image, polygons (GeoJSON) and a table in ``objects/``; ``objects.csv`` joins the tables
            of all images in the folder.
        fov: Folder of masks of the field of view, named like the images; outside is ignored.
        overlay_size: The most pixels along the longer side of an overlay; larger images are
            reduced.
        overwrite: Replace files that unetseg did not write.
        on_progress: Receives `Note` and `Progress`.

    Raises:
        InputError: Before any work: there is no image, two images have one stem, a file is in the
            way, or a model cannot be read. An image that cannot be read is in ``failed`` instead.
        MachineError: The disk is full, or a folder must not be read or written.
    """
    settings, out, objects = settings or PredictSettings(), Path(out), several(objects)
    format = _WORDS.get(format, format)
    check_choice("format", format, FORMATS)
    if overlay_size < 1:
        raise InputError(arg("overlay_size"), f"{overlay_size} is out of range", "1 or more")
    sources = _collect(several(inputs))
    wanted = {
        "overlay": overlay,
        "probabilities": probabilities,
        "confidence": confidence,
        "objects": bool(objects),
    }
    if overlay is None:
        wanted["overlay"] = None if len(sources) <= _OVERLAYS else False
    loaded = Model(model, settings)
    views = find_views(Path(fov), sources) if fov is not None else {}
    pages = [(one, page) for one in sources for page in _pages_of(one, loaded.selection)]
    jobs = [
        _job(source, out, format, wanted, loaded.selection, views.get(source), page)
        for source, page in pages
    ]
    _check_places(jobs, overwrite)
    ranks, table = world(), out / "summary.csv"
    if ranks.is_writer:
        update_summary(table, [], (), overwrite)
    on_progress = ranks.only_on_rank_zero(on_progress)
    names = loaded.card.classes.names
    count = f"{len(jobs)} images" if len(jobs) > 1 else show(jobs[0].image)
    on_progress(Note(f"predicting {count} with {loaded}"))
    kinds = object_classes(loaded.card.classes, objects, on_progress)
    mine, outcomes = ranks.own_items(jobs), list[_Outcome]()
    try:
        with catching() as caught, _WriteBehind() as behind:
            session = _Session(loaded, out, mine, on_progress, caught, behind, kinds, overlay_size)
            turns = map(session.read, range(1, len(mine) + 1), mine)
            for batch in read_ahead(loaded.segmenter.batches(turns, lambda turn: turn.size)):
                session.compute(batch)
                for turn in batch:
                    outcomes.append(turn.outcome)
                    session.predict(turn)
    except UnetsegError:
        if ranks.size == 1:  # one rank of several does not know what the others write
            update_summary(table, [one.summary for one in outcomes if one.summary], names)
        raise
    told = ranks.collect([to_plain(one) for one in outcomes])
    outcomes = [read_record(_Outcome, one, "the outcome of a rank") for one in told]
    if ranks.is_writer:
        update_summary(table, [one.summary for one in outcomes if one.summary], names)
        _join_pages(jobs, outcomes)
        if objects:
            join_tables(out / OBJECTS, out / OBJECT_TABLE)
    done = _predictions(out, table, jobs, outcomes, names)
    if not objects:
        return done
    counts, medians = dict[str, int](), dict[str, float | None]()
    for kind in kinds:
        parts = [one.summary.areas[kind] for one in outcomes if one.summary]
        areas = np.concatenate([np.zeros(0, np.int64), *parts])
        counts[names[kind]] = len(areas)
        medians[names[kind]] = float(np.median(areas)) if len(areas) else None
    sizes = {one.summary.pixel_size for one in outcomes if one.summary}
    return dataclasses.replace(
        done,
        objects=out / OBJECT_TABLE,
        counts=counts,
        medians=medians,
        pixel_size=sizes.pop() if len(sizes) == 1 else None,
    )


# --- the images to predict -------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """One image and all files that are written for it.

    Attributes:
        image: The file of the image.
        page: The number of the picture in the file, where each is an image; else None.
        view: The mask of its field of view; None where there is none.
        pixels: The number of its pixels according to its header; 1 where that cannot be read.
        mask, overlay, probabilities, confidence, objects: The files to write; None where one is not
            wanted.
    """

    image: Path
    page: int | None
    view: Path | None
    pixels: int
    mask: Path
    overlay: Path | None
    probabilities: Path | None
    confidence: Path | None
    objects: Path | None

    @property
    def is_banded(self) -> bool:
        """Whether the image is never held as a whole."""
        return self.pixels > bands.LARGE and self.mask.suffix == ".tif"

    @property
    def name(self) -> str:
        """The name of the image in tables: of a page as if it were a file of its own."""
        page = "" if self.page is None else f"-{self.page:03}"
        return f"{self.image.stem}{page}{self.image.suffix}"

    @property
    def stack(self) -> Path | None:
        """The stack in which the masks of all pages of the file are joined."""
        return None if self.page is None else self.mask.parents[1] / f"{self.image.stem}.tif"

    @property
    def places(self) -> list[Path]:
        """All files that are written."""
        places = (self.mask, self.overlay, self.probabilities, self.confidence, self.objects)
        return [place for place in places if place]


def _collect(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
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


def _pages_of(source: Path, selection: Selection) -> Sequence[int | None]:
    """Return the pages of a file that are images each; [None] where the file is one image."""
    if selection.page != "all":
        return [None]
    try:
        count = reading.read_info(source).pages
    except (InputError, MachineError):  # the image fails later, in its turn
        return [None]
    return range(count) if count > 1 else [None]


def _join_pages(jobs: Sequence[_Job], outcomes: Sequence["_Outcome"]) -> None:
    """Join the masks of the pages of each file into a stack with the axes of the file."""
    stacks: dict[Path, list[_Job]] = {}
    failed = {job.stack for job, one in zip(jobs, outcomes, strict=True) if one.error}
    for job in jobs:
        if job.stack and job.stack not in failed:
            stacks.setdefault(job.stack, []).append(job)
    for stack, pages in stacks.items():
        label = json.dumps({"pages": [label_of(job.mask) for job in pages]})
        if label_of(stack) == label:
            continue
        info = reading.read_info(pages[0].image)
        masks = [reading.read_mask(job.mask) for job in pages]
        sizes, axes = info.stack, "".join(a for a in info.axes if a not in "YXSC")
        if math.prod(sizes) != len(pages):  # pages of several series
            sizes, axes = (len(pages),), "Q"
        values = np.stack([mask.values for mask in masks])
        shape = (*sizes, *values.shape[1:])
        bands.write_stack(
            stack, values.reshape(shape), f"{axes}YX", masks[0].palette, {LABEL: label}
        )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # the folder around it is closed; reading the file will say so
        return False


def _job(
    source: Path,
    out: Path,
    format: str,
    wanted: dict[str, bool | None],
    selection: Selection,
    view: Path | None,
    page: int | None,
) -> _Job:
    """Return the job for an image.

    Args:
        source: The image.
        out: Folder of the masks.
        format: The format of the mask, one of `FORMATS`.
        wanted: Whether to write each kind of further picture. None means only where the image is
            not too large.
        selection: The part of the file that is used.
        view: The mask of its field of view, where there is one.
        page: The number of the picture in the file, where each is an image.

    Raises:
        InputError: The image is too large for a picture that is asked for.
    """
    pixels, is_placed = 1, False
    try:
        one = selection if page is None else dataclasses.replace(selection, page=page)
        with bands.open_raster(source, one) as raster:
            pixels = raster.info.height * raster.info.width
            is_placed = raster.georeference.is_on_map
    except (InputError, MachineError):  # the image fails later, in its turn
        pass
    large = pixels > bands.LARGE
    for kind, asked in wanted.items():
        if large and asked and kind != "objects":
            text = (
                f"{show(source)} has {pixels / 1e6:,.0f} megapixels, over {bands.LARGE / 1e6:.0f}"
            )
            raise InputError(arg(kind), text, "cut it, or leave the option out")
    stem = source.stem if page is None else f"{source.stem}-{page:03}"
    tiff = format == "tif" or (format == "auto" and (large or is_placed))
    end = ".tif" if tiff else ".png"

    def place(kind: str, name: str) -> Path | None:
        return out / name if wanted[kind] or (wanted[kind] is None and not large) else None

    return _Job(
        source,
        page,
        view,
        pixels,
        out / ("" if page is None else PAGES) / f"{stem}{end}",
        place("overlay", f"overlays/{stem}.png"),
        place("probabilities", f"probabilities/{stem}.tif"),
        place("confidence", f"confidence/{stem}{end}"),
        place("objects", f"{OBJECTS}/{stem}.tif"),
    )


def _check_places(jobs: Sequence[_Job], overwrite: bool) -> None:
    """Raise `InputError` where an output would replace another one, an input or a foreign file."""
    places: dict[str, Path] = {}
    inputs = {os.path.realpath(job.image) for job in jobs}
    for job in jobs:
        # Some file systems do not tell A.png from a.png.
        key = str(job.mask.with_suffix("")).casefold()
        if key in places:
            text = f"and {show(job.image)} would both be written to {show(job.mask)}"
            raise InputError(places[key], text, f"predict them apart, with another {arg('out')}")
        places[key] = job.image
        for place in filter(None, (*job.places, job.stack)):
            if os.path.realpath(place) in inputs:
                raise InputError(place, "would overwrite an input", f"choose another {arg('out')}")
            if place.exists() and not overwrite and not label_of(place):
                text = "already exists and was not written by unetseg"
                raise InputError(
                    place, text, f"choose another {arg('out')}, or {arg('overwrite', True)}"
                )


# --- earlier results -------------------------------------------------------------------------


def _label(
    model: Model,
    job: _Job,
    objects: Mapping[int, int | None],
    overlay_size: int,
    hash_of: Callable[[Path], str],
) -> str:
    """Return a text that is equal for equal models, input and options.

    ``hash_of`` stands for ``_file_hash``, or remembers its results.
    """
    settings = model.settings
    options: dict[str, Any] = {
        "strides": model.segmenter.strides,  # null is seamless
        "weights": settings.weights,
        "tta": settings.tta,
        "page": model.selection.page if job.page is None else job.page,
        "largest": settings.largest,
        "min_size": settings.min_size,
        "fill_holes": settings.fill_holes,
    }
    for switch in ("convert_depth", "whole"):
        if getattr(settings, switch):
            options[switch] = True
    if model.selection.channels:
        options["channels"] = model.selection.channels
    if model.selection.crop:
        options["crop"] = model.selection.crop
    if job.view:
        options["fov"] = hash_of(job.view)
    if job.overlay and overlay_size != OVERLAY_SIZE:
        options["overlay_size"] = overlay_size
    if objects:
        options["objects"] = [model.card.classes.names[kind] for kind in objects]
    data = {
        "model": model.digest,
        "input": hash_of(job.image),
        "options": options,
    }
    return json.dumps(data, sort_keys=True)


def _file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; see `files.open_regular` for the errors."""
    with files.open_regular(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise MachineError(path, f"not readable: {error}", "try again") from None


# --- the work --------------------------------------------------------------------------------


def _to_error(data: Any) -> UnetsegError | None:
    """Return the error from which `_from_error` made plain data."""
    if data is None or isinstance(data, UnetsegError):
        return data
    kinds = {kind.__name__: kind for kind in (InputError, MachineError)}
    return kinds[data[0]](*data[1:])


def _from_error(error: UnetsegError | None) -> list[str] | None:
    return (
        None if error is None else [type(error).__name__, error.what, error.problem, error.remedy]
    )


@dataclass
class _Outcome:
    """The result of one image, which other processes receive as JSON.

    Attributes:
        unlike: How the image differs from the training images; "" where it does not.
        error: Why the image failed; None where it did not.
        summary: The facts for the table; None where nothing was written.
    """

    unlike: Text = ""
    error: Annotated[
        UnetsegError | None, PlainValidator(_to_error), PlainSerializer(_from_error)
    ] = None
    summary: ImageSummary | None = None


@dataclass
class _Turn:
    """An image whose turn has come. It holds the pixels, so it is dropped once they are written.

    Attributes:
        number: The place of the image among all of this process, from 1.
        label: The text that `_label` returns.
        picture: The image; None where nothing is to be done, or it could not be read.
        image: The image as the segmenter computed it in a batch of several; None where it is alone.
        seconds: The share of the image in the time of that batch.
        backdrop: The image as its objects are measured.
        shown: The image as the overlay shows it, reduced.
    """

    number: int
    job: _Job
    outcome: _Outcome = field(default_factory=_Outcome)
    label: str = ""
    picture: ModelInput | None = None
    image: bands.Rows | Computed | None = None
    seconds: float = 0.0
    backdrop: NDArray[Any] | None = None
    shown: NDArray[Any] | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width as the network takes a small image; None where it is to be alone."""
        if self.picture is None or self.job.pixels > _SMALL:
            return None
        return self.picture.shape[:2]

    def fail(self, error: UnetsegError) -> None:
        """Note that the image failed, by an error that names it."""
        self.outcome.error = error.about(self.job.image)


def _predictions(
    out: Path,
    table: Path,
    jobs: Sequence[_Job],
    outcomes: Sequence[_Outcome],
    names: Sequence[str],
) -> Predictions:
    """Return the results of all images for the caller of `predict`."""
    done = list(zip(jobs, outcomes, strict=True))
    pixels = np.zeros(len(names), np.int64)
    for one in outcomes:
        pixels += one.summary.pixels if one.summary else 0
    shares = (pixels / max(int(pixels.sum()), 1)).tolist()
    return Predictions(
        out,
        tuple(job.mask for job, one in done if one.summary),
        tuple(job.mask for job, one in done if not one.summary and not one.error),
        tuple((job.image, one.error) for job, one in done if one.error),
        tuple(job.overlay for job, one in done if one.summary and job.overlay),
        dict(zip(names, shares, strict=True)),
        tuple((job.image, one.unlike) for job, one in done if one.unlike),
        table,
    )


@dataclass
class _Found:
    """The measurements and parts that are kept while the bands of an image are computed.

    Attributes:
        pixels: The pixels of each class in the mask, (K,) int64.
        sure: The sum of the probabilities of each class's pixels, and their number, (2, K).
        confidence: The confidence of the bands, (rows, W) uint8, where it is wanted.
        probabilities: The probabilities of the bands, (K, rows, W) float32, where they are wanted.
        separated: The objects of the classes that were asked for, once the mask is whole.
    """

    pixels: NDArray[np.int64]
    objects: ObjectCounter
    sure: NDArray[np.float64]
    confidence: list[NDArray[np.uint8]] = field(default_factory=list)
    probabilities: list[NDArray[np.float32]] = field(default_factory=list)
    separated: Objects | None = None

    def summary(self, job: _Job, picture: ModelInput, seconds: float) -> ImageSummary:
        """Return the facts about the image for the table."""
        size = picture.raster.georeference.pixel_size
        areas = self.objects.areas()
        if self.separated:
            for kind in self.separated.classes:
                areas[kind] = self.separated.areas[self.separated.kinds == kind]
        return ImageSummary(job.name, self.pixels, areas, self.sure, size, seconds)


class _Session:
    """One call of `predict`: how an image is read, computed and written, and how far the call is.

    Args:
        model: The model.
        out: Folder of the masks, which an interruption names.
        jobs: The images of this process.
        on_progress: Receives `Note` and `Progress`.
        caught: Says whether a signal has come.
        behind: Writes an image while the next one is computed.
        objects: Classes whose objects are told apart, as `object_classes` returns them.
        overlay_size: The most pixels along the longer side of an overlay.
    """

    def __init__(
        self,
        model: Model,
        out: Path,
        jobs: Sequence[_Job],
        on_progress: OnProgress,
        caught: Caught,
        behind: "_WriteBehind",
        objects: Mapping[int, int | None],
        overlay_size: int,
    ) -> None:
        self.overlay_size = overlay_size
        # The pages of a file come one after another: it and its field of view are hashed once.
        self.hash_of = functools.lru_cache(2)(_file_hash)
        self.objects = objects
        self.model, self.out, self.on_progress = model, out, on_progress
        self.caught, self.behind = caught, behind
        self.count, self.total, self.done = len(jobs), sum(job.pixels for job in jobs), 0
        self.alpha_said = self.ignored_said = self.cost_said = False

    def read(self, number: int, job: _Job) -> _Turn:
        """Read an image as far as it can be read before its turn."""
        turn = _Turn(number, job)
        try:
            turn.label = _label(self.model, job, self.objects, self.overlay_size, self.hash_of)
            if any(label_of(place) != turn.label for place in job.places):
                with ExitStack() as closing:
                    picture = closing.enter_context(self.model.open(job.image, job.page))
                    if job.view:
                        picture.leave_out(~read_view(job.view, picture.raster.shape[:2]))
                    if job.pixels <= _AHEAD:
                        picture.load()
                    if job.objects and not job.is_banded:
                        turn.backdrop = np.asarray(picture.raster)
                    if job.overlay and not job.is_banded:
                        whole: bands.Rows = picture.raster
                        whole = whole if turn.backdrop is None else turn.backdrop
                        if (nodata := picture.raster.georeference.nodata) is not None:
                            whole = bands.Blanked(whole, nodata)
                        turn.shown = bands.reduce_rows(whole, self._step(picture))
                    turn.outcome.unlike = self.model.unlike(picture)
                    turn.picture = picture
                    closing.pop_all()  # whoever takes the turn closes the picture
        except (InputError, MachineError) as error:
            turn.fail(error)
        return turn

    def compute(self, turns: Sequence[_Turn]) -> None:
        """Compute the images of one batch at once; an image alone is computed in its turn."""
        if len(turns) < 2:
            return
        begin = time.perf_counter()
        found = self.model.segmenter.together([turn.picture for turn in turns if turn.picture])
        seconds = (time.perf_counter() - begin) / len(turns)
        for turn, image in zip(turns, found, strict=True):
            turn.image, turn.seconds = image, seconds
        self.behind.wait()

    def predict(self, turn: _Turn) -> None:
        """Compute the mask of an image, and have it written."""
        self._stop_if_caught()
        if turn.picture is not None:
            self._say(turn, turn.picture)
            try:
                with turn.picture:
                    self._predict(turn, turn.picture)
            except InputError as error:  # pixels that are decoded only now are damaged
                turn.fail(error)
        self.done += turn.job.pixels
        self._report(turn, 0)

    def _stop_if_caught(self) -> None:
        self.caught.check(self.out, "run the same line again: finished masks are kept")

    def _report(self, turn: _Turn, pixels: float) -> None:
        place = f"image {turn.number} of {self.count}, {show(turn.job.name)}"
        done = self.done + pixels
        self.on_progress(Progress("predicting", done, self.total, "pixels", place))

    def _say(self, turn: _Turn, picture: ModelInput) -> None:
        """Report the oddities of an image before it is predicted."""
        image = show(turn.job.image)
        if picture.raster.info.alpha and not self.alpha_said:
            self.on_progress(
                Note(f"{image}: transparency is left out; wholly transparent pixels are ignored")
            )
            self.alpha_said = True
        height, width, _ = picture.raster.shape
        card = self.model.card
        ignored = card.outside(height, width, card.selection)
        if ignored is not None and not self.ignored_said:
            text = f"{100 * ignored.mean():.2g} % of the pixels of {height} x {width} are ignored"
            self.on_progress(Note(f"{text}, as in training; {arg('whole', True)} includes them"))
            self.ignored_said = True
        if not self.cost_said and (text := self.model.segmenter.seamless_cost(picture.shape)):
            self.on_progress(Note(f"{text}; without {arg('mode')} it takes less time and memory"))
            self.cost_said = True
        if turn.outcome.unlike:
            text = f"{image} is unlike the images trained on: {turn.outcome.unlike}"
            self.on_progress(Note(text, warning=True))

    def _predict(self, turn: _Turn, picture: ModelInput) -> None:
        job, begin = turn.job, time.perf_counter() - turn.seconds
        classes = len(self.model.card.classes.classes)
        found = _Found(np.zeros(classes, np.int64), ObjectCounter(classes), np.zeros((2, classes)))
        labels = self._mend(self._cover(turn, picture, found))
        if job.is_banded:
            if job.objects:
                labels = self._tell_apart(job.objects, turn, picture, labels, found)
            self._write_mask(turn, picture, self._count(labels, found))
            turn.outcome.summary = found.summary(job, picture, time.perf_counter() - begin)
            return
        whole = np.concatenate(list(labels))
        if turn.image is None:
            self.behind.wait()
        self.behind.do(self._write, turn, picture, whole, found, time.perf_counter() - begin)

    def _cover(
        self, turn: _Turn, picture: ModelInput, found: _Found
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield class indices (rows, W) band by band; 255 where the image has no data.

        There, the confidence is 0 and the probabilities are NaN.
        """
        job, row = turn.job, 0
        height, width, _ = picture.raster.shape
        image = turn.image or picture
        for labels, shares in self.model.segmenter.labelled_bands(image, (height, width)):
            rows = slice(row, row + len(labels))
            probabilities = shares.cpu().numpy()
            highest = probabilities.max(0)
            if (valid := picture.valid(rows)) is not None:
                labels[~valid], highest[~valid] = IGNORED, 0
            flat, classes = labels.ravel(), len(found.pixels)
            found.sure[0] += np.bincount(flat, highest.ravel(), 256)[:classes]
            found.sure[1] += np.bincount(flat, minlength=256)[:classes]
            if job.confidence or job.objects:
                found.confidence.append(np.rint(highest * 255).astype(np.uint8))
            if job.probabilities:
                if valid is not None:
                    probabilities[:, ~valid] = np.nan
                found.probabilities.append(probabilities)
            yield labels
            row = rows.stop
            self._stop_if_caught()
            self._report(turn, job.pixels * row / height)

    def _mend(self, parts: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Yield the parts as they are or, where rules are given, the whole mended mask."""
        if self.model.cleaning.changes_nothing:
            yield from parts
        else:
            yield self.model.mend(np.concatenate(list(parts)))

    def _count(
        self, parts: Iterator[NDArray[np.uint8]], found: _Found
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the parts, counting pixels and objects on the way."""
        for labels in parts:
            found.pixels += np.bincount(labels.ravel(), minlength=256)[: len(found.pixels)]
            for top in range(0, len(labels), _COUNTED):
                found.objects.add(labels[top : top + _COUNTED])
            yield labels

    def _write(
        self,
        turn: _Turn,
        picture: ModelInput,
        labels: NDArray[np.uint8],
        found: _Found,
        seconds: float,
    ) -> None:
        """Write all that belongs to an image while another image is computed."""
        try:
            self._write_pictures(turn, picture, labels, found)
            self._write_mask(turn, picture, self._count(iter([labels]), found))
            turn.outcome.summary = found.summary(turn.job, picture, seconds)
        except InputError as error:
            turn.fail(error)

    def _write_pictures(
        self, turn: _Turn, picture: ModelInput, labels: NDArray[np.uint8], found: _Found
    ) -> None:
        job, text, classes = turn.job, {LABEL: turn.label}, self.model.card.classes
        place = picture.raster.georeference
        confidence = np.concatenate(found.confidence) if found.confidence else None
        if job.objects and turn.backdrop is not None:
            found.separated = find_objects(labels, self.objects, confidence)
            self._write_objects(
                job.objects, turn, found.separated, turn.backdrop, confidence, place
            )
        if job.probabilities:
            shares = np.concatenate(found.probabilities, 1)
            writing.write_float_tiff(job.probabilities, shares, text, place)
        if job.confidence and confidence is not None:
            if job.confidence.suffix == ".tif":
                # No pixel that has a class has a confidence of 0.
                bands.write_numbers(job.confidence, confidence, text, place, nodata=0)
            else:
                writing.write_picture(job.confidence, confidence[..., None], text)
        if job.overlay and turn.shown is not None:
            step, numbers = self._step(picture), None
            if found.separated:
                numbers = bands.reduce_mask(found.separated.numbers, step)
            small, plain = bands.reduce_mask(labels, step), self.model.card.unpainted
            overlay = drawing.overlay(turn.shown, small, classes, plain, numbers)
            writing.write_picture(job.overlay, overlay, text)

    def _step(self, picture: ModelInput) -> int:
        """Return how many pixels of an image stand in a row for each pixel of its overlay."""
        return -(-max(picture.raster.shape[:2]) // self.overlay_size)

    def _tell_apart(
        self,
        path: Path,
        turn: _Turn,
        picture: ModelInput,
        parts: Iterator[NDArray[np.uint8]],
        found: _Found,
    ) -> Iterator[NDArray[np.uint8]]:
        """Write the objects of an image that is never held as a whole, then yield its mask.

        Mask, confidence and numbers lie on the disk meanwhile.
        """
        height, width, _ = picture.raster.shape
        with ExitStack() as stack:
            labels, sure, numbers = (
                stack.enter_context(bands.scratch(path, (height, width), dtype))
                for dtype in (np.uint8, np.uint8, np.int32)
            )
            row = filled = 0
            for part in parts:
                labels[row : row + len(part)] = part
                row += len(part)
                for band in found.confidence:
                    sure[filled : filled + len(band)] = band
                    filled += len(band)
                found.confidence.clear()
            told: dict[str, Any] = {
                "on_progress": self.on_progress,
                "check": self._stop_if_caught,
            }
            objects = find_objects(labels, self.objects, sure, numbers=numbers, **told)
            place = picture.raster.georeference
            self._write_objects(path, turn, objects, picture.raster, sure, place, **told)
            # The numbers are gone before the summary is made.
            found.separated = dataclasses.replace(objects, numbers=np.zeros((0, 0), np.int32))
            for top in range(0, height, _COUNTED):
                yield np.asarray(labels[top : top + _COUNTED])

    def _write_objects(
        self,
        path: Path,
        turn: _Turn,
        objects: Objects,
        image: bands.Rows,
        confidence: NDArray[np.uint8] | None,
        georeference: Georeference,
        **told: Any,
    ) -> None:
        """Write the label image, the polygons and the table of the objects of an image."""
        rows = write_objects(
            path,
            objects,
            self.model.card.classes,
            image,
            confidence=confidence,
            text={LABEL: turn.label},
            georeference=georeference,
            **told,
        )
        header, name = columns(image.shape[2]), turn.job.name
        cells = ([name if c == "image" else row.get(c) for c in header] for row in rows)
        write_table(path.with_suffix(".csv"), header, cells)

    def _write_mask(
        self, turn: _Turn, picture: ModelInput, parts: Iterator[NDArray[np.uint8]]
    ) -> None:
        """Write the mask last: where it stands, all other files of its image are complete."""
        path, table, text = turn.job.mask, self.model.card.classes, {LABEL: turn.label}
        place = picture.raster.georeference
        if path.suffix == ".tif":
            height, width, _ = picture.raster.shape
            bands.write_mask_tiff(path, parts, (height, width), table, text, place)
        else:
            writing.write_mask(path, np.concatenate(list(parts)), table, text, place)


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items; a thread makes the next one meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


class _WriteBehind:
    """A thread that writes the images of one batch while the next batch is computed.

    An error of the thread is raised by the next `wait`, or at the end of the block.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pending = list[Future[None]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()

    def do(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call ``work`` in the thread, after the work given before."""
        self._pending.append(self._pool.submit(work, *args, **kwargs))

    def wait(self) -> None:
        """Wait until all work given is done."""
        while self._pending:
            self._pending.pop(0).result()
