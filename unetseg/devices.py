"""The device that computes: how it is chosen, its name, its threads, the size of its memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from unetseg.errors import InputError, arg
from unetseg.text import plural


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" tries CUDA, then MPS, then the CPU.

    If ``torchrun`` started several processes on this machine, each gets a GPU of its own. MPS is
    for one process only.

    Raises:
        InputError: No such device here; the message lists those there are.
    """
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        return _own_device(name)
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    there = [*cuda, *mps, "cpu"]
    if name == "auto":
        return torch.device(there[0])
    if name == "cuda" and cuda:
        return torch.device(cuda[0])
    if name not in there:
        raise InputError(
            arg("device"), f"{name!r} is not on this machine", "devices: " + ", ".join(there)
        )
    return torch.device(name)


def _own_device(name: str) -> torch.device:
    """Return the device of this process, one of several on the machine; see `pick_device`."""
    there, ranks = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
    if name == "cpu" or (name == "auto" and there == 0):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        text = f"{name!r} cannot be shared by {ranks} processes"
        raise InputError(arg("device"), text, "choose of auto, cuda, cpu")
    if ranks > there:
        text = f"{ranks} processes on this machine, {there} GPUs"
        raise InputError(
            arg("device"), text, f"start one process for each GPU, or give {arg('device')} cpu"
        )
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to ``device`` without synchronising with CUDA.

    A plain copy to CUDA waits for all work queued before it. A copy from pinned memory queues up.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 faster than float32, instead of emulating it.

    CPUs with AVX512-BF16 or AMX do. Where torch cannot tell, the answer is no.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # torch 2.10 cannot tell
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def describe_device(device: torch.device) -> str:
    """Return the name of a device for a person: "the CPU (2 threads)", "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return (
        f"the CPU ({plural(torch.get_num_threads(), 'thread')})" if device.type == "cpu" else "MPS"
    )


@contextmanager
def all_threads_again() -> Iterator[None]:
    """Compute on the CPU with as many threads afterwards as before."""
    number = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(number)


def memory_of(device: torch.device) -> int:
    """Return the bytes of memory of a device, or of this machine for CPU and MPS."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows
        return 8 * 2**30
