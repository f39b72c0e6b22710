"""SIGKILL of stages on two worker processes: of everything at once, and of one worker while the rest lives on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import Client, LocalCluster
from line_made import CLASSES, same_bytes, small_patient, small_recipe

import ctpipe
from ctpipe import pipeline
from ctpipe.errors import RunError
from ctpipe.models import Model, build_network
from ctpipe.store import collect_garbage, open_store, verify

KILLS = 20
INFER_KILLS = 5
WORKER_KILLS = 6

# Imports once, then forks a child for every line it is given: each leads a process group of its own, with two worker
# processes in it. A child says when its workers are up, so that kills fall into the work and not into its start.
NURSERY = """
import faulthandler, json, os, sys
import dask.delayed, distributed, pandas, pyarrow.parquet, pydicom, torch, zarr
from ctpipe import dicom, pipeline, store
from ctpipe.pipeline import infer

def imports():
    import pandas, pyarrow.parquet, pydicom, zarr
    from ctpipe import dicom, pipeline, store

def imports_of_infer():
    import torch
    from ctpipe.pipeline import infer

def work(scratch, arguments):
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=0,
                                  dashboard_address="127.0.0.1:0", local_directory=scratch) as cluster, \\
         distributed.Client(cluster) as client:
        stage = arguments.pop("stage", "ingest")
        client.run(imports if stage == "ingest" else imports_of_infer)
        print("began", *client.run(os.getpid).values(), flush=True)
        report = getattr(pipeline, stage)(client=client, **arguments)
        print("ended", report.exit_code, flush=True)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.setsid()
        scratch, arguments = json.loads(line)
        faulthandler.dump_traceback_later(120, exit=True, file=open(scratch + "-hung.txt", "w"))
        work(scratch, arguments)
        os._exit(0)
    print("child", child, flush=True)
    print("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """One run of a child. ended: whether the stage came to its end; seconds: of the stage, or until the kill."""

    ended: bool
    code: int
    seconds: float
    pids: tuple[int, ...]


class Nursery:
    """Runs a stage on two workers in a child of its own, and kills its process group when told."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, stderr=subprocess.DEVNULL)  # fmt: skip

    def run(self, scratch: Path, arguments: dict[str, object], kill_after: float | None = None) -> Ran:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([str(scratch), arguments]) + "\n")
        self.process.stdin.flush()
        child = self._next("child")[0]
        pids = (child, *self._next("began"))
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it has ended already
                os.killpg(child, signal.SIGKILL)
        seconds, ended = 0.0, False
        while True:
            word, *numbers = self._line()
            if word == "ended":
                ended, seconds = numbers == ["0"], time.monotonic() - began
            if word == "exit":
                return Ran(ended, int(numbers[0]), seconds or time.monotonic() - began, pids)

    def _next(self, word: str) -> list[int]:
        said, *numbers = self._line()
        assert said == word
        return [int(number) for number in numbers]

    def _line(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three small series with labels, three slabs each."""
    made = [small_patient(tmp_path_factory.mktemp("dicom"), number) for number in (1, 2, 3)]
    return {"paths": [str(ct) for ct, _ in made], "labels": [str(masks) for _, masks in made], "classes": CLASSES}


@pytest.fixture(scope="module")
def whole(arguments: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Bytes of a store that was made in one process and undisturbed."""
    store = tmp_path_factory.mktemp("undisturbed") / "S"
    assert pipeline.ingest(store=store, **arguments).exit_code == 0
    return same_bytes(store)


def _nothing_half_done_shows(store: Path, whole: dict[str, str]) -> None:
    """All that is listed is whole: every committed group reads, and its commit is that of the undisturbed run."""
    if not (store / "ctpipe.json").exists():
        return
    for series in ctpipe.open_store(store).values():
        assert series.read_planes(0, series.grid.shape.z).shape == series.grid.shape
        for labels in series.labels.values():
            assert labels.read_planes(0, labels.grid.shape.z).shape == labels.grid.shape
    commits = [path.relative_to(store) for path in [*store.glob("*.ome.zarr/zarr.json"),
                                                    *store.glob("*.ome.zarr/labels/*/zarr.json")]]  # fmt: skip
    found = same_bytes(store)
    assert all(found[str(path)] == whole[str(path)] for path in commits)


def _gone(pid: int) -> bool:
    """Whether a process runs no more; a moment is granted to one that was just killed."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_an_ingest_on_two_workers_that_is_killed_ends_in_the_same_bytes(
    nursery: Nursery, arguments: dict[str, Any], whole: dict[str, str], tmp_path: Path
) -> None:
    """RELIABILITY S1, S10, C1, C4, C9: client, scheduler and workers killed together at twenty random moments."""
    straight = nursery.run(tmp_path / "scratch", {**arguments, "store": str(tmp_path / "straight")})
    assert straight.ended
    assert len(straight.pids) == 3
    assert same_bytes(tmp_path / "straight") == whole
    moments = random.Random(11)
    hits = started = 0
    for number in range(KILLS):
        given = {**arguments, "store": str(tmp_path / f"killed-{number}")}
        store = Path(given["store"])
        killed = nursery.run(tmp_path / "scratch", given, kill_after=moments.uniform(0.0, straight.seconds))
        hits += not killed.ended and killed.code == -signal.SIGKILL
        assert all(_gone(pid) for pid in killed.pids)
        started += any(store.glob("*.ome.zarr/0/c/*/0/0"))
        _nothing_half_done_shows(store, whole)
        if number % 5:  # goes on where the first one stopped: in this process, which is soon there, or on two workers
            assert pipeline.ingest(**given).exit_code == 0
        else:
            assert nursery.run(tmp_path / "scratch", given).ended, (tmp_path / "scratch-hung.txt").read_text()
        assert same_bytes(store) == whole, f"kill {number}"
        assert verify(open_store(store))["faults"] == []
        collect_garbage(open_store(store, mode="a"))
        assert not list(store.rglob("*.partial"))
        assert same_bytes(store) == whole
        shutil.rmtree(store)
    assert hits >= KILLS // 2  # an ingest that had already ended was not killed
    assert started >= KILLS // 4  # and some of the kills found shards lying there


@pytest.mark.slow
def test_an_infer_with_several_volumes_in_flight_that_is_killed_ends_in_the_same_bytes(
    nursery: Nursery, arguments: dict[str, Any], tmp_path: Path
) -> None:
    """RELIABILITY S1, S10, C1, C4, C9, I4: labels are those of one volume after the other, without any worker."""
    base, model = tmp_path / "base", tmp_path / "model"
    pipeline.ingest(store=base, **arguments)
    recipe = small_recipe(stride=[1, 2, 2], region="all")
    torch.manual_seed(1)
    network = build_network(recipe.network, 1, 3, recipe.windows.window, recipe.options)
    Model.of(recipe, recipe.classes, network).save(model)
    straight = Path(shutil.copytree(base, tmp_path / "straight"))
    for series in open_store(straight):
        assert pipeline.infer(straight, model, series).exit_code == 0  # three slabs: in this process
    whole = same_bytes(straight)
    given = {"stage": "infer", "model": str(model)}
    undisturbed = Path(shutil.copytree(base, tmp_path / "undisturbed"))
    ran = nursery.run(tmp_path / "scratch", {**given, "store": str(undisturbed)})
    assert ran.ended
    assert same_bytes(undisturbed) == whole
    moments = random.Random(5)
    hits = begun = several = 0
    for number in range(INFER_KILLS):
        store = Path(shutil.copytree(base, tmp_path / f"killed-{number}"))
        killed = nursery.run(tmp_path / "scratch", {**given, "store": str(store)},
                             kill_after=moments.uniform(0.1, 0.95) * ran.seconds)  # fmt: skip
        hits += not killed.ended and killed.code == -signal.SIGKILL
        assert all(_gone(pid) for pid in killed.pids)
        begun += any(series.in_progress for series in open_store(store).values())
        several += len(list((store / "leases").glob("*.json"))) > 1  # the dead one's, a target each
        _nothing_half_done_shows(store, whole)
        if number % 2:
            assert pipeline.infer(store, model, sorted(open_store(store))[:1]).exit_code == 0
        assert nursery.run(tmp_path / "scratch", {**given, "store": str(store)}).ended
        assert same_bytes(store) == whole, f"kill {number}"
        assert verify(open_store(store))["faults"] == []
        shutil.rmtree(store)
    assert hits >= INFER_KILLS // 2
    assert begun
    assert several  # more than one volume was in flight


class Killer(threading.Thread):
    """Kills one worker process after a while."""

    def __init__(self, pid: int, after: float) -> None:
        super().__init__(daemon=True)
        self.pid, self.after = pid, after

    def run(self) -> None:
        time.sleep(self.after)
        os.kill(self.pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_more_than_its_tasks(
    arguments: dict[str, Any], whole: dict[str, str], tmp_path: Path
) -> None:
    """RELIABILITY C1, C3: one worker killed, the client lives on: whole, or told and whole at the next call."""
    moments = random.Random(12)
    hits = told = 0
    for number in range(WORKER_KILLS):
        store = tmp_path / f"killed-{number}"
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=0,
                         dashboard_address="127.0.0.1:0", local_directory=str(tmp_path / "scratch")) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            pids = sorted(client.run(os.getpid).values())
            killer = Killer(moments.choice(pids), moments.uniform(0.0, 2.0))
            killer.start()
            try:
                code = pipeline.ingest(store=store, client=client, **arguments).exit_code
            except RunError as error:  # one line, and what is finished is kept
                code = error.exit_code
            hits += not killer.is_alive()
            killer.join()
        assert code == 3 or same_bytes(store) == whole, f"kill {number}"
        told += code == 3
        _nothing_half_done_shows(store, whole)
        assert pipeline.ingest(store=store, **arguments).exit_code == 0
        assert same_bytes(store) == whole, f"kill {number}"
        assert verify(open_store(store))["faults"] == []
    assert hits >= WORKER_KILLS // 2
    assert told < hits  # as a rule a lost worker is made good, and nobody need run again
