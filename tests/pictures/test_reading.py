"""Pictures are made here by Pillow, tifffile, imageio or by hand, never by the code under test."""

import errno
import io
import os
import socket
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence, features

from tests.pictures.samples import BITS, FLOATS, GREY8, GREY16, INDICES, RGB8, RGB16, RNG, SPREAD
from tests.support import flipped, pil, put, tif
from unetseg.dataset.naming import list_images
from unetseg.errors import InputError, MachineError
from unetseg.pictures import reading
from unetseg.pictures.bands import open_raster
from unetseg.pictures.reading import read_image, read_info, read_mask
from unetseg.settings import Selection

PALETTE = [0, 0, 0, 255, 0, 0, 0, 200, 0]


def png_by_hand(pixels: NDArray[np.generic], colour_type: int, filters: bool = False) -> bytes:
    """Encode with the two filters that look back by a pixel and by a row, or with none."""
    depth = 8 * pixels.dtype.itemsize
    samples = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(len(pixels), -1).view(np.uint8)
    step = pixels[0, 0].nbytes
    rows = []
    for y, row in enumerate(samples):
        if filters and y % 2 == 0:
            left = np.concatenate([np.zeros(step, np.uint8), row[:-step]])
            rows.append(b"\x01" + (row - left).tobytes())
        elif filters:
            rows.append(b"\x02" + (row - samples[y - 1]).tobytes())
        else:
            rows.append(b"\x00" + row.tobytes())
    header = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts
    )


def with_alpha(pixels: NDArray[np.generic], value: int) -> NDArray[np.generic]:
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return np.concatenate([pixels, np.full_like(pixels[..., :1], value)], axis=2)


PLANAR = {"planarconfig": "separate", "photometric": "minisblack"}
PAINTED = np.array(PALETTE, np.uint8).reshape(3, 3)[INDICES]

# (what, bytes, the pixels due, transparency?)
READABLE = [
    ("png grey", pil(GREY8), GREY8, False),
    ("png rgb", pil(RGB8), RGB8, False),
    ("png one bit", pil(BITS), BITS.astype(np.uint8) * 255, False),
    ("png 16-bit grey", pil(GREY16), GREY16, False),
    ("png 16-bit rgb", png_by_hand(RGB16, 2), RGB16, False),
    ("png 16-bit rgb, filtered", png_by_hand(RGB16, 2, filters=True), RGB16, False),
    ("png 16-bit rgba", png_by_hand(with_alpha(RGB16, 9), 6, filters=True), RGB16, True),
    ("png 16-bit grey and alpha", png_by_hand(with_alpha(GREY16, 9), 4), GREY16, True),
    ("png rgba", pil(with_alpha(RGB8, 9)), RGB8, True),
    ("png grey and alpha", pil(with_alpha(GREY8, 9)), GREY8, True),
    ("png with a colour made clear", pil(GREY8, transparency=3), GREY8, True),
    ("png palette", pil(INDICES, palette=PALETTE), PAINTED, False),
    (
        "png grey palette",
        pil(INDICES, palette=[9, 9, 9, 5, 5, 5, 200, 200, 200]),
        np.array([9, 5, 200], np.uint8)[INDICES],
        False,
    ),
    ("bmp rgb", pil(RGB8, "BMP"), RGB8, False),
    ("bmp grey", pil(GREY8, "BMP"), GREY8, False),
    ("bmp palette", pil(INDICES, "BMP", palette=PALETTE), PAINTED, False),
    ("gif palette", pil(INDICES, "GIF", palette=PALETTE), PAINTED, False),
    ("gif grey", pil(GREY8, "GIF"), GREY8, False),
    ("tiff grey", tif(GREY8), GREY8, False),
    ("tiff one bit", pil(BITS, "TIFF"), BITS.astype(np.uint8) * 255, False),
    ("tiff 16-bit", tif(GREY16), GREY16, False),
    ("tiff big-endian 16-bit", tif(GREY16, byteorder=">"), GREY16, False),
    ("bigtiff 16-bit rgb", tif(RGB16, bigtiff=True, photometric="rgb"), RGB16, False),
    ("tiff deflate, predictor", tif(RGB16, compression="zlib", predictor=2), RGB16, False),
    ("tiff lzw", pil(GREY8, "TIFF", compression="tiff_lzw"), GREY8, False),
    ("tiff lzw rgb", pil(RGB8, "TIFF", compression="tiff_lzw"), RGB8, False),
    ("tiff lzw 16-bit", pil(GREY16, "TIFF", compression="tiff_lzw"), GREY16, False),
    ("tiff lzw float", pil(FLOATS, "TIFF", compression="tiff_lzw"), FLOATS, False),
    ("tiff tiles", tif(RGB8, tile=(16, 16)), RGB8, False),
    ("tiff palette", pil(INDICES, "TIFF", palette=PALETTE), PAINTED, False),
    ("tiff float", tif(FLOATS), FLOATS, False),
    ("tiff double", tif(FLOATS.astype(np.float64)), FLOATS, False),
    ("tiff int16", tif(GREY8.astype(np.int16) - 99), GREY8.astype(np.float32) - 99, False),
    ("tiff uint32", tif(GREY16.astype(np.uint32)), GREY16.astype(np.float32), False),
    ("tiff white is zero", tif(255 - GREY8, photometric="miniswhite"), GREY8, False),
    (
        "tiff five channels, interleaved",
        tif(np.dstack([RGB8, RGB8[..., :2]]), planarconfig="contig", photometric="minisblack"),
        np.dstack([RGB8, RGB8[..., :2]]),
        False,
    ),
    (
        "tiff five channels, planar",
        tif(np.dstack([RGB8, RGB8[..., :2]]).transpose(2, 0, 1), **PLANAR),
        np.dstack([RGB8, RGB8[..., :2]]),
        False,
    ),
    ("tiff planar rgb", tif(RGB8.transpose(2, 0, 1), photometric="rgb"), RGB8, False),
    (
        "tiff of ImageJ, channels as pages",
        tif(RGB16[..., :2].transpose(2, 0, 1), imagej=True, metadata={"axes": "CYX"}),
        RGB16[..., :2],
        False,
    ),
    (
        "tiff rgba",
        tif(with_alpha(RGB8, 9), photometric="rgb", extrasamples=["unassalpha"]),
        RGB8,
        True,
    ),
]


