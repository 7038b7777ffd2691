"""Looking at a folder of labelled images: what is in it, what is wrong, what to type about it."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable, colour_to_rgb
from unetseg.dataset import pairing, splits
from unetseg.dataset.geometry import auto_size
from unetseg.dataset.pairing import Pair
from unetseg.errors import Code, InputError, arg, as_argument, as_option, worded
from unetseg.pictures import masks, reading, transforms
from unetseg.pictures.opening import ImageInfo
from unetseg.progress import OnProgress, Progress, ignore
from unetseg.settings import PatchSettings
from unetseg.signals import catching
from unetseg.text import quote, show

Severity = Literal["error", "warning", "note"]

_THUMBNAIL = 32  # pixels a side: keeps the scene, drops noise
_NEARLY = 0.75  # see `_nearly_equal`
_OBJECTS = 6  # a mask that numbers this many lone regions 1, 2, 3, ... numbers objects
_MEASURED = 256  # pixels a side to which masks are thinned out before objects are measured


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a folder.

    Attributes:
        severity: "error" stops training, "warning" may harm it, "note" is said once.
        files: What it is about: files, options, or the folder.
        problem: What is the matter, with the values found.
        remedy: What to do about it; may be empty.
        line: A command to type next; may be empty.
        code: What a program may ask for, as of an error.
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
        """The first files that it is about."""
        more = f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""
        return ", ".join(self.files[:3]) + more


@dataclass(frozen=True, eq=False)
class Survey:
    """What one look at a labelled image found.

    Attributes:
        pair: The image and its mask.
        info: Of the image, before scaling.
        mask_info: Of the mask.
        sha256: Of the image's pixels.
        channels: 1 where the channels of this image are equal.
        encoding: How the mask holds classes: "RGB colours", "palette", "8-bit values" ...
        found: What the mask holds.
        low: Smallest value of each stored channel.
        high: Largest value of each stored channel.
        thumbnail: ``(1024,)`` float32, grey, mean 0 and variance 1 (0 where the image is flat).
        objects: How many lone regions the mask numbers 1, 2, 3, ...; -1 where it does not.
    """

    pair: Pair
    info: ImageInfo
    mask_info: ImageInfo
    sha256: str
    channels: int
    encoding: str
    found: masks.Found
    low: tuple[float, ...]
    high: tuple[float, ...]
    thumbnail: NDArray[np.float32]
    objects: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image, before scaling."""
        return self.info.height, self.info.width


@dataclass(frozen=True, eq=False)
class Inspection:
    """What `inspect_folder` found.

    Attributes:
        root: The folder.
        surveys: Of the labelled images that can be read.
        findings: Errors first, then warnings, then notes.
        table: The classes; None where they cannot be told.
        classes_file: The ``classes.toml`` that gave them; None where they are the values found.
        halves: ``(n, 2, 2, C)`` pixels of each class in the upper and lower, the left and right
            half of each mask; of none where a mask does not fit the classes.
        size: Patch size that fits the images (after ``scale``).
        scale: Factor worth resizing by; the one set where objects are no larger than patches show.
        group: A ``--group`` that keeps nearly equal images together; empty where none is needed.
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

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop training."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(n, C)`` pixels of each class in each mask."""
        counts: NDArray[np.int64] = self.halves[:, 0].sum(1)
        return counts

    def refuse(self) -> None:
        """Raise the first error as `InputError`; it says how to see the others."""
        if not self.errors:
            return
        first, others = self.errors[0], len(self.errors) - 1
        remedies = [first.remedy] if first.remedy else []
        if first.code:  # the line repairs the masks
            remedies.append(first.line)
        if others:
            remedies.append(f"{others} more: unetseg check {quote(str(self.root))}")
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


