"""Rows of reviews: the newest of each series, what its reviewer changed, and how much such rows weigh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from stores_made import store_of, write
from volumes import CLASSES, labelled

from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches import CORRECTED, load_table, patch_table
from ctpipe.store import LabelsMeta, Store, open_store, remove
from ctpipe.words import LabelKind, Source

SHAPE = (70, 40, 36)
WINDOW, STRIDE = (3, 9, 7), (2, 4, 5)
RUN = "4be1c0ffee"


def add(store: Store, series: str, voxels: np.ndarray, name: str, kind: LabelKind, classes: dict[int, str] = CLASSES,
        **provenance: Any) -> None:
    meta = LabelsMeta(name, kind, store[series].grid, classes, provenance=provenance)
    write(store, store.labels_writer(series, meta), voxels)


def review(store: Store, series: str, voxels: np.ndarray, name: str, parent: str | None, **how: Any) -> None:
    """As `ctpipe.review.save` writes it."""
    content = None if parent is None else store[series].labels[parent].content
    add(store, series, voxels, name, LabelKind.REVIEW, parent=parent, parent_content=content, **how)


def painted(voxels: np.ndarray, place: tuple[slice, slice, slice], label: int) -> np.ndarray:
    out = voxels.copy()
    out[place] = label
    return out


RUN_VOXELS = labelled(SHAPE, 11).labels["truth"].voxels
FIRST = painted(RUN_VOXELS, np.s_[10:14, 5:20, 5:20], 2)
SECOND = painted(RUN_VOXELS, np.s_[30:40, 10:30, 8:30], 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """ab0 has truth alone, ab1 a run and two reviews of it, whose names sort the other way round."""
    opened = store_of(tmp_path_factory.mktemp("reviews") / "S",
                      [labelled(SHAPE, number, id=f"ab{number}", patient=f"p-{number}") for number in (0, 1)])
    opened = open_store(opened.root, "a")
    add(opened, "ab1", RUN_VOXELS, RUN, LabelKind.PREDICTION)
    review(opened, "ab1", FIRST, "review-ff", RUN)
    review(opened, "ab1", SECOND, "review-00", RUN)
    return opened


def table(store: Store, source: str, **how: Any):
    return patch_table(store, WINDOW, STRIDE, source=source, **how)


def brute(now: np.ndarray, was: np.ndarray, rows: pd.DataFrame) -> tuple[list[bool], list[float]]:
    """What every window sees of `now != was`, one window after the other, the border's voxels repeated."""
    half = [w // 2 for w in WINDOW]
    changed = np.pad(now != was, [(h, w - h) for h, w in zip(half, WINDOW, strict=True)], mode="edge")
    centre = [bool((now != was)[z, y, x]) for z, y, x in rows[["z", "y", "x"]].to_numpy()]
    share = [changed[z : z + WINDOW[0], y : y + WINDOW[1], x : x + WINDOW[2]].mean()
             for z, y, x in rows[["z", "y", "x"]].to_numpy()]  # fmt: skip
    return centre, share


def test_the_newest_review_is_the_one_that_was_committed_last(store) -> None:
    assert store["ab1"].labels["review"].name == "review-00"
    rows = table(store, "review").compute(["series", "z", "y", "x", "label", "source"])
    assert rows["series"].unique().tolist() == ["ab1"]
    assert rows["source"].unique().tolist() == ["review"]
    assert rows["label"].tolist() == SECOND[tuple(rows[list("zyx")].to_numpy().T)].tolist()


def test_the_best_labels_are_reviews_and_truth_where_there_is_none(store) -> None:
    rows = table(store, Source.BEST).compute(["series", "label", "z", "y", "x", "source", "corrected", "changed"])
    by = {name: own for name, own in rows.groupby("series", observed=True)}
    assert {name: own["source"].unique().tolist() for name, own in by.items()} == {"ab0": ["truth"], "ab1": ["review"]}
    truth = labelled(SHAPE, 0).labels["truth"].voxels
    assert by["ab0"]["label"].tolist() == truth[tuple(by["ab0"][list("zyx")].to_numpy().T)].tolist()
    assert not by["ab0"]["corrected"].any()
    assert (by["ab0"]["changed"] == 0).all()
    pd.testing.assert_frame_equal(table(store, "truth").compute(), patch_table(store, WINDOW, STRIDE).compute())


def test_what_a_reviewer_changed_is_counted_exactly(store) -> None:
    rows = table(store, "review").compute()
    centre, share = brute(SECOND, RUN_VOXELS, rows)
    assert rows["corrected"].tolist() == centre
    assert 0 < sum(centre) < len(centre)
    np.testing.assert_allclose(rows["changed"], share, atol=1e-7)
    assert (rows["changed"].dtype, rows["corrected"].dtype) == (np.float32, np.bool_)


def test_a_changed_centre_weighs_most_and_an_untouched_window_one(store) -> None:
    rows = table(store, "review").compute(["corrected", "changed", "weight"])
    assert (rows["weight"][rows["corrected"]] == CORRECTED).all()
    assert (rows["weight"][rows["changed"] == 0] == 1).all()
    partly = rows[~rows["corrected"] & (rows["changed"] > 0)]
    np.testing.assert_allclose(partly["weight"], 1 + (CORRECTED - 1) * partly["changed"], rtol=1e-6)
    drawn = [table(store, "review").sample(60, 3, by=["patient"], weight=name)["corrected"].sum()
             for name in (None, "weight")]  # fmt: skip
    assert drawn[1] > 1.5 * drawn[0] > 0


def test_a_review_of_a_review_tells_all_that_was_changed_since_the_run(store, tmp_path) -> None:
    own = copied(store, tmp_path)
    third = painted(SECOND, np.s_[60:64, 0:9, 0:9], 2)
    review(own, "ab1", third, "review-third", "review-00")
    rows = table(own, "review").compute()
    assert rows["corrected"].tolist() == brute(third, RUN_VOXELS, rows)[0]


def test_all_of_a_review_that_began_empty_is_a_correction(store, tmp_path) -> None:
    own = copied(store, tmp_path)
    voxels = painted(np.zeros(SHAPE, np.uint8), np.s_[3:9, 4:30, 4:30], 1)
    review(own, "ab0", voxels, "review-empty", None, classes={1: "liver"})
    rows = table(own, "review", series="ab0").compute()
    assert rows["corrected"].tolist() == (rows["label"] == 1).tolist()
    assert rows["corrected"].any()


def test_nothing_counts_as_changed_where_the_run_was_removed_or_is_another(store, tmp_path) -> None:
    own = copied(store, tmp_path)
    remove(own, RUN)
    assert not table(own, "review").compute()["changed"].any()
    add(own, "ab1", FIRST, RUN, LabelKind.PREDICTION)
    assert not table(own, "review").compute()["changed"].any()


def test_hard_examples_are_the_rows_that_changed_most(store) -> None:
    made = table(store, "best")
    rows = made.compute()
    hard = made.hard_examples(25)
    wanted = rows[rows["changed"] > 0].sort_values(["corrected", "changed", "series", "z", "y", "x"], kind="stable",
                                                   ascending=[False, False, True, True, True, True])  # fmt: skip
    pd.testing.assert_frame_equal(hard, wanted.head(25).reset_index(drop=True))
    assert len(made.where("changed > 0.9").hard_examples(10**6)) == (rows["changed"] > 0.9).sum()
    with pytest.raises(NotThereError, match="no reviews"):
        table(store, "truth").hard_examples(3)


def test_two_workers_give_the_rows_of_one_and_a_saved_table_keeps_them(store, tmp_path) -> None:
    here = table(store, "best", where="changed > 0 or z == 0")
    with (LocalCluster(n_workers=2, threads_per_worker=1, processes=False, protocol="inproc",
                       dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
          Client(cluster) as client):  # fmt: skip
        there = table(store, "best", where="changed > 0 or z == 0", client=client)
        pd.testing.assert_frame_equal(there.compute(), here.compute())
        pd.testing.assert_frame_equal(there.hard_examples(7), here.hard_examples(7))
    again = load_table(here.save(tmp_path / "saved"))
    pd.testing.assert_frame_equal(again.compute(["z", "weight"]), here.compute(["z", "weight"]))
    assert again.compute(["weight"])["weight"].max() == CORRECTED


def test_a_coarse_level_compares_coarse_labels(store) -> None:
    found = patch_table(store, (1, 3, 3), (1, 3, 3), source="review", level=0).where("corrected").count("label")
    assert found.index.tolist() == [1]


def test_what_is_not_there_is_named(store) -> None:
    with pytest.raises(NotThereError, match=r"series ab0 has no labels 'review'.*ctpipe review"):
        table(store, "review", series="ab0")
    with pytest.raises(UsageError, match="source 'reviews' is unknown"):
        table(store, "reviews")
    with pytest.raises(UsageError, match="best"):
        table(store, "review", labels=RUN)


def copied(store: Store, to: Path) -> Store:
    import shutil
    shutil.copytree(store.root, to / "S")
    return open_store(to / "S", "a")
