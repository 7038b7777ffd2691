"""Scoring masks against the truth: a model's own, or masks made by any program."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetseg import checkpoints, folder, images, masks, pixels
from unetseg.classes import IGNORED, ClassTable
from unetseg.config import PredictSettings
from unetseg.errors import InputError, show
from unetseg.folder import Pair
from unetseg.inference import Model
from unetseg.interrupts import catching
from unetseg.metrics import Scores, confusion, scores
from unetseg.progress import Note, OnProgress, Progress, ignore
from unetseg.segmentation import Segmenter
from unetseg.store import Store, open_store

DEFAULT_FOLDER = Path("data/test")


@dataclass(frozen=True)
class Evaluation:
    """What was scored, and how well.

    Attributes:
        scores: Pooled over all images.
        subject: What was scored, for a heading.
        trained_on: Images left out because the model was trained on them.
        total: Images found, those left out included.
    """

    scores: Scores
    subject: str
    trained_on: int
    total: int


def evaluate(
    source: str | os.PathLike[str] | None = None,
    *,
    models: Sequence[str] | None = None,
    predictions: str | os.PathLike[str] | None = None,
    settings: PredictSettings | None = None,
    include_trained: bool = False,
    classes: str | os.PathLike[str] | None = None,
    ignored: tuple[int | str, ...] = (),
    on_progress: OnProgress = ignore,
) -> Evaluation:
    """Score a model, or masks made by any program, on labelled images.

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
        on_progress: Receives `Note` and `Progress`.

    Raises:
        InputError: A missing or unreadable file, masks that do not fit, nothing left to score.
    """
    if source is None and DEFAULT_FOLDER.is_dir():
        source = DEFAULT_FOLDER
    if predictions is not None:
        if source is None:
            raise InputError("FOLDER", "is missing", "name the folder with the true masks")
        page = settings.page if settings else None
        own, file = folder.load_classes(source, classes), classes or Path(source, "classes.toml")
        card = checkpoints.read_card(checkpoints.resolve_model(models[0])[0]) if models else None
        made = _find_masks(Path(source), Path(predictions), page)
        if card:
            truth, order = _encoding(own, card.classes, ignored, file)
            return _score_masks(made, truth, order, card.classes, on_progress)
        truth = own.with_ignored(ignored) if own else _discover(made, ignored)
        return _score_masks(made, truth, _SAME, truth, on_progress)
    model = Model(("default",) if models is None else models, settings)
    if source is None:
        if classes is not None or ignored:
            what = "--ignore" if classes is None else "--classes"
            raise InputError(what, "is for a folder of true masks", "name one")
        return _score_held_out(model, on_progress)
    own, file = folder.load_classes(source, classes), classes or Path(source, "classes.toml")
    encoding = _encoding(own, model.card.classes, ignored, file)
    return _score_folder(model, Path(source), encoding, include_trained, on_progress)


def _score_folder(
    model: Model,
    root: Path,
    encoding: tuple[ClassTable, NDArray[np.uint8]],
    include_trained: bool,
    on_progress: OnProgress,
) -> Evaluation:
    pairs = folder.find_pairs(root)
    trained = {s.sha256 for card in model.cards for s in card.sources if s.split == "train"}
    chosen = [
        pair
        for pair in pairs
        if include_trained
        or pixels.pixel_hash(images.read_image(pair.image, model.settings.page)) not in trained
    ]
    left_out = len(pairs) - len(chosen)
    if not chosen:
        text = f"all {len(pairs)} images were trained on"
        raise InputError(root, text, "name other images, or give --include-trained")
    if left_out:
        on_progress(
            Note(
                f"{left_out} of {len(pairs)} images were trained on, left out; "
                f"{len(chosen)} scored",
                warning=True,
            )
        )
    on_progress(Note(f"scoring {len(chosen)} images of {show(root)} with {model}"))

    def outcomes() -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
        for pair in chosen:
            truth = _read_truth(pair, *encoding, model.settings.page)
            yield pair.name, truth, model.labels(model.read(pair.image), _shape(truth))

    found = _pool(outcomes(), len(chosen), model.card.classes, on_progress)
    return Evaluation(found, f"{model.card.name} on {root}", left_out, len(pairs))


def _score_held_out(model: Model, on_progress: OnProgress) -> Evaluation:
    """Score the images that the model's own store held out."""
    opened = _open_training_store(model)
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
    trained = {s.sha256 for card in model.cards for s in card.sources if s.split == "train"}
    kept = [
        k for k in range(opened.held_out_count) if opened.info.held_out[k].sha256 not in trained
    ]
    if not kept:
        text = "holds out no image that the model has not seen"
        raise InputError(path, text, "name a folder of labelled images: unetseg evaluate FOLDER")
    total = len(opened.info.sources)
    on_progress(
        Note(f"{total - len(kept)} of {total} images were trained on, left out; {len(kept)} scored")
    )
    on_progress(Note(f"scoring {len(kept)} held-out images of {show(path)} with {model}"))

    found, _ = score_held_out(
        opened, model.segmenter, kept, on_progress, classes=card.classes.names
    )
    subject = f"{model.card.name} on the images its store held out"
    return Evaluation(found, subject, total - len(kept), total)


