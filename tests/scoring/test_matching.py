"""Lesions matched between two label sets: pairs that differ by an edit that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesions_made import Drawn, drawn, grid_of

from ctpipe.errors import InputError, UsageError
from ctpipe.scoring import Fate, match_lesions, measure

MIRRORED = {Fate.MATCHED: Fate.MATCHED, Fate.SPLIT: Fate.MERGED, Fate.MERGED: Fate.SPLIT, Fate.NEW: Fate.LOST,
            Fate.LOST: Fate.NEW, Fate.REGROUPED: Fate.REGROUPED}  # fmt: skip
STAYS = ((8, 10, 10), 4)
CROSSES = ((31, 30, 30), (5, 8, 8))  # both slabs


def fates(before, after, **options):
    return [change.fate for change in match_lesions(before, after, **options)]


def test_what_is_alike_is_matched_without_change():
    before = drawn(STAYS, CROSSES)
    found = match_lesions(before, drawn(STAYS, CROSSES))
    assert [one.fate for one in found] == [Fate.MATCHED] * 2
    assert [one.change_ml for one in found] == [0, 0]
    assert [one.change_long_mm for one in found] == [0, 0]
    assert [one.common for one in found] == [one.before[0].voxels for one in found]
    assert found[0].before[0].voxels > found[1].before[0].voxels, "the largest comes first"


def test_a_lesion_that_grew_tells_by_how_much():
    (one,) = match_lesions(drawn(STAYS), drawn(((8, 10, 10), 6)))
    assert one.fate is Fate.MATCHED
    assert one.change_ml == pytest.approx(4 / 3 * np.pi * (6**3 - 4**3) * 2.5 * 0.8 * 0.7 / 1000, rel=0.05)
    assert one.change_long_mm == pytest.approx(2 * 2 * 0.8, abs=0.8)  # two voxels of the longer side on both ends


def test_a_cut_splits_and_a_bridge_merges():
    whole, cut = drawn(CROSSES), drawn(CROSSES)
    cut.voxels[:, 30] = 0
    (split,) = match_lesions(whole, cut)
    assert (split.fate, len(split.before), len(split.after)) == (Fate.SPLIT, 1, 2)
    assert split.change_ml == pytest.approx(-np.count_nonzero(whole.voxels[:, 30]) * 2.5 * 0.8 * 0.7 / 1000)
    (merged,) = match_lesions(cut, whole)
    assert (merged.fate, len(merged.before), len(merged.after)) == (Fate.MERGED, 2, 1)


def test_what_is_only_on_one_side_is_new_or_lost():
    found = match_lesions(drawn(STAYS), drawn(CROSSES))
    assert {one.fate for one in found} == {Fate.NEW, Fate.LOST}
    assert all(one.change_long_mm is None for one in found)
    by_fate = {one.fate: one for one in found}
    assert by_fate[Fate.NEW].change_ml > 0 > by_fate[Fate.LOST].change_ml
    assert by_fate[Fate.LOST].largest.axes.plane == 8


def test_a_knot_of_both_is_regrouped():
    before, after = drawn(CROSSES), drawn(CROSSES)
    before.voxels[:, 30] = 0
    after.voxels[:, :, 30] = 0
    assert fates(before, after) == [Fate.REGROUPED]


def test_a_touch_at_the_rim_is_no_match_unless_one_asks_for_it():
    before, after = drawn(STAYS), drawn(((8, 10, 17), 4))  # a few voxels in common
    assert 0 < np.count_nonzero((before.voxels > 0) & (after.voxels > 0)) < 0.1 * np.count_nonzero(before.voxels)
    assert sorted(fates(before, after)) == [Fate.LOST, Fate.NEW]
    assert fates(before, after, least_share=0) == [Fate.MATCHED]


def test_classes_are_matched_by_name_and_never_across():
    before = drawn(STAYS)
    other = Drawn(before.voxels * 3, before.grid, {6: "lesion"}, "other")
    assert fates(before, other) == [Fate.MATCHED]
    renamed = Drawn(before.voxels, before.grid, {2: "cyst"}, "other")
    assert sorted(fates(before, renamed)) == [Fate.LOST, Fate.NEW]


def test_other_grids_and_shares_are_refused():
    with pytest.raises(InputError, match="on grid"):
        match_lesions(drawn(STAYS), Drawn(drawn(STAYS).voxels, grid_of(orientation="oblique")))
    with pytest.raises(UsageError, match="share"):
        match_lesions(drawn(STAYS), drawn(STAYS), least_share=2)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.15))
def test_every_component_has_one_fate_and_the_way_back_is_the_mirror(seed, share):
    rng = np.random.default_rng(seed)
    grid = grid_of((35, 9, 8))
    sides = [Drawn((rng.random(grid.shape) < share) * rng.integers(1, 3, grid.shape), grid) for _ in range(2)]
    forth, back = match_lesions(*sides), match_lesions(*sides[::-1])
    for side, parts in ((sides[0], [one.before for one in forth]), (sides[1], [one.after for one in forth])):
        ours = sorted((one.name, one.number) for part in parts for one in part)
        every = measure(side.read_planes, None, grid, side.classes)
        assert ours == [(one.name, one.number) for one in sorted(every, key=lambda one: (one.name, one.number))]
    assert sorted((MIRRORED[one.fate], one.name, one.common, round(-one.change_ml, 9)) for one in forth) == sorted(
        (one.fate, one.name, one.common, round(one.change_ml, 9)) for one in back
    )
    total = sum(one.change_ml for one in forth)
    counts = [np.count_nonzero(side.voxels) for side in sides]
    assert total == pytest.approx((counts[1] - counts[0]) * 2.5 * 0.8 * 0.7 / 1000)
