"""Tables of prompts as people write them, and what is said of the entry that is wrong."""

from pathlib import Path

import pytest

from fifo_diffusion import script
from fifo_diffusion.config import Cue
from fifo_diffusion.errors import BadInput


def test_frames_and_seconds() -> None:
    assert [script.frames(text, 24) for text in ("0", "120", "2s", "4.5s", ".5 s", ".03s", " 7 ")] == [
        0,
        120,
        48,
        108,
        12,
        1,
        7,
    ]
    for wrong in ("", "-3", "1:30", "4.5", "s", "infs", "12m"):
        with pytest.raises(BadInput, match="is no time; give frames"):
            script.frames(wrong, 24)


def test_a_script_becomes_cues(tmp_path: Path) -> None:
    file = tmp_path / "story.yaml"
    file.write_text(
        "- {at: 0, prompt: a red balloon, negative: '', guidance: 7.5}\n"
        "- at: 12s\n  prompt: 'on: a blue whale, at night'\n  blend: 1s\n"
        "- {at: 200, prompt: 007}\n",
        encoding="utf-8",
    )
    assert script.read(file, fps=10, blend=3) == [
        Cue(at=0, prompt="a red balloon", negative_prompt="", guidance=7.5, blend=3),
        Cue(at=120, prompt="on: a blue whale, at night", blend=10),
        Cue(at=200, prompt="007", blend=3),
    ]


def test_prompts_of_the_command_line() -> None:
    assert script.spoken(["0: a robot: walking", "4.5s:a crab"], 10, 2) == [
        Cue(at=0, prompt="a robot: walking", blend=2),
        Cue(at=45, prompt="a crab", blend=2),
    ]


@pytest.mark.parametrize(
    ("prompt", "says"), [("soon: b", "'soon' is no time"), ("b", "it does not say when"), ("9:", "it is empty")]
)
def test_a_prompt_that_is_wrong_is_named(prompt: str, says: str) -> None:
    with pytest.raises(BadInput, match=f"^--prompt '{prompt}': .*{says}"):
        script.spoken(["0: a", prompt], 10)


def test_what_was_said_without_a_time_stands_at_the_start() -> None:
    later = [Cue(at=5, prompt="b")]
    assert script.table(later, "a") == {"prompt": "a", "cues": tuple(later)}
    for said in ("b", None):
        assert script.table([Cue(at=0, prompt="b")], said)["prompt"] == "b"
    with pytest.raises(BadInput, match="at frame 5; the first must be at 0"):
        script.table(later, None)
    with pytest.raises(BadInput, match="frame 0 got two prompts, 'a' and 'b'"):
        script.table([Cue(at=0, prompt="b")], "a")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a list"),
        ("[]", "is not a list"),
        ("at: 0\nprompt: a\n", "is not a list"),
        ("- {at: 0, prompt: a\n- b", "is not YAML at line 2"),
        ("- {at: 0, prompt: a}\n- a whale", "entry 2: it is 'a whale'"),
        ("- {at: 0, prompt: a}\n- {at: 9, promt: b}", "entry 2: 'promt' is unknown; an entry has at, prompt"),
        ("- {at: 0}", "entry 1: it has no prompt"),
        ("- {prompt: a}", "entry 1: it has no at"),
        ("- {at: 0, prompt: a}\n- {at: 1:30, prompt: b}", "entry 2: at '1:30' is no time"),
        ("- {at: 0, prompt: a, blend: long}", "entry 1: blend 'long' is no time"),
        ("- {at: 0, prompt: a, guidance: much}", "entry 1: guidance is 'much'"),
        ("- {at: 0, prompt: ''}", "entry 1: prompt: it is empty"),
    ],
)
def test_the_entry_that_is_wrong_is_named_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "story.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as refused:
        script.read(file, 10)
    assert says in str(refused.value)
    assert "story.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_script_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(BadInput, match="cannot be read"):
            script.read(path, 10)
    (tmp_path / "latin.yaml").write_bytes("- {at: 0, prompt: a b\u00e9 }".encode("latin-1"))
    with pytest.raises(BadInput, match="is not YAML"):
        script.read(tmp_path / "latin.yaml", 10)
