"""The patch store: cut patches and whole held-out images in one HDF5 file, complete or absent.

    user block, 512 bytes   format, time, length and SHA-256 of the rest: written last
    /                       attributes: what the patches are and how they were made
    /sources                name, sha256, group, split, height, width, each (sources,)
    /train                  images (N, P, P, C), masks (N, P, P), source (N,), corner (N, 2)
    /val                    images (n, C), masks (n,): the n pixels of all sources whose split is
                            "val", source after source, row after row; empty where there are none

A store of format 1 holds ``/val/<k>`` with an image (H, W, C) and a mask (H, W) instead, and is
read. HDF5 took 13 s for 2,000 such groups.

P = S + 2m: the core has S pixels a side, and the margin m pixels on each side. All arrays are
little-endian, contiguous and unfiltered, so HDF5 only tells where they lie. They are written by
plain file operations, which report a full disk, and read through a memory map, at memory speed.

Reading checks the SHA-256 first, so a damaged file never reaches the HDF5 library. A forged file
may have a valid checksum. So its names, types and shapes must be those of a fixed list, and no
link, external or virtual data is followed. Forged metadata might still crash the HDF5 library
itself: open stores of strangers in a process that may end.
"""

import dataclasses
import errno
import hashlib
import json
import math
import mmap
import os
import re
from collections.abc import Iterator
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt
from pydantic.dataclasses import dataclass

from unetseg.arguments import public
from unetseg.classes import IGNORED
from unetseg.errors import InputError, MachineError, either
from unetseg.files import kind_of, open_regular
from unetseg.pictures.surroundings import IgnoredArea
from unetseg.records import Classes, Count, Number, Positive, Text, read_record, to_plain
from unetseg.results import Result, Table
from unetseg.settings import PatchSettings, Selection
from unetseg.text import plural, show

# HDF5 reads this once, when it is loaded: it then loads no filter code from outside.
os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
import h5py

FORMAT = "unetseg-patches"
VERSION = 2
DTYPES = ("uint8", "uint16", "float32")

USER_BLOCK = 512
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_AGAIN = f"{either('run unetseg patch', 'call unetseg.build_store')} again"
_WHAT = "patch store"
_CHUNK = 1 << 18  # values checked at once: they stay in the cache

TEXTS, NUMBERS = ("name", "sha256", "group", "split"), ("height", "width")  # of a source
_ATTRIBUTES = (
    "format", "version", "complete", "size", "margin", "seed", "settings", "folder", "classes",
    "mean", "std", "scale", "class_pixels_train", "class_pixels_val", "unetseg",
)  # fmt: skip

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """One labelled image that the store was made from.

    Attributes:
        name: File name of the image, without folder; 1 to 4096 characters.
        sha256: SHA-256 of its pixels, 64 hexadecimal digits.
        group: Images of one group stand on one side of the split.
        split: "train" (cut into patches) or "val" (held out whole).
        height: Rows of the image, in pixels, as it is stored.
        width: Columns of the image, in pixels, as it is stored.

    Raises:
        ValueError: A value of the wrong type or out of range.
    """

    name: Text
    sha256: Text
    group: Text
    split: Literal["train", "val"]
    height: Annotated[StrictInt, Field(ge=1)]
    width: Annotated[StrictInt, Field(ge=1)]

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 4096 or len(self.group) > 4096:
            raise ValueError("a source without a name, or with one over 4096 characters")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 {self.sha256[:70]!r}")


