"""Layers that a run kept beside its labels, laid over the CT: how sure the model was, and where it was least so.

Of labels that a reviewer made, it is the layers of the run that they were made on. Without Qt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer as NapariLayer
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.review.commands import Command, Mode
from ctpipe.review.layers import preferred_labels, run_layer
from ctpipe.review.lesions import GoTo
from ctpipe.volume import pyramid_levels, slabs_of
from ctpipe.words import LayerKind

if TYPE_CHECKING:
    from ctpipe.review.session import ReviewSession
    from ctpipe.store import Labels, Layer

PLACES = 20  # that are gone to, the least certain first,
APART_MM = 15.0  # each so far from the others, along an axis at least
SURE = 0.2  # and no place where entropy or spread is below this part of its highest
_ORDER = (LayerKind.ENTROPY, LayerKind.SPREAD, LayerKind.PROBABILITIES)


class RunLayers:
    """The layer that is laid over the CT, one at a time; it stays on when the next case comes, where that has it."""

    def __init__(self, session: ReviewSession, go_to: GoTo) -> None:
        self.session, self.go_to = session, go_to
        self.on_show: str | None = None  # name of the layer that is wanted
        self._looked_at: str | None = None
        self._drawn: NapariLayer | None = None
        self._places: list[tuple[float, float, float]] = []
        self._at = -1
        session.left.connect(lambda: self._forget(None))
        session.labels_shown.connect(self._other)

    def commands(self) -> list[Command]:
        return [
            Command("next-layer", "entropy, spread, probabilities of the run: the next one, or none", "U", Mode.BOTH,
                    self.next_layer),
            Command("next-unsure", "where the model is next least sure", "Shift-U", Mode.BOTH, self.next_unsure),
        ]  # fmt: skip

    @property
    def layers(self) -> list[Layer]:
        """Layers of the run whose labels are in view, or that those in view were made on."""
        run = self._run()
        found = [] if run is None else list(run.layers.values())
        return sorted(found, key=lambda layer: (_ORDER.index(layer.kind), layer.label or 0))

    def next_layer(self) -> str:
        """Show the next layer over the CT, after the last one none."""
        layers = {layer.name: layer for layer in self.layers}
        if not layers:
            raise UsageError("no layers are kept of this run", "ctpipe infer --layers entropy makes one")
        names: list[str | None] = [None, *layers]
        now = names.index(self.on_show) if self.on_show in names and self._drawn is not None else 0
        self.on_show = names[(now + 1) % len(names)]
        self._draw()
        if self.on_show is None:
            return "no layer"
        class_name = layers[self.on_show].class_name
        return self.on_show if class_name is None else f"{self.on_show} ({class_name})"

    def next_unsure(self) -> str:
        """Go to the next of the places where the model is least sure, by entropy, else by spread over folds."""
        if not self._places:
            telling = [layer for layer in self.layers if layer.kind is not LayerKind.PROBABILITIES]
            if not telling:
                raise UsageError("neither entropy nor spread is kept of this run",
                                 "ctpipe infer --layers entropy makes it")
            self._places = unsure_places(telling[0])
        if not self._places:
            return "the model is sure everywhere"
        self._at = (self._at + 1) % len(self._places)
        self.go_to(*self._places[self._at])
        return f"least sure {self._at + 1} of {len(self._places)}"

    def _run(self) -> Labels | None:
        """The run in view: of the open copy its parent, else of the labels looked at last, else of the preferred."""
        series, copy = self.session.series, self.session.copy
        if series is None:
            return None
        name = copy.record.parent if copy is not None else self._looked_at
        found = preferred_labels(series) if name is None else series.labels.get(name)
        seen: set[str] = set()
        while found is not None and not len(found.layers) and found.name not in seen:
            seen.add(found.name)
            parent = found.provenance.get("parent")
            found = series.labels.get(parent) if parent else None
        return found

    def _forget(self, labels: str | None) -> None:
        self._looked_at, self._places, self._at = labels, [], -1

    def _other(self, labels: str) -> None:
        """Labels of another case, or others of this one."""
        self._forget(labels)
        if self.on_show is not None:
            self._draw()

    def _draw(self) -> None:
        """Over the CT and under all labels; the active layer stays."""
        viewer = self.session.viewer
        if self._drawn is not None and self._drawn in viewer.layers:
            viewer.layers.remove(self._drawn)
        self._drawn = None
        for layer in self.layers:
            if layer.name == self.on_show:
                active = viewer.layers.selection.active
                data, options, kind = run_layer(layer)
                self._drawn = NapariLayer.create(data, {**options, "visible": True}, kind)
                viewer.layers.insert(1, self._drawn)
                viewer.layers.selection.active = active


def unsure_places(layer: Layer) -> list[tuple[float, float, float]]:
    """Voxels (z, y, x) of level 0 with the highest values, at most PLACES, no two within APART_MM along all axes.

    Looked for on the coarsest level, so that little is read.
    """
    level = pyramid_levels(layer.grid)[-1]
    slabs = [level.slab(slab) for slab in slabs_of(layer.grid.shape.z)]
    values = np.concatenate([layer.read_planes(at.start, at.stop, level=level.number) for at in slabs])
    reach = [int(np.ceil(APART_MM / mm)) for mm in level.grid.spacing_mm]
    return [tuple((i + 0.5) * n - 0.5 for i, n in zip(at, level.factors, strict=True))  # type: ignore[misc]
            for at in _peaks(values, reach, round(SURE * 255))]  # fmt: skip


def _peaks(values: NDArray[np.uint8], reach: list[int], least: int) -> list[tuple[int, ...]]:
    """Indices of the highest values, the first of equals, none below `least`; around each a box is left out."""
    left = values.copy()
    found: list[tuple[int, ...]] = []
    while len(found) < PLACES:
        at = np.unravel_index(int(left.argmax()), left.shape)
        if left[at] < max(1, least):
            break
        found.append(tuple(int(i) for i in at))
        left[tuple(slice(max(0, i - far), i + far + 1) for i, far in zip(at, reach, strict=True))] = 0
    return found
