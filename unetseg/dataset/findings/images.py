"""Findings about the form of images and masks: sizes, channels, edges and storage."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetseg.dataset.findings.facts import Facts
from unetseg.dataset.findings.finding import Finding, refusal_of
from unetseg.dataset.naming import Pair
from unetseg.errors import Code, InputError, arg, as_option
from unetseg.pictures.georeference import Georeference
from unetseg.pictures.opening import declare_nodata
from unetseg.pictures.surroundings import common_surround
from unetseg.settings import WHOLE, Selection
from unetseg.text import plural, show

# Pixels between a mask and its image on the map. One program names a pixel by its corner and
# another by its centre: half a pixel apart in x and in y are 0.71 pixels.
_MOST_SHIFT = 0.75
_ON_GRID = (
    "make the masks on the grid of their images; where the pixels fit as they are, save the masks "
    "as PNG"
)
_FEWER_BITS = (8, 10, 12, 14)  # of cameras, and of pictures, that are stored as 16 bits
_FEWEST_WITH_TOP = 2  # images that end at one value; one alone may do so by chance
_FEWEST_WITH_STRIPS = 3  # with fewer images, equal rows may be chance


def judge_orientation(facts: Facts) -> Iterator[Finding]:
    """Refuse an image that its EXIF orientation turns while its mask stays as it is stored."""
    for survey in facts.surveys:
        if survey.may_be_turned:
            text = "is turned by its EXIF orientation, its mask is not, and it fits both ways"
            remedy = (
                "if the masks were drawn on the upright pictures, convert; else remove the "
                "orientation from the images"
            )
            line, call = facts.commands.convert()
            code = Code.TURNED_IMAGE
            yield Finding.of("error", [survey.pair.image], text, remedy, line, code, call)


def judge_places(facts: Facts) -> Iterator[Finding]:
    """Refuse masks that lie elsewhere on the map than their images."""
    placed = ((s.pair.mask, s.shape, s.places) for s in facts.surveys)
    for error, files in find_misplaced(placed):
        yield refusal_of(error, facts.commands, files)


def find_misplaced(
    placed: Iterable[tuple[Path, tuple[int, int], tuple[Georeference, Georeference]]],
) -> Iterator[tuple[InputError, list[Path]]]:
    """Yield the errors of masks that lie elsewhere on the map than their images, with the masks.

    Args:
        placed: Each mask, its height and width, and the places of its image and of itself.
    """
    elsewhere, systems = list[tuple[float, Path]](), list[Path]()
    for path, shape, (image, mask) in placed:
        shift = image.shift(mask, *shape)
        if image.has_other_system(mask):
            systems.append(path)
        elif shift is not None and not shift <= _MOST_SHIFT:
            elsewhere.append((shift, path))
    if elsewhere:
        files = [path for _, path in elsewhere]
        text = f"lies up to {max(elsewhere)[0]:,.3g} pixels from its image on the map"
        yield InputError(files[0], text, _ON_GRID), files
    if systems:
        text = "has another coordinate system than its image"
        yield InputError(systems[0], text, _ON_GRID), systems


def refuse_misplaced(pair: Pair, selection: Selection = WHOLE) -> None:
    """Raise `InputError` where a mask of its image's size lies elsewhere on the map than it."""
    image, mask = pair.read_info(selection), pair.mask_info(selection)
    size = image.height, image.width
    if size == (mask.height, mask.width):
        for error, _ in find_misplaced([(pair.mask, size, pair.places(selection))]):
            raise error


