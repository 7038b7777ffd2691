"""The patch store: cut patches and whole held-out images in one HDF5 file, complete or absent.

    user block, 512 bytes   format, time, length and SHA-256 of the rest: written last
    /                       attributes: what the patches are and how they were made
    /sources                name, sha256, group, split, height, width, each (sources,)
    /train                  images (N, P, P, C), masks (N, P, P), source (N,), corner (N, 2)
    /val/<k>                image (H, W, C), mask (H, W) of the k-th source whose split is "val"

P = S + 2m: the core of S pixels a side, and m more on each. All arrays are little-endian,
contiguous and unfiltered, so HDF5 is asked only where they lie; they are written by plain file
operations, which report a full disk, and read through a memory map, at memory speed.

Reading checks the SHA-256 first, so that a damaged file never reaches the HDF5 library. Who forges
a file can forge its checksum too: such a file meets a fixed list of names, types and shapes, and no
link, external or virtual data is followed. A crash inside the HDF5 library itself on metadata made
for it is not ruled out: open stores of strangers in a process that may end.
"""

import errno
import hashlib
import json
import math
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from unetseg.classes import IGNORED, ClassTable
from unetseg.errors import InputError, MachineError, UnetsegError
from unetseg.files import check_free, kind_of, open_regular, replacing

os.environ["HDF5_PLUGIN_PRELOAD"] = "::"  # the library reads it once: no filter code from outside
import h5py

FORMAT = "unetseg-patches"
VERSION = 1
DTYPES = ("uint8", "uint16", "float32")

_USER_BLOCK = 512
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_AGAIN = 'run "unetseg patch" again'
_UNCHANGED = "what stood there before is unchanged"
_MAX_TEXT = 60_000  # bytes of an attribute: HDF5 holds 64 kB in an object header
_CHUNK = 1 << 18  # values checked at once: they stay in the cache

_SOURCE_FIELDS = {
    "name": "S",
    "sha256": "S",
    "group": "S",
    "split": "S",
    "height": "i",
    "width": "i",
}
_ATTRIBUTES = (
    "format", "version", "complete", "size", "margin", "seed", "settings", "folder", "classes",
    "mean", "std", "scale", "class_pixels_train", "class_pixels_val", "unetseg",
)  # fmt: skip

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """One labelled image that the store was made from.

    Attributes:
        name: File name of the image, without folder.
        sha256: Of its pixels, 64 hexadecimal digits.
        group: Images of one group stand on one side of the split.
        split: "train" (cut into patches) or "val" (held out whole).
        height: Rows of the image, in pixels, as it is stored.
        width: Columns of the image, in pixels, as it is stored.
    """

    name: str
    sha256: str
    group: str
    split: Literal["train", "val"]
    height: int
    width: int

    def __post_init__(self) -> None:
        _require(0 < len(self.name) <= 4096 and len(self.group) <= 4096, "a source without a name")
        _require(re.fullmatch("[0-9a-f]{64}", self.sha256), f"sha256 {self.sha256[:70]!r}")
        _require(self.split in ("train", "val"), f"split {self.split!r}, not train or val")
        _require(min(self.height, self.width) > 0, f"a source of {self.height} x {self.width}")


