"""Where work runs: in this process, on a cluster of this machine's cores, or on one that is already there.

Dask is the only engine. A stage hands over plain functions and small picklable tasks, and takes back small results;
voxels never pass through the client or the scheduler.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import dask
from distributed import Client, LocalCluster, as_completed
from distributed.scheduler import KilledWorker

from ctpipe.errors import CtpipeError, RunError, UsageError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Up to so many tasks a cluster costs more (3 s to start) than it saves.
FEW_TASKS = 3
# Tasks in flight per thread: enough that no worker waits, few enough that the scheduler's graph stays small.
IN_FLIGHT = 4
# One thread a worker, and memory that is kept: Dask's own setting gives every freed block back to the system, and a
# forward pass that gets its activations anew each time spends as long in page faults as in arithmetic.
_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": 1,
    "OPENBLAS_NUM_THREADS": 1,
    "MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "MALLOC_MMAP_THRESHOLD_": 1 << 30,
}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@contextmanager
def client_for(
    n_tasks: int, client: Client | None = None, address: str | None = None, *, threads_a_worker: int = 1
) -> Iterator[Client | None]:
    """The Dask client to use for `n_tasks` tasks; None means: run them here, on Dask's synchronous scheduler.

    A given client wins, then `address`, then CTPIPE_CLUSTER; else a few tasks run here and more on a LocalCluster with
    a thread for each core, `threads_a_worker` of them in a process, which is closed at the end. A single worker that
    may have several threads lives in this process, which spares its start.
    Raises UsageError for an address of another host without TLS: a Dask scheduler runs whatever it is sent.
    """
    address = address or os.environ.get("CTPIPE_CLUSTER")
    if client is not None:
        yield client
    elif address:
        _refuse_open_address(address)
        with _connect(address) as joined:
            yield joined
    elif n_tasks <= FEW_TASKS:
        yield None
    else:
        cores = len(os.sched_getaffinity(0))
        threads = min(threads_a_worker, cores)
        workers = max(1, min(n_tasks, cores) // threads)
        processes = threads == 1 or workers > 1
        listening = {"host": "127.0.0.1"} if processes else {}  # within one process nothing listens at all
        with (
            dask.config.set({"distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT}),
            LocalCluster(n_workers=workers, threads_per_worker=threads, processes=processes, **listening,
                         dashboard_address="127.0.0.1:0", memory_limit=0, silence_logs=logging.ERROR) as cluster,
            Client(cluster) as local,
        ):  # fmt: skip
            yield local


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout="20s", set_as_default=False)
    except OSError as error:
        raise RunError(f"no Dask scheduler answers at {address}",
                       "start one with `dask scheduler --host 127.0.0.1`, or unset CTPIPE_CLUSTER") from error


def _refuse_open_address(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme != "tls" and parts.hostname not in _LOOPBACK:
        raise UsageError("the cluster's address is on another host and has no TLS",
                         "use tls://HOST:PORT, or tcp://127.0.0.1:PORT on this machine")


@dataclass(frozen=True)
class _Call:
    """A task as one opaque thing: Dask would walk through every field of an argument in search of futures.

    What a failed task was given must not show: Dask logs the call, and a path may name a patient. Dask logs what a task
    raises as well: an unforeseen error leaves the worker as its kind and place, since its text may quote a file.
    """

    function: Callable[[Any], Any]
    task: Any = field(repr=False)

    def __call__(self) -> Any:
        try:
            return self.function(self.task)
        except (CtpipeError, MemoryError):
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
            bug = RunError(f"a task failed with {type(error).__name__} ({where}), which is a bug in ctpipe",
                           "report this line; what is finished is kept")  # fmt: skip
        raise bug  # out here it has no __cause__ and no __context__


def run_tasks(
    client: Client | None,
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
) -> Iterator[tuple[Task, Result]]:
    """(task, result) in order of completion; tasks are submitted as slots free up.

    What a task raises is raised here, after every other future was cancelled; a worker lost too often is a RunError.
    """
    if client is None:
        for task in tasks:
            call = dask.delayed(_Call(function, task), pure=False, traverse=False)
            yield task, call().compute(scheduler="synchronous")
        return
    queue = iter(tasks)
    slots = IN_FLIGHT * max(1, sum(client.nthreads().values()))
    pending: dict[Any, Task] = {}
    finished = as_completed(loop=client.loop)

    def submit_next() -> None:
        for task in queue:
            key = f"{function.__name__}-{uuid4().hex}"
            future = client.submit(_Call(function, task), key=key, pure=False, retries=1)
            pending[future] = task
            finished.add(future)
            return

    try:
        for _ in range(slots):
            submit_next()
        while pending:
            future = next(finished)
            try:
                result = future.result()
            except KilledWorker as error:
                raise RunError("a task ended its worker several times",
                               "give the workers more memory, then run again: finished slabs are kept") from error
            task = pending.pop(future)
            submit_next()
            yield task, result
    except BaseException:  # also Prefect's TerminationSignal: nothing may go on behind a cancelled flow
        client.cancel(list(pending), force=True)
        raise
