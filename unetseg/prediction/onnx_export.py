"""A model as one ONNX file for programs without PyTorch, from raw pixels to probabilities."""

import functools
import json
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetseg import __version__, files
from unetseg.arguments import Names, Reports, public
from unetseg.errors import InputError, MachineError, arg
from unetseg.network.unet import filled_places
from unetseg.prediction.calibration import scale_
from unetseg.prediction.model import Model
from unetseg.progress import Note, warn
from unetseg.settings import PredictSettings

FORMAT = "unetseg-onnx"
VERSION = 1
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4  # of a probability; rounding of float32 alone stays below a tenth of it
_OPSETS = (18, 25)  # torch writes these without rewriting its own operators for an older standard


@dataclass(frozen=True)
class OnnxExport:
    """The file that `export_onnx` wrote.

    Attributes:
        path: The file.
        inputs: The axes of the input "image": a number, or a name where the size is free.
        outputs: The axes of the output "probabilities", in the same way.
        opset: The version of the ONNX operators.
        checked: The shapes (N, C, H, W) on which the file was compared with PyTorch.
        difference: The largest difference of a probability on these shapes.
    """

    path: Path
    inputs: tuple[str | int, ...]
    outputs: tuple[str | int, ...]
    opset: int
    checked: tuple[tuple[int, int, int, int], ...]
    difference: float


@public()
def export_onnx(
    model: Names = "default",
    out: str | os.PathLike[str] = "model.onnx",
    *,
    opset: int | None = None,
    overwrite: bool = False,
    on_progress: Reports = warn,
) -> OnnxExport:
    """Write a model, or several averaged, as one ONNX file that needs nothing else.

    Its input "image" is (N, C, H, W) float32 in the units of the training images (0 to 255 for 8
    bits). Its output "probabilities" is (N, K, H, W) float32 and sums to 1 over K. Normalisation,
    networks, softmax and temperature are part of the file. N, H and W are free. If a network does
    not say which sizes it takes (``multiple``), H and W are those of its patches. The key "unetseg"
    of the file's metadata holds JSON with classes, channels, dtype, scale, patch size, and the
    SHA-256 of each model. The file computes the same as `predict` in one piece (mode "seamless").

    A larger image may be cut into tiles. They start on multiples of ``multiple``, and each has
    ``halo`` more pixels on each side than are kept. Both numbers are in the metadata.

    Args:
        model: Runs, run folders or model files; several are averaged.
        out: The file.
        opset: Version of the ONNX operators, 18 to 25; None takes PyTorch's own choice.
        overwrite: Replace the file.
        on_progress: Receives `Note`.

    Raises:
        InputError: A package is not installed, the file exists, a model cannot be read, or its
            network cannot be written as ONNX.
        MachineError: ONNX Runtime and PyTorch give different results (then nothing is written), or
            the disk is full.
    """
    path = Path(out)
    _check_packages()
    files.check_writable(path, overwrite)
    if opset is not None and not _OPSETS[0] <= opset <= _OPSETS[1]:
        raise InputError(arg("opset"), f"{opset} is out of range", "{} to {}".format(*_OPSETS))
    loaded = Model(model, PredictSettings(device="cpu"))
    on_progress(Note(f"writing {loaded} as ONNX"))
    graph = _Graph(loaded).eval()
    program = _translate(graph, loaded, opset)
    program.metadata_props["unetseg"] = json.dumps(_metadata(loaded, graph), sort_keys=True)
    data = _serialise(program)
    checked = _shapes(loaded, graph)
    difference = _difference(graph, data, loaded, checked)
    if difference > _TOLERANCE:
        text = f"ONNX Runtime differs from PyTorch by {difference:.2g} of a probability"
        raise MachineError(path, f"{text}; not written", f"try another {arg('opset')}")
    files.write_bytes(path, data)
    inputs, outputs = (tuple(_axes(v[0])) for v in (program.graph.inputs, program.graph.outputs))
    return OnnxExport(path, inputs, outputs, program.opset_imports[""], checked, difference)


