"""The dock of lesions: the table, and the edits of the chosen one. All logic is in `lesions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QPaintEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QGridLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ctpipe.errors import CtpipeError
from ctpipe.review.lesion_edits import usual_range
from ctpipe.review.lesions import line_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ctpipe.review.lesions import LesionList
    from ctpipe.scoring import Measured

MOST_ROWS = 1000  # that a table shows; the keys reach the others
_ALL = "all classes"
_IDLE_MS = 250  # after the last edit, so that strokes in a row are measured once
# heading, cell, what the list is ordered by when the heading is clicked
_COLUMNS: tuple[tuple[str, Callable[[Measured], str], Callable[[Measured], float]], ...] = (
    ("class", lambda one: one.name, lambda one: one.label),
    ("no.", lambda one: str(one.number), lambda one: one.number),
    ("mL", lambda one: f"{one.volume_ml:.2f}", lambda one: -one.voxels),
    ("axes mm", lambda one: f"{one.axes.long_mm:.1f} × {one.axes.short_mm:.1f}", lambda one: -one.axes.long_mm),
    ("HU", lambda one: f"{one.hu[0]:.0f}" if one.hu else "", lambda one: -one.hu[0] if one.hu else 0.0),
    ("plane", lambda one: str(one.axes.plane), lambda one: one.axes.plane),
)


class LesionListWidget(QWidget):
    """A row a lesion; a click goes there. Filled while it is seen and the viewer is idle, a class at a time."""

    def __init__(self, part: LesionList) -> None:
        super().__init__()
        self.part = part
        self.shown: list[Measured] = []
        self.class_box = QComboBox()
        self.table = table([name for name, _, _ in _COLUMNS])
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.low, self.high, self.margin = _spin(-1024, 3071, " HU"), _spin(-1024, 3071, " HU"), _spin(1, 500, " mm")
        self.margin.setValue(round(part.margin_mm))
        self._timer = QTimer(self)
        self._lay_out()
        self._timer.timeout.connect(self._measure)
        self.class_box.activated.connect(self._choose_class)
        self.table.cellClicked.connect(lambda row, _column: self.do(lambda: part.choose(self.shown[row])))
        self.table.horizontalHeader().sectionClicked.connect(self._order_by)
        for spin in (self.low, self.high):
            spin.editingFinished.connect(self._set_range)
        self.margin.valueChanged.connect(self._set_margin)
        part.changed.connect(self.refresh)
        part.chose.connect(self._mark)
        self.destroyed.connect(lambda: self._let_go(part))
        self.refresh()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.addWidget(self.class_box)
        layout.addWidget(self.table)
        edits = QGridLayout()
        part = self.part
        buttons: list[tuple[str, str, Callable[[], str]]] = [
            ("Part", "part at its waist (Shift-S)", part.part),
            ("Cut here", "cut by the plane in view (Shift-X)", part.cut),
            ("Merge", "merge the last two chosen (Shift-J)", part.merge),
            ("To class", "give it the painted class (Shift-R)", part.reclassify),
            ("Grow", "grow within this range of HU (Shift-E)", part.grow),
            ("Delete", "it becomes what surrounds it (Shift-D)", part.delete),
        ]
        self.buttons = {title: _button(title, hint, self._doing(run)) for title, hint, run in buttons}
        for n, button in enumerate(self.buttons.values()):
            edits.addWidget(button, n // 3, n % 3)
        for n, spin in enumerate((self.low, self.high, self.margin)):
            edits.addWidget(spin, 2, n)
        layout.addLayout(edits)
        layout.addWidget(self.status)

    def _let_go(self, part: LesionList) -> None:
        part.changed.disconnect(self.refresh, missing_ok=True)
        part.chose.disconnect(self._mark, missing_ok=True)

    def refresh(self) -> None:
        """Other labels, or other voxels: measure when idle, then show."""
        held = self.part.only or _ALL
        self.class_box.clear()
        self.class_box.addItems([_ALL, *self.part.classes.values()])
        self.class_box.setCurrentText(held if held in self.part.classes.values() else _ALL)
        self.part.only = None if self.class_box.currentText() == _ALL else self.class_box.currentText()
        self._timer.start(_IDLE_MS)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """The tab is in front: what was put off is measured now."""
        super().paintEvent(event)
        if not self.part.ready and not self._timer.isActive():
            self._timer.start(_IDLE_MS)

    def fill(self) -> None:
        """Show the lesions that are measured."""
        self._timer.stop()
        rows = self.part.rows()
        self.shown = rows[:MOST_ROWS]
        fill(self.table, [[cell(one) for _, cell, _ in _COLUMNS] for one in self.shown])
        self.tell(f"{len(rows)} lesions" + (f", {MOST_ROWS} shown" if len(rows) > MOST_ROWS else ""))
        self._mark()

    def tell(self, text: str) -> None:
        """One line below the table."""
        self.status.setText(text)

    def do(self, step: Callable[[], str]) -> None:
        """One step; an error of ours becomes the line below the table."""
        try:
            self.tell(step())
        except CtpipeError as error:
            self.tell(str(error))

    def _doing(self, run: Callable[[], str]) -> Callable[[], None]:
        return lambda: self.do(run)

    def _measure(self) -> None:
        # behind another tab (which Qt calls visible) reading a whole volume of labels would keep the next case waiting
        if self.visibleRegion().isEmpty():
            self._timer.stop()
            return
        self._timer.setInterval(0)
        self.tell("measuring…")
        if not self.part.measure_next():
            self.fill()

    def _mark(self) -> None:
        one = self.part.chosen
        if one is None or one not in self.shown:
            self.table.clearSelection()
            return
        self.table.selectRow(self.shown.index(one))
        self.tell(line_of(one))
        if self.part.hu_range is None:
            for spin, value in zip((self.low, self.high), usual_range(one), strict=True):
                spin.setValue(int(value))

    def _choose_class(self) -> None:
        self.part.only = None if self.class_box.currentText() == _ALL else self.class_box.currentText()
        self.fill()

    def _order_by(self, column: int) -> None:
        self.part.key = _COLUMNS[column][2]
        self.fill()

    def _set_range(self) -> None:
        self.part.hu_range = self.low.value(), self.high.value()

    def _set_margin(self, mm: int) -> None:
        self.part.margin_mm = float(mm)


def table(headings: Sequence[str]) -> QTableWidget:
    """A table to choose whole rows from, never to write in."""
    made = QTableWidget(0, len(headings))
    made.setHorizontalHeaderLabels(list(headings))
    made.verticalHeader().setVisible(False)
    made.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    made.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    made.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    made.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys stay the viewer's
    return made


def fill(into: QTableWidget, rows: Sequence[Sequence[str]]) -> None:
    """Show rows of text; numbers to the right."""
    into.setRowCount(len(rows))
    for n, row in enumerate(rows):
        for column, text in enumerate(row):
            item = QTableWidgetItem(text)
            if text[:1] in "+-0123456789":
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            into.setItem(n, column, item)


def _spin(low: int, high: int, suffix: str) -> QSpinBox:
    made = QSpinBox()
    made.setRange(low, high)
    made.setSuffix(suffix)
    return made


def _button(title: str, hint: str, clicked: Callable[[], None]) -> QPushButton:
    button = QPushButton(title)
    button.setToolTip(hint)
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    button.clicked.connect(lambda: clicked())
    return button
