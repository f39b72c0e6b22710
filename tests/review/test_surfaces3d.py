"""The 3-D view on ViewerModel: surfaces where the labels are, turned as the patient lies, cleared and clipped."""

from __future__ import annotations

import numpy as np
import pytest
from reading_made import POSITIONS, grid_at, opened
from review_store import CLASSES, RUN, SERIES, phantom, write_volume

from ctpipe.errors import UsageError
from ctpipe.review import surfaces3d
from ctpipe.review.surfaces3d import SurfaceView, level_for_surfaces
from ctpipe.store import open_store

SHAPE = (40, 160, 144)


@pytest.fixture(params=POSITIONS)
def view(request, tmp_path):
    """(view, series) of the phantom in one position of the patient."""
    write_volume(open_store(tmp_path / "S", "a"), SERIES, grid=grid_at(request.param, SHAPE))
    series = open_store(tmp_path / "S")[SERIES]
    view = SurfaceView()
    view.show(series, series.labels[RUN])
    return view, series


def test_a_surface_lies_around_the_voxels_of_its_class_in_mm(view):
    view, series = view
    assert {layer.name for layer in view.surfaces.values()} == set(CLASSES.values())
    labels = phantom()[1]
    for label, layer in view.surfaces.items():
        points, faces, _ = layer.data
        index = (points - series.grid.translation_mm) / series.grid.spacing_mm
        voxels = np.argwhere(labels == label)
        assert np.abs(index.min(axis=0) - voxels.min(axis=0)).max() <= 1.0, "within a voxel, smoothed corners and all"
        assert np.abs(index.max(axis=0) - voxels.max(axis=0)).max() <= 1.0
        # the enclosed volume, by the divergence theorem: closed, and all faces turned the same way
        a, b, c = points[faces].transpose(1, 0, 2)
        volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
        solid = voxels.shape[0] * np.prod(series.grid.spacing_mm)
        assert abs(volume) == pytest.approx(solid, rel={1: 0.05, 2: 0.3}[label])


def test_the_patient_stands_upright_and_is_seen_from_the_side_that_was_asked(view):
    view, series = view
    camera = view.viewer.scene.camera
    directions = series.grid.directions  # columns: z, y, x of the viewer in LPS
    for side, towards in {"A": (0, 1, 0), "P": (0, -1, 0), "L": (-1, 0, 0), "R": (1, 0, 0)}.items():
        view.face(side)
        assert directions @ np.array(camera.view_direction) == pytest.approx(towards, abs=1e-3)
        assert directions @ np.array(camera.up_direction) == pytest.approx((0, 0, 1), abs=1e-3)
    view.face("A")
    view.turn(90)
    seen = directions @ np.array(camera.view_direction)
    assert abs(seen[0]) == pytest.approx(1, abs=1e-3)
    assert directions @ np.array(camera.up_direction) == pytest.approx((0, 0, 1), abs=1e-3)
    with pytest.raises(UsageError, match="no side 'X'"):
        view.face("X")


@pytest.fixture
def supine(tmp_path):
    write_volume(open_store(tmp_path / "S", "a"), SERIES, grid=grid_at("supine", SHAPE))
    return opened(tmp_path / "S")


def test_clipping_cuts_surfaces_and_volume_at_the_same_place_and_opacity_is_kept(supine):
    session, _ = supine
    series = session.series
    view = SurfaceView()
    view.set_opacity(1, 0.3)
    view.show(series, series.labels[RUN])
    assert view.surfaces[1].opacity == 0.3
    view.set_opacity(2, 7.0)
    assert view.surfaces[2].opacity == 1.0
    view.clip(1, 0.5)
    view.clip(0, 0.25, keep_after=False)
    for layer in view.viewer.layers:
        across_y, across_z = layer.experimental_clipping_planes
        for plane, axis, part, sign in ((across_y, 1, 0.5, 1), (across_z, 0, 0.25, -1)):
            assert plane.normal[axis] == sign
            world = layer.data_to_world(plane.position)[axis]
            middle = series.grid.translation_mm[axis] + part * (SHAPE[axis] - 1) * series.grid.spacing_mm[axis]
            assert world == pytest.approx(middle)
    view.unclip()
    assert all(len(layer.experimental_clipping_planes) == 0 for layer in view.viewer.layers)
    view.show_volume(True)
    assert view.viewer.layers["volume"].visible


def test_one_class_comes_a_step_and_a_large_volume_is_taken_coarser(supine, monkeypatch):
    session, _ = supine
    series = session.series
    view = SurfaceView()
    steps = view.steps(series, series.labels[RUN])
    assert next(steps) == "liver"
    assert set(view.surfaces) == {1}
    assert list(steps) == ["lesion"]
    assert level_for_surfaces(series.grid) == 0
    monkeypatch.setattr(surfaces3d, "MOST_VOXELS", 300_000)
    assert level_for_surfaces(series.grid) == 1
    view.show(series, series.labels[RUN])
    points = view.surfaces[1].data[0]
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    voxels = np.argwhere(phantom()[1] == 1)
    expected = series.grid.translation_mm + (voxels.min(axis=0) + voxels.max(axis=0)) / 2 * series.grid.spacing_mm
    assert middle == pytest.approx(expected, abs=0.8), "the half-voxel shift of the coarse level is in its grid"
