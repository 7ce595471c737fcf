"""FIFO and the methods it is compared with: one network, the same prompts and seeds, in one run.

    python benchmarks/compare.py exact
    python benchmarks/compare.py cost [--lengths 128 256 512 1024] [--levels 16]
    python benchmarks/compare.py quality --folder DIR [--frames 128] [--seeds 5] [--settings 'n 4 last' ...]

exact: the Gaussian video, whose network is perfect (f 16, 64 levels): what the method itself loses of variance
1 and of correlation .9, .656 and .185 over 1, 4 and 16 frames.

cost: time and peak memory against length, each cell a process of its own, at few levels (FIFO has 16, one partition;
the others --levels) and without guidance, which changes how many evaluations there are and not how they grow: what
denoising takes is told for a frame and level, the decoder's share left out, and as a multiple of what FIFO takes at
that length.  Time is of the processor, one thread; what else runs on the machine changes it, so compare within one run.

quality: every method at its defaults (64 levels) makes the same captions of the embedded world, a caption a seed, and a
judge that knows real renders only (DIR holds it, or it is trained there) says what is right.  `world` is the real
video.  Every video is kept in DIR/videos/METHOD/SEED, as pictures, with a contact sheet in DIR/sheets, and four more
renders of each caption in DIR/real, so that `fifo evaluate DIR/videos/* --against DIR/real -o REPORT` measures all that
it knows, `world` too, and `python benchmarks/paired.py REPORT.json` compares them.  Errors are standard errors over
seeds.  -n makes it cheaper: so many partitions, and 16 times as many levels for the others.  --settings compares ways
of FIFO, by the names that `fidelity.py` has for them, instead of methods; --model embedded-df those of the other
network of that world.

Cells that are done are kept in a file of JSON lines, --kept; stopped, the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image

from fidelity import PLAIN, SETTINGS
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.evaluate.gates import trained_judge
from fifo_diffusion.evaluate.judge import ATTRIBUTES
from fifo_diffusion.evaluate.means import mean_and_error
from fifo_diffusion.meter import peak_memory
from fifo_diffusion.methods import METHODS, lacks
from fifo_diffusion.models import card
from fifo_diffusion.session import Session
from fifo_diffusion.sinks import open_sink
from fifo_diffusion.world.captions import plain
from fifo_diffusion.world.clips import HELD_OUT_VARIANTS, World
from fifo_diffusion.world.kinds import SMALL
from looks import MEASURES, PACES, Video, drift, histogram, right
from report import Row, show

NAMES = ("fifo", *METHODS)
RENDERS = 4  # real ones of each caption, to measure distances from
PROMPT = "a red balloon moving right over snowy mountains"
Cell = dict[str, Any]
OWN = ("eta", "setting", "model")  # what a cell without them is not: another cell's
NAMED = [name for name, setting in SETTINGS.items() if not {"tail", "levels_a_place"} & setting.keys()]


def cost(cell: Cell) -> Cell:
    """Processor seconds, and the process's peak memory."""
    levels = {"partitions": 1} if cell["method"] == "fifo" else {"steps": cell["levels"]}
    run = Run.of({"prompt": PROMPT, "method": cell["method"], "frames": cell["frames"], "guidance": 1.0, **levels})
    session = Session(resolve(run))
    session.model.embed([PROMPT])  # loaded, which all methods do alike
    began, first = time.process_time(), 0.0
    for number, _ in enumerate(session.frames()):
        first = first or (time.process_time() - began if number == 0 else 0.0)
    spent = time.process_time() - began
    return {**cell, "seconds": spent, "first frame after": first, "peak MB": peak_memory() / 2**20}


def quality(cell: Cell, folder: Path) -> Cell:
    """Scores of one video, and their drift; its contact sheet goes into the folder."""
    art = SMALL.art(folder)
    rng = np.random.default_rng(1000 + cell["seed"])
    caption = World(art).draw_caption(rng)
    began = time.process_time()
    if cell["method"] == "world":
        video = World(art, variants=HELD_OUT_VARIANTS).clip(caption, rng, cell["frames"])
    else:
        said = {"prompt": plain(caption), "seed": cell["seed"], "frames": cell["frames"]}
        if "setting" in cell:
            said |= {**PLAIN, **SETTINGS[cell["setting"]], "model": cell["model"]}
        else:
            said |= {"method": cell["method"]} | ({} if cell.get("eta") is None else {"eta": cell["eta"]})
            n = cell["partitions"]
            said |= {"partitions": n} if cell["method"] == "fifo" else {"steps": n * card("embedded").window}
        video = np.stack(list(Session(resolve(Run.of(said))).frames()))
    out = {**cell, "caption": plain(caption), "seconds": time.process_time() - began}
    for name, values in right(trained_judge(art, folder), video, caption).items():
        out |= {name: float((values > 0.5).mean()), f"{name} drift": drift(values)}
    for name, measure in MEASURES.items():
        values = measure(video)
        out |= {name: float(values.mean()), f"{name} drift": drift(values)}
        if name == "flow":
            out["histogram"] = histogram(values)
    sheet(video, folder / "sheets" / f"{cell['seed']}-{cell['frames']}-{name_of(cell)}.png")
    keep(video, folder / "videos" / name_of(cell) / str(cell["seed"]))
    return out


