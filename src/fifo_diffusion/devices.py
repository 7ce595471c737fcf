"""Which device and which precision a run is computed on."""

from __future__ import annotations

import torch

from fifo_diffusion.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA, else Apple's MPS, else the CPU.  Raises DeviceError for a device that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu" and device.index in (None, 0):
        return torch.device("cpu")
    here = available()
    if device.type == "cuda" and torch.cuda.is_available():
        device = torch.device("cuda", device.index or 0)
    if str(device) not in here:
        raise DeviceError(f"device {name!r} is not here; this machine has {', '.join(here)} (or say auto)")
    return device


def available() -> list[str]:
    """Every device that can be asked for by name."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *mps, *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def choose_dtype(name: str, device: torch.device) -> str:
    """`auto` is float32 on a CPU (bfloat16 was slower there, see docs/log.md) bfloat16 on CUDA, float32 on MPS."""
    if name != "auto":
        return name
    return "bfloat16" if device.type == "cuda" else "float32"


def memory_of(device: torch.device) -> float | None:
    """GiB that a GPU has in all; None for others, where the system's own memory is used."""
    return torch.cuda.get_device_properties(device).total_memory / 2**30 if device.type == "cuda" else None
