"""What this machine has, and what is missing for what."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, NamedTuple

from fifo_diffusion.errors import FifoError


class Finding(NamedTuple):
    """`missing` keeps something from working; `note` is worth knowing."""

    state: Literal["ok", "note", "missing"]
    what: str
    detail: str


def examine() -> Iterator[Finding]:
    """Look at the machine, the libraries, the encoders and the shipped weights, one finding at a time."""
    yield Finding("ok", "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _torch()
    yield from _encoders()
    yield from _weights()
    for package, purpose in (
        ("diffusers", "models from other makers"),
        ("transformers", "their text encoders"),
    ):
        try:
            yield Finding("ok", package, version(package))
        except PackageNotFoundError:
            yield Finding("note", package, f"not installed; only needed for {purpose}")
    if (memory := _memory()) is not None:
        yield Finding("ok" if memory > 2**31 else "note", "memory", f"{memory / 2**30:.1f} GB")
    free = shutil.disk_usage(os.getcwd()).free
    yield Finding("ok" if free > 2**30 else "note", "disk", f"{free / 2**30:.1f} GB free in this folder")


def _memory() -> int | None:
    """Bytes of main memory; None on a system that does not say (Windows)."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _torch() -> Iterator[Finding]:
    import torch

    from fifo_diffusion.devices import no_gpu

    threads = torch.get_num_threads()
    yield Finding("ok", "torch", f"{torch.__version__}, {threads} CPU thread{'s' if threads > 1 else ''}")
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        yield Finding(
            "ok",
            f"cuda:{i}",
            f"{torch.cuda.get_device_name(i)}, {free / 2**30:.1f} of {total / 2**30:.1f} GB free",
        )
    if torch.backends.mps.is_available():
        yield Finding("ok", "mps", "Apple GPU")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield Finding(
            "note",
            "GPU",
            f"none that torch can use ({no_gpu()}); the embedded models are made for the CPU, large ones are not",
        )


def _encoders() -> Iterator[Finding]:
    import av

    for codec, kind in (("libx264", "mp4"), ("libvpx-vp9", "webm"), ("gif", "gif"), ("libwebp", "webp")):
        here = codec in av.codecs_available
        yield Finding(
            "ok" if here else "missing",
            f"{kind} files",
            f"encoder {codec} in PyAV {av.__version__}"
            if here
            else f"this build of PyAV has no encoder {codec}; install PyAV's wheel with pip",
        )


def _weights() -> Iterator[Finding]:
    import torch

    from fifo_diffusion.models import load

    try:
        load("embedded", torch.device("cpu"), torch.float32)
        yield Finding("ok", "embedded model", "its weights are whole")
    except FifoError as error:
        yield Finding("missing", "embedded model", str(error))
