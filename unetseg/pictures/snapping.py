"""From blended or noisy masks to class indices, where that is safe.

All functions take and return arrays. An error asks about colours that lie near no class, or that
may be a class of their own.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED, ClassTable, table_of
from unetseg.errors import Code, InputError, arg
from unetseg.pictures import masks
from unetseg.pictures.masks import (
    NOISE,
    Found,
    Key,
    NoClassError,
    Place,
    RawMask,
    Runs,
    is_between,
)

LIMIT = 0.05  # a mask with smooth edges has a smaller share of blended pixels

_CLUSTER = 0.001  # a class of a noisy set has a larger share of all pixels
# A class that is more than thin lines has a larger share of its pixels in patches of 3 x 3.
_SOLID = 0.05
# A colour between two others is no blend of them if it has a larger share of its pixels there.
_MOSTLY_SOLID = 0.5
_COMMON = 0.01  # a colour with a larger share of all pixels is not passed over as noise
_ADVICE = f"list the classes in a file and pass it with {arg('classes')}"


@dataclass(frozen=True)
class Snapped:
    """A mask whose pixels went to the nearest class.

    Attributes:
        mask: ``(H, W)`` uint8 class indices, 255 ignored.
        moved: The number of pixels that had the colour of no class.
        blended: The number of moved pixels whose colour was farther from the class than noise.
    """

    mask: NDArray[np.uint8]
    moved: int = 0
    blended: int = 0


def snap(raw: RawMask, table: ClassTable, what: object, limit: float = LIMIT) -> Snapped:
    """Return the class of each pixel; a colour of no class goes to the nearest one.

    Args:
        raw: The stored pixels.
        table: The classes, with the values or colours that stand for them.
        what: The file, for messages.
        limit: Share of the pixels, 0 to 1, that may lie farther from the nearest class than noise.

    Raises:
        InputError: The errors of `masks.decode`. A colour of no class is accepted if classes lie
            far apart, and no blend of two looks like a third. No solid patch may be far from all
            classes, and few pixels may be blends. A mask of a lossy format is refused if classes
            lie close, even where each of its values is a class.
    """
    if raw.is_lossy and not are_apart(table):
        raise _too_close(what, "the values of classes")
    try:
        codes, indices = masks.match(raw, table, what)
    except InputError as error:
        return _snap(raw, table, what, limit, error)
    unknown = indices < 0
    if not unknown.any():
        return Snapped(indices.astype(np.uint8))
    return _snap(raw, table, what, limit, lambda: masks.no_class(codes, unknown, table, what))


def read_binary(raw: RawMask, what: object, limit: float = LIMIT) -> Snapped:
    """Return 1 where a mask of two values holds the higher, else 0; zeros only stay 0.

    Raises:
        InputError: The mask holds more than two values, and the others are no blends of two.
    """
    grey = raw.values
    if raw.palette is not None:
        grey = raw.palette.max(1)[raw.values]
    elif grey.ndim == 3:
        grey = grey.max(-1)
    levels = np.unique(grey)
    if len(levels) <= 2:
        return Snapped(((grey == levels[-1]) & (grey > 0)).astype(np.uint8))
    text = f"{len(levels)} values where two are due"
    error = InputError(what, text, "save it as black and white")
    return _snap(RawMask(grey), table_of([0, int(levels[-1])]), what, limit, error)


def refuse_close(raw: RawMask, what: object) -> None:
    """Refuse a mask of a lossy format whose values are so close that its noise hides them.

    Such are all its values, or the values of two areas. Areas are patches of 3 x 3 equal pixels.
    The noise of JPEG leaves a value to at most 0.4 % of all pixels in such patches, measured down
    to quality 10.

    Raises:
        InputError: Its code is `Code.CLOSE_VALUES`.
    """
    if not raw.is_lossy:
        return
    codes = masks.colour_codes(raw, what)
    points = _unpack(np.unique(codes))
    span = int(np.ptp(points, axis=0).max())
    solid, counts = np.unique(codes[_even(codes)], return_counts=True)
    areas = _unpack(solid[counts > _COMMON * codes.size])
    if 0 < span < 2 * NOISE or _least_distance(areas) <= NOISE:
        raise _too_close(what, "its values")


def are_apart(table: ClassTable) -> bool:
    """Tell whether the keys of classes lie so far apart that noise leads to none of the others."""
    return _least_distance(_key_points(table)) >= 2 * NOISE


def _too_close(what: object, values: str) -> InputError:
    text = f"{values} lie too close for a lossy format such as JPEG, which changes them"
    return InputError(what, text, "export the masks anew, as PNG", code=Code.CLOSE_VALUES)


def _least_distance(points: NDArray[np.int64]) -> int:
    """Return the least distance in levels between two of the colours ``(n, 3)``; 255 for one."""
    apart = np.abs(points[:, None] - points[None]).max(-1)
    np.fill_diagonal(apart, 255)
    return int(apart.min(initial=255))


def _key_points(table: ClassTable) -> NDArray[np.int64]:
    """Return the colours ``(n, 3)`` of classes, then of ignored keys; values count as grey."""
    keys = [table.key(i) for i in range(len(table.classes))] + list(table.ignore)
    return np.array([masks.levels_of(key) for key in keys]).clip(max=255)


def doubt_thin(
    table: ClassTable, pixels: NDArray[np.int64], is_thin: NDArray[np.bool_]
) -> InputError | None:
    """Return the question about classes that may be blends of two others; None where none may.

    Args:
        table: The classes, as masks hold them.
        pixels: ``(C,)`` pixels of each class in all masks.
        is_thin: ``(C,)`` whether a class is nowhere wider than two pixels.
    """
    keys = [table.key(i) for i in range(len(table))]
    points = np.array([masks.levels_of(key) for key in keys])
    sides = dict[Key, tuple[Key, Key]]()  # of each blend
    for i in np.flatnonzero(is_thin).tolist():
        # The middle value of 0, 1 and 2 is no blend.
        others = [j for j, p in enumerate(points) if np.abs(p - points[i]).max() > NOISE]
        for j, k in itertools.combinations(others, 2):
            is_rare = pixels[i] < 0.1 * min(pixels[j], pixels[k])
            if is_rare and is_between(points[i], points[j], points[k]):
                sides.setdefault(keys[i], (keys[j], keys[k]))
    if not sides:
        return None
    blends, (low, high) = ", ".join(map(str, sides)), next(iter(sides.values()))
    are = "is" if len(sides) == 1 else "are"
    text = f"{blends} {are} nowhere wider than two pixels: a class, or a blend, as of {low} and "
    text += f"{high}?"
    remedy = f"a class: list all in a classes.toml; a blend: list all but {blends}, then convert"
    return InputError(masks.ALL_MASKS, text, remedy, code=Code.THIN_BLEND)


def count_solid(labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return the pixels ``(C,)`` of each class whose eight neighbours are of it, too.

    Args:
        labels: ``(H, W)`` class indices, 255 ignored.
        classes: Their number C.
    """
    return np.bincount(labels[_even(labels)], minlength=IGNORED + 1)[:classes]


