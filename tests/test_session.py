"""From a run to frames and files, with the shipped model at its smallest settings and with the exact one."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fifo_diffusion as fifo
from fifo_diffusion import api, models, sidecar
from fifo_diffusion.config import OF_OTHERS, Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.decode import psnr, to_frames, to_pixels
from fifo_diffusion.errors import BadInput, DeviceError, OutputError
from fifo_diffusion.models.gauss import Gauss
from fifo_diffusion.names import Frame
from fifo_diffusion.session import Session
from fifo_diffusion.sinks import VideoSink, read_frames
from fifo_diffusion.windows import Keep

PROMPT = "a red balloon drifting right over snowy mountains"
SMALL = {"partitions": 1, "guidance": 1.0, "frames": 3}


def test_stream_yields_frames_of_the_asked_number_and_the_same_for_the_same_seed() -> None:
    one = list(fifo.stream(PROMPT, seed=3, **SMALL))
    two = list(fifo.stream(PROMPT, seed=3, **SMALL))
    other = list(fifo.stream(PROMPT, seed=4, **SMALL))
    assert [f.shape for f in one] == [(64, 64, 3)] * 3
    assert one[0].dtype == np.uint8
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


def test_a_longer_video_begins_with_the_shorter_one() -> None:
    short = list(fifo.stream("-", model="gauss", size=(8, 8), frames=4))
    endless = list(itertools.islice(fifo.stream("-", model="gauss", size=(8, 8)), 9))
    assert all((a == b).all() for a, b in zip(short, endless, strict=False))


@pytest.mark.parametrize("start", ["clip", "noise"])
@pytest.mark.parametrize("lookahead", ["off", "last", "middle", "6-14"])
def test_every_start_and_plan_gives_frames(start: str, lookahead: str) -> None:
    frames = list(
        fifo.stream("-", model="gauss", size=(8, 8), start=start, lookahead=lookahead, frames=20, partitions=2)
    )
    assert len(frames) == 20
    assert np.stack(frames).std() > 10


@pytest.mark.parametrize(
    ("lookahead", "keep"), [("off", "all"), ("last", "last"), ("middle", "middle"), ("6-14", (6, 14))]
)
def test_the_part_that_is_kept_reaches_the_plan(lookahead: str, keep: Keep) -> None:
    run = resolve(Run.of({"prompt": "-", "model": "gauss", "partitions": 2, "lookahead": lookahead}))
    assert Session(run).engine.plan.keep == keep


@pytest.mark.parametrize("settings", [{"solver": "2m"}, {"levels": "paper"}, {"eta": 1.0}, {"batch": 1}])
def test_every_method_setting_reaches_the_engine(settings: dict[str, object]) -> None:
    """Each changes the pixels, but the batch limit, which changes nothing."""
    usual = {"model": "gauss", "size": (8, 8), "frames": 6, "partitions": 2}
    a = np.stack(list(fifo.stream("-", **usual)))
    b = np.stack(list(fifo.stream("-", **usual, **settings)))
    assert np.array_equal(a, b) is ("batch" in settings)


def test_pixels_become_the_nearest_of_eight_bits_in_the_order_of_files() -> None:
    frames = np.arange(2 * 2 * 64 * 3, dtype=np.uint8).reshape(2, 2, 64, 3)
    again = to_frames(to_pixels(frames).contiguous())
    assert np.array_equal(again, frames)
    assert again.flags.c_contiguous
    assert (float(to_pixels(frames).min()), float(to_pixels(frames).max())) == (-1, 1)
    beyond = torch.tensor([-1.5, 1.5, -1 + 1.4 / 127.5]).view(3, 1, 1)
    assert to_frames(beyond).tolist() == [[[0, 255, 1]]]
    coarse = torch.linspace(-1, 1, 192).view(3, 8, 8).bfloat16()  # whose own sums would be a step or two off
    assert np.array_equal(to_frames(coarse), to_frames(coarse.float()))
    assert psnr(frames[:1], frames[:1] ^ np.uint8(1)) == pytest.approx(20 * np.log10(255))  # all by one, up or down


def test_the_model_is_told_what_the_run_says(monkeypatch: pytest.MonkeyPatch) -> None:
    saving: list[Gauss] = []
    monkeypatch.setattr(Gauss, "save_memory", lambda self: saving.append(self))
    monkeypatch.setattr(Gauss, "embed_negative", lambda self, prompts: {"against": prompts})
    run = {"prompt": "1", "negative_prompt": "2", "model": "gauss", "size": (8, 6), "fps": 5}
    for memory in ("high", "low"):
        session = Session(resolve(Run.of({**run, "memory": memory})))
        assert (session.model.fps, session.model.size) == (5, (8, 6))
        assert session.prompts(range(4))["negative_against"] == ["2"]
    assert saving == [session.model]


def test_guidance_and_the_negative_prompt_are_heard() -> None:
    def last(**settings: object) -> Frame:
        return list(fifo.stream(PROMPT, partitions=1, frames=1, **settings))[-1]

    plain = last(guidance=1.0)
    guided = last(guidance=3.0)
    against = last(guidance=3.0, negative_prompt="a green fish over the ocean")
    assert (plain != guided).any()
    assert (guided != against).any()


def test_generate_writes_a_video_and_a_sidecar_that_makes_it_again(tmp_path: Path) -> None:
    made = fifo.generate("-", str(tmp_path / "one.mp4"), model="gauss", size=(16, 16), frames=7, fps=8)
    assert len(list(read_frames(tmp_path / "one.mp4"))) == 7
    read = sidecar.read(tmp_path / "one.mp4.json")
    assert read == made
    again = api.make(read.run, str(tmp_path / "two.gif"), scale=read.scale)
    assert again.frames_sha256 == made.frames_sha256
    assert set(made.seconds) == {"network", "step", "decode", "write"}
    assert all(value >= 0 for value in made.seconds.values())


def test_a_stopped_video_is_made_again_as_it_is_and_changes_unsettle_what_depends_on_them(tmp_path: Path) -> None:
    made = fifo.generate("-", str(tmp_path / "a.mp4"), model="gauss", size=(16, 16), frames=3)
    stopped = made.model_copy(update={"run": made.run.model_copy(update={"frames": 0})})
    assert Run.of(sidecar.again(stopped, {})).frames == 3
    assert "batch" not in sidecar.again(made, {"partitions": 2})
    low = resolve(Run.of(sidecar.again(made, {"memory": "low"})))
    assert (made.run.halves, low.halves, low.batch) == ("together", "apart", 1)
    assert resolve(Run.of(sidecar.again(made, {"solver": "2m"}))).eta == 0
    assert resolve(Run.of(sidecar.again(made, {"model": "embedded"}))).size == (64, 64)


def test_a_sidecar_stands_where_its_video_is() -> None:
    assert sidecar.path_beside("a/b.mp4") == Path("a/b.mp4.json")
    assert sidecar.path_beside("a/b/") == sidecar.path_beside("a/b") == Path("a/b/fifo.json")
    assert sidecar.path_beside("-") is None


def test_a_video_that_cannot_be_written_leaves_the_old_one_and_its_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fifo.generate("-", str(tmp_path / "a.mp4"), model="gauss", size=(16, 16), frames=3)
    real = VideoSink.write

    def full_disk(self: VideoSink, frame: Frame) -> None:
        if self.frames == 2:
            raise OutputError("the disk is full")
        real(self, frame)

    monkeypatch.setattr(VideoSink, "write", full_disk)
    with pytest.raises(OutputError, match="the disk is full"):
        fifo.generate("-", str(tmp_path / "a.mp4"), model="gauss", size=(16, 16), frames=9)
    assert sidecar.read(tmp_path / "a.mp4.json") == old


def test_a_sidecar_that_an_editor_marked_is_read(tmp_path: Path) -> None:
    made = fifo.generate("0", tmp_path / "a.mp4", model="gauss", size=(16, 16), partitions=1, frames=2, scale=2.0)  # type: ignore[arg-type]
    file = tmp_path / "a.mp4.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert sidecar.read(file) == made
    assert made.scale == 2


def test_a_sidecar_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"prompt": "a"}))
    with pytest.raises(BadInput, match="not a sidecar"):
        sidecar.read(tmp_path / "a.json")
    with pytest.raises(BadInput, match="cannot be read"):
        sidecar.read(tmp_path / "none.json")


def test_everything_is_decided_before_work() -> None:
    run = resolve(Run.of({"prompt": "a"}))
    may_be_none = ("weights", "clip", "clip_sha256", "guidance_levels", *OF_OTHERS)  # its own, none at all, all levels
    assert all(value is not None for name, value in run.model_dump().items() if name not in may_be_none)
    assert "auto" not in (run.device, run.dtype)
    assert resolve(Run.of({"prompt": "a", "eta": 0.25})).eta == 0.25
    assert resolve(Run.of({"prompt": "a", "solver": "2m"})).eta == 0
    for settings, error in (
        ({"model": "embeded"}, "did you mean embedded"),
        ({"size": (65, 64)}, "it makes 64x64"),
        ({"model": "gauss", "size": (8, 0)}, "size"),
        ({"device": "abacus"}, "device 'abacus' is not here"),
        ({"partitions": 63}, "at most 62 partitions"),
        ({"fps": 0.04}, "fps is 0.04"),
    ):
        with pytest.raises(BadInput, match=error):
            resolve(Run.of({"prompt": "a", **settings}))
    with pytest.raises(DeviceError):
        resolve(Run.of({"prompt": "a", "device": "cuda:17"}))


def test_the_frames_before_a_breakdown_stay_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that turns to NaN midway: the video so far is whole, and the error says which frame."""
    calls = 0

    def failing(self: Gauss, schedule):  # type: ignore[no-untyped-def]
        inner = GaussianVideo(schedule)

        def denoise(z, t, cond):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            return inner(z, t, cond) * (float("nan") if calls > 40 else 1)

        return denoise

    from fifo_diffusion.models.gauss import GaussianVideo

    monkeypatch.setattr(Gauss, "denoiser", failing)
    with pytest.raises(fifo.NotFinite, match="frame"):
        fifo.generate("-", str(tmp_path / "a.mp4"), model="gauss", size=(16, 16), frames=200, partitions=1)
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert 5 < len(frames) < 60
    assert sidecar.read(tmp_path / "a.mp4.json").frames_written == len(frames)


