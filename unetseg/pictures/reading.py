"""Pictures read whole (`bands` reads them by rows).

Each format has one decoder, Pillow or tifffile, which reads an open handle that `opening` has
judged. So no name is ever taken for a URL, an archive or a clipboard. imageio decodes nothing here:
it shows neither palette indices nor 16-bit colour.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from unetseg.errors import Code, InputError
from unetseg.pictures import tiff
from unetseg.pictures.georeference import of_dpi
from unetseg.pictures.masks import CLASSES_DUE, RawMask
from unetseg.pictures.opening import (
    LOSSY,
    MAX_PIXELS,
    ORIENTATION,
    ImageInfo,
    Picture,
    RowReader,
    apply_orientation,
    as_declared,
    bits_as_bytes,
    check_page,
    check_size,
    opened,
    palette_channels,
    refuse_absurd,
    select_channels,
)
from unetseg.settings import PROJECTIONS, WHOLE, Selection

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
_SOFT = 0.05  # share of half transparent pixels that the soft edge of an eraser may leave
_CROP = 2**26  # pixels; Pillow takes a crop of 2.7 times as many for an attack

_DECODERS: dict[str, Any] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
}
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "RGB": 3, "RGBA": 3}


# --- reading ---------------------------------------------------------------------------------


def read_info(
    path: str | os.PathLike[str], selection: Selection = WHOLE, *, max_pixels: int = MAX_PIXELS
) -> ImageInfo:
    """Read the header of a picture, or of one page of a TIFF; no pixels are decoded.

    Raises:
        InputError: `read_image` would refuse the file, as far as the header shows it.
        MachineError: No permission to read.
    """
    with opened(path) as (handle, kind):
        return open_picture(path, handle, kind, max_pixels, selection).info


def read_image(
    path: str | os.PathLike[str], selection: Selection = WHOLE, *, max_pixels: int = MAX_PIXELS
) -> NDArray[Any]:
    """Read a picture in its stored depth.

    One-bit pictures become 0 and 255. Palettes become their colours, or grey where all colours are
    grey. An orientation in the file is applied. Transparency is dropped; `ImageInfo.alpha` tells
    of it. Signed, 32-bit, 64-bit and half-precision TIFF become float32; integers that float32
    cannot hold exactly are refused.

    Args:
        path: PNG, JPEG, TIFF, BMP, GIF or WebP, with any suffix.
        selection: Which picture of a TIFF, and which channels; ``crop`` changes nothing here.
        max_pixels: Larger pictures (height x width) are refused before they are decoded.

    Returns:
        ``(H, W, C)`` uint8, uint16 or float32; C is at least 1.

    Raises:
        InputError: The file is not found, not regular, no picture, damaged or too large. Or it
            holds several pictures and none is selected, or a channel is missing. Or it holds
            colours other than grey and RGB, or values that are not finite.
        MachineError: No permission to read, not enough memory.
    """
    with opened(path) as (handle, kind):
        picture = open_picture(path, handle, kind, max_pixels, selection)
        check_page(path, picture.info, selection.page)
        image = as_declared(path, picture, picture.pixels())
        return np.ascontiguousarray(apply_orientation(image, picture.orientation))


def as_image(given: Any, channels: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a picture of Pillow, or an array, as `read_image` returns that of a file.

    Args:
        given: An array (H, W) or (H, W, C), or lists or a tensor of that shape. A picture is turned
            as its EXIF orientation says.
        channels: The number of channels that is due, to recognise an array that begins with them.
        dtype: The dtype that is due. Whole numbers of other types are taken for it if they fit it.

    Returns:
        ``(H, W, C)`` uint8, uint16 or float32.

    Raises:
        InputError: It has other axes, no pixel, or values that are not finite. Its numbers do not
            fit ``dtype``. A picture has other colours than grey and RGB.
    """
    pixels = bits_as_bytes(_as_array(given))
    if pixels.dtype.kind not in "uif":
        text = f"holds {pixels.dtype.name}, not the numbers of pixels"
        raise InputError("image", text, "give a path, a picture, or an array of numbers")
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        text = f"an array of the shape {pixels.shape}"
        raise InputError("image", text, "give rows, columns and, where there are some, channels")
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    usual = {1, 3, 4, channels}
    if pixels.shape[0] in usual and pixels.shape[2] not in usual:
        text = f"an array of the shape {pixels.shape}, whose first axis seems to be the channels"
        raise InputError("image", text, "give numpy.moveaxis(image, 0, 2)")
    if pixels.dtype not in (np.uint8, np.uint16):
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise InputError("image", "holds values that are not finite", "replace them")
        refuse_absurd("image", pixels, lambda _: "replace them")
        pixels = pixels.astype(np.float32) if dtype.kind == "f" else _as_whole(pixels, dtype)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _as_array(given: Any) -> NDArray[Any]:
    if isinstance(given, Image.Image):
        return _of_pillow(given)
    if hasattr(given, "requires_grad"):  # a tensor, which may need gradients and lie on a GPU
        given = given.detach().cpu()
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        text = f"a {type(given).__name__} that is no array"
        remedy = "give a path, a picture, or an array of numbers"
        raise InputError("image", text, remedy) from error


