"""What goes into the store comes out of it: voxels, geometry, tables, names."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_made import (
    ID,
    fill,
    grid,
    hu,
    labels,
    labels_meta,
    planes,
    put,
    same_bytes,
    store_of,
    volume_meta,
    voxels_of,
)

from ctpipe.errors import NotThereError, RunError, StoreFaultError, UsageError
from ctpipe.store import SlabRecord, VolumeMeta, open_store
from ctpipe.store.commit import canonical
from ctpipe.volume import Grid, Slab
from ctpipe.words import LabelKind

QUICK = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 150), st.integers(1, 140)),
    dtype=st.sampled_from(["int16", "float32"]),
    seed=st.integers(0, 99),
)
def test_every_voxel_of_any_shape_comes_back(tmp_path_factory, shape, dtype, seed) -> None:
    store = open_store(tmp_path_factory.mktemp("s"), mode="a")
    values = hu(shape, dtype, seed)
    put(store, store.volume_writer(volume_meta(grid(shape), dtype)), values)
    series = store[ID]
    assert series.dtype == dtype
    np.testing.assert_array_equal(voxels_of(series), values)
    np.testing.assert_array_equal(series.hu.values, values)
    start, stop = sorted((seed % shape[0], shape[0] // 2))
    np.testing.assert_array_equal(series.read_planes(start, stop), values[start:stop])


def test_the_affine_survives_to_the_last_bit(tmp_path) -> None:
    """V6: json writes floats so that they read back exactly; NGFF cannot say oblique, our attribute can."""
    store = store_of(tmp_path / "s", (20, 40, 40), with_labels=False, oblique=True, spacing=(1 / 3, 0.1, np.pi))
    wanted = grid((20, 40, 40), (1 / 3, 0.1, np.pi), oblique=True)
    assert store[ID].grid == wanted
    assert store[ID].grid.affine.tobytes() == wanted.affine.tobytes()


def test_hu_and_labels_are_lazy_arrays_in_millimetres(tmp_path) -> None:
    store = store_of(tmp_path / "s")
    series = open_store(tmp_path / "s")[ID]
    array = series.hu
    assert array.dims == ("z", "y", "x")
    assert array.chunks[0] == (32, 32, 6)
    assert array.attrs["units"] == "HU"
    assert array.attrs["grid_id"] == series.grid.grid_id
    np.testing.assert_array_equal(array.attrs["affine"], series.grid.affine)
    np.testing.assert_allclose(array.z.values, 11.3 + 2.5 * np.arange(70))
    np.testing.assert_allclose(array.x.values, -101.1 + 0.8 * np.arange(140))
    part = array[::7, 3, ::-2]
    np.testing.assert_array_equal(part.values, hu((70, 150, 140))[::7, 3, ::-2])
    truth = series.labels["truth"]
    assert (truth.kind, truth.classes, truth.name) == (LabelKind.TRUTH, {1: "liver", 2: "lesion"}, "truth-aa")
    assert "units" not in truth.array.attrs
    np.testing.assert_array_equal(truth.array.values, labels((70, 150, 140)))
    assert len(store) == 1


def test_what_is_known_of_a_series_comes_back(tmp_path) -> None:
    series = store_of(tmp_path / "s", (40, 20, 20), with_labels=False)[ID]
    assert (series.patient, series.study, series.series) == ("p-1", "u-1", "u-2")
    assert (series.voi, series.attributes, series.provenance) == ((40.0, 400.0), {"kvp": 120}, {"version": 1})
    assert series.planes.equals(planes(40))
    again = pickle.loads(pickle.dumps(series))
    np.testing.assert_array_equal(again.read_planes(3, 37), hu((40, 20, 20))[3:37])


def test_a_prefix_names_a_volume_or_a_run_if_it_names_one_only(tmp_path) -> None:
    store = store_of(tmp_path / "s", (5, 20, 20))
    other = VolumeMeta("5e71f0", grid((5, 20, 20)), "int16", "p", "u", "u")
    put(store, store.volume_writer(other), hu((5, 20, 20), seed=1))
    assert list(store) == [ID, "5e71f0"]
    assert store["5e71f"].id == "5e71f0"
    assert store[ID].labels["bee"].name == "beef01"
    assert "nothing" not in store
    assert "truth" in store[ID].labels
    assert store[ID].labels.get("review-1") is None
    with pytest.raises(UsageError, match="fits 2 volumes"):
        store["5e7"]
    with pytest.raises(NotThereError, match="no volume"):
        store["77"]
    with pytest.raises(NotThereError, match="no labels"):
        store[ID].labels["77"]


@pytest.mark.parametrize("order", [1, -1])
def test_the_same_input_gives_the_same_bytes_in_any_order(tmp_path, order) -> None:
    """DESIGN 2, same bytes: nothing of time, host, process or order of slabs enters a volume."""
    shape = (70, 300, 140)
    roots = []
    for name, way in (("a", 1), ("b", order)):
        store = open_store(tmp_path / name, mode="a")
        for make, voxels, table in (
            (lambda store=store: store.volume_writer(volume_meta(grid(shape))), hu(shape), planes(70)),
            (lambda store=store: store.labels_writer(ID, labels_meta(grid(shape))), labels(shape), None),
        ):
            writer = pickle.loads(pickle.dumps(make()))
            with store.lease(writer.target) as lease:
                writer.commit(fill(writer, voxels, way), lease, table)
        roots.append(store.root)
    first, second = (same_bytes(root) for root in roots)
    assert len(first) == 2 * 3 * 4 + 4  # three levels of three shards and a zarr.json; groups, index of labels, planes
    assert first == second


def test_a_slab_of_air_and_a_slab_of_background_have_their_shards(tmp_path) -> None:
    """S4: only then can a missing shard be told from air."""
    shape = (64, 150, 140)
    store = open_store(tmp_path / "s", mode="a")
    air = np.full(shape, -1024, np.int16)
    put(store, store.volume_writer(volume_meta(grid(shape))), air)
    put(store, store.labels_writer(ID, labels_meta(grid(shape))), np.zeros(shape, np.uint8))
    shards = [path for path in store.root.rglob("c/*/0/0")]
    assert len(shards) == 2 * 2 * 2
    np.testing.assert_array_equal(voxels_of(store[ID]), air)
    assert not voxels_of(store[ID].labels["beef01"]).any()


def test_records_are_plain_and_travel(tmp_path) -> None:
    store = open_store(tmp_path / "s", mode="a")
    shape = (40, 20, 20)
    writer = pickle.loads(pickle.dumps(store.volume_writer(volume_meta(grid(shape)))))
    records = fill(writer, hu(shape))
    assert SlabRecord.from_json(json.loads(json.dumps(records[1].as_json()))) == records[1]
    assert pickle.loads(pickle.dumps(records)) == records
    assert writer.content(records) == writer.content(records[::-1])
    assert [writer.done(slab) for slab in writer.slabs] == records


def test_the_same_voxels_under_another_id_are_found(tmp_path) -> None:
    store = store_of(tmp_path / "s", (40, 20, 20), with_labels=False)
    of = grid((40, 20, 20))
    renamed = Grid(of.shape, of.rows, "u-ffffffffffffffff")
    writer = store.volume_writer(volume_meta(renamed, series_id="0123"))
    content = writer.content(fill(writer, hu((40, 20, 20))))
    assert store.find_content(content, renamed) == ID
    moved = grid((40, 20, 20), (2.5, 0.7, 0.9))
    assert store.find_content(content, moved) is None
    writer.discard()
    assert list(store) == [ID]
    assert not writer.path.exists()


def test_only_what_fits_is_written(tmp_path) -> None:
    store = open_store(tmp_path / "s", mode="a")
    shape = (40, 20, 20)
    writer = store.volume_writer(volume_meta(grid(shape), "float32"))
    writer.prepare()
    values = hu(shape, "float32")
    with pytest.raises(UsageError, match="takes"):
        writer.write_slab(writer.slabs[0], values)
    with pytest.raises(UsageError, match="takes"):
        writer.write_slab(writer.slabs[0], hu(shape)[:32])
    with pytest.raises(UsageError, match="no slab"):
        writer.write_slab(Slab(0, 1, 33), values[1:33])
    values[3, 3, 3] = np.nan
    with pytest.raises(RunError, match="NaN"):
        writer.write_slab(writer.slabs[0], values[:32])


def test_labels_lie_on_the_grid_of_their_volume_and_have_names(tmp_path) -> None:
    store = store_of(tmp_path / "s", (40, 20, 20), with_labels=False)
    with pytest.raises(UsageError, match=r"on grid .* do not fit volume .* on grid"):
        store.labels_writer(ID, labels_meta(grid((40, 20, 21))))
    with pytest.raises(NotThereError):
        store.labels_writer("77", labels_meta(grid((40, 20, 20))))
    writer = store.labels_writer(ID, labels_meta(grid((40, 20, 20))))
    writer.prepare()
    with pytest.raises(RunError, match=r"labels \[3\]"):
        writer.write_slab(writer.slabs[1], np.full((8, 20, 20), 3, np.uint8))


@pytest.mark.parametrize("name", ["truth", "index", "../x", "a/b", "", ".hidden", "x.partial", "zarr.json"])
def test_no_name_leaves_its_folder_or_means_two_things(name) -> None:
    with pytest.raises(UsageError):
        labels_meta(grid((4, 4, 4)), name)


def test_a_committed_group_is_never_written_again(tmp_path) -> None:
    """K5: a late task can only confirm what is there."""
    shape = (40, 20, 20)
    store = store_of(tmp_path / "s", shape, with_labels=False)
    before = same_bytes(store.root)
    stamps = {path: path.stat().st_mtime_ns for path in store.root.rglob("c/*/0/0")}
    writer = store.volume_writer(volume_meta(grid(shape)))
    assert writer.committed
    writer.prepare()
    slab = writer.slabs[0]
    assert writer.write_slab(slab, hu(shape)[:32]) == writer.done(slab)
    with pytest.raises(StoreFaultError, match="has other voxels"):
        writer.write_slab(slab, hu(shape, seed=1)[:32])
    assert same_bytes(store.root) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_nothing_is_listed_before_its_commit(tmp_path) -> None:
    """S1."""
    shape = (40, 20, 20)
    store = open_store(tmp_path / "s", mode="a")
    writer = store.volume_writer(volume_meta(grid(shape)))
    records = fill(writer, hu(shape))
    assert list(store) == []
    assert ID not in store
    assert not list(store.root.glob("*.ome.zarr/zarr.json"))
    assert not (store.root / "zarr.json").exists()
    with store.lease(writer.target) as lease:
        with pytest.raises(RunError, match="1 slabs"):
            writer.commit(records[:1], lease)
        with pytest.raises(RunError, match="2 are wanted"):
            writer.commit([records[0], records[0]], lease)
        assert list(store) == []
        writer.commit(records, lease)
    assert list(store) == [ID]
    target = store.labels_writer(ID, labels_meta(grid(shape)))
    target.prepare()
    assert store[ID].in_progress == {}
    target.write_slab(target.slabs[1], labels(shape)[32:])
    array, done = store[ID].in_progress["beef01"]
    assert done == 1
    assert not array[:32].values.any()
    np.testing.assert_array_equal(array[32:].values, labels(shape)[32:])
    assert list(store[ID].labels) == []
    put(store, target, labels(shape))
    assert store[ID].in_progress == {}
    assert list(store[ID].labels) == ["beef01"]


def test_a_commit_wants_the_lease_of_its_own_target(tmp_path) -> None:
    shape = (4, 20, 20)
    store = open_store(tmp_path / "s", mode="a")
    writer = store.volume_writer(volume_meta(grid(shape)))
    records = fill(writer, hu(shape))
    with store.lease("other.ome.zarr") as lease, pytest.raises(UsageError, match="does not cover"):
        writer.commit(records, lease)


def test_resuming_does_only_what_lacks(tmp_path) -> None:
    """S10: a shard that is gone, cut or changed is made again; the others are not touched; the bytes are the same."""
    shape = (100, 150, 140)
    straight = store_of(tmp_path / "straight", shape, with_labels=False)
    store = open_store(tmp_path / "s", mode="a")
    writer = store.volume_writer(volume_meta(grid(shape)))
    fill(writer, hu(shape))
    (writer.path / "0/c/0/0/0").unlink()
    cut = writer.path / "1/c/1/0/0"
    cut.write_bytes(cut.read_bytes()[:-7])
    flipped = writer.path / "0/c/2/0/0"
    data = bytearray(flipped.read_bytes())
    data[1000] ^= 4
    flipped.write_bytes(data)
    (writer.path / "0/c/3/0/0.abc.partial").write_bytes(b"torn")
    assert [writer.done(slab) is not None for slab in writer.slabs] == [False, False, False, True]
    put(store, writer, hu(shape), planes(100))
    (writer.path / "0/c/3/0/0.abc.partial").unlink()
    assert same_bytes(store.root) == same_bytes(straight.root)


def test_arrays_made_under_other_settings_are_dropped_not_mixed(tmp_path) -> None:
    store = open_store(tmp_path / "s", mode="a")
    old = store.volume_writer(volume_meta(grid((70, 20, 20)), "float32"))
    fill(old, hu((70, 20, 20), "float32"))
    writer = store.volume_writer(volume_meta(grid((40, 20, 20))))
    assert writer.done(writer.slabs[0]) is None
    put(store, writer, hu((40, 20, 20)))
    document = writer.path / "0/zarr.json"
    whole = document.read_bytes()
    document.write_bytes(whole.replace(b"-1024", b"-1000"))  # decodes all the same, and is not what we make
    assert writer.done(writer.slabs[0]) is None
    document.write_bytes(whole)
    assert not (writer.path / "0/c/2").exists()
    np.testing.assert_array_equal(voxels_of(store[ID]), hu((40, 20, 20)))


def test_the_newest_truth_is_the_truth(tmp_path) -> None:
    shape = (4, 20, 20)
    store = store_of(tmp_path / "s", shape)
    of = grid(shape)
    put(store, store.labels_writer(ID, labels_meta(of, "truth-00", LabelKind.TRUTH)), np.zeros(shape, np.uint8))
    assert store[ID].labels["truth"].name == "truth-00"
    assert list(store[ID].labels) == ["beef01", "truth-00", "truth-aa"]
    index = json.loads((store[ID].path / "labels/zarr.json").read_bytes())
    assert index["attributes"]["ome"]["labels"] == ["beef01", "truth-00", "truth-aa"]


def test_run_records_are_kept_by_key(tmp_path) -> None:
    store = open_store(tmp_path / "s", mode="a")
    store.write_run("beef01", {"seconds": 1.5})
    store.write_run("beef01", {"seconds": 2.5})
    assert store.run("beef") == {"seconds": 2.5}
    assert open_store(tmp_path / "s").runs() == {"beef01": {"seconds": 2.5}}
    with pytest.raises(NotThereError):
        store.run("77")


def test_what_is_no_store_is_named_so(tmp_path, monkeypatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for path, mode in (
        (tmp_path / "full", "a"),
        (tmp_path / "full", "r"),
        (tmp_path / "none", "r"),
        (tmp_path / "file", "a"),
    ):
        with pytest.raises(NotThereError, match="is not a store"):
            open_store(path, mode)
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="URL"):
        open_store("s3://bucket/store")
    (tmp_path / "empty").mkdir()
    open_store(tmp_path / "empty", mode="a")
    reader = open_store(tmp_path / "empty")
    with pytest.raises(UsageError, match="open for reading"):
        reader.volume_writer(volume_meta(grid((4, 4, 4))))
    monkeypatch.setenv("CTPIPE_KEY", str(tmp_path / "other-key"))
    from ctpipe.dicom import load_pseudonyms

    load_pseudonyms(create=True)
    assert list(open_store(tmp_path / "empty")) == []
    with pytest.raises(UsageError, match="pseudonym key"):
        open_store(tmp_path / "empty", mode="a")


def test_canonical_json_does_not_depend_on_order_and_takes_no_nan() -> None:
    assert canonical({"b": [1.0, "é"], "a": None}) == canonical({"a": None, "b": [1.0, "é"]})
    with pytest.raises(ValueError):
        canonical({"a": float("nan")})


def test_the_index_of_labels_is_mended_by_the_next_writer(tmp_path) -> None:
    """A writer killed between the commit of its labels and the index."""
    store = store_of(tmp_path / "s", (4, 20, 20))
    index = store[ID].path / "labels/zarr.json"
    whole = index.read_bytes()
    index.unlink()
    assert list(open_store(tmp_path / "s")[ID].labels) == ["beef01", "truth-aa"]
    open_store(tmp_path / "s", mode="a")
    assert index.read_bytes() == whole


def test_bytes_do_not_depend_on_the_pipeline_that_a_user_chose_for_zarr(tmp_path) -> None:
    """FACTS 5: zarrs orders the chunks of a shard differently from run to run."""
    import zarr

    store_of(tmp_path / "a", (40, 20, 300), with_labels=False)
    with zarr.config.set({"codec_pipeline.path": "no.such.Pipeline"}):
        store = store_of(tmp_path / "b", (40, 20, 300), with_labels=False)
        np.testing.assert_array_equal(voxels_of(store[ID]), hu((40, 20, 300)))
        np.testing.assert_array_equal(voxels_of(store[ID]), hu((40, 20, 300)))
    assert same_bytes(tmp_path / "a") == same_bytes(tmp_path / "b")
