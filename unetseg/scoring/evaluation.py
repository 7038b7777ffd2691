"""Scoring masks against the truth: a model's own, or masks made by any program."""

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import pairing, splits
from unetseg.dataset.pairing import Pair
from unetseg.dataset.store import Store
from unetseg.errors import InputError, arg
from unetseg.pictures import masks, reading, transforms
from unetseg.prediction import model_file
from unetseg.prediction.model import Model
from unetseg.prediction.model_file import ModelCard
from unetseg.prediction.run_folder import open_training_store, resolve_model
from unetseg.prediction.segmenter import Segmenter
from unetseg.progress import Note, OnProgress, Progress, ignore
from unetseg.ranks import join, world
from unetseg.scoring.boundaries import Boundaries, boundary_scores, pool_boundaries
from unetseg.scoring.metrics import ScoredImage, Scores, confusion, scores
from unetseg.settings import PredictSettings
from unetseg.signals import catching
from unetseg.text import show

DEFAULT_FOLDER = Path("data/test")


@dataclass(frozen=True)
class Evaluation:
    """What was scored, and how well.

    Attributes:
        scores: Pooled over all images.
        subject: What was scored, for a heading.
        trained_on: Images left out because the model was trained on them.
        total: Images found, those left out included.
        classes: What class indices mean: the model's classes, or those found.
        case: Reads and predicts the k-th scored image again, for a look at it.
    """

    scores: Scores
    subject: str
    trained_on: int
    total: int
    classes: ClassTable
    case: Callable[[int], ScoredImage]


@join()
def evaluate(
    source: str | os.PathLike[str] | None = None,
    *,
    models: Sequence[str] | None = None,
    predictions: str | os.PathLike[str] | None = None,
    settings: PredictSettings | None = None,
    include_trained: bool = False,
    classes: str | os.PathLike[str] | None = None,
    ignored: tuple[int | str, ...] = (),
    group: str | None = None,
    only: Collection[str] | None = None,
    on_progress: OnProgress = ignore,
) -> Evaluation:
    """Score a model, or masks made by any program, on labelled images.

    Processes started by ``torchrun`` share the images; all are given the same scores.

    Args:
        source: Folder of labelled images. None takes ``data/test`` where there is one, else the
            images that the model's own store held out.
        models: Runs, run folders or model files; several are averaged. None is the default run;
            with ``predictions``, no model.
        predictions: A folder of masks named like the images; scored instead of a model. They are
            encoded like the true masks, or as those that the (first) of ``models`` writes.
        settings: How images are covered; of it ``page`` holds for ``predictions``, too.
        include_trained: Score images that the model was trained on, too.
        classes: A ``classes.toml`` for the true masks instead of the folder's own.
        ignored: Values or colours in the true masks that are not scored, beside those that the
            classes say.
        group: A pattern as `splits.group_of` searches it in the stems: intervals are taken over
            groups of images. None takes those that a store recorded, else each image for itself.
        only: Stems of the images to score, others are left out; None takes all.
        on_progress: Receives `Note` and `Progress`.

    Raises:
        InputError: A missing or unreadable file, masks that do not fit, nothing left to score.
    """
    on_progress = world().only_on_rank_zero(on_progress)
    if source is None and DEFAULT_FOLDER.is_dir():
        source = DEFAULT_FOLDER
    choice = _Choice(group, only, include_trained)
    if predictions is not None:
        if source is None:
            raise InputError("FOLDER", "is missing", "name the folder with the true masks")
        page = settings.page if settings else None
        own, file = pairing.load_classes(source, classes), classes or Path(source, "classes.toml")
        card = model_file.read_card(resolve_model(models[0])[0]) if models else None
        made = _find_masks(Path(source), Path(predictions), page)
        if card:
            truth, order = _encoding(own, card.classes, ignored, file)
            return _score_masks(made, truth, order, card.classes, choice, on_progress)
        truth = own.with_ignored(ignored) if own else _discover(made, ignored)
        return _score_masks(made, truth, _SAME, truth, choice, on_progress)
    model = Model(("default",) if models is None else models, settings)
    if source is None:
        if classes is not None or ignored:
            what = arg("ignored") if classes is None else arg("classes")
            raise InputError(what, "is for a folder of true masks", "name one")
        return _score_held_out(model, choice, on_progress)
    own, file = pairing.load_classes(source, classes), classes or Path(source, "classes.toml")
    encoding = _encoding(own, model.card.classes, ignored, file)
    return _score_folder(model, Path(source), encoding, choice, on_progress)


