"""A batch on a real Ray cluster of two nodes that is stopped, and goes on until one of the nodes is killed and one of
another version joins.
"""

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import fifo_diffusion
from fifo_diffusion.batch.cluster import Cluster, Teller, check_seen, have_gpus, nodes, usable
from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.batch.pool import Begun, Ended, Event, Moved, Task, Warned
from fifo_diffusion.errors import BadInput, OutputError
from test_batch import COMMAND, LONG_ENOUGH, SMALL, await_checkpoints, check_done, check_stopped, results, write

pytestmark = pytest.mark.xdist_group("processes")  # many of them at once, so one such test at a time

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")

STORE = 80 * 2**20  # bytes; the least that Ray takes is 75 MB
QUICK = {  # to see that a node is dead
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, which no job comes to though it says that it has a GPU, for the driver."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 0,
        "num_gpus": 1,
        "object_store_memory": STORE,
        "include_dashboard": False,
        "_system_config": QUICK,
    }
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


def start(cluster: Any, folder: Path) -> subprocess.Popen[bytes]:
    said = ["jobs.jsonl", "--out", "out", "--ray", cluster.address, "--checkpoint-every", "0.1s"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*COMMAND, *said], cwd=folder, env=environment, stderr=subprocess.PIPE)


def check_refusal(cluster: Any, folder: Path) -> None:
    """A node that does not see the batch's folder is named, before any work."""
    import ray

    ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        (seen := folder / ".batch" / "seen").parent.mkdir()
        seen.touch()
        check_seen(seen, nodes())
        with pytest.raises(BadInput, match=rf"does not see {folder},"):
            check_seen(seen.with_name("absent"), nodes())
    finally:
        ray.shutdown()


def check_lost(cluster: Any, folder: Path) -> None:
    """A folder that no node sees any more fails a job without a try; a head that is lost is one sentence."""
    import ray

    job = Job.of({**SMALL, "output": "a.mp4", "prompt": "1"})
    with closing(Cluster(cluster.address, folder, [job], None, 1)) as pool:
        pool._token.unlink()
        pool.give(Task(1, job, str(folder), 0.1, 1))
        events: list[Event] = []
        while pool.busy:
            events += pool.hear(0.2)
        assert [type(event) for event in events] == [Warned, Ended]
        assert isinstance(ended := events[1], Ended)
        assert f"does not see {folder}," in str(ended.result.error)
        ray.kill(pool._board)
        with pytest.raises(OutputError, match=r"part of the Ray cluster was lost \(ActorDiedError\); run the same"):
            pool.stop()


def another_version(folder: Path) -> dict[str, str]:
    """The environment of a node that has one."""
    shutil.copytree(fifo_diffusion.__path__[0], folder / "other/fifo_diffusion")
    (folder / "other/fifo_diffusion/version.py").write_text('__version__ = "9"\n')
    return {"PYTHONPATH": str(folder / "other")}


def test_gpus_count_where_a_job_can_come_to_them() -> None:
    head, small, large = ({"Resources": have} for have in ({"GPU": 8.0}, {"CPU": 4.0}, {"CPU": 4.0, "GPU": 1.0}))
    assert usable([head, small, large]) == [small, large]
    assert not have_gpus([head, small])
    assert have_gpus([head, small, large])


def test_what_the_board_cannot_take_for_a_moment_ends_no_video_and_is_said_again() -> None:
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    heard: list[Event] = []
    wrong: Exception | None = None

    def tell(events: Sequence[Event]) -> bool:
        if wrong is not None:
            raise wrong
        heard.extend(events)
        return len(heard) > 4

    teller = Teller(tell)
    said: list[Event] = [
        Begun(1, "cpu", "here"),
        Moved(1, "streaming", 1, 9),
        Warned(1, "-"),
        Moved(1, "streaming", 2, 9),
    ]
    wrong = ActorUnavailableError("no answer", None)
    for event in said:
        teller(event)
    assert (heard, teller.stopped) == ([], False)
    wrong = None
    teller(last := Moved(1, "streaming", 3, 9))
    assert (heard, teller.stopped) == ([said[0], said[2], last], False)
    wrong = ActorDiedError()
    teller(said[3])
    assert teller.stopped  # the driver has gone
    teller, wrong = Teller(tell), None
    for event in (said[1], said[3]):
        teller(event)
    assert teller.stopped  # it was told to


def test_a_batch_survives_a_stop_and_the_death_of_a_node(cluster: Any, tmp_path: Path) -> None:
    lost, _ = (cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2))
    check_refusal(cluster, tmp_path)
    check_lost(cluster, tmp_path)
    jobs, out = write(tmp_path, 500, 500, 20), tmp_path / "out"
    driver = start(cluster, tmp_path)
    for video in ("1.mp4", "2.mp4"):
        await_checkpoints(driver, out / f"{video}.run")
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=LONG_ENOUGH)[1].decode()
    assert driver.returncode == 130, said
    held = check_stopped(tmp_path, "1.mp4", "2.mp4")

    driver = start(cluster, tmp_path)
    for video, frames in zip(("1.mp4", "2.mp4"), held, strict=True):
        await_checkpoints(driver, out / f"{video}.run", beyond=frames)
    cluster.add_node(num_cpus=1, object_store_memory=STORE, env_vars=another_version(tmp_path))
    cluster.remove_node(lost, allow_graceful=False)
    said = driver.communicate(timeout=LONG_ENOUGH)[1].decode()
    assert driver.returncode == 0, said
    assert said.count("has fifo-diffusion 9 and the driver") in (1, 2), said  # a job does not come to that node again
    check_done(tmp_path, jobs)
    assert {line["tries"] for line in results(tmp_path)} == {1, 2}, said  # the third may have been on its way there