@dataclass(frozen=True)
class StoreInfo:
    """What the patches of a store are and how they were made.

    Attributes:
        size: S, side of a patch's core in pixels.
        margin: m, pixels around the core on each side.
        seed: Of the split and the corners, 0 to 2^63 - 1.
        settings: Of the command, plain JSON types.
        folder: Path of the folder of images.
        classes: The classes that mask indices count.
        mean: Per channel, over the training images, in units of the stored pixels.
        std: Likewise, above 0.
        dtype: Of the images: "uint8", "uint16" or "float32".
        channels: C of the images.
        scale: Factor by which the images were resized before cutting.
        class_pixels_train: Pixels of each class in the training images.
        class_pixels_val: Pixels of each class in the held-out images.
        sources: All images, in the order that `Store.source` counts.
        version: Of the unetseg that made it.
        created: ISO time.

    Raises:
        InputError: A value out of range.
    """

    size: int
    margin: int
    seed: int
    settings: Mapping[str, Any]
    folder: str
    classes: ClassTable
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str
    channels: int
    scale: float
    class_pixels_train: tuple[int, ...]
    class_pixels_val: tuple[int, ...]
    sources: tuple[Source, ...]
    version: str
    created: str

    def __post_init__(self) -> None:
        count = len(self.classes.classes)
        _require(0 < self.size <= 65536, f"size {self.size}, not 1 to 65536")
        _require(0 <= self.margin <= 65536, f"margin {self.margin}, not 0 to 65536")
        _require(0 <= self.seed < 2**63, f"seed {self.seed}, not 0 to 2^63 - 1")
        _require(self.dtype in DTYPES, f"images of {self.dtype}; {', '.join(DTYPES)} are possible")
        _require(0 < self.channels <= 4096, f"{self.channels} channels, not 1 to 4096")
        _require(len(self.mean) == len(self.std) == self.channels, "mean or std of other length")
        _require(all(map(math.isfinite, self.mean)), "a mean that is not finite")
        _require(all(0 < s < math.inf for s in self.std), "a std that is not above 0")
        _require(0 < self.scale < math.inf, f"scale {self.scale}, not above 0")
        for pixels in (self.class_pixels_train, self.class_pixels_val):
            _require(len(pixels) == count and min(pixels) >= 0, "class pixels that do not count")
        _require(any(s.split == "train" for s in self.sources), "no training image")
        _require(re.fullmatch(r"[ -~]{1,40}", self.created), f"time {self.created[:50]!r}")

    @property
    def patch_side(self) -> int:
        """P = S + 2m, the side of a stored patch in pixels."""
        return self.size + 2 * self.margin

    @cached_property  # asked for once an image
    def held_out(self) -> tuple[Source, ...]:
        """The sources held out whole, in the order of `Store.held_out`."""
        return tuple(s for s in self.sources if s.split == "val")


@dataclass(frozen=True, eq=False)
class Store:
    """An open patch store; its arrays are read-only maps of the file, read when they are used.

    A store that is replaced meanwhile stays as it was opened (on Windows it cannot be replaced).

    Attributes:
        path: Where it was opened.
        info: What it holds.
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

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the file is given back when the last array is dropped."""

    @property
    def held_out_count(self) -> int:
        """How many images are held out whole."""
        return len(self._whole)

    def held_out(self, k: int) -> tuple[Array, npt.NDArray[np.uint8], Source]:
        """Return the k-th held-out image ``(H, W, C)``, its mask ``(H, W)`` and its source."""
        return *self._whole[k], self.info.held_out[k]


def _require(condition: object, problem: str) -> None:
    if not condition:
        _refuse(problem)


def _refuse(problem: str) -> NoReturn:
    raise InputError("patch store", problem)  # who opens or writes one puts its path there


# --- writing ---------------------------------------------------------------------------------


def write_store(
    path: str | os.PathLike[str],
    info: StoreInfo,
    count: int,
    patches: Iterable[tuple[Array, Array, int, npt.ArrayLike]],
    held_out: Iterable[tuple[Array, Array]],
) -> None:
    """Write a patch store, whole or not at all.

    Args:
        path: The file; what stands there is replaced once the new one is complete.
        info: What it holds.
        count: N, how many ``patches`` come, at least 1.
        patches: Image ``(P, P, C)`` of ``info.dtype``, mask ``(P, P)`` uint8, index into
            ``info.sources``, and (row, column) of the core's first pixel in its source.
        held_out: Image ``(H, W, C)`` and mask ``(H, W)`` of each source of split "val", in order.

    Raises:
        InputError: ``path`` is a folder; labels out of range; a value that does not fit the file.
        MachineError: The disk is full, permission is missing.
        ValueError: Fewer or more arrays than declared, or of another shape or dtype.
    """
    path = Path(path)
    if count < 1:
        raise ValueError("a store holds at least one patch")
    arrays, columns = _declare(info, count), _source_columns(info)
    data = sum(math.prod(shape) * dtype.itemsize for shape, dtype in arrays.values())
    needed = data + 200_000 + 5_000 * len(info.sources)  # metadata, rounded up
    check_free(path, needed)
    with replacing(path) as temporary:
        _reserve(temporary, needed)
        with _blaming_the_disk(path):
            offsets = _lay_out(temporary, info, arrays, columns)
        with open(temporary, "r+b") as file:
            _fill(file, info, arrays, offsets, patches, held_out)
            for name, column in columns.items():
                file.seek(offsets[name])
                file.write(column.tobytes())
        with _blaming_the_disk(path), h5py.File(temporary, "r+", locking=False) as h5:
            h5.attrs.modify("complete", np.uint8(1))
        _seal(temporary, info.created)
        written = _read_back(temporary, path, info)
        try:
            _check_values(written)
        except InputError as error:
            raise InputError(path, f"not written: {error.problem}") from None


_Arrays = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


