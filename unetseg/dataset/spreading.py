"""Labels spread from strokes over training images, where a head is sure of them.

A network learns little from strokes alone. The head of ``unetseg.features`` learns all of them in
seconds. It learns how large the classes are from pixels that nobody painted. Most pixels that
strokes leave open then take its class, so that training has whole areas to learn from. A held-out
image keeps its strokes: nothing that was spread is ever scored.
"""

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unetseg.classes import IGNORED
from unetseg.features.extraction import Extractor, Features, reduced_size
from unetseg.features.head import Head, Sample, adapt_head, draw_sample, fit_head

_LEAST = 0.5  # a smaller probability leaves a pixel open; of the others, 91 % are right on CamVid
_PIXELS, _PENALTY = 15_000, 3e-5  # of a head: it learns once, and from many images
_SEEN = 50_000  # open pixels that show a head how large the classes are
_LEARNED = 200  # the head learns from so many images at most
_FINE = 640 * 640  # pixels: images up to this size are described at double size, too
_KEPT = 2**30  # bytes of features kept until their image is labelled; others are computed again
_TRIED = 512  # the side of the image that a rehearsal takes; small ones take more time a pixel

Work = tuple[Sequence[int], Sequence[int]]
"""The numbers of the images to learn from, in ascending order, and of those to spread labels in."""
_Seen = tuple[Features, NDArray[np.uint8], NDArray[np.bool_]]  # with mask and open pixels
Read = Callable[[int], tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.bool_]]]
Steps = Callable[[Sequence[int], str], Iterator[int]]


@dataclass(frozen=True)
class SpreadMask:
    """A mask with spread labels, compressed.

    Attributes:
        packed: (H, W) uint8 class indices, 255 ignored, deflated.
        shape: Its height and width.
        counts: (C,) int64, the pixels of each class.
    """

    packed: bytes
    shape: tuple[int, int]
    counts: NDArray[np.int64]

    def read(self) -> NDArray[np.uint8]:
        """Return the mask."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.shape)


def spread_labels(
    works: Sequence[Work], classes: int, read: Read, steps: Steps, finely: bool
) -> list[dict[int, SpreadMask]]:
    """Return the masks of sparse images with the pixels that a head is sure of, by their numbers.

    Painted pixels stay as they are. Nothing is spread where fewer than two classes are painted.
    Each network has a head of its own, which learns from the images of that network alone. The
    result for a network does not depend on the others.

    Args:
        works: The work for each network that will be trained.
        classes: The number C of classes.
        read: Returns an image (H, W, C), its mask (H, W), and which of its pixels may be labelled.
        steps: Yields the numbers one by one while it reports and checks, for a named stage.
        finely: Images are described at double size, too.
    """
    found: list[dict[int, SpreadMask]] = [{} for _ in works]
    for group in _alike(works):
        masks = _spread_together([works[k] for k in group], classes, read, steps, finely)
        for k, spread in zip(group, masks, strict=True):
            found[k] = spread
    return found


def can_be_fine(shapes: Sequence[tuple[int, int]]) -> bool:
    """Return whether images of these heights and widths are described at double size, too.

    Their features are four times the work. All images of a head need features of the same kinds.
    """
    return all(math.prod(shape) <= _FINE for shape in shapes)


def pixels_of_work(works: Sequence[Work], shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the pixels whose features will be computed at least, and those to be classified.

    Args:
        works: The argument of `spread_labels`.
        shapes: The height and the width of each image.
    """
    pixels = [math.prod(reduced_size(*shape)) for shape in shapes]
    seen = [
        set().union(*(part for k in group for part in (_learned(works[k]), works[k][1])))
        for group in _alike(works)
    ]
    computed = sum(pixels[number] for numbers in seen for number in numbers)
    return computed, sum(pixels[number] for _, sparse in works for number in sparse)


class Rehearsal:
    """Spreads labels over a small image, to tell how long that takes at present.

    Args:
        channels: The channels of an image.
        classes: The number of classes.
        finely: The image is described at double size, too.
    """

    def __init__(self, channels: int, classes: int, finely: bool) -> None:
        rng = np.random.default_rng(0)
        self._image = rng.random((_TRIED, _TRIED, channels), np.float32)
        self._extractor, self._finely = Extractor(), finely
        features = sum(self._extractor.extract(self._image, finely=finely).groups)
        weights = torch.from_numpy(rng.normal(0, 0.1, (features, classes)).astype(np.float32))
        self._head = Head(weights, torch.zeros(classes), torch.arange(classes))

    def seconds(self) -> tuple[float, float]:
        """Return the seconds for the features of a pixel, and those in which it is classified."""
        begin = time.monotonic()
        features = self._extractor.extract(self._image, finely=self._finely)
        middle = time.monotonic()
        self._head.classify(features, least=_LEAST)
        return (middle - begin) / _TRIED**2, (time.monotonic() - middle) / _TRIED**2


