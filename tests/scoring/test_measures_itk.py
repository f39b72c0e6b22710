"""Volumes, places and diameters against SimpleITK and brute force: within half a voxel, whatever way a grid lies."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from lesions_made import SPACING, grid_of
from scipy import ndimage
from scipy.spatial.distance import pdist, squareform

import ctpipe
from ctpipe.scoring import measure
from ctpipe.store import open_store
from ctpipe.volume import Grid


def image_of(labels, grid: Grid) -> sitk.Image:
    """Labels as SimpleITK places them in the patient."""
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.affine[:3, 3].tolist())
    image.SetDirection(grid.directions[:, [2, 1, 0]].ravel().tolist())
    return image


def check(labels, grid: Grid, name: str) -> int:
    """Hold every component of label 1 against SimpleITK; how many there were."""
    ours = measure(lambda a, b: labels[a:b], None, grid, {1: name})
    image = image_of((labels == 1).astype(np.uint8), grid)
    parts = sitk.ConnectedComponent(image, True)
    numbers = sitk.GetArrayFromImage(parts)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(parts)
    assert shapes.GetNumberOfLabels() == len(ours)
    for one in ours:
        n = int(numbers[one.first])
        assert one.volume_ml == pytest.approx(shapes.GetPhysicalSize(n) / 1000, rel=1e-9)
        assert np.allclose(one.centre_mm, shapes.GetCentroid(n), atol=1e-3)
        check_axes(one, numbers[one.axes.plane] == n, grid, image)
        planes = [plane for plane in range(len(numbers)) if (numbers[plane] == n).any()]
        longest = max(feret(numbers[plane] == n, grid) for plane in planes)
        assert longest < one.axes.long_mm + 1e-9
        assert one.axes.long_mm <= longest + max(grid.spacing_mm[1:]) + 1e-9  # half a voxel at either end
    return len(ours)


def feret(mask, grid: Grid) -> float:
    """SimpleITK's greatest diameter of a plane, between centres of voxels."""
    plane = sitk.GetImageFromArray(mask.astype(np.uint8))
    plane.SetSpacing(grid.spacing_mm[:0:-1])
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputeFeretDiameterOn()
    shapes.Execute(plane)
    return shapes.GetFeretDiameter(1)


def check_axes(one, mask, grid: Grid, image: sitk.Image) -> None:
    """Ends lie in the patient where SimpleITK puts their indexes, half a voxel from voxels that are farthest apart."""
    half = max(grid.spacing_mm[1:]) / 2
    voxels = np.argwhere(mask)
    mm = grid.to_lps(np.column_stack([np.full(len(voxels), one.axes.plane), voxels]))
    ends = np.array([grid.to_lps((one.axes.plane, *end)) for end in one.axes.long_ends])
    theirs = [image.TransformContinuousIndexToPhysicalPoint((x, y, float(one.axes.plane)))
              for y, x in one.axes.long_ends]  # fmt: skip
    assert np.allclose(ends, theirs, atol=1e-6)
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(one.axes.long_mm)
    nearest = [np.linalg.norm(mm - end, axis=1).min() for end in ends]
    assert max(nearest) <= half + 1e-9
    assert squareform(pdist(mm)).max() >= one.axes.long_mm - 2 * half - 1e-9 if len(mm) > 1 else True
    short = np.array([grid.to_lps((one.axes.plane, *end)) for end in one.axes.short_ends])
    along, across = ends[1] - ends[0], short[1] - short[0]
    assert along @ across == pytest.approx(0, abs=1e-6 * max(one.axes.long_mm, 1) ** 2)
    if len(mm) < 30:
        return
    # brute force: the widest strip, one voxel thick, of a convex body at a right angle to the long axis
    u = (mm - ends[0]) @ along / one.axes.long_mm
    v = (mm - ends[0]) @ across / np.linalg.norm(across)
    strips = np.floor(u / (2 * half)).astype(int)
    widest = max(np.ptp(v[strips == strip]) for strip in np.unique(strips))
    assert one.axes.short_mm >= widest - 1e-9
    if len(mm) >= 0.95 * area(mask):  # a hollow body's hull is wider than any strip of it
        assert one.axes.short_mm <= widest + 4 * half


def area(mask) -> int:
    """Voxels of the convex hull of a plane's mask."""
    from skimage.morphology import convex_hull_image

    return int(convex_hull_image(mask).sum())


@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal", "oblique", "reversed", "feet first"])
def test_bodies_on_every_make_of_grid_agree(orientation):
    shape = (38, 50, 54)
    smooth = ndimage.gaussian_filter(np.random.default_rng(8).random(shape), (1.6, 4, 5))
    labels = (smooth > np.quantile(smooth, 0.93)).astype(np.uint8)
    z, y, x = np.indices(shape)
    labels[((z - 30) / 4) ** 2 + ((y - 24) / 9.4) ** 2 + ((x - 27) / 15.3) ** 2 <= 1] = 1
    assert check(labels, grid_of(shape, orientation, SPACING), "body") > 5


@pytest.mark.real
def test_a_drawn_lesion_of_a_real_series_agrees(real_data, tmp_path):
    folder = real_data / "sts" / "STS_019"
    ctpipe.ingest([folder / "CT.zip"], tmp_path / "S", labels=[folder / "CT_mask.nii.gz"], classes="lesion=1:CT_mask")
    (series,) = open_store(tmp_path / "S").values()
    assert check(series.labels["truth"].array.values, series.grid, "lesion") > 0
