"""Reading on napari's ViewerModel, without a window: linked planes, windows, slabs, probe, ruler."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from reading_made import drag, opened
from review_store import RUN, SERIES, SHAPE, SPACING, phantom, write_volume

from ctpipe.errors import UsageError
from ctpipe.review.reading import Reading
from ctpipe.review.windows import PRESETS, SOFT_TISSUE, Window, dragged, own_window
from ctpipe.store import open_store

POINT = (18, 70, 65)  # in the lesion


@pytest.fixture
def shown(store_path):
    """(session, reading) of the phantom with its prediction in view."""
    session, reading = opened(store_path)
    session.look_at(RUN)
    yield session, reading
    session.close()


def sliced(viewer, layer: int = 0) -> np.ndarray:
    """What napari shows of a layer at full resolution, as (down, right) of the plane."""
    shown = viewer.layers[layer]
    if shown.multiscale:
        shown.locked_data_level = 0
    return np.asarray(shown._slice.image.raw)


def test_three_planes_of_the_same_arrays_go_through_one_point(shown):
    session, reading = shown
    hu, labels = phantom()
    reading.go_to(*POINT)
    assert [pane.name for pane in reading.planes.panes.values()] == ["axial", "coronal", "sagittal"]
    for viewer, cut in zip(reading.planes.viewers, (np.s_[18], np.s_[:, 70], np.s_[:, :, 65]), strict=True):
        assert np.array_equal(sliced(viewer), hu[cut])
        assert np.array_equal(sliced(viewer, 1), labels[cut])
        assert [layer.name for layer in viewer.layers] == [layer.name for layer in session.viewer.layers]
        assert viewer.layers[1].editable is False


def test_a_click_in_any_plane_moves_the_others_and_a_drag_none(shown):
    _, reading = shown
    seen = []
    reading.moved.connect(seen.append)
    for viewer, voxel in zip(reading.planes.viewers, ((20, 50, 60), (8, 50, 100), (8, 90, 100)), strict=True):
        before = reading.planes.voxel
        fixed = reading.planes.panes[viewer].order[0]
        at = np.array(reading.planes.point(voxel))
        at[fixed] = viewer.dims.point[fixed]
        drag(viewer, 1, [((5, 5), at), ((40, 5), at + 9)])
        assert reading.planes.voxel == before, "a drag moves the plane, not the point"
        drag(viewer, 1, [((5, 5), at + 0.2)])
        expected = np.where(np.arange(3) == fixed, before, voxel)
        assert reading.planes.voxel == tuple(expected)
        for other in reading.planes.viewers:
            axis = reading.planes.panes[other].order[0]
            assert other.dims.current_step[axis] == expected[axis]
    assert seen[-1] == reading.planes.voxel


def test_the_slider_of_a_side_leads_the_viewer_and_a_layer_goes_from_all(shown):
    session, reading = shown
    coronal = reading.planes.sides[0]
    coronal.dims.set_current_step(1, 33)
    assert reading.planes.voxel[1] == 33
    session.viewer.layers.remove(session.viewer.layers[1])
    assert all(len(viewer.layers) == 1 for viewer in reading.planes.viewers)


def test_a_point_outside_is_brought_to_the_border_and_fractions_to_the_nearest_voxel(shown):
    _, reading = shown
    reading.go_to(-5, 1e6, 10.6)
    assert reading.planes.voxel == (0, SHAPE[1] - 1, 11)


def test_a_plane_that_is_zoomed_elsewhere_looks_at_the_point_after_a_jump(shown):
    _, reading = shown
    for viewer in reading.planes.viewers:
        viewer.scene.camera.zoom = 50.0
    reading.go_to(35, 140, 20)
    down, right = reading.planes.point((35, 140, 20))[1:]
    assert reading.session.viewer.scene.camera.center[-2:] == pytest.approx((down, right))


def test_the_crosshair_goes_through_the_voxel_and_leaves_it_free(shown):
    _, reading = shown
    reading.go_to(*POINT)
    at = reading.planes.point(POINT)
    for viewer, pane in reading.planes.panes.items():
        lines = reading.planes.cross(viewer)
        wanted = at[list(pane.order[1:])]
        assert len(lines) == 4
        for line in lines:
            assert any(np.allclose(line[:, axis], wanted[axis]) for axis in (0, 1))
            assert np.abs(line - wanted).max(axis=1).min() >= 4.0 - 1e-6, "8 mm around the point are free"
    assert reading.toggle_crosshair() == "crosshair off"
    assert not reading.crosshair


def test_painting_and_changes_of_a_working_copy_are_seen_in_all_planes(store_path):
    session, reading = opened(store_path)
    session.edit(RUN)
    reading.go_to(12, 60, 80)
    layer = session.layer
    layer.brush_size = 9
    layer.paint((12, 60, 80), 2)
    coronal = reading.planes.sides[0].layers["correction"]
    assert (np.asarray(coronal._slice.image.raw)[12] == layer.data[12, 60]).all()
    assert np.asarray(coronal._slice.image.raw)[12, 80] == 2
    layer.data[30, 60, 90:95] = 1  # another part changed the array, and tells so
    reading.planes.labels_changed(layer)
    assert (np.asarray(coronal._slice.image.raw)[30, 90:95] == 1).all()
    session.close()
    assert "correction" not in reading.planes.sides[0].layers


def test_the_looks_of_a_layer_are_the_same_in_all_planes(shown):
    session, reading = shown
    reading.set_window(Window(-500, 1400))
    session.viewer.layers[1].opacity = 0.25
    session.viewer.layers[1].visible = False
    for viewer in reading.planes.viewers:
        assert tuple(viewer.layers[0].contrast_limits) == (-1200, 200)
        assert viewer.layers[1].opacity == 0.25
        assert not viewer.layers[1].visible


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_shows_its_window(shown, name):
    session, reading = shown
    assert reading.window(name).startswith(f"{name}: W {PRESETS[name].width:.0f} L {PRESETS[name].centre:.0f}")
    assert tuple(session.viewer.layers[0].contrast_limits) == PRESETS[name].limits


@pytest.mark.parametrize("voi", [(40.0, 0.0), None])
def test_a_series_with_a_window_of_no_width_is_shown_all_the_same(tmp_path, voi):
    write_volume(open_store(tmp_path / "S", "a"), SERIES, voi=voi)
    session, reading = opened(tmp_path / "S")
    reading.window("lung")
    reading.window("own")
    assert tuple(session.viewer.layers[0].contrast_limits) == SOFT_TISSUE.limits
    assert own_window((40.0, 1.0)).limits == (39.5, 40.5)


def test_a_drag_with_the_right_button_widens_and_brightens(shown):
    session, reading = shown
    reading.set_window(Window(50, 300))
    drag(reading.planes.sides[1], 2, [((10, 10), (0, 0, 0)), ((60, 10), (0, 0, 0)), ((110, 30), (0, 0, 0))])
    assert tuple(session.viewer.layers[0].contrast_limits) == Window(50 - 20 * 1.5, 300 + 100 * 1.5).limits
    assert dragged(Window(50, 300), -1000, 0).width == 1, "never below 1"
    drag(session.viewer, 2, [((10, 10), (0, 0, 0)), ((60, 10), (0, 0, 0))], modifiers=("Shift",))
    assert tuple(session.viewer.layers[0].contrast_limits) == Window(20, 450).limits, "with Shift it is napari's"


def test_a_brush_in_hand_keeps_click_and_drag_to_itself(store_path):
    session, reading = opened(store_path)
    session.edit(RUN)
    session.layer.mode = "paint"
    before, limits = reading.planes.voxel, tuple(reading.image.contrast_limits)
    at = reading.planes.point((before[0], 20, 20))
    for button in (1, 2):
        event = SimpleNamespace(type="mouse_press", button=button, pos=np.zeros(2), position=tuple(at), modifiers=(),
                                handled=False)  # fmt: skip
        assert list(reading._drag(session.viewer, event)) == []
    assert (reading.planes.voxel, tuple(reading.image.contrast_limits)) == (before, limits)
    session.close()


@pytest.mark.parametrize(("mode", "of"), [("max", np.max), ("mean", np.mean), ("min", np.min)])
def test_a_slab_is_the_maximum_mean_or_minimum_of_its_planes(shown, mode, of):
    session, reading = shown
    hu, labels = phantom()
    reading.go_to(*POINT)
    while str(reading.image.projection_mode) != mode:
        reading.next_projection()
    assert "axial 5 planes, coronal 17 planes, sagittal 9 planes" in reading.thicken(10.0)
    for viewer, axis, beside in zip(reading.planes.viewers, (0, 1, 2), (2, 8, 4), strict=True):
        planes = np.take(hu, range(POINT[axis] - beside, POINT[axis] + beside + 1), axis)
        assert np.allclose(sliced(viewer), of(planes, axis=axis))
        assert np.array_equal(sliced(viewer, 1), np.take(labels, POINT[axis], axis)), "labels stay those of the plane"
    assert reading.thicken(-3.0).endswith("axial 1 planes, coronal 1 planes, sagittal 1 planes")
    assert np.array_equal(sliced(session.viewer), hu[18])


def test_the_probe_tells_the_stored_hu_and_the_classes_and_the_corner_shows_it(shown):
    session, reading = shown
    reading.go_to(*POINT)
    probe = reading.probe()
    assert (probe.hu, probe.labels) == (20.0, {"prediction 4be1c0ff": "lesion"})
    assert str(probe).startswith("20 HU; z 18, y 70, x 65; R 2.0, A 18.0, H 145.0 mm; prediction 4be1c0ff: lesion")
    note = session.viewer.canvas.overlays["ctpipe_note"].text
    assert note.splitlines()[0] == "20 HU"
    assert "W 300 L 50" in note
    reading.toggle_labels()
    assert reading.probe().labels == {}
    reading.toggle_labels()
    assert reading.probe().labels


def test_a_ruler_and_a_recist_pair_are_drawn_in_mm(shown):
    session, reading = shown
    told = []
    reading.told.connect(told.append)
    session.viewer.layers.selection.active = session.viewer.layers[0]
    reading.recist()
    ends = [reading.planes.point((18, y, x)) for y, x in ((40, 60), (90, 60), (60, 50), (60, 70))]
    drag(session.viewer, 1, [((0, 0), ends[0]), ((0, 50), ends[1])])
    drag(session.viewer, 1, [((0, 0), ends[2]), ((20, 0), ends[3])])
    assert told == ["30.0 mm", "30.0 x 24.0 mm"]
    assert len(reading.lines) == 2
    assert session.viewer.layers.selection.active is session.viewer.layers[0], "the ruler is not the active layer"
    assert session.viewer.layers["ruler"].data[0, 1] == pytest.approx((0, 50 * SPACING[1], 0))
    assert "ruler" in reading.planes.sides[0].layers
    reading.recist()
    drag(session.viewer, 1, [((0, 0), ends[0]), ((0, 50), ends[1])])
    drag(session.viewer, 1, [((0, 0), ends[0]), ((0, 50), ends[1] + (0, 0, 12.0))])
    assert told[-1] == "32.3 x 30.0 mm (not perpendicular: 22 degrees)"
    assert reading.clear_lines() == "lines removed"
    assert "ruler" not in session.viewer.layers
    before = reading.planes.voxel
    drag(session.viewer, 1, [((0, 0), ends[2])])
    assert reading.planes.voxel != before, "nothing is armed any more: a click moves the crosshair"


def test_the_large_plane_goes_round_and_the_point_stays(shown):
    session, reading = shown
    reading.go_to(*POINT)
    hu, _ = phantom()
    assert [reading.next_pane() for _ in range(2)] == ["coronal", "sagittal"]
    assert np.array_equal(sliced(session.viewer), hu[:, :, 65])
    assert session.viewer.scene.camera.orientation2d == ("up", "right")
    assert reading.planes.voxel == POINT
    assert reading.next_pane() == "axial"


def test_another_series_is_read_on_its_own_grid(store_path):
    small = np.zeros((10, 130, 140), np.int16)
    write_volume(open_store(store_path, "a"), "aa" * 8, arrays=(small, None))
    session, reading = opened(store_path, SERIES)
    reading.thicken(20.0)
    reading.go_to(35, 150, 140)
    session.show("aa")
    assert reading.planes.voxel == (5, 65, 70)
    assert reading.planes.grid == session.series.grid
    assert reading.thickness_mm == 0
    assert [[layer.name for layer in viewer.layers] for viewer in reading.planes.viewers] == [["CT aaaaaaaa"]] * 3


def test_without_a_series_a_command_says_what_to_do(store_path):
    from napari.components import ViewerModel

    from ctpipe.review.session import ReviewSession

    reading = Reading(ReviewSession(ViewerModel(), store_path))
    with pytest.raises(UsageError, match="choose a series first"):
        reading.measure()
