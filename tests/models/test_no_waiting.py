"""An iteration asks the device for nothing: no number, no truth, no shape that depends on one is fetched, and nothing
is made of Python's numbers on the way, which would have to be sent there.  A GPU would stand still for each.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Case, named
from tiny_parts import noise
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fifo_diffusion.engine import Engine, Solver, State
from fifo_diffusion.execute import Batched
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models import load
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.models.embedded.model import Embedded
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import GUIDANCE, NEGATIVE
from fifo_diffusion.schedule import rectified_flow
from fifo_diffusion.windows import Plan

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default: "a number is fetched",
    aten.equal.default: "two tensors are compared",
    aten.nonzero.default: "a shape depends on numbers",
    aten.masked_select.default: "a shape depends on numbers",
    aten.lift_fresh.default: "a tensor is made of Python's numbers",
}


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises AssertionError where a device would be waited for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        assert func not in WAITS, f"{WAITS[func]} ({func})"
        if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default):
            assert not any(i is not None and i.dtype is torch.bool for i in args[1]), f"a mask is an index ({func})"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: int(x[0]),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
    ],
)
def test_the_test_sees_what_waits(wait: Callable[[Tensor], object]) -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError), NoWaiting():  # type: ignore[no-untyped-call]
        wait(x)


def engine_of(case: Case, folder: Path, device: torch.device) -> tuple[Engine, State]:
    """A model at tiny size, each stream of its windows with a guidance of its own, in a queue of noise."""
    model = load(case.name, device, torch.float32, case.weights(folder))
    if isinstance(model, Embedded) and device.type == "cpu":
        model.save_memory()  # there, and only there, it looks at what it is asked: see `Once`
    plan, schedule = Plan(MODELS[case.name].window, 1, "last"), model.schedule(MODELS[case.name].window, "even")
    positive, negative = model.embed(["a red balloon"]), model.embed_negative(["a blue fish, and more"])
    cond = {**positive, **{NEGATIVE + name: c for name, c in negative.items()}, GUIDANCE: torch.tensor([[3.0]])}
    engine = Engine(
        plan=plan,
        schedule=schedule,
        execute=Batched(Guided(model.denoiser(schedule), 2.0), 2),
        condition=lambda frames: cond,
        noise=SeededNoise(0),
        eta=1.0,
    )
    return engine, State(0, noise(1, model.channels, plan.length, case.side, case.side).to(device))


# The exact Gaussian video is an instrument, and asks; a family is one code, so one of each is enough.
REAL = named(
    "embedded", "videocrafter2", "videocrafter1", "zeroscope", "latte", "latte-ucf101", "open-sora-plan", "wan-1.3b"
)


@pytest.mark.parametrize("case", REAL, ids=lambda case: case.name)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_iteration_waits_for_nothing(case: Case, device: str, tmp_path: Path) -> None:
    """The first one may, to send tables that stay there."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    engine, state = engine_of(case, tmp_path, torch.device(device))
    _, state = engine.advance(state)
    try:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        with NoWaiting():  # type: ignore[no-untyped-call]
            for _ in range(2):
                frames, state = engine.advance(state)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert frames.shape[2] == 1


@pytest.mark.parametrize(("eta", "solver"), [(1.0, "ddim"), (0.0, "2m")])
@pytest.mark.parametrize("start", ["clip", "noise", "given"])
def test_no_start_and_no_solver_waits(start: str, eta: float, solver: Solver) -> None:
    """With guidance that changes from frame to frame; in a first run each kind of call may send what stays there."""
    plan = Plan(4, 2, "last")
    cond = {"text": torch.ones(1), "negative_text": torch.zeros(1), GUIDANCE: torch.tensor([[1.0, 2.0, 3.0, 4.0]])}
    engine = Engine(
        plan=plan,
        schedule=rectified_flow(plan.levels),
        execute=Batched(Guided(lambda z, t, cond: z * t[:, None, :, None, None] / 1000 - cond["text"].mean(), 2.0), 2),
        condition=lambda frames: cond,
        noise=SeededNoise(0),
        eta=eta,
        solver=solver,
    )
    clip = torch.zeros(1, 3, 4, 2, 2)
    starts: dict[str, Callable[[Tensor], State]] = {
        "clip": engine.warm_start,
        "given": engine.continue_from,
        "noise": lambda x: engine.cold_start(x[:, :, 0]),
    }

    def run() -> None:
        state = first
        while state.iteration < 2:
            _, state = engine.advance(state)

    first = starts[start](clip)
    run()
    with NoWaiting():  # type: ignore[no-untyped-call]
        run()
