"""Where frames go: a video file, a folder of pictures, a pipe, or nowhere; and how they are read back.

A sink takes frames one at a time and keeps none, so memory does not grow with the length of the video.

A name only ever holds a whole file.  `clip.mp4` is written as `clip.partial.mp4` beside it and takes its
name when it is closed; until then a file that had the name keeps it, and a start that fails loses nothing.
mp4 and webm are written in pieces of half a second, gif and PNG frame by frame, so if the program is killed
`clip.partial.mp4` plays up to its last second (not so webp, whose length stands at its head).  A clean end
copies the pieces of an mp4 into one plain file with its index in front, because some players cannot seek in
fragments.

mp4, webm and folders can be gone on with (`Begun`), and come out as if they had never been broken off: their
encoder begins anew every `piece` frames, in every run, so from such a frame on nothing depends on the frames
before it, and those are copied as they were coded.

Knows nothing of torch, models or queues.  Letters: H W height and width in pixels.
"""

from fifo_diffusion.letters import is_folder
from fifo_diffusion.sinks.base import FrameSink
from fifo_diffusion.sinks.coded import Begun, held, picture_files, picture_number, piece
from fifo_diffusion.sinks.folder import PngSink
from fifo_diffusion.sinks.metadata import read_metadata
from fifo_diffusion.sinks.opening import check_output, open_sink
from fifo_diffusion.sinks.pipe import NullSink, RawSink
from fifo_diffusion.sinks.reading import read_frames
from fifo_diffusion.sinks.video import VideoSink

__all__ = [
    "Begun",
    "FrameSink",
    "NullSink",
    "PngSink",
    "RawSink",
    "VideoSink",
    "check_output",
    "held",
    "is_folder",
    "open_sink",
    "picture_files",
    "picture_number",
    "piece",
    "read_frames",
    "read_metadata",
]