def _as_whole(pixels: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return whole numbers as uint8 or uint16, if they leave no doubt that they are of this depth.

    Numbers up to 255 may be 8 bits or dark 16 bits. They are refused where 16 bits are due.
    """
    least, most = pixels.min(), pixels.max()
    highest = np.iinfo(dtype).max
    is_whole = pixels.dtype.kind != "f"
    if is_whole and least >= 0 and most <= highest and (dtype == np.uint8 or most > 255):
        return pixels.astype(dtype)
    text = f"holds {pixels.dtype.name} from {least:g} to {most:g}"
    remedy = f"give {dtype.name} with values as in the training images"
    if not is_whole and least >= 0 and most <= 1:
        remedy = f"give (image * {highest}).round().astype('{dtype.name}')"
    bits = f"the model was trained on {8 * dtype.itemsize} bits"
    raise InputError("image", f"{text}, {bits}", remedy)


def _of_pillow(picture: Image.Image) -> NDArray[Any]:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGB")
    if picture.mode not in (*_CHANNELS, "I", "F"):
        raise InputError("image", f"colours of kind {picture.mode}", "make it grey or RGB")
    pixels = np.asarray(picture)
    return pixels[..., : _CHANNELS[picture.mode]] if pixels.ndim == 3 else pixels


def read_mask(
    path: str | os.PathLike[str], selection: Selection = WHOLE, *, max_pixels: int = MAX_PIXELS
) -> RawMask:
    """Read a mask as it is stored: values, palette indices with their palette, or colours.

    One-bit masks become 0 and 255. An orientation in the file is applied as for an image. Of
    ``selection`` only ``page`` counts, and only where a TIFF holds several pictures; classes of
    several are never averaged, so a stack has no projection. Transparent pixels, and pixels of a
    value of no data that no mask can hold, such as NaN or -9999, are unlabelled.

    Raises:
        InputError: `read_image` refuses the file, its format is lossy, or much of it is half
            transparent. Or it holds negative or fractional values, or neither 1 nor 3 channels.
        MachineError: No permission to read, not enough memory.
    """
    with opened(path) as (handle, kind):
        page = selection.page
        picture = open_picture(path, handle, kind, max_pixels, Selection(page))
        if doubt := picture.doubt:
            raise InputError(path, f"a mask {doubt.problem}", doubt.remedy, code=doubt.code)
        if picture.info.pages > 1:
            if page in PROJECTIONS:
                text = f"holds {picture.info.pages} pages of labels, which {page} cannot join"
                raise InputError(path, text, "give the image one mask")
            check_page(path, picture.info, page)
        values, unlabelled = picture.pixels(), None
        if values.ndim == 3 and values.shape[-1] > picture.info.channels:
            values, unlabelled = _without_alpha(path, values)
        values, unlabelled, nodata = _without_nodata(values, unlabelled, picture.nodata())
        if values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
        if values.ndim == 3 and values.shape[-1] != 3:
            text = f"a mask with {values.shape[-1]} channels"
            raise InputError(path, text, "save one channel of values, or RGB colours")
        values = apply_orientation(_whole_numbers(path, values), picture.orientation)
        if unlabelled is not None:
            unlabelled = apply_orientation(unlabelled, picture.orientation)
        return RawMask(np.ascontiguousarray(values), picture.palette, unlabelled, nodata)


def read_text(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the texts that the functions of `writing` add to a picture.

    They are the text chunks before the pixels of a PNG and the texts in the JSON description of a
    TIFF. Other formats give {}.

    Raises:
        InputError: The file is not found, not regular, no picture, or damaged.
        MachineError: No permission to read.
    """
    with opened(path) as (handle, kind):
        info: Mapping[Any, Any] = {}
        if kind == "PNG":
            info = PngImageFile(handle).info  # Pillow bounds the growth of compressed text
        elif kind == "TIFF":
            info = tiff.read_description(handle)
        return {k: str(v) for k, v in info.items() if isinstance(k, str) and isinstance(v, str)}


def open_picture(
    path: str | os.PathLike[str],
    handle: BinaryIO,
    kind: str,
    max_pixels: int,
    selection: Selection = WHOLE,
) -> Picture:
    """Read the header of an opened file and refuse a picture that must not be decoded.

    Args:
        path: The file, for the message.
        handle: The open file, from `opening.open_file`.
        kind: Its format, from `opening.open_file`.
        max_pixels: Larger pictures (height x width) are refused.
        selection: Which picture of a TIFF (`opening.check_page` tells whether it is there), and
            which channels.

    Raises:
        InputError: The header declares a kind of pixels that is not read, or pixels that the file
            does not hold.
    """
    if kind == "TIFF":
        picture = tiff.open_tiff(path, handle, max_pixels, selection.page)
    else:
        picture = _open_with_pillow(path, handle, kind)
        info = picture.info
        size = info.height * info.width * info.channels * np.dtype(info.dtype).itemsize
        # A few bytes of WebP may hold a flat picture. It has at most 16,383 pixels a side.
        size = 0 if kind == "WEBP" else size
        check_size(path, handle, (info.height, info.width), size, max_pixels)
    info = picture.info
    if picture.orientation in (5, 6, 7, 8):  # turned by a quarter
        info = replace(info, height=info.width, width=info.height)
    turned = picture.orientation if 1 < picture.orientation < 9 else 1
    info = replace(info, palette=picture.palette is not None, orientation=turned)
    return select_channels(path, replace(picture, info=info), selection.channels)


# --- PNG, JPEG, BMP, GIF ---------------------------------------------------------------------


def _open_with_pillow(path: str | os.PathLike[str], handle: BinaryIO, kind: str) -> Picture:
    """Open a file that Pillow decodes by its header; its pixels are decoded later."""
    opened = _DECODERS[kind](handle)
    is_deep = kind == "PNG" and opened.tile and ";16B" in str(opened.tile[0].args)
    mode = opened.mode
    if is_deep and "LA" in opened.tile[0].args:
        mode = "LA"
    palette = _palette(opened) if mode == "P" else None
    if palette is None and mode not in _CHANNELS:
        raise InputError(path, f"colours of kind {mode}", "save it as grey or RGB")
    if getattr(opened, "n_frames", 1) > 1:
        raise InputError(
            path, f"holds {opened.n_frames} frames, one is due", "save one frame alone"
        )
    width, height = opened.size
    channels = _CHANNELS[mode] if palette is None else palette_channels(palette)
    dtype = "uint16" if is_deep else "uint8"
    alpha = mode.endswith("A") or "transparency" in opened.info
    # In a PNG, EXIF behind the pixels is left out: Pillow would decode the pixels to find it.
    has_exif = kind == "JPEG" or "exif" in opened.info
    return Picture(
        ImageInfo(height, width, channels, dtype, kind, alpha),
        lambda: _pillow_pixels(handle, kind),
        lambda: _pillow_rows(handle, kind) if mode == "I;16" or not is_deep else None,
        palette,
        int(opened.getexif().get(ORIENTATION, 1)) if has_exif else 1,
        LOSSY if kind == "JPEG" or (kind == "WEBP" and not _is_lossless(handle)) else None,
        georeference=lambda: of_dpi(opened.info.get("dpi")),
        has_alpha=mode.endswith("A") or (not is_deep and _has_clear_colour(opened, kind)),
    )


def _pillow_pixels(handle: BinaryIO, kind: str) -> NDArray[Any]:
    opened = _reopened(handle, kind)
    layout = str(opened.tile[0].args) if kind == "PNG" else ""
    if layout == "LA;16B":  # a pixel has four bytes; decode them as they are
        opened.tile = [opened.tile[0]._replace(args="RGBA")]
        return np.array(opened).view(">u2").astype(np.uint16)
    if layout in ("RGB;16B", "RGBA;16B"):
        # Pillow keeps the first byte of a sample: the high one, or the low one as little-endian.
        high = np.asarray(opened).astype(np.uint16)
        handle.seek(0)
        opened = PngImageFile(handle)
        opened.tile = [opened.tile[0]._replace(args=layout[:-1] + "L")]
        deep: NDArray[np.uint16] = high << 8 | np.asarray(opened)
        return deep
    if _has_clear_colour(opened, kind):
        opened = opened.convert(f"{opened.mode}A")
    return bits_as_bytes(np.asarray(opened))


def _has_clear_colour(opened: Any, kind: str) -> bool:
    """Tell whether one grey or colour of a PNG stands for transparency."""
    return kind == "PNG" and opened.mode in ("L", "RGB") and "transparency" in opened.info


def _is_lossless(handle: BinaryIO) -> bool:
    """Tell whether the picture of a WebP file is stored without loss (RFC 9649, 2.5 to 2.7)."""
    handle.seek(12)
    while len(header := handle.read(8)) == 8:
        if header[:4] in (b"VP8L", b"VP8 "):
            return header[:4] == b"VP8L"
        size = int.from_bytes(header[4:], "little")
        handle.seek(size + size % 2, os.SEEK_CUR)
    return False


def _reopened(handle: BinaryIO, kind: str) -> Any:
    """Return a picture to decode, its checksums verified where it has any."""
    if kind == "PNG":
        handle.seek(0)
        PngImageFile(handle).verify()  # decoding alone does not check them
    handle.seek(0)
    return _DECODERS[kind](handle)


def _pillow_rows(handle: BinaryIO, kind: str) -> RowReader | None:
    """Return a reader of rows that crops the picture in Pillow and never copies it whole."""
    opened = _reopened(handle, kind)
    width = opened.size[0]
    if width > _CROP:
        return None
    opened.load()
    mode = f"{opened.mode}A" if _has_clear_colour(opened, kind) else opened.mode

    def read(first: int, last: int) -> NDArray[Any]:
        step = _CROP // width
        tops = range(first, last, step)
        crops = (opened.crop((0, top, width, min(top + step, last))) for top in tops)
        parts = [np.asarray(crop if crop.mode == mode else crop.convert(mode)) for crop in crops]
        return bits_as_bytes(np.concatenate(parts))

    return read


def _palette(opened: Any) -> NDArray[np.uint8]:
    """Return the palette ``(256, 3)`` uint8 of a picture that is opened but not decoded."""
    probe = Image.new("P", (1, 1))
    probe.putpalette(opened.palette.palette, opened.palette.rawmode or opened.palette.mode)
    colours = np.array(probe.getpalette("RGB"), np.uint8).reshape(-1, 3)
    # A palette may have fewer colours than pixels can number; decoders show the rest black.
    return np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)])


