"""The benchmarks of the paper's tables: what they say of videos that are known is so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import compare
import extend
import long
import long_seeds
import paired
import paired_kvd
import repeats
from fifo_diffusion.config import Run
from fifo_diffusion.evaluate.choosing import choose
from fifo_diffusion.evaluate.evaluation import Asked, evaluate
from fifo_diffusion.evaluate.means import student
from fifo_diffusion.evaluate.reading import find
from fifo_diffusion.evaluate.result import Evaluation
from fifo_diffusion.world.art import SUBJECTS
from report import Row, show

SIDE = 64


def write(folder: Path, speed: float, noise: float, frames: int = 8, seed: int = 0) -> None:
    """A smooth texture that moves to the right, and white noise over it, as a folder of pictures."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    phases = rng.uniform(0, 6, 3)
    for number in range(frames):
        at = x - speed * number
        waves = [np.sin(at / 5 + phase + c) * np.cos(y / 6 + phase) for c, phase in enumerate(phases)]
        picture = 127 + 80 * np.stack(waves, axis=2) + noise * rng.standard_normal((SIDE, SIDE, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06}.png")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("sets")
    for seed in range(3):
        write(folder / "quick" / str(seed), speed=3 + seed, noise=2, seed=seed)
        write(folder / "slow" / str(seed), speed=1 + seed, noise=2, seed=seed)
    asked = Asked(find([folder / "quick", folder / "slow"]), choose(["motion", "flicker"], False), None, "cpu", "", {})
    return evaluate(asked, folder / "both", lambda name, done, total: None, lambda video: None)


def test_differences_are_paired(report: Evaluation) -> None:
    """Speeds differ by 2 pixels in each pair, and by as much between pairs: only pairing tells them apart."""
    rows = {row["quantity"]: row for row in paired.differences(report, "quick")}
    motion = rows["motion (DIS)"]
    assert motion["- slow"] == pytest.approx(100 * 2 / SIDE, rel=0.15)
    assert motion["told apart from slow"] == "yes"
    back = {row["quantity"]: row for row in paired.differences(report, "slow")}
    assert back["motion (DIS)"]["- quick"] == pytest.approx(-float(motion["- slow"]))
    means = {row["quantity"]: row for row in paired.by_set(report, paired.mean)}["motion (DIS)"]
    assert float(means["quick"]) - float(means["slow"]) == pytest.approx(float(motion["- slow"]))
    assert float(means["quick ±"]) > 5 * float(motion["- slow ±"])


def test_what_lies_within_errors_is_not_told_apart(report: Evaluation) -> None:
    ours, theirs = report.sets
    shuffled = [video.model_copy(update={"name": str((int(video.name) + 1) % 3)}) for video in theirs.videos]
    other = report.model_copy(update={"sets": (ours, theirs.model_copy(update={"videos": tuple(shuffled)}))})
    rows = {row["quantity"]: row for row in paired.differences(other, "quick")}
    assert rows["motion (DIS)"]["told apart from slow"] == "no"


def test_the_way_has_a_sign_and_an_error(tmp_path: Path) -> None:
    for seed in range(3):
        for number in range(20):
            (folder := tmp_path / "fading" / str(seed)).mkdir(parents=True, exist_ok=True)
            Image.new("L", (SIDE, SIDE), 200 - (4 + seed) * number).save(folder / f"{number:06}.png")
    asked = Asked(find([tmp_path / "fading"]), choose(["picture"], False), None, "cpu", "", {})
    found = evaluate(asked, tmp_path / "fading", lambda name, done, total: None, lambda video: None)
    rows = {row["quantity"]: row for row in paired.by_set(found, paired.way)}
    assert rows["brightness"]["fading"] == pytest.approx(-5 * 17, abs=1)  # from frames 0-2 to frames 17-19
    assert rows["brightness"]["fading ±"] == pytest.approx(17 / 3**0.5, abs=0.5)


def test_histograms_hold_every_frame_once(report: Evaluation) -> None:
    shares = paired.histograms(report)
    for of in shares.values():
        assert sum(of.values()) == pytest.approx(1, abs=1e-3)
    assert shares["quick"]["from 4 %"] == pytest.approx(1, abs=0.05)  # 3 pixels of 64 are 4.7 %
    assert shares["slow"]["from 1 %"] == pytest.approx(1 / 3, abs=0.05)


GAUSS = {"prompt": "-", "model": "gauss", "size": (16, 16), "partitions": 2, "device": "cpu"}


def test_the_same_command_goes_on_with_a_long_video(tmp_path: Path) -> None:
    def pictures(folder: Path) -> list[bytes]:
        return [Image.open(path).tobytes() for path in sorted((folder / "frames").glob("*.png"))]

    for frames in (10, 24, 24):
        long.make(tmp_path / "stopped", Run.of({**GAUSS, "frames": frames}))
        assert len(pictures(tmp_path / "stopped")) == frames
    long.make(tmp_path / "whole", Run.of({**GAUSS, "frames": 24}))
    assert pictures(tmp_path / "stopped") == pictures(tmp_path / "whole")
    with pytest.raises(SystemExit, match="of another seed; name another folder"):
        long.make(tmp_path / "stopped", Run.of({**GAUSS, "frames": 24, "seed": 1}))


def test_a_long_video_is_told_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long, "BLOCK", 8)
    long.make(tmp_path, Run.of({**GAUSS, "frames": 24}))
    lines = [json.loads(line) for line in (tmp_path / "blocks.jsonl").read_text().splitlines()]
    assert [line["block"] for line in lines] == [1, 2]  # the first has no reading at its start
    assert all(line["ms"] > 0 and line["MB"] > 50 for line in lines)
    found = long.measured(tmp_path, "-")
    rows = list(long.blocks(found, tmp_path))
    assert [row["frames"] for row in rows] == ["0-7", "8-15", "16-23"]
    assert rows[0]["MB"] == ""
    assert rows[1]["MB"] == lines[0]["MB"]


