"""Post-processing of committed runs: new labels beside the raw ones, the same bytes however they came about."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1] / "patches"))

from stores_made import add_labels, store_of
from volumes import CLASSES, labelled

from ctpipe import pipeline
from ctpipe.errors import NotThereError, StoreFaultError, UsageError
from ctpipe.pipeline import post_processing
from ctpipe.store import open_store, verify
from ctpipe.words import LabelKind

RUN = "4be1aa"
STEPS = "largest=liver; fill=liver; inside=lesion:liver:4; min-mm3=lesion:60; smooth=liver:2"
CRF = "fill=liver; crf=liver+lesion:1.5:200"
SHAPE = (75, 40, 36)


def raw_labels(seed: int) -> np.ndarray:
    """A liver with holes and islands, lesions in it and stray ones; it crosses all slabs."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    organ = ((z - 37) / 34) ** 2 + ((y - 20) / 14) ** 2 + ((x - 18) / 12) ** 2 < 1
    organ ^= ndimage.gaussian_filter(rng.random(SHAPE), 0.9) > 0.68
    lesion = ndimage.gaussian_filter(rng.random(SHAPE), 1.2) > 0.6
    return np.where(lesion, 2, organ).astype(np.uint8)


def make_store(root: Path, numbers=(1,)):
    series = [labelled(SHAPE, n, 32, id=f"ab{n}", patient=f"p-{n}") for n in numbers]
    store = store_of(root, series)
    writable = open_store(root, "a")
    for one in series:
        add_labels(writable, one.id, one.grid, raw_labels(int(one.id[-1])), RUN, LabelKind.PREDICTION)
    return store


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def group(root: Path, name: str, series: str = "ab1") -> Path:
    return root / f"{series}.ome.zarr" / "labels" / name


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A store, the bytes of its raw labels before, and the report of one call over them."""
    root = tmp_path_factory.mktemp("post") / "S"
    make_store(root)
    raw = files_of(group(root, RUN))
    return root, raw, pipeline.post_process(root, [RUN], STEPS)


def test_every_voxel_is_that_of_the_steps_on_the_whole_volume(done):
    root, _, report = done
    assert report.exit_code == 0
    whole = one_after_the_other(raw_labels(1), STEPS, open_store(root)["ab1"])
    found = open_store(root)["ab1"].labels[report.runs[0].run]
    np.testing.assert_array_equal(found.read_planes(0, SHAPE[0]), whole)
    assert (found.kind, found.classes, found.dtype) == (LabelKind.PREDICTION, CLASSES, "uint8")


def one_after_the_other(labels, steps, series):
    """The steps with the whole volume as one slab."""
    from ctpipe.postprocess import Band, apply, bind, decide, look, parse_steps

    hu = series.read_planes(0, SHAPE[0])
    for step in parse_steps(steps):
        bound, band = bind(step, CLASSES, series.grid), Band(labels, 0, SHAPE[0], 0, SHAPE[0])
        labels = apply(bound, band, decide(bound, [look(bound, band)])[0] if bound.looks else None, hu)
    return labels


def test_raw_labels_stay_and_the_new_ones_name_them(done):
    root, raw, report = done
    assert files_of(group(root, RUN)) == raw
    run = report.runs[0]
    labels = open_store(root)["ab1"].labels
    assert labels[run.run].provenance["parent"] == run.parent == RUN
    assert labels[run.run].provenance["parent_content"] == labels[RUN].content
    assert "; ".join(labels[run.run].provenance["steps"]) == STEPS
    assert open_store(root).run(run.run)["parent"] == RUN
    assert sum(run.changed.values()) > 0
    assert sorted(labels) == sorted(["truth-ab1", RUN, run.run])  # nothing is left of what lay between
    assert not verify(open_store(root))["faults"]


def test_nothing_lies_between_the_steps_when_all_is_done(done):
    root, _, report = done
    there = {path.name for path in group(root, RUN).parent.iterdir() if path.is_dir()}
    assert there == {"truth-ab1", RUN, report.runs[0].run}
    assert not open_store(root)["ab1"].in_progress


def test_a_second_call_is_a_no_op(done, monkeypatch):
    root, _, report = done
    before = files_of(root)
    monkeypatch.setattr(post_processing, "run_tasks", None)
    again = pipeline.post_process(root, [RUN], STEPS)
    assert [(run.run, run.known) for run in again.runs] == [(run.run, True) for run in report.runs]
    assert files_of(root) == before


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_workers_write_the_bytes_that_this_process_writes(tmp_path, workers):
    """RELIABILITY I4."""
    make_store(tmp_path / "here")
    make_store(tmp_path / "S")
    here = [pipeline.post_process(tmp_path / "here", RUN, steps).runs[0].run for steps in (STEPS, CRF)]
    with (LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", memory_limit=0,
                       dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
          Client(cluster) as client):  # fmt: skip
        found = [pipeline.post_process(tmp_path / "S", RUN, steps, client).runs[0].run for steps in (STEPS, CRF)]
    assert found == here
    for name in here:
        assert files_of(group(tmp_path / "S", name)) == files_of(group(tmp_path / "here", name))


# Tasks in order: look and write (3 each) for the first four steps, then the vote's 3 writes; after how many the call
# ends, and how many slabs the next one has to write.
@pytest.mark.parametrize(("stop_after", "left"),
                         [(0, 15), (4, 13), (8, 12), (13, 9), (18, 6), (23, 3), (24, 2), (26, 0)])  # fmt: skip
def test_a_call_that_ended_anywhere_goes_on_to_the_same_bytes(done, tmp_path, monkeypatch, stop_after, left):
    """RELIABILITY C1. A step that was whole is not done again, nor a slab of the one that was not."""
    root, _, report = done
    make_store(tmp_path / "S")
    real, count = post_processing.run_tasks, 0

    def breaking(client, function, tasks):
        nonlocal count
        for pair in real(client, function, tasks):
            if count == stop_after:
                raise KeyboardInterrupt
            count += 1
            yield pair

    monkeypatch.setattr(post_processing, "run_tasks", breaking)
    with pytest.raises(KeyboardInterrupt):
        pipeline.post_process(tmp_path / "S", RUN, STEPS)
    assert report.runs[0].run not in open_store(tmp_path / "S")["ab1"].labels
    written = []
    count = -1000
    real_write = post_processing.GroupWriter.write_slab
    monkeypatch.setattr(post_processing.GroupWriter, "write_slab",
                        lambda self, slab, voxels: written.append(self) or real_write(self, slab, voxels))
    found = pipeline.post_process(tmp_path / "S", RUN, STEPS)
    name = report.runs[0].run
    assert files_of(group(tmp_path / "S", name)) == files_of(group(root, name))
    there = {path.name for path in group(tmp_path / "S", RUN).parent.iterdir() if path.is_dir()}
    assert there == {"truth-ab1", RUN, name}
    assert len(written) == left
    assert found.runs[0].resumed == max(0, 3 - left)


def test_steps_that_begin_as_an_earlier_call_go_on_from_it(tmp_path):
    make_store(tmp_path / "S")
    first = pipeline.post_process(tmp_path / "S", RUN, "largest=liver; fill=liver").runs[0]
    more = pipeline.post_process(tmp_path / "S", RUN, "largest=liver; fill=liver; min-mm3=lesion:60").runs[0]
    assert list(more.changed) == ["min-mm3=lesion:60"]
    labels = open_store(tmp_path / "S")["ab1"].labels
    assert {first.run, more.run} < set(labels)
    assert labels[more.run].provenance["parent"] == RUN


def test_other_steps_order_or_numbers_are_another_key(tmp_path):
    series = make_store(tmp_path / "S")["ab1"]
    from ctpipe.postprocess import parse_steps

    texts = ["largest=liver", "fill=liver", "largest=liver; fill=liver", "fill=liver; largest=liver",
             "min-mm3=liver:3", "min-mm3=liver:3.0001", "min-mm3=lesion:3"]  # fmt: skip
    keys = [post_processing.post_key(series, series.labels[RUN], parse_steps(text)) for text in texts]
    assert len(set(keys)) == len(keys)
    assert post_processing.post_key(series, series.labels["truth"], parse_steps("fill=liver")) not in keys


def test_unknown_classes_steps_and_runs_are_told_before_any_work(tmp_path):
    make_store(tmp_path / "S")
    before = files_of(tmp_path / "S")
    for run, steps, kind, told in [(RUN, "largest=spleen", NotThereError, "'spleen'.*choose among: liver, lesion"),
                                   (RUN, "grow=liver", UsageError, "no step 'grow'"),
                                   (RUN, " ; ", UsageError, "no steps"),
                                   ("ffff", "fill=liver", NotThereError, "no run 'ffff'")]:  # fmt: skip
        with pytest.raises(kind, match=told):
            pipeline.post_process(tmp_path / "S", run, steps)
    assert files_of(tmp_path / "S") == before


def test_rotten_raw_labels_fail_that_volume_and_the_other_goes_on(tmp_path):
    make_store(tmp_path / "S", (1, 2))
    shard = group(tmp_path / "S", RUN) / "0" / "c" / "1" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 8
    shard.write_bytes(data)
    report = pipeline.post_process(tmp_path / "S", RUN, "largest=liver")
    assert list(report.failed) == ["ab1"]
    assert [run.series for run in report.runs] == ["ab2"]
    assert report.exit_code == 3


def test_planes_that_no_step_wrote_are_not_read_as_background(tmp_path):
    make_store(tmp_path / "S")
    store = open_store(tmp_path / "S", "a")
    from ctpipe.postprocess import parse_steps

    writer = post_processing._plan(store, store["ab1"], RUN, parse_steps("fill=liver")).writers[0]
    writer.prepare()
    writer.write_slab(writer.slabs[0], raw_labels(1)[:32])
    np.testing.assert_array_equal(writer.read_planes(3, 32), raw_labels(1)[3:32])
    with pytest.raises(StoreFaultError, match="planes 32-63"):
        writer.read_planes(3, 33)


KILLED = """
import os, signal, sys
from ctpipe import pipeline
from ctpipe.store import GroupWriter
real, left = GroupWriter.write_slab, int(sys.argv[4])
def dying(self, slab, voxels):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, slab, voxels)
GroupWriter.write_slab = dying
pipeline.post_process(*sys.argv[1:4])
"""


@pytest.mark.parametrize("writes", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 3, 11, 14))])
def test_a_killed_call_leaves_nothing_listed_and_the_next_ends_in_the_same_bytes(done, tmp_path, writes):
    """RELIABILITY S1, C1."""
    root, raw, report = done
    make_store(tmp_path / "S")
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "S"), RUN, STEPS, str(writes)], timeout=100)
    assert died.returncode == -signal.SIGKILL
    assert sorted(open_store(tmp_path / "S")["ab1"].labels) == sorted([RUN, "truth-ab1"])
    pipeline.post_process(tmp_path / "S", RUN, STEPS)
    name = report.runs[0].run
    assert files_of(group(tmp_path / "S", name)) == files_of(group(root, name))
    assert files_of(group(tmp_path / "S", RUN)) == raw
    there = {path.name for path in group(tmp_path / "S", RUN).parent.iterdir() if path.is_dir()}
    assert there == {"truth-ab1", RUN, name}
