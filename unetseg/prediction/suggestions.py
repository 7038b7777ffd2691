"""Which images to label next: those that cover most of a model's uncertainty."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unetseg import files
from unetseg.arguments import Names, Reports, public
from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import naming, pairing
from unetseg.dataset.naming import Pair
from unetseg.errors import InputError, MachineError, UnetsegError, arg
from unetseg.pictures import bands, drawing, writing
from unetseg.pictures.transforms import pixel_hash
from unetseg.prediction.model import Model
from unetseg.prediction.run_folder import open_training_store
from unetseg.prediction.summary import read_table, write_table
from unetseg.progress import Note, OnProgress, steps, warn
from unetseg.results import Result, Table, plain
from unetseg.settings import PredictSettings
from unetseg.signals import Caught, catching
from unetseg.text import plural, show

LIST = "suggestions.csv"
_COLUMNS = ("rank", "image", "score", "uncertainty", "difference", "why")
# An image is judged by its most uncertain tenth, so that a large plain rest does not hide it.
_PART = 0.1
_CELLS = 8  # cells along a patch: the finest detail that the features of an image have
# How far one image stands for another is a Gaussian of their distance. This is its width, in units
# of the usual distance.
_NEAR = 0.5
_ALIKE = 0.5  # from this likeness on, an image is said to stand for another
_MOST = 4_000  # so many images are compared with each other: a matrix of 64 MB


@dataclass(frozen=True)
class Suggestion:
    """An image to label.

    Attributes:
        image: The file.
        score: The share, 0 to 1, of the uncertainty about all images that this image newly covers.
        uncertainty: The mean entropy of the most uncertain tenth of the image, 0 (sure) to 1 (all
            classes equally likely).
        difference: The distance to the most similar image that is labelled or ranks higher. Its
            unit is the median distance of two images. None where there is no such image.
        why: The reason for the choice, in words.
    """

    image: Path
    score: float
    uncertainty: float
    difference: float | None
    why: str


@dataclass(frozen=True, repr=False)
class Suggestions(Result):
    """The images that `suggest_images` chose, and the files that it wrote.

    Attributes:
        out: The folder.
        chosen: The images to label, the best first.
        left_out: Images that are labelled already, by their pixels.
        failed: Each image that could not be read, with its error.
        labelled: Folder of the labelled images; None where it is not known.
        pair: A labelled image and its mask, as an example of how they are stored; None where there
            is none.
        same_names: The chosen images that have the name of a labelled image.
        cutting: The settings with which the images of the model were cut: ``group``, ``scale``, and
            the selection of pages, channels and edges. Defaults are left out.
    """

    out: Path
    chosen: tuple[Suggestion, ...]
    left_out: int
    failed: tuple[tuple[Path, UnetsegError], ...]
    labelled: Path | None
    pair: Pair | None
    same_names: tuple[str, ...]
    cutting: Mapping[str, Any]

    def line(self) -> str:
        """Return how many images were chosen, and where they are."""
        return f"{plural(len(self.chosen), 'image')} to label next in {show(self.out)}"

    def tables(self) -> tuple[Table, ...]:
        """Return the chosen images, the best first."""
        rows = [
            (
                str(k),
                s.image.name,
                s.score,
                s.uncertainty,
                None if s.difference is None else f"{s.difference:.2f}",
                s.why,
            )
            for k, s in enumerate(self.chosen, 1)
        ]
        columns = ["rank", "image", "score", "uncertainty", "difference", "why"]
        left_out = plural(self.left_out, "image")
        note = f"{left_out} labelled already, left out." if self.left_out else ""
        return (Table("To label next", columns, rows, note),)

    def records(self) -> list[dict[str, Any]]:
        """Return a row an image, the best first."""
        rows: list[dict[str, Any]] = plain(self.chosen)
        return rows


@dataclass(frozen=True)
class Rank:
    """The place of an image in the ranking.

    Attributes:
        index: The number of the image.
        score: The score of the `Suggestion`.
        difference: The difference of the `Suggestion`.
        stands_for: How many other unlabelled images it covers better than any image before it.
    """

    index: int
    score: float
    difference: float | None
    stands_for: int


@dataclass(frozen=True)
class _Described:
    """The numbers by which an image is compared with others.

    Attributes:
        features: (D,) float32: the content of the image, as a whole and in its most uncertain
            tenth.
        uncertainty: The uncertainty of the `Suggestion`.
        pair: The two classes that the model confuses most often; a single one where it has one.
    """

    features: NDArray[np.float32]
    uncertainty: float
    pair: tuple[int, ...]


@public()
def suggest_images(
    source: str | os.PathLike[str],
    *,
    model: Names = "default",
    n: int = 10,
    out: str | os.PathLike[str] = "suggested",
    labelled: str | os.PathLike[str] | None = None,
    settings: PredictSettings | None = None,
    overwrite: bool = False,
    on_progress: Reports = warn,
) -> Suggestions:
    """Choose the images whose labels would teach a model most, with a mask of each to correct.

    An image counts by its most uncertain tenth and by the number of images like it. It counts
    little where it is like a labelled image or like one that is chosen already: see `rank_images`.
    The entropy of that tenth was tried with a model of 10 images of lines and ellipses. It put 70
    other images in the order of their wrong pixels (Spearman's 0.93). The mean entropy did not
    (0.50), because plain background rules it.

    The folder gets ``images/`` (copies), ``masks/`` (predictions, encoded like the masks trained
    on), ``classes.toml``, ``overlays/`` and ``suggestions.csv``. Once the masks are corrected, it
    is a folder of labelled images.

    Args:
        source: A folder of images, or of labelled images: then its ``images/`` are taken. Images
            whose pixels the model was trained on or scored by are left out.
        model: Runs, run folders or model files; several are averaged.
        n: How many to choose.
        out: A new or empty folder.
        labelled: Folder of the images labelled so far. None takes the folder that the model's
            store was cut from, where it still exists.
        settings: How images are covered; None for the defaults.
        overwrite: Replace the files of an earlier call, corrected masks included.
        on_progress: Receives `Note` and `Progress`.

    Raises:
        InputError: No image left to choose from, two images of one stem, a folder in the way.
        MachineError: The disk is full, or writing is not permitted.
        Interrupted: A signal came.
    """
    target, root = Path(out), Path(source)
    pool = naming.list_images(root / "images" if (root / "images").is_dir() else root)
    _check_places(target, pool, overwrite)
    loaded = Model(model, settings)
    home, cutting = _training(loaded, labelled)
    _refuse_inputs(target, pool, home)
    pairs = pairing.match_pairs(home)[0] if home else ()
    on_progress(Note(f"looking at {plural(len(pool), 'image')} of {show(root)} with {loaded}"))
    with catching() as caught:
        labelled_images = [pair.image for pair in pairs]
        describer = _Describer(loaded)
        paths = steps(
            [*labelled_images, *pool],
            "looking",
            "images",
            on_progress,
            name=lambda path: path.name,
            check=lambda: caught.check(root, "run the same line again"),
        )
        before = [describer.describe(path) for path in islice(paths, len(labelled_images))]
        describer.leave_out_known()
        after = {path: found for path in paths if (found := describer.describe(path))}
        if not after:
            raise _nothing_left(root, describer)
        ranks = rank_images(
            np.stack([one.features for one in after.values()]),
            np.array([one.uncertainty for one in after.values()]),
            np.array([one.features for one in before if one]),
            n,
        )
        described, names = list(after.items()), loaded.card.classes.names
        chosen = tuple(_suggestion(rank, *described[rank.index], names) for rank in ranks)
        _write(target, chosen, loaded, caught, on_progress)
    taken = {pair.name for pair in pairs}
    return Suggestions(
        target,
        chosen,
        describer.left_out,
        tuple(describer.failed),
        home,
        pairs[0] if pairs else None,
        tuple(s.image.name for s in chosen if naming.stem_of(s.image) in taken),
        cutting,
    )


def rank_images(
    features: NDArray[Any], uncertainty: NDArray[Any], labelled: NDArray[Any], count: int
) -> tuple[Rank, ...]:
    """Choose images that together cover as much of the uncertainty about all images as they can.

    Each image weighs as much as it is uncertain. It is covered as far as the most similar labelled
    or chosen image resembles it. So a chosen image is uncertain, or like many uncertain images, and
    unlike all that were labelled or chosen before. An odd image covers only itself.

    This is a facility location function of the labelled images (Wei, Iyer, Bilmes, 2015, ICML). The
    weights are those by which Yang et al. (2017, MICCAI, "Suggestive annotation") choose first.
    Taking the best image each time comes within 1 - 1/e of the best set (Nemhauser, Wolsey, Fisher,
    1978). With few labels, uncertainty alone chooses near copies and odd images. Coverage alone
    (Sener, Savarese, 2018, ICLR) chooses images that the model knows already. BADGE (Ash et al.,
    2020, ICLR) takes the product of both too, with gradients as features.

    Args:
        features: (n, D) features of the images to choose from; each column is scaled to its own
            spread.
        uncertainty: (n,) uncertainties of these images, 0 or more.
        labelled: (m, D) features of the images labelled so far; m may be 0.
        count: The largest number of images to choose. Of more than 4,000 images only the most
            uncertain are compared.

    Returns:
        The chosen images, the best first.
    """
    kept = np.argsort(-uncertainty, kind="stable")[:_MOST]
    own = len(kept)
    stacked = np.concatenate([features[kept], labelled.reshape(-1, features.shape[1])])
    distances = _distances(stacked.astype(np.float64))[:own]  # (own, own + m)
    likeness = np.exp(-0.5 * np.square(distances / _NEAR))
    weights = uncertainty[kept].astype(np.float64)
    weights = weights / weights.sum() if weights.any() else np.full(own, 1 / own)
    covered = likeness[:, own:].max(axis=1, initial=0)
    nearest = distances[:, own:].min(axis=1, initial=np.inf)
    left, ranks = np.ones(own, bool), []
    for _ in range(min(count, own)):
        gains = np.maximum(likeness[:, :own] - covered[:, None], 0).T @ weights
        best = int(np.where(left, gains, -1).argmax())
        near = likeness[:, best]
        stands_for = int(((near > np.maximum(covered, _ALIKE)) & left).sum()) - 1
        difference = float(nearest[best]) if np.isfinite(nearest[best]) else None
        ranks.append(Rank(int(kept[best]), float(gains[best]), difference, max(stands_for, 0)))
        left[best] = False
        covered = np.maximum(covered, near)
        nearest = np.minimum(nearest, distances[:, best])
    return tuple(ranks)


def _distances(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances (n, n) between images, scaled so that their median is 1."""
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    squares = np.square(scaled).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * scaled @ scaled.T, 0))
    np.fill_diagonal(distances, 0)
    pairs = distances[np.triu_indices(len(distances), 1)]
    usual = float(np.median(pairs)) if len(pairs) else 0.0
    result: NDArray[np.float64] = distances / (usual or 1.0)
    return result