def test_drift_is_told_beside_chance(tmp_path: Path) -> None:
    """Noise that grows all the way is drift; white noise that stays is not."""
    steady, growing = np.random.default_rng(0).standard_normal((2, 1000))
    rows = {row["quantity"]: row for row in long.drifts({"steady": steady, "growing": growing + np.arange(1000) / 100})}
    assert rows["growing"]["drift"] == pytest.approx(8.5, abs=0.5)
    assert float(rows["growing"]["drift"]) > 2 * float(rows["steady"]["by chance"])
    assert float(rows["steady"]["drift"]) < 4 * float(rows["steady"]["by chance"])


def test_seeds_of_a_long_video_tell_a_drift_from_chance(tmp_path: Path) -> None:
    """Five seeds that all rise by about 1, and five that go either way; another plan, seed 0 told twice."""

    def line(plan: str, what: str, rows: list[dict[str, float | str]]) -> str:
        return json.dumps({"benchmark": f"a long video, {plan}: {what}", "rows": rows})

    def drift(plan: str, rises: float, sways: float) -> str:
        ends = {"rises": rises, "sways": sways}
        return line(
            plan, "drift", [{"quantity": name, "first 15 %": 5.0, "last 15 %": 5 + by} for name, by in ends.items()]
        )

    def block(plan: str, kept: float | str) -> str:
        return line(plan, "blocks of 500 frames", [{"frames": "0-499", "MB": kept, "sharpness": 3.0}])

    seeds = [(0.9, 1.0), (1.0, -1.0), (1.1, 2.0), (0.8, -2.0), (1.2, 0.5)]
    plans = ["n 1", *(f"n 1, seed {seed}" for seed in range(1, 5))]
    lines = [drift("n 1", 50, 50), drift("n 4", 50, 50), drift("n 1, seed 2, embedded-large", 50, 50), "a table"]
    lines += [drift(plan, *ways) for plan, ways in zip(plans, seeds, strict=True)]
    lines += [block("n 1", ""), block("n 1, seed 1", 300.0), block("n 1, seed 2", 302.0)]
    (kept := tmp_path / "kept.jsonl").write_text("\n".join(lines))
    found = long_seeds.by_seed(kept, "n 1", "drift")
    assert sorted(found) == [0, 1, 2, 3, 4]
    rows = {row["quantity"]: row for row in long_seeds.drifts(found)}
    assert rows["rises"]["last minus first"] == pytest.approx(1.0)
    assert rows["rises"]["last minus first ±"] == pytest.approx(np.std([ways[0] for ways in seeds], ddof=1) / 5**0.5)
    assert (rows["rises"]["told apart"], rows["sways"]["told apart"]) == ("yes", "no")
    assert (rows["sways"]["of seeds, up"], rows["sways"]["down"]) == (3, 2)
    (told,) = long_seeds.blocks(long_seeds.by_seed(kept, "n 1", "blocks of 500 frames"))
    assert told["frames"] == "0-499"
    assert (told["MB"], told["MB ±"]) == (301, 1)


