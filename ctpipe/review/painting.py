"""Painting by mouse with napari's brush and eraser, made ours: round in mm, limited to HU, one action a stroke."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctpipe.review.boxes import Box, inside, union
from ctpipe.review.brush import swept
from ctpipe.review.delta import Delta

if TYPE_CHECKING:
    from napari.layers import Labels as LabelsLayer

    from ctpipe.review.editing import Editing

_LEFT = 1  # the right button is napari's: a closed curve that is filled
_MODES = {"paint": "brush", "erase": "erase"}


class Stroke:
    """A brush stroke under way: each point is painted and shown at once; `finish` makes one action of them."""

    def __init__(self, editing: Editing, kind: str, label: int, axis: int | None) -> None:
        self.editing, self.kind, self.label, self.axis = editing, kind, label, axis
        self._copy = editing.copy
        self._last: NDArray | None = None
        self._before: list[tuple[Box, NDArray]] = []

    def to(self, point: ArrayLike) -> None:
        """Paint from the last point to `point` (voxel index z, y, x; fractions)."""
        tools, array = self.editing.tools, self._copy.array
        at = np.asarray(point, float)
        series = self.editing.session.series
        assert series is not None  # a copy is open
        covered = swept(series.grid, at if self._last is None else self._last, at, tools.radius_mm, self.axis)
        self._last = at
        if covered is None:
            return
        box, mask = covered
        cut = array[box]
        mask &= tools.allowed(box, cut, self.label) & (cut != self.label)
        if not mask.any():
            return
        self._before.append((box, cut.copy()))
        cut[mask] = self.label
        self.editing.refresh()

    def finish(self) -> None:
        """Journal the whole stroke as one action."""
        if not self._before:
            return
        box = union([box for box, _ in self._before])
        after = self._copy.array[box]
        before = after.copy()
        for part, voxels in reversed(self._before):
            before[inside(part, box)] = voxels
        self._before = []
        delta = Delta.between(box, before, after)
        if delta is not None:
            tools = self.editing.tools
            self.editing.record(self.kind, delta, radius_mm=tools.radius_mm, hu=tools.hu_range, three_d=tools.three_d)


class MousePainting:
    """Puts our stroke in the place of napari's in the layers that are painted on, in the modes paint and erase."""

    def __init__(self, editing: Editing) -> None:
        self.editing = editing

    def attach(self, layer: LabelsLayer) -> None:
        layer.events.mode.connect(self._mode_changed)
        self._take_over(layer)

    def detach(self, layer: LabelsLayer) -> None:
        layer.events.mode.disconnect(self._mode_changed)
        if self._drag in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._drag)

    def _mode_changed(self, event: Any) -> None:
        self._take_over(event.source)

    def _take_over(self, layer: LabelsLayer) -> None:
        """Where the mode is chosen, napari puts its own callback into the list; ours takes that place."""
        callbacks = layer.mouse_drag_callbacks
        if self._drag in callbacks:
            callbacks.remove(self._drag)
        theirs = [at for at, call in enumerate(callbacks) if getattr(call, "__qualname__", "") == "draw"]
        if str(layer.mode) in _MODES and theirs:
            callbacks[theirs[0]] = self._drag

    def _drag(self, layer: LabelsLayer, event: Any) -> Iterator[None]:
        shown = list(event.dims_displayed)
        if event.button != _LEFT or layer.cursor == "circle_frozen" or len(shown) != 2:
            return
        axis = next(k for k in range(3) if k not in shown)
        kind = _MODES[str(layer.mode)]
        stroke = self.editing.tools.stroke(kind, 0 if kind == "erase" else int(layer.selected_label), axis)
        try:
            stroke.to(layer.world_to_data(event.position))
            yield
            while event.type == "mouse_move":
                stroke.to(layer.world_to_data(event.position))
                yield
        finally:  # also where the window loses the mouse
            stroke.finish()