def _declare(info: StoreInfo, count: int) -> _Arrays:
    """Return shape and dtype of every array that holds pixels or places, by its HDF5 path."""
    side, byte, place = info.patch_side, np.dtype("u1"), np.dtype("<i4")
    pixel = np.dtype(info.dtype).newbyteorder("<")
    arrays: _Arrays = {
        "train/images": ((count, side, side, info.channels), pixel),
        "train/masks": ((count, side, side), byte),
        "train/source": ((count,), place),
        "train/corner": ((count, 2), place),
    }
    for k, source in enumerate(info.held_out):
        arrays[f"val/{k}/image"] = ((source.height, source.width, info.channels), pixel)
        arrays[f"val/{k}/mask"] = ((source.height, source.width), byte)
    return arrays


def _reserve(path: Path, size: int) -> None:
    """Claim ``size`` bytes of disk for an instant, so that a full disk or a limit shows here.

    Inside the HDF5 library the same can end the process.
    """
    with open(path, "r+b") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not on this file system
                    raise


@contextmanager
def _blaming_the_disk(path: Path) -> Iterator[None]:
    """Take an error inside the HDF5 library, of whatever type, for a write that failed."""
    try:
        yield
    except InputError:  # of ours: a value that does not fit
        raise
    except Exception as error:
        said = re.search(r"error message = '([^'\n]+)'", str(error))
        reason = said[1] if said else str(error).partition("\n")[0]
        raise MachineError(path, f"not written: {reason}", _UNCHANGED) from None


def _read_back(temporary: Path, path: Path, info: StoreInfo) -> Store:
    """Open what was just written: HDF5 passes over some errors of the disk."""
    try:
        store = open_store(temporary, verify=False)
    except UnetsegError as error:
        raise MachineError(path, f"not written: {error.problem}", _UNCHANGED) from None
    if store.info != replace(info, settings=json.loads(_settings_text(info))):
        raise MachineError(path, "not written: it reads back otherwise", _UNCHANGED)
    return store


def _source_columns(info: StoreInfo) -> dict[str, Array]:
    """Return what the store says of its sources, an array a field, by its HDF5 path."""
    columns: dict[str, Array] = {}
    for field, kind in _SOURCE_FIELDS.items():
        values = [getattr(s, field) for s in info.sources]
        dtype: Any = "<i4"
        if kind == "S":
            values = [_encode(v) for v in values]
            dtype = h5py.string_dtype("utf-8", max(1, *map(len, values)))
        columns[f"sources/{field}"] = np.array(values, dtype)
    return columns


def _lay_out(
    path: Path, info: StoreInfo, arrays: _Arrays, columns: Mapping[str, Array]
) -> dict[str, int]:
    """Write the HDF5 structure without content; return where each array begins in the file."""
    declared = {name: (c.shape, c.dtype) for name, c in columns.items()} | arrays
    # The earliest format keeps no times, so equal content gives equal bytes; pages of 512 bytes
    # keep every array aligned for its dtype.
    with h5py.File(
        path, "w", libver=("earliest", "v110"), userblock_size=_USER_BLOCK, locking=False,
        alignment_threshold=1, alignment_interval=_USER_BLOCK,
    ) as h5:  # fmt: skip
        _write_attributes(h5, info)
        for group in ("sources", "train", "val"):
            h5.create_group(group)
        return {name: _create(h5, name, *shape_dtype) for name, shape_dtype in declared.items()}


