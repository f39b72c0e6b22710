"""Tables in the memory of worker processes: killed workers, copies, other clients, budgets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from stores_made import store_of
from volumes import labelled

from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.patches import drop_table, open_table, patch_table, published_tables, rows


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    series = [labelled((70, 40, 36), number, 32, id=f"ab{number}", patient=f"p-{number}") for number in range(6)]
    return store_of(tmp_path_factory.mktemp("made") / "S", series).root


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit="1GiB",
                       dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
          Client(cluster) as one):  # fmt: skip
        yield one


def computed() -> int:
    """How many partitions this process has made from voxels."""
    return rows.computed


def kill(client: Client, address: str) -> None:
    """SIGKILL one worker process; its nanny starts another."""
    pid = client.run(os.getpid, workers=[address])[address]
    os.kill(pid, signal.SIGKILL)


def wait_for_workers(client: Client, but: str) -> None:
    """Until the killed one is gone and another has come."""
    for _ in range(300):
        there = set(client.scheduler_info(n_workers=-1)["workers"])
        if but not in there and len(there) == 2:
            return
        time.sleep(0.1)
    raise AssertionError("no worker came back")


def table_of(root: Path, client: Client | None):
    return patch_table(root, (1, 9, 9), (1, 2, 2), client=client).where("label > 0")


@pytest.mark.parametrize("copies", [2, 1])
def test_a_killed_worker_costs_what_was_not_copied_and_the_answer_is_the_same(client, root, copies):
    """A worker is SIGKILLed while the table is queried."""
    wanted = table_of(root, None).count(["series", "label"])
    table = table_of(root, client).persist()
    if copies == 2:
        table = table.replicate(2)
        client.amm.run_once()  # Dask's memory manager would drop a second copy that nobody reads
        client.amm.run_once()
        holders = client.who_has(list(table.held))
        assert all(len(workers) == 2 for workers in holders.values())
    assert table.count(["series", "label"]).equals(wanted)
    before = client.run(computed)
    victim = min(before)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(table.count(["series", "label"])))
    asking.start()
    kill(client, victim)
    asking.join(120)
    assert answers, "the query hangs"
    pd.testing.assert_series_equal(answers[0], wanted)
    wait_for_workers(client, victim)
    assert table.count(["series", "label"]).equals(wanted)
    after = client.run(computed)
    made_again = sum(after[worker] - before.get(worker, 0) for worker in after)
    assert (made_again == 0) == (copies == 2), (before, after)


def test_a_table_published_by_one_process_is_opened_by_another_after_the_first_is_gone(client, root, tmp_path):
    address = client.scheduler.address
    publish = (
        "import sys\nfrom distributed import Client\nfrom ctpipe.patches import patch_table\n"
        "with Client(sys.argv[1]) as client:\n"
        "    table = patch_table(sys.argv[2], (1, 9, 9), (1, 2, 2), client=client).where('label > 0')\n"
        "    table.publish('liver-windows')\n"
    )
    subprocess.run([sys.executable, "-c", publish, address, str(root)], check=True, timeout=120)
    before = client.run(computed)
    [facts] = published_tables(client)
    table = open_table("liver-windows", client)
    wanted = table_of(root, None)
    assert facts["name"] == "liver-windows"
    assert facts["owner"]
    assert facts["bytes"] == len(wanted) * table.row_bytes
    pd.testing.assert_frame_equal(table.compute(), wanted.compute())
    some = wanted.sample(30, 4)
    assert np.array_equal(table.fetch(some), wanted.fetch(some))
    found = table.sql("SELECT label, count(*) AS n FROM rows GROUP BY label ORDER BY label")
    assert found["n"].tolist() == wanted.count().tolist()
    assert client.run(computed) == before  # held, not made again
    other = table_of(root, client)
    with pytest.raises(UsageError, match="published already"):
        other.publish("liver-windows")
    drop_table("liver-windows", client)
    with pytest.raises(NotThereError, match="no table 'liver-windows'"):
        open_table("liver-windows", client)
    with pytest.raises(NotThereError):
        drop_table("liver-windows", client)


def test_a_budget_of_half_the_slabs_gives_the_same_pixels_and_is_kept(client, root):
    table = table_of(root, client).persist()
    some = table.sample(200, 1)
    wanted = table_of(root, None).fetch(some)
    slab = 32 * 40 * 36 * 2
    table.budget(4 * slab)
    assert np.array_equal(table.fetch(some), wanted)
    held = table.resident()
    assert all(one["bytes"] <= 4 * slab for one in held.values())
    assert sum(one["dropped"] for one in held.values()) > 0
    assert table.memory()["pixels_resident"] == sum(one["bytes"] for one in held.values())


def test_batches_are_the_same_from_one_worker_and_from_two(client, root):
    wanted = table_of(root, None).where("label == 'lesion' and z > 5")
    shared = table_of(root, client).where("label == 'lesion' and z > 5").persist()
    worker = sorted(client.scheduler_info(n_workers=-1)["workers"])[0]
    both = [(pixels, some) for _, (pixels, some) in zip(range(5), shared.batches(64, 3), strict=False)]
    for (pixels, some), (others, same) in zip(both, wanted.batches(64, 3), strict=False):
        assert np.array_equal(pixels, others)
        pd.testing.assert_frame_equal(some, same)
    client.retire_workers([worker])
    try:
        for (pixels, some), (others, same) in zip(both, shared.batches(64, 3), strict=False):
            assert np.array_equal(pixels, others)
            pd.testing.assert_frame_equal(some, same)
    finally:
        client.cluster.scale(1)
        client.cluster.scale(2)


def test_what_needs_a_cluster_says_so(root):
    with pytest.raises(RunError, match="no cluster"):
        table_of(root, None).publish("x")
