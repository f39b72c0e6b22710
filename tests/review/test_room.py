"""The review room: keys count, parts meet; on ViewerModel, and in the real window by key and mouse events."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from test_viewer import shot, where_coloured
from worklist_store import SECOND, A, B, C, D

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from ctpipe.errors import UsageError
from ctpipe.review import open_review
from ctpipe.review.case_status import Status, read_status
from ctpipe.review.commands import Mode
from ctpipe.review.room import Room
from ctpipe.store import open_store


@pytest.fixture
def room(cases_path):
    made = Room(ViewerModel(), cases_path, "p-01")
    made.worklist.arrange("patient")
    made.worklist.open()
    yield made
    made.close()
    made.worklist.preloader.wait()


class Presses:
    """Presses keys as napari does: the active layer's binding first, then the viewer's; counts them."""

    def __init__(self, viewer):
        self.viewer, self.count = viewer, 0

    def __call__(self, key: str) -> None:
        from app_model.types import KeyBinding

        self.count += 1
        active = self.viewer.layers.selection.active
        for provider in (active, self.viewer) if active is not None else (self.viewer,):
            found = provider.keymap.get(KeyBinding.from_str(key))
            if found is not None:
                found(provider)
                return
        raise AssertionError(f"{key} is not bound")


def test_an_accepted_case_costs_one_key_press(room, cases_path):
    press = Presses(room.session.viewer)
    for _ in range(3):
        press("A")
    assert press.count == 3
    assert [read_status(cases_path, series).newest().status for series in (A, B, C)] == [Status.ACCEPTED] * 3
    assert room.worklist.current.startswith("dddd")
    assert room.session.viewer.status.startswith(f"{C[:8]} accepted; case 4 of 4")


def test_a_corrected_case_is_accepted_with_two(room, cases_path):
    room.session.edit(SECOND)
    room.session.layer.paint((12, 80, 70), 2)
    press = Presses(room.session.viewer)
    with pytest.raises(AssertionError, match="A is not bound"):  # while one edits, the keys of reading do nothing
        press("A")
    press("Escape")
    press("A")
    assert read_status(cases_path, A).newest().status is Status.CORRECTED


def test_next_and_previous_by_one_key_each(room):
    press = Presses(room.session.viewer)
    press("N")
    assert room.worklist.current == B
    press("N")
    press("Shift+N")
    assert room.worklist.current == B
    press("X")
    assert room.worklist[B].status is Status.REJECTED
    press("F")
    assert room.worklist[C].status is Status.FLAGGED


def test_an_error_of_ours_is_a_line_in_the_status_bar(room):
    Presses(room.session.viewer)("Q")
    assert room.session.viewer.status == (
        "the store keeps no model; cure: choose a model's folder, or run ctpipe infer once"
    )


def test_every_command_has_a_name_a_title_and_a_key_of_its_own(room):
    commands = room.commands()
    assert len({command.name for command in commands}) == len(commands)
    for mode in (Mode.READ, Mode.EDIT):
        keys = [command.key for command in commands if command.mode in (mode, Mode.BOTH)]
        assert len(set(keys)) == len(keys)
    assert all(command.title and command.key for command in commands)


def test_a_reviewer_is_a_pseudonym_and_never_a_persons_name(display, cases_path):
    for name in ("Jane Doe", "", "../x", "a" * 33):
        with pytest.raises(UsageError, match="pseudonym is empty, too long"):
            open_review(cases_path, reviewer=name)


# ---------------------------------------------------------------------------------------------- in a window
@pytest.fixture
def window(shared_cases_room):
    """(viewer, worklist widget, its store) of four cases, by patient: one window for all tests here."""
    shared_cases_room.anew()
    return shared_cases_room.viewer, shared_cases_room.worklist, shared_cases_room.root


def until(true, seconds: float = 20.0) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        QApplication.processEvents()
        time.sleep(0.02)


def press(viewer, key, modifier=None) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    QTest.keyClick(canvas, key, modifier or Qt.KeyboardModifier.NoModifier)


@pytest.mark.display
def test_keys_on_the_canvas_step_and_decide(window):
    from qtpy.QtCore import Qt

    viewer, widget, cases_path = window
    assert widget.worklist.current == A
    press(viewer, Qt.Key.Key_N)
    press(viewer, Qt.Key.Key_N)
    press(viewer, Qt.Key.Key_N, Qt.KeyboardModifier.ShiftModifier)
    assert widget.worklist.current == B
    viewer.layers.selection.active = viewer.layers[1]  # a Labels layer has keys of its own: X swaps, F fills
    press(viewer, Qt.Key.Key_X)
    assert read_status(cases_path, B).newest().status is Status.REJECTED
    assert widget.worklist.current == C
    assert where_coloured(shot(viewer), 1).any(), "the labels of the case are on show"
    press(viewer, Qt.Key.Key_A)
    assert read_status(cases_path, C).newest().status is Status.ACCEPTED
    assert widget.progress.text() == "2 of 4 decided"


@pytest.mark.display
def test_flag_asks_for_a_comment_and_enter_keeps_it(window):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    viewer, widget, cases_path = window
    viewer.window._qt_window.activateWindow()
    press(viewer, Qt.Key.Key_F)
    assert read_status(cases_path, A).newest() is None
    QTest.keyClicks(widget.comment, "not the whole dome")
    QTest.keyClick(widget.comment, Qt.Key.Key_Return)
    decision = read_status(cases_path, A).newest()
    assert (decision.status, decision.comment) == (Status.FLAGGED, "not the whole dome")
    assert (widget.comment.text(), widget.worklist.current) == ("", B)


@pytest.mark.display
def test_figures_fill_in_beside_the_viewer_and_the_table_sorts_and_filters(window):
    from ctpipe.review.cases import COLUMNS

    _, widget, _ = window
    table = widget.table
    until(lambda: widget.worklist[B].dice is not None and widget.worklist[C].volumes_ml is not None)
    cell = {name: number for number, name in enumerate(COLUMNS)}
    assert float(table.item(1, cell["Dice"]).text()) == pytest.approx(widget.worklist[B].dice_of(), abs=1e-3)
    assert "Dice lesion: 0.6667" in table.item(1, 0).toolTip()
    widget.class_box.setCurrentText("lesion")
    widget.order_box.setCurrentText("volume")
    widget.order_box.textActivated.emit("volume")
    assert [table.item(row, 0).text()[:1] for row in range(4)] == ["c", "a", "b", "d"]
    widget.words.setText("bbbb")
    assert table.rowCount() == 1
    widget.words.setText("")
    widget.status_box.setCurrentText("accepted")
    widget.status_box.textActivated.emit("accepted")
    assert table.rowCount() == 0


@pytest.mark.display
def test_a_double_click_opens_a_case_and_a_wrong_step_is_a_line(window):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    viewer, widget, _ = window
    item = widget.table.item(2, 0)
    place = widget.table.visualItemRect(item).center()
    QTest.mouseClick(widget.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    QTest.mouseDClick(widget.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert widget.worklist.current == C
    widget.worklist.current = None
    widget._try(widget.worklist.accept)
    assert widget.status.text().startswith("no case is on show")
    assert viewer.layers[0].name == f"CT {C[:8]}"


@pytest.mark.display
def test_a_proposal_is_asked_for_by_key_and_comes_beside_the_viewer(window, tmp_path):
    import torch
    from line_made import small_recipe
    from qtpy.QtCore import Qt

    from ctpipe.models import Model, build_network
    from ctpipe.review.proposal_widget import ProposalWidget

    recipe = small_recipe()
    torch.manual_seed(1)
    network = build_network(recipe.network, 1, 3, recipe.windows.window, recipe.options)
    with torch.no_grad():
        network.head[-1].weight *= 0.1
    Model.of(recipe, recipe.classes, network).save(tmp_path / "M")
    viewer, _, cases_path = window
    widget = viewer.window._qt_window.findChild(ProposalWidget)
    widget.proposal.choose(tmp_path / "M")
    widget.planes.setValue(1)
    press(viewer, Qt.Key.Key_Q)
    until(lambda: "proposal" in viewer.layers)
    proposed = widget.proposal.proposed
    assert proposed.found.labels.shape[0] == 3
    assert widget.pieces.count() == len(proposed.pieces) > 0
    assert widget.status.text().startswith("proposed: ")
    assert np.abs(shot(viewer) - shot(viewer)).max() == 0
    press(viewer, Qt.Key.Key_Q, Qt.KeyboardModifier.AltModifier)
    assert "proposal" not in viewer.layers
    assert widget.pieces.count() == 0
    assert not any(name.startswith("review") for name in open_store(cases_path)[A].labels)


@pytest.mark.display
def test_the_next_case_by_key_keeps_the_layers_of_all_three_planes_and_draws_its_own(window):
    """Nothing of the case before is seen: not its labels, its colours, its window, its lines; nor in the docks."""
    from qtpy.QtCore import Qt

    from ctpipe.review.reading_widget import ReadingWidget
    from ctpipe.review.widget import ReviewWidget

    viewer, widget, _ = window
    docks = viewer.window._qt_window
    reading = docks.findChild(ReadingWidget)
    planes = reading.reading.planes.viewers
    kept = [list(model.layers) for model in planes]
    assert [len(layers) for layers in kept] == [2, 2, 2]
    first = [shot(viewer), *(canvas.screenshot(flash=False)[..., :3] / 255 for canvas in reading.canvases)]
    press(viewer, Qt.Key.Key_3)  # the lung's window
    press(viewer, Qt.Key.Key_H)
    viewer.layers[1].colormap = {1: "red", 2: "yellow", None: "red"}
    viewer.layers[1].contour = 4
    assert not where_coloured(shot(viewer), 1).any()
    press(viewer, Qt.Key.Key_N)
    assert widget.worklist.current == B
    for model, layers in zip(planes, kept, strict=True):
        assert all(one is other for one, other in zip(model.layers, layers, strict=True))
    then = [shot(viewer), *(canvas.screenshot(flash=False)[..., :3] / 255 for canvas in reading.canvases)]
    for one, other in zip(first, then, strict=True):  # the phantoms differ in one HU and in two planes of the lesion
        assert where_coloured(other, 1).any()
        assert np.abs(where_coloured(one, 1).mean() - where_coloured(other, 1).mean()) < 0.03
        rows, columns = np.minimum(one.shape, other.shape)[:2]  # a canvas may have grown by a pixel
        assert np.abs(one[:rows, :columns] - other[:rows, :columns]).mean() < 0.03
    assert docks.findChild(ReviewWidget).series_list.currentItem().text().startswith(B[:8])
    press(viewer, Qt.Key.Key_N)
    press(viewer, Qt.Key.Key_N)  # the last case has no labels
    assert widget.worklist.current == D
    assert [len(model.layers) for model in planes] == [1, 1, 1]
    assert not where_coloured(shot(viewer), 1).any()


@pytest.mark.display
def test_lesions_behind_another_tab_are_measured_when_the_tab_comes_to_the_front(window):
    """A whole volume of labels is read for them: that is not done while the next case is waited for."""
    from qtpy.QtCore import Qt

    from ctpipe.review.lesions_widget import LesionListWidget
    from ctpipe.review.view import settle

    viewer, _, _ = window
    dock = viewer.window._qt_window.findChild(LesionListWidget)
    press(viewer, Qt.Key.Key_N)
    settle(20)
    assert not dock.part.ready
    viewer.window.dock_widgets  # noqa: B018 - napari fills this at first
    outer = dock
    while outer.metaObject().className() != "QtViewerDockWidget":
        outer = outer.parentWidget()
    outer.raise_()
    until(lambda: dock.part.ready and dock.table.rowCount() == 2)
    docks = viewer.window._qt_window.findChildren(type(outer))
    next(one for one in docks if one.windowTitle().startswith("Worklist")).raise_()


@pytest.mark.display
def test_closing_the_window_lets_the_copy_go_and_leaves_nothing_behind(cases_path, close_viewers):
    """While figures are computed; opened by the beginnings of the names of a series and a run."""
    from ctpipe.review.session import ReviewSession
    from ctpipe.review.view import settle
    from ctpipe.review.worklist_widget import WorklistWidget

    viewer = open_review(cases_path, A[:4], labels=SECOND[:6], reviewer="p-01", order="patient")
    close_viewers.append(viewer)
    worklist = viewer.window._qt_window.findChild(WorklistWidget).worklist
    viewer.layers["correction"].paint((12, 60, 80), 2)
    folder = viewer.layers["correction"].metadata["ctpipe"]["copy"]
    viewer.close()
    settle(5)
    worklist.changed.emit()  # nobody listens: the widget is gone
    assert worklist.session.copy is None
    again = ReviewSession(ViewerModel(), cases_path, "p-01")
    again.show(A)
    again.edit_preferred()
    assert again.copy.folder.name == folder
    assert again.copy.array[12, 60, 80] == 2
    again.let_go()
