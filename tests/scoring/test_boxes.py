"""After an edit only what it touched is measured again, and the answer is that of measuring everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lesions_made import CLASSES, drawn, grid_of
from scipy import ndimage

from ctpipe.scoring import box_of, boxes_of_labels, grown, mask_of, measure, measure_box, remeasured

GRID = grid_of((36, 8, 9))


def reader(labels, asked=None):
    def read(start, stop):
        if asked is not None:
            asked.append((start, stop))
        return labels[start:stop]

    return read


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.2))
def test_what_is_measured_again_is_what_measuring_everything_gives(seed, share):
    rng = np.random.default_rng(seed)
    labels = ((rng.random(GRID.shape) < share) * rng.integers(1, 3, GRID.shape)).astype(np.uint8)
    hu = rng.normal(40, 9, GRID.shape)
    found = measure(reader(labels), reader(hu), GRID, CLASSES)
    edits = []
    for n in range(4):
        low = [int(rng.integers(0, n)) for n in GRID.shape]
        box = tuple(slice(a, int(rng.integers(a, min(a + 7, m))) + 1) for a, m in zip(low, GRID.shape, strict=True))
        labels[box] = rng.integers(0, 3) * (rng.random(labels[box].shape) < rng.random())
        edits.append(box)
        if n % 2:  # two edits are caught up with at once
            for box in edits:
                found = remeasured(found, box, reader(labels), reader(hu), GRID, CLASSES)
            edits = []
    expected = measure(reader(labels), reader(hu), GRID, CLASSES)
    assert [(one.label, one.number, one.first, one.box, one.voxels) for one in found] == [
        (one.label, one.number, one.first, one.box, one.voxels) for one in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.axes.plane == theirs.axes.plane
        assert ours.axes.long_mm == pytest.approx(theirs.axes.long_mm)
        assert np.allclose((*ours.centre_mm, *ours.hu), (*theirs.centre_mm, *theirs.hu))


def test_planes_far_from_the_edit_are_not_read():
    labels = drawn(((5, 10, 10), 3), ((34, 30, 30), 3)).voxels
    grid, asked = grid_of(labels.shape), []
    found = measure(reader(labels), None, grid, CLASSES)
    labels[34, 30, 30] = 0
    again = remeasured(found, (slice(34, 35), slice(30, 31), slice(30, 31)), reader(labels, asked), None, grid, CLASSES)
    assert [one.voxels for one in again] == [found[0].voxels, found[1].voxels - 1]
    assert min(start for start, _ in asked) >= 30
    assert again[0] is not found[1]


def test_a_box_is_measured_as_if_nothing_lay_outside_it():
    labels = drawn(((20, 24, 26), 8)).voxels
    grid = grid_of(labels.shape, "oblique")
    box = (slice(18, 25), slice(20, 40), slice(10, 40))
    (one,) = measure_box(reader(labels), None, grid, CLASSES, box)
    assert one.voxels == np.count_nonzero(labels[box])
    assert one.first[0] == 18
    assert np.allclose(one.centre_mm, grid.to_lps(np.argwhere(labels[box]).mean(axis=0) + (18, 20, 10)))


def test_the_mask_of_a_component_holds_it_and_no_neighbour_in_its_box():
    rng = np.random.default_rng(4)
    labels = (rng.random(GRID.shape) < 0.08).astype(np.uint8)
    numbers, count = ndimage.label(labels, np.ones((3, 3, 3)))
    found = measure(reader(labels), None, GRID, CLASSES)
    assert len(found) == count > 20
    for one in found:
        expected = numbers[box_of(one)] == numbers[one.first]
        assert np.array_equal(mask_of(one, reader(labels)), expected)
    labels[found[0].first] = 0
    assert not mask_of(found[0], reader(labels))[0, 0, 0]


def test_a_box_grows_to_the_border_and_no_further():
    box = grown((slice(0, 3), slice(4, 6), slice(7, 9)), (1, 2, 3), GRID)
    assert box == (slice(0, 4), slice(2, 8), slice(4, 9))


def test_the_middle_lies_in_the_lesion_where_it_is_round():
    (one,) = measure(reader(drawn(((20, 24, 26), 8)).voxels), None, grid_of(), CLASSES)
    assert one.middle == pytest.approx((20, 24, 26), abs=0.51)


def test_the_box_of_each_label_holds_all_of_it_and_no_more():
    labels = drawn(((8, 10, 10), 4, 1), ((31, 30, 30), (5, 8, 8), 7)).voxels
    assert boxes_of_labels(reader(labels), grid_of()) == {
        1: (slice(4, 13), slice(6, 15), slice(6, 15)),
        7: (slice(26, 37), slice(22, 39), slice(22, 39)),
    }