def render(folder: Path, seeds: int, frames: int) -> None:
    """More real renders of the same captions, none of them the `world` that is compared."""
    world = World(SMALL.art(folder), variants=HELD_OUT_VARIANTS)
    for seed in range(seeds):
        caption = world.draw_caption(np.random.default_rng(1000 + seed))
        for number in range(RENDERS):
            if not (kept := folder / "real" / f"{seed}-{number}").exists():
                keep(world.clip(caption, np.random.default_rng((seed, number)), frames), kept)


def keep(video: Video, where: Path) -> None:
    """As pictures, which are exact."""
    where.parent.mkdir(parents=True, exist_ok=True)
    with open_sink(f"{where}/", fps=10, size=(64, 64)) as sink:
        for frame in video:
            sink.write(frame)


def exact(name: str, eta: float, frames: int = 96, side: int = 32) -> Row:
    """Variance and correlations of the exact video, over all frames and pixels."""
    said = {"prompt": "-", "model": "gauss", "method": name, "size": (side, side), "frames": frames, "eta": eta}
    session = Session(resolve(Run.of(said)))
    latents = session.latents(session.start()) if name == "fifo" else session.sampled()
    video = torch.cat(list(islice(latents, frames)), dim=2)[0, :, :frames].transpose(0, 1).flatten(1)
    row: dict[str, str | float | int] = {"method": name, "eta": eta, "variance": float(video.square().mean())}
    for lag in (1, 4, 16):
        row[f"lag {lag}"] = float((video[:-lag] * video[lag:]).mean() / video.square().mean())
    return row


def name_of(cell: Cell) -> str:
    if "setting" in cell:
        return str(cell["setting"]) if cell["model"] == "embedded" else f"{cell['model']}, {cell['setting']}"
    return str(cell["method"]) if cell.get("eta") is None else f"{cell['method']} eta {cell['eta']:g}"


