"""The geometry of patches: where windows start, which pixels they show, and how they are merged.

A length of 10 covered by windows of 5 with a stride of 3 (`starts`)::

    pixel   0 1 2 3 4 5 6 7 8 9
    start 0 [-------]
    start 3       [-------]
    start 5           [-------]     the last one is flush with the border

A patch of size S is stored with a margin m on each side (`cut`). So a rotated, shifted or zoomed
view of its core still shows real pixels::

    +-----------------+
    |  m              |   margin: real pixels; outside the image
    |   +---------+   |   reflected, and ignored in the mask
    |   |  core S |   |
    |   +---------+   |
    +-----------------+   side S + 2m
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED
from unetseg.settings import SYMMETRIES

# A square turned by 45 degrees is sqrt(2) times as wide. This margin on each side holds it.
_MARGIN = (math.sqrt(2) - 1) / 2
SPARSE = 0.5  # an image with a smaller share of labelled pixels has strokes rather than a mask


def starts(length: int, size: int, stride: int) -> NDArray[np.int64]:
    """Return where windows of ``size`` start so that they cover ``length`` pixels.

    Args:
        length: Pixels to cover, at least ``size``.
        size: Pixels of a window.
        stride: Pixels from one start to the next, 1 to ``size``.

    Returns:
        Ascending starts (n,), the first 0, the last ``length - size``.
    """
    last = length - size
    return np.append(np.arange(0, last, stride), last)


def tiles(length: int, kept: int, halo: int) -> list[tuple[slice, slice]]:
    """Return the tiles that cover ``length`` pixels without overlap, and the pixels each must see.

    A length of 10 in tiles of 4 with a halo of 2::

        pixel   0 1 2 3 4 5 6 7 8 9
        seen    [---------]             kept 0 to 4
                    [-------------]     kept 4 to 8
                            [-----]     kept 8 to 10

    Args:
        length: Pixels to cover.
        kept: Pixels that a tile keeps; the last tile may keep fewer.
        halo: Pixels that a tile sees beyond those on each side, as far as there are any.

    Returns:
        For each tile the pixels that it sees, and the part of them that it keeps, counted from the
        start of the tile.
    """
    found = []
    for start in range(0, length, kept):
        stop = min(start + kept, length)
        first = max(start - halo, 0)
        found.append((slice(first, min(stop + halo, length)), slice(start - first, stop - first)))
    return found


def margin_of(size: int) -> int:
    """Return the margin in pixels stored around a patch of ``size``: 20 for 96."""
    return math.ceil(size * _MARGIN)


def auto_size(shapes: list[tuple[int, int]]) -> int:
    """Return a patch size for images of these (height, width): half the typical shorter side.

    The size is a multiple of 32 from 64 to 256. A window shows enough around a pixel to tell its
    class, and a batch of windows shows enough different places.
    """
    shorter = float(np.median([min(shape) for shape in shapes]))
    return int(np.clip(round(shorter / 2 / 32) * 32, 64, 256))


def auto_count(shape: tuple[int, int], size: int, rare: float) -> int:
    """Return how many patches store each pixel of an image about once.

    Args:
        shape: Height and width of the image.
        size: Side of a patch.
        rare: The share of the patches drawn by class; these come on top.
    """
    return math.ceil(shape[0] * shape[1] / size**2 / max(1 - rare, 0.1))


def sample_corners(
    mask: NDArray[np.uint8], size: int, count: int, rare: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the top left corners of patches from an image.

    Most corners are spread evenly over the image by the R2 sequence (Roberts, 2018, "The
    unreasonable effectiveness of quasirandom sequences") from a random start. Their range passes
    the border by a third of a patch and is clipped back. So a pixel at an edge is shown a third as
    often as a pixel in the middle. Without that range it would hardly ever be shown. If less than
    half of the image is labelled, as by strokes of a brush, these corners are placed at random over
    labelled pixels. Those pixels are taken at even steps along the rows. For the share ``rare``, a
    class is drawn evenly among those present, and the patch is placed at random over a pixel of it.

    Args:
        mask: (H, W) class indices, 255 ignored.
        size: Side of a patch; the corner is 0 along a side that is shorter than a patch.
        count: The number of corners.
        rare: The share of corners drawn by class, 0 to 1.
        rng: Source of randomness.

    Returns:
        (count, 2) of row and column, each 0 to ``max(0, side - size)``.
    """
    last = np.maximum(np.array(mask.shape) - size, 0)
    flat = mask.ravel()
    is_labelled = flat != IGNORED
    labelled = int(np.count_nonzero(is_labelled))
    present = np.unique(flat[is_labelled])
    by_class = round(count * rare) if len(present) else 0
    steps = np.arange(count - by_class)[:, None] * np.array(
        [0.7548776662466927, 0.5698402909980532]
    )
    spread = (rng.random(2) + steps) % 1  # (count - by_class, 2) in 0..1
    even, pixels = np.empty((0, 2)), list[int]()
    if 0 < labelled < SPARSE * mask.size:
        taken = (spread[:, 0] * labelled).astype(np.int64)
        pixels += np.flatnonzero(is_labelled)[taken].tolist()
    else:
        beyond = size / 3
        even = np.clip(np.round(spread * (last + 2 * beyond) - beyond), 0, last)
    places = {c: np.flatnonzero(flat == c) for c in present} if by_class else {}
    for label in rng.choice(present, by_class) if by_class else ():
        pixels.append(int(rng.choice(places[label])))
    drawn = [
        np.clip(np.array(divmod(pixel, mask.shape[1])) - rng.integers(0, size, 2), 0, last)
        for pixel in pixels
    ]
    return np.concatenate([even, np.reshape(drawn, (-1, 2))]).astype(np.int64)


