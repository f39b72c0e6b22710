"""A run under way, in the viewer: the slabs done so far, read only, until it commits. Needs no window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctpipe.errors import UsageError
from ctpipe.review.layers import image_layer, label_look, labels_layer, placement
from ctpipe.store import Store, open_store
from ctpipe.words import LABEL_COLOURS

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel

REFRESH_S = 2.0
# An uncommitted run does not say its classes; its labels get the colours that they will have.
_ANY_CLASS = {number: f"class {number}" for number in range(1, len(LABEL_COLOURS) + 1)}


class LiveRuns:
    """The CT of a series and a layer for each run over it that is under way; `refresh` brings them up to date.

    A layer's data are replaced when more slabs lie there; when its run commits, the committed labels take its place.
    What is not written yet is background. Nothing of it is a result, and nothing can be painted.
    """

    def __init__(self, viewer: ViewerModel, store: str | Path, series: str | None = None) -> None:
        """series: id or unambiguous prefix; None: the one with a run under way. Raises NotThereError, UsageError."""
        self.viewer, self.store = viewer, open_store(store)
        self.series_id = self.store[series].id if series is not None else _with_a_run(self.store)
        self._shown: dict[str, tuple[Any, int]] = {}  # run key: its layer, and the slabs in it
        data, options, _ = image_layer(self.store[self.series_id])
        viewer.add_image(data, **options)
        self.slabs = -(-self.store[self.series_id].grid.shape.z // self.store[self.series_id].levels[0].slab_planes)
        self.refresh()

    def refresh(self) -> str:
        """Show what has come since; gives one line that tells how far the runs are."""
        series = self.store[self.series_id]
        under_way = series.in_progress
        for key in [key for key in self._shown if key not in under_way]:
            self._drop(key)
            if key in series.labels:  # else it was given up
                data, options, _ = labels_layer(series.labels[key])
                self.viewer.add_labels(data, **options)
        for key, (array, done) in under_way.items():
            if key not in self._shown:
                layer = self.viewer.add_labels(array.data, **label_look(_ANY_CLASS), **placement(series.grid))
                layer.editable = False
                layer.metadata["ctpipe"] = {"series": series.id, "run": key}
            elif self._shown[key][1] != done:
                layer = self._shown[key][0]
                layer.data = array.data
            else:
                continue
            layer.name = f"run {key[:8]}: {done} of {self.slabs} slabs"
            self._shown[key] = layer, done
        return ", ".join(layer.name for layer, _ in self._shown.values()) or "no run is under way"

    def _drop(self, key: str) -> None:
        layer, _ = self._shown.pop(key)
        if layer in self.viewer.layers:  # a reader may have taken it away
            self.viewer.layers.remove(layer)


def _with_a_run(store: Store) -> str:
    """The only series with a run under way."""
    found = [series.id for series in store.values() if series.in_progress]
    if len(found) == 1:
        return found[0]
    if not found and len(store) == 1:
        return next(iter(store))
    raise UsageError(f"{len(found)} volumes have a run under way", f"name one: {', '.join(found or store)}")
