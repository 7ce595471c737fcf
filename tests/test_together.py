"""Under torchrun the command makes the same file, and nobody hangs when a rank is lost."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Timer

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed import HashStore  # type: ignore[attr-defined]  # in the manual, not in __all__

from fifo_diffusion import api, decide, lost, sidecar
from fifo_diffusion.config import Halves, Run
from fifo_diffusion.errors import BadInput, ModelError, RankLost
from fifo_diffusion.interrupt import overdue
from fifo_diffusion.lost import heard, hearing, silence
from fifo_diffusion.models.embedded.model import WEIGHTS
from fifo_diffusion.session import Session
from fifo_diffusion.together import Together, in_step
from test_ranks import together
from torchrun import FIFO, TORCHRUN, Job, kill, latest, start, until, workers

pytestmark = pytest.mark.xdist_group("processes")  # many of them at once, so one such test at a time

SAID = ["1", "--prompt", "25: 2", "--model", "gauss", "--size", "16x16", "-n", "2", "--eta", "1", "--batch", "1"]
SAID += ["--halves", "together"]  # three ranks would have them apart, and the file says so
RANKS = ["--standalone", "--nproc-per-node"]
LONG_ENOUGH = 240  # seconds for a job that ends by itself


def generate(ranks: int, folder: Path, *more: str, said: Sequence[str] = SAID) -> Job:
    command = [*TORCHRUN, *RANKS, str(ranks), *FIFO, "generate", *said, *more, "-o", "a.mp4", "-q"]
    return start(command, folder, {"PYTHONFAULTHANDLER": "1"}, said=subprocess.PIPE)


def straight(frames: int, folder: Path) -> bytes:
    """What one process makes."""
    cues = [{"at": 0, "prompt": "1"}, {"at": 25, "prompt": "2"}]
    run = {"prompt": "1", "cues": cues, "model": "gauss", "size": (16, 16), "partitions": 2, "eta": 1.0, "batch": 1}
    api.make(Run.of({**run, "frames": frames}), str(folder / "straight.mp4"), checkpoint_every=0)
    return (folder / "straight.mp4").read_bytes()


def test_two_ranks_share_one_window_and_the_sidecar_says_how(tmp_path: Path) -> None:
    """One process makes the same file from it, and goes on in the same way."""
    prompts = ["a red balloon", "--prompt", "3: a blue whale"]
    told = ["--partitions", "1", "--lookahead", "off", "--frames", "5", "--eta", "1"]
    job = generate(2, tmp_path, *told, said=prompts)
    said = job.communicate(timeout=LONG_ENOUGH)[1].decode()
    assert job.returncode == 0, said
    before = sidecar.read(tmp_path / "a.mp4.json")
    assert (before.run.halves, before.run.batch) == ("apart", 1)
    assert before.seconds["exchange"] > 0
    api.make(before.run, str(tmp_path / "b.mp4"), checkpoint_every=0)
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()
    longer = api.resume(str(tmp_path / "a.mp4"), frames="+3")
    assert longer.run.halves == "apart"
    again = api.make(before.run.model_copy(update={"frames": 8}), str(tmp_path / "c.mp4"), checkpoint_every=0)
    assert longer.frames_sha256 == again.frames_sha256


@pytest.mark.parametrize(
    ("said", "memory", "windows", "groups", "wanted"),
    [
        (None, "high", 8, 1, "together"),
        (None, "high", 8, 15, "together"),  # two turns of a half each would take as long as one of both
        (None, "high", 8, 4, "together"),
        (None, "high", 6, 4, "apart"),  # three halves one after the other instead of two windows
        (None, "high", 8, 16, "apart"),
        (None, "high", 1, 1, "together"),
        ("together", "high", 8, 16, "together"),
        ("apart", "high", 8, 1, "apart"),
        (None, "low", 8, 1, "apart"),
        ("apart", "low", 8, 1, "apart"),
        (None, "high", 0, 1, "together"),  # another method
    ],
)
def test_halves_are_apart_where_memory_is_low_or_dealing_them_saves_time(
    said: Halves | None, memory: str, windows: int, groups: int, wanted: str
) -> None:
    assert decide._halves(said, memory, windows, groups) == wanted


@pytest.mark.parametrize("lost", ["a rank that computes along", "rank 0"])
def test_a_lost_rank_ends_the_job_and_the_video_goes_on_in_one_process(lost: str, tmp_path: Path) -> None:
    job = generate(2, tmp_path, "--frames", "4000", "--checkpoint-every", "0.1s")
    try:
        until(lambda: latest(tmp_path) > 0, [job], LONG_ENOUGH)
        first, second = workers(job)
        os.kill(first if lost == "rank 0" else second, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            job.communicate(timeout=25)
        if job.poll() is None:  # it hangs: before torchrun kills it, Python's fault handler tells where
            with suppress(ProcessLookupError):
                os.kill(second if lost == "rank 0" else first, signal.SIGABRT)
        said = job.communicate(timeout=LONG_ENOUGH)[1].decode()
        assert job.returncode != 0
        # One sentence by one of those that are left; SIGTERM, torchrun's own, may come before they see the loss.
        assert len(re.findall("error: |stopped; ", said)) == 1, said
        assert "go on with" in said
        assert "gloo" not in said
    finally:
        kill(job)
    made = api.resume(str(tmp_path / "a.mp4"), frames="+3")
    again = api.make(made.run.model_copy(update={"frames": made.frames_written}), str(tmp_path / "b.mp4"))
    assert made.frames_sha256 == again.frames_sha256


# What torch's own threads of a process group do when Python is ending aborts the process: there must be none then.
THREADS = """
import atexit
from pathlib import Path