def test_costs_are_told_for_a_level_without_the_decoder_and_beside_fifo() -> None:
    def cell(method: str, frames: int, levels: int, denoising: float, first: float) -> compare.Cell:
        """Seconds of denoising, after what share of which the first frame is there; decoding takes 10 ms a frame."""
        said = {"method": method, "frames": frames, "levels": levels, "peak MB": 320.4}
        return {**said, "seconds": denoising + 0.01 * frames, "first frame after": denoising * first + 0.01}

    cells = [cell("fifo", 100, 16, 16.0, 0.1), cell("chunked", 100, 4, 3.0, 0.1), cell("plain", 100, 4, 2.0, 1.0)]
    rows = list(compare.costs([*cells, cell("fifo", 200, 16, 32.0, 0.1), cell("freenoise", 300, 4, 9.0, 1.0)]))
    assert [row["of it decoding"] for row in rows] == [pytest.approx(10)] * 3 + ["", pytest.approx(10)]
    each = [row["denoising, ms a frame and level"] for row in rows]
    assert each == [pytest.approx(10), pytest.approx(7.5), pytest.approx(5), "", pytest.approx(7.5)]
    times = [row["times fifo's"] for row in rows]
    assert times == [pytest.approx(1), pytest.approx(0.75), pytest.approx(0.5), "", ""]


def test_more_renders_of_each_caption_are_kept_to_measure_distances_from(tmp_path: Path) -> None:
    assets = tmp_path / "art" / "package" / "assets"
    assets.mkdir(parents=True)
    for subject in SUBJECTS.values():
        picture = Image.new("RGBA", (64, 64))
        ImageDraw.Draw(picture).ellipse((4, 4, 60, 60), fill=(200, 40, 40, 255))
        picture.save(assets / subject.file)
    compare.render(tmp_path, seeds=2, frames=3)
    kept = {folder.name: folder for folder in (tmp_path / "real").iterdir()}
    assert sorted(kept) == [f"{seed}-{number}" for seed in range(2) for number in range(compare.RENDERS)]
    assert all(len(list(folder.glob("*.png"))) == 3 for folder in kept.values())
    assert len({(folder / "frame_000000.png").read_bytes() for folder in kept.values()}) == len(kept)
    (kept["0-0"] / "frame_000000.png").write_bytes(b"mine")
    compare.render(tmp_path, seeds=2, frames=3)
    assert (kept["0-0"] / "frame_000000.png").read_bytes() == b"mine"  # what is there stays


