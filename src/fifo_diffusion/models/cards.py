"""What is known of each model: a `Card` each, in the order in which `fifo models` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fifo_diffusion.models.card import Card, Need

_EMBEDDED = Card(
    name="embedded",
    summary="small text-to-video model inside this package: eight subjects, six colours, six scenes",
    needs="nothing more; about 0.5 GB of memory, runs on a laptop CPU",
    loader="fifo_diffusion.models.embedded.model:load",
    window=16,
    space=8,
    size=(64, 64),
    encoder=True,
    fps=10,
    levels=999,
    partitions=4,
    lookahead="last",
    eta=1.0,
    guidance=4.0,
    scale=4,
    longer=True,
    windowed=True,
    repeats=24,  # seen: benchmarks/repeats.py; not of the two below, which have its positions
)
# VideoCrafter2: window, partitions, lookahead, eta and guidance are those that the authors of arXiv:2405.11473
# run it with (64 steps); they tell the network 8 frames a second and play at 10, here both are --fps.  They
# have published none for VideoCrafter1, which takes them over.  The sizes are those that were trained at.
_VIDEOCRAFTER2 = Card(
    name="videocrafter2",
    summary="VideoCrafter2 (arXiv:2401.09047), 512x320: what the paper shows most",
    needs="diffusers and transformers (the extra `models`), and model.ckpt of VideoCrafter/VideoCrafter2",
    loader="fifo_diffusion.models.videocrafter:load_2",
    weights="VideoCrafter/VideoCrafter2",
    encoder=True,
    window=16,
    space=8,
    size=(512, 320),
    any_size=True,
    multiple=64,
    fps=8,
    levels=999,
    partitions=4,
    lookahead="last",
    eta=1.0,
    guidance=12.0,
    memory=Need(stays=2.79, eight=1.51, text=1.27, window=0.57, decode=0.23),
    lora=True,
    longer=True,
    windowed=True,
)
_ZEROSCOPE = Card(
    name="zeroscope",
    summary="text to video at 576x320, 24 frames a window (zeroscope v2; cc-by-nc-4.0)",
    needs="diffusers and transformers (the extra `models`), and the weights: cerspense/zeroscope_v2_576w",
    loader="fifo_diffusion.models.zeroscope:load",
    weights="cerspense/zeroscope_v2_576w",
    encoder=True,
    window=24,  # of its model card
    space=8,
    size=(576, 320),
    any_size=True,
    fps=8,  # at which diffusers writes it: the weights do not say
    levels=999,
    partitions=4,  # n of arXiv:2405.11473
    lookahead="last",
    eta=0.5,  # the paper says DDIM with eta 0.5 or 1, and has published 1 for VideoCrafter2 only
    guidance=9.0,  # of diffusers' TextToVideoSDPipeline; the paper's configuration is not published
    memory=Need(stays=2.78, eight=1.5, text=1.27, window=0.96, decode=0.26),
    lora=True,
    longer=True,
    windowed=True,
)
_OPEN_SORA_PLAN = Card(
    name="open-sora-plan",
    summary="text to video at 512x512, 65 frames a window (Open-Sora Plan v1.1.0; MIT)",
    needs="diffusers, transformers and sentencepiece (the extra `models`), and the weights: "
    "LanguageBind/Open-Sora-Plan-v1.1.0 and DeepFloyd/t5-v1_1-xxl",
    loader="fifo_diffusion.models.opensora_plan:load",
    weights="LanguageBind/Open-Sora-Plan-v1.1.0",
    encoder=True,
    window=17,  # this, partitions (136 steps) and guidance: the script of arXiv:2405.11473's authors
    space=8,
    frames_per_latent=4,
    size=(512, 512),
    any_size=True,  # trained at 512x512 only
    multiple=16,  # patches of 2x2 latents
    fps=24,  # what both authors write
    levels=999,
    partitions=8,
    lookahead="last",
    eta=1.0,  # DDPM
    guidance=7.5,
    memory=Need(stays=2.43, eight=1.47, text=8.87, window=0.5, decode=5.66),
    lora=True,
)
# Wan 2.1: window, size, fps and guidance are of diffusers' examples, which take 50 steps (here 63).  eta 0 is
# the Euler step of its flow.  The paper's authors did not run it.
_WAN = Card(
    name="wan-1.3b",
    summary="text to video at 832x480, 81 frames a window (Wan 2.1, 1.3 billion parameters; Apache-2.0)",
    needs="diffusers, transformers and sentencepiece (the extra `models`), and the weights: "
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    loader="fifo_diffusion.models.wan:load",
    weights="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    encoder=True,
    window=21,
    space=8,
    frames_per_latent=4,
    size=(832, 480),
    any_size=True,
    multiple=16,  # patches of 2x2 latents
    fps=16,
    partitions=3,
    lookahead="last",
    eta=0.0,
    guidance=5.0,
    memory=Need(stays=3.12, eight=1.85, text=10.58, window=1.77, decode=7.27),
    splits=(1, 2, 4),  # 12 heads, 8,960 wide
    lora=True,
    longer=True,
    longest=1024,  # as many positions as diffusers makes
    tables=("even",),
    repeats=51,  # as RIFLEx's authors are said to advise (docs/methods.md); not seen here
)
_CARDS = (
    _EMBEDDED,
    replace(
        _EMBEDDED,
        name="embedded-df",
        summary="the embedded model trained with a timestep for every frame (diffusion forcing): FIFO's trained cousin",
        loader="fifo_diffusion.models.embedded.model:load_df",
    ),
    replace(
        _EMBEDDED,
        name="embedded-large",
        summary="the embedded model at 128 pixels: 24 animated subjects, 13 scenes, light and weather, more words",
        needs="nothing more",
        loader="fifo_diffusion.models.embedded.model:load_large",
        size=(128, 128),
        guidance=2.5,  # rounder shapes than 4, and more of the speeds (docs/log.md, 2026-11-28)
        scale=2,
    ),
    Card(
        name="gauss",
        summary="exact Gaussian video to test the method with: no weights, no pictures; hears a number, its mean",
        needs="nothing more",
        loader="fifo_diffusion.models.gauss:load",
        other_weights=False,
        network=False,
        window=16,
        space=1,
        size=(64, 64),
        any_size=True,
        fps=10,
        partitions=4,
        lookahead="last",
        eta=0.0,
        guidance=1.0,
        scale=4,
        longer=True,
    ),
    _VIDEOCRAFTER2,
    replace(
        _VIDEOCRAFTER2,
        name="videocrafter1",
        summary="VideoCrafter1 (arXiv:2310.19512), 512x320",
        needs="diffusers and transformers (the extra `models`), and model.ckpt of VideoCrafter/Text2Video-512",
        loader="fifo_diffusion.models.videocrafter:load_1",
        weights="VideoCrafter/Text2Video-512",
        memory=Need(stays=2.29, eight=1.25, text=1.27, window=0.57, decode=0.23),
    ),
    replace(
        _VIDEOCRAFTER2,
        name="videocrafter1-1024",
        summary="VideoCrafter1 (arXiv:2310.19512), 1024x576",
        needs="diffusers and transformers (the extra `models`), and model.ckpt of VideoCrafter/Text2Video-1024",
        loader="fifo_diffusion.models.videocrafter:load_1_1024",
        weights="VideoCrafter/Text2Video-1024",
        size=(1024, 576),
        memory=Need(stays=2.29, eight=1.26, text=1.27, window=2.06, decode=0.84),
    ),
    _ZEROSCOPE,
    replace(
        _ZEROSCOPE,
        name="modelscope",
        summary="text to video at 256x256, the network zeroscope was made from (ModelScope; cc-by-nc-4.0)",
        needs="diffusers and transformers (the extra `models`), and the weights: ali-vilab/text-to-video-ms-1.7b",
        weights="ali-vilab/text-to-video-ms-1.7b",
        window=16,  # arXiv:2308.06571
        size=(256, 256),
        memory=Need(stays=2.78, eight=1.5, text=1.27, window=0.23, decode=0.09),
    ),
    Card(
        name="latte",
        summary="text to video at 512x512, a transformer (Latte-1; Apache-2.0)",
        needs="diffusers, transformers and sentencepiece (the extra `models`), and the weights: maxin-cn/Latte-1",
        loader="fifo_diffusion.models.latte:load",
        weights="maxin-cn/Latte-1",
        encoder=True,
        window=16,
        space=8,
        size=(512, 512),
        fps=8,  # of the authors' examples
        levels=999,
        partitions=4,
        lookahead="last",
        eta=1.0,  # the paper says 0.5 or 1; 1 as for VideoCrafter2
        guidance=7.5,  # of diffusers' LattePipeline
        memory=Need(stays=2.13, eight=1.17, text=8.87, window=0.46, decode=0.38),
        lora=True,
    ),
    Card(
        name="latte-ucf101",
        summary="the 101 actions of UCF-101 at 256x256, the base of the paper's FVD table (Latte; Apache-2.0)",
        needs="diffusers (the extra `models`), and ucf101.pt with its vae folder: maxin-cn/Latte",
        loader="fifo_diffusion.models.latte_classes:load",
        weights="maxin-cn/Latte",
        encoder=True,
        window=16,
        space=8,
        size=(256, 256),
        fps=8,  # as latte
        levels=999,
        partitions=4,  # 64 steps, as in table 1 of arXiv:2405.11473
        lookahead="last",
        eta=1.0,  # as latte
        guidance=7.0,  # of the authors' configs/ucf101/ucf101_sample.yaml; the paper does not say
        memory=Need(stays=1.41, eight=1.01, text=0.0, window=0.17, decode=0.09),
        lora=True,
    ),
    _OPEN_SORA_PLAN,
    replace(
        _OPEN_SORA_PLAN,
        name="open-sora-plan-221",
        summary="text to video at 512x512, 221 frames a window (Open-Sora Plan v1.1.0; MIT)",
        needs="as open-sora-plan",
        loader="fifo_diffusion.models.opensora_plan:load_221",
        window=56,  # this and partitions (224 steps) are of the authors' script for 221 frames
        partitions=4,
        memory=Need(stays=2.43, eight=1.47, text=8.87, window=1.64, decode=5.66),
    ),
    _WAN,
    replace(
        _WAN,
        name="wan-14b",
        summary="text to video at 832x480 or 1280x720, 81 frames a window (Wan 2.1, 14 billion; Apache-2.0)",
        needs="as wan-1.3b, with Wan-AI/Wan2.1-T2V-14B-Diffusers",
        weights="Wan-AI/Wan2.1-T2V-14B-Diffusers",
        memory=Need(stays=27.14, eight=14.2, text=10.58, window=3.9, decode=7.27),
        splits=(1, 2, 4, 8),  # 40 heads, 13,824 wide
    ),
)
MODELS: Mapping[str, Card] = {card.name: card for card in _CARDS}
