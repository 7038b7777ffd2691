"""The area that lies in every image of a set and shows no scene.

It is an area that all masks ignore, a burned-in strip, or the dark surround of a field of view.
"""

import base64
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictInt
from pydantic.dataclasses import dataclass

from unetseg.records import Text

_LEAST = 0.005  # share of the pixels: a smaller area that all masks ignore may be chance
_ALIKE = 0.8  # of the pixels labelled in any mask are labelled in all: the same area is ignored
_LONGEST = 40_000  # characters of an area: a store and a model keep it in their headers

_HIGHEST = 0.25  # share of the rows: a higher area is more than a strip
_LOWEST = 8  # rows: a caption that can be read is higher
_PLAIN, _BUSY = 0.5, 0.2  # shares of a row that its background has, within a strip and beside it
_NEAR = 8  # levels of 256: JPEG changes the background of a strip by less

_DARK = 0.1  # of the range of an image: a surround is noise above black, a field of view is lit
_SURROUND = 0.05, 0.6  # shares of an image that the surround of a field of view has
_WHOLE = 0.95  # of the lit pixels are one region: many regions are objects on a dark ground
_LEAST_VIEW = 0.5  # of the pixels: a field of view is most of an image
_MOST_PARTS, _SPECK = 8, 0.001  # regions in a field of view and outside; smaller ones are specks
_LOOK = 2048  # pixels a side at which a field of view is told from labels
_SAME = 0.8  # of two surrounds is common to both where the optics is the same


# --- areas that every mask ignores -----------------------------------------------------------


@dataclass(frozen=True)
class IgnoredArea:
    """The pixels that every mask of a set ignores, where all images have one size.

    Attributes:
        height: Rows of the images.
        width: Columns of the images.
        packed: The bits of the rows, 1 where a pixel is ignored, as `numpy.packbits` packs them,
            deflated and in Base64.

    Raises:
        ValueError: ``packed`` does not hold ``height`` x ``width`` bits.
    """

    height: Annotated[StrictInt, Field(ge=1)]
    width: Annotated[StrictInt, Field(ge=1)]
    packed: Text

    def __post_init__(self) -> None:
        size = -(-self.height * self.width // 8)
        try:
            data = zlib.decompressobj().decompress(base64.b64decode(self.packed), size + 1)
        except (ValueError, zlib.error) as error:
            raise ValueError(f"an ignored area that is damaged ({error})") from None
        if len(data) != size:
            raise ValueError(f"an ignored area of {len(data)} bytes, not {size}")

    @classmethod
    def of(cls, pixels: NDArray[np.bool_]) -> "IgnoredArea | None":
        """Return an area from its pixels (H, W); None where its outline is too long to keep."""
        packed = base64.b64encode(zlib.compress(np.packbits(pixels).tobytes(), 9)).decode()
        height, width = pixels.shape
        return cls(height, width, packed) if len(packed) <= _LONGEST else None

    @cached_property
    def pixels(self) -> NDArray[np.bool_]:
        """Whether each pixel (H, W) is ignored."""
        data = zlib.decompress(base64.b64decode(self.packed))
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=self.height * self.width)
        return bits.astype(bool).reshape(self.height, self.width)

    def describe_misfit(self, height: int, width: int, image: str) -> str:
        """Say that an image of another size gets classes in this area; "" for one of its size."""
        if (self.height, self.width) == (height, width):
            return ""
        text = f"training ignored {100 * self.pixels.mean():.2g} % of the pixels of "
        text += f"{self.height} x {self.width}; {image} has {height} x {width}, so they get a "
        return text + "class there"


class AreaFinder:
    """Finds the area that all masks of a set ignore, one mask after another."""

    def __init__(self) -> None:
        self._always: NDArray[np.bool_] | None = None
        self._ever: NDArray[np.bool_] | None = None
        self._count = 0

    def add(self, ignored: NDArray[np.bool_]) -> None:
        """Take one mask: whether each pixel (H, W) is ignored."""
        self._count += 1
        if self._always is None or self._ever is None:
            self._always, self._ever = ignored.copy(), ignored.copy()
        elif ignored.shape != self._always.shape:
            self._always[:] = False  # images of several sizes have no area in common
        else:
            self._always &= ignored
            self._ever |= ignored

    def found(self) -> IgnoredArea | None:
        """Return the area; None where masks ignore other pixels each, or none at all.

        Masks of which a person labelled only some spots ignore most pixels, too. But they label
        different pixels. The area is the same only where nearly all pixels that any mask labels are
        labelled in every mask.
        """
        if self._always is None or self._ever is None or self._count < 2:
            return None
        somewhere, everywhere = int((~self._always).sum()), int((~self._ever).sum())
        if self._always.mean() < _LEAST or everywhere < _ALIKE * somewhere:
            return None
        return IgnoredArea.of(self._always)