@pytest.mark.parametrize(
    ("data", "due", "alpha"), [r[1:] for r in READABLE], ids=[r[0] for r in READABLE]
)
def test_a_picture_keeps_its_pixels_and_depth(tmp_path, data, due, alpha):
    path = put(tmp_path, data)  # all are named .png: the content counts
    image = read_image(path)
    due = due if due.ndim == 3 else due[..., None]
    assert image.dtype == due.dtype
    np.testing.assert_array_equal(image, due)
    info = read_info(path)
    assert (info.height, info.width, info.channels) == due.shape
    assert (info.dtype, info.alpha, info.pages) == (due.dtype.name, alpha, 1)


def test_a_list_of_pages_that_leads_in_a_circle_is_walked_once(tmp_path):
    path = put(tmp_path, looping_tiff())
    np.testing.assert_array_equal(read_image(path)[..., 0], GREY8)


def test_jpeg_is_read_as_imageio_reads_it(tmp_path):
    path = put(tmp_path, pil(RGB8, "JPEG"), "a.jpg")
    np.testing.assert_array_equal(read_image(path), iio.imread(path, plugin="pillow"))
    assert read_info(path).format == "JPEG"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "LZW"])
def test_orientation_is_applied_to_image_and_mask_alike(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[274] = orientation
    options = {"compression": "tiff_lzw"} if kind == "LZW" else {}
    path = put(tmp_path, pil(RGB8, kind.replace("LZW", "TIFF"), exif=exif, **options))
    with Image.open(path) as opened:
        due = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(read_image(path), due)
    info = read_info(path)
    assert (info.height, info.width) == due.shape[:2]
    if kind != "JPEG":
        np.testing.assert_array_equal(read_mask(path).values, due)


def test_a_page_of_a_stack_is_read_only_on_demand(tmp_path):
    stack = RNG.integers(0, 99, (3, 6, 9), dtype=np.uint8)
    path = put(tmp_path, tif(stack, photometric="minisblack", metadata={"axes": "ZYX"}))
    assert read_info(path).pages == 3
    with pytest.raises(InputError, match="holds 3 slices in depth"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, Selection(2))[..., 0], stack[2])
    with pytest.raises(InputError, match="no page 3, there are 3"):
        read_image(path, Selection(3))


