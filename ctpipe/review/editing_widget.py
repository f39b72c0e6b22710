"""The panel of `Editing`: tools with their settings, undo and redo, and whether all is saved. All logic is in there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ctpipe.errors import CtpipeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctpipe.review.editing import Editing


class EditingWidget(QWidget):
    """Brush in mm, HU range, plane or 3-D, shapes, undo, and the state of the journal."""

    def __init__(self, editing: Editing) -> None:
        super().__init__()
        self.editing = editing
        tools = editing.tools
        self.radius = _length(tools.radius_mm, self._set_radius)
        self.three_d = QCheckBox("3-D")
        self.three_d.toggled.connect(self._set_three_d)
        self.limit = QCheckBox("only HU from")
        self.low, self.high = _hu(-50), _hu(150)
        self.sigma = _length(tools.sigma_mm, lambda mm: setattr(tools, "sigma_mm", mm))
        self.step = _length(tools.step_mm, lambda mm: setattr(tools, "step_mm", mm))
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.buttons = {
            "paint": _button("Paint", lambda: self._mode("paint")),
            "erase": _button("Erase", lambda: self._mode("erase")),
            "polygon": _button("Polygon", lambda: self._mode("polygon")),
            "interpolate": _button("Interpolate", lambda: self._do(tools.interpolate)),
            "fill": _button("Fill holes", lambda: self._do(tools.fill)),
            "smooth": _button("Smooth", lambda: self._do(tools.smooth)),
            "grow": _button("Grow", lambda: self._do(tools.grow)),
            "shrink": _button("Shrink", lambda: self._do(lambda: tools.grow(-tools.step_mm))),
            "undo": _button("Undo", lambda: self._do(editing.undo)),
            "redo": _button("Redo", lambda: self._do(editing.redo)),
        }
        self.again = _button("Try to save again", lambda: self._do(editing.try_again))
        self.elsewhere = _button("Keep elsewhere…", self._choose_place)
        self._lay_out()
        self.limit.toggled.connect(self._set_range)
        for box in (self.low, self.high):
            box.valueChanged.connect(self._set_range)
        editing.told.connect(self.tell)
        editing.session.copy_opened.connect(self.refresh)
        editing.session.copy_closed.connect(self.refresh)
        self.destroyed.connect(lambda: editing.told.disconnect(self.tell, missing_ok=True))
        self.refresh()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        settings = QFormLayout()
        size = QHBoxLayout()
        size.addWidget(self.radius)
        size.addWidget(self.three_d)
        settings.addRow("Brush radius", size)
        hu = QHBoxLayout()
        hu.addWidget(self.low)
        hu.addWidget(QLabel("to"))
        hu.addWidget(self.high)
        settings.addRow(self.limit, hu)
        settings.addRow("Smooth by", self.sigma)
        settings.addRow("Grow by", self.step)
        layout.addLayout(settings)
        grid = QGridLayout()
        rows = [("paint", "erase", "polygon"), ("interpolate", "fill", "smooth"), ("grow", "shrink"), ("undo", "redo")]
        for row, names in enumerate(rows):
            for column, name in enumerate(names):
                grid.addWidget(self.buttons[name], row, column)
        layout.addLayout(grid)
        layout.addWidget(self.state)
        rescue = QHBoxLayout()
        rescue.addWidget(self.again)
        rescue.addWidget(self.elsewhere)
        layout.addLayout(rescue)
        layout.addStretch(1)

    def tell(self, line: str) -> None:
        """Show a line, and the way out where actions are in memory only."""
        self.state.setText(line)
        self._show_settings()
        waiting = self.editing.session.copy is not None and bool(self.editing.copy.journal.waiting)
        self.state.setStyleSheet("color: #ff6030; font-weight: bold" if waiting else "")
        self.again.setVisible(waiting)
        self.elsewhere.setVisible(waiting)

    def refresh(self) -> None:
        """Fill the panel from the editing."""
        is_open = self.editing.session.copy is not None
        for button in self.buttons.values():
            button.setEnabled(is_open)
        if is_open:
            self.editing.layer.events.brush_size.connect(self._show_settings)
            self.editing.layer.events.n_edit_dimensions.connect(self._show_settings)
        self.tell(self._summary() if is_open else "no copy is open")

    def _summary(self) -> str:
        journal = self.editing.copy.journal
        return "; ".join([f"{journal.actions} actions, all saved", *self.editing.copy.told])

    def _show_settings(self, _event: object = None) -> None:
        """What napari's own slider and keys chose."""
        self.radius.blockSignals(True)
        self.radius.setValue(self.editing.tools.radius_mm)
        self.radius.blockSignals(False)
        self.three_d.blockSignals(True)
        self.three_d.setChecked(self.editing.tools.three_d)
        self.three_d.blockSignals(False)

    def _set_radius(self, mm: float) -> None:
        self.editing.tools.radius_mm = mm

    def _set_three_d(self, on: bool) -> None:
        self.editing.tools.three_d = on

    def _set_range(self, _value: object = None) -> None:
        self.editing.tools.hu_range = (self.low.value(), self.high.value()) if self.limit.isChecked() else None

    def _mode(self, mode: str) -> None:
        if self.editing.session.layer is not None:
            self.editing.session.viewer.layers.selection.active = self.editing.layer
            self.editing.layer.mode = mode

    def _choose_place(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Keep actions in")
        if folder:
            self._do(lambda: self.editing.keep_elsewhere(folder))

    def _do(self, step: Callable[[], str]) -> None:
        """Do one step; an error of ours becomes a line."""
        try:
            self.tell(step())
        except CtpipeError as error:
            self.tell(str(error))


def _button(text: str, clicked: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.clicked.connect(lambda: clicked())
    return button


def _length(mm: float, changed: Callable[[float], None]) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0.1, 100)
    box.setSingleStep(0.5)
    box.setDecimals(1)
    box.setSuffix(" mm")
    box.setValue(mm)
    box.valueChanged.connect(changed)
    return box


def _hu(value: float) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(-1024, 3071)
    box.setDecimals(0)
    box.setValue(value)
    return box
