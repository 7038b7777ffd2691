"""The faults of a folder of labelled images, and the commands that mend them."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress, product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unetseg.arguments import Reports, public, several
from unetseg.classes import ClassTable, colour_to_rgb
from unetseg.dataset import pairing, splits
from unetseg.dataset.geometry import auto_size
from unetseg.dataset.survey import Survey, measure_classes, measuring_step, survey_pair
from unetseg.errors import Code, InputError, arg, as_argument, as_option, either, worded
from unetseg.objects.numbering import doubt_classes
from unetseg.pictures import masks, transforms
from unetseg.pictures.surroundings import AreaFinder, IgnoredArea, common_surround
from unetseg.progress import steps, warn
from unetseg.results import Result, Table
from unetseg.settings import DEFAULT_VAL, PatchSettings
from unetseg.signals import catching
from unetseg.text import plural, quote, show

Severity = Literal["error", "warning", "note"]
_NUMBERED = (Code.OBJECT_NUMBERS, Code.OBJECTS_OR_CLASSES)
_SEVERITIES = ("error", "warning", "note")

_FEWEST_WITH_STRIPS = 3  # with fewer images, equal rows may be chance
_NEARLY = 0.75  # for these three, see `_nearly_equal`
_NEARLY_IN_DETAIL = 0.22
_SHIFT = 2
_SMALL = 8  # pixels: images of fewer rows or columns show nothing


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a folder.

    Attributes:
        severity: An "error" stops training, a "warning" may harm it, a "note" is for information.
        files: The files, the options or the folder at fault.
        problem: The problem, with the values found.
        remedy: The advice; may be empty.
        line: A command to type next; may be empty.
        code: The code that a program may ask for, as of an error.
    """

    severity: Severity
    files: tuple[str, ...]
    problem: str
    remedy: str = ""
    line: str = ""
    code: Code | None = None

    def __str__(self) -> str:
        return worded(self.message, as_argument)

    @property
    def message(self) -> str:
        """The finding on one line, in which an `unetseg.errors.arg` is still a mark."""
        return InputError(self.subject, self.problem, self.remedy).message

    @property
    def subject(self) -> str:
        """The first of the files at fault, and the number of the others."""
        more = f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""
        return ", ".join(self.files[:3]) + more


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(Result):
    """The facts of a folder of labelled images, and the findings about it.

    Attributes:
        root: The folder.
        surveys: The facts of the images that can be read and have a labelled pixel.
        findings: Errors first, then warnings, then notes.
        table: The classes; None where they cannot be told.
        classes_file: The ``classes.toml`` that gave them; None where they are the values found.
        halves: ``(n, 2, 2, C)`` pixels of each class in the upper, lower, left and right half of
            each mask. The array is empty where any mask does not fit the classes.
        size: The patch size that fits the images (after ``scale``).
        scale: The suggested factor to resize by. It is the given one unless objects are larger than
            a patch.
        group: A suggested pattern that keeps nearly equal images together; empty where none is
            needed.
        ignored_area: The area that every mask ignores; None where there is no such area.
    """

    root: Path
    surveys: tuple[Survey, ...]
    findings: tuple[Finding, ...]
    table: ClassTable | None
    classes_file: Path | None
    halves: NDArray[np.int64]
    size: int
    scale: float
    group: str
    ignored_area: IgnoredArea | None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop training."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(n, C)`` pixels of each class in each mask."""
        counts: NDArray[np.int64] = self.halves[:, 0].sum(1)
        return counts

    def line(self) -> str:
        """Return how many images and problems there are."""
        counts: Counter[str] = Counter(f.severity for f in self.findings)
        found = ", ".join(plural(counts[s], s) for s in _SEVERITIES if counts[s])
        images = plural(len(self.surveys), "labelled image")
        return f"{show(self.root)}: {images}, {found or 'nothing is wrong with them'}"

    def tables(self) -> tuple[Table, ...]:
        """Return the facts of the images, the classes, and the findings."""
        rows = [
            (f.severity, show(f.subject), f.problem, "; ".join(filter(None, (f.remedy, f.line))))
            for f in self.findings
        ]
        findings = Table("Findings", ["", "where", "problem", "what to do"], rows)
        return (*self.facts(), findings) if rows else self.facts()

    def facts(self) -> tuple[Table, ...]:
        """Return the facts of the images, and the classes; empty without images."""
        facts = self.to_dict()
        if not facts["images"]:
            return ()
        sizes = [f"{height} x {width}" for height, width in facts["sizes"]]
        span = f"{len(sizes)} sizes, {sizes[0]} to {sizes[-1]}"
        scale = int(self.scale) if self.scale == int(self.scale) else self.scale
        rows = [
            ("images", ", ".join(f"{count} {name}" for name, count in facts["formats"].items())),
            ("rows x columns", sizes[0] if len(sizes) == 1 else span),
            ("channels", " or ".join(map(str, facts["channels"]))),
            ("values", " and ".join(facts["dtypes"])),
            ("masks", ", ".join(f"{k} ({count})" for k, count in facts["mask_encodings"].items())),
            ("suggested", f"{arg('size', self.size)} {arg('scale', scale)}"),
        ]
        first = self.surveys[0].pair
        note = f"Paired by name, such as {first.image.name} with {first.mask.name}."
        title = f"{self.root}: {plural(facts['images'], 'labelled image')}"
        about = Table(title, ["", "found"], rows, note)
        if self.table is None or not facts["classes"]:
            return (about,)
        classes = self.table.table(
            ("pixels", [f"{c['pixels']:,}" for c in facts["classes"]]),
            ("share", [f"{100 * c['share']:.2f} %" for c in facts["classes"]]),
            ("images", [str(c["images"]) for c in facts["classes"]]),
        )
        return about, classes._replace(note="")

    def records(self) -> list[dict[str, Any]]:
        """Return a row a class; none where the classes cannot be told."""
        rows: list[dict[str, Any]] = self.to_dict()["classes"]
        return rows

    def refuse(self) -> None:
        """Raise the first error as `InputError`; it says how to see the others."""
        if not self.errors:
            return
        first, others, root = self.errors[0], len(self.errors) - 1, str(self.root)
        remedies = [first.remedy] if first.remedy else []
        if first.code:  # the line repairs the masks
            converted = f"{root}-converted"
            how = ", instances=True" if first.code in _NUMBERED else ""
            called = f"unetseg.convert_folder({root!r}, {converted!r}{how})"
            remedies.append(either(first.line, called))
        if others:
            line = either(f"unetseg check {quote(root)}", f"unetseg.inspect_folder({root!r})")
            remedies.append(f"{others} more: {line}")
        raise InputError(first.subject, first.problem, "; ".join(remedies), code=first.code)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON; classes are empty where they cannot be told."""
        surveys = self.surveys
        classes = []
        if self.table and len(self.halves):
            total = max(int(self.counts.sum()), 1)
            for i, one in enumerate(self.table.classes):
                count = int(self.counts[:, i].sum())
                classes.append(
                    {
                        "name": one.name,
                        "in_masks": self.table.key(i),
                        "colour": one.colour,
                        "pixels": count,
                        "share": count / total,
                        "images": int((self.counts[:, i] > 0).sum()),
                    }
                )
        return {
            "folder": str(self.root),
            "images": len(surveys),
            "sizes": [list(shape) for shape in sorted({s.shape for s in surveys})],
            "channels": sorted({s.channels for s in surveys}),
            "dtypes": sorted({s.info.dtype for s in surveys}),
            "formats": dict(Counter(s.info.format for s in surveys)),
            "mask_encodings": dict(Counter(s.encoding for s in surveys)),
            "classes": classes,
            "classes_toml": self.table.to_toml() if self.table else None,
            "suggested": {"size": self.size, "scale": self.scale, "group": self.group or None},
            "stops_training": bool(self.errors),
            "findings": [
                {
                    "severity": f.severity,
                    "files": list(f.files),
                    "problem": worded(f.problem, as_option),
                    "remedy": worded(f.remedy, as_option),
                    "line": f.line,
                }
                for f in self.findings
            ],
        }


@public()
def inspect_folder(
    source: str | os.PathLike[str],
    patches: PatchSettings | None = None,
    *,
    classes: str | os.PathLike[str] | None = None,
    ignore: int | str | Sequence[int | str] = (),
    on_progress: Reports = warn,
) -> Inspection:
    """Look at every file of a folder of labelled images; nothing is changed.

    Args:
        source: The folder, laid out as `unetseg.dataset.pairing.find_pairs` reads it.
        patches: How the folder is to be cut; the selection from each file, ``group``, ``scale``,
            ``size`` and ``val`` matter here.
        classes: A ``classes.toml`` to use; None takes the folder's own, or the values found.
        ignore: Mask values or colours that are neither trained on nor scored.
        on_progress: Receives `Progress`.

    Raises:
        InputError: There is no such folder, it holds nothing to pair, or ``classes`` cannot be
            read.
        MachineError: No permission to read.
        Interrupted: A signal came.
    """
    root, settings, ignored = Path(source), patches or PatchSettings(), several(ignore)
    classes = None if classes is None else Path(classes)
    of_masks = [("classes", classes), *(("ignore", i) for i in ignored)]
    kept = ("group", "page", "channels", "crop", "line_width")
    others = [(name, getattr(settings, name)) for name in kept]
    commands = _Commands(root, _options(of_masks), _options(others))
    labelled = pairing.read_set(
        root, classes, selection=settings.selection, line_width=settings.line_width
    )
    pairs, given = labelled.pairs, labelled.classes
    found = [_refusal(labelled.problem, commands)] if labelled.problem else []
    if labelled.left_out:
        found.append(_finding("warning", [root], labelled.left_out))
    with catching() as caught:

        def check() -> None:
            caught.check(root, "run the same line again")

        surveys = []
        for pair in steps(
            pairs, "looking at", "images", on_progress, name=lambda p: p.name, check=check
        ):
            try:
                surveys.append(survey_pair(pair, settings.selection))
            except InputError as error:
                found.append(_refusal(error, commands))
        classes_file = (classes or root / "classes.toml") if given else None
        doubt = None if given else _doubt(surveys, ignored)
        table = None
        try:
            if doubt is None or doubt.code is Code.OBJECTS_OR_CLASSES:
                table = _classes_of(surveys, given, ignored)
        except InputError as error:
            doubt = doubt or error
        if doubt:
            at_fault = [s.pair.mask for s in surveys] if doubt.subject is masks.ALL_MASKS else []
            found.append(_refusal(doubt, commands, at_fault))
        measured, strange, area = [], list[masks.NoClassError](), AreaFinder()
        if table and not doubt:
            for pair in steps(
                [s.pair for s in surveys],
                "reading",
                "masks",
                on_progress,
                name=lambda p: p.name,
                check=check,
            ):
                try:
                    measured.append(measure_classes(pair, table, settings.selection, area))
                except masks.NoClassError as error:
                    strange.append(error)
                except InputError as error:
                    found.append(_refusal(error, commands))
        if strange:
            found.append(_refusal(masks.join_no_class(strange), commands))
    measured = measured if len(measured) == len(surveys) else []
    has_labels = [bool(pixels.any()) for pixels, _ in measured]
    if any(has_labels) and not all(has_labels):
        found.append(_left_out(surveys, has_labels))
        surveys = list(compress(surveys, has_labels))
        measured = list(compress(measured, has_labels))
    facts = _Facts(
        root,
        settings,
        commands,
        tuple(surveys),
        table,
        given is not None,
        np.array([pixels for pixels, _ in measured], np.int64),
        np.array([widths for _, widths in measured]),
        area.found() if measured else None,
    )
    sizes = [transforms.scaled_size(*s.shape, settings.scale) for s in surveys]
    size = settings.size or auto_size(sizes or [(512, 512)])
    for judge in (_contents, _few, _blends, _turned, _unlike, _strips, _surround, _duplicates):
        found += judge(facts)
    group, neighbours = _neighbours(facts)
    scale, too_large = _scale(facts, size)
    found += [*neighbours, *_parts(facts), *_undividable(facts), *too_large, *_storage(facts)]
    return Inspection(
        root,
        facts.surveys,
        _sorted(found),
        table,
        classes_file,
        facts.halves,
        size,
        scale,
        group,
        facts.ignored_area,
    )


@dataclass(frozen=True)
class _Commands:
    """The command lines that a person may type next.

    Attributes:
        root: The folder.
        masks: The options given to this inspection that say what masks hold, as the command line
            writes them.
        others: The other options.
    """

    root: Path
    masks: str
    others: str

    def check(self, option: str) -> str:
        """Return the line that inspects the folder with one option more."""
        return f"unetseg check {self._folder()}{self.masks}{self.others} {option}"

    def train(self, option: str) -> str:
        """Return the line that trains on the folder with one option more."""
        return f"unetseg train {self._folder()}{self.masks}{self.others} {option}"

    def convert(self, instances: bool = False) -> str:
        """Return the line that writes a repaired copy beside the folder."""
        line = f"unetseg convert {self._folder()} {self._folder('-converted')}"
        return line + (" --instances" if instances else self.masks)

    def _folder(self, end: str = "") -> str:
        return quote(str(self.root).rstrip("/") + end)


@dataclass(frozen=True, eq=False)
class _Facts:
    """The facts from which the findings about a set are drawn.

    Attributes:
        root: The folder.
        settings: The settings by which the folder is to be cut.
        commands: The command lines to suggest.
        surveys: The labelled images that can be read.
        table: The classes; None where they cannot be told.
        is_given: Whether a ``classes.toml`` lists the classes.
        halves: The pixels of each class, as `Inspection.halves` holds them.
        thickness: ``(n, C)`` as `measure_classes` returns it; empty where ``halves`` is.
        ignored_area: The area that every mask ignores, as in `Inspection`.
    """

    root: Path
    settings: PatchSettings
    commands: _Commands
    surveys: tuple[Survey, ...]
    table: ClassTable | None
    is_given: bool
    halves: NDArray[np.int64]
    thickness: NDArray[np.float64]
    ignored_area: IgnoredArea | None


def _options(given: Sequence[tuple[str, object]]) -> str:
    return "".join(f" {as_option(name, value)}" for name, value in given if value is not None)


def _finding(
    severity: Severity,
    files: Sequence[object],
    problem: str,
    remedy: str = "",
    line: str = "",
    code: Code | None = None,
) -> Finding:
    return Finding(severity, tuple(map(show, files)), problem, remedy, line, code)


def _refusal(error: InputError, commands: _Commands, files: Sequence[Path] = ()) -> Finding:
    """Return the finding of a reader's error, with the command that helps where there is one.

    Args:
        error: The error of the reader.
        commands: The command lines to suggest.
        files: The files at fault where the error names none.
    """
    line = ""
    if error.give:
        line = commands.check(as_option(*error.give))
    elif error.code in (*_NUMBERED, Code.BLENDED_MASK, Code.LOSSY_MASK):
        line = commands.convert(error.code in _NUMBERED)
    return _finding("error", files or [error.what], error.problem, error.remedy, line, error.code)


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings, the worst first; files that share a problem stand together.

    The colours of blended masks differ from file to file, but the problem is the same.
    """
    merged: dict[tuple[Any, ...], list[Finding]] = {}
    for f in sorted(found, key=lambda f: _SEVERITIES.index(f.severity)):
        problem = "" if f.code is Code.BLENDED_MASK else f.problem
        merged.setdefault((f.severity, problem, f.remedy, f.line, f.code), []).append(f)
    return tuple(
        replace(same[0], files=tuple(name for f in same for name in f.files))
        for same in merged.values()
    )


