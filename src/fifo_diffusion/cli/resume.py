"""`fifo resume`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from fifo_diffusion.cli.app import EVERY, KEEP, PREVIEW, app, flag, option
from fifo_diffusion.cli.live import BLEND, LIVE, Live
from fifo_diffusion.cli.running import run_watched, tell
from fifo_diffusion.cli.values import blend_of, seconds_of
from fifo_diffusion.errors import BadInput


@app.command()
def resume(
    video: Annotated[
        str,
        typer.Argument(
            help="The video, the .partial file that a kill left of it, or the .run folder beside it.", metavar="VIDEO"
        ),
    ],
    frames: Annotated[
        str | None, option("How many in all, or +500: so many more than there are. 0 goes on until Ctrl-C.")
    ] = None,
    seconds: Annotated[str | None, option("The same in seconds: 60, or +10.")] = None,
    prompt: Annotated[str | None, option("What is heard by the frames that are not in the queue yet.")] = None,
    live: Annotated[bool, flag(f"{LIVE}.", "--live")] = False,
    blend: Annotated[str | None, option(BLEND)] = None,
    output: Annotated[
        str | None,
        option("Make another video, that begins like this one; this one is left as it is.", "--output", "-o"),
    ] = None,
    at_frame: Annotated[
        int | None,
        option("The other video begins at the latest checkpoint that is not after this frame."),
    ] = None,
    preview: Annotated[str | None, option(PREVIEW)] = None,
    quiet: Annotated[bool, flag("No progress line and no summary.", "--quiet", "-q")] = False,
    checkpoint_every: Annotated[str, option(EVERY)] = "30s",
    keep_checkpoints: Annotated[bool, flag(KEEP, "--keep-checkpoints")] = False,
) -> None:
    """Go on with a video that was stopped or killed, make a finished one longer, or fork one.

    After Ctrl-C, a kill, a full disk or a reboot:  fifo resume a.mp4  (with --live where prompts were said live)

    A finished video, 500 frames longer:  fifo resume a.mp4 --frames +500

    Another that begins like it:  fifo resume a.mp4 --at-frame 300 -o b.mp4 --prompt "a blue whale"  (a finished video
    has a checkpoint to begin it at only if it was made with --keep-checkpoints)

    On the same machine a video comes out as if it had never been stopped, bit for bit. What is needed for that is in
    a.mp4.run: move it along with the video, or delete it when the video shall not go on.
    """
    from fifo_diffusion import api

    if prompt is not None and re.match(r"\s*(\d+|(\d+(\.\d+)?|\.\d+)\s*s)\s*:", prompt):
        raise BadInput(
            f"--prompt is {prompt!r}, with a time; here it is for all frames not in the queue yet, so leave it out"
        )
    if blend is not None and not live:
        raise BadInput(f"--blend {blend} has no prompts to go between; give --live with it")
    there = api.left(video)
    over = 0 if blend is None else blend_of(blend, 1 if there is None else there[1].run.fps)
    said_live = Live.of(live, over)
    every = seconds_of(checkpoint_every)
    name = output or video
    made = run_watched(
        quiet or said_live.typed,
        name,
        lambda progress: api.resume(
            video,
            frames=frames,
            seconds=seconds,
            prompt=prompt,
            at_frame=at_frame,
            output=output,
            preview=preview,
            checkpoint_every=every,
            keep_checkpoints=keep_checkpoints,
            watch=progress,
            warn=progress.warn,
            tell=progress.tell,
            ready=said_live.ready(progress),
        ),
    )
    if not quiet:
        there = api.left(name)
        tell(made, name if there is None else str(there[0]), None)
