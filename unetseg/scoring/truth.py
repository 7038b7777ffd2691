"""The true masks of a folder of labelled images, in the classes of the masks that are scored."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import pairing
from unetseg.dataset.findings.finding import Commands
from unetseg.dataset.findings.images import doubt_views, refuse_misplaced
from unetseg.dataset.naming import Pair
from unetseg.dataset.pairing import LabelledSet
from unetseg.dataset.survey import view_surround
from unetseg.errors import InputError, arg, either
from unetseg.objects.files import find_label_image
from unetseg.objects.separation import BACKGROUND, FOREGROUND
from unetseg.pictures import masks, reading
from unetseg.prediction.model_file import ModelCard
from unetseg.progress import Note, OnProgress
from unetseg.scoring.predictions import Labels
from unetseg.settings import Selection
from unetseg.text import show


@dataclass(frozen=True)
class TruthOptions:
    """How the true masks of a folder are read.

    Attributes:
        classes: The file of the folder's classes, where one is given.
        ignored: Values or colours that are not scored.
        line_width: The width in pixels of lines and points; None takes that of a model's training.
    """

    classes: str | os.PathLike[str] | None
    ignored: tuple[int | str, ...]
    line_width: float | None


def read_folder(
    source: str | os.PathLike[str],
    options: TruthOptions,
    selection: Selection,
    card: ModelCard | None,
    on_progress: OnProgress,
) -> LabelledSet:
    """Read a folder of labelled images; its lines are as wide as asked for, else as in training.

    Raises:
        InputError: The folder holds nothing to pair, or fields of view instead of labels.
    """
    width = card.line_width if card and options.line_width is None else options.line_width
    labelled = pairing.read_set(source, options.classes, selection=selection, line_width=width)
    for text in labelled.warnings:
        on_progress(Note(f"{show(labelled.folder)}: {text}", warning=True))
    if labelled.classes is None:
        views = ((pair.mask, _view_surround(pair, selection)) for pair in labelled.pairs)
        if doubt := doubt_views(views):
            raise doubt
    return labelled


def _view_surround(pair: Pair, selection: Selection) -> NDArray[np.bool_] | None:
    """Return `view_surround`; None where a file is at fault, which scoring will say."""
    try:
        return view_surround(pair, selection)
    except InputError:
        return None


@dataclass(frozen=True)
class Truth:
    """The true masks of a folder of labelled images.

    Attributes:
        labelled: The folder.
        selection: The part of each file that is used.
        table: The classes by which the masks are read.
        card: The model whose classes are scored, and which ignores pixels; None scores the classes
            of the masks.
    """

    labelled: LabelledSet
    selection: Selection
    table: ClassTable
    card: ModelCard | None = None

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.labelled.folder

    @property
    def classes(self) -> ClassTable:
        """The classes that are scored."""
        return self.card.classes if self.card else self.table

    @functools.cached_property
    def _order(self) -> NDArray[np.uint8]:
        """The index (256,) of each class of the masks among those that are scored."""
        order = np.arange(256, dtype=np.uint8)
        for index, name in enumerate(self.table.names):
            order[index] = self.classes.names.index(name)
        return order

    def labels_and_hidden(self, pair: Pair) -> tuple[Labels, list[str]]:
        """Return a mask (H, W), 255 ignored, and the class of each of its `Pair.hidden` shapes.

        Raises:
            InputError: The mask cannot be read, or lies elsewhere on the map than its image.
        """
        refuse_misplaced(pair, self.selection)
        raw, hidden = pair.read_mask_and_hidden(self.selection)
        labels: Labels = self._order[pair.labels_of(raw, self.table, self.selection)]
        if self.card:
            labels = self.card.ignore_outside(labels, self.selection)
        return labels, self.table.names_of(hidden)

    def refuse_misfit(self, pair: Pair) -> None:
        """Raise `InputError` where a mask has another size than its image."""
        image, mask = pair.read_info(self.selection), pair.mask_info(self.selection)
        due = image.height, image.width
        masks.check_same_size(pair.mask, (mask.height, mask.width), due)

    def warn_of_area(self, pairs: Sequence[Pair], on_progress: OnProgress) -> None:
        """Warn of the first image of another size than the area that training ignored."""
        area = self.card.ignored_area if self.card else None
        for pair in pairs if area else ():
            info = pair.read_info(self.selection)
            name = show(pair.image.name)
            if area and (text := area.describe_misfit(info.height, info.width, name)):
                on_progress(Note(text, warning=True))
                return

    def numbers(self, pair: Pair, labels: Labels) -> NDArray[Any] | None:
        """Return the label image (H, W) of the true objects; None where there is none.

        Raises:
            InputError: It cannot be read, or has another size than ``labels``, the mask.
        """
        path = find_label_image(self.folder, pair.name)
        if path is None:
            return None
        numbers = reading.read_mask(path, self.selection).values
        if numbers.shape != labels.shape:
            text = f"is {numbers.shape} pixels, the mask is {labels.shape}"
            raise InputError(path, text, "make it anew from the mask")
        return numbers


def truth_of(
    labelled: LabelledSet, options: TruthOptions, selection: Selection, card: ModelCard
) -> Truth:
    """Return the true masks of a folder in the classes of a model.

    Shapes need not show every class of the model.

    Args:
        labelled: The folder.
        options: How it was read.
        selection: The part of each file that is used.
        card: The model.

    Raises:
        InputError: The folder's classes have other names, or the model may ignore the foreground.
    """
    own, classes, file = labelled.classes, card.classes, options.classes
    declared = Path(labelled.folder, "classes.toml")
    is_file = file is not None or declared.exists()
    some = not is_file and any(pair.drawn is not None for pair in labelled.pairs)
    names = set(own.names) if own else set()
    if own and not (names <= set(classes.names) if some else names == set(classes.names)):
        text = f"names {', '.join(own.names)}; the model knows {', '.join(classes.names)}"
        place = file or (declared if declared.exists() else labelled.folder)
        raise InputError(place, text, "make the names agree")
    if own is None and IGNORED not in options.ignored:
        _refuse_black_and_white(labelled, classes, selection)
    return Truth(labelled, selection, (own or classes).with_ignored(options.ignored), card)


def _refuse_black_and_white(
    labelled: LabelledSet, classes: ClassTable, selection: Selection
) -> None:
    """Refuse masks of 0 and 255 alone where 255 is no class of the model: it may be one here.

    Args:
        labelled: A folder that does not say which classes its masks hold.
        classes: The classes of the model.
        selection: The part of each file that is used.

    Raises:
        InputError: All masks hold 0 and 255 alone, and the model has a class of another value.
    """
    values = [c.value for c in classes]
    has_other = any(value not in (None, 0) for value in values)
    if IGNORED in values or not has_other or not labelled.pairs:
        return
    found, blacks, whites = set[int | str](), {0, "#000000"}, {IGNORED, "#ffffff"}
    for pair in labelled.pairs:
        if pair.drawn is not None:
            return
        found |= masks.find_keys(pair.read_mask(selection)).counts.keys()
        if not found <= blacks | whites:
            return
    if not (found & blacks and found & whites):
        return
    rule = "is ignored by the model" if IGNORED in classes.ignore else "is no class of the model"
    text = f"255 {rule}, and these masks hold 0 and 255 alone"
    named = _name_black_and_white(labelled.folder, classes)
    remedy = f"if 255 is a class, {named}; else {arg('ignore', 255)}"
    raise InputError(labelled.folder, text, remedy)


def _name_black_and_white(root: Path, classes: ClassTable) -> str:
    """Return how masks of 0 and 255 get the names of a model's classes."""
    if set(classes.names) == {BACKGROUND, FOREGROUND}:  # the names that `convert` gives
        line, call = Commands(root).convert()
        return f"convert them: {either(f'{line} (--fov FOLDER)', call)}"
    named = "each name of the model and its value here"
    if len(classes) == 2:
        low, high = sorted(classes, key=lambda c: c.value or 0)
        named = f"{show(low.name)} as value 0 and {show(high.name)} as value 255"
    return f"list {named} in a file for {arg('classes')}"
