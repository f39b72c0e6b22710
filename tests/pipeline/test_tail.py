"""The tail of a volume: its last slabs scored in parts by all workers; the same bytes, each plane scored once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from line_made import same_bytes
from test_infer_plan import _model, base, store, submitted

from ctpipe import infer
from ctpipe.pipeline import classifier_slab, tail
from ctpipe.pipeline.tail import HEAVY, MOST_BYTES, PARTS, parts_of, shares_for, tail_of
from ctpipe.volume import slabs_of

__all__ = ["base", "store", "submitted"]  # fixtures


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of two workers in this process, for whom every plane is heavy."""
    monkeypatch.setattr(tail, "HEAVY", 0)
    with (LocalCluster(n_workers=2, threads_per_worker=1, processes=False, protocol="inproc", silence_logs=50,
                       dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client):  # fmt: skip
        yield client


@pytest.mark.parametrize(("planes", "shares", "wanted"), [
    (100, 2, 2),  # 32 and 32; 32 and 4 shared
    (128, 2, 0),  # four slabs for two
    (129, 2, 0),  # one plane more is no work to share
    (160, 2, 1), (100, 1, 0),
    (100, 8, 4),  # fewer slabs than workers: all of them
])  # fmt: skip
def test_the_tail_is_what_does_not_come_out_even(planes: int, shares: int, wanted: int) -> None:
    assert tail_of(slabs_of(planes), shares, HEAVY, MOST_BYTES) == wanted


def test_light_planes_and_large_scores_are_not_shared() -> None:
    assert tail_of(slabs_of(100), 2, HEAVY - 1, MOST_BYTES) == tail_of(slabs_of(100), 2, HEAVY, MOST_BYTES + 1) == 0


@pytest.mark.parametrize("counts", [[32, 4], [16, 16, 3], [1], []])
@pytest.mark.parametrize("shares", [2, 3, 16])
def test_parts_hold_each_plane_once_and_are_small_beside_a_share(counts: list[int], shares: int) -> None:
    parts = parts_of(counts, shares)
    assert [(slab, z) for slab, first, stop in parts for z in range(first, stop)] == [
        (slab, z) for slab, count in enumerate(counts) for z in range(count)
    ]
    assert all(stop - first <= max(1, sum(counts) / shares / PARTS) for _, first, stop in parts)


def test_shares_leave_no_worker_idle() -> None:
    assert [shares_for(workers, volumes) for workers, volumes in ((1, 1), (2, 1), (3, 2), (2, 300), (4, 0))] == [
        1, 2, 2, 1, 4]  # fmt: skip


@pytest.mark.parametrize("fill", ["linear", "nearest"])
def test_labels_layers_and_counts_are_those_of_slabs_alone(
    two: Client, store: Path, tmp_path: Path, submitted: list[str], fill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models, the second only near the organ of the first; windows one by one and dense planes both occur."""
    first = _model(classes=("liver",), predict={"fill": fill})
    model = _model(first, input={"relative_to": "liver"},
                   predict={"region": "organ", "margin_mm": 5.0, "fill": fill, "stride": [1, 4, 4]})  # fmt: skip
    alone = Path(shutil.copytree(store, tmp_path / "alone"))
    with monkeypatch.context() as light:
        light.setattr(tail, "HEAVY", HEAVY)
        [wanted] = infer(alone, model, layers=["entropy"]).runs
    infer(store, first, client=two)
    [_, planned] = infer(store, model, client=two, plan=True).passes
    submitted.clear()
    [run] = infer(store, model, client=two, layers=["entropy"]).runs
    assert submitted.count("slab_or_part") >= 3 + 4
    assert (run.run, run.windows) == (wanted.run, wanted.windows)
    assert same_bytes(store) == same_bytes(alone)
    assert planned.tasks == len(submitted)
    assert planned.windows == run.windows


def test_a_slab_that_lies_there_is_not_scored_again(two: Client, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    [whole] = infer(store, model, client=two).runs
    bytes_before = same_bytes(store)
    group = next(store.glob("*.ome.zarr")) / "labels" / whole.run
    (group / "zarr.json").unlink()
    (group / "0" / "c" / "0" / "0" / "0").unlink()
    scored = []
    score = classifier_slab.score_centres
    monkeypatch.setattr(classifier_slab, "score_centres", lambda *args: scored.append(args[2]) or score(*args))
    [again] = infer(store, model, client=two).runs
    assert len(scored) == 1, "the first slab alone, no part of the last one"
    assert (again.resumed, same_bytes(store)) == (2, bytes_before)


def test_where_memory_runs_out_in_a_part_the_volume_begins_again_and_slabs_are_counted_once(
    two: Client, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, failed, told = _model(), [], []
    score = classifier_slab.score_centres

    def fails_once(*args):
        if len(args[2]) < 8 and not failed:  # a part
            failed.append(args[2])
            raise MemoryError
        return score(*args)

    monkeypatch.setattr(classifier_slab, "score_centres", fails_once)
    report = infer(store, model, client=two, progress=lambda _stage, done, total: told.append((done, total)))
    assert failed
    assert not report.failed
    assert told[-1] == (3, 3)
    assert max(done for done, _ in told) == 3
