"""Checkpoints: the file from which a stopped run goes on exactly.

A checkpoint is a zip file of ``torch.save`` that holds plain types and dense tensors alone. Its zip
checksums are checked before torch sees it, because torch does not notice a flipped bit. Then torch
is told to load weights only. The checkpoint before the last is kept beside it.
"""

import io
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch

from unetseg.errors import DivergenceError, InputError, arg
from unetseg.files import kind_of, machine_error, open_regular, replacing, write_bytes
from unetseg.prediction.run_folder import previous_path
from unetseg.text import show

FORMAT = "unetseg-checkpoint"
VERSION = 1

_MAX_DIRECTORY = 4 << 20  # bytes of the zip directory; a tensor of ours takes about 80 of them
_REMEDY = f"give the last.pt of a run, or train again with {arg('overwrite', True)}"


def write_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all, and keep the one it replaces beside it.

    At every instant one of the two names holds a whole checkpoint.

    Args:
        path: The file, such as ``runs/default/last.pt``.
        state: Nested dicts, lists, tuples, str, int, float, bool, None and dense tensors.

    Raises:
        DivergenceError: A tensor holds NaN or infinity; what stood there stays.
        MachineError: The disk is full, permission is missing; what stood there stays.
        TypeError: The state holds anything else.
    """
    path, buffer = Path(path), io.BytesIO()
    try:
        plain = _plain(state, "state")
    except DivergenceError as error:
        raise DivergenceError(path, error.problem, error.remedy) from None
    content = {"format": FORMAT, "version": VERSION, "state": plain}
    torch.save(content, buffer)
    if not path.is_file():
        write_bytes(path, buffer.getbuffer())
        return
    # Rename the old checkpoint only after the new one is written. If the old one is damaged, a
    # resume relies on the one before it.
    with replacing(previous_path(path)) as kept:
        _link_or_copy(path, kept)
        write_bytes(path, buffer.getbuffer())


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.unlink()
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)
    except OSError as error:
        raise machine_error(source, error) from None


def _plain(value: Any, where: str) -> Any:
    """Return ``value`` with tensors on the CPU, contiguous and alone in their memory."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{where} has a key of type {type(key).__name__}")
        return {k: _plain(v, f"{where}.{k}") for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(v, f"{where}[{i}]") for i, v in enumerate(value))
    if isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta:
        tensor = value.detach().to("cpu").contiguous()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            text = f"{where} is not finite; not written"
            raise DivergenceError("checkpoint", text, f"train with a smaller {arg('lr')}")
        # torch.save writes the memory a tensor lies in, all of it
        alone = tensor.untyped_storage().nbytes() == tensor.nbytes
        return tensor if alone else tensor.clone()
    raise TypeError(f"{where} is of type {type(value).__name__}; a checkpoint holds plain types")


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint that `write_checkpoint` wrote; tensors come to the CPU.

    Raises:
        InputError: Not a checkpoint of unetseg (the message says what it is), damaged (a zip
            checksum differs), of a newer format, or holding code.
        MachineError: No permission to read.
    """
    path = Path(path)
    with open_regular(path) as file:
        try:
            _check_zip(file)
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
            return _unwrap(content)
        except pickle.UnpicklingError:
            problem = "holds code or a type of another program; refused"
            raise InputError(path, problem, _REMEDY) from None
        except InputError as error:
            raise InputError(path, error.problem, error.remedy or _REMEDY) from None
        except Exception as error:  # of zip files and pickles of any shape
            problem = f"damaged ({type(error).__name__}: {error})"
            raise InputError(path, problem, _REMEDY) from None


def _refuse(problem: str, remedy: str = "") -> NoReturn:
    raise InputError("checkpoint", problem, remedy)  # its reader puts the path there


def _check_zip(file: BinaryIO) -> None:
    """Refuse a file that is no whole zip of torch.save, before torch reads it."""
    head = file.read(600)
    if not head.startswith(b"PK\x03\x04"):
        remedy = f"give a model to {arg('start_from')} instead" if head[8:9] == b"{" else ""
        _refuse(f"not a checkpoint (it is {kind_of(head)})", remedy)
    if _directory_size(file) > _MAX_DIRECTORY:
        _refuse("holds more members than any checkpoint of unetseg")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [m.filename for m in members]
        root = names[0].split("/")[0] if names else ""
        pattern = re.compile(re.escape(root) + r"/(data\.pkl|[.\w]+|data/\d+|\.data/\w+)", re.ASCII)
        if f"{root}/constants.pkl" in names or f"{root}/code" in names:
            _refuse("a TorchScript program, not a checkpoint")
        if f"{root}/data.pkl" not in names:
            _refuse("a zip archive, not a checkpoint (no data.pkl)")
        if len(set(names)) != len(names):
            _refuse("two members have one name")
        for member in members:
            if not pattern.fullmatch(member.filename):
                _refuse(f"member {member.filename[:100]!r} is none of a checkpoint")
            if (
                member.compress_type != zipfile.ZIP_STORED
                or member.file_size != member.compress_size
            ):
                _refuse(f"member {member.filename} is compressed; ours are not")
        if sum(m.file_size for m in members) > os.fstat(file.fileno()).st_size:
            _refuse("its members overlap")
        damaged = archive.testzip()
        if damaged:
            _refuse(f"checksum differs in {damaged} (damaged file)")


def _directory_size(file: BinaryIO) -> int:
    """Return how long a zip file says its directory is, before it is read (APPNOTE 4.3.14-16)."""
    file.seek(-98, os.SEEK_END)
    tail = file.read(98)  # end record of zip64 (56 bytes), its locator (20), end record (22)
    if tail[76:80] != b"PK\x05\x06":
        _refuse("truncated (a zip archive without its end)")
    if tail[56:60] == b"PK\x06\x07":
        return int(struct.unpack_from("<Q", tail, 40)[0])
    return int(struct.unpack_from("<I", tail, 76 + 12)[0])


def _unwrap(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        keys = (
            f" (keys {', '.join(map(str, list(content)[:3]))})" if isinstance(content, dict) else ""
        )
        _refuse(f"a torch file of another program, not a checkpoint of unetseg{keys}")
    if content["version"] != VERSION:
        text = f"checkpoint format {content['version']}; this unetseg reads {VERSION}"
        _refuse(text)
    state = content["state"]
    if not isinstance(state, dict) or not _is_plain(state):
        _refuse("holds tensors that unetseg does not write")
    return state


def _is_plain(value: Any) -> bool:
    """Whether every tensor is dense and holds no more than its memory does."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, torch.Tensor):
        dense = value.layout == torch.strided and value.device.type == "cpu"
        return dense and not value.is_quantized and value.is_contiguous()
    return value is None or type(value) in (str, int, float, bool)


def read_checkpoint_with_fallback(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], Path, str | None]:
    """Read a checkpoint, or the one before it where this one cannot be read.

    Returns:
        The state, the file it came from, and a warning that names both where it is the older one.

    Raises:
        InputError: Neither can be read; the message gives both reasons.
        MachineError: No permission to read.
    """
    last = Path(path)
    previous = previous_path(last)
    try:
        return read_checkpoint(last), last, None
    except InputError as error:
        reason = error.problem
    try:
        state = read_checkpoint(previous)
    except InputError as error:
        text = f"{reason}; {previous.name} {error.problem}"
        raise InputError(last, text, f"train again with {arg('overwrite', True)}") from None
    return state, previous, f"{show(last)}: {reason}; going on from {show(previous)}"
