"""Kernel video distances of sets of videos from real ones, and of the first set minus the others, paired by seed.

    python benchmarks/compare.py quality --folder DIR --settings 'n 4 last' 'n 4 middle' ...
    python benchmarks/paired_kvd.py DIR/videos/* --against DIR/real [--first 'n 4 last']

`fifo evaluate` tells the error of each set's distance by itself, and takes clips as independent.  Sets of the same
prompts and seeds share most of that error, and clips of one video are alike.  So here all clips of a seed are left out
together, of both sets and of the reference, whose videos are named SEED-NUMBER: the jackknife over seeds gives the
error of a distance and of a difference.  Only seeds that all sets of a row have count.  By I3D's logits of clips of 16
frames, so it needs `fifo evaluate fetch i3d`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fifo_diffusion.evaluate.distances import Clips
from fifo_diffusion.evaluate.frechet import kernel_distance
from fifo_diffusion.evaluate.means import student
from fifo_diffusion.evaluate.reading import find, open_video
from report import Row, show

LENGTH = 16  # frames of a clip
Said = Mapping[str, Tensor]  # by seed: what the network says of its clips, (clips, features)


class _Kept(Clips):
    """Keeps them all."""

    def __init__(self) -> None:
        super().__init__(LENGTH)
        self.said: list[Tensor] = []

    def keep(self, vectors: Tensor) -> None:
        self.said.append(vectors)


@torch.no_grad()
def said(folder: Path) -> Said:
    """Of a set of videos; what stands behind a dash in their names does not count."""
    out: dict[str, list[Tensor]] = {}
    (found,) = find([folder])
    for path in found.videos:
        opened, gather = open_video(path, path.name, "cpu"), _Kept()
        gather.begin(opened.video)
        first = 0
        for block in opened.blocks():
            gather.push(block, first)
            first += len(block)
        out.setdefault(path.stem.partition("-")[0], []).extend(gather.said)
    return {seed: torch.cat(clips).double() for seed, clips in out.items()}


def distance(one: Said, real: Said, seeds: Sequence[str]) -> float:
    return kernel_distance(*(torch.cat([of[seed] for seed in seeds]) for of in (one, real)))[0]


def jackknife(tell: Callable[[Sequence[str]], float], seeds: Sequence[str]) -> tuple[float, float]:
    """Of all seeds, and the standard error over them."""
    without = torch.tensor([tell([other for other in seeds if other != seed]) for seed in seeds])
    return tell(seeds), float(((len(seeds) - 1) * without.var(correction=0)).sqrt())


def rows(sets: Mapping[str, Said], real: Said, first: str) -> Iterator[Row]:
    for name, one in sets.items():
        seeds = sorted(one.keys() & sets[first].keys() & real.keys())
        value, error = jackknife(lambda some, one=one: distance(one, real, some), seeds)  # type: ignore[misc]
        row: dict[str, str | float | int] = {"set": name, "seeds": len(seeds), "KVD": value, "KVD ±": error}
        if name != first:
            apart, error = jackknife(
                lambda some, one=one: distance(sets[first], real, some) - distance(one, real, some),  # type: ignore[misc]
                seeds,
            )
            far = abs(apart) > student(len(seeds) - 1) * error
            row |= {f"{first} minus it": apart, f"{first} minus it ±": error, "told apart": "yes" if far else "no"}
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", type=Path, help="folders of videos, each video named for its seed")
    parser.add_argument("--against", type=Path, required=True, help="real ones, named SEED-NUMBER")
    parser.add_argument("--first", help="the set that the others are held against (default: the first)")
    given = parser.parse_args()
    real = said(given.against)
    sets = {folder.name: said(folder) for folder in given.sets}
    first = given.first or given.sets[0].name
    if first not in sets:
        parser.error(f"--first is {first!r}; the sets are {', '.join(sets)}")
    show(f"kernel video distance from real renders, beside {first}", list(rows(sets, real, first)))


if __name__ == "__main__":
    main()