def judge_channels(facts: Facts) -> Iterator[Finding]:
    """Judge whether bit depth and channels agree; three equal channels pass for colour."""
    surveys = facts.surveys
    if not surveys:
        return
    depth = Counter(s.info.dtype for s in surveys).most_common(1)[0][0]
    usual = next(s for s in surveys if s.info.dtype == depth)
    for other in (s for s in surveys if s.info.dtype != depth):
        found, due = (one.info.stored or one.info.dtype for one in (other, usual))
        text = f"is {found}, {show(usual.pair.image.name)} is {due}"
        yield Finding.of("error", [other.pair.image], text, "bring all images to one bit depth")
    most = Counter(s.channels for s in surveys if s.channels > 1).most_common(1)
    wide = most[0][0] if most else 1
    usual = next((s for s in surveys if s.channels == wide), surveys[0])
    for other in surveys:
        # A grey photograph among colour ones is three equal channels; a single stain is not.
        may_be_photograph = other.info.dtype == "uint8" and "C" not in usual.info.axes
        if other.channels != wide and not (other.channels == 1 and wide == 3 and may_be_photograph):
            text = (
                f"has {plural(other.channels, 'channel')}, {show(usual.pair.image.name)} has {wide}"
            )
            remedy = (
                f"give all images the same channels, or take one of each: {arg('channels', '0')}"
            )
            yield Finding.of("error", [other.pair.image], text, remedy)
    if len({len(s.low) for s in surveys}) == 1:
        low, high = np.array([s.low for s in surveys]), np.array([s.high for s in surveys])
        for channel in np.flatnonzero(low.min(0) == high.max(0)).tolist():
            text = f"channel {channel + 1} holds {low[0, channel]:g} in every pixel of the set"
            yield Finding.of("warning", [facts.root], text, "it tells the network nothing")


def judge_ranges(facts: Facts) -> Iterator[Finding]:
    """Warn of 16-bit images of which some use 8 to 14 bits, and others more.

    A dark image has a small largest value, too. So several images must end exactly at the largest
    value of fewer bits, as saturated ones do, and another image must reach twice as far.
    """
    deep = [s for s in facts.surveys if s.info.dtype == "uint16"]
    highest = max((max(s.high) for s in deep), default=0)
    for bits in _FEWER_BITS:
        top = 2**bits - 1
        ends = [s for s in deep if max(s.high) == top]
        if len(ends) < _FEWEST_WITH_TOP or highest < 2 * top:
            continue
        text = f"values end at {top:,}, as {bits} bits do, and reach {highest:,.0f} in another "
        text += f"image ({len(ends)} of {len(facts.surveys)})"
        remedy = "if brightness means the same in all of them, bring them to one range"
        yield Finding.of("warning", [s.pair.image for s in ends], text, remedy)
        return


def judge_sentinels(facts: Facts) -> Iterator[Finding]:
    """Warn of values that usually stand for no data, in pixels that count as data."""
    for survey in facts.surveys:
        if (value := survey.sentinel) is not None:
            text = f"holds {value:g} in many pixels, which is learnt like any other value"
            remedy = declare_nodata(value, survey.places[0].nodata)
            yield Finding.of("warning", [survey.pair.image], text, remedy)


def judge_strips(facts: Facts) -> Iterator[Finding]:
    """Warn of a strip that stands at the same rows of all images and is not ignored by masks."""
    surveys, area = facts.surveys, facts.ignored_area
    if not len(facts.halves) or len(surveys) < _FEWEST_WITH_STRIPS:
        return  # the ignored pixels are known once the classes are
    if len({s.shape for s in surveys}) > 1:
        return
    height = surveys[0].shape[0]
    above, below = (min(s.strips[side] for s in surveys) for side in (0, 1))
    edges = {"top": (above, slice(0, above)), "bottom": (below, slice(height - below, height))}
    for side, (edge, (rows, place)) in enumerate(edges.items()):
        is_same = rows > 0 and max(s.strips[side] for s in surveys) == rows
        if not is_same or (area is not None and area.pixels[place].all()):
            continue
        text = f"rows {place.start} to {place.stop - 1} are the same strip in all "
        text += f"{len(surveys)} images, such as a scale bar, and their masks give it a class"
        crop = f"{edge}={rows}"
        line = facts.commands.check(as_option("crop", crop))
        yield Finding.of("warning", [facts.root], text, f"ignore it: {arg('crop', crop)}", line)


