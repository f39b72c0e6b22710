"""SIGKILL at random moments: never half a volume, and the rerun gives the bytes of an undisturbed run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_made import ID, same_bytes

from ctpipe.store import collect_garbage, open_store, verify

WRITE = """
import sys
sys.path.insert(0, sys.argv[2])
import google_crc32c, numcodecs, zarr, pandas, pyarrow.parquet  # so that the kill meets the writing
from store_made import *
from ctpipe.words import LabelKind
import ctpipe.dicom
print("ready", flush=True)
shape = (100, 130, 140)
store = open_store(sys.argv[1], mode="a")
jobs = [lambda: (store.volume_writer(volume_meta(grid(shape))), hu(shape), planes(100)),
        lambda: (store.labels_writer(ID, labels_meta(grid(shape), "truth-aa", LabelKind.TRUTH)), labels(shape), None),
        lambda: (store.labels_writer(ID, labels_meta(grid(shape))), labels(shape), None)]
for job in jobs:
    writer, voxels, table = job()
    if not writer.committed:
        put(store, writer, voxels, table)
print("done", flush=True)
"""


def start(path: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITE, str(path), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("seed", "kills"), [(3, 4), pytest.param(4, 50, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_old_or_new_and_its_rerun_the_same_bytes(tmp_path, seed, kills) -> None:
    """S1, S9, S10: the seed is in the name of the test."""
    rng = random.Random(seed)
    began = time.monotonic()
    assert start(tmp_path / "straight").communicate()[0] == "done\n"
    seconds = time.monotonic() - began
    wanted = same_bytes(tmp_path / "straight")
    met = 0
    path = tmp_path / "s0"
    for kill in range(kills):
        process = start(path)
        time.sleep(rng.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        finished = process.communicate()[0] == "done\n"
        met += not finished
        if (path / "ctpipe.json").exists():
            store = open_store(path)
            assert verify(store)["faults"] in ([], [_index_fault()])
            for series in store.values():
                for labels in series.labels.values():
                    assert labels.read_planes(0, 100).max() == 2
        if finished:
            assert same_bytes(path) == wanted
            path = tmp_path / f"s{kill + 1}"
    assert start(path).communicate()[0] == "done\n"
    collect_garbage(open_store(path, mode="a"))
    assert same_bytes(path) == wanted
    assert not list(path.rglob("*.partial"))
    assert not list((path / "leases").glob("*.json"))
    print(f"{met} of {kills} kills met the writer")


def _index_fault() -> dict:
    """A kill between a commit and the index, which decides nothing and is rebuilt by the next writer."""
    what = "the index of labels does not list what is committed"
    return {"volume": ID, "array": "labels", "shard": None, "what": what}
