"""Findings about images that are equal, or nearly so."""

import re
from collections.abc import Iterator, Sequence
from itertools import compress, product

import numpy as np
from numpy.typing import NDArray

from unetseg.dataset import splits
from unetseg.dataset.findings.facts import Facts
from unetseg.dataset.findings.finding import Finding, Severity, refusal_of
from unetseg.dataset.survey import Survey
from unetseg.errors import InputError, arg, as_option
from unetseg.text import plural, show

_NEARLY = 0.75  # for these three, see `_nearly_equal`
_NEARLY_IN_DETAIL = 0.22
_SHIFT = 2
_COMMON = 0.02  # of a tile: more is an overlap, less is the rounding of borders
_ROWS = 512  # thumbnails that are compared with all others at once
_COPY = 0.08  # for these two, see `_is_copy`
_COPY_IN_DETAIL = 0.15


def judge_duplicates(facts: Facts) -> Iterator[Finding]:
    """Warn of images with equal pixels."""
    first: dict[str, Survey] = {}
    for survey in facts.surveys:
        other = first.setdefault(survey.sha256, survey)
        if other is not survey:
            text = f"the same picture as {_named(other)}"
            both = [s.pair.read_mask(facts.settings.selection) for s in (survey, other)]
            if not np.array_equal(both[0].values, both[1].values):
                text += ", with another mask"
            remedy = "they stay on one side of the split; keep one of them"
            page = survey.pair.page
            files = [survey.pair.image if page is None else f"{survey.pair.image}, page {page}"]
            yield Finding.of("warning", files, text, remedy)


def _named(survey: Survey) -> str:
    """Return the name of the file, and the number of the page where it holds several."""
    name, page = show(survey.pair.file_name), survey.pair.page
    return name if page is None else f"{show(survey.pair.image.name)}, page {page}"


def judge_copies(facts: Facts) -> Iterator[Finding]:
    """Warn of images that are others stored anew, such as JPEG copies: their pixels differ."""
    if len(facts.surveys) < 2:
        return
    thumbnails = np.array([s.thumbnail for s in facts.surveys])
    # Thumbnails have variance 1, so a short distance is a high correlation.
    close = _alike(thumbnails, (1 - _COPY**2 / 2) * np.square(thumbnails).sum(-1))
    for later, first in sorted((j, i) for i, j in close):
        one, other = facts.surveys[later], facts.surveys[first]
        if one.sha256 != other.sha256 and _is_copy(one, other):
            text = f"looks like {_named(other)} stored anew, such as a JPEG copy"
            remedy = "on two sides of the split they make the score too good; keep one of them"
            yield Finding.of("warning", [one.pair.image], text, remedy)


def _alike(
    thumbnails: NDArray[np.float32], least: NDArray[np.float32] | float
) -> Iterator[tuple[int, int]]:
    """Yield the pairs i < j of rows ``(n, P)`` whose product is larger than ``least``, or its j-th.

    The products of 10,000 rows with all others would take 400 MB at once.
    """
    for top in range(0, len(thumbnails), _ROWS):
        is_close = thumbnails[top : top + _ROWS] @ thumbnails.T > least
        yield from ((top + i, j) for i, j in np.argwhere(np.triu(is_close, top + 1)).tolist())