@dataclass(frozen=True)
class StoreInfo:
    """The nature of the patches of a store, and how they were made.

    Attributes:
        size: S, the side of a patch's core in pixels, 1 to 65536.
        margin: m, the pixels around the core on each side, 0 to 65536.
        seed: The seed of the split and the corners, 0 to 2^63 - 1.
        settings: The settings of the command, plain JSON types.
        folder: Path of the folder of images.
        classes: The classes that mask indices count.
        mean: The mean of each channel over the training images, in units of the stored pixels.
        std: The standard deviation of each channel over the training images, above 0.
        dtype: The dtype of the images: "uint8", "uint16" or "float32".
        channels: C of the images, 1 to 4096.
        scale: Factor by which the images were resized before cutting, above 0.
        class_pixels_train: Pixels of each class in the training images.
        class_pixels_val: Pixels of each class in the held-out images.
        sources: All images, in the order that `Store.source` counts.
        version: The version of unetseg that made the store.
        created: ISO time.

    Raises:
        ValueError: A value of the wrong type or out of range.
    """

    size: Annotated[StrictInt, Field(ge=1, le=65536)]
    margin: Annotated[StrictInt, Field(ge=0, le=65536)]
    seed: Annotated[StrictInt, Field(ge=0, le=2**63 - 1)]
    settings: dict[str, Any]
    folder: Text
    classes: Classes
    mean: tuple[Number, ...]
    std: tuple[Positive, ...]
    dtype: Text
    channels: Annotated[StrictInt, Field(ge=1, le=4096)]
    scale: Positive
    class_pixels_train: tuple[Count, ...]
    class_pixels_val: tuple[Count, ...]
    sources: tuple[Source, ...]
    version: Text
    created: Text

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"images of {self.dtype!r:.50}; {', '.join(DTYPES)} are possible")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("mean or std of other length")
        if {len(self.class_pixels_train), len(self.class_pixels_val)} != {len(self.classes.names)}:
            raise ValueError("class pixels that do not count the classes")
        if all(s.split == "val" for s in self.sources):
            raise ValueError("no training image")
        if not re.fullmatch(r"[ -~]{1,40}", self.created):
            raise ValueError(f"time {self.created[:50]!r}")

    @property
    def patch_side(self) -> int:
        """P = S + 2m, the side of a stored patch in pixels."""
        return self.size + 2 * self.margin

    @property
    def selection(self) -> Selection:
        """The part of image files that the store was made from.

        Raises:
            InputError: The settings hold a value that no selection has.
        """
        names = ("page", "channels", "crop")
        chosen: dict[str, Any] = {name: self.settings.get(name) for name in names}
        return PatchSettings(**chosen).selection

    @property
    def ignored_area(self) -> IgnoredArea | None:
        """The area that every mask of the folder ignores; None where there is no such area.

        Raises:
            InputError: The settings hold no area.
        """
        area = self.settings.get("ignored_area")
        return read_record(IgnoredArea, area, "ignored area") if area else None

    @cached_property  # asked for once an image
    def held_out(self) -> tuple[Source, ...]:
        """The sources held out whole, in the order of `Store.held_out`."""
        return tuple(s for s in self.sources if s.split == "val")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Store(Result):
    """An open patch store; its arrays are read-only maps of the file, read when they are used.

    If the file is replaced meanwhile, the open store stays as it was. On Windows the file cannot be
    replaced while it is open. It is closed when the last array is dropped.

    Attributes:
        path: The path of the file.
        info: The header.
        images: ``(N, P, P, C)``, dtype ``info.dtype``.
        masks: ``(N, P, P)`` uint8 class indices, 255 = ignored.
        source: ``(N,)`` int32, index into ``info.sources``.
        corner: ``(N, 2)`` int32, row and column of the core's first pixel in its source.
        content_hash: SHA-256 of all but the time of creation: equal input, equal hash.
    """

    path: Path
    info: StoreInfo
    images: Array
    masks: npt.NDArray[np.uint8]
    source: npt.NDArray[np.int32]
    corner: npt.NDArray[np.int32]
    content_hash: str
    _whole: tuple[tuple[Array, npt.NDArray[np.uint8]], ...]

    @property
    def held_out_count(self) -> int:
        """The number of images that are held out whole."""
        return len(self._whole)

    def line(self) -> str:
        """Return the number of patches."""
        patches = plural(len(self.images), "patch", "patches")
        return f"{self.path}: {patches} of {self.info.size} x {self.info.size} pixels"

    def tables(self) -> tuple[Table, ...]:
        """Return the facts of the header, and the classes."""
        info, held_out = self.info, len(self.info.held_out)
        rows: list[tuple[str, object]] = [
            ("made", info.created),
            ("from", info.folder),
            ("images", f"{len(info.sources) - held_out} to train on, {held_out} held out whole"),
            ("patches", f"{len(self.images):,} of {info.size} x {info.size} pixels"),
            ("margin", f"{info.margin} pixels on each side"),
            ("channels", f"{info.channels}, {info.dtype}"),
            ("scale", f"{info.scale:g}"),
            ("mean", ", ".join(f"{v:.4g}" for v in info.mean)),
            ("deviation", ", ".join(f"{v:.4g}" for v in info.std)),
            ("settings", json.dumps(dict(info.settings))),
            ("made by", f"unetseg {info.version}"),
            ("content", self.content_hash),
        ]
        pixels = [f"{n:,}" for n in info.class_pixels_train]
        facts = Table(str(self.path), ["", "value"], rows)
        return facts, info.classes.table(("train pixels", pixels))

    def records(self) -> list[dict[str, Any]]:
        """Return a row an image."""
        return [dataclasses.asdict(source) for source in self.info.sources]

    def to_dict(self) -> dict[str, Any]:
        """Return the header in plain types for JSON."""
        return {"path": str(self.path), "content": self.content_hash} | to_plain(self.info)

    def held_out(self, k: int) -> tuple[Array, npt.NDArray[np.uint8], Source]:
        """Return the k-th held-out image ``(H, W, C)``, its mask ``(H, W)`` and its source."""
        return *self._whole[k], self.info.held_out[k]


