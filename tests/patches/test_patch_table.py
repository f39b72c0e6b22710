"""PatchTable: rows equal a naive loop; verbs give the same answer however the work is cut and whoever does it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from volumes import CLASSES, MemorySeries, labelled

from ctpipe.config import Stratum
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.patches import patch_table, rows
from ctpipe.words import ZYX

STRATA = (Stratum(where="label == 'lesion'", share=0.5),
          Stratum(where="label == 'liver' and fraction_lesion > 0.3", share=0.25),
          Stratum(where="label == 'background'", share=0.25))


ALL = ("series", "patient", "z", "y", "x", "label", "fraction_background", "fraction_liver", "fraction_lesion")


@pytest.fixture
def store() -> dict[str, MemorySeries]:
    """Three series of two patients, several partitions each where PART_VOXELS is small."""
    made = [labelled((11, 9, 8), 1, id="a1", patient="p-1"), labelled((5, 8, 12), 2, id="b1", patient="p-2"),
            labelled((7, 10, 7), 3, id="a2", patient="p-1")]
    return {one.id: one for one in made}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PART_VOXELS", 1)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as one:
        yield one


def naive(series, window, stride, pad):
    """Rows by a loop over centres and np.pad."""
    truth = series.labels["truth"].voxels
    spans = [(w // 2, w - w // 2 - 1) for w in window]
    padded = np.pad(truth, spans, mode="edge") if pad == "edge" else np.pad(truth, spans)
    found = []
    for z in range(0, truth.shape[0], stride[0]):
        for y in range(0, truth.shape[1], stride[1]):
            for x in range(0, truth.shape[2], stride[2]):
                inside = padded[z:z + window[0], y:y + window[1], x:x + window[2]]
                assert inside.shape == tuple(window)
                shares = [np.float32(np.count_nonzero(inside == c) / inside.size) for c in range(3)]
                found.append((series.id, series.patient, z, y, x, truth[z, y, x], *shares))
    return found


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_row_equals_a_naive_loop(data):
    shape = tuple(data.draw(st.integers(1, 9)) for _ in range(3))
    window = tuple(data.draw(st.integers(1, 12)) for _ in range(3))
    stride = tuple(data.draw(st.integers(1, 5)) for _ in range(3))
    pad = data.draw(st.sampled_from(["edge", "constant"]))
    series = labelled(shape, data.draw(st.integers(0, 9)), data.draw(st.sampled_from([1, 2, 4])), id="a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PART_VOXELS", data.draw(st.sampled_from([1, 100])))
        table = patch_table({"a": series}, window, stride, pad)
        found = table.compute(ALL)
        assert len(table) == len(found)
    assert list(found.itertuples(index=False, name=None)) == naive(series, window, stride, pad)


def test_columns_have_the_types_of_the_contract_and_24_bytes_a_row_or_less(store):
    table = patch_table(store, (1, 5, 5), (1, 2, 2))
    frame = table.compute()
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {
        "series": "category", "patient": "category", "z": "int16", "y": "int16", "x": "int16", "label": "uint8",
        "fraction_liver": "float32", "fraction_lesion": "float32"}  # fmt: skip
    assert table.row_bytes == frame.memory_usage(index=False).drop(["series", "patient"]).sum() / len(frame) + 2
    assert table.row_bytes <= 24
    assert table.nbytes == len(frame) * table.row_bytes
    assert np.allclose(table.compute(ALL).filter(like="fraction_").sum(axis=1), 1)


@pytest.mark.usefixtures("small_parts")
def test_the_dask_frame_holds_the_same_rows_in_partitions_of_whole_slabs(store):
    table = patch_table(store, (1, 3, 3), (2, 3, 3), where="label > 0")
    parts = table.frame.partitions
    assert table.frame.npartitions == len(table.parts) == 3 + 2 + 2  # slabs of 4 planes, of 11, 7 and 5 planes
    for part, piece in zip(table.parts, parts, strict=True):
        got = piece.compute(scheduler="synchronous")
        assert set(got["series"]) <= {part.source.id}
        assert got["z"].between(part.start, part.stop - 1).all()
    whole = table.frame.compute(scheduler="synchronous").reset_index(drop=True)
    pd.testing.assert_frame_equal(whole, table.compute())


@pytest.mark.usefixtures("small_parts")
def test_slabs_without_a_lattice_plane_make_no_partition():
    table = patch_table({"a": labelled((12, 4, 4), slab_planes=2, id="a")}, (1, 3, 3), (6, 2, 2))
    assert [(part.start, part.stop) for part in table.parts] == [(0, 2), (6, 8)]


def test_a_client_gives_the_same_rows_as_no_client(store, client):
    alone, shared = (patch_table(store, (3, 5, 5), (2, 2, 2), where="label == 'liver'", client=who)
                     for who in (None, client))
    pd.testing.assert_frame_equal(alone.compute(), shared.compute())
    pd.testing.assert_frame_equal(alone.sample(30, 5, STRATA), shared.sample(30, 5, STRATA))
    assert len(alone) == len(shared) == len(alone.compute())
    pd.testing.assert_frame_equal(shared.frame.compute().reset_index(drop=True), alone.compute())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**40), n=st.integers(1, 80), size=st.sampled_from([1, 150, 10**9]))
def test_a_sample_depends_on_the_seed_and_the_rows_alone(seed, n, size):
    made = {one.id: one for one in (labelled((11, 9, 8), 1, id="a1"), labelled((5, 8, 12), 2, id="b1"))}
    whole = patch_table(made, (1, 5, 5), (1, 2, 2)).sample(n, seed, STRATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "PART_VOXELS", size)
        cut = patch_table(dict(reversed(made.items())), (1, 5, 5), (1, 2, 2)).sample(n, seed, STRATA)
    pd.testing.assert_frame_equal(whole, cut)
    assert len(whole) == n


def test_another_seed_gives_other_rows(store):
    table = patch_table(store, (1, 5, 5), (1, 1, 1))
    first, second = (table.sample(50, seed)[["series", "z", "y", "x"]].astype(str) for seed in (0, 1))
    assert not first.equals(second)
    assert len(first.merge(second)) < 25


def test_strata_take_their_shares_and_their_rows_fit(store):
    found = patch_table(store, (1, 5, 5), (1, 1, 1)).sample(40, 0, STRATA)
    assert found["stratum"].value_counts().to_dict() == {0: 20, 1: 10, 2: 10}
    assert (found.loc[found["stratum"] == 0, "label"] == 2).all()
    mixed = found[found["stratum"] == 1]
    assert ((mixed["label"] == 1) & (mixed["fraction_lesion"] > 0.3)).all()
    assert not found[found["stratum"] == 0].duplicated(["series", "z", "y", "x"]).any()


def test_by_label_gives_each_class_that_occurs_equally(store):
    table = patch_table(store, (1, 3, 3), where="label != 'liver'")
    assert table.sample(20, 3)["label"].value_counts().to_dict() == {0: 10, 2: 10}


def test_a_stratum_with_few_rows_gives_all_of_them_before_any_twice(store):
    lone = Stratum(where="series == 'b1' and z == 0 and y == 0", share=1.0)
    table = patch_table(store, (1, 3, 3), (1, 4, 4))
    found = table.sample(8, 0, [lone])
    assert found.groupby(["x"]).size().tolist() == [3, 3, 2] or sorted(found.groupby(["x"]).size()) == [2, 3, 3]


def test_an_empty_stratum_leaves_its_share_and_nothing_at_all_is_an_error(store):
    table = patch_table(store, (1, 3, 3))
    never = Stratum(where="z > 1000", share=0.9)
    assert (table.sample(10, 0, [never, STRATA[0]])["stratum"] == 1).all()
    with pytest.raises(NotThereError, match="no row"):
        table.sample(10, 0, [never])
    with pytest.raises(UsageError, match="shares"):
        table.sample(10, 0, [Stratum(where="z > 1", share=0.0)])


def test_count_tells_the_rows_of_each_group(store):
    table = patch_table(store, (1, 3, 3), (1, 2, 2))
    rows_by_loop = table.compute().groupby(["patient", "label"], observed=True).size()
    assert table.count(["patient", "label"]).to_dict() == rows_by_loop.to_dict()
    with pytest.raises(NotThereError, match="column 'organ'"):
        table.count("organ")


# ------------------------------------------------------------------------------------------------------- split
def test_a_split_never_has_a_patient_in_two_tables(store):
    parts = patch_table(store, (1, 3, 3)).split(validate=["p-2"])
    assert {name: table.series for name, table in parts.items()} == {"train": ["a1", "a2"], "validate": ["b1"]}
    assert set(parts["train"].compute()["patient"]) == {"p-1"}
    assert set(parts["validate"].compute()["patient"]) == {"p-2"}


def test_splits_that_cannot_be_are_refused(store):
    table = patch_table(store, (1, 3, 3))
    with pytest.raises(NotThereError, match="no patient p-9"):
        table.split(validate=["p-9"])
    with pytest.raises(UsageError, match="p-2 is named for validate and test"):
        table.split(validate=["p-2"], test=["p-2"])
    with pytest.raises(UsageError, match="train"):
        table.split(validate=["p-1"], test=["p-2"])


def test_the_same_voxels_under_two_patients_never_land_in_two_tables(store):
    store["b1"].content = store["a1"].content
    with pytest.raises(RunError, match="content"):
        patch_table(store, (1, 3, 3)).split(validate=["p-2"])


# ------------------------------------------------------------------------------------------- classes and levels
def test_merged_classes_count_as_one_and_unnamed_ones_as_background(store):
    merged = patch_table(store, (1, 5, 5), (1, 2, 2), classes={"organ": ("liver", "lesion")}).compute()
    plain = patch_table(store, (1, 5, 5), (1, 2, 2)).compute()
    assert np.allclose(merged["fraction_organ"], plain["fraction_liver"] + plain["fraction_lesion"])
    assert merged["label"].tolist() == (plain["label"] > 0).astype(int).tolist()
    only = patch_table(store, (1, 5, 5), (1, 2, 2), classes=["lesion"]).compute(
        ["label", "fraction_lesion", "fraction_background"])
    assert only["label"].tolist() == (plain["label"] == 2).astype(int).tolist()
    assert np.allclose(only["fraction_background"], 1 - plain["fraction_lesion"])


def test_label_planes_are_in_the_integers_of_the_table(store):
    table = patch_table(store, (1, 5, 5), classes=["lesion", "liver"])
    assert np.array_equal(table.label_planes("b1", 1, 4), np.array([0, 2, 1])[store["b1"].labels["truth"].voxels[1:4]])


def test_volumes_whose_integers_disagree_need_the_classes_by_name(store):
    store["b1"].labels["truth"].classes = {2: "liver", 1: "lesion"}
    with pytest.raises(UsageError, match="disagree"):
        patch_table(store, (1, 3, 3))
    table = patch_table(store, (1, 3, 3), classes=["liver", "lesion"])
    assert table.classes == CLASSES
    assert np.array_equal(table.label_planes("b1", 0, 5), np.array([0, 2, 1])[store["b1"].labels["truth"].voxels])


def test_a_coarse_level_has_windows_on_its_own_grid():
    series = labelled((9, 140, 132), slab_planes=4, id="a", spacing=(1.0, 1.0, 1.0))
    table = patch_table({"a": series}, (1, 9, 9), (2, 30, 30), level=1)
    found = table.compute()
    coarse = series.labels["truth"].read_planes(0, 5, 1)
    assert coarse.shape == (5, 70, 66)
    at = found[["z", "y", "x"]].to_numpy()
    assert at.max(axis=0).tolist() == [4, 60, 60]
    assert found["label"].tolist() == coarse[tuple(at.T)].tolist()


# ----------------------------------------------------------------------------------------------- what lacks
def test_what_the_table_lacks_is_named_with_what_exists(store):
    with pytest.raises(NotThereError, match=r"class spleen.*lesion, liver"):
        patch_table(store, (1, 3, 3), classes=["liver", "spleen"])
    with pytest.raises(NotThereError, match=r"column 'fraction_spleen'.*fraction_liver"):
        patch_table(store, (1, 3, 3), where="fraction_spleen > 0")
    with pytest.raises(NotThereError, match="no labels 'review-1'"):
        patch_table(store, (1, 3, 3), labels="review-1", series=["a1"])
    with pytest.raises(NotThereError, match="no series"):
        patch_table(store, (1, 3, 3), labels="review-1")
    with pytest.raises(NotThereError, match="level 7"):
        patch_table(store, (1, 3, 3), level=7)
    with pytest.raises(NotThereError, match="no class 'spleen'"):
        patch_table(store, (1, 3, 3)).sample(3, 0, [Stratum(where="label == 'spleen'", share=1.0)])
    with pytest.raises(NotThereError, match="no series 'c'"):
        patch_table(store, (1, 3, 3)).of_series(["c"])


@pytest.mark.parametrize("wrong", [{"window": (1, 0, 3)}, {"stride": (1, 1)}, {"stride": (1, 1.5, 1)},
                                   {"pad": "mirror"}])
def test_a_window_that_cannot_be_is_refused(store, wrong):
    with pytest.raises(UsageError):
        patch_table(store, **{"window": (1, 3, 3), "stride": (1, 1, 1)} | wrong)


def test_labels_on_another_grid_are_refused_with_both_names(store):
    store["b1"].labels["truth"].grid = store["a1"].grid
    with pytest.raises(RunError, match=store["a1"].grid.grid_id):
        patch_table(store, (1, 3, 3))


def test_the_original_table_of_257_windows_at_stride_7_is_an_index_of_thousandths_of_its_pixels():
    series = labelled((2, 128, 128), id="a")
    table = patch_table({"a": series}, pad="constant")
    assert table.windows.window == ZYX(1, 257, 257)
    assert len(table) == 2 * 19 * 19
    assert table.pixel_bytes > 5000 * table.nbytes
    first = table.compute(["fraction_background"]).iloc[0]
    assert first["fraction_background"] > 0.7  # three quarters of a corner's window are padding