# --- classes ---------------------------------------------------------------------------------


def _classes_of(
    surveys: Sequence[Survey], given: ClassTable | None, ignored: tuple[int | str, ...]
) -> ClassTable | None:
    """Return the classes; None where there are no images.

    Raises:
        InputError: The classes cannot be told from the masks.
    """
    if not surveys:
        return None
    if given is not None:
        return given.with_ignored(ignored) if ignored else given
    return masks.discover({str(s.pair.mask): s.found for s in surveys}, ignored)


def _left_out(surveys: Sequence[Survey], has_labels: Sequence[bool]) -> Finding:
    """Note the images that teach and score nothing, such as those that nobody has labelled yet."""
    files = [s.pair.mask for s, labelled in zip(surveys, has_labels, strict=True) if not labelled]
    text = f"no pixel is labelled ({len(files)} of {plural(len(surveys), 'mask')})"
    return _finding("note", files, text, "the images are left out")


def _doubt(surveys: Sequence[Survey], ignored: Sequence[int | str]) -> InputError | None:
    """Return why the values of masks may be no classes; None where nothing speaks against it."""
    found = {str(s.pair.mask): s.found for s in surveys}
    numbers = {s.pair.mask: s.numbers for s in surveys}
    return masks.two_kinds(found, ignored) or doubt_classes(numbers)


