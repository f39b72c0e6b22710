"""The dock widget: series of the store, labels of the series, edit a copy, save it. All logic is in `session`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ctpipe.errors import CtpipeError
from ctpipe.review.layers import labels_name, preferred_labels
from ctpipe.review.session import ReviewSession

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

_EMPTY = "(start empty)"


class ReviewWidget(QWidget):
    """Series and labels of a store, and the two steps of a correction.

    napari_viewer: the viewer, given by napari. session: None when opened from napari's menu: then a button asks for
    the store.
    """

    def __init__(self, napari_viewer: napari.Viewer, session: ReviewSession | None = None) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session = session
        self.open_button = _button("Open store…", self._choose_store)
        self.series_list = QListWidget()
        self.labels_list = QListWidget()
        self.class_box = QComboBox()
        self.new_class = QLineEdit()
        self.new_class.setPlaceholderText("new class: type a name, press Enter")
        self.edit_button = _button("Edit copy", self._edit)
        self.save_button = _button("Save review", self._save)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._lay_out()
        self.series_list.itemActivated.connect(lambda item: self._try(lambda: self._show(_key(item))))
        self.labels_list.itemActivated.connect(lambda item: self._try(lambda: self._look(_key(item))))
        self.class_box.activated.connect(self._choose_class)
        self.new_class.returnPressed.connect(self._add_class)
        if session is not None:
            self._follow(session)
        self.refresh()

    def _follow(self, session: ReviewSession) -> None:
        """Show what other parts of the room open, and let the copy go with this widget."""
        signals = (session.shown, session.copy_opened, session.copy_closed)
        for signal in signals:
            signal.connect(self.refresh_labels)

        def gone() -> None:
            for signal in signals:
                signal.disconnect(self.refresh_labels, missing_ok=True)
            session.let_go()

        self.destroyed.connect(gone)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        self.open_button.setVisible(self.session is None)
        buttons = QHBoxLayout()
        buttons.addWidget(self.edit_button)
        buttons.addWidget(self.save_button)
        for part in (
            self.open_button,
            QLabel("Series (double click shows)"),
            self.series_list,
            QLabel("Labels (double click looks)"),
            self.labels_list,
            QLabel("Paint class"),
            self.class_box,
            self.new_class,
        ):
            layout.addWidget(part)
        layout.addLayout(buttons)
        layout.addWidget(self.status)

    def tell(self, text: str) -> None:
        """Show one line below the buttons."""
        self.status.setText(text)

    def refresh(self) -> None:
        """Fill the lists from the session."""
        session = self.session
        self.series_list.clear()
        for series in session.store.values() if session is not None else ():
            z, y, x = series.grid.shape
            self._add(self.series_list, f"{series.id[:8]}  {z}×{y}×{x}", series.id, False)
        self.refresh_labels()

    def refresh_labels(self) -> None:
        """Fill the lists that hang on the series that is shown."""
        session = self.session
        self.labels_list.clear()
        self.class_box.clear()
        self.edit_button.setEnabled(session is not None and session.series is not None)
        self.save_button.setEnabled(session is not None and session.copy is not None)
        if session is None:
            return
        for row in range(self.series_list.count()):
            if session.series is not None and _key(self.series_list.item(row)) == session.series.id:
                self.series_list.setCurrentRow(row)
        if session.series is not None:
            preferred = preferred_labels(session.series)
            parent = session.copy.record.parent if session.copy is not None else preferred and preferred.name
            for group in session.series.labels.values():
                text = f"{labels_name(group.kind, group.name)}: {', '.join(group.classes.values())}"
                self._add(self.labels_list, text, group.name, group.name == parent)
            self._add(self.labels_list, _EMPTY, None, parent is None)
        if session.copy is not None:
            for label, name in session.copy.record.classes.items():
                self.class_box.addItem(f"{label}  {name}", label)
        if session.layer is not None:
            session.layer.events.selected_label.connect(self._follow_label)
            self._follow_label()

    def _follow_label(self, _event: object = None) -> None:
        """Show the class that napari's own controls chose."""
        layer = self.session.layer if self.session is not None else None
        if layer is not None:
            self.class_box.setCurrentIndex(self.class_box.findData(layer.selected_label))

    @staticmethod
    def _add(into: QListWidget, text: str, key: str | None, current: bool) -> None:
        item = QListWidgetItem(text)
        item.setData(Qt.ItemDataRole.UserRole, key)
        into.addItem(item)
        if current:
            into.setCurrentItem(item)

    def _choose_store(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Store")
        if folder:
            self._try(lambda: self.open_store(folder))

    def open_store(self, folder: str) -> None:
        """Show a store in this widget."""
        session = ReviewSession(self.viewer, folder)
        self.session = session
        self._follow(session)
        self.open_button.setVisible(False)
        session.show()

    def _show(self, series: str | None) -> None:
        if self.session is not None and series is not None:
            self.session.show(series)
            self.tell(f"showing {series[:8]}")

    def _look(self, name: str | None) -> None:
        if self.session is not None and name is not None:
            self.session.look_at(name)

    def _edit(self) -> None:
        item = self.labels_list.currentItem()
        self._try(lambda: self._edit_copy(None if item is None else _key(item)))

    def _edit_copy(self, name: str | None) -> None:
        if self.session is not None:
            self.tell(self.session.edit(name).story)

    def _save(self) -> None:
        self._try(self._save_copy)

    def _save_copy(self) -> None:
        if self.session is not None:
            self.tell("saving…")
            self.status.repaint()  # saving takes the main thread, so that nobody paints meanwhile
            self.tell(str(self.session.save()))

    def _choose_class(self) -> None:
        if self.session is not None and self.session.layer is not None:
            self.session.layer.selected_label = self.class_box.currentData()

    def _add_class(self) -> None:
        self._try(self._new_class)

    def _new_class(self) -> None:
        if self.session is not None:
            label = self.session.add_class(self.new_class.text())
            self.new_class.clear()
            self.tell(f"painting class {label}")

    def _try(self, step: Callable[[], None]) -> None:
        """Do one step; an error of ours becomes a line below the buttons, and nothing that was painted is lost."""
        try:
            step()
        except CtpipeError as error:
            self.tell(str(error))
        self.refresh()


def _button(text: str, clicked: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.clicked.connect(lambda: clicked())
    return button


def _key(item: QListWidgetItem) -> str | None:
    key = item.data(Qt.ItemDataRole.UserRole)
    return None if key is None else str(key)