# --- looking at images -----------------------------------------------------------------------


class _Describer:
    """Describes one image after the other, and counts those that are left out or fail."""

    def __init__(self, model: Model) -> None:
        self.model, self.left_out = model, 0
        self.failed: list[tuple[Path, UnetsegError]] = []
        self._seen: set[str] = set()
        self._excluded: set[str] = set()

    def leave_out_known(self) -> None:
        """From now on, leave out the images described so far, and those that the model knows."""
        known = (card.trained_on.union(s.sha256 for s in card.sources) for card in self.model.cards)
        self._excluded = self._seen.union(*known)

    def describe(self, path: Path) -> _Described | None:
        """Describe an image; return None where it is left out or cannot be read."""
        try:
            key = pixel_hash(bands.read_filled(path, self.model.selection)[0])
            self._seen.add(key)
            if key not in self._excluded:
                return _describe(self.model, self.model.scaled(path)[0])
            self.left_out += 1
        except (InputError, MachineError) as error:
            self.failed.append((path, error.about(path)))
        return None


def _describe(model: Model, image: NDArray[Any]) -> _Described:
    """Describe an image (H, W, C) in the channels, depth and scale of the training images."""
    classes = len(model.card.classes.classes)
    cell = max(model.card.patch_size // _CELLS, 1)
    confused, parts = np.zeros(classes**2), []
    for band in model.segmenter.bands(image):  # (K, rows, W)
        entropy = -(band * band.clamp_min(1e-7).log()).sum(0) / math.log(max(classes, 2))
        first, last = band.topk(min(classes, 2), 0).indices[[0, -1]].cpu().numpy()
        pairs = np.minimum(first, last) * classes + np.maximum(first, last)
        weights = entropy.cpu().numpy()
        confused += np.bincount(pairs.ravel(), weights.ravel(), classes**2)
        # A band may have any height, so only columns are averaged here, and rows below.
        parts.append(_cells(torch.cat([band, entropy[None]]), 1, cell).cpu())
    shares = _cells(torch.cat(parts, 1), cell, 1)  # (K + 1, rows, columns) of cells
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (model.card.mean, model.card.std))
    pixels = (pixels - mean) / std
    level = _cells(pixels, cell, cell)
    texture = (_cells(pixels.square(), cell, cell) - level.square()).clamp_min(0).sqrt()
    unsure = shares[-1].flatten()
    shown = torch.cat([shares[:-1], level, texture]).flatten(1)  # (K + 2 C, cells)
    features, uncertainty = describe_by_worst(shown.T, unsure)
    pair = np.unique(np.unravel_index(int(confused.argmax()), (classes, classes)))
    return _Described(features, uncertainty, tuple(map(int, pair)))


