"""Tilted planes on a rectangular grid: every voxel keeps its place in the patient (V6)."""

import pickle

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage
from tilts import ORIENTATIONS, phantom, planes_at, real_planes, resampled

from ctpipe.dicom.deshear import OUTSIDE_HU, Deshear

HEIGHTS = np.arange(12) * 1.75
TILTS = [(15.0, 0.0), (-15.0, 0.0), (0.0, 11.0), (0.0, -11.0), (8.0, -6.0), (-0.5, 0.0)]


def taken(planes):
    (one,) = planes.arranged(on_tilt="resample")
    assert one.deshear is not None
    return one


def bent(hu):
    """Largest second difference within the planes; a linear mean is off by at most an eighth of it, per axis."""
    return max(float(np.abs(np.diff(hu, 2, axis)).max()) for axis in (1, 2))


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_anatomy_is_where_the_phantom_has_it(name, tilt):
    """V6: both signs, both axes, axial, coronal, sagittal, oblique planes."""
    planes = planes_at(HEIGHTS, tilt, ORIENTATIONS[name])
    one = taken(planes)
    grid, voxels = one.grid, resampled(planes, one)
    inside = voxels > OUTSIDE_HU
    off = np.abs(voxels - phantom(grid.to_lps(np.moveaxis(np.indices(voxels.shape), 0, -1))))
    # Within, only the bend is lost; half a voxel beyond the outermost centres the plane goes on as it ends.
    within = ndimage.binary_erosion(inside, np.ones((1, 3, 3)), border_value=0)
    assert off[within].max() <= bent(planes.hu) / 4
    assert off[inside].max() <= bent(planes.hu) / 4 + sum(
        np.abs(np.diff(planes.hu, 1, axis)).max() / 2 for axis in (1, 2)
    )
    assert inside.sum() >= 0.95 * planes.hu.size


@pytest.mark.parametrize("tilt", TILTS)
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_grid_is_rectangular_and_holds_every_source_voxel(name, tilt):
    planes = planes_at(HEIGHTS, tilt, ORIENTATIONS[name])
    grid = taken(planes).grid
    assert np.allclose(grid.directions.T @ grid.directions, np.eye(3), atol=1e-12)
    assert np.linalg.det(grid.directions[:, ::-1]) > 0  # x, y, z right-handed
    assert np.allclose(grid.spacing_mm, (1.75, *planes.pixel_mm))
    indexes = grid.to_index(planes.points())
    assert np.allclose(indexes[..., 0], np.arange(12)[:, None, None], atol=1e-6)
    assert indexes.min() > -1e-6
    assert (indexes <= np.array(grid.shape) - 1 + 1e-6).all()
    # and no plane of nothing on any side: canvas ends within a voxel of the outermost source voxel
    assert indexes[..., 1:].min(axis=(0, 1, 2)).max() < 1
    assert (np.array(grid.shape)[1:] - 1 - indexes[..., 1:].max(axis=(0, 1, 2))).max() < 1


def test_shifts_are_where_positions_put_the_planes():
    planes = planes_at(HEIGHTS, (8.0, -6.0))
    one = taken(planes)
    first = one.grid.to_index(planes.points()[:, 0, 0])
    assert np.allclose(first[:, 1:], one.deshear.shifts, atol=1e-3)


def test_the_first_plane_is_copied_to_the_last_digit():
    for tilt in TILTS:
        planes = planes_at(HEIGHTS, tilt)
        one = taken(planes)
        row, column = (int(v) for v in one.deshear.shifts[0])
        assert one.deshear.shifts[0] == (row, column)
        out = one.deshear.apply(planes.hu[0], 0)
        rows, columns = planes.hu.shape[1:]
        assert np.array_equal(out[row : row + rows, column : column + columns], planes.hu[0])
        out[row : row + rows, column : column + columns] = OUTSIDE_HU
        assert (out == OUTSIDE_HU).all()


def test_shear_of_whole_voxels_changes_no_value():
    planes = planes_at(np.arange(6) * 1.6, (np.degrees(np.arctan(0.5)), 0.0))  # 0.8 mm, one row, a plane
    one = taken(planes)
    assert [shift for shift, _ in one.deshear.shifts] == [0, 1, 2, 3, 4, 5]
    for k, plane in enumerate(resampled(planes, one)):
        assert np.array_equal(plane[k : k + planes.hu.shape[1]], planes.hu[k])


def by_simpleitk(plane, shift, canvas):
    """The same shift by SimpleITK: a 2-D image whose origin is the shift, onto a canvas at the origin."""
    image = SimpleITK.GetImageFromArray(plane)
    image.SetOrigin([shift[1], shift[0]])
    onto = SimpleITK.Image([canvas[1], canvas[0]], SimpleITK.sitkFloat64)
    return SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(image, onto, SimpleITK.Transform(), SimpleITK.sitkLinear, OUTSIDE_HU)
    )