# --- masks -----------------------------------------------------------------------------------


def _without_alpha(
    path: str | os.PathLike[str], values: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return a mask without its last channel, 0 where that is not opaque, and these pixels.

    Raises:
        InputError: So much is half transparent that it is no edge.
    """
    alpha, values = values[..., -1], values[..., :-1]
    top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    unlabelled = alpha != top
    if not unlabelled.any():
        return values, None
    half = unlabelled & (alpha != 0)
    if half.sum() > _SOFT * half.size:
        y, x = np.argwhere(half)[0]
        text = f"{half.sum():,} pixels are half transparent, first at (x {x}, y {y})"
        raise InputError(path, text, "draw labels opaque; erased pixels count as unlabelled")
    return np.where(unlabelled[..., None], values.dtype.type(0), values), unlabelled


def _without_nodata(
    values: NDArray[Any], unlabelled: NDArray[np.bool_] | None, nodata: float | None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None, int | None]:
    """Return a mask with 0 where it holds a value of no data that is no value of a mask.

    Returns:
        The values, the unlabelled pixels, and the value of no data where a mask can hold it.
    """
    if nodata is None or values.ndim != 2:
        return values, unlabelled, None
    if nodata in range(2**16):
        return values, unlabelled, int(nodata)
    missing = np.isnan(values) if np.isnan(nodata) else values == nodata
    if not missing.any():
        return values, unlabelled, None
    values = np.where(missing, values.dtype.type(0), values)
    return values, missing if unlabelled is None else missing | unlabelled, None


def _whole_numbers(path: str | os.PathLike[str], values: NDArray[Any]) -> NDArray[np.integer]:
    """Return a mask's values as uint8, uint16 or int64; RGB as uint8."""
    if values.dtype.kind == "f":
        fractions = ~(np.isfinite(values) & (values == np.floor(values)))
        if fractions.any():
            y, x = np.argwhere(fractions)[0][:2]
            text = f"value {values[y, x]} at (x {x}, y {y}) is no whole number"
            raise InputError(path, text, CLASSES_DUE, code=Code.NO_CLASSES)
    if values.dtype.kind != "u" and values.min() < 0:
        text = f"negative values, down to {values.min():g}"
        raise InputError(path, text, "number the classes from 0; pass ignored ones as 255")
    if values.ndim == 3 and values.dtype != np.uint8:
        if values.dtype.kind != "u" or values.dtype.itemsize != 2 or (values % 257).any():
            raise InputError(path, f"colours of type {values.dtype}", "save RGB with 8 bits")
        return (values // 257).astype(np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return values.astype(np.int64)
