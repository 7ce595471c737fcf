"""However the calls are shared out, the answers are the same."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from fifo_diffusion.engine import Engine
from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Batched, Serial
from fifo_diffusion.protocols import Call, Cond, Denoiser


def take(e: Engine, clip: Tensor, n: int) -> Tensor:
    return torch.cat([frames for frames, _ in itertools.islice(e.stream(e.warm_start(clip)), n)], dim=2)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["flow", "vp"])
def test_executors_give_the_same_frames(
    engine: Callable[..., Engine], clip: Callable[..., Tensor], kind: str, eta: float
) -> None:
    def frames(execute: Callable[[Denoiser], Serial | Batched]) -> Tensor:
        e = engine(window=6, partitions=3, kind=kind, eta=eta, execute=execute, seeds=(0, 1))
        return take(e, clip(6, streams=2), 10)

    want = frames(Serial)
    assert torch.equal(frames(lambda d: Batched(d, 1)), want)  # the same calls, so the same bits
    for limit in (4, 6, 100):
        got = frames(lambda d, limit=limit: Batched(d, limit))  # type: ignore[misc]
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@dataclass
class Recorder:
    """Adds what it hears to what it sees, and counts."""

    batches: list[int] = field(default_factory=list)

    def __call__(self, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        self.batches.append(len(z))
        return z + t[:, None, :, None, None] + cond["mean"].view(len(z), 1, -1, 1, 1)


def calls(count: int, streams: int = 2) -> Sequence[Call]:
    return [
        Call(
            torch.full((streams, 1, 3, 1, 1), float(i)),
            torch.arange(3).expand(streams, -1) / 10,
            {"mean": 100.0 * i + torch.arange(streams)},
        )
        for i in range(count)
    ]


def test_each_window_hears_its_own_conditions_and_the_limit_holds() -> None:
    want = Serial(Recorder())(calls(7))
    for limit, batches in ((1, [2] * 7), (3, [6, 6, 2]), (7, [14]), (99, [14])):
        net = Recorder()
        got = Batched(net, limit)(calls(7))
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        assert net.batches == batches


@pytest.mark.parametrize(
    ("limit", "count", "batches"),
    [(8, 7, [16]), (8, 5, [16]), (8, 3, [8]), (6, 5, [12]), (3, 8, [6, 6, 4]), (1, 2, [2, 2])],
)
def test_a_compiled_network_sees_few_sizes(limit: int, count: int, batches: list[int]) -> None:
    net = Recorder()
    got = Batched(net, limit, few_sizes=True)(calls(count))
    assert all(torch.equal(a, b) for a, b in zip(got, Serial(Recorder())(calls(count)), strict=True))
    assert (len(got), net.batches) == (count, batches)


def test_windows_whose_frames_hear_different_texts_are_a_batch_of_their_own() -> None:
    mixed = [
        call if i not in (2, 5) else call._replace(cond={"mean": 100.0 * i + torch.arange(6.0).view(2, 3)})
        for i, call in enumerate(calls(7))
    ]
    net = Recorder()
    got = Batched(net, 4)(mixed)
    assert all(torch.equal(a, b) for a, b in zip(got, Serial(Recorder())(mixed), strict=True))
    assert net.batches == [8, 2, 4]


def test_no_calls_need_no_network() -> None:
    net = Recorder()
    assert Batched(net, 2)([]) == Serial(net)([]) == []
    assert net.batches == []


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        Batched(Recorder(), 0)


FULL = (  # as CUDA says it, and Apple's MPS
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 17 GB). Tried to allocate 1.2 GB on private pool."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),  # a graph's
)


@pytest.mark.parametrize("full", FULL, ids=["cuda", "mps", "beside torch"])
def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(full: RuntimeError) -> None:
    asked: list[int] = []

    def small(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        asked.append(len(z))
        if len(z) > room:
            raise full
        return z + 1

    calls = [Call(torch.full((1, 1, 2, 1, 1), float(i)), torch.zeros(1, 2), {}) for i in range(7)]
    room, execute = 2, Batched(small, 99)
    with pytest.warns(UserWarning, match="7 windows at once do not fit.*goes on with 3"):
        answers = execute(calls)
    assert [float(a[0, 0, 0, 0, 0]) for a in answers] == [i + 1 for i in range(7)]
    assert asked == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    execute(calls[:2])
    assert asked[-2:] == [1, 1]  # it remembers
    room = 0
    with pytest.raises(type(full), match="out of memory"):
        execute(calls)


def test_a_batch_whose_layers_others_compute_too_is_not_halved_by_one_rank() -> None:
    asked: list[int] = []

    def small(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        asked.append(len(z))
        raise FULL[0]

    calls = [Call(torch.zeros(1, 1, 2, 1, 1), torch.zeros(1, 2), {})] * 3
    with pytest.raises(torch.OutOfMemoryError):
        Batched(small, 99, gives_way=False)(calls)
    assert asked == [3]