def pad_for_cutting(
    image: NDArray[Any], mask: NDArray[np.uint8], size: int
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return image and mask with the margin of ``size`` around them, for `cut`.

    Outside the image, pixels are reflected and the mask is ignored (255). An image smaller than a
    patch is filled up at the bottom and on the right.
    """
    m = margin_of(size)
    fill = [(m, m + max(0, size - side)) for side in mask.shape]
    padded = np.pad(image, [*fill, (0, 0)], mode="symmetric")
    return padded, np.pad(mask, fill, constant_values=IGNORED)


def cut(padded: NDArray[Any], corner: tuple[int, int], size: int) -> NDArray[Any]:
    """Return the patch, margin included, whose core starts at ``corner`` of the unpadded image.

    Args:
        padded: Image or mask from `pad_for_cutting`.
        corner: Row and column.
        size: Side S of the core.

    Returns:
        (S+2m, S+2m, ...) view into ``padded``.
    """
    row, column = corner
    side = size + 2 * margin_of(size)
    return padded[row : row + side, column : column + side]


def covered_pixels(
    mask: NDArray[np.uint8], corners: NDArray[np.int64], size: int
) -> tuple[int, int]:
    """Return two counts of an image: labelled pixels in at least one core, and labelled pixels."""
    seen = np.zeros(mask.shape, bool)
    for row, column in corners:
        seen[row : row + size, column : column + size] = True
    labelled = mask != IGNORED
    return int((seen & labelled).sum()), int(labelled.sum())


def pad_to(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return ``image`` (H, W, C) reflected at the bottom and right up to a least size."""
    fill = [(0, max(0, height - image.shape[0])), (0, max(0, width - image.shape[1])), (0, 0)]
    return np.pad(image, fill, mode="symmetric") if fill[0][1] or fill[1][1] else image


def window_weights(size: int, kind: str) -> NDArray[np.float32]:
    """Return the weight of each pixel of a window where windows overlap.

    Args:
        size: Side S of the window.
        kind: "uniform", or "gaussian" with sigma = S / 8 as in nnU-Net (Isensee et al., 2021). With
            the latter, pixels near a window's border count least: they saw little around them.

    Returns:
        (S, S) weights from 0.001 to 1; none is 0, so that a pixel seen once can be scaled.
    """
    if kind == "uniform":
        return np.ones((size, size), np.float32)
    offsets = np.arange(size) - (size - 1) / 2
    bell = np.exp(-0.5 * (offsets / (size / 8)) ** 2)
    weights = np.outer(bell, bell)
    scaled: NDArray[np.float32] = np.maximum(weights / weights.max(), 1e-3).astype(np.float32)
    return scaled


def symmetries_of(halves: NDArray[np.int64]) -> frozenset[str]:
    """Return the symmetries that a set of images has, judged by where its classes lie.

    Up and down differ if the classes of the upper and the lower halves differ by more than a tenth
    of the pixels. They must differ in the same way from image to image, as with sky above and road
    below. Left and right are compared alike. Images in which no direction is special may be turned,
    too.

    Args:
        halves: (images, 2, 2, C) pixels of each class. For each image, the first two are the upper
            and the lower half, the last two the left and the right half.

    Returns:
        A subset of `unetseg.settings.SYMMETRIES`.
    """
    shares = halves / np.maximum(halves.sum(-1, keepdims=True), 1)
    difference = shares[:, :, 0] - shares[:, :, 1]  # (images, direction, C)
    mean = np.abs(difference.mean(0)).sum(-1) / 2  # total variation, 0 to 1, for each direction
    single = np.abs(difference).sum(-1).mean(0) / 2
    # n images agree by chance alone to about 1 / sqrt(n).
    agreement = np.clip(2 / np.sqrt(len(halves)), 0.5, 0.8)
    special = (mean > 0.1) & (mean > agreement * single)
    found = {name for name, s in zip(("vflip", "hflip"), special, strict=True) if not s}
    return frozenset(SYMMETRIES) if len(found) == 2 else frozenset(found)
