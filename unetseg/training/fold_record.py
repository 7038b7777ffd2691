"""What ``folds.json`` holds: how a run with folds divides its images, and what of it is done."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import __version__, files
from unetseg.classes import ClassTable
from unetseg.errors import InputError, arg
from unetseg.prediction.run_folder import FOLDS_FORMAT, FOLDS_VERSION, RunFolder
from unetseg.scoring.metrics import Scores, scores
from unetseg.settings import PatchSettings, TrainSettings


@dataclass(frozen=True)
class FoldImage:
    """One labelled image of a run with folds.

    Attributes:
        name: Its stem.
        image: Its file.
        mask: The file of its true mask.
        sha256: Of its pixels.
        group: What ``--group`` found in its name, else the name.
        fold: The fold that holds it out, from 1.
    """

    name: str
    image: Path
    mask: Path
    sha256: str
    group: str
    fold: int


@dataclass(frozen=True)
class FoldDone:
    """A finished fold.

    Attributes:
        patches: Patches trained on, repetitions counted.
        matrices: For each image it holds out, (K, K) int64: pixels of true by predicted class.
    """

    patches: int
    matrices: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True)
class FoldRecord:
    """Which image is in which fold, how each fold is trained, and what is done.

    Attributes:
        folder: The labelled images.
        folds: How many.
        images: All images, in natural order.
        table: Classes of the masks.
        settings: How each fold is trained, as resolved; seed and budget are those of the whole.
        cutting: How patches are cut.
        given: Names that the command line gave: ``from`` and ``classes``, where they were.
        ignored: Mask values or colours left out.
        content: SHA-256 of the images and of what their masks hold.
        version: Of the unetseg that made the folds.
        seconds: Time spent so far.
        done: By number, from 1, the folds that are finished.
    """

    folder: str
    folds: int
    images: tuple[FoldImage, ...]
    table: ClassTable
    settings: TrainSettings
    cutting: PatchSettings
    given: Mapping[str, str]
    ignored: tuple[int | str, ...]
    content: str
    version: str = __version__
    seconds: float = 0.0
    done: Mapping[int, FoldDone] = field(default_factory=dict)

    def held_out(self, fold: int) -> list[FoldImage]:
        """Return the images that a fold holds out, in the order of its matrices."""
        return [one for one in self.images if one.fold == fold]

    def pooled(self) -> Scores:
        """Return the scores of all images; every fold must be done."""
        left = {fold: iter(done.matrices) for fold, done in self.done.items()}
        return self.scores_of(self.images, [next(left[one.fold]) for one in self.images])

    def scores_of(
        self, chosen: Sequence[FoldImage], matrices: Sequence[NDArray[np.int64]]
    ) -> Scores:
        """Return the scores of some images, over groups where ``--group`` was given.

        Args:
            chosen: The images.
            matrices: Of each, as in `FoldDone`.
        """
        groups = [one.group for one in chosen] if self.cutting.group else None
        names = [one.name for one in chosen]
        return scores(np.stack(matrices), names, self.table.names, groups)

    def write(self, run: RunFolder) -> None:
        """Write ``folds.json``: the old one stays, or this one is there whole.

        Raises:
            MachineError: The disk is full, or writing is not permitted.
        """
        files.write_bytes(run.folds, self._to_json().encode())

    @classmethod
    def read(cls, run: RunFolder) -> "FoldRecord":
        """Return what the ``folds.json`` of a run holds.

        Raises:
            InputError: No run with folds, or its ``folds.json`` is damaged.
            MachineError: No permission to read.
        """
        if not run.folds.exists():
            text = "holds no run with folds"
            line = f"unetseg train FOLDER --folds 5{run.option()}"
            raise InputError(run.path, text, f"train one: {line}")
        data = run.read_folds()
        try:
            return cls._from_dict(data)
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            text = f"not readable as the folds of a run ({error})"
            raise InputError(
                run.folds, text, f"train again with {arg('overwrite', True)}"
            ) from None

    def _to_json(self) -> str:
        finished = len(self.done) == self.folds
        data = {
            "format": FOLDS_FORMAT,
            "version": FOLDS_VERSION,
            "finished": finished,
            "unetseg": self.version,
            "folder": self.folder,
            "folds": self.folds,
            "classes": self.table.to_dict(),
            "settings": dataclasses.asdict(self.settings),
            "cutting": dataclasses.asdict(self.cutting),
            "given": dict(self.given),
            "ignored": list(self.ignored),
            "content": self.content,
            "seconds": round(self.seconds, 3),
            "scores": self.pooled().to_dict() if finished else None,
            "images": [
                {**dataclasses.asdict(one), "image": str(one.image), "mask": str(one.mask)}
                for one in self.images
            ],
            "done": [
                {
                    "fold": fold,
                    "patches": done.patches,
                    "matrices": [matrix.tolist() for matrix in done.matrices],
                }
                for fold, done in self.done.items()
            ],
        }
        return json.dumps(data, allow_nan=False) + "\n"

    @classmethod
    def _from_dict(cls, data: Mapping[str, Any]) -> "FoldRecord":
        """Read what `_to_json` wrote. Raises KeyError, TypeError, ValueError, InputError."""
        record = cls(
            folder=data["folder"],
            folds=data["folds"],
            images=tuple(
                FoldImage(**{**one, "image": Path(one["image"]), "mask": Path(one["mask"])})
                for one in data["images"]
            ),
            table=ClassTable.from_dict(data["classes"]),
            settings=TrainSettings(**data["settings"]),
            cutting=PatchSettings(**data["cutting"]),
            given=dict(data["given"]),
            ignored=tuple(data["ignored"]),
            content=data["content"],
            version=data["unetseg"],
            seconds=float(data["seconds"]),
            done={
                one["fold"]: FoldDone(
                    one["patches"], tuple(np.array(m, np.int64) for m in one["matrices"])
                )
                for one in data["done"]
            },
        )
        shape = (len(record.table.classes),) * 2
        for fold, done in record.done.items():
            whole = len(done.matrices) == len(record.held_out(fold))
            if not whole or any(m.shape != shape for m in done.matrices):
                raise ValueError(f"fold {fold} does not fit its images")
        if {one.fold for one in record.images} != set(range(1, record.folds + 1)):
            raise ValueError("images of other folds")
        return record
