"""A folder that is being labelled: its images, their masks and classes, and who owns it.

The labels lie in ``masks/`` and ``classes.toml`` alone, which are a folder of labelled images at
any moment. The folder ``.unetseg/`` holds strokes on their way into a mask, and the names of the
accepted images. It can be deleted when `unetseg label` has ended, and no label is lost. After a
kill it holds the last strokes, until the folder is opened again.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as record

from unetseg import files, locks
from unetseg.classes import (
    IGNORED,
    ClassTable,
    default_colour,
    named_classes,
    read_classes,
)
from unetseg.dataset import pairing
from unetseg.dataset.findings.finding import Commands
from unetseg.dataset.naming import Pair
from unetseg.errors import InputError, MachineError, UnetsegError, either
from unetseg.labelling import tiles
from unetseg.labelling.journal import Journal, Stroke
from unetseg.labelling.starting_model import StartingModel
from unetseg.pictures import discovery, masks, reading, writing
from unetseg.progress import OnProgress, silent, steps
from unetseg.records import Count, Text, read_record, to_plain

State = Literal["untouched", "begun", "accepted", "empty"]
STATE_FOLDER = ".unetseg"

_MADE_BY = {"Software": "unetseg label"}
_QUIET = 0.4  # seconds without a stroke after which a mask is written
_LONGEST = 3.0  # seconds after which it is written while strokes go on
_MEMORY = 2**28  # bytes of labels that are kept in memory although their masks are written
_REMEMBERED = 1000  # strokes of an image whose repetition is noticed


@record(frozen=True)
class Remembered:
    """The facts that are known of an image beside its labels.

    Attributes:
        state: The state that the page shows.
        labelled: The number of labelled pixels of its mask.
        changed: The time of the mask's last change in nanoseconds; another time means another mask.
    """

    state: State
    labelled: Count
    changed: Count


@record(frozen=True)
class Records:
    """The content of ``.unetseg/images.json``: the facts of each image by its name."""

    images: dict[Text, Remembered]


class LabelledImage:
    """An image of a project; the project changes it under its ``lock``.

    Attributes:
        number: Its place in the project.
        pair: The files of the image and of its mask.
        height, width, channels, dtype: The shape and the dtype of the image as it is read.
        state: The state that the page shows.
        labelled: The number of its labelled pixels.
        labels: ``(H, W)`` uint8 class indices, 255 unlabelled; None while they are not in memory.
        is_stale: Whether the mask on the disk is older than the labels or the classes' colours.
        changed: The time of the mask's last change when it was read or written here.
        journal: The strokes that the mask may not hold.
        lock: A lock that is held while labels are read or changed.
    """

    def __init__(self, number: int, pair: Pair, journal: Path) -> None:
        info = reading.read_info(pair.image)
        tiles.check_pixels(pair.image, info.height, info.width)
        self.number, self.pair = number, pair
        self.height, self.width = info.height, info.width
        self.channels, self.dtype = info.channels, info.dtype
        self.state: State = "untouched"
        self.labelled = 0
        self.labels: NDArray[np.uint8] | None = None
        self.is_stale = False
        self.changed = 0
        self.journal = Journal(journal)
        self.lock = threading.RLock()
        self.seen: dict[str, None] = {}  # the ids of the last strokes, in order

    @property
    def name(self) -> str:
        """The stem of the image."""
        return self.pair.name

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def is_changed_elsewhere(self) -> bool:
        """Whether another program has written the mask since, and no stroke came before that."""
        return not self.is_stale and files.change_time(self.pair.mask) not in (0, self.changed)

    @property
    def open_state(self) -> State:
        """The state of an image that is not accepted, as its labels tell it."""
        return "begun" if self.labelled else "untouched"

    @property
    def share(self) -> float:
        """The share of its pixels that is labelled, 0 to 1."""
        return self.labelled / (self.height * self.width)


class Project:
    """The images of a folder with their labels; safe to use from several threads.

    Use `open_project`, which holds the folder for this process.

    Attributes:
        folder: The folder.
        images: Its images, by number.
        table: The classes; their places are the indices in labels.
        revision: The number of changes of the classes since the folder was opened.
        renumbered: The revision that gave classes other indices last; 0 where none did.
        on_changed_elsewhere: A function that takes the number of an image whose mask another
            program has changed, and its labels.
        on_saved: A function that takes the number of an image whose mask has been written.
        on_failed: A function that takes the error of a mask that could not be written; it is
            tried again.
    """

    def __init__(self, folder: Path, images: Sequence[LabelledImage], table: ClassTable) -> None:
        self.folder, self.images, self.table = folder, tuple(images), table
        self.revision = self.renumbered = 0
        self.on_changed_elsewhere: Callable[[int, NDArray[np.uint8]], None] = lambda *_: None
        self.on_saved: Callable[[int], None] = lambda _: None
        self.on_failed: Callable[[UnetsegError], None] = lambda _: None
        self._classes = threading.RLock()  # held while classes change and masks are written
        self._records = threading.Lock()
        self._wake = threading.Condition()
        self._waiting: dict[int, tuple[float, float]] = {}  # number: first and last unsaved stroke
        self._closing = False
        self._saver = threading.Thread(target=self._save_all, name="saver")

    @property
    def home(self) -> Path:
        """The folder of all that is no label."""
        return self.folder / STATE_FOLDER

    # --- labels ----------------------------------------------------------------------------------

    def labels(self, number: int) -> NDArray[np.uint8]:
        """Return the labels ``(H, W)`` of an image: the array that strokes change.

        Raises:
            InputError: The mask on the disk has vanished, or does not fit image and classes.
        """
        image = self.images[number]
        with image.lock:
            labels, is_changed = image.labels, image.is_changed_elsewhere
            if labels is None or is_changed:
                changed, before = files.change_time(image.pair.mask), labels
                labels = image.labels = _read_labels(image, self.table)
                image.changed = changed
                image.labelled = int(np.count_nonzero(labels != IGNORED))
                if image.state not in ("accepted", "empty"):
                    image.state = image.open_state
                self._forget_others(image)
                # Some file systems change the time of a mask that stays as it is.
                if is_changed and (before is None or not np.array_equal(before, labels)):
                    self.on_changed_elsewhere(number, labels)
            return labels

    def check_stroke(self, number: int, stroke: Stroke) -> None:
        """Refuse a stroke that cannot be painted.

        Raises:
            InputError: It does not lie in the image, or its class does not exist.
        """
        if not stroke.fits(self.images[number].shape):
            raise InputError("stroke", "lies outside of the image", "reload the page")
        known = (stroke.labels < len(self.table.classes)) | (stroke.labels == IGNORED)
        if not known.all():
            raise InputError("stroke", "names a class that does not exist", "reload the page")

    def paint(self, number: int, stroke: Stroke) -> bool:
        """Put a stroke into the labels of an image, on the disk before this returns.

        Returns:
            False where this stroke has come before; it is not painted again.

        Raises:
            InputError: See `check_stroke`.
            MachineError: The stroke could not be written; it is not in the labels.
        """
        self.check_stroke(number, stroke)
        image = self.images[number]
        with image.lock:
            labels = self.labels(number)
            if stroke.id and stroke.id in image.seen:
                return False
            image.journal.append(stroke)
            image.is_stale = True
            image.seen[stroke.id] = None
            if len(image.seen) > _REMEMBERED:
                del image.seen[next(iter(image.seen))]
            before = np.count_nonzero(labels[stroke.place] != IGNORED)
            labels[stroke.place] = stroke.labels
            image.labelled += int(np.count_nonzero(stroke.labels != IGNORED) - before)
            if image.state != "accepted":
                image.state = image.open_state
            self._plan_save(number)
        return True

    def accept(self, number: int, answer: NDArray[np.uint8] | None) -> None:
        """Make the labels of an image final: strokes, and the answer where there are none.

        Args:
            number: The number of the image.
            answer: ``(h, w)`` uint8 class indices, enlarged to the image; None leaves unlabelled
                pixels so.

        Raises:
            MachineError: The labels could not be written.
        """
        image = self.images[number]
        with image.lock:
            labels = self.labels(number)
            if answer is not None and image.labelled < labels.size:
                whole = np.where(labels == IGNORED, enlarge(answer, image.shape), labels)
                self.paint(number, Stroke("", 0, 0, whole))
            self._set_state(image, "accepted")

    def accept_empty(self, number: int) -> None:
        """Give all pixels of an image that holds no object the first class.

        Raises:
            MachineError: The labels could not be written.
        """
        image = self.images[number]
        with image.lock:
            self.paint(number, Stroke("", 0, 0, np.zeros(image.shape, np.uint8)))
            self._set_state(image, "empty")

    def reopen(self, number: int) -> None:
        """Make an accepted image an open one again; its labels stay."""
        image = self.images[number]
        with image.lock:
            self._set_state(image, image.open_state)

    def _set_state(self, image: LabelledImage, state: State) -> None:
        image.state = state
        self._write_records()

    def _forget_others(self, used: LabelledImage) -> None:
        """Drop labels from memory whose masks are written, where they are too many."""
        total = sum(i.labels.nbytes for i in self.images if i.labels is not None)
        for image in self.images:
            if total <= _MEMORY:
                return
            if image is used or not image.lock.acquire(blocking=False):
                continue
            if image.labels is not None and not image.is_stale:
                total -= image.labels.nbytes
                image.labels = None
            image.lock.release()

    # --- classes ---------------------------------------------------------------------------------

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Let no other thread change labels or classes while the block runs."""
        with self._classes, ExitStack() as stack:
            for image in self.images:
                stack.enter_context(image.lock)
            yield

    def change_classes(self, table: ClassTable, was: Sequence[int | None]) -> None:
        """Replace the classes: added ones, other names and colours, unused ones left out.

        This is the next `revision`. Where classes before another one are left out, `renumbered` is
        that revision, too.

        Args:
            table: The new classes.
            was: The former index of each new class, in rising order; None for an added class.

        Raises:
            InputError: A class that is left out has pixels.
            MachineError: ``classes.toml`` could not be written.
        """
        with self.at_rest():
            gone = set(range(len(self.table.classes))) - {w for w in was if w is not None}
            for image in self.images if gone else ():
                used = np.bincount(self.labels(image.number).ravel(), minlength=256)
                for index in gone:
                    if used[index]:
                        name = self.table.classes[index].name
                        text = f"has {used[index]:,} pixels in {image.name}"
                        raise InputError(f"class {name}", text, "paint them as another first")
                self._forget_others(image)
            renumbered = [w for w in was if w is not None] != list(range(len(self.table.classes)))
            if renumbered:  # labels and journals hold the old numbers
                self.save()
                for image in self.images:
                    image.labels = None
            old = [replace(c, name="") for c in self.table.classes]
            repainted = [replace(c, name="") for c in table.classes][: len(old)] != old
            pairing.write_classes(self.folder, table)
            self.table = table
            self.revision += 1
            if renumbered:
                self.renumbered = self.revision
            if repainted and not renumbered:  # palettes show the old colours
                for image in self.images:
                    if image.is_changed_elsewhere:
                        image.labels = None
                    image.is_stale = True
                    self._plan_save(image.number)

    # --- saving ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to save."""
        self._saver.start()

    def close(self) -> None:
        """Write all that is not written, and end the saver.

        Raises:
            MachineError: A mask could not be written; its strokes stay in ``.unetseg/journal``.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._saver.join()
        self.save()

    def save(self) -> None:
        """Write the masks that are not written yet.

        Raises:
            MachineError: A mask could not be written; it is tried again.
        """
        with self._classes:  # a mask that was being written is there by then
            waiting = list(self._waiting)
        for number in waiting:
            self._save(number)

    def _plan_save(self, number: int) -> None:
        with self._wake:
            now = time.monotonic()
            first, _ = self._waiting.get(number, (now, now))
            self._waiting[number] = first, now
            self._wake.notify()

    def _save_all(self) -> None:
        """Write each mask soon after the last stroke, until the project is closed."""
        while True:
            with self._wake:
                if self._closing:
                    return
                due = {n: min(a + _LONGEST, b + _QUIET) for n, (a, b) in self._waiting.items()}
                number = min(due, key=due.__getitem__, default=None)
                left = None if number is None else due[number] - time.monotonic()
                if number is None or left is None or left > 0:
                    self._wake.wait(left)
                    continue
            try:
                self._save(number)
            except UnetsegError as error:
                self.on_failed(error)
                time.sleep(_LONGEST)

    def _save(self, number: int) -> None:
        """Write the mask of an image, then drop the strokes that it holds."""
        image = self.images[number]
        with self._classes:
            with image.lock:
                with self._wake:
                    self._waiting.pop(number, None)
                if not image.is_stale:
                    return
            try:
                with image.lock:
                    snapshot, size = self.labels(number).copy(), image.journal.size
                write_labels(image, snapshot, self.table)
                with image.lock:
                    image.changed = files.change_time(image.pair.mask)
                    if image.journal.size == size:  # no stroke came meanwhile
                        image.journal.remove()
                        image.is_stale = False
            except UnetsegError:
                self._plan_save(number)
                raise
            except MemoryError:
                self._plan_save(number)
                text = "not enough to write a mask, which is tried again"
                raise MachineError("memory", text, "close other programs") from None
            self._write_records()
        self.on_saved(number)

    def _write_records(self) -> None:
        with self._records:
            remembered = {
                image.name: Remembered(image.state, image.labelled, image.changed)
                for image in self.images
            }
            text = json.dumps(to_plain(Records(remembered)), ensure_ascii=True)
            files.write_bytes(self.home / "images.json", text.encode())


@contextmanager
def open_project(
    folder: Path,
    *,
    classes: Path | None = None,
    ignored: Sequence[int | str] = (),
    model: StartingModel | None = None,
    on_progress: OnProgress = silent,
) -> Iterator[Project]:
    """Hold a folder for labelling while the block runs; leaving the block saves.

    Opening makes it a folder of labelled images. ``classes.toml`` is written where it is missing or
    has no value for unlabelled pixels. Each image without a mask gets an unlabelled mask. Strokes
    that a killed process left are put into their masks.

    Args:
        folder: Images in ``images/`` or in the folder itself; masks where `pairing` finds them.
        classes: A ``classes.toml`` to take; None takes the folder's own, else the values found,
            else those of the model, else background and object.
        ignored: Values or colours of masks that are no class.
        model: The model to begin with, which fits images and classes.
        on_progress: Receives `Progress`.

    Raises:
        InputError: There are no images, one is too large or cannot be read, or masks that cannot
            be painted in. Or the model does not fit.
        MachineError: Another process labels the folder; it cannot be written.
    """
    shapes = Commands.given(folder, classes, ())  # which have no values to ignore
    pairs = pairing.find_images(folder, shapes)
    home = folder / STATE_FOLDER
    with locks.held(home, "close it first, or label there", folder):
        files.make_folder(home / "journal")
        images = [
            LabelledImage(k, pair, home / "journal" / f"{pair.name}.strokes")
            for k, pair in enumerate(pairs)
        ]
        commands = Commands.given(folder, classes, ignored)
        table = _classes_of(commands, images, classes, tuple(ignored), model)
        if model:
            model.check(pairs, table)
            model.enter(home)
        if not (folder / "classes.toml").exists() or read_classes(folder / "classes.toml") != table:
            pairing.write_classes(folder, table)
        known = _read_records(home / "images.json")
        for image in steps(images, "opening", "images", on_progress, name=lambda i: i.name):
            _open_image(image, table, known.get(image.name))
            image.changed = files.change_time(image.pair.mask)
        project = Project(folder, images, table)
        project.start()
        try:
            yield project
        finally:
            project.close()


def enlarge(labels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return labels ``(h, w)`` at ``shape`` (H, W): pixel (Y, X) is that of row ``Y * h // H``.

    The page enlarges answers in the same way, so that people accept the labels that they saw.
    """
    rows, columns = (np.arange(n) * m // n for n, m in zip(shape, labels.shape, strict=True))
    whole: NDArray[np.uint8] = labels[rows][:, columns]
    return whole


def write_labels(image: LabelledImage, labels: NDArray[np.uint8], table: ClassTable) -> None:
    """Write the mask of an image, whole or not at all.

    Raises:
        MachineError: The disk is full or read-only, and the like.
    """
    writing.write_mask(image.pair.mask, labels, table, _MADE_BY)


def _open_image(image: LabelledImage, table: ClassTable, known: Remembered | None) -> None:
    """Make sure that the image has a mask with all its strokes, and learn its state."""
    strokes = list(image.journal.strokes())
    if not image.pair.mask.exists():
        write_labels(image, np.full(image.shape, IGNORED, np.uint8), table)
        if not strokes:
            return
    if not strokes and known and known.changed == files.change_time(image.pair.mask):
        image.state, image.labelled = known.state, known.labelled
        return
    labels = _read_labels(image, table)
    for stroke in strokes:
        if not stroke.fits(image.shape):
            text = f"a stroke outside of the {image.width} x {image.height} pixels of its image"
            raise InputError(image.journal.path, text, "restore the image, or move this file away")
        labels[stroke.place] = stroke.labels
        image.seen[stroke.id] = None
    if strokes:
        write_labels(image, labels, table)
    image.journal.remove()
    image.labelled = int(np.count_nonzero(labels != IGNORED))
    if known:
        image.state = known.state
    elif image.labelled * 2 > labels.size:  # ignored pixels may be meant
        image.state = "accepted"
    if image.state not in ("accepted", "empty"):
        image.state = image.open_state


def _read_labels(image: LabelledImage, table: ClassTable) -> NDArray[np.uint8]:
    """Read the mask of an image as class indices ``(H, W)``, 255 unlabelled."""
    path = image.pair.mask
    raw = reading.read_mask(path)
    masks.check_same_size(path, raw.values.shape[:2], image.shape)
    if table.encoding == "values" and reading.read_text(path).items() >= _MADE_BY.items():
        raw = masks.RawMask(raw.values)  # its palette may hold earlier colours
    return masks.decode(raw, table, path)


def _read_records(path: Path) -> dict[str, Remembered]:
    """Return the facts remembered of each image; none where the file is missing or damaged."""
    try:
        return read_record(Records, json.loads(path.read_bytes()), str(path)).images
    except (OSError, ValueError, InputError):
        return {}


def _classes_of(
    commands: Commands,
    images: Sequence[LabelledImage],
    file: Path | None,
    ignored: tuple[int | str, ...],
    model: StartingModel | None,
) -> ClassTable:
    """Return the classes of a folder, with a value or colour for unlabelled pixels."""
    paths = [image.pair.mask for image in images if image.pair.mask.exists()]
    for path in paths:
        if reading.read_info(path).format != "PNG":
            remedy = f"make PNGs of the masks: {either(*commands.convert())}"
            raise InputError(path, "a mask that cannot be painted in", remedy)
    table = pairing.load_classes(commands.root, file)
    if table is None and paths:
        table = discovery.discover(
            {str(p): masks.find_keys(reading.read_mask(p)) for p in paths}, ignored
        )
    elif table is None:
        # Black would hide dark pictures.
        colours = {"background": default_colour(2), "object": default_colour(1)}
        plain = ClassTable(named_classes(tuple(colours), colours))
        table = model.card.classes if model else plain
    elif ignored:
        table = table.with_ignored(ignored)
    if table.ignore:
        return table
    keys = {table.key(i) for i in range(len(table.classes))}
    if table.encoding == "colours":
        greys = (f"#{level:02x}{level:02x}{level:02x}" for level in (128, *range(127, 0, -1)))
        return replace(table, ignore=(next(g for g in greys if g not in keys),))
    return replace(table, ignore=(next(v for v in range(IGNORED, -1, -1) if v not in keys),))