def test_pages_of_an_lzw_stack_and_of_unlike_sizes_are_found(tmp_path):
    pages = [Image.fromarray(GREY8), Image.fromarray(GREY8[:, :5] // 2)]
    for name, options in (("plain", {}), ("lzw", {"compression": "tiff_lzw"})):
        path = tmp_path / f"{name}.tif"
        pages[0].save(path, save_all=True, append_images=pages[1:], **options)
        with Image.open(path) as opened:
            second = [np.asarray(p) for p in ImageSequence.Iterator(opened)][1]
        np.testing.assert_array_equal(read_image(path, Selection(1))[..., 0], second)


def nan_tiff() -> bytes:
    pixels = FLOATS.copy()
    pixels[2, 5] = pixels[4, 1] = np.nan
    return tif(pixels)


def frames(kind: str) -> bytes:
    buffer = io.BytesIO()
    pages = [Image.fromarray(GREY8), Image.fromarray(255 - GREY8)]
    pages[0].save(buffer, kind, save_all=True, append_images=pages[1:])
    return buffer.getvalue()


def forged_png(height: int, width: int) -> bytes:
    data = png_by_hand(GREY8, 0)
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def looping_tiff() -> bytes:
    data = bytearray(tif(GREY8))
    start = struct.unpack("<I", data[4:8])[0]
    end = start + 2 + 12 * struct.unpack("<H", data[start : start + 2])[0]
    data[end : end + 4] = data[4:8]
    return bytes(data)


def sparse_tiff() -> bytes:
    """A strip that has no bytes: tag 279 (StripByteCounts) set to 0."""
    data = bytearray(tif(GREY8))
    place = data.index(struct.pack("<HH", 279, 4)) if struct.pack("<HH", 279, 4) in data else None
    place = place or data.index(struct.pack("<HH", 279, 3))
    data[place + 8 : place + 12] = bytes(4)
    return bytes(data)


def tiff_by_hand(*tags: tuple[int, int]) -> bytes:
    """A TIFF of 1 x 1 pixel with tags (number, value) set or added."""
    values = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1} | dict(tags)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in sorted(values.items()))
    return b"II*\0" + struct.pack("<IIH", 12, 0, len(values)) + entries + bytes(4)


REFUSED = [
    (
        "text",
        b"hello, I am no picture",
        "not a PNG, JPEG, TIFF, BMP, GIF or WebP (starts b'hello, ",
    ),
    ("svg", b"<svg></svg>", "not a PNG"),
    ("empty", b"", "is empty (0 bytes)"),
    ("truncated png", pil(RGB8)[:-40], "not readable as PNG"),
    ("png without its end", pil(RGB8)[:-12], "not readable as PNG"),
    ("damaged png", flipped(pil(RGB8), 60), "not readable as PNG"),
    ("damaged png header", flipped(pil(RGB8), 19), "not readable as PNG"),
    ("width 0", forged_png(6, 0), ""),
    ("2^31 rows and columns", forged_png(2**31 - 1, 2**31 - 1), "over the limit of"),
    ("a large claim", forged_png(20_000, 20_000), "declares 400 MB, the file holds"),
    ("truncated jpeg", pil(RGB8, "JPEG")[:-100], "not readable as JPEG"),
    ("truncated bmp", pil(RGB8, "BMP")[:-30], "not readable as BMP"),
    ("truncated gif", pil(RGB8[..., 0], "GIF")[:-30], "not readable as GIF"),
    ("truncated tiff", tif(GREY8)[:-9], "truncated: pixels lie beyond its end"),
    ("tiff of nothing", b"II*\0\x08\0\0\0", ""),
    ("tiff without strips", sparse_tiff(), "strips or tiles that are absent"),
    ("tiff, a large claim", tiff_by_hand((256, 10**4), (257, 10**4)), "declares 100 MB, the file"),
    ("tiff, very large", tiff_by_hand((256, 10**6), (257, 10**6)), "over the limit of"),
    (
        "tiff, one pixel in a tile of 2^30",
        tiff_by_hand((322, 2**15), (323, 2**15), (324, 8), (325, 1)),
        "declares 1.1 GB",
    ),
    ("tiff, unknown compression", tiff_by_hand((259, 34999)), "34999"),
    ("nan", nan_tiff(), "2 values are not finite, first at (x 5, y 2)"),
    ("complex", tif(FLOATS.astype(np.complex64)), "pixels of type complex64"),
    ("uint32 too large", tif(np.full((6, 9), 2**31 + 1, np.uint32)), "more than float32 holds"),
    ("cmyk jpeg", pil(RGB8, "JPEG", mode="CMYK"), "colours of kind CMYK"),
    ("cmyk tiff", pil(RGB8, "TIFF", mode="CMYK"), "colours of kind SEPARATED"),
    ("animated gif", frames("GIF"), "holds 2 frames"),
    ("animated png", frames("PNG"), "holds 2 frames"),
]