def doubt_views(views: Iterable[tuple[Path, NDArray[np.bool_] | None]]) -> InputError | None:
    """Return the error of masks that are fields of view; None where one of them is not.

    Objects on a dark ground differ from image to image, while a field of view does not.

    Args:
        views: Each mask of a set without a list of classes, and its `survey.view_surround`. No more
            are asked for after the first without a field of view.
    """
    surrounds, home = [], Path()
    for mask, surround in views:
        if surround is None:
            return None
        surrounds.append(surround)
        home = mask.parent
    if len(surrounds) < 2 or common_surround(surrounds) is None:
        return None
    remedy = "put labels into masks/; where it is to be learnt, list its classes in classes.toml"
    return InputError(home, "holds the field of view, not labels", remedy)


def judge_surround(facts: Facts) -> Iterator[Finding]:
    """Refuse masks of the field of view, and warn of a dark surround that masks do not ignore."""
    surveys = facts.surveys
    views = ((s.pair.mask, s.surround if s.shows_view else None) for s in surveys)
    if not facts.is_given and (doubt := doubt_views(views)):
        yield refusal_of(doubt, facts.commands)
        return
    if not len(facts.halves) or len(surveys) < _FEWEST_WITH_STRIPS:
        return
    surround = common_surround([s.surround for s in surveys])
    pixels = sum(height * width for height, width in (s.shape for s in surveys))
    ignored = 1 - facts.halves[:, 0].sum() / pixels
    if surround is None or ignored > surround.mean() / 2:
        return
    text = f"{100 * surround.mean():.0f} % of each image is the dark surround of a field of view, "
    text += "and the masks give it a class: predictions may show a false rim"
    remedy = f"have it ignored, with a mask of each field of view: {arg('fov', 'FOLDER')}"
    line = facts.commands.convert(fov="FOLDER")[0]
    yield Finding.of("warning", [facts.root], text, remedy, line)


def judge_storage(facts: Facts) -> Iterator[Finding]:
    """Note images and masks that are read otherwise than they are stored."""
    surveys = facts.surveys
    for stored, text in (
        (
            [s for s in surveys if s.info.alpha],
            "transparency is dropped; wholly transparent pixels are ignored",
        ),
        ([s for s in surveys if s.info.palette], "palette images are read as their colours"),
        (
            [s for s in surveys if s.info.orientation != 1],
            "turned upright, as their EXIF orientation says",
        ),
    ):
        if stored:
            yield Finding.of("note", [s.pair.image for s in stored], text)
    if surveys and all(s.channels == 1 and s.info.channels == 3 for s in surveys):
        text = "red, green and blue are equal in all images: they count as one grey channel"
        yield Finding.of("note", [facts.root], text)
    elif {s.channels for s in surveys} == {1, 3}:
        grey = [s for s in surveys if s.channels == 1]
        text = f"grey among colour images ({len(grey)} of {len(surveys)}): their red, green and "
        yield Finding.of("note", [s.pair.image for s in grey], text + "blue are taken as equal")
    if facts.table is None:
        return  # an error asks about these masks
    clear = [s for s in surveys if s.found.unlabelled]
    if clear:
        count = sum(s.found.unlabelled for s in clear)
        text = f"{count:,} pixels are transparent or without data: they are ignored"
        yield Finding.of("note", [s.pair.named for s in clear], text)
    if values := {s.found.nodata for s in surveys} - {None}:
        text = f"{', '.join(map(str, values))} is the value of no data of GeoTIFF masks"
        text += ", and a class" if values & {c.value for c in facts.table} else ": it is ignored"
        yield Finding.of("note", [s.pair.mask for s in surveys if s.found.nodata is not None], text)
    encodings = Counter(s.encoding for s in surveys)
    if len(encodings) > 1:
        text = "masks are stored in several ways: "
        text += ", ".join(f"{name} ({count})" for name, count in encodings.most_common())
        yield Finding.of("note", [facts.root], text, f"look at the pictures of check {arg('html')}")