def find_centres(found: Iterable[Found], raws: Iterable[RawMask]) -> list[str]:
    """Return the colours "#rrggbb" that a noisy set is made of.

    The commonest colour and all colours within noise of it are a group. The commonest of the rest
    makes the next group, and so on. A group that holds hardly any pixels, or fills no patch of
    3 x 3 pixels, is noise. A group between two others is a blend, unless half of it fills patches.

    Args:
        found: `masks.find_keys` of each mask.
        raws: The masks, one by one.

    Raises:
        InputError: A group that may be a class of thin lines, or noise.
    """
    histogram: Counter[int] = Counter()
    for one in found:
        for key, count in one.counts.items():
            colour = key if isinstance(key, str) else one.colours.get(key)
            code = min(int(key), 255) * 0x010101 if colour is None else masks.code_of(colour)
            histogram[code] += count
    points, shares, group_of = _groups(histogram)
    solid = np.zeros(len(points))
    for raw in raws:
        solid += _solid_pixels(raw, group_of, len(points))
    solid /= np.maximum(shares * histogram.total(), 1)
    centres: list[NDArray[np.int64]] = []
    for i in np.argsort(-shares):
        point = points[i]
        is_blend = any(is_between(point, a, b) for k, a in enumerate(centres) for b in centres[:k])
        if shares[i] < _CLUSTER or (is_blend and solid[i] < _MOSTLY_SOLID):
            continue
        if solid[i] >= _SOLID:
            centres.append(point)
        elif shares[i] >= _COMMON and all(np.abs(c - point).max() > 2 * NOISE for c in centres):
            text = f"{_clean(point)} in {100 * shares[i]:.1f} % of the pixels: thin lines or noise?"
            raise InputError(masks.ALL_MASKS, text, _ADVICE)
    return [_clean(c) for c in centres]


