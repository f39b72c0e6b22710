"""Predict here, beside the viewer: which model, how many planes, the pieces of what it said. Logic is in `proposal`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.qt.threading import thread_worker
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from ctpipe.errors import CtpipeError

if TYPE_CHECKING:
    from napari.qt.threading import GeneratorWorker

    from ctpipe.review.proposal import Proposal, Proposed


class ProposalWidget(QWidget):
    """A model is asked in a thread of napari's; its labels come as a list of pieces. A double click takes one."""

    def __init__(self, proposal: Proposal) -> None:
        super().__init__()
        self.proposal = proposal
        self.model_box = QComboBox()
        self.planes = QSpinBox()
        self.planes.setRange(0, 200)
        self.planes.setValue(proposal.depth)
        self.pieces = QListWidget()
        self.pieces.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.bar = QProgressBar()
        self.bar.setVisible(False)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self._workers: list[GeneratorWorker] = []  # one at most; a list outlives this widget
        self._lay_out()
        proposal.changed.connect(self.refresh)
        proposal.wanted.connect(lambda: self._try(self.ask))
        self.pieces.itemDoubleClicked.connect(self._take)
        self.planes.valueChanged.connect(self._set_depth)
        self.model_box.activated.connect(lambda _n: self._try(self._choose_kept))
        self.refresh()
        self.destroyed.connect(partial(_let_go, proposal, self._workers))

    def refresh(self) -> None:
        """Fill the lists from the proposal."""
        self.pieces.clear()
        proposed = self.proposal.proposed
        for piece in proposed.pieces if proposed is not None else ():
            if piece.number not in self.proposal.taken:
                item = QListWidgetItem(f"{piece.name}  {piece.ml:.2f} mL  at z y x {' '.join(map(str, piece.centre))}")
                item.setData(Qt.ItemDataRole.UserRole, piece.number)
                self.pieces.addItem(item)
        for button in (self.take_button, self.drop_button):
            button.setEnabled(proposed is not None)
        self.model_box.clear()
        try:
            chosen: Path | None = self.proposal.model
        except CtpipeError:  # the store keeps none: one can be chosen
            chosen = None
        for folder in dict.fromkeys([*([chosen] if chosen else []), *self.proposal.models()]):
            self.model_box.addItem(folder.name, str(folder))

    def tell(self, line: str | None) -> None:
        """Show one line below the list."""
        if line is not None:
            self.status.setText(line)

    def ask(self) -> str:
        """Ask the model about what is in view, in a thread; the second time that gives up the first."""
        self.let_go()
        steps = self.proposal.steps()  # the region is taken now, in the viewer's own thread
        worker = thread_worker(lambda: (yield from steps))()
        worker.yielded.connect(self._step)
        worker.errored.connect(self._failed)
        worker.finished.connect(lambda: self.bar.setVisible(False))
        self._workers.append(worker)
        self.bar.setRange(0, 0)  # busy until the first planes are there
        self.bar.setVisible(True)
        worker.start()
        return "asking the model…"

    def let_go(self) -> None:
        """Give up what is being computed, after the planes in hand."""
        while self._workers:
            self._workers.pop().quit()

    def _lay_out(self) -> None:
        form = QFormLayout()
        row = QHBoxLayout()
        row.addWidget(self.model_box, stretch=1)
        row.addWidget(self._button("…", self._choose_folder))
        form.addRow("Model", row)
        form.addRow("Planes on each side", self.planes)
        self.take_button = self._button("Take all", self.proposal.accept)
        self.drop_button = self._button("Drop", self.proposal.drop)
        buttons = QHBoxLayout()
        for button in (self._button("Predict here", self.ask), self.take_button, self.drop_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(QLabel("Pieces (double click takes one)"))
        layout.addWidget(self.pieces)
        layout.addWidget(self.status)

    def _button(self, text: str, step: Callable[[], str | None]) -> QPushButton:
        button = QPushButton(text)
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        button.clicked.connect(lambda: self._try(step))
        return button

    def _step(self, told: tuple[int, int, Proposed | None]) -> None:
        done, planes, proposed = told
        self.bar.setRange(0, planes)
        self.bar.setValue(done)
        if proposed is not None:
            self.tell(self.proposal.show(proposed))

    def _failed(self, error: BaseException) -> None:
        self.tell(str(error))  # napari shows what is no error of ours as well

    def _set_depth(self, planes: int) -> None:
        self.proposal.depth = planes

    def _take(self, item: QListWidgetItem) -> None:
        number = int(item.data(Qt.ItemDataRole.UserRole))
        self._try(lambda: self.proposal.accept_piece(number))

    def _choose_kept(self) -> str:
        return self.proposal.choose(self.model_box.currentData())

    def _choose_folder(self) -> str | None:
        folder = QFileDialog.getExistingDirectory(self, "Model")
        if not folder:
            return None
        line = self.proposal.choose(folder)
        self.refresh()
        return line

    def _try(self, step: Callable[[], str | None]) -> None:
        """Do one step; an error of ours becomes a line below the list."""
        try:
            self.tell(step())
        except CtpipeError as error:
            self.tell(str(error))


def _let_go(proposal: Proposal, workers: list[GeneratorWorker]) -> None:
    """The widget is gone: nobody calls it any more, and its thread ends after the planes in hand."""
    proposal.changed.disconnect()
    proposal.wanted.disconnect()
    while workers:
        workers.pop().quit()
