"""Pictures larger than the memory: they are read by rows, and masks are written by tiles."""

import math
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import tifffile
from numpy.typing import ArrayLike, DTypeLike, NDArray

from unetseg import files
from unetseg.classes import ClassTable
from unetseg.pictures import reading, writing
from unetseg.pictures.georeference import Georeference, nodata_tag
from unetseg.pictures.opening import (
    MAX_PIXELS,
    ImageInfo,
    Picture,
    apply_orientation,
    as_declared,
    check_page,
    declare_nodata,
    decoding,
    open_file,
    refuse_absurd,
)
from unetseg.settings import WHOLE, Selection

LARGE = 100_000_000  # a picture with more pixels is never held as a whole
_CLASSIC = 2**32 - 2**25  # bytes of pixels for which 32-bit offsets in a TIFF surely suffice
_TILE = 512  # pixels along a side of a tile
_STRIP = 2**18  # bytes of a strip before it is compressed
_TOGETHER = 16  # rows of a reduced image that are made at once


class Rows(Protocol):
    """An image (H, W, C) that gives its rows: an array, or a file that decodes them on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return the rows (n, W, C) of a slice with start and stop."""


_Reader = Callable[[int, int], tuple[NDArray[Any], NDArray[np.bool_] | None]]


class Raster:
    """An opened picture whose rows are decoded when they are asked for.

    ``raster[a:b]`` are rows ``(b - a, W, C)`` in an array of their own, equal to those of
    `reading.read_image`. But a pixel that the file declares as without data may be NaN. In a TIFF,
    only the tiles that the rows touch are decoded. Other formats, turned pictures and unusual TIFFs
    are decoded once, into a single copy. Use a raster from one thread at a time.

    Attributes:
        info: The header.
        georeference: The size and the place of its pixels, which a prediction takes over.
        shape: ``(H, W, C)``.
        dtype: uint8, uint16 or float32.
    """

    def __init__(
        self, path: str | os.PathLike[str], handle: BinaryIO, kind: str, picture: Picture
    ) -> None:
        self._path, self._handle, self._kind, self._picture = path, handle, kind, picture
        self._reader: _Reader | None = None
        self.info: ImageInfo = picture.info
        self.georeference: Georeference = picture.georeference().turned(picture.orientation)
        self.shape = (self.info.height, self.info.width, self.info.channels)
        self.dtype: np.dtype[Any] = np.dtype(self.info.dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and release the decoded pixels."""
        self._handle.close()
        self._reader = None

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return rows ``(n, W, C)``.

        Raises:
            IndexError: The slice has no rows, or a step between them.
            InputError: The pixels are damaged, or not finite.
            MachineError: Not enough memory.
        """
        return self._decode(rows)[0]

    def with_valid(self, rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return rows ``(n, W, C)``, and which of their pixels ``(n, W)`` hold data.

        Pixels have none where they are wholly transparent, or where `valid_pixels` says so. None
        stands for pixels that all hold data.

        Raises:
            IndexError, InputError, MachineError: ``raster[rows]`` raises them.
            InputError: A pixel that holds data has a value that no measurement has.
        """
        pixels, opaque = self._decode(rows)
        nodata = self.georeference.nodata
        valid = valid_pixels(pixels, nodata)
        if opaque is not None and not opaque.all():
            valid = opaque if valid is None else valid & opaque
        known = pixels if valid is None else pixels[valid]
        refuse_absurd(self._path, known, lambda value: declare_nodata(value, nodata))
        return pixels, valid

    def valid(self, rows: slice) -> NDArray[np.bool_] | None:
        """Return the second value of `with_valid`; nothing is decoded where no file has gaps."""
        return self.with_valid(rows)[1] if self.may_have_gaps else None

    @property
    def may_have_gaps(self) -> bool:
        """Whether the file can say that a pixel holds no data: by transparency or by a value."""
        return self.georeference.nodata is not None or self._picture.has_alpha

    def _decode(self, rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return rows, and which of their pixels are not wholly transparent."""
        first, last, step = rows.indices(self.shape[0])
        if step != 1 or first >= last:
            raise IndexError(f"rows {rows.start} to {rows.stop} of {self.shape[0]}")
        with decoding(self._path, self._kind):
            self._reader = self._reader or self._open_reader()
            return self._reader(first, last)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the whole picture ``(H, W, C)``."""
        if copy is False:
            raise ValueError("the rows of a raster are decoded, so they are always new")
        return self[:].astype(dtype or self.dtype, copy=False)

    def _open_reader(self) -> _Reader:
        """Return a reader of rows as `_decode` returns them."""
        picture = self._picture
        stored = picture.rows() if picture.info.orientation == 1 else None
        if stored is not None:

            def read(first: int, last: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
                rows = stored(first, last)
                return np.ascontiguousarray(self._as_declared(rows, first)), self._opaque(rows)

            return read
        pixels = picture.pixels()
        whole = apply_orientation(self._as_declared(pixels, 0), picture.orientation)
        if (opaque := self._opaque(pixels)) is None:
            return lambda first, last: (whole[first:last].copy(), None)
        upright = apply_orientation(opaque, picture.orientation)
        return lambda first, last: (whole[first:last].copy(), upright[first:last])

    def _opaque(self, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
        return stored[..., -1] != 0 if self._picture.has_alpha else None

    def _as_declared(self, pixels: NDArray[Any], top: int) -> NDArray[Any]:
        return as_declared(self._path, self._picture, pixels, top, self.georeference.nodata)


class Blanked:
    """The rows of a picture (H, W, C) as float32, NaN where a pixel has no data, to be shown."""

    def __init__(self, raster: Raster) -> None:
        self._raster, self.shape = raster, raster.shape

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """Return the rows (n, W, C) of a slice with start and stop."""
        pixels, valid = self._raster.with_valid(rows)
        shown: NDArray[np.float32] = pixels.astype(np.float32)
        if valid is not None:
            shown[~valid] = np.nan
        return shown


def open_raster(
    path: str | os.PathLike[str], selection: Selection = WHOLE, *, max_pixels: int = MAX_PIXELS
) -> Raster:
    """Open a picture to be read by rows; no pixels are decoded yet.

    Args:
        path: PNG, JPEG, TIFF, BMP or GIF, with any suffix.
        selection: The picture and the channels, as `reading.read_image` takes them.
        max_pixels: Larger pictures (height x width) are refused.

    Raises:
        InputError: `reading.read_image` would refuse the file, as far as the header shows it.
        MachineError: No permission to read.
    """
    with ExitStack() as stack:
        handle, kind = open_file(path)
        stack.callback(handle.close)
        with decoding(path, kind):
            picture = reading.open_picture(path, handle, kind, max_pixels, selection)
            check_page(path, picture.info, selection.page)
            raster = Raster(path, handle, kind, picture)
        stack.pop_all()
        return raster


def read_filled(
    path: str | os.PathLike[str], selection: Selection = WHOLE, *, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read an image as `reading.read_image` does; pixels without data have the mean of the others.

    Values such as -9999 would otherwise take part in means, deviations and patches.

    Returns:
        The image (H, W, C), and which of its pixels (H, W) have no data. The latter is None where
        all have some.

    Raises:
        InputError: `open_raster` or the raster refuses the file.
        MachineError: No permission to read, not enough memory.
    """
    with open_raster(path, selection, max_pixels=max_pixels) as raster:
        image, valid = raster.with_valid(slice(0, raster.shape[0]))
    if valid is None:
        return image, None
    known = valid[..., None] & (image == image)  # NaN differs from itself
    sums = np.where(known, image, 0).sum((0, 1), dtype=np.float64)
    return fill_missing(image, valid, sums / np.maximum(known.sum((0, 1)), 1)), ~valid


def fill_missing(image: NDArray[Any], valid: NDArray[np.bool_], values: ArrayLike) -> NDArray[Any]:
    """Return an image (H, W, C) with a value a channel where it is NaN or holds no data."""
    missing = ~valid[..., None] | (image != image)  # only NaN differs from itself
    return np.where(missing, np.asarray(values).astype(image.dtype), image)


def valid_pixels(rows: NDArray[Any], nodata: float | None) -> NDArray[np.bool_] | None:
    """Return which pixels ``(n, W)`` of rows ``(n, W, C)`` hold data.

    A pixel has none where every channel is ``nodata`` or NaN. The result is None where ``nodata``
    is None.
    """
    if nodata is None:
        return None
    if rows.dtype.kind == "f":
        with np.errstate(
            over="ignore"
        ):  # the lowest double is -inf as float32, here as in the rows
            missing = np.isnan(rows) | (rows == rows.dtype.type(nodata))
    elif nodata in range(np.iinfo(rows.dtype).max + 1):
        missing = rows == rows.dtype.type(nodata)
    else:
        return np.ones(rows.shape[:2], np.bool_)
    valid: NDArray[np.bool_] = ~missing.all(axis=2)
    return valid


def reduce_rows(image: Rows, step: int) -> NDArray[Any]:
    """Return an image of the means of ``step`` x ``step`` pixels; it is read by bands of rows.

    Args:
        image: (H, W, C), an array or a file that decodes its rows.
        step: 1 or more. Rows and columns that are left over are dropped.
    """
    height, width, channels = image.shape
    if step == 1:
        return np.asarray(image[0:height])
    rows, columns = height // step, width // step
    small = np.empty((rows, columns, channels), image[0:1].dtype)
    for top in range(0, rows, _TOGETHER):
        bottom = min(top + _TOGETHER, rows)
        band = image[top * step : bottom * step][:, : columns * step]
        cells = band.reshape(bottom - top, step, columns, step, channels)
        means = cells.mean((1, 3), dtype=np.float32)
        small[top:bottom] = means if small.dtype.kind == "f" else np.rint(means)
    return small


def reduce_mask(indices: NDArray[Any], step: int) -> NDArray[Any]:
    """Return the middle pixel of each ``step`` x ``step`` pixels (H, W), as `reduce_rows` does."""
    rows, columns = indices.shape[0] // step, indices.shape[1] // step
    half = step // 2
    return indices[half : half + rows * step : step, half : half + columns * step : step]


def write_mask_tiff(
    path: str | os.PathLike[str],
    bands: Iterable[NDArray[np.uint8]],
    shape: tuple[int, int],
    table: ClassTable,
    text: Mapping[str, str],
    georeference: Georeference,
    *,
    tile: int = _TILE,
) -> None:
    """Write class indices as a TIFF that `reading.read_mask` and any viewer show in colour.

    Pixels and palette are those of `writing.write_mask`. The tiles are written while ``bands`` is
    consumed, so the memory holds one band and one row of tiles.

    Args:
        path: The file, which is written whole or not at all.
        bands: Class indices ``(rows, W)`` uint8, 255 ignored, from the top; any number of rows.
        shape: Height and width of the mask.
        table: The classes.
        text: Goes into the JSON description, where `reading.read_text` finds it.
        georeference: The georeference of the input. Resolution and GeoTIFF tags are kept. Where
            the input has pixels without data, the mask declares its value for ignored pixels.
        tile: Pixels along a side of a tile, a multiple of 16.

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full or read-only, and the like.
    """
    encoding = writing.mask_encoding(table)
    is_byte = encoding.values.dtype == np.uint8
    tags = list(georeference.tags)
    if georeference.nodata is not None:
        tags += nodata_tag(encoding.ignored)
    pixels = (encoding.values[band] for band in bands)
    with files.replacing(Path(path)) as temporary:
        tifffile.imwrite(
            temporary,
            _tiles(pixels, shape, tile),
            **_compressed(shape, encoding.values.dtype),
            tile=(tile, tile),
            photometric="palette" if is_byte else "minisblack",
            colormap=_colormap(encoding.palette) if is_byte else None,
            resolution=georeference.resolution,
            resolutionunit=writing.RESOLUTION_UNITS[georeference.resolution_unit],
            metadata=dict(text),
            extratags=tags,
        )
        # Drain the bands even when every tile is written: the code after the last `yield` of their
        # maker (counting, progress) must still run.
        if any(map(len, pixels)):
            raise _too_many(shape[0])


def write_stack(
    path: str | os.PathLike[str],
    masks: NDArray[np.integer[Any]],
    axes: str,
    palette: NDArray[np.uint8] | None,
    text: Mapping[str, str],
) -> None:
    """Write masks of one size as the pages of a TIFF, whole or not at all.

    Args:
        path: The file.
        masks: Values ``(..., H, W)`` uint8 or uint16, as masks hold them.
        axes: A letter for each axis, as tifffile has them: "ZYX".
        palette: ``(256, 3)`` uint8, the colours of uint8 values; else None.
        text: Goes into the JSON description.

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full or read-only, and the like.
    """
    with files.replacing(Path(path)) as temporary:
        tifffile.imwrite(
            temporary,
            masks,
            compression="zlib",
            photometric="minisblack" if palette is None else "palette",
            colormap=None if palette is None else _colormap(palette),
            metadata={**text, "axes": axes},
        )


def write_numbers(
    path: str | os.PathLike[str],
    numbers: NDArray[np.integer[Any]],
    text: Mapping[str, str] | None = None,
    georeference: Georeference | None = None,
    nodata: int | None = None,
) -> None:
    """Write a label image ``(H, W)`` as a TIFF, whole or not at all.

    It has 16 bits a pixel, or 32 where a number is over 65,535; uint8 keeps its 8. Fiji, napari
    and QuPath open it. Its pixels lie in strips, because ImageJ refuses tiles.

    Args:
        path: The file.
        numbers: May be a file that is mapped into memory.
        text: Goes into the JSON description.
        georeference: The place of the image on a map. Resolution and GeoTIFF tags are kept.
        nodata: The number that the file declares as no data; None declares none.

    Raises:
        InputError: ``path`` is a folder.
        MachineError: The disk is full or read-only, and the like.
    """
    place, shape = georeference or Georeference(), (numbers.shape[0], numbers.shape[1])
    depth = np.dtype(np.uint8 if numbers.dtype == np.uint8 else np.uint16)
    if numbers.max(initial=0) >= 2**16:
        depth = np.dtype(np.uint32)
    rows = max(1, _STRIP // (shape[1] * depth.itemsize))
    with files.replacing(Path(path)) as temporary:
        tifffile.imwrite(
            temporary,
            _strips(numbers, depth, rows),
            **_compressed(shape, depth),
            rowsperstrip=rows,
            photometric="minisblack",
            resolution=place.resolution,
            resolutionunit=writing.RESOLUTION_UNITS[place.resolution_unit],
            metadata=dict(text or {}),
            extratags=[*place.tags, *nodata_tag(nodata)],
        )


def _colormap(palette: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the colours ``(256, 3)`` of a palette as a TIFF stores them, ``(3, 256)``."""
    return palette.T.astype(np.uint16) * np.uint16(257)


def _compressed(shape: tuple[int, int], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the options of a TIFF whose compressed tiles or strips are written one by one."""
    return {
        "shape": shape,
        "dtype": dtype,
        "bigtiff": math.prod(shape) * dtype.itemsize > _CLASSIC,
        "compression": "zlib",
        "maxworkers": 1,  # more workers would hold 256 MB of tiles before they write the first
    }


def _strips(numbers: NDArray[np.integer[Any]], dtype: np.dtype[Any], rows: int) -> Iterator[bytes]:
    """Yield a picture as compressed strips of so many rows, which tifffile takes as they are."""
    for top in range(0, len(numbers), rows):
        yield zlib.compress(numbers[top : top + rows].astype(dtype).tobytes())


@contextmanager
def scratch(near: Path, shape: tuple[int, ...], dtype: DTypeLike) -> Iterator[NDArray[Any]]:
    """Yield an array of zeros that lies on the disk, in a file without a name.

    Args:
        near: A file beside which it lies.
        shape: The shape of the array.
        dtype: The dtype of the array.

    Raises:
        MachineError: The disk is full or read-only, and the like.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    files.check_free(near, size)
    with ExitStack() as stack:
        try:
            home = files.make_folder(near.parent)
            file = stack.enter_context(tempfile.TemporaryFile(dir=home))
            files.reserve(file, size)
            array = np.memmap(file, dtype, "w+", shape=shape)
        except OSError as error:
            raise files.machine_error(near, error) from None
        yield array


def _tiles(
    bands: Iterable[NDArray[Any]], shape: tuple[int, int], tile: int
) -> Iterator[NDArray[Any]]:
    """Yield the tiles of a picture that comes in bands of rows, one row of tiles after another."""
    height, width = shape
    row: NDArray[Any] | None = None
    done = 0  # rows of pixels
    for band in bands:
        if done + len(band) > height:
            raise _too_many(height)
        while len(band):
            if row is None:
                row = np.empty((min(tile, height - done), width), band.dtype)
            at = done % tile
            part, band = band[: len(row) - at], band[len(row) - at :]
            row[at : at + len(part)] = part
            done += len(part)
            if at + len(part) == len(row):
                yield from (row[:, left : left + tile] for left in range(0, width, tile))
                row = None
    if done != height:
        raise ValueError(f"bands of {done} rows, the mask has {height}")


def _too_many(height: int) -> ValueError:
    return ValueError(f"bands of more than the {height} rows of a mask")