def _contents(facts: _Facts) -> Iterator[Finding]:
    """Judge how often each class appears."""
    if facts.table is None or not len(facts.halves):
        return
    surveys, root, names = facts.surveys, facts.root, facts.table.names
    counts = facts.halves[:, 0].sum(1)
    if not counts.any():
        yield _finding(
            "error",
            [root],
            "every pixel of every mask is ignored",
            f"see {arg('ignore')}",
        )
        return
    absent = [show(n) for n, total in zip(names, counts.sum(0), strict=True) if not total]
    if absent:
        text = f"no mask shows {', '.join(absent)}"
        yield _finding("warning", [root], text, "leave it out of classes.toml, or label some")
    present = (counts > 0).sum(0)
    rare = [show(n) for n, images_with in zip(names, present, strict=True) if images_with == 1]
    if rare and len(surveys) > 1:
        text = f"only one image shows {', '.join(rare)}: nothing is left to score it on"
        yield _finding("warning", [root], text, "label more")
    if (present > 0).sum() == 1:
        text = f"all masks hold one class only, {show(names[int(present.argmax())])}"
        yield _finding("error", [root], text, "there is nothing to learn; look at the masks")
        return
    for i, name in enumerate(names):
        alone = (counts[:, i] > 0) & (counts.sum(1) == counts[:, i])
        files = [s.pair.mask for s, only in zip(surveys, alone, strict=True) if only]
        if files:
            text = f"nothing but {show(name)} in these masks ({len(files)} of {len(surveys)})"
            yield _finding("warning", files, text, "look whether they are labelled at all")


