"""Findings about the classes that masks hold, and the size of their objects."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg.dataset.findings.facts import Facts
from unetseg.dataset.findings.finding import Finding, refusal_of
from unetseg.dataset.shapes import describe_hidden
from unetseg.dataset.survey import measuring_step
from unetseg.errors import InputError, arg, as_option
from unetseg.objects.numbering import Numbers, doubt_classes
from unetseg.pictures.discovery import mostly_transparent, two_kinds
from unetseg.pictures.masks import Found
from unetseg.pictures.snapping import count_solid, doubt_thin
from unetseg.text import plural, show

_FEWEST_CROSSINGS = 100  # with fewer, rims may be chance
_RIMS = 0.1  # see `judge_rims`
_FEWEST_ALIKE = 2  # masks of each kind: one alone is an image that shows something rare
_CHANCE = 0.2  # that classes of so many masks do not meet; 0.17 of two and two in four masks
_FEWEST_LEANS = 4  # masks: with fewer, there is no usual one
_CLEAR_SHARE = 0.1  # of the pixels, from one half
_CLEAR_CONTRAST = 0.3  # standard deviations; vessels of DRIVE have 0.5, membranes 1.1
_IGNORED_NAMES = (
    *("ignore", "ignored", "void", "unlabelled", "unlabeled", "not labelled"),
    *("not labeled", "don't care", "dont care", "unknown"),
)


def doubt_values(
    found: Mapping[str, Found], numbers: Mapping[Path, Numbers | None]
) -> InputError | None:
    """Return why the values of masks may be no classes; None where nothing speaks against it.

    Args:
        found: `masks.find_keys` of each mask, by its file name.
        numbers: `measure_numbers` of each mask.
    """
    return two_kinds(found) or mostly_transparent(found) or doubt_classes(numbers)


def judge_contents(facts: Facts) -> Iterator[Finding]:
    """Judge how often each class appears."""
    if facts.table is None or not len(facts.halves):
        return
    surveys, root, names = facts.surveys, facts.root, facts.table.names
    counts = facts.halves[:, 0].sum(1)
    if not counts.any():
        yield Finding.of(
            "error",
            [root],
            "every pixel of every mask is ignored",
            f"see {arg('ignore')}",
        )
        return
    absent = [show(n) for n, total in zip(names, counts.sum(0), strict=True) if not total]
    if absent:
        text = f"no mask shows {', '.join(absent)}"
        yield Finding.of("warning", [root], text, "leave it out of classes.toml, or label some")
    present = (counts > 0).sum(0)
    rare = [show(n) for n, images_with in zip(names, present, strict=True) if images_with == 1]
    if rare and len(surveys) > 1:
        text = f"only one image shows {', '.join(rare)}: nothing is left to score it on"
        yield Finding.of("warning", [root], text, "label more")
    if (present > 0).sum() == 1:
        text = f"all masks hold one class only, {show(names[int(present.argmax())])}"
        yield Finding.of("error", [root], text, "there is nothing to learn; look at the masks")
        return
    for i, name in enumerate(names):
        alone = (counts[:, i] > 0) & (counts.sum(1) == counts[:, i])
        files = [s.pair.named for s, only in zip(surveys, alone, strict=True) if only]
        if files:
            text = f"nothing but {show(name)} in these masks ({len(files)} of {len(surveys)})"
            yield Finding.of("warning", files, text, "look whether they are labelled at all")


def judge_names(facts: Facts) -> Iterator[Finding]:
    """Ask about names that differ in capitals alone, and about classes that are called ignored."""
    if facts.table is None:
        return
    alike = defaultdict[str, list[str]](list)
    for name in facts.table.names:
        alike[name.casefold()].append(show(name))
    for names in alike.values():
        if len(names) > 1:
            text = f"{' and '.join(names)} differ in capitals alone: one class, or several?"
            remedy = "if it is one, give it one name in the labels"
            yield Finding.of("warning", [facts.root], text, remedy)
    for i, name in enumerate(facts.table.names):
        if name.casefold() in _IGNORED_NAMES:
            text = f"{show(name)} is a class, learnt and scored like any other"
            key = facts.table.key(i)
            remedy = f"if its pixels have no label, pass {arg('ignore', key)}"
            line = facts.commands.check(as_option("ignore", key))
            yield Finding.of("note", [facts.root], text, remedy, line)


def judge_hidden(facts: Facts) -> Iterator[Finding]:
    """Warn of shapes that others cover wholly, so that no mask shows them."""
    hiding = [s for s in facts.surveys if s.hidden]
    if facts.table is not None and hiding:
        text = describe_hidden([facts.table.names_of(s.hidden) for s in hiding])
        remedy = "in the labels, place them on top of the others"
        yield Finding.of("warning", [s.pair.image for s in hiding], text, remedy)


def judge_blends(facts: Facts) -> Iterator[Finding]:
    """Ask about a class that is thin everywhere and whose colour lies between two others."""
    table = facts.table
    if table is None or facts.is_given or not len(facts.halves):
        return
    pixels = facts.halves[:, 0].sum((0, 1))
    step = max(measuring_step(s.shape) for s in facts.surveys)
    if not doubt_thin(table, pixels, facts.thickness.max(0) <= 2 * step):
        return  # masks were thinned out to measure them: only lines so thin need a closer look
    labels = (s.pair.labels(table, facts.settings.selection) for s in facts.surveys)
    solid = np.sum([count_solid(one, len(table)) for one in labels], 0)
    if doubt := doubt_thin(table, pixels, solid == 0):
        yield refusal_of(doubt, facts.commands, [facts.root])


def judge_rims(facts: Facts) -> Iterator[Finding]:
    """Warn of classes that are rims between lower and higher values, as smooth resizing makes them.

    Between 0 and 2, resizing writes 1. Masks of CamVid, and of discs and lines, were made smaller
    and larger. Each class between others was a rim in 18 to 86 % of the places. Before, it was one
    in at most 1 %. A wall two pixels wide is no rim.
    """
    table = facts.table
    if table is None or not len(facts.crossings):
        return
    crossed, lone = facts.crossings.sum(0).T
    is_there = (crossed >= _FEWEST_CROSSINGS) & (facts.halves.sum((0, 1, 2)) > 0)
    if not is_there.any() or (lone < _RIMS * crossed)[is_there].any():
        return
    step = max(measuring_step(s.shape) for s in facts.surveys)
    thin = facts.thickness.max(0) <= 2 * step
    if facts.is_given and thin[is_there].all():
        return  # somebody lists these lines as classes
    names = ", ".join(show(n) for n, there in zip(table.names, is_there, strict=True) if there)
    share = lone[is_there].sum() / crossed[is_there].sum()
    text = (
        f"{names}: a rim one pixel wide in {100 * share:.0f} % of the places between lower and "
        "higher values, as in masks that were resized smoothly"
    )
    remedy = "look at the edges; if so, resize the original masks by nearest neighbour"
    yield Finding.of("warning", [facts.root], text, remedy)


def judge_swaps(facts: Facts) -> Iterator[Finding]:
    """Warn of masks of two values that look as if the two were exchanged in some of them.

    Two facts then differ from the usual: the value of most pixels, and the value of the brighter
    ones. Nothing is said unless both facts are clear in every mask.
    """
    surveys = [s for s in facts.surveys if len(s.found.counts) > 1]  # others show one class
    leans = [s.lean for s in surveys if s.lean is not None]
    keys = {frozenset(s.found.counts) for s in surveys}
    if facts.table is None or len(facts.table) != 2 or len(keys) != 1:
        return
    if not _FEWEST_LEANS <= len(leans) == len(surveys):
        return
    shares, contrasts = np.array(leans).T
    covers, is_bright = shares > 0.5, contrasts > 0
    clear = (np.abs(shares - 0.5) > _CLEAR_SHARE) & (np.abs(contrasts) > _CLEAR_CONTRAST)
    agree = (covers == is_bright).all() or (covers != is_bright).all()
    if clear.all() and agree and 0 < covers.sum() < len(covers):
        if covers.sum() > len(covers) / 2:
            covers = ~covers
        files = [s.pair.named for s, is_swapped in zip(surveys, covers, strict=True) if is_swapped]
        low, high = facts.table.names
        text = f"{show(low)} and {show(high)} look exchanged in {len(files)} of "
        text += f"{plural(len(covers), 'mask')}: their shares and their brightness are exchanged"
        yield Finding.of("warning", files, text, "look at them; invert them if they are wrong")


def judge_kinds(facts: Facts) -> Iterator[Finding]:
    """Ask about classes that may be the same, written by two programs."""
    if facts.table is None or facts.is_given or not len(facts.halves):
        return
    present = facts.halves[:, 0].sum(1) > 0
    if asked := ask_kinds(present, facts.table.names):
        yield Finding.of("warning", [facts.root], *asked)


def ask_kinds(present: NDArray[np.bool_], names: Sequence[str]) -> tuple[str, str] | None:
    """Return a question about masks that may hold the same classes under two names, and the ways.

    One program writes 0 and 1, another 0 and 254. There are then two kinds of masks, which share
    one class at most, the background. Masks of one class alone tell nothing. Classes that few masks
    show may never meet by chance.

    Args:
        present: ``(n, C)`` whether each mask shows each class.
        names: The names of the classes.

    Returns:
        The question and the ways on; None where classes are no such kinds.
    """
    told = present[present.sum(1) > 1]
    common = told.all(0)
    kinds: list[set[int]] = []  # classes that meet, directly or through others
    for row in told & ~common:
        met = set(np.flatnonzero(row).tolist())
        kinds, joined = [k for k in kinds if not k & met], [k for k in kinds if k & met]
        kinds.append(met.union(*joined))
    if common.sum() > 1 or len(kinds) != 2 or len(kinds[0]) != len(kinds[1]):
        return None
    kinds.sort(key=min)
    counts = [int(told[:, sorted(kind)].any(1).sum()) for kind in kinds]
    shown = int(present.any(1).sum())
    chance = math.comb(shown - counts[0], counts[1]) / math.comb(shown, counts[1])
    if min(counts) < _FEWEST_ALIKE or chance > _CHANCE:
        return None
    low, high = (
        f"{', '.join(show(names[i]) for i in sorted(kind))} ({count} masks)"
        for kind, count in zip(kinds, counts, strict=True)
    )
    text = f"{low} and {high} never meet in one mask: different classes, or the same ones, "
    remedy = (
        f"different: list them in a classes.toml ({arg('classes')}); the same: convert the images "
        "of each kind by themselves, and join the copies"
    )
    return f"{text}written by two programs?", remedy


def judge_scale(facts: Facts, size: int) -> tuple[float, list[Finding]]:
    """Return the scale at which a patch of ``size`` pixels shows a whole object, and findings.

    Where objects fit already, it is the scale that was set.
    """
    halves, scale = facts.halves, facts.settings.scale
    if not len(halves) or halves.shape[-1] < 2:
        return scale, []
    background = int(halves[:, 0].sum((0, 1)).argmax())  # the commonest class, most often
    measured = np.delete(facts.thickness * scale, background, 1)  # (n, C - 1)
    across = max((float(np.median(t[t > 0])) for t in measured.T if (t > 0).any()), default=0)
    factor = scale
    while across * factor > 1.5 * size * scale:
        factor /= 2
    if factor == scale or across <= 2 * size:
        return scale, []
    text = f"objects are about {across:.0f} pixels across, a patch shows {size}"
    remedy = f"{arg('scale', factor)} lets a patch show one"
    line = facts.commands.train(f"--scale {factor:g}")
    return factor, [Finding.of("note", [facts.root], text, remedy, line)]
