"""Model files: the weights of a network, and all that a reader needs to predict with them.

A model file is safetensors: arrays and one JSON text, the `ModelCard`. The card carries a SHA-256
of itself and of every array. The file holds no code, so a stranger's model is only data. Before the
weights are read, their names, shapes and dtypes are compared with a network without memory.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from unetseg import plugins
from unetseg.classes import IGNORED
from unetseg.dataset.store import DTYPES
from unetseg.errors import DivergenceError, InputError, UnetsegError, arg
from unetseg.files import kind_of, open_regular, write_bytes
from unetseg.pictures.drawing import prevailing
from unetseg.pictures.surroundings import IgnoredArea
from unetseg.records import Classes, Count, Number, Positive, Text, read_record, to_plain
from unetseg.results import Table
from unetseg.settings import WHOLE, Selection

if TYPE_CHECKING:
    import torch
    from torch import nn

MODEL_NAME = "model.safetensors"
MODEL_FORMAT = "unetseg-model"
VERSION = 1

_MAX_HEADER = 64 << 20  # bytes; ours take about 100 a tensor and 130 a source image
_ITEM_SIZES = {"F32": 4, "F16": 2, "I64": 8}


@dataclass(frozen=True)
class ModelSource:
    """An image of the store that a model was trained on; ``sha256`` is that of its pixels."""

    name: Text
    sha256: Text
    split: Literal["train", "val"]


@dataclass(frozen=True)
class ModelCard:
    """Everything that the reader of a model needs beside its weights.

    Attributes:
        network: Registered name of the network.
        settings: Arguments of the network beside channels and classes, plain JSON types.
        channels: The number of channels of the images.
        classes: The classes, and how masks encode them.
        mean: The number for each channel that is subtracted from the pixels.
        std: The number for each channel, above 0, by which the pixels are divided.
        dtype: The dtype of the training images: "uint8", "uint16" or "float32".
        scale: Factor by which images are resized before the network, above 0.
        patch_size: The side in pixels of the patches that it was trained on.
        symmetries: The names of the symmetries that it was trained with.
        scores: Scores on the held-out images, plain JSON types; None for a score that is missing.
        name: The name of the run.
        store: The path of the store that it was trained on.
        store_hash: The `content_hash` of that store.
        sources: The images of that store.
        learned_before: The SHA-256 of the pixels of each image that its first weights learned
            from, where the training started from another model.
        trained: The time of saving in ISO format.
        patches_seen: The number of patches in training, repetitions counted.
        temperature: The logarithm of averaged probabilities is divided by it, above 0.
        finished: False while training may still go on.
        kept: Which weights these are: "" for the averaged weights at the end of the schedule.
        versions: Versions of unetseg, torch and other packages, by name.
        looks: The `likeness.AppearanceRange` of the training images as JSON; empty where unknown.
        class_pixels: Pixels of each class in its training images; empty in files of old versions.
        ignored_area: The area that every training mask ignores; None where there is no such area.
        takes_grey: Whether grey images were among the colour images that it was trained on.
        selection: The part of image files that it was trained on.
        line_width: The width in pixels at which lines and points of its labels were drawn; None
            where they were left out.
        sha256: The SHA-256 of all this and the weights; `write_model` fills it in.

    Raises:
        ValueError: A value is of the wrong type or out of range.
    """

    network: Text
    settings: dict[str, Any]
    channels: Annotated[StrictInt, Field(ge=1, le=4096)]
    classes: Classes
    mean: tuple[Number, ...]
    std: tuple[Positive, ...]
    dtype: Text
    scale: Positive
    patch_size: Annotated[StrictInt, Field(ge=1, le=65536)]
    symmetries: tuple[Text, ...]
    scores: dict[str, Any]
    name: Text
    store: Text
    store_hash: Text
    sources: tuple[ModelSource, ...]
    trained: Text
    patches_seen: Count
    temperature: Positive = 1.0
    finished: StrictBool = True
    kept: Text = ""
    versions: dict[str, str] = field(default_factory=dict)
    looks: dict[str, Any] = field(default_factory=dict)
    class_pixels: tuple[Count, ...] = ()
    ignored_area: IgnoredArea | None = None
    takes_grey: StrictBool = False
    selection: Selection = WHOLE
    line_width: Positive | None = None
    learned_before: tuple[Text, ...] = ()
    sha256: Text = ""

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("mean or std of other length")
        if self.dtype not in DTYPES:
            raise ValueError(f"images of {self.dtype!r:.50}")

    @property
    def trained_on(self) -> frozenset[str]:
        """The SHA-256 of the pixels of each image that its weights learned from."""
        own = (s.sha256 for s in self.sources if s.split == "train")
        return frozenset(self.learned_before).union(own)

    @property
    def images_trained_on(self) -> int:
        """The number of its own training images; equal ones are counted each."""
        return sum(s.split == "train" for s in self.sources)

    @property
    def unpainted(self) -> int | None:
        """The class that overlays leave unpainted: most training pixels are of it; None of none."""
        held_out = [sum(row) for row in self.scores.get("confusion") or []]
        return prevailing(self.class_pixels or held_out)

    def outside(self, height: int, width: int, selection: Selection) -> NDArray[np.bool_] | None:
        """Return which pixels of an image of this size are ignored as in training; None for none.

        They are the edges that ``selection`` crops, and the area that every training mask ignores,
        where the training images have this size.
        """
        area, inner = self.ignored_area, selection.inner(height, width)
        same = area is not None and (area.height, area.width) == (height, width)
        if not same and not selection.crop:
            return None
        outside = np.ones((height, width), np.bool_)
        outside[inner] = area.pixels[inner] if same and area else False
        return outside

    def of_whole_images(self) -> "ModelCard":
        """Return the card as if no area had been ignored or cropped in training."""
        uncropped = replace(self.selection, crop=None)
        return replace(self, ignored_area=None, selection=uncropped)

    def ignore_outside(self, labels: NDArray[np.uint8], selection: Selection) -> NDArray[np.uint8]:
        """Return class indices (H, W) that are 255 where `outside` says so."""
        outside = self.outside(labels.shape[0], labels.shape[1], selection)
        return labels if outside is None else np.where(outside, np.uint8(IGNORED), labels)

    def to_json(self) -> str:
        """Return the card as one line of ASCII JSON with sorted keys.

        Raises:
            ValueError: Scores or settings hold NaN or infinity, which JSON cannot express.
        """
        return _to_json(to_plain(self) | {"format": MODEL_FORMAT, "version": VERSION})

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Return the card from its JSON; unknown keys are left out.

        Raises:
            InputError: The text is no card, its format is newer, or a value does not fit.
        """
        try:
            data = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError("model card", f"not readable ({error})") from None
        if not isinstance(data, dict) or data.get("format") != MODEL_FORMAT:
            raise InputError("model card", "no card of a unetseg model")
        version = data.get("version")
        if type(version) is not int or version > VERSION:
            text = f"format {version}; this unetseg reads up to {VERSION}"
            raise InputError("model card", text)
        return read_record(cls, data, "model card")