def _alike(works: Sequence[Work]) -> list[list[int]]:
    """Return the numbers of works in groups with the same first image.

    That image normalises all images of an `Extractor`, so that a group shares its features.
    """
    groups: dict[int, list[int]] = {}
    for k, (labelled, sparse) in enumerate(works):
        if sparse:
            groups.setdefault(labelled[0], []).append(k)
    return list(groups.values())


def _learned(work: Work) -> Sequence[int]:
    """Return the images from whose strokes a head learns: all, or some of many."""
    labelled, _ = work
    return labelled[:: -(-len(labelled) // _LEARNED)]


def _spread_together(
    works: Sequence[Work], classes: int, read: Read, steps: Steps, finely: bool
) -> list[dict[int, SpreadMask]]:
    """Return the result of `spread_labels` for works with the same first image."""
    extractor, kept = Extractor(), dict[int, _Seen]()

    def see(number: int) -> _Seen:
        image, mask, is_open = read(number)
        return extractor.extract(image, finely=finely), mask, is_open

    learned = [_learned(work) for work in works]
    fewest = min(map(len, learned))
    samples, evenly = dict[int, Sample](), dict[tuple[int, int], torch.Tensor]()
    for number in steps(sorted(set().union(*learned)), "learning the strokes of"):
        features, mask, is_open = see(number)
        samples[number] = draw_sample(features, mask, _PIXELS // fewest)
        unpainted = (mask == IGNORED) & is_open
        for count in {len(numbers) for numbers in learned if number in numbers}:
            evenly[number, count] = _draw_evenly(features, unpainted, _SEEN // count)
        if sum(f.nbytes for f, _, _ in kept.values()) + features.nbytes <= _KEPT:
            kept[number] = features, mask, is_open
    heads = [
        _fit([samples[n] for n in numbers], torch.cat([evenly[n, len(numbers)] for n in numbers]))
        for numbers in learned
    ]
    found: list[dict[int, SpreadMask]] = [{} for _ in works]
    due = [
        (head, set(sparse), masks)
        for head, (_, sparse), masks in zip(heads, works, found, strict=True)
        if head is not None
    ]
    numbers = sorted(set().union(*(sparse for _, sparse, _ in due)))
    for number in steps(numbers, "spreading the labels of"):
        features, mask, is_open = kept.pop(number) if number in kept else see(number)
        for head, sparse, masks in due:
            if number in sparse:
                answer = head.classify(features, least=_LEAST)
                masks[number] = _completed(mask, is_open, answer, features.scale, classes)
    return found


def _draw_evenly(features: Features, wanted: NDArray[np.bool_], most: int) -> torch.Tensor:
    """Return the features (n, F), float16, of wanted pixels (H, W) on a regular grid."""
    step = math.ceil(math.sqrt(wanted.size / most))
    rows, columns = np.nonzero(wanted[step // 2 :: step, step // 2 :: step])
    return features.at(step // 2 + step * rows, step // 2 + step * columns).half()


def _fit(samples: Sequence[Sample], evenly: torch.Tensor) -> Head | None:
    """Return a head for open pixels; None where fewer than two classes are painted."""
    head = fit_head(samples, most=_PIXELS, penalty=_PENALTY)
    return adapt_head(head, samples, evenly) if head and len(evenly) else head


def _completed(
    mask: NDArray[np.uint8],
    is_open: NDArray[np.bool_],
    answer: NDArray[np.uint8],
    scale: int,
    classes: int,
) -> SpreadMask:
    """Return a mask (H, W) whose open pixels have the labels of an answer (H / s, W / s)."""
    height, width = mask.shape
    enlarged = answer.repeat(scale, 0).repeat(scale, 1)[:height, :width]
    mask = np.where((mask == IGNORED) & is_open, enlarged, mask)
    counts = np.bincount(mask.ravel(), minlength=256)[:classes]
    return SpreadMask(zlib.compress(mask.tobytes(), 1), (height, width), counts)