def test_loading_and_streaming_leave_torchs_random_numbers_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(3)
    torch.manual_seed(0)
    models.load("embedded", torch.device("cpu"), torch.float32)
    assert torch.equal(torch.randn(3), wanted)


def test_latents_that_are_only_computed_are_not_all_kept() -> None:
    session = Session(resolve(Run.of({"prompt": "0", "model": "gauss", "size": (8, 8), "partitions": 1})))
    for _ in itertools.islice(session.latents(session.start()), 40):
        pass
    assert len(session.trail._states) <= 2


def test_watch_hears_every_stage_in_order() -> None:
    heard: list[tuple[str, int, int]] = []
    run = resolve(Run.of({"prompt": "-", "model": "gauss", "size": (8, 8), "frames": 3, "partitions": 2}))
    list(Session(run, watch=lambda *stage: heard.append(stage)).frames())
    assert list(dict.fromkeys(stage for stage, _, _ in heard)) == [
        "loading",
        "base clip",
        "run-in",
        "streaming",
    ]
    assert heard[-1] == ("streaming", 3, 3)
    assert ("run-in", 16, 16) in heard


@pytest.mark.parametrize("at", ["loading", "run-in"])
def test_an_interrupt_at_the_start_leaves_nothing(at: str, tmp_path: Path) -> None:
    """Another process may be making the same video by the time that a large model is loaded."""
    there: list[Path] = []

    def stop(stage: str, done: int, total: int) -> None:
        if stage == at and done:
            there.extend(tmp_path.iterdir())
            raise KeyboardInterrupt

    run = Run.of({"prompt": "-", "model": "gauss", "size": (8, 8), "frames": 3})
    with pytest.raises(KeyboardInterrupt):
        api.make(run, str(tmp_path / "a.mp4"), watch=stop)
    assert bool(there) == (at == "run-in")
    assert list(tmp_path.iterdir()) == []


def test_the_public_names_are_these() -> None:
    assert all(hasattr(fifo, name) for name in fifo.__all__)
    assert sorted(fifo.__all__) == fifo.__all__
    with pytest.raises(AttributeError):
        _ = fifo.nothing