def _few(facts: _Facts) -> Iterator[Finding]:
    """Warn of so few or so small images that scores say nothing."""
    if len(facts.surveys) == 2 and facts.settings.held_out_share > 0:
        text = "2 images: one is trained on, and the other alone is scored"
        yield _finding("warning", [facts.root], text, "label more: the score says next to nothing")
    scale = facts.settings.scale
    for shape in sorted({s.shape for s in facts.surveys}):
        height, width = transforms.scaled_size(*shape, scale)
        if min(height, width) < _SMALL:
            files = [s.pair.image for s in facts.surveys if s.shape == shape]
            text = f"{height} x {width} pixels show nothing to learn"
            yield _finding("warning", files, text, "leave it out")


def _blends(facts: _Facts) -> Iterator[Finding]:
    """Ask about a class that is thin everywhere and whose colour lies between two others."""
    table = facts.table
    if table is None or facts.is_given or not len(facts.halves):
        return
    keys = [table.key(i) for i in range(len(table.classes))]
    points = np.array([colour_to_rgb(k) if isinstance(k, str) else (k,) * 3 for k in keys])
    pixels_of = facts.halves[:, 0].sum((0, 1))
    step = max(measuring_step(s.shape) for s in facts.surveys)
    thin = facts.thickness.max(0) <= 2 * step
    for i, point in enumerate(points):
        # The middle value of 0, 1 and 2 is no blend.
        others = [j for j, p in enumerate(points) if np.abs(p - point).max() > masks.NOISE]
        sides = [
            (j, k)
            for j in others
            for k in others
            if j < k
            and masks.is_between(point, points[j], points[k])
            and pixels_of[i] < 0.1 * min(pixels_of[j], pixels_of[k])
        ]
        if thin[i] and sides:
            j, k = sides[0]
            text = (
                f"{keys[i]} is a line one pixel wide wherever it is, and looks like a blend "
                f"of {keys[j]} and {keys[k]}"
            )
            remedy = "if it is a class, save a classes.toml that lists it; else convert"
            yield _finding("error", [facts.root], text, remedy, facts.commands.convert())


