"""`fifo generate` and `fifo extend`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fifo_diffusion.cli.app import EVERY, KEEP, OUTPUT, PREVIEW, app, flag, option
from fifo_diffusion.cli.live import BLEND, LIVE, Live
from fifo_diffusion.cli.running import run_watched, tell
from fifo_diffusion.cli.values import blend_of, seconds_of, size_of
from fifo_diffusion.errors import BadInput

if TYPE_CHECKING:
    from fifo_diffusion.config import Cue
    from fifo_diffusion.progress import Progress
    from fifo_diffusion.sidecar import Sidecar


_video, _story, _method, _machine, _stopping = (
    partial(option, panel=name) for name in ("Video", "Story", "Method", "Machine", "Stopping and going on")
)
_LOOKAHEAD = "off, last (the paper's lookahead), middle (keeps each window's middle), or frames to keep, such as 6-14."


@app.command()
def generate(
    prompt: Annotated[
        str | None, typer.Argument(help="What the video shows.", metavar="PROMPT", show_default=False)
    ] = None,
    output: Annotated[str | None, option(OUTPUT, "--output", "-o")] = None,
    model: Annotated[str | None, option("One of `fifo models` (default: embedded).", "--model", "-m")] = None,
    weights: Annotated[str | None, option("Hub id, folder or file to load instead of the model's own.")] = None,
    lora: Annotated[list[str] | None, option("LoRA to add, FILE or FOLDER, or either:scale; may be repeated.")] = None,
    sidecar: Annotated[
        Path | None, option("Make the video of this .json again; other flags change it.", "--from")
    ] = None,
    clip: Annotated[
        str | None, option("Go on from this video, picture or folder of pictures (see `fifo extend`).")
    ] = None,
    only_new: Annotated[bool, flag("With a clip: leave its own frames out of the file.", "--only-new")] = False,
    preview: Annotated[str | None, option(PREVIEW)] = None,
    quiet: Annotated[bool, flag("No progress line and no summary.", "--quiet", "-q")] = False,
    frames: Annotated[int | None, _video("How many; 0 goes on until Ctrl-C (default: 10 seconds).")] = None,
    seconds: Annotated[float | None, _video("How long, instead of --frames.")] = None,
    seed: Annotated[int | None, _video("The same seed is the same video (default: 0).")] = None,
    negative_prompt: Annotated[str | None, _video("What it should not show.")] = None,
    size: Annotated[str | None, _video("WIDTHxHEIGHT in pixels, where the model allows it.")] = None,
    fps: Annotated[float | None, _video("Frames a second of the file; VideoCrafter2 hears it too.")] = None,
    scale: Annotated[int | None, _video("Enlarge frames so many times (default: the model's).")] = None,
    crf: Annotated[
        int | None, _video("Encoder quality, lower is better and larger: mp4 1-51 (default 18), webm 0-63 (24).")
    ] = None,
    prompts: Annotated[
        list[str] | None, _story("'120: a blue whale' or '4.5s: ...': from that frame or second on.", "--prompt")
    ] = None,
    script: Annotated[Path | None, _story("YAML list of {at, prompt, negative, guidance, blend}.")] = None,
    blend: Annotated[str | None, _story(BLEND)] = None,
    live: Annotated[bool, flag(f"{LIVE}; --frames is then 0.", "--live", panel="Story")] = False,
    method: Annotated[
        str | None,
        _method("fifo, or to compare with: plain, chunked, genlvideo, freenoise, freelong, riflex (default: fifo)."),
    ] = None,
    steps: Annotated[int | None, _method("Noise levels of the other methods (default: as many as FIFO has).")] = None,
    stride: Annotated[int | None, _method("genlvideo, freenoise, freelong: from one window to the next.")] = None,
    overlap: Annotated[int | None, _method("chunked: frames that each clip takes over from the last.")] = None,
    repeats: Annotated[
        int | None, _method("riflex: latent frames after which the network repeats itself (default: the model's).")
    ] = None,
    partitions: Annotated[
        int | None, _method("Windows the queue is cut into: more is slower and finer.", "--partitions", "-n")
    ] = None,
    lookahead: Annotated[str | None, _method(_LOOKAHEAD)] = None,
    frames_per_level: Annotated[
        int | None, _method("Frames that share a level and leave together: as many times faster, coarser (default: 1).")
    ] = None,
    guidance: Annotated[float | None, _method("Guidance scale; 1 is off and twice as fast.")] = None,
    guidance_levels: Annotated[
        str | None, _method("FIRST-LAST: guidance at these noise levels only; faster, not the same (default: all).")
    ] = None,
    eta: Annotated[float | None, _method("Fresh noise while denoising, from 0 (none) to 1.")] = None,
    solver: Annotated[str | None, _method("ddim, or 2m: second order, eta 0 (default: ddim).")] = None,
    levels: Annotated[str | None, _method("even, or paper: the authors' table (default: even).")] = None,
    start: Annotated[
        str | None,
        _method(
            "clip (a base clip of the model) or noise (default: clip). --begin under torchrun.", "--start", "--begin"
        ),
    ] = None,  # torchrun takes --start for a short form of its own --start-method
    device: Annotated[str | None, _machine("auto, cpu, cuda, cuda:1, mps (default: auto).")] = None,
    dtype: Annotated[str | None, _machine("auto, float32, bfloat16, float16 (default: auto).")] = None,
    fp8: Annotated[
        str | None,
        _machine(
            "weights: keep the network's weights in 8 bits, half the memory, less exact; products: multiply in 8 bits "
            "too, on Ada, Hopper and later GPUs, less exact still (default: off)."
        ),
    ] = None,
    split: Annotated[int | None, _machine("Ranks of torchrun that share one network too large for one GPU.")] = None,
    batch: Annotated[int | None, _machine("Most windows computed at once (twice that with guidance).")] = None,
    compile: Annotated[  # noqa: A002
        str | None, _machine("on, off or auto: torch.compile of the network (default: auto).")
    ] = None,
    memory: Annotated[str | None, _machine("auto, low (for a small GPU; slower) or high (default: auto).")] = None,
    halves: Annotated[
        str | None, _machine("Guidance's halves: together, or apart, which ranks can share (last bits differ).")
    ] = None,
    checkpoint_every: Annotated[str, _stopping(EVERY)] = "30s",
    keep_checkpoints: Annotated[bool, flag(KEEP, "--keep-checkpoints", panel="Stopping and going on")] = False,
) -> None:
    """Make a video from a prompt, of any length, in constant memory.

    fifo generate "a red balloon drifting right over snowy mountains" -o balloon.mp4

    A file of that name is replaced once the new one is whole.  Ctrl-C finishes the file; `fifo resume balloon.mp4` goes
    on with it, after a crash or a kill too.

    Settings without a default here are the model's own; `fifo models` lists them.
    """
    said = _settings(locals())  # while those are the flags and nothing else
    from fifo_diffusion.config import Run
    from fifo_diffusion.models import pace
    from fifo_diffusion.script import table
    from fifo_diffusion.sidecar import again, read

    before = None if sidecar is None else read(sidecar)
    if before is not None:
        said = again(before, said)
        same = said["model"] == before.run.model  # another model has a scale of its own
        scale = before.scale if scale is None and same else scale
        only_new = only_new or (before.run.clip is not None and before.clip_frames == 0)
        if crf is None and Path(output or "named.mp4").suffix.lower() in (".mp4", ".webm"):
            crf = before.crf
    rate = pace(said)
    if (length := _length(frames, seconds, live, rate)) is not None:
        said["frames"] = length
    if blend is not None and not (prompts or script or live):
        raise BadInput(f"--blend {blend} has no prompts to go between; give --prompt, --script or --live with it")
    over = 0 if blend is None else blend_of(blend, rate)
    if cues := _cues(prompts or (), script, rate, over):
        first = said.get("prompt") if prompt is not None or cues[0].at > 0 else None  # or the one of --from
        said |= table(cues, first)
    if "prompt" not in said:
        other = "--script or --from" if clip is None else "--script"  # fifo extend has no --from
        raise BadInput(f"no prompt was given; say what the video shows in quotes, or give {other}")
    if live:  # as where prompts change by frame, see `decide`
        said.setdefault("compile", "off")
    run = Run.of(said)

    from fifo_diffusion import api

    if output is None:  # an empty name is none that was meant, such as that of a variable nobody set
        output = _free_name(run.prompt if clip is None else f"{Path(clip).stem} extended")
    said_live = Live.of(live, over)
    every = seconds_of(checkpoint_every)

    def make(progress: Progress) -> Sidecar:
        return api.make(
            run, output, scale=scale, crf=crf, only_new=only_new, preview=preview,
            checkpoint_every=every, keep_checkpoints=keep_checkpoints, watch=progress, warn=progress.warn,
            tell=progress.tell, ready=said_live.ready(progress),
        )  # fmt: skip

    made = run_watched(quiet or said_live.typed, output, make)
    if not quiet:
        tell(made, output, before)


def _settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Of all flags the settings of the run that were said."""
    from fifo_diffusion.config import Run

    said = {name: value for name, value in flags.items() if name in Run.model_fields and value not in (None, [])}
    return said | {"size": size_of(said["size"])} if "size" in said else said


