"""The instruments of docs/method.md, which live in benchmarks/: what they say is so."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import exact
import exact_ideas
import fifo_diffusion
import gap
import results
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.models.gauss import Gauss
from fifo_diffusion.models.scores import scores
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
    made = {(1, "all"): torch.rand(5, 8, 2, dtype=F64) + 1}
    for row in gap.rows(model, 8, made, base={key: 2 * errors for key, errors in made.items()}):
        assert row["to base"] == pytest.approx(float(row["relative"]) / 2)  # a network with twice the errors
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


def test_the_scores_that_fifo_models_lists_are_those_of_the_results() -> None:
    written = (Path(fifo_diffusion.__file__).parent / "models/scores.json").read_text()
    said = json.loads(json.dumps(results.scores(results.KEPT)))
    assert json.loads(written) == said, "python benchmarks/results.py --scores > src/fifo_diffusion/models/scores.json"
    for plan in said["embedded"]["plans"]:  # the flags are some that fifo generate takes
        words = plan["flags"].replace("-n ", "--partitions ").replace("--", "").split()
        asked = {name.replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}
        resolve(Run.of({"prompt": "a", "model": "embedded", **asked}))


def test_scores_are_of_the_measured_size_only() -> None:
    assert [plan.flags for plan in scores("embedded", results.SIZE)]
    assert scores("embedded", (7, 7)) == scores("gauss", results.SIZE) == ()


def test_a_later_measurement_of_a_plan_counts(tmp_path: Path) -> None:
    def line(kind: str, date: str, rows: str) -> str:
        return f'{{"benchmark": "fidelity: {kind}", "date": "{date}", "commit": "", "rows": [{rows}]}}\n'

    right = '"subject": 1, "colour": 1, "scene": 1, "motion": 0.5, "flicker": 1, "flicker ±": 0'
    pictures = f'{{"setting": "real renders", "flicker": 2}}, {{"setting": "n 2 last", "streams": 3, {right}}}'
    kept = tmp_path / "kept.jsonl"
    for date, far in (("first", 1), ("second", 0.25)):
        unsayable = f'{{"setting": "n 2 last, tail .1", "distance": {far}}}'
        latents = f'{{"setting": "n 2 last", "distance": {far}, "distance ±": 0}}, {unsayable}'
        with kept.open("a") as file:
            file.write(line("latents", date, latents) + line("pictures, beside x", date, pictures))
    (plan,) = results.scores(kept)["embedded"]["plans"]
    assert plan["flags"] == "-n 2 --lookahead last --guidance 1"
    assert (plan["told"], plan["distance"], plan["real_flicker"], plan["date"]) == (87.5, 250, 2, "second")


def test_the_kept_range_decides() -> None:
    """On a video with a long memory the middle half is worse than the paper's; on an AR(1) it is better."""
    case = exact.Case(video="still + wave of 12")
    for video, better in (("AR .9", True), ("still + wave of 12", False)):
        last, middle = (
            exact.measured(replace(case, video=video, keep=k), F64)["distance ‰"] for k in ("last", "middle")
        )
        assert (middle < last) is better
