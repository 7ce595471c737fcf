"""`fifo evaluate`, and what stands below it: `fifo evaluate metrics` and `fifo evaluate gates`."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import signal
import sys
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand

from fifo_diffusion.cli.app import app, console, flag, option
from fifo_diffusion.cli.generate import generate
from fifo_diffusion.cli.mistyped import Group
from fifo_diffusion.cli.values import size_of
from fifo_diffusion.errors import BadInput
from fifo_diffusion.interrupt import listen

if TYPE_CHECKING:
    from fifo_diffusion.evaluate.choosing import Chosen
    from fifo_diffusion.evaluate.reading import Found
    from fifo_diffusion.evaluate.result import VideoResult
    from fifo_diffusion.evaluate.vbench import VBench

_MAKING = "Making the videos (flags of fifo generate)"
_making = partial(option, panel=_MAKING)
_LENT = (
    "model", "weights", "lora", "frames", "seed", "negative_prompt", "size", "fps", "scale", "crf", "method", "steps",
    "stride", "overlap", "repeats", "partitions", "frames_per_level", "lookahead", "guidance", "guidance_levels", "eta",
    "solver", "levels", "start", "dtype", "fp8", "batch", "memory", "halves", "compile",
)  # fmt: skip


_UNSAID = "-"  # the name of the command that is meant where none is said; nobody can type it as a file


class _Evaluate(Group):
    """A group whose first command is meant where none is named: what follows are videos."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [_UNSAID, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == _UNSAID else name, command, rest  # the name that the help shows


class _Nameless(typer.Context):
    @property
    def command_path(self) -> str:
        return super().command_path.rstrip()  # else usage has a gap where the name would stand


class _Meant(TyperCommand):
    """The command without a name."""

    context_class = _Nameless


evaluation = typer.Typer(
    cls=_Evaluate, add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
)
app.add_typer(evaluation, name="evaluate", help="Measure videos: motion, flicker, drift, distances; JSON and a page.")


def videos(
    what: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Video files, folders of videos, folders of pictures.", metavar="WHAT...", show_default=False
        ),
    ] = None,
    output: Annotated[
        str | None, option("Writes NAME.json and NAME.html (default: evaluation).", "--output", "-o")
    ] = None,
    against: Annotated[
        Path | None, option("Folder of reference videos, for distances such as FVD, and real against real.")
    ] = None,
    metrics: Annotated[
        str | None, option("By name, with commas, usual or all: see `fifo evaluate metrics` (default: usual).")
    ] = None,
    vbench: Annotated[
        bool,
        flag("VBench's custom-video dimensions too, by its own package.", "--vbench"),
    ] = False,
    clip: Annotated[
        Path | None, option("A CLIP's folder, for how well frames show their prompt (or FIFO_CLIP in the environment).")
    ] = None,
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:1, mps (default: auto).")] = None,
    quiet: Annotated[bool, flag("No progress line and no table.", "--quiet", "-q")] = False,
    prompts: Annotated[
        Path | None, _making("A prompt a line, or a job a line as in fifo batch; makes a video of each and seed.")
    ] = None,
    seeds: Annotated[int, _making("Of each prompt so many videos, from --seed on (default: 1).")] = 1,
    videos: Annotated[
        Path | None, _making("The folder for the videos (default: NAME.videos); what is finished there is kept.")
    ] = None,
    png: Annotated[bool, flag("Folders of PNG, exact pixels, not mp4.", "--png", panel=_MAKING)] = False,
    **said: Any,
) -> None:
    """Measure videos, and write the findings as JSON and as a page with plots and contact sheets.

    fifo evaluate balloon.mp4

    fifo evaluate ours/ theirs/ --against real/ -o comparison

    fifo evaluate --prompts prompts.txt --seeds 5 --frames 200 --method freenoise -o freenoise

    A folder is a set, and has a column of its own; files named one by one are a set together. Every video is read once,
    as a stream, so a long one takes time but no memory. Each quantity comes with its course over time and its drift,
    |M(first 15 %) - M(last 15 %)|.

    A video that cannot be read is a failed row, and the exit code is then 1. Ctrl-C writes what was measured by then.

    `fifo evaluate metrics` lists what can be measured here, `fifo evaluate fetch` brings the published networks that
    some of them look through, `fifo evaluate gates` measures the embedded model.
    """
    from fifo_diffusion.evaluate import reading
    from fifo_diffusion.evaluate.choosing import choose
    from fifo_diffusion.whole import check_writable

    said_output = "evaluation" if output is None else output
    name = Path(re.sub(r"\.(json|html)$", "", said_output))
    if name.name == "" or os.path.isdir(name) or not name.parent.is_dir():
        raise BadInput(f"--output is {said_output!r}; give a name in a folder that exists, such as evaluation")
    check_writable(name.with_name(f"{name.name}.html"))
    making = {key: value for key, value in said.items() if value not in (None, [])}
    if prompts is None and (making or videos is not None or png or seeds != 1):
        first = next(iter(making), "videos" if videos is not None else "png" if png else "seeds")
        raise BadInput(f"--{first.replace('_', '-')} is for making videos; say of which prompts with --prompts FILE")
    if prompts is None and not what:
        raise BadInput("nothing was given to evaluate; name videos or folders, or make some with --prompts FILE")
    sets = reading.find(what or ())
    if clip is not None:
        if not os.path.isdir(clip):
            raise BadInput(f"--clip is {clip}, which is no folder; give that of a CLIP, with its config.json")
        os.environ["FIFO_CLIP"] = str(clip)
    named = [one for part in (metrics or "").split(",") if (one := part.strip())]
    chosen = choose(named, against is not None)
    reference = None if against is None else _reference(against)

    from fifo_diffusion.devices import choose_device

    where = str(choose_device(device or "auto"))
    scorer = None
    if vbench:
        from fifo_diffusion.evaluate.vbench import check

        scorer = check(where)
    if prompts is not None:
        folder = videos or name.with_name(name.name + ".videos")
        # A batch deals the devices of one kind itself.
        settings = making if device is None else {**making, "device": device.partition(":")[0]}
        made = folder.name if folder.name not in {found.name for found in sets} else f"{folder} (made)"
        sets.append(_made(made, prompts, seeds, folder, png, settings, quiet))
    _measure(sets, chosen, reference, where, name, scorer, quiet)