# --- strips ----------------------------------------------------------------------------------


def strips_of(image: NDArray[Any]) -> tuple[int, int]:
    """Return how many rows at the top and at the bottom look like a burned-in strip.

    Such a strip has one background from edge to edge, on which a caption or a scale bar may stand.
    The row beside it has other values: a dark surround, which fades into the scene, is no strip.

    Args:
        image: ``(H, W, C)``, in any depth.
    """
    rows = image[..., 0]
    return _strip(rows), _strip(rows[::-1])


def _strip(rows: NDArray[Any]) -> int:
    """Return how many of the first rows of an image (H, W) are a strip, else 0."""
    most = int(_HIGHEST * len(rows))
    if most < _LOWEST:
        return 0
    top = 255.0 if rows.dtype == np.uint8 else max(float(rows.max()), 1e-30)
    level = float(np.median(rows[0]))
    shares = (np.abs(rows[: most + 1] - level) <= _NEAR / 255 * top).mean(1)
    height = int(np.argmax(shares < _PLAIN))
    return height if height >= _LOWEST and shares[height] < _BUSY else 0


# --- surrounds of a field of view --------------------------------------------------------------


def dark_surround(small: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which cells of a small image (H, W) are the dark surround of its field of view.

    It holds the four corners, and all that is lit is one region. Without one, no cell is marked.
    """
    from scipy import ndimage

    low, high = float(small.min()), float(small.max())
    regions, _ = ndimage.label(small <= low + _DARK * (high - low))
    edges = np.concatenate([regions[[0, -1]].ravel(), regions[:, [0, -1]].ravel()])
    surround: NDArray[np.bool_] = np.isin(regions, edges[edges > 0])
    lit, _ = ndimage.label(~surround)
    largest = np.bincount(lit.ravel())[1:].max(initial=0)
    has_corners = surround[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    is_usual = _SURROUND[0] <= surround.mean() <= _SURROUND[1]
    if has_corners and is_usual and largest >= _WHOLE * (~surround).sum():
        return surround
    return np.zeros_like(surround)


def is_inverted_view(inside: NDArray[np.bool_]) -> bool:
    """Tell whether a mask (H, W) of a field of view holds its four corners and less than half."""
    corners = inside[[0, 0, -1, -1], [0, -1, 0, -1]]
    return bool(corners.all()) and inside.mean() < _LEAST_VIEW


def doubt_view(inside: NDArray[np.bool_]) -> str:
    """Return why a mask (H, W) may be no field of view, in words; "" where nothing says so.

    The masks of DRIVE have one region inside and one outside, and 68 to 69 % lie inside. Its
    vessels have up to 38 regions between them and less than 12 %; membranes have 80 regions.
    """
    from scipy import ndimage

    step = -(-max(inside.shape) // _LOOK)
    parts, inside = 0, inside[::step, ::step]
    for area in (inside, ~inside):
        regions, _ = ndimage.label(area)
        sizes = np.bincount(regions.ravel())[1:]
        parts += int((sizes >= _SPECK * inside.size).sum())
    if parts > _MOST_PARTS:
        return f"has {parts} regions, as labels have, where a field of view has one"
    if inside.mean() < _LEAST_VIEW:
        return f"has only {100 * inside.mean():.2g} % of the pixels in the field of view"
    return ""


def common_surround(surrounds: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    """Return the surround that images have in common; None where any has none or another."""
    usual: NDArray[np.bool_] = np.mean(surrounds, axis=0) > 0.5
    common = [(one & usual).sum() / max((one | usual).sum(), 1) for one in surrounds]
    return usual if min(common) >= _SAME else None
