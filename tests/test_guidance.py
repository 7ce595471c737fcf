"""Classifier-free guidance: which side hears what, at which cost."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from fifo_diffusion.errors import BadInput
from fifo_diffusion.execute import Serial
from fifo_diffusion.guidance import Guided, Halves
from fifo_diffusion.protocols import Call, Cond


@dataclass
class Linear:
    """A network whose answer tells what it was given, and that counts its work."""

    batches: list[int] = field(default_factory=list)

    def __call__(self, z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        self.batches.append(len(z))
        assert set(cond) == {"text", "fps"}
        return z * t[:, None, :, None, None] + (cond["text"] * cond["fps"]).view(-1, 1, 1, 1, 1)


Z = torch.arange(24.0).view(2, 1, 3, 2, 2)
T = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
COND = {
    "text": torch.tensor([1.0, 2.0]),
    "negative_text": torch.tensor([10.0, 20.0]),
    "fps": torch.tensor([3.0, 5.0]),
}
C, U = torch.tensor([3.0, 10.0]), torch.tensor([30.0, 100.0])  # text times fps, either side


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scale", [0.0, 7.5])
def test_away_from_the_negative_and_shared_conditions_on_both_sides(scale: float, batched: bool) -> None:
    net = Linear()
    got = Guided(net, scale, batched)(Z, T, COND)
    want = Z * T[:, None, :, None, None] + (U + scale * (C - U)).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(got, want)
    assert net.batches == ([4] if batched else [2, 2])


def test_scale_1_is_the_network_at_one_call() -> None:
    net = Linear()
    got = Guided(net, 1.0)(Z, T, COND)
    assert torch.equal(got, Linear()(Z, T, {"text": COND["text"], "fps": COND["fps"]}))
    assert net.batches == [2]


@pytest.mark.parametrize("batched", [True, False])
def test_a_scale_for_each_stream_or_each_frame_takes_the_place_of_the_one(batched: bool) -> None:
    for scales in (torch.tensor([[0.5], [3.0]]), torch.tensor([[0.5, 1.0, 2.0], [1.0, 1.0, 1.0]])):
        net = Linear()
        got = Guided(net, 9.0, batched)(Z, T, {**COND, "guidance": scales})
        each = (U[:, None] + scales * (C - U)[:, None]).expand(2, 3).view(2, 1, 3, 1, 1)
        torch.testing.assert_close(got, Z * T[:, None, :, None, None] + each)
    net = Linear()
    got = Guided(net, 9.0)(Z, T, {**COND, "guidance": torch.ones(2, 3)})
    assert torch.equal(got, Guided(Linear(), 1.0)(Z, T, COND))
    assert net.batches == [2]  # off everywhere, so one evaluation


def test_halves_as_calls_of_their_own_are_the_same_two_calls() -> None:
    """Of windows that are guided by the run's scale, by their own and not at all."""
    scales = (None, torch.tensor([[0.5, 1.0, 2.0], [1.0, 1.0, 1.0]]), torch.ones(2, 3))
    calls = [Call(Z + i, T, COND if s is None else {**COND, "guidance": s}) for i, s in enumerate(scales)]
    net, same = Linear(), Linear()
    got, want = Halves(Serial(net), 7.5)(calls), Serial(Guided(same, 7.5, batched=False))(calls)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert net.batches == same.batches == [2] * 5


def test_nothing_to_guide_away_from_is_refused() -> None:
    with pytest.raises(BadInput, match="negative_x beside its x"):
        Guided(Linear(), 2.0)(Z, T, {"text": COND["text"], "fps": COND["fps"]})
    with pytest.raises(BadInput, match="negative_x beside its x"):
        Guided(Linear(), 2.0)(Z, T, {"fps": COND["fps"], "negative_text": COND["negative_text"]})
