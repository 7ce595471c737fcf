"""What of a repository on the Hub is fetched: all that is read, and nothing that is not."""

from pathlib import Path

import pytest

from fifo_diffusion.models.files import lean, locate
from fifo_diffusion.models.latent import FOLDER
from fifo_diffusion.models.latte_classes import AUTOENCODERS

MODELSCOPE = [  # as the folder of damo-vilab's 1.7b model is published
    "README.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    *(f"{part}/{name}{kind}" for part, name in (("text_encoder", "model"), ("unet", "diffusion_pytorch_model"))
      for kind in (".safetensors", ".fp16.safetensors")),
    "text_encoder/pytorch_model.bin",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.bin",
    "unet/config.json",
    "vae/diffusion_pytorch_model.fp16.bin",
    "vae/diffusion_pytorch_model.bin",
    "tokenizer/vocab.json",
    "text_to_video.ckpt",
]  # fmt: skip


def test_of_a_part_the_whole_precision_is_fetched_and_safetensors_where_there_are_some() -> None:
    assert set(lean(MODELSCOPE, FOLDER)) == {
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin",
        "tokenizer/vocab.json",
    }


def test_every_piece_of_a_large_one_is_fetched_and_half_precision_where_there_is_no_other() -> None:
    pieces = [f"text_encoder/model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = "text_encoder/model.safetensors.index.fp16.json"
    assert set(lean([*pieces, index], FOLDER)) == {*pieces, index}


def test_single_files_are_fetched_by_name_and_of_lattes_autoencoders_all_that_may_serve() -> None:
    names = ["ucf101.pt", "ffs.pt", "sd-vae-ft-ema/config.json", "sd-vae-ft-mse/config.json", "vae/config.json"]
    patterns = ("ucf101.pt", *(f"{name}/*" for name in AUTOENCODERS))
    assert set(lean(names, patterns)) == {"ucf101.pt", "sd-vae-ft-ema/config.json", "vae/config.json"}


def test_where_the_list_cannot_be_had_what_is_here_already_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(_: str) -> list[str]:
        raise OSError("no network")

    asked = []

    def fetched(name: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append((name, sorted(allow_patterns), local_files_only))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    monkeypatch.setattr("huggingface_hub.list_repo_files", offline)
    assert locate("some/model", ("b.ckpt", "a/*")) == tmp_path
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda _: ["b.ckpt", "c.ckpt"])
    locate("some/model", ("b.ckpt", "a/*"))
    assert asked == [("some/model", ["a/*", "b.ckpt"], True), ("some/model", ["b.ckpt"], False)]