def threads():
    left = [t.read_text() for t in Path("/proc/self/task").glob("*/comm") if "gloo" in t.read_text()]
    assert not left, left

atexit.register(threads)
"""

COMMAND = (
    THREADS
    + """
from fifo_diffusion.cli import main
main()
"""
)

BROKEN = (
    THREADS
    + """
import os
import torch
from fifo_diffusion.cli import main
from fifo_diffusion.models.gauss import GaussianVideo

usual, asked = GaussianVideo.__call__, []

def call(self, z, t, cond, /):
    asked.append(None)
    if len(asked) == 60 and os.environ["RANK"] == os.environ["BROKEN"]:
        if os.environ["HOW"] == "memory":
            torch.empty(2**60)
        raise RuntimeError("this network broke")
    return usual(self, z, t, cond)

GaussianVideo.__call__ = call
main()
"""
)


OWN_FOLDER = (
    THREADS
    + """
import os
from fifo_diffusion.cli import main

os.chdir(os.environ["RANK"])
main()
"""
)


def broken(folder: Path, script: str, *said: str, **environment: str) -> tuple[str, str]:
    """What two ranks say that run a script and fail, and torchrun after them."""
    (folder / "broken.py").write_text(script)
    command = [*TORCHRUN, *RANKS, "2", "broken.py", "generate", *said, "-o", "a.mp4", "-q"]
    job = start(command, folder, environment, subprocess.PIPE)
    try:
        told = job.communicate(timeout=LONG_ENOUGH)[1].decode()
    finally:
        kill(job)
    assert job.returncode != 0
    own, torchrun = told.split("ChildFailedError")[0], told.split("Root Cause")[1]
    assert "gloo" not in own
    return own, torchrun


def rank_0_tells(why: str, own: str) -> bool:
    """SIGTERM, torchrun's own, may come before rank 0 sees the loss."""
    return len(re.findall(f"error: {why}|stopped; (?:a.mp4 is whole|no frame was made)", own)) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_raises_ends_the_job_with_its_error(rank: int, tmp_path: Path) -> None:
    """On rank 0 the others wait for its answers, and must not be waited for."""
    own, summary = broken(tmp_path, BROKEN, *SAID, "--frames", "400", BROKEN=str(rank), HOW="raises")
    assert own.count("\n" + ("[rank1]: " if rank else "") + "RuntimeError: this network broke\n") == 1, own
    assert f"rank      : {rank} " in summary
    assert "RuntimeError: this network broke" in summary
    if rank:
        assert rank_0_tells("rank 1 ended with RuntimeError: this network broke; a.mp4 is whole", own), own


def test_a_rank_without_memory_says_so_in_a_sentence(tmp_path: Path) -> None:
    own, summary = broken(tmp_path, BROKEN, *SAID, "--frames", "400", BROKEN="1", HOW="memory")
    why = "the memory does not suffice (4611686018427387904 bytes"
    assert own.count(f"error: rank 1: {why}") == 1, own
    assert "Traceback" not in own.split("error: ")[0]
    assert why in summary
    assert rank_0_tells(re.escape(f"rank 1 ended with OutOfMemory: {why}") + ".*; a.mp4 is whole", own), own


@pytest.mark.parametrize("how", ["cut short", "others"])
def test_a_host_with_bad_weights_ends_the_job_in_a_sentence(how: str, tmp_path: Path) -> None:
    """Each rank has a folder of its own, and the same name there."""
    for rank in "01":
        shutil.copytree(WEIGHTS, tmp_path / rank / "weights")
    file = tmp_path / "1" / "weights" / "transformer.safetensors"
    if how == "others":
        save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    else:
        os.truncate(file, 100_000)
    own, summary = broken(
        tmp_path, OWN_FOLDER, "a blue whale", "--weights", "weights", "--begin", "noise", "-n", "1", "--frames", "2"
    )
    why = "the weights of embedded are" if how == "others" else ".*transformer.safetensors"
    assert len(re.findall(f"error: rank 1: {why}", own)) == 1, own
    assert "Traceback" not in own.split("error: ")[0]
    assert re.search(why, summary)
    assert rank_0_tells(f"rank 1 ended with ModelError: {why}", own), own


