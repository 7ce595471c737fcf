"""Wan 2.1 beyond the contract: its autoencoder as a stream, its text, its schedule, and what is refused."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_wan
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline
from tiny_parts import noise, scramble
from torch import Tensor

from fifo_diffusion import api, models
from fifo_diffusion.config import Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.models.base import Model
from fifo_diffusion.models.wan import Streamed, Wan, reach, wan
from fifo_diffusion.names import Frame
from fifo_diffusion.session import Session

CPU = torch.device("cpu")


def load(weights: Path | str) -> Wan:
    model: Model = models.load("wan-1.3b", CPU, torch.float32, str(weights))
    assert isinstance(model, Wan)
    return model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_wan.make(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def model(weights: str) -> Wan:
    return load(weights)


def streamed(decoder: Streamed, latents: Tensor, chunk: int = 1) -> Tensor:
    return torch.cat(list(decoder(iter(torch.split(latents, chunk, dim=2)))), dim=1)


@torch.no_grad()
def test_a_stream_is_decoded_as_diffusers_decodes_it_whole(model: Wan) -> None:
    """Also while another stream, or diffusers itself, decodes with the same autoencoder."""
    z, vae = noise(1, 16, 9, 2, 2), model.autoencoder
    config = vae.config
    deviation, mean = (torch.tensor(s)[:, None, None, None] for s in (config.latents_std, config.latents_mean))
    want = vae.decode(z * deviation + mean).sample.transpose(1, 2)
    one, other = (model.decoder()(iter(torch.split(z, 4, dim=2))) for _ in range(2))
    got = []
    for part, same in zip(one, other, strict=True):
        got.append(part)
        vae.decode(z)
        assert torch.equal(part, same)
    torch.testing.assert_close(torch.cat(got, dim=1), want, rtol=0, atol=1e-5)
    assert want.shape[1] == 33


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_decoder_that_has_seen_its_reach_gives_what_the_running_one_gives(blocks: int) -> None:
    """To the bit; and a quarter of that is not enough, so that it is the past that makes them alike."""
    vae = scramble(AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=blocks), 3, size=1.5)
    decoder = Streamed(vae)
    memory = reach(vae.decoder)
    assert memory == decoder.memory
    z = noise(1, 16, memory + 12, 1, 1)
    running = streamed(decoder, z)
    for begun in (3, 11):
        again = streamed(decoder, z[:, :, begun:])
        assert torch.equal(again[:, 1 + 4 * (memory - 1) :], running[:, 4 * (begun + memory) - 3 :])
    few = memory // 4
    again = streamed(decoder, z[:, :, 11:])
    assert not torch.equal(again[:, 1 + 4 * (few - 1) :], running[:, 4 * (11 + few) - 3 :])


def test_the_reach_of_the_published_autoencoder() -> None:
    """By hand: 2 convolutions of the middle and the first level at the latents' rate, ..., 37.5 latents in all."""
    with torch.device("meta"):
        at_rate = {1: 1 + 4 + 6 + 1, 2: 6 + 1, 4: 6 + 6 + 1}  # temporal kernels of 3: two frames back each
        assert reach(AutoencoderKLWan().decoder) == 39
    assert sum(2 * many / rate for rate, many in at_rate.items()) == 37.5


SMALL = {"model": "wan-1.3b", "prompt": "a red balloon", "size": (16, 16), "partitions": 1, "lookahead": "off"}


def run(weights: str, **said: object) -> Any:
    return resolve(Run.of({**SMALL, "weights": weights, "guidance": 1.0, "device": "cpu", **said}))


