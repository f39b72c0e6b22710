"""Three linked planes with one crosshair: the viewer shows one, two more viewer models show the others. Without Qt.

::

    viewer (one plane, the one that is painted on)      crosshair = viewer.dims.point, in mm along the grid's axes
      |                                                 sides[0], sides[1]: the other two planes
      +-- layers, copied into the sides: same arrays, linked looks

napari slices a layer once, so a layer cannot show two planes at the same time: each side has layer objects of its own
over the same data (as in napari's own example of several viewers). A plane is a cut of the voxel grid, never resampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from napari.experimental import link_layers
from napari.layers import Layer
from numpy.typing import NDArray
from psygnal import Signal

from ctpipe.review.in_place import become
from ctpipe.review.orientation import Pane, panes_of

if TYPE_CHECKING:
    from ctpipe.volume import Grid

GAP_MM = 8.0  # left free around the point, so that what it points at is seen
_LINKED = {
    "image": ("visible", "opacity", "colormap", "contrast_limits", "gamma", "projection_mode"),
    "labels": ("visible", "opacity", "contour"),  # not their colours: napari fails to compare two of them
    "vectors": ("visible", "opacity"),
}
_EDGES = {"left": "middle_left", "right": "middle_right", "top": "top_center", "bottom": "bottom_center"}


class LinkedPlanes:
    """The viewer and its two sides. Signal `moved`: the crosshair went to voxel (z, y, x)."""

    moved = Signal(tuple)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.sides = (ViewerModel(), ViewerModel())
        self.grid: Grid | None = None
        self.large = 0  # which of axial, coronal, sagittal the viewer shows
        self._twins: dict[Layer, tuple[Layer, ...]] = {}
        self._busy = False
        viewer.layers.events.inserted.connect(lambda event: self._added(event.value))
        viewer.layers.events.removed.connect(lambda event=None: self._removed())
        viewer.layers.events.end_batch.connect(lambda event=None: self._removed())  # a list that was cleared
        viewer.dims.events.point.connect(lambda: self._follow())
        for side in self.sides:
            side.dims.events.point.connect(lambda event=None, side=side: self._lead(side))
        for one in self.viewers:
            one.scene.camera.events.zoom.connect(lambda event=None, one=one: _thin(one))

    @property
    def viewers(self) -> tuple[ViewerModel, ViewerModel, ViewerModel]:
        return self.viewer, *self.sides

    @property
    def panes(self) -> dict[ViewerModel, Pane]:
        """What each viewer shows."""
        if self.grid is None:
            return {}
        panes = panes_of(self.grid)
        turns = [self.large, *(n for n in range(3) if n != self.large)]
        return {viewer: panes[n] for viewer, n in zip(self.viewers, turns, strict=True)}

    def leave(self) -> None:
        """The volume goes: what moves until the next one is there is no move of the crosshair."""
        self.grid = None

    def show(self, grid: Grid) -> None:
        """Planes of another volume, whose layers the viewer already has; the crosshair begins in its middle."""
        self.grid = grid
        self._orient()
        self.go_to(*((n - 1) / 2 for n in grid.shape))
        self.fit()

    def enlarge(self, number: int | None = None) -> Pane:
        """Show another plane in the viewer: `number` of axial, coronal, sagittal, or the next one."""
        self.large = (self.large + 1) % 3 if number is None else number
        at = self.voxel
        self._orient()
        self.go_to(*at)
        self.fit()
        return self.panes[self.viewer]

    def fit(self) -> None:
        """All of each plane in view; its voxels are as wide as they are high in mm."""
        for viewer in self.viewers:
            if len(viewer.layers):
                viewer.reset_view()

    @property
    def voxel(self) -> tuple[int, int, int]:
        """Voxel (z, y, x) under the crosshair."""
        z, y, x = (int(n) for n in np.floor(self.index(self.viewer.dims.point) + 0.5))
        return z, y, x

    def index(self, point_mm: Any) -> NDArray[np.float64]:
        """Voxel index, with fractions, of a point of the viewers (mm along the grid's axes)."""
        grid = self._grid()
        return (np.asarray(point_mm, np.float64)[-3:] - grid.translation_mm) / grid.spacing_mm

    def point(self, index: Any) -> NDArray[np.float64]:
        """The viewers' point (mm along the grid's axes) of a voxel index."""
        grid = self._grid()
        return np.asarray(index, np.float64) * grid.spacing_mm + grid.translation_mm

    def go_to(self, z: float, y: float, x: float) -> tuple[int, int, int]:
        """Move the crosshair, and so all planes, to the nearest voxel of the volume; returns it."""
        shape = np.asarray(self._grid().shape)
        index = np.clip(np.floor(np.asarray([z, y, x]) + 0.5), 0, shape - 1)
        self.viewer.dims.set_point((0, 1, 2), tuple(self.point(index)))
        self._follow()
        self._keep_in_view()
        return self.voxel

    def thicken(self, thickness_mm: float) -> dict[str, int]:
        """Planes of each slab: an odd number that is not thicker than `thickness_mm`, the shown one in the middle."""
        spacing = np.asarray(self._grid().spacing_mm)
        beside = np.floor(thickness_mm / 2 / spacing + 1e-6)
        for viewer in self.viewers:
            viewer.dims.thickness = tuple(2 * beside * spacing)
        return {pane.name: int(2 * beside[pane.order[0]] + 1) for pane in self.panes.values()}

    def labels_changed(self, layer: Layer) -> None:
        """Show in the sides what was painted into a layer's array."""
        for twin in self._twins.get(layer, ()):
            twin.refresh(extent=False)

    def add_lines(self, name: str, lines_mm: NDArray[np.float64], colour: str) -> Layer:
        """Lines (n, 2, 3), starts and vectors in mm along the grid's axes, in all planes; the active layer stays."""
        if name in self.viewer.layers:
            layer = self.viewer.layers[name]
            layer.data = lines_mm
            return layer
        active = self.viewer.layers.selection.active
        layer = self.viewer.add_vectors(
            lines_mm, name=name, ndim=3, edge_color=colour, vector_style="line", units=("mm",) * 3,
            metadata={"ctpipe": {"drawn": name}}, projection_mode="none",
        )  # fmt: skip
        self.viewer.layers.selection.active = active
        for viewer in self.viewers:
            _thin(viewer)
        return layer

    def cross(self, viewer: ViewerModel) -> NDArray[np.float64]:
        """The crosshair in a viewer's plane: lines (n, 2, 2), ends as (down, right) in mm, free around the point."""
        axes = self.panes[viewer].order[1:]
        at = np.asarray(self.viewer.dims.point)[list(axes)]
        first = self.point((0, 0, 0))[list(axes)]
        last = self.point(np.asarray(self._grid().shape) - 1)[list(axes)]
        lines = []
        for axis in (0, 1):
            for start, stop in ((first[axis], at[axis] - GAP_MM / 2), (at[axis] + GAP_MM / 2, last[axis])):
                if stop > start:
                    ends = np.stack([at, at])
                    ends[:, axis] = start, stop
                    lines.append(ends)
        return np.array(lines).reshape(-1, 2, 2)

    def copies(self, layer: Layer) -> tuple[Layer, ...]:
        """The layers of the sides that stand for a layer of the viewer."""
        return self._twins.get(layer, ())

    def _grid(self) -> Grid:
        if self.grid is None:
            raise LookupError("no volume is shown")
        return self.grid

    def _orient(self) -> None:
        for viewer, pane in self.panes.items():
            viewer.dims.order = pane.order
            viewer.scene.camera.orientation2d = pane.orientation
            for edge, letters in {**pane.edges, "name": pane.name}.items():
                key = f"ctpipe_{edge}"
                if key not in viewer.canvas.overlays:
                    position = _EDGES.get(edge, "bottom_left")
                    viewer.canvas.overlays[key] = TextOverlay(position=position, visible=True, font_size=12, box=False)
                viewer.canvas.overlays[key].text = letters

    def _follow(self) -> None:
        """The viewer's point moved: the sides slice there."""
        if self._busy or self.grid is None:
            return
        self._busy = True
        try:
            for side in self.sides:
                axis = self.panes[side].order[0]  # the others would only make napari slice once more
                if side.dims.ndim == 3 and side.dims.point[axis] != self.viewer.dims.point[axis]:
                    side.dims.set_point(axis, self.viewer.dims.point[axis])
        finally:
            self._busy = False
        self.moved.emit(self.voxel)

    def _lead(self, side: ViewerModel) -> None:
        """A side's own slider moved: the viewer goes there."""
        if self._busy or self.grid is None or side.dims.ndim != 3 or side not in self.panes:
            return
        axis = self.panes[side].order[0]
        if side.dims.point[axis] != self.viewer.dims.point[axis]:
            self.viewer.dims.set_point(axis, side.dims.point[axis])

    def _keep_in_view(self) -> None:
        """Centre the planes whose camera looks elsewhere."""
        for viewer, pane in self.panes.items():
            down, right = (self.viewer.dims.point[axis] for axis in pane.order[1:])
            height, width = (n / viewer.scene.camera.zoom for n in viewer.canvas.size)
            y, x = viewer.scene.camera.center[-2:]
            if abs(down - y) > height / 2 or abs(right - x) > width / 2:
                viewer.scene.camera.center = (0.0, float(down), float(right))

    def _added(self, layer: Layer) -> None:
        if layer._type_string not in _LINKED or layer.ndim != 3:
            return
        data, state, kind = layer.as_layer_data_tuple()
        if kind == "labels" and not layer.multiscale:
            layer.events.labels_update.connect(lambda event=None: self.labels_changed(layer))
        twins = []
        for side in self.sides:
            twin = Layer.create(data, dict(state), kind)
            side.layers.insert(self.viewer.layers.index(layer), twin)  # what lies above it does so here too
            if kind == "labels":
                twin.editable = False
                layer.events.colormap.connect(lambda event=None, twin=twin: _same_colours(twin, layer))
            link_layers((layer, twin), _LINKED[kind])
            twins.append(twin)
        self._twins[layer] = tuple(twins)
        layer.events.data.connect(lambda event=None: self._new_data(layer))
        if self.grid is not None:
            self._follow()

    def _new_data(self, layer: Layer) -> None:
        """Other data, or another volume with a look of its own."""
        for twin in self._twins.get(layer, ()):
            if layer._type_string == "vectors":
                twin.data = layer.data
            else:
                become(twin, layer)
            if layer._type_string == "labels":
                twin.editable = False

    def _removed(self) -> None:
        for layer in [layer for layer in self._twins if layer not in self.viewer.layers]:
            for side, twin in zip(self.sides, self._twins.pop(layer), strict=True):
                if twin in side.layers:
                    side.layers.remove(twin)


def _same_colours(twin: Layer, layer: Layer) -> None:
    twin.colormap = layer.colormap


def _thin(viewer: ViewerModel) -> None:
    """Lines stay a pixel or so wide, however far the plane is zoomed."""
    for layer in viewer.layers:
        if layer.metadata.get("ctpipe", {}).get("drawn"):
            layer.edge_width = max(1.2 / max(viewer.scene.camera.zoom, 1e-3), 1e-3)
