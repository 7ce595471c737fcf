"""However many ranks share the calls, the video is the one that a single rank makes, bit for bit."""

import itertools
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from conftest import make_clip, make_engine
from fifo_diffusion.execute import Serial
from fifo_diffusion.protocols import Call
from fifo_diffusion.ranks import Ranks, _deal
from fifo_diffusion.windows import Keep

PLANS: Sequence[tuple[Keep, int, int, int]] = (  # keep, f, n, k
    ("all", 4, 2, 1),
    ("last", 4, 2, 1),
    ("last", 5, 3, 1),
    ("middle", 6, 2, 2),
    ((1, 4), 6, 2, 1),
    ("last", 1, 3, 1),
)
FRAMES = 6


def frames(keep: Keep, f: int, n: int, k: int, eta: float, ranks: bool) -> Tensor:
    engine = make_engine(
        keep, f, n, k, kind="vp", eta=eta, seeds=(1, 2), execute=lambda d: Ranks(Serial(d)) if ranks else Serial(d)
    )
    warm = engine.stream(engine.warm_start(make_clip(f, streams=2)))
    return torch.cat([frame for frame, _ in itertools.islice(warm, FRAMES)], dim=2)


def work(rank: int, ranks: int, store: str) -> None:
    """One rank: every plan against what it makes alone."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    for (keep, f, n, k), eta in itertools.product(PLANS, (0.0, 1.0)):
        assert torch.equal(frames(keep, f, n, k, eta, ranks=True), frames(keep, f, n, k, eta, ranks=False))
    dist.destroy_process_group()


def together(target: Callable[[int, int, str], None], ranks: int, store: Path) -> list[int | None]:
    """Exit codes of `target(rank, ranks, store)` run as that many processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "fifo_diffusion.engine"])
    runs = [context.Process(target=target, args=(rank, ranks, str(store))) for rank in range(ranks)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    return [run.exitcode for run in runs]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8])
def test_any_number_of_ranks_makes_the_video_of_one(ranks: int, tmp_path: Path) -> None:
    assert together(work, ranks, tmp_path / "store") == [0] * ranks


@pytest.mark.parametrize(("calls", "ranks"), [(8, 3), (4, 8), (1, 1), (5, 5), (0, 2), (16, 7)])
def test_every_call_is_dealt_once_and_evenly_and_rank_0_has_no_more_than_others(calls: int, ranks: int) -> None:
    dealt = [list(turn) for turn in _deal(calls, ranks)]
    assert sorted(itertools.chain(*dealt)) == list(range(calls))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert len(dealt[0]) == min(map(len, dealt))


def count(rank: int, ranks: int, store: str) -> None:
    """Only what is kept travels."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    execute = Ranks(Serial(lambda z, t, cond: z + 1))
    calls = [Call(torch.full((1, 2, 4, 3, 3), float(i)), torch.zeros(1, 4), {}, slice(2, 4)) for i in range(3)]
    for i, answer in enumerate(execute(calls)):
        assert bool((answer[:, :, 2:] == i + 1).all())
        assert bool((answer[:, :, :2] == 0).all())
    assert execute.sent[0] == 2 * (2 * 2 * 3 * 3) * 4  # 2 slots of half a window in float32
    dist.destroy_process_group()


def test_only_what_is_kept_travels(tmp_path: Path) -> None:
    assert together(count, 2, tmp_path / "store") == [0, 0]
