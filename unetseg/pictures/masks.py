"""From the values, palette indices or colours of a mask file to class indices.

The functions take and return arrays. A mask that can be read in two ways is refused with a
question; nothing is guessed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED, IGNORED_COLOUR, ClassTable, colour_to_rgb
from unetseg.errors import Code, InputError, arg
from unetseg.text import plural

MAX_FOUND = 64  # more values or colours than this are no classes that somebody painted
NOISE = 32  # levels: JPEG of fair quality changes no channel of an even area by more
_MAX_FLICKERING = 8  # the most values that may change after fewer than _SHORT_RUN pixels
_MANY = 128  # values: probabilities have nearly all of their 256
_MANY_BETWEEN = 0.1  # of the pixels: smoothed edges are fewer
_SHORT_RUN = 2  # pixels; painted classes, thin lines included, have longer runs along a row
_SHOWN = 6  # values, places or masks in one message
_MAX_KEYS = 4096  # the commonest keys of a mask: enough to say what a noisy mask looks like

CLASSES_DUE = "a mask numbers its classes: threshold it (Fiji: Adjust > Threshold), save 8 bits"

Key = int | str
"""The value of a class in a mask, or its colour as "#rrggbb"."""


class _AllMasks:
    """The subject of an error about the masks of a set together, where no file is at fault."""

    def __str__(self) -> str:
        return "masks"


ALL_MASKS = _AllMasks()


@dataclass(frozen=True)
class RawMask:
    """The pixels of a mask file as they are stored.

    Attributes:
        values: ``(H, W)`` uint8, uint16 or int64, not negative: values or palette indices; or
            ``(H, W, 3)`` uint8: colours.
        palette: ``(256, 3)`` uint8, the colours of palette indices; else None.
        unlabelled: ``(H, W)`` where a pixel is transparent or without data, and stored as 0; None
            where there is no such pixel.
        nodata: The value that the file declares as no data; None where it declares none.
        is_lossy: Whether the format of the file changes values, as JPEG does.
    """

    values: NDArray[np.integer]
    palette: NDArray[np.uint8] | None = None
    unlabelled: NDArray[np.bool_] | None = None
    nodata: int | None = None
    is_lossy: bool = False

    @classmethod
    def of_picture(cls, pixels: NDArray[np.integer], is_lossy: bool = False) -> "RawMask":
        """Return the mask whose values or colours are the pixels ``(H, W, C)`` of a picture."""
        return cls(pixels[..., 0] if pixels.shape[2] == 1 else pixels, is_lossy=is_lossy)

    @property
    def codes(self) -> NDArray[np.integer]:
        """``(H, W)`` the value of each pixel, or its colour as 0xrrggbb."""
        return pack_colours(self.values) if self.values.ndim == 3 else self.values

    def inside(self, inner: tuple[slice, slice]) -> "RawMask":
        """Return the part of the mask in some rows and columns."""
        unlabelled = None if self.unlabelled is None else self.unlabelled[inner]
        return replace(self, values=self.values[inner], unlabelled=unlabelled)


def check_same_size(
    path: object,
    mask_size: tuple[int, ...],
    image_size: tuple[int, ...],
    remedy: str = "make image and mask the same size",
) -> None:
    """Refuse a mask that is not as large as its image.

    Args:
        path: The file that the message names.
        mask_size: Height and width of the mask.
        image_size: Height and width of the image.
        remedy: The advice.

    Raises:
        InputError: The sizes differ.
    """
    if mask_size != image_size:
        problem = "{} x {} pixels, its image has {} x {}".format(*mask_size, *image_size)
        raise InputError(path, problem, remedy)


@dataclass(frozen=True)
class Found:
    """The values or colours of one mask.

    Attributes:
        counts: Pixels of each value, or of each colour "#rrggbb", the commonest first, at most
            4096 of them.
        distinct: The number of different values or colours.
        run: The mean length in pixels of a key's runs along a row; the median over the keys.
        colours: The palette's colour of each value, where there is a palette.
        unlabelled: The number of pixels that are transparent or without data; they are no key.
        nodata: The value that the file declares as no data, where it holds that value.
    """

    counts: dict[Key, int]
    distinct: int
    run: float
    colours: Mapping[int, str] = field(default_factory=dict)
    unlabelled: int = 0
    nodata: int | None = None


def find_keys(raw: RawMask) -> Found:
    """Count the colours of an RGB mask, or the values of another one (indices of a palette)."""
    codes, unlabelled = raw.codes, 0
    if raw.unlabelled is not None:
        codes, unlabelled = codes[~raw.unlabelled], int(raw.unlabelled.sum())
    found = _found(codes, raw.values.ndim == 3)
    nodata = raw.nodata if raw.nodata in found.counts else None
    found = replace(found, unlabelled=unlabelled, nodata=nodata)
    if raw.palette is None:
        return found
    codes = pack_colours(raw.palette)
    return replace(found, colours={k: hex_of(codes[k]) for k in found.counts if isinstance(k, int)})


def is_noisy(found: Found) -> bool:
    """Tell whether a mask holds over 64 keys, or over 8 that change from pixel to pixel."""
    flickers = found.distinct > _MAX_FLICKERING and found.run < _SHORT_RUN
    return found.distinct > MAX_FOUND or flickers


def object_numbers(what: object, keys: str, is_sure: bool = True) -> InputError:
    """Return the error of masks that number objects, or may, with the way on for both readings.

    Args:
        what: The masks at fault.
        keys: How many there are of which kind, such as "81 values".
        is_sure: Whether nothing speaks for classes.
    """
    text = " that look like one for each object, not like classes"
    if not is_sure:
        text = ": classes, or one for each object?"
    remedy = (
        f"objects: convert with {arg('instances', True)} and train on the copy; "
        f"classes: list them in a classes.toml ({arg('classes')})"
    )
    code = Code.OBJECT_NUMBERS if is_sure else Code.OBJECTS_OR_CLASSES
    return InputError(what, keys + text, remedy, code=code)


def diagnose(what: object, found: Found) -> InputError:
    """Return the error of a mask with too many values or colours; it says what they look like.

    An object has a width, so numbers of objects come in runs along a row. The values of smoothed
    edges and of compression change from pixel to pixel. The values of compression stay close to the
    common keys; a key is common if it has 2 % of the pixels.
    """
    kind = "colours" if isinstance(next(iter(found.counts)), str) else "values"
    count = f"{found.distinct:,} {kind}"
    if found.run >= _SHORT_RUN:
        return object_numbers(what, count)
    pixels = np.array(list(found.counts.values()))
    points = np.array([levels_of(key) for key in found.counts])
    common = pixels >= min(0.02 * pixels.sum(), pixels.max())
    apart = np.abs(points[~common][:, None] - points[common][None]).max(-1).min(-1)
    between = pixels[~common][apart > NOISE].sum() / pixels.sum()
    if kind == "values" and found.distinct > _MANY and between > _MANY_BETWEEN:
        text = f"{count}, {100 * between:.0f} % of the pixels between the common ones: looks like "
        text += "probabilities or a photograph, not like classes"
        return InputError(what, text, CLASSES_DUE, code=Code.NO_CLASSES)
    cause = "JPEG noise" if apart.size and np.median(apart) <= 24 else "blended edges"
    remedy = "save it without smoothing or lossy compression"
    centres = [str(k) for k, is_common in zip(found.counts, common, strict=True) if is_common]
    text = f"{count}: looks like {cause} around {_few(centres, ', ')}"
    return InputError(what, text, remedy, code=Code.BLENDED_MASK)


@dataclass(frozen=True)
class Place:
    """The places of a value or colour in a mask: its number of ``pixels``, the first at (x, y)."""

    pixels: int
    x: int
    y: int


class NoClassError(InputError):
    """Values or colours that are no class, in one mask or in several.

    Args:
        what: The mask, or the folder of masks.
        places: Their places in each mask, the commonest value first.
        table: The classes.
    """

    def __init__(
        self, what: object, places: Mapping[object, Mapping[Key, Place]], table: ClassTable
    ) -> None:
        self.places, self.table = places, table
        of_key: dict[Key, list[str]] = {}
        for mask, keys in places.items():
            name = f" of {Path(str(mask)).name}" if len(places) > 1 else ""
            for key, place in keys.items():
                text = f"{plural(place.pixels, 'pixel')}, first at (x {place.x}, y {place.y}){name}"
                of_key.setdefault(key, []).append(text)
        found = [f"{_named(k)} in {_few(texts, ' and ')}" for k, texts in of_key.items()]
        known = [str(table.key(i)) for i in range(len(table.classes))]
        text = f"no class: {_few(found, '; ')}; classes are {_few(known, ', ')}"
        remedy, ignored = "list the classes in classes.toml", list(of_key)
        if len(of_key) <= _SHOWN:
            remedy = f"add it to classes.toml, or pass {arg('ignore', ignored)}"
        give = ("ignore", ignored) if len(of_key) <= _SHOWN else None
        super().__init__(what, text, remedy, give=give)


def join_no_class(errors: Sequence[NoClassError]) -> NoClassError:
    """Return one error for several masks, at least one."""
    if len(errors) == 1:
        return errors[0]
    places = {mask: keys for error in errors for mask, keys in error.places.items()}
    return NoClassError(Path(str(errors[0].subject)).parent, places, errors[0].table)


def _named(key: Key) -> str:
    return key if isinstance(key, str) else f"value {key}"


def _few(texts: Sequence[str], separator: str) -> str:
    more = f"{separator}{len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return separator.join(texts[:_SHOWN]) + more


def is_between(point: NDArray[np.integer], a: NDArray[np.integer], b: NDArray[np.integer]) -> bool:
    """Tell whether a colour ``(3,)`` may be a blend of two others: near the line between them."""
    way = (b - a).astype(float)
    share = float((point - a) @ way) / max(float(way @ way), 1.0)
    return 0.1 < share < 0.9 and float(np.abs(a + share * way - point).max()) <= NOISE


def decode(raw: RawMask, table: ClassTable, what: object = "mask") -> NDArray[np.uint8]:
    """Return the class index of every pixel, 255 where ignored.

    Where ``table`` lists colours, a palette mask is read through its palette, and a grey mask as
    equal red, green and blue. Where it lists values, a palette mask holds indices, and an RGB mask
    must hold only greys. The indices of a grey palette may stand for its grey levels instead; that
    reading is taken where it alone fits the table.

    Pixels without a label are ignored. So are pixels of a value that the file declares as no data,
    unless the value is a class.

    Args:
        raw: The stored pixels.
        table: The classes, with their values or colours.
        what: The file, for messages.

    Returns:
        ``(H, W)`` uint8.

    Raises:
        NoClassError: A value or colour is not in the table.
        InputError: The mask holds more values than there can be classes, or colours where the table
            lists values. Or its palette can be read in two ways with different results.
    """
    codes, indices = match(raw, table, what)
    if (indices < 0).any():
        raise no_class(codes, indices < 0, table, what)
    return indices.astype(np.uint8)


def match(
    raw: RawMask, table: ClassTable, what: object
) -> tuple[NDArray[np.integer], NDArray[np.int16]]:
    """Return the value or colour of each pixel, and its class index as `decode`; -1 for no class.

    Raises:
        InputError: `decode` refuses the mask for another reason than pixels of no class.
    """
    known: dict[Key, int] = {table.key(i): i for i in range(len(table.classes))}
    known |= dict.fromkeys(table.ignore, IGNORED)
    if table.encoding == "colours":
        codes = colour_codes(raw, what)
        indices = _look_up(codes, {code_of(str(k)): i for k, i in known.items()})
    else:
        if raw.nodata is not None:
            known.setdefault(raw.nodata, IGNORED)
        codes, indices = _read_values(raw, table, {int(k): i for k, i in known.items()}, what)
    if raw.unlabelled is not None:
        indices[raw.unlabelled] = IGNORED
    indices[(indices < 0) & painted_ignored(raw, ignored_value(table))] = IGNORED
    return codes, indices


def painted_ignored(raw: RawMask, value: int = IGNORED) -> NDArray[np.bool_]:
    """Return which pixels ``(H, W)`` a written mask marks as ignored where no table says so.

    Args:
        raw: The mask. Only a palette can tell that ``value`` stands for no class.
        value: The `ignored_value` of its classes.
    """
    grey, palette = colour_to_rgb(IGNORED_COLOUR), raw.palette
    if palette is None or value >= len(palette) or tuple(palette[value].tolist()) != grey:
        return np.zeros(raw.values.shape[:2], np.bool_)
    marked: NDArray[np.bool_] = raw.values == value
    return marked


def ignored_value(table: ClassTable) -> int:
    """Return the value or index of ignored pixels in a written mask.

    It is the first value that the table ignores, or 255 where masks are colours. Where the table
    ignores none, it is 255, or the highest value that is no class.
    """
    if table.ignore:
        first = table.ignore[0]
        return first if isinstance(first, int) else IGNORED
    taken = set(table.pixel_values())
    return next(value for value in range(IGNORED, -1, -1) if value not in taken)


def _read_values(
    raw: RawMask, table: ClassTable, known: Mapping[int, int], what: object
) -> tuple[NDArray[np.integer], NDArray[np.int16]]:
    """Return the values ``(H, W)`` of a mask for a table of values, and their class indices."""
    values = raw.values
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            remedy = "give the classes' colours in classes.toml, or save masks of values"
            raise InputError(what, "holds colours where values are due", remedy)
        values = values[..., 0]
    indices = _look_up(values, known)
    if raw.palette is None:
        return values, indices
    used = np.bincount(values.ravel(), minlength=256).nonzero()[0]
    colours = raw.palette[used]
    paint = dict(zip(table.pixel_values(), (c.colour for c in table.classes), strict=True))
    paint |= {i: IGNORED_COLOUR for i in table.ignore if isinstance(i, int)}
    paint.setdefault(ignored_value(table), IGNORED_COLOUR)
    is_painted = all(
        paint.get(int(u)) == hex_of(pack_colours(c)) for u, c in zip(used, colours, strict=True)
    )
    if is_painted or (colours != colours[:, :1]).any():
        return values, indices
    levels = raw.palette[..., 0][values]
    by_level = _look_up(levels, known)
    if (by_level < 0).any() or (by_level == indices).all():
        return values, indices
    if (indices < 0).any():
        return levels, by_level
    problem = "its palette indices and their grey levels are both values of classes"
    raise InputError(what, problem, "save it as a grey image without palette")


def _look_up(codes: NDArray[np.integer], known: Mapping[int, int]) -> NDArray[np.int16]:
    """Return the class index of each code, -1 where it is not known."""
    if codes.dtype.itemsize <= 2:
        table = np.full(np.iinfo(codes.dtype).max + 1, -1, np.int16)
        for code, index in known.items():
            if code < len(table):
                table[code] = index
        found: NDArray[np.int16] = table[codes]
        return found
    runs = Runs.of(codes)
    ordered = np.array(sorted(known))
    indices = np.array([known[int(code)] for code in ordered], np.int16)
    places = np.minimum(np.searchsorted(ordered, runs.codes), len(ordered) - 1)
    is_known = ordered[places] == runs.codes
    return runs.spread(np.where(is_known, indices[places], np.int16(-1)))


def no_class(
    codes: NDArray[np.integer], unknown: NDArray[np.bool_], table: ClassTable, what: object
) -> InputError:
    """Return the error of a mask with values or colours of no class.

    Args:
        codes: ``(H, W)`` as `match` returns them.
        unknown: ``(H, W)`` where they are of no class.
        table: The classes.
        what: The mask.
    """
    distinct, first, counts = np.unique(codes[unknown], return_index=True, return_counts=True)
    if len(distinct) > MAX_FOUND:
        return diagnose(what, _found(codes, table.encoding == "colours"))
    rows, columns = np.nonzero(unknown)
    keys: dict[Key, Place] = {}
    for i in np.argsort(-counts, kind="stable"):
        key: Key = hex_of(distinct[i]) if table.encoding == "colours" else int(distinct[i])
        keys[key] = Place(int(counts[i]), int(columns[first[i]]), int(rows[first[i]]))
    return NoClassError(what, {what: keys}, table)


def colour_codes(raw: RawMask, what: object) -> NDArray[np.integer]:
    """Return the colour of each pixel ``(H, W)`` as one number, 0xrrggbb.

    Raises:
        InputError: Values over 255, which are no levels of grey.
    """
    if raw.values.ndim == 3:
        return raw.codes
    if raw.palette is not None:
        codes: NDArray[np.integer] = pack_colours(raw.palette)[raw.values]
        return codes
    if raw.values.max() > 255:
        remedy = "give the classes' values in classes.toml, or save masks of colours"
        raise InputError(what, "holds values over 255 where colours are due", remedy)
    return raw.values.astype(np.int32) * 0x010101


def holds_any(raw: RawMask, keys: Iterable[Key], what: object) -> NDArray[np.bool_]:
    """Return where a mask ``(H, W)`` holds one of some values or colours.

    In an RGB mask a value stands for a grey, and in a palette for an index.

    Raises:
        InputError: `colour_codes` refuses to see colours in the mask.
    """
    found = np.zeros(raw.values.shape[:2], np.bool_)
    for key in keys:
        if isinstance(key, str):
            found |= colour_codes(raw, what) == code_of(key)
        else:
            values = raw.values if raw.values.ndim == 3 else raw.values[..., None]
            found |= (values == key).all(-1)
    return found


def pack_colours(colours: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return colours ``(..., 3)`` as numbers ``(...)`` int32, 0xrrggbb."""
    wide = np.zeros((*colours.shape[:-1], 4), np.uint8)
    for k in range(3):
        wide[..., 2 - k] = colours[..., k]
    codes: NDArray[np.integer] = wide.view("<i4")[..., 0]  # shifts take three times as long
    return codes


