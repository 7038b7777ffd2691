"""The images that are scored, each with a way to its true and its predicted mask.

Images that a model was trained on are left out.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import pairing, splits
from unetseg.dataset.naming import Pair
from unetseg.errors import InputError, arg
from unetseg.objects.separation import Objects, find_objects
from unetseg.pictures import transforms
from unetseg.prediction.model import AnyImage, Model
from unetseg.prediction.model_file import ModelCard
from unetseg.prediction.run_folder import NAME_A_FOLDER, open_training_store
from unetseg.progress import Note, OnProgress
from unetseg.ranks import world
from unetseg.scoring.made_masks import MadeMasks
from unetseg.scoring.metrics import ScoredImage
from unetseg.scoring.predictions import Labels, NumberedPredictions, Predicted
from unetseg.scoring.truth import Truth
from unetseg.settings import WHOLE, Selection
from unetseg.text import plural, show

Predicting = Callable[[Model, Callable[[int], AnyImage]], NumberedPredictions]
"""Makes the predictions of the images that a function returns by number."""


@dataclass(frozen=True)
class ObjectPair:
    """The objects of one image.

    Attributes:
        true: A label image (H, W) of the true objects of each class.
        predicted: The predicted objects.
        ignored: (H, W) pixels that do not count.
    """

    true: Mapping[int, NDArray[Any]]
    predicted: Objects
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class Subject:
    """Labelled images, and a way to a predicted mask of each: all that scoring needs.

    Attributes:
        title: The subject of the scores, for a heading: "wide on data/test".
        classes: The meaning of class indices: the model's classes, or those found.
        names: Names of the images, no two alike.
        groups: The group of each image, over which intervals are taken; its name where there are
            no groups.
        image: Reads the k-th image, (H, W, C).
        truth_and_hidden: Reads the k-th true mask, (H, W) class indices, 255 ignored, and the class
            of each true shape that other shapes cover.
        prediction: Takes k, its true mask, and whether the confidence is wanted.
        trained_on: Number of images left out because the model was trained on them.
        numbers: Takes k and its true mask. Reads the label image (H, W) of the true objects; None
            where there is none.
        expect: Takes the numbers of the images whose predictions will be asked for, in order.
        model: The file of the (first) model; None where masks are scored.
    """

    title: str
    classes: ClassTable
    names: Sequence[str]
    groups: Sequence[str]
    image: Callable[[int], NDArray[Any]]
    truth_and_hidden: Callable[[int], tuple[Labels, list[str]]]
    prediction: Callable[[int, Labels, bool], Predicted]
    trained_on: int = 0
    numbers: Callable[[int, Labels], NDArray[Any] | None] = lambda _, truth: None
    expect: Callable[[Sequence[int]], None] = lambda _: None
    model: Path | None = None

    def truth(self, k: int) -> Labels:
        """Read the k-th true mask, (H, W) class indices, 255 ignored."""
        return self.truth_and_hidden(k)[0]

    def scored_image(self, k: int) -> ScoredImage:
        """Read and predict the k-th image, with its confidence where it is known."""
        truth = self.truth(k)
        found = self.prediction(k, truth, True)
        return ScoredImage(self.names[k], self.image(k), truth, found.labels, found.confidence)

    def object_pair(self, k: int, classes: Mapping[int, int | None]) -> ObjectPair:
        """Read and predict the k-th image, and tell its objects apart.

        True objects are those of a label image ``objects/<stem>.tif`` or ``.png`` beside the masks.
        Without that file they are told apart in the true mask as in a predicted mask.

        Args:
            k: The place of the image.
            classes: The classes and borders that `object_classes` returns.

        Raises:
            InputError: An image or mask cannot be read, or a label image has another size.
        """
        truth = self.truth(k)
        found = self.prediction(k, truth, True)
        sure = found.confidence
        confidence = None if sure is None else np.rint(sure * 255).astype(np.uint8)
        true = _true_objects(self.numbers(k, truth), truth, classes)
        return ObjectPair(true, find_objects(found.labels, classes, confidence), truth == IGNORED)


def _true_objects(
    numbers: NDArray[Any] | None, truth: Labels, classes: Mapping[int, int | None]
) -> dict[int, NDArray[Any]]:
    """Return a label image for each class, from the one given or else from the true mask."""
    if numbers is None:
        found = find_objects(truth, classes)
        return {kind: found.of(kind) for kind in classes}
    return {
        kind: np.where(np.isin(truth, [kind] if border is None else [kind, border]), numbers, 0)
        for kind, border in classes.items()
    }


# --- the choice of images --------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """The images to score, and their groups; see `evaluate`."""

    group: str | None = None
    only: Collection[str] | None = None
    include_trained: bool = False

    def takes(self, name: str) -> bool:
        """Return whether an image is among those asked for."""
        return self.only is None or name in self.only

    def groups(self, names: Sequence[str]) -> list[str]:
        """Return the group of each image; its name where there are none."""
        return splits.groups_of(names, self.group)

    def choose(
        self, truth: Truth, cards: Sequence[ModelCard], on_progress: OnProgress
    ) -> tuple[list[Pair], int]:
        """Return the pairs to score, and how many are left out because a model knows them.

        Raises:
            InputError: No pair is left.
        """
        pairs = [pair for pair in pairing.find_pairs(truth.labelled) if self.takes(pair.name)]
        if not pairs:
            text = "holds none of the images asked for"
            raise InputError(truth.folder, text, "check their names")
        chosen = pairs if self.include_trained else untrained(pairs, cards, truth.selection)
        left_out = len(pairs) - len(chosen)
        if not chosen:
            text = f"all {plural(len(pairs), 'image')} were trained on"
            remedy = f"name other images, or give {arg('include_trained', True)}"
            raise InputError(truth.folder, text, remedy)
        if left_out:
            text = f"{left_out} of {len(pairs)} images were trained on, left out"
            on_progress(Note(f"{text}; {len(chosen)} scored", warning=True))
        return chosen, left_out


def untrained(
    pairs: Sequence[Pair], cards: Sequence[ModelCard], selection: Selection = WHOLE
) -> list[Pair]:
    """Return the pairs whose image, by its pixels, none of the models was trained on."""
    trained = _trained_on(cards)
    if not trained:
        return list(pairs)
    mine = [
        transforms.pixel_hash(p.read_image(selection)) not in trained
        for p in world().own_items(pairs)
    ]
    return [p for p, kept in zip(pairs, world().collect(mine), strict=True) if kept]


def _trained_on(cards: Sequence[ModelCard]) -> frozenset[str]:
    return frozenset[str]().union(*(card.trained_on for card in cards))


# --- three kinds of subjects -----------------------------------------------------------------


def folder_by_model(
    truth: Truth, model: Model, choice: Choice, predicting: Predicting, on_progress: OnProgress
) -> Subject:
    """Return the images of a folder, predicted by a model that was not trained on them."""
    chosen, left_out = choice.choose(truth, model.cards, on_progress)
    groups = choice.groups([pair.file_stem for pair in chosen])
    count = plural(len(chosen), "image")
    on_progress(Note(f"scoring {count} of {show(truth.folder)} with {model}"))
    truth.warn_of_area(chosen, on_progress)
    predictions = predicting(model, lambda k: _seen(chosen[k], model))

    def truth_and_hidden(k: int) -> tuple[Labels, list[str]]:
        found = truth.labels_and_hidden(chosen[k])
        truth.refuse_misfit(chosen[k])
        return found

    return Subject(
        title=f"{model.card.name} on {truth.folder}",
        classes=truth.classes,
        names=[pair.name for pair in chosen],
        groups=groups,
        image=lambda k: chosen[k].read_image(truth.selection),
        truth_and_hidden=truth_and_hidden,
        prediction=predictions,
        trained_on=left_out,
        numbers=lambda k, labels: truth.numbers(chosen[k], labels),
        expect=predictions.expect,
        model=model.paths[0],
    )


def _seen(pair: Pair, model: Model) -> Any:
    """Return the image of a pair as the model's methods take it: a file, or a page of one."""
    return pair.image if pair.page is None else model.read(pair.image, pair.page)


