"""Where to compute: the choice of a device, its name, and how much memory there is."""

import os

import torch

from unetseg.errors import InputError


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" tries CUDA, then MPS, then the CPU.

    Raises:
        InputError: No such device here; the message lists those there are.
    """
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    there = [*cuda, *mps, "cpu"]
    if name == "auto":
        return torch.device(there[0])
    if name == "cuda" and cuda:
        return torch.device(cuda[0])
    if name not in there:
        raise InputError("--device", f"{name!r} is not here", "devices: " + ", ".join(there))
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """Return a device as a person knows it: "the CPU (2 threads)", "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"the CPU ({torch.get_num_threads()} threads)" if device.type == "cpu" else "MPS"


def memory_of(device: torch.device) -> int:
    """Return the bytes of memory of a device, or of this machine for CPU and MPS."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows
        return 8 * 2**30
