"""Findings about images that are equal, or nearly so."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from unetseg.dataset import splits
from unetseg.dataset.findings.facts import Facts
from unetseg.dataset.findings.finding import Finding, Severity
from unetseg.dataset.survey import Survey
from unetseg.errors import InputError, arg, as_option
from unetseg.text import plural, show

_NEARLY = 0.75  # for these three, see `_nearly_equal`
_NEARLY_IN_DETAIL = 0.22
_SHIFT = 2
_COMMON = 0.02  # of a tile: more is an overlap, less is the rounding of borders
_ROWS = 512  # thumbnails that are compared with all others at once
_MOST_PAIRS = 100  # of each image; see `_Pairs`
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
    thumbnails, named = np.array([s.thumbnail for s in facts.surveys]), dict[int, int]()
    # Thumbnails have variance 1, so a short distance is a high correlation.
    close = _alike(thumbnails, (1 - _COPY**2 / 2) * np.square(thumbnails).sum(-1))
    for first, others in close:
        for later in [j for j in others.tolist() if j not in named][:_MOST_PAIRS]:
            one, other = facts.surveys[later], facts.surveys[first]
            if one.sha256 != other.sha256 and _is_copy(one, other):
                named[later] = first
    for later, first in sorted(named.items()):
        text = f"looks like {_named(facts.surveys[first])} stored anew, such as a JPEG copy"
        remedy = "on two sides of the split they make the score too good; keep one of them"
        yield Finding.of("warning", [facts.surveys[later].pair.image], text, remedy)


def _alike(
    thumbnails: NDArray[np.float32], least: NDArray[np.float32] | float
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each row i of ``(n, P)`` with the rows j > i of close products, the closest first.

    These products are larger than ``least``, or its j-th. The products of 10,000 rows with all
    others would take 400 MB at once.
    """
    for top in range(0, len(thumbnails), _ROWS):
        products = thumbnails[top : top + _ROWS] @ thumbnails.T
        for k, is_close in enumerate(np.triu(products > least, top + 1)):
            others = np.flatnonzero(is_close)
            yield top + k, others[np.argsort(-products[k, others], kind="stable")]


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
    """Return a pattern that groups images which show the same, or "", and the findings about them.

    They are nearly equal, or tiles that touch or overlap on a map. Nearly equal tiles that overlap
    are said by their place alone.
    """
    names, group = [s.pair.file_stem for s in facts.surveys], facts.settings.group
    try:
        groups = splits.groups_of(names, group)
    except InputError:  # `judge_division` refuses it
        return "", []
    touching, overlapping = _tiles(facts.surveys, groups)
    near, known = _Pairs(), set(overlapping.some)
    for i, others, is_all in _nearly_equal(facts.surveys, groups):
        new = [j for j in others if (i, j) not in known]
        near.add(i, [j for j in new if not _is_copy(facts.surveys[i], facts.surveys[j])])
        near.is_all &= is_all
    tiles = [*overlapping.some, *touching.some]

    def pattern_of(pairs: Sequence[tuple[int, int]]) -> str:
        named = [(names[i], names[j]) for i, j in pairs]
        return suggest_group(names, named) if named and not group else ""

    of_all = pattern_of([*near.some, *tiles])
    of_near = of_all or pattern_of(near.some)
    of_tiles = of_all or ("" if of_near else pattern_of(tiles))  # two patterns would contradict
    found = list[Finding]()
    if near.count:
        text = f"{'is' if near.count == 1 else 'are'} nearly equal, as neighbours in a video"
        remedy = f"keep one of each pair, or pass a {arg('group')} that joins them"
        found.append(_apart(facts, "warning", near, text, of_near, remedy))
    remedy = f"pass a {arg('group')} that joins the tiles of one scene, or score another scene"
    if overlapping.count:
        text = f"{'shows' if overlapping.count == 1 else 'show'} common places on the map"
        found.append(_apart(facts, "warning", overlapping, text, of_tiles, remedy))
    elif touching.count:
        text = f"{'touches' if touching.count == 1 else 'touch'} each other on the map"
        found.append(_apart(facts, "note", touching, text, of_tiles, remedy, " for other places"))
    return of_near or of_tiles, found


@dataclass
class _Pairs:
    """Pairs of images, by their places in the set.

    Attributes:
        count: Their number.
        is_all: Whether these are all pairs.
        some: Up to `_MOST_PAIRS` of each image: 10,000 pictures of one place make 50 million pairs.
    """

    count: int = 0
    is_all: bool = True
    some: list[tuple[int, int]] = field(default_factory=list)

    def add(self, one: int, others: Sequence[int]) -> None:
        """Add the pairs of an image and others."""
        self.count += len(others)
        self.some += [(one, other) for other in others[:_MOST_PAIRS]]


