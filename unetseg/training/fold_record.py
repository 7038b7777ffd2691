"""The content of ``folds.json``: the images of each fold, and the folds that are done."""

import json
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainSerializer, PlainValidator, StrictInt
from pydantic.dataclasses import dataclass

from unetseg import __version__, files
from unetseg.dataset.naming import Pair
from unetseg.dataset.splits import Split
from unetseg.errors import InputError, arg, either
from unetseg.prediction.run_folder import FOLDS_FORMAT, FOLDS_VERSION, RunFolder
from unetseg.records import Classes, Count, IntArray, Number, Text, read_record, to_plain
from unetseg.scoring.metrics import Scores, scores
from unetseg.settings import PatchSettings, TrainSettings


def _to_path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError(f"{value!r:.40} is no path")
    return Path(value)


_Path = Annotated[Path, PlainValidator(_to_path), PlainSerializer(str)]
_FoldNumber = Annotated[StrictInt, Field(ge=1)]


@dataclass(frozen=True)
class FoldImage:
    """One labelled image of a run with folds.

    Attributes:
        name: Its stem.
        image: Its file.
        mask: The file of its true mask.
        sha256: SHA-256 of its pixels.
        group: The text that ``--group`` found in its name, else the name.
        fold: The fold that holds it out, from 1.
        page: Its number in its file, where each of several pictures is an image.
    """

    name: Text
    image: _Path
    mask: _Path
    sha256: Text
    group: Text
    fold: _FoldNumber
    page: Count | None = None

    @property
    def pair(self) -> Pair:
        """The image and its true mask, as they are read."""
        return Pair(self.name, self.image, self.mask, page=self.page)


@dataclass(frozen=True)
class FoldDone:
    """A finished fold.

    Attributes:
        fold: Its number, from 1.
        patches: Patches trained on, repetitions counted.
        matrices: Pixels of true by predicted class, (K, K) int64, of each image it holds out.
    """

    fold: _FoldNumber
    patches: Count
    matrices: tuple[IntArray, ...]


@dataclass(frozen=True)
class FoldRecord:
    """Which image is in which fold, how each fold is trained, and which folds are done.

    Attributes:
        folder: The folder of the labelled images.
        folds: How many folds there are.
        images: All images, in natural order.
        classes: Classes of the masks.
        settings: How each fold is trained, as resolved; seed and budget are those of the whole.
        cutting: How patches are cut.
        given: Names that the command line gave: ``from`` and ``classes``, where they were.
        ignored: Mask values or colours left out.
        content: SHA-256 of the images and of the content of their masks.
        unetseg: Version of the unetseg that made the folds.
        seconds: Time spent so far.
        done: The folds that are finished.

    Raises:
        ValueError: The finished folds do not fit the images, or a fold has no image.
    """

    folder: Text
    folds: _FoldNumber
    images: tuple[FoldImage, ...]
    classes: Classes
    settings: TrainSettings
    cutting: PatchSettings
    given: dict[Text, Text]
    ignored: tuple[StrictInt | Text, ...]
    content: Text
    unetseg: Text = __version__
    seconds: Number = 0.0
    done: tuple[FoldDone, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        shape = (len(self.classes.classes),) * 2
        for done in self.done:
            whole = len(done.matrices) == len(self.held_out(done.fold))
            if not whole or any(matrix.shape != shape for matrix in done.matrices):
                raise ValueError(f"fold {done.fold} does not fit its images")
        if {one.fold for one in self.images} != set(range(1, self.folds + 1)):
            raise ValueError("images of other folds")

    @property
    def finished_folds(self) -> set[int]:
        """The numbers of the folds that are finished."""
        return {done.fold for done in self.done}

    def held_out(self, fold: int) -> list[FoldImage]:
        """Return the images that a fold holds out, in the order of its matrices."""
        return [one for one in self.images if one.fold == fold]

    def splits(self, fold: int) -> list[Split]:
        """Return the side of each image for the network of a fold."""
        return ["val" if one.fold == fold else "train" for one in self.images]

    def pooled(self) -> Scores:
        """Return the scores of all images; every fold must be done."""
        left = {done.fold: iter(done.matrices) for done in self.done}
        return self.scores_of(self.images, [next(left[one.fold]) for one in self.images])

    def scores_of(
        self, chosen: Sequence[FoldImage], matrices: Sequence[NDArray[np.int64]]
    ) -> Scores:
        """Return the scores of some images, over groups where ``--group`` was given.

        Args:
            chosen: The images.
            matrices: The matrices of each image, as in `FoldDone`.
        """
        groups = [one.group for one in chosen] if self.cutting.group else None
        names = [one.name for one in chosen]
        return scores(np.stack(matrices), names, self.classes.names, groups)

    def write(self, run: RunFolder) -> None:
        """Write ``folds.json``: the old one stays, or this one is there whole.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
        """
        files.write_bytes(run.folds, self._to_json().encode())

    @classmethod
    def read(cls, run: RunFolder) -> "FoldRecord":
        """Return the content of the ``folds.json`` of a run.

        Raises:
            InputError: No run with folds, or its ``folds.json`` is damaged.
            MachineError: No permission to read.
        """
        if not run.folds.exists():
            text = "holds no run with folds"
            line = either(
                f"unetseg train FOLDER --folds 5{run.option()}",
                f"unetseg.cross_validate(FOLDER, run={run.given!r})",
            )
            raise InputError(run.path, text, f"train one: {line}")
        data = run.read_folds()
        try:
            return read_record(cls, data, "folds")
        except (InputError, TypeError) as error:
            problem = error.problem if isinstance(error, InputError) else error
            text = f"not readable as the folds of a run ({problem})"
            raise InputError(
                run.folds, text, f"train again with {arg('overwrite', True)}"
            ) from None

    def _to_json(self) -> str:
        finished = len(self.done) == self.folds
        data = {
            "format": FOLDS_FORMAT,
            "version": FOLDS_VERSION,
            "finished": finished,
            **to_plain(self),
            "seconds": round(self.seconds, 3),
            "scores": self.pooled().to_dict() if finished else None,
        }
        return json.dumps(data, allow_nan=False) + "\n"
