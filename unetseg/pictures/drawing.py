"""Pictures for people: masks over images, and images side by side."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from unetseg.classes import IGNORED, ClassTable, colour_to_rgb
from unetseg.pictures.transforms import rescale_image, rescale_mask, scaled_size

_HEADING_SIZE = 14
_NUMBER_SIZE = 10  # pixels: the height of the numbers of objects
_GAP = 4  # white pixels between pictures
_SHEET_WIDTH = 1200  # pixels a sheet is at most wide; larger pictures are shrunk
_ASIDE = 2**-20  # pixels by which lines are moved, so that no centre lies on both of their sides

# The colours of wrong pixels in an error map. They differ much in lightness, so any colour vision
# tells them apart, also in print. Blue and orange are those of Okabe & Ito (2008).
ERROR_COLOURS = {"missed": "#0072b2", "claimed": "#e69f00", "confused": "#4a0d3f"}


def to_display(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return ``(H, W, 3)`` uint8 for a screen: stretched from the 1st to the 99.8th percentile.

    Grey and RGB are stretched as a whole, which keeps colours. Two channels are stretched one by
    one and shown as red and green. Of more than three channels the first three are shown. NaN is
    black.
    """
    image = image[..., :3]
    every = max(1, image.shape[0] * image.shape[1] // 1_000_000)  # a million pixels are enough
    pixels = image.reshape(-1, image.shape[2])[::every]
    axis = 0 if image.shape[2] == 2 else None
    known = pixels
    if image.dtype.kind == "f":  # whole numbers are never NaN
        known = pixels[~np.isnan(pixels).any(1)]
    low, high = np.percentile(known if len(known) else np.zeros_like(pixels), (1, 99.8), axis=axis)
    scale = 255 / np.where(high > low, high - low, 1)
    stretched = np.clip((image.astype(np.float32) - low) * scale, 0, 255)
    shown = np.nan_to_num(stretched, nan=0).astype(np.uint8)
    missing = 3 - shown.shape[2]
    if shown.shape[2] == 1:
        return np.repeat(shown, 3, axis=2)
    return np.pad(shown, ((0, 0), (0, 0), (0, missing)))


def paint(indices: NDArray[np.uint8], table: ClassTable) -> NDArray[np.uint8]:
    """Return class indices ``(H, W)`` in their colours, ``(H, W, 3)`` uint8; ignored is hatched."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(table.classes)] = [colour_to_rgb(c.colour) for c in table.classes]
    painted: NDArray[np.uint8] = colours[indices]
    y, x = np.nonzero(indices == IGNORED)
    painted[y, x] = np.where((x + y) // 4 % 2, 110, 170)[:, None]
    return painted


def prevailing(counts: Sequence[int] | NDArray[np.integer[Any]]) -> int | None:
    """Return the class that has more than half of all pixels, if there is one.

    One rule holds for all pictures of a set: ``counts`` are the pixels of each class in all of it.
    """
    pixels = np.asarray(counts, np.int64)
    return int(pixels.argmax()) if 2 * int(pixels.max(initial=0)) > int(pixels.sum()) else None


def overlay(
    image: NDArray[Any],
    indices: NDArray[np.uint8],
    table: ClassTable,
    unpainted: int | None = None,
    numbers: NDArray[np.int32] | None = None,
) -> NDArray[np.uint8]:
    """Return ``image`` with its mask half-transparent, outlined, and a legend below.

    One class may stay unpainted, which leaves the image visible around the others; the legend says
    so.

    Args:
        image: ``(H, W, C)``.
        indices: ``(H, W)`` uint8 class indices, 255 ignored.
        table: Names and colours.
        unpainted: The class left unpainted; see `prevailing`.
        numbers: ``(H, W)`` numbers of objects, 0 where none is: each is outlined, and its number is
            written where there is room for it.

    Returns:
        ``(H', W', 3)`` uint8: the picture at its own size, at the top left. The legend adds rows,
        and it adds columns where a name is wider than the picture.
    """
    counts = np.bincount(indices.ravel(), minlength=256)
    shown = blend(to_display(image), indices, table, unpainted)
    if numbers is not None:
        shown = outline_objects(shown, numbers)
    return _stacked(shown, _legend(table, counts, unpainted, shown.shape[1]))


def outline_objects(
    picture: NDArray[np.uint8],
    numbers: NDArray[np.integer[Any]],
    marked: NDArray[np.bool_] | None = None,
    colour: str = "#ffffff",
) -> NDArray[np.uint8]:
    """Return a picture with an outline around each object, and its number where there is room.

    Args:
        picture: ``(H, W, 3)``.
        numbers: ``(H, W)`` numbers of objects, 0 where none is.
        marked: ``(H, W)`` where outlines have ``colour`` and two pixels; elsewhere they are white.
        colour: "#rrggbb".
    """
    from scipy import ndimage

    outlined, numbers = picture.copy(), numbers.astype(np.int32)
    outlined[_edges(numbers, 1) & (numbers > 0)] = 255
    if marked is not None:
        outlined[_edges(numbers, 2) & (numbers > 0) & marked] = colour_to_rgb(colour)
    drawn = Image.fromarray(outlined)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(_NUMBER_SIZE)
    for number, place in enumerate(ndimage.find_objects(numbers), 1):
        if place is None:
            continue
        rows, columns = np.nonzero(numbers[place] == number)
        left, top, right, bottom = font.getbbox(str(number))
        if len(rows) > 1.5 * (right - left) * (bottom - top):
            middle = (place[1].start + columns.mean() + 0.5, place[0].start + rows.mean() + 0.5)
            pen.text(middle, str(number), "white", font, "mm", stroke_width=1, stroke_fill="black")
    return np.asarray(drawn)


def blend(
    shown: NDArray[np.uint8],
    indices: NDArray[np.uint8],
    table: ClassTable,
    unpainted: int | None = None,
) -> NDArray[np.uint8]:
    """Return a picture ``(H, W, 3)`` of `to_display` with its mask as in `overlay`, no legend."""
    colours = paint(indices, table)
    painted = np.ones(indices.shape, bool) if unpainted is None else indices != unpainted
    mixed = shown // 2 + colours // 2
    thickness = max(1, max(indices.shape) // 800)  # one pixel of a picture that fits a screen
    edge = _edges(indices, thickness)
    mixed[edge] = colours[edge]
    return np.where(painted[..., None], mixed, shown)


def error_map(
    shown: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    background: int | None,
) -> NDArray[np.uint8]:
    """Return a picture made pale, grey and soft, with its wrong pixels in `ERROR_COLOURS`.

    A wrong pixel is missed where only the prediction is background, claimed where only the truth
    is, and confused where neither is. Pixels that the truth ignores are hatched.

    Args:
        shown: ``(H, W, 3)`` uint8, as `to_display` returns it.
        truth: ``(H, W)`` uint8 class indices, 255 ignored.
        prediction: ``(H, W)`` uint8 class indices.
        background: The class that surrounds the others. Where it is None, every wrong pixel counts
            as confused.

    Returns:
        ``(H, W, 3)`` uint8 of few colours, so that a PNG of it is small.
    """
    height, width = truth.shape
    grey = shown.mean(axis=2, keepdims=True, dtype=np.float32)
    blurred = rescale_image(rescale_image(grey, scaled_size(height, width, 0.5)), (height, width))
    pale = (144 + blurred * (111 / 255)).astype(np.uint8) & 0xF8
    painted = np.repeat(pale, 3, axis=2)
    wrong = (truth != prediction) & (truth != IGNORED)
    around = -1 if background is None else background
    kinds = {
        "missed": wrong & (prediction == around),
        "claimed": wrong & (truth == around),
        "confused": wrong & (prediction != around) & (truth != around),
    }
    for kind, where in kinds.items():
        painted[where] = colour_to_rgb(ERROR_COLOURS[kind])
    y, x = np.nonzero(truth == IGNORED)
    painted[y, x] = np.where((x + y) // 4 % 2, 190, 220)[:, None]
    return painted


def fill_shape(
    shape: tuple[int, int], kind: str, points: Sequence[tuple[float, float]]
) -> NDArray[np.bool_]:
    """Return the pixels ``(H, W)`` inside a drawn shape, its outline included.

    Args:
        shape: Rows and columns.
        kind: "polygon" (three corners or more), "rectangle" (two opposite corners) or "circle"
            (its centre and a point on it).
        points: (x, y) in pixels.

    Raises:
        ValueError: Another kind, or another number of points.
    """
    canvas = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(canvas)
    if kind == "polygon" and len(points) >= 3:
        draw.polygon(list(points), fill=1, outline=1)
    elif kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        draw.rectangle([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], fill=1, outline=1)
    elif kind == "circle" and len(points) == 2:
        (x, y), rim = points[0], points[1]
        radius = float(np.hypot(rim[0] - x, rim[1] - y))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1, outline=1)
    else:
        raise ValueError(f"a {kind} of {len(points)} points")
    return np.array(canvas)


def draw_line(
    shape: tuple[int, int], points: Sequence[tuple[float, float]], width: float
) -> NDArray[np.bool_]:
    """Return the pixels ``(H, W)`` whose centre is at most half of ``width`` away from a line.

    A line of one point is a disc. Whole numbers are centres, as in `fill_shape`. Of the pixels at
    exactly that distance, those below and right of the line belong to it. So a level line of an
    even width has that width, too.

    Args:
        shape: Rows and columns.
        points: (x, y) in pixels, one or more, joined in their order.
        width: The width of the line in pixels.
    """
    covered = np.zeros(shape, bool)
    places = np.array(points, float) + _ASIDE  # (n, 2)
    for begin, end in itertools.pairwise(places) if len(places) > 1 else [(places[0], places[0])]:
        low = np.maximum(np.floor(np.minimum(begin, end) - width / 2), 0).astype(int)
        high = np.maximum(np.ceil(np.maximum(begin, end) + width / 2) + 1, 0).astype(int)
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        rows, columns = np.indices(covered[part].shape)
        x, y = columns + (low[0] - begin[0]), rows + (low[1] - begin[1])
        across, down = end - begin
        length = across**2 + down**2
        along = np.clip((x * across + y * down) / length, 0, 1) if length else 0.0
        covered[part] |= (x - along * across) ** 2 + (y - along * down) ** 2 <= (width / 2) ** 2
    return covered


def _edges(indices: NDArray[np.integer[Any]], thickness: int) -> NDArray[np.bool_]:
    """Return where, within ``thickness`` pixels along a row or column, another class begins."""
    edge = np.zeros(indices.shape, bool)
    for step in range(1, thickness + 1):
        rows = indices[step:] != indices[:-step]
        edge[step:] |= rows
        edge[:-step] |= rows
        columns = indices[:, step:] != indices[:, :-step]
        edge[:, step:] |= columns
        edge[:, :-step] |= columns
    return edge


def _legend(
    table: ClassTable, counts: NDArray[np.int64], unpainted: int | None, width: int
) -> NDArray[np.uint8]:
    """Draw the classes that have pixels in ``counts``, in rows as wide as ``width``."""
    height = int(np.clip(width // 40, 12, 60))
    font = ImageFont.load_default(height)
    names = [(i, n) for i, n in enumerate((*table.names,)) if counts[i]]
    names += [(IGNORED, "ignored")] if counts[IGNORED] else []
    texts = [(i, n + " (not painted)" if i == unpainted else n) for i, n in names]
    gap = height // 2
    widths = [2 * height + gap + int(font.getlength(text)) + gap for _, text in texts]
    places, x, y = [], gap, gap
    for item_width in widths:
        if x > gap and x + item_width > width:
            x, y = gap, y + height + gap
        places.append((x, y))
        x += item_width
    full_width = max([width, *(x + w for (x, _), w in zip(places, widths, strict=True))])
    canvas = Image.new("RGB", (full_width, y + height + gap), "white")
    draw = ImageDraw.Draw(canvas)
    for (i, text), (x, y) in zip(texts, places, strict=True):
        swatch = paint(np.full((height, 2 * height - gap), i, np.uint8), table)
        if i == unpainted:
            swatch[2:-2, 2:-2] = 255
        canvas.paste(ImageOps.expand(Image.fromarray(swatch[1:-1, 1:-1]), 1, "grey"), (x, y))
        draw.text((x + 2 * height, y + height // 2), text, "black", font, anchor="lm")
    return np.asarray(canvas)


def _stacked(*pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put pictures of any width one above the other, on white."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate(
        [
            np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0)), constant_values=255)
            for one in pictures
        ]
    )


def _heading(text: str) -> NDArray[np.uint8]:
    """Draw one line of text."""
    font = ImageFont.load_default(_HEADING_SIZE)
    left, _, right, _ = font.getbbox(text)
    canvas = Image.new("RGB", (int(right - left) + 8, 2 * _HEADING_SIZE), "white")
    ImageDraw.Draw(canvas).text((4, _HEADING_SIZE), text, "black", font, anchor="lm")
    return np.asarray(canvas)


def sample_sheet(
    pictures: NDArray[Any], masks: NDArray[np.integer], classes: ClassTable
) -> NDArray[np.uint8]:
    """Return the patches of a batch, each above its mask, in rows of eight, and a legend.

    Args:
        pictures: (N, S, S, C) in the units of the images.
        masks: (N, S, S) class indices, 255 ignored.
        classes: Their colours.

    Returns:
        (H, W, 3) uint8.
    """
    cells = [
        np.concatenate([to_display(p), _bar(p.shape[1]), paint(m, classes)])
        for p, m in zip(pictures, masks.astype(np.uint8), strict=True)
    ]
    sheet = _rows([cells[i : i + 8] for i in range(0, len(cells), 8)])
    counts = np.bincount(masks.reshape(-1), minlength=256)
    heading = _heading("Patches as training sees them, each above its mask")
    return _stacked(heading, sheet, _legend(classes, counts, None, sheet.shape[1]))


def validation_sheet(
    rows: Sequence[tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.uint8]]],
    classes: ClassTable,
) -> NDArray[np.uint8]:
    """Return image, truth and prediction side by side under their names, a row each.

    Args:
        rows: (H, W, C) image, (H, W) truth, (H, W) prediction, in class indices.
        classes: Their colours.

    Returns:
        (H, W, 3) uint8.
    """
    cells = []
    counts = [np.bincount(truth.ravel(), minlength=IGNORED)[:IGNORED] for _, truth, _ in rows]
    unpainted = prevailing(np.sum(counts, 0)) if counts else None
    for image, truth, predicted in rows:
        shape = _fit(truth.shape[0], truth.shape[1], _SHEET_WIDTH // 3)
        small = rescale_image(image, shape)
        labels = [rescale_mask(m, shape) for m in (truth, predicted)]
        cells.append([to_display(small), *(overlay(small, m, classes, unpainted) for m in labels)])
    titles = ("image", "truth", "prediction")
    cells[0] = [_stacked(_heading(t), c) for t, c in zip(titles, cells[0], strict=True)]
    return _rows(cells)


def _rows(rows: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Put pictures of any size into rows on white."""
    height = sum(max(c.shape[0] for c in row) + _GAP for row in rows) - _GAP
    width = max(sum(c.shape[1] + _GAP for c in row) for row in rows) - _GAP
    sheet = np.full((height, width, 3), 255, np.uint8)
    top = 0
    for row in rows:
        left = 0
        for cell in row:
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
            left += cell.shape[1] + _GAP
        top += max(c.shape[0] for c in row) + _GAP
    return sheet


def _fit(height: int, width: int, most: int) -> tuple[int, int]:
    """Return rows and columns of the same shape, at most ``most`` columns wide."""
    return scaled_size(height, width, min(1.0, most / width))


def _bar(width: int) -> NDArray[np.uint8]:
    return np.full((2, width, 3), 255, np.uint8)