def _groups(
    histogram: Counter[int],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int8]]:
    """Gather similar colours of a set into groups, the commonest colours first.

    Returns:
        The colour ``(G, 3)`` and the share of pixels ``(G,)`` of each group. The group of each code
        0xrrggbb ``(2**24,)``; -1 for none.
    """
    codes = np.array([c for c, _ in histogram.most_common()], np.int64)
    counts = np.array([n for _, n in histogram.most_common()], np.int64)
    points = _unpack(codes)
    group = np.full(len(codes), -1)
    firsts: list[int] = []
    while (group < 0).any() and len(firsts) < masks.MAX_FOUND:
        first = int((group < 0).argmax())
        near = (group < 0) & (np.abs(points - points[first]).max(1) <= NOISE)
        group[near] = len(firsts)
        firsts.append(first)
    shares = np.array([counts[group == i].sum() for i in range(len(firsts))]) / counts.sum()
    group_of = np.full(2**24, -1, np.int8)  # there are at most 64 groups
    group_of[codes] = group
    return points[firsts], shares, group_of


def _solid_pixels(raw: RawMask, group_of: NDArray[np.int8], count: int) -> NDArray[np.int64]:
    """Return for each group the number of pixels whose eight neighbours belong to it, too."""
    runs = Runs.of(masks.colour_codes(raw, masks.ALL_MASKS))
    groups = runs.spread(group_of[runs.codes])
    if raw.unlabelled is not None:
        groups[raw.unlabelled] = -1
    return np.bincount(groups[_even(groups) & (groups >= 0)], minlength=count)


