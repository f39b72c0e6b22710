"""Reading in the real viewer under an X display, by mouse and key events, and what is seen of it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from reading_made import POSITIONS, grid_at
from review_store import RUN, SERIES, SPACING, phantom, write_volume
from test_viewer import where_coloured

from ctpipe.review.keys import KeyMap
from ctpipe.review.reading import Reading
from ctpipe.review.session import ReviewSession
from ctpipe.review.view import settle
from ctpipe.store import open_store

pytestmark = pytest.mark.display


@pytest.fixture(scope="module")
def window(display, _made_store, tmp_path_factory):
    """(viewer, session, reading, keys, widget): one window for all tests here; opening it takes longest."""
    import gc

    import napari

    from ctpipe.review.reading_widget import ReadingWidget

    viewer = napari.Viewer(show=True)
    gc.freeze()  # as the review room does
    viewer.window.resize(1250, 850)
    session = ReviewSession(viewer, shutil.copytree(_made_store, tmp_path_factory.mktemp("window") / "S"))
    reading = Reading(session)
    session.show()
    keys = KeyMap(session, reading.commands(), {})
    widget = ReadingWidget(reading, keys)
    viewer.window.add_dock_widget(widget, name="Planes", area="right")
    settle()
    yield viewer, session, reading, keys, widget
    session.let_go()
    widget.shut()
    viewer.window._qt_window.hide()


@pytest.fixture
def room(display, window):
    """The window with the case as it is when it is opened."""
    _, session, reading, _, _ = window
    session.close()
    session.show(labels=RUN)
    if not reading.crosshair:
        reading.toggle_crosshair()
    reading.fit()
    settle(3)
    return window


def canvas_of(room, n: int):
    """The canvas of plane n: 0 the viewer's, 1 and 2 the sides'."""
    viewer, _, _, _, widget = room
    return (viewer.window._qt_viewer, *widget.canvases)[n].canvas


def pixel(room, n: int, voxel) -> tuple[int, int]:
    """Where a voxel lies in the canvas of plane n, as Qt counts."""
    reading = room[2]
    canvas, model = canvas_of(room, n), reading.planes.viewers[n]
    _, down, right = model.dims.order
    point = reading.planes.point(voxel)
    x, y = (canvas.view.scene.transform.map([point[right], point[down], 0, 1])[:2])
    return round(float(x)), round(float(y))


def mouse(room, n: int, button: str, *path: tuple[int, int]) -> None:
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    native = canvas_of(room, n).native
    which = getattr(Qt.MouseButton, button)
    QTest.mousePress(native, which, Qt.KeyboardModifier.NoModifier, QPoint(*path[0]))
    for at in path[1:]:
        _move(native, which, at)
        settle(1)  # napari takes a move every 5 ms
    QTest.mouseRelease(native, which, Qt.KeyboardModifier.NoModifier, QPoint(*path[-1]))
    settle(3)


def _move(native, button, at: tuple[int, int]) -> None:
    """QTest's own moves carry no button."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    here = QPointF(*at)
    there = QPointF(native.mapToGlobal(here.toPoint()))
    event = QMouseEvent(
        QEvent.Type.MouseMove, here, there, Qt.MouseButton.NoButton, button, Qt.KeyboardModifier.NoModifier
    )
    QApplication.sendEvent(native, event)


def press(room, text: str, n: int = 0) -> None:
    from qtpy.QtTest import QTest

    QTest.keyClicks(canvas_of(room, n).native, text)
    settle(3)


def picture(room, n: int) -> np.ndarray:
    settle()
    viewer, widget = room[0], room[4]
    return (viewer.window._qt_viewer, *widget.canvases)[n].screenshot(flash=False)[..., :3] / 255


def test_a_click_in_each_plane_moves_the_crosshair_of_all_to_that_voxel(room):
    reading = room[2]
    reading.go_to(20, 80, 70)
    for n, voxel in ((0, (20, 50, 60)), (1, (12, 50, 90)), (2, (25, 110, 90))):
        mouse(room, n, "LeftButton", pixel(room, n, voxel))
        assert np.abs(np.subtract(reading.planes.voxel, voxel)).max() <= 1, "within the width of a pixel"
        assert reading.planes.voxel[reading.planes.panes[reading.planes.viewers[n]].order[0]] == voxel[
            reading.planes.panes[reading.planes.viewers[n]].order[0]]  # fmt: skip


