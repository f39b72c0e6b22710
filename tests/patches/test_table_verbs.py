"""Verbs of a table: joins, SQL, samples, splits, scores, condensing; each against pandas on the whole table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from volumes import MemoryLabels, MemorySeries, labelled

from ctpipe.errors import BudgetError, NotThereError, RunError, UsageError
from ctpipe.patches import PatchTable, patch_table, rows, sql
from ctpipe.patches.planning import check, plan


@pytest.fixture
def store() -> dict[str, MemorySeries]:
    made = [labelled((11, 9, 8), 1, id="a1", patient="p-1"), labelled((5, 8, 12), 2, id="b1", patient="p-2"),
            labelled((7, 10, 7), 3, id="a2", patient="p-1"), labelled((4, 9, 9), 4, id="c1", patient="p-3")]
    return {one.id: one for one in made}


@pytest.fixture
def table(store, monkeypatch) -> PatchTable:
    monkeypatch.setattr(rows, "PART_VOXELS", 1)
    return patch_table(store, (1, 5, 5), (2, 2, 2))


def test_computed_columns_are_held_in_small_types_and_can_be_used_at_once(table):
    made = table.assign(mix="fraction_liver * fraction_lesion", far="y * 100000", edge="y == 0 or x == 0")
    frame = made.where("mix > 0.05 and not edge").compute()
    plain = table.compute()
    mix = (plain["fraction_liver"] * plain["fraction_lesion"]).astype(np.float32)
    keep = (mix > 0.05) & (plain["y"] > 0) & (plain["x"] > 0)
    assert frame["mix"].tolist() == mix[keep].tolist()
    assert frame["far"].tolist() == (plain["y"][keep].astype(int) * 100000).tolist()
    assert {name: str(frame[name].dtype) for name in ("mix", "far", "edge")} == {
        "mix": "float32", "far": "int32", "edge": "bool"}
    assert list(made.columns) == list(made.frame.columns) == list(frame.columns)
    with pytest.raises(UsageError, match="column 'mix' already"):
        made.assign(mix="1")


def test_selected_and_renamed_columns(table):
    made = table.select(["label", "l_mm"]).rename(l_mm="left")
    assert made.columns == ["series", "z", "y", "x", "label", "left"]
    assert made.compute()["left"].tolist() == table.compute(["l_mm"])["l_mm"].tolist()
    with pytest.raises(UsageError, match="cannot be renamed"):
        table.rename(series="case")
    with pytest.raises(NotThereError, match="'nothing'"):
        table.select(["nothing"])


@pytest.mark.parametrize("how", ["frame", "csv", "parquet"])
def test_the_users_columns_join_by_any_key_and_no_row_is_lost_or_doubled(table, tmp_path, how):
    own = pd.DataFrame({"patient": ["p-1", "p-2", "p-9"], "age": [61, 43, 20], "arm": ["x", "y", "x"]})
    other: object = own
    if how == "csv":
        own.to_csv(tmp_path / "own.csv", index=False)
        other = tmp_path / "own.csv"
    elif how == "parquet":
        own.to_parquet(tmp_path / "own.parquet")
        other = str(tmp_path / "own.parquet")
    joined = table.join(other, on="patient").compute()
    plain = table.compute()
    assert len(joined) == len(plain)
    wanted = plain["patient"].astype(str).map(dict(zip(own["patient"], own["age"], strict=True)))
    np.testing.assert_array_equal(joined["age"].to_numpy(), wanted.to_numpy(np.float32))
    assert str(joined["age"].dtype) == "float32"
    assert joined["arm"].astype(object).where(joined["arm"].notna(), None).tolist() == [
        {"p-1": "x", "p-2": "y"}.get(one) for one in plain["patient"]]
    assert set(table.join(other, on="patient").where("age > 50").compute()["patient"]) == {"p-1"}


def test_scores_join_back_row_by_row(table):
    plain = table.compute()
    scores = plain[["series", "z", "y", "x"]].sample(frac=0.6, random_state=1)
    scores["score"] = np.arange(len(scores)) / 7
    found = table.join(scores, on=["series", "z", "y", "x"]).compute()
    wanted = plain.merge(scores.astype({"series": str}), how="left", on=["series", "z", "y", "x"])
    np.testing.assert_allclose(found["score"], wanted["score"])
    assert list(found.columns) == [*plain.columns, "score"]


def test_joins_that_would_double_rows_or_lack_a_key_are_refused(table):
    with pytest.raises(UsageError, match="not unique"):
        table.join(pd.DataFrame({"patient": ["p-1", "p-1"], "age": [1, 2]}), on="patient")
    with pytest.raises(NotThereError, match="no column patient"):
        table.join(pd.DataFrame({"who": ["p-1"]}), on="patient")
    with pytest.raises(NotThereError, match="no column 'who'"):
        table.join(pd.DataFrame({"who": ["p-1"]}), on="who")
    with pytest.raises(NotThereError, match="no file"):
        table.join("nowhere.csv", on="patient")


# ---------------------------------------------------------------------------------------------------------- SQL
def test_sql_groups_the_rows_as_pandas_does(table):
    found = table.sql("SELECT patient, label, count(*) AS n, avg(fraction_lesion) AS mean FROM rows "
                      "WHERE s_mm > 3 AND in_organ GROUP BY ALL ORDER BY ALL")
    plain = table.compute(["patient", "label", "fraction_lesion", "s_mm", "in_organ"]).astype({"patient": str})
    wanted = plain[(plain["s_mm"] > 3) & plain["in_organ"]].groupby(["patient", "label"])["fraction_lesion"].agg(
        ["size", "mean"]).reset_index()
    assert found["n"].tolist() == wanted["size"].tolist()
    np.testing.assert_allclose(found["mean"], wanted["mean"], rtol=1e-6)
    assert found["patient"].tolist() == wanted["patient"].tolist()


def test_sql_may_name_the_rows_several_times_and_its_rows_can_be_fetched(table, store):
    found = table.sql("SELECT a.* FROM rows a JOIN (SELECT series, max(fraction_lesion) AS top FROM rows "
                      "GROUP BY series) b ON a.series = b.series AND a.fraction_lesion = b.top")
    assert set(found["series"]) == set(store)
    assert table.fetch(found).shape == (len(found), 1, 5, 5)
    assert table.where("label == 'liver'").sql("SELECT DISTINCT label FROM rows")["label"].tolist() == [1]


@pytest.mark.parametrize("query", [
    "DELETE FROM rows", "SELECT 1", "SELECT * FROM read_csv('/etc/passwd')", "SELECT nothing FROM rows", "SELEC",
    "SELECT 1 FROM rows; SELECT 2 FROM rows", "SELECT * FROM rows, '/etc/passwd'", "COPY rows TO 'x.csv'",
    "SET threads = 4", "SELECT read_text('/etc/passwd') FROM rows",
])  # fmt: skip
def test_sql_reads_rows_and_nothing_else(table, query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        table.sql(query)
    assert not list(tmp_path.iterdir())


def test_an_answer_too_large_for_the_client_is_refused(table, monkeypatch):
    monkeypatch.setattr(sql, "ANSWER_BYTES", 100)
    with pytest.raises(BudgetError, match="MiB"):
        table.sql("SELECT * FROM rows")


# ------------------------------------------------------------------------------------------- samples and splits
def test_a_sample_by_columns_is_balanced_or_in_proportion(table):
    keys = ["patient", "label"]
    sizes = table.count(keys)
    even = table.sample(9 * len(sizes), 3, by=keys)
    assert set(even.astype({"patient": str}).groupby(keys).size()) == {9}
    some = table.sample(100, 3, by=keys, proportional=True)
    wanted = sizes / sizes.sum() * 100
    found = some.groupby(keys, observed=True).size().reindex(wanted.index, fill_value=0)
    assert (abs(found - wanted) <= 1).all()


def test_weights_draw_rows_more_often_and_zero_never(table):
    heavy = table.assign(weight="(label == 2) * 9 + (label == 1) * 1")
    some = heavy.sample(60, 5, by=["series"], proportional=True, weight="weight")
    assert (some["label"] > 0).all()
    plain = heavy.where("label > 0").compute()["label"].value_counts()
    drawn = some["label"].value_counts()
    assert drawn[2] / drawn[1] > 2.5 * plain[2] / plain[1]


def test_a_thinned_table_is_the_same_for_a_seed_however_it_is_cut(table, store, monkeypatch):
    some = table.thin(0.3, 9).compute()
    assert 0.2 < len(some) / len(table) < 0.4
    monkeypatch.setattr(rows, "PART_VOXELS", 10**9)
    pd.testing.assert_frame_equal(some, patch_table(store, (1, 5, 5), (2, 2, 2)).thin(0.3, 9).compute())


def test_splits_by_share_keep_patients_whole_and_share_out_the_strata():
    made = {}
    for number in range(20):
        one = labelled((3, 8, 8), number, id=f"s{number:02d}", patient=f"p-{number // 2}")
        one.labels["truth"].voxels[one.labels["truth"].voxels == 2] = 0 if number // 2 % 5 else 2
        made[one.id] = one
    table = patch_table(made, (1, 3, 3), (1, 2, 2))
    splits = table.split(shares={"train": 0.6, "validate": 0.2, "test": 0.2}, seed=4)
    assert {name: len(one.patients) for name, one in splits.items()} == {"train": 6, "validate": 2, "test": 2}
    owners = [patient for one in splits.values() for patient in one.patients]
    assert len(owners) == len(set(owners)) == 10
    assert sum(2 in one.count("label").index for one in splits.values()) == 2  # two patients have lesions: not together
    assert set(splits["test"].compute(["split"])["split"]) == {"test"}
    again = table.split(shares={"train": 0.6, "validate": 0.2, "test": 0.2}, seed=4)
    assert {name: one.series for name, one in again.items()} == {name: one.series for name, one in splits.items()}
    with pytest.raises(UsageError, match="shares"):
        table.split(shares={"train": 1.0})


def test_the_same_planes_under_two_patients_are_caught(store):
    for name, first in (("a1", 0), ("b1", 2)):
        planes = len(store[name].hu)
        store[name].planes = pd.DataFrame({"source_digest": [f"d{n + first}" for n in range(planes)]})
    with pytest.raises(RunError, match="shares 5 planes"):
        patch_table(store, (1, 3, 3)).split(validate=["p-2"])


# ---------------------------------------------------------------------------------------------- pixels as columns
def mean_and_top(pixels):
    flat = pixels.reshape(len(pixels), -1)
    return np.stack([flat.mean(axis=1), flat.max(axis=1)], axis=1)


def pretend_scores(pixels):
    mean = pixels.reshape(len(pixels), -1).mean(axis=1)
    return np.stack([mean < 0, mean >= 0, np.zeros(len(mean))], axis=1).astype(np.float32)


def test_pixel_columns_are_computed_where_the_rows_are(table, monkeypatch):
    monkeypatch.setattr("ctpipe.patches.steps.CUT_BYTES", 3000)
    made = table.from_pixels(["mean", "top"], mean_and_top)
    some = made.where("mean > 200").compute()
    plain = table.compute()
    wanted = mean_and_top(table.fetch(plain))
    keep = wanted[:, 0].astype(np.float32) > 200
    np.testing.assert_allclose(some[["mean", "top"]], wanted[keep], rtol=1e-6)
    with pytest.raises(RunError, match=r"shape \(1,\)"):
        table.from_pixels("mean", lambda pixels: np.zeros(1)).compute()


def test_scores_stand_beside_every_column_of_the_input_and_condense_to_the_plane(table, store):
    scored = table.score(pretend_scores).persist()
    assert scored.columns == [*table.columns, "score_background", "score_liver", "score_lesion"]
    frame = scored.compute()
    image = scored.plane_image("a1", 4, "score_liver")
    assert image.shape == (9, 8)
    mine = frame[(frame["series"] == "a1") & (frame["z"] == 4)]
    assert np.array_equal(image[mine["y"], mine["x"]], mine["score_liver"])
    assert image[1, 1] == image[0, 0]  # a tie goes to the lower centre
    assert image[5, 7] == mine.set_index(["y", "x"]).loc[(4, 6), "score_liver"]


@pytest.mark.parametrize("fill", ["nearest", "linear"])
def test_rows_of_a_series_condense_to_its_volume(table, fill):
    volume = table.condense("a1", "fraction_liver", fill=fill)
    assert volume.shape == (11, 9, 8)
    mine = table.of_series(["a1"]).compute()
    assert np.array_equal(volume[tuple(mine[["z", "y", "x"]].to_numpy().T)], mine["fraction_liver"])
    assert np.array_equal(np.concatenate([table.condense("a1", "fraction_liver", z, z + 1, fill) for z in range(11)]),
                          volume)
    if fill == "linear":
        np.testing.assert_allclose(volume[3, 2, 2], (volume[2, 2, 2] + volume[4, 2, 2]) / 2, rtol=1e-6)
        assert np.array_equal(volume[:, :, 7], volume[:, :, 6])  # behind the last centre
    else:
        assert np.array_equal(volume[1], volume[0])
    few = table.where("label == 'liver'").condense("a1", "label", fill=fill, missing=0)
    assert set(np.unique(few[::2, ::2, ::2])) == {0, 1}
    with pytest.raises(UsageError, match="fill"):
        table.condense("a1", "label", fill="cubic")


def test_hard_negatives_are_the_false_positives_of_a_run(table, store):
    for series in store.values():
        wrong = np.roll(series.labels["truth"].voxels, 1, axis=2)
        wrong = np.array([0, 7, 9], np.uint8)[wrong]
        series.labels["run-1"] = MemoryLabels(wrong, {7: "liver", 9: "lesion"}, series.grid, series.levels, "run-1")
    mined = table.hard_negatives("run-1")
    frame = mined.compute()
    for series, some in frame.groupby("series", observed=True):
        at = tuple(some[["z", "y", "x"]].to_numpy().T)
        truth = store[series].labels["truth"].voxels
        assert some["predicted"].tolist() == np.roll(truth, 1, axis=2)[at].tolist()
    assert frame["false_positive"].tolist() == ((frame["predicted"] > 0) & (frame["label"] == 0)).tolist()
    assert mined.where("false_positive and predicted == 'lesion'").sample(10, 1, by=["series"])["label"].sum() == 0


# ---------------------------------------------------------------------------------------------- describe and plan
def test_describe_tells_what_pandas_tells(table):
    found = table.describe()
    plain = table.compute()
    assert found.loc["series", "groups"] == 4
    wanted = plain[["z", "fraction_liver"]].astype(float).describe().T
    np.testing.assert_allclose(found.loc[["z", "fraction_liver"], ["min", "max", "mean"]].astype(float),
                               wanted[["min", "max", "mean"]], rtol=1e-6)
    np.testing.assert_allclose(found.loc["z", "std"], plain["z"].std(ddof=0))


def test_a_contact_sheet_is_a_picture(table, tmp_path):
    import matplotlib.image
    path = table.show(tmp_path / "sheet.png", 9, where="label == 'liver'")
    assert matplotlib.image.imread(path).shape[2] in (3, 4)
    with pytest.raises(NotThereError):
        table.show(tmp_path / "nowhere" / "sheet.png")
    with pytest.raises(UsageError):
        table.show(tmp_path / "sheet.png", 0)


def test_a_plan_that_does_not_fit_names_the_smallest_change_that_does():
    shape = (300, 64, 64)
    series = MemorySeries(np.zeros(shape, np.int16), id="a").with_truth(np.zeros(shape, np.uint8), {1: "a"})
    table = patch_table({"a": series}, (1, 9, 9), (1, 1, 1), statistics=True)
    made = plan(table, workers=2, memory_per_worker=4 << 30)
    assert check(table, made).rows == 300 * 64 * 64
    assert made.rows_bytes == made.rows * table.row_bytes
    tight = made.peak_per_worker - (1 << 20)

    def cure(**changes):
        one = plan(table, **{"workers": 2, "memory_per_worker": tight} | changes)
        with pytest.raises(BudgetError) as error:
            check(table, one)
        return error.value.cure

    assert "MiB of slabs per worker" in cure()
    none = plan(table, workers=2, memory_per_worker=4 << 30, slab_budget=0)
    assert cure(slab_budget=0, memory_per_worker=none.peak_per_worker - (1 << 20)) == "leave the HU statistics out"
    lean = patch_table({"a": series}, (1, 9, 9), (1, 1, 1))
    one = plan(lean, workers=1, memory_per_worker=4 << 30, slab_budget=0)
    with pytest.raises(BudgetError) as error:
        check(lean, plan(lean, workers=1, memory_per_worker=one.peak_per_worker - (1 << 20), slab_budget=0))
    assert error.value.cure in ("use 2 workers of this memory", "use stride 1,2,2")
    changed = patch_table({"a": series}, (1, 9, 9), (1, 2, 2))
    assert plan(changed, workers=1, memory_per_worker=one.peak_per_worker - (1 << 20), slab_budget=0).fits
    with pytest.raises(BudgetError, match="a partition") as error:
        check(lean, plan(lean, workers=1, memory_per_worker=8 * (one.largest_partition - 1), slab_budget=0))


def test_a_thousand_series_are_less_than_ten_thousand_tasks(table, monkeypatch):
    """The scheduler sees partitions, never rows: 1,000 CTs of 300 planes at 257 x 257, stride 7."""
    from dataclasses import replace

    from ctpipe.config import WindowSpec
    from ctpipe.words import ZYX

    monkeypatch.undo()  # partitions as large as they are for users
    spec = replace(table.spec, windows=WindowSpec(window=ZYX(1, 257, 257), stride=ZYX(1, 7, 7)))
    sources = [replace(table.sources[0], id=f"{n:032x}", shape=(300, 512, 512), band_planes=32) for n in range(1000)]
    parts = list(spec.parts(sources))
    print(f"{len(parts)} tasks")
    assert 1000 <= len(parts) < 10_000
    assert sum(part.stop - part.start for part in parts) == 300_000