def _even(codes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return where a pixel is equal to all eight neighbours; pixels at the edge are repeated."""
    padded = np.pad(codes, 1, mode="edge")
    right = padded[:, 1:] == padded[:, :-1]
    triples = right[:, 1:] & right[:, :-1]  # a pixel and its neighbours left and right
    down = padded[1:, 1:-1] == padded[:-1, 1:-1]
    even: NDArray[np.bool_] = triples[1:-1] & triples[:-2] & triples[2:] & down[1:] & down[:-1]
    return even


def _clean(colour: NDArray[np.int64]) -> str:
    """Return "#rrggbb"; channels a few levels from 0, 255 or, in colours, 128 are moved there."""
    pure = np.array([0, 255] if colour.min() == colour.max() else [0, 128, 255])
    nearest = pure[np.abs(colour[:, None] - pure).argmin(1)]
    channels = np.where(np.abs(colour - nearest) <= 8, nearest, colour)
    return "#{:02x}{:02x}{:02x}".format(*channels.tolist())


def _snap(
    raw: RawMask,
    table: ClassTable,
    what: object,
    limit: float,
    error: InputError | Callable[[], InputError],
) -> Snapped:
    """Return the class nearest to each pixel's colour; raise ``error`` where that is not clear."""
    keys = [table.key(i) for i in range(len(table.classes))] + list(table.ignore)
    indices = [*range(len(table.classes)), *(IGNORED for _ in table.ignore)]
    points = _key_points(table)
    if not are_apart(table) or (raw.values.ndim == 2 and raw.values.max() > 255):
        raise error if isinstance(error, InputError) else error()
    codes = masks.colour_codes(raw, what)
    if raw.unlabelled is not None:
        codes = np.where(raw.unlabelled, masks.pack_colours(points[0].astype(np.uint8)), codes)
    runs = Runs.of(codes)
    distinct = np.unique(runs.codes)
    distances = np.abs(_unpack(distinct)[:, None] - points[None]).max(-1)  # (codes, keys)
    nearest, distance = distances.argmin(1), distances.min(1)
    far = _of_runs(runs, distinct, distance > NOISE)
    blended = int(runs.lengths[far].sum())
    if blended:
        present = np.unique(nearest)
        _check_blends(what, points[present], [keys[i] for i in present], table)
        _check_solid(what, codes, runs.spread(far), table)
    if blended > limit * codes.size:
        text = f"{100 * blended / codes.size:.1f} % of the pixels lie between classes"
        remedy = (
            f"over the limit of {100 * limit:g} %: look at it, then pass a larger {arg('limit')}"
        )
        raise InputError(what, text, remedy)
    snapped = runs.spread(_of_runs(runs, distinct, np.array(indices, np.uint8)[nearest]))
    if raw.unlabelled is not None:
        snapped[raw.unlabelled] = IGNORED
    moved = runs.lengths[_of_runs(runs, distinct, distance > 0)]
    return Snapped(snapped, int(moved.sum()), blended)


def _of_runs(runs: Runs, distinct: NDArray[np.integer], values: NDArray[Any]) -> NDArray[Any]:
    """Return for each run the one of ``values`` that belongs to its code 0xrrggbb."""
    of_code = np.empty(2**24, values.dtype)  # a table is faster than the inverse of `np.unique`
    of_code[distinct] = values
    found: NDArray[Any] = of_code[runs.codes]
    return found


def _check_blends(
    what: object, points: NDArray[np.int64], keys: Sequence[int | str], table: ClassTable
) -> None:
    """Raise `InputError` where the colour of a class lies between those of two other keys.

    A blend that looks like an ignored key is ignored, so it gets no wrong class.

    Args:
        what: The mask, for the message.
        points: ``(n, 3)`` the colours of the keys that the mask holds.
        keys: The ``n`` keys.
        table: The classes, and the keys that are ignored.
    """
    for i, point in enumerate(points):
        if keys[i] in table.ignore:
            continue
        for j, a in enumerate(points):
            for k in range(j):
                if i not in (j, k) and is_between(point, a, points[k]):
                    text = f"blends of {keys[j]} and {keys[k]} look like class {keys[i]}"
                    raise InputError(what, text, "save the masks without smoothing, as PNG")


def _check_solid(
    what: object, codes: NDArray[np.integer], far: NDArray[np.bool_], table: ClassTable
) -> None:
    """Refuse patches of 3 x 3 pixels of one colour that is no class: no blend is so wide.

    Raises:
        NoClassError: It names each colour once, with those within noise of it.
    """
    solid = far & _even(codes)
    if not solid.any():
        return
    rows, columns = np.nonzero(solid)
    distinct, first, counts = np.unique(codes[solid], return_index=True, return_counts=True)
    points, keys = _unpack(distinct), dict[Key, Place]()
    left = np.ones(len(distinct), bool)
    while left.any() and len(keys) < masks.MAX_FOUND:
        i = int(np.where(left, counts, 0).argmax())
        near = left & (np.abs(points - points[i]).max(1) <= NOISE)
        is_value = table.encoding == "values" and points[i].min() == points[i].max()
        key: Key = int(points[i, 0]) if is_value else masks.hex_of(distinct[i])
        keys[key] = Place(int(counts[near].sum()), int(columns[first[i]]), int(rows[first[i]]))
        left &= ~near
    raise NoClassError(what, {what: keys}, table)


def _unpack(codes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the red, green and blue (..., 3) of codes 0xrrggbb."""
    wide = codes.astype(np.int64)
    return np.stack([wide >> 16, wide >> 8 & 255, wide & 255], axis=-1)
