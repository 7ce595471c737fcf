"""The metrics that look through published networks, on random weights: what they read at which frame, in any blocks."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.evaluate.alignment import NAME, Alignment
from fifo_diffusion.evaluate.choosing import choose
from fifo_diffusion.evaluate.consistency import BACKGROUND, SUBJECT, Consistency, apart
from fifo_diffusion.evaluate.distances import EVERY, FrameDistance, Seen, VideoDistance, _Frames
from fifo_diffusion.evaluate.frechet import Moments, frechet, kernel_distance
from fifo_diffusion.evaluate.metric import Gather, Metric, Reading, Score, SetMetric, Video
from fifo_diffusion.evaluate.networks import efficientnet, i3d, inception, lpips, obtain
from fifo_diffusion.evaluate.networks.published import PUBLISHED
from fifo_diffusion.evaluate.perceptual import METRICS as PERCEPTUAL
from fifo_diffusion.evaluate.raft_motion import RaftMotion

Frames = Tensor


@pytest.fixture(scope="module", autouse=True)
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each network's cache holds weights of the right names and shapes, in the range that keeps features alive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIFO_CACHE", str(tmp_path_factory.mktemp("networks")))
        for name in ("i3d", "inception", "lpips-alex", "efficientnet", "raft"):
            torch.manual_seed(0)
            state = {}
            for key, value in PUBLISHED[name].build().state_dict().items():
                fan = value[0].numel() if value.ndim > 1 else 1
                state[key] = (
                    torch.randn_like(value) * (2 / fan) ** 0.5 if value.ndim > 1 else torch.rand_like(value) / 10
                )
            obtain.kept(name).parent.mkdir(exist_ok=True)
            save_file(state, obtain.kept(name))
        yield
        obtain._loaded.cache_clear()


def frames(count: int, seed: int = 0, height: int = 40, width: int = 48) -> Frames:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=draw, dtype=torch.uint8)


def video(shown: Frames, **more: Any) -> Video:
    return Video("v", (shown.shape[3], shown.shape[2]), **more)


def read(metric: Metric, shown: Frames, blocks: Sequence[int], **more: Any) -> dict[str, dict[int, float]]:
    meter, out, first = metric.begin(video(shown, **more)), dict[str, dict[int, float]](), 0
    said: list[Reading] = []
    for block in torch.split(shown, list(blocks)):
        said += meter.push(block, first)
        first += len(block)
    for name, frame, value in [*said, *meter.close()]:
        assert frame not in out.setdefault(name, {}), "two readings of a frame"
        out[name][frame] = value
    return out


def same(one: dict[str, dict[int, float]], other: dict[str, dict[int, float]]) -> bool:
    return one.keys() == other.keys() and all(one[name] == pytest.approx(other[name], abs=2e-4) for name in one)


@pytest.mark.parametrize("metric", [PERCEPTUAL[0], Consistency()], ids=["lpips", "consistency"])
def test_blocks_do_not_matter(metric: Metric) -> None:
    shown = frames(5)
    whole = read(metric, shown, [5])
    assert set(whole) == {quantity.name for quantity in metric.quantities}
    assert all(sorted(values) == [1, 2, 3, 4] for values in whole.values())
    assert same(whole, read(metric, shown, [1, 3, 1]))


def test_lpips_is_told_to_the_frame_before_and_to_the_first() -> None:
    (metric, _), shown = PERCEPTUAL, frames(3)
    net = obtain.network("lpips-alex")
    assert isinstance(net, lpips.LPIPS)
    a, b, c = (lpips.features(net, frame[None]) for frame in shown)
    found = read(metric, shown, [3])
    before, first = (quantity.name for quantity in metric.quantities)
    assert found[before] == pytest.approx({1: net.between(a, b).item(), 2: net.between(b, c).item()}, rel=1e-4)
    assert found[first] == pytest.approx({1: net.between(a, b).item(), 2: net.between(a, c).item()}, rel=1e-4)
    still = read(metric, shown[:1].expand(3, -1, -1, -1), [2, 1])
    assert max(value for values in still.values() for value in values.values()) < 1e-6
    with pytest.raises(BadInput, match="needs 31 pixels"):
        metric.begin(video(frames(1, height=30)))
    assert not metric.suits(video(frames(1, height=30)))


def test_consistency_is_as_vbench_defines_it() -> None:
    shown = frames(3)
    net = obtain.network("efficientnet")
    assert isinstance(net, efficientnet.EfficientNet)
    found = read(Consistency(), shown, [3])
    for name, seen in zip((SUBJECT, BACKGROUND), apart(efficientnet.features(net, shown)), strict=True):
        d = seen / seen.norm(dim=1, keepdim=True)
        assert found[name][1] == pytest.approx(100 * float(d[0] @ d[1]), abs=1e-3)
        assert found[name][2] == pytest.approx(50 * float(d[0] @ d[2] + d[1] @ d[2]), abs=1e-3)
    still = read(Consistency(), shown[:1].expand(3, -1, -1, -1), [3])
    assert all(value == pytest.approx(100) for values in still.values() for value in values.values())


def test_the_subject_is_where_features_are_strong() -> None:
    features = torch.rand(2, 4, 3, 3) / 10
    features[0, :, 1, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    features[1, :, 0, 0] = features[1, :, 2, 1] = torch.tensor([4.0, 0.0, 0.0, 2.0])
    subject, background = apart(features)
    assert torch.allclose(subject[0], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.allclose(subject[1], torch.tensor([4.0, 0.0, 0.0, 2.0]))
    assert background.max() < 0.1
    even = torch.ones(1, 4, 3, 3)  # nothing stands out: all is background
    assert torch.equal(apart(even)[0], torch.zeros(1, 4))
    assert torch.allclose(apart(even)[1], torch.ones(1, 4))


def test_raft_reads_what_dis_reads() -> None:
    shown = frames(3, height=24, width=32)
    found = read(RaftMotion(), shown, [2, 1])
    assert set(found) == {quantity.name for quantity in RaftMotion().quantities}
    assert sorted(found["motion (RAFT)"]) == [1, 2]


# --- sets ----------------------------------------------------------------------------------------------------------


def gathered(metric: SetMetric, *videos: Frames, blocks: int = 7) -> Gather:
    gather = metric.gather()
    for shown in videos:
        gather.begin(video(shown))
        for first in range(0, len(shown), blocks):
            gather.push(shown[first : first + blocks], first)
    return gather


def scores(metric: SetMetric, ours: Gather, reference: Gather) -> dict[str, Score]:
    return {score.quantity.name.partition(" (")[0]: score for score in metric.compare(ours, reference)}


def logits(*clips: Frames) -> Tensor:
    net = obtain.network("i3d")
    assert isinstance(net, i3d.I3D)
    return torch.cat([i3d.logits(net, clip[None]) for clip in clips]).double()


def moments(vectors: Tensor) -> Moments:
    out = Moments(vectors.shape[1])
    out.add(vectors)
    return out


LENGTH = i3d.LEAST  # frames of a clip: as few as I3D takes


@pytest.fixture(scope="module")
def seen() -> tuple[VideoDistance, list[Frames], Gather]:
    """Four videos of 20 frames, and what is kept of the last two."""
    metric, shown = VideoDistance(LENGTH), [frames(20, seed, 16, 16) for seed in range(4)]
    return metric, shown, gathered(metric, shown[2][:19], shown[3], blocks=40)


def test_clips_lie_within_videos_and_halves_are_of_videos(seen: tuple[VideoDistance, list[Frames], Gather]) -> None:
    metric, (a, b, c, d), reference = seen
    found = scores(metric, gathered(metric, a[:19], b[:13]), reference)
    assert set(found) == {"FVD", "KVD", "inception score"}
    mine = logits(a[:9], a[9:18], b[:9])
    theirs = [logits(shown[:9], shown[9:18]) for shown in (c, d)]
    wanted = frechet(moments(mine), moments(torch.cat(theirs)))
    assert found["FVD"].value == pytest.approx(wanted, rel=1e-3)
    assert found["FVD"].floor == pytest.approx(frechet(*map(moments, theirs)), rel=1e-3)
    assert found["FVD"].of == "3 clips of 9 frames against 4, 16x16 pixels; fewer than 512, so it is too high"
    value, error = kernel_distance(mine, torch.cat(theirs))
    assert (found["KVD"].value, found["KVD"].error) == pytest.approx((value, error), rel=1e-3)
    assert found["KVD"].floor == pytest.approx(kernel_distance(*theirs)[0], rel=1e-3)
    shares = mine.softmax(dim=1)
    score = (shares * (shares / shares.mean(dim=0)).log()).sum(dim=1).mean().exp()
    assert found["inception score"].value == pytest.approx(float(score), rel=1e-3)


def test_too_few_clips_give_no_distance(seen: tuple[VideoDistance, list[Frames], Gather]) -> None:
    metric, (shown, *_), reference = seen
    assert scores(metric, gathered(metric, shown[:8]), reference) == {}
    assert set(scores(metric, gathered(metric, shown[:9]), reference)) == {"inception score"}
    alone = scores(metric, reference, gathered(metric, shown))
    assert alone["FVD"].floor is None  # one video has no other half
    assert alone["KVD"].floor is None


def test_vectors_of_long_and_short_videos_are_as_likely_in_the_sample() -> None:
    """Or the kernel distance would see another set than the Frechet distance beside it."""

    class Told(Seen):
        def push(self, frames: Tensor, first: int) -> None: ...

    told = Told(1)
    for value, count in ((0.0, 3000), (1.0, 100)):
        told.begin(Video("a", (16, 16)))
        told.keep(torch.full((count, 1), value))
    assert len(told.sample) == 2048
    assert 0.02 < float(told.sample.vectors.mean()) < 0.045  # of 100 in 3,100


def test_every_fourth_frame_is_seen_whatever_the_blocks() -> None:
    metric = FrameDistance()
    shown = frames(10, 0, 20, 24)
    net = obtain.network("inception")
    assert isinstance(net, inception.Inception)
    wanted = inception.features(net, shown[::EVERY]).double()
    for blocks in (3, 10):
        found = gathered(metric, shown, blocks=blocks)
        assert isinstance(found, _Frames)
        assert found.sample.vectors.numpy() == pytest.approx(wanted.numpy(), rel=1e-3, abs=1e-3)
        assert found.all.count == 3
        assert torch.allclose(found.all.mean, wanted.mean(dim=0), rtol=1e-3, atol=1e-3)


# --- a CLIP of the user's ------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny CLIP in the layout of transformers, with a tokenizer of a few words."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": 60, "max_position_embeddings": 12, "eos_token_id": 59, "bos_token_id": 58}
    vision = {**small, "image_size": 24, "patch_size": 8}
    folder = tmp_path / "clip"
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    letters = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    words = [*letters, "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i if i < 54 else 58 + i - 54 for i, word in enumerate(words)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")).save_pretrained(folder)
    monkeypatch.setenv("FIFO_CLIP", str(folder))
    return folder


def test_alignment_is_transformers_own(clip: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    assert Alignment().missing() is None
    shown = frames(4, height=24, width=24)
    found = read(Alignment(), shown, [1, 3], prompt="a red cab", cues=((2, "sea"),))[NAME]
    model, words = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)
    mean, spread = (torch.tensor(part).view(3, 1, 1) for part in (
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))  # fmt: skip
    pixels = (shown / 255 - mean) / spread
    with torch.inference_mode():
        out = [model(**words([p], return_tensors="pt"), pixel_values=pixels) for p in ("a red cab", "sea")]
    cosines = torch.cat([one.image_embeds @ one.text_embeds.T for one in out], dim=1)
    wanted = [cosines[0, 0], cosines[1, 0], cosines[2, 1], cosines[3, 1]]
    assert [found[i] for i in range(4)] == pytest.approx([100 * max(0.0, float(value)) for value in wanted], abs=1e-3)
    assert max(found.values()) > 0
    assert len(set(found.values())) > 1


def test_alignment_wants_a_prompt_and_a_whole_folder(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Alignment().suits(video(frames(1)))
    monkeypatch.delenv("FIFO_CLIP")
    assert "--clip FOLDER" in str(Alignment().missing())
    monkeypatch.setenv("FIFO_CLIP", str(clip.parent))
    assert "holds no config.json" in str(Alignment().missing())
    monkeypatch.setenv("FIFO_CLIP", str(clip))
    (clip / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match=r"clip.* cut short|cannot be used"):
        Alignment().begin(video(frames(1), prompt="sea"))


def test_a_metric_whose_network_is_not_here_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FIFO_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match=r"metric fvd cannot be had here: .*fifo evaluate fetch i3d"):
        choose(["fvd"], True)
    left = {one.metric: one.why for one in choose([], True).without}
    assert {"fvd", "fvd-128", "fid", "lpips", "lpips-vgg", "consistency", "raft"} <= left.keys()