@pytest.mark.parametrize("shift", [(0.25, 0.0), (2.75, 0.0), (0.0, 1.3), (3.6, 2.2), (1.0, 4.9), (5.0, 0.0)])
def test_simpleitk_shifts_a_plane_alike(shift):
    """V9: a second implementation, borders included."""
    plane = np.random.default_rng(3).normal(0, 400, (20, 31))
    ours = Deshear((26, 37), (shift,)).apply(plane, 0)
    assert np.abs(ours - by_simpleitk(plane, shift, (26, 37))).max() < 1e-9


def test_even_regions_keep_their_value_and_integers_never_leave_their_range():
    plane = np.full((9, 9), -1000.0)
    plane[3:6, 3:6] = 32767
    plane[6:, 6:] = -32768
    out = Deshear((12, 12), ((1.37, 2.61),)).apply(plane, 0, np.int16)
    assert out.dtype == np.int16
    assert (out.min(), out.max()) == (-32768, 32767)
    assert (out[2, 4:9] == -1000).all()


def test_integers_are_rounded_to_the_nearest_not_cut():
    plane = np.array([[-10.0], [-11.0], [-11.0], [7.0], [8.0], [8.0]])
    shifted = Deshear((7, 1), ((0.3, 0.0),))
    assert shifted.apply(plane, 0, np.int16)[:, 0].tolist() == [-10, -11, -11, 2, 8, 8, OUTSIDE_HU]
    assert shifted.apply(plane, 0, np.float32).dtype == np.float32
    assert shifted.apply(plane, 0)[3, 0] == pytest.approx(1.6)


def test_padding_beside_tissue_is_a_plain_value():
    plane = np.full((6, 3), OUTSIDE_HU)
    plane[3:] = 76.0
    assert Deshear((7, 3), ((0.5, 0.0),)).apply(plane, 0)[3, 1] == (OUTSIDE_HU + 76) / 2


def test_an_axis_without_tilt_is_neither_shifted_nor_grown_by_rounding_of_positions():
    planes = planes_at(HEIGHTS, (12.0, 0.0))
    planes.stack.positions[:, 0] += np.random.default_rng(2).uniform(-0.004, 0.004, len(HEIGHTS))
    one = taken(planes)
    assert one.grid.shape.x == planes.hu.shape[2]
    assert {column for _, column in one.deshear.shifts} == {0.0}


def test_a_deshear_is_small_and_goes_to_workers():
    one = taken(planes_at(HEIGHTS, (12.0, 0.0)))
    assert pickle.loads(pickle.dumps(one.deshear)) == one.deshear
    assert hash(one.deshear) == hash(pickle.loads(pickle.dumps(one.deshear)))
    assert len(pickle.dumps(one.deshear)) < 1000


@pytest.mark.real
@pytest.mark.parametrize(
    "archive", ["philips_ingenuity_tilt/TILT_NEG.zip", "philips_ingenuity_tilt/TILT_POS.zip", "siemens_tilt/CT.zip"]
)
def test_real_tilted_planes_keep_each_voxel_in_place(real_data, archive):
    """V6: read back at a source voxel's LPS point, the result differs by exactly the bend of the rows about it."""
    planes = real_planes(real_data / "vendors" / archive)
    in_place(planes, taken(planes))


@pytest.mark.real
def test_the_two_step_tilted_head_becomes_two_volumes_in_place(real_data):
    """V6: GE writes 4 mm then 7 mm steps, tilted by 18.5 degrees, in one series."""
    planes = real_planes(real_data / "vendors" / "ge_hispeed_dual_tilt_two_step" / "CT.zip")
    low, high = planes.arranged(on_tilt="resample", on_step_change="split")
    assert (low.indices, high.indices) == (tuple(range(14)), tuple(range(14, 28)))
    assert (low.grid.spacing_mm[0], high.grid.spacing_mm[0]) == pytest.approx((4.002, 6.999), abs=1e-3)
    assert all("18.5 degrees" in " ".join(one.notes) for one in (low, high))
    for one in (low, high):
        in_place(planes, one)


def in_place(planes, one):
    """Every source voxel of some rows, read linearly from the result at its own LPS point."""
    voxels = resampled(planes, one)
    points = planes.points()
    rng = np.random.default_rng(7)
    for k, index in enumerate(one.indices):
        source = planes.hu[index]
        rows = rng.integers(1, source.shape[0] - 1, 40)
        columns = rng.integers(0, source.shape[1], 40)
        at = one.grid.to_index(points[index, rows, columns])
        assert np.abs(at[:, 0] - k).max() < 0.01  # planes stay where they are along the normal
        got = ndimage.map_coordinates(voxels[k], at[:, 1:].T, order=1)
        part = at[:, 1] - np.floor(at[:, 1])
        bend = source[rows - 1, columns] - 2 * source[rows, columns] + source[rows + 1, columns]
        assert np.abs(got - source[rows, columns] - part * (1 - part) * bend).max() < 1.0