def test_the_crosshair_and_the_labels_are_seen_at_the_voxel_in_all_planes(room):
    reading = room[2]
    reading.go_to(18, 70, 65)  # in the lesion
    reading.planes.viewer.canvas.overlays["ctpipe_note"].visible = False
    for n in range(3):
        seen = picture(room, n)
        yellow = (seen[..., 0] > 0.75) & (seen[..., 1] > 0.6) & (seen[..., 2] < 0.5)
        x, y = pixel(room, n, (18, 70, 65))
        rows, columns = np.bincount(np.nonzero(yellow)[0]), np.bincount(np.nonzero(yellow)[1])
        assert abs(int(rows.argmax()) - y) <= 2
        assert abs(int(columns.argmax()) - x) <= 2
        assert where_coloured(seen, 2)[y - 3 : y + 4, x - 3 : x + 4].mean() > 0.6, "the point itself is free"
    press(room, "c")
    seen = picture(room, 0)
    assert ((seen[..., 0] > 0.75) & (seen[..., 1] > 0.6) & (seen[..., 2] < 0.5)).sum() < 50


def test_planes_have_true_proportions_and_the_head_is_up(room):
    reading = room[2]
    reading.go_to(18, 70, 65)
    press(room, "c")
    labels = phantom()[1] > 0
    for n, (axis, down, right, up) in enumerate(((0, 1, 2, False), (1, 0, 2, True), (2, 0, 1, True))):
        cut = np.take(labels, (18, 70, 65)[axis], axis)
        sides = [np.ptp(np.nonzero(cut.any(axis=1 - k))[0]) + 1 for k in (0, 1)]
        seen = where_coloured(picture(room, n), 1) | where_coloured(picture(room, n), 2)
        rows, columns = np.nonzero(seen)
        drawn = (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
        assert drawn == pytest.approx(sides[0] * SPACING[down] / (sides[1] * SPACING[right]), rel=0.05)
        first = pixel(room, n, [5 if k == down else 0 for k in range(3)])[1]
        last = pixel(room, n, [30 if k == down else 0 for k in range(3)])[1]
        assert (last < first) is up


def test_presets_by_key_and_windows_by_right_drag(room):
    session, reading = room[1], room[2]
    image = reading.image
    before = picture(room, 0)
    press(room, "3")
    assert tuple(image.contrast_limits) == (-1200, 200)
    assert np.abs(picture(room, 0) - before).mean() > 0.02
    press(room, "0", n=1)  # the same keys in a plane beside
    assert tuple(image.contrast_limits) == (-100, 200)
    zoom = session.viewer.scene.camera.zoom
    x, y = pixel(room, 0, (20, 80, 70))
    mouse(room, 0, "RightButton", (x, y), (x + 20, y), (x + 40, y + 30))
    assert tuple(image.contrast_limits) == pytest.approx((50 - 45 - 180, 50 - 45 + 180))
    assert session.viewer.scene.camera.zoom == zoom, "napari does not zoom meanwhile"


def test_a_ruler_is_drawn_by_mouse_and_told_in_mm(room):
    reading = room[2]
    centre = tuple(reading.session.viewer.scene.camera.center)
    press(room, "m")
    z = reading.planes.voxel[0]
    start, stop = pixel(room, 0, (z, 40, 50)), pixel(room, 0, (z, 120, 50))
    mouse(room, 0, "LeftButton", start, ((start[0] + stop[0]) // 2, (start[1] + stop[1]) // 2), stop)
    assert reading.lines[0].length_mm(reading.session.series.grid) == pytest.approx(80 * SPACING[1], abs=0.6)
    assert tuple(reading.session.viewer.scene.camera.center) == centre, "the plane did not move"
    assert room[4].status.text().endswith(" mm")


def test_the_question_mark_shows_the_map(room):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    widget = room[4]
    room[0].window._qt_window.activateWindow()
    settle()
    QTest.keyClick(canvas_of(room, 0).native, Qt.Key.Key_Question, Qt.KeyboardModifier.ShiftModifier)
    settle()
    if widget.dialog is None:  # a display without a window manager gives no focus: then napari's own name of the key
        QTest.keyClick(canvas_of(room, 0).native, Qt.Key.Key_Slash, Qt.KeyboardModifier.ShiftModifier)
    assert widget.dialog is not None
    assert widget.dialog.isVisible()
    widget.dialog.close()


def test_enter_and_escape_by_key_events(room):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    session, keys = room[1], room[3]
    native = canvas_of(room, 0).native
    press(room, "e")  # napari's eraser: not in read mode
    QTest.keyClick(native, Qt.Key.Key_Return)
    settle(3)
    assert (str(keys.mode), str(session.layer.mode)) == ("edit", "paint")
    press(room, "e")
    assert session.layer.mode == "erase"
    QTest.keyClick(native, Qt.Key.Key_Escape)
    assert (str(keys.mode), str(session.layer.mode)) == ("read", "pan_zoom")
    press(room, "p")
    assert session.layer.mode == "pan_zoom"
    session.let_go()


SEEN = ("supine", "feet first, mirrored", "oblique")  # test_surfaces3d turns all positions, without a canvas


@pytest.mark.parametrize(
    "position", [pytest.param(one, marks=() if one in SEEN else pytest.mark.slow) for one in POSITIONS]
)
def test_from_the_front_the_patients_right_is_on_the_left_and_the_head_is_up(display, tmp_path, position):
    """The 3-D view is never a mirror image, however the grid lies."""
    from napari.qt import QtViewer, get_qapp

    from ctpipe.review.surfaces3d import SurfaceView

    grid = grid_at(position, (40, 160, 144), (2.0, 1.0, 1.0))
    index = np.stack(np.indices(grid.shape), axis=-1)
    offset = grid.to_lps(index) - grid.to_lps((np.asarray(grid.shape) - 1) / 2)
    labels = np.zeros(grid.shape, np.uint8)
    labels[np.linalg.norm(offset - (-25, 0, -20), axis=-1) < 12] = 1  # right, towards the feet
    labels[np.linalg.norm(offset - (25, 0, 20), axis=-1) < 12] = 2  # left, towards the head
    hu = np.zeros(grid.shape, np.int16)
    write_volume(open_store(tmp_path / "S", "a"), SERIES, grid=grid, arrays=(hu, labels))
    series = open_store(tmp_path / "S")[SERIES]
    view = SurfaceView()
    get_qapp()
    canvas = QtViewer(view.viewer)
    try:
        canvas.resize(400, 400)
        canvas.show()
        view.show(series, series.labels[RUN])
        settle()
        view.face("A")
        settle()
        seen = canvas.screenshot(flash=False)[..., :3] / 255
        right, left = (np.argwhere(where_coloured(seen, label)).mean(axis=0) for label in (1, 2))
        assert right[1] < left[1], "the patient's right is on the left"
        assert right[0] > left[0], "the head is up"
    finally:
        canvas.close()
        settle(3)


def test_the_3d_view_makes_its_surfaces_and_clips_them(room):
    from ctpipe.review.reading_widget import SurfaceWidget

    viewer, _, reading, _, _ = room
    widget = SurfaceWidget(reading)
    viewer.window.add_dock_widget(widget, name="3-D", area="right")
    settle()
    widget.start()
    for _ in range(200):
        settle(1)
        if not widget._timer.isActive():
            break
    assert widget.status.text() == "2 surfaces"
    settle()
    whole = where_coloured(widget.canvas.screenshot(flash=False)[..., :3] / 255, 1).sum()
    assert whole > 100
    widget.clips[2].setValue(50)
    settle()
    half = where_coloured(widget.canvas.screenshot(flash=False)[..., :3] / 255, 1).sum()
    assert 0.2 < half / whole < 0.8
    widget.clips[2].setValue(0)
    widget.class_box.setCurrentIndex(0)
    widget.opacity.setValue(0)
    settle()
    assert where_coloured(widget.canvas.screenshot(flash=False)[..., :3] / 255, 1).sum() < whole / 4
