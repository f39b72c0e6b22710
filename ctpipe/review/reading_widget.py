"""The Qt face of reading: two planes beside the viewer, the crosshair drawn in all, windows, slab, 3-D, the key map."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.qt import QtViewer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QHideEvent, QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSlider,
    QSplitter,
    QVBoxLayout,
    QWidget,
)
from vispy.scene.visuals import Line

from ctpipe.errors import CtpipeError
from ctpipe.review.layers import preferred_labels
from ctpipe.review.reading import PROJECTIONS
from ctpipe.review.surfaces3d import SurfaceView
from ctpipe.review.windows import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ctpipe.review.keys import KeyMap
    from ctpipe.review.reading import Reading

_YELLOW = (1.0, 0.84, 0.31, 0.9)
_THICKEST_MM = 60


class ReadingWidget(QWidget):
    """The two other planes with the reading tools below them; `keys` are bound there as in the viewer.

    The viewer's own canvas comes with `viewer.window`; a ViewerModel has none, then only the sides show a crosshair.
    """

    def __init__(self, reading: Reading, keys: KeyMap | None = None) -> None:
        super().__init__()
        self.reading, self.keys = reading, keys
        self.canvases = [QtViewer(side) for side in reading.planes.sides]
        self._crosses = [Cross(canvas) for canvas in (*self._main(), *self.canvases)]
        self.window_box = QComboBox()
        self.window_box.addItems(["own", *PRESETS])
        self.projection_box = QComboBox()
        self.projection_box.addItems(PROJECTIONS)
        self.thickness = QSlider(Qt.Orientation.Horizontal)
        self.thickness.setRange(0, _THICKEST_MM)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self._lay_out()
        self.window_box.textActivated.connect(lambda name: self._say(lambda: reading.window(name)))
        self.projection_box.textActivated.connect(lambda mode: self._say(lambda: self._project(mode)))
        self.thickness.valueChanged.connect(lambda mm: self._say(lambda: reading.thicken(mm)))
        reading.moved.connect(self._draw)
        reading.told.connect(lambda line: self.status.setText(line))
        if keys is not None:
            for side in reading.planes.sides:
                keys.also(side)
            keys.told.connect(lambda line: self.status.setText(line))
            keys.help_wanted.connect(self.show_keys)
            help_key = QShortcut(QKeySequence("?"), self)  # napari knows no such key
            help_key.setContext(Qt.ShortcutContext.WindowShortcut)
            help_key.activated.connect(self.show_keys)
        self.dialog: QDialog | None = None
        self._draw()

    def show_keys(self) -> None:
        """The key map in a window of its own, which does not keep the viewer from work."""
        if self.keys is None:
            return
        self.dialog = QDialog(self)
        self.dialog.setWindowTitle("Keys")
        text = QPlainTextEdit(self.keys.text())
        text.setReadOnly(True)
        font = text.font()
        font.setFamily("monospace")
        text.setFont(font)
        QVBoxLayout(self.dialog).addWidget(text)
        self.dialog.resize(560, 640)
        self.dialog.show()

    def _main(self) -> Iterator[QtViewer]:
        window = getattr(self.reading.session.viewer, "window", None)
        if window is not None:
            yield window._qt_viewer  # napari gives no other way to its canvas

    def _lay_out(self) -> None:
        planes = QSplitter(Qt.Orientation.Vertical)
        for canvas in self.canvases:
            canvas.setMinimumSize(180, 150)
            planes.addWidget(canvas)
        tools = QFormLayout()
        tools.addRow("Window", self.window_box)
        slab = QHBoxLayout()
        slab.addWidget(self.projection_box)
        slab.addWidget(self.thickness)
        tools.addRow("Slab", slab)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.addWidget(planes, stretch=1)
        layout.addLayout(tools)
        layout.addWidget(self.status)

    def _project(self, mode: str) -> str:
        reading = self.reading
        reading._image().projection_mode = mode
        return reading.thicken(float(self.thickness.value()))

    def _say(self, step: Callable[[], object]) -> None:
        try:
            self.status.setText(str(step()))
        except CtpipeError as error:
            self.status.setText(str(error))

    def _draw(self, _voxel: object = None) -> None:
        planes = self.reading.planes
        viewers = planes.viewers[len(planes.viewers) - len(self._crosses) :]
        for cross, viewer in zip(self._crosses, viewers, strict=True):
            shown = self.reading.crosshair and planes.grid is not None and viewer.dims.ndisplay == 2
            cross.draw(planes.cross(viewer) if shown else None)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """The window goes: its canvases first, each with what draws into it; Qt would delete them in its own order."""
        super().hideEvent(event)
        if not self.window().isVisible() and not event.spontaneous():
            self.shut()

    def shut(self) -> None:
        """Let all canvases go."""
        self.reading.moved.disconnect(self._draw, missing_ok=True)
        for cross in self._crosses:
            cross.remove()
        self._crosses = []
        for canvas in self.canvases:
            canvas.close()


class Cross:
    """The crosshair in one canvas: a visual of its own, since a napari layer would be sliced anew at each move."""

    def __init__(self, canvas: QtViewer) -> None:
        self._line = Line(
            np.zeros((2, 2)), color=_YELLOW, connect="segments", method="gl", parent=canvas.canvas.view.scene
        )
        self._line.order = 1000
        self._line.set_gl_state("translucent", depth_test=False)
        self._line.visible = False

    def remove(self) -> None:
        self._line.parent = None

    def draw(self, lines: np.ndarray | None) -> None:
        """lines: (n, 2, 2) ends as (down, right) in mm; None hides it."""
        self._line.visible = lines is not None and len(lines) > 0
        if lines is not None and len(lines):
            self._line.set_data(pos=lines.reshape(-1, 2)[:, ::-1])


class SurfaceWidget(QWidget):
    """The 3-D view with opacity per class, clipping and sides to look from; surfaces come one by one."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.reading, self.view = reading, SurfaceView()
        self.canvas = QtViewer(self.view.viewer)
        self.class_box = QComboBox()
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.clips = [QSlider(Qt.Orientation.Horizontal) for _ in range(3)]
        self.status = QLabel()
        self._steps: Iterator[str] | None = None
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._step)
        self._lay_out()
        self.class_box.currentIndexChanged.connect(self._show_opacity)
        self.opacity.valueChanged.connect(self._set_opacity)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        self.canvas.setMinimumSize(220, 220)
        layout.addWidget(self.canvas, stretch=1)
        row = QHBoxLayout()
        row.addWidget(_button("Surfaces", self.start))
        volume = _button("CT", lambda: self.view.show_volume(volume.isChecked()))
        volume.setCheckable(True)
        row.addWidget(volume)
        for side in "APLRHF":
            row.addWidget(_button(side, partial(self._face, side)))
        layout.addLayout(row)
        form = QFormLayout()
        form.addRow("Class", self.class_box)
        form.addRow("Opacity", self.opacity)
        for axis, slider in enumerate(self.clips):
            slider.setRange(0, 100)
            slider.valueChanged.connect(lambda value, axis=axis: self._clip(axis, value))
            form.addRow(f"Clip {'zyx'[axis]}", slider)
        layout.addLayout(form)
        layout.addWidget(self.status)

    def start(self) -> None:
        """Make the surfaces of the preferred labels of the shown series, a class at a time."""
        series = self.reading.session.series
        labels = None if series is None else preferred_labels(series)
        if series is None or labels is None:
            self.status.setText("no labels to show; choose a series with labels")
            return
        for slider in self.clips:
            slider.setValue(0)
        self.class_box.clear()
        self._steps = self.view.steps(series, labels)
        self._timer.start(0)

    def _step(self) -> None:
        try:
            name = next(self._steps) if self._steps is not None else None
        except CtpipeError as error:
            name, self._steps = None, None
            self.status.setText(str(error))
        except StopIteration:
            name = None
            self.status.setText(f"{len(self.view.surfaces)} surfaces")
            self._fill_classes()
            self.view.viewer.reset_view(reset_camera_angle=False)  # the canvas has its size by now
        if name is None:
            self._timer.stop()
        else:
            self.status.setText(f"surface of {name}")

    def _fill_classes(self) -> None:
        for label, layer in self.view.surfaces.items():
            self.class_box.addItem(layer.name, label)

    def _show_opacity(self) -> None:
        label = self.class_box.currentData()
        if label is not None:
            self.opacity.setValue(round(100 * self.view.surfaces[label].opacity))

    def _set_opacity(self, value: int) -> None:
        label = self.class_box.currentData()
        if label is not None:
            self.view.set_opacity(label, value / 100)

    def _clip(self, axis: int, value: int) -> None:
        if self.view.grid is not None:
            self.view.clip(axis, value / 100)

    def _face(self, side: str) -> None:
        if self.view.grid is not None:
            self.view.face(side)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        super().hideEvent(event)
        if not self.window().isVisible() and not event.spontaneous():
            self._timer.stop()
            self._steps = None
            self.canvas.close()


def _button(text: str, clicked: Callable[[], None]) -> QPushButton:
    button = QPushButton(text)
    button.clicked.connect(lambda: clicked())
    return button
