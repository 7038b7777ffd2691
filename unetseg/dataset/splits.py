"""Dividing labelled images: those held out for scores, groups that stay together, folds."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unetseg.errors import InputError, arg
from unetseg.settings import PatchSettings

Split = Literal["train", "val"]

_HELD_OUT = {"val", "test"}  # parts of a divided set
_TRIES = 400  # random divisions; more of them changed no split of 10 to 200 images
_ENOUGH = 5  # groups with whole masks, from which some can be held out
_FOLD_TRIES = 50  # fewer do for folds: each division is dealt out with care, not at random


def group_of(stem: str, pattern: str) -> str:
    """Return the group of an image: the pattern's first group in its stem, else the match.

    Raises:
        InputError: The pattern is no regular expression, or it is not found in ``stem``.
    """
    try:
        match = re.search(pattern, stem)
    except re.error as error:
        text = f"{pattern!r} is no regular expression ({error})"
        raise InputError(arg("group"), text, "quote it, as in '^(.*)_'") from None
    if match is None:
        raise InputError(
            stem, f"{arg('group')} {pattern!r} is not found in it", "widen the pattern"
        )
    return (match[1] if match.re.groups else None) or match[0]


def groups_of(stems: Sequence[str], pattern: str | None) -> list[str]:
    """Return the group of each image; its own stem where there is no pattern.

    Raises:
        InputError: `group_of` refuses a name.
    """
    return [group_of(stem, pattern) if pattern else stem for stem in stems]


def has_parts(parts: Sequence[str], settings: PatchSettings) -> bool:
    """Return whether the parts of a set say which of its images are held out.

    They do where there is an image on both sides, and the settings ask for no other division.

    Args:
        parts: The part of each image, as `naming.Pair` holds it.
        settings: The settings of the cut.
    """
    kinds = set(parts)
    is_free = settings.val is None and settings.group is None
    return is_free and "train" in kinds and bool(kinds & _HELD_OUT)


def split_parts(parts: Sequence[str], hashes: Sequence[str]) -> list[Split]:
    """Divide images as the parts of their set do; copies of held-out images are held out, too.

    Args:
        parts: The part of each image, as `naming.Pair` holds it.
        hashes: `transforms.pixel_hash` of each image.
    """
    held = {sha256 for part, sha256 in zip(parts, hashes, strict=True) if part in _HELD_OUT}
    return ["val" if sha256 in held else "train" for sha256 in hashes]


def split_groups(
    groups: Sequence[str],
    class_presence: NDArray[np.bool_],
    hashes: Sequence[str],
    share: float,
    seed: int,
    is_sparse: NDArray[np.bool_] | None = None,
    is_learned: NDArray[np.bool_] | None = None,
) -> list[Split]:
    """Divide images into those to train on and those held out; groups stay whole.

    Images with equal hashes stay together, too. The function tries up to 400 random divisions and
    keeps the best. Four rules decide, in this order. At most half of the images are held out, or
    ``share`` of them where that is more. At least 3 images are held out where there are 10. Each
    class stands on both sides where it can. The number held out is close to ``share``.

    Strokes of a brush teach well and score badly, as they keep away from borders. So where enough
    other images have whole masks, images with strokes alone are not held out. Neither are images
    that the weights have learned from already, where enough others are there.

    Args:
        groups: The group of each image; its name where there are none.
        class_presence: ``(n, C)``, whether image n shows class C.
        hashes: `transforms.pixel_hash` of each image.
        share: The share of the images to hold out, 0 to 1; 0 holds out none.
        seed: Equal arguments give equal divisions.
        is_sparse: ``(n,)``, whether image n has strokes alone; None where all have whole masks.
        is_learned: ``(n,)``, whether a model to start from was trained on image n; None for no.

    Returns:
        "train" or "val" for each image.

    Raises:
        InputError: There is only one group, so nothing can be held out.
    """
    count = len(groups)
    if share == 0:
        return ["train"] * count
    units = _units(groups, hashes)  # (n,), numbered from 0
    total = int(units.max()) + 1
    if total == 1:
        text, remedy = "1 image, nothing to hold out", "label more images"
        if count > 1:
            text = f"{count} images in one group, nothing to hold out"
            remedy += f", make smaller groups by {arg('group')}"
        raise InputError(arg("val"), text, f"{remedy}, or pass {arg('val', 0)}")
    stays = _kept_back(np.zeros(total, bool), units, is_sparse)
    candidates = int((~stays[units]).sum())
    floor = 3 if candidates >= 10 else 1
    target = max(floor, share * candidates)
    stays = _kept_back(stays, units, is_learned)
    sizes = np.bincount(units)
    present = np.zeros((total, class_presence.shape[1]), bool)
    np.logical_or.at(present, units, class_presence)
    rng = np.random.default_rng(seed)
    best, best_score = np.zeros(total, bool), (np.inf,) * 5
    for _ in range(_TRIES):
        order = rng.permutation(np.flatnonzero(~stays))
        held_sizes = sizes[order].cumsum()[: total - 1]  # training needs a unit
        held = np.zeros(total, bool)
        held[order[: int(np.abs(held_sizes - target).argmin()) + 1]] = True
        score = (
            int(sizes[held].sum() > max(target, count / 2)),  # large groups are to be learned from
            max(0, floor - int(sizes[held].sum())),
            int((present.any(0) & ~present[~held].any(0)).sum()),
            int((present.any(0) & ~present[held].any(0)).sum()),
            abs(float(sizes[held].sum()) - target),
        )
        if score < best_score:
            best, best_score = held, score
        if best_score <= (0, 0, 0, 0, 0.5):  # no division can be closer than half an image
            break
    return ["val" if best[u] else "train" for u in units]


def _kept_back(
    stays: NDArray[np.bool_], units: NDArray[np.int64], flags: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """Return which units are not held out once those of flagged images are not, either.

    They are left as they are where too few others would be left to hold out.
    """
    more = stays.copy()
    if flags is not None:
        np.logical_or.at(more, units, flags)
    return more if (~more).sum() >= _ENOUGH else stays


def split_folds(
    groups: Sequence[str],
    class_presence: NDArray[np.bool_],
    hashes: Sequence[str],
    folds: int,
    seed: int,
) -> NDArray[np.int64]:
    """Divide images into folds of about equal size; groups stay whole.

    Images with equal hashes stay together, too. Images that stay together are a unit. Units are
    dealt out by the rarest class left, each to the fold that has the fewest units of that class.
    This is iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, algorithm 1); chance
    decides ties. The function tries up to 50 such divisions and keeps the best. Best means, in
    this order: fewest classes confined to a single fold, fewest folds that lack a class, most
    equal fold sizes. A class counts only where another division could do better.

    Args:
        groups: The group of each image; its name where there are none.
        class_presence: ``(n, C)``, whether image n shows class C.
        hashes: `transforms.pixel_hash` of each image.
        folds: The number of folds.
        seed: Equal arguments give equal divisions.

    Returns:
        ``(n,)`` int64, the fold of each image, from 0. No fold is empty.

    Raises:
        InputError: There are fewer units than folds.
    """
    units = _units(groups, hashes)
    total = int(units.max()) + 1
    if total < folds:
        kind = "group" if len(set(groups)) < len(groups) else "different image"
        text = f"{folds}, but there {'are' if total > 1 else 'is'} only {total} {kind}"
        remedy = (
            f"give {arg('folds', total)} or fewer, or label more" if total > 1 else "label more"
        )
        raise InputError(arg("folds"), text + "s" * (total > 1), remedy)
    sizes = np.bincount(units)
    present = np.zeros((total, class_presence.shape[1]), bool)
    np.logical_or.at(present, units, class_presence)
    rng = np.random.default_rng(seed)
    best, best_score = np.zeros(total, np.int64), (np.inf,) * 3
    for _ in range(_FOLD_TRIES):
        fold = _deal(present, sizes, folds, rng)
        counts = np.array([present[fold == f].sum(0) for f in range(folds)])  # (folds, C)
        covered, possible = (counts > 0).sum(0), np.minimum(counts.sum(0), folds)
        images = np.bincount(fold, sizes, folds)
        score = (
            float(((covered == 1) & (possible > 1)).sum()),
            float((possible - covered).sum()),
            float(np.ptp(images)),
        )
        if score < best_score:
            best, best_score = fold, score
        if best_score <= (0, 0, 1):
            break
    return best[units]


def _deal(
    present: NDArray[np.bool_], sizes: NDArray[np.int64], folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the fold of each unit.

    Args:
        present: ``(units, C)``, whether a unit shows a class.
        sizes: ``(units,)``, the images of each unit.
        folds: The number of folds.
        rng: Decides ties.
    """
    fold = np.full(len(sizes), -1)
    counts = np.zeros((folds, present.shape[1]), np.int64)
    filled = np.zeros(folds)
    ideal = sizes.sum() / folds
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]  # large ones while there is room
    while (left := fold < 0).any():
        open_units = present & left[:, None]
        remaining = open_units.sum(0)
        rarest = int(np.where(remaining > 0, remaining, len(sizes) + 1).argmin())
        dealt = [u for u in order if (open_units[u, rarest] if remaining.any() else left[u])]
        for unit in dealt:
            # A unit that would overfill every fold goes to the emptiest one.
            room = (filled + sizes[unit] <= ideal) | (filled == filled.min())
            chance = rng.random(folds)
            keys = (chance, filled, counts[:, rarest], ~room)
            chosen = int(np.lexsort(keys)[0])
            fold[unit] = chosen
            filled[chosen] += sizes[unit]
            counts[chosen] += present[unit]
    return fold


def _units(groups: Sequence[str], hashes: Sequence[str]) -> NDArray[np.int64]:
    """Return for each image the number of its unit ``(n,)``: units share no group and no hash.

    Units are numbered in the order in which their first images come.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    by_group, by_hash = (np.unique(keys, return_inverse=True)[1] for keys in (groups, hashes))
    # Groups and hashes are the nodes of a graph, and each image is an edge between two of them.
    count = len(groups)  # there are at most as many groups, and as many hashes
    edges = coo_matrix((np.ones(count), (by_group, by_hash + count)), (2 * count, 2 * count))
    parts = connected_components(edges, directed=False)[1][by_group]
    _, first, units = np.unique(parts, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[units]