@join()
def evaluate_held_out(
    models: Sequence[str],
    settings: PredictSettings | None = None,
    on_progress: OnProgress = ignore,
) -> Evaluation:
    """Score a model on the images that its own store held out; see `evaluate`."""
    on_progress = world().only_on_rank_zero(on_progress)
    return _score_held_out(Model(models, settings), _Choice(None, None), on_progress)


def score_boundaries(
    found: Evaluation, tolerance: float, on_progress: OnProgress = ignore
) -> Boundaries:
    """Compare the borders of all images of an evaluation, which are read and predicted again.

    Args:
        found: The evaluation.
        tolerance: In pixels, 0 or more.
        on_progress: Receives `Progress`.
    """
    names, each = found.scores.names, []
    for k, name in enumerate(names):
        one = found.case(k)
        count = len(found.scores.classes)
        each.append(boundary_scores(one.truth, one.prediction, count, tolerance))
        on_progress(Progress("comparing borders", k + 1, len(names), "images", show(name)))
    return pool_boundaries(each, found.scores.classes)


@dataclass(frozen=True)
class _Choice:
    """Which images are scored, and what they belong to; see `evaluate`."""

    group: str | None
    only: Collection[str] | None
    include_trained: bool = False

    def takes(self, name: str) -> bool:
        """Return whether an image is among those asked for."""
        return self.only is None or name in self.only

    def groups(self, names: Sequence[str]) -> list[str]:
        """Return the group of each image; its name where there are none."""
        return splits.groups_of(names, self.group)


def untrained(
    pairs: Sequence[Pair], cards: Sequence[ModelCard], page: int | None = None
) -> list[Pair]:
    """Return the pairs whose image, by its pixels, none of the models was trained on."""
    trained = _trained_on(cards)
    if not trained:
        return list(pairs)
    mine = [
        transforms.pixel_hash(reading.read_image(p.image, page)) not in trained
        for p in world().own_items(pairs)
    ]
    return [p for p, kept in zip(pairs, world().collect(mine), strict=True) if kept]


def _trained_on(cards: Sequence[ModelCard]) -> frozenset[str]:
    return frozenset[str]().union(*(card.trained_on for card in cards))


def _none_asked_for(root: Path) -> InputError:
    return InputError(root, "holds none of the images asked for", "check their names")


def _score_folder(
    model: Model,
    root: Path,
    encoding: tuple[ClassTable, NDArray[np.uint8]],
    choice: _Choice,
    on_progress: OnProgress,
) -> Evaluation:
    page = model.settings.page
    pairs = [pair for pair in pairing.find_pairs(root) if choice.takes(pair.name)]
    if not pairs:
        raise _none_asked_for(root)
    chosen = pairs if choice.include_trained else untrained(pairs, model.cards, page)
    left_out = len(pairs) - len(chosen)
    if not chosen:
        text = f"all {len(pairs)} images were trained on"
        raise InputError(root, text, f"name other images, or give {arg('include_trained', True)}")
    if left_out:
        on_progress(
            Note(
                f"{left_out} of {len(pairs)} images were trained on, left out; "
                f"{len(chosen)} scored",
                warning=True,
            )
        )
    groups = choice.groups([pair.name for pair in chosen])
    on_progress(Note(f"scoring {len(chosen)} images of {show(root)} with {model}"))

    def outcomes() -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
        for pair in world().own_items(chosen):
            truth = _read_truth(pair, *encoding, page)
            yield pair.name, truth, model.labels(model.read(pair.image), _shape(truth))

    def case(k: int) -> ScoredImage:
        pair = chosen[k]
        truth = _read_truth(pair, *encoding, page)
        made = model.labels_and_confidence(model.read(pair.image), _shape(truth))
        return ScoredImage(pair.name, reading.read_image(pair.image, page), truth, *made)

    table = model.card.classes
    found = _pool(outcomes(), groups, table, on_progress)
    subject = f"{model.card.name} on {root}"
    return Evaluation(found, subject, left_out, len(pairs), table, case)