def test_what_sets_share_by_seed_is_not_in_the_error_of_their_difference() -> None:
    """Each seed has an offset that both sets have: by themselves they are known badly, their difference well."""
    rng = torch.Generator().manual_seed(0)

    def clips(offset: torch.Tensor, more: float) -> torch.Tensor:
        return offset + more + 0.05 * torch.randn(8, 4, generator=rng, dtype=torch.float64)

    offsets = {str(seed): torch.randn(4, generator=rng, dtype=torch.float64) for seed in range(8)}
    real = {seed: clips(torch.zeros(4), 0) for seed in offsets}
    near, far = ({seed: clips(offset, more) for seed, offset in offsets.items()} for more in (0.5, 0.6))
    first, other = paired_kvd.rows({"near": near, "far": far}, real, "near")
    apart, error = float(other["near minus it"]), float(other["near minus it ±"])
    assert apart == pytest.approx(float(first["KVD"]) - float(other["KVD"]))
    assert apart < 0
    assert error < 0.7 * float(other["KVD ±"])
    assert other["told apart"] == ("yes" if -apart > student(7) * error else "no")
    (alone,) = paired_kvd.rows({"near": {"0": near["0"], "1": near["1"], "9": near["2"]}}, real, "near")
    assert alone["seeds"] == 2  # the reference has no seed 9


def test_a_setting_is_another_cell_than_the_method() -> None:
    cells = [{"method": "fifo", "seed": 0, "setting": "n 4 middle", "model": "embedded", "subject": 1.0}]
    assert compare.name_of(cells[0]) == "n 4 middle"
    assert compare.name_of({**cells[0], "model": "embedded-df"}) == "embedded-df, n 4 middle"
    assert "n 4 middle" in compare.NAMED
    assert not any("tail" in name or "levels a place" in name for name in compare.NAMED)


def test_a_way_of_fifo_is_found_again_and_not_taken_for_another(tmp_path: Path) -> None:
    way = {"method": "fifo", "seed": 0, "setting": "n 4 middle", "model": "embedded"}
    (kept := tmp_path / "kept.jsonl").write_text(json.dumps({**way, "subject": 1.0}) + "\n")
    assert compare.find(way, kept) == {**way, "subject": 1.0}
    assert compare.find({"method": "fifo", "seed": 0}, kept) is None
    assert compare.find({**way, "model": "embedded-df"}, kept) is None


def test_the_calls_before_the_first_frame_behind_a_clip_are_counted() -> None:
    """Eight windows an iteration: a clip made anew takes 48 iterations of run-in and 16 of its own frames."""
    on, anew = extend.exact(4, 1.0)
    assert (on["calls before"], anew["calls before"]) == (280, 8 * (48 + 16))


def test_rows_that_lack_a_column_stand_under_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = [{"set": "a", "B": 1.0, "C": 2.0}, {"set": "b", "C": 7.0, "D": 9.0}]
    show("some", rows)
    head, one, two = capsys.readouterr().out.splitlines()[1:4]
    assert head.split() == ["set", "B", "C", "D"]
    assert [line.index(value) for line, value in ((one, "1.000"), (one, "2.000"))] == [
        head.index("B") - 4,
        head.index("C") - 4,
    ]
    assert (two.index("7.000"), two.index("9.000")) == (head.index("C") - 4, head.index("D") - 4)


def test_a_video_that_comes_round_is_like_itself_a_period_later() -> None:
    """What never changes in it does not count, and frames that have nothing to do with each other are not alike."""
    draw = torch.Generator().manual_seed(0)
    once, still = torch.randn(12, 500, generator=draw), 9 * torch.ones(500)
    curve = repeats.alike(once.repeat(4, 1) + still)
    assert curve[[0, 12, 24]].tolist() == pytest.approx([1, 1, 1])
    assert float(curve[1:12].abs().max()) < 0.3
    assert float(repeats.alike(torch.randn(48, 500, generator=draw) + still)[1:40].abs().max()) < 0.2


def test_a_report_without_means_is_no_error(
    report: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one of distances alone."""
    bare = [one.model_copy(update={"means": {}, "videos": ()}) for one in report.sets]
    (tmp_path / "bare.json").write_text(report.model_copy(update={"sets": tuple(bare)}).model_dump_json())
    monkeypatch.setattr("sys.argv", ["paired.py", str(tmp_path / "bare.json"), "--first", "quick"])
    paired.main()
    assert "means" not in capsys.readouterr().out