def _found(codes: NDArray[np.integer], are_colours: bool) -> Found:
    """Count codes: values, or colours as 0xrrggbb."""
    if not codes.size:
        return Found({}, 0, np.inf)
    distinct, counts, runs = _count(codes)
    commonest = np.argsort(-counts, kind="stable")[:_MAX_KEYS]
    keys: list[Key] = [hex_of(c) if are_colours else int(c) for c in distinct[commonest]]
    run = float(np.median(counts / runs))
    return Found(dict(zip(keys, counts[commonest].tolist(), strict=True)), len(distinct), run)


def levels_of(key: Key) -> tuple[int, int, int]:
    """Return red, green and blue of a colour, or of a value taken for a grey."""
    return colour_to_rgb(key) if isinstance(key, str) else (key, key, key)


def hex_of(code: np.integer | NDArray[np.integer]) -> str:
    """Return the colour "#rrggbb" of a code 0xrrggbb."""
    return f"#{int(code):06x}"


def code_of(colour: str) -> int:
    """Return the code 0xrrggbb of a colour "#rrggbb"."""
    return int(colour[1:], 16)


_HALF = 2**31  # a code or a length below it fits into half of an int64


@dataclass(frozen=True)
class Runs:
    """The pixels of a picture as runs of equal neighbours, which are few in a mask.

    Attributes:
        codes: ``(n,)`` the value of each run, row after row; a run may go on in the next row.
        lengths: ``(n,)`` pixels of each run.
        shape: Shape of the picture.
    """

    codes: NDArray[np.integer]
    lengths: NDArray[np.int64]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, codes: NDArray[np.integer]) -> "Runs":
        """Divide a picture, at least one pixel, into runs."""
        flat = codes.ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        return cls(flat[starts], np.diff(starts, append=flat.size), codes.shape)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a picture in which each pixel has the value that its run has in ``values``."""
        return np.repeat(values, self.lengths).reshape(self.shape)


def _count(
    codes: NDArray[np.integer],
) -> tuple[NDArray[np.integer], NDArray[np.int64], NDArray[np.int64]]:
    """Return distinct codes, sorted, the pixels of each and its runs of equal neighbours."""
    runs = Runs.of(codes)
    if not -_HALF <= int(runs.codes.min()) <= int(runs.codes.max()) < _HALF:
        distinct, places = np.unique(runs.codes, return_inverse=True)
        return distinct, np.bincount(places, runs.lengths).astype(np.int64), np.bincount(places)
    joined = np.sort(runs.codes.astype(np.int64) * 2 * _HALF + runs.lengths)  # argsort is slower
    ordered = joined // (2 * _HALF)
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    pixels = np.add.reduceat(joined % (2 * _HALF), starts)
    return ordered[starts], pixels, np.diff(starts, append=len(ordered))