def folder_by_masks(
    truth: Truth,
    made: MadeMasks,
    cards: Sequence[ModelCard],
    choice: Choice,
    on_progress: OnProgress,
) -> Subject:
    """Return the images of a folder, with masks made by any program, or by models of ``cards``."""
    chosen, left_out = choice.choose(truth, cards, on_progress)
    groups = choice.groups([pair.file_stem for pair in chosen])
    places = f"{show(made.folder)} against {show(truth.folder)}"
    on_progress(Note(f"scoring {plural(len(chosen), 'mask')} of {places}"))

    def image(k: int) -> NDArray[Any]:
        truth.refuse_misfit(chosen[k])
        return chosen[k].read_image(truth.selection)

    return Subject(
        title=f"{made.folder} on {truth.folder}",
        classes=truth.classes,
        names=[pair.name for pair in chosen],
        groups=groups,
        image=image,
        truth_and_hidden=lambda k: truth.labels_and_hidden(chosen[k]),
        prediction=lambda k, labels, _: made.predicted(chosen[k], truth, labels),
        trained_on=left_out,
        numbers=lambda k, labels: truth.numbers(chosen[k], labels),
    )


def held_out_by_model(
    model: Model, choice: Choice, predicting: Predicting, on_progress: OnProgress
) -> Subject:
    """Return the images that the model's own store held out, predicted by the model."""
    opened = open_training_store(model.card, model.paths[0])
    path = opened.path
    info, card = opened.info, model.card
    if opened.content_hash != card.store_hash:  # with equal hashes, only names and colours differ
        alike = info.channels == card.channels and info.dtype == card.dtype
        if not alike or info.scale != card.scale or info.classes.names != card.classes.names:
            text = "has other classes, channels or scale than when the model was trained"
            raise InputError(path, text, NAME_A_FOLDER)
        text = f"{show(path)} is another store than the one the model was trained on"
        on_progress(Note(text, warning=True))
    trained = _trained_on(model.cards)
    kept = [
        k
        for k, source in enumerate(info.held_out)
        if (choice.include_trained or source.sha256 not in trained)
        and choice.takes(Path(source.name).stem)
    ]
    if not kept:
        text = "holds out no image that the model has not seen"
        raise InputError(path, text, NAME_A_FOLDER)
    total = len(info.sources)
    on_progress(
        Note(f"{total - len(kept)} of {total} images were trained on, left out; {len(kept)} scored")
    )
    stems = [Path(info.held_out[k].name).stem for k in kept]
    groups = choice.groups(stems) if choice.group else [info.held_out[k].group for k in kept]
    on_progress(Note(f"scoring {plural(len(kept), 'held-out image')} of {show(path)} with {model}"))
    predictions = predicting(model, lambda number: opened.held_out(number)[0])
    return Subject(
        title=f"{card.name} on the images its store held out",
        classes=card.classes,
        names=stems,
        groups=groups,
        image=lambda k: np.asarray(opened.held_out(kept[k])[0]),
        truth_and_hidden=lambda k: (
            model.ignore_outside(np.asarray(opened.held_out(kept[k])[1])),
            [],
        ),
        prediction=lambda k, truth, sure: predictions(kept[k], truth, sure),
        trained_on=total - len(kept),
        expect=lambda numbers: predictions.expect([kept[k] for k in numbers]),
        model=model.paths[0],
    )