# --- the images together ---------------------------------------------------------------------


def _turned(facts: _Facts) -> Iterator[Finding]:
    """Refuse an image that its EXIF orientation turns while its mask stays as it is stored."""
    for survey in facts.surveys:
        if survey.may_be_turned:
            text = "is turned by its EXIF orientation, its mask is not, and it fits both ways"
            remedy = (
                "if the masks were drawn on the upright pictures, convert; else remove the "
                "orientation from the images"
            )
            line = facts.commands.convert()
            yield _finding("error", [survey.pair.image], text, remedy, line, Code.TURNED_IMAGE)


def _unlike(facts: _Facts) -> Iterator[Finding]:
    """Judge whether bit depth and channels agree; three equal channels pass for colour."""
    surveys = facts.surveys
    if not surveys:
        return
    depth = Counter(s.info.dtype for s in surveys).most_common(1)[0][0]
    usual = next(s for s in surveys if s.info.dtype == depth)
    for other in (s for s in surveys if s.info.dtype != depth):
        text = f"is {other.info.dtype}, {show(usual.pair.image.name)} is {depth}"
        yield _finding("error", [other.pair.image], text, "bring all images to one bit depth")
    most = Counter(s.channels for s in surveys if s.channels > 1).most_common(1)
    wide = most[0][0] if most else 1
    usual = next((s for s in surveys if s.channels == wide), surveys[0])
    for other in surveys:
        # A grey photograph among colour ones is three equal channels; a single stain is not.
        may_be_photograph = other.info.dtype == "uint8" and "C" not in usual.info.axes
        if other.channels != wide and not (other.channels == 1 and wide == 3 and may_be_photograph):
            text = (
                f"has {plural(other.channels, 'channel')}, {show(usual.pair.image.name)} has {wide}"
            )
            remedy = (
                f"give all images the same channels, or take one of each: {arg('channels', '0')}"
            )
            yield _finding("error", [other.pair.image], text, remedy)
    if len({len(s.low) for s in surveys}) == 1:
        low, high = np.array([s.low for s in surveys]), np.array([s.high for s in surveys])
        for channel in np.flatnonzero(low.min(0) == high.max(0)).tolist():
            text = f"channel {channel + 1} holds {low[0, channel]:g} in every pixel of the set"
            yield _finding("warning", [facts.root], text, "it tells the network nothing")


