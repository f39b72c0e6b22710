"""A review at work: which series is shown, which copy is painted on. Works on napari's ViewerModel, without Qt."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from ctpipe.errors import NotThereError, UsageError
from ctpipe.review.editing import Editing
from ctpipe.review.in_place import put_in_place
from ctpipe.review.layers import (
    image_layer,
    label_look,
    labels_layer,
    placement,
    preferred_labels,
    telling_plane,
)
from ctpipe.review.preload import BlockCache
from ctpipe.review.save import SaveResult, save_review
from ctpipe.review.working_copy import WorkingCopy, copies_of, open_copy, resume_copy
from ctpipe.store import open_store
from ctpipe.words import LabelKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Labels as LabelsLayer
    from napari.layers import Layer

    from ctpipe.review.save import Progress
    from ctpipe.store import Labels, Series

HU_RANGE = (-1024.0, 3071.0)  # how far the contrast slider goes


class ReviewSession:
    """One viewer on one store: shows a series, opens a working copy of its labels, saves it.

    viewer: napari's ViewerModel or Viewer. root: the store's folder. reviewer: a pseudonym, or "reader".
    Signals: `left` when another series will be shown, `shown` when it is in its place; `labels_shown(name)` after
    committed labels come into view; `copy_opened` and `copy_closed` about the layer that is painted on.
    """

    left = Signal()
    shown = Signal()
    labels_shown = Signal(str)
    copy_opened = Signal()
    copy_closed = Signal()

    def __init__(self, viewer: ViewerModel, root: str | Path, reviewer: str = "reader") -> None:
        self.viewer = viewer
        self.reviewer = reviewer
        self.store = open_store(root)
        self.cache = BlockCache()  # voxels that were read ahead
        self.series: Series | None = None
        self.copy: WorkingCopy | None = None
        self.layer: LabelsLayer | None = None  # the one that is painted on
        self.editing = Editing(self)  # journals every stroke on that layer: no session is without it

    def first_series(self) -> str:
        """Id of the series to show first: one with a working copy, else with a prediction, else with labels."""
        if not len(self.store):
            raise NotThereError("the store holds no volume", "ctpipe ingest DICOM... --store S")

        def interest(series: Series) -> tuple[bool, bool, bool]:
            kinds = {group.kind for group in series.labels.values()}
            return bool(copies_of(self.store.root, series.id)), LabelKind.PREDICTION in kinds, bool(kinds)

        return max(self.store.values(), key=interest).id  # max keeps the first of equals

    def show(self, series: str | None = None, labels: str | None = None) -> Series:
        """Show the CT of a series (id or unambiguous prefix) with committed labels of it, and nothing else."""
        found = self.store[series if series is not None else self.first_series()]
        group = None if labels is None else found.labels[labels]
        self.close()
        self.series = None
        self.left.emit()
        try:
            layers = self._place(found, group)
            self.series = found
            self.shown.emit()
            if group is not None:
                self._go_to(group)
            for layer in layers:  # only now, in its place, it is read and drawn
                layer.visible = True
        except BaseException:
            self.viewer.layers.clear()  # of a case that cannot be read nothing is shown, nor of the one before
            raise
        if group is not None:
            self.labels_shown.emit(group.name)
        return found

    def _place(self, series: Series, labels: Labels | None) -> list[Layer]:
        """The layers of a series, hidden as yet, in the viewer, and nothing else there."""
        made = [image_layer(self.cache.of(series))]
        if labels is not None:
            made.append(labels_layer(self.cache.of(labels)))
        layers = put_in_place(self.viewer, made)
        low, high = layers[0].contrast_limits
        layers[0].contrast_limits_range = (min(low, HU_RANGE[0]), max(high, HU_RANGE[1]))
        self.viewer.layers.selection.active = layers[0]
        self.viewer.dims.axis_labels = ("z", "y", "x")
        self.viewer.canvas.overlays.scale_bar.visible = True
        self.viewer.title = f"ctpipe review: {series.id[:8]}"
        self.viewer.reset_view()
        return layers

    def look_at(self, labels: str) -> None:
        """Show committed labels on top, to look at, not to paint on."""
        group = self._labels(labels)
        data, options, _ = labels_layer(self.cache.of(group))
        if options["name"] not in self.viewer.layers:
            self.viewer.add_labels(data, **options)
        self.viewer.layers[options["name"]].visible = True
        self._go_to(group)
        self.labels_shown.emit(labels)

    def edit(self, labels: str | None = None, *, classes: Mapping[int, str] | None = None) -> WorkingCopy:
        """Open labels of the shown series as a copy to paint on; None: empty labels (`classes`, or one "lesion").

        A working copy that exists for them is resumed. Raises as `open_copy` does.
        """
        parent = None if labels is None else self._labels(labels)
        root = open_store(self.store.root, "a").root  # tells at once whether this user may write here
        self.close()
        ahead = None if parent is None else self.cache.of(parent)
        return self._paint_on(open_copy(root, self._series(), ahead, classes=classes, reviewer=self.reviewer), parent)

    def edit_preferred(self) -> WorkingCopy:
        """Go on with the working copy that was used last, else begin one of the preferred labels, else an empty one."""
        series = self._series()
        self.close()  # a copy that this session holds is not free for it either
        for folder, record in copies_of(self.store.root, series.id):
            if record.reviewer == self.reviewer and (copy := resume_copy(folder, series)) is not None:
                return self._paint_on(copy, series.labels.get(record.parent or ""))
        preferred = preferred_labels(series)
        return self.edit(None if preferred is None else preferred.name)

    def add_class(self, name: str) -> int:
        """A class to paint that the labels did not have so far; returns its label."""
        if self.copy is None or self.layer is None:
            raise UsageError("no copy is open", "edit a copy first")
        label = self.copy.add_class(name)
        look = label_look(self.copy.record.classes)
        self.layer.colormap, self.layer.features = look["colormap"], look["features"]
        self.layer.selected_label = label
        return label

    def save(self, progress: Progress | None = None) -> SaveResult:
        """Save the copy as labels/review-<key>; it stays open and may be painted on further."""
        if self.copy is None:
            raise UsageError("no copy is open", "edit a copy first")
        store = open_store(self.store.root, "a")
        result = save_review(store, store[self._series().id], self.copy, progress)
        self.store = open_store(self.store.root)
        self.series = self.store[self._series().id]
        return result

    def close(self) -> None:
        """Let the working copy go; its files and all strokes stay.

        Raises BudgetError or StoreFaultError, and nothing is closed, while actions are in memory only.
        """
        if self.copy is not None:
            self.copy.close()
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self._forget_copy()

    def let_go(self) -> None:
        """Let the working copy go without touching the viewer, which may be gone already.

        Actions that the store has no room for are kept in the user's own state folder; the next viewer takes them in.
        """
        if self.copy is not None and (line := self.copy.let_go()):
            print(f"ctpipe: {line}", file=sys.stderr)
        self._forget_copy()

    def _forget_copy(self) -> None:
        if self.copy is not None:
            self.copy = self.layer = None
            self.copy_closed.emit()

    def _paint_on(self, copy: WorkingCopy, parent: Labels | None) -> WorkingCopy:
        series = self._series()
        for shown in self.viewer.layers:
            shown.visible = shown.metadata.get("ctpipe", {}).get("labels") is None and shown.visible
        facts: dict[str, Any] = {"series": series.id, "copy": copy.folder.name, "parent": copy.record.parent}
        self.layer = self.viewer.add_labels(
            copy.array,  # one level in memory: the one form that napari paints into at once
            multiscale=False,
            name="correction",
            metadata={"ctpipe": facts},
            **label_look(copy.record.classes),
            **placement(series.grid),
        )
        self.layer.selected_label = min(copy.record.classes, default=1)
        self.copy = copy
        if parent is not None:
            self._go_to(parent)
        self.copy_opened.emit()
        return copy

    def _go_to(self, labels: Labels) -> None:
        plane = telling_plane(self.cache.of(labels))
        if plane is not None:
            self.viewer.dims.set_point(0, labels.grid.translation_mm[0] + plane * labels.grid.spacing_mm[0])

    def _series(self) -> Series:
        if self.series is None:
            raise UsageError("no series is shown", "choose a series first")
        return self.series

    def _labels(self, name: str) -> Labels:
        return self._series().labels[name]
