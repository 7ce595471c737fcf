"""An evaluation in a terminal: a row a quantity, a column a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fifo_diffusion.evaluate.page import ARROW
from fifo_diffusion.evaluate.plots import number, plus_minus
from fifo_diffusion.evaluate.result import Evaluation, Mean, Measured


def show(found: Evaluation, console: Console) -> None:
    """The means, and their drift beside them; then the distances."""
    columns = _columns(found)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("quantity", no_wrap=True)
    table.add_column("unit", style="dim", no_wrap=True)
    for name, _ in columns:
        table.add_column(escape(name), justify="right", overflow="fold", min_width=12)
        table.add_column("drift", justify="right", style="dim")
    metric = None
    for quantity in found.quantities:
        if not any(quantity.name in values for _, values in columns):
            continue
        cells = [cell for _, values in columns for cell in _cells(values.get(quantity.name))]
        if metric not in (None, quantity.metric):
            table.add_section()
        metric = quantity.metric
        table.add_row(f"{quantity.name} {ARROW[quantity.better]}".rstrip(), quantity.unit, *cells)
    console.print(table)
    for one in found.sets:
        for distance in one.distances:
            floor = "" if distance.floor is None else f", real against real {number(distance.floor)}"
            value = f"{number(distance.value)} {plus_minus(distance.error)}".rstrip()
            name, of = escape(distance.quantity), escape(distance.of)
            console.print(f"{escape(one.name)}: [bold]{name}[/] {value}{floor} [dim]({of})[/]", soft_wrap=True)


def _columns(found: Evaluation) -> Sequence[tuple[str, Mapping[str, Mean | Measured]]]:
    only = found.sets[0].videos
    if len(found.sets) == 1 and len(only) == 1:
        return [(only[0].name, only[0].measured)]
    return [(one.name, one.means) for one in found.sets]


def _cells(value: Mean | Measured | None) -> tuple[str, str]:
    if value is None:
        return "–", "–"
    error = value.error if isinstance(value, Mean) else None
    return f"{number(value.mean)} {plus_minus(error)}".rstrip(), "–" if value.drift is None else number(value.drift)
