"""A compiled network answers what the network answers, and is compiled once however times and prompts change."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from cases import Case, named
from tiny_parts import noise
from torch import _dynamo as dynamo
from torch._dynamo.utils import counters

from fifo_diffusion import Engine, Plan, decide, devices
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.engine import State
from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Batched
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models import load
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.prompts import Table

CPU = torch.device("cpu")
TRIED = named("embedded", "wan-1.3b", "latte", "open-sora-plan")  # a UNet takes 20 s to trace


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    dynamo.reset()
    counters.clear()
    yield
    dynamo.reset()


@pytest.mark.filterwarnings("ignore")  # torch's own, of what it leaves out of sight
@pytest.mark.parametrize("case", TRIED, ids=lambda case: case.name)
def test_it_is_compiled_once_while_times_and_prompts_change(case: Case, tmp_path: Path) -> None:
    window = MODELS[case.name].window
    cut = window // 2 if window % 2 == 0 else 0
    weights = case.weights(tmp_path)
    frames: dict[str, torch.Tensor] = {}
    graphs = 0
    for way in ("as it is", "compiled"):
        model = load(case.name, CPU, torch.float32, weights)
        if way == "compiled":
            model.compile("eager")  # the same kernels, so the same bits: what is tried is what torch traces
        plan = Plan(window, 2, "last" if cut else "all")
        schedule = model.schedule(plan.levels, "even")
        prompts = Table(
            Run.of({"prompt": "a red balloon"}).table, model.embed, model.embed_negative, guidance=3.0,
            per_frame=False, negative_prompt="", frames_per_latent=1,
        )  # fmt: skip
        engine = Engine(
            plan=plan, schedule=schedule, execute=Batched(Guided(model.denoiser(schedule), 3.0), 1),
            condition=prompts, noise=SeededNoise(0), eta=1.0,
        )  # fmt: skip
        state = State(0, noise(1, model.channels, plan.length, case.side, case.side))
        prompts.begin(engine.entered(state))
        for i in range(3):
            if i == 1:
                # For all frames at once, and of another length.
                prompts.cues = Run.of({"prompt": "a blue whale far away over the ocean"}).table
            _, state = engine.advance(state)
            graphs = counters["stats"]["unique_graphs"] if i == 0 else graphs
        frames[way] = state.queue
    assert graphs >= 1
    assert counters["stats"]["unique_graphs"] == graphs, "it was compiled again"
    # Compiled, these two read all tokens and mask what is not said, and do not cut it off.
    close = 1e-4 if case.name in ("latte", "open-sora-plan") else 0.0
    torch.testing.assert_close(frames["compiled"], frames["as it is"], rtol=0, atol=close)


def test_whatever_card_says_that_it_has_a_network_has_a_class_that_compiles_it() -> None:
    """`--compile auto` goes by the card, on GPUs, where no test here runs."""
    for name, card in MODELS.items():
        module, _, function = card.loader.partition(":")
        loader = getattr(import_module(module), function)
        made = get_type_hints(getattr(loader, "func", loader))["return"]
        assert (made.compile is not Model.compile) == card.network, name


def test_a_run_says_whether_it_is_compiled_and_a_model_without_a_network_is_refused() -> None:
    assert resolve(Run.of({"prompt": "a", "device": "cpu"})).compile == "off"
    assert resolve(Run.of({"prompt": "a", "device": "cpu", "compile": "on"})).compile == "on"
    with pytest.raises(BadInput, match="no network to compile"):
        resolve(Run.of({"prompt": "0", "model": "gauss", "compile": "on"}))
    assert resolve(Run.of({"prompt": "0", "model": "gauss"})).compile == "off"


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_window_cut_from_a_queue_needs_no_other_graph() -> None:
    """Strides of a dimension of one are those of what was cut: a first version compiled again for them."""
    model = load("embedded", CPU, torch.float32, None)
    model.compile("eager")
    denoise, cond = model.denoiser(model.schedule(64, "even")), model.embed(["a red balloon"])
    z, t = torch.zeros(1, model.channels, 40, 8, 8), torch.linspace(10, 900, 40)[None]
    denoise(z[:, :, :16].contiguous(), torch.zeros(1, 16), cond)
    for start in (0, 8, 24):
        denoise(z[:, :, start : start + 16], t[:, start : start + 16], cond)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    ("lacking", "frames", "memory", "wanted"),
    [
        ((), 0, "high", "on"),
        ((), 300, "high", "on"),
        ((), 299, "high", "off"),  # not worth the minutes
        ((), 0, "low", "off"),  # what is compiled keeps its memory
        (("triton",), 0, "high", "off"),
        (("compilers",), 0, "high", "off"),  # as in images that hold no more than what runs
        (("volta",), 0, "high", "off"),
    ],
)
def test_auto_compiles_on_a_gpu_that_can(
    lacking: tuple[str, ...], frames: int, memory: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is here: what torch and the system say of one is put in."""
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(devices, "find_spec", lambda _: None if "triton" in lacking else object())
    monkeypatch.setattr(devices, "which", lambda _: None if "compilers" in lacking else "/usr/bin/gcc")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1) if "volta" in lacking else (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "P100")
    assert devices.choose_compile("auto", gpu, frames, memory) == wanted
    if lacking:
        with pytest.raises(BadInput, match="--compile on needs"):
            devices.choose_compile("on", gpu, frames)
    else:
        assert devices.choose_compile("on", gpu, frames) == "on"


def test_auto_compiles_nothing_where_prompts_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their windows have shapes of their own, which would be compiled in the midst of the video."""
    monkeypatch.setattr(decide, "choose_compile", lambda asked, *_: "on" if asked == "auto" else asked)
    cues = ({"at": 0, "prompt": "a bee"}, {"at": 9, "prompt": "a bus"})
    assert decide.resolve(Run.of({"prompt": "a bee"})).compile == "on"
    assert decide.resolve(Run.of({"prompt": "a bee", "cues": cues})).compile == "off"
    assert decide.resolve(Run.of({"prompt": "a bee", "cues": cues, "compile": "on"})).compile == "on"