def _to_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, allow_nan=False, separators=(",", ":"))


# --- models ----------------------------------------------------------------------------------


def write_model(
    path: str | os.PathLike[str], state: Mapping[str, "torch.Tensor"], card: ModelCard
) -> ModelCard:
    """Write a model file, whole or not at all; return the card with its SHA-256.

    Args:
        path: The file, ``*.safetensors``.
        state: The network's ``state_dict()``, on any device. Float16 is kept, other floating point
            numbers are written as float32, and whole numbers as int64.
        card: The card of the model.

    Raises:
        DivergenceError: A weight is not finite; an earlier file at ``path`` stays.
        InputError: The card names too many images, more than about 500,000.
        MachineError: The disk is full, permission is missing.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, tensor in state.items():
        dtype = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64}[_code(tensor)]
        # Each tensor is copied, because safetensors refuses tensors that share memory.
        tensors[name] = (
            tensor.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format)
        )
        if not torch.isfinite(tensors[name]).all():
            text = f"weights of {name} are not finite; not written"
            raise DivergenceError(path, text, f"train with a smaller {arg('lr')}")
    data = json.loads(card.to_json())
    arrays = [_Array(name, _code(t), tuple(t.shape), 0, t.nbytes) for name, t in tensors.items()]
    content = {name: t.numpy().tobytes() for name, t in tensors.items()}
    data["sha256"] = _digest(data, arrays, content.__getitem__)
    whole = save(tensors, {"unetseg": _to_json(data)})
    if int.from_bytes(whole[:8], "little") > _MAX_HEADER:  # the length of the header comes first
        count = len(card.sources) + len(card.learned_before)
        text = f"{count:,} images are more than a model can name"
        raise InputError(path, text, "train on fewer")
    write_bytes(path, whole)
    return replace(card, sha256=data["sha256"])


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Return the card of a model file. Only its header is read; the weights are not checked.

    Raises:
        InputError: The file is no model of unetseg (the message says what it is), or is damaged.
        MachineError: No permission to read.
    """
    path = Path(path)
    with open_regular(path) as file:
        return _read_header(path, file)[0]


