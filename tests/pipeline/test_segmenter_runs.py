"""Runs of a segmenter over a store: one line, the same bytes from any workers, going on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from line_made import CLASSES, same_bytes, small_patient
from segmenters_made import NNUNET, segmenter, streamed

import ctpipe
from ctpipe import cli, pipeline
from ctpipe.errors import BudgetError, RunError, UsageError
from ctpipe.models import Segmenter
from ctpipe.store import open_store, verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Segmenter]:
    """(store of two volumes of three slabs, model folder, the model): resampled, mirrored, with a pass for facts."""
    folder = tmp_path_factory.mktemp("made")
    patients = [small_patient(folder / "dicom", number) for number in (1, 2)]
    assert pipeline.ingest([str(ct) for ct, _ in patients], folder / "S", classes=CLASSES,
                           labels=[str(masks) for _, masks in patients]).exit_code == 0  # fmt: skip
    model = segmenter((12, 24, 32), ("liver", "livertumor"), spacing_mm=(1.9, 1.3, 1.4), mirror=(1,), threads=2,
                      **NNUNET)  # fmt: skip
    model.save(folder / "M")
    return folder / "S", folder / "M", model


@pytest.fixture(scope="module")
def undisturbed(made: tuple[Path, Path, Segmenter], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Bytes of the store after runs over both volumes in this process."""
    store = shutil.copytree(made[0], tmp_path_factory.mktemp("undisturbed") / "S")
    report = ctpipe.infer(store, made[1])
    assert report.exit_code == 0
    assert [(run.slabs, run.resumed, run.known) for run in report.runs] == [(3, 0, False)] * 2
    return same_bytes(store)


def test_labels_of_a_run_are_those_of_the_stream_over_the_volume(made, tmp_path) -> None:
    store = shutil.copytree(made[0], tmp_path / "S")
    report = ctpipe.infer(store, made[1], series=sorted(ctpipe.open_store(store))[:1])
    run = report.runs[0]
    series = ctpipe.open_store(store)[run.series]
    labels = series.labels[run.run]
    assert labels.classes == {1: "liver", 2: "livertumor"}
    hu = series.read_planes(0, series.grid.shape.z)
    expected = streamed(made[2], hu, series.grid)
    assert np.array_equal(labels.read_planes(0, len(hu)), expected)
    assert len(np.unique(expected)) > 1
    record = open_store(store).run(run.run)
    assert record["model"] == made[2].digest
    assert record["windows"] == run.windows > 0
    assert record["clamped"] is False
    again = ctpipe.infer(store, made[1], series=run.series)
    assert [(one.run, one.known, one.windows) for one in again.runs] == [(run.run, True, run.windows)]
    assert verify(open_store(store))["faults"] == []


def test_uncertainty_of_a_segmenter_is_the_same_in_one_pass_in_parts_and_later(made, undisturbed, tmp_path) -> None:
    """Whole numbers are added: spans, slabs that lie there and a second call change nothing."""
    stores = [Path(shutil.copytree(made[0], tmp_path / name)) for name in "ab"]
    one = sorted(open_store(stores[0]))[0]
    [run] = ctpipe.infer(stores[0], made[1], one, uncertainty=True).runs
    assert 0 < run.uncertainty < 1
    assert open_store(stores[0]).uncertainty() == {one: run.uncertainty}
    own = {name: digest for name, digest in same_bytes(stores[0]).items() if name.startswith(one)}
    assert own == {name: undisturbed[name] for name in own}
    [later] = ctpipe.infer(stores[1], made[1], one).runs
    group = open_store(stores[1])[one].labels[later.run].path
    assert pipeline.uncertainty_of(stores[1], made[1], one) == {one: run.uncertainty}
    (stores[1] / "reviews" / f"uncertainty-{made[2].digest}.json").unlink()
    (group / "zarr.json").unlink()
    for shard in group.glob("*/c/1/0/0"):
        shard.unlink()
    [resumed] = ctpipe.infer(stores[1], made[1], one, uncertainty=True).runs
    assert (resumed.resumed, resumed.uncertainty) == (2, run.uncertainty)


