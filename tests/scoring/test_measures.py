"""Lesions measured: volumes, diameters and HU against known bodies, brute force and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
from builders import ORIENTATIONS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist

from ctpipe.scoring import measure, measured_with_planes
from ctpipe.volume import Grid, slabs_of

SPACING = (2.5, 0.8, 0.7)


def grid_of(shape, orientation="axial", shear=0.0):
    row, column = np.reshape(ORIENTATIONS[orientation], (2, 3))
    affine = np.eye(4)
    affine[:3, 0] = np.cross(row, column) * SPACING[0] + shear * column
    affine[:3, 1], affine[:3, 2] = column * SPACING[1], row * SPACING[2]
    affine[:3, 3] = (-31.25, 12.5, 204.75)
    return Grid.from_affine(shape, affine)


def measured(labels, grid, hu=None, classes=None):
    read = None if hu is None else (lambda a, b: hu[a:b])
    return measure(lambda a, b: labels[a:b], read, grid, classes or {1: "liver", 2: "lesion"})


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_ellipsoid_has_the_volume_and_axes_it_was_drawn_with(orientation):
    """Half a voxel at each end is the bar; the body crosses a border of slabs."""
    shape = (40, 64, 72)
    z, y, x = np.indices(shape)
    labels = (((z - 31) / 6) ** 2 + ((y - 30) / 15.4) ** 2 + ((x - 34) / 26.3) ** 2 <= 1).astype(np.uint8)
    (one,) = measured(labels, grid_of(shape, orientation))
    assert one.volume_ml == pytest.approx(4 / 3 * np.pi * 6 * 15.4 * 26.3 * np.prod(SPACING) / 1000, rel=0.01)
    assert one.volume_ml == pytest.approx(labels.sum() * np.prod(SPACING) / 1000)
    assert abs(one.axes.long_mm - 2 * 26.3 * 0.7) < 2 * 0.35
    assert abs(one.axes.short_mm - 2 * 15.4 * 0.8) < 2 * 0.4
    assert one.axes.plane == 31
    assert one.box == ((25, 15, 8), (37, 45, 60))
    assert np.allclose(one.centre_mm, grid_of(shape, orientation).to_lps((31, 30, 34)), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 0.6))
def test_components_are_those_of_brute_force(seed, share):
    rng = np.random.default_rng(seed)
    shape = (35, 9, 8)
    labels = (rng.random(shape) < share).astype(np.uint8) * rng.integers(1, 3, shape).astype(np.uint8)
    hu = rng.normal(40, 200, shape).astype(np.float32)
    grid = grid_of(shape)
    found = measured(labels, grid, hu)
    expected = []
    for label in (1, 2):
        numbers, count = ndimage.label(labels == label, np.ones((3, 3, 3)))
        bodies = [numbers == n for n in range(1, count + 1)]
        expected += [(label, body) for body in sorted(bodies, key=lambda body: int(np.flatnonzero(body)[0]))]
    assert len(found) == len(expected)
    for one, (label, body) in zip(found, expected, strict=True):
        at = np.argwhere(body)
        assert (one.label, one.voxels) == (label, len(at))
        assert one.box == (tuple(at.min(axis=0)), tuple(at.max(axis=0)))
        assert one.hu == pytest.approx((hu[body].mean(), hu[body].std(), hu[body].min(), hu[body].max()), abs=1e-2)
        assert np.allclose(one.centre_mm, grid.to_lps(at.mean(axis=0)))
        assert one.axes.long_mm == pytest.approx(max(_longest(at[at[:, 0] == z][:, 1:]) for z in np.unique(at[:, 0])))
        assert 0 < one.axes.short_mm <= one.axes.long_mm + 1e-9


def _longest(pixels):
    sides = (pixels[:, None] + [(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)]).reshape(-1, 2)
    return pdist(sides * SPACING[1:]).max()


def test_axes_are_at_right_angles_and_end_where_they_say():
    labels = np.zeros((3, 40, 40), np.uint8)
    y, x = np.indices((40, 40))
    u, v = (x - 20) + (y - 20), (y - 20) - (x - 20)
    labels[1] = (u / 20) ** 2 + (v / 7) ** 2 <= 1  # a slanting ellipse
    (one,) = measured(labels, grid_of(labels.shape))
    both = (one.axes.long_ends, one.axes.short_ends)
    long, short = (np.diff(np.array(ends) * SPACING[1:], axis=0)[0] for ends in both)
    assert np.linalg.norm(long) == pytest.approx(one.axes.long_mm)
    assert np.linalg.norm(short) == pytest.approx(one.axes.short_mm)
    assert long @ short == pytest.approx(0, abs=1e-9)


def test_one_voxel_is_as_long_as_its_longer_side_and_a_shear_changes_no_volume():
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[2, 3, 4] = 2
    (one,) = measured(labels, grid_of(labels.shape, shear=1.3))
    assert one.axes.long_mm == pytest.approx(0.8)
    assert one.axes.short_mm == pytest.approx(0.7)
    assert one.volume_ml == pytest.approx(np.prod(SPACING) / 1000)
    assert one.hu is None
    assert (one.name, one.number) == ("lesion", 1)


def test_numbers_over_all_classes_are_those_of_the_planes():
    labels = np.zeros((35, 6, 6), np.uint8)
    labels[2, 1, 1], labels[31:34, 3:5, 3:5], labels[20, 0, 5] = 1, 1, 2
    found, numbered = measured_with_planes(lambda a, b: labels[a:b], None, grid_of(labels.shape), {1: "a", 2: "b"})
    assert [(one.name, one.number, number) for one, number in found] == [("a", 1, 1), ("a", 2, 2), ("b", 1, 3)]
    planes = np.concatenate([numbered(slab.start, slab.stop) for slab in slabs_of(35)])
    for one, number in found:
        assert (planes == number).sum() == one.voxels
        assert set(labels[planes == number]) == {one.label}


def test_volumes_and_places_agree_with_simpleitk():
    import SimpleITK as sitk  # noqa: N813

    shape = (36, 40, 44)
    smooth = ndimage.gaussian_filter(np.random.default_rng(5).random(shape), (2, 4, 4))
    labels = (smooth > np.quantile(smooth, 0.93)).astype(np.uint8)
    hu = np.random.default_rng(6).normal(40, 20, shape).astype(np.float32)
    grid = grid_of(shape, "oblique")
    image, values = sitk.GetImageFromArray(labels), sitk.GetImageFromArray(hu)
    for each in (image, values):
        each.SetSpacing(SPACING[::-1])
        each.SetOrigin(grid.affine[:3, 3].tolist())
        each.SetDirection(grid.directions[:, [2, 1, 0]].ravel().tolist())
    parts = sitk.ConnectedComponent(image, True)
    shapes, stats = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelStatisticsImageFilter()
    shapes.Execute(parts)
    stats.Execute(values, parts)
    theirs = sorted((shapes.GetPhysicalSize(n) / 1000, *shapes.GetCentroid(n), stats.GetMean(n))
                    for n in shapes.GetLabels())  # fmt: skip
    ours = sorted((one.volume_ml, *one.centre_mm, one.hu[0]) for one in measured(labels, grid, hu))
    assert len(ours) > 3
    assert np.allclose(ours, theirs, atol=1e-3)
