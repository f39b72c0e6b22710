"""Edits of whole lesions: the voxels that change are those, and only those, that were meant."""

from __future__ import annotations

import numpy as np
import pytest
from lesion_review import SHAPE, SPACING, ball, drawn_case
from review_store import CLASSES, grid_of
from scipy import ndimage

from ctpipe.errors import UsageError
from ctpipe.review import lesion_edits
from ctpipe.review.lesion_edits import Ground
from ctpipe.scoring import measure

GRID = grid_of(SHAPE, SPACING)


class Case:
    """Labels that edits are applied to."""

    def __init__(self, labels=None) -> None:
        self.hu, drawn = drawn_case()
        self.labels = drawn if labels is None else labels
        self.ground = Ground(lambda a, b: self.labels[a:b], lambda a, b: self.hu[a:b], GRID, CLASSES)

    def lesions(self, label=2):
        every = measure(lambda a, b: self.labels[a:b], lambda a, b: self.hu[a:b], GRID, {label: CLASSES[label]})
        return sorted(every, key=lambda one: -one.voxels)

    def applied(self, edit):
        """Labels after the edit; the edit is inside its box and leaves the rest."""
        after = self.labels.copy()
        after[edit.box] = edit.new
        return after


@pytest.fixture
def case():
    return Case()


def test_a_deleted_lesion_becomes_what_surrounds_it(case):
    dumbbell, outside = case.lesions()
    inside = case.applied(lesion_edits.delete(case.ground, dumbbell))
    assert np.array_equal(inside == 1, (case.labels == 1) | ((case.labels == 2) & (np.indices(SHAPE)[2] < 40)))
    assert np.array_equal(inside[:, :, 47:], case.labels[:, :, 47:])
    edit = lesion_edits.delete(case.ground, outside)
    assert not case.applied(edit)[:, :, 47:].any()
    assert edit.told == f"deleted lesion 2: {outside.voxels} voxels are now background"
    assert edit.facts["becomes"] == 0


def test_a_dumbbell_is_parted_at_its_waist_and_the_sheet_is_one_voxel_thick(case):
    dumbbell = case.lesions()[0]
    after = case.applied(lesion_edits.part(case.ground, dumbbell))
    changed = after != case.labels
    assert set(after[changed]) == {1}, "liver, not a hole"
    numbers, count = ndimage.label((after == 2) & (np.indices(SHAPE)[2] < 40), np.ones((3, 3, 3)))
    assert count == 2
    middles = sorted(x for _, _, x in ndimage.center_of_mass(numbers > 0, numbers, [1, 2]))
    assert middles == pytest.approx([18, 28], abs=1)
    columns = np.unique(np.nonzero(changed)[2])
    assert 22 <= columns.min() <= columns.max() <= 24
    assert changed.sum() < 1.6 * np.count_nonzero(case.labels[:, :, 23] == 2)


def test_a_ball_has_no_waist(case):
    with pytest.raises(UsageError, match="no waist"):
        lesion_edits.part(case.ground, case.lesions()[1])


@pytest.mark.parametrize(("axis", "index"), [(0, 32), (1, 40), (2, 58)])
def test_a_cut_clears_one_plane_of_one_lesion(case, axis, index):
    outside = case.lesions()[1]
    after = case.applied(lesion_edits.cut(case.ground, outside, axis, index))
    sheet = np.take(case.labels, index, axis) == 2
    assert np.array_equal(np.take(after, index, axis), np.where(sheet, 0, np.take(case.labels, index, axis)))
    assert np.count_nonzero(after != case.labels) == sheet.sum()
    assert ndimage.label((after == 2) & (np.indices(SHAPE)[2] > 40), np.ones((3, 3, 3)))[1] == 2


def test_a_cut_beside_the_lesion_is_refused(case):
    for index in (3, 27, 36 + 1):
        with pytest.raises(UsageError, match="does not part"):
            lesion_edits.cut(case.ground, case.lesions()[1], 0, index)


def test_lesions_apart_are_merged_by_a_bridge_and_only_over_what_is_free():
    labels = np.zeros(SHAPE, np.uint8)
    ball(labels, (10, 20, 20), 4)
    ball(labels, (10, 20, 34), 4)
    case = Case(labels)
    one, other = case.lesions()
    edit = lesion_edits.merge(case.ground, one, other)
    after = case.applied(edit)
    assert len(Case(after).lesions()) == 1
    assert np.count_nonzero(after != labels) == edit.facts["bridge"] == 5  # columns 25 to 29
    with pytest.raises(UsageError, match="mm apart"):
        lesion_edits.merge(case.ground, one, other, most_mm=4)
    labels[:, :, 27] = 1
    with pytest.raises(UsageError, match="another class lies between"):
        lesion_edits.merge(case.ground, *case.lesions())


def test_lesions_of_two_classes_are_merged_into_the_first_ones(case):
    labels = np.zeros(SHAPE, np.uint8)
    ball(labels, (10, 20, 20), 4)
    labels[10:12, 20:22, 25:28] = 1  # touches
    case = Case(labels)
    after = case.applied(lesion_edits.merge(case.ground, case.lesions(2)[0], case.lesions(1)[0]))
    assert np.array_equal(after > 0, labels > 0)
    assert set(np.unique(after)) == {0, 2}


def test_a_reclassified_lesion_changes_its_label_only(case):
    outside = case.lesions()[1]
    after = case.applied(lesion_edits.reclassify(case.ground, outside, 1))
    assert np.array_equal(after[:, :, 47:] == 1, case.labels[:, :, 47:] == 2)
    assert np.array_equal(after[:, :, :47], case.labels[:, :, :47])
    for label in (2, 7, 0):
        with pytest.raises(UsageError, match="cannot become"):
            lesion_edits.reclassify(case.ground, outside, label)


def test_growing_takes_what_has_the_hu_hangs_together_and_is_free(case):
    truth = case.labels == 2
    outside = np.indices(SHAPE)[2] > 47
    case.labels[outside & (np.indices(SHAPE)[0] != 32)] = 0  # one plane of it was drawn
    one = case.lesions()[1]
    low, high = lesion_edits.usual_range(one)
    assert (low, high) == pytest.approx((30, 70), abs=2)
    edit = lesion_edits.grow(case.ground, one, low, high, 20)
    assert np.array_equal((case.applied(edit) == 2) & outside, truth & outside)
    assert "leaks" not in edit.told
    leaking = lesion_edits.grow(case.ground, one, -200, 200, 5)
    assert "look whether it leaks" in leaking.told
    box = case.applied(leaking) != case.labels
    assert np.nonzero(box)[0].min() == 32 - round(5 / 2.0), "no further than the margin"
    with pytest.raises(UsageError, match="adjoins"):
        lesion_edits.grow(case.ground, one, 400, 500, 20)
    with pytest.raises(UsageError, match="nothing lies between"):
        lesion_edits.grow(case.ground, one, 50, 40, 20)


def test_growth_never_takes_another_class():
    case = Case()
    case.labels[:, :, 52:54] = 1  # a wall, though its HU would do
    case.hu[:] = 50
    one = case.lesions()[-1]
    after = case.applied(lesion_edits.grow(case.ground, one, 0, 100, 30))
    assert np.array_equal(after[:, :, 52:54], case.labels[:, :, 52:54])


def test_a_lesion_that_changed_since_it_was_measured_is_not_edited(case):
    one = case.lesions()[1]
    case.labels[32, 40, 58] = 0
    with pytest.raises(UsageError, match="has changed since"):
        lesion_edits.delete(case.ground, one)
