"""Surfaces: closed, outward, welded where slabs meet, in patient millimetres; STL and GLB as trimesh reads them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import trimesh
from exports_made import RUN, WITH_ONE_AFFINE
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpipe.errors import InputError
from ctpipe.export.surface import surface
from ctpipe.pipeline import export
from ctpipe.volume import Grid
from ctpipe.words import LABEL_COLOURS

PRESENT = ("liver", "livertumor", "something of ours")


def grid_of(shape, sign=1):
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 0.7], [0, 0.8, 0], [2.5 * sign, 0.1, 0]]
    return Grid.from_affine(shape, affine)


def is_closed(mesh):
    """Whether every side of a face is that of another face, in the other sense."""
    sides = Counter(map(tuple, mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).tolist()))
    return all(sides[(b, a)] == n for (a, b), n in sides.items())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 0.98), st.sampled_from([0.0, 0.9]), st.sampled_from([1, -1]))
def test_any_mask_has_a_closed_surface_across_slabs(seed, share, smooth, sign):
    shape = (68, 6, 7)  # three slabs
    labels = (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)
    assert is_closed(surface(lambda a, b: labels[a:b], 1, grid_of(shape, sign), smooth))


@pytest.mark.parametrize("smooth", [0.0, 2.0])
def test_bands_give_the_surface_of_the_whole(smooth, monkeypatch):
    import ctpipe.export.surface as module
    from ctpipe.volume import slabs_of

    shape = (68, 20, 24)
    z, y, x = np.indices(shape)
    labels = (((z - 33) / 30) ** 2 + ((y - 10) / 8) ** 2 + ((x - 12) / 9) ** 2 <= 1).astype(np.uint8)
    banded = surface(lambda a, b: labels[a:b], 1, grid_of(shape), smooth)
    monkeypatch.setattr(module, "slabs_of", lambda n: slabs_of(n, n))
    whole = surface(lambda a, b: labels[a:b], 1, grid_of(shape), smooth)
    assert len(banded.points) == len(whole.points)
    assert len(banded.faces) == len(whole.faces)
    order = [np.lexsort(np.round(mesh.points, 4).T) for mesh in (banded, whole)]
    assert np.abs(banded.points[order[0]] - whole.points[order[1]]).max() < 1e-4


@pytest.mark.parametrize("grid", WITH_ONE_AFFINE)
def test_bodies_are_solid_and_lie_in_patient_millimetres(case_of, tmp_path, grid):
    """V6. Every voxel's centre lies inside its class's body, and outside the others'."""
    case = case_of(grid)
    report = export(case.store, case.series.id, RUN, "stl", tmp_path / "case.stl")
    assert [path.name for path in report.files] == ["case-liver.stl", "case-livertumor.stl", "case-label3.stl"]
    export(case.store, case.series.id, RUN, "glb", tmp_path / "case.glb")
    scene = trimesh.load(tmp_path / "case.glb")
    assert set(scene.geometry) == set(PRESENT)
    voxel = abs(np.linalg.det(case.grid.affine[:3, :3]))
    for label, (name, path) in enumerate(zip(PRESENT, report.files, strict=True), start=1):
        body = trimesh.load(path)
        assert body.is_watertight
        assert body.is_winding_consistent
        mask = case.labels == label
        assert 0.7 < body.volume / (mask.sum() * voxel) < 1.1  # corners are cut: more so of small parts
        outline = np.argwhere(mask)
        sides = 0.5 * np.vstack([np.eye(3), -np.eye(3)])
        corners = case.grid.to_lps(np.concatenate([outline + side for side in sides]))
        assert np.allclose(body.bounds, [corners.min(axis=0), corners.max(axis=0)], atol=1e-3)
        turned = scene.geometry[name].copy().apply_transform(scene.graph.get(name)[0])
        assert turned.volume * 1e9 == pytest.approx(body.volume, rel=1e-4)
        x, y, z = (turned.bounds * 1000).T  # glTF: metres, y up, z to the viewer
        assert np.allclose(np.column_stack([x, -z[::-1], y]), body.bounds, atol=1e-3)
        colour = scene.geometry[name].visual.material.baseColorFactor[:3] / 255
        assert np.allclose(colour, [_linear(part) for part in LABEL_COLOURS[label - 1]], atol=0.01)


def _linear(part):
    return part / 255 / 12.92 if part < 11 else ((part / 255 + 0.055) / 1.055) ** 2.4


def test_the_volume_of_a_large_body_is_that_of_its_voxels():
    shape = (68, 60, 64)
    z, y, x = np.indices(shape)
    labels = (((z - 33) / 30) ** 2 + ((y - 30) / 25) ** 2 + ((x - 32) / 28) ** 2 <= 1).astype(np.uint8)
    grid = grid_of(shape)
    voxels = labels.sum() * abs(np.linalg.det(grid.affine[:3, :3]))
    mesh = surface(lambda a, b: labels[a:b], 1, grid)
    assert trimesh.Trimesh(mesh.points, mesh.faces).volume == pytest.approx(voxels, rel=0.002)
    smooth = surface(lambda a, b: labels[a:b], 1, grid, 1.0)
    assert trimesh.Trimesh(smooth.points, smooth.faces).volume == pytest.approx(voxels, rel=0.01)
    assert trimesh.Trimesh(smooth.points, smooth.faces).area < trimesh.Trimesh(mesh.points, mesh.faces).area


def test_what_smoothing_takes_away_is_told(case_of, tmp_path):
    case = case_of("axial")
    with pytest.raises(InputError, match="nothing is left"):
        export(case.store, case.series.id, RUN, "glb", tmp_path / "case.glb", smooth_mm=10)
    assert not (tmp_path / "case.glb").exists()
    report = export(case.store, case.series.id, RUN, "glb", tmp_path / "case.glb", smooth_mm=1.5)
    assert any("nothing is left of something of ours" in note for note in report.exports[0].written.notes)
    assert "something of ours" not in trimesh.load(tmp_path / "case.glb").geometry
