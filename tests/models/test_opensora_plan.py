"""Open-Sora Plan: what its texts hear, the sampler of its authors, its files, a video from the command."""

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_opensora_plan as tiny
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from tiny_parts import noise
from torch import Tensor

import fifo_diffusion as fifo
from fifo_diffusion import cli, sidecar
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.engine import State
from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.guidance import Guided
from fifo_diffusion.models import load
from fifo_diffusion.models.cards import MODELS
from fifo_diffusion.models.opensora_plan import OpenSoraPlan, PlanTransformer, convert_config
from fifo_diffusion.prompts import OnePrompt
from fifo_diffusion.session import Came, Session
from fifo_diffusion.sinks import read_frames

CPU = torch.device("cpu")
LONG, SHORT = "a very old red balloon over the ocean at night", "a blue fish"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny.make(tmp_path_factory.mktemp("osp")))


@pytest.fixture(scope="module")
def net(folder: Path) -> OpenSoraPlan:
    model = load("open-sora-plan", CPU, torch.float32, str(folder))
    assert isinstance(model, OpenSoraPlan)
    return model


@pytest.fixture
def window() -> tuple[Tensor, Tensor]:
    return noise(1, 4, 17, 4, 4), torch.linspace(20, 900, 17)[None]


def test_the_full_size_has_the_published_keys_and_parameters() -> None:
    """967 keys (the published 968 without one that no text was to be replaced by) and 1057.25 million numbers."""
    with torch.device("meta"):
        full = PlanTransformer(**convert_config(tiny.TRANSFORMER_CONFIG, Path()))
    assert len(full.state_dict()) == 967
    assert sum(p.numel() for p in full.parameters()) == 1_057_246_880
    assert full.config.sample_size == 64


@torch.no_grad()
def test_texts_of_different_length_do_not_disturb_each_other(net: OpenSoraPlan, window: tuple[Tensor, Tensor]) -> None:
    """Side by side, each is what the published network says of it alone, cut to its length."""
    z, cond = torch.cat([window[0]] * 2), net.embed([LONG, SHORT])
    lengths = cond["heard"].sum(dim=1).tolist()
    assert lengths[0] > lengths[1] + 3
    t = torch.tensor([300.0, 700.0])
    got = net.denoiser(net.schedule(8, "even"))(z, t[:, None].expand(-1, 17), cond)
    torch.testing.assert_close(got, tiny.said(net, z, t, cond), rtol=0, atol=2e-5)
    far = net.embed([SHORT, SHORT])
    assert (net.denoiser(net.schedule(8, "even"))(z, t[:, None].expand(-1, 17), far) - got)[0].abs().max() > 1e-3


@torch.no_grad()
def test_each_frame_may_hear_its_own_text(net: OpenSoraPlan, window: tuple[Tensor, Tensor]) -> None:
    denoise, cond = net.denoiser(net.schedule(8, "even")), net.embed([LONG, SHORT])
    clips = [denoise(*window, {name: value[i : i + 1] for name, value in cond.items()}) for i in range(2)]
    for rows in ([0] * 17, [0] * 9 + [1] * 8):
        mixed = denoise(*window, {name: value[rows][None] for name, value in cond.items()})
        change = (mixed - clips[0]).square().mean(dim=(0, 1, 3, 4))
        if rows == [0] * 17:
            assert change.max() < 1e-10
        else:
            assert change[9:].min() > change[:9].max()
    assert net.per_frame_text


def test_a_prompt_that_changes_reaches_a_video_frame_by_frame(tmp_path: Path) -> None:
    """With guidance, whose negative text is as long as each frame's own."""
    said = {"model": "open-sora-plan", "weights": tiny.make(tmp_path), "frames": 10, "partitions": 1, "guidance": 2.0}
    said |= {"negative_prompt": SHORT, "size": (16, 16), "device": "cpu"}
    plain, cued = (list(fifo.stream(LONG, **said, cues=cues)) for cues in ([], [{"at": 5, "prompt": SHORT}]))
    apart = [np.abs(one.astype(float) - other).mean() for one, other in zip(plain, cued, strict=True)]
    assert min(apart[5:]) > 0
    assert np.mean(apart[5:]) > np.mean(apart[:5])