def _measure(
    sets: list[Found],
    chosen: Chosen,
    reference: Found | None,
    device: str,
    name: Path,
    scorer: VBench | None,
    quiet: bool,
) -> None:
    from fifo_diffusion.evaluate.evaluation import Asked, evaluate
    from fifo_diffusion.evaluate.terminal import show
    from fifo_diffusion.making import machine
    from fifo_diffusion.progress import Progress

    listen(signal.default_int_handler)
    command = shlex.join(["fifo", *sys.argv[1:]])
    asked = Asked(sets, chosen, reference, device, command, machine(device), scorer)
    progress = Progress(console, quiet)

    def ended(video: VideoResult) -> None:
        if video.error is not None:
            progress.note(f"[red]failed[/]  [bold]{escape(video.name)}[/]  {escape(video.error)}")

    with progress:
        found = evaluate(asked, name, progress, ended)
    if not quiet:
        show(found, Console(highlight=False))
        for one in found.unmeasured:
            console.print(f"[dim]not measured: {escape(one.metric)}: {escape(one.why)}[/]", soft_wrap=True)
        count = sum(len(one.videos) for one in sets)
        noun = "video" if count == 1 else "videos"
        console.print(
            f"[bold]{escape(str(name))}.html[/] and .json  {count} {noun} in {found.wall_seconds:.1f} s, "
            f"peak memory {found.peak_memory_mb} MB",
            soft_wrap=True,
        )
    if found.stopped:
        raise typer.Exit(130)
    if found.failed:
        raise typer.Exit(1)


def _reference(path: Path) -> Found:
    from fifo_diffusion.evaluate import reading

    if not os.path.exists(path):
        raise BadInput(f"--against is {path}, and there is none; name a folder of reference videos")
    (found,) = reading.find([path])
    return found


def _made(
    name: str, prompts: Path, seeds: int, folder: Path, png: bool, settings: dict[str, Any], quiet: bool
) -> Found:
    """Make the videos as `fifo batch` does, whose list is left beside them; those that failed become failed rows."""
    from fifo_diffusion.batch.jobs import read
    from fifo_diffusion.cli.batch import batch
    from fifo_diffusion.evaluate.reading import Found
    from fifo_diffusion.evaluate.seeds import listed
    from fifo_diffusion.whole import write_whole

    if "size" in settings:
        settings["size"] = size_of(settings["size"])
    lines = listed(prompts, seeds, settings, png)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = folder / "jobs.jsonl"
    write_whole(jobs, "".join(json.dumps(line) + "\n" for line in lines).encode())
    try:
        batch(jobs, folder, quiet=quiet)
    except typer.Exit as end:
        if end.exit_code != 1:  # 1: some failed
            raise
    finally:
        listen(signal.default_int_handler)
    return Found(name, tuple(folder / job.output.rstrip("/") for job in read(jobs).values()))


def _with_lent() -> inspect.Signature:
    """The flags of `videos`, and of `generate` those that make a video what it is."""
    own = [p for p in inspect.signature(videos, eval_str=True).parameters.values() if p.name != "said"]
    theirs = inspect.signature(generate, eval_str=True).parameters
    lent = []
    for name in _LENT:
        kind, declared = get_args(theirs[name].annotation)[:2]
        declared = copy(declared)
        declared.rich_help_panel = _MAKING
        lent.append(theirs[name].replace(annotation=Annotated[kind, declared], kind=inspect.Parameter.KEYWORD_ONLY))
    return inspect.Signature([*own, *lent])


videos.__signature__ = _with_lent()  # type: ignore[attr-defined]
evaluation.command(_UNSAID, cls=_Meant)(videos)


@evaluation.command("metrics")
def metrics() -> None:
    """List what can be measured, what each metric needs, and whether it is ready to be used here."""
    from fifo_diffusion.evaluate.known import known
    from fifo_diffusion.evaluate.metric import SetMetric
    from fifo_diffusion.evaluate.page import ARROW

    out = Console(highlight=False)
    for metric in known():
        why = metric.missing()
        state, takes = ("[green]ready[/]", "uses") if why is None else ("[yellow]not ready[/]", "needs")
        kind = "  [dim]with --against[/]" if isinstance(metric, SetMetric) else ""
        kind += "" if metric.usual else "  [dim]only when named[/]"
        what = f"  [dim]{takes} {escape(metric.needs)}[/]" if metric.needs else ""
        out.print(f"[bold]{metric.name}[/]  {state}{kind}{what}", soft_wrap=True)
        if why is not None:
            out.print(f"    [yellow]{escape(why)}[/]", soft_wrap=True)
        for quantity in metric.quantities:
            unit = f" [dim]{escape(quantity.unit)}[/]" if quantity.unit else ""
            arrow = f" {ARROW[quantity.better]}" if ARROW[quantity.better] else ""
            out.print(f"    {escape(quantity.name)}{arrow}{unit}  {escape(quantity.says)}", soft_wrap=True)
