"""C5: a cluster that falls silent ends the run with a word; one that is slow does not."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster

from ctpipe.cluster import silence, slots
from ctpipe.cluster.slots import Slots
from ctpipe.errors import RunError


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(slots, "LOOK_S", 0.25)
    monkeypatch.setattr(silence, "SILENT_S", 4.0)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=0,
                     dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        yield client


def pid(_: object) -> int:
    return os.getpid()


def test_a_worker_that_was_stopped_is_told_instead_of_waited_for(one_worker: Client) -> None:
    """SIGSTOP: its connection stays open, so nothing but silence tells."""
    with Slots(one_worker) as flights:
        flights.submit(pid, None, "first")
        worker = flights.next().result
        flights.submit(time.sleep, 1.0, "begun")
        os.kill(worker, signal.SIGSTOP)
        try:
            with pytest.raises(RunError, match=r"no worker .* has answered for \d+ s, 1 task\(s\) wait") as told:
                flights.next()
        finally:
            os.kill(worker, signal.SIGCONT)
    assert "finished slabs are kept" in told.value.cure


def test_a_slow_task_is_waited_for_and_told_of(one_worker: Client, monkeypatch, caplog) -> None:
    """Longer than a cluster may be silent: its worker goes on to send heartbeats."""
    monkeypatch.setattr(silence, "TELL_S", 2.0)
    with caplog.at_level(logging.WARNING), Slots(one_worker) as flights:
        flights.submit(time.sleep, 10.0, "slow")
        assert flights.next().error is None
    told = [record.getMessage() for record in caplog.records if record.name == silence.__name__]
    assert told
    assert all("at work: tcp://127.0.0.1:" in one for one in told)
