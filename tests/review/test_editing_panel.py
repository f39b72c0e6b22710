"""The panel and the mouse on the real viewer: what is drawn by hand is one journalled stroke."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from ctpipe.review import journal as journal_module

pytestmark = pytest.mark.display
PLANE = 12


@pytest.fixture
def room(store_path, one_window):
    """(viewer, session, panel) with the working copy open."""
    from ctpipe.review.editing_widget import EditingWidget
    from ctpipe.review.session import ReviewSession
    from ctpipe.review.view import settle

    viewer = one_window
    session = ReviewSession(viewer, store_path)
    session.show()
    session.edit()
    session.edit_preferred()
    panel = EditingWidget(session.editing)
    viewer.window.add_dock_widget(panel, name="Correcting", area="right")
    settle(3)
    viewer.reset_view()
    settle()
    yield viewer, session, panel
    session.close()
    viewer.window.remove_dock_widget("all")


def on_canvas(viewer, layer, voxel):
    """Where a voxel is drawn, in pixels of the canvas widget."""
    from qtpy.QtCore import QPoint

    native = viewer.window._qt_viewer.canvas.native
    world = np.asarray(layer.data_to_world(voxel))[1:]
    away = (world - np.asarray(viewer.camera.center)[1:]) * viewer.camera.zoom
    return native, QPoint(round(native.width() / 2 + away[1]), round(native.height() / 2 + away[0]))


def test_a_stroke_by_hand_is_one_action_where_it_was_drawn(room, tmp_path):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    from ctpipe.review.view import settle

    viewer, session, panel = room
    before = session.copy.array.copy()
    viewer.dims.set_current_step(0, PLANE)
    panel.radius.setValue(4.0)
    panel.buttons["paint"].click()
    session.layer.selected_label = 1
    settle()
    for act, voxel in (("mousePress", 60), ("mouseMove", 70), ("mouseMove", 80), ("mouseRelease", 80)):
        native, point = on_canvas(viewer, session.layer, (PLANE, voxel, 60))
        if act == "mouseMove":
            QTest.mouseMove(native, point)
        else:
            getattr(QTest, act)(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, point)
        settle(2)
    assert [entry.kind for entry in session.copy.journal.entries] == ["brush"]
    changed = np.nonzero(session.copy.array != before)
    assert set(changed[0]) == {PLANE}
    assert abs((changed[1].min() + changed[1].max()) / 2 - 70) <= 2
    assert abs((changed[2].min() + changed[2].max()) / 2 - 60) <= 1
    assert changed[1].max() - changed[1].min() >= 20 + 2 * 4.0 / 0.6 - 4
    assert panel.state.text().startswith("brush: ")
    viewer.screenshot(path=str(tmp_path / "correcting.png"), canvas_only=False, flash=False)
    QTest.keyClick(native, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    settle(2)
    assert np.array_equal(session.copy.array, before)
    assert panel.state.text().startswith("undo brush: ")


def test_the_panel_shows_settings_errors_and_a_full_disk(room, monkeypatch):
    _, session, panel = room
    tools = session.editing.tools
    session.layer.brush_size = 20
    assert panel.radius.value() == pytest.approx(tools.radius_mm)
    panel.three_d.click()
    assert tools.three_d
    panel.limit.click()
    assert tools.hu_range == (-50, 150)
    panel.high.setValue(80)
    assert tools.hu_range == (-50, 80)
    panel.limit.click()
    assert tools.hu_range is None
    session.layer.selected_label = 9
    panel.buttons["smooth"].click()
    assert "class 9 is not in the volume" in panel.state.text()

    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert panel.again.isHidden()
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "pwrite", full)
        tools.brush([(PLANE, 60, 60)], 1)
        assert panel.state.text().startswith("NOT SAVED, 1 in memory")
        assert not panel.again.isHidden()
        assert not panel.elsewhere.isHidden()
    panel.again.click()
    assert panel.state.text() == "saved: 1 actions that were in memory"
    assert panel.again.isHidden()
