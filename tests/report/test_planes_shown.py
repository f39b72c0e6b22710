"""The three planes look the same however the volume was stored."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from report_phantom import FakeLabels

from ctpipe.report.planes import choose_focus, cut_planes, views_of
from ctpipe.volume import SLAB_PLANES, Grid
from ctpipe.words import ZYX

SHAPE = (5, 7, 9)  # to the head, to the back, to the patient's left
STEPS_MM = (4.0, 2.0, 1.0)
# index of each grid axis -> LPS: head is +S, back is +P, left is +L
CANONICAL = np.array([[0, 0, 1.0, 0], [0, 2.0, 0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])


def stored(order, flips):
    """The canonical volume with its axes in another order and direction, and the grid that says so."""
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE).transpose(order)
    affine = CANONICAL[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            voxels = np.flip(voxels, axis)
            affine[:3, 3] += affine[:3, axis] * (voxels.shape[axis] - 1)
            affine[:3, axis] *= -1
    return voxels, Grid.from_affine(voxels.shape, affine)


def pictures(voxels, grid, lps=(6.0, 4.0, 12.0)):
    voxel = ZYX(*np.rint(grid.to_index(lps)).astype(int).tolist())
    return cut_planes(lambda a, b: voxels[a:b], grid, voxel, views_of(grid))


@pytest.mark.parametrize("order", permutations(range(3)))
@pytest.mark.parametrize("flips", product([False, True], repeat=3))
def test_the_pictures_of_all_48_orientations_are_the_same(order, flips):
    expected = pictures(*stored((0, 1, 2), (False,) * 3))
    found = pictures(*stored(order, flips))
    for name in ("axial", "coronal", "sagittal"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_the_patients_right_is_on_the_left_the_head_is_up_and_the_face_looks_left():
    voxels, grid = stored((0, 1, 2), (False,) * 3)
    found = pictures(voxels, grid)
    np.testing.assert_array_equal(found["axial"], voxels[3])  # x grows to the left of the patient, y to the back
    np.testing.assert_array_equal(found["coronal"], voxels[::-1, 2, :])
    np.testing.assert_array_equal(found["sagittal"], voxels[::-1, :, 6])
    assert {v.name: v.edges for v in views_of(grid)} == {
        "axial": ("R", "L", "A", "P"),
        "coronal": ("R", "L", "H", "F"),
        "sagittal": ("A", "P", "H", "F"),
    }


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (0, 0, 0)), ((2, 0, 1), (1, 0, 1)), ((1, 2, 0), (1, 1, 0))])
def test_an_oblique_volume_is_shown_by_its_nearest_axes(order, flips):
    voxels, grid = stored(order, flips)
    a, b = np.radians([25, -20])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    )
    affine = grid.affine.copy()
    affine[:3] = turn @ affine[:3]
    oblique = Grid.from_affine(grid.shape, affine)
    assert oblique.anatomical is None
    expected, found = pictures(voxels, grid), pictures(voxels, oblique, turn @ (6.0, 4.0, 12.0))
    for name, picture in expected.items():
        np.testing.assert_array_equal(found[name], picture)


@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 1), (0, 1, 0)])
def test_the_point_of_a_voxel_is_where_the_picture_shows_it(flips):
    voxels, grid = stored((0, 1, 2), flips)
    voxel = ZYX(1, 2, 3)
    shown = cut_planes(lambda a, b: voxels[a:b], grid, voxel, views_of(grid))
    for view in views_of(grid):
        right_mm, down_mm = view.point(voxel, grid)
        at = int(down_mm / view.down_mm), int(right_mm / view.right_mm)
        assert shown[view.name][at] == voxels[voxel]


def test_pixels_have_the_size_of_their_voxels():
    _, grid = stored((0, 1, 2), (False,) * 3)
    sizes = {v.name: (v.down_mm, v.right_mm) for v in views_of(grid)}
    assert sizes == {"axial": (2.0, 1.0), "coronal": (4.0, 1.0), "sagittal": (4.0, 2.0)}


def test_cuts_read_one_slab_at_a_time():
    voxels = np.zeros((75, 3, 4), np.int16)
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return voxels[start:stop]

    grid = Grid.from_affine(voxels.shape, CANONICAL)
    found = cut_planes(read, grid, ZYX(40, 1, 1), views_of(grid))
    assert found["coronal"].shape == (75, 4)
    assert reads == [(0, SLAB_PLANES), (SLAB_PLANES, 2 * SLAB_PLANES), (2 * SLAB_PLANES, 75)]


def labels_of(voxels, classes=None):
    return FakeLabels(voxels, Grid.from_affine(voxels.shape, CANONICAL), classes or {1: "liver", 2: "lesion"}, "t")


def test_the_focus_is_the_middle_of_the_largest_lesion_and_not_of_the_organ():
    voxels = np.zeros((40, 20, 20), np.uint8)
    voxels[5:35, 2:18, 2:18] = 1
    voxels[10, 4, 4] = 2
    voxels[33, 10:15, 6:9] = 2
    focus = choose_focus(labels_of(voxels), None, labels_of(voxels).grid)
    assert focus.voxel == ZYX(33, 12, 7)
    assert focus.class_name == "lesion"
    assert focus.extent_mm == 10.0  # five rows of 2 mm


def test_the_focus_lies_inside_a_crescent():
    voxels = np.zeros((3, 20, 20), np.uint8)
    voxels[1, 2:18, 2:18] = 1
    voxels[1, 4:16, 4:18] = 0
    focus = choose_focus(labels_of(voxels), None, labels_of(voxels).grid)
    assert voxels[focus.voxel] == 1


def test_without_truth_the_focus_comes_from_the_prediction_and_without_labels_from_the_middle():
    empty, predicted = np.zeros((4, 6, 8), np.uint8), np.zeros((4, 6, 8), np.uint8)
    predicted[3, 5, 7] = 1
    grid = labels_of(empty).grid
    assert choose_focus(labels_of(empty), labels_of(predicted), grid).voxel == ZYX(3, 5, 7)
    assert choose_focus(labels_of(empty), None, grid).voxel == ZYX(2, 3, 4)
    assert choose_focus(None, None, grid).class_name is None
