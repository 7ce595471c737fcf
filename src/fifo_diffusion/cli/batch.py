"""`fifo batch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fifo_diffusion.cli.app import app, console, flag, option
from fifo_diffusion.cli.values import seconds_of
from fifo_diffusion.errors import BadInput
from fifo_diffusion.interrupt import listen

if TYPE_CHECKING:
    from fifo_diffusion.batch.jobs import Job
    from fifo_diffusion.batch.pool import Pool

_EVERY = "Seconds between checkpoints of each video; off for none (default: 30s)."


@app.command()
def batch(
    jobs: Annotated[Path, typer.Argument(help="The list: JSON Lines, a job a line.", metavar="JOBS.jsonl")],
    out: Annotated[Path, option("The folder for the videos and for results.jsonl.", "--out", "-o")],
    ray: Annotated[
        str | None,
        option(
            "Run on the Ray cluster at this address (HOST:PORT, or auto) instead; DIR must be on storage that all its "
            "nodes share."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        option("Jobs at a time (default: one for each GPU, or one on a CPU; on Ray as many as it has room for)."),
    ] = None,
    threads: Annotated[
        int | None,
        option("CPU threads of each job; the last bit of a video depends on it (default: all, dealt evenly)."),
    ] = None,
    tries: Annotated[int, option("How often a job is begun when its workers die (default: 3).")] = 3,
    checkpoint_every: Annotated[str, option(_EVERY)] = "30s",
    quiet: Annotated[bool, flag("Say only what failed.", "--quiet", "-q")] = False,
) -> None:
    """Make the videos of a list, on this machine's devices or on a Ray cluster.

    fifo batch jobs.jsonl --out DIR

    A line is one video: its output, and any setting of a video's .json, such as
    {"output": "balloon.mp4", "prompt": "a red balloon", "seed": 1, "frames": 200, "scale": 3}

    Further keys: cues or script (a YAML file) for prompts that change, scale, crf, only_new. All lines are checked
    before anything is made.

    After Ctrl-C, a crash or a kill, run the same command again: what is finished is skipped, what was under way goes on
    from its checkpoints. What came of each job stands in DIR/results.jsonl, a line a job.

    Exit code: 0 when all jobs are done, 1 when some are not, 2 for a bad list, 130 after Ctrl-C.
    """
    for name, number in (("--workers", workers), ("--threads", threads), ("--tries", tries)):
        if number is not None and number < 1:
            raise BadInput(f"{name} is {number}; give 1 or more")
    every = seconds_of(checkpoint_every)
    from fifo_diffusion.batch import driver, table
    from fifo_diffusion.batch.jobs import read
    from fifo_diffusion.job import ranks

    if ranks() > 1:
        raise BadInput("fifo batch has workers of its own, a whole video each; run it without torchrun")
    todo = read(jobs)
    folder = out.absolute()
    with driver.opened(jobs, todo, folder) as (results, left):
        pool, each = _pool(ray, folder, [todo[n] for n in left], workers, threads)
        stops = _Stops()
        try:
            with table.Table(console, todo, results.lines, left, quiet) as shown:
                driver.Driver(todo, left, folder, pool, results, shown, every, each, tries, stops.stopping).run()
        finally:
            pool.close()
    if stops.came:
        console.print("stopped; run the same command again to go on", soft_wrap=True)
        raise typer.Exit(130)
    if shown.count("done") < len(todo):
        raise typer.Exit(1)


def _pool(ray: str | None, folder: Path, left: list[Job], workers: int | None, threads: int | None) -> tuple[Pool, int]:
    """The workers, and the threads of each."""
    import torch

    if ray is not None:
        from fifo_diffusion.batch.cluster import Cluster

        return (cluster := Cluster(ray, folder, left, workers, threads)), cluster.threads
    from fifo_diffusion.batch.local import Local

    local = Local(workers)
    local.check(left)
    return local, threads or max(1, torch.get_num_threads() // local.workers)


class _Stops:
    """The first Ctrl-C, SIGTERM or end of the terminal is noted, the second is KeyboardInterrupt."""

    def __init__(self) -> None:
        self.came = 0
        listen(self._hear)

    def stopping(self) -> bool:
        return self.came > 0

    def _hear(self, number: int, frame: object) -> None:
        self.came += 1
        if self.came > 1:
            raise KeyboardInterrupt