def describe_by_worst(features: Tensor, unsure: Tensor) -> tuple[NDArray[np.float32], float]:
    """Describe an image by the mean features of all its places, and of the most uncertain tenth.

    Args:
        features: (n, F) float32 features of n places.
        unsure: (n,) the entropy at each place, 0 (sure) to 1.

    Returns:
        (2 F,) float32, and the mean entropy of the most uncertain tenth.
    """
    worst = unsure.topk(max(1, round(_PART * len(unsure)))).indices
    both = torch.cat([features.mean(0), features[worst].mean(0)])
    return both.numpy(), float(unsure[worst].mean())


def _cells(planes: Tensor, rows: int, columns: int) -> Tensor:
    """Return the means of planes (n, H, W) over cells; cells at the border may be smaller."""
    return F.avg_pool2d(planes[None], (rows, columns), ceil_mode=True)[0]


def _suggestion(rank: Rank, path: Path, image: _Described, names: Sequence[str]) -> Suggestion:
    why = "unsure about " + " and ".join(names[i] for i in image.pair)
    if rank.difference is not None and rank.difference > 1:
        why += "; unlike the labelled images and those above"
    if rank.stands_for:
        why += f"; stands for {rank.stands_for} more like it"
    return Suggestion(path, rank.score, image.uncertainty, rank.difference, why)