def inspect_folder(
    source: str | os.PathLike[str],
    settings: PatchSettings | None = None,
    *,
    classes: Path | None = None,
    ignored: Sequence[int | str] = (),
    on_progress: OnProgress = ignore,
) -> Inspection:
    """Look at every file of a folder of labelled images; nothing is changed.

    Args:
        source: The folder, laid out as `unetseg.dataset.pairing.find_pairs` reads it.
        settings: How it is to be cut; ``page``, ``group``, ``scale``, ``size``, ``val`` matter.
        classes: A ``classes.toml`` to use; None takes the folder's own, or the values found.
        ignored: Mask values or colours that are neither trained on nor scored.
        on_progress: Receives `Progress`.

    Raises:
        InputError: No such folder, nothing in it to pair, or ``classes`` that cannot be read.
        MachineError: No permission to read.
        Interrupted: A signal came.
    """
    root, settings = Path(source), settings or PatchSettings()
    pairs, problem = pairing.match_pairs(root)
    look = _Look(root, settings, classes, ignored)
    if problem:
        look.error(problem)
    with catching() as caught:
        surveys = []
        for i, pair in enumerate(pairs):
            caught.check(root, "run the same line again")
            if one := look.survey(pair):
                surveys.append(one)
            on_progress(Progress("looking at", i + 1, len(pairs), "images", show(pair.name)))
        given = pairing.load_classes(root, classes)
        file = (classes or root / "classes.toml") if given else None
        table = look.classes(surveys, given, tuple(ignored))
        size = settings.size or auto_size(
            [transforms.scaled_size(*s.shape, settings.scale) for s in surveys] or [(512, 512)]
        )
        measured = []
        for i, one in enumerate(surveys if table else []):
            caught.check(root, "run the same line again")
            if table and (both := look.measure(one, table)):
                measured.append(both)
            on_progress(Progress("reading", i + 1, len(surveys), "masks", show(one.pair.name)))
    halves = np.array([h for h, _ in measured if len(measured) == len(surveys)], np.int64)
    if table and len(halves) and not look.has_objects:
        look.contents(surveys, table, halves)
        if not given:
            look.blends(surveys, table, halves, [t for _, t in measured])
    look.alike(surveys)
    group = look.repeated(surveys)
    look.split(surveys, halves)
    scale = look.scale(surveys, halves, [t for _, t in measured], size)
    look.said_once(surveys)
    return Inspection(
        root, tuple(surveys), look.findings(), table, file, halves, size, scale, group
    )