def _score_held_out(model: Model, choice: _Choice, on_progress: OnProgress) -> Evaluation:
    """Score the images that the model's own store held out."""
    opened = open_training_store(model.card, model.paths[0])
    path = opened.path
    info, card = opened.info, model.card
    if opened.content_hash != card.store_hash:  # else only names and colours can have changed
        alike = info.channels == card.channels and info.dtype == card.dtype
        if not alike or info.scale != card.scale or info.classes.names != card.classes.names:
            text = "has other classes, channels or scale than when the model was trained"
            remedy = "name a folder of labelled images: unetseg evaluate FOLDER"
            raise InputError(path, text, remedy)
        text = f"{show(path)} is another store than the one the model was trained on"
        on_progress(Note(text, warning=True))
    trained = _trained_on(model.cards)
    kept = [
        k
        for k, source in enumerate(info.held_out)
        if source.sha256 not in trained and choice.takes(Path(source.name).stem)
    ]
    if not kept:
        text = "holds out no image that the model has not seen"
        raise InputError(path, text, "name a folder of labelled images: unetseg evaluate FOLDER")
    total = len(info.sources)
    on_progress(
        Note(f"{total - len(kept)} of {total} images were trained on, left out; {len(kept)} scored")
    )
    stems = [Path(info.held_out[k].name).stem for k in kept]
    groups = choice.groups(stems) if choice.group else None
    on_progress(Note(f"scoring {len(kept)} held-out images of {show(path)} with {model}"))
    found, _ = score_held_out(
        opened,
        model.segmenter,
        kept,
        on_progress,
        classes=card.classes.names,
        groups=groups,
        mend=model.mend,
    )

    def case(k: int) -> ScoredImage:
        image, truth, _ = opened.held_out(kept[k])
        made = model.labels_and_confidence(_scaled(image, info.scale), _shape(truth))
        return ScoredImage(stems[k], np.asarray(image), np.asarray(truth), *made)

    subject = f"{model.card.name} on the images its store held out"
    return Evaluation(found, subject, total - len(kept), total, card.classes, case)


def _scaled(image: NDArray[Any], scale: float) -> NDArray[Any]:
    """Return an image as a network that was trained at ``scale`` takes it."""
    if scale == 1:
        return image
    return transforms.rescale_image(
        image, transforms.scaled_size(image.shape[0], image.shape[1], scale)
    )


