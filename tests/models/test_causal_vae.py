"""Open-Sora Plan's autoencoder: its published keys, what it is for one frame, its causality, its chunks.

Nobody else publishes this network in a library, so it is held by what is known of it: for a single frame it is
diffusers' AutoencoderKL, and the rest are properties.
"""

from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from typing import Any

import pytest
import tiny_parts
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.models import causal_vae_layers
from fifo_diffusion.models.causal_vae import CausalVAE, ChunkedDecoder
from fifo_diffusion.models.causal_vae_layers import CausalConv3d
from fifo_diffusion.models.causal_vae_shape import PUBLISHED
from fifo_diffusion.models.tiles import tiled

TINY = {**PUBLISHED, "hidden_size": 32, "hidden_size_mult": [1, 1, 2, 2]}


def tiny() -> CausalVAE:
    """Random weights of a size that keeps numbers near 1, the mixing factors each their own."""
    torch.manual_seed(0)
    net = CausalVAE(TINY).double().eval()
    for name, parameter in net.named_parameters():
        if name.endswith("mix_factor"):
            nn.init.uniform_(parameter, -2, 2)
    return net.requires_grad_(False)


noise = partial(tiny_parts.noise, dtype=torch.float64)


def test_the_full_size_has_the_published_keys_and_parameters() -> None:
    """260 keys, 246.86 million numbers; 149.51 of them decode.  Names and shapes of each kind of block."""
    with torch.device("meta"):
        net = CausalVAE(PUBLISHED)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert len(shapes) == 260
    assert sum(p.numel() for p in net.parameters()) == 246_859_499
    decoding = [*net.decoder.parameters(), *net.post_quant_conv.parameters()]
    assert sum(p.numel() for p in decoding) == 149_510_169
    assert {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.2.block.0.conv1.conv.weight": (512, 256, 3, 3, 3),
        "encoder.down.0.downsample.conv.weight": (128, 128, 3, 3),
        "encoder.down.2.time_downsample.conv.weight": (512, 512, 3, 3, 3),
        "encoder.down.1.time_downsample.mix_factor": (1,),
        "encoder.mid.attn_1.q.conv.weight": (512, 512, 1, 1, 1),
        "encoder.conv_out.conv.weight": (8, 512, 3, 3, 3),
        "quant_conv.conv.weight": (8, 8, 1, 1, 1),
        "post_quant_conv.conv.weight": (4, 4, 1, 1, 1),
        "decoder.conv_in.conv.weight": (512, 4, 3, 3, 3),
        "decoder.up.0.block.0.nin_shortcut.conv.weight": (128, 256, 1, 1, 1),
        "decoder.up.1.upsample.conv.conv.weight": (256, 256, 1, 3, 3),
        "decoder.up.3.time_upsample.conv.conv.weight": (512, 512, 3, 3, 3),
        "decoder.up.2.time_upsample.mix_factor": (1,),
        "decoder.conv_out.conv.weight": (3, 128, 3, 3, 3),
    }.items() <= shapes.items()


def test_one_frame_is_a_picture_of_the_stock_autoencoder() -> None:
    """A frame alone is its own past, so a causal kernel acts as its sum over time; with the mixing factors closed the
    time blocks let it through.
    """
    net = tiny()
    for name, parameter in net.named_parameters():
        if name.endswith("mix_factor"):
            nn.init.constant_(parameter, 40.0)  # its sigmoid is 1
    flat = {}
    for name, value in net.state_dict().items():
        if "time_" not in name:
            flat[name.replace(".conv.weight", ".weight").replace(".conv.bias", ".bias")] = (
                value.sum(dim=2) if value.ndim == 5 else value
            )
    for level in range(3):  # here the block itself is named conv
        flat |= {f"encoder.down.{level}.downsample.conv.{end}": flat.pop(f"encoder.down.{level}.downsample.{end}")
                 for end in ("weight", "bias")}  # fmt: skip
        flat |= {f"decoder.up.{level + 1}.upsample.conv.{end}": flat.pop(f"decoder.up.{level + 1}.upsample.conv.{end}")
                 for end in ("weight", "bias")}  # fmt: skip
    stock = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=0.18215,
    )
    stock = stock.double().eval()
    stock.load_state_dict(convert_ldm_vae_checkpoint(flat, dict(stock.config)))
    pixels, latents = noise(2, 3, 32, 48).clamp(-1, 1), noise(2, 4, 4, 6)
    with torch.no_grad():
        want = stock.encode(pixels).latent_dist.mode() * stock.config.scaling_factor
        torch.testing.assert_close(net.encode(pixels[:, :, None])[:, :, 0], want)
        want = stock.decode(latents / stock.config.scaling_factor).sample
        torch.testing.assert_close(net.decode(latents[:, :, None])[:, :, 0], want)


