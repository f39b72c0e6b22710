"""Overlap scores come from voxel counts alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ctpipe.errors import UsageError
from ctpipe.scoring import Confusion

# Two tables as printed in a report of 2020 (true class by predicted class), and the IoU values printed beside them.
GOOD = [[6_534_266, 5_467, 62], [11_075, 174_966, 4_650], [474, 2_146, 26_894]]
BAD = [[14_229_682, 16_385, 0], [6_853, 154_104, 4], [0, 467, 217]]


@pytest.mark.parametrize(
    ("table", "printed"), [(GOOD, (0.9973, 0.8823, 0.7857)), (BAD, (0.9983, 0.8666, 0.3154))], ids=["good", "bad"]
)
def test_the_printed_iou_values_come_out_of_the_printed_voxel_tables_when_cut_to_four_digits(table, printed):
    confusion = Confusion(np.array(table))
    assert tuple(math.floor(confusion.iou(c) * 10_000) / 10_000 for c in range(3)) == printed


counts = hnp.arrays(np.int64, (3, 3), elements=st.integers(0, 10**9))


@given(counts)
def test_dice_is_two_iou_over_one_plus_iou_and_lies_between_precision_and_recall(table):
    confusion = Confusion(table)
    for c in range(3):
        iou, dice = confusion.iou(c), confusion.dice(c)
        if math.isnan(iou):
            assert math.isnan(dice)
            continue
        assert dice == pytest.approx(2 * iou / (1 + iou))
        assert 0 <= iou <= dice <= 1
        sides = [v for v in (confusion.precision(c), confusion.recall(c)) if not math.isnan(v)]
        assert min(sides) - 1e-12 <= dice or len(sides) == 1
        assert dice <= max(sides) + 1e-12


volumes = hnp.arrays(np.uint8, (4, 5, 6), elements=st.integers(0, 3))


@given(volumes, volumes, st.integers(1, 3))
def test_counts_of_slabs_add_up_to_the_counts_of_the_volume(true, predicted, cut):
    whole = Confusion.from_planes(true, predicted, 4)
    low, high = (Confusion.from_planes(true[part], predicted[part], 4) for part in (slice(cut), slice(cut, None)))
    np.testing.assert_array_equal(whole.counts, (low + high).counts)
    assert whole.counts.sum() == true.size
    assert whole.counts[1, 2] == ((true == 1) & (predicted == 2)).sum()


@given(volumes, volumes)
def test_overlap_scores_equal_those_of_simpleitk(true, predicted):
    ours = Confusion.from_planes(true, predicted, 4)
    oracle = SimpleITK.LabelOverlapMeasuresImageFilter()
    oracle.Execute(SimpleITK.GetImageFromArray(predicted), SimpleITK.GetImageFromArray(true))  # (source, target)
    for c in range(1, 4):
        if ours.true_voxels(c) and ours.predicted_voxels(c):  # SimpleITK has no answer for an empty side
            assert ours.dice(c) == pytest.approx(oracle.GetDiceCoefficient(c))
            assert ours.iou(c) == pytest.approx(oracle.GetJaccardCoefficient(c))
            assert ours.recall(c) == pytest.approx(1 - oracle.GetFalseNegativeError(c))
            assert ours.precision(c) == pytest.approx(1 - oracle.GetFalseDiscoveryRate(c))


def test_nothing_on_both_sides_scores_nan_and_not_zero_or_one():
    nothing = Confusion.from_planes(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.uint8), 2)
    assert all(math.isnan(s) for s in (nothing.dice(1), nothing.iou(1), nothing.precision(1), nothing.recall(1)))


def test_a_prediction_where_nothing_is_scores_zero_dice():
    only_predicted = Confusion(np.array([[10, 3], [0, 0]]))
    assert only_predicted.dice(1) == 0
    assert only_predicted.precision(1) == 0
    assert math.isnan(only_predicted.recall(1))


@pytest.mark.parametrize("wrong", [np.full((1, 2, 2), 2), np.full((1, 2, 2), -1)])
def test_a_class_beyond_the_table_is_an_error_and_not_another_cell(wrong):
    with pytest.raises(UsageError, match=r"outside 0\.\.1"):
        Confusion.from_planes(np.zeros((1, 2, 2), int), wrong, 2)


def test_planes_of_different_shapes_are_refused():
    with pytest.raises(UsageError, match="shape"):
        Confusion.from_planes(np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int), 2)


def test_confusions_over_different_classes_do_not_add():
    with pytest.raises(UsageError, match="match their classes by name"):
        Confusion.empty(2) + Confusion.empty(3)