def load_model(path: str | os.PathLike[str]) -> tuple["nn.Module", ModelCard]:
    """Read a model file and build its network, in evaluation mode.

    Raises:
        InputError: The file is no model of unetseg or is damaged (its SHA-256 differs). Or its
            network is unknown, or its weights do not fit that network or are not finite.
        MachineError: No permission to read.
    """
    import torch
    from safetensors.torch import load

    path = Path(path)
    with open_regular(path) as file:
        card, data, arrays = _read_header(path, file)
        begin = file.tell()
        _compare(path, _build(path, card, "meta").state_dict(), arrays)
        file.seek(0)
        content = file.read()
    view, places = memoryview(content)[begin:], {a.name: slice(a.begin, a.end) for a in arrays}
    if _digest(data, arrays, lambda name: view[places[name]]) != card.sha256:
        raise InputError(path, "checksum differs (damaged file)", "copy it again or train again")
    network = _build(path, card, "cpu")
    try:
        tensors = load(content)
        network.load_state_dict(tensors)
    except Exception as error:  # safetensors may read a forged header differently
        raise InputError(path, f"not readable ({error})", "copy it again") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(path, f"weights of {name} are not finite", "train again")
    return network.eval(), card


def change_classes(
    path: str | os.PathLike[str], names: Iterable[str], colours: Iterable[str]
) -> ModelCard:
    """Give a model's classes other names and colours; its weights stay. Return its new card.

    Args:
        path: The model file.
        names: "OLD=NEW" each.
        colours: "NAME=#rrggbb" each, by the names before the change.

    Raises:
        InputError: The model cannot be read or is not finished, a class is unknown, or a name or
            colour is not valid or stands twice. Where masks are colours, the colours cannot change,
            because the model reads true masks by them.
        MachineError: The disk is full, permission is missing.
    """
    network, card = load_model(path)
    if not card.finished:
        text = "its training is not finished, and would write the old classes again"
        raise InputError(path, text, "finish it first")
    colours = tuple(colours)
    if colours and card.classes.encoding == "colours":
        text = f"its masks are colours: {arg('recolour')} would change how masks to score are read"
        raise InputError(path, text, f"only {arg('rename')} is possible")
    table = card.classes.changed(names, colours)
    new = dict(zip(card.classes.names, table.names, strict=True))
    scores = {key: _renamed(value, new) for key, value in card.scores.items()}
    return write_model(path, network.state_dict(), replace(card, classes=table, scores=scores))


def _renamed(scores: Any, new: Mapping[str, str]) -> Any:
    """Return a part of a model's scores, at any depth, with other class names."""
    if isinstance(scores, Mapping):
        return {new.get(k, k): _renamed(v, new) for k, v in scores.items()}
    if isinstance(scores, list):
        return [new.get(v, v) if isinstance(v, str) else _renamed(v, new) for v in scores]
    return scores


@dataclass(frozen=True)
class _Array:
    """An entry of a safetensors header: bytes ``begin`` to ``end`` after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _digest(
    card: Mapping[str, Any], arrays: Iterable[_Array], content: Callable[[str], bytes | memoryview]
) -> str:
    """Return the SHA-256 over the card without its own hash, and all arrays in order of names."""
    digest = hashlib.sha256(_to_json({k: v for k, v in card.items() if k != "sha256"}).encode())
    for array in sorted(arrays, key=lambda a: a.name):
        digest.update(json.dumps([array.name, array.dtype, array.shape]).encode())
        digest.update(content(array.name))
    return digest.hexdigest()


def _read_header(path: Path, file: BinaryIO) -> tuple[ModelCard, dict[str, Any], list[_Array]]:
    """Read and check a model's header; leave ``file`` at the first byte after it."""
    size = os.fstat(file.fileno()).st_size
    head = file.read(600)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{":
        text = f"not a model of unetseg (it is {kind_of(head)})"
        raise InputError(path, text, f"give a run or a {MODEL_NAME}")
    if not 2 <= length <= min(_MAX_HEADER, size - 8):
        text = f"truncated or damaged: a header of {length:,} bytes in a file of {size:,}"
        raise InputError(path, text, "copy it again or train again")
    file.seek(8)
    try:
        header = json.loads(file.read(length))
        text = header.pop("__metadata__", {}).get("unetseg")
        if text is None:
            names = ", ".join(sorted(header)[:3])
            problem = f"a safetensors file of another program (with {names})"
            raise InputError(path, problem, f"give a run or a {MODEL_NAME} of unetseg")
        card = ModelCard.from_json(text)
        arrays = [
            _Array(name, a["dtype"], tuple(a["shape"]), *a["data_offsets"])
            for name, a in header.items()
        ]
        _check_arrays(arrays, size - 8 - length)
        return card, json.loads(text), arrays
    except InputError as error:
        raise InputError(path, error.problem, error.remedy or "copy it again") from None
    except Exception as error:  # JSON may hold anything
        problem = f"the header is damaged ({type(error).__name__}: {error})"
        raise InputError(path, problem, "copy it again or train again") from None


def _check_arrays(arrays: list[_Array], size: int) -> None:
    """Raise ValueError unless the arrays fill the ``size`` bytes behind the header exactly."""
    position = 0
    for a in sorted(arrays, key=lambda a: (a.begin, a.end)):
        numbers = (*a.shape, a.begin, a.end)
        if a.dtype not in _ITEM_SIZES or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"{a.name} is of type {a.dtype} {a.shape}")
        if a.begin != position or a.end - a.begin != math.prod(a.shape) * _ITEM_SIZES[a.dtype]:
            raise ValueError(f"{a.name} does not lie where it should")
        position = a.end
    if position != size:
        raise ValueError(f"{size:,} bytes where {position:,} are due: truncated, perhaps")


