"""Which labels look wrong: where a mask and a model that never saw it surely disagree."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.arguments import public
from unetseg.classes import IGNORED
from unetseg.scoring.metrics import ScoredImage, confusion
from unetseg.text import plural

LIKELY = 3.0  # a score above is rare among correct masks
_MOST_PIXELS = 2_000_000  # larger images are read by every second (third, ...) row and column
# Pixels by which a border may be off: up to the first, disagreement counts nothing; from the second
# on, it counts in full.
_NEAR, _FAR = 1.0, 4.0
_BINS = 256  # bins of confidence: an 8-bit picture of it can tell these apart
_REGIONS = 50  # the largest regions of an image are kept, so many of them
_REACH = 12  # pixels: a mask is moved by no more when a shift is looked for
_SHIFT_SHARE = 0.4  # moving or turning a mask must remove this share of the disagreement
_SHIFT_PIXELS = 20  # moving or turning a mask must make so many pixels agree
_SWAPPED = 0.4  # two classes look swapped where the model calls this share of each the other


@dataclass(frozen=True)
class Suspect:
    """An image whose mask may be wrong.

    Attributes:
        name: Name of the image.
        score: The number of standard deviations by which its disagreement exceeds that of a usual
            image of the set (`rank_suspects`). A score over `LIKELY` is rare among correct masks.
        box: (top, left, height, width) of the worst place, in pixels.
        text: The suspicion, in words.
    """

    name: str
    score: float
    box: tuple[int, int, int, int]
    text: str


@dataclass(frozen=True)
class _Region:
    """A place where mask and model disagree by more than a moved border.

    Attributes:
        truth: The mask's class.
        predicted: The model's class.
        pixels: Number of pixels looked at.
        weights: (_BINS,) float32, the pixels by confidence, those near a border counted less.
        box: The box of a `Suspect`, in pixels looked at.
    """

    truth: int
    predicted: int
    pixels: int
    weights: NDArray[np.float32]
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class _Disagreement:
    """The disagreement of mask and model in an image, and the numbers that weigh it.

    Attributes:
        name: Name of the image.
        shape: Rows and columns.
        step: Every ``step``-th row and column was read.
        matrix: (C, C) int64, rows the mask's class, columns the model's.
        disagreed: (C, C) int64, the part of ``matrix`` that lies in regions.
        agreed: (C, _BINS) int64, pixels by class and confidence where both agree; all 0 where no
            confidence is known.
        sure: Whether the confidence is known.
        regions: The largest regions.
        moved: Pixels that agree more when the mask is moved or turned; 0 where that does not help.
        movement: The movement of the mask that helps, in words.
    """

    name: str
    shape: tuple[int, int]
    step: int
    matrix: NDArray[np.int64]
    disagreed: NDArray[np.int64]
    agreed: NDArray[np.int64]
    sure: bool
    regions: tuple[_Region, ...]
    moved: int
    movement: str


@public()
def rank_suspects(images: Iterable[ScoredImage], classes: Sequence[str]) -> tuple[Suspect, ...]:
    """Rank images by how much speaks against their masks, worst first.

    The predictions must come from models that did not see the masks. Sure disagreement counts, not
    a hard image:

    * Disagreement that a border off by a pixel or few explains counts little. There a pixel is A in
      the mask and B by the model, and close by the mask has B and the model A.
    * A disagreeing pixel counts by how sure the model is. Its weight is a share of the pixels of
      that class where model and masks agree: the share of which the model is less sure. So each
      class has its own measure, as in confident learning (Northcutt, Jiang, Chuang, 2021, JAIR
      70). A temperature of the probabilities does not matter. Without confidences all pixels
      count alike.
    * Pixels count as connected regions. A region counts by -log10 of the share of class A that the
      model calls B in the other images. Classes that the model often confuses are no sign of a
      wrong mask. Regions add up as the root of their squares, so that one large region outweighs
      many small ones.
    * A mask that agrees clearly better when moved by some pixels, or mirrored or turned, is
      suspect for the pixels so gained.

    The score is the logarithm of that evidence against the median of all images, in robust standard
    deviations. Such a deviation is 1.4826 times the median absolute deviation, at least 0.5.

    Args:
        images: Images with their masks; gone through once, one held at a time.
        classes: Names of the classes.

    Returns:
        One entry for each image in which something speaks against the mask.

    Raises:
        ValueError: Mask and prediction differ in shape, or hold an index that is no class.
    """
    found = [_disagreement(one, len(classes)) for one in images]
    if not found:
        return ()
    rank_of = _ranks(np.stack([one.agreed for one in found]).sum(axis=0))
    matrices = np.stack([one.matrix for one in found])
    rarities = _rarities(matrices, np.stack([one.disagreed for one in found]))
    commonest = int(matrices.sum(axis=(0, 2)).argmax())
    evidence, worst = [], []
    for one, rarity in zip(found, rarities, strict=True):
        parts = [
            float(rarity[r.truth, r.predicted]) * _surely_wrong(r, rank_of, one) * one.step**2
            for r in one.regions
        ]
        worst.append(one.regions[int(np.argmax(parts))] if parts else None)
        # The pixels gained by moving count half: the weight of a pixel of middling confidence.
        parts.append(float(rarity.max()) * one.moved * one.step**2 / 2)
        evidence.append(float(np.sqrt(np.square(parts).sum())))
    levels = np.log1p(evidence)
    middle = np.median(levels)
    spread = max(1.4826 * float(np.median(np.abs(levels - middle))), 0.5)
    order = sorted(range(len(found)), key=lambda i: -levels[i])
    return tuple(
        Suspect(
            found[i].name,
            float((levels[i] - middle) / spread),
            _box(found[i], worst[i]),
            _text(found[i], worst[i], classes, commonest),
        )
        for i in order
        if evidence[i] > 0
    )


def _disagreement(scored: ScoredImage, classes: int) -> _Disagreement:
    """Return where and how a mask and its prediction disagree."""
    truth, prediction, sure = scored.truth, scored.prediction, scored.confidence
    step = max(1, int(np.ceil(np.sqrt(truth.size / _MOST_PIXELS))))
    truth, prediction = truth[::step, ::step], prediction[::step, ::step]
    matrix = confusion(truth, prediction, classes)
    levels = np.full(truth.shape, _BINS // 2, np.uint8)
    agreed = np.zeros((classes, _BINS), np.int64)
    if sure is not None:
        levels = np.rint(sure[::step, ::step].clip(0, 1) * (_BINS - 1)).astype(np.uint8)
        same = (truth == prediction) & (truth != IGNORED)
        pairs = truth[same].astype(np.int64) * _BINS + levels[same]
        agreed = np.bincount(pairs, minlength=classes * _BINS).reshape(classes, _BINS)
    wrong = (truth != prediction) & (truth != IGNORED)
    disagreed, regions = np.zeros_like(matrix), tuple[_Region, ...]()
    moved, movement = 0, ""
    if wrong.any():
        weights = _beyond_border(truth, prediction, wrong, step)
        disagreed, regions = _regions(truth, prediction, weights, levels, classes)
        moved, movement = _movement(truth, prediction, step)
    return _Disagreement(
        scored.name,
        (scored.truth.shape[0], scored.truth.shape[1]),
        step,
        matrix,
        disagreed,
        agreed,
        sure is not None,
        regions,
        moved,
        movement,
    )


def _beyond_border(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], wrong: NDArray[np.bool_], step: int
) -> NDArray[np.float32]:
    """Return weights (H, W) float32, 0 to 1, of the pixels that disagree.

    The weight is 0 where mask and model agree, or where a moved border explains the difference.

    A border moved by d pixels makes pixels disagree. Within d of each of them, the mask has a pixel
    of the model's class, and the prediction has a pixel of the mask's class.
    """
    off = np.maximum(_distance_to(truth, prediction, wrong), _distance_to(prediction, truth, wrong))
    weights = np.clip((off * step - _NEAR) / (_FAR - _NEAR), 0, 1)
    return np.where(wrong, weights, 0).astype(np.float32)


def _distance_to(
    labels: NDArray[np.uint8], wanted: NDArray[np.uint8], where: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return how far each pixel lies from the nearest pixel of ``labels`` of its ``wanted`` class.

    The distance is the larger of rows and columns. It is infinite outside ``where``, and where
    ``labels`` hold no pixel of the class.
    """
    from scipy import ndimage

    result = np.full(labels.shape, np.inf, np.float32)
    for label in np.unique(wanted[where]):
        has = labels == label
        if has.any():
            asked = where & (wanted == label)
            result[asked] = ndimage.distance_transform_cdt(~has, "chessboard")[asked]
    return result


