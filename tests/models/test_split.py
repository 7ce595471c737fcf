"""A network split over the ranks of a group, windows dealt over the groups: the video of one rank but for rounding."""

import itertools
import os
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_wan
import torch
import torch.distributed as dist
from tiny_parts import noise
from torch import Tensor
from torch.nn import Module

from fifo_diffusion import api
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.engine import Engine
from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Serial
from fifo_diffusion.groups import Agreed, Groups, check_split, groups
from fifo_diffusion.guidance import Guided
from fifo_diffusion.lost import silence
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.models.eight_bits import in_eight_bits
from fifo_diffusion.models.split import Part
from fifo_diffusion.models.wan import LARGE, SMALL, split_wan, wan
from fifo_diffusion.noise import SeededNoise
from fifo_diffusion.protocols import Cond, Executor
from fifo_diffusion.ranks import Ranks
from fifo_diffusion.schedule import rectified_flow
from fifo_diffusion.sinks.reading import read_frames
from fifo_diffusion.windows import Plan
from test_ranks import together
from test_together import COMMAND
from torchrun import TORCHRUN

pytestmark = pytest.mark.xdist_group("processes")  # many of them at once, so one such test at a time

ROUNDING = 2e-5  # of latents about 1: sums of another order, in float32, over 8 levels of 2 evaluations


def no_group() -> Any:
    raise AssertionError("nothing travels before the network is asked")


def frames(network: Module, deal: Callable[[Executor], Executor] = lambda alone: alone) -> Tensor:
    """Six frames of a queue of eight levels."""
    texts = {"text": noise(1, 7, tiny_wan.WIDTH, seed=1), "negative_text": noise(1, 7, tiny_wan.WIDTH, seed=2)}

    def denoise(z: Tensor, t: Tensor, cond: Cond, /) -> Tensor:
        return wan(network, z, t, cond["text"])

    alone: Executor = Serial(Guided(denoise, 5.0))
    engine = Engine(
        plan=Plan(4, 2, "last"),
        schedule=rectified_flow(8, 3.0),
        execute=deal(alone),
        condition=lambda frames: texts,
        noise=SeededNoise(0),
    )
    with torch.no_grad():
        warm = engine.stream(engine.warm_start(noise(1, 16, 4, 4, 6, seed=3)))
        return torch.cat([frame for frame, _ in itertools.islice(warm, 6)], dim=2)


def dealt(made: Groups, alone: Executor) -> Executor:
    return Ranks(Agreed(alone, made.within), made.across)