def _nothing_left(root: Path, describer: _Describer) -> UnetsegError:
    if describer.failed:
        return describer.failed[0][1]
    text = f"{plural(describer.left_out, 'image is', 'images are')} all labelled already"
    return InputError(root, text, "name a folder of new images")


def _training(
    model: Model, labelled: str | os.PathLike[str] | None
) -> tuple[Path | None, dict[str, Any]]:
    """Return the folder of labelled images, None where unknown, and `Suggestions.cutting`."""
    cutting: dict[str, Any] = {"scale": model.card.scale} if model.card.scale != 1 else {}
    home = Path(labelled) if labelled is not None else None
    try:
        info = open_training_store(model.card, model.paths[0]).info
    except (InputError, MachineError):  # the store was moved or deleted
        return home, cutting
    for name in ("group", "page", "channels", "crop"):
        if info.settings.get(name) is not None:
            cutting[name] = info.settings[name]
    own = Path(info.folder)
    return home or (own if own.is_dir() else None), cutting


# --- writing ---------------------------------------------------------------------------------


def _check_places(target: Path, pool: Sequence[Path], overwrite: bool) -> None:
    """Refuse a folder in which masks that a person made or corrected would be replaced."""
    stems: dict[str, Path] = {}
    for path in pool:
        key = naming.stem_of(path).casefold()
        if key in stems:
            text = f"and {show(stems[key])} would have masks of one name"
            raise InputError(path, text, "rename one of them")
        stems[key] = path
    places = ("images", "masks", "overlays", "classes.toml", LIST)
    found = [p for p in places if (target / p).exists()]
    if LIST in found and not overwrite:
        text = "holds suggestions, whose masks may be corrected by now"
        raise InputError(target, text, f"choose another {arg('out')}, or {arg('overwrite', True)}")
    if found and LIST not in found:
        text = f"holds {found[0]}, and no list of suggestions"
        raise InputError(target, text, f"choose another {arg('out')}")


