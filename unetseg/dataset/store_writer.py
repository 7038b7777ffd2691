"""Writing a patch store: laid out by HDF5, filled by plain file operations, sealed by a checksum.

`unetseg.dataset.store` says what the file holds.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from unetseg.dataset.store import (
    FORMAT,
    NUMBERS,
    TEXTS,
    USER_BLOCK,
    VERSION,
    Array,
    Arrays,
    Store,
    StoreInfo,
    check_values,
    declare_arrays,
    open_store,
)
from unetseg.errors import InputError, MachineError, UnetsegError
from unetseg.files import check_free, replacing, reserve

# HDF5 reads this once, when it is loaded: it then loads no filter code from outside.
os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
import h5py

_UNCHANGED = "an earlier file is unchanged"
_MAX_TEXT = 60_000  # bytes of an attribute: HDF5 holds 64 kB in an object header


def write_store(
    path: str | os.PathLike[str],
    info: StoreInfo,
    count: int,
    patches: Iterable[tuple[Array, Array, int, npt.ArrayLike]],
    held_out: Iterable[tuple[Array, Array]],
) -> None:
    """Write a patch store, whole or not at all.

    Args:
        path: The file; an earlier file is replaced once the new one is complete.
        info: The header.
        count: N, the number of ``patches``, at least 1.
        patches: Image ``(P, P, C)`` of ``info.dtype``, mask ``(P, P)`` uint8, index into
            ``info.sources``, and (row, column) of the core's first pixel in its source.
        held_out: Image ``(H, W, C)`` and mask ``(H, W)`` of each source of split "val", in order.

    Raises:
        InputError: ``path`` is a folder, labels are out of range, or a text does not fit the file.
        MachineError: The disk is full, permission is missing.
        ValueError: There are fewer or more arrays than declared, or one has another shape or dtype.
    """
    path = Path(path)
    if count < 1:
        raise ValueError("a store holds at least one patch")
    arrays, columns = declare_arrays(info, count), _source_columns(info)
    data = sum(math.prod(shape) * dtype.itemsize for shape, dtype in arrays.values())
    names = sum(column.nbytes for column in columns.values())
    needed = data + names + 200_000  # metadata, rounded up
    check_free(path, needed)
    with replacing(path) as temporary:
        with open(temporary, "r+b") as file:
            reserve(file, needed)  # inside the HDF5 library, a full disk could crash the process
        with _as_failed_write(path):
            offsets = _lay_out(temporary, info, arrays, columns)
        with open(temporary, "r+b") as file:
            _fill(file, info, arrays, offsets, patches, held_out)
            for name, column in columns.items():
                file.seek(offsets[name])
                file.write(column.tobytes())
        with _as_failed_write(path), h5py.File(temporary, "r+", locking=False) as h5:
            h5.attrs.modify("complete", np.uint8(1))
        _seal(temporary, info.created)
        written = _read_back(temporary, path, info)
        try:
            check_values(written)
        except InputError as error:
            raise InputError(path, f"not written: {error.problem}") from None


@contextmanager
def _as_failed_write(path: Path) -> Iterator[None]:
    """Turn any error inside the HDF5 library into the error of a failed write."""
    try:
        yield
    except InputError:  # our own: a text that does not fit
        raise
    except Exception as error:
        said = re.search(r"error message = '([^'\n]+)'", str(error))
        reason = said[1] if said else str(error).partition("\n")[0]
        raise MachineError(path, f"not written: {reason}", _UNCHANGED) from None


def _read_back(temporary: Path, path: Path, info: StoreInfo) -> Store:
    """Open the store that was just written and compare: HDF5 ignores some errors of the disk."""
    try:
        store = open_store(temporary, verify=False)
    except UnetsegError as error:
        raise MachineError(path, f"not written: {error.problem}", _UNCHANGED) from None
    if store.info != replace(info, settings=json.loads(_settings_text(info))):
        raise MachineError(path, "not written: it reads back with other content", _UNCHANGED)
    return store


def _source_columns(info: StoreInfo) -> dict[str, Array]:
    """Return an array for each field of the sources, by its HDF5 path."""
    columns: dict[str, Array] = {}
    for field in TEXTS:
        values = [_encode(getattr(s, field)) for s in info.sources]
        dtype = h5py.string_dtype("utf-8", max(1, *map(len, values)))
        columns[f"sources/{field}"] = np.array(values, dtype)
    for field in NUMBERS:
        columns[f"sources/{field}"] = np.array([getattr(s, field) for s in info.sources], "<i4")
    return columns


def _lay_out(
    path: Path, info: StoreInfo, arrays: Arrays, columns: Mapping[str, Array]
) -> dict[str, int]:
    """Write the HDF5 structure without content; return the first byte of each array."""
    declared = {name: (c.shape, c.dtype) for name, c in columns.items()} | arrays
    # The earliest format keeps no times, so equal content gives equal bytes. Pages of 512 bytes
    # keep every array aligned for its dtype.
    with h5py.File(
        path, "w", libver=("earliest", "v110"), userblock_size=USER_BLOCK, locking=False,
        alignment_threshold=1, alignment_interval=USER_BLOCK,
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
    """Write the header of a store as HDF5 attributes."""
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
            if len(data) > _MAX_TEXT:
                text = f"{name} of {len(data)} bytes; 60,000 are possible"
                raise InputError("patch store", text)
            fixed = h5py.string_dtype("utf-8", max(1, len(data)))
            h5.attrs.create(name, np.bytes_(data), dtype=fixed)
        else:
            h5.attrs.create(name, value)


def _settings_text(info: StoreInfo) -> str:
    return json.dumps(dict(info.settings), sort_keys=True)


def _fill(
    file: BinaryIO,
    info: StoreInfo,
    arrays: Arrays,
    offsets: dict[str, int],
    patches: Iterable[tuple[Array, Array, int, npt.ArrayLike]],
    held_out: Iterable[tuple[Array, Array]],
) -> None:
    def put(name: str, rows: Array, start: int = 0) -> None:
        """Write rows of an array, from number ``start`` on."""
        shape, dtype = arrays[name]
        if rows.shape[1:] != shape[1:] or rows.dtype.name != dtype.name:
            found = f"{rows.shape[1:]} {rows.dtype}"
            raise ValueError(f"{name}: {found} where {shape[1:]} {dtype} is due")
        file.seek(offsets[name] + start * (rows.nbytes // len(rows)))
        file.write(np.ascontiguousarray(rows, dtype).data)

    count = arrays["train/source"][0][0]
    source, corner = np.zeros(count, "<i4"), np.zeros((count, 2), "<i4")
    for i, (image, mask, origin, place) in zip(range(count), patches, strict=True):
        put("train/images", image[None], i)
        put("train/masks", mask[None], i)
        source[i], corner[i] = origin, place
    put("train/source", source)
    put("train/corner", corner)
    start = 0
    for held, (image, mask) in zip(info.held_out, held_out, strict=True):
        shape = (held.height, held.width)
        if (image.shape[:2], mask.shape) != (shape, shape):
            found = f"{image.shape[:2]} and {mask.shape}"
            raise ValueError(f"{held.name}: {found} where {shape} is due")
        put("val/images", image.reshape(-1, image.shape[2]), start)
        put("val/masks", mask.reshape(-1), start)
        start += mask.size


def _seal(path: Path, created: str) -> None:
    """Write the user block: time, length and checksum of the rest, and its own checksum."""
    with open(path, "r+b") as file:
        file.seek(USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        text = f"{FORMAT} {VERSION}\ncreated {created}\nbytes {file.tell()}\nsha256 {digest}\n"
        text += f"check {hashlib.sha256(text.encode()).hexdigest()}\n"
        file.seek(0)
        file.write(text.encode().ljust(USER_BLOCK, b"\0"))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # a file name may be no UTF-8
