"""The facts from which the findings about a set are drawn."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable
from unetseg.dataset.findings.finding import Commands
from unetseg.dataset.survey import Survey
from unetseg.pictures.surroundings import IgnoredArea
from unetseg.settings import PatchSettings


@dataclass(frozen=True, eq=False)
class Facts:
    """The facts from which the findings about a set are drawn.

    Attributes:
        root: The folder.
        settings: The settings by which the folder is to be cut.
        commands: The command lines to suggest.
        surveys: The labelled images that can be read.
        table: The classes; None where they cannot be told.
        is_given: Whether a ``classes.toml`` lists the classes.
        halves: The pixels of each class, as `Inspection.halves` holds them.
        thickness: ``(n, C)`` as `Measures` holds it; empty where ``halves`` is.
        crossings: ``(n, C, 2)`` as `Measures` holds them; empty where ``halves`` is.
        ignored_area: The area that every mask ignores, as in `Inspection`.
    """

    root: Path
    settings: PatchSettings
    commands: Commands
    surveys: tuple[Survey, ...]
    table: ClassTable | None
    is_given: bool
    halves: NDArray[np.int64]
    thickness: NDArray[np.float64]
    crossings: NDArray[np.int64]
    ignored_area: IgnoredArea | None
