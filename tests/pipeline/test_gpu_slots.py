"""Which workers get the tasks of a run: a GPU is a Dask resource, and no run is moved to another kind of processor."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster, get_worker

from ctpipe.cluster import slots
from ctpipe.cluster.slots import Slots
from ctpipe.errors import UsageError
from ctpipe.words import Device


@pytest.fixture(scope="module")
def cards() -> Iterator[Client]:
    """Two workers of two threads and one GPU each."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", memory_limit=0,
                     dashboard_address="127.0.0.1:0", resources={"GPU": 1}) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        yield client


@contextmanager
def mixed() -> Iterator[Client]:
    """One worker with a GPU, one without."""
    told = {"nthreads": 1, "memory_limit": 0, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    spec = {"card": {"cls": Nanny, "options": {**told, "resources": {"GPU": 1}}},
            "plain": {"cls": Nanny, "options": told}}  # fmt: skip
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}}
    with SpecCluster(spec, scheduler) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        yield client


def at_once(folder: str) -> int:
    """How many tasks are in here while this one is."""
    mine = Path(folder) / uuid4().hex
    mine.touch()
    time.sleep(0.15)
    found = len(list(Path(folder).iterdir()))
    time.sleep(0.05)
    mine.unlink()
    return found


def results(client: Client, function, tasks, device: Device | None) -> list:
    with Slots(client, device=device) as flights:
        queue = list(tasks)
        found = []
        while queue or flights.pending:
            while queue and flights.free:
                flights.submit(function, queue.pop(), None)
            done = flights.next()
            assert done.error is None
            found.append(done.result)
    return found


def test_no_more_tasks_run_at_once_than_there_are_gpus(cards: Client, tmp_path: Path) -> None:
    """Two workers with a GPU and two threads each: two at once, where four threads would be free."""
    assert max(results(cards, at_once, [str(tmp_path)] * 16, Device.CUDA)) == 2
    assert max(results(cards, at_once, [str(tmp_path)] * 16, None)) > 2


def test_annotations_of_arrays_do_not_limit_it(cards: Client, tmp_path: Path) -> None:
    """Why it is asked for at submit: graph fusion loses what dask.annotate said."""
    with dask.annotate(resources={"GPU": 1}):
        blocks = da.ones(16, chunks=1).map_blocks(lambda block: np.full(1, at_once(str(tmp_path))), dtype=int)
    assert blocks.compute().max() > 2


def card() -> float:
    return get_worker().state.total_resources.get("GPU", 0)


def pause_or_die(flag: str) -> float:
    """Takes its worker down, the first time."""
    if not Path(flag).exists():
        Path(flag).touch()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return card()


def test_tasks_go_to_workers_of_the_runs_kind_only(
    cards: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RELIABILITY C10: neither kind is given the other's tasks, also after a worker came back at a new address."""
    monkeypatch.setattr(slots, "LOOK_S", 0.5)
    with mixed() as client:
        assert set(results(client, lambda _: card(), range(12), Device.CUDA)) == {1}
        assert set(results(client, lambda _: card(), range(12), Device.CPU)) == {0}
        assert set(results(client, lambda _: card(), range(12), None)) == {0, 1}
        assert results(client, pause_or_die, [str(tmp_path / "died")] * 3, Device.CPU) == [0, 0, 0]
    with pytest.raises(UsageError, match="every worker of this cluster is one with a GPU"):
        Slots(cards, device=Device.CPU)


def test_a_gpu_run_is_refused_where_no_worker_has_one() -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
        pytest.raises(UsageError, match=r"no worker .* has a GPU; cure: .*--resources GPU=1"),
    ):
        Slots(client, device=Device.CUDA)