def _refuse_inputs(target: Path, pool: Sequence[Path], home: Path | None) -> None:
    inputs = {os.path.realpath(p) for p in (pool[0].parent, home) if p is not None}
    if inputs & {os.path.realpath(p) for p in (target, target / "images")}:
        raise InputError(target, "holds images to look at", f"choose another {arg('out')}")


def _write(
    target: Path,
    chosen: Sequence[Suggestion],
    model: Model,
    caught: Caught,
    on_progress: OnProgress,
) -> None:
    """Write the folder. The list comes first: from it, a later call knows what it may replace."""
    _clear(target)
    rows = (_row(rank, one) for rank, one in enumerate(chosen, 1))
    write_table(target / LIST, _COLUMNS, rows)
    table = model.card.classes
    pairing.write_classes(target, table)
    again = f"run the same line again with {arg('overwrite', True)}"
    for one in steps(
        chosen,
        "writing",
        "images",
        on_progress,
        name=lambda one: one.image.name,
        check=lambda: caught.check(target, again),
    ):
        picture = bands.read_filled(one.image, model.selection)[0]
        labels = model.labels(one.image)
        name = f"{one.image.stem}.png"
        overlay = drawing.overlay(picture, labels, table, model.card.unpainted)
        writing.write_picture(target / "overlays" / name, overlay)
        _write_mask(target / "masks" / name, labels, table)
        files.write_bytes(target / "images" / one.image.name, one.image.read_bytes())


def _write_mask(path: Path, labels: NDArray[np.uint8], table: ClassTable) -> None:
    """Write a mask as the training masks are: values with a palette, or RGB colours."""
    if table.encoding == "colours":
        picture = drawing.paint(labels, table)
        if (is_ignored := labels == IGNORED).any():  # read as ignored where it is transparent
            picture = np.dstack([picture, np.where(is_ignored, 0, 255).astype(np.uint8)])
        writing.write_picture(path, picture)
    else:
        writing.write_mask(path, labels, table)


def _clear(target: Path) -> None:
    """Remove the files that an earlier call wrote."""
    if not (target / LIST).exists():
        return
    for _, name, *_ in read_table(target / LIST, _COLUMNS):
        image = Path(name).name
        mask = f"{Path(name).stem}.png"
        for old in (Path("images", image), Path("masks", mask), Path("overlays", mask)):
            (target / old).unlink(missing_ok=True)


def _row(rank: int, one: Suggestion) -> tuple[str | float | None, ...]:
    numbers = (one.score, one.uncertainty, one.difference)
    rounded = (None if x is None else round(x, 4) for x in numbers)
    return (rank, one.image.name, *rounded, one.why)
