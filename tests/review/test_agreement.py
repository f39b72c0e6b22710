"""Two reviewers of one case, and reviews whose run was replaced: both kept, both told."""

from __future__ import annotations

import os

import numpy as np
import pytest
from napari.components import ViewerModel
from review_store import CLASSES, RUN, SERIES, commit, grid_of, phantom

from ctpipe.errors import UsageError
from ctpipe.review.agreement import agreement, agreement_layer, compared, reviews_of
from ctpipe.review.session import ReviewSession
from ctpipe.review.stale import stale_reviews
from ctpipe.store import LabelsMeta, open_store, remove
from ctpipe.words import LabelKind


def review(root, reviewer: str, points, label: int) -> str:
    """Save a review with one stroke in it; returns its name."""
    session = ReviewSession(ViewerModel(), root, reviewer)
    session.show()
    session.edit(RUN)
    session.editing.tools.brush(points, label)
    name = session.save().name
    session.close()
    return name


@pytest.fixture
def two(store_path):
    names = [
        review(store_path, "p-01", [(12, 80, 70), (12, 90, 70)], 2),
        review(store_path, "p-02", [(12, 85, 70)], 0),
    ]
    return names, open_store(store_path)[SERIES]


def test_two_reviews_of_one_case_are_both_kept_and_compared(two):
    """RELIABILITY R3."""
    names, series = two
    assert sorted(reviews_of(series)) == sorted(names)
    first, second = (series.labels[name] for name in names)
    a, b = first.read_planes(0, 40), second.read_planes(0, 40)
    found = agreement(first, second)
    assert found.differ == np.count_nonzero(a != b) > 0
    for label, name in CLASSES.items():
        both = np.count_nonzero((a == label) & (b == label))
        total = np.count_nonzero(a == label) + np.count_nonzero(b == label)
        assert found.dice[name] == pytest.approx(2 * both / total)
    z, y, x = np.nonzero(a != b)
    assert found.box == tuple(slice(at.min(), at.max() + 1) for at in (z, y, x))
    assert f"{found.differ} voxels differ" in str(found)
    same = agreement(first, first)
    assert (same.differ, same.box, set(same.dice.values())) == (0, None, {1.0})


def test_the_agreement_layer_says_who_painted_what(two):
    names, series = two
    first, second = (series.labels[name] for name in names)
    levels, options = agreement_layer(first, second)
    layer = ViewerModel().add_labels(levels, **options)
    assert not layer.editable
    shown = np.asarray(levels[0])
    assert np.array_equal(shown, compared(first.read_planes(0, 40), second.read_planes(0, 40)))
    assert set(np.unique(shown)) == {0, 1, 2, 4}, "the first made a lesion of what the second erased, or left"
    assert list(options["features"]["class"])[1:] == ["both", f"only {names[0][:15]}", f"only {names[1][:15]}",
                                                       "other class"]  # fmt: skip


def test_each_voxel_of_two_label_sets_has_one_of_five_cases():
    a, b = np.array([0, 1, 1, 0, 2]), np.array([0, 1, 0, 2, 1])
    assert compared(a, b).tolist() == [0, 1, 2, 3, 4]


def test_classes_are_matched_by_name(store_path):
    store = open_store(store_path, "a")
    labels = phantom()[1]
    swapped = np.array([0, 2, 1], np.uint8)[labels]
    meta = LabelsMeta("5wapped0", LabelKind.PREDICTION, grid_of(), {1: "lesion", 2: "liver"}, "uint8", {})
    commit(store, store.labels_writer(SERIES, meta), swapped)
    series = open_store(store_path)[SERIES]
    assert agreement(series.labels[RUN], series.labels["5wapped0"]).differ == 0


def test_groups_on_different_grids_are_not_compared(two):
    names, series = two
    first, second = (series.labels[name] for name in names)
    second.grid = grid_of(spacing=(1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="different grids"):
        agreement(first, second)


def test_a_new_run_leaves_corrections_alone_and_marks_them(store_path, two):
    """RELIABILITY R4."""
    names, series = two
    assert stale_reviews(series) == {}
    before = {name: series.labels[name].content for name in names}
    store = open_store(store_path, "a")
    meta = LabelsMeta("beef000000000001", LabelKind.PREDICTION, grid_of(), CLASSES, "uint8", {})
    commit(store, store.labels_writer(SERIES, meta), phantom()[1])
    commit_file = store_path / f"{SERIES}.ome.zarr/labels/beef000000000001/zarr.json"
    later = (store_path / f"{SERIES}.ome.zarr/labels/{RUN}/zarr.json").stat().st_mtime_ns + 10**9
    os.utime(commit_file, ns=(later, later))
    series = open_store(store_path)[SERIES]
    assert stale_reviews(series) == dict.fromkeys(
        sorted(names), f"stale: made on run {RUN[:8]}, a newer run is beef0000"
    )
    remove(store, RUN)
    series = open_store(store_path)[SERIES]
    assert stale_reviews(series) == dict.fromkeys(
        sorted(names), f"stale: made on {RUN}, which is no longer in the store"
    )
    assert {name: series.labels[name].content for name in names} == before


def test_a_run_that_was_replaced_by_other_voxels_is_told_when_the_copy_is_opened(store_path):
    """RELIABILITY R4: the strokes stay on what they were made on."""
    session = ReviewSession(ViewerModel(), store_path)
    session.show()
    session.edit(RUN)
    session.editing.tools.brush([(12, 80, 70)], 2)
    expected = session.copy.array.copy()
    session.close()
    store = open_store(store_path, "a")
    remove(store, RUN)
    meta = LabelsMeta(RUN, LabelKind.PREDICTION, grid_of(), CLASSES, "uint8", {})
    commit(store, store.labels_writer(SERIES, meta), np.roll(phantom()[1], 5, axis=0))

    again = ReviewSession(ViewerModel(), store_path)
    lines = []
    again.editing.told.connect(lines.append)
    again.show()
    copy = again.edit_preferred()
    assert copy.told == [f"stale: made on {RUN} as it was before it was replaced"] == lines
    assert np.array_equal(copy.array, expected)
    saved = again.save()
    found = open_store(store_path)[SERIES].labels[saved.name]
    assert np.array_equal(found.read_planes(0, 40), expected)
    again.close()
