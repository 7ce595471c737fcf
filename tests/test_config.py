"""A run is one frozen description; what is not allowed is refused in one sentence."""

from pathlib import Path

import pytest

from fifo_diffusion.config import Cue, Decided, Run
from fifo_diffusion.decide import resolve
from fifo_diffusion.errors import BadInput
from fifo_diffusion.sidecar import Sidecar, again


def test_json_there_and_back() -> None:
    run = Run.of({"prompt": "a red balloon", "seed": 7, "size": (64, 64), "eta": 0.5})
    assert Run.model_validate_json(run.model_dump_json()) == run


def test_a_table_of_prompts_begins_with_the_prompt() -> None:
    cues = [{"at": 9, "prompt": "a whale", "blend": 3}, Cue(at=12, prompt="a crab", guidance=2)]
    run = Run.of({"prompt": "a balloon", "cues": cues})
    assert [(c.at, c.prompt) for c in run.cues] == [(0, "a balloon"), (9, "a whale"), (12, "a crab")]
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert Run.of({"prompt": "a balloon"}).table == (Cue(at=0, prompt="a balloon"),)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompt": "  "}, "empty"),
        ({}, "prompt is missing"),
        ({"prompt": "a", "colour": 1}, "'colour' is unknown; the settings are prompt"),
        ({"prompt": "a", "clip": "caf\udce9.mp4"}, "a character that no file takes"),
        ({"prompt": "a", "guidence": 3}, "'guidence' is unknown; did you mean guidance?"),
        ({"prompt": "a", "seconds": 3}, "'seconds' is unknown; give frames, which are seconds x fps"),
        ({"prompt": "a", "steps": 20}, "FIFO has window x partitions noise levels, so give it other partitions"),
        ({"prompt": "a", "partitions": 0}, "partitions is 0; give 1 to 64"),
        ({"prompt": "a", "eta": 1.5}, "eta is 1.5; give 0 to 1"),
        ({"prompt": "a", "guidance": 80}, "guidance is 80; give 0 to 50"),
        ({"prompt": "a", "batch": 0}, "batch is 0; give 1 or more"),
        ({"prompt": "a", "guidance": float("nan")}, "guidance is nan"),
        ({"prompt": "a", "frames": -1}, "frames is -1"),
        ({"prompt": "a", "lookahead": "half"}, "'off', 'last' or 'middle'"),
        ({"prompt": "a", "lookahead": "4-"}, "LO-HI, counted from 0"),
        ({"prompt": "a", "lookahead": "-4-8"}, "LO-HI, counted from 0"),
        ({"prompt": "a", "dtype": "float8"}, "'float32'"),
        ({"prompt": "a", "cues": [{"at": 0, "prompt": "b"}]}, "it is 'a' and 'b' at frame 0"),
        (
            {"prompt": "a", "cues": [{"at": 9, "prompt": "b"}, {"at": 9, "prompt": "c"}]},
            "'c' is at frame 9 and comes after 'b'",
        ),
        ({"prompt": "a", "cues": [{"at": 9, "prompt": "b"}, {"at": 12, "prompt": " "}]}, "cue 2: prompt: it is empty"),
        ({"prompt": "a", "cues": [{"at": 9, "prompt": "b", "blend": -1}]}, "cue 1: blend is -1"),
        ({"prompt": "a", "cues": [{"at": 9, "prompt": "b", "guidance": 51}]}, "cue 1: guidance is 51"),
        ({"prompt": "a", "cues": [{"at": 9, "prompt": "b", "colour": 1}]}, "the settings are at, prompt"),
        ({"prompt": "a", "cues": [{"prompt": "b"}]}, "cue 1: at is missing; every cue needs one"),
    ],
)
def test_refusals_are_one_sentence(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as refused:
        Run.of(settings)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("memory", ["low", "high"])
def test_a_description_that_older_code_wrote_is_of_the_same_run(memory: str) -> None:
    """What did not exist when it was written stands as that code did it."""
    run = resolve(Run.of({"prompt": "1", "model": "gauss", "memory": memory, "frames": 2}))
    later = {"halves", "compile", "fp8", "guidance_levels", "split"}
    assert Decided.of({k: v for k, v in run.model_dump().items() if k not in later}) == run


def test_halves_together_and_little_memory_are_refused_together() -> None:
    run = Run.of({"prompt": "1", "model": "gauss", "memory": "low", "halves": "together"})
    with pytest.raises(BadInput, match=r"^halves together .* memory low, .*; leave halves out, or say memory high$"):
        resolve(run)


def test_another_model_is_compiled_as_it_can_be() -> None:
    run = resolve(Run.of({"prompt": "a", "frames": 2})).model_copy(update={"compile": "on"})
    made = Sidecar(
        fifo_diffusion="", run=run, scale=1, crf=None, machine={}, weights="", frames_written=2, frames_sha256="",
        seconds={}, wall_seconds=0, peak_memory_mb=0,
    )  # fmt: skip
    assert again(made, {})["compile"] == "on"
    assert resolve(Run.of(again(made, {"model": "gauss"}))).compile == "off"


def test_a_lora_may_be_a_path() -> None:
    assert Run.of({"prompt": "a", "lora": (Path("style.safetensors"),)}).lora == ("style.safetensors",)
    with pytest.raises(BadInput, match="lora"):
        Run.of({"prompt": "a", "lora": ("a\udcff",)})
