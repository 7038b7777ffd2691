"""Masks made by any program, as predictions of images that are scored."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import naming, pairing
from unetseg.dataset.naming import Pair
from unetseg.dataset.pairing import LabelledSet
from unetseg.errors import InputError, arg
from unetseg.pictures import discovery, masks, reading
from unetseg.progress import Note, OnProgress
from unetseg.scoring.predictions import Labels, Predicted
from unetseg.scoring.truth import Truth
from unetseg.settings import Selection
from unetseg.text import few, show

_FEW = 0.01  # the share of an image's labelled pixels that made masks may leave without a class


class MadeMasks:
    """A folder of masks, of which each image of another folder has one by its stem.

    Args:
        folder: The folder of the masks.
        labelled: The images and their true masks.
        selection: The part of each file that is used.

    Raises:
        InputError: The mask of an image is missing, or there are two.
    """

    def __init__(self, folder: Path, labelled: LabelledSet, selection: Selection) -> None:
        self.folder, self._selection = folder, selection
        self.pairs = pairing.find_pairs(labelled)
        wanted = {stem for pair in self.pairs for stem in (pair.name, pair.file_stem)}
        named = [p for p in naming.list_images(folder) if naming.stem_of(p) in wanted]
        by_stem = naming.by_stem(named)
        self._paths = {
            pair.name: by_stem[stem]
            for pair in self.pairs
            for stem in (pair.name, pair.file_stem)
            if stem in by_stem
        }
        missing = [pair.name for pair in self.pairs if pair.name not in self._paths]
        if missing:
            text = f"no mask for {show(few(missing))}"
            raise InputError(folder, text, "masks are found by the images' stems")

    def warn_of_truth(self, on_progress: OnProgress) -> None:
        """Report a warning where all masks are the true masks themselves."""
        real = os.path.realpath
        if all(real(self._paths[pair.name]) == real(pair.mask) for pair in self.pairs):
            text = f"{show(self.folder)} holds the true masks themselves: their score says nothing"
            on_progress(Note(text, warning=True))

    def discover(self, ignored: tuple[int | str, ...]) -> ClassTable:
        """Return the classes found in true and made masks.

        Where the true masks hold colours, made masks with a palette are read as colours, too.
        """
        found = {
            str(p.labelled_as): masks.find_keys(p.read_mask(self._selection)) for p in self.pairs
        }
        in_colours = discovery.discover(found, ignored).encoding == "colours"
        for pair in self.pairs:
            raw = self._read(pair)
            ignored_here = masks.painted_ignored(raw)
            if in_colours and raw.palette is not None:
                raw = masks.RawMask(raw.palette[raw.values])
            keys = masks.find_keys(replace(raw, unlabelled=ignored_here))
            found[str(naming.with_page(self._paths[pair.name], pair.page))] = keys
        return discovery.discover(found, ignored)

    def _read(self, pair: Pair) -> masks.RawMask:
        return reading.read_mask(self._paths[pair.name], pair.taken(self._selection))

    def predicted(self, pair: Pair, truth: Truth, labels: Labels) -> Predicted:
        """Return the mask that was made for an image.

        Args:
            pair: The image.
            truth: It knows the classes.
            labels: The true mask (H, W).

        Raises:
            InputError: The mask cannot be read, has another size, or lacks classes.
        """
        path, table = self._paths[pair.name], truth.classes
        found = naming.decode_inside(self._read(pair), table, self._selection, path)
        if found.shape != labels.shape:
            text = f"{_size(found)} pixels, the truth has {_size(labels)}"
            raise InputError(path, text, "predict at the images' own size")
        labelled = labels != IGNORED
        blank = (found == IGNORED) & labelled
        missed = int(blank.sum())
        if missed > _FEW * labelled.sum() or (missed and len(table.classes) == 1):
            y, x = np.argwhere(blank)[0]
            text = f"{missed:,} ignored pixels where the truth has a class, first at "
            remedy = "give each of them a class, or ignore them in the true mask"
            if truth.card is None:
                remedy += "; if a model ignores them, as it did in training, name it: "
                remedy += arg("model")
            raise InputError(path, f"{text}(x {x}, y {y})", remedy)
        found[blank] = labels[blank] == 0  # wrong, as `metrics.confusion` counts it
        return Predicted(found, missed=missed)


def _size(mask: Labels) -> str:
    return f"{mask.shape[0]} x {mask.shape[1]}"
