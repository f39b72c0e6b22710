"""The same label bytes from one and from two Dask worker processes, and in this process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from line_made import CLASSES, same_bytes, small_patient, small_recipe

from ctpipe import pipeline
from ctpipe.cluster import client_for, run_tasks
from ctpipe.errors import RunError, UsageError


@contextmanager
def workers(number: int) -> Iterator[Client]:
    with (
        LocalCluster(n_workers=number, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=0,
                     dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        yield client


def test_threads_that_fit_one_process_start_no_other_and_listen_nowhere() -> None:
    with client_for(12, threads_a_worker=64) as client:
        assert client is not None
        assert sum(client.nthreads().values()) == len(os.sched_getaffinity(0))
        assert client.scheduler.address.startswith("inproc://")
        assert dict(run_tasks(client, abs, [-1, -2, 3])) == {-1: 1, -2: 2, 3: 3}


def test_one_and_two_workers_write_the_same_bytes(tmp_path: Path) -> None:
    """RELIABILITY V8, I4: a store made in this process, by one worker and by two: every file equal."""
    made = [small_patient(tmp_path / "dicom", number) for number in range(2)]
    arguments = {"paths": [ct for ct, _ in made], "labels": [masks for _, masks in made], "classes": CLASSES}
    pipeline.ingest(store=tmp_path / "one", **arguments)
    pipeline.train_model(tmp_path / "one", small_recipe(), tmp_path / "model")
    found = []
    for number in (1, 2):
        store = tmp_path / f"workers-{number}"
        with workers(number) as client:
            assert len(client.nthreads()) == number
            pipeline.ingest(store=store, client=client, **arguments)
            report = pipeline.infer(store, tmp_path / "model", client=client)
        assert report.exit_code == 0
        assert sum(run.slabs for run in report.runs) == 6
        found.append(same_bytes(store))
        shutil.rmtree(store)
    assert found[0] == found[1]
    pipeline.infer(tmp_path / "one", tmp_path / "model")
    assert same_bytes(tmp_path / "one") == found[0]


def _square(number: int) -> int:
    if number == 3:
        raise RunError("three was given", "give another number")
    return number * number


def test_a_task_that_fails_says_so_with_its_own_error() -> None:
    with workers(1) as client, pytest.raises(RunError, match="three was given"):
        list(run_tasks(client, _square, range(10)))


def test_few_tasks_run_here() -> None:
    with client_for(2) as client:
        assert client is None
        assert sorted(result for _, result in run_tasks(client, _square, [1, 2])) == [1, 4]


def test_an_open_address_on_another_host_is_refused() -> None:
    """RELIABILITY X1: plain tcp to anywhere but this machine is refused, since a scheduler runs whatever it is sent."""
    with pytest.raises(UsageError, match="no TLS"), client_for(9, address="tcp://192.0.2.7:8786"):
        pass
