"""How each kind of video file is encoded, and the frame rates they take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from fifo_diffusion.errors import BadInput

_HALF_SECOND = {"us": "500000", "ms": "500"}


@dataclass(frozen=True)
class Kind:
    """How one extension is encoded."""

    codec: str
    pixels: str  # FFmpeg's name of the pixel format
    encoder: Mapping[str, str]
    muxer: Mapping[str, str]
    crf: tuple[int, int, int] | None = None  # lowest (best), usual, highest; None also: it cannot be gone on with
    fastest: int = 1000  # frames a second the container's clock can tell apart
    largest: int = 16384  # pixels a side
    even: bool = False  # colour is kept for blocks of 2 x 2 pixels


KINDS = {
    ".mp4": Kind(
        "libx264",
        "yuv420p",
        # No frame waits in the encoder: a killed run would lose those too.  Not Annex B: the muxer rewrites
        # that, and packets that were read back could not stand in one file with fresh ones.
        {"preset": "medium", "tune": "zerolatency", "x264-params": "annexb=0"},
        {
            # No trailer: it would list all fragments, and the list grows in memory meanwhile.
            "movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer",
            "frag_duration": _HALF_SECOND["us"],
            "flush_packets": "1",
        },
        crf=(1, 18, 51),  # 0 is lossless, in a profile that browsers do not play
        even=True,
    ),
    ".webm": Kind(
        "libvpx-vp9",
        "yuv420p",
        {"deadline": "good", "cpu-used": "4", "lag-in-frames": "0", "b": "0"},
        {"cluster_time_limit": _HALF_SECOND["ms"], "flush_packets": "1"},
        crf=(0, 24, 63),
        even=True,
    ),
    ".gif": Kind(
        "gif", "pal8", {}, {"loop": "0", "flush_packets": "1"}, fastest=50
    ),  # browsers slow down anything faster
    # Not libwebp_anim: it holds the whole animation until the end.  This one codes each frame by itself.
    ".webp": Kind("libwebp", "bgra", {"quality": "90"}, {"loop": "0", "flush_packets": "1"}, largest=16383),
}


def rate(fps: Fraction | float) -> Fraction:
    """Frames a second as the files keep it.  Raises BadInput unless it is a number above 0."""
    if not math.isfinite(fps) or fps <= 0:
        raise BadInput(f"{fps} frames a second is not allowed; give a number above 0")
    # 1001 is the largest denominator in use: 24000/1001 for NTSC film.
    return fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)