@pytest.mark.parametrize("clip", [False, True])
def test_a_stopped_stream_goes_on_bit_for_bit(clip: bool, weights: str, tmp_path: Path) -> None:
    """The latents that the decoder remembers travel with the state; at most one latent is made again."""
    from PIL import Image

    Image.effect_noise((16, 16), 80).convert("RGB").save(tmp_path / "still.png")
    decided = run(weights, frames=230, **({"clip": str(tmp_path / "still.png")} if clip else {}))
    session, frames, places = Session(decided), [], []
    for frame in session.frames():
        frames.append(frame)
        if len(frames) in (1, 2, 5, 90, 200):
            places.append((len(frames), session.trail.place()))
    memory = session.model.decoder().memory
    for made, place in places:
        passed = place.state.iteration + (21 if clip else 0)
        if place.state.iteration > 0:
            assert place.state.seen is not None
            assert place.state.seen.shape[2] == min(passed, memory)
        assert place.skip <= 8
        on: list[Frame] = list(islice(Session(decided).frames(place), 12))
        np.testing.assert_array_equal(on, frames[made : made + 12])


def test_a_video_cut_in_two_is_the_video_made_at_once(weights: str, tmp_path: Path) -> None:
    """Through checkpoints on disk."""
    said = {**SMALL, "weights": weights, "guidance": 1.0, "device": "cpu"}
    whole = api.make(Run.of({**said, "frames": 60}), str(tmp_path / "whole.mp4"))
    api.make(Run.of({**said, "frames": 30}), str(tmp_path / "cut.mp4"))
    cut = api.resume(str(tmp_path / "cut.mp4"), frames="+30")
    assert cut.frames_sha256 == whole.frames_sha256


@torch.no_grad()
def test_text_is_what_the_published_pipeline_hears(model: Wan, weights: str) -> None:
    """WanPipeline's own encoding, 512 tokens with zeros after the prompt's."""
    scheduler = UniPCMultistepScheduler.from_pretrained(weights, subfolder="scheduler")
    pipeline = WanPipeline(model.reader.tokenizer, model.reader.net, model.autoencoder, scheduler)
    for prompt in ("a red  balloon &amp;amp; a fish", ""):
        want = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False, max_sequence_length=512)[0]
        got = model.embed([prompt])["text"]
        assert got.shape == (1, 512, tiny_wan.WIDTH)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    assert bool((got[:, 8:] == 0).all())


@torch.no_grad()
def test_a_frame_hears_its_own_text(model: Wan) -> None:
    """With the frames apart, each says what it says where all hear its text."""
    z, t = noise(2, 16, 3, 4, 4), torch.tensor([[100.0, 500.0, 900.0]]).expand(2, 3)
    texts = model.embed(["a red balloon", "a blue fish", "the ocean at night"])["text"]
    with tiny_wan.apart(model):
        mixed = wan(model.network, z, t, torch.stack([texts, texts.roll(1, 0)]))
        for row in range(2):
            for f in range(3):
                alone = wan(model.network, z[row : row + 1], t[:1], texts[(f - row) % 3][None])
                torch.testing.assert_close(mixed[row, :, f], alone[0, :, f], rtol=0, atol=1e-5)
                other = wan(model.network, z[row : row + 1], t[:1], texts[(f - row + 1) % 3][None])
                assert (mixed[row, :, f] - other[0, :, f]).abs().max() > 1e-3


def test_levels_are_those_of_the_published_scheduler(model: Wan, weights: str) -> None:
    """But for one training step of a thousand, of which UniPC stops short at both ends, and rounding to whole times."""
    scheduler = UniPCMultistepScheduler.from_pretrained(weights, subfolder="scheduler")
    scheduler.set_timesteps(63)
    ours = model.schedule(63, "even")
    assert ours.predicts == "flow"
    torch.testing.assert_close(ours.sigma.flip(0), scheduler.sigmas.double(), rtol=0, atol=3e-3)
    torch.testing.assert_close(ours.time[1:].flip(0), scheduler.timesteps.double(), rtol=0, atol=3)


@pytest.mark.parametrize(
    ("size", "folder", "shift"), [((832, 480), 3, 3), ((1280, 720), 3, 5), ((720, 1280), 3, 5), ((1280, 720), 8, 8)]
)
def test_the_shift_goes_by_the_size_unless_the_folder_has_its_own(
    size: tuple[int, int], folder: float, shift: float, model: Wan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "size", size)
    monkeypatch.setattr(model, "shift", float(folder))
    middle = float(model.schedule(64, "even").sigma[32])
    assert middle == pytest.approx(shift / (1 + shift))