def _strips(facts: _Facts) -> Iterator[Finding]:
    """Warn of a strip that stands at the same rows of all images and is not ignored by masks."""
    surveys, area = facts.surveys, facts.ignored_area
    if not len(facts.halves) or len(surveys) < _FEWEST_WITH_STRIPS:
        return  # the ignored pixels are known once the classes are
    if len({s.shape for s in surveys}) > 1:
        return
    height = surveys[0].shape[0]
    above, below = (min(s.strips[side] for s in surveys) for side in (0, 1))
    edges = {"top": (above, slice(0, above)), "bottom": (below, slice(height - below, height))}
    for side, (edge, (rows, place)) in enumerate(edges.items()):
        is_same = rows > 0 and max(s.strips[side] for s in surveys) == rows
        if not is_same or (area is not None and area.pixels[place].all()):
            continue
        text = f"rows {place.start} to {place.stop - 1} are the same strip in all "
        text += f"{len(surveys)} images, such as a scale bar, and their masks give it a class"
        crop = f"{edge}={rows}"
        line = facts.commands.check(as_option("crop", crop))
        yield _finding("warning", [facts.root], text, f"ignore it: {arg('crop', crop)}", line)


def _surround(facts: _Facts) -> Iterator[Finding]:
    """Warn of a dark surround that is the same in all images and is not ignored by masks."""
    surveys = facts.surveys
    if not len(facts.halves) or len(surveys) < _FEWEST_WITH_STRIPS:
        return
    surround = common_surround([s.surround for s in surveys])
    pixels = sum(height * width for height, width in (s.shape for s in surveys))
    ignored = 1 - facts.halves[:, 0].sum() / pixels
    if surround is None or ignored > surround.mean() / 2:
        return
    text = f"{100 * surround.mean():.0f} % of each image is the dark surround of a field of view, "
    text += "and the masks give it a class: predictions may show a false rim"
    remedy = f"have it ignored, with a mask of each field of view: {arg('fov', 'FOLDER')}"
    line = f"{facts.commands.convert()} --fov FOLDER"
    yield _finding("warning", [facts.root], text, remedy, line)