def _length(frames: int | None, seconds: float | None, live: bool, fps: float) -> int | None:
    """In frames; None where no flag says it.  Raises BadInput."""
    if seconds is None:
        return 0 if live and frames is None else frames
    if frames is not None:
        raise BadInput(f"both --frames {frames} and --seconds {seconds:g} were given; give one of them")
    if not 0 < seconds < 2**40:
        raise BadInput(
            f"--seconds is {seconds:g}; it must be above 0 and below {2**40} (for a video without end say --frames 0)"
        )
    return max(1, round(seconds * fps))


def _cues(prompts: Sequence[str], file: Path | None, fps: float, blend: int) -> list[Cue]:
    """Of --prompt or --script; empty without either.  Raises BadInput."""
    from fifo_diffusion import script

    if file is None:
        return script.spoken(prompts, fps, blend)
    if prompts:
        raise BadInput("both --prompt and --script were given; put all prompts into the script, or none")
    return script.read(file, fps, blend)


def extend(**said: Any) -> None:
    """Go on from a video, a picture (.png, .jpg, .webp) or a folder of pictures.

    fifo extend clip.mp4 "a red balloon drifting right over snowy mountains" -o longer.mp4

    The file holds the clip, cropped and resampled to what the model knows, and then --frames new ones; --only-new
    leaves the clip out.  Say what the clip shows, or what is to come of it.  All else is as in `fifo generate`.
    """
    generate(**said)


def _of_extend() -> inspect.Signature:
    """The flags of `generate`, with the clip as the first argument."""
    flags = inspect.signature(generate, eval_str=True).parameters
    named = typer.Argument(help="Video, picture or folder of pictures to go on from.", metavar="CLIP")
    first = inspect.Parameter("clip", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Annotated[str, named])
    rest = (declared for name, declared in flags.items() if name not in ("clip", "sidecar", "start"))
    return inspect.Signature([first, *rest])


extend.__signature__ = _of_extend()  # type: ignore[attr-defined]
app.command()(extend)


def _free_name(prompt: str) -> str:
    """A file name from the prompt that nothing has yet, but what torchrun had begun before it started anew.

    One of a killed run is named again, which is refused in words; without a run it is another's that is being made.
    """
    from fifo_diffusion.api import began

    def free(name: str) -> bool:
        under_way = Path(f"{name.removesuffix('.mp4')}.partial.mp4").exists() and not Path(f"{name}.run").exists()
        return not (Path(name).exists() or under_way) or began(name) is not None

    stem = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].rstrip("-") or "video"
    names = (f"{stem}{'' if i == 1 else f'-{i}'}.mp4" for i in range(1, 10_000))
    return next(name for name in names if free(name))
