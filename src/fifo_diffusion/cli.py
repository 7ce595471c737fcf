"""The command `fifo`: thin over config, api and models.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import inspect
import io
import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from fifo_diffusion.errors import BadInput, FifoError, OutputError
from fifo_diffusion.version import __version__

if TYPE_CHECKING:
    from fifo_diffusion.checkpoint import Description
    from fifo_diffusion.progress import Progress
    from fifo_diffusion.session import Session
    from fifo_diffusion.sidecar import Sidecar

app = typer.Typer(
    name="fifo",
    help="Endless video from a prompt (FIFO-Diffusion, arXiv:2405.11473).\n\n"
    'Begin with: fifo generate "a red balloon drifting right over snowy mountains"',
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # the other modes keep the line ends of a docstring
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(stderr=True, highlight=False)  # stdout belongs to frames


def main() -> None:
    """Run the command; an error of ours is one sentence and exit code 2."""
    try:
        with _among_ranks() as leading:
            if leading:
                app(prog_name="fifo")
    except FifoError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _among_ranks() -> Iterator[bool]:
    """Whether this process runs the command; under torchrun the others compute along, and rank 0 hears the signals."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield True
        return
    from fifo_diffusion.together import together

    group = together()
    if group is None or group.rank == 0:
        clean = False
        try:
            yield True
            clean = True
        except SystemExit as end:  # how a command ends
            clean = not end.code
            raise
        finally:
            if group is not None:
                group.dismiss()
                if clean:  # else the others may be waiting for an answer: they end when the connections do
                    group.leave()
        return
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    from fifo_diffusion.api import follow

    follow(group)
    group.leave()
    yield False


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def _option(says: str, *flags: str, panel: str | None = None) -> Any:
    """An option that has a default only in words; where it says none, it is the model's (`fifo models`)."""
    return typer.Option(*flags, help=says, show_default=False, rich_help_panel=panel)


_video, _story, _method, _machine, _stopping = (
    partial(_option, panel=name) for name in ("Video", "Story", "Method", "Machine", "Stopping and going on")
)
_OUTPUT = "name.mp4, .webm, .gif or .webp, a folder/ for PNGs, or - for raw RGB on stdout (default: after the prompt)."
_EVERY = "Seconds between checkpoints in VIDEO.run; off for none (default: 30s). mp4, webm and folders only."
_KEEP = "Keep several when the video is finished, to fork from; else only the last, to make it longer."
_LOOKAHEAD = "off, last (the paper's lookahead) or middle (keeps each window's middle)."