def score_held_out(
    opened: Store,
    segmenter: Segmenter,
    which: Sequence[int] | None = None,
    on_progress: OnProgress = ignore,
    check: Callable[[], None] = lambda: None,
    classes: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    observe: Callable[[int, Tensor, Tensor], None] = lambda number, band, truth: None,
    mend: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda labels: labels,
) -> tuple[Scores, float]:
    """Score a network on the whole held-out images of a store.

    Args:
        opened: The store.
        segmenter: The network, and how it covers an image.
        which: Numbers of held-out images; None takes all.
        on_progress: Receives `Progress`.
        check: Called before each image; may raise to stop.
        classes: Names of the classes; None takes the store's.
        groups: Of the images, for the intervals; None takes those that the store recorded.
        observe: Receives every band from top to bottom: the number of its image, probabilities
            (K, rows, W), and the truth (rows, W) uint8 on the same device.
        mend: Given the labels (H, W) of an image, returns those that are scored.

    Several processes share the images; each is given the same scores, which are those of one.

    Returns:
        The scores, and the mean negative log-likelihood of the true classes.
    """
    ranks, found, count = world(), [], len(opened.info.classes.classes)
    which = range(opened.held_out_count) if which is None else which
    mine = ranks.own_items(which)
    for k in mine:
        check()
        image, mask, source = opened.held_out(k)
        row, pixels = 0, 0
        labels, logs = list[Tensor](), list[float]()
        for band in segmenter.bands(_scaled(image, opened.info.scale), _shape(mask)):
            truth = torch.from_numpy(np.array(mask[row : row + band.shape[1]])).to(band.device)
            valid = truth != IGNORED
            chosen = band.gather(0, truth.long().where(valid, 0)[None])[0][valid]
            logs.append(float(chosen.clamp_min(1e-7).log().sum()))
            pixels += int(valid.sum())
            row += band.shape[1]
            labels.append(band.argmax(0).to(torch.uint8).cpu())
            observe(k, band, truth)
        matrix = confusion(mask, mend(torch.cat(labels).numpy()), count).tolist()
        found.append((matrix, Path(source.name).stem, source.group, logs, pixels))
        on_progress(Progress("scoring", len(found), len(mine), "images", show(source.name)))
    matrices, names, recorded, all_logs, counts = zip(*ranks.collect(found), strict=True)
    classes = opened.info.classes.names if classes is None else classes
    groups = recorded if groups is None else groups
    log_sum = sum(itertools.chain.from_iterable(all_logs))
    return scores(np.array(matrices), names, classes, groups), -log_sum / max(sum(counts), 1)


@dataclass(frozen=True)
class _Made:
    """Masks to score: each pair of a folder with the mask made for it."""

    root: Path
    predictions: Path
    pairs: tuple[tuple[Pair, Path], ...]
    page: int | None

    def read(self, path: Path) -> masks.RawMask:
        """Read one of the masks, true or made."""
        return reading.read_mask(path, self.page)


def _find_masks(root: Path, predictions: Path, page: int | None) -> _Made:
    """Find the made mask of every image. Raises `InputError` where one is missing."""
    pairs = pairing.find_pairs(root)
    made = {pairing.stem_of(p): p for p in pairing.list_images(predictions)}
    missing = [p.name for p in pairs if p.name not in made]
    if missing:
        text = f"no mask for {show(', '.join(missing[:3]))}" + (" ..." if missing[3:] else "")
        raise InputError(predictions, text, "masks are found by the images' stems")
    return _Made(root, predictions, tuple((p, made[p.name]) for p in pairs), page)


def _score_masks(
    made: _Made,
    truths: ClassTable,
    order: NDArray[np.uint8],
    table: ClassTable,
    choice: _Choice,
    on_progress: OnProgress,
) -> Evaluation:
    """Score masks made by any program.

    Args:
        made: The masks.
        truths: How the true ones are read.
        order: (256,) index in ``table`` of each class of ``truths``.
        table: How the made ones are read.
        choice: Which of them.
        on_progress: Receives `Note` and `Progress`.
    """
    chosen = [(pair, path) for pair, path in made.pairs if choice.takes(pair.name)]
    if not chosen:
        raise _none_asked_for(made.root)
    count, places = len(chosen), f"{show(made.predictions)} against {show(made.root)}"
    groups = choice.groups([pair.name for pair, _ in chosen])
    on_progress(Note(f"scoring {count} masks of {places}"))

    def outcome(k: int) -> tuple[str, NDArray[np.uint8], NDArray[np.uint8]]:
        pair, path = chosen[k]
        truth = order[masks.decode(made.read(pair.mask), truths, pair.mask)]
        predicted = masks.decode(made.read(path), table, path)
        if predicted.shape != truth.shape:
            text = f"{_size(predicted)} pixels, the truth has {_size(truth)}"
            raise InputError(path, text, "predict at the images' own size")
        blank = (predicted == IGNORED) & (truth != IGNORED)
        if blank.any():
            y, x = np.argwhere(blank)[0]
            text = f"{blank.sum():,} ignored pixels where the truth has a class, first at "
            raise InputError(path, f"{text}(x {x}, y {y})", "give each of them a class")
        return pair.name, truth, predicted

    def case(k: int) -> ScoredImage:
        name, truth, predicted = outcome(k)
        pair, _ = chosen[k]
        _check_size(pair, truth, made.page)
        return ScoredImage(name, reading.read_image(pair.image, made.page), truth, predicted)

    found = _pool(map(outcome, world().own_items(range(count))), groups, table, on_progress)
    return Evaluation(found, f"{made.predictions} on {made.root}", 0, count, table, case)


