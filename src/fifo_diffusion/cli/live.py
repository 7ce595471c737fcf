"""Prompts that are typed, or piped in, while a video is made: `--live`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING

from rich.markup import escape

from fifo_diffusion.errors import BadInput

if TYPE_CHECKING:
    from fifo_diffusion.progress import Progress
    from fifo_diffusion.session import Session

LIVE = "Take new prompts from stdin, a line each"
BLEND = "Frames (10) or seconds (1s) over which prompts change (default: 0)."


@dataclass(frozen=True)
class Live:
    """Whether prompts are said live, whether somebody types them, and over how many frames they change."""

    wanted: bool
    typed: bool  # no line that redraws itself then: it would take what is typed with it
    blend: int

    @classmethod
    def of(cls, wanted: bool, blend: int) -> Live:
        """Raises BadInput where there is nothing to read them from."""
        if wanted and sys.stdin is None:
            raise BadInput("--live reads prompts from stdin, which is closed; leave stdin open or leave --live out")
        return cls(wanted, wanted and sys.stdin.isatty(), blend)

    def ready(self, progress: Progress) -> Callable[[Session], None] | None:
        """What the session is given to before its first frame; None where nobody says anything."""
        if self.typed:
            progress.note("type a prompt and press Enter to change what the video shows; Ctrl-C ends it")
        return (lambda session: _hear(session, progress, self.blend)) if self.wanted else None


def _hear(session: Session, progress: Progress, blend: int) -> None:
    """Say each line of stdin to the session, from a thread of its own that ends with stdin or with the program."""
    prompts = session.prompts  # made here, so that both threads have the same

    def say(text: str) -> None:
        before = prompts.cues
        frame = prompts.say(text, blend=blend)
        instead = next((cue.prompt for cue in before if cue.at == frame), None)
        _reached(text, frame, session.run.frames, progress, instead)
        for remark in session.model.remarks(text):
            progress.warn(remark)

    def listen() -> None:
        try:
            with io.FileIO(0, closefd=False) as lines:  # a reader with a lock of its own could not be left at exit
                for line in lines:
                    if text := line.decode(errors="replace").strip().lstrip("\ufeff"):
                        try:
                            say(text)
                        except Exception as error:  # such as a device without room for the encoder
                            progress.note(f"[bold red]error:[/] {escape(str(error))}")
        except OSError as error:  # a terminal that has gone
            progress.note(f"prompts are heard no more: stdin cannot be read ({escape(error.strerror or str(error))})")

    Thread(target=listen, name="prompts", daemon=True).start()


def _reached(prompt: str, frame: int, frames: int, progress: Progress, instead: str | None) -> None:
    """instead: of which prompt, said before the queue could take it."""
    seconds = progress.seconds_until(frame)
    when = "" if seconds is None else f" (in about {max(seconds, 0):.0f} s)"
    late = f", after the last one, {frames - 1}" if 0 < frames <= frame else ""
    place = "" if instead is None else f", in place of {escape(repr(instead))}"
    progress.note(f"[green]{escape(prompt)}[/] reaches the screen at frame {frame}{when}{late}{place}")
