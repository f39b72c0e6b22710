"""Editing: the one way in which voxels of a working copy change. Journalled, undoable, shown at once. Without Qt."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ctpipe.errors import UsageError
from ctpipe.review.boxes import Box, shape_of
from ctpipe.review.commands import Command, Mode
from ctpipe.review.delta import Delta
from ctpipe.review.painting import MousePainting
from ctpipe.review.records import REDO, UNDO
from ctpipe.review.strokes import stroke_delta
from ctpipe.review.tools import Tools

if TYPE_CHECKING:
    from napari.layers import Labels as LabelsLayer

    from ctpipe.review.session import ReviewSession
    from ctpipe.review.working_copy import WorkingCopy

IDLE_S = 60.0  # a longer pause between two actions counts as this much work


class Editing:
    """Edits of the working copy that `session` has open; a session has one, `session.editing`.

    Signals: `edited(box)` after voxels changed, the box as slices along z, y, x. `told(line)` for the status bar.
    tools: brush, polygon, interpolation and the rest, with their settings in millimetres and HU.
    """

    edited = Signal(tuple)
    told = Signal(str)

    def __init__(self, session: ReviewSession) -> None:
        self.session = session
        self.tools = Tools(self)
        self._mouse = MousePainting(self)
        self._layers: list[LabelsLayer] = []
        self._last = monotonic()
        before: Editing | None = getattr(session, "editing", None)
        if before is not None:  # each stroke is journalled once
            before._release()
        session.editing = self
        session.copy_opened.connect(self._attach)
        session.copy_closed.connect(self._detach)
        if session.copy is not None:
            self._attach()

    @property
    def copy(self) -> WorkingCopy:
        """The open working copy. Raises UsageError where none is open."""
        if self.session.copy is None:
            raise UsageError("no copy is open", "edit a copy first")
        return self.session.copy

    @property
    def layer(self) -> LabelsLayer:
        """The layer that is painted on. Raises UsageError where none is open."""
        if self.session.layer is None:
            raise UsageError("no copy is open", "edit a copy first")
        return self.session.layer

    @property
    def saved(self) -> bool:
        """Whether every action so far is on a disk."""
        journal = self.copy.journal
        return not journal.waiting or (journal.elsewhere is not None)

    def apply(self, kind: str, box: Box, new: NDArray, **facts: Any) -> None:
        """Set the voxels of `box` to `new` (its shape, labels that the copy's dtype holds), as one action.

        kind: what the action is called, as "brush". facts: settings of the tool, JSON-plain, no free text: they go into
        the journal. Nothing is recorded where no voxel differs. A full disk raises nothing: `told` says so, and the
        action waits in memory. Raises UsageError for a box or values that do not fit.
        """
        array = self.copy.array
        _check(box, new, array)
        delta = Delta.between(box, array[box], np.asarray(new).astype(array.dtype, copy=False))
        if delta is not None:
            delta.put(array)
            self.record(kind, delta, **facts)

    def record(self, kind: str, delta: Delta, **facts: Any) -> None:
        """Journal what is in the array already, and show it everywhere."""
        self.copy.journal.append(kind, delta, active_s=self._spent(), **facts)
        self._show(delta.box)
        self._tell_fault(f"{kind}: {delta.voxels} voxels")

    def undo(self) -> str:
        """Take the last action that stands back, whatever plane or day it is of; returns a line."""
        stack = self.copy.journal.stack
        return self._turn(UNDO, stack.done[-1] if stack.done else None)

    def redo(self) -> str:
        """Do the action again that was undone last; returns a line."""
        stack = self.copy.journal.stack
        return self._turn(REDO, stack.undone[-1] if stack.undone else None)

    def try_again(self) -> str:
        """Write what waits in memory, now that there may be room; returns a line."""
        n = self.copy.journal.waiting
        if self.copy.journal.flush():
            return f"saved: {n} actions that were in memory" if n else "all actions are saved"
        return self._tell_fault("")

    def keep_elsewhere(self, folder: str | Path) -> str:
        """Keep the journal in another folder too, until the store takes records again; returns a line."""
        place = self.copy.journal.write_elsewhere(Path(folder))
        return f"actions are kept in {place} until the store has room"

    def watch(self, layer: LabelsLayer) -> None:
        """Journal strokes on another layer over the same array (a linked plane), and refresh it after edits."""
        if layer in self._layers:
            return
        self._layers.append(layer)
        layer.events.paint.connect(self._painted)
        # napari's own history knows one viewer and one day: its keys and menus come here
        layer.undo, layer.redo = self.undo, self.redo
        self._mouse.attach(layer)

    def unwatch(self, layer: LabelsLayer) -> None:
        """Forget a layer."""
        if layer in self._layers:
            self._layers.remove(layer)
            layer.events.paint.disconnect(self._painted)
            self._mouse.detach(layer)

    def refresh(self) -> None:
        """Draw the working copy anew in all its layers."""
        for layer in self._layers:
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def commands(self) -> list[Command]:
        """What keys can do in edit mode."""
        return [
            Command("undo", "Undo the last action, also of an earlier day", "Control-Z", Mode.EDIT, self.undo),
            Command("redo", "Redo", "Control-Shift-Z", Mode.EDIT, self.redo),
            *self.tools.commands(),
        ]

    def _turn(self, kind: str, n: int | None) -> str:
        if n is None:
            return f"nothing to {kind}"
        journal = self.copy.journal
        entry = journal.entry(n)
        delta = journal.delta(entry)
        if delta is not None:
            delta.put(self.copy.array, undo=kind == UNDO)
        journal.append(kind, None, of=n, active_s=self._spent())
        if delta is not None:
            self._go_to(delta.box)
            self._show(delta.box)
        return self._tell_fault(f"{kind} {entry.kind}: {delta.voxels if delta is not None else 0} voxels")

    def _painted(self, event: Any) -> None:
        """A stroke of napari's own tools has ended."""
        delta = stroke_delta(event.value, self.copy.array)
        event.value.clear()  # napari would keep the masks of a hundred strokes, and undo them past the journal
        if delta is not None:
            delta.put(self.copy.array)  # a call of `paint` tells before it writes
            self.copy.journal.append("paint", delta, active_s=self._spent())
            self._show(delta.box)
            self._tell_fault(f"paint: {delta.voxels} voxels")

    def _show(self, box: Box) -> None:
        self.refresh()
        self.edited.emit(box)

    def _tell_fault(self, line: str) -> str:
        fault, journal = self.copy.journal.fault, self.copy.journal
        if fault is not None:
            kept = f"; kept in {journal.elsewhere}" if journal.elsewhere is not None else ""
            line = f"NOT SAVED, {journal.waiting} in memory: {fault}{kept}"
        self.session.viewer.status = line
        self.told.emit(line)
        return line

    def _go_to(self, box: Box) -> None:
        """Show the planes of an edit that is out of view: nothing is undone unseen."""
        axis, plane = self.tools.plane()
        if axis is not None and not box[axis].start <= plane < box[axis].stop:
            middle = [(s.start + s.stop - 1) // 2 for s in box]
            point = self.layer.data_to_world(middle)
            self.session.viewer.dims.set_point(axis, point[axis])

    def _spent(self) -> float:
        now = monotonic()
        spent, self._last = min(now - self._last, IDLE_S), now
        return spent

    def _attach(self) -> None:
        self._last = monotonic()
        self.watch(self.layer)
        self.tools.follow(self.layer)
        self.layer.events.data.connect(self._data_replaced)
        if self.copy.told:
            self.told.emit("; ".join(self.copy.told))

    def _data_replaced(self) -> None:
        """The menu of napari converts a layer's type by giving it another array: strokes on it would be lost."""
        layer, copy = self.session.layer, self.session.copy
        if layer is not None and copy is not None and layer.data is not copy.array:
            layer.data = copy.array
            self._tell_fault("the layer stays on the working copy: its data cannot be replaced or converted")

    def _release(self) -> None:
        self.session.copy_opened.disconnect(self._attach)
        self.session.copy_closed.disconnect(self._detach)
        self._detach()

    def _detach(self) -> None:
        for layer in list(self._layers):
            self.unwatch(layer)


def _check(box: Box, new: NDArray, array: NDArray) -> None:
    new = np.asarray(new)
    if len(box) != 3 or any(not 0 <= s.start < s.stop <= n for s, n in zip(box, array.shape, strict=True)):
        raise UsageError("a box that is empty or outside the volume", "give slices within the volume")
    if new.shape != shape_of(box) or new.dtype.kind not in "biu":
        raise UsageError(f"{new.shape} {new.dtype} for a box of {shape_of(box)}", "give labels of the whole box")
    low, high = int(new.min()), int(new.max())
    if low < 0 or high > np.iinfo(array.dtype).max:
        raise UsageError(f"labels {low} to {high} in a copy of {array.dtype}", "give labels that it holds")
