"""Labels spread from strokes over training images, where a head is sure of them.

A network learns little from strokes alone. The head of ``unetseg.features`` learns all of them in
seconds. Most pixels that strokes leave open then take its class, so that training has whole areas
to learn from. A held-out image keeps its strokes: nothing that was spread is ever scored.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED
from unetseg.features.extraction import Extractor, Features
from unetseg.features.head import draw_sample, fit_head

_LEAST = 0.5  # a smaller probability leaves a pixel open; of the others, 93 % are right on CamVid
_LEARNED = 200  # the head learns from so many images at most
_KEPT = 2**29  # bytes of features kept until their image is labelled; others are computed again

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
    labelled: Sequence[int], sparse: Sequence[int], classes: int, read: Read, steps: Steps
) -> dict[int, SpreadMask]:
    """Return the masks of sparse images with the pixels that a head is sure of, by their numbers.

    Painted pixels stay as they are. Nothing is spread where fewer than two classes are painted.

    Args:
        labelled: The numbers of the images to learn from.
        sparse: Those of them whose labels are spread.
        classes: The number C of classes.
        read: Returns an image (H, W, C), its mask (H, W), and which of its pixels may be labelled.
        steps: Yields the numbers one by one while it reports and checks, for a named stage.
    """
    extractor, kept = Extractor(), dict[int, _Seen]()

    def see(number: int) -> _Seen:
        image, mask, is_open = read(number)
        return extractor.extract(image), mask, is_open

    every = -(-len(labelled) // _LEARNED)
    samples = []
    for number in steps(labelled[::every], "learning the strokes of"):
        features, mask, is_open = see(number)
        samples.append(draw_sample(features, mask))
        if sum(f.nbytes for f, _, _ in kept.values()) + features.nbytes <= _KEPT:
            kept[number] = features, mask, is_open
    head = fit_head(samples)
    if head is None:
        return {}
    found = {}
    for number in steps(sparse, "spreading the labels of"):
        features, mask, is_open = kept.pop(number) if number in kept else see(number)
        answer = head.classify(features, least=_LEAST)
        height, width = mask.shape
        enlarged = answer.repeat(features.scale, 0).repeat(features.scale, 1)[:height, :width]
        mask = np.where((mask == IGNORED) & is_open, enlarged, mask)
        counts = np.bincount(mask.ravel(), minlength=256)[:classes]
        found[number] = SpreadMask(zlib.compress(mask.tobytes(), 1), (height, width), counts)
    return found
