"""The facts of each labelled image: the content of its files, without any judgement."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset import naming
from unetseg.dataset.naming import Pair
from unetseg.errors import Code, InputError, arg
from unetseg.objects.numbering import Numbers, measure_numbers
from unetseg.pictures import masks, reading, snapping, transforms
from unetseg.pictures.georeference import Georeference
from unetseg.pictures.opening import ImageInfo
from unetseg.pictures.surroundings import AreaFinder, dark_surround, strips_of
from unetseg.settings import Selection

_THUMBNAIL = 32  # pixels a side: enough to show the scene, too few to show noise
_DETAIL = 64  # pixels a side: enough to tell similar scenes apart
_VIEW = 0.95  # of a mask's value and the lit part of its image is common: labels have other shapes
_WIDE = 2.0  # of these pixels: the standard deviation of the blur that is the rough structure
_PREVAIL = 8  # the commonest values of a mask, blended or not, hold over half of its pixels
_SENTINELS = (-9999.0, -32768.0)  # values of pixels without data in rasters of GDAL and ArcGIS
_MANY = 0.01  # share of the pixels: fewer may be measured values
_MEASURED = 256  # masks are thinned out to this many pixels a side before they are measured


@dataclass(frozen=True, eq=False)
class Survey:
    """The facts of one labelled image.

    Attributes:
        pair: The image and its mask.
        info: The header of the image, before scaling.
        mask_info: The header of the mask.
        sha256: `transforms.pixel_hash` of the image.
        channels: The channels of the image; 1 where all three are equal.
        encoding: How the mask holds classes: "RGB colours", "palette", "8-bit values" ...
        found: The values or colours of the mask.
        low: The smallest value of each stored channel.
        high: The largest value of each stored channel.
        thumbnail: ``(1024,)`` float32, grey, mean 0 and variance 1 (0 where the image is flat).
        detail: ``(64, 64)`` float32, the fine structure of the image, without structures wider than
            a few of these pixels.
        surround: ``(64, 64)`` whether it is the dark surround of a field of view.
        shows_view: Whether the mask is that field of view itself: it holds two values, which part
            where the surround ends.
        strips: Rows at the top and at the bottom that look like a burned-in strip, before scaling.
        numbers: The values that may number objects in the mask; None where it is noisy.
        missing: The number of pixels of the image that have no data.
        sentinel: A value of `_SENTINELS` that many pixels with data hold; None where there is none.
        places: The places of the image and of its mask on a map, as their files state them.
        lean: The share of the higher value in a mask of two, 0 to 1, and its brightness. The latter
            is the mean of its pixels less that of the others, in standard deviations of the image.
            None of other masks.
        hidden: The mask values of shapes that other shapes cover, as `Pair.hidden` returns them.
    """

    pair: Pair
    info: ImageInfo
    mask_info: ImageInfo
    sha256: str
    channels: int
    encoding: str
    found: masks.Found
    low: tuple[float, ...]
    high: tuple[float, ...]
    thumbnail: NDArray[np.float32]
    detail: NDArray[np.float32]
    surround: NDArray[np.bool_]
    shows_view: bool
    strips: tuple[int, int]
    numbers: Numbers | None
    missing: int
    sentinel: float | None
    places: tuple[Georeference, Georeference]
    lean: tuple[float, float] | None
    hidden: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image, before scaling."""
        return self.info.height, self.info.width

    @property
    def may_be_turned(self) -> bool:
        """Whether EXIF turns the image or the mask alone, and their sizes agree all the same."""
        orientations = self.info.orientation, self.mask_info.orientation
        is_square = self.info.height == self.info.width
        return orientations[0] != orientations[1] and (max(orientations) < 5 or is_square)

    def read_missing(self, selection: Selection) -> NDArray[np.bool_] | None:
        """Return `Pair.missing`; an image whose pixels all have data is not decoded again."""
        return self.pair.missing(selection) if self.missing else None


def survey_pair(pair: Pair, selection: Selection) -> Survey:
    """Look at one labelled image.

    Raises:
        InputError: The image or its mask cannot be read, or their sizes differ.
    """
    info, mask_info = pair.read_info(selection), pair.mask_info(selection)
    image, missing = pair.read_known(selection)
    places = pair.places(selection)
    hidden = list[int]()
    if pair.drawn is None:
        raw = _mask_beside(pair, image, selection)
        refuse_mixup(pair, image, raw)
    else:
        raw, hidden = pair.read_mask_and_hidden(selection)
    size, mask_size = image.shape[:2], raw.values.shape[:2]
    remedy = "make image and mask the same size"
    if info.orientation >= 5 and size == mask_size[::-1]:
        remedy = f"the image is turned by its EXIF orientation, the mask is not: {remedy}"
    masks.check_same_size(pair.mask, mask_size, size, remedy)
    sha256, inner = transforms.pixel_hash(image), selection.inner(*size)
    if not raw.values[inner].size:
        text = f"{selection.crop} leaves nothing of {size[0]} x {size[1]} pixels"
        raise InputError(pair.image, text, f"give a smaller {arg('crop')}")
    channels = transforms.collapse_grey(image).shape[2]  # of the whole file, which is stored
    image, raw = image[inner], raw.inside(inner)
    found, grey = masks.find_keys(raw), _grey(image)
    small = transforms.rescale_image(grey, (_DETAIL, _DETAIL))[..., 0]
    surround = dark_surround(small)
    return Survey(
        pair,
        info,
        mask_info,
        sha256,
        channels,
        _encoding(raw, mask_info),
        found,
        tuple(image.min((0, 1)).tolist()),
        tuple(image.max((0, 1)).tolist()),
        _thumbnail(grey),
        _detail(small),
        surround,
        _shows_view(surround, raw, found),
        strips_of(image),
        measure_numbers(raw, found),
        0 if missing is None else int(missing.sum()),
        _sentinel(image),
        places,
        _lean(grey, raw, found),
        tuple(hidden),
    )