@app.command()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="What the video shows.", metavar="PROMPT", show_default=False)
    ] = None,
    output: Annotated[str | None, _option(_OUTPUT, "--output", "-o")] = None,
    model: Annotated[str | None, _option("One of `fifo models` (default: embedded).", "--model", "-m")] = None,
    weights: Annotated[str | None, _option("Hub id, folder or file to load instead of the model's own.")] = None,
    lora: Annotated[list[str] | None, _option("LoRA weights to add, FILE or FILE:scale; may be repeated.")] = None,
    sidecar: Annotated[
        Path | None, _option("Make the video of this .json again; other flags change it.", "--from")
    ] = None,
    clip: Annotated[
        str | None, _option("Go on from this video, picture or folder of pictures (see `fifo extend`).")
    ] = None,
    only_new: Annotated[
        bool, typer.Option("--only-new", help="With a clip: leave its own frames out of the file.", show_default=False)
    ] = False,
    preview: Annotated[
        str | None, _option("Picture of the whole queue, rewritten as it moves: name.png or .jpg.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress line and no summary.")] = False,
    frames: Annotated[int | None, _video("How many; 0 goes on until Ctrl-C (default: 10 seconds).")] = None,
    seconds: Annotated[float | None, _video("How long, instead of --frames.")] = None,
    seed: Annotated[int | None, _video("The same seed is the same video (default: 0).")] = None,
    negative_prompt: Annotated[str | None, _video("What it should not show.")] = None,
    size: Annotated[str | None, _video("WIDTHxHEIGHT in pixels, where the model allows it.")] = None,
    fps: Annotated[float | None, _video("Frames a second of the file.")] = None,
    scale: Annotated[int | None, _video("Show each pixel this many times larger.")] = None,
    crf: Annotated[int | None, _video("Encoder quality of mp4 and webm; lower is better and larger.")] = None,
    prompts: Annotated[
        list[str] | None, _story("'120: a blue whale' or '4.5s: ...': from that frame or second on.", "--prompt")
    ] = None,
    script: Annotated[Path | None, _story("YAML list of {at, prompt, negative, guidance, blend}.")] = None,
    blend: Annotated[str | None, _story("Frames (10) or seconds (1s) over which prompts change (default: 0).")] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Take new prompts from stdin, a line each; --frames is then 0.", rich_help_panel="Story"
        ),
    ] = False,
    partitions: Annotated[
        int | None, _method("Windows the queue is cut into: more is slower and finer.", "--partitions", "-n")
    ] = None,
    lookahead: Annotated[str | None, _method(_LOOKAHEAD)] = None,
    guidance: Annotated[float | None, _method("Guidance scale; 1 is off and twice as fast.")] = None,
    eta: Annotated[float | None, _method("Fresh noise while denoising, from 0 (none) to 1.")] = None,
    solver: Annotated[str | None, _method("ddim, or 2m: second order, eta 0 (default: ddim).")] = None,
    levels: Annotated[str | None, _method("even, or paper: the authors' table (default: even).")] = None,
    start: Annotated[str | None, _method("clip (a base clip of the model) or noise (default: clip).")] = None,
    device: Annotated[str | None, _machine("auto, cpu, cuda, cuda:1, mps (default: auto).")] = None,
    dtype: Annotated[str | None, _machine("auto, float32, bfloat16, float16 (default: auto).")] = None,
    batch: Annotated[int | None, _machine("Most windows computed at once (twice that with guidance).")] = None,
    memory: Annotated[str | None, _machine("auto, low (for a small GPU; slower) or high (default: auto).")] = None,
    checkpoint_every: Annotated[str, _stopping(_EVERY)] = "30s",
    keep_checkpoints: Annotated[bool, _stopping(_KEEP, "--keep-checkpoints")] = False,
) -> None:
    """Make a video from a prompt, of any length, in constant memory.

    fifo generate "a red balloon drifting right over snowy mountains" -o balloon.mp4

    A file of that name is replaced once the new one is whole.  Ctrl-C finishes the file; `fifo resume balloon.mp4` goes
    on with it, after a crash or a kill too.

    Settings without a default here are the model's own; `fifo models` lists them.
    """
    from fifo_diffusion.sidecar import again, read

    said: dict[str, Any] = {
        "prompt": prompt, "negative_prompt": negative_prompt, "model": model, "weights": weights, "frames": frames,
        "seed": seed, "size": None if size is None else _size(size), "fps": fps, "partitions": partitions,
        "lookahead": lookahead, "guidance": guidance, "eta": eta, "solver": solver, "levels": levels, "start": start,
        "device": device, "dtype": dtype, "batch": batch, "memory": memory, "lora": lora or None, "clip": clip,
    }  # fmt: skip
    said = {name: value for name, value in said.items() if value is not None}
    if seconds is not None and frames is not None:
        raise BadInput(f"both --frames {frames} and --seconds {seconds:g} were given; give one of them")
    if seconds is not None and not 0 < seconds < math.inf:
        raise BadInput(f"--seconds is {seconds:g}; it must be above 0 (for a video without end say --frames 0)")
    before = None if sidecar is None else read(sidecar)
    if before is not None:
        said = again(before, said)
        scale = before.scale if scale is None else scale
        only_new = only_new or (before.run.clip is not None and before.clip_frames == 0)
        if crf is None and Path(output or ".mp4").suffix in (".mp4", ".webm"):
            crf = before.crf
    from fifo_diffusion import script as scripts
    from fifo_diffusion.config import Run
    from fifo_diffusion.models import card

    pace = Run.of({"prompt": "-", "fps": said.get("fps")}).fps or card(said.get("model", "embedded")).fps
    over = 0 if blend is None else scripts.frames(blend, pace)
    if prompts and script is not None:
        raise BadInput("both --prompt and --script were given; put all prompts into the script, or none")
    if blend is not None and not (prompts or script or live):
        raise BadInput(f"--blend {blend} has no prompts to go between; give --prompt, --script or --live with it")
    if prompts or script is not None:
        cues = scripts.read(script, pace, over) if script is not None else scripts.spoken(prompts or [], pace, over)
        first = said.get("prompt") if prompt is not None or cues[0].at > 0 else None  # or the one of --from
        said |= scripts.table(cues, first)
    if "prompt" not in said:
        raise BadInput("no prompt was given; say what the video shows in quotes, or give --script or --from")
    if seconds is not None:
        said["frames"] = max(1, round(seconds * pace))
    elif live and frames is None:
        said["frames"] = 0
    run = Run.of(said)
    if only_new and run.clip is None:
        raise BadInput("--only-new was given without a clip, so all frames are new; leave it out")
    output = output or _free_name(run.prompt if clip is None else f"{Path(clip).stem} extended")

    from fifo_diffusion import api

    if live and sys.stdin is None:
        raise BadInput("--live reads prompts from stdin, which is closed; leave stdin open or leave --live out")
    typing = live and sys.stdin.isatty()
    every = _every(checkpoint_every)

    def make(progress: Progress) -> Sidecar:
        if typing:
            progress.note("type a prompt and press Enter to change what the video shows; Ctrl-C ends it")
        return api.make(
            run, output, scale=scale, crf=crf, only_new=only_new, preview=preview,
            checkpoint_every=every, keep_checkpoints=keep_checkpoints, watch=progress, warn=progress.warn,
            tell=progress.tell, ready=partial(_hear, progress=progress, blend=over) if live else None,
        )  # fmt: skip

    # A line that redraws itself would take what is typed with it.
    made = _run(quiet or typing, output, make)
    if not quiet:
        _tell(made, output, before)


