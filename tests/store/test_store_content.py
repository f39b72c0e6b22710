"""Equal voxels under two names, written by two processes at the same moment: one commit, and the other is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from store_made import ID, fill, grid, hu, planes, store_of, volume_meta

from ctpipe.errors import StoreBusyError
from ctpipe.store import Store, collect_garbage, open_store, verify

SHAPE = (4, 20, 20)
ROUNDS = 25

# Writes a volume of the same voxels a round, under a name of its own, when told to go; says whom it found there.
WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from store_made import *
from test_store_content import SHAPE, commit_once, open_store
store = open_store(sys.argv[1], mode="a")
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    print(commit_once(store, f"{sys.argv[3]}{number:02d}", seed=number), flush=True)
"""


def commit_once(store: Store, series_id: str, seed: int) -> str | None:
    """What ingest does with a written volume: the id of the one with the same voxels, None where it was committed."""
    writer = store.volume_writer(volume_meta(grid(SHAPE), series_id=series_id))
    with store.lease(writer.target) as lease:
        records = fill(writer, hu(SHAPE, seed=seed))
        with store.content_lock(lease):
            twin = store.find_content(writer.content(records), grid(SHAPE))
            if twin is None:
                writer.commit(records, lease, planes(SHAPE[0]))
            else:
                writer.discard()
    return twin


def test_of_two_processes_with_equal_voxels_one_commits_and_the_other_is_told(tmp_path: Path) -> None:
    """S7, K2: both start at once, again and again."""
    root = open_store(tmp_path / "s", mode="a").root
    command = [sys.executable, "-c", WRITER, str(root), str(Path(__file__).parent)]
    writers = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for name in ("a", "b")]  # fmt: skip
    assert [writer.stdout.readline() for writer in writers] == ["ready\n"] * 2
    for number in range(ROUNDS):
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        told = [writer.stdout.readline().strip() for writer in writers]
        assert sorted(told) in (["None", f"a{number:02d}"], ["None", f"b{number:02d}"])
    for writer in writers:
        assert writer.communicate()[0] == ""
    store = open_store(root, mode="a")
    assert len(store) == ROUNDS
    assert len({series.content for series in store.values()}) == ROUNDS
    assert verify(store)["faults"] == []
    assert collect_garbage(store) == []
    assert not list((root / "leases").glob("*.json"))


def test_who_lost_the_content_lock_cannot_commit(tmp_path: Path) -> None:
    """K5: the volume's own lease is whole, but a writer that slept may have let a twin pass."""
    store = open_store(tmp_path / "s", mode="a")
    writer = store.volume_writer(volume_meta(grid(SHAPE)))
    lock = store.root / "leases/content.json"
    with store.lease(writer.target) as lease:
        records = fill(writer, hu(SHAPE))
        with store.content_lock(lease):
            lock.write_text(json.dumps(json.loads(lock.read_text()) | {"owner": "another", "fencing": 2}))
            with pytest.raises(StoreBusyError, match="content of the store was lost"):
                writer.commit(records, lease)
        assert list(store) == []
        lock.unlink()
        with store.content_lock(lease):
            writer.commit(records, lease)  # outside of the block the lost lock is forgotten
    assert list(store) == [ID]


def test_the_content_lock_of_a_killed_writer_is_followed(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", SHAPE, with_labels=False)
    code = ("import os, sys\nfrom ctpipe.store import open_store\nstore = open_store(sys.argv[1], mode='a')\n"
            "with store.lease('x.ome.zarr') as lease, store.content_lock(lease):\n    os._exit(9)\n")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code, str(store.root)], check=False).returncode == 9
    assert (store.root / "leases/content.json").exists()
    assert commit_once(store, "0123", seed=9) is None
    assert commit_once(store, "4567", seed=7) == ID  # hu's own seed
    assert collect_garbage(store) == ["leases/x-image.json"]


def test_a_store_open_for_reading_gives_no_lock(tmp_path: Path) -> None:
    from ctpipe.errors import UsageError

    store = store_of(tmp_path / "s", SHAPE, with_labels=False)
    with store.lease("x.ome.zarr") as lease, pytest.raises(UsageError), open_store(store.root).content_lock(lease):
        pass
