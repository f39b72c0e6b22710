"""RELIABILITY C2: a task that another worker was given meanwhile runs to its end, and changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from line_made import CLASSES, same_bytes, small_patient

from ctpipe import open_store, pipeline
from ctpipe.store import GroupWriter, verify


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Two workers, as a site starts them without a nanny, which would kill one that is given up: after two seconds."""
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "2s"}),
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
        Client(cluster) as made,
    ):
        # workers load functions of this file
        places = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        line = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address, "--no-nanny",
                "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path)]  # fmt: skip
        workers = [subprocess.Popen(line, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": places})
                   for _ in range(2)]  # fmt: skip
        try:
            made.wait_for_workers(2, timeout=60)
            yield made
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    ct, masks = small_patient(tmp_path_factory.mktemp("dicom"), 1)
    return {"paths": [str(ct)], "labels": [str(masks)], "classes": CLASSES}


@pytest.fixture(scope="module")
def undisturbed(inputs: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = tmp_path_factory.mktemp("undisturbed") / "S"
    assert pipeline.ingest(store=store, **inputs).exit_code == 0
    return same_bytes(store)


def pause_before_the_first_write(folder: str) -> None:
    """In a worker: its process stops as it is about to write a slab, and says when it has written it after all."""
    write = GroupWriter.write_slab

    def pausing(self, slab, *rest):
        stopped = Path(folder) / "stopped"
        if stopped.exists():
            return write(self, slab, *rest)
        stopped.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        record = write(self, slab, *rest)
        (Path(folder) / "written").touch()
        return record

    GroupWriter.write_slab = pausing


def wait_for(true: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.01)


@pytest.mark.parametrize("when", ["while the other one works", "after the commit"])
def test_a_slab_that_two_workers_write_has_the_same_bytes(
    client: Client, inputs: dict[str, object], undisturbed: dict[str, str], tmp_path: Path, when: str
) -> None:
    paused = sorted(client.nthreads())[0]
    client.run(pause_before_the_first_write, str(tmp_path), workers=[paused])
    reports: list[pipeline.IngestReport] = []
    store = tmp_path / "S"
    run = threading.Thread(
        target=lambda: reports.append(pipeline.ingest(store=store, client=client, **inputs)), daemon=True
    )
    run.start()
    wait_for((tmp_path / "stopped").exists)
    pid = int((tmp_path / "stopped").read_text())
    try:
        if when == "after the commit":
            run.join(60)
            assert len(reports) == 1
            assert same_bytes(store) == undisturbed
        else:
            wait_for(lambda: paused not in client.scheduler_info(n_workers=-1)["workers"])
    finally:
        os.kill(pid, signal.SIGCONT)
    run.join(60)
    wait_for((tmp_path / "written").exists)
    assert reports[0].exit_code == 0
    assert same_bytes(store) == undisturbed
    assert verify(open_store(store))["faults"] == []
