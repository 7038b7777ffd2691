"""A look at every file of a folder of labelled images."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.arguments import Reports, public, several
from unetseg.classes import IGNORED_COLOUR, ClassTable
from unetseg.dataset import pairing
from unetseg.dataset.findings.contents import (
    doubt_values,
    judge_blends,
    judge_contents,
    judge_hidden,
    judge_kinds,
    judge_names,
    judge_rims,
    judge_scale,
    judge_swaps,
)
from unetseg.dataset.findings.division import judge_division, judge_number, judge_parts
from unetseg.dataset.findings.facts import Facts
from unetseg.dataset.findings.finding import (
    SEVERITIES,
    Commands,
    Finding,
    refusal_of,
    sort_findings,
)
from unetseg.dataset.findings.images import (
    judge_channels,
    judge_orientation,
    judge_places,
    judge_ranges,
    judge_sentinels,
    judge_storage,
    judge_strips,
    judge_surround,
)
from unetseg.dataset.findings.neighbours import (
    judge_copies,
    judge_duplicates,
    judge_neighbours,
)
from unetseg.dataset.geometry import auto_size
from unetseg.dataset.survey import Survey, measure_classes, survey_pair
from unetseg.errors import Code, InputError, arg, as_option, either, worded
from unetseg.pictures import masks, transforms
from unetseg.pictures.discovery import discover
from unetseg.pictures.surroundings import AreaFinder, IgnoredArea
from unetseg.progress import steps, warn
from unetseg.results import Result, Table
from unetseg.settings import PatchSettings
from unetseg.signals import catching
from unetseg.text import plural, quote, show

_JUDGES = (
    *(
        judge_contents,
        judge_hidden,
        judge_names,
        judge_swaps,
        judge_kinds,
        judge_number,
        judge_blends,
        judge_rims,
        judge_orientation,
        judge_places,
        judge_channels,
        judge_ranges,
        judge_sentinels,
    ),
    *(judge_strips, judge_surround, judge_duplicates, judge_copies),
)


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
        group: A suggested pattern that keeps nearly equal images, or tiles of one scene, together;
            empty where none is needed.
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
        found = ", ".join(plural(counts[s], s) for s in SEVERITIES if counts[s])
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
        rows = [
            ("images", ", ".join(f"{count} {name}" for name, count in facts["formats"].items())),
            ("rows x columns", sizes[0] if len(sizes) == 1 else span),
            ("channels", " or ".join(map(str, facts["channels"]))),
            ("values", " and ".join(facts["dtypes"])),
            ("masks", ", ".join(f"{k} ({count})" for k, count in facts["mask_encodings"].items())),
            ("suggested", f"{arg('size', self.size)} {arg('scale', self.scale)}"),
        ]
        first = self.surveys[0].pair
        note = f"Paired by name, such as {first.image.name} with {first.mask.name}."
        if first.drawn is not None:
            note = f"Drawn from labels, such as those of {first.image.name} in {first.mask.name}."
        title = f"{self.root}: {plural(facts['images'], 'labelled image')}"
        about = Table(title, ["", "found"], rows, note)
        if self.table is None or not facts["classes"]:
            return (about,)
        classes = self.table.table(
            ("pixels", [f"{c['pixels']:,}" for c in facts["classes"]]),
            ("share", [f"{100 * c['share']:.2f} %" for c in facts["classes"]]),
            ("images", [str(c["images"]) for c in facts["classes"]]),
        )
        return about, classes._replace(note=self._ignored_note())

    def _ignored_note(self) -> str:
        """Return which values of the masks are ignored, and the share of all that is ignored."""
        if self.table is None or not len(self.halves):
            return ""
        held = [
            (key, s.found.colours.get(key) if isinstance(key, int) else None)
            for s in self.surveys
            for key in s.found.counts
        ]
        marked = masks.ignored_value(self.table), IGNORED_COLOUR  # as a written mask marks it
        known = {*self.table.ignore, *(key for key, colour in held if (key, colour) == marked)}
        keys = sorted({str(key) for key, _ in held if key in known})
        if not keys:
            return ""
        share = 1 - self.counts.sum() / sum(math.prod(s.shape) for s in self.surveys)
        text = f"{', '.join(keys)} in masks {'is' if len(keys) == 1 else 'are'} ignored. "
        return f"{text}{100 * share:.2f} % of all pixels have no class."

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
        if first.call:
            remedies.append(either(first.line, first.call))
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
    kept = ("group", "page", "channels", "crop", "line_width")
    others = {name: getattr(settings, name) for name in kept}
    commands = Commands.given(root, classes, ignored, others)
    labelled = pairing.read_set(
        source, classes, selection=settings.selection, line_width=settings.line_width
    )
    pairs, given = labelled.pairs, labelled.classes
    found = [refusal_of(labelled.problem, commands)] if labelled.problem else []
    found += [Finding.of("warning", [root], text) for text in labelled.warnings]
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
                found.append(refusal_of(error, commands))
        if any(f.code is Code.CLOSE_VALUES for f in found):  # then no conversion reads the set
            found = [
                replace(f, line="", call="") if f.code is Code.LOSSY_MASK else f for f in found
            ]
        classes_file = (classes or root / "classes.toml") if given else None
        doubt = None if given else _doubt(surveys)
        table = None
        try:
            if doubt is None or doubt.code is Code.OBJECTS_OR_CLASSES:
                table = _classes_of(surveys, given, ignored)
        except InputError as error:
            doubt = doubt or error
        if doubt:
            at_fault = [s.pair.named for s in surveys] if doubt.subject is masks.ALL_MASKS else []
            found.append(refusal_of(doubt, commands, at_fault))
        measured, strange, area = [], list[masks.NoClassError](), AreaFinder()
        if table and not doubt:
            for survey in steps(
                surveys,
                "reading",
                "masks",
                on_progress,
                name=lambda s: s.pair.name,
                check=check,
            ):
                try:
                    measured.append(measure_classes(survey, table, settings.selection, area))
                except masks.NoClassError as error:
                    strange.append(error)
                except InputError as error:
                    found.append(refusal_of(error, commands))
        if strange:
            found.append(refusal_of(masks.join_no_class(strange), commands))
    measured = measured if len(measured) == len(surveys) else []
    has_labels = [bool(one.halves.any()) for one in measured]
    if any(has_labels) and not all(has_labels):
        found.append(_left_out(surveys, has_labels))
        surveys = list(compress(surveys, has_labels))
        measured = list(compress(measured, has_labels))
    facts = Facts(
        root,
        settings,
        commands,
        tuple(surveys),
        table,
        given is not None,
        np.array([one.halves for one in measured], np.int64),
        np.array([one.thickness for one in measured]),
        np.array([one.crossings for one in measured], np.int64),
        area.found() if measured else None,
    )
    sizes = [transforms.scaled_size(*s.shape, settings.scale) for s in surveys]
    size = settings.size or auto_size(sizes or [(512, 512)])
    for judge in _JUDGES:
        found += judge(facts)
    group, neighbours = judge_neighbours(facts)
    scale, too_large = judge_scale(facts, size)
    found += [
        *neighbours,
        *judge_parts(facts),
        *judge_division(facts),
        *too_large,
        *judge_storage(facts),
    ]
    return Inspection(
        root,
        facts.surveys,
        sort_findings(found),
        table,
        classes_file,
        facts.halves,
        size,
        scale,
        group,
        facts.ignored_area,
    )


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
    return discover({str(s.pair.labelled_as): s.found for s in surveys}, ignored)


def _left_out(surveys: Sequence[Survey], has_labels: Sequence[bool]) -> Finding:
    """Note the images that teach and score nothing, such as those that nobody has labelled yet."""
    files = [s.pair.named for s, labelled in zip(surveys, has_labels, strict=True) if not labelled]
    text = f"no pixel is labelled ({len(files)} of {plural(len(surveys), 'mask')})"
    return Finding.of("note", files, text, "the images are left out")


def _doubt(surveys: Sequence[Survey]) -> InputError | None:
    """Return why the values of masks may be no classes; None where nothing speaks against it."""
    found = {str(s.pair.labelled_as): s.found for s in surveys}
    numbers = {s.pair.labelled_as: s.numbers for s in surveys}
    return doubt_values(found, numbers)
