"""A batch on a real Ray cluster of two nodes that is stopped, and goes on until one of the nodes is killed."""

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fifo_diffusion.batch.cluster import check_seen, nodes
from fifo_diffusion.errors import BadInput
from test_batch import COMMAND, LONG_ENOUGH, await_checkpoints, check_done, check_stopped, results, write

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
    """A head without CPUs, which no job comes to, for the driver."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False, "_system_config": QUICK}
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


def test_a_batch_survives_a_stop_and_the_death_of_a_node(cluster: Any, tmp_path: Path) -> None:
    lost, _ = (cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2))
    check_refusal(cluster, tmp_path)
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
    cluster.remove_node(lost, allow_graceful=False)
    said = driver.communicate(timeout=LONG_ENOUGH)[1].decode()
    assert driver.returncode == 0, said
    check_done(tmp_path, jobs)
    assert {line["tries"] for line in results(tmp_path)} == {1, 2}, said  # the third may have been on its way there
