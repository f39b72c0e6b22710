"""review --live: the slabs of a run under way appear one by one, and become the committed labels."""

from __future__ import annotations

import time
from contextlib import contextmanager

import numpy as np
import pytest
from review_store import CLASSES, ORIGIN, SERIES, SPACING, grid_of, phantom
from test_viewer import shot, where_coloured

from ctpipe.cli import main
from ctpipe.errors import NotThereError, UsageError
from ctpipe.review.live import LiveRuns
from ctpipe.store import LabelsMeta, open_store
from ctpipe.words import LabelKind

KEY = "feed000000000001"


@contextmanager
def run_under_way(store_path, key=KEY):
    """(write slab n, commit) of a run: the phantom's labels, slab by slab."""
    store = open_store(store_path, mode="a")
    meta = LabelsMeta(key, LabelKind.PREDICTION, grid_of(), CLASSES, "uint8", {"model": "none"})
    writer = store.labels_writer(SERIES, meta)
    labels = phantom()[1]
    records = []

    def write(number: int) -> None:
        slab = writer.slabs[number]
        records.append(writer.write_slab(slab, labels[slab.start : slab.stop]))

    with store.lease(writer.target) as lease:
        writer.prepare()
        yield write, lambda: writer.commit(records, lease)


@pytest.fixture
def model():
    napari = pytest.importorskip("napari")
    return napari.components.ViewerModel()


def test_slabs_appear_as_they_are_done_and_become_the_committed_labels(store_path, model):
    labels = phantom()[1]
    with run_under_way(store_path) as (write, commit):
        live = LiveRuns(model, store_path, SERIES[:4])
        assert live.refresh() == "no run is under way"
        assert [layer.name for layer in model.layers] == [f"CT {SERIES[:8]}"]

        write(1)
        assert live.refresh() == "run feed0000: 1 of 2 slabs"
        layer = model.layers[1]
        assert not layer.editable
        assert np.array_equal(np.asarray(layer.data[32:]), labels[32:])
        assert not np.asarray(layer.data[:32]).any()
        assert layer.get_value(world(20, 90, 70), world=True) == 0

        kept = layer.data
        live.refresh()
        assert layer.data is kept  # nothing came: nothing is read again
        write(0)
        assert live.refresh() == "run feed0000: 2 of 2 slabs"
        assert np.array_equal(np.asarray(layer.data), labels)
        assert layer.get_value(world(20, 90, 70), world=True) == 1
        assert np.allclose(layer.scale, SPACING)

        assert not open_store(store_path)[SERIES].labels.get(KEY)
        commit()
    assert live.refresh() == "no run is under way"
    assert [one.name for one in model.layers] == [f"CT {SERIES[:8]}", "prediction feed0000"]
    assert model.layers[1].multiscale
    assert np.array_equal(np.asarray(model.layers[1].data[0]), labels)


def world(z, y, x) -> tuple[float, float, float]:
    """Where a voxel lies along the layer's axes, in mm."""
    return ORIGIN[2] + z * SPACING[0], ORIGIN[1] + y * SPACING[1], ORIGIN[0] + x * SPACING[2]


def test_a_run_that_is_given_up_goes_and_a_layer_that_was_taken_away_is_no_harm(store_path, model):
    with run_under_way(store_path) as (write, _):
        write(0)
        live = LiveRuns(model, store_path)
        assert [layer.name for layer in model.layers][1:] == ["run feed0000: 1 of 2 slabs"]
        with run_under_way(store_path, "beef000000000002") as (write_other, _):
            write_other(1)
            assert live.refresh() == "run feed0000: 1 of 2 slabs, run beef0000: 1 of 2 slabs"
        del model.layers[1]
        for key in (KEY, "beef000000000002"):
            store = open_store(store_path, mode="a")
            store.labels_writer(SERIES, LabelsMeta(key, LabelKind.PREDICTION, grid_of(), CLASSES, "uint8",
                                                   {})).discard()  # fmt: skip
        assert live.refresh() == "no run is under way"
        assert len(model.layers) == 1


def test_nothing_of_it_is_listed_or_written(store_path, model, capsys):
    before = {path: path.read_bytes() for path in store_path.rglob("*") if path.is_file()}
    with run_under_way(store_path) as (write, _):
        write(0)
        LiveRuns(model, store_path)
        assert main(["ls", str(store_path), "--json"]) == 0
        assert KEY not in capsys.readouterr().out
    after = {path: path.read_bytes() for path in store_path.rglob("*") if path.is_file() and KEY not in str(path)}
    assert {path: data for path, data in after.items() if path.suffix != ".lock"} == before


def test_what_is_not_there_is_told(store_path, model, capsys):
    with pytest.raises(NotThereError):
        LiveRuns(model, store_path, "abc")
    LiveRuns(model, store_path)  # one volume, no run yet: it waits
    assert main(["review", str(store_path), "--live", "--labels", "4be1"]) == 2
    assert "leave --labels out" in capsys.readouterr().err
    from review_store import write_volume

    write_volume(open_store(store_path, mode="a"), "aa" * 8)
    with pytest.raises(UsageError, match="0 volumes have a run under way; cure: name one"):
        LiveRuns(model, store_path)


@pytest.mark.display
def test_the_window_shows_a_slab_soon_after_it_was_written(store_path, close_viewers, monkeypatch, tmp_path):
    from ctpipe.review import live, open_live

    monkeypatch.setattr(live, "REFRESH_S", 0.1)
    with run_under_way(store_path) as (write, commit):
        viewer = open_live(store_path, SERIES)
        close_viewers.append(viewer)
        viewer.dims.set_point(0, world(18, 0, 0)[0])
        assert not where_coloured(shot(viewer), 1).any()
        write(0)
        seen = until_seen(viewer)
        assert where_coloured(seen, 2).any()
        viewer.screenshot(path=str(tmp_path / "live.png"), canvas_only=False, flash=False)
        write(1)
        commit()
    until(lambda: viewer.layers[-1].name == "prediction feed0000", viewer)
    assert np.abs(where_coloured(shot(viewer), 1).mean() - where_coloured(seen, 1).mean()) < 0.01


def until_seen(viewer) -> np.ndarray:
    until(lambda: where_coloured(shot(viewer), 1).any(), viewer)
    return shot(viewer)


def until(what, viewer, seconds: float = 20.0) -> None:
    stop = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < stop, viewer.layers
        shot(viewer)