def _apart(
    facts: Facts,
    severity: Severity,
    pairs: _Pairs,
    text: str,
    pattern: str,
    remedy: str,
    end: str = "",
) -> Finding:
    """Return the finding about pairs that may stand on two sides of the split."""
    names = [tuple(show(facts.surveys[k].pair.file_stem) for k in two) for two in pairs.some[:2]]
    number = plural(pairs.count, "pair")
    text = f"{number if pairs.is_all else f'at least {number}'} of images {text}: "
    text += "; ".join(f"{one} and {other}" for one, other in names)
    text += "; ..." if pairs.count > 2 else ""
    text += f": on two sides of the split they make the score too good{end}"
    remedy = f"pass {arg('group', pattern)}" if pattern else remedy
    line = facts.commands.check(as_option("group", pattern)) if pattern else ""
    return Finding.of(severity, [facts.root], text, remedy, line)


def _tiles(surveys: Sequence[Survey], groups: Sequence[str]) -> tuple[_Pairs, _Pairs]:
    """Return the images of two groups that touch on a map, and those that overlap there."""
    placed = [
        (k, extent, survey.places[0].epsg or 0)
        for k, survey in enumerate(surveys)
        if (extent := survey.places[0].extent(*survey.shape)) is not None
    ]
    touching, overlapping = _Pairs(), _Pairs()
    if len(placed) < 2:
        return touching, overlapping
    numbers, systems = np.array([p[0] for p in placed]), np.array([p[2] for p in placed])
    extents, kinds = np.array([p[1] for p in placed]), np.unique(groups, return_inverse=True)[1]
    kinds = kinds[numbers]
    areas = np.prod(extents[:, 2:] - extents[:, :2], 1)
    for k, number in enumerate(numbers.tolist()):
        extent, others = extents[k], slice(k + 1, None)
        # Widths and heights that are common; below 0 they are gaps.
        common = np.minimum(extents[others, 2:], extent[2:])
        common -= np.maximum(extents[others, :2], extent[:2])
        half = (extent[2] - extent[0]) / surveys[number].shape[1] / 2  # of a pixel
        near = (common.min(1) > -half) & (common.max(1) > half)  # corners alone are not
        near &= (systems[others] == systems[k]) & (kinds[others] != kinds[k])
        overlap = common.clip(0).prod(1) > _COMMON * np.minimum(areas[others], areas[k])
        for pairs, chosen in ((touching, near & ~overlap), (overlapping, near & overlap)):
            pairs.add(number, numbers[others][chosen].tolist())
    return touching, overlapping


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


def _nearly_equal(
    surveys: Sequence[Survey], groups: Sequence[str]
) -> Iterator[tuple[int, list[int], bool]]:
    """Yield each image with the later ones of other groups that show nearly the same.

    The function correlates thumbnails, and then the fine structure of those that are close. The
    mean of the set is subtracted from both, because all images may share a dark rim or a sky above
    a road. Thumbnails alone take two left eyes among right ones for the same. Of each image, the
    closest `_MOST_PAIRS` are looked at; the third value tells whether these are all.

    In 100 frames of CamVid, 33 thumbnails are over 0.75, all of one sequence, and 32 of these pairs
    over 0.22 in their fine structure. Two different eyes of DRIVE have 0.77 and 0.18. Among 100
    independently drawn pictures of lines and ellipses, no pair is over 0.50.
    """
    if len(surveys) < 4:  # too few images for a mean
        return
    thumbnails = np.array([s.thumbnail for s in surveys])
    thumbnails -= thumbnails.mean(0)
    thumbnails /= np.maximum(np.linalg.norm(thumbnails, axis=1, keepdims=True), 1e-6)
    mean = sum(s.detail for s in surveys) / len(surveys)
    kinds = np.unique(groups, return_inverse=True)[1]
    for i, others in _alike(thumbnails, _NEARLY):
        apart = others[kinds[others] != kinds[i]]
        detail = surveys[i].detail - mean
        near = [
            j
            for j in sorted(apart[:_MOST_PAIRS].tolist())
            if surveys[i].sha256 != surveys[j].sha256 and _agree(detail, surveys[j].detail - mean)
        ]
        yield i, near, len(apart) <= _MOST_PAIRS


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
