"""Workers on a Ray cluster: each job is a task, which Ray gives to a node that has a GPU, or the CPUs, to spare.

Videos and checkpoints are in a folder that all nodes see, so that what a dead node has begun any other can go on with.
What a task says travels over an actor beside the driver, the board; so does the word to stop.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection
from threading import Lock
from typing import Any

from fifo_diffusion.batch.jobs import Job
from fifo_diffusion.batch.pool import PAUSE, Begun, Ended, Event, Lost, Moved, Task, Warned, paced
from fifo_diffusion.batch.results import OWN, SEEN, Result
from fifo_diffusion.errors import BadInput, OutputError
from fifo_diffusion.version import __version__

ANSWER = 10.0  # seconds for the cluster to answer
LOOK = 120.0  # seconds for a node to say whether it sees the folder


class Cluster:
    """See `pool.Pool`."""

    def __init__(self, address: str, folder: Path, jobs: Sequence[Job], most: int | None, threads: int | None) -> None:
        """most: jobs at a time; None: as many as there is room for.  threads: of each; None: as many as this process
        uses, or the smallest node has.

        Raises BadInput, before any work, for a cluster that cannot do it, or a node of it that does not see the folder.
        """
        _connect(address)
        import torch

        there = usable(nodes())
        self._gpus = have_gpus(there)
        for name in {job.device for job in jobs} & {"cuda", "mps"}:
            if name == "mps" or not self._gpus:
                raise BadInput(
                    f"a job insists on device {name}, and no node of the cluster that has CPUs has one; leave it out"
                )
        cpus = [int(node["Resources"]["CPU"]) for node in there]
        if not cpus:
            raise BadInput(f"the cluster at {address} has no node with CPUs; start one with `ray start --address`")
        self.threads = threads or min(torch.get_num_threads(), *cpus)
        if self.threads > max(cpus):
            raise BadInput(f"--threads is {threads}, and the largest node has {max(cpus)} CPUs; give no more than that")
        self._token = folder / OWN / f"{SEEN}{secrets.token_hex(8)}"
        self._token.touch()
        self._board: Any = None
        self._most, self._waiting = most, deque[Task]()
        self._under_way: dict[Any, Task] = {}  # by what Ray calls the answer
        self._begun: set[int] = set()
        self._unfit = set[str]()  # nodes found since, whether they joined later or see the folder no more
        self._stopping = False
        try:
            check_seen(self._token, there)
            self._board = _beside(_Board)
        except BaseException:
            self.close()
            raise

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._under_way)

    def give(self, task: Task) -> None:
        self._waiting.append(task)
        self._deal()

    def hear(self, seconds: float) -> Sequence[Event]:
        import ray

        answers = list(self._under_way)
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=seconds) if answers else ([], [])
        events: list[Event] = self._ask("take")
        self._begun |= {event.number for event in events}
        for answer in ready:
            task = self._under_way.pop(answer)
            self._begun.discard(task.number)
            events += self._answered(answer, task)
        self._deal()
        return events

    def stop(self) -> None:
        import ray

        self._stopping = True
        self._waiting.clear()
        self._ask("stop")
        for answer, task in self._under_way.items():
            if task.number not in self._begun:
                ray.cancel(answer)

    def _ask(self, what: str) -> Any:
        """What the board answers.  Raises OutputError where it is lost for good."""
        import ray

        until = time.monotonic() + ANSWER
        while True:
            try:
                return ray.get(getattr(self._board, what).remote())
            except ray.exceptions.RayError as error:
                passes = isinstance(error, ray.exceptions.ActorUnavailableError) and time.monotonic() < until
                if not passes:
                    raise OutputError(
                        f"this machine's part of the Ray cluster was lost ({type(error).__name__}); run the same "
                        "command again when it is back"
                    ) from None
            time.sleep(PAUSE)

    def _answered(self, answer: Any, task: Task) -> list[Event]:
        import ray

        try:
            said: Ended | Unfit = ray.get(answer)
        except ray.exceptions.TaskCancelledError:
            return [Lost(task.number, "its worker was cancelled")]
        except ray.exceptions.RayTaskError as error:  # such as a node that came later and lacks a package
            return [Lost(task.number, f"its worker failed ({_first(error)})")]
        except ray.exceptions.RayError as error:
            return [Lost(task.number, f"its worker was lost ({type(error).__name__})")]
        return self._kept_off(task, said) if isinstance(said, Unfit) else [said]

    def _kept_off(self, task: Task, there: Unfit) -> list[Event]:
        """The job had not begun, so no try of it is lost; but where no node is left it has failed."""
        self._unfit.add(there.node)
        if self._stopping:
            return []
        if not self._left():
            return [Ended(task.number, Result(name=task.job.output, state="failed", error=there.why))]
        self._waiting.append(task)
        return [Warned(task.number, f"{there.why}; this batch keeps off that node")]

    def _left(self) -> set[str]:
        """The nodes of now that were not found unfit."""
        return {str(node["NodeID"]) for node in usable(nodes())} - self._unfit

    def close(self) -> None:
        import ray

        with suppress(OSError):  # storage that is lost
            self._token.unlink(missing_ok=True)
        ray.shutdown()  # ends what is under way

    def _deal(self) -> None:
        import ray

        while self._waiting and (self._most is None or len(self._under_way) < self._most):
            task = self._waiting.popleft()
            gpu = self._gpus and task.job.device != "cpu"
            # A process that has used one GPU would stay with it whatever Ray gives to its next task.
            needs: dict[str, Any] = (
                {"num_gpus": 1, "num_cpus": 1, "max_calls": 1} if gpu else {"num_cpus": task.threads}
            )
            remote = ray.remote(max_retries=0, scheduling_strategy="SPREAD", **needs)(_do)
            how: dict[str, Any] = {"name": task.job.output}
            if self._unfit and self._left():
                how["label_selector"] = {"ray.io/node-id": f"!in({', '.join(sorted(self._unfit))})"}
            self._under_way[remote.options(**how).remote(task, str(self._token), __version__, self._board)] = task


def _connect(address: str) -> None:
    try:
        import ray
    except ImportError:
        raise BadInput("--ray needs Ray, which is not installed; install it with: pip install '.[cluster]'") from None
    where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    match = re.fullmatch(r"([^/]+):(\d+)", where)
    if where != "auto" and match is None:
        raise BadInput(f"--ray is {where!r}; give HOST:PORT as `ray start --head` says it, or auto")
    try:
        if match is not None:
            create_connection((match[1], int(match[2])), ANSWER).close()  # Ray itself would try for many minutes
        ray.init(where, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"there is no Ray cluster at {address} that this machine has joined ({why}); start one with `ray start "
            "--head`, join it here with `ray start --address HOST:PORT`, and say --ray auto"
        ) from None


def nodes() -> list[dict[str, Any]]:
    """Those that are alive, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def usable(there: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that can be given a job: one that has no CPU, as a head may, is given none, whatever else it has."""
    return [node for node in there if node["Resources"].get("CPU", 0) >= 1]


def have_gpus(there: Iterable[dict[str, Any]]) -> bool:
    return any(node["Resources"].get("GPU", 0) >= 1 for node in usable(there))


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _beside(kind: type) -> Any:
    """An actor on the driver's own node, for only that one lives as long as the driver."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=_on(here)).remote()


def check_seen(token: Path, there: Iterable[dict[str, Any]]) -> None:
    """Raises BadInput for a node that could be given a job and does not see the folder, or has another version."""
    import ray

    asked = {
        ray.remote(_sees)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=_on(node["NodeID"]))
        .remote(str(token)): node
        for node in usable(there)
    }
    for answer, node in asked.items():
        name = f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        try:
            sees, version = ray.get(answer, timeout=LOOK)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            raise BadInput(
                f"{name} of the cluster cannot be used ({_first(error)}); install fifo-diffusion {__version__} there "
                "as here, or take it out of the cluster"
            ) from None
        if (why := _fault(token, sees, version, __version__)) is not None:
            raise BadInput(f"{name} {why}")