def _refuse(problem: str) -> NoReturn:
    raise InputError(_WHAT, problem)  # `open_store` and `write_store` put the path there


Arrays = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""The shape and the dtype of each array in the file, by its HDF5 path."""


def declare_arrays(info: StoreInfo, count: int) -> Arrays:
    """Return the shape and dtype of every array of pixels, sources or corners, by its HDF5 path."""
    side, byte, place = info.patch_side, np.dtype("u1"), np.dtype("<i4")
    pixel = np.dtype(info.dtype).newbyteorder("<")
    arrays: Arrays = {
        "train/images": ((count, side, side, info.channels), pixel),
        "train/masks": ((count, side, side), byte),
        "train/source": ((count,), place),
        "train/corner": ((count, 2), place),
    }
    if info.held_out:
        pixels = sum(source.height * source.width for source in info.held_out)
        arrays["val/images"] = ((pixels, info.channels), pixel)
        arrays["val/masks"] = ((pixels,), byte)
    return arrays


@public()
def open_store(path: str | os.PathLike[str], verify: bool = True) -> Store:
    """Open a patch store.

    Args:
        path: The file.
        verify: Whether to check the SHA-256 of the file, every label and, in float images, every
            value, which reads the file once. Pass False where this process has just done so.

    Raises:
        InputError: The file is not regular, no patch store, unfinished, truncated, damaged or of a
            newer format. Or it holds names, types or shapes that no patch store has.
        MachineError: No permission to read, or the disk fails.
    """
    path = Path(path)
    with open_regular(path) as file:
        try:
            created, digest = _read_user_block(file)
            if verify:
                file.seek(USER_BLOCK)
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    _refuse("checksum differs (damaged file)")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # Hand over the open file, not its name: no other file can then take its place.
            with h5py.File(file, "r") as h5:
                store = _read_structure(path, h5, mapped, created, digest)
            if verify:
                check_values(store)
        except InputError as error:
            raise InputError(path, error.problem, _AGAIN) from None
        except Exception as error:  # a forged file leads HDF5 to any exception
            if isinstance(error, OSError) and error.errno == errno.EIO:
                text = "not readable: the disk reported an input/output error"
                raise MachineError(path, text, "try again, or copy it from elsewhere") from None
            raise InputError(path, f"not readable as a patch store ({error})", _AGAIN) from None
    return store


_USER_BLOCK_TEXT = re.compile(
    rb"(unetseg-patches [12]\ncreated ([ -~]{1,40})\nbytes (\d{1,18})\nsha256 ([0-9a-f]{64})\n)"
    rb"check ([0-9a-f]{64})\n\0+"
)


def _read_user_block(file: BufferedReader) -> tuple[str, str]:
    """Return the time of creation and the checksum; refuse a file that is no whole patch store."""
    size = os.fstat(file.fileno()).st_size
    block, signature = file.read(USER_BLOCK), file.read(len(_SIGNATURE))
    if block.startswith(_SIGNATURE):
        _refuse("an HDF5 file of another program, not a patch store")
    if signature == _SIGNATURE and not block.strip(b"\0"):
        _refuse("unfinished store")
    newer = re.match(rb"unetseg-patches (\d{1,9})\n", block)
    if not newer:
        _refuse(f"not a patch store (it is {kind_of(block + signature)})")
    if int(newer[1]) > VERSION:
        _refuse(f"store format {int(newer[1])}; this unetseg reads up to {VERSION}")
    match = _USER_BLOCK_TEXT.fullmatch(block)
    if not match or hashlib.sha256(match[1]).hexdigest().encode() != match[5]:
        _refuse("the first 512 bytes are damaged")
    if size != int(match[3]):
        word = "truncated" if size < int(match[3]) else "longer than written"
        _refuse(f"{word}: {size:,} of {int(match[3]):,} bytes")
    if signature != _SIGNATURE:
        _refuse("no HDF5 content (damaged file)")
    return match[2].decode(), match[4].decode()


def _read_structure(path: Path, h5: Any, mapped: mmap.mmap, created: str, digest: str) -> Store:
    """Check every name, type and shape, then map the arrays."""
    _check_names(h5, {"sources", "train", "val"}, "/")
    values = _read_attributes(h5)
    sources = _read_sources(_group(h5, "sources"), mapped)
    train, val = _group(h5, "train"), _group(h5, "val")
    _check_names(train, {"images", "masks", "source", "corner"}, "train")
    images = _array(train, "images", DTYPES, mapped)
    if images.ndim != 4 or not len(images):
        _refuse(f"train/images of shape {images.shape}, not (N, P, P, C)")
    info = _read_info(values, sources, str(images.dtype), images.shape[3], created)
    arrays = declare_arrays(info, len(images))
    _check_shape("train/images", images, arrays)
    rest = {n: _array(train, n, (d,), mapped) for n, d in (
        ("masks", "uint8"), ("source", "int32"), ("corner", "int32"))}  # fmt: skip
    for name, array in rest.items():
        _check_shape(f"train/{name}", array, arrays)
    _check_places(rest["source"], rest["corner"], info)
    read = _read_held_out if values["version"] == VERSION else _read_groups
    whole = tuple(read(val, mapped, info, arrays))
    return Store(path, info, images, **rest, content_hash=digest, _whole=whole)


def _read_held_out(
    val: Any, mapped: mmap.mmap, info: StoreInfo, arrays: Arrays
) -> Iterator[tuple[Array, Array]]:
    """Yield the image and the mask of each source that is held out."""
    _check_names(val, {"images", "masks"} if info.held_out else set(), "val")
    if not info.held_out:
        return
    images = _array(val, "images", (info.dtype,), mapped)
    masks = _array(val, "masks", ("uint8",), mapped)
    _check_shape("val/images", images, arrays)
    _check_shape("val/masks", masks, arrays)
    start = 0
    for source in info.held_out:
        place = slice(start, start := start + source.height * source.width)
        yield (
            images[place].reshape(source.height, source.width, info.channels),
            masks[place].reshape(source.height, source.width),
        )


def _read_groups(
    val: Any, mapped: mmap.mmap, info: StoreInfo, _: Arrays
) -> Iterator[tuple[Array, Array]]:
    """Yield the held-out images as `_read_held_out` does, from a store of format 1."""
    _check_names(val, {str(k) for k in range(len(info.held_out))}, "val")
    for k, source in enumerate(info.held_out):
        group, shape = _group(val, str(k)), (source.height, source.width)
        _check_names(group, {"image", "mask"}, f"val/{k}")
        image = _array(group, "image", (info.dtype,), mapped)
        mask = _array(group, "mask", ("uint8",), mapped)
        due: Arrays = {"image": ((*shape, info.channels), image.dtype), "mask": (shape, mask.dtype)}
        _check_shape("image", image, due)
        _check_shape("mask", mask, due)
        yield image, mask


def _check_shape(name: str, array: Array, arrays: Arrays) -> None:
    if array.shape != arrays[name][0]:
        _refuse(f"{name} of shape {array.shape}, not {arrays[name][0]}")


def _check_names(group: Any, expected: set[str], where: str) -> None:
    # Count first, so that a million names are not listed. Membership tests would follow links.
    if len(group) != len(expected) or set(group) != expected:
        _refuse(f"{where} holds other names than a patch store does")


def _child(group: Any, name: str, kind: type) -> Any:
    """Return a member that is stored in this file under this very name; refuse links."""
    link = group.get(name, getlink=True)
    if type(link) is not h5py.HardLink:
        _refuse(f"{group.name}/{name} is a link; external data is not allowed")
    if group.get(name, getclass=True) is not kind:
        _refuse(f"{group.name}/{name} is no {kind.__name__.lower()}")
    return group[name]


def _group(parent: Any, name: str) -> Any:
    return _child(parent, name, h5py.Group)


def _array(group: Any, name: str, dtypes: tuple[str, ...], mapped: mmap.mmap) -> Array:
    """Return a dataset as an array over ``mapped``; "S" in ``dtypes`` stands for any fixed text."""
    dataset = _child(group, name, h5py.Dataset)
    label = f"{group.name}/{name}".lstrip("/")
    plan = dataset.id.get_create_plist()
    if plan.get_external_count() or plan.get_layout() == h5py.h5d.VIRTUAL:
        _refuse(f"{label} lies in another file; external data is not allowed")
    if plan.get_layout() != h5py.h5d.CONTIGUOUS or plan.get_nfilters():
        _refuse(f"{label} is chunked or compressed; patch stores are not")
    dtype = dataset.dtype
    if dtype.kind not in "Siuf" or dtype.byteorder == ">" or (
        ("S" if dtype.kind == "S" else str(dtype)) not in dtypes
    ):  # fmt: skip
        _refuse(f"{label} is of type {dtype}, not {' or '.join(dtypes)}")
    offset, size = dataset.id.get_offset(), math.prod(dataset.shape) * dtype.itemsize
    if size == 0 or offset is None or not USER_BLOCK < offset <= len(mapped) - size:
        _refuse(f"{label} declares {size:,} bytes, which the file does not hold")
    if dtype.kind != "S" and offset % dtype.itemsize:
        _refuse(f"{label} lies at byte {offset}, not a multiple of {dtype.itemsize}")
    return np.ndarray(dataset.shape, np.dtype(dtype.str), mapped, offset)


def _read_attributes(h5: Any) -> dict[str, Any]:
    names = set(_ATTRIBUTES)
    if len(h5.attrs) != len(names) or set(h5.attrs) != names:
        _refuse("its attributes are not those of a patch store")
    values = {}
    for name in _ATTRIBUTES:
        attribute = h5py.h5a.open(h5.id, name.encode())
        if attribute.dtype.kind not in "Siuf" or attribute.get_storage_size() > 1 << 16:
            _refuse(f"attribute {name} is of type {attribute.dtype}")
        value = h5.attrs[name]
        values[name] = _decode(value) if attribute.dtype.kind == "S" else value.tolist()
    if values["format"] != FORMAT or values["version"] not in range(1, VERSION + 1):
        _refuse(f"format {values['format']!r} {values['version']}")
    if values["complete"] != 1:
        _refuse("unfinished store")
    return values


def _read_sources(group: Any, mapped: mmap.mmap) -> list[dict[str, Any]]:
    _check_names(group, {*TEXTS, *NUMBERS}, "sources")
    columns = {name: _array(group, name, ("S",), mapped) for name in TEXTS}
    columns |= {name: _array(group, name, ("int32",), mapped) for name in NUMBERS}
    if len({c.shape for c in columns.values()}) > 1 or columns["name"].ndim != 1:
        _refuse("sources of different lengths")
    lists = {n: [_decode(v) for v in columns[n].tolist()] for n in TEXTS}
    rows = zip(*lists.values(), *(columns[n].tolist() for n in NUMBERS), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _read_info(
    values: dict[str, Any], sources: object, dtype: str, channels: int, created: str
) -> StoreInfo:
    data = values | {
        "settings": json.loads(values["settings"]),
        "classes": json.loads(values["classes"]),
        "dtype": dtype,
        "channels": channels,
        "sources": sources,
        "version": values["unetseg"],
        "created": created,
    }
    return read_record(StoreInfo, data, _WHAT)


def _check_places(source: Array, corner: Array, info: StoreInfo) -> None:
    """Refuse a core that does not overlap the training image that it was cut from."""
    if source.min() < 0 or source.max() >= len(info.sources):
        _refuse("a patch of no source")
    if not np.array([s.split == "train" for s in info.sources])[source].all():
        _refuse("a patch of a held-out image")
    extent = np.array([(s.height, s.width) for s in info.sources])[source]
    if (corner <= -info.size).any() or (corner >= extent).any():
        _refuse("a patch outside its image")


def check_values(store: Store) -> None:
    """Refuse labels that stand for no class, and values that are not finite."""
    count = len(store.info.classes.classes)
    whole = [
        (f"{show(source.name)}, held out", *pair)
        for source, pair in zip(store.info.held_out, store._whole, strict=True)
    ]
    for name, images, masks in [("train", store.images, store.masks), *whole]:
        for start, block in _blocks(masks):
            # Adding 1 turns 255 (ignored) into 0, so one comparison is enough.
            if (block + np.uint8(1)).max() > count:
                first = int(np.argmax(block + np.uint8(1) > count))
                place = tuple(map(int, np.unravel_index(start + first, masks.shape)))
                text = f"label {block[first]} at {place}, expected 0 to {count - 1} or {IGNORED}"
                _refuse(f"{name}: {text}")
        for start, block in _blocks(images) if images.dtype.kind == "f" else ():
            finite = np.isfinite(block)
            if not finite.all():
                first = int(np.argmin(finite))
                place = tuple(map(int, np.unravel_index(start + first, images.shape)))
                _refuse(f"{name}: value {block[first]} at {place}")


def _blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """Yield flat pieces of an array, each with its first index: little memory is used at once."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield start, flat[start : start + _CHUNK]


def _decode(data: bytes) -> str:
    return bytes(data).decode("utf-8", "surrogateescape")
