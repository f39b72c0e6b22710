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
from collections.abc import Callable
from pathlib import Path

import pytest
from line_made import CLASSES, same_bytes, small_patient, small_recipe

import ctpipe
from ctpipe import pipeline

KILLS = 10

# The child says when it begins to work, so that the kill falls into the work and not into Python's imports.
CHILD = """
import json, sys, torch, zarr, scipy.ndimage, pandas, pydicom
from ctpipe import dicom, pipeline
stage, arguments = sys.argv[1], json.loads(sys.argv[2])
print("ready", flush=True)
getattr(pipeline, stage)(**arguments)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("dicom")
    made = [small_patient(folder, number) for number in range(2)]
    return {"paths": [str(ct) for ct, _ in made], "labels": [str(masks) for _, masks in made]}


def _start(stage: str, arguments: dict[str, object]) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, stage, json.dumps(arguments)], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def _duration(stage: str, arguments: dict[str, object]) -> float:
    """Seconds of an undisturbed run, from the moment it begins to work."""
    child = _start(stage, arguments)
    began = time.monotonic()
    assert child.wait(timeout=300) == 0
    return time.monotonic() - began


def _kill_after(seconds: float, stage: str, arguments: dict[str, object]) -> None:
    child = _start(stage, arguments)
    time.sleep(seconds)
    os.killpg(child.pid, signal.SIGKILL)  # the group: Dask's workers go as well
    child.wait(timeout=60)


def _nothing_half_done_shows(store: Path, whole: dict[str, str]) -> None:
    """All that is listed is whole: every committed group reads, and its files are those of the undisturbed run."""
    if not (store / "ctpipe.json").exists():
        return
    for series in ctpipe.open_store(store).values():
        assert series.read_planes(0, series.grid.shape.z).shape == series.grid.shape
        for labels in series.labels.values():
            assert labels.read_planes(0, labels.grid.shape.z).shape == labels.grid.shape
    committed = {name: digest for name, digest in same_bytes(store).items() if name.endswith("ome.zarr/zarr.json")}
    assert all(whole[name] == digest for name, digest in committed.items())


def _kill_and_compare(
    stage: str, arguments: Callable[[Path], dict[str, object]], base: Path | None, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    if base:
        shutil.copytree(base, undisturbed)
    duration = _duration(stage, arguments(undisturbed))
    whole = same_bytes(undisturbed)
    moments = random.Random(7)
    for number in range(KILLS):
        store = tmp_path / f"killed-{number}"
        if base:
            shutil.copytree(base, store)
        _kill_after(moments.uniform(0, duration), stage, arguments(store))
        _nothing_half_done_shows(store, whole)
        getattr(pipeline, stage)(**arguments(store))  # the second call goes on where the first one stopped
        assert same_bytes(store) == whole, f"kill {number}"
        shutil.rmtree(store)


def test_a_killed_ingest_ends_in_the_same_bytes(inputs: dict[str, list[str]], tmp_path: Path) -> None:
    """RELIABILITY S1, S10, C1: ten kills of ingest with labels; an all-air slab and an empty label slab are in it."""
    _kill_and_compare("ingest", lambda store: {**inputs, "store": str(store), "classes": CLASSES}, None, tmp_path)


def test_a_killed_infer_ends_in_the_same_bytes(inputs: dict[str, list[str]], tmp_path: Path) -> None:
    """RELIABILITY S1, S10, C1: ten kills of infer."""
    base = tmp_path / "base"
    pipeline.ingest(**inputs, store=base, classes=CLASSES)
    pipeline.train_model(base, small_recipe(stride=[1, 4, 4]), tmp_path / "model")
    _kill_and_compare("infer", lambda store: {"store": str(store), "model": str(tmp_path / "model")}, base, tmp_path)
