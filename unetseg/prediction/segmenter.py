"""A network over a whole image of any size, in bounded memory, in one of two ways.

Blended: overlapping windows of the trained size are computed row by row. Their weighted
probabilities are summed in a band. Rows that no later window touches are divided by their weights
and yielded.

Seamless: large tiles lie side by side. Each tile also sees the pixels around it on which its output
depends (the ``halo`` of the network), up to a margin. Each starts on the grid of the pooling (the
``multiple``). So the kept parts equal those of one pass over the whole image. Where a network sees
farther than the margin, they come close to it. A few such passes may be averaged. Each sees the
image moved by other rows and columns. So no result depends on where the grid lies.

In both ways an image is read in rows and its probabilities are yielded in bands of rows. Neither
need ever exist as a whole. Several small images are computed at once, which takes less time.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetseg.dataset.geometry import pad_to, starts, tiles, window_weights
from unetseg.devices import is_fast_in_bfloat16
from unetseg.errors import InputError
from unetseg.network.labels import labels_of
from unetseg.network.unet import fill_to_multiple, fold_normalisation
from unetseg.pictures.bands import Rows
from unetseg.prediction.calibration import scale_

# The number of pixels of a tile. Larger tiles waste less on margins, but on a CPU more than this
# brings no further speed.
_TILE = {"cpu": 2**20, "cuda": 2**22, "mps": 2**21}
_WHOLE = 2**21  # pixels of an image that is one tile: its parts would see 1.3 to 1.5 times as many
# The most pixels that a tile sees beyond each side of its kept part. It is the halo of `classic`.
# Farther pixels changed labels of `fused`, which sees 480 pixels far, but not its score.
_MARGIN = 112
_LEAST = 16  # pixels of a margin: a tile holds the pixels by which a shift moves it
_BAND = 2**23  # pixels in a band of tiles: with a dozen classes, 400 MB of probabilities
# The number of pixels of the windows that are computed at once. A layer of more windows passes the
# 32 MB that glibc keeps for the next one, and new memory costs a fifth of the time. A GPU takes
# hundreds of windows at once.
_BATCH = {"cpu": 2**18, "cuda": 2**22, "mps": 2**21}
_UNMOVED = ((0, 0),)  # the shift of a single pass
_TOGETHER = 64  # the most images that are computed at once: their files are open meanwhile

T = TypeVar("T")
Corner = tuple[int, int]  # the row and column of a window


@dataclass(frozen=True)
class Computed:
    """An image whose probabilities are known: a `Segmenter` takes it in place of its pixels.

    Attributes:
        shape: Height and width come first.
        averages: The probabilities (K, H, W) float32, before the temperature.
    """

    shape: tuple[int, ...]
    averages: Tensor


class Segmenter:
    """Runs one network over an image, or several whose probabilities are averaged.

    Args:
        networks: Each maps (N, C, S, S) float32 to logits (N, K, S, S). A copy of it is used.
        means: The mean of each channel for each network, in the units of the training images.
        stds: The standard deviation of each channel for each network, above 0.
        size: The side S of a window in pixels.
        stride: The distance in pixels, 1 to ``size``, between windows that are blended. None is
            seamless; then each network must declare ``halo`` and ``multiple``.
        shifts: The rows and the columns, 0 to 15, by which a seamless pass moves the image down and
            right. Each makes a pass, and the passes are averaged.
        weights: The weights of windows, "gaussian" or "uniform"; see
            `unetseg.dataset.geometry.window_weights`.
        flips: Symmetries to average over besides the plain view, each a tuple of axes to flip:
            (-1,) left-right, (-2,) up-down, (-2, -1) both.
        batch_size: The number of windows computed at once; None chooses it for speed.
        temperature: A number T above 0. Probabilities and confidences are softmax(log(p) / T) of
            the averages p over windows, networks and views. Labels do not change.
        device: The device to compute on.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        size: int,
        means: Sequence[Sequence[float]],
        stds: Sequence[Sequence[float]],
        stride: int | None = None,
        shifts: Sequence[tuple[int, int]] = _UNMOVED,
        weights: str = "gaussian",
        flips: Sequence[tuple[int, ...]] = (),
        batch_size: int | None = None,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.networks: list[Any] = [
            fold_normalisation(n).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for n in networks
        ]
        self.size, self.stride, self.shifts = size, stride, tuple(shifts)
        self.batch_size = batch_size or max(1, _BATCH[self.device.type] // size**2)
        self.temperature = temperature
        # A GPU computes as it trains by default. A CPU gives the same labels as any other machine.
        self._halves = self.device.type == "cuda" and is_fast_in_bfloat16(self.device)
        self.views: list[tuple[int, ...]] = [(), *flips]
        self._weights = torch.from_numpy(window_weights(size, weights)).to(self.device)
        # Networks with equal normalisation share one batch.
        groups: dict[tuple[tuple[float, ...], tuple[float, ...]], list[nn.Module]] = {}
        for network, mean, std in zip(self.networks, means, stds, strict=True):
            groups.setdefault((tuple(mean), tuple(std)), []).append(network)
        self._groups = [
            (self._per_channel(mean), self._per_channel(std), members)
            for (mean, std), members in groups.items()
        ]

    def _per_channel(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self.device).view(-1, 1, 1)

    def batches(
        self, items: Iterable[T], shape_of: Callable[[T], tuple[int, int] | None]
    ) -> Iterator[list[T]]:
        """Yield the items in order, in lists of images that `together` computes at once.

        A list is yielded once another image like its last would be too much. So of large images,
        none is taken before its turn.

        Args:
            items: Images, or their numbers, and the like.
            shape_of: Returns the height and width of an item's image; None leaves the item alone.
        """
        batch, pixels, shape = list[T](), 0, None
        for item in items:
            last, shape = shape, shape_of(item)
            # Each image is a window of its own where images are covered seamlessly.
            alike = None not in (shape, last) and (shape == last or self.stride is not None)
            cost = 0 if shape is None else self._pixels(shape)
            if batch and not (alike and self._has_room(len(batch), pixels + cost)):
                yield batch
                batch, pixels = [], 0
            batch.append(item)
            pixels += cost
            if shape is None or not self._has_room(len(batch), pixels + cost):
                yield batch
                batch, pixels = [], 0
        if batch:
            yield batch

    def _pixels(self, shape: tuple[int, int]) -> int:
        """Return the pixels of one pass."""
        return computed_pixels(shape, self.networks, self.size, self.stride, _UNMOVED, self.device)

    def _has_room(self, images: int, pixels: int) -> bool:
        """Return whether a batch of so many images takes another, and then has so many pixels."""
        most = min(self.batch_size * self.size**2, _TILE[self.device.type])
        return images < _TOGETHER and pixels <= most

    @torch.inference_mode()
    def together(self, images: Sequence[Rows]) -> Sequence[Rows | Computed]:
        """Return images of a list of `batches`, computed at once; one alone is returned as it is.

        Args:
            images: (H, W, C) each, as `bands` takes an image.
        """
        if len(images) < 2:
            return images
        padded = [pad_to(image[0 : image.shape[0]], self.size, self.size) for image in images]
        found = (
            self._fitted(np.stack(padded), self.shifts)
            if self.stride is None
            else self._blend(padded, self.stride)
        )
        return [
            Computed(image.shape, shares[:, : image.shape[0], : image.shape[1]])
            for image, shares in zip(images, found, strict=True)
        ]

    def labels(
        self, image: Rows | Computed, shape: tuple[int, int] | None = None
    ) -> NDArray[np.uint8]:
        """Return the most probable class of each pixel of an image (H, W, C).

        Args:
            image: The image as `bands` takes it.
            shape: The height and width of the result; None keeps those of the image. Probabilities
                are interpolated bilinearly to another shape, which keeps borders smooth.

        Returns:
            (H, W) uint8 class indices, in ``shape`` where it is given.
        """
        rows = [labels_of(band) for band in self._averages(image, shape)]
        return torch.cat(rows).numpy()

    def labels_and_confidence(
        self, image: Rows | Computed, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return `labels` and the probability (H, W) float32 of each label.

        ``shape`` is as for `labels`. The probabilities of the other classes never exist for the
        whole image at once.
        """
        labels, confidence = [], []
        for band, probabilities in self.labelled_bands(image, shape):
            labels.append(band)
            confidence.append(probabilities.amax(0).cpu().numpy())
        return np.concatenate(labels), np.concatenate(confidence)

    def labelled_bands(
        self, image: Rows | Computed, shape: tuple[int, int] | None = None
    ) -> Iterator[tuple[NDArray[np.uint8], Tensor]]:
        """Yield `labels` (rows, W) and `bands` (K, rows, W) together, from top to bottom."""
        for band in self._averages(image, shape):
            yield labels_of(band).numpy(), self._scaled(band)

    def probabilities(
        self, image: Rows | Computed, shape: tuple[int, int] | None = None
    ) -> NDArray[np.float32]:
        """Return the class probabilities (K, H, W) float32, summing to 1, in ``shape``."""
        return torch.cat([band.cpu() for band in self.bands(image, shape)], 1).numpy()

    def bands(
        self, image: Rows | Computed, shape: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Yield the probabilities of an image from top to bottom in bands (K, rows, W) float32.

        Args:
            image: (H, W, C) in the units and channels of the training images, or the result of
                `together` for it. An image smaller than a window is reflected up to that size, and
                the result is cut back.
            shape: The height and width of the result, as in `labels`.

        Raises:
            InputError: The values are so large that the network computes no numbers from them.
        """
        return map(self._scaled, self._averages(image, shape))

    @torch.inference_mode()
    def _scaled(self, band: Tensor) -> Tensor:
        return scale_(band, self.temperature)

    def _averages(
        self, image: Rows | Computed, shape: tuple[int, int] | None = None
    ) -> Iterator[Tensor]:
        """Yield `bands` in ``shape``, interpolated where needed, before the temperature."""
        bands, own = self._averages_of(image), (image.shape[0], image.shape[1])
        return bands if shape in (None, own) else resized(bands, own[0], shape)

    @torch.inference_mode()
    def _averages_of(self, image: Rows | Computed) -> Iterator[Tensor]:
        """Yield `bands` in the size of the image, before the temperature."""
        if isinstance(image, Computed):
            for band in torch.split(image.averages, max(1, _BAND // image.shape[1]), 1):
                yield _known(band.clone())  # whoever takes a band may scale it in place
            return
        height, width = image.shape[:2]
        if height < self.size or width < self.size:
            image = pad_to(image[0:height], self.size, self.size)
        bands = self._seamless(image) if self.stride is None else self._blended(image, self.stride)
        for band in bands:
            yield _known(band[:, :height, :width])
            height -= band.shape[1]
            if height <= 0:
                return

    def _seamless(self, image: Rows) -> Iterator[Tensor]:
        height, width = image.shape[:2]
        margin, kept = tiling(self.networks, (height, width), self.device)
        for seen, inner in tiles(height, kept[0], margin):
            strip = image[seen]
            # A view of the part that is kept would hold the whole tile. Of a row that is 20,000
            # pixels wide, with three classes, these are 175 MB.
            parts = (
                self._softmax(strip[None, :, across], self.shifts)[0, :, inner, middle].clone()
                for across, middle in tiles(width, kept[1], margin)
            )
            yield torch.cat(list(parts), 2)

    def _blended(self, image: Rows, stride: int) -> Iterator[Tensor]:
        """Yield bands (K, rows, W) averaged over overlapping windows."""
        height, width = image.shape[:2]
        rows = starts(height, self.size, stride)
        columns = starts(width, self.size, stride)
        together = _even(len(rows), self.batch_size // len(columns))  # rows of windows
        sums = torch.empty(0, 0, width)  # as `_add` takes them; the first windows tell the rest
        for first in range(0, len(rows), together):
            group = rows[first : first + together]
            top = int(group[0])
            bottom = int(group[-1]) + self.size
            strip = image[top:bottom]
            corners = [(int(r) - top, int(c)) for r in group for c in columns]
            count = _even(len(corners), self.batch_size)
            for begin in range(0, len(corners), count):
                batch = corners[begin : begin + count]
                shares = self._fitted(_cut(strip, batch, self.size))  # (n, K, S, S)
                if not len(sums):
                    sums = shares.new_zeros(shares.shape[1] + 1, 0, width)
                grow = bottom - top - sums.shape[1]
                if grow > 0:
                    sums = nn.functional.pad(sums, (0, 0, 0, grow))
                self._add(sums, batch, shares)
            following = first + together
            done = int(rows[following]) - top if following < len(rows) else height - top
            yield sums[:-1, :done] / sums[-1, :done]
            sums = sums[:, done:].clone()

    def _blend(self, images: Sequence[NDArray[Any]], stride: int) -> Iterator[Tensor]:
        """Yield `_blended` of each of several images, as a whole (K, H, W)."""
        size, all_corners = self.size, list[list[Corner]]()
        for height, width, _ in (image.shape for image in images):
            rows, columns = starts(height, size, stride), starts(width, size, stride)
            all_corners.append([(int(r), int(c)) for r in rows for c in columns])
        windows = [_cut(*one, size) for one in zip(images, all_corners, strict=True)]
        found = torch.split(self._fitted(np.concatenate(windows)), [len(part) for part in windows])
        for image, corners, shares in zip(images, all_corners, found, strict=True):
            sums = shares.new_zeros(shares.shape[1] + 1, *image.shape[:2])
            self._add(sums, corners, shares)
            yield sums[:-1] / sums[-1]

    def _add(self, sums: Tensor, corners: Sequence[Corner], windows: Tensor) -> None:
        """Add windows (n, K, S, S), weighted, to sums (K + 1, H, W); the last holds the weights."""
        for (row, column), window in zip(corners, windows, strict=True):
            place = sums[:, row : row + self.size, column : column + self.size]
            place[:-1].addcmul_(window, self._weights)
            place[-1] += self._weights

    def _fitted(self, stack: NDArray[Any], shifts: Sequence[tuple[int, int]] = _UNMOVED) -> Tensor:
        """Return `_softmax` of windows; halve the batch where the device lacks memory for it."""
        try:
            return self._softmax(stack, shifts)
        except torch.OutOfMemoryError:
            half = len(stack) // 2
            if half == 0:
                raise
        self.batch_size = min(self.batch_size, half)  # later batches start with this size
        return torch.cat([self._fitted(part, shifts) for part in (stack[:half], stack[half:])])

    def _softmax(self, stack: NDArray[Any], shifts: Sequence[tuple[int, int]] = _UNMOVED) -> Tensor:
        """Return the probabilities (n, K, h, w) of parts (n, h, w, C) of an image.

        They are averaged over networks, views and ``shifts``. Each view is filled up to whole cells
        of the pooling grid. So a mirror image is pooled in the same cells as the image.
        """
        if stack.dtype == np.uint16:
            stack = stack.astype(np.float32)  # torch computes little on uint16
        batch = torch.from_numpy(np.require(stack, requirements=["C", "W"])).to(self.device)
        batch = batch.permute(0, 3, 1, 2).float()
        all_shares = self._shares(batch, shifts)
        result = next(all_shares)
        for shares in all_shares:
            result.add_(shares)
        parts = len(self.networks) * len(self.views) * len(shifts)
        return result if parts == 1 else result.div_(parts)

    def _shares(self, batch: Tensor, shifts: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
        """Yield the probabilities (n, K, h, w) of each network for each view and each shift."""
        for mean, std, networks in self._groups:
            normalised = (batch - mean) / std
            for rows, columns in shifts:
                seen = _moved(normalised, rows, columns)
                for network, axes in itertools.product(networks, self.views):
                    view = fill_to_multiple(seen, getattr(network, "multiple", 1)) if axes else seen
                    with torch.autocast(self.device.type, torch.bfloat16, enabled=self._halves):
                        logits = network(view.flip(axes) if axes else view)
                    shares = logits.float().softmax(1)
                    if axes:
                        shares = shares.flip(axes)[:, :, : seen.shape[2], : seen.shape[3]]
                    yield shares[:, :, rows:, columns:]


def tiling(
    networks: Sequence[Any], shape: tuple[int, int], device: torch.device
) -> tuple[int, tuple[int, int]]:
    """Return the margin around a tile, and the rows and columns that are kept of it.

    An image of no more than `_WHOLE` pixels, or than a tile with its margin has, is one tile.

    Args:
        networks: Networks that declare ``multiple`` and ``halo``.
        shape: The height and width of the image.
        device: The device to compute on, which determines the size of a tile.
    """
    height, width = shape
    grid = math.lcm(*(n.multiple for n in networks))
    halo = max(_LEAST, *(n.halo for n in networks))
    margin = min(-(-halo // grid), max(1, _MARGIN // grid)) * grid
    pixels = _TILE[device.type]
    rows = min(math.isqrt(pixels) - 2 * margin, _BAND // width)
    rows = max(rows // grid, -(-margin // grid), 1) * grid
    columns = max(pixels // (rows + 2 * margin) - 2 * margin, rows) // grid * grid
    if height * width <= max(_WHOLE, (rows + 2 * margin) * (columns + 2 * margin)):
        return margin, shape
    return margin, (rows, columns)


def computed_pixels(
    shape: tuple[int, int],
    networks: Sequence[Any],
    size: int,
    stride: int | None,
    shifts: Sequence[tuple[int, int]],
    device: torch.device,
) -> int:
    """Return how many pixels a `Segmenter` with these arguments computes for an image."""
    height, width = (max(side, size) for side in shape)
    if stride is not None:
        return len(starts(height, size, stride)) * len(starts(width, size, stride)) * size**2
    margin, kept = tiling(networks, (height, width), device)
    rows, columns = (
        [seen.stop - seen.start for seen, _ in tiles(length, part, margin)]
        for length, part in zip((height, width), kept, strict=True)
    )
    return sum(
        (sum(rows) + down * len(rows)) * (sum(columns) + right * len(columns))
        for down, right in shifts
    )


def _cut(image: NDArray[Any], corners: Sequence[Corner], size: int) -> NDArray[Any]:
    """Return the windows (n, S, S, C) of an image (H, W, C)."""
    return np.stack([image[r : r + size, c : c + size] for r, c in corners])


def _even(count: int, most: int) -> int:
    """Return the size of the parts in which ``count`` items come evenly, at most ``most`` each."""
    return math.ceil(count / math.ceil(count / max(1, most)))


def _known(band: Tensor) -> Tensor:
    """Return a band (K, rows, W) of probabilities; refuse one that is not all numbers."""
    if torch.isfinite(band[0]).all():  # of a pixel, softmax makes all classes numbers or none
        return band
    text = "computes no numbers from an image with values like these"
    raise InputError("the network", text, "give values as in the training images")


def _moved(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return ``x`` (N, C, H, W) moved down and right, with its reflection above and on the left."""
    for axis, by in ((2, rows), (3, columns)):
        if by:
            x = torch.cat([x.narrow(axis, 0, by).flip(axis), x], axis)
    return x


def resized(bands: Iterable[Tensor], height: int, shape: tuple[int, int]) -> Iterator[Tensor]:
    """Interpolate an image that comes in bands, and yield the result in bands.

    The result equals `torch.nn.functional.interpolate` of the whole image with mode "bilinear",
    within rounding.

    Args:
        bands: (K, rows, W) float32, from top to bottom.
        height: The number of rows in all bands together.
        shape: The height and width of the result.

    Yields:
        (K, rows, ``shape[1]``); all bands together have ``shape[0]`` rows.
    """
    # For each row of the result: the place of its centre in the image, and the rows around it.
    places = ((torch.arange(shape[0]) + 0.5) * (height / shape[0]) - 0.5).clamp(0, height - 1)
    above = places.long()
    below, share = (above + 1).clamp_max(height - 1), (places - above)[:, None]
    held, first, done = None, 0, 0  # rows at hand, the number of the first, rows yielded
    for band in bands:
        band = nn.functional.interpolate(band[None], (band.shape[1], shape[1]), mode="bilinear")[0]
        held = band if held is None else torch.cat([held, band], 1)
        ready = int(torch.searchsorted(below, first + held.shape[1]))
        if ready > done:
            rows, device = slice(done, ready), held.device
            upper, lower = (
                held.index_select(1, (numbers[rows] - first).to(device))
                for numbers in (above, below)
            )
            yield upper.lerp(lower, share[rows].to(device))
            done = ready
        if ready < shape[0]:
            unneeded = min(int(above[ready]) - first, held.shape[1])
            held, first = held[:, unneeded:], first + unneeded