def test_a_loss_is_told_by_one_rank() -> None:
    """By rank 0 where that is left, else by the first to ask; by none where the lost one has said why."""

    def ranks(*those: int) -> list[Together]:
        store = HashStore()
        return [Together(rank, 4, "cpu", None, None, store) for rank in those]

    with ThreadPoolExecutor() as at_once:
        assert sorted(at_once.map(Together.must_tell, ranks(1, 2, 3))) == [False, False, True]
    first, other = ranks(0, 1)
    first._over.set()  # it shall say nothing of itself
    assert first.must_tell()
    assert not other.must_tell()
    assert other.why(RankLost("a rank is lost")) == "a rank is lost"
    lost, left, other = ranks(3, 1, 2)
    lost.ends(ValueError("it is\n  5"))
    other.ends(ValueError("6"))
    assert not left.must_tell()
    assert (
        left.why(RankLost("a rank is lost")) == "rank 2 ended with ValueError: 6, rank 3 ended with ValueError: it is 5"
    )


def stopped(rank: int, ranks: int, store: str) -> None:
    """Rank 0 ends where Ctrl-C would end it that came while the others loaded."""
    wait = timedelta(seconds=30)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=wait)
    words, patient = (dist.new_group(timeout=wait) for _ in range(2))
    group = Together(rank, ranks, "cpu", words, patient, HashStore())
    if rank == 0:
        session = Session(decide.resolve(Run.of({"prompt": "1", "model": "gauss", "size": (8, 8)})), group=group)
        group.say("a word", awaited=True)
        assert group.awaited is True
        session._share({})
        group.close()
    else:
        assert group.hear() == "a word"
        _, run, *_ = group.hear()
        group.loaded()
        assert run.model == "gauss"
        assert group.hear() is None  # no more iterations
        assert group.hear() is None  # no more jobs
        group.leave()
    assert not dist.is_initialized()


def test_ranks_of_other_versions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps the queue itself, so they would drift apart without a word."""
    run = decide.resolve(Run.of({"prompt": "1", "model": "gauss", "size": (8, 8)}))
    monkeypatch.setattr(Together, "hear", lambda _: ("fifo-diffusion 0.0.1 and torch 1.0", run, "", None))
    with pytest.raises(ModelError, match=r"on rank 0 fifo-diffusion 0\.0\.1 and torch 1\.0; install the same"):
        api.follow(Together(1, 2, "cpu", None, None, HashStore()))


def overlooked(rank: int, ranks: int, store: str) -> None:
    """Rank 1 falls silent, as one does whose end gloo has missed; rank 0 is told to stop, as torchrun would."""
    wait, told = timedelta(seconds=60), Path(f"{store}.told")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=wait)
    numbers = torch.zeros(4)
    heard(lambda: dist.broadcast(numbers, 0, async_op=True))
    while rank == 1 and not told.exists():
        time.sleep(0.05)
    if rank == 1:
        os._exit(0)
    lost.GIVEN = 1.0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    every = [torch.zeros(4), torch.zeros(4)]
    try:
        with pytest.raises(RankLost, match="did not say so"), in_step():
            heard(lambda: dist.all_gather(every, numbers, async_op=True))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # the file must be finished
        assert overdue() == 0
        wrong = 0
    except BaseException:
        wrong = 1
    told.touch()
    os._exit(wrong)  # its group still waits


def test_a_loss_that_no_connection_tells_is_one_once_rank_0_shall_stop(tmp_path: Path) -> None:
    """Not only when the silence that is allowed is over, for torchrun kills before."""
    assert together(overlooked, 2, tmp_path / "store") == [0, 0]


def test_all_ranks_leave_a_job_that_is_stopped_before_its_first_iteration(tmp_path: Path) -> None:
    assert together(stopped, 2, tmp_path / "store") == [0, 0]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[/gloo/pair.cc:1] Connection closed by peer [::1]:9", "another rank closed its connection"),
        ("Wait timeout", "another rank has been silent for longer than FIFO_SILENCE allows"),
        ("op.preamble.length <= op.nbytes\nat 1", r"another rank is lost (op.preamble.length <= op.nbytes)"),
        ("", "another rank is lost (RuntimeError)"),
    ],
)
def test_what_torch_says_of_a_loss_is_one_sentence(said: str, told: str) -> None:
    with pytest.raises(RankLost, match=f"^{re.escape(told)}$"), hearing():
        raise RuntimeError(said)
    with pytest.raises(torch.OutOfMemoryError), hearing():
        raise torch.OutOfMemoryError(said)


def test_the_time_a_silent_rank_is_given_is_settable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert silence().total_seconds() == 600
    monkeypatch.setenv("FIFO_SILENCE", "7.5")
    assert silence().total_seconds() == 7.5
    for wrong in ("soon", "0", "-1", "nan", "inf", ""):
        monkeypatch.setenv("FIFO_SILENCE", wrong)
        with pytest.raises(BadInput, match="FIFO_SILENCE"):
            silence()
