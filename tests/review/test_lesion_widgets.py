"""The docks of lesions and of comparisons on the real viewer, by mouse and button."""

from __future__ import annotations

import numpy as np
import pytest
from lesion_review import OTHER_RUN, Applies, drawn_case, write_case
from review_store import RUN

from ctpipe.review.view import settle

pytestmark = pytest.mark.display


@pytest.fixture
def session(tmp_path, one_window):
    from ctpipe.review.session import ReviewSession

    other = drawn_case()[1]
    other[:, :, 23][other[:, :, 23] == 2] = 1
    other[:, :, 47:] = 0
    write_case(tmp_path / "S", other)
    session = ReviewSession(one_window, tmp_path / "S")
    session.show()
    yield session
    session.close()
    one_window.window.remove_dock_widget("all")


def docked(session, part, widget_of):
    widget = widget_of(part)
    session.viewer.window.add_dock_widget(widget, name="dock", area="right")
    measured(part)
    return widget


def measured(part):
    """Wait until the dock has measured what it lists."""
    import time

    until = time.monotonic() + 20
    settle(10)  # longer than it waits for the last edit
    while hasattr(part, "ready") and not part.ready and time.monotonic() < until:
        settle(1)
    settle(2)


def click(table, row, column=0):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton,
                     pos=table.visualItemRect(table.item(row, column)).center())  # fmt: skip
    settle(2)


def words(table):
    return [[table.item(row, column).text() for column in range(table.columnCount())]
            for row in range(table.rowCount())]  # fmt: skip


def test_a_click_goes_to_the_lesion_and_the_buttons_edit_it(session, tmp_path):
    from ctpipe.review.lesions import LesionList
    from ctpipe.review.lesions_widget import LesionListWidget

    session.edit(RUN)
    went = []
    part = LesionList(session, lambda *at: went.append(at), Applies(session))
    widget = docked(session, part, LesionListWidget)
    rows = words(widget.table)
    assert [row[0] for row in rows] == ["liver", "lesion", "lesion"]
    assert rows[2][5] == "32"
    click(widget.table, 2)
    assert went[-1] == pytest.approx((32, 40, 58), abs=0.51)
    assert widget.status.text().startswith("lesion 2: ")
    assert (widget.low.value(), widget.high.value()) == pytest.approx((30, 70), abs=2)
    part.step(-1)
    settle(1)
    assert widget.table.currentRow() == 1, "the key moves the row"
    widget.buttons["Part"].click()
    measured(part)
    assert [row[0] for row in words(widget.table)] == ["liver", "lesion", "lesion", "lesion"]
    widget.table.horizontalHeader().sectionClicked.emit(5)
    assert [int(row[5]) for row in words(widget.table)] == sorted(int(row[5]) for row in words(widget.table))
    widget.class_box.setCurrentText("lesion")
    widget.class_box.activated.emit(2)
    assert {row[0] for row in words(widget.table)} == {"lesion"}
    part.chosen = None
    widget.buttons["Delete"].click()
    assert "no lesion is chosen" in widget.status.text()
    part.key = lambda one: -one.first[0]
    widget.fill()
    click(widget.table, 0)
    widget.buttons["Delete"].click()
    measured(part)
    assert not session.copy.array[:][:, :, 47:].any()
    picture = session.viewer.screenshot(path=str(tmp_path / "lesions.png"), canvas_only=False, flash=False)
    assert picture.std() > 10


def test_two_sets_are_compared_and_a_row_leads_to_the_place(session, tmp_path):
    from ctpipe.review.comparing import Comparison
    from ctpipe.review.comparing_widget import ComparisonWidget

    went = []
    part = Comparison(session, lambda *at: went.append(at))
    widget = docked(session, part, ComparisonWidget)
    widget.right_box.setCurrentText(RUN)
    widget.other_box.setCurrentText(OTHER_RUN)
    widget.class_box.setCurrentText("lesion")
    widget.button.click()
    settle(4)
    assert widget.status.text().startswith(f"{OTHER_RUN} against {RUN}, lesion; Dice: lesion 0.")
    assert words(widget.places)[0][0] == "false negative"
    assert sorted(row[1] for row in words(widget.lesions)) == ["lost", "split"]
    click(widget.places, 0)
    assert went[-1] == (32, 40, 58)
    session.viewer.dims.set_point(0, 100 + 32 * 2.0)
    settle()
    picture = session.viewer.screenshot(path=str(tmp_path / "compared.png"), canvas_only=True, flash=False)[..., :3]
    blue = (picture[..., 2] > picture[..., 0] + 40.0) & (picture[..., 2] > picture[..., 1])
    assert np.count_nonzero(blue) > 100, "what was missed is seen in its colour"
