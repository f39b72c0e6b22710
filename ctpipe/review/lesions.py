"""The list of lesions: every connected component of every class, measured; gone to by key; edited as a whole.

Measured lazily: a class at a time when the list is filled, and after an edit only what the edit touched. Without Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ctpipe.errors import UsageError
from ctpipe.review import lesion_edits
from ctpipe.review.commands import Command, Mode
from ctpipe.review.layers import preferred_labels
from ctpipe.scoring import Box, Measured, box_of, boxes_of_labels, joined, mask_of, measure_box, remeasured

if TYPE_CHECKING:
    from napari.layers import Layer

    from ctpipe.review.editing import Editing
    from ctpipe.review.lesion_edits import Edit, Ground
    from ctpipe.review.session import ReviewSession
    from ctpipe.scoring import ReadPlanes
    from ctpipe.volume import Grid

GoTo = Callable[[float, float, float], None]  # (z, y, x) voxel index with fractions
COPY = "the open copy"


@dataclass(frozen=True)
class Source:
    """Labels that are listed or compared: committed ones, or the copy that is open. Has the face of LabelsLike."""

    name: str
    series_id: str
    grid: Grid
    classes: Mapping[int, str]
    voxels: Callable[[int, int, int], NDArray]  # (start, stop, level) -> planes

    def read_planes(self, start: int, stop: int, level: int = 0) -> NDArray:
        return self.voxels(start, stop, level)


def copy_source(session: ReviewSession) -> Source | None:
    """The working copy that is open, None where none is."""
    copy, series = session.copy, session.series
    if copy is None or series is None:
        return None
    return Source(COPY, series.id, series.grid, copy.record.classes,
                  lambda start, stop, _level: np.asarray(copy.array[start:stop]))  # fmt: skip


def committed_source(session: ReviewSession, name: str) -> Source:
    """Committed labels of the series in view. Raises UsageError without one, NotThereError for other names."""
    if session.series is None:
        raise UsageError("no series is shown", "choose a series first")
    labels = session.series.labels[name]
    return Source(labels.name, labels.series_id, labels.grid, labels.classes, labels.read_planes)


class LesionList:
    """Lesions of the labels in view: of the open copy, else of the labels looked at last, else of the preferred ones.

    go_to: shows a voxel in all planes (default: moves the one view of the session). editing: what changes voxels; None:
    a list to look at. Signals: `changed` when `rows` would give other lesions; `chose` when another one is chosen.
    """

    changed = Signal()
    chose = Signal()

    def __init__(self, session: ReviewSession, go_to: GoTo | None = None, editing: Editing | None = None) -> None:
        self.session, self.editing = session, editing
        self.go_to: GoTo = go_to if go_to is not None else lambda z, y, x: move_view(session, z, y, x)
        self.chosen: Measured | None = None
        self.before: Measured | None = None  # chosen before that: what is merged
        self.only: str | None = None  # the class that is listed, None for all
        self.key: Callable[[Measured], float] = lambda one: -one.voxels  # order of the list, and of J and K
        self.hu_range: tuple[float, float] | None = None  # to grow within; None: about the lesion's own mean
        self.margin_mm = 20.0  # how far beyond its own box a lesion may grow
        self._looked_at: str | None = None
        self._source: Source | None = None
        self._found: list[Measured] = []
        self._waiting: dict[int, Box] = {}  # classes not measured yet, and where they lie
        self._survey = False  # whether it is to be found out yet where the labels lie
        self._edited: list[Box] = []
        session.shown.connect(self._other_series)
        session.labels_shown.connect(self._other_labels)
        session.copy_opened.connect(self.restart)
        session.copy_closed.connect(self.restart)
        if editing is not None:
            editing.edited.connect(self._note)
        self.restart()

    # -------------------------------------------------------------------------------------------- what is listed
    @property
    def source(self) -> Source | None:
        """What is listed; None where no series or no labels are there."""
        return self._source

    @property
    def classes(self) -> dict[int, str]:
        return {label: name for label, name in self._source.classes.items() if label} if self._source else {}

    @property
    def ready(self) -> bool:
        """Whether `rows` gives at once."""
        return self._source is None or not (self._survey or self._waiting or self._edited)

    def restart(self) -> None:
        """Take the labels in view anew and measure nothing yet; the voxels are read by `measure_next` or `rows`."""
        self._source = self._in_view()
        self._found, self._edited, self._waiting = [], [], {}
        self._survey = self._source is not None
        self.chosen = self.before = None
        self.changed.emit()

    def measure_next(self) -> bool:
        """Measure the next class; whether more are to come. What a viewer calls when it is idle."""
        if self._source is None:
            return False
        if self._survey:
            self._survey = False
            there = boxes_of_labels(self._source.read_planes, self._source.grid)
            self._waiting = {label: box for label, box in there.items() if label in self.classes}
        elif self._waiting:
            label = next(iter(self._waiting))
            box = self._waiting.pop(label)
            self._found += measure_box(self._source.read_planes, self._hu(), self._source.grid,
                                       {label: self.classes[label]}, box)  # fmt: skip
        else:
            self._catch_up()
        return not self.ready

    def rows(self) -> list[Measured]:
        """The lesions of the chosen class (or all), in the list's order; measures what is not measured yet."""
        while self.measure_next():
            pass
        wanted = [one for one in self._found if self.only in (None, one.name)]
        return sorted(wanted, key=lambda one: (self.key(one), one.label, one.number))

    # -------------------------------------------------------------------------------------------- going there
    def choose(self, one: Measured) -> str:
        """Choose a lesion and go to it; returns its line."""
        if self.chosen is not None and one != self.chosen:
            self.before = self.chosen
        self.chosen = one
        self.go_to(*one.middle)
        self.chose.emit()
        return line_of(one)

    def step(self, by: int) -> str:
        """Choose the lesion `by` rows on, from the last row to the first."""
        rows = self.rows()
        if not rows:
            return "no lesions in these labels"
        at = rows.index(self.chosen) + by if self.chosen in rows else (0 if by > 0 else -1)
        return f"{at % len(rows) + 1} of {len(rows)}: {self.choose(rows[at % len(rows)])}"

    # -------------------------------------------------------------------------------------------- edits
    def delete(self) -> str:
        """The chosen lesion becomes what surrounds it."""
        return self._apply(lesion_edits.delete(self._ground(), self._one()))

    def part(self) -> str:
        """Part the chosen lesion at its waist."""
        return self._apply(lesion_edits.part(self._ground(), self._one()))

    def cut(self) -> str:
        """Cut the chosen lesion by the plane in view."""
        axis = int(self.session.viewer.dims.order[0])
        layer = self.session.layer
        if layer is None:
            raise UsageError("no copy is open", "edit a copy first")
        index = round(float(layer.world_to_data(self.session.viewer.dims.point)[axis]))
        return self._apply(lesion_edits.cut(self._ground(), self._one(), axis, index))

    def merge(self) -> str:
        """Merge the lesion chosen before into the chosen one."""
        if self.before is None:
            raise UsageError("two lesions are merged", "choose the one, then the other that it shall belong to")
        return self._apply(lesion_edits.merge(self._ground(), self._one(), self.before))

    def reclassify(self, label: int | None = None) -> str:
        """Give the chosen lesion the class `label` (None: the one that is painted)."""
        painted = self.session.layer.selected_label if self.session.layer is not None else 0
        wanted = int(painted) if label is None else label
        return self._apply(lesion_edits.reclassify(self._ground(), self._one(), wanted))

    def grow(self) -> str:
        """Grow the chosen lesion within `hu_range` and `margin_mm`."""
        one = self._one()
        low, high = self.hu_range if self.hu_range is not None else lesion_edits.usual_range(one)
        return self._apply(lesion_edits.grow(self._ground(), one, low, high, self.margin_mm))

    def commands(self) -> list[Command]:
        """Next and previous lesion; edits of the chosen one."""
        return [
            Command("next-lesion", "Next lesion", "J", Mode.BOTH, lambda: self.step(1)),
            Command("previous-lesion", "Previous lesion", "K", Mode.BOTH, lambda: self.step(-1)),
            Command("split-lesion", "Part the lesion at its waist", "Shift-S", Mode.EDIT, self.part),
            Command("cut-lesion", "Cut the lesion by the plane in view", "Shift-X", Mode.EDIT, self.cut),
            Command("merge-lesions", "Merge the last two chosen lesions", "Shift-J", Mode.EDIT, self.merge),
            Command("reclassify-lesion", "Give the lesion the painted class", "Shift-R", Mode.EDIT, self.reclassify),
            Command("grow-lesion", "Grow the lesion within its range of HU", "Shift-E", Mode.EDIT, self.grow),
            Command("delete-lesion", "Delete the lesion", "Shift-D", Mode.EDIT, self.delete),
        ]

    # -------------------------------------------------------------------------------------------- inside
    def _in_view(self) -> Source | None:
        copy = copy_source(self.session)
        if copy is not None or self.session.series is None:
            return copy
        labels = self.session.series.labels
        shown = [labels_of_layer(layer) for layer in self.session.viewer.layers if layer.visible]
        name = next((one for one in (self._looked_at, *reversed(shown)) if one is not None and one in labels), None)
        if name is None:
            preferred = preferred_labels(self.session.series)
            name = None if preferred is None else preferred.name
        return None if name is None else committed_source(self.session, name)

    def _other_series(self) -> None:
        self._looked_at = None
        self.restart()

    def _other_labels(self, name: str) -> None:
        self._looked_at = name
        self.restart()

    def _note(self, box: Box) -> None:
        """An edit: what waits for its first look only grows by the box, the rest is measured again."""
        if self._survey or self._source is None:
            return
        self._waiting = {label: joined(there, box) for label, there in self._waiting.items()}
        self._edited.append(box)
        self.changed.emit()

    def _catch_up(self) -> None:
        source, edited = self._source, self._edited
        self._edited = []
        if source is None:
            return
        for box in edited:
            self._found = remeasured(self._found, box, source.read_planes, self._hu(), source.grid, self.classes)
        if edited:
            self.chosen, self.before = self._now(self.chosen), self._now(self.before)

    def _now(self, held: Measured | None) -> Measured | None:
        """The lesion that has the first voxel of an earlier one; None where that is background now."""
        if held is None or self._source is None:
            return None
        for one in self._found:
            at = [place - side.start for place, side in zip(held.first, box_of(one), strict=True)]
            inside = all(0 <= n <= high - low for n, low, high in zip(at, *one.box, strict=True))
            if inside and mask_of(one, self._source.read_planes)[tuple(at)]:
                return one
        return None

    def _hu(self) -> ReadPlanes | None:
        return None if self.session.series is None else self.session.series.read_planes

    def _one(self) -> Measured:
        self.rows()
        if self.chosen is None:
            raise UsageError("no lesion is chosen", "choose one in the list, or press J")
        return self.chosen

    def _ground(self) -> Ground:
        series, source = self.session.series, copy_source(self.session)
        if source is None or series is None or self.editing is None:
            raise UsageError("no copy is open", "edit a copy first")
        return lesion_edits.Ground(source.read_planes, series.read_planes, source.grid, source.classes)

    def _apply(self, edit: Edit) -> str:
        if self.editing is None:  # `_ground` has told so before
            raise UsageError("no copy is open", "edit a copy first")
        self.editing.apply(edit.kind, edit.box, edit.new, **edit.facts)
        return edit.told


def labels_of_layer(layer: Layer) -> str | None:
    """Name of the committed labels that a layer of ours shows; None for other layers."""
    name = layer.metadata.get("ctpipe", {}).get("labels")
    return None if name is None else str(name)


def move_view(session: ReviewSession, z: float, y: float, x: float) -> None:
    """Show a voxel in the session's own view, for want of linked planes."""
    if session.series is None:
        return
    grid = session.series.grid
    placed = zip((z, y, x), grid.spacing_mm, grid.translation_mm, strict=True)
    session.viewer.dims.set_point((0, 1, 2), [at * step + begin for at, step, begin in placed])


def line_of(one: Measured) -> str:
    """A lesion in one line, for the status bar."""
    hu = f", {one.hu[0]:.0f} HU" if one.hu else ""
    size = f"{one.volume_ml:.2f} mL, {one.axes.long_mm:.1f} × {one.axes.short_mm:.1f} mm"
    return f"{one.name} {one.number}: {size}{hu}, plane {one.axes.plane}"