def _is_copy(one: Survey, other: Survey) -> bool:
    """Tell whether thumbnails and fine structure of two images differ by noise alone.

    The differences are shares of the larger norm. Copies as JPEG of quality 20 to 95, as WebP and
    of half the size were made of 220 images. Those of photographs and micrographs differ by at most
    0.03 in thumbnails and 0.12 in fine structure. Different images differ by at least 0.09 and 0.30
    (DRIVE), or 0.39 (CamVid).
    """
    return (
        _difference(one.thumbnail, other.thumbnail) <= _COPY
        and _difference(one.detail, other.detail) <= _COPY_IN_DETAIL
    )


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the difference as a share of the larger norm; infinite where both are flat."""
    norm = max(float(np.linalg.norm(one)), float(np.linalg.norm(other)))
    return float(np.linalg.norm(one - other)) / norm if norm else np.inf


def judge_neighbours(facts: Facts) -> tuple[str, list[Finding]]:
    """Return a pattern that groups nearly equal images, or "", and the findings about them."""
    names, group = [s.pair.file_stem for s in facts.surveys], facts.settings.group
    near = [
        (names[i], names[j])
        for i, j in _nearly_equal(facts.surveys)
        if names[i] != names[j] and not _is_copy(facts.surveys[i], facts.surveys[j])
    ]
    if group:
        try:
            near = [p for p in near if len({splits.group_of(n, group) for n in p}) == 2]
        except InputError as error:
            return "", [refusal_of(error, facts.commands)]
    if not near:
        return "", []
    are = "is" if len(near) == 1 else "are"
    text = f"{plural(len(near), 'pair')} of images {are} nearly equal, as neighbours in a video: "
    text += "; ".join(f"{show(a)} and {show(b)}" for a, b in near[:2])
    text += "; ..." if len(near) > 2 else ""
    text += ": on two sides of the split they make the score too good"
    pattern = "" if group else suggest_group(names, near)
    remedy = f"keep one of each pair, or pass a {arg('group')} that joins them"
    remedy = f"pass {arg('group', pattern)}" if pattern else remedy
    line = facts.commands.check(as_option("group", pattern)) if pattern else ""
    return pattern, [Finding.of("warning", [facts.root], text, remedy, line)]


def judge_tiles(facts: Facts) -> tuple[str, list[Finding]]:
    """Return a pattern that groups tiles of one scene, or "", and the findings about them."""
    group = facts.settings.group
    names, overlaps = _tiles(facts.surveys)
    if group:
        try:
            kept = [len({splits.group_of(n, group) for n in pair}) == 2 for pair in names]
        except InputError:  # `judge_neighbours` refuses it
            return "", []
        names, overlaps = list(compress(names, kept)), list(compress(overlaps, kept))
    if not names:
        return "", []
    common = [p for p, share in zip(names, overlaps, strict=True) if share > _COMMON]
    shown = common or names
    text = f"{plural(len(shown), 'pair')} of images "
    text += "show common places" if common else "touch each other"
    text += f" on the map: {'; '.join(f'{show(a)} and {show(b)}' for a, b in shown[:2])}"
    text += "; ..." if len(shown) > 2 else ""
    text += ": on two sides of the split they make the score too good"
    text += "" if common else " for other places"
    all_names = [s.pair.file_stem for s in facts.surveys]
    pattern = "" if group else suggest_group(all_names, names)
    remedy = f"pass a {arg('group')} that joins the tiles of one scene"
    remedy = f"pass {arg('group', pattern)}" if pattern else remedy
    line = facts.commands.check(as_option("group", pattern)) if pattern else ""
    severity: Severity = "warning" if common else "note"
    return pattern, [Finding.of(severity, [facts.root], text, remedy, line)]


def _tiles(surveys: Sequence[Survey]) -> tuple[list[tuple[str, str]], list[float]]:
    """Return the names of images that touch or overlap on a map, and the common shares of tiles."""
    placed = [
        (s.pair.file_stem, extent, s.places[0].epsg or 0, (extent[2] - extent[0]) / s.shape[1])
        for s in surveys
        if (extent := s.places[0].extent(*s.shape)) is not None
    ]
    names, overlaps = list[tuple[str, str]](), list[float]()
    if len(placed) < 2:
        return names, overlaps
    extents, systems = np.array([p[1] for p in placed]), np.array([p[2] for p in placed])
    areas = np.prod(extents[:, 2:] - extents[:, :2], 1)
    for i, (name, extent, system, pixel) in enumerate(placed):
        others = extents[i + 1 :]
        # Widths and heights that are common; below 0 they are gaps.
        common = np.minimum(others[:, 2:], extent[2:]) - np.maximum(others[:, :2], extent[:2])
        near = (common.min(1) > -pixel / 2) & (common.max(1) > pixel / 2)  # corners alone are not
        for k in np.flatnonzero(near & (systems[i + 1 :] == system)).tolist():
            if placed[i + 1 + k][0] != name:  # as pages of one file
                names.append((name, placed[i + 1 + k][0]))
                share = float(np.prod(common[k].clip(0)) / min(areas[i], areas[i + 1 + k]))
                overlaps.append(share)
    return names, overlaps


def suggest_group(names: Sequence[str], near: Sequence[tuple[str, str]]) -> str:
    """Return a regular expression for groups that fits the names of nearly equal images.

    The function tries the text before the last separator, the text before the last number, and
    names without their last one to three digits. A pattern fits if it is found in all names and
    holds nine of ten pairs together. It must also give at least three groups, of two images on
    average.

    Returns:
        The pattern; empty where none fits.
    """
    for pattern in (r"^(.+)[-_ .]", r"^(.*\D)\d+$", r"^(.*)\d$", r"^(.*)\d\d$", r"^(.*)\d\d\d$"):
        matches = [re.search(pattern, name) for name in names]
        if not all(matches):
            continue
        group = {n: m[1] for n, m in zip(names, matches, strict=True) if m}
        together = sum(group[a] == group[b] for a, b in near)
        if 3 <= len(set(group.values())) <= len(names) / 2 and together >= 0.9 * len(near):
            return pattern
    return ""


def _nearly_equal(surveys: Sequence[Survey]) -> list[tuple[int, int]]:
    """Return the pairs of images that show nearly the same.

    The function correlates thumbnails, and then the fine structure of those that are close. The
    mean of the set is subtracted from both, because all images may share a dark rim or a sky above
    a road. Thumbnails alone take two left eyes among right ones for the same.

    In 100 frames of CamVid, 33 thumbnails are over 0.75, all of one sequence, and 32 of these pairs
    over 0.22 in their fine structure. Two different eyes of DRIVE have 0.77 and 0.18. Among 100
    independently drawn pictures of lines and ellipses, no pair is over 0.50.
    """
    if len(surveys) < 4:  # too few images for a mean
        return []
    thumbnails = np.array([s.thumbnail for s in surveys])
    thumbnails -= thumbnails.mean(0)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-6)
    details = np.array([s.detail for s in surveys])
    details -= details.mean(0)
    return [
        (i, j)
        for i, j in _alike(thumbnails, _NEARLY)
        if surveys[i].sha256 != surveys[j].sha256 and _agree(details[i], details[j])
    ]


def _agree(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Tell whether two details correlate once one of them is moved by up to two pixels."""
    height, width = one.shape
    near = sorted(range(-_SHIFT, _SHIFT + 1), key=abs)
    for y, x in product(near, near):
        a = one[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)].ravel()
        b = other[max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)].ravel()
        lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
        if a @ b > _NEARLY_IN_DETAIL * max(lengths, 1e-6):
            return True
    return False
