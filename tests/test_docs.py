"""What the documents show runs, and what they name exists."""

import re
from pathlib import Path

import pytest

from fifo_diffusion import script
from fifo_diffusion.batch.jobs import read

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("document", ["docs/engine.md", "docs/live.md"])
def test_the_python_of_a_document_runs(document: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, document, "exec"), {"__name__": document})


def test_the_story_of_the_page_is_one(tmp_path: Path) -> None:
    (story,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/prompts.md").read_text(), flags=re.DOTALL)
    (tmp_path / "story.yaml").write_text(story)
    cues = script.read(tmp_path / "story.yaml", fps=10)
    assert [(cue.at, cue.blend, cue.guidance) for cue in cues] == [(0, 0, None), (120, 10, None), (240, 0, 6)]


def test_the_list_of_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (listed,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/batch.md").read_text(), flags=re.DOTALL)
    (tmp_path / "jobs.jsonl").write_text(listed)
    (tmp_path / "story.yaml").write_text("- {at: 0, prompt: a red balloon}\n- {at: 9, prompt: a blue whale}\n")
    monkeypatch.chdir(tmp_path)
    assert [job.output for job in read(Path("jobs.jsonl")).values()] == ["balloon.mp4", "whale.webm", "story"]


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/README.md",
        *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"),
    ],
)
def test_the_files_that_documents_name_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    named = [str((ROOT / document).parent / path) for path in named]
    named += [str(ROOT / path) for path in re.findall(r"\b((?:benchmarks|tests)/\w+\.py)", text)]
    assert [path for path in named if not Path(path).exists()] == []


def test_the_list_of_pages_names_every_page() -> None:
    named = set(re.findall(r"\]\((\S+?\.md)\)", (ROOT / "docs/README.md").read_text())) - {"../README.md"}
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


def test_every_room_is_listed() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("## The house")[1]
    rooms = {path.name for path in (ROOT / "src/fifo_diffusion").iterdir() if not path.name.startswith("_")}
    assert {room for room in rooms if room not in tree} <= {"py.typed"}


def test_ci_and_the_readme_give_the_same_test_command() -> None:
    (line,) = re.findall(r"python -m venv .*pytest.*\n", (ROOT / "README.md").read_text())
    _, *steps = (step.strip().removeprefix(".venv/bin/") for step in line.split("&&"))
    lines = re.sub(r'"\$VENV/bin/(\w+)"', r"\1", (ROOT / ".ci/run").read_text()).splitlines()
    assert len(steps) == 2
    assert set(steps) <= set(lines)