class _Graph(nn.Module):
    """The whole computation from raw pixels to probabilities, at the size of the image.

    Attributes:
        multiple: Height and width are filled up to a multiple of this number. None where a network
            does not say which sizes it takes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.networks = nn.ModuleList(model.segmenter.networks)
        self.temperature = model.segmenter.temperature
        for name in ("mean", "std"):
            values = torch.tensor([getattr(card, name) for card in model.cards])
            self.register_buffer(name, values[:, None, :, None, None])  # (networks, 1, C, 1, 1)
        multiples = [getattr(n, "multiple", None) for n in self.networks]
        known = [int(m) for m in multiples if m is not None]
        self.multiple = math.lcm(*known) if len(known) == len(multiples) else None

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities (N, K, H, W) of an image (N, C, H, W)."""
        height, width = image.shape[2:]
        if self.multiple is not None:
            # The border is reflected as in `unetseg.network.unet.fill_to_multiple`, but without a
            # condition on the size: the file would keep the branch that was taken at export.
            rows, columns = (filled_places(length, self.multiple) for length in (height, width))
            image = image.index_select(2, rows).index_select(3, columns)
        shares = [
            network((image - mean) / std).softmax(1)
            for network, mean, std in zip(self.networks, self.mean, self.std, strict=True)
        ]
        averages = (functools.reduce(torch.add, shares) / len(shares)).transpose(0, 1)
        return scale_(averages, self.temperature).transpose(0, 1)[:, :, :height, :width]


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        text = f"not installed, but needed to write ONNX: {', '.join(missing)}"
        raise InputError("ONNX", text, f"pip install {' '.join(missing)}")


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the messages of the exporter off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _translate(graph: _Graph, model: Model, opset: int | None) -> Any:
    """Return the ONNX program, an ``onnx_ir.Model``, of a graph.

    Raises:
        InputError: The network does something that ONNX cannot express.
    """
    axes, sides = {0: "batch"}, (model.card.patch_size,) * 2
    if graph.multiple is not None:
        axes |= {2: "height", 3: "width"}
        # These sizes need filling. With others, the translation would leave the filling out.
        sides = (2 * graph.multiple + 1, 3 * graph.multiple + 1)
    example = torch.zeros(2, model.card.channels, *sides)
    free = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    try:
        # Two separate steps take half the time, and regions without a gradient are traced slowly.
        with _quietly(), torch.no_grad():
            traced = torch.export.export(graph, (example,), dynamic_shapes=(free,))
            exported = torch.onnx.export(
                traced,
                dynamo=True,
                input_names=["image"],
                output_names=["probabilities"],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # PyTorch or the network of a plug-in may raise anything
        reason = str(error.__cause__ or error).strip().split("\n")[0]
        text = f"its network cannot be written as ONNX ({reason})"
        raise InputError(model.paths[0], text, "export another model") from error
    program: Any = exported.model if exported else None
    if opset not in (None, program.opset_imports[""]):
        text = f"{opset} cannot be written for this network"
        raise InputError(arg("opset"), text, f"leave it out: {program.opset_imports['']} can")
    for node in program.graph:
        node.metadata_props.clear()  # they hold paths of this machine
    for value in (program.graph.inputs[0], program.graph.outputs[0]):
        for axis, name in axes.items():
            value.shape[axis] = name
    return program


def _serialise(program: Any) -> bytes:
    import onnx_ir

    data: bytes = onnx_ir.to_proto(program).SerializeToString()
    return data


def _axes(value: Any) -> Iterator[str | int]:
    for size in value.shape:
        yield size if isinstance(size, int) else str(size.value)


def _metadata(model: Model, graph: _Graph) -> dict[str, Any]:
    card = model.card
    halos: list[Any] = [getattr(n, "halo", None) for n in graph.networks]
    return {
        "format": FORMAT,
        "version": VERSION,
        "unetseg": __version__,
        **card.classes.to_dict(),
        "channels": card.channels,
        "dtype": card.dtype,
        "scale": card.scale,
        "patch_size": card.patch_size,
        "multiple": graph.multiple,
        "halo": None if None in halos else max(halos),
        "models": [one.sha256 for one in model.cards],
    }


def _shapes(model: Model, graph: _Graph) -> tuple[tuple[int, int, int, int], ...]:
    """Return shapes (N, C, H, W) to try, odd ones, small ones and a single pixel included."""
    size = model.card.patch_size
    sizes = [(1, size, size), (3, size, size)]
    if graph.multiple:
        sizes += [(2, size + 5, size // 2 + 1), (1, 17, 2 * size), (1, 1, 1)]
    return tuple((n, model.card.channels, h, w) for n, h, w in sizes)


def _difference(
    graph: _Graph, data: bytes, model: Model, shapes: Sequence[tuple[int, int, int, int]]
) -> float:
    """Return the largest difference between the file and PyTorch on noise like the images.

    Raises:
        MachineError: ONNX Runtime does not accept the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each failure of ONNX Runtime has a class of its own
        text = f"this ONNX Runtime does not read the file that PyTorch makes ({error}); not written"
        raise MachineError("onnxruntime", text, f"try another {arg('opset')}") from error
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (model.card.mean, model.card.std))
    rng, worst = np.random.default_rng(0), 0.0
    for shape in shapes:
        image: NDArray[np.float32] = rng.normal(size=shape).astype(np.float32) * std + mean
        with torch.inference_mode():
            expected = graph(torch.from_numpy(image)).numpy()
        found = session.run(["probabilities"], {"image": image})[0]
        if found.shape != expected.shape:
            return math.inf
        worst = max(worst, float(np.abs(found - expected).max(initial=0)))
    return worst