@torch.no_grad()
def test_the_negative_prompt_is_cut_to_the_length_of_the_prompt(
    net: OpenSoraPlan, window: tuple[Tensor, Tensor]
) -> None:
    """As the authors do: of the negative text as many tokens are heard as the prompt has, padding or not."""
    cond = OnePrompt(net.embed([SHORT]), net.embed_negative([LONG]))(range(17))
    got = Guided(net.denoiser(net.schedule(8, "even")), 3.0)(*window, cond)
    length = int(cond["heard"].sum())
    said = []
    for text in (cond["text"], cond["negative_text"]):
        cut = {"text": text[:, :length], "heard": torch.ones(1, length, dtype=torch.bool)}
        said.append(net.denoiser(net.schedule(8, "even"))(*window, cut))
    torch.testing.assert_close(got, said[1] + 3 * (said[0] - said[1]), rtol=0, atol=1e-4)
    assert net.embed([LONG])["heard"].sum() > length


@pytest.mark.parametrize(("levels", "top"), [(136, 945), (224, 892)])
def test_the_authors_sampler_is_diffusers_ddpm(net: OpenSoraPlan, levels: int, top: int) -> None:
    """Level by level, x0 kept within 1 and all; f n steps of 65 and of 221 frames."""
    ddpm, schedule = DDPMScheduler(), net.schedule(levels, "paper")
    ddpm.set_timesteps(levels)
    assert ddpm.timesteps.tolist() == schedule.time[1:].flip(0).long().tolist()
    assert int(schedule.time[-1]) == top
    z, out = noise(1, 4, 1, 3, 3).double(), noise(1, 4, 1, 3, 3, seed=1).double()
    for level in (1, 2, 3, levels // 2, levels):
        at = int(schedule.time[level])
        fresh = noise(*z.shape, seed=5, dtype=z.dtype)
        want = ddpm.step(out, at, z, generator=torch.Generator().manual_seed(5)).prev_sample
        got = schedule.step(z, out, torch.tensor([level]), 1.0, fresh)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)  # its table is in float32
    unbounded = net.schedule(levels, "even")
    assert unbounded.limit is None
    x0, _ = unbounded.split(z, out, torch.tensor([levels]))
    assert x0.abs().max() > 1


def test_latents_and_frames_through_the_model(net: OpenSoraPlan) -> None:
    pixels = noise(1, 5, 3, 32, 48).clamp(-1, 1)
    latents = net.encode(pixels)
    assert latents.shape == (1, 4, 2, 4, 6)
    (frames,) = net.decoder()(iter([latents]))
    assert frames.shape == pixels.shape
    with pytest.raises(BadInput, match="4 frames of 48x32"):
        net.encode(pixels[:, :4])


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def without(key: str) -> Callable[[Path], None]:
    return lambda path: save_file({k: v for k, v in load_file(path).items() if k != key}, path)