def test_two_workers_give_the_bytes_of_one(made, undisturbed, tmp_path) -> None:
    """I4, C1: two volumes on two workers, and one volume as two spans."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", memory_limit=0, silence_logs=50,
                     dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        both = shutil.copytree(made[0], tmp_path / "both")
        assert ctpipe.infer(both, made[1], client=client).exit_code == 0
        assert same_bytes(both) == undisturbed
        apart = shutil.copytree(made[0], tmp_path / "apart")
        told: list[tuple[int, int]] = []
        windows = []
        for series in sorted(ctpipe.open_store(apart)):
            report = ctpipe.infer(apart, made[1], series=series, client=client,
                                  progress=lambda _, done, total: told.append((done, total)))  # fmt: skip
            windows.append(report.runs[0].windows)
        assert same_bytes(apart) == undisturbed
        assert told[-1] == (3, 3)
        alone = open_store(both)
        assert all(n > run["windows"] for n, run in zip(windows, alone.runs().values(), strict=True))


RUN = "import sys, ctpipe; print(ctpipe.infer(sys.argv[1], sys.argv[2]).exit_code)"


@pytest.mark.parametrize("slab", [0, 1])
def test_a_run_that_is_killed_goes_on_by_slab_to_the_same_bytes(made, undisturbed, tmp_path, slab) -> None:
    """S10: SIGKILL once slab 0 or 1 lies there; what is there is seen as in progress, and not computed again."""
    store = shutil.copytree(made[0], tmp_path / "S")
    process = subprocess.Popen([sys.executable, "-c", RUN, str(store), str(made[1])], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(store.glob(f"*.ome.zarr/labels/????????????????/0/c/{slab}/0/0")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    begun = {series.id: series.in_progress for series in ctpipe.open_store(store).values()}
    half = [(array, done) for runs in begun.values() for array, done in runs.values()]
    assert [done for _, done in half if done > slab]
    report = ctpipe.infer(store, made[1])
    assert report.exit_code == 0
    assert sum(run.resumed for run in report.runs) > slab
    assert same_bytes(store) == undisturbed


def test_the_command_line_runs_an_imported_model(made, tmp_path, capsys) -> None:
    store = shutil.copytree(made[0], tmp_path / "S")
    assert cli.main(["infer", str(store), "--model", str(made[1]), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {run["slabs"] for run in told["runs"]} == {3}
    assert len(told["runs"]) == 2


def test_too_little_memory_is_told_and_what_is_written_is_kept(made, undisturbed, tmp_path, monkeypatch) -> None:
    """I5, C6: torch's own word for it, from the thread of the forward passes, once the first slab is written."""
    from ctpipe.pipeline import segmenter_span

    store = shutil.copytree(made[0], tmp_path / "S")

    class Full:
        def __call__(self, batch):
            if list(store.glob("*.ome.zarr/labels/????????????????/0/c/0/0/0")):
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
            return made[2].networks[0](batch)

    monkeypatch.setattr(segmenter_span, "segmenter_of", lambda *_: Segmenter(made[2].spec, [Full()]))
    with pytest.raises(BudgetError, match="out of memory"):
        ctpipe.infer(store, made[1])
    monkeypatch.undo()
    report = ctpipe.infer(store, made[1])
    assert sum(run.resumed for run in report.runs) >= 1
    assert same_bytes(store) == undisturbed


def test_a_plan_counts_what_the_run_takes(made, tmp_path) -> None:
    store = shutil.copytree(made[0], tmp_path / "S")
    planned = ctpipe.infer(store, made[1], plan=True)
    assert planned.exit_code == 0
    assert not list(store.glob("*.ome.zarr/labels/????????????????"))  # nothing was written
    assert planned.totals["flops"] > 1e6
    report = ctpipe.infer(store, made[1])
    assert {one.run: one.windows for one in planned.passes} == {run.run: run.windows for run in report.runs}
    again = ctpipe.infer(store, made[1], plan=True)
    assert {one.state for one in again.passes} == {"committed"}
    assert again.totals["windows"] == again.totals["tasks"] == 0


def test_a_plan_that_cannot_fit_says_what_would(made, tmp_path, monkeypatch, capsys) -> None:
    from ctpipe.cluster import connecting

    monkeypatch.setattr(connecting, "_memory_free", lambda: 100 << 20)
    assert cli.main(["infer", str(made[0]), "--model", str(made[1]), "--plan"]) == 4
    assert "more" in capsys.readouterr().err


def test_a_voxel_is_explained_by_the_windows_over_it(made, tmp_path) -> None:
    store = shutil.copytree(made[0], tmp_path / "S")
    name = sorted(ctpipe.open_store(store))[0]
    run = ctpipe.infer(store, made[1], series=name).runs[0]
    labels = ctpipe.open_store(store)[name].labels[run.run].read_planes(0, 70)
    voxels = [tuple(np.argwhere(labels == label)[7].tolist()) for label in np.unique(labels)]
    for voxel in [*voxels, (0, 0, 0), (69, 55, 59), (33, 20, 31)]:
        told = pipeline.explain(store, name, voxel)
        assert told.label == labels[voxel]
        assert sum(window.share for window in told.windows) == pytest.approx(1, abs=1e-4)
        assert told.model == made[2].digest
        mean = {key: sum(window.share * window.scores[key] for window in told.windows)
                for key in ("background", "liver", "livertumor")}  # fmt: skip
        assert sum(mean.values()) == pytest.approx(1, abs=1e-3)


def test_an_explanation_that_does_not_agree_is_an_error(made, tmp_path) -> None:
    """The stored label is compared with what the windows give: a painted voxel would be told."""
    from ctpipe.pipeline import segment_explaining

    store = shutil.copytree(made[0], tmp_path / "S")
    name = sorted(ctpipe.open_store(store))[0]
    run = ctpipe.infer(store, made[1], series=name).runs[0]
    series = ctpipe.open_store(store)[name]
    labels = series.labels[run.run]
    planes = labels.read_planes(0, 70)
    labels.read_planes = lambda start, stop: (planes[start:stop] + 1) % 3
    from ctpipe.words import ZYX

    with pytest.raises(RunError, match="its windows give"):
        segment_explaining.explain_segment(series, ZYX(10, 20, 20), labels, store / "models" / made[2].digest)


def test_exact_is_a_word_for_classifiers(made) -> None:
    with pytest.raises(UsageError, match="exact=required is for classifiers"):
        ctpipe.infer(made[0], made[1], exact="required")
