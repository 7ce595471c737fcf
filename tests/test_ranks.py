"""However many ranks share the calls, the video is the one that a single rank makes, bit for bit."""

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import make_clip, make_engine
from fifo_diffusion.config import Cue
from fifo_diffusion.engine import Engine
from fifo_diffusion.execute import Serial
from fifo_diffusion.guidance import Guided, Halves
from fifo_diffusion.models import load
from fifo_diffusion.models.embedded.model import Embedded
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.prompts import Table
from fifo_diffusion.protocols import Call, Cond, Denoiser, Executor
from fifo_diffusion.ranks import Ranks, _deal
from fifo_diffusion.windows import Keep, Plan

pytestmark = pytest.mark.xdist_group("processes")  # many of them at once, so one such test at a time

PLANS: Sequence[tuple[Keep, int, int, int]] = (  # keep, f, n, k
    ("all", 4, 2, 1),
    ("last", 4, 2, 1),
    ("last", 5, 3, 1),
    ("middle", 6, 2, 2),
    ((1, 4), 6, 2, 1),
    ("last", 1, 3, 1),
    ("all", 4, 1, 1),
)
FRAMES = 6
ITERATIONS = 4  # of the embedded network
CUES = (  # windows hear one text or several, with guidance everywhere, nowhere and at some of their frames
    Cue(at=0, prompt="a red balloon drifting right over snowy mountains"),
    Cue(at=1, prompt="a blue whale", guidance=2.5, negative_prompt="a city at night"),
    Cue(at=3, prompt="a green dinosaur", guidance=1, blend=1),
    Cue(at=6, prompt="a yellow bird over the ocean"),
)


def frames(keep: Keep, f: int, n: int, k: int, eta: float, ranks: bool) -> Tensor:
    engine = make_engine(
        keep, f, n, k, kind="vp", eta=eta, seeds=(1, 2), execute=lambda d: Ranks(Serial(d)) if ranks else Serial(d)
    )
    warm = engine.stream(engine.warm_start(make_clip(f, streams=2)))
    return torch.cat([frame for frame, _ in itertools.islice(warm, FRAMES)], dim=2)


@dataclass
class Counted:
    """A network that counts its evaluations, each of one stream and one side of guidance unless `rows` says more."""

    network: Denoiser
    rows: int = 0

    def __call__(self, z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        self.rows += len(z)
        return self.network(z, t, cond)


Way = Callable[[Counted], Executor]
ALONE: Mapping[str, Way] = {
    "together": lambda net: Serial(Guided(net, 4.0)),
    "apart": lambda net: Serial(Guided(net, 4.0, batched=False)),
}
DEALT: Mapping[str, Way] = {
    "together": lambda net: Ranks(Serial(Guided(net, 4.0))),
    "apart": lambda net: Halves(Ranks(Serial(net)), 4.0),
}


def gauss(ranks: bool) -> Iterator[tuple[str, Tensor]]:
    """The frames of every plan, by name."""
    for (keep, f, n, k), eta in itertools.product(PLANS, (0.0, 1.0)):
        yield f"gauss, {keep} {f} {n} {k}, eta {eta}", frames(keep, f, n, k, eta, ranks)


def told(ways: Mapping[str, Way]) -> Iterator[tuple[str, Tensor, list[int]]]:
    """The embedded network with guidance and prompts that change: for every setting its name, the queue after each of
    the first iterations (I, C, L, H, W), and the rows that each of them asked this process's network.
    """
    model = load("embedded", torch.device("cpu"), torch.float32)
    assert isinstance(model, Embedded)
    del model._video.blocks[2:]  # what all eight would say takes four times as long
    prompts = Table(CUES, model.embed, model.embed_negative, model.per_frame_text, guidance=4.0)
    for (keep, f, n, k), eta, halves in itertools.product(PLANS, (0.0, 1.0), ways):
        plan = Plan(f, n, keep, k)
        schedule = model.schedule(plan.levels, "even")
        net = Counted(model.denoiser(schedule))
        engine = Engine(
            plan=plan,
            schedule=schedule,
            execute=ways[halves](net),
            condition=prompts,
            noise=SeededNoise(3),
            eta=eta,
        )
        state = engine.warm_start(make_clip(f, side=2, channels=model.channels).float())
        queues, rows = [], []
        for _ in range(ITERATIONS):
            net.rows = 0
            _, state = engine.advance(state)
            queues.append(state.queue[0])
            rows.append(net.rows)
        yield f"embedded, {keep} {f} {n} {k}, eta {eta}, {halves}", torch.stack(queues), rows


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process says, beside which the ranks lay theirs: a file of queues, and of rows asked."""
    torch.set_num_threads(1)
    file, said = tmp_path_factory.mktemp("alone") / "queues", list(told(ALONE))
    queues = {name: queue for name, queue, _ in said}
    save_file(queues | dict(gauss(ranks=False)) | {f"rows, {name}": torch.tensor(rows) for name, _, rows in said}, file)
    assert all(bool(queue.isfinite().all()) for queue in queues.values())
    return file


def work(rank: int, ranks: int, store: str) -> None:
    """One rank: every plan against what one process made of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    want = load_file(Path(store).with_name("alone"))
    for name, made in gauss(ranks=True):
        assert torch.equal(made, want[name]), name
    for name, queues, rows in told(DEALT):
        assert torch.equal(queues, want[name]), name
        for asked, all_rows in zip(rows, want[f"rows, {name}"].tolist(), strict=True):
            if name.endswith("apart"):  # every half counts alone, so no rank has two more than another
                assert asked in (all_rows // ranks, -(-all_rows // ranks)), name
    dist.destroy_process_group()


def together(target: Callable[[int, int, str], None], ranks: int, store: Path) -> list[int | None]:
    """Exit codes of `target(rank, ranks, store)` run as that many processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "fifo_diffusion.models.embedded.model"])
    runs = [context.Process(target=target, args=(rank, ranks, str(store))) for rank in range(ranks)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    return [run.exitcode for run in runs]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8])
def test_any_number_of_ranks_makes_the_video_of_one(ranks: int, tmp_path: Path, alone: Path) -> None:
    (tmp_path / "alone").symlink_to(alone)
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
    calls = [Call(torch.full((1, 2, 4, 3, 3), float(i)), torch.zeros(1, 4), {}, slice(2, 4)) for i in range(4)]
    for i, answer in enumerate(execute(calls)):
        assert bool((answer[:, :, 2:] == i + 1).all())
        assert bool((answer[:, :, :2] == 0).all())
    assert execute.sent[0] == 2 * (2 * 2 * 3 * 3) * 4  # 2 slots of half a window in float32
    dist.destroy_process_group()


def test_only_what_is_kept_travels(tmp_path: Path) -> None:
    assert together(count, 3, tmp_path / "store") == [0, 0, 0]