def _fault(token: Path, sees: bool, version: str, wanted: str) -> str | None:
    """Why a node cannot be given a job; None where it can."""
    if version != wanted:
        return (
            f"has fifo-diffusion {version} and the driver {wanted}, whose frames may differ; install the same on all "
            "nodes"
        )
    if not sees:
        return (
            f"does not see {token.parent.parent}, or may not write there; --out must be on storage that all nodes "
            "share under the same name, such as NFS, so that any can go on with what another began"
        )
    return None


def _sees(token: str) -> tuple[bool, str]:
    """On a node: whether it sees the batch's folder and may write there, and its version."""
    return os.path.exists(token) and os.access(Path(token).parent.parent, os.W_OK | os.X_OK), __version__


def _first(error: BaseException) -> str:
    """What went wrong, in one line: Ray's own errors end with it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _Board:
    """What the tasks say, until the driver takes it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stopping = False

    def tell(self, events: Sequence[Event]) -> bool:
        """Whether to stop."""
        self._events += events
        return self._stopping

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        self._stopping = True


@dataclass(frozen=True)
class Unfit:
    """In place of a job's end: the node it came to cannot be given any."""

    node: str  # as Ray names it
    why: str


class Teller:
    """A task's words on their way to the board.  What is not heard for a moment is said again with the next."""

    def __init__(self, tell: Callable[[Sequence[Event]], bool]) -> None:
        """tell: returns whether to stop, or raises Ray's errors."""
        self._tell = tell
        self._unheard: list[Event] = []
        self._one_at_a_time = Lock()  # a thread that writes frames may warn meanwhile
        self.stopped = False  # the driver stops, or has gone, and the board with it

    def __call__(self, event: Event) -> None:
        import ray

        with self._one_at_a_time:
            self._unheard = [*(e for e in self._unheard if not isinstance(e, Moved)), event]
            try:
                self.stopped = self._tell(self._unheard) or self.stopped
            except ray.exceptions.ActorUnavailableError:
                return
            except ray.exceptions.RayError:
                self.stopped = True
            self._unheard = []


def _do(task: Task, token: str, version: str, board: Any) -> Ended | Unfit:
    """A task, on whichever node it came to."""
    import ray

    from fifo_diffusion.batch.work import work

    here = ray.get_runtime_context().get_node_id()
    node = f"{platform.node()} {here[:6]}"
    if (why := _fault(Path(token), *_sees(token), version)) is not None:  # a node that came later
        return Unfit(here, f"node {node} {why}")
    teller = Teller(lambda events: bool(ray.get(board.tell.remote(events))))

    @paced
    def watch(stage: str, done: int, total: int) -> None:
        teller(Moved(task.number, stage, done, total))
        if teller.stopped:
            raise KeyboardInterrupt

    gpus = ray.get_gpu_ids()
    teller(Begun(task.number, f"cuda:{gpus[0]}" if gpus else "cpu", node))
    if teller.stopped:
        return Ended(task.number, Result(name=task.job.output, state="stopped"))
    return work(task, watch, lambda text: teller(Warned(task.number, text)))
