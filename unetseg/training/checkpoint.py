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
from typing import Annotated, Any, BinaryIO, NoReturn

import torch
from pydantic import PlainSerializer, PlainValidator, StrictBool
from pydantic.dataclasses import dataclass
from torch import Tensor

from unetseg.errors import DivergenceError, InputError, arg
from unetseg.files import kind_of, machine_error, open_regular, replacing, write_bytes
from unetseg.prediction.run_folder import previous_path
from unetseg.records import Count, Number, Text, read_record, to_plain
from unetseg.text import show
from unetseg.training.recipe import Recipe


def _as_tensor(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"{value!r:.40} is no tensor")
    return value


TensorField = Annotated[Tensor, PlainValidator(_as_tensor), PlainSerializer(lambda tensor: tensor)]
Tensors = dict[Text, TensorField]

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
        DivergenceError: A tensor holds NaN or infinity; the earlier checkpoint stays.
        MachineError: The disk is full, permission is missing; the earlier checkpoint stays.
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
                _refuse(f"member {member.filename[:100]!r} does not belong to a checkpoint")
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


# --- the content of a checkpoint -------------------------------------------------------------


@dataclass(frozen=True)
class Position:
    """How far the learning has come.

    Attributes:
        epoch: Epochs done.
        step_in_epoch: Steps done in the epoch that has begun.
        step: Steps done in all.
        patches_seen: Patches learned from, repetitions counted.
    """

    epoch: Count
    step_in_epoch: Count
    step: Count
    patches_seen: Count


@dataclass(frozen=True)
class Tally:
    """The losses of the steps of an epoch so far, and the time that the steps took.

    Attributes:
        loss_sum: Sum of the losses of all pixels.
        valid_sum: Number of these pixels.
        epoch_seconds: Seconds.
    """

    loss_sum: Number = 0.0
    valid_sum: Number = 0.0
    epoch_seconds: Number = 0.0


@dataclass(frozen=True)
class Best:
    """The best validation so far, under ``patience``.

    Attributes:
        epoch: Its epoch, from 1.
        score: Its mean IoU.
        weights: The averaged weights that it scored, without those that never change.
        worse: Validations since then, none of which was better.
    """

    epoch: Count
    score: Number
    weights: Tensors
    worse: Count


@dataclass(frozen=True)
class Machine:
    """The state that a resume must find again to go on to the same bits."""

    threads: Count
    torch: Text
    device: Text
    ranks: Count = 1


@dataclass(frozen=True)
class LearnerState:
    """All that decides the next steps of a learner.

    Attributes:
        position: How far it has come.
        network: The weights that change; see `unetseg.network.pretrained.learned_state`.
        average: The averaged weights.
        frozen: Digest of the weights that never change; "" where there are none.
        optimizer: State of the optimizer.
        torch_random: State of torch's generator on the CPU.
        cuda_random: State of torch's generator on the GPU, if the learner is there.
    """

    position: Position
    network: Tensors
    average: Tensors
    optimizer: dict[Text, Any]
    torch_random: TensorField
    cuda_random: TensorField | None = None
    frozen: Text = ""


@dataclass(frozen=True)
class TrainState:
    """A run as it stands after a step; an exact resume is built from it.

    Attributes:
        finished: Whether nothing is left to train.
        settings: How it is trained.
        given: The options given beside the settings: ``from`` and ``classes``, where they were.
        store: Path of the store.
        store_hash: The store's `content_hash`.
        learner: The state of the learner.
        tally: The losses of the current epoch.
        validate_every: Epochs between validations.
        history: Rows of ``history.csv``.
        best: The best validation, under ``patience``.
        seconds: Time trained so far.
        expected_steps: Steps of the whole training.
        machine: The machine of the training.
        share: The share of the training that is done; None in files of older versions.
        learned_before: See `ModelCard`.
    """

    finished: StrictBool
    settings: Recipe
    given: dict[Text, Text]
    store: Text
    store_hash: Text
    learner: LearnerState
    tally: Tally
    validate_every: Count
    history: list[dict[Text, Any]]
    best: Best | None
    seconds: Number
    expected_steps: Count
    machine: Machine
    share: Number | None = None
    learned_before: tuple[Text, ...] = ()


def write_state(path: Path, state: TrainState) -> None:
    """Write the checkpoint of a run; see `write_checkpoint` for the errors."""
    plain = to_plain(state)
    learner, tally = plain.pop("learner"), plain.pop("tally")
    place = learner.pop("position") | tally | {"validate_every": plain.pop("validate_every")}
    write_checkpoint(path, {**plain, **learner, "position": place})


def read_state(path: Path) -> tuple[TrainState, Path, str | None]:
    """Read the checkpoint of a run, or the one before it; see `read_checkpoint_with_fallback`.

    Raises:
        InputError: Neither can be read, or the checkpoint lacks a part that a resume needs.
    """
    data, used, warning = read_checkpoint_with_fallback(path)
    place = data.get("position")
    place = place if isinstance(place, dict) else {}
    flat = {"learner": data, "tally": place, "validate_every": place.get("validate_every")}
    try:
        return read_record(TrainState, data | flat, "checkpoint"), used, warning
    except (InputError, TypeError) as error:
        problem = error.problem if isinstance(error, InputError) else str(error)
        text = f"this unetseg cannot go on from it ({problem})"
        raise InputError(used, text, f"train again with {arg('overwrite', True)}") from None
