"""Writing a mask for every image.

An image is computed in bands of rows, and small images are computed several at once. Meanwhile a
thread reads the next images and another thread writes those before. An image over 100 megapixels is
never held as a whole: its mask is a tiled TIFF, which is written band by band.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ParamSpec, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator
from torch import Tensor

from unetseg.arguments import Names, Reports, public, several
from unetseg.dataset.conversion.views import find_views, read_view
from unetseg.errors import Code, InputError, MachineError, UnetsegError, arg
from unetseg.objects.files import OBJECTS, is_own
from unetseg.objects.separation import object_classes
from unetseg.pictures.bands import Rows
from unetseg.prediction.jobs import (
    OBJECT_TABLE,
    OVERLAY_SIZE,
    Job,
    Wanted,
    check_places,
    find_images,
    hash_file,
    join_pages,
    make_jobs,
    make_label,
)
from unetseg.prediction.model import Model, ModelInput
from unetseg.prediction.outputs import Outputs
from unetseg.prediction.run_folder import label_of
from unetseg.prediction.segmenter import Computed
from unetseg.prediction.summary import (
    ImageSummary,
    join_tables,
    read_records,
    summarised,
    update_summary,
)
from unetseg.progress import Note, OnProgress, Progress, warn
from unetseg.ranks import join, world
from unetseg.records import Text, read_record, to_plain
from unetseg.results import Result, Table
from unetseg.settings import PredictSettings, check_choice
from unetseg.signals import catching
from unetseg.text import plural, show

FORMATS = ("auto", "png", "tif")
_WORDS = {"tiff": "tif", "geotiff": "tif"}  # other words for a format
_OVERLAYS = 20  # up to so many images, overlays are drawn without being asked for
_AHEAD = 25_000_000  # an image with more pixels is not decoded while another is computed
_SMALL = 2**20  # an image with more pixels is not computed together with others
_UNTOLD = 60.0  # seconds after which the table is written: a power cut loses no more rows

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
        shares: The share of each class in the written masks, 0 to 1, by name; empty where none was
            written.
        unlike: Each image that is unlike the training images, with the differences in words.
        summary: The table with one row per image and class.
        objects: The table with one row per object; None where no objects were asked for.
        counts: The number of objects in the written masks, by the classes that were asked for;
            empty where none was written.
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
        format: The format of masks and confidence: "auto", "png" or "tif". "auto" is TIFF for
            images with a place on a map, which it keeps, and for those over 100 megapixels. Else it
            is PNG.
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
    settings, out = settings or PredictSettings(), Path(out)
    format = _WORDS.get(format, format)
    check_choice("format", format, FORMATS)
    if overlay_size < 1:
        raise InputError(arg("overlay_size"), f"{overlay_size} is out of range", "1 or more")
    images, asked = find_images(several(inputs)), several(objects)
    if overlay is None and len(images) > _OVERLAYS:
        overlay = False
    loaded = Model(model, settings)
    classes = loaded.card.classes
    kinds = object_classes(classes, asked) if asked else None
    wanted = Wanted(out, format, overlay, probabilities, confidence, kinds, overlay_size)
    ranks, table = world(), out / "summary.csv"
    on_progress = ranks.only_on_rank_zero(on_progress)
    views = {} if fov is None else find_views(Path(fov), images, on_progress)
    jobs = make_jobs(images, wanted, loaded.selection, views)
    check_places(jobs, overwrite)
    if ranks.is_writer:
        update_summary(table, [], (), overwrite)
    count = f"{len(jobs)} images" if len(jobs) > 1 else show(jobs[0].image)
    on_progress(Note(f"predicting {count} with {loaded}"))
    object_classes(classes, asked, on_progress)  # says which class is taken for the background
    outcomes, saved = list[_Outcome](), time.monotonic()

    def save_summary() -> None:
        if ranks.size == 1:  # one rank of several does not know what the others write
            update_summary(table, [one.summary for one in outcomes if one.summary], classes.names)

    try:
        with catching() as caught:
            remedy = "run the same line again: finished masks are kept"
            check = functools.partial(caught.check, out, remedy)
            session = _Session(loaded, ranks.own_items(jobs), table, on_progress, check)
            for outcome in session.outcomes():
                outcomes.append(outcome)
                if time.monotonic() - saved > _UNTOLD:
                    session.behind.wait()
                    save_summary()
                    saved = time.monotonic()
    except UnetsegError:
        save_summary()
        raise
    told = ranks.collect([to_plain(one) for one in outcomes])
    done = [
        (job, read_record(_Outcome, one, "the outcome of a rank"))
        for job, one in zip(jobs, told, strict=True)
    ]
    if ranks.is_writer:
        update_summary(table, [one.summary for _, one in done if one.summary], classes.names)
        join_pages(jobs, [job for job, one in done if one.error], on_progress)
        if asked:
            join_tables(filter(is_own, (out / OBJECTS).glob("*.csv")), out / OBJECT_TABLE)
    return _predictions(wanted, table, classes.names, done)


def _predictions(
    wanted: Wanted, table: Path, names: Sequence[str], done: Sequence[tuple[Job, "_Outcome"]]
) -> Predictions:
    """Return the results of all images for the caller of `predict`."""
    summaries = [one.summary for _, one in done if one.summary]
    pixels = sum((one.pixels for one in summaries), np.zeros(len(names), np.int64))
    shares = (pixels / max(int(pixels.sum()), 1)).tolist() if summaries else []
    areas = {
        names[kind]: np.concatenate(
            [np.zeros(0, np.int64), *(one.areas[kind] for one in summaries)]
        )
        for kind in (wanted.objects if summaries else None) or {}
    }
    sizes = {one.pixel_size for one in summaries} if wanted.objects is not None else set()
    return Predictions(
        wanted.out,
        tuple(job.mask for job, one in done if one.summary),
        tuple(job.mask for job, one in done if not one.summary and not one.error),
        tuple((job.image, one.error) for job, one in done if one.error),
        tuple(job.overlay for job, one in done if one.summary and job.overlay),
        dict(zip(names, shares, strict=bool(summaries))),
        tuple((job.image, one.unlike) for job, one in done if one.unlike),
        table,
        objects=None if wanted.objects is None else wanted.out / OBJECT_TABLE,
        counts={name: len(found) for name, found in areas.items()},
        medians={n: float(np.median(found)) if len(found) else None for n, found in areas.items()},
        pixel_size=sizes.pop() if len(sizes) == 1 else None,
    )


# --- one image after the other ---------------------------------------------------------------


def _to_error(data: Any) -> UnetsegError | None:
    """Return the error from which `_from_error` made plain data."""
    if data is None or isinstance(data, UnetsegError):
        return data
    name, words, code = data
    kinds = {kind.__name__: kind for kind in (InputError, MachineError)}
    return kinds[name](*words, code=None if code is None else Code(code))


def _from_error(error: UnetsegError | None) -> tuple[str, list[str], Code | None] | None:
    if error is None:
        return None
    kind = MachineError if isinstance(error, MachineError) else InputError
    return kind.__name__, [error.what, error.problem, error.remedy], error.code


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
        outputs: The opened image and its files; None where nothing is to be done, or it could not
            be read.
        image: The image as the segmenter computed it in a batch of several; None where it is alone.
        seconds: The share of the image in the time of that batch.
    """

    number: int
    job: Job
    outcome: _Outcome = field(default_factory=_Outcome)
    outputs: Outputs | None = None
    image: Rows | Computed | None = None
    seconds: float = 0.0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width as the network takes a small image; None where it is to be alone."""
        if self.outputs is None or self.job.pixels > _SMALL:
            return None
        return self.outputs.picture.shape[:2]

    def fail(self, error: UnetsegError) -> None:
        """Note that the image failed, by an error that names it."""
        self.outcome.error = error.about(self.job.image)

    def write(self, outputs: Outputs, labels: NDArray[np.uint8], seconds: float) -> None:
        """Write all that belongs to an image while another image is computed."""
        try:
            outputs.write(labels)
            self.outcome.summary = outputs.summary(seconds)
        except InputError as error:
            self.fail(error)


class _Session:
    """One call of `predict`: how images are read, computed and written, and how far the call is.

    Args:
        model: The model.
        jobs: The images of this process.
        table: The table of earlier calls.
        on_progress: Receives `Note` and `Progress`.
        check: Called where stopping leaves all files whole; may raise to stop.
    """

    def __init__(
        self,
        model: Model,
        jobs: Sequence[Job],
        table: Path,
        on_progress: OnProgress,
        check: Callable[[], None],
    ) -> None:
        self.model, self.jobs, self.on_progress, self.check = model, jobs, on_progress, check
        self.in_table = summarised(table)
        self.table_time = table.stat().st_mtime_ns if self.in_table else 0
        self.behind = _WriteBehind()
        # The pages of a file come one after another: it and its field of view are hashed once.
        self.hash_of = functools.lru_cache(2)(hash_file)
        self.total, self.done = sum(job.pixels for job in jobs), 0
        self.said = set[str]()  # the oddities that are reported of one image alone

    def outcomes(self) -> Iterator[_Outcome]:
        """Yield the outcome of each image before it is computed; all are known at the end."""
        with self.behind:
            turns = map(self._read, range(1, len(self.jobs) + 1), self.jobs)
            for batch in read_ahead(self.model.segmenter.batches(turns, lambda turn: turn.size)):
                self._compute(batch)
                for turn in batch:
                    yield turn.outcome
                    self._predict(turn)

    def _read(self, number: int, job: Job) -> _Turn:
        """Read an image as far as it can be read before its turn."""
        turn = _Turn(number, job)
        try:
            label = make_label(self.model, job, self.hash_of)
            is_whole = all(label_of(place) == label for place in job.places) and job.has_companions
            if not is_whole or not self._is_told(job):
                with ExitStack() as closing:
                    picture = closing.enter_context(self.model.open(job.image, job.page))
                    if job.view:
                        picture.leave_out(~read_view(job.view, picture.raster.shape[:2]))
                    if job.pixels <= _AHEAD:
                        picture.load()
                    outputs = Outputs(self.model, job, picture, label)
                    turn.outcome.unlike = self.model.unlike(picture)
                    turn.outputs = outputs
                    closing.pop_all()  # whoever takes the turn closes the picture
        except (InputError, MachineError) as error:
            turn.fail(error)
        return turn

    def _is_told(self, job: Job) -> bool:
        """Return whether the table has the rows of a mask that is there.

        A call that was killed leaves masks without rows, or with the rows of the masks before.
        """
        is_older = job.mask.stat().st_mtime_ns <= self.table_time
        return is_older and show(job.name) in self.in_table

    def _compute(self, turns: Sequence[_Turn]) -> None:
        """Compute the images of one batch at once; an image alone is computed in its turn."""
        if len(turns) < 2:
            return
        begin = time.perf_counter()
        pictures = [turn.outputs.picture for turn in turns if turn.outputs]
        found = self.model.segmenter.together(pictures)
        seconds = (time.perf_counter() - begin) / len(turns)
        for turn, image in zip(turns, found, strict=True):
            turn.image, turn.seconds = image, seconds
        self.behind.wait()

    def _predict(self, turn: _Turn) -> None:
        """Compute the mask of an image, and have it written."""
        self.check()
        if turn.outputs is not None:
            self._say(turn, turn.outputs.picture)
            try:
                with turn.outputs.picture:
                    self._make(turn, turn.outputs)
            except InputError as error:  # pixels that are decoded only now are damaged
                turn.fail(error)
        self.done += turn.job.pixels
        self._report(turn, 0)

    def _make(self, turn: _Turn, outputs: Outputs) -> None:
        begin = time.perf_counter() - turn.seconds
        parts = outputs.take(self._bands(turn, outputs.picture))
        if turn.job.is_banded:
            outputs.write_banded(parts, self.on_progress, self.check)
            turn.outcome.summary = outputs.summary(time.perf_counter() - begin)
            return
        labels = np.concatenate(list(parts))
        if turn.image is None:
            self.behind.wait()
        self.behind.do(turn.write, outputs, labels, time.perf_counter() - begin)

    def _bands(
        self, turn: _Turn, picture: ModelInput
    ) -> Iterator[tuple[NDArray[np.uint8], Tensor]]:
        """Yield class indices (rows, W) and probabilities (K, rows, W) of an image."""
        height, width, _ = picture.raster.shape
        image, row = turn.image or picture, 0
        for band in self.model.segmenter.labelled_bands(image, (height, width)):
            yield band
            row += len(band[0])
            self.check()
            self._report(turn, turn.job.pixels * row / height)

    def _report(self, turn: _Turn, pixels: float) -> None:
        place = f"image {turn.number} of {len(self.jobs)}, {show(turn.job.name)}"
        done = self.done + pixels
        self.on_progress(Progress("predicting", done, self.total, "pixels", place))

    def _say(self, turn: _Turn, picture: ModelInput) -> None:
        """Report the oddities of an image before it is predicted."""
        image, raster, card = show(turn.job.image), picture.raster, self.model.card
        if raster.info.alpha:
            text = "transparency is left out; wholly transparent pixels are ignored"
            self._say_once("alpha", Note(f"{image}: {text}"))
        if raster.georeference.is_in_degrees:
            text = "its map is in degrees, which are no lengths: areas are given in pixels"
            remedy = "reproject it to a system in metres for areas in m²"
            self._say_once("degrees", Note(f"{image}: {text}; {remedy}"))
        height, width, _ = raster.shape
        ignored, area = card.outside(height, width, card.selection), card.ignored_area
        if ignored is not None:
            text = f"{100 * ignored.mean():.2g} % of the pixels of {height} x {width} are ignored"
            remedy = f"{arg('whole', True)} includes them"
            self._say_once("ignored", Note(f"{text}, as in training; {remedy}"))
        if area and not turn.job.view and (text := area.describe_misfit(height, width, image)):
            self._say_once("size", Note(text, warning=True))
        if turn.outcome.unlike:
            text = f"{image} is unlike the images trained on: {turn.outcome.unlike}"
            self.on_progress(Note(text, warning=True))

    def _say_once(self, oddity: str, note: Note) -> None:
        """Report an oddity of the first image that has it."""
        if oddity not in self.said:
            self.said.add(oddity)
            self.on_progress(note)


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