def _create(h5: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Create an array whose place in the file is fixed at once; return its first byte."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    dataset = h5.create_dataset(name, shape, dtype, dcpl=plan)
    return int(dataset.id.get_offset())


def _write_attributes(h5: Any, info: StoreInfo) -> None:
    values = {
        "format": FORMAT,
        "version": VERSION,
        "complete": np.uint8(0),
        "size": info.size,
        "margin": info.margin,
        "seed": info.seed,
        "settings": _settings_text(info),
        "folder": info.folder,
        "classes": json.dumps(info.classes.to_dict(), ensure_ascii=False),
        "mean": np.array(info.mean, "<f8"),
        "std": np.array(info.std, "<f8"),
        "scale": float(info.scale),
        "class_pixels_train": np.array(info.class_pixels_train, "<i8"),
        "class_pixels_val": np.array(info.class_pixels_val, "<i8"),
        "unetseg": info.version,
    }
    for name, value in values.items():
        if isinstance(value, str):
            data = _encode(value)
            _require(len(data) <= _MAX_TEXT, f"{name} of {len(data)} bytes; 60,000 are possible")
            fixed = h5py.string_dtype("utf-8", max(1, len(data)))
            h5.attrs.create(name, np.bytes_(data), dtype=fixed)
        else:
            h5.attrs.create(name, value)


def _settings_text(info: StoreInfo) -> str:
    return json.dumps(dict(info.settings), sort_keys=True)


def _fill(
    file: BinaryIO,
    info: StoreInfo,
    arrays: _Arrays,
    offsets: dict[str, int],
    patches: Iterable[tuple[Array, Array, int, npt.ArrayLike]],
    held_out: Iterable[tuple[Array, Array]],
) -> None:
    def put(name: str, array: Array, index: int | None = None) -> None:
        shape, dtype = arrays[name]
        shape = shape if index is None else shape[1:]
        if array.shape != shape or array.dtype.name != dtype.name:
            found = f"{array.shape} {array.dtype}"
            raise ValueError(f"{name}: {found} where {shape} {dtype} is due")
        file.seek(offsets[name] + (index or 0) * array.nbytes)
        file.write(np.ascontiguousarray(array, dtype).data)

    count = arrays["train/source"][0][0]
    source, corner = np.zeros(count, "<i4"), np.zeros((count, 2), "<i4")
    for i, (image, mask, origin, place) in zip(range(count), patches, strict=True):
        put("train/images", image, i)
        put("train/masks", mask, i)
        source[i], corner[i] = origin, place
    put("train/source", source)
    put("train/corner", corner)
    for k, (image, mask) in zip(range(len(info.held_out)), held_out, strict=True):
        put(f"val/{k}/image", image)
        put(f"val/{k}/mask", mask)


def _seal(path: Path, created: str) -> None:
    """Write the user block: time, length and checksum of what follows, and its own checksum."""
    with open(path, "r+b") as file:
        file.seek(_USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        text = f"{FORMAT} {VERSION}\ncreated {created}\nbytes {file.tell()}\nsha256 {digest}\n"
        text += f"check {hashlib.sha256(text.encode()).hexdigest()}\n"
        file.seek(0)
        file.write(text.encode().ljust(_USER_BLOCK, b"\0"))


# --- reading ---------------------------------------------------------------------------------


def open_store(path: str | os.PathLike[str], verify: bool = True) -> Store:
    """Open a patch store.

    Args:
        path: The file.
        verify: Check the SHA-256 of the file, every label and, where images are float, every
            value; one reading of the file. Left out where the same process has just done it.

    Raises:
        InputError: Not a regular file, not a patch store, unfinished, truncated, damaged, of a
            newer format, or not what a patch store may hold.
        MachineError: No permission to read, or the disk fails.
    """
    path = Path(path)
    with open_regular(path) as file:
        try:
            created, digest = _read_user_block(file)
            if verify:
                file.seek(_USER_BLOCK)
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    _refuse("checksum differs (damaged file)")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            # the open file, not its name: no other can take its place
            with h5py.File(file, "r") as h5:
                store = _read_structure(path, h5, mapped, created, digest)
            if verify:
                _check_values(store)
        except InputError as error:
            raise InputError(path, error.problem, _AGAIN) from None
        except Exception as error:  # HDF5 has many; a reader of strangers' files knows none of them
            if isinstance(error, OSError) and error.errno == errno.EIO:
                text = "not readable: the disk reported an input/output error"
                raise MachineError(path, text, "try again, or copy it from elsewhere") from None
            raise InputError(path, f"not readable as a patch store ({error})", _AGAIN) from None
    return store


_USER_BLOCK_TEXT = re.compile(
    rb"(unetseg-patches 1\ncreated ([ -~]{1,40})\nbytes (\d{1,18})\nsha256 ([0-9a-f]{64})\n)"
    rb"check ([0-9a-f]{64})\n\0+"
)


def _read_user_block(file: BufferedReader) -> tuple[str, str]:
    """Return time of creation and checksum of the rest; refuse what is no whole patch store."""
    size = os.fstat(file.fileno()).st_size
    block, signature = file.read(_USER_BLOCK), file.read(len(_SIGNATURE))
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
    arrays = _declare(info, len(images))
    _check_shape("train/images", images, arrays)
    rest = {n: _array(train, n, (d,), mapped) for n, d in (
        ("masks", "uint8"), ("source", "int32"), ("corner", "int32"))}  # fmt: skip
    for name, array in rest.items():
        _check_shape(f"train/{name}", array, arrays)
    _check_places(rest["source"], rest["corner"], info)
    _check_names(val, {str(k) for k in range(len(info.held_out))}, "val")
    whole = tuple(_read_held_out(_group(val, str(k)), k, mapped, info, arrays)
                  for k in range(len(info.held_out)))  # fmt: skip
    return Store(path, info, images, **rest, content_hash=digest, _whole=whole)


def _read_held_out(
    group: Any, k: int, mapped: mmap.mmap, info: StoreInfo, arrays: _Arrays
) -> tuple[Array, Array]:
    _check_names(group, {"image", "mask"}, f"val/{k}")
    image = _array(group, "image", (info.dtype,), mapped)
    mask = _array(group, "mask", ("uint8",), mapped)
    _check_shape(f"val/{k}/image", image, arrays)
    _check_shape(f"val/{k}/mask", mask, arrays)
    return image, mask


def _check_shape(name: str, array: Array, arrays: _Arrays) -> None:
    if array.shape != arrays[name][0]:
        _refuse(f"{name} of shape {array.shape}, not {arrays[name][0]}")


def _check_names(group: Any, expected: set[str], where: str) -> None:
    # Counted first: a million names are not listed. Membership tests would follow links.
    if len(group) != len(expected) or set(group) != expected:
        _refuse(f"{where} holds other names than a patch store does")


def _child(group: Any, name: str, kind: type) -> Any:
    """Return a member that is stored in this file under this very name; links are not followed."""
    link = group.get(name, getlink=True)
    if type(link) is not h5py.HardLink:
        _refuse(f"{group.name}/{name} is a link; external data is not allowed")
    if group.get(name, getclass=True) is not kind:
        _refuse(f"{group.name}/{name} is no {kind.__name__.lower()}")
    return group[name]


def _group(parent: Any, name: str) -> Any:
    return _child(parent, name, h5py.Group)


def _array(group: Any, name: str, dtypes: tuple[str, ...], mapped: mmap.mmap) -> Array:
    """Return a dataset as an array over ``mapped``; "S" among the ``dtypes`` is any fixed text."""
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
    if size == 0 or offset is None or not _USER_BLOCK < offset <= len(mapped) - size:
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
    if values["format"] != FORMAT or values["version"] != VERSION:
        _refuse(f"format {values['format']!r} {values['version']}")
    if values["complete"] != 1:
        _refuse("unfinished store")
    return values


def _read_sources(group: Any, mapped: mmap.mmap) -> tuple[Source, ...]:
    _check_names(group, set(_SOURCE_FIELDS), "sources")
    columns = [
        _array(group, name, ("S" if kind == "S" else "int32",), mapped)
        for name, kind in _SOURCE_FIELDS.items()
    ]
    if any(c.shape != columns[0].shape or c.ndim != 1 for c in columns):
        _refuse("sources of different lengths")
    rows = zip(*(c.tolist() for c in columns), strict=True)
    decoded: Iterator[list[Any]] = (
        [_decode(v) if isinstance(v, bytes) else v for v in r] for r in rows
    )
    return tuple(Source(*row) for row in decoded)


def _read_info(
    values: dict[str, Any], sources: tuple[Source, ...], dtype: str, channels: int, created: str
) -> StoreInfo:
    settings = json.loads(values["settings"])
    if not isinstance(settings, dict):
        _refuse("settings are no table")
    made: dict[str, Any] = {n: values[n] for n in ("size", "margin", "seed", "folder", "scale")}
    for name in ("mean", "std", "class_pixels_train", "class_pixels_val"):
        made[name] = tuple(values[name])
    return StoreInfo(
        **made,
        settings=settings,
        classes=ClassTable.from_dict(json.loads(values["classes"])),
        dtype=dtype,
        channels=channels,
        sources=sources,
        version=values["unetseg"],
        created=created,
    )


def _check_places(source: Array, corner: Array, info: StoreInfo) -> None:
    """Every core must overlap the training image that it was cut from."""
    if source.min() < 0 or source.max() >= len(info.sources):
        _refuse("a patch of no source")
    if not np.array([s.split == "train" for s in info.sources])[source].all():
        _refuse("a patch of a held-out image")
    extent = np.array([(s.height, s.width) for s in info.sources])[source]
    if (corner <= -info.size).any() or (corner >= extent).any():
        _refuse("a patch outside its image")


def _check_values(store: Store) -> None:
    """Refuse labels that are no class and values that are not finite."""
    count = len(store.info.classes.classes)
    whole = [(f"val/{k}", *pair) for k, pair in enumerate(store._whole)]
    for name, images, masks in [("train", store.images, store.masks), *whole]:
        for start, block in _blocks(masks):
            # adding 1 takes 255, ignored, to 0, so one comparison sees both
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
    """Yield flat pieces of an array, each with its first index, so that little is held at once."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        yield start, flat[start : start + _CHUNK]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a file name may be no UTF-8


def _decode(data: bytes) -> str:
    return bytes(data).decode("utf-8", "surrogateescape")
