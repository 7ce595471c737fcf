"""Which device and which precision a run is computed on."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from importlib.util import find_spec
from shutil import which

import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput, DeviceError


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
        none = device.type == "cuda" and not torch.cuda.is_available()
        why = f"; {no_gpu()}" if none else "; did you mean cuda?" if name == "gpu" else ""
        raise DeviceError(f"device {name!r} is not here; this machine has {', '.join(here)} (or say auto){why}")
    return device


def still_here(name: str) -> str:
    """A device by its name; where there is none of that number, as on another machine, the first of its kind."""
    return name if name in available() else name.partition(":")[0]


def no_gpu() -> str:
    """Why torch finds none, and what to do about it."""
    if torch.cuda.is_available() or torch.version.cuda or torch.version.hip:
        return "look with nvidia-smi whether there is a card, and a driver as new as this torch wants"
    return f"this torch, {torch.__version__}, is built without CUDA; pytorch.org/get-started names the one for a GPU"


def available() -> list[str]:
    """Every device that can be asked for by name."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *mps, *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def choose_dtype(name: str, device: torch.device) -> str:
    """`auto` is float32 on a CPU (bfloat16 was slower there, see docs/log.md) and on MPS; on CUDA bfloat16, or float16
    where the chip is older than Ampere and would only emulate bfloat16.
    """
    if name != "auto":
        return name
    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"


LONG = 300
"""Frames from which on compiling is taken to pay on a GPU: it takes minutes before the first frame.  Not measured."""


def choose_compile(asked: str, device: torch.device, frames: int, memory: str = "high") -> str:
    """ "on" or "off".  `auto` is on where a GPU can be compiled for, has room for what is compiled to keep its memory
    (not with memory low), and the video is long or endless (frames 0); on a CPU it is off (docs/speed.md).

    Raises BadInput where it is asked for and there is nothing to compile with.
    """
    cuda = device.type == "cuda"
    if asked == "auto":
        return "on" if cuda and not 0 < frames < LONG and memory == "high" and _lacks(device) is None else "off"
    if asked == "on" and cuda and (lacks := _lacks(device)) is not None:
        raise BadInput(f"--compile on needs {lacks}, or leave it out")
    if asked == "on" and device.type == "cpu" and not any(map(which, _COMPILERS)):
        raise BadInput(
            f"--compile on needs a C++ compiler on a CPU, and there is none of {', '.join(_COMPILERS)} here; "
            "install one, or leave it out"
        )
    return asked


def _lacks(gpu: torch.device) -> str | None:
    """What compiling for it would need, and how to have it."""
    if not find_spec("triton"):
        return "Triton on a GPU, which is not installed; pip install triton"
    if os.name != "nt" and not any(map(which, _C_COMPILERS)):  # there Triton brings one
        return f"a C compiler on a GPU, and there is none of {', '.join(_C_COMPILERS)} here; install one"
    if torch.cuda.get_device_capability(gpu) < (7, 0):
        return f"Volta or a later GPU, and {torch.cuda.get_device_name(gpu)} is older; use another one"
    return None


_C_COMPILERS = (*filter(None, [os.environ.get("CC")]), "gcc", "clang", "cc")
_COMPILERS = (*filter(None, [os.environ.get("CXX")]), "g++", "clang++", "cl")


def memory_of(device: torch.device) -> float | None:
    """GiB that are free on a GPU; None for the CPU, where the system's own memory is used."""
    if device.type == "mps":
        gc.collect()
        torch.mps.empty_cache()
        return (torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()) / 2**30
    if device.type != "cuda":
        return None
    # A video made before in this process is not there any more, but its model may hang in cycles, and what torch once
    # had it keeps: neither is free for the device's own count.
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0] / 2**30


def sent(x: Tensor, device: torch.device) -> Tensor:
    """x on the device.  From the host to CUDA by pinned memory, so that nobody waits for what the device does."""
    if x.device.type == "cpu" and device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def fetched(x: Tensor) -> Tensor:
    """x on the host, whole.  From CUDA by pinned memory; only what the calling thread's stream has to do is waited
    for.
    """
    if x.device.type != "cuda":
        return x.cpu()
    pinned = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    pinned.copy_(x, non_blocking=True)
    torch.cuda.current_stream(x.device).synchronize()
    return pinned.clone()  # so that what is kept long holds no pinned memory


def check_products(device: torch.device) -> None:
    """Raises BadInput where products of eight-bit numbers are not to be had."""
    instead = "give --fp8 weights, or leave --fp8 out"
    if not hasattr(torch.nn.functional, "scaled_mm"):
        raise BadInput(f"torch {torch.__version__} has no products in eight bits, torch 2.13 has; {instead}")
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        name = torch.cuda.get_device_name(device)
        raise BadInput(f"{name} has no products in eight bits, which Ada, Hopper and later GPUs have; {instead}")
    if device.type not in ("cuda", "cpu"):
        raise BadInput(f"products in eight bits are not to be had on {device.type}; {instead}")


def keep_freed_memory() -> None:
    """From now on freed memory stays with this process, where the C library is glibc; elsewhere nothing happens.

    An iteration makes and frees the same large tensors over and over, and every fresh page costs a fault: a tenth of
    the time on a CPU.  Only for a program that is ours: it holds for the whole process.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        libc.mallopt(_MMAP_MAX, 0)  # large blocks too come from the heap,
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)  # whose end is given back only beyond 2 GiB


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
