"""FIFO-Diffusion (Kim et al., NeurIPS 2024, arXiv:2405.11473): endless video from any text-to-video model.

    import fifo_diffusion as fifo

    for frame in fifo.stream("a red balloon drifting right over snowy mountains", seed=1, frames=100):
        ...  # (height, width, 3) uint8

Names are loaded when they are first used, so importing this costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fifo_diffusion.errors import BadInput, DeviceError, FifoError, ModelError, NotFinite, OutputError
from fifo_diffusion.version import __version__

if TYPE_CHECKING:
    from fifo_diffusion.api import Stream, generate, resume, stream
    from fifo_diffusion.config import Cue, Run
    from fifo_diffusion.engine import Engine, State
    from fifo_diffusion.execute import Batched, Serial
    from fifo_diffusion.guidance import Guided
    from fifo_diffusion.noise import SeededNoise
    from fifo_diffusion.schedule import NoiseSchedule
    from fifo_diffusion.windows import Plan

_LAZY = {
    "Stream": "api",
    "generate": "api",
    "resume": "api",
    "stream": "api",
    "Cue": "config",
    "Run": "config",
    "Engine": "engine",
    "State": "engine",
    "Batched": "execute",
    "Serial": "execute",
    "Guided": "guidance",
    "SeededNoise": "noise",
    "NoiseSchedule": "schedule",
    "Plan": "windows",
}

__all__ = [
    "BadInput",
    "Batched",
    "Cue",
    "DeviceError",
    "Engine",
    "FifoError",
    "Guided",
    "ModelError",
    "NoiseSchedule",
    "NotFinite",
    "OutputError",
    "Plan",
    "Run",
    "SeededNoise",
    "Serial",
    "State",
    "Stream",
    "__version__",
    "generate",
    "resume",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"fifo_diffusion.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'fifo_diffusion' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