def _duplicates(facts: _Facts) -> Iterator[Finding]:
    """Warn of images with equal pixels."""
    first: dict[str, Survey] = {}
    for survey in facts.surveys:
        other = first.setdefault(survey.sha256, survey)
        if other is not survey:
            text = f"the same picture as {show(other.pair.file_name)}"
            both = [s.pair.read_mask(facts.settings.selection) for s in (survey, other)]
            if not np.array_equal(both[0].values, both[1].values):
                text += ", with another mask"
            remedy = "they stay on one side of the split; keep one of them"
            yield _finding("warning", [survey.pair.image], text, remedy)


def _neighbours(facts: _Facts) -> tuple[str, list[Finding]]:
    """Return a pattern that groups nearly equal images, or "", and the findings about them."""
    names, group = [s.pair.file_stem for s in facts.surveys], facts.settings.group
    near = [(names[i], names[j]) for i, j in _nearly_equal(facts.surveys) if names[i] != names[j]]
    if group:
        try:
            near = [p for p in near if len({splits.group_of(n, group) for n in p}) == 2]
        except InputError as error:
            return "", [_refusal(error, facts.commands)]
    if not near:
        return "", []
    are = "is" if len(near) == 1 else "are"
    text = f"{plural(len(near), 'pair')} of images {are} nearly equal, as neighbours in a video: "
    text += "; ".join(f"{show(a)} and {show(b)}" for a, b in near[:2])
    text += "; ..." if len(near) > 2 else ""
    text += ": on two sides of the split they make the score too good"
    pattern = "" if group else suggest_group(names, near)
    remedy = f"keep one of each pair, or pass a {arg('group')} that joins them"
    remedy = f"pass {arg('group', pattern)}" if pattern else remedy
    line = facts.commands.check(as_option("group", pattern)) if pattern else ""
    return pattern, [_finding("warning", [facts.root], text, remedy, line)]


def _parts(facts: _Facts) -> Iterator[Finding]:
    """Note that the set says by itself which of its images are held out."""
    parts = [s.pair.part for s in facts.surveys]
    if not splits.has_parts(parts, facts.settings):
        return
    counts = Counter(parts)
    text = " and ".join(f"{counts[part]} of {part}" for part in ("val", "test") if counts[part])
    text = f"the set is divided: {text} are held out, {counts['train']} are trained on"
    remedy = f"{arg('val', DEFAULT_VAL)} divides all images anew"
    yield _finding("note", [facts.root], text, remedy)


def _undividable(facts: _Facts) -> Iterator[Finding]:
    """Refuse a set from which no image can be held out."""
    surveys, settings = facts.surveys, facts.settings
    if not len(facts.halves) or splits.has_parts([s.pair.part for s in surveys], settings):
        return
    try:
        groups = splits.groups_of([s.pair.file_stem for s in surveys], settings.group)
        present = facts.halves[:, 0].sum(1) > 0
        hashes = [s.sha256 for s in surveys]
        splits.split_groups(groups, present, hashes, settings.held_out_share, settings.seed)
    except InputError as error:
        yield _refusal(error, facts.commands)


def _scale(facts: _Facts, size: int) -> tuple[float, list[Finding]]:
    """Return the scale at which a patch of ``size`` pixels shows a whole object, and findings.

    Where objects fit already, it is the scale that was set.
    """
    halves, scale = facts.halves, facts.settings.scale
    if not len(halves) or halves.shape[-1] < 2:
        return scale, []
    background = int(halves[:, 0].sum((0, 1)).argmax())  # the commonest class, most often
    measured = np.delete(facts.thickness * scale, background, 1)  # (n, C - 1)
    across = max((float(np.median(t[t > 0])) for t in measured.T if (t > 0).any()), default=0)
    factor = scale
    while across * factor > 1.5 * size * scale:
        factor /= 2
    if factor == scale or across <= 2 * size:
        return scale, []
    text = f"objects are about {across:.0f} pixels across, a patch shows {size}"
    remedy = f"{arg('scale', factor)} lets a patch show one"
    line = facts.commands.train(f"--scale {factor:g}")
    return factor, [_finding("note", [facts.root], text, remedy, line)]