@app.command()
def resume(
    video: Annotated[
        str,
        typer.Argument(
            help="The video, the .partial file that a kill left of it, or the .run folder beside it.", metavar="VIDEO"
        ),
    ],
    frames: Annotated[
        str | None, _option("How many in all, or +500: so many more than there are. 0 goes on until Ctrl-C.")
    ] = None,
    seconds: Annotated[str | None, _option("The same in seconds: 60, or +10.")] = None,
    prompt: Annotated[str | None, _option("What is heard by the frames that are not in the queue yet.")] = None,
    output: Annotated[
        str | None,
        _option("Make another video, that begins like this one; this one is left as it is.", "--output", "-o"),
    ] = None,
    at_frame: Annotated[
        int | None,
        _option("The other video begins at the latest checkpoint that is not after this frame."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress line and no summary.")] = False,
    checkpoint_every: Annotated[str, _option(_EVERY, "--checkpoint-every")] = "30s",
    keep_checkpoints: Annotated[bool, _option(_KEEP, "--keep-checkpoints")] = False,
) -> None:
    """Go on with a video that was stopped or killed, make a finished one longer, or fork one.

    After Ctrl-C, a kill, a full disk or a reboot:  fifo resume a.mp4

    A finished video, 500 frames longer:  fifo resume a.mp4 --frames +500

    Another that begins like it:  fifo resume a.mp4 --at-frame 300 -o b.mp4 --prompt "a blue whale"

    On the same machine a video comes out as if it had never been stopped, bit for bit. What is needed for that is in
    a.mp4.run: move it along with the video, or delete it when the video shall not go on.
    """
    from fifo_diffusion import api

    if prompt is not None and re.match(r"\d+(\.\d+)?s?:", prompt):
        raise BadInput(
            f"--prompt is {prompt!r}, with a time; here it is for all frames not in the queue yet, so leave it out"
        )
    every = _every(checkpoint_every)
    name = output or video
    made = _run(
        quiet,
        name,
        lambda progress: api.carry_on(
            video,
            frames=frames,
            seconds=seconds,
            prompt=prompt,
            at_frame=at_frame,
            output=output,
            checkpoint_every=every,
            keep_checkpoints=keep_checkpoints,
            watch=progress,
            warn=progress.warn,
        ),
    )
    if not quiet:
        there = api.left(name)
        _tell(made, name if there is None else str(there[0]), None)


def _run(quiet: bool, name: str, make: Callable[[Progress], Sidecar]) -> Sidecar:
    """Make a video with a live line; when it is stopped, or cannot be written, say how to go on."""
    from fifo_diffusion.api import left
    from fifo_diffusion.progress import Progress

    for stop in (signal.SIGINT, signal.SIGTERM):  # a service manager's SIGTERM is an interrupt like any other
        signal.signal(stop, _stop)
    progress = Progress(console, quiet)
    try:
        with progress:
            return make(progress)
    except KeyboardInterrupt:
        there = left(name)
        if there is not None:
            name, whole = str(there[0]), there[1].whole
        else:
            whole = progress.frames
        kept = f"{name} is whole and holds {whole} frames" if whole else "no frame was made"
        console.print(f"stopped; {escape(kept + _go_on(there))}", soft_wrap=True)
        raise
    except OutputError as error:
        raise OutputError(f"{error}{_go_on(left(name))}") from error


def _go_on(there: tuple[Path, Description] | None) -> str:
    return "" if there is None else f"; go on with: fifo resume {shlex.quote(str(there[0]))}"


def extend(**said: Any) -> None:
    """Go on from a video, a picture (.png, .jpg, .webp) or a folder of pictures.

    fifo extend clip.mp4 "a red balloon drifting right over snowy mountains" -o longer.mp4

    The file holds the clip, cropped and resampled to what the model knows, and then --frames new ones; --only-new
    leaves the clip out.  Say what the clip shows, or what is to come of it.  All else is as in `fifo generate`.
    """
    generate(**said)


def _of_extend() -> inspect.Signature:
    """The flags of `generate`, with the clip as the first argument."""
    flags = dict(inspect.signature(generate, eval_str=True).parameters)
    named = typer.Argument(help="Video, picture or folder of pictures to go on from.", metavar="CLIP")
    first = inspect.Parameter("clip", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Annotated[str, named])
    rest = (flag for name, flag in flags.items() if name not in ("clip", "sidecar", "start"))
    return inspect.Signature([first, *rest])


extend.__signature__ = _of_extend()  # type: ignore[attr-defined]
app.command()(extend)


def _stop(number: int, frame: object) -> None:
    """The first signal ends the run; from then on the file is being finished and must not be disturbed."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt


def _hear(session: Session, progress: Progress, blend: int) -> None:
    """Say each line of stdin to the session, from a thread of its own that ends with stdin or with the program."""
    prompts = session.prompts  # made here, so that both threads have the same

    def listen() -> None:
        with io.FileIO(0, closefd=False) as lines:  # a reader with a lock of its own could not be left behind at exit
            for line in lines:
                text = line.decode(errors="replace").strip()
                try:
                    if text:
                        _reached(text, prompts.say(text, blend=blend), session.run.frames, progress)
                        for remark in session.model.remarks(text):
                            progress.warn(remark)
                except (FifoError, RuntimeError) as error:  # such as a device without room for the encoder
                    progress.note(f"[bold red]error:[/] {escape(str(error))}")

    Thread(target=listen, name="prompts", daemon=True).start()


def _reached(prompt: str, frame: int, frames: int, progress: Progress) -> None:
    seconds = progress.seconds_until(frame)
    when = "" if seconds is None else f" (in about {max(seconds, 0):.0f} s)"
    late = f", after the last one, {frames - 1}" if 0 < frames <= frame else ""
    progress.note(f"[green]{escape(prompt)}[/] reaches the screen at frame {frame}{when}{late}")


@app.command()
def info(
    video: Annotated[
        str, typer.Argument(help="A video, a picture, or a folder of them, that fifo made.", metavar="VIDEO")
    ],
) -> None:
    """Print the prompt, seed and settings that a video was made with, from the video itself or the .json beside it."""
    from fifo_diffusion.api import told

    out = Console(highlight=False)
    for name, value in told(video).items():
        out.print(f"[bold]{name:<16}[/] {escape(str(value))}", soft_wrap=True)


@app.command()
def models() -> None:
    """List the models, what they need, and the settings they are run with unless you say otherwise."""
    from fifo_diffusion.config import Run
    from fifo_diffusion.models import MODELS

    out, default = Console(), Run.model_fields["model"].default
    for card in MODELS.values():
        size = f"{card.size[0]}x{card.size[1]} pixels" + (" or any other size" if card.any_size else "")
        name = f"[bold]{card.name}[/]" + (" (the default)" if card.name == default else "")
        out.print(f"{name}  {card.summary}", soft_wrap=True)
        out.print(f"    needs    {card.needs}", soft_wrap=True)
        larger = "" if card.scale == 1 else f", shown {card.scale} times larger"
        out.print(f"    video    {size}{larger}, {card.fps:g} frames a second", soft_wrap=True)
        out.print(f"    clips    {'goes on from them (fifo extend)' if card.encoder else 'cannot go on from them'}")
        out.print(
            f"    method   windows of {card.window} frames, partitions {card.partitions}, lookahead {card.lookahead}, "
            f"eta {card.eta:g}, guidance {card.guidance:g}",
            soft_wrap=True,
        )
        if (need := card.memory) is not None:
            out.print(
                f"    memory   {need.least():.1f} GiB on a GPU in half precision with --memory low, "
                f"{need.most(1):.1f} with high and --batch 1, {2 * need.window:.1f} more for each further window "
                "(counted, not measured)",
                soft_wrap=True,
            )


@app.command()
def doctor() -> None:
    """Say what this machine has, and what is missing for what."""
    from fifo_diffusion.doctor import examine

    out, ill = Console(), False
    for finding in examine():
        ill = ill or finding.state == "missing"
        colour = {"ok": "green", "note": "yellow", "missing": "red"}[finding.state]
        out.print(
            f"[{colour}]{finding.state:>8}[/]  [bold]{escape(finding.what)}[/]: {escape(finding.detail)}",
            soft_wrap=True,
        )
    if ill:
        out.print("What is marked missing does not work here.", soft_wrap=True)
        raise typer.Exit(2)
    out.print(
        'All that is needed is here: fifo generate "a red balloon drifting right over snowy mountains"', soft_wrap=True
    )


def _tell(made: Sidecar, output: str, before: Sidecar | None) -> None:
    from fifo_diffusion.sidecar import path_beside

    frames = f"{made.frames_written} frames"
    if made.run.clip is not None:
        frames = f"{made.frames_written} new frames" + (f" after the clip's {n}" if (n := made.clip_frames) else "")
    console.print(
        f"[bold]{escape(output)}[/]  {frames} in {made.wall_seconds:.1f} s with loading and start, "
        f"peak memory {made.peak_memory_mb} MB",
        soft_wrap=True,
    )
    spent = max(sum(made.seconds.values()), 1e-9)
    shares = ", ".join(f"{part} {value / spent:.0%}" for part, value in made.seconds.items())
    beside = path_beside(output)
    settings = "" if beside is None else f"; settings in {escape(str(beside))}"
    console.print(f"[dim]time in {shares}{settings}[/]", soft_wrap=True)
    if before is None or before.run.model_copy(update={"frames": before.frames_written}) != made.run:
        return
    if before.frames_sha256 == made.frames_sha256:
        console.print("[green]identical to the first, bit for bit[/]")
        return
    then, now = ({**m.machine, "weights": m.weights, "version": m.fifo_diffusion} for m in (before, made))
    other = ", ".join(f"{name} was {then.get(name)}, is {now[name]}" for name in now if then.get(name) != now[name])
    console.print(
        f"[yellow]not bit-identical to the first: {escape(other or 'on the same machine')}[/]", soft_wrap=True
    )


def _every(text: str) -> float:
    """Seconds; 0 for none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|)", text)
    if match is None and text != "off":
        raise BadInput(f"--checkpoint-every is {text!r}; give seconds, such as 30s, minutes, such as 5m, or off")
    return 0 if match is None else float(match[1]) * (60 if match[2] == "m" else 1)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise BadInput(f"--size is {text!r}; give WIDTHxHEIGHT in pixels, such as 64x64")
    return int(match[1]), int(match[2])


def _free_name(prompt: str) -> str:
    """A file name from the prompt that nothing has yet."""
    stem = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].rstrip("-") or "video"
    names = (f"{stem}{'' if i == 1 else f'-{i}'}.mp4" for i in range(1, 10_000))
    return next(name for name in names if not Path(name).exists())
