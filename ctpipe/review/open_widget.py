"""The entry in napari's plugin menu: asks for a store, then the review room of that store opens in its tabs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from ctpipe.errors import CtpipeError
from ctpipe.review.view import open_room

if TYPE_CHECKING:
    import napari


class OpenStoreWidget(QWidget):
    """A button; what goes wrong is a line below it."""

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.open_button = QPushButton("Open store…")
        self.open_button.clicked.connect(self._choose)
        self.status = QLabel("a folder that ctpipe ingest wrote")
        self.status.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addWidget(self.open_button)
        layout.addWidget(self.status)
        layout.addStretch()

    def open_store(self, folder: str) -> None:
        """Open the review room of a store in this widget's viewer."""
        try:
            open_room(self.viewer, folder)
        except CtpipeError as error:
            self.status.setText(str(error))
        else:
            self.status.setText(f"open: {folder}")
            self.open_button.setEnabled(False)  # a viewer reviews one store

    def _choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Store")
        if folder:
            self.open_store(folder)