def test_frames_come_in_groups_of_four_after_the_first() -> None:
    net = tiny()
    for frames, latents in ((1, 1), (5, 2), (17, 5)):
        z = net.encode(noise(1, 3, frames, 16, 24))
        assert z.shape == (1, 4, latents, 2, 3)
        assert net.decode(z).shape == (1, 3, frames, 16, 24)
    with pytest.raises(BadInput, match="16 frames of 24x16"):
        net.encode(noise(1, 3, 16, 16, 24))


def without_norms(net: CausalVAE) -> CausalVAE:
    """Norms take their statistics over time: what is left without them is causal, or should be."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Hardtanh(-9, 9))
    return net


def test_what_comes_later_is_not_seen() -> None:
    """But for the norms: a latent hears no later frames, a frame no later latents than the next one."""
    net, pixels = without_norms(tiny()), noise(1, 3, 17, 16, 16)
    changed = pixels.clone()
    changed[:, :, 9:] += 1  # latents 0, 1 and 2 are of frames 0 to 8
    moved = (net.encode(changed) - net.encode(pixels)).abs().amax(dim=(0, 1, 3, 4))
    assert moved[:3].max() == 0
    assert moved[3:].min() > 0

    latents = noise(1, 4, 5, 2, 2)
    changed = latents.clone()
    changed[:, :, 3:] += 1  # latents 0 to 2 are frames 0 to 8, the last three of them on the way to latent 3
    moved = (net.decode(changed) - net.decode(latents)).abs().amax(dim=(0, 1, 3, 4))
    assert moved[:6].max() == 0
    assert moved[9:].min() > 0


def test_a_convolution_in_pieces_is_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernel in (1, 3, (1, 3, 3)):
        conv, x = CausalConv3d(4, 6, kernel).double(), noise(2, 4, 7, 3, 5)
        whole = conv(x)
        for frames in (1, 2, 3):
            monkeypatch.setattr(causal_vae_layers, "MOST", frames * 2 * 4 * 3 * 5 + 1)
            torch.testing.assert_close(conv(x), whole)
        monkeypatch.undo()


def test_doubling_the_frames_is_linear_interpolation() -> None:
    block: Any = tiny().decoder.up.get_submodule("2.time_upsample")
    x = noise(1, 64, 4, 3, 3)
    rest = nn.functional.interpolate(x[:, :, 1:], scale_factor=(2, 1, 1), mode="trilinear")
    mixed, share = torch.cat([x[:, :, :1], rest], dim=2), block.mix_factor.sigmoid()
    torch.testing.assert_close(block(x), share * mixed + (1 - share) * block.conv(mixed))


def chunks(whole: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """The tensor cut along its frames; what the sizes leave is the last chunk."""
    ends = [*accumulate(sizes), whole.shape[2]]
    starts = [0, *ends]
    return (whole[:, :, a:b] for a, b in zip(starts, ends, strict=False) if a < b)


def simple(z: Tensor) -> Tensor:
    """A decoder that is easy to follow."""
    return z[:, :3].repeat_interleave(4, dim=2)[:, :, 3:]


@settings(max_examples=40)
@given(
    total=st.integers(1, 40),
    cuts=st.lists(st.integers(1, 9), max_size=12),
    plan=st.lists(st.integers(2, 9), min_size=1, max_size=3),
)
def test_frames_do_not_depend_on_how_latents_come(total: int, cuts: list[int], plan: list[int]) -> None:
    """And no more than a chunk is ever decoded, every frame once."""
    latents, seen = noise(1, 4, total, 1, 1), list[int]()

    def decode(z: Tensor) -> Tensor:
        seen.append(z.shape[2])
        return simple(z)

    decoder = ChunkedDecoder(decode, plan)
    frames = torch.cat(list(decoder(chunks(latents, [c for c in cuts if c < total]))), dim=1)
    torch.testing.assert_close(frames.transpose(1, 2), simple(latents))
    assert seen[:-1] == [plan[i % len(plan)] for i in range(len(seen) - 1)]
    assert seen[-1] <= plan[(len(seen) - 1) % len(plan)]


@pytest.mark.parametrize("plan", [(3,), (3, 3, 2)])
def test_a_stream_is_the_chunked_decode_of_the_whole(plan: tuple[int, ...]) -> None:
    """With the real network: chunks that share a latent, decoded apart and put together by hand."""
    net, latents = tiny(), noise(1, 4, 8, 2, 2)
    streamed = list(ChunkedDecoder(net.decode, plan)(chunks(latents, [1, 4, 1, 1])))
    by_hand, start = [net.decode(latents[:, :, : plan[0]])], plan[0] - 1
    for i in range(1, 5):
        part = latents[:, :, start : start + plan[i % len(plan)]]
        if part.shape[2] > 1:
            by_hand.append(net.decode(part)[:, :, 1:])
            start += part.shape[2] - 1
    assert torch.equal(torch.cat(streamed, dim=1), torch.cat(by_hand, dim=2).transpose(1, 2))
    assert sum(part.shape[1] for part in streamed) == 1 + 4 * 7


def test_the_decoder_gives_a_chunk_as_soon_as_it_can() -> None:
    """Frames come while latents are still being made, and what was held back is bounded."""
    asked = 0

    def endless() -> Iterator[Tensor]:
        nonlocal asked
        while True:
            asked += 1
            yield noise(1, 4, 1, 1, 1, seed=asked)

    frames = ChunkedDecoder(simple, (17,))(endless())
    made = [next(frames).shape[1] for _ in range(4)]
    assert made == [65, 64, 64, 64]
    assert asked == 17 + 3 * 16
    with pytest.raises(BadInput, match="at least 2"):
        ChunkedDecoder(simple, (17, 1))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 20), (21, 14), (64, 64)])
def test_tiles_of_what_is_the_same_everywhere_fit_without_a_seam(height: int, width: int) -> None:
    """And none is larger than asked for."""

    def enlarge(z: Tensor) -> Tensor:
        assert max(z.shape[3:]) <= 8
        return z.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)

    x = noise(1, 2, 2, height, width)
    torch.testing.assert_close(tiled(enlarge, x, 8, 8), x.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4))


def test_a_tiled_picture_goes_over_from_tile_to_tile() -> None:
    """Each tile says its own number: the number rises linearly over what two share."""
    number = iter(range(9))

    def count(z: Tensor) -> Tensor:
        return torch.full((1, 1, 1, z.shape[3] * 8, z.shape[4] * 8), float(next(number)))

    row = tiled(count, noise(1, 4, 1, 8, 14), 8, 8)[0, 0, 0, 0]
    assert row.tolist() == [0.0] * 48 + [i / 16 for i in range(16)] + [1.0] * 48


@pytest.mark.parametrize("tile", [None, 4])
def test_tiles_reach_the_network(tile: int | None) -> None:
    net, latents = tiny(), noise(1, 4, 2, 6, 6)
    pixels = net.decode(latents, tile)
    assert pixels.shape == (1, 3, 5, 48, 48)
    assert net.encode(pixels, tile).shape == latents.shape
    assert torch.equal(pixels, net.decode(latents)) is (tile is None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decoder_attention": "AttnBlock3D"}, "'AttnBlock3D' as decoder_attention"),
        ({"encoder_resnet_blocks": ["ResnetBlock2D", "ResnetBlock4D"] * 2}, "'ResnetBlock4D' as encoder_resnet_blocks"),
        ({"decoder_temporal_upsample": ["", "", "", "TimeUpsampleRes2x"]}, "time 2 and 1 times"),
        ({"encoder_spatial_downsample": ["Downsample"] * 3}, "3 blocks as encoder_spatial_downsample"),
        ({"attn_resolutions": [16]}, "attn_resolutions"),
        ({"q_conv": None}, "None as q_conv"),
    ],
)
def test_a_config_that_is_not_known_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        CausalVAE({**TINY, **change})
    with pytest.raises(ModelError, match="has no 'z_channels'"):
        CausalVAE({name: value for name, value in TINY.items() if name != "z_channels"})