def view_surround(pair: Pair, selection: Selection) -> NDArray[np.bool_] | None:
    """Return the ``surround`` of `Survey` where the mask ``shows_view``; None where it does not.

    An image is read only if its mask holds two values.

    Raises:
        InputError: The image or its mask cannot be read, or their sizes differ.
    """
    raw = pair.read_mask(selection)
    inner = selection.inner(*raw.values.shape[:2])
    raw = raw.inside(inner)
    found = masks.find_keys(raw)
    if found.distinct != 2:
        return None
    grey = _grey(pair.read_image(selection)[inner])
    masks.check_same_size(pair.mask, raw.values.shape[:2], grey.shape[:2])
    surround = dark_surround(transforms.rescale_image(grey, (_DETAIL, _DETAIL))[..., 0])
    return surround if _shows_view(surround, raw, found) else None


def _grey(image: NDArray[Any]) -> NDArray[np.float32]:
    grey: NDArray[np.float32] = image.mean(2, dtype=np.float32)[..., None]
    return grey


def _mask_beside(pair: Pair, image: NDArray[Any], selection: Selection) -> masks.RawMask:
    """Read the mask of an image; refuse a lossy one, and say where it is a copy of the image."""
    try:
        return pair.read_mask(selection)
    except InputError as error:
        if error.code is Code.LOSSY_MASK:
            raw = masks.RawMask.of_picture(reading.read_image(pair.mask), is_lossy=True)
            refuse_mixup(pair, image, raw)
            if raw.values.dtype == np.uint8:
                snapping.refuse_close(raw, pair.mask)
        raise


def refuse_mixup(pair: Pair, image: NDArray[Any], raw: masks.RawMask) -> None:
    """Refuse a mask that is the image, or a photograph whose image looks like a mask.

    Args:
        pair: The files, for the message.
        image: ``(H, W, C)`` as `reading.read_image` returns it.
        raw: The mask.
    """
    stored = raw.values if raw.palette is None else raw.palette[raw.values]
    stored = transforms.collapse_grey(stored if stored.ndim == 3 else stored[..., None])
    if stored.min() < stored.max() and np.array_equal(transforms.collapse_grey(image), stored):
        text = "is the same picture as its image"
        raise InputError(pair.mask, text, "put the mask there, which says the class of each pixel")
    if image.dtype == np.uint8 and _is_photograph(stored) and _is_mask(image):
        text = "is a photograph, and its image holds few values: are images and masks swapped?"
        raise InputError(pair.mask, text, "exchange the names of the two folders")


def _is_photograph(pixels: NDArray[Any]) -> bool:
    """Tell whether there are many values or colours, and none of them prevails."""
    found = masks.find_keys(masks.RawMask.of_picture(pixels))
    common = sum(list(found.counts.values())[:_PREVAIL])
    return found.distinct > masks.MAX_FOUND and common < pixels[..., 0].size / 2


def _is_mask(pixels: NDArray[Any]) -> bool:
    return pixels.shape[2] in (1, 3) and not masks.is_noisy(
        masks.find_keys(masks.RawMask.of_picture(pixels))
    )


@dataclass(frozen=True, eq=False)
class Measures:
    """The extent of each class in a mask.

    Attributes:
        halves: ``(2, 2, C)`` pixels of each class: [0] in the upper and the lower half, [1] in the
            left and the right half.
        thickness: ``(C,)`` width in pixels of the largest square that fits into each class, 0 where
            the class is absent.
        crossings: ``(C, 2)`` how often a row or column goes from lower to higher values or back.
            [:, 0] counts the ways through a class or past it, [:, 1] those through one pixel of it.
            It is 0 where masks are colours.
    """

    halves: NDArray[np.int64]
    thickness: NDArray[np.float64]
    crossings: NDArray[np.int64]


