"""The part of their images in which shapes lie: it tells of images enlarged after labelling."""

from collections.abc import Sequence

from unetseg.dataset.naming import Pair
from unetseg.errors import InputError
from unetseg.pictures import reading
from unetseg.text import plural

_FEWEST_SHAPES, _FEWEST_IMAGES = 20, 3  # with fewer, the places may be chance
_HALF = 0.51  # of an image's side, where its labels are of one half as large
_MOST = 0.7  # of the side: labels that end farther on are of an image of nearly this size
_BEFORE = 0.25  # times the free part behind all shapes: so little is free before them


def describe_extent(pairs: Sequence[Pair]) -> list[str]:
    """Ask about images whose shapes all lie in the same upper left part.

    Nothing is said where labels state the size of the image, since `Frame.describe_misfit` then
    tells.
    """
    first, last, shapes, images = [1.0, 1.0], [0.0, 0.0], 0, 0
    for pair in pairs:
        if not pair.frame.corners or pair.frame.size:
            continue
        try:
            info = reading.read_info(pair.image)
        except InputError:
            continue  # a damaged image; whoever reads its pixels says so
        shapes, images = shapes + len(pair.drawn or ()), images + 1
        for axis, side in enumerate((info.width, info.height)):
            places = [corner[axis] / side for corner in pair.frame.corners]
            first[axis], last[axis] = min(first[axis], *places), max(last[axis], *places)
        if max(last) > _MOST:  # the first images of most sets show it, and spare the other headers
            return []
    is_part = all(
        end <= _HALF or start <= _BEFORE * (1 - end) for start, end in zip(first, last, strict=True)
    )
    if shapes < _FEWEST_SHAPES or images < _FEWEST_IMAGES or not is_part:
        return []
    text = f"all {plural(shapes, 'shape')} of {plural(images, 'image')} lie in the first "
    text += f"{100 * last[0]:.0f} % of the columns and {100 * last[1]:.0f} % of the rows: were "
    text += "the images enlarged after labelling? Then put those there that were labelled; "
    return [text + "if objects lie in this part alone, all is well"]
