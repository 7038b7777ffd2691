"""TIFF, decoded by tifffile: whole pictures, or only the tiles that some rows touch."""

import json
import os
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from unetseg.errors import InputError, arg
from unetseg.pictures import georeference
from unetseg.pictures.georeference import Georeference
from unetseg.pictures.opening import (
    COPY_AGAIN,
    INVERTED,
    LOSSY,
    ORIENTATION,
    ImageInfo,
    Picture,
    RowReader,
    apply_orientation,
    bits_as_bytes,
    check_size,
    palette_channels,
)
from unetseg.settings import PROJECTIONS

_DEFLATED = (8, 32946)  # TIFF compression numbers of zlib: Adobe's, and the older one
_SUSPICIOUS = 2**17  # bytes of a deflated strip or tile; smaller ones can do little harm
_GDAL_METADATA = 42112  # the tag; its XML names the colour of each band
_BAND_ROLE = re.compile(r'<Item name="COLORINTERP" sample="(\d+)"[^>]*>([^<]*)</Item>')
_MAX_PAGES = 10_000  # it takes seconds to walk a longer list of pages
_KEPT = 2**26  # bytes of decoded tiles kept: bands may overlap by hundreds of rows


def open_tiff(
    path: str | os.PathLike[str], handle: BinaryIO, max_pixels: int, page: int | str | None
) -> Picture:
    """Read the header of a TIFF and refuse a picture that must not be decoded.

    ``page`` is as in `Selection`, and counts the pictures of all series. Where there is no such
    page, the header is that of the first picture.

    Raises:
        InputError: The file declares a kind of pixels that is not read, or pixels that it does not
            hold.
    """
    # An OME-TIFF may name other files; `_multifile=False` keeps tifffile from reading them.
    tif = tifffile.TiffFile(handle, name="picture", _multifile=False)
    if len(tif.pages) > _MAX_PAGES:
        raise InputError(path, f"holds {len(tif.pages):,} pages, one is due", "save one alone")
    found = [s for s in tif.series if {"Y", "X"} <= set(s.axes)]
    all_series = [s for s in found if not _is_mask_of_data(s)]
    if not all_series:
        raise InputError(path, "a TIFF without a picture", COPY_AGAIN)
    for series in found:
        _check(path, handle, series, max_pixels)
    planes = [(series, i) for series in all_series for i in range(_planes_of(series))]
    if page == "middle":
        page = len(planes) // 2
    series, plane = planes[page if isinstance(page, int) and 0 <= page < len(planes) else 0]
    chosen = [plane]
    if page in PROJECTIONS:
        if len(all_series) > 1:
            text = f"holds {len(all_series)} series of pictures, which {page} cannot join"
            raise InputError(path, text, f"pass {arg('page', 0)}")
        chosen = list(range(len(planes)))
    how = str(page)
    first = series.keyframe
    orientation = first.tags.get(ORIENTATION)
    palette = _palette(first)
    info = _info(series, palette, len(planes))
    picture = Picture(
        info,
        lambda: _whole(path, handle, series, chosen, how),
        lambda: _rows(handle, series, chosen, how),
        palette,
        int(orientation.value) if orientation else 1,
        LOSSY if _is_lossy(first) else INVERTED if _is_inverted(first) else None,
        lambda: None if first.dtype == bool else georeference.nodata_of(first.tags),
        lambda: _georeference(tif, series),
        has_alpha=info.alpha,
    )
    data = [s for s in found if _is_mask_of_data(s)]
    return _with_mask(path, handle, picture, data) if data else picture


def _is_mask_of_data(series: Any) -> bool:
    """Tell whether a series is no picture, but says where another one holds data, as GDAL's do."""
    return bool(series.keyframe.subfiletype & tifffile.FILETYPE.MASK)


def _with_mask(
    path: str | os.PathLike[str], handle: BinaryIO, picture: Picture, data: Sequence[Any]
) -> Picture:
    """Return a picture whose pixels are transparent where its mask says that they hold no data.

    Raises:
        InputError: There is more than one picture or mask, the picture has transparency of its own,
            or the sizes differ.
    """
    info, sizes = picture.info, _sizes(data[0])
    is_clear = len(data) == _planes_of(data[0]) == info.pages == 1 and not info.alpha
    if not is_clear or (sizes["Y"], sizes["X"]) != (info.height, info.width):
        text = "a mask of pixels without data that fits no single picture without transparency"
        raise InputError(path, text, "save one picture alone")

    def rows() -> RowReader | None:
        shown, known = picture.rows(), _rows(handle, data[0], [0], "")
        if shown is None or known is None:
            return None
        return lambda first, last: _with_alpha(shown(first, last), known(first, last))

    return replace(
        picture,
        info=replace(info, alpha=True),
        pixels=lambda: _with_alpha(picture.pixels(), _whole(path, handle, data[0], [0], "")),
        rows=rows,
        has_alpha=True,
    )


