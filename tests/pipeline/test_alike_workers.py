"""C7: a worker of other versions is refused before any work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from ctpipe.cluster import client_for
from ctpipe.cluster.alike import differences, stack
from ctpipe.errors import UsageError


@contextmanager
def scheduler() -> Iterator[str]:
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50) as cluster:
        yield cluster.scheduler_address


@contextmanager
def worker(address: str, **environment: str) -> Iterator[None]:
    """A process of its own, as on another machine."""
    line = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1",
            "--host", "127.0.0.1", "--no-dashboard"]  # fmt: skip
    started = subprocess.Popen(line, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        with Client(address) as client:
            client.wait_for_workers(1, timeout=60)
        yield
    finally:
        started.terminate()
        started.wait(30)


def test_a_worker_with_another_version_is_refused_by_name(tmp_path: Path) -> None:
    """Its metadata says so, as a second environment's would."""
    (tmp_path / "zarr-99.0.dist-info").mkdir()
    (tmp_path / "zarr-99.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 99.0\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with scheduler() as address:
        with (
            worker(address, PYTHONPATH=path),
            pytest.raises(UsageError, match=r"1 of 1 have zarr 99\.0, here it is \d"),
            client_for(10, address=address),
        ):
            pass
        with worker(address), client_for(10, address=address) as client:
            assert client is not None


def test_processors_are_compared_among_workers_and_versions_with_this_process() -> None:
    here = stack()
    assert all(here[name] for name in ("python", "ctpipe", "dask", "numpy", "torch", "zarr"))
    other, newer = ({**here, "instruction set": f"x86_64 {kind}"} for kind in ("avx2", "avx512f"))
    assert differences(here, [here, here]) == differences(here, [other, other]) == []
    assert differences(here, [other, newer]) == ["their processors differ (x86_64 avx2, x86_64 avx512f)"]
    told = differences(here, [{**here, "torch": "1.0"}, {**here, "torch": "", "numba": "0.1"}])
    assert told == [f"1 of 2 have numba 0.1, here it is {here['numba']}",
                    f"2 of 2 have torch 1.0, absent, here it is {here['torch']}"]  # fmt: skip
