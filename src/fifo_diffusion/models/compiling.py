"""torch.compile for networks whose shapes stay the same while times and texts change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def compile_all(networks: Iterable[nn.Module], device: torch.device) -> list[str]:
    """Compile them where they are, at their first call: once for each shape, never for other times or texts.

    Where this machine cannot compile (no C++ compiler on a CPU, no Triton on a GPU), they stay as they are; the
    sentence that says so is given back.
    """
    options: dict[str, Any] = {"force_disable_caches": True}  # an old result would hide that the compiler is gone
    try:
        torch.compile(_trial, dynamic=False, options=options)(torch.ones(8, device=device))
    except Exception as error:  # whatever a tool chain can do wrong
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return [f"the network runs uncompiled, since nothing can be compiled here ({lines[0] if lines else error!r})"]
    how: dict[str, Any] = {"mode": "max-autotune-no-cudagraphs"} if device.type == "cuda" else {}
    for network in networks:
        network.compile(dynamic=False, **how)
    return []


def _trial(x: Tensor) -> Tensor:
    return x.sin() + 1
