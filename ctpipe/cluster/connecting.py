"""Where work runs: in this process, on a cluster of this machine's cores, or on one that is already there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dask
import psutil
from distributed import Client, LocalCluster

from ctpipe.cluster.alike import require_alike
from ctpipe.errors import RunError, UsageError

# Up to so many tasks a cluster costs more (3 s to start) than it saves.
FEW_TASKS = 3
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
    n_tasks: int, client: Client | None = None, address: str | None = None, *, threads_a_worker: int = 1,
    cores_a_task: int = 1,
) -> Iterator[Client | None]:
    """The Dask client to use for `n_tasks` tasks; None means: run them here, on Dask's synchronous scheduler.

    A given client wins, then `address`, then CTPIPE_CLUSTER; else a few tasks run here and more on a LocalCluster with
    a thread for each core, `threads_a_worker` of them in a process, which is closed at the end. A single worker that
    may have several threads lives in this process, which spares its start. cores_a_task: threads that a task uses by
    itself (torch's); there are so many fewer workers, and where that leaves one, tasks run here.
    Raises UsageError for an address of another host without TLS: a Dask scheduler runs whatever it is sent.
    """
    address = address or os.environ.get("CTPIPE_CLUSTER")
    if client is not None:
        yield client
    elif address:
        _refuse_open_address(address)
        with _connect(address) as joined:
            require_alike(joined)
            yield joined
    elif n_tasks <= FEW_TASKS or len(os.sched_getaffinity(0)) < 2 * cores_a_task:
        yield None
    else:
        cores = len(os.sched_getaffinity(0)) // cores_a_task
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


@dataclass(frozen=True)
class Workers:
    """at_once: tasks that run at the same time; memory_bytes: what there is for all of them together."""

    at_once: int
    memory_bytes: int


def workers_for(n_tasks: int, client: Client | None, cores_a_task: int = 1) -> Workers:
    """What `client_for` gives `n_tasks` tasks, without starting it."""
    if client is not None:
        told = client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [int(worker["memory_limit"]) for worker in told]
        memory = sum(limits) if limits and all(limits) else _memory_free()
        return Workers(max(1, sum(int(worker["nthreads"]) for worker in told)), memory)
    at_once = 1 if n_tasks <= FEW_TASKS else max(1, min(n_tasks, len(os.sched_getaffinity(0)) // cores_a_task))
    return Workers(at_once, _memory_free())


def _memory_free() -> int:
    """Bytes that this machine, and the container that this is in (cgroup v2), still grant."""
    free = int(psutil.virtual_memory().available)
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())
        lines = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used = int((folder / "memory.current").read_text()) - int(lines["inactive_file"])  # pages of files give way
    except (OSError, ValueError, KeyError):  # no container, or no limit: its word is "max"
        return free
    return min(free, limit - used)


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
