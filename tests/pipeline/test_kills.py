"""SIGKILL at random moments: a second call leaves what an undisturbed one leaves, and nothing half-done shows."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from line_made import CLASSES, same_bytes, small_patient, small_recipe

import ctpipe
from ctpipe import pipeline

KILLS = 10

# Imports once, then forks a child for every line it is given, each the leader of its own process group: the kills fall
# into the work and not into Python's imports. It has no threads when it forks, since it never works itself. A child
# that has ended stays unreaped until the next line: a kill that comes too late finds it, and never another process.
NURSERY = """
import json, os, sys
import dask.delayed, distributed, pandas, pyarrow.parquet, pydicom, scipy.ndimage, torch, zarr
from ctpipe import dicom, pipeline, store
for line in sys.stdin:
    stage, arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        getattr(pipeline, stage)(**arguments)
        os._exit(0)
    os.setpgid(child, child)  # here as well as in the child: whichever comes first, the group is there when it is named
    print(child, flush=True)
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    print(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status, flush=True)
    sys.stdin.readline()
    os.waitpid(child, 0)
"""


class Nursery:
    """Runs a stage in a child of its own, and kills its process group when told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, stderr=subprocess.DEVNULL)  # fmt: skip

    def run(self, stage: str, arguments: dict[str, object], kill_after: float | None = None) -> tuple[int, float]:
        """(exit code, seconds) of one child."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([stage, arguments]) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            os.killpg(child, signal.SIGKILL)
        code, seconds = int(self.process.stdout.readline()), time.monotonic() - began
        self.process.stdin.write("reap\n")
        self.process.stdin.flush()
        return code, seconds


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    ct, masks = small_patient(tmp_path_factory.mktemp("dicom"), 1)
    return {"paths": [str(ct)], "labels": [str(masks)]}


def _nothing_half_done_shows(store: Path, whole: dict[str, str]) -> None:
    """All that is listed is whole: every committed group reads, and its commit is that of the undisturbed run."""
    if not (store / "ctpipe.json").exists():
        return
    for series in ctpipe.open_store(store).values():
        assert series.read_planes(0, series.grid.shape.z).shape == series.grid.shape
        for labels in series.labels.values():
            assert labels.read_planes(0, labels.grid.shape.z).shape == labels.grid.shape
    groups = [path.relative_to(store) for path in [*store.glob("*.ome.zarr/zarr.json"),
                                                   *store.glob("*.ome.zarr/labels/*/zarr.json")]]  # fmt: skip
    found = same_bytes(store)
    assert all(found[str(path)] == whole[str(path)] for path in groups)


def _kill_and_compare(
    nursery: Nursery, stage: str, arguments: Callable[[Path], dict[str, object]], base: Path | None, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    if base:
        shutil.copytree(base, undisturbed)
    code, duration = nursery.run(stage, arguments(undisturbed))
    assert code == 0
    whole = same_bytes(undisturbed)
    moments = random.Random(7)
    killed = 0
    for number in range(3 * KILLS):
        store = tmp_path / f"killed-{number}"
        if base:
            shutil.copytree(base, store)
        code, seconds = nursery.run(stage, arguments(store), kill_after=moments.uniform(0.02, duration))
        killed += code == -signal.SIGKILL
        if code == 0:  # it had ended before: the first run was slower than the rest, as on a machine of many tenants
            duration = min(duration, seconds)
        _nothing_half_done_shows(store, whole)
        assert nursery.run(stage, arguments(store))[0] == 0  # the second call goes on where the first one stopped
        assert same_bytes(store) == whole, f"kill {number}"
        shutil.rmtree(store)
        if killed == KILLS:
            return
    pytest.fail(f"{killed} of {3 * KILLS} children were killed in their work")


def test_a_killed_ingest_ends_in_the_same_bytes(
    nursery: Nursery, inputs: dict[str, list[str]], tmp_path: Path
) -> None:
    """RELIABILITY S1, S10: ten kills of ingest with labels; an all-air slab and an empty label slab are in it."""
    given = {**inputs, "classes": CLASSES}
    _kill_and_compare(nursery, "ingest", lambda store: {**given, "store": str(store)}, None, tmp_path)


def test_a_killed_infer_ends_in_the_same_bytes(
    nursery: Nursery, inputs: dict[str, list[str]], tmp_path: Path
) -> None:
    """RELIABILITY S1, S10: ten kills of infer."""
    base = tmp_path / "base"
    pipeline.ingest(inputs["paths"], base, inputs["labels"], CLASSES)
    pipeline.train_model(base, small_recipe(stride=[1, 4, 4]), tmp_path / "model", validate=[])
    model = str(tmp_path / "model")
    _kill_and_compare(nursery, "infer", lambda store: {"store": str(store), "model": model}, base, tmp_path)