def _storage(facts: _Facts) -> Iterator[Finding]:
    """Note images and masks that are read otherwise than they are stored."""
    surveys = facts.surveys
    for stored, text in (
        ([s for s in surveys if s.info.alpha], "transparency is dropped"),
        ([s for s in surveys if s.info.palette], "palette images are read as their colours"),
        (
            [s for s in surveys if s.info.orientation != 1],
            "turned upright, as their EXIF orientation says",
        ),
    ):
        if stored:
            yield _finding("note", [s.pair.image for s in stored], text)
    if surveys and all(s.channels == 1 and s.info.channels == 3 for s in surveys):
        text = "red, green and blue are equal in all images: they count as one grey channel"
        yield _finding("note", [facts.root], text)
    elif {s.channels for s in surveys} == {1, 3}:
        grey = [s for s in surveys if s.channels == 1]
        text = f"grey among colour images ({len(grey)} of {len(surveys)}): their red, green and "
        yield _finding("note", [s.pair.image for s in grey], text + "blue are taken as equal")
    clear = [s for s in surveys if s.found.unlabelled]
    if clear:
        count = sum(s.found.unlabelled for s in clear)
        text = f"{count:,} pixels are transparent or without data: they are ignored"
        yield _finding("note", [s.pair.mask for s in clear], text)
    if values := {s.found.nodata for s in surveys} - {None}:
        text = f"{', '.join(map(str, values))} is the value of no data of GeoTIFF masks"
        known = facts.table.ignore if facts.table else ()
        text += ": it is ignored" if values <= set(known) else ", and a class"
        yield _finding("note", [s.pair.mask for s in surveys if s.found.nodata is not None], text)
    encodings = Counter(s.encoding for s in surveys)
    if len(encodings) > 1:
        text = "masks are stored in several ways: "
        text += ", ".join(f"{name} ({count})" for name, count in encodings.most_common())
        yield _finding("note", [facts.root], text, f"look at the pictures of check {arg('html')}")


def suggest_group(names: Sequence[str], near: Sequence[tuple[str, str]]) -> str:
    """Return a regular expression for groups that fits the names of nearly equal images.

    The function tries the text before the last separator, the text before the last number, and
    names without their last one to three digits. A pattern fits if it is found in all names and
    holds nine of ten pairs together. It must also give at least three groups, of two images on
    average.

    Returns:
        The pattern; empty where none fits.
    """
    for pattern in (r"^(.+)[-_ .]", r"^(.*\D)\d+$", r"^(.*)\d$", r"^(.*)\d\d$", r"^(.*)\d\d\d$"):
        matches = [re.search(pattern, name) for name in names]
        if not all(matches):
            continue
        group = {n: m[1] for n, m in zip(names, matches, strict=True) if m}
        together = sum(group[a] == group[b] for a, b in near)
        if 3 <= len(set(group.values())) <= len(names) / 2 and together >= 0.9 * len(near):
            return pattern
    return ""


def _nearly_equal(surveys: Sequence[Survey]) -> list[tuple[int, int]]:
    """Return the pairs of images that show nearly the same.

    The function correlates thumbnails, and then the fine structure of those that are close. The
    mean of the set is subtracted from both, because all images may share a dark rim or a sky above
    a road. Thumbnails alone take two left eyes among right ones for the same.

    In 100 frames of CamVid, 33 thumbnails are over 0.75, all of one sequence, and 32 of these pairs
    over 0.22 in their fine structure. Two different eyes of DRIVE have 0.77 and 0.18. Among 100
    independently drawn pictures of lines and ellipses, no pair is over 0.50.
    """
    if len(surveys) < 4:  # too few images for a mean
        return []
    thumbnails = np.array([s.thumbnail for s in surveys])
    thumbnails -= thumbnails.mean(0)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-6)
    close = np.triu(thumbnails @ thumbnails.T > _NEARLY, 1)
    details = np.array([s.detail for s in surveys])
    details -= details.mean(0)
    pairs = [(int(i), int(j)) for i, j in np.argwhere(close)]
    return [
        (i, j)
        for i, j in pairs
        if surveys[i].sha256 != surveys[j].sha256 and _agree(details[i], details[j])
    ]


def _agree(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Tell whether two details correlate once one of them is moved by up to two pixels."""
    height, width = one.shape
    near = sorted(range(-_SHIFT, _SHIFT + 1), key=abs)
    for y, x in product(near, near):
        a = one[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)].ravel()
        b = other[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)].ravel()
        lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
        if a @ b > _NEARLY_IN_DETAIL * max(lengths, 1e-6):
            return True
    return False
