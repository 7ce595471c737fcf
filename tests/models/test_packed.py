"""Finished weights in eight bits: what is read is close to what was written, and small enough to ship."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fifo_diffusion.models.embedded import packed


@pytest.mark.parametrize(
    ("shape", "bits", "steps"),
    [
        ((96, 192), 8, 127),
        ((40, 130), 8, 127),
        ((64, 12, 3, 3), 8, 127),
        ((8192, 2), 8, 127),
        ((96, 192), 6, 31),
        ((40, 132), 6, 31),
        ((40, 130), 6, 127),  # rows that six bits do not fit
    ],
)
def test_a_number_is_off_by_half_a_step_of_its_group_at_most(
    shape: tuple[int, ...], bits: int, steps: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    weight[0, 0] = 1000.0  # costs its own group precision, and no other
    packed.write({"some.weight": weight}, tmp_path / "w.safetensors", bits)
    read = packed.read(tmp_path / "w.safetensors")
    assert read.keys() == {"some.weight"}
    assert read["some.weight"].dtype == torch.float32
    off, rows = (read["some.weight"] - weight).flatten(1).abs(), weight.flatten(1)
    for first in range(0, rows.shape[1], packed.GROUP):
        group = slice(first, first + packed.GROUP)
        step = rows[:, group].abs().amax(dim=1, keepdim=True) / steps
        assert (off[:, group] <= 0.51 * step + 1e-7).all()  # half a step, and what rounding the step adds
    assert (off.norm() / rows[1:].norm()) > (1e-2 if steps == 31 else 1e-3)  # not more bits: this test would see it


@pytest.mark.parametrize("bits", [8, 6])
def test_what_is_read_is_written_the_same_again(bits: int, tmp_path: Path) -> None:
    """Or weights that are trained a part at a time would fade with every export."""
    torch.manual_seed(0)
    weights = {"a": torch.randn(64, 100) * torch.logspace(-9, 3, 64)[:, None], "b": torch.randn(7)}
    packed.write(weights, tmp_path / "one.safetensors", bits)
    packed.write(packed.read(tmp_path / "one.safetensors"), tmp_path / "two.safetensors", bits)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_large_ones_take_a_byte_a_number_and_small_ones_stay_in_half_precision(tmp_path: Path) -> None:
    weights = {"large": torch.ones(256, 256), "norm": torch.full((6000,), 1 / 3), "small": torch.full((8, 8), 1 / 3)}
    weights["large"][1] = 0
    packed.write(weights, tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").stat().st_size < 256 * 256 * 1.05 + 2 * 6000 + 2 * 64 + 1000
    assert (load_file(tmp_path / "w.safetensors")["large.scale"] > 0).all()
    read = packed.read(tmp_path / "w.safetensors")
    for name in ("norm", "small"):
        assert torch.equal(read[name], weights[name].half().float())
    assert torch.equal(read["large"][1], weights["large"][1])


def test_six_bits_take_three_quarters_of_a_byte_a_number(tmp_path: Path) -> None:
    packed.write({"large": torch.randn(256, 256)}, tmp_path / "w.safetensors", 6)
    assert (tmp_path / "w.safetensors").stat().st_size < 256 * 256 * (0.75 + 2 / 64) + 1000


def test_files_whole_in_half_precision_are_read_too(tmp_path: Path) -> None:
    """As they were written before; `--weights` may name one."""
    weights = {"some.weight": torch.randn(128, 64).half(), "some.bias": torch.randn(128).half()}
    save_file(weights, tmp_path / "w.safetensors")
    read = packed.read(tmp_path / "w.safetensors")
    assert all(torch.equal(read[name], value.float()) for name, value in weights.items())
    assert load_file(tmp_path / "w.safetensors").keys() == read.keys()