def _regions(
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    weights: NDArray[np.float32],
    levels: NDArray[np.uint8],
    classes: int,
) -> tuple[NDArray[np.int64], tuple[_Region, ...]]:
    """Return the pixels in regions by both classes (C, C), and the largest regions.

    The pixels of a region are connected, also by corners. All have the same class in the mask, and
    the same class by the model.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(weights > 0, np.ones((3, 3)))
    rows, columns = np.nonzero(labels)
    pair = truth[rows, columns].astype(np.int64) * classes + prediction[rows, columns]
    counts = np.bincount(pair, minlength=classes**2).reshape(classes, classes)
    key = labels[rows, columns].astype(np.int64) * classes**2 + pair
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    groups = np.split(order, starts[1:]) if len(starts) else []
    weight, level = weights[rows, columns], levels[rows, columns]
    groups.sort(key=lambda group: -float(weight[group].sum()))
    return counts, tuple(
        _Region(
            int(pair[group[0]] // classes),
            int(pair[group[0]] % classes),
            len(group),
            np.bincount(level[group], weight[group], _BINS).astype(np.float32),
            _span(rows[group], columns[group]),
        )
        for group in groups[:_REGIONS]
    )


def _span(rows: NDArray[Any], columns: NDArray[Any]) -> tuple[int, int, int, int]:
    top, left = int(rows.min()), int(columns.min())
    return top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1


def _movement(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], step: int
) -> tuple[int, str]:
    """Return how many more pixels agree when the mask is moved or turned, and its fault in words.

    Return 0 and "" where no movement takes away enough of the disagreement.
    """
    wrong = (truth != prediction) & (truth != IGNORED)
    before = int(np.count_nonzero(wrong))
    if before < _SHIFT_PIXELS:
        return 0, ""
    turned, turning = _turning(truth, prediction, before)
    gained, (down, right) = _shift(truth, prediction, wrong)
    best, text = turned, turning
    # A shift of one pixel does not count: noise along borders has the same effect.
    if gained > turned and max(abs(down), abs(right)) * step >= 2:
        best, text = gained, f"shifted by {_direction(down * step, right * step)}"
    if best < max(_SHIFT_SHARE * before, _SHIFT_PIXELS):
        return 0, ""
    return best, text


def _shift(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], wrong: NDArray[np.bool_]
) -> tuple[int, tuple[int, int]]:
    """Return how many pixels the best shift of the mask gains, and that shift (down, right).

    Every third shift is tried first, then all around the best of them.
    """
    reach = min(_REACH, truth.shape[0] // 8, truth.shape[1] // 8)

    def gain(shift: tuple[int, int]) -> int:
        mask, model = _overlap(*shift)
        after = np.count_nonzero((truth[mask] != prediction[model]) & (truth[mask] != IGNORED))
        return int(np.count_nonzero(wrong[model])) - int(after)

    coarse = range(-(reach // 3) * 3, reach + 1, 3)
    best = max(((down, right) for down in coarse for right in coarse), key=gain)
    fine = [
        (down, right)
        for down in range(max(best[0] - 2, -reach), min(best[0] + 2, reach) + 1)
        for right in range(max(best[1] - 2, -reach), min(best[1] + 2, reach) + 1)
    ]
    best = max(fine, key=gain)
    return gain(best), best


def _overlap(down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a shifted mask and the image overlap: slices of the mask, and of the image."""

    def parts(by: int) -> tuple[slice, slice]:
        return (slice(by, None), slice(None, -by or None)) if by >= 0 else parts(-by)[::-1]

    (mask_rows, rows), (mask_columns, columns) = parts(down), parts(right)
    return (mask_rows, mask_columns), (rows, columns)


