"""Reading a case: linked planes, windows, slabs, probe and ruler as actions on napari's ViewerModel. Without Qt.

Mouse, in any plane: a click moves the crosshair, a drag moves the plane, the right button drags the window; after
`measure` or `recist` the next drag draws a line. None of it while a brush or another tool of napari is in hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components.overlays import TextOverlay
from psygnal import Signal

from ctpipe.errors import UsageError
from ctpipe.review.commands import Command, Mode
from ctpipe.review.planes import LinkedPlanes
from ctpipe.review.probe import Probe
from ctpipe.review.ruler import Line, line, told
from ctpipe.review.windows import PRESETS, Window, dragged, own_window, window_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from ctpipe.review.session import ReviewSession

RULER = "ruler"
PROJECTIONS = ("none", "max", "mean", "min")
_STEP_MM = 5.0  # how much thicker a slab gets at a time
_CLICK_PX = 3.0  # a press that moves less is a click
_NOTE = "ctpipe_note"


class Reading:
    """The reading part of a review. Signals: `moved` (voxel z, y, x), `told` (a line for the reader)."""

    moved = Signal(tuple)
    told = Signal(str)

    def __init__(self, session: ReviewSession) -> None:
        self.session = session
        self.planes = LinkedPlanes(session.viewer)
        self.lines: list[Line] = []
        self.crosshair = True
        self.thickness_mm = 0.0
        self._wanted = 0  # lines that the next drags draw
        self._hidden: list[Any] = []
        self.planes.moved.connect(self._moved)
        session.left.connect(self.planes.leave)
        session.shown.connect(self._show)
        session.labels_shown.connect(lambda _: self._note())
        for viewer in self.planes.viewers:
            viewer.mouse_drag_callbacks.append(self._drag)
        if session.series is not None:
            self._show()

    def commands(self) -> list[Command]:
        """Windows on 1 to 7 (0: the series' own) while reading and on F1 to F8 always; the rest while reading."""
        windows = [("own", "the series' own"), *((name, name) for name in PRESETS)]
        made = []
        for number, (name, title) in enumerate(windows):
            run = _told(partial(self.window, name))
            made.append(Command(f"window-{name}", f"window: {title}", str(number), Mode.READ, run))
            made.append(Command(f"window-{name}-any", f"window: {title}", f"F{number or 8}", Mode.BOTH, run))
        for name, title, key, step in (
            ("measure", "measure: the next drag draws a line", "M", self.measure),
            ("recist", "RECIST pair: the next two drags draw long and short axis", "R", self.recist),
            ("clear-lines", "remove the lines", "Shift-M", self.clear_lines),
            ("crosshair", "show or hide the crosshair", "C", self.toggle_crosshair),
            ("hide-labels", "hide labels, or show them again", "H", self.toggle_labels),
            ("projection", "slab: none, maximum, mean, minimum", "P", self.next_projection),
            ("thicker", "slab thicker", "]", lambda: self.thicken(self.thickness_mm + _STEP_MM)),
            ("thinner", "slab thinner", "[", lambda: self.thicken(self.thickness_mm - _STEP_MM)),
            ("next-pane", "large plane: axial, coronal, sagittal", "W", self.next_pane),
            ("fit", "fit the planes into view", "Home", self.fit),
            ("probe", "HU at the crosshair", "I", lambda: str(self.probe())),
        ):
            made.append(Command(name, title, key, Mode.READ, _told(step)))
        return made

    def go_to(self, z: float, y: float, x: float) -> None:
        """Move the crosshair of all planes to a voxel (index, fractions allowed)."""
        self.planes.go_to(z, y, x)

    def probe(self) -> Probe:
        """HU and labels of the voxel under the crosshair."""
        return Probe.of(self.session, self.planes.voxel)

    @property
    def image(self) -> Image | None:
        """The layer of the CT."""
        series = self.session.series
        for layer in self.session.viewer.layers:
            if series is not None and layer._type_string == "image":
                facts = layer.metadata.get("ctpipe", {})
                if facts.get("series") == series.id and "layer" not in facts:  # none that a run kept
                    return layer
        return None

    def window(self, name: str) -> str:
        """Show a preset, or "own": the series' VOI."""
        series = self.session.series
        chosen = own_window(None if series is None else series.voi) if name == "own" else PRESETS[name]
        return f"{name}: {self.set_window(chosen)}"

    def set_window(self, window: Window) -> Window:
        """Show these HU, in all planes."""
        if (layer := self.image) is not None:
            low, high = window.limits
            reach = layer.contrast_limits_range
            layer.contrast_limits_range = (min(low, reach[0]), max(high, reach[1]))
            layer.contrast_limits = (low, high)
        self._note()
        return window

    def toggle_crosshair(self) -> str:
        self.crosshair = not self.crosshair
        self.moved.emit(self.planes.voxel)
        return f"crosshair {'on' if self.crosshair else 'off'}"

    def toggle_labels(self) -> str:
        """Hide the labels in view; the second time, show the same again."""
        labels = [layer for layer in self.session.viewer.layers if layer._type_string == "labels"]
        shown = [layer for layer in labels if layer.visible]
        again = [layer for layer in self._hidden if layer in labels]
        for layer in shown or again:
            layer.visible = not shown
        self._hidden = shown
        return "labels hidden" if shown else "labels shown"

    def next_projection(self) -> str:
        """The next way to show a slab; the first time it gets 10 mm."""
        layer = self._image()
        mode = PROJECTIONS[(PROJECTIONS.index(str(layer.projection_mode)) + 1) % len(PROJECTIONS)]
        layer.projection_mode = mode
        return self.thicken(self.thickness_mm or 2 * _STEP_MM)

    def thicken(self, thickness_mm: float) -> str:
        """Slabs of this thickness at most; a plane is shown at least."""
        self._image()
        self.thickness_mm = max(0.0, thickness_mm)
        counts = self.planes.thicken(self.thickness_mm)
        self._note()
        return f"{self._slab()}: {', '.join(f'{name} {count} planes' for name, count in counts.items())}"

    def next_pane(self) -> str:
        self._image()
        return self.planes.enlarge().name

    def fit(self) -> None:
        """All of each plane in view."""
        self.planes.fit()

    def measure(self) -> str:
        """The next drag draws a line."""
        return self._arm(1, "drag from end to end")

    def recist(self) -> str:
        """The next two drags draw the long and the short axis."""
        return self._arm(2, "drag the long axis, then the short one")

    def clear_lines(self) -> str:
        self._wanted = 0
        self._set_lines([])
        return "lines removed"

    def _arm(self, lines: int, story: str) -> str:
        self._image()
        self._set_lines([])
        self._wanted = lines
        return story

    def _set_lines(self, lines: list[Line]) -> None:
        self.lines = lines
        viewer = self.session.viewer
        if lines:
            ends = [(self.planes.point(one.start), self.planes.point(one.stop)) for one in lines]
            self.planes.add_lines(RULER, np.array([(a, b - a) for a, b in ends]), "#80deea")
        elif RULER in viewer.layers:
            viewer.layers.remove(RULER)
        self._note()

    def _show(self) -> None:
        """Another series: planes of its grid, nothing measured, one plane thick."""
        series = self.session.series
        if series is None:
            return
        self.lines, self._wanted, self.thickness_mm, self._hidden = [], 0, 0.0, []
        if (layer := self.image) is not None:
            layer.projection_mode = "none"  # napari's own is the mean
        self.planes.show(series.grid)
        self.planes.thicken(0.0)
        self._note()

    def _moved(self, voxel: tuple[int, int, int]) -> None:
        self._note()
        self.moved.emit(voxel)

    def _note(self) -> None:
        """The text in the corner of the viewer: place, HU, window, slab, measurement."""
        series, layer, overlays = self.session.series, self.image, self.session.viewer.canvas.overlays
        if series is None or layer is None or self.planes.grid is not series.grid:
            return
        texts = [*self.probe().lines, str(window_of(layer.contrast_limits)), self._slab()]
        texts += [told(self.lines, series.grid)] if self.lines else []
        if _NOTE not in overlays:
            overlays[_NOTE] = TextOverlay(position="top_left", visible=True, font_size=9, box=False)
        overlays[_NOTE].text = "\n".join(texts)

    def _slab(self) -> str:
        layer = self.image
        mode = "none" if layer is None else str(layer.projection_mode)
        return "one plane" if mode == "none" else f"{mode} of {self.thickness_mm:.0f} mm"

    def _image(self) -> Image:
        if (layer := self.image) is None:
            raise UsageError("no series is shown", "choose a series first")
        return layer

    def _drag(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """A press in a plane, its moves and its release (napari's form of a mouse callback)."""
        active = viewer.layers.selection.active
        if self.image is None or viewer.dims.ndisplay != 2 or event.modifiers or (
            active is not None and str(active.mode) != "pan_zoom"
        ):  # fmt: skip
            return
        if event.button == 2:
            yield from self._drag_window(event)
        elif event.button == 1 and self._wanted:
            yield from self._drag_line(event)
        elif event.button == 1:
            yield from self._click(event)

    def _drag_window(self, event: Any) -> Iterator[None]:
        begun, start = window_of(self._image().contrast_limits), np.array(event.pos)
        event.handled = True  # else napari zooms
        yield
        while event.type == "mouse_move":
            right, down = np.array(event.pos) - start
            self.told.emit(str(self.set_window(dragged(begun, right, down))))
            event.handled = True
            yield

    def _drag_line(self, event: Any) -> Iterator[None]:
        before, start = list(self.lines), self.planes.index(event.position)
        event.handled = True  # else napari moves the plane
        yield
        while event.type == "mouse_move":
            self._set_lines([*before, line(start, self.planes.index(event.position))])
            event.handled = True
            yield
        if len(self.lines) > len(before):
            self._wanted -= 1
            self.told.emit(told(self.lines, self.planes._grid()))

    def _click(self, event: Any) -> Iterator[None]:
        pressed = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.array(event.pos) - pressed).max() < _CLICK_PX:
            self.go_to(*self.planes.index(event.position))


def _told(step: Callable[[], Any]) -> Callable[[], str | None]:
    """A step as a command runs it: what it gives back as a line of text."""

    def run() -> str | None:
        done = step()
        return None if done is None else str(done)

    return run