def work(rank: int, ranks: int, store: str) -> None:
    """One rank: close to what one makes alone, and the same bits as every other; rank 0 leaves the frames behind."""
    torch.set_num_threads(1)
    os.environ["FIFO_SILENCE"] = "77"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    alone = frames(tiny_wan.transformer(heads=4))
    for size in {2, ranks}:
        made, network = groups(size), tiny_wan.transformer(heads=4)
        for group in (made.within, made.across):
            assert group._get_backend(torch.device("cpu")).options._timeout == silence()
        split_wan(network, Part(rank % size, size, partial(getattr, made, "within")))
        got = frames(network, partial(dealt, made))
        every = [torch.empty_like(got) for _ in range(ranks)]
        dist.all_gather(every, got)
        assert all(torch.equal(one, got) for one in every)
        torch.testing.assert_close(got, alone, rtol=0, atol=ROUNDING)
        if rank == 0:
            torch.save(got, f"{store}.by {size}")
    if ranks == 2:  # in eight bits it is about as near to float32 as the whole network in eight bits
        eight = tiny_wan.transformer(heads=4)
        for each in (eight, network):
            in_eight_bits(each, torch.float32, products=True)
        whole, split = (made - alone for made in (frames(eight), frames(network, partial(dealt, made))))
        assert 0.2 < float(split.square().mean() / whole.square().mean()) < 1.5
    # Where the ranks of a group disagree, all go on with what its first one said.
    (answer,) = Agreed(lambda calls: [torch.full((3,), float(rank))], groups(2).within)([])
    assert torch.equal(answer, torch.full((3,), float(rank // 2 * 2)))
    dist.barrier()
    dist.destroy_process_group()


def test_two_groups_of_two_make_what_one_rank_makes_and_what_one_group_makes(tmp_path: Path) -> None:
    """But for rounding, and to the bit; and so does one group of four."""
    for ranks in (2, 4):
        assert together(work, ranks, tmp_path / str(ranks)) == [0] * ranks
    one, two = (torch.load(tmp_path / f"{ranks}.by 2") for ranks in (2, 4))
    assert torch.equal(one, two)
    assert float(one.std()) > 0.3


def held(network: Module) -> int:
    """Bytes of weights that a process holds."""
    return sum(weight.untyped_storage().nbytes() for weight in network.parameters())


@pytest.mark.parametrize(("options", "whole", "half"), [(SMALL, 5.29, 2.69), (LARGE, 53.23, 27.06)])
def test_each_rank_holds_its_share_of_the_published_sizes_weights(
    options: Mapping[str, Any], whole: float, half: float
) -> None:
    """GiB in float32; the layers around the blocks are whole on every rank."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        network = WanTransformer3DModel(**options)
    assert held(network) / 2**30 == pytest.approx(whole, abs=0.01)
    split_wan(network, Part(0, 2, no_group))
    assert held(network) / 2**30 == pytest.approx(half, abs=0.01)


def test_the_parts_are_the_network() -> None:
    """Nothing is held twice and nothing by no one."""
    whole = tiny_wan.transformer(heads=4)
    parts = [tiny_wan.transformer(heads=4) for _ in range(2)]
    for place, network in enumerate(parts):
        split_wan(network, Part(place, 2, no_group))
    name = "blocks.1.attn1.to_q.weight"
    rows = [network.state_dict()[name] for network in parts]
    assert torch.equal(torch.cat(rows), whole.state_dict()[name])
    name = "blocks.0.ffn.net.2{}.weight"
    columns = [network.state_dict()[name.format(".own")] for network in parts]
    assert torch.equal(torch.cat(columns, dim=1), whole.state_dict()[name.format("")])
    assert held(parts[0]) == held(parts[1]) < 0.75 * held(whole)


def test_every_split_of_a_card_divides_heads_and_width() -> None:
    for name, options in (("wan-1.3b", SMALL), ("wan-14b", LARGE)):
        for size in MODELS[name].splits:
            assert options["num_attention_heads"] % size == options["ffn_dim"] % size == 0


def test_what_cannot_be_split_is_refused() -> None:
    check_split(1, 3, (1,), "gauss")
    check_split(2, 4, (1, 2), "wan-1.3b")
    for size, ranks, able, said in (
        (2, 2, (1,), "gauss cannot be split over 2 ranks; leave --split out"),
        (3, 3, (1, 2, 4), "cannot be split over 3 ranks; it can be split over 2, 4"),
        (2, 3, (1, 2), "groups of 2 ranks and there are 3"),
        (2, 1, (1, 2), "this is one process alone; start a multiple of 2"),
    ):
        with pytest.raises(BadInput, match=said):
            check_split(size, ranks, able, "gauss" if able == (1,) else "wan-1.3b")
    with pytest.raises(BadInput, match="one process alone"):
        resolve(Run.of({"prompt": "a", "model": "wan-1.3b", "split": 2, "device": "cpu"}))


def test_the_command_makes_the_pictures_of_one_process(tmp_path: Path) -> None:
    """But for a step of 256; the ranks make the base clip together, and end with no thread at work."""
    weights = tiny_wan.make(tmp_path / "weights")
    said = {"model": "wan-1.3b", "weights": weights, "size": (16, 16), "partitions": 1, "frames": 6, "device": "cpu"}
    api.make(Run.of({"prompt": "a red balloon", **said}), f"{tmp_path / 'alone'}/")
    flags = ["--model", "wan-1.3b", "--weights", weights, "--size", "16x16", "-n", "1", "--frames", "6", "-q"]
    (tmp_path / "command.py").write_text(COMMAND)
    ranks = [*TORCHRUN, "--standalone", "--nproc-per-node", "4", "command.py"]
    job = subprocess.run(
        [*ranks, "generate", "a red balloon", "--split", "2", *flags, "-o", "split/"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stderr=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    assert job.returncode == 0, job.stderr
    assert "gloo" not in job.stderr, job.stderr
    assert "float32" not in job.stderr, job.stderr  # diffusers warns of what is none of the user's affairs
    pairs = list(zip(read_frames(tmp_path / "split"), read_frames(tmp_path / "alone"), strict=True))
    assert len(pairs) == 6
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in pairs)