def test_a_session_tells_the_model_its_size(weights: str) -> None:
    assert Session(run(weights, size=(32, 16))).model.size == (32, 16)


@torch.no_grad()
def test_what_is_encoded_is_decoded_with_the_same_spread(model: Wan) -> None:
    """Mean and deviation of the latents are taken out as they are put in."""
    vae, pixels = model.autoencoder, noise(1, 5, 3, 16, 16).clamp(-1, 1)
    raw = vae.encode(pixels.transpose(1, 2)).latent_dist.mode()
    want = vae.decode(raw).sample.transpose(1, 2)
    torch.testing.assert_close(streamed(model.decoder(), model.encode(pixels)), want, rtol=0, atol=1e-4)
    with pytest.raises(BadInput, match="6 frames are no whole number"):
        model.encode(noise(1, 6, 3, 16, 16))


def changed(weights: str, tmp_path: Path, file: str, **said: Any) -> Path:
    import shutil

    folder = Path(shutil.copytree(weights, tmp_path / "changed"))
    held = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**held, **said}))
    return folder


def test_relatives_and_other_schedulers_are_refused(weights: str, tmp_path: Path) -> None:
    scheduler = "scheduler/scheduler_config.json"
    others: list[dict[str, Any]] = [{"use_flow_sigmas": False}, {"flow_shift": 0}, {"flow_shift": None}]
    for number, said in enumerate(others):
        with pytest.raises(ModelError, match=r"scheduler_config\.json.*rectified flow"):
            load(changed(weights, tmp_path / str(number), scheduler, **said))
    two = changed(weights, tmp_path / "two", scheduler)
    (two / "transformer_2").mkdir()
    with pytest.raises(ModelError, match="second transformer"):
        load(two)


def test_the_papers_table_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(BadInput, match="levels even"):
        resolve(Run.of({"prompt": "a", "model": "wan-1.3b", "weights": "no/such-weights", "levels": "paper"}))


def test_slower_positions_leave_the_network_as_it_was(weights: str) -> None:
    """Through a session: of 21 latents it is plain sampling, of 24 not, and what the network holds does not change."""

    def make(method: str, latents: int) -> tuple[Tensor, Wan]:
        decided = run(weights, method=method, partitions=None, lookahead=None, steps=2, frames=1 + 4 * (latents - 1))
        session = Session(decided)
        video = torch.cat(list(session.sampled()), dim=2)
        assert isinstance(session.model, Wan)
        return video, session.model

    (short, _), (long, model) = make("riflex", 21), make("riflex", 24)
    assert long.shape[2] == 24
    assert torch.equal(short, make("plain", 21)[0])
    assert not torch.equal(long, make("plain", 24)[0])
    fresh = load(weights).network
    for now, then in ((model.network.state_dict(), fresh.state_dict()), *_buffers(model.network, fresh)):
        assert all(torch.equal(now[name], then[name]) for name in then)


def _buffers(*nets: Any) -> list[tuple[dict[str, Tensor], ...]]:
    return [tuple(dict(net.named_buffers()) for net in nets)]


def test_a_preview_names_frames_of_the_video_and_decodes_its_places_one_by_one(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A latent is four frames of it, and sixteen of them at once would take sixteen times the memory."""
    session = Session(run(weights, frames=5, start="noise"))
    engine, decoded = session.engine, list[int]()
    state = engine.cold_start(session._like()[:, :, 0])
    decode = session.model.decoder().__class__.__call__

    def noted(self: Any, latents: Iterator[torch.Tensor]) -> Any:
        return decode(self, (decoded.append(len(one)) or one for one in latents))  # type: ignore[func-returns-value]

    monkeypatch.setattr(session.model.decoder().__class__, "__call__", noted)
    shown = session._shown(state, engine.execute(engine.calls(state)))
    places = sorted({round(i * (engine.plan.length - 1) / 15) for i in range(16)})
    assert shown.names == [f"frame {4 * place}" for place in places]
    assert set(decoded) == {1}
    assert shown.as_it_is.shape == shown.expected.shape == (len(places), 16, 16, 3)
