"""Crosshair, HU, ruler and letters against SimpleITK on the same files: all positions of a patient, and real CT."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from reading_made import POSITIONS, Case, by_simpleitk, drag, grid_at, opened, synthetic_case
from review_store import write_volume

from ctpipe.review.orientation import letters, panes_of, place
from ctpipe.store import open_store
from ctpipe.volume import Grid


@pytest.fixture(scope="module", params=[*POSITIONS, pytest.param("STS_019", marks=pytest.mark.real)])
def case(request, tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    if not request.param.startswith("STS"):
        return synthetic_case(folder, request.param)
    import ctpipe

    archive = request.getfixturevalue("real_data") / "sts" / request.param / "CT.zip"
    ctpipe.ingest([archive], folder / "S")
    with zipfile.ZipFile(archive) as found:
        found.extractall(folder / "dicom")
    return Case(folder / "S", by_simpleitk([path for path in (folder / "dicom").rglob("*") if path.is_file()]))


def test_the_crosshair_points_at_the_place_and_hu_that_simpleitk_has(case):
    """RELIABILITY V6: within half a voxel, here to a thousandth."""
    session, reading = opened(case.store)
    shape = np.asarray(session.series.grid.shape)
    rng = np.random.default_rng(3)
    for index in (*rng.integers(0, shape, (12, 3)), (0, 0, 0), shape - 1):
        reading.go_to(*index)
        assert reading.planes.voxel == tuple(index)
        probe = reading.probe()
        at, hu = case.theirs(probe.lps_mm)
        # SimpleITK's planes are in the same order along the normal, so the index is the same too
        assert at == pytest.approx(index, abs=1e-3)
        assert probe.hu == max(hu, -1024)
        for viewer in reading.planes.viewers:  # what napari slices is that very voxel
            axis = reading.planes.panes[viewer].order[0]
            layer = viewer.layers[0]
            assert round(float(layer.world_to_data(viewer.dims.point)[axis])) == index[axis]


def test_a_ruler_measures_what_simpleitk_measures(case):
    session, reading = opened(case.store)
    shape = np.asarray(session.series.grid.shape)
    rng = np.random.default_rng(5)
    for viewer in reading.planes.viewers:
        fixed = reading.planes.panes[viewer].order[0]
        start, stop = rng.uniform(0, shape - 1, (2, 3))
        stop[fixed] = start[fixed]
        reading.measure()
        ends = [reading.planes.point(index) for index in (start, (start + stop) / 2, stop)]
        drag(viewer, 1, [((10 * n, 0), end) for n, end in enumerate(ends)])
        a, b = (case.at(end) for end in (start, stop))
        assert reading.lines[0].length_mm(session.series.grid) == pytest.approx(np.linalg.norm(a - b), abs=1e-3)


def test_the_letters_at_the_edges_are_where_simpleitk_has_the_patient(case):
    """The strongest letter of each edge is the side that SimpleITK's coordinates grow to."""
    session, reading = opened(case.store)
    shape = np.asarray(session.series.grid.shape)
    for viewer, pane in reading.planes.panes.items():
        assert viewer.dims.order == pane.order
        _, down, right = pane.order
        runs = {axis: 1 if word in ("down", "right") else -1
                for axis, word in zip((down, right), pane.orientation, strict=True)}  # fmt: skip
        for axis, (near, far) in ((right, (pane.left, pane.right)), (down, (pane.top, pane.bottom))):
            first, last = (shape - 1) / 2, (shape - 1) / 2
            first[axis], last[axis] = (0, shape[axis] - 1)[:: runs[axis]]
            low, high = case.at(first), case.at(last)
            grown = int(np.abs(high - low).argmax())
            positive = high[grown] > low[grown]
            assert far[0] == "LPH"[grown] if positive else far[0] == "RAF"[grown]
            assert near[0] == "RAF"[grown] if positive else near[0] == "LPH"[grown]


@pytest.mark.parametrize("position", POSITIONS)
def test_the_display_is_radiological_in_every_position(position):
    axial, coronal, sagittal = panes_of(grid_at(position))
    assert [pane.name for pane in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    assert (axial.left[0], axial.right[0], axial.top[0], axial.bottom[0]) == ("R", "L", "A", "P")
    assert (coronal.left[0], coronal.right[0], coronal.top[0], coronal.bottom[0]) == ("R", "L", "H", "F")
    assert (sagittal.left[0], sagittal.right[0], sagittal.top[0], sagittal.bottom[0]) == ("A", "P", "H", "F")


def test_an_oblique_edge_has_the_letters_of_all_sides_that_it_leans_to():
    assert letters((1, 0, 0)) == "L"
    assert letters((0.8, -0.6, 0)) == "LA"
    assert letters((-0.3, 0.5, -0.8)) == "FPR"
    assert letters((1, 0.05, 0)) == "L"  # less than is seen
    axial, _, _ = panes_of(grid_at("oblique"))
    assert (axial.right, axial.left) == ("LP", "RA")  # turned by 25 degrees about the axis to the head
    assert place((-12.5, -3.04, 104.2)) == "R 12.5, A 3.0, H 104.2 mm"


def test_the_canvas_shows_the_letters_and_the_name_of_the_plane(tmp_path):
    write_volume(open_store(tmp_path / "S", "a"), "ab" * 8, grid=grid_at("prone", (40, 160, 144)))
    _, reading = opened(tmp_path / "S")
    for viewer, pane in reading.planes.panes.items():
        overlays = viewer.canvas.overlays
        assert {edge: overlays[f"ctpipe_{edge}"].text for edge in pane.edges} == pane.edges
        assert overlays["ctpipe_name"].text == pane.name
        assert all(overlays[f"ctpipe_{edge}"].visible for edge in pane.edges)


def test_on_a_sheared_grid_lengths_are_those_of_the_patient(tmp_path):
    """A kept gantry tilt is drawn straight, but measured as it is."""
    affine = grid_at("supine", (40, 160, 144)).affine.copy()
    affine[1, 0] = 1.5  # each plane 1.5 mm further back
    grid = Grid.from_affine((40, 160, 144), affine, "frame")
    write_volume(open_store(tmp_path / "S", "a"), "ab" * 8, grid=grid)
    _, reading = opened(tmp_path / "S")
    sagittal = next(viewer for viewer, pane in reading.planes.panes.items() if pane.name == "sagittal")
    reading.measure()
    ends = [reading.planes.point(index) for index in ((5, 40, 70), (15, 40, 70))]
    drag(sagittal, 1, [((0, 0), ends[0]), ((0, 50), ends[1])])
    assert reading.lines[0].length_mm(grid) == pytest.approx(np.hypot(10 * 3.0, 10 * 1.5))