def _open_training_store(model: Model) -> Store:
    """Open the store that the model was trained on, also where it was moved with its run."""
    path, beside = Path(model.card.store), model.paths[0].parent / "patches.h5"
    if path.exists():
        return open_store(path)
    if beside.exists():
        opened = open_store(beside)
        if opened.content_hash == model.card.store_hash:
            return opened
    text = "not found, and no folder was named"
    raise InputError(path, text, "name a folder of labelled images: unetseg evaluate FOLDER")


def _bands(segmenter: Segmenter, image: NDArray[Any], scale: float) -> Iterator[Tensor]:
    """Yield the probabilities of an image at its own size, computed at ``scale``."""
    if scale == 1:
        yield from segmenter.bands(image)
        return
    shape = (image.shape[0], image.shape[1])
    scaled = pixels.rescale_image(image, pixels.scaled_size(*shape, scale))
    yield torch.from_numpy(segmenter.probabilities(scaled, shape))


def score_held_out(
    opened: Store,
    segmenter: Segmenter,
    which: Sequence[int] | None = None,
    on_progress: OnProgress = ignore,
    check: Callable[[], None] = lambda: None,
    classes: Sequence[str] | None = None,
) -> tuple[Scores, float]:
    """Score a network on the whole held-out images of a store.

    Args:
        opened: The store.
        segmenter: The network, and how it covers an image.
        which: Numbers of held-out images; None takes all.
        on_progress: Receives `Progress`.
        check: Called before each image; may raise to stop.
        classes: Names of the classes; None takes the store's.

    Returns:
        The scores, and the mean negative log-likelihood of the true classes.
    """
    matrices, names, log_sum, pixels = [], [], 0.0, 0
    which = range(opened.held_out_count) if which is None else which
    for k in which:
        check()
        image, mask, source = opened.held_out(k)
        row, labels = 0, []
        for band in _bands(segmenter, image, opened.info.scale):  # (K, rows, W)
            truth = torch.from_numpy(np.array(mask[row : row + band.shape[1]])).to(band.device)
            valid = truth != IGNORED
            chosen = band.gather(0, truth.long().where(valid, 0)[None])[0][valid]
            log_sum -= float(chosen.clamp_min(1e-7).log().sum())
            pixels += int(valid.sum())
            row += band.shape[1]
            labels.append(band.argmax(0).to(torch.uint8).cpu())
        matrices.append(
            confusion(mask, torch.cat(labels).numpy(), len(opened.info.classes.classes))
        )
        names.append(Path(source.name).stem)
        on_progress(Progress("scoring", len(names), len(which), "images", show(source.name)))
    classes = opened.info.classes.names if classes is None else classes
    return scores(np.stack(matrices), names, classes), log_sum / max(pixels, 1)


@dataclass(frozen=True)
class _Made:
    """Masks to score: each pair of a folder with the mask made for it."""

    root: Path
    predictions: Path
    pairs: tuple[tuple[Pair, Path], ...]
    page: int | None

    def read(self, path: Path) -> masks.RawMask:
        """Read one of the masks, true or made."""
        return images.read_mask(path, self.page)


def _find_masks(root: Path, predictions: Path, page: int | None) -> _Made:
    """Find the made mask of every image. Raises `InputError` where one is missing."""
    pairs = folder.find_pairs(root)
    made = {folder.stem_of(p): p for p in folder.list_images(predictions)}
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
    on_progress: OnProgress,
) -> Evaluation:
    """Score masks made by any program.

    Args:
        made: The masks.
        truths: How the true ones are read.
        order: (256,) index in ``table`` of each class of ``truths``.
        table: How the made ones are read.
        on_progress: Receives `Note` and `Progress`.
    """
    count, places = len(made.pairs), f"{show(made.predictions)} against {show(made.root)}"
    on_progress(Note(f"scoring {count} masks of {places}"))

    def outcomes() -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
        for pair, path in made.pairs:
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
            yield pair.name, truth, predicted

    found = _pool(outcomes(), count, table, on_progress)
    return Evaluation(found, f"{made.predictions} on {made.root}", 0, count)


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
    count: int,
    table: ClassTable,
    on_progress: OnProgress,
) -> Scores:
    matrices, names = [], []
    with catching() as caught:
        for name, truth, predicted in outcomes:
            caught.check("evaluate", "run the same line again")
            matrices.append(confusion(truth, predicted, len(table.classes)))
            names.append(name)
            on_progress(Progress("scoring", len(names), count, "images", show(name)))
    if not np.any(matrices):
        raise InputError("evaluate", "every pixel of every mask is ignored", "look at the masks")
    return scores(np.stack(matrices), names, table.names)


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
    raw = images.read_mask(pair.mask, page)
    truth: NDArray[np.uint8] = order[masks.decode(raw, table, pair.mask)]
    info = images.read_info(pair.image, page)
    if truth.shape != (info.height, info.width):
        text = f"{_size(truth)} pixels, its image has {info.height} x {info.width}"
        raise InputError(pair.mask, text, "make image and mask the same size")
    return truth


def _shape(mask: NDArray[np.uint8]) -> tuple[int, int]:
    return mask.shape[0], mask.shape[1]


def _size(mask: NDArray[np.uint8]) -> str:
    return f"{mask.shape[0]} x {mask.shape[1]}"
