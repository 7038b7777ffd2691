"""A trained model that comes with the person: it predicts images before anybody painted.

A copy of it lies in the folder of the project's state, because its run may be trained again
meanwhile. Its predictions lie beside the copy.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg import files
from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset.naming import Pair, stem_of
from unetseg.errors import InputError, arg
from unetseg.pictures import masks
from unetseg.pictures.reading import read_mask
from unetseg.prediction.model import as_trained
from unetseg.prediction.model_file import read_card
from unetseg.prediction.run_folder import resolve_model
from unetseg.text import plural, show


class StartingModel:
    """A model, or the models of a run with folds, to begin a project with.

    Args:
        name: A run, its folder or a model file.

    Raises:
        InputError: There is none, or it cannot be read.
        MachineError: No permission to read.

    Attributes:
        card: The card of the (first) model.
        trained_on: The SHA-256 of the pixels of each image that a model was trained on.
        digest: Twelve letters and digits that tell it from another model.
        copies: The files of the models in the project's state, after `enter`.
        folder: The folder of its predictions, after `enter`.
    """

    def __init__(self, name: str | os.PathLike[str]) -> None:
        self._paths = resolve_model(name)
        cards = [read_card(path) for path in self._paths]
        self.card = cards[0]
        self.trained_on = frozenset[str]().union(*(card.trained_on for card in cards))
        whole = "".join(card.sha256 for card in cards)
        self.digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
        self.copies: tuple[Path, ...] = ()
        self.folder = Path()
        self._indices = np.full(256, IGNORED, np.uint8)  # its classes as those of the project

    def __str__(self) -> str:
        images = plural(self.card.images_trained_on, "image")
        return f"{show(self._paths[0])} ({self.card.name}, trained on {images})"

    def check(self, pairs: Sequence[Pair], table: ClassTable) -> None:
        """Refuse images or classes that the model was not trained for.

        A model may know fewer classes than the project; classes are matched by name.

        Raises:
            InputError: A class of the model is missing, or an image does not fit.
        """
        names, remedy = self.card.classes.names, f"choose another {arg('start_from')}"
        if not set(names) <= set(table.names):
            text = f"its classes are {self.card.classes.line()}, those of the folder {table.line()}"
            raise InputError(self._paths[0], text, f"{remedy}, or give the classes its names")
        self._indices[: len(names)] = [table.names.index(name) for name in names]
        first = pairs[0]
        try:
            as_trained(first.read_image(self.card.selection), self.card, first.image)
        except InputError as error:
            text = f"does not fit {show(self._paths[0])}: {error.problem}"
            raise InputError(first.image, text, f"{remedy}, or leave it out") from None

    def enter(self, home: Path) -> None:
        """Copy the model into the folder of a project's state, in the place of an earlier one.

        Raises:
            InputError: The model was removed meanwhile.
            MachineError: The disk is full, or writing is not permitted.
        """
        self.folder = home / "model" / self.digest
        for other in self.folder.parent.glob("*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        files.make_folder(self.folder)
        self.copies = tuple(self.folder / f"{k}.safetensors" for k in range(len(self._paths)))
        for path, copy in zip(self._paths, self.copies, strict=True):
            if not copy.exists():
                with files.open_regular(path) as file:
                    files.write_bytes(copy, file.read())

    def prediction(self, image: Path) -> NDArray[np.uint8] | None:
        """Return the class indices (H, W) that it predicts for an image; None before it has.

        Pixels that are ignored as in its training are 255, and so are those of a class that the
        project has left out.

        Raises:
            InputError: The prediction cannot be read.
        """
        path = self.folder / f"{stem_of(image)}.png"
        if not path.exists():
            return None
        return self._indices[masks.decode(read_mask(path), self.card.classes, path)]

    def follow(self, was: Sequence[int | None]) -> None:
        """Take other classes of the project; see `Project.change_classes`."""
        new = {old: index for index, old in enumerate(was) if old is not None}
        self._indices = np.array([new.get(int(k), IGNORED) for k in self._indices], np.uint8)
