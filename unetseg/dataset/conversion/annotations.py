"""The labels of a set as other programs keep them, before any mask is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import SegmentationClass
from unetseg.dataset import pairing
from unetseg.dataset.conversion.mask_files import refuse_pages
from unetseg.dataset.findings.images import refuse_misplaced
from unetseg.dataset.naming import Pair
from unetseg.dataset.pairing import LabelledSet
from unetseg.errors import InputError
from unetseg.pictures.snapping import Snapped


@dataclass(frozen=True)
class ConvertedMask(Snapped):
    """The mask of an image, as the copy of a set holds it.

    Attributes:
        mask, moved, blended: See `Snapped`.
        numbers: ``(H, W)`` the number of each pixel's object, 0 where none is; None where objects
            are not known.
        hidden: The class of each shape that other shapes cover; see `Pair.hidden`.
    """

    numbers: NDArray[np.int32] | None = None
    hidden: Sequence[str] = ()


ReadMask = Callable[[str, tuple[int, int]], ConvertedMask]
"""Takes the name of an image and its (height, width), and returns its mask of that size."""


@dataclass(frozen=True)
class Annotations:
    """The labelled images of a set, before any mask is read.

    Attributes:
        images: The file of each image that has labels, by name (`naming.stem_of`).
        classes: The classes, in the order of the indices that ``read`` returns.
        read: Reads the mask of an image.
        problem: The fault of files that belong to no image, in words.
        warnings: The labels and images that are in no mask, and doubts about masks, in words.
        parts: The part of each image of a divided set, as `naming.Pair` holds it.
        are_found: Whether the classes are the values and colours that the masks hold.
    """

    images: dict[str, Path]
    classes: tuple[SegmentationClass, ...]
    read: ReadMask
    problem: InputError | None = None
    warnings: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    are_found: bool = False

    @classmethod
    def of_pairs(
        cls,
        pairs: Sequence[Pair],
        classes: tuple[SegmentationClass, ...],
        read: ReadMask,
        problem: InputError | None = None,
        warnings: tuple[str, ...] = (),
    ) -> "Annotations":
        """Return the labels of pairs of an image and a mask."""
        images, parts = {p.name: p.image for p in pairs}, {p.name: p.part for p in pairs if p.part}
        return cls(images, classes, read, problem, warnings, parts)


def read_set(root: Path, classes_file: Path | None, without: str) -> LabelledSet:
    """Read a set as `pairing.read_set` does; refuse files that its copy cannot hold.

    Those are files of several pictures, and masks that lie elsewhere on the map than their images.
    A converted mask is a PNG, which has no place on a map.
    """
    labelled = pairing.read_set(root, classes_file, without=without, converts=True)
    for pair in labelled.pairs:
        refuse_pages(pair.image)
        refuse_misplaced(pair)
    return labelled
