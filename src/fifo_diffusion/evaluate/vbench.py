"""VBench's dimensions for one's own videos (arXiv:2311.17982), by its own package, merged into an evaluation.

The package loads its networks from hubs, so this runs where those can be reached; here its form was tested and its
scores were not.  It reads mp4 and gif files, holds a whole video in memory, and gives one number a video.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fifo_diffusion.errors import BadInput, in_short
from fifo_diffusion.evaluate.means import means
from fifo_diffusion.evaluate.result import About, Measured, SetResult, Unmeasured, VideoResult

READS = (".mp4", ".gif")

# dimension -> what it says, and how much larger than 1 its per-video results are
DIMENSIONS: Mapping[str, tuple[str, float]] = {
    "dynamic_degree": ("whether the video moves, by RAFT", 1.0),
    "subject_consistency": ("cosine similarity of DINO features to the first frame and to the one before", 1.0),
    "background_consistency": ("cosine similarity of CLIP features to the first frame and to the one before", 1.0),
    "motion_smoothness": ("how well AMT's interpolation foretells every other frame", 1.0),
    "aesthetic_quality": ("LAION's predictor on CLIP features", 1.0),
    "imaging_quality": ("MUSIQ, trained on SPAQ", 100.0),
}


def quantity(dimension: str) -> str:
    return f"VBench {dimension.replace('_', ' ')}"


QUANTITIES = tuple(
    About(
        name=quantity(name), metric="vbench", unit="%", says=says, better="neither" if "dynamic" in name else "higher"
    )
    for name, (says, _) in DIMENSIONS.items()
)


@dataclass
class VBench:
    """Scores sets of videos.  `without` tells what it could not."""

    device: str
    without: list[Unmeasured]
    quantities: tuple[About, ...] = QUANTITIES

    def add(self, found: SetResult) -> SetResult:
        """The set with VBench's scores of those of its videos that VBench can read."""
        paths = {
            f"{i:05}": Path(video.path).resolve()
            for i, video in enumerate(found.videos)
            if video.error is None and Path(video.path).suffix.lower() in READS
        }
        if len(paths) < len(found.videos):
            self._miss(f"{len(found.videos) - len(paths)} of {found.name} are no whole mp4 or gif files")
        if not paths:
            return found
        scores: dict[str, dict[str, float]] = {stem: {} for stem in paths}
        for dimension in DIMENSIONS:  # one by one: where the weights of one are out of reach, others may be there
            try:
                said = run(paths, dimension, self.device)
            except Exception as error:  # whatever a package, its networks and their hubs may raise
                self._miss(f"{dimension}: {in_short(error)}")
                continue
            for stem, score in by_video(said, dimension):
                scores[stem][dimension] = score
        videos = tuple(_scored(video, scores.get(f"{i:05}", {})) for i, video in enumerate(found.videos))
        return found.model_copy(update={"videos": videos, "means": means(videos)})

    def _miss(self, why: str) -> None:
        self.without.append(Unmeasured(metric="vbench", why=why.splitlines()[0]))


def check(device: str) -> VBench:
    """Raises BadInput where the package is missing."""
    if find_spec("vbench") is None:
        raise BadInput(
            "--vbench needs the package vbench, which is not installed; it wants an environment of its own, see "
            "docs/evaluate.md, or leave --vbench out"
        )
    return VBench(device, [])


def run(paths: Mapping[str, Path], dimension: str, device: str) -> Any:
    """What VBench says of one dimension, as it writes it: {dimension: [score, [{video_path, video_results}, ...]]}."""
    import torch
    import vbench

    with tempfile.TemporaryDirectory(prefix="fifo-vbench-") as folder:
        videos, out = Path(folder) / "videos", Path(folder) / "out"
        videos.mkdir()
        for stem, path in paths.items():
            (videos / f"{stem}{path.suffix.lower()}").symlink_to(path)
        full_info = Path(vbench.__file__).with_name("VBench_full_info.json")
        bench = vbench.VBench(torch.device(device), str(full_info), str(out))
        bench.evaluate(videos_path=str(videos), name="fifo", dimension_list=[dimension], mode="custom_input")
        return json.loads((out / "fifo_eval_results.json").read_text())


def by_video(said: Any, dimension: str) -> Iterator[tuple[str, float]]:
    """(file's stem, score in percent) of what `run` gives.  Raises BadInput for another form."""
    try:
        _, videos = said[dimension]
        for one in videos:
            yield Path(one["video_path"]).stem, 100 * float(one["video_results"]) / DIMENSIONS[dimension][1]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"VBench's scores of {dimension} are of a form that is not known ({error!r})") from error


def _scored(video: VideoResult, scores: Mapping[str, float]) -> VideoResult:
    measured = {
        quantity(dimension): Measured(
            mean=score,
            spread=0.0,
            first=None,
            last=None,
            drift=None,
            readings=1,
            frames_a_bin=max(1, video.frames),
            course=(score,),
        )
        for dimension, score in scores.items()
    }
    return video.model_copy(update={"measured": {**video.measured, **measured}})
