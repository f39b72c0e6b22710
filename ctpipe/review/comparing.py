"""Two label sets of one series held against each other: as colours, as places to step through, lesion by lesion.

The sets are runs, truth, reviews, or the copy that is open. One is held to be right; the other is compared with it.
Without Qt. The layer is lazy: a slab is compared when it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ctpipe.errors import UsageError
from ctpipe.review.commands import Command, Mode
from ctpipe.review.layers import placement, preferred_labels
from ctpipe.review.lesions import COPY, GoTo, Source, committed_source, copy_source, labels_of_layer, move_view
from ctpipe.scoring import Code, Confusion, Difference, Disagreement, LesionChange, disagreements, match_lesions
from ctpipe.volume import pyramid_levels, slabs_of
from ctpipe.words import LabelKind

if TYPE_CHECKING:
    from napari.layers import Labels as LabelsLayer

    from ctpipe.review.editing import Editing
    from ctpipe.review.session import ReviewSession

# Of three hues that colour-blind eyes tell apart too; a fourth for voxels that both sides label, but not alike.
COLOURS: dict[int | None, Any] = {
    0: (0.0, 0.0, 0.0, 0.0), Code.AGREED: (0.18, 0.72, 0.53, 0.5), Code.FALSE_POSITIVE: (1.0, 0.38, 0.19, 1.0),
    Code.FALSE_NEGATIVE: (0.28, 0.55, 1.0, 1.0), Code.OTHER_CLASS: (0.96, 0.88, 0.26, 1.0), None: (0.0, 0.0, 0.0, 0.0),
}  # fmt: skip
LAYER = "difference"


class Comparison:
    """What two label sets of the series in view agree and disagree on.

    go_to: as for LesionList. editing: tells of edits of the open copy. Signal `changed`: other sets, or other voxels.
    """

    changed = Signal()

    def __init__(self, session: ReviewSession, go_to: GoTo | None = None, editing: Editing | None = None) -> None:
        self.session = session
        self.go_to: GoTo = go_to if go_to is not None else lambda z, y, x: move_view(session, z, y, x)
        self.difference: Difference | None = None
        self.layer: LabelsLayer | None = None
        self.at = -1  # which disagreement is shown
        self._places: list[Disagreement] | None = None
        self._matched: list[LesionChange] | None = None
        session.shown.connect(self.clear)
        session.copy_closed.connect(self._copy_closed)
        if editing is not None:
            editing.edited.connect(self._edited)

    @property
    def choices(self) -> list[str]:
        """What can be compared: the labels of the series by name, and the open copy."""
        series = self.session.series
        names = [] if series is None else list(series.labels)
        return names + ([COPY] if copy_source(self.session) is not None else [])

    def usual_pair(self) -> tuple[str, str] | None:
        """What a reader would compare: the truth (else what came before) with the copy or the preferred labels."""
        series = self.session.series
        if series is None or len(self.choices) < 2:
            return None
        preferred = preferred_labels(series)
        other = COPY if COPY in self.choices else ("" if preferred is None else preferred.name)
        rest = [name for name in series.labels if name != other]
        truths = [name for name in rest if series.labels[name].kind is LabelKind.TRUTH]
        parent = self.session.copy.record.parent if self.session.copy is not None else None
        return ([parent] if parent in rest else truths or rest)[0] or "", other

    def compare(self, right: str | None = None, other: str | None = None, only: str | None = None) -> str:
        """Compare two sets (None: the usual pair) in one class (None: all) and show the layer; returns its line.

        Raises UsageError where there are no two sets, NotThereError for a set or a class that is not there.
        """
        usual = self.usual_pair()
        if usual is None:
            raise UsageError("two sets of labels are compared", "this series has fewer")
        self.difference = Difference(self._source(right or usual[0]), self._source(other or usual[1]), only)
        self._forget()
        self._show()
        return f"{self._other.name} against {self._right.name}" + (f", {only}" if only else "")

    def clear(self) -> None:
        """Take the comparison away."""
        if self.layer is not None and self.layer in self.session.viewer.layers:
            self.session.viewer.layers.remove(self.layer)
        self.layer = self.difference = None
        self._forget()

    def dice(self) -> dict[str, float]:
        """Dice of every class by name, NaN for one that neither side has a voxel of. Reads both sides."""
        difference = self._compared()
        names = difference.names
        counts = Confusion.empty(len(names) + 2)
        for slab in slabs_of(self._right.grid.shape.z):
            counts += Confusion.from_planes(*difference.classes_of(slab.start, slab.stop), len(names) + 2)
        return {name: counts.dice(n) for n, name in enumerate(names, start=1) if difference.only in (None, name)}

    def places(self) -> list[Disagreement]:
        """Where they disagree, the largest first; reads both sides the first time, and after an edit."""
        if self._places is None:
            self._places = disagreements(self._compared().planes, self._right.grid)
        return self._places

    def matched(self) -> list[LesionChange]:
        """What became of each lesion from the right side to the other, the largest first; read once."""
        if self._matched is None:
            series = self.session.series
            hu = None if series is None else series.read_planes
            only = self._compared().only
            found = match_lesions(self._right, self._other, hu)
            self._matched = [one for one in found if only in (None, one.name)]
        return self._matched

    def step(self, by: int) -> str:
        """Go to the disagreement `by` places on, from the last to the first."""
        if self.difference is None:
            self.compare()
        places = self.places()
        if not places:
            return "they agree everywhere"
        self.at = (self.at + by if self.at >= 0 else min(by, 0)) % len(places)
        return self.go(places[self.at])

    def go(self, place: Disagreement) -> str:
        """Go to one place; returns its line."""
        self.at = self.places().index(place)
        z, y, x = place.at
        self.go_to(z, y, x)
        return f"{self.at + 1} of {len(self.places())}: {place.code.title}, {place.volume_ml:.2f} mL, plane {z}"

    def go_to_change(self, change: LesionChange) -> str:
        """Go to the largest lesion of a change; returns its line."""
        self.go_to(*change.largest.middle)
        return line_of_change(change)

    def commands(self) -> list[Command]:
        """Next and previous disagreement."""
        return [
            Command("next-disagreement", "Next place where two label sets disagree", "D", Mode.READ,
                    lambda: self.step(1)),
            Command("previous-disagreement", "Previous disagreement", "Shift-D", Mode.READ, lambda: self.step(-1)),
        ]  # fmt: skip

    # -------------------------------------------------------------------------------------------- inside
    def _compared(self) -> Difference:
        if self.difference is None:
            raise UsageError("nothing is compared", "choose two sets of labels")
        return self.difference

    @property
    def _right(self) -> Any:
        return self._compared().right

    @property
    def _other(self) -> Any:
        return self._compared().other

    def _source(self, name: str) -> Source:
        copy = copy_source(self.session) if name == COPY else None
        return copy if copy is not None else committed_source(self.session, name)

    def _forget(self) -> None:
        self.at, self._places, self._matched = -1, None, None
        self.changed.emit()

    def _edited(self, _box: object) -> None:
        """The copy has other voxels: what was read of it counts no more."""
        if self.difference is not None and COPY in (self._right.name, self._other.name):
            self._places = self._matched = None
            if self.layer is not None:
                self.layer.data = self._levels()
            self.changed.emit()

    def _copy_closed(self) -> None:
        if self.difference is not None and COPY in (self._right.name, self._other.name):
            self.clear()

    def _show(self) -> None:
        levels, viewer = self._levels(), self.session.viewer
        if self.layer is not None and self.layer in viewer.layers:
            viewer.layers.remove(self.layer)
        for shown in viewer.layers:  # labels below would tint the colours of the difference
            if shown is not self.session.layer and labels_of_layer(shown) is not None:
                shown.visible = False
        self.layer = viewer.add_labels(
            levels, name=LAYER, multiscale=isinstance(levels, list), colormap=COLOURS, opacity=0.6,
            metadata={"ctpipe": {"series": self._right.series_id, "comparison": True}}, **placement(self._right.grid),
        )  # fmt: skip
        self.layer.editable = False

    def _levels(self) -> list[da.Array] | da.Array:
        """Codes as dask arrays, one chunk a slab: of every level where both sides have one, else of level 0."""
        if COPY in (self._right.name, self._other.name):
            return self._lazy(0)
        levels = pyramid_levels(self._right.grid)
        arrays = [self._lazy(level.number) for level in levels]
        return arrays if len(arrays) > 1 else arrays[0]

    def _lazy(self, number: int) -> da.Array:
        level = pyramid_levels(self._right.grid)[number]
        _, rows, columns = level.grid.shape
        read = dask.delayed(_codes, pure=False, traverse=False)
        parts = [
            da.from_delayed(read(self._compared(), at.start, at.stop, number), (at.planes, rows, columns), np.uint8)
            for at in (level.slab(slab) for slab in slabs_of(self._right.grid.shape.z))
        ]
        return da.concatenate(parts)


def line_of_change(change: LesionChange) -> str:
    """One change in one line."""
    parts = f"{len(change.before)} → {len(change.after)}" if len(change.before) + len(change.after) > 2 else ""
    long = "" if change.change_long_mm is None else f", {change.change_long_mm:+.1f} mm"
    return f"{change.name} {change.fate} {parts}".rstrip() + f": {change.change_ml:+.2f} mL{long}"


def _codes(difference: Difference, start: int, stop: int, level: int) -> NDArray[np.uint8]:
    sides = (difference.right, difference.other)
    return difference.coded(*(side.read_planes(start, stop, level) for side in sides))  # type: ignore[call-arg]