def _discover(made: _Made, ignored: tuple[int | str, ...]) -> ClassTable:
    """Return the classes found in true and predicted masks.

    Where the true ones hold colours, palettes of the predicted ones are read as their colours.
    """
    found = {str(p.mask): masks.find_keys(made.read(p.mask)) for p, _ in made.pairs}
    in_colours = masks.discover(found, ignored).encoding == "colours"
    for _, path in made.pairs:
        raw = made.read(path)
        if in_colours and raw.palette is not None:
            raw = masks.RawMask(raw.palette[raw.values])
        found[str(path)] = masks.find_keys(raw)
    return masks.discover(found, ignored)


def _pool(
    outcomes: Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]],
    groups: Sequence[str],
    table: ClassTable,
    on_progress: OnProgress,
) -> Scores:
    """Return the scores of all images, of which ``outcomes`` are this process's share."""
    found, total = [], len(world().own_items(groups))
    with catching() as caught:
        for name, truth, predicted in outcomes:
            caught.check("evaluate", "run the same line again")
            found.append((confusion(truth, predicted, len(table.classes)).tolist(), name))
            on_progress(Progress("scoring", len(found), total, "images", show(name)))
        matrices, names = zip(*world().collect(found), strict=True)
    if not np.any(matrices):
        raise InputError("evaluate", "every pixel of every mask is ignored", "look at the masks")
    return scores(np.array(matrices), names, table.names, groups)


_SAME = np.arange(256, dtype=np.uint8)


def _encoding(
    own: ClassTable | None, classes: ClassTable, ignored: tuple[int | str, ...], file: object
) -> tuple[ClassTable, NDArray[np.uint8]]:
    """Return how the folder's masks are read, and the model's class index for each of theirs.

    Raises:
        InputError: The folder's ``own`` classes, read from ``file``, have other names.
    """
    if own and set(own.names) != set(classes.names):
        text = f"names {', '.join(own.names)}; the model knows {', '.join(classes.names)}"
        raise InputError(file, text, "make the names agree")
    table, order = (own or classes).with_ignored(ignored), _SAME.copy()
    for index, name in enumerate(table.names):
        order[index] = classes.names.index(name)
    return table, order


def _read_truth(
    pair: Pair, table: ClassTable, order: NDArray[np.uint8], page: int | None
) -> NDArray[np.uint8]:
    raw = reading.read_mask(pair.mask, page)
    truth: NDArray[np.uint8] = order[masks.decode(raw, table, pair.mask)]
    _check_size(pair, truth, page)
    return truth


def _check_size(pair: Pair, truth: NDArray[np.uint8], page: int | None) -> None:
    """Raise `InputError` where image and mask differ in size."""
    info = reading.read_info(pair.image, page)
    masks.check_same_size(pair.mask, truth.shape, (info.height, info.width))


def _shape(mask: NDArray[np.uint8]) -> tuple[int, int]:
    return mask.shape[0], mask.shape[1]


def _size(mask: NDArray[np.uint8]) -> str:
    return f"{mask.shape[0]} x {mask.shape[1]}"