def _direction(down: int, right: int) -> str:
    """Return a shift in words: "6 pixels down, 3 right"."""
    words = []
    if down:
        words.append((abs(down), "down" if down > 0 else "up"))
    if right:
        words.append((abs(right), "right" if right > 0 else "left"))
    return ", ".join(
        f"{plural(count, 'pixel')} {word}" if i == 0 else f"{count} {word}"
        for i, (count, word) in enumerate(words)
    )


def _turning(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], before: int
) -> tuple[int, str]:
    turned = [
        (truth[:, ::-1], "mirrored left to right"),
        (truth[::-1], "mirrored top to bottom"),
        (truth[::-1, ::-1], "turned upside down"),
    ]
    if truth.shape[0] == truth.shape[1]:
        turned += [
            (np.rot90(truth), "turned by 90 degrees clockwise"),
            (np.rot90(truth, -1), "turned by 90 degrees anticlockwise"),
            (truth.T, "mirrored along its diagonal"),
        ]
    gains = [
        before - int(np.count_nonzero((mask != prediction) & (mask != IGNORED)))
        for mask, _ in turned
    ]
    best = int(np.argmax(gains))
    return (gains[best], turned[best][1]) if gains[best] > 0 else (0, "")


def _ranks(agreed: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (C, _BINS): the share of the agreeing pixels of a class that are less sure than a bin.

    Half of the pixels in the bin itself count as less sure. A class without an agreeing pixel takes
    the shares of all classes together. Without confidences, every share is a half.
    """
    counts = agreed.astype(np.float64)
    total = counts.sum(axis=0)
    if not total.any():
        return np.full(counts.shape, 0.5)
    counts[~counts.any(axis=1)] = total
    below = counts.cumsum(axis=1) - counts / 2
    # One more pixel, half below and half above, keeps every share from being 0 or 1.
    shares: NDArray[np.float64] = (below + 0.5) / (counts.sum(axis=1, keepdims=True) + 1)
    return shares


def _surely_wrong(region: _Region, rank_of: NDArray[np.float64], image: _Disagreement) -> float:
    """Return a region's pixels, each by how sure the model is of its class there, 0 to 1."""
    if not image.sure:
        return float(region.weights.sum()) / 2
    return float(region.weights @ rank_of[region.predicted])


def _rarities(matrices: NDArray[np.int64], disagreed: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n, C, C): -log10 of the share of a class that the model calls another elsewhere.

    Elsewhere means in all other images, and in regions, not along borders.

    Args:
        matrices: (n, C, C), rows the masks' classes.
        disagreed: (n, C, C), the part of ``matrices`` that lies in regions.
    """
    true = matrices.sum(axis=2)
    others = true.sum(axis=0) - true  # (n, C)
    confused = disagreed.sum(axis=0) - disagreed
    # One more pixel on both sides keeps every share above 0. A class that no other image shows gets
    # the least rarity, because nothing is known of it.
    rarity: NDArray[np.float64] = -np.log10((confused + 1) / (others[..., None] + 1))
    return np.clip(rarity, 0.1, 4)


def _box(image: _Disagreement, region: _Region | None) -> tuple[int, int, int, int]:
    height, width = image.shape
    if region is None or image.movement:
        return 0, 0, height, width
    top, left, rows, columns = (value * image.step for value in region.box)
    return top, left, min(rows, height - top), min(columns, width - left)


def _text(
    image: _Disagreement, region: _Region | None, classes: Sequence[str], commonest: int
) -> str:
    """Return the suspicion in plain words."""
    if image.movement:
        return f"the mask looks {image.movement}"
    if region is None:
        return ""
    a, b = region.truth, region.predicted
    shares = image.matrix / np.maximum(image.matrix.sum(axis=1, keepdims=True), 1)
    if shares[a, b] > _SWAPPED and shares[b, a] > _SWAPPED:
        first, second = sorted((a, b))
        return f"{classes[first]} and {classes[second]} look swapped in the mask"
    about = "about " if image.step > 1 else ""
    count = region.pixels * image.step**2
    pixels = "pixel" if count == 1 else "pixels"
    text = f"{about}{count:,} {pixels} of {classes[a]} in the mask, {classes[b]} by the model"
    if a == commonest:
        return f"{text}: is {classes[b]} missing in the mask?"
    if b == commonest:
        return f"{text}: is there {classes[a]} at all?"
    return f"{text}: is it {classes[b]}?"
