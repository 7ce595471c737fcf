"""Does memory grow with length?  The resident set of a run that writes an mp4, over 5,000 frames.

    python benchmarks/memory.py [--frames 5000]

What counts is what the program holds, so memory that it freed and the C library keeps for later is handed back
before each reading (glibc's malloc_trim); that reserve swings by some 15 MB without end or direction.  `before` is the
largest reading with it.

Each model runs in a process of its own.  The embedded one runs with one partition and without guidance, which
makes frames faster and the queue shorter but keeps no more and no less from frame to frame.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

from report import show

SETTINGS: dict[str, dict[str, object]] = {
    "embedded": {"partitions": 1, "guidance": 1.0},
    "gauss": {"partitions": 2, "size": (64, 64)},
}
EARLY = 500


def hand_back() -> None:
    """What was freed and the C library keeps for later, where that is glibc."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def resident() -> float:
    """MB of main memory in use now."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def watch(model: str, frames: int) -> None:
    """Print the resident set at frame 500, in the middle and at the end: with the reserve, and without."""
    from fifo_diffusion import api
    from fifo_diffusion.config import Run

    def look(stage: str, done: int, total: int) -> None:
        if stage == "streaming" and done in (EARLY, (EARLY + frames) // 2, frames):
            before = resident()
            hand_back()
            print(f"{done} {resident():.2f} {before:.2f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        run = Run.of({"prompt": "a red balloon moving left", "model": model, "frames": frames, **SETTINGS[model]})
        api.make(run, str(Path(folder) / "a.mp4"), watch=look)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        watch(arguments.watch, arguments.frames)
        return
    rows = []
    for model in SETTINGS:
        command = [sys.executable, __file__, "--watch", model, "--frames", str(arguments.frames)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        readings = [[float(number) for number in line.split()[1:]] for line in said.splitlines()]
        early, middle, late = (held for held, _ in readings)
        growth = 100 * (late / early - 1)
        rows.append(
            {
                "model": model,
                "frames": arguments.frames,
                f"MB at {EARLY}": early,
                "MB midway": middle,
                "MB at end": late,
                "growth %": growth,
                "before": max(before for _, before in readings),
            }
        )
    show("memory over a run", rows)


if __name__ == "__main__":
    main()