def sheet(video: Video, path: Path, across: int = 12) -> None:
    """Frames evenly spread over the video, and under them neighbouring ones from its middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spread = np.linspace(0, len(video) - 1, across).round().astype(int)
    middle = np.arange(across) + max(0, (len(video) - across) // 2)
    rows = [np.concatenate(list(video[at.clip(max=len(video) - 1)]), axis=1) for at in (spread, middle)]
    picture = Image.fromarray(np.concatenate(rows))
    picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST).save(path)


def fill(cells: list[Cell], kept: Path, more: list[str]) -> list[Cell]:
    """Every cell that is not there yet, in a process of its own; then all of them."""
    for cell in cells:
        if find(cell, kept) is None:
            command = [sys.executable, __file__, *more, "--cell", json.dumps(cell)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            with kept.open("a") as file:
                file.write(said.splitlines()[-1] + "\n")
    return [made for cell in cells if (made := find(cell, kept)) is not None]


def find(cell: Cell, kept: Path) -> Cell | None:
    """What was made of a cell."""
    rows = (json.loads(line) for line in kept.read_text().splitlines()) if kept.exists() else ()
    return next((row for row in rows if {**row, **cell} == row and all(row.get(n) == cell.get(n) for n in OWN)), None)


def costs(cells: list[Cell]) -> Iterator[Row]:
    """The decoder's share is known where a method decodes after it has denoised all: then the first frame is late by
    the denoising, and the rest is decoding, which is alike for all methods.
    """
    decoding: dict[int, list[float]] = {}  # by length, of each such method, seconds a frame
    for cell in cells:
        if cell["method"] in METHODS and not METHODS[cell["method"]].endless:
            spent = (cell["seconds"] - cell["first frame after"]) / (cell["frames"] - 1)
            decoding.setdefault(cell["frames"], []).append(spent)
    denoising = {
        (cell["method"], frames): 1000 * (cell["seconds"] / frames - fmean(decoding[frames])) / cell["levels"]
        for cell in cells
        if (frames := cell["frames"]) in decoding
    }
    for cell in cells:
        row: dict[str, str | float | int] = {"method": cell["method"], "frames": (frames := cell["frames"])}
        row["levels"] = cell["levels"]
        row["ms a frame"] = 1000 * cell["seconds"] / frames
        row["of it decoding"] = 1000 * fmean(decoding[frames]) if frames in decoding else ""
        spent, ours = (denoising.get((name, frames)) for name in (cell["method"], "fifo"))
        row["denoising, ms a frame and level"] = "" if spent is None else spent
        row["times fifo's"] = "" if spent is None or ours is None else spent / ours
        first = 100 * cell["first frame after"] / cell["seconds"]
        yield {**row, "first frame after % of the time": first, "peak MB": round(cell["peak MB"])}


def scores(cells: list[Cell]) -> Iterator[Row]:
    """A row a method: means over seeds, and standard errors behind them."""
    for name in dict.fromkeys(map(name_of, cells)):
        of = [cell for cell in cells if name_of(cell) == name]
        row: dict[str, str | float | int] = {"method": name}
        for what in (*ATTRIBUTES, *MEASURES):
            row[what] = mean([c[what] for c in of], 100 if what in ATTRIBUTES else 1)
            row[f"{what} drift"] = mean([c[f"{what} drift"] for c in of], 100 if what in ATTRIBUTES else 1)
        yield row


def mean(values: list[float], scale: float) -> str:
    middle, error = mean_and_error([scale * value for value in values])
    return f"{middle:.1f}" + ("" if error is None else f" ±{error:.1f}")


def motions(cells: list[Cell]) -> Iterator[Mapping[str, str | float]]:
    """The share of frames by how far they move, over all seeds."""
    for name in dict.fromkeys(map(name_of, cells)):
        shares = np.mean([cell["histogram"] for cell in cells if name_of(cell) == name], axis=0)
        yield {"method": name, **{f">= {pace:g} px": float(s) for pace, s in zip(PACES, shares, strict=True)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("exact", "cost", "quality"))
    parser.add_argument("--kept", type=Path, help="default: compare-cost.jsonl, or DIR/compare-quality.jsonl")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--levels", type=int, default=16, help="cost: of all but FIFO")
    parser.add_argument("--folder", type=Path, help="quality: where art and judge are, or will be")
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--partitions", "-n", type=int, help="quality: default is the model's own")
    parser.add_argument("--methods", nargs="+", default=list(NAMES))
    parser.add_argument("--settings", nargs="+", choices=NAMED, default=[], metavar="SETTING", help="quality: of FIFO")
    parser.add_argument("--model", choices=("embedded", "embedded-df"), default="embedded", help="of --settings")
    parser.add_argument("--even", action="store_true", help="quality: every method at eta 0 too")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    said = parser.parse_args()
    torch.set_num_threads(1)
    if said.what == "quality" and said.folder is None:
        parser.error("quality needs --folder, where the judge is or will be trained")
    if said.what == "exact":
        able = [name for name in said.methods if name == "fifo" or lacks(METHODS[name], card("gauss")) is None]
        show("the exact video", [exact(name, eta) for name in able for eta in (0.0, 1.0)])
    elif said.cell is not None:
        print(json.dumps(cost(said.cell) if said.what == "cost" else quality(said.cell, said.folder)))
    elif said.what == "cost":
        cells: list[Cell] = [
            {"method": name, "frames": length, "levels": 16 if name == "fifo" else said.levels}
            for length in said.lengths
            for name in said.methods
        ]
        made = fill(cells, said.kept or Path("compare-cost.jsonl"), ["cost"])
        about = f"{' and '.join(map(str, said.lengths))} frames"
        show(f"methods: time and memory against length, {about}", list(costs(made)))
    else:
        ways: list[Cell] = [{"method": name} for name in ("world", *said.methods)]
        n = said.partitions or card("embedded").partitions
        plan = {"frames": said.frames, "partitions": n}
        if said.settings:
            ways[1:] = [{"method": "fifo", "setting": name, "model": said.model} for name in said.settings]
        cells = [{**way, **plan, "seed": seed} for seed in range(said.seeds) for way in ways]
        if said.even and not said.settings:  # FreeNoise's eta is 0: what the others are at that
            ways = [
                {"method": name, "eta": 0.0}
                for name in said.methods
                if name not in METHODS or METHODS[name].eta is None
            ]
            cells += [{**way, **plan, "seed": seed} for seed in range(said.seeds) for way in ways]
        kept = said.kept or said.folder / "compare-quality.jsonl"
        made = fill(cells, kept, ["quality", "--folder", str(said.folder)])
        render(said.folder, said.seeds, said.frames)
        of = f"ways of {said.model}" if said.settings else f"n {n}"
        about = f"{said.frames} frames, {of}, {said.seeds} seeds"
        show(f"methods: share of frames by motion, {about}", list(motions(made)))
        show(f"methods: what shows and drift behind each, {about}", list(scores(made)))


if __name__ == "__main__":
    main()
