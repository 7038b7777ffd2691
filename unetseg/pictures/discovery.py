"""The classes of a set without a list of them: the values or colours of its masks.

Masks that can be read in two ways are refused with a question; nothing is guessed.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from unetseg.classes import IGNORED, IGNORED_COLOUR, ClassTable, leaves_no_class, table_of
from unetseg.errors import Code, InputError, arg
from unetseg.pictures.masks import ALL_MASKS, MAX_FOUND, Found, Key, diagnose, is_noisy, levels_of
from unetseg.text import plural

_ALIKE = 8  # levels: nobody chooses colours of two classes that differ by no more in any channel
_WHITES = range(IGNORED - _ALIKE, IGNORED + 1)  # values that black and white masks have for white
_FAR_BELOW = 128  # objects are numbered from 1, so that 255 is no number if the others end here


def discover(found: Mapping[str, Found], ignore: tuple[Key, ...] = ()) -> ClassTable:
    """Return the classes of a set without ``classes.toml``: the keys of its masks, sorted.

    If all RGB masks of the set hold only greys, they count as masks of values. Classes take the
    colours of palettes. A value that a file declares as no data is ignored, unless it is 0: that
    value is a background as often as not.

    Args:
        found: `find_keys` of each mask, by its file name (used in messages).
        ignore: Values or colours that are no class.

    Raises:
        InputError: There are over 64 keys, or over 8 that change from pixel to pixel; the error
            says what they look like. Or 255 stands beside two or more other values, or 0 is
            declared as no data. Or two colours are nearly equal, or 255 and a value beside it. Or
            some masks hold values and others colours, or palettes contradict each other.
    """
    for name, one in found.items():
        if is_noisy(one):
            raise diagnose(name, one)
    ignore, held = _with_nodata(found, ignore), _merged_keys(found)
    keys, colours = held - set(ignore), _merged_palette(found)
    if not held:
        raise InputError(ALL_MASKS, "every pixel is transparent or without data", "label some")
    if not keys:
        raise leaves_no_class(k for k in ignore if k in held)
    if len(keys) > MAX_FOUND:
        raise diagnose(ALL_MASKS, _merged(found))
    if IGNORED in keys and len(keys) > 2:
        raise two_kinds(found) or _ask_white(found, keys, colours)
    if error := _nearly_equal(found, (key for key in keys if isinstance(key, str))):
        raise error
    table = table_of(list(keys), ignore)  # type: ignore[arg-type]  # _merged_keys mixes no kinds
    paint = [colours.get(c.value, c.colour) if c.value is not None else "" for c in table.classes]
    if not colours or len(set(paint)) < len(paint):
        return table
    classes = tuple(replace(c, colour=p) for c, p in zip(table.classes, paint, strict=True))
    return ClassTable(classes, ignore)


def _with_nodata(found: Mapping[str, Found], ignore: tuple[Key, ...]) -> tuple[Key, ...]:
    """Return the keys to ignore, with the values of no data that files declare."""
    declared = {f.nodata: n for n, f in found.items() if f.nodata is not None}
    if 0 in declared and 0 not in ignore:
        text = "0 is its value of no data (GeoTIFF): not labelled, or a class such as background?"
        remedy = f"pass {arg('ignore', 0)}, or list all classes in classes.toml"
        raise InputError(declared[0], text, remedy, give=("ignore", 0))
    return (*ignore, *sorted(declared.keys() - set(ignore)))


def two_kinds(found: Mapping[str, Found]) -> InputError | None:
    """Return the error of masks of 0 and 255 beside masks of other values without 255.

    Then 255 is the foreground of the former; to ignore it would drop all that they show. Only a
    list of the classes settles the question. Masks of 0 alone, or of 255 alone, are of neither
    kind.

    Args:
        found: `find_keys` of each mask, by its file name.
    """
    whites = {IGNORED, "#ffffff"}
    both = whites | {0, "#000000"}
    binary = [n for n, f in found.items() if f.distinct == 2 and f.counts.keys() < both]
    others = {n: f for n, f in found.items() if not f.counts.keys() <= both}
    has_white = any(whites & f.counts.keys() for f in others.values())
    if not binary or not others or has_white:
        return None
    other = max(others, key=lambda n: others[n].distinct)
    problem = (
        f"holds 0 and 255 alone, {other} holds {others[other].distinct} values without 255: two "
        f"kinds of masks in one set ({len(binary)} and {len(others)})"
    )
    remedy = (
        "store all masks in one way or in two folders; where 255 means the same in all, "
        "list the classes in classes.toml"
    )
    return InputError(binary[0], problem, remedy)


def _ask_white(
    found: Mapping[str, Found], keys: set[Key], colours: Mapping[int, str]
) -> InputError:
    """Return the question about 255 beside two or more other values.

    Args:
        found: `find_keys` of each mask, by its file name.
        keys: The values of the set.
        colours: The colour of each value, where masks have palettes; indices are no levels of grey.
    """
    name = next(n for n, f in found.items() if {IGNORED, "#ffffff"} & f.counts.keys())
    value = IGNORED
    problem = f"value 255 stands beside {len(keys) - 1} others: a class, or to be ignored?"
    if colours.get(IGNORED - 1) == IGNORED_COLOUR:  # as it is written where 255 is a class
        value = IGNORED - 1
        problem = f"value {value} has the grey of ignored pixels: a class, or to be ignored?"
    elif not colours and (error := _nearly_equal(found, (k for k in keys if k in _WHITES))):
        return error
    remedy = f"pass {arg('ignore', value)}, or list the classes in classes.toml"
    return InputError(name, problem, remedy, give=("ignore", value))


def _nearly_equal(found: Mapping[str, Found], keys: Iterable[Key]) -> InputError | None:
    """Return the question about two of some colours or greys that hardly differ, if there are."""
    pixels = Counter[tuple[int, int, int]]()
    for key, count in _totals(found).items():
        pixels[levels_of(key)] += count
    for one, other in itertools.combinations(sorted(keys, key=levels_of), 2):
        apart = max(abs(a - b) for a, b in zip(levels_of(one), levels_of(other), strict=True))
        if apart > _ALIKE:
            continue
        rare = min(one, other, key=lambda key: pixels[levels_of(key)])
        text = f"{one} and {other} differ by {plural(apart, 'level')} of 255: two classes?"
        remedy = (
            f"two: list all in a classes.toml; one: list all but {rare} "
            f"({plural(pixels[levels_of(rare)], 'pixel')}) in it, then convert"
        )
        if other == IGNORED:
            remedy += f"; {IGNORED} is to be ignored: {arg('ignore', IGNORED)}"
        return InputError(ALL_MASKS, text, remedy, code=Code.CLOSE_COLOURS)
    return None


def mostly_transparent(found: Mapping[str, Found]) -> InputError | None:
    """Return the question whether transparent pixels are the background; None where few are.

    It is asked where most pixels are transparent or without data, or where all others are of one
    class.

    Args:
        found: `find_keys` of each mask, by its file name.
    """
    clear, pixels = sum(one.unlabelled for one in found.values()), _totals(found)
    share = clear / max(clear + pixels.total(), 1)
    if not clear or not pixels or (share <= 0.5 and len(pixels) > 1):
        return None
    only = f", and all others are {next(iter(pixels))}" if len(pixels) == 1 else ""
    text = f"{100 * share:.0f} % of the pixels are transparent or without data{only}: the "
    text += "background, or not labelled?"
    remedy = (
        "background: fill them with a colour of their own (GIMP: Image > Flatten Image); "
        "not labelled: "
    )
    remedy += "label some background" if only else "list the classes in a classes.toml"
    return InputError(ALL_MASKS, text, remedy)


def lone_white(found: Mapping[str, Found]) -> InputError | None:
    """Return the question about a number 255 far above the other numbers of objects, if there is.

    Args:
        found: `find_keys` of each mask, by its file name.
    """
    with_white = [name for name, one in found.items() if IGNORED in one.counts]
    others = _totals(found).keys() - {0, IGNORED}
    highest = max((k for k in others if isinstance(k, int)), default=0)
    if not with_white or not 0 < highest < _FAR_BELOW:
        return None
    text = f"255 stands far above the other numbers ({plural(len(with_white), 'mask')}): an object?"
    remedy = f"not labelled: {arg('ignore', IGNORED)}; an object: number the objects anew, 1 to n"
    return InputError(with_white[0], text, remedy, give=("ignore", IGNORED))


def _merged_keys(found: Mapping[str, Found]) -> set[Key]:
    """Return all values, or all colours, of a set; grey colours as values where all are grey."""
    by_colour = {n for n, f in found.items() if any(isinstance(k, str) for k in f.counts)}
    keys = {k for f in found.values() for k in f.counts}
    if all(k[1:3] == k[3:5] == k[5:7] for k in keys if isinstance(k, str)):
        return {int(k[1:3], 16) if isinstance(k, str) else k for k in keys}
    by_value = [n for n in found if n not in by_colour]
    if by_value:
        problem = f"holds values, {min(by_colour)} holds colours: {len(by_value)} masks of values "
        problem += f"and {len(by_colour)} of colours in one set"
        remedy = "store all masks in one way"
        if all(f"#{3 * f'{v:02x}'}" in keys for n in by_value for v in found[n].counts):
            remedy = "list the classes' colours in classes.toml"  # values are greys of the others
        raise InputError(by_value[0], problem, remedy)
    return keys


def _merged_palette(found: Mapping[str, Found]) -> dict[int, str]:
    """Return the colour of each value over all palettes, which must agree."""
    colours: dict[int, tuple[str, str]] = {}
    for name, one in found.items():
        for value, colour in one.colours.items():
            other, owner = colours.setdefault(value, (colour, name))
            if other != colour:
                problem = f"palette entry {value} is {colour}, in {owner} it is {other}"
                raise InputError(name, problem, "list the classes' colours in classes.toml")
    return {value: colour for value, (colour, _) in colours.items()}


def _totals(found: Mapping[str, Found]) -> Counter[Key]:
    total: Counter[Key] = Counter()
    for one in found.values():
        total.update(one.counts)
    return total


def _merged(found: Mapping[str, Found]) -> Found:
    total = _totals(found)
    run = float(np.median([one.run for one in found.values()]))
    return Found(dict(total.most_common()), len(total), run)
