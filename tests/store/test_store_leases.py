"""Leases: one writer per target; a dead one is followed, a living one is respected, a late one is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from store_made import ID, fill, grid, hu, labels, labels_meta, put, store_of, volume_meta

from ctpipe.errors import StoreBusyError
from ctpipe.store import leases, open_store

TARGET = f"{ID}.ome.zarr"
HOLD = """
import sys, time
from ctpipe.store.leases import Lease
from pathlib import Path
with Lease(Path(sys.argv[1]), sys.argv[2], expiry_s=float(sys.argv[3])) as lease:
    print("held", lease.fencing, flush=True)
    sys.stdin.read(1)
    try:
        lease.check(); print("still ours", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "s", mode="a")


@pytest.fixture
def holder(store):
    """Another process that holds the lease on TARGET."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.root), TARGET, "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held 1\n"
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def lease_file(store):
    return store.root / "leases" / f"{ID}-image.json"


def test_a_second_writer_is_told_at_once(store, holder) -> None:
    """S7: another living process on this machine."""
    with pytest.raises(StoreBusyError, match=r"another process writes .*cure: wait"), store.lease(TARGET):
        pass
    with store.lease(f"{TARGET}/labels/beef01"):  # another target is free
        pass
    assert holder.communicate("x")[0] == "still ours\n"
    with store.lease(TARGET) as lease:
        assert lease.fencing == 1
    assert not lease_file(store).exists()


def test_two_writers_in_one_process_are_two(store) -> None:
    with store.lease(TARGET), pytest.raises(StoreBusyError), store.lease(TARGET):
        pass


def test_a_killed_writer_is_followed_at_once(store, holder) -> None:
    """S7: its process is gone, so nobody waits for the counter; a process id that came again is told by its start."""
    holder.send_signal(signal.SIGKILL)
    # not reaped yet: a zombie still has a process id
    with store.lease(TARGET, wait_s=30) as lease:  # less than the expiry: the counter is not what frees it
        assert lease.fencing == 2
    claim = {"owner": "x", "fencing": 7, "counter": 1, "machine": leases._machine(), "pid": os.getpid(), "start": 1}
    lease_file(store).write_text(json.dumps(claim))
    with store.lease(TARGET) as lease:
        assert lease.fencing == 8


def test_a_stopped_writer_loses_its_lease_and_is_told(store, holder) -> None:
    """S7, K5: SIGSTOP past the expiry, another writer, SIGCONT."""
    holder.send_signal(signal.SIGSTOP)
    with store.lease(TARGET, expiry_s=0.5) as lease:
        assert lease.fencing == 2
        holder.send_signal(signal.SIGCONT)
        assert holder.communicate("x")[0] == "StoreBusyError\n"
        lease.check()  # the late owner neither beat over it nor took it away
    assert not lease_file(store).exists()


def test_a_writer_on_another_machine_is_watched(store) -> None:
    """S8: only a counter that stands still in our own monotonic time frees a lease of elsewhere."""
    claim = {"owner": "x", "fencing": 3, "counter": 1, "machine": "elsewhere", "pid": os.getpid(), "start": 1}
    lease_file(store).parent.mkdir(exist_ok=True)
    lease_file(store).write_text(json.dumps(claim))
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            claim["counter"] += 1
            side = store.root / "side"
            side.write_text(json.dumps(claim))
            side.replace(lease_file(store))

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(StoreBusyError), store.lease(TARGET, expiry_s=5):
        pass
    stop.set()
    thread.join()
    with store.lease(TARGET, expiry_s=0.3) as lease:
        assert lease.fencing == 4


def test_a_rotten_lease_is_nobodys(store) -> None:
    lease_file(store).parent.mkdir(exist_ok=True)
    lease_file(store).write_text("{")
    with store.lease(TARGET, expiry_s=0.2):
        assert json.loads(lease_file(store).read_text())["pid"] == os.getpid()


def test_the_counter_moves_while_a_lease_is_held(store) -> None:
    with store.lease(TARGET, expiry_s=0.24):
        until = time.monotonic() + 30
        while json.loads(lease_file(store).read_text())["counter"] < 2:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_of_many_that_rush_one_holds(store) -> None:
    """S7: a dead lease, eight threads: never two at a time, and those that wait get their turn."""
    claim = {"owner": "x", "fencing": 1, "counter": 1, "machine": leases._machine(), "pid": 2**22 + 1, "start": 1}
    lease_file(store).parent.mkdir(exist_ok=True)
    lease_file(store).write_text(json.dumps(claim))
    inside, most, turns = [], [], []

    def rush() -> None:
        with store.lease(TARGET, wait_s=60):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
            turns.append(1)

    threads = [threading.Thread(target=rush) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(turns) == 8


def test_who_lost_the_lease_cannot_commit(store) -> None:
    """K5: the number is checked under the same lock as the commit itself."""
    shape = (4, 20, 20)
    writer = store.volume_writer(volume_meta(grid(shape)))
    with store.lease(writer.target) as lease:
        records = fill(writer, hu(shape))
        stolen = json.loads(lease_file(store).read_text()) | {"owner": "another", "fencing": 2}
        lease_file(store).write_text(json.dumps(stolen))
        with pytest.raises(StoreBusyError, match="fencing number 1"):
            writer.commit(records, lease)
    assert list(store) == []
    assert json.loads(lease_file(store).read_text())["owner"] == "another"


def test_labels_committed_side_by_side_are_all_listed(tmp_path) -> None:
    """The index has a short lock of its own; two truths never share a sequence number."""
    shape = (4, 20, 20)
    store = store_of(tmp_path / "s", shape, with_labels=False)

    def write(number: int) -> None:
        from ctpipe.words import LabelKind

        meta = labels_meta(grid(shape), f"truth-{number}", LabelKind.TRUTH)
        put(store, store.labels_writer(ID, meta), labels(shape))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = json.loads((store[ID].path / "labels/zarr.json").read_bytes())
    assert index["attributes"]["ome"]["labels"] == [f"truth-{number}" for number in range(6)]
    assert sorted(group._stated["sequence"] for group in store[ID].labels.values()) == [1, 2, 3, 4, 5, 6]