def _with_alpha(pixels: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    """Return pixels with a further channel, opaque where ``known`` is not 0."""
    pixels, known = (p if p.ndim == 3 else p[..., None] for p in (pixels, known))
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    return np.concatenate([pixels, np.where(known, top, 0).astype(pixels.dtype)], axis=2)


def read_description(handle: BinaryIO) -> Mapping[Any, Any]:
    """Return the JSON object in the description of a TIFF's first page; {} where there is none."""
    tif = tifffile.TiffFile(handle, name="picture", _multifile=False)
    try:
        description = json.loads(tif.pages.first.description)
    except ValueError:
        return {}
    return description if isinstance(description, dict) else {}


def _check(path: str | os.PathLike[str], handle: BinaryIO, series: Any, max_pixels: int) -> None:
    """Refuse a TIFF that lacks pixels it declares, or has colours or numbers that are not read."""
    first, sizes = series.keyframe, _sizes(series)
    if first.dtype is None or first.dtype.kind not in "buif" or first.dtype.itemsize > 8:
        raise InputError(path, f"pixels of type {first.dtype}", "save whole numbers or floats")
    declared = max(series.size, int(np.prod(first.chunks))) * first.dtype.itemsize
    check_size(path, handle, (sizes["Y"], sizes["X"]), declared, max_pixels)
    colours = first.photometric
    is_usual = colours <= 3 or (colours == tifffile.PHOTOMETRIC.YCBCR and _is_lossy(first))
    if not is_usual and not _is_mask_of_data(series):
        raise InputError(path, f"colours of kind {_name(colours)}", "save it as grey or RGB")
    if colours == tifffile.PHOTOMETRIC.PALETTE and first.dtype != np.uint8:
        raise InputError(path, f"a palette for {first.dtype} pixels", "save it with 8 bits")
    held = os.fstat(handle.fileno()).st_size
    for page in {id(p): p for p in series.pages if p is not None}.values():
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if not segments or min(count for _, count in segments) == 0:
            raise InputError(path, "a TIFF with strips or tiles that are absent", COPY_AGAIN)
        if max(offset + count for offset, count in segments) > held:
            raise InputError(path, "truncated: pixels lie beyond its end", COPY_AGAIN)


def _info(series: Any, palette: NDArray[np.uint8] | None, pages: int) -> ImageInfo:
    """Return the facts of a TIFF from its header."""
    sizes, alphas = _sizes(series), _alpha_channels(series)
    channels = sizes.get("S", 1) * sizes.get("C", 1) - len(alphas)
    if palette is not None:
        channels = palette_channels(palette)
    # `as_declared` turns all other types into float32.
    exact = {("b", 1): "uint8", ("u", 1): "uint8", ("u", 2): "uint16"}
    stored = np.dtype(series.keyframe.dtype)
    dtype = exact.get((stored.kind, stored.itemsize), "float32")
    return ImageInfo(
        sizes["Y"],
        sizes["X"],
        channels,
        dtype,
        "TIFF",
        bool(alphas),
        pages,
        axes=series.axes,
        stack=tuple(
            n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXSC"
        ),
        stored=stored.name,
    )


def _palette(first: Any) -> NDArray[np.uint8] | None:
    if first.photometric != tifffile.PHOTOMETRIC.PALETTE or first.colormap is None:
        return None
    palette = np.zeros((256, 3), np.uint8)  # the file has 16 bits an entry: take the high byte
    palette[: first.colormap.shape[1]] = (first.colormap >> 8).T[:256]
    return palette


def _georeference(tif: Any, series: Any) -> Georeference:
    first, ome = series.keyframe, (tif.ome_metadata or "") if tif.is_ome else ""
    imagej = (tif.imagej_metadata or {}) if tif.is_imagej else {}
    found = georeference.of_tiff(first.tags, imagej, ome, tif.series.index(series))
    stands_as_stored = first.photometric in (
        tifffile.PHOTOMETRIC.MINISBLACK,
        tifffile.PHOTOMETRIC.RGB,
        tifffile.PHOTOMETRIC.YCBCR,
    )
    if stands_as_stored and first.dtype != bool:
        return found
    return Georeference(found.resolution, found.resolution_unit, found.tags)


def _sizes(series: Any) -> dict[str, int]:
    return dict(zip(series.axes, series.shape, strict=True))


def _planes_of(series: Any) -> int:
    """Return how many pictures a series holds: all its axes but rows, columns and channels."""
    sizes = zip(series.axes, series.shape, strict=True)
    return int(np.prod([size for axis, size in sizes if axis not in "YXSC"]))


def _alpha_channels(series: Any) -> list[int]:
    """Return which samples of a series are transparency (TIFF 6.0, ExtraSamples 1 and 2).

    GDAL writes these numbers for the fourth of any four bands of 8 bits. Its metadata say where
    that band is no transparency.
    """
    extra = series.keyframe.extrasamples if "S" in series.axes else ()
    start = series.shape[series.axes.index("S")] - len(extra) if extra else 0
    alphas = [start + i for i, kind in enumerate(extra) if kind in (1, 2)]
    metadata = series.keyframe.tags.get(_GDAL_METADATA) if alphas else None
    roles = dict(_BAND_ROLE.findall(str(metadata.value))) if metadata else {}
    return [i for i in alphas if roles.get(str(i), "Alpha") == "Alpha"]


def _is_lossy(page: Any) -> bool:
    return any(name in _name(page.compression) for name in ("JPEG", "JP2000", "WEBP"))


def _is_inverted(page: Any) -> bool:
    """Tell whether this is a page of more than one bit on which white is zero.

    We cannot know whether the label values of such a mask were inverted.
    """
    is_bit: bool = np.dtype(page.dtype).kind == "b"
    return page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and not is_bit


def _name(code: int) -> str:
    """Return the name of a TIFF compression or colour space; its number where it has no name."""
    return str(getattr(code, "name", code))


# --- whole -----------------------------------------------------------------------------------


def _whole(
    path: str | os.PathLike[str], handle: BinaryIO, series: Any, planes: Sequence[int], how: str
) -> NDArray[Any]:
    """Return one picture of a series, or the projection of several, as `Picture.pixels` does."""
    if _planes_of(series) > 1 and (rows := _rows(handle, series, planes, how)):
        return rows(0, _sizes(series)["Y"])  # decodes these planes alone
    return _project(_pixels(path, handle, series, planes), how)


def _pixels(
    path: str | os.PathLike[str], handle: BinaryIO, series: Any, planes: Sequence[int]
) -> Iterator[NDArray[Any]]:
    """Yield pictures of a series, channels last, transparency after all others."""
    for page in {id(p): p for p in series.pages if p is not None}.values():
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if count > _SUSPICIOUS and page.keyframe.compression in _DEFLATED:
                handle.seek(offset)
                _refuse_bomb(page.keyframe, handle.read(count))
    try:
        stack, axes = series.asarray(), series.axes
    except (ValueError, ImportError) as error:
        if not _lacks_codec(error):
            raise
        for plane in planes:
            pixels = _pixels_with_pillow(path, handle, series, plane)
            yield _alpha_last(series, bits_as_bytes(pixels))
        return
    others = [i for i, axis in enumerate(axes) if axis not in "YXSC"]
    channels = [i for i, axis in enumerate(axes) if axis in "SC"]
    stack = stack.transpose(*others, axes.index("Y"), axes.index("X"), *channels)
    pictures = stack.reshape(-1, *stack.shape[len(others) :])
    for plane in planes:
        pixels = pictures[plane]
        if len(channels) == 2:
            pixels = pixels.reshape(*pixels.shape[:2], -1)
        yield _black_as_zero(series, pixels)


def _refuse_bomb(page: Any, data: bytes) -> None:
    """Raise ValueError for a deflated strip or tile that unpacks to more than it may hold.

    zlib would unpack all of it, up to 1032 times the stored bytes.
    """
    if len(data) > _SUSPICIOUS and page.compression in _DEFLATED:
        most = 2 * int(np.prod(page.chunks)) * page.dtype.itemsize  # some writers pad
        if len(zlib.decompressobj().decompress(data, most + 1)) > most:
            raise ValueError("a strip or tile that unpacks to more than it may hold")


def _lacks_codec(error: ValueError | ImportError) -> bool:
    return isinstance(error, ImportError) or "imagecodecs" in str(error)


def _black_as_zero(series: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return pixels from tifffile as `Picture` has them: black as zero, transparency last."""
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = ~pixels if pixels.dtype.kind in "bu" else -pixels
    return _alpha_last(series, bits_as_bytes(pixels))


def _alpha_last(series: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    alphas = _alpha_channels(series)
    if not alphas:
        return pixels
    return np.concatenate([np.delete(pixels, alphas, axis=2), pixels[..., alphas]], axis=2)


def _pixels_with_pillow(
    path: str | os.PathLike[str], handle: BinaryIO, series: Any, plane: int
) -> NDArray[Any]:
    """Decode LZW, JPEG and the like with Pillow, which is possible where it keeps the depth."""
    first = series.keyframe
    handle.seek(0)
    text = f"{_name(first.compression)} compression of {first.samplesperpixel} x {first.dtype}"
    needs = InputError(path, f"{text} needs imagecodecs", "pip install imagecodecs")
    try:
        opened = TiffImageFile(handle)
    except (SyntaxError, KeyError) as error:  # tifffile has read the header: it is not damaged
        raise needs from error
    depths = {"1": 1, "L": 8, "P": 8, "RGB": 8, "RGBA": 8, "YCbCr": 8, "I;16": 16, "I;16B": 16}
    is_whole = {**depths, "F": 32}.get(opened.mode) == first.bitspersample or opened.mode == "P"
    # Pillow reads samples that lie in planes of their own as one channel, without a word.
    is_whole &= len(opened.getbands()) == first.samplesperpixel
    is_white_zero = first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    if not is_whole or (is_white_zero and first.bitspersample == 16) or "C" in series.axes:
        raise needs
    opened.seek(series.pages[plane].index)
    pixels = np.asarray(opened.convert("RGB") if opened.mode == "YCbCr" else opened)
    tag = first.tags.get(ORIENTATION)
    turned = int(tag.value) if tag else 1
    # Pillow has applied the orientation already. Undo that: the caller applies it to all pixels.
    return apply_orientation(pixels, {6: 8, 8: 6}.get(turned, turned))


# --- by rows ---------------------------------------------------------------------------------


def _rows(handle: BinaryIO, series: Any, planes: Sequence[int], how: str) -> RowReader | None:
    """Return a reader of the rows of a picture, or of the projection of several.

    None where they must be decoded whole.
    """
    stored = [reader for plane in planes if (reader := _stored_rows(handle, series, plane))]
    if len(stored) < len(planes):
        return None
    try:
        stored[0](0, 1)
    except (ValueError, ImportError) as error:
        if not _lacks_codec(error):
            raise
        return None
    return lambda first, last: _project(
        (_black_as_zero(series, rows(first, last)) for rows in stored), how
    )


def _project(pictures: Iterable[NDArray[Any]], how: str) -> NDArray[Any]:
    """Return the only picture, else the "max" or "mean" of several, pixel by pixel."""
    first, *others = pictures
    if not others:
        return first
    if how == "max":
        return np.asarray(np.maximum.reduce([first, *others]))
    mean = np.mean([first, *others], axis=0, dtype=np.float64)
    return (
        mean.astype(first.dtype) if first.dtype.kind == "f" else np.rint(mean).astype(first.dtype)
    )


def _stored_rows(handle: BinaryIO, series: Any, plane: int) -> RowReader | None:
    """Return a reader of rows ``(n, W, C)`` as tifffile decodes them, or None."""
    if not _is_plain_stack(series):
        return None
    page, sizes = series.keyframe, _sizes(series)
    separate, _, height, width, samples = page.shaped
    planes = _planes_of(series)
    # `apart` is the number of planes that hold the channels of one picture, `count` that of pages.
    apart = sizes.get("C", separate)
    count = apart // separate
    size = height * width * samples * page.dtype.itemsize
    if series.dataoffset is not None:
        offsets = [series.dataoffset + (plane * apart + i) * size for i in range(apart)]
        return _contiguous_rows(handle, page, offsets)
    if len(series) != planes * count:
        return None
    pages = [series[plane * count + i] for i in range(count)]
    if any(p is None for p in pages):
        return None
    if page.is_final:
        offsets = [p.dataoffsets[0] + i * size for p in pages for i in range(separate)]
        return _contiguous_rows(handle, page, offsets)
    # Uncompressed pixels with a predictor or reversed bits: the decoder of tiles cannot read them.
    return None if page.is_contiguous else _Tiles(handle, pages).rows


def _is_plain_stack(series: Any) -> bool:
    """Tell whether a series is a stack of pictures on whole pages, each as wide and high as it."""
    page, sizes = series.keyframe, _sizes(series)
    axes = "".join(axis for axis in series.axes if axis in "YXSC")
    separate, depth, *shape, samples = page.shaped
    return (
        axes in ("YX", "YXS", "SYX", "CYX")
        and series.axes.endswith(axes)
        and shape == [sizes["Y"], sizes["X"]]
        and sizes.get("S", 1) == (separate if axes == "SYX" else samples)
        and depth == 1
        and series.transform is None
        and page.jpegheader is None  # a microscope's JPEG of one strip
    )


def _contiguous_rows(handle: BinaryIO, page: Any, offsets: Sequence[int]) -> RowReader:
    """Return a reader of rows that lie uncompressed one after the other.

    Args:
        handle: The file.
        page: A page with the width, the number of samples side by side, and the dtype.
        offsets: The place in the file of the first row of each plane of samples.
    """
    width, samples = page.shaped[-2:]
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    row = width * samples * dtype.itemsize

    def read(first: int, last: int) -> NDArray[Any]:
        planes = []
        for offset in offsets:
            handle.seek(offset + first * row)
            data = handle.read((last - first) * row)
            planes.append(np.frombuffer(data, dtype).reshape(last - first, width, samples))
        return np.concatenate(planes, axis=2)

    return read


class _Tiles:
    """The tiles or strips of the pages that make up one picture.

    A row of tiles is decoded when a row of its pixels is asked for. The last ones are kept.

    Args:
        handle: The file.
        pages: Pages of one kind; the channels of a later page follow those of an earlier one.
    """

    def __init__(self, handle: BinaryIO, pages: Sequence[Any]) -> None:
        page = pages[0].keyframe
        self._handle, self._pages = handle, pages
        self._separate, _, self._height, self._width, self._samples = page.shaped
        is_tiled = page.is_tiled
        self._length = min(page.tilelength if is_tiled else page.rowsperstrip, self._height)
        self._down = -(-self._height // self._length)
        self._across = -(-self._width // page.tilewidth) if is_tiled else 1
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def rows(self, first: int, last: int) -> NDArray[Any]:
        """Return rows ``(n, W, C)`` in an array of their own."""
        parts = []
        for i in range(first // self._length, -(-last // self._length)):
            top = i * self._length
            parts.append(self._row_of_tiles(i)[max(first - top, 0) : last - top])
        return np.concatenate(parts)

    def _row_of_tiles(self, index: int) -> NDArray[Any]:
        if index not in self._kept:
            self._kept[index] = self._decode(index)
        self._kept.move_to_end(index)
        tiles = self._kept[index]
        if len(self._kept) > max(1, _KEPT // tiles.nbytes):
            self._kept.popitem(last=False)
        return tiles

    def _decode(self, index: int) -> NDArray[Any]:
        top = index * self._length
        height = min(self._length, self._height - top)
        channels = self._separate * self._samples
        shape = (height, self._width, len(self._pages) * channels)
        pixels = np.empty(shape, self._pages[0].keyframe.dtype)
        for i, page in enumerate(self._pages):
            for plane in range(self._separate):
                at = i * channels + plane * self._samples
                tiles = (plane * self._down + index) * self._across
                for tile in range(tiles, tiles + self._across):
                    self._place(page, tile, pixels[..., at : at + self._samples])
        return pixels

    def _place(self, page: Any, index: int, pixels: NDArray[Any]) -> None:
        """Decode one tile into its row of tiles ``(h, W, C)``."""
        key = page.keyframe
        self._handle.seek(page.dataoffsets[index])
        data = self._handle.read(page.databytecounts[index])
        _refuse_bomb(key, data)
        tables = {"jpegtables": page.jpegtables} if page.jpegtables is not None else {}
        tile, (*_, left, _), (_, _, width, _) = key.decode(data, index, **tables)
        pixels[:, left : left + width] = tile[0, : len(pixels), : self._width - left]