def measure_classes(
    survey: Survey, table: ClassTable, selection: Selection, area: AreaFinder
) -> Measures:
    """Measure the classes of a mask, and add the pixels that it ignores to ``area``.

    A pixel without data in the image is not added: another image may have data there. Neither is
    a mask that leaves nothing to learn.

    Raises:
        InputError: The mask does not fit the classes.
    """
    raw = survey.pair.read_mask(selection)
    mask = naming.decode_inside(raw, table, selection, survey.pair.mask)
    ignored = mask == IGNORED
    if (missing := survey.read_missing(selection)) is not None:
        mask[missing] = IGNORED
        ignored &= ~missing
    if (mask != IGNORED).any():
        area.add(ignored)
    count, row, column = len(table.classes), mask.shape[0] // 2, mask.shape[1] // 2
    halves = [[mask[:row], mask[row:]], [mask[:, :column], mask[:, column:]]]
    pixels = [[np.bincount(h.ravel(), minlength=256)[:count] for h in pair] for pair in halves]
    return Measures(np.array(pixels), _thickness(mask, count), _crossings(mask, table))


def measuring_step(shape: tuple[int, ...]) -> int:
    """Return the step in pixels at which a mask of this size is thinned out for measuring."""
    return -(-max(shape) // _MEASURED)


def _sentinel(image: NDArray[Any]) -> float | None:
    """Return the ``sentinel`` of `Survey`; ``image`` (H, W, C) is filled where it has no data."""
    low = float(image.min())
    is_common = low in _SENTINELS and (image == low).any(2).mean() >= _MANY
    return low if is_common else None


def _thumbnail(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    small = transforms.rescale_image(grey, (_THUMBNAIL, _THUMBNAIL)).ravel()
    small -= small.mean()
    small /= max(float(small.std()), 1e-6)
    return np.asarray(small, np.float32)


def _detail(small: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import ndimage

    return np.asarray(small - ndimage.gaussian_filter(small, _WIDE), np.float32)


def _encoding(raw: masks.RawMask, info: ImageInfo) -> str:
    if raw.values.ndim == 3:
        return "RGB colours"
    if raw.palette is not None:
        return "palette"
    return f"{8 * raw.values.itemsize}-bit values ({info.format})"


def _shows_view(surround: NDArray[np.bool_], raw: masks.RawMask, found: masks.Found) -> bool:
    """Return ``shows_view`` of `Survey`; images without a surround have no field of view."""
    is_higher = _higher_of_two(raw, found) if surround.any() else None
    if is_higher is None:
        return False
    share = is_higher.astype(np.float32)[..., None]
    higher = transforms.rescale_image(share, surround.shape)[..., 0] > 0.5
    lit = ~surround
    common = [(one & lit).sum() / (one | lit).sum() for one in (higher, ~higher)]
    return bool(max(common) >= _VIEW)


def _higher_of_two(raw: masks.RawMask, found: masks.Found) -> NDArray[np.bool_] | None:
    """Return where a mask of two values or colours, all labelled, has the higher one; else None."""
    if found.distinct != 2 or raw.unlabelled is not None:
        return None
    codes = raw.codes
    higher: NDArray[np.bool_] = codes == codes.max()
    return higher


def _lean(
    grey: NDArray[np.float32], raw: masks.RawMask, found: masks.Found
) -> tuple[float, float] | None:
    is_higher, level = _higher_of_two(raw, found), grey[..., 0]
    if is_higher is None:
        return None
    apart = level[is_higher].mean(dtype=float) - level[~is_higher].mean(dtype=float)
    return float(is_higher.mean()), float(apart / max(float(level.std()), 1e-6))


def _crossings(mask: NDArray[np.uint8], table: ClassTable) -> NDArray[np.int64]:
    """Return the ``crossings`` of `Measures`."""
    count = len(table.classes)
    crossings = np.zeros((count, 2), np.int64)
    if table.encoding == "colours":
        return crossings
    order = np.argsort(table.pixel_values())
    rank_of = np.full(256, -1)
    rank_of[order] = np.arange(count)
    ranks = rank_of[mask]  # -1 is ignored
    for lines in (ranks, ranks.T):
        runs = masks.Runs.of(np.pad(lines, ((0, 0), (0, 1)), constant_values=-1))
        codes = runs.codes
        one, other = codes[:-1], codes[1:]
        both = (one >= 0) & (other >= 0)
        low, high = np.minimum(one, other)[both], np.maximum(one, other)[both]
        # A step from a to b passes the classes a + 1 to b - 1.
        passed = np.bincount(low + 1, minlength=count + 1) - np.bincount(high, minlength=count + 1)
        before, here, after = codes[:-2], codes[1:-1], codes[2:]
        through = (before >= 0) & (here >= 0) & (after >= 0) & ((before < here) == (here < after))
        lone = through & (runs.lengths[1:-1] == 1)
        crossings[order, 0] += passed.cumsum()[:count]
        crossings[order, 0] += np.bincount(here[through], minlength=count)
        crossings[order, 1] += np.bincount(here[lone], minlength=count)
    return crossings


def _thickness(mask: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
    """Return for each class the width in pixels of the largest square that fits into it."""
    from scipy import ndimage

    step = measuring_step(mask.shape)
    thin = mask[::step, ::step]
    widths = np.zeros(count)
    for index in np.unique(thin[thin < count]).tolist():
        inside = thin == index
        whole = bool(inside.all())
        depth = min(thin.shape) / 2 if whole else ndimage.distance_transform_cdt(inside).max()
        widths[index] = 2 * float(depth) * step
    return widths