def saying(**change: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("65x512x512/diffusion_pytorch_model.safetensors", damaged, "65x512x512.*cut short"),
        ("65x512x512/diffusion_pytorch_model.safetensors", without("proj_out.bias"), "65x512x512.*lack proj_out.bias"),
        ("65x512x512/diffusion_pytorch_model.safetensors", Path.unlink, "65x512x512 holds config.json"),
        ("65x512x512/config.json", Path.unlink, "65x512x512/config.json is missing"),
        ("65x512x512/config.json", saying(use_rope=True), "config.json has use_rope True"),
        ("65x512x512/config.json", saying(compress_kv_factor=2), "config.json has compress_kv_factor 2"),
        ("65x512x512/config.json", saying(sample_size=[60, 106]), "sample_size"),
        ("65x512x512/config.json", saying(skip_layers=3), "skip_layers 3, which is not known"),
        ("65x512x512/config.json", saying(video_length=56), "open-sora-plan-221 for 56"),
        ("65x512x512/config.json", saying(num_layers=3), "lack .*transformer_blocks.2"),
        ("vae/diffusion_pytorch_model.safetensors", without("quant_conv.conv.bias"), "vae.*lack quant_conv.conv.bias"),
        ("vae/config.json", saying(decoder_attention="AttnBlock3D"), "'AttnBlock3D' as decoder_attention"),
        ("vae/config.json", lambda path: path.write_text("[]"), "vae/config.json is missing or damaged"),
        ("t5-v1_1-xxl/spiece.model", Path.unlink, "spiece.model in .*t5-v1_1-xxl"),
        ("t5-v1_1-xxl/model.safetensors", damaged, "t5-v1_1-xxl"),
    ],
)
def test_wrong_files_are_one_sentence(
    folder: Path, tmp_path: Path, file: str, change: Callable[[Path], object], says: str
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    change(tmp_path / "copy" / file)
    with pytest.raises(ModelError, match=says) as error:
        load("open-sora-plan", CPU, torch.float32, str(tmp_path / "copy"))
    assert "\n" not in str(error.value)


def test_the_folder_of_the_other_network_is_not_taken(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"221x512x512/config\.json is missing"):
        load("open-sora-plan-221", CPU, torch.float32, str(folder))
    with pytest.raises(ModelError, match="give the folder that holds"):
        load("open-sora-plan", CPU, torch.float32, str(folder / "vae" / "config.json"))


def unreachable(*_: object, **__: object) -> str:
    raise OSError("no network")


def test_t5_is_asked_for_where_it_is_not(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the networks, or as diffusers' folders hold it; else from the Hub, which cannot be reached here."""
    for ask in ("list_repo_files", "snapshot_download"):
        monkeypatch.setattr(f"huggingface_hub.{ask}", unreachable)
    copy = shutil.copytree(folder, tmp_path / "copy")
    t5 = (copy / "t5-v1_1-xxl").rename(copy / "text_encoder")
    (copy / "tokenizer").mkdir()
    for name in ("spiece.model", "tokenizer_config.json"):
        (t5 / name).rename(copy / "tokenizer" / name)
    again = load("open-sora-plan", CPU, torch.float32, str(copy)).embed([LONG])["text"]
    assert torch.equal(again, load("open-sora-plan", CPU, torch.float32, str(folder)).embed([LONG])["text"])
    shutil.rmtree(t5)
    with pytest.raises(ModelError, match=r"no .*t5-v1_1-xxl, and DeepFloyd/t5-v1_1-xxl is not to be had .* put it"):
        load("open-sora-plan", CPU, torch.float32, str(copy))


SMALL = {"size": (32, 32), "partitions": 1, "guidance": 1.0}


def test_a_stream_stops_at_the_frame_and_makes_no_latent_too_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """65 frames are one chunk of 17 latents, the 66th to 129th the 16 after them; the shorter video is the longer
    one's beginning.
    """
    taken = 0
    plain = Session.came

    def counted(self: Session, state: State, known: Sequence[Tensor], memory: int) -> Iterator[Came]:
        nonlocal taken
        for came in plain(self, state, known, memory):
            taken += came.latents.shape[2] if came.shown else 0
            yield came

    monkeypatch.setattr(Session, "came", counted)
    videos = []
    for frames, latents in ((3, 17), (66, 33)):
        taken = 0
        said = {"prompt": SHORT, "model": "open-sora-plan", "weights": str(folder), "frames": frames, **SMALL}
        videos.append(list(Session(resolve(Run.of(said))).frames()))
        assert len(videos[-1]) == frames
        assert taken == latents
    assert all((a == b).all() for a, b in zip(*videos, strict=False))


def test_a_video_from_the_command(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published folder, guidance and lookahead as the card says."""
    command = ["generate", SHORT, "--model", "open-sora-plan", "--weights", folder, "--size", "32x32", "--frames", "7"]
    where = ["-n", "1", "--device", "cpu", "-o", tmp_path / "a.mp4"]
    monkeypatch.setattr(sys, "argv", ["fifo", *map(str, command), *map(str, where)])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as done:
            cli.main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert done.value.code == 0
    frames = list(read_frames(tmp_path / "a.mp4"))
    assert len(frames) == 7
    assert frames[0].shape == (32, 32, 3)
    assert len(sidecar.read(tmp_path / "a.mp4.json").weights) == 64


def test_the_longer_windows_make_a_video_too(tmp_path: Path) -> None:
    weights = tiny.make(tmp_path, 56)
    said = {"model": "open-sora-plan-221", "weights": weights, "frames": 66, "partitions": 1, "guidance": 1.0}
    frames = list(fifo.stream(LONG, size=(16, 16), device="cpu", **said))
    assert [frame.shape for frame in frames] == [(16, 16, 3)] * 66


def test_sizes_are_whole_patches() -> None:
    with pytest.raises(BadInput, match="multiples of 16"):
        fifo.stream(SHORT, model="open-sora-plan", size=(40, 32), device="cpu")
    assert [MODELS[name].window * MODELS[name].partitions for name in ("open-sora-plan", "open-sora-plan-221")] == [
        136,
        224,
    ]
