"""What sharpens the larger model's coarse patches, against its formula in three dimensions."""

import torch
from torch.nn.functional import conv3d, layer_norm, silu

from fifo_diffusion.models.embedded.detail import Detail, _Block
from fifo_diffusion.models.embedded.transformer import VideoTransformer


@torch.no_grad()
def test_it_is_its_formula_at_every_frames_own_time() -> None:
    draw = torch.Generator().manual_seed(0)
    b, c, f, side, p, width, tokens = 2, 3, 4, 8, 4, 6, 10
    net = Detail(channels=c, patch=p, tokens=tokens, width=width, depth=2)
    for parameter in net.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw) / 4)
    z, coarse = torch.randn(2, b, c, f, side, side, generator=draw)
    token, hint = torch.randn(b, f, 4, tokens, generator=draw), torch.randn(b, f, tokens, generator=draw)

    def space(layer: torch.nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = conv3d(x, layer.weight[:, :, None], layer.bias, padding=(0, 1, 1))
        return out

    def modulated(x: torch.Tensor, place: int) -> torch.Tensor:
        wide: torch.Tensor = net.modulation(hint).transpose(1, 2)[..., None, None]
        parts = wide.chunk(6, dim=1)  # (B, E, F, 1, 1) each
        normed: torch.Tensor = layer_norm(x.movedim(1, -1), (width,)).movedim(-1, 1)
        return normed * (1 + parts[2 * place + 1]) + parts[2 * place]

    x = space(net.enter, torch.cat([z, coarse], dim=1))
    said = net.say(token)
    for row in range(side):
        for column in range(side):
            of = said[:, :, 2 * (row // p) + column // p].view(b, f, p, p, width)[:, :, row % p, column % p]
            x[..., row, column] += of.transpose(1, 2)
    for place, block in enumerate(net.blocks):
        assert isinstance(block, _Block)
        y = silu(space(block.space, modulated(x, place)))
        x = x + conv3d(y, block.time.weight[..., None], block.time.bias, padding=(1, 0, 0))
    want = coarse + space(net.leave, modulated(x, 2))
    torch.testing.assert_close(net(z, coarse, token, net.told(hint)), want, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_changes_nothing_until_it_is_trained_and_then_every_latent_by_itself() -> None:
    torch.manual_seed(0)
    coarse, sharp = (VideoTransformer(2, 24, depth=1, heads=2, patch=4, text=24, fine=fine) for fine in (None, 8))
    assert sharp.detail is not None
    torch.nn.init.normal_(coarse.leave.weight)
    new = sharp.load_state_dict(coarse.state_dict(), strict=False).missing_keys
    assert new
    assert all(name.startswith("detail.") for name in new)
    z, t = torch.randn(1, 2, 3, 8, 8), torch.tensor([[10.0, 500.0, 990.0]])
    text = torch.randn(1, 1, 24), torch.randn(1, 1, 5, 24), torch.ones(1, 1, 5, dtype=torch.bool)
    torch.testing.assert_close(sharp(z, t, *text), coarse(z, t, *text))
    torch.nn.init.normal_(sharp.detail.leave.weight)
    added = sharp(z, t, *text) - coarse(z, t, *text)
    assert added.flatten().unique().numel() == added.numel()