class _Look:
    """Gathers findings about one folder."""

    def __init__(
        self,
        root: Path,
        settings: PatchSettings,
        classes: Path | None,
        ignored: Sequence[int | str],
    ) -> None:
        self.root, self.settings = root, settings
        self.has_objects = False  # one value per object
        self._found: list[Finding] = []
        given = [("classes", classes), *(("ignored", i) for i in ignored)]
        given += [("group", settings.group), ("page", settings.page)]
        self._given = "".join(
            f" {as_option(name, value)}" for name, value in given if value is not None
        )

    def findings(self) -> tuple[Finding, ...]:
        """Return what was found, the worst first, files with one problem together."""
        order = ("error", "warning", "note")
        merged: dict[tuple[Any, ...], list[str]] = {}
        for f in sorted(self._found, key=lambda f: order.index(f.severity)):
            merged.setdefault((f.severity, f.problem, f.remedy, f.line, f.code), []).extend(f.files)
        return tuple(
            Finding(severity, tuple(files), *rest) for (severity, *rest), files in merged.items()
        )

    def add(
        self,
        severity: Severity,
        files: Sequence[object],
        problem: str,
        remedy: str = "",
        line: str = "",
        code: Code | None = None,
    ) -> None:
        shown = tuple(map(show, files))
        self._found.append(Finding(severity, shown, problem, remedy, line, code))

    def error(self, error: InputError) -> None:
        """Add what a reader refused, with the command that helps where there is one."""
        here, target = self._quoted(), self._quoted("-converted")
        line = ""
        if error.give:
            line = f"unetseg check {here}{self._given} {as_option(*error.give)}"
        elif error.code is Code.OBJECT_NUMBERS:
            line = f"unetseg convert {here} {target} --instances"
        elif error.code is Code.BLENDED_MASK:
            line = f"unetseg convert {here} {target}"
        self.add("error", [error.what], error.problem, error.remedy, line, error.code)

    def _quoted(self, end: str = "") -> str:
        return quote(str(self.root).rstrip("/") + end)

    # -- one image ------------------------------------------------------------------------------

    def survey(self, pair: Pair) -> Survey | None:
        """Look at one labelled image; None where it cannot be read, which is then a finding."""
        try:
            page = self.settings.page
            info, mask_info = (
                reading.read_info(pair.image, page),
                reading.read_info(pair.mask, page),
            )
            image, raw = reading.read_image(pair.image, page), reading.read_mask(pair.mask, page)
        except InputError as error:
            self.error(error)
            return None
        if image.shape[:2] != raw.values.shape[:2]:
            self._sizes_differ(pair, info, image.shape[:2], raw.values.shape[:2])
            return None
        if _may_be_turned(info, mask_info):
            text = "is turned by its EXIF orientation, its mask is not, and it fits both ways"
            remedy = (
                "if the masks were drawn on the upright pictures, convert; else remove the "
                "orientation from the images"
            )
            line = f"unetseg convert {self._quoted()} {self._quoted('-converted')}"
            self.add("error", [pair.image], text, remedy, line, Code.TURNED_IMAGE)
        return Survey(
            pair,
            info,
            mask_info,
            transforms.pixel_hash(image),
            transforms.collapse_grey(image).shape[2],
            _encoding(raw, mask_info),
            masks.find_keys(raw),
            tuple(image.min((0, 1)).tolist()),
            tuple(image.max((0, 1)).tolist()),
            _thumbnail(image),
            _count_objects(raw),
        )

    def _sizes_differ(
        self, pair: Pair, info: ImageInfo, size: tuple[int, ...], mask: tuple[int, ...]
    ) -> None:
        text = (
            f"{size[0]} x {size[1]} pixels, its mask {show(pair.mask.name)} {mask[0]} x {mask[1]}"
        )
        if info.orientation >= 5 and size == mask[::-1]:
            text += " (the image is turned by its EXIF orientation, the mask is not)"
        self.add("error", [pair.image], text, "make image and mask the same size")

    def measure(
        self, one: Survey, table: ClassTable
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Return the class pixels of each half, and how thick each class is (0 where absent)."""
        try:
            raw = reading.read_mask(one.pair.mask, self.settings.page)
            mask = masks.decode(raw, table, one.pair.mask)
        except InputError as error:
            self.error(error)
            return None
        count, row, column = len(table.classes), mask.shape[0] // 2, mask.shape[1] // 2
        quarters = np.array(
            [
                [np.bincount(part.ravel(), minlength=256)[:count] for part in parts]
                for parts in (
                    (mask[:row, :column], mask[:row, column:]),
                    (mask[row:, :column], mask[row:, column:]),
                )
            ]
        )
        return np.stack([quarters.sum(1), quarters.sum(0)]), _thickness(mask, count)

    # -- classes --------------------------------------------------------------------------------

    def classes(
        self, surveys: list[Survey], given: ClassTable | None, ignored: tuple[int | str, ...]
    ) -> ClassTable | None:
        """Return the classes; None where they cannot be told, which is then a finding."""
        if not surveys:
            return None
        try:
            if given is not None:
                return given.with_ignored(ignored) if ignored else given
            table = masks.discover({str(s.pair.mask): s.found for s in surveys}, ignored)
        except InputError as error:
            self.error(error)
            return None
        self.has_objects = _number_objects(surveys)
        if self.has_objects:
            text = f"{len(table.classes)} values that look like one per object, not like classes"
            remedy = (
                "if they are classes, save a classes.toml that lists them; if they are objects, "
                "make foreground and border of them"
            )
            line = f"unetseg convert {self._quoted()} {self._quoted('-converted')} --instances"
            masks_of = [s.pair.mask for s in surveys]
            self.add("error", masks_of, text, remedy, line, Code.OBJECT_NUMBERS)
        return table

    def contents(self, surveys: list[Survey], table: ClassTable, halves: NDArray[np.int64]) -> None:
        """Judge how often each class appears."""
        counts = halves[:, 0].sum(1)
        names = table.names
        if not counts.any():
            self.add(
                "error",
                [self.root],
                "every pixel of every mask is ignored",
                f"see {arg('ignored')}",
            )
            return
        absent = [show(n) for n, total in zip(names, counts.sum(0), strict=True) if not total]
        if absent:
            text = f"no mask shows {', '.join(absent)}"
            self.add("warning", [self.root], text, "leave it out of classes.toml, or label some")
        present = (counts > 0).sum(0)
        rare = [show(n) for n, images_with in zip(names, present, strict=True) if images_with == 1]
        if rare and len(surveys) > 1:
            text = f"only one image shows {', '.join(rare)}: nothing is left to score it on"
            self.add("warning", [self.root], text, "label more")
        if (present > 0).sum() == 1:
            text = f"all masks hold one class only, {show(names[int(present.argmax())])}"
            self.add("warning", [self.root], text, "there is nothing to tell apart; look at them")
            return
        for i, name in enumerate(names):
            alone = (counts[:, i] > 0) & (counts.sum(1) == counts[:, i])
            files = [s.pair.mask for s, only in zip(surveys, alone, strict=True) if only]
            if files:
                text = f"nothing but {show(name)} in these masks ({len(files)} of {len(surveys)})"
                self.add("warning", files, text, "look whether they are labelled at all")
        unlabelled = [s.pair.mask for s, c in zip(surveys, counts, strict=True) if not c.any()]
        if unlabelled:
            self.add("warning", unlabelled, "every pixel is ignored", "it teaches nothing")

    def blends(
        self,
        surveys: list[Survey],
        table: ClassTable,
        halves: NDArray[np.int64],
        thickness: list[NDArray[np.float64]],
    ) -> None:
        """Ask about classes that are thin everywhere and of a colour between two others."""
        keys = [table.key(i) for i in range(len(table.classes))]
        points = np.array([colour_to_rgb(k) if isinstance(k, str) else (k,) * 3 for k in keys])
        pixels_of = halves[:, 0].sum((0, 1))
        step = max(_step(s.shape) for s in surveys)
        thin = np.max(thickness, axis=0) <= 2 * step
        for i, point in enumerate(points):
            # of index values 0, 1, 2 the middle one is no blend
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
                line = f"unetseg convert {self._quoted()} {self._quoted('-converted')}"
                self.add("error", [self.root], text, remedy, line)

    # -- the images together ----------------------------------------------------------------------

    def alike(self, surveys: list[Survey]) -> None:
        """Judge whether bit depth and channels agree; three equal channels pass for colour."""
        if not surveys:
            return
        depth = Counter(s.info.dtype for s in surveys).most_common(1)[0][0]
        usual = next(s for s in surveys if s.info.dtype == depth)
        for one in (s for s in surveys if s.info.dtype != depth):
            text = f"is {one.info.dtype}, {show(usual.pair.image.name)} is {depth}"
            self.add("error", [one.pair.image], text, "bring all images to one bit depth")
        most = Counter(s.channels for s in surveys if s.channels > 1).most_common(1)
        wide = most[0][0] if most else 1
        usual = next((s for s in surveys if s.channels == wide), surveys[0])
        for one in surveys:
            if one.channels != wide and not (one.channels == 1 and wide == 3):
                text = f"has {one.channels} channels, {show(usual.pair.image.name)} has {wide}"
                self.add("error", [one.pair.image], text, "give all images the same channels")
        if len({len(s.low) for s in surveys}) == 1:
            low, high = np.array([s.low for s in surveys]), np.array([s.high for s in surveys])
            for channel in np.flatnonzero(low.min(0) == high.max(0)).tolist():
                text = f"channel {channel + 1} holds {low[0, channel]:g} in every pixel of the set"
                self.add("warning", [self.root], text, "it tells the network nothing")

    def repeated(self, surveys: list[Survey]) -> str:
        """Find equal and nearly equal images; return a ``--group`` worth suggesting, or ""."""
        first: dict[str, Survey] = {}
        for one in surveys:
            other = first.setdefault(one.sha256, one)
            if other is not one:
                text = f"the same picture as {show(other.pair.image.name)}"
                masks_of = [
                    reading.read_mask(s.pair.mask, self.settings.page) for s in (one, other)
                ]
                same = np.array_equal(masks_of[0].values, masks_of[1].values)
                text += "" if same else ", with another mask"
                remedy = "they stay on one side of the split; keep one of them"
                self.add("warning", [one.pair.image], text, remedy)
        names = [s.pair.name for s in surveys]
        near = [(names[i], names[j]) for i, j in _nearly_equal(surveys)]
        group = self.settings.group
        if group:
            try:
                near = [p for p in near if len({splits.group_of(n, group) for n in p}) == 2]
            except InputError as error:
                self.error(error)
                return ""
        if not near:
            return ""
        text = f"{len(near)} pairs of images are nearly equal, as neighbours in a video: "
        text += "; ".join(f"{show(a)} and {show(b)}" for a, b in near[:2])
        text += "; ..." if len(near) > 2 else ""
        text += ": on two sides of the split they make the score too good"
        pattern = "" if group else suggest_group(names, near)
        remedy = f"pass {arg('group', pattern)}" if pattern else f"pass a {arg('group')}"
        option = as_option("group", pattern)
        line = f"unetseg check {self._quoted()}{self._given} {option}" if pattern else ""
        self.add("warning", [self.root], text, remedy, line)
        return pattern

    def split(self, surveys: list[Survey], halves: NDArray[np.int64]) -> None:
        """Judge whether images can be held out at all."""
        if not len(halves):
            return
        try:
            groups = splits.groups_of([s.pair.name for s in surveys], self.settings.group)
            present = halves[:, 0].sum(1) > 0
            hashes = [s.sha256 for s in surveys]
            splits.split_groups(groups, present, hashes, self.settings.val, self.settings.seed)
        except InputError as error:
            self.error(error)

    def scale(
        self,
        surveys: list[Survey],
        halves: NDArray[np.int64],
        thickness: list[NDArray[np.float64]],
        size: int,
    ) -> float:
        """Return the scale at which objects fit a patch, as set where they do; say so where not."""
        if not len(halves) or halves.shape[-1] < 2:
            return self.settings.scale
        background = int(halves[:, 0].sum((0, 1)).argmax())  # the commonest class, most often
        measured = np.delete(np.array(thickness) * self.settings.scale, background, 1)  # (n, C - 1)
        across = max((float(np.median(t[t > 0])) for t in measured.T if (t > 0).any()), default=0)
        factor = 1.0
        while across * factor > 1.5 * size:
            factor /= 2
        factor *= self.settings.scale
        if factor < self.settings.scale and across > 2 * size:
            text = f"objects are about {across:.0f} pixels across, a patch shows {size}"
            line = f"unetseg train {self._quoted()}{self._given} --scale {factor:g}"
            self.add(
                "note", [self.root], text, f"{arg('scale', factor)} lets a patch show one", line
            )
            return factor
        return self.settings.scale

    def said_once(self, surveys: list[Survey]) -> None:
        """Say what is read otherwise than it is stored."""
        for stored, text in (
            ([s for s in surveys if s.info.alpha], "transparency is dropped"),
            ([s for s in surveys if s.info.palette], "palette images are read as their colours"),
            (
                [s for s in surveys if s.info.orientation != 1],
                "turned upright, as their EXIF orientation says",
            ),
        ):
            if stored:
                self.add("note", [s.pair.image for s in stored], text)
        if surveys and all(s.channels == 1 and s.info.channels == 3 for s in surveys):
            text = "red, green and blue are equal in all images: they count as one grey channel"
            self.add("note", [self.root], text)
        encodings = Counter(s.encoding for s in surveys)
        if len(encodings) > 1:
            text = "masks are stored in several ways: "
            text += ", ".join(f"{name} ({count})" for name, count in encodings.most_common())
            self.add("note", [self.root], text, f"look at the pictures of check {arg('html')}")


def suggest_group(names: Sequence[str], near: Sequence[tuple[str, str]]) -> str:
    """Return a regular expression for ``--group`` that the names of nearly equal images show.

    Tried are what stands before the last separator, before the last number, and numbers without
    their last one to three digits. It must be found in all names, give at least three groups,
    each of two images on average, and hold nine of ten pairs together.

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

    Thumbnails without what all images of the set have in common (a dark rim, a road below a sky)
    are correlated. In 100 frames of CamVid all 33 pairs over 0.75 are of one sequence; 100
    independently drawn pictures of lines and ellipses reach 0.50.
    """
    if len(surveys) < 4:  # too few to tell what they have in common
        return []
    thumbnails = np.array([s.thumbnail for s in surveys])
    thumbnails -= thumbnails.mean(0)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-6)
    close = np.triu(thumbnails @ thumbnails.T > _NEARLY, 1)
    pairs = [(int(i), int(j)) for i, j in np.argwhere(close)]
    return [(i, j) for i, j in pairs if surveys[i].sha256 != surveys[j].sha256]


def _thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    grey = image.mean(2, dtype=np.float32)[..., None]
    small = transforms.rescale_image(grey, (_THUMBNAIL, _THUMBNAIL)).ravel()
    small -= small.mean()
    small /= max(float(small.std()), 1e-6)
    return np.asarray(small, np.float32)


def _encoding(raw: masks.RawMask, info: ImageInfo) -> str:
    if raw.values.ndim == 3:
        return "RGB colours"
    if raw.palette is not None:
        return "palette"
    return f"{8 * raw.values.itemsize}-bit values ({info.format})"


def _may_be_turned(image: ImageInfo, mask: ImageInfo) -> bool:
    """Whether only one of the two is turned by its file, and it would fit unturned as well."""
    quarter = max(image.orientation, mask.orientation) >= 5
    return image.orientation != mask.orientation and not (quarter and image.height != image.width)


def _count_objects(raw: masks.RawMask) -> int:
    """Return k where a mask numbers regions 1 to k, nine of ten in one piece; else -1."""
    from scipy import ndimage

    values = raw.values
    if values.ndim == 3 or values.max() > masks.MAX_FOUND:
        return -1
    parts = ndimage.find_objects(values.astype(np.int32))
    if any(part is None for part in parts):
        return -1
    whole = sum(
        ndimage.label(values[part] == i + 1, np.ones((3, 3)))[1] == 1
        for i, part in enumerate(parts)
    )
    return len(parts) if whole >= 0.9 * len(parts) else -1


def _number_objects(surveys: Sequence[Survey]) -> bool:
    """Whether masks hold one value or colour per object rather than classes."""
    numbers = [s.objects for s in surveys]
    if min(numbers) >= 0 and max(numbers) >= _OBJECTS:
        return len(numbers) == 1 or len(set(numbers)) > 1
    colours = Counter(k for s in surveys for k in s.found.counts if isinstance(k, str))
    lone = sum(count == 1 for count in colours.values())
    return len(surveys) > 2 and lone >= _OBJECTS and lone > 0.7 * len(colours)


def _step(shape: tuple[int, ...]) -> int:
    """Return which pixels of a mask are measured: every, every second ..."""
    return -(-max(shape) // _MEASURED)


def _thickness(mask: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
    """Return for each class the width in pixels of the largest square that fits into it."""
    from scipy import ndimage

    step = _step(mask.shape)
    thin = mask[::step, ::step]
    widths = np.zeros(count)
    for index in np.unique(thin[thin < count]).tolist():
        inside = thin == index
        whole = bool(inside.all())
        depth = min(thin.shape) / 2 if whole else ndimage.distance_transform_cdt(inside).max()
        widths[index] = 2 * float(depth) * step
    return widths
