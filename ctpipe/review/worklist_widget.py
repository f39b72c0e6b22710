"""The worklist's table beside the viewer. All logic is in `worklist`; figures are computed in a thread of napari's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from napari.qt.threading import thread_worker
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ctpipe.errors import CtpipeError
from ctpipe.review.case_status import LONGEST_COMMENT, Status
from ctpipe.review.cases import COLUMNS, Case, Order, number

if TYPE_CHECKING:
    from napari.qt.threading import GeneratorWorker

    from ctpipe.review.worklist import Worklist

_ANY = "any status"
_ALL_CLASSES = "all classes"


class WorklistWidget(QWidget):
    """Filters and orders above, the cases as a table, what can be decided below. A double click opens a case."""

    def __init__(self, worklist: Worklist) -> None:
        super().__init__()
        self.worklist = worklist
        self.status_box = QComboBox()
        self.status_box.addItems([_ANY, *Status])
        self.order_box = QComboBox()
        self.order_box.addItems(list(Order))
        self.class_box = QComboBox()
        self.words = QLineEdit()
        self.words.setPlaceholderText("find: id, patient, comment, labels")
        self.table = QTableWidget(0, len(COLUMNS))
        self.comment = QLineEdit()
        self.comment.setPlaceholderText("comment (name no patient); Enter flags the case")
        self.comment.setMaxLength(LONGEST_COMMENT)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self._workers: list[GeneratorWorker] = []  # one at most; a list outlives this widget
        self._lay_out()
        self._connect()
        self.refresh()
        self.compute()
        self.destroyed.connect(partial(_let_go, worklist, self._workers))

    def tell(self, line: str | None) -> None:
        """Show one line below the table."""
        if line is not None:
            self.status.setText(line)

    def refresh(self) -> None:
        """Fill the table from the worklist."""
        cases = self.worklist.cases
        self._fill_classes()
        self.table.setRowCount(len(cases))
        for row, case in enumerate(cases):
            for column, text in enumerate(case.cells(self.worklist.class_name)):
                item = QTableWidgetItem(text)
                item.setData(Qt.ItemDataRole.UserRole, case.series)
                item.setToolTip(_tip(case))
                font = item.font()
                font.setBold(case.series == self.worklist.current)
                item.setFont(font)
                self.table.setItem(row, column, item)
            if case.series == self.worklist.current:
                self.table.selectRow(row)
        done = sum(case.status in (Status.ACCEPTED, Status.CORRECTED, Status.REJECTED) for case in cases)
        self.progress.setText(f"{done} of {len(cases)} decided")
        if self.worklist.notes:
            self.tell("; ".join(self.worklist.notes))

    def compute(self) -> None:
        """Compute the figures that lack, beside the viewer; rows fill in as they come."""
        while self._workers:
            self._workers.pop().quit()
        worker = thread_worker(self.worklist.score_steps)()
        worker.yielded.connect(lambda found: self.worklist.take_figures(*found))
        worker.errored.connect(lambda error: self.tell(str(error)))
        self._workers.append(worker)
        worker.start()

    def _lay_out(self) -> None:
        self.progress = QLabel()
        self.table.setHorizontalHeaderLabels(COLUMNS)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys go to the viewer
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        above, below = QHBoxLayout(), QHBoxLayout()
        for part in (self.status_box, self.order_box, self.class_box, self.words):
            above.addWidget(part)
        actions: tuple[tuple[str, Callable[[], str]], ...] = (
            ("Previous", self.worklist.previous),
            ("Next", self.worklist.next),
            ("Accept", self.worklist.accept),
            ("Reject", self._reject),
            ("Flag", self._flag),
            ("Put back", self.worklist.put_back),
        )
        for text, step in actions:
            below.addWidget(self._button(text, step))
        again = self._button("Refresh", self._look_again)
        below.addWidget(again)
        layout = QVBoxLayout(self)
        layout.addLayout(above)
        layout.addWidget(self.table)
        layout.addWidget(self.progress)
        layout.addLayout(below)
        layout.addWidget(self.comment)
        layout.addWidget(self.status)

    def _connect(self) -> None:
        self.worklist.changed.connect(self.refresh)
        self.worklist.opened.connect(lambda _series: self.refresh())
        self.worklist.comment_wanted.connect(lambda: self.comment.setFocus())
        self.status_box.textActivated.connect(lambda _text: self._ask())
        self.words.textChanged.connect(lambda _text: self._ask())
        self.order_box.textActivated.connect(lambda _text: self._try(self._arrange))
        self.class_box.textActivated.connect(lambda _text: self._try(self._arrange))
        self.comment.returnPressed.connect(lambda: self._try(self._flag))
        self.table.itemDoubleClicked.connect(
            lambda item: self._try(lambda: self.worklist.open(item.data(Qt.ItemDataRole.UserRole)))
        )

    def _button(self, text: str, step: Callable[[], str | None]) -> QPushButton:
        button = QPushButton(text)
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.clicked.connect(lambda: self._try(step))
        return button

    def _fill_classes(self) -> None:
        wanted = [_ALL_CLASSES, *self.worklist.classes]
        if [self.class_box.itemText(n) for n in range(self.class_box.count())] != wanted:
            self.class_box.clear()
            self.class_box.addItems(wanted)
        self.class_box.setCurrentText(self.worklist.class_name or _ALL_CLASSES)
        self.order_box.setCurrentText(str(self.worklist.order))
        self.status_box.setCurrentText(str(self.worklist.status or _ANY))

    def _ask(self) -> None:
        status = self.status_box.currentText()
        self.worklist.ask_for(None if status == _ANY else status, self.words.text())

    def _arrange(self) -> None:
        named = self.class_box.currentText()
        self.worklist.arrange(self.order_box.currentText(), None if named == _ALL_CLASSES else named)

    def _flag(self) -> str:
        line = self.worklist.flag(self.comment.text())
        self._typed()
        return line

    def _reject(self) -> str:
        line = self.worklist.reject(self.comment.text())
        self._typed()
        return line

    def _typed(self) -> None:
        """The comment is kept: the field is free, and keys go to the viewer again."""
        self.comment.clear()
        self.comment.clearFocus()

    def _look_again(self) -> None:
        self.worklist.refresh()
        self.compute()

    def _try(self, step: Callable[[], str | None]) -> None:
        """Do one step; an error of ours becomes a line below the table."""
        try:
            self.tell(step())
        except CtpipeError as error:
            self.tell(str(error))


def _let_go(worklist: Worklist, workers: list[GeneratorWorker]) -> None:
    """The widget is gone: nobody calls it any more, and its thread ends after the case in hand."""
    worklist.preloader.stop()
    worklist.changed.disconnect()
    worklist.opened.disconnect()
    worklist.comment_wanted.disconnect()
    while workers:
        workers.pop().quit()


def _tip(case: Case) -> str:
    lines = [f"volume {case.series}", f"labels: {', '.join(case.labels) or 'none'}"]
    lines += [f"Dice {name}: {number(value, 4) or 'none'}" for name, value in (case.dice or {}).items()]
    lines += [f"{name}: {value:.2f} mL" for name, value in (case.volumes_ml or {}).items() if value is not None]
    return "\n".join(lines)
