"""Predict here: a model on the region in view, its labels a proposal that is taken whole, piece by piece, or dropped.

The labels are those that a run of `ctpipe infer` has there (ctpipe.pipeline.region). A proposal is a layer to look at;
what is taken goes into the working copy through `Editing.apply`, as any other edit. Needs no Qt.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ctpipe.errors import NotThereError, UsageError
from ctpipe.review.commands import Command, Mode
from ctpipe.review.layers import label_look
from ctpipe.review.regions import Box, Piece, box_in_view, pieces_of, view_of

if TYPE_CHECKING:
    from napari.layers import Labels as LabelsLayer

    from ctpipe.pipeline.region import RegionLabels, RegionModel
    from ctpipe.review.session import ReviewSession

DEPTH = 4  # planes on both sides of the one in view


class Edits(Protocol):
    """The part of `Editing` that a proposal uses."""

    def apply(self, kind: str, box: Box, new: NDArray[Any], **facts: Any) -> None:
        """Put the labels `new` into `box` of the working copy, as one action."""


@dataclass(frozen=True, eq=False)
class Proposed:
    """What a model says of a region. numbers: piece at each voxel of the box; pieces: the largest first."""

    series: str
    found: RegionLabels
    numbers: NDArray[np.int32]
    pieces: tuple[Piece, ...]


class Proposal:
    """One proposal at a time, in the session's viewer. editing: what changes the working copy.

    Signals: `changed` when there is another proposal, or none, or a piece of it was taken; `wanted` when the key asks
    for one and somebody should compute it beside the viewer (without such a one it is computed at once).
    """

    changed = Signal()
    wanted = Signal()

    def __init__(self, session: ReviewSession, editing: Edits | None = None) -> None:
        self.session, self.editing = session, editing
        self.depth = DEPTH
        self.proposed: Proposed | None = None
        self.taken: set[int] = set()
        self.layer: LabelsLayer | None = None
        self._model: Path | None = None
        self._ready: tuple[tuple[str, Path], RegionModel] | None = None
        session.shown.connect(self._forget)

    # ------------------------------------------------------------------------------------------ the model
    def models(self) -> list[Path]:
        """Folders of the models that the store keeps, the last used first."""
        found = (self.session.store.root / "models").glob("*/model.json")
        return [path.parent for path in sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path.parent.name))]

    @property
    def model(self) -> Path:
        """The model that will be asked: the one chosen, else the one whose run is on show, else the store's newest."""
        if self._model is not None:
            return self._model
        kept = self.models()
        if not kept:
            raise NotThereError("the store keeps no model", "choose a model's folder, or run ctpipe infer once")
        groups = [] if self.session.series is None else self.session.series.labels.values()
        made_by = {group.provenance.get("model") for group in groups}
        return next((folder for folder in kept if folder.name in made_by), kept[0])

    def choose(self, folder: str | Path) -> str:
        """Ask another model: a folder that `ctpipe train` or `ctpipe models import` wrote, or one of `models`."""
        chosen = Path(folder).expanduser().absolute()
        if not (chosen / "model.json").is_file():
            raise NotThereError(f"{chosen} is no model", "give the folder that ctpipe train wrote")
        self._model = chosen
        return f"model {chosen.name}"

    # ------------------------------------------------------------------------------------------ asking
    def region(self) -> Box:
        """The voxels in view, with `depth` planes on both sides. Raises UsageError where none is."""
        if self.session.series is None:
            raise UsageError("no series is shown", "choose a series first")
        return box_in_view(view_of(self.session.viewer), self.session.series.grid, self.depth)

    def steps(self, box: Box | None = None) -> Iterator[tuple[int, int, Proposed | None]]:
        """(planes done, planes in all, None until the last step: the proposal). Touches no viewer once it began.

        It may be run in a thread and given up between two steps; `show` then belongs to the viewer's thread.
        """
        region, folder = box or self.region(), self.model
        assert self.session.series is not None  # `region` refuses else
        return self._steps((self.session.series.id, folder), region)

    def predict(self, box: Box | None = None) -> str:
        """Ask the model about `box` (None: what is in view) and show what it says; returns a line."""
        *_, (_, _, proposed) = self.steps(box)
        assert proposed is not None
        return self.show(proposed)

    def show(self, proposed: Proposed) -> str:
        """Show a proposal in place of the one before; returns a line. One of another series is let go."""
        series = self.session.series
        if series is None or series.id != proposed.series:
            return "the proposal was for another case"
        self.drop()
        grid, found = series.grid, proposed.found
        corner = [side.start for side in found.box]
        self.layer = self.session.viewer.add_labels(
            found.labels.copy(),
            name="proposal",
            metadata={"ctpipe": {"series": series.id, "proposal": found.run}},
            scale=grid.spacing_mm,
            translate=[t + c * s for t, c, s in zip(grid.translation_mm, corner, grid.spacing_mm, strict=True)],
            units=("mm", "mm", "mm"),
            axis_labels=("z", "y", "x"),
            **label_look(found.classes),
        )
        self.layer.editable = False
        self.layer.contour = 2  # an outline: what lies below stays in sight
        self.proposed, self.taken = proposed, set()
        self._keep_active()
        self.changed.emit()
        pieces = len(proposed.pieces)
        return f"proposed: {pieces} piece(s) in {' x '.join(map(str, found.labels.shape))} voxels; take or drop"

    # ------------------------------------------------------------------------------------------ taking
    def accept(self) -> str:
        """The region of the working copy becomes the proposal, background too; returns a line."""
        proposed = self._there()
        self._apply(proposed, proposed.found.box, self._in_copy(proposed, proposed.found.labels))
        self.drop()
        return f"took the proposal: {proposed.found.model} in {len(proposed.pieces)} piece(s)"

    def accept_piece(self, number: int) -> str:
        """One piece of the proposal goes into the working copy, all around it stays; returns a line."""
        proposed = self._there()
        piece = next((one for one in proposed.pieces if one.number == number), None)
        if piece is None or number in self.taken:
            raise UsageError(f"the proposal has no piece {number} to take", "choose one of its list")
        self._copy_open()
        box = tuple(
            slice(outer.start + inner.start, outer.start + inner.stop)
            for outer, inner in zip(proposed.found.box, piece.box, strict=True)
        )
        inside = proposed.numbers[piece.box] == number
        label = self._in_copy(proposed, np.array([piece.label]))[0]
        new = np.where(inside, label, self._current((box[0], box[1], box[2])))
        self._apply(proposed, (box[0], box[1], box[2]), new, piece=number)
        self.taken.add(number)
        if self.layer is not None:
            self.layer.data[piece.box][inside] = 0
            self.layer.refresh()
        left = len(proposed.pieces) - len(self.taken)
        if not left:
            self.drop()
        else:
            self.changed.emit()
        return f"took {piece.name}, {piece.ml:.2f} mL; {left} piece(s) left"

    def accept_here(self) -> str:
        """Take the piece under the crosshair, else the largest that is left; returns a line."""
        proposed = self._there()
        left = [piece for piece in proposed.pieces if piece.number not in self.taken]
        if not left:
            raise UsageError("the proposal holds no piece", "drop it")
        series = self.session.series
        assert series is not None
        point = zip(self.session.viewer.dims.point, series.grid.translation_mm, series.grid.spacing_mm, strict=True)
        at = [round((mm - origin) / step) - side.start
              for (mm, origin, step), side in zip(point, proposed.found.box, strict=True)]  # fmt: skip
        inside = all(0 <= a < n for a, n in zip(at, proposed.numbers.shape, strict=True))
        here = int(proposed.numbers[at[0], at[1], at[2]]) if inside else 0
        return self.accept_piece(here if here and here not in self.taken else left[0].number)

    def drop(self) -> str:
        """Let the proposal go; nothing of it stays but what was taken."""
        if self.layer is not None and self.layer in self.session.viewer.layers:
            self.session.viewer.layers.remove(self.layer)
            self._keep_active()
        had = self.proposed is not None
        self._forget()
        return "the proposal is dropped" if had else "there is no proposal"

    def commands(self) -> list[Command]:
        """What a proposal offers by key."""
        return [
            Command("predict-here", "Ask the model about the region in view", "Q", Mode.BOTH, self._ask),
            Command("take-proposal", "Take the whole proposal", "Shift-Q", Mode.BOTH, self.accept),
            Command("take-piece", "Take the piece under the crosshair, else the largest", "Ctrl-Shift-Q", Mode.BOTH,
                    self.accept_here),
            Command("drop-proposal", "Drop the proposal", "Alt-Q", Mode.BOTH, self.drop),
        ]  # fmt: skip

    # ------------------------------------------------------------------------------------------ inside
    def _ask(self) -> str:
        if len(self.wanted):
            self.wanted.emit()
            return "asking the model…"
        return self.predict()

    def _steps(self, which: tuple[str, Path], box: Box) -> Iterator[tuple[int, int, Proposed | None]]:
        model = self._region_model(which)
        found = yield from _all_but_last(model.parts(box))
        voxel_ml = abs(float(np.linalg.det(model.series.grid.affine[:3, :3]))) / 1000
        corner = [side.start for side in found.box]
        numbers, pieces = pieces_of(found.labels, found.classes, voxel_ml, corner)
        planes = len(found.labels)
        yield planes, planes, Proposed(model.series.id, found, numbers, tuple(pieces))

    def _region_model(self, which: tuple[str, Path]) -> RegionModel:
        """A model on a series; the last one is kept, since what it needs of the whole volume is got once."""
        from ctpipe.pipeline import RegionModel

        if self._ready is None or self._ready[0] != which:
            self._ready = which, RegionModel(self.session.store.root, *which)
        return self._ready[1]

    def _there(self) -> Proposed:
        if self.proposed is None:
            raise UsageError("there is no proposal", "ask the model about what is in view first")
        return self.proposed

    def _apply(self, proposed: Proposed, box: Box, new: NDArray[Any], **facts: Any) -> None:
        assert self.editing is not None  # `_copy_open` refuses else
        self.editing.apply("predict", box, new, model=proposed.found.model, run=proposed.found.run, **facts)

    def _in_copy(self, proposed: Proposed, labels: NDArray[Any]) -> NDArray[Any]:
        """Labels of the model as those of the working copy: classes go by name, new ones are added."""
        self._copy_open()
        assert self.session.copy is not None
        assert self.session.layer is not None
        selected = self.session.layer.selected_label
        table = np.zeros(max(proposed.found.classes) + 1, self.session.copy.array.dtype)
        for label in np.unique(labels[labels > 0]).tolist():
            table[label] = self.session.add_class(proposed.found.classes[label])
        self.session.layer.selected_label = selected
        return table[labels]

    def _current(self, box: Box) -> NDArray[Any]:
        assert self.session.copy is not None
        return np.asarray(self.session.copy.array[box])

    def _copy_open(self) -> None:
        """A copy to take the proposal into: the one that is open, else the reviewer's own, else a new one."""
        if self.editing is None:
            raise UsageError("nothing can be corrected in this viewer", "open the store with ctpipe review S")
        if self.session.copy is None:
            self.session.edit_preferred()
            if self.layer is not None:  # it stays on top
                self.session.viewer.layers.move(self.session.viewer.layers.index(self.layer), -1)

    def _keep_active(self) -> None:
        """The layer that keys go to: the copy while one is open, else the CT; never a proposal."""
        layers = self.session.viewer.layers
        layers.selection.active = self.session.layer if self.session.layer in layers else layers[0]

    def _forget(self) -> None:
        """Another series is on show, and its layers with it, or the proposal was dropped."""
        self.proposed, self.layer, self.taken = None, None, set()
        self.changed.emit()


def _all_but_last(
    parts: Iterator[tuple[int, int, RegionLabels]],
) -> Generator[tuple[int, int, None], None, RegionLabels]:
    """How far it is, and at the end the labels."""
    for done, planes, found in parts:
        if done == planes:
            return found
        yield done, planes, None
    raise AssertionError("a region has planes")