def _build(path: Path, card: ModelCard, device: str) -> "nn.Module":
    """Return the network of a model file, with its weights not yet loaded."""
    import torch

    from unetseg.network.unet import build_network

    try:
        plugins.choose(plugins.NETWORKS, card.network)
    except InputError:
        problem = f"its network {card.network!r} is of a plug-in that is not installed here"
        raise InputError(path, problem, "install it") from None
    try:
        with torch.device(device):
            return build_network(
                card.network, card.channels, len(card.classes.classes), **card.settings
            )
    except UnetsegError as error:
        raise type(error)(path, f"{error.what}: {error.problem}", error.remedy) from None
    except Exception as error:  # settings may hold anything, and a plug-in may raise anything
        problem = f"its network {card.network!r} cannot be built ({error})"
        raise InputError(path, problem, "train again") from None


def _code(tensor: "torch.Tensor") -> str:
    """Return the safetensors name of the type in which a tensor is written."""
    import torch

    if not tensor.is_floating_point():
        return "I64"
    return "F16" if tensor.dtype is torch.float16 else "F32"


def _compare(path: Path, expected: Mapping[str, "torch.Tensor"], arrays: list[_Array]) -> None:
    """Refuse arrays that the network does not have, before memory is taken for them."""
    found = {a.name: (a.dtype, a.shape) for a in arrays}
    wanted = {name: (_code(t), tuple(t.shape)) for name, t in expected.items()}
    for name in sorted(found.keys() | wanted.keys()):
        have, want = (x.get(name, ("nothing",)) for x in (found, wanted))
        if have != want and (have, want) != (("F16", *want[1:]), ("F32", *have[1:])):
            text = f"{name} is {_words(have)} where the network has {_words(want)}"
            raise InputError(path, text, "train again, or install the network it was trained with")


def _words(values: tuple[object, ...]) -> str:
    return " ".join(map(str, values))


def tables_of(card: ModelCard, title: str) -> tuple[Table, Table]:
    """Return the facts of a model and its classes, as people read them."""
    trained = card.images_trained_on
    score = card.scores.get("mean_iou")
    settings = ", ".join(f"{k} {v}" for k, v in card.settings.items())
    rows: list[tuple[str, object]] = [
        ("model of run", card.name + ("" if card.finished else " (not finished)")),
        ("trained", card.trained),
        ("network", f"{card.network} ({settings})" if settings else card.network),
        ("images", f"{trained} trained on, {len(card.sources) - trained} held out"),
        ("channels", f"{card.channels}, {card.dtype}"),
        ("patches", f"{card.patch_size} x {card.patch_size} pixels, {card.patches_seen:,} seen"),
        ("scale", f"{card.scale:g}"),
        ("symmetries", ", ".join(card.symmetries) or "none"),
        ("held-out mean IoU", None if score is None else f"{score:.4f}"),
        ("store", card.store),
        ("made by", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
        ("SHA-256", card.sha256),
    ]
    iou = card.scores.get("iou") or {}
    classes = card.classes.table(("IoU", [iou.get(name) for name in card.classes.names]))
    return Table(title, ["", "value"], rows), classes
