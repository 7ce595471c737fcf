"""The instruments of docs/method.md, which live in benchmarks/: what they say is so."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import exact
import exact_ideas
import gap
import results
from fifo_diffusion.models.gauss import Gauss
from fifo_diffusion.schedule import rectified_flow

F64 = torch.float64


@pytest.mark.parametrize(
    "case",
    [
        exact.Case(window=8, partitions=2, solver="2m", video="still + wave of 12"),
        exact.Case(window=8, partitions=2, keep=(3, 7), eta=1.0, frames_per_level=2),
    ],
)
def test_one_iteration_on_unit_vectors_knows_the_stream(case: exact.Case) -> None:
    known = exact.measured(case, F64)
    for what, seen in exact.sampled(case, 6, F64).items():
        assert float(seen.mean()) == pytest.approx(known[what], abs=4 * float(seen.std()) / 6**0.5 + 1e-3), what


def test_a_method_that_loses_nothing_has_no_distance() -> None:
    """One window over the whole queue, in many small steps of second order."""
    perfect = exact.Case(window=32, partitions=1, keep=(8, 24), solver="2m")
    assert exact.measured(perfect, F64)["distance ‰"] < 0.2
    assert exact.measured(exact.Case(), F64)["distance ‰"] > 10


def test_the_distance_is_that_of_gaussians() -> None:
    """Of two videos that differ by a factor c it is (1 - c)^2 a frame, of one without correlation known too."""
    true = exact.VIDEOS["AR .9"](torch.arange(exact.STRETCH, dtype=F64))
    assert exact.distance(0.25 * true, true) == pytest.approx(0.25, abs=1e-9)
    apart = (torch.arange(exact.STRETCH)[:, None] - torch.arange(exact.STRETCH)).abs()
    want = 2 - 2 * float(torch.linalg.eigvalsh(true[apart]).sqrt().sum()) / exact.STRETCH
    white = torch.eye(exact.STRETCH, dtype=F64)[0]
    assert exact.distance(white, true) == pytest.approx(want, abs=1e-9)


def test_fine_steps_of_one_level_are_the_engine() -> None:
    for solver in exact.SOLVERS:
        case = exact.Case(window=8, partitions=2, solver=solver)
        assert exact_ideas.fine(case, 1) == pytest.approx(exact.measured(case, F64), abs=1e-9)


def test_guides_that_are_not_there_change_nothing_and_far_ones_tell_an_ar_nothing() -> None:
    case = exact.Case(window=8, partitions=2)
    plain = exact.measured(case, F64)
    assert exact_ideas.guided(case, 4, [], placed=True, longer=True) == pytest.approx(plain, abs=1e-9)
    assert exact_ideas.guided(case, 4, [0], placed=True, longer=True) == pytest.approx(plain, abs=0.02, rel=0.01)
    assert exact_ideas.guided(case, 4, [0], placed=False, longer=True)["variance"] < plain["variance"] - 0.02


def test_a_shift_below_one_is_a_schedule() -> None:
    assert float(rectified_flow(64, 1 / 3).alpha[-1]) == pytest.approx(0, abs=1e-12)


def test_the_gap_of_an_exact_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has none to learn: among cleaner frames, which are those before a place, it only knows more."""
    monkeypatch.setattr(gap, "PARTITIONS", (1, 2))
    monkeypatch.setattr(gap, "KEPT", {"all": "all", "last": "last"})
    model = Gauss(torch.device("cpu"), torch.float32)
    root = torch.linalg.cholesky(model.denoiser(rectified_flow(4)).prior(torch.arange(8.0)))

    def clips() -> Iterator[tuple[str, Tensor]]:
        for i in range(12):
            white = torch.randn(1, 3, 8, 12, 12, generator=torch.Generator().manual_seed(100 + i))
            yield "0", torch.einsum("fg,bcghw->bcfhw", root, white)

    measured = gap.measure(model, 8, clips())
    # At the last level a flow's frame is all noise, which the network then knows without any error.
    every = {
        key: gap.relative(errors, torch.arange(errors.shape[1]) < errors.shape[1] - 1)
        for key, errors in measured.items()
    }
    for n in (1, 2):
        (value, spread), (whole, _) = every[n, "last"], every[n, "all"]
        assert value + 2 * spread < min(whole, 1)
    assert every[1, "last"][0] < every[2, "last"][0]  # the steeper, the cleaner those before
    same = torch.ones(3, 4, 2, dtype=F64)
    assert gap.relative(same, torch.ones(4, dtype=torch.bool)) == (1, 0)


def test_a_results_page_has_every_row_and_its_command(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    said = '{"benchmark": "b", "date": "d", "commit": "c", "command": "x.py", "machine": {}, "rows": [%s]}\n'
    kept.write_text("a table\n" + said % '{"s": "old"}' + said % '{"s": "new", "v": 0.25, "v ±": 0.5}')
    text = "\n".join(results.page(kept))
    assert "| new | 0.250±0.500 |" in text
    assert "`python x.py`, d, commit c" in text
    assert "old" not in text


def test_the_kept_range_decides() -> None:
    """On a video with a long memory the middle half is worse than the paper's; on an AR(1) it is better."""
    case = exact.Case(video="still + wave of 12")
    for video, better in (("AR .9", True), ("still + wave of 12", False)):
        last, middle = (
            exact.measured(replace(case, video=video, keep=k), F64)["distance ‰"] for k in ("last", "middle")
        )
        assert (middle < last) is better
