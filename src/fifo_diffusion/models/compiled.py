"""torch.compile of a model's network: shapes are fixed, times and texts are data, so it is compiled once.

A shape that was not seen before is compiled when it comes: a last batch with fewer windows (`Batched` makes few
sizes of them), or frames that hear texts of their own while a prompt changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fifo_diffusion.protocols import Cond

Network = Callable[..., Tensor]  # of z, t, cond; what else it may be told are constants, compiled for each value
SHAPES = 64
"""How many shapes may be compiled; torch computes those after its own 8 without a word the slow way."""


@dataclass(frozen=True)
class Compiled:
    """A network as torch.compile has made it.  What it answers is the caller's to keep: in a CUDA graph the memory of
    an answer is written over by the next, so it is copied out."""

    network: Network
    graphs: bool

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /, **told: Any) -> Tensor:
        # Strides too are fixed; those of a dimension of one are whatever the tensor was cut from.
        z, t, cond = _packed(z), _packed(t), {name: _packed(c) for name, c in cond.items()}
        if not self.graphs:
            return self.network(z, t, cond, **told)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self.network(z, t, cond, **told).clone()


def _packed(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def compiled(network: Network, device: torch.device, backend: str = "inductor") -> Compiled:
    """The network compiled for fixed shapes; on CUDA in CUDA graphs.  It is made ready at its first call."""
    from torch import _dynamo as dynamo

    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, SHAPES)
    graphs = device.type == "cuda" and backend == "inductor"
    more: dict[str, Any] = {}
    if graphs:
        from torch._inductor import config

        # Kernels chosen by a race on the spot sum in another order once the cache of its winners is gone.
        steady = {"deterministic": True} if hasattr(config, "deterministic") else {}
        more = {"options": {"triton.cudagraphs": True, **steady}}
    return Compiled(torch.compile(network, dynamic=False, backend=backend, **more), graphs)
