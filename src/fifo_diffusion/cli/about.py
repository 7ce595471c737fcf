"""`fifo info`, `fifo models` and `fifo doctor`: what there is, without making anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from fifo_diffusion.cli.app import app

if TYPE_CHECKING:
    from fifo_diffusion.models.card import Card


@app.command()
def info(
    video: Annotated[
        str, typer.Argument(help="A video, a picture, or a folder of them, that fifo made.", metavar="VIDEO")
    ],
) -> None:
    """Tell the prompt, seed and settings that a video was made with."""
    from fifo_diffusion.api import told

    out = Console(highlight=False)
    for name, value in told(video).items():
        if value not in ("", (), []):
            out.print(f"[bold]{name:<16}[/] {escape(_in_words(name, value))}", soft_wrap=True)


def _in_words(name: str, value: Any) -> str:
    """As it would be said to `fifo generate`."""
    several = isinstance(value, tuple | list)  # other programs' tags may be of any shape
    if name == "size" and several:
        return "x".join(map(str, value))
    if name == "cues" and several and all(isinstance(cue, dict) and {"at", "prompt"} <= cue.keys() for cue in value):
        return "; ".join(f"{cue['at']}: {cue['prompt']}" + _blended(cue) for cue in value)
    return ", ".join(map(str, value)) if several else str(value)


def _blended(cue: Mapping[str, Any]) -> str:
    also = {name: value for name, value in cue.items() if name not in ("at", "prompt") and value is not None}
    if also.get("blend") == 0:
        del also["blend"]
    return f" ({', '.join(f'{name} {value}' for name, value in also.items())})" if also else ""


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="Only this one, with what it reached where that was measured.", metavar="MODEL")
    ] = None,
) -> None:
    """List the models, what they need, and the settings they are run with unless you say otherwise."""
    from fifo_diffusion.models import card
    from fifo_diffusion.models.cards import MODELS

    out = Console()
    for one in MODELS.values() if name is None else (card(name),):
        _describe(one, out, scored=name is not None)


def _describe(card: Card, out: Console, scored: bool) -> None:
    """scored: list the plans that were measured; else say that there are some."""
    from fifo_diffusion.config import Run
    from fifo_diffusion.methods import METHODS, lacks

    other = f" or any other multiple of {card.multiple or card.space}" if card.any_size else ""
    size = f"{card.size[0]}x{card.size[1]} pixels{other}"
    default = " (the default)" if card.name == Run.model_fields["model"].default else ""
    out.print(f"[bold]{card.name}[/]{default}  {card.summary}", soft_wrap=True)
    out.print(f"    needs    {card.needs}", soft_wrap=True)
    larger = "" if card.scale == 1 else f", shown {card.scale} times larger"
    out.print(f"    video    {size}{larger}, {card.fps:g} frames a second", soft_wrap=True)
    out.print(f"    clips    {'goes on from them (fifo extend)' if card.encoder else 'cannot go on from them'}")
    out.print(
        f"    method   windows of {card.windows}, partitions {card.partitions}, lookahead {card.lookahead}, "
        f"eta {card.eta:g}, guidance {card.guidance:g}",
        soft_wrap=True,
    )
    able = ", ".join(["fifo", *(kind.name for kind in METHODS.values() if lacks(kind, card) is None)])
    out.print(f"    methods  {able}", soft_wrap=True)
    if (need := card.memory) is not None:
        out.print(
            f"    memory   {need.least():.1f} GiB on a GPU in half precision with --memory low, "
            f"{need.most(1):.1f} with high and --batch 1, {2 * need.window:.1f} more for each further window; "
            f"{need.stays - need.eight:.1f} less with --fp8 weights (counted, not measured)",
            soft_wrap=True,
        )
    _tell_scores(card, out, scored)


def _tell_scores(card: Card, out: Console, each: bool) -> None:
    from fifo_diffusion.models.scores import scores

    if not (plans := scores(card.name, card.size)):
        return
    if not each:
        out.print(f"    scores   {len(plans)} plans were measured: fifo models {card.name}", highlight=False)
        return
    out.print(
        "    scores   of plans that were measured (docs/method.md), ± the standard error: how much shows of "
        "what was told; distance from the model's own clips; flicker (that of real renders)",
        soft_wrap=True,
    )
    widest = max(len(plan.flags) for plan in plans)
    for plan in plans:
        out.print(
            f"             {plan.flags:<{widest}}  told {plan.told:3.0f} %, "
            f"distance {plan.distance:4.1f} ±{plan.distance_error:.1f} ‰, flicker {plan.flicker:.2f} "
            f"±{plan.flicker_error:.2f} ({plan.real_flicker:.2f}), {plan.streams} streams, {plan.date}",
            soft_wrap=True,
            highlight=False,
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