@pytest.mark.parametrize(("data", "text"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_bad_picture_gives_one_error_that_names_it(tmp_path, data, text):
    path = put(tmp_path, data, "bad\n.png")
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert text in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path) + "/bad\\n.png: ")
    assert "\n" not in str(caught.value)


def lzw(data: bytes) -> bytes:
    """LZW by hand: codes of 9 bits, the table cleared before every 200 bytes."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def lzw_tiff(path: Path, pixels: NDArray, planes: bool) -> Path:
    """Write bands by LZW, each as a strip of its own or pixel by pixel."""
    stored = np.moveaxis(pixels, 2, 0) if planes else pixels
    tifffile.imwrite(
        path,
        iter([lzw(part.tobytes()) for part in (stored if planes else [stored])]),
        shape=stored.shape,
        dtype=stored.dtype,
        rowsperstrip=len(pixels),
        planarconfig="separate" if planes else "contig",
        photometric="minisblack",
        compression="zlib",
    )
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["Compression"].overwrite(5)
    return path


@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize(
    ("bands", "dtype"), [(2, "uint8"), (4, "uint16"), (3, "uint16"), (2, "float32")]
)
def test_lzw_bands_that_nothing_here_can_decode_are_never_read_in_part(
    tmp_path, bands, dtype, planes
):
    if tifffile.TIFF.DECOMPRESSORS.get(5):
        pytest.skip("imagecodecs decodes it")
    pixels = RNG.integers(0, 255, (6, 9, bands)).astype(dtype)
    path = lzw_tiff(tmp_path / "a.tif", pixels, planes)
    due = f"LZW compression of {bands} x {dtype} needs imagecodecs; pip install imagecodecs"
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path}: {due}"


@pytest.mark.parametrize(
    ("role", "channels"), [("Undefined", 4), ("NIR", 4), ("Alpha", 3), (None, 3)]
)
def test_a_fourth_band_that_gdal_calls_no_alpha_is_a_channel(tmp_path, role, channels):
    item = f'<Item name="COLORINTERP" sample="3" role="colorinterp">{role}</Item>'
    text = f"<GDALMetadata>\n  {item}\n</GDALMetadata>"
    pixels = RNG.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    options = {"extratags": [(42112, "s", 0, text, True)]} if role else {}
    data = tif(pixels, photometric="rgb", extrasamples=["unassalpha"], **options)
    path = put(tmp_path, data, "a.tif")
    assert (read_info(path).channels, read_info(path).alpha) == (channels, channels == 3)
    np.testing.assert_array_equal(read_image(path), pixels[..., :channels])


def test_zstandard_is_decoded_where_pillow_can(tmp_path):
    if not features.check("libtiff"):
        pytest.skip("Pillow without libtiff")
    path = put(tmp_path, pil(RGB8, "TIFF", compression="zstd"), "a.tif")
    np.testing.assert_array_equal(read_image(path), RGB8)


def test_lzw_in_16_bit_colour_is_refused_not_cut_to_8_bit(tmp_path):
    strip = lzw(RGB16.tobytes())
    tags = [(256, 9), (257, 6), (258, 16), (259, 5), (262, 2), (277, 3), (278, 6)]
    head = tiff_by_hand(*tags, (273, 0), (279, len(strip)))
    # BitsPerSample stands three times, so it lies behind the entries.
    entry = head.index(struct.pack("<HH", 258, 4))
    head = head[:entry] + struct.pack("<HHII", 258, 3, 3, len(head)) + head[entry + 12 :]
    place = head.index(struct.pack("<HH", 273, 4)) + 8
    head = head[:place] + struct.pack("<I", len(head) + 6) + head[place + 4 :]
    path = put(tmp_path, head + struct.pack("<HHH", 16, 16, 16) + strip, "a.tif")
    assert read_info(path).dtype == "uint16"
    with pytest.raises(InputError, match=r"LZW .* needs imagecodecs; pip install imagecodecs$"):
        read_image(path)


def test_pixels_over_the_limit_are_refused_from_the_header(tmp_path):
    path = put(tmp_path, pil(GREY8))
    for read in (read_image, read_mask, read_info):
        with pytest.raises(InputError, match="6 x 9 pixels, over the limit of 53"):
            read(path, max_pixels=53)


def test_names_that_are_no_regular_files_are_refused_without_waiting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo.png")
    Path("folder.png").mkdir()
    Path("gone.png").symlink_to("nowhere.png")
    Path("loop.png").symlink_to("loop.png")
    put(tmp_path, b"PK", "a.zip")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        for name, text in [
            ("none.png", "not found; check the name; URLs and archives are not read"),
            ("http://localhost/a.png", "not found"),
            ("a.zip/x.png", "not found"),
            ("<clipboard>", "not found"),
            ("a\0b.png", "not found"),
            ("fifo.png", "not a regular file"),
            ("socket.png", "not a regular file"),
            ("/dev/null", "not a regular file"),
            ("folder.png", "is a folder"),
            ("gone.png", "is a link to nowhere.png, which is missing"),
            ("loop.png", "is a link that leads back to itself"),
            ("x" * 300, "the name is too long"),
        ]:
            with pytest.raises(InputError) as caught:
                read_image(name)
            assert text in str(caught.value)


def test_a_file_without_permission_is_the_machines_fault(tmp_path, monkeypatch):
    def refuse(*_: object) -> int:  # a real one would open to root
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(reading.os, "open", refuse)
    with pytest.raises(MachineError, match="no permission to read"):
        read_image(tmp_path / "a.png")


def test_a_deflated_tile_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib", tile=(64, 64))
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages.first.tags
        places = {n: tags[n].valueoffset for n in ("TileOffsets", "TileByteCounts")}
    bomb, data = zlib.compress(bytes(2**28), 9), bytearray(path.read_bytes())
    assert len(bomb) < 2**19
    struct.pack_into("<I", data, places["TileOffsets"], len(data))
    struct.pack_into("<I", data, places["TileByteCounts"], len(bomb))
    path.write_bytes(bytes(data) + bomb)
    with pytest.raises(InputError, match="unpacks to more than it may hold"):
        read_image(path)


def test_a_text_chunk_that_unpacks_a_thousandfold_is_not_unpacked(tmp_path):
    data = pil(GREY8)
    chunk = b"zTXt" + b"key\0\0" + zlib.compress(bytes(2**24))
    bomb = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path = put(tmp_path, data[:33] + bomb + data[33:])
    with pytest.raises(InputError, match="not readable as PNG"):
        read_image(path)


def test_damage_of_any_kind_is_an_error_of_input_or_goes_unseen(tmp_path):
    """Any exception of a decoder on a damaged file must arrive as one of our errors."""
    rng = np.random.default_rng(11)
    originals = [data for _, data, *_ in READABLE]
    for _ in range(200):
        data = bytearray(originals[rng.integers(len(originals))])
        if rng.random() < 0.3:
            data = data[: rng.integers(1, len(data))]
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path = put(tmp_path, bytes(data))
        for read in (read_info, read_image, read_mask, reading.read_text):
            with suppress(InputError):
                read(path)


def test_an_ome_tiff_cannot_have_another_file_read(tmp_path):
    planes = [GREY8[None], 255 - GREY8[None]]
    for name, plane in zip(("a.ome.tif", "b.ome.tif"), planes, strict=True):
        tifffile.imwrite(tmp_path / name, plane, photometric="minisblack")
    ids = {name: f"urn:uuid:{i:032d}" for i, name in enumerate(("a.ome.tif", "b.ome.tif"))}
    data = "".join(
        f'<TiffData FirstC="0" FirstT="0" FirstZ="{i}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for i, (name, uuid) in enumerate(ids.items())
    )
    xml = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{ids["a.ome.tif"]}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="9" '
        f'SizeY="6" SizeZ="2" SizeC="1" SizeT="1">{data}</Pixels></Image></OME>'
    )
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, GREY8, photometric="minisblack", description=xml, metadata=None)
    with tifffile.TiffFile(path) as opened:
        assert opened.series[0].shape == (2, 6, 9)  # by its name it is a stack of two files
    np.testing.assert_array_equal(read_image(path)[..., 0], GREY8)


# --- masks -----------------------------------------------------------------------------------

MASKS = [
    ("png palette", pil(INDICES, palette=PALETTE), INDICES, True),
    ("gif palette", pil(INDICES, "GIF", palette=PALETTE), INDICES, True),
    ("bmp palette", pil(INDICES, "BMP", palette=PALETTE), INDICES, True),
    ("tiff palette", pil(INDICES, "TIFF", palette=PALETTE), INDICES, True),
    ("lzw palette", pil(INDICES, "TIFF", palette=PALETTE, compression="tiff_lzw"), INDICES, True),
    ("png grey", pil(INDICES), INDICES, False),
    ("png one bit", pil(INDICES > 0), (INDICES > 0).astype(np.uint8) * 255, False),
    ("png rgb", pil(PAINTED), PAINTED, False),
    ("png opaque rgba", pil(with_alpha(PAINTED, 255)), PAINTED, False),
    ("png opaque grey and alpha", pil(with_alpha(INDICES, 255)), INDICES, False),
    ("png 16-bit rgb", png_by_hand(PAINTED.astype(np.uint16) * 257, 2), PAINTED, False),
    ("png 16-bit", pil(SPREAD), SPREAD, False),
    ("tiff 16-bit", tif(SPREAD), SPREAD, False),
    ("tiff int32", tif(SPREAD.astype(np.int32)), SPREAD, False),
    ("tiff whole floats", tif(SPREAD.astype(np.float32)), SPREAD, False),
]


@pytest.mark.parametrize(
    ("data", "due", "palette"), [r[1:] for r in MASKS], ids=[r[0] for r in MASKS]
)
def test_a_mask_keeps_what_is_stored(tmp_path, data, due, palette):
    raw = read_mask(put(tmp_path, data))
    np.testing.assert_array_equal(raw.values, due)
    assert raw.values.shape == due.shape
    assert raw.values.dtype.kind in "iu"
    if palette:
        assert raw.palette is not None
        assert raw.palette.shape == (256, 3)
        assert raw.palette[:3].ravel().tolist() == PALETTE
    else:
        assert raw.palette is None


JPEG_IN_TIFF = pil(np.zeros((32, 32), np.uint8), "TIFF", compression="jpeg")
BAD_MASKS = [
    ("jpeg", pil(INDICES, "JPEG"), "lossy format"),
    ("jpeg in tiff", JPEG_IN_TIFF, "lossy format"),
    ("fractions", tif(INDICES + np.float32(0.5)), "value 0.5 at (x 0, y 0) is no whole number"),
    ("negative", tif(INDICES.astype(np.int16) - 1), "negative values, down to -1"),
    (
        "transparent",
        pil(with_alpha(PAINTED, 254)),
        "54 pixels are half transparent, first at (x 0, y 0)",
    ),
    ("two channels", tif(PAINTED[..., :2], planarconfig="contig"), "a mask with 2 channels"),
    ("deep colours", png_by_hand(RGB16, 2), "colours of type uint16"),
    ("white is zero", tif(INDICES, photometric="miniswhite"), "white as zero"),
    ("pages", tif(np.stack([INDICES] * 2), photometric="minisblack"), "holds 2 pages"),
]


@pytest.mark.parametrize(
    ("data", "text"), [r[1:] for r in BAD_MASKS], ids=[r[0] for r in BAD_MASKS]
)
def test_a_mask_that_cannot_be_trusted_is_refused(tmp_path, data, text):
    with pytest.raises(InputError) as caught:
        read_mask(put(tmp_path, data))
    assert text in str(caught.value)


# --- arrays ----------------------------------------------------------------------------------


# --- a part of a file ------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}])
def test_a_stack_is_projected_by_a_word(tmp_path, options):
    stack = RNG.integers(0, 60_000, (5, 20, 33), dtype=np.uint16)
    path = put(tmp_path, tif(stack, photometric="minisblack", metadata={"axes": "ZYX"}, **options))
    mean = np.rint(stack.mean(0)).astype(np.uint16)
    for page, due in (("max", stack.max(0)), ("mean", mean), ("middle", stack[2])):
        found = read_image(path, Selection(page))
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found[..., 0], due)
        with open_raster(path, Selection(page)) as raster:
            np.testing.assert_array_equal(raster[3:17], found[3:17])


def test_channels_are_taken_in_the_order_asked_for(tmp_path):
    image = RNG.integers(0, 255, (6, 9, 3), dtype=np.uint8)
    composite = tif(np.moveaxis(image, 2, 0), photometric="minisblack", metadata={"axes": "CYX"})
    for path in (put(tmp_path, pil(image)), put(tmp_path, composite, "a.tif")):
        for channels in ((0,), (2, 0), (1, 1, 1)):
            part = Selection(channels=channels)
            assert read_info(path, part).channels == len(channels)
            np.testing.assert_array_equal(read_image(path, part), image[..., list(channels)])
            with open_raster(path, part) as raster:
                np.testing.assert_array_equal(raster[2:5], image[2:5][..., list(channels)])
        with pytest.raises(InputError, match="has no channel 3, only 3 channels"):
            read_image(path, Selection(channels=(0, 3)))


def test_slices_and_channels_of_a_hyperstack_are_told_apart(tmp_path):
    stack = RNG.integers(0, 255, (3, 2, 6, 9), dtype=np.uint8)
    path = put(tmp_path, tif(stack, imagej=True, metadata={"axes": "ZCYX"}))
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert "3 slices in depth (Z), each of 2 channels" in caught.value.problem
    found = read_image(path, Selection("max", (1,)))
    np.testing.assert_array_equal(found[..., 0], stack.max(0)[1])


def test_masks_of_a_stack_are_not_averaged(tmp_path):
    path = put(tmp_path, tif(np.zeros((3, 6, 9), np.uint8), photometric="minisblack"))
    with pytest.raises(InputError, match="3 pages of labels, which max cannot join"):
        read_mask(path, Selection("max"))


# --- WebP, and formats that are not read -----------------------------------------------------


def test_webp_is_read_and_is_a_mask_only_without_loss(tmp_path):
    image = np.kron(RGB8, np.ones((8, 8, 1), np.uint8))
    exact = put(tmp_path, pil(image, "WEBP", lossless=True), "exact.webp")
    assert read_info(exact).format == "WEBP"
    np.testing.assert_array_equal(read_image(exact), image)
    flat = np.zeros((900, 900, 3), np.uint8)
    np.testing.assert_array_equal(
        read_mask(put(tmp_path, pil(flat, "WEBP", lossless=True))).values, flat
    )
    lossy = put(tmp_path, pil(image, "WEBP", quality=60), "lossy.webp")
    assert read_image(lossy).shape == image.shape
    with pytest.raises(InputError, match="a lossy format"):
        read_mask(lossy)
    clear = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    clear[0, 0, 3] = 0
    mixed = put(tmp_path, pil(clear, "WEBP", lossless=True), "clear.webp")  # an extended file
    assert read_info(mixed).alpha
    assert read_image(mixed).shape == image.shape


@pytest.mark.parametrize(
    ("name", "words"),
    [("scan 1.czi", "Zeiss CZI"), ("a.nd2", "Nikon ND2"), ("b.LIF", "Leica LIF")],
)
def test_a_format_of_a_microscope_is_named_with_what_to_export(tmp_path, name, words):
    path = put(tmp_path, b"ZISRAWFILE" + bytes(50), name)
    for look in (read_info, lambda _: list_images(tmp_path)):
        with pytest.raises(InputError) as caught:
            look(path)
        assert caught.value.problem == f"1 file of {words}, which is not read"
        assert "Fiji" in caught.value.remedy
        assert "bfconvert" in caught.value.remedy


def test_a_damaged_file_is_refused_without_the_words_of_its_decoder(tmp_path):
    whole = pil(RGB8)
    for data in (whole[:-40], whole[:50], flipped(whole, 60)):
        with pytest.raises(InputError) as caught:
            read_image(put(tmp_path, data))
        assert caught.value.problem in ("not readable as PNG", "not readable as PNG: it is cut off")
        assert caught.value.__cause__ is not None
