"""The 3-D view: smooth surfaces of the classes beside the volume, turned, made clear and clipped. Without Qt.

Surfaces are those of the export (`ctpipe.export.surface`: marching cubes slab by slab, the seams welded), of the finest
level of the labels that fits `MOST_VOXELS`, one class a step, so that a window stays alive between them. Points lie in
mm along the grid's axes, as all layers do; the camera is turned by where the patient's axes lie in those.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.export.surface import Mesh, surface
from ctpipe.review.layers import class_rgba, lazy_levels, placement
from ctpipe.review.windows import PRESETS
from ctpipe.volume import Grid, pyramid_levels
from ctpipe.words import ZYX

if TYPE_CHECKING:
    from napari.layers import Image, Surface

    from ctpipe.store import Labels, Series

MOST_VOXELS = 24 << 20  # of the level that surfaces are made of: a byte each is held
_SMOOTH_VOXELS = 0.5  # sigma of the filter in voxels of that level (their longest side): more eats small lesions
VOLUME = "volume"


class SurfaceView:
    """A viewer model of three dimensions with the surfaces of one label group and the CT."""

    def __init__(self) -> None:
        self.viewer = ViewerModel(ndisplay=3)
        self.grid: Grid | None = None
        self.opacity: dict[int, float] = {}  # by class, kept from case to case
        self._surfaces: dict[int, Surface] = {}
        self._clip: dict[int, tuple[float, bool]] = {}  # axis of the grid: (part from its start, keep what is after)

    def show(self, series: Series, labels: Labels) -> None:
        """Make all surfaces at once; `steps` does it one by one."""
        for _ in self.steps(series, labels):
            pass

    def steps(self, series: Series, labels: Labels) -> Iterator[str]:
        """Show another case: after each step the name of the class whose surface came."""
        self.viewer.layers.clear()
        self._surfaces.clear()
        self._clip.clear()
        self.grid = series.grid
        self._add_volume(series)
        self.face()
        level = level_for_surfaces(labels.grid)
        voxels = np.asarray(lazy_levels(labels)[level])
        grid = labels.levels[level].grid
        present = np.unique(voxels)
        for label, name in labels.classes.items():
            if label in present:
                smooth = _SMOOTH_VOXELS * max(grid.spacing_mm)
                mesh = surface(lambda start, stop: voxels[start:stop], label, grid, smooth)
                if len(mesh.faces):
                    self._add(label, name, mesh)
            yield name

    def _add(self, label: int, name: str, mesh: Mesh) -> None:
        grid = self._grid()
        points = grid.to_index(mesh.points) * grid.spacing_mm + grid.translation_mm
        # counter-clockwise from outside in LPS; the viewer's axes (z, y, x) may be mirrored against it
        faces = mesh.faces if np.linalg.det(grid.affine[:3, :3]) < 0 else mesh.faces[:, ::-1]
        rgba = class_rgba(label)
        self._surfaces[label] = self.viewer.add_surface(
            (points, faces, np.ones(len(points))), name=name, shading="smooth", opacity=self.opacity.get(label, 0.8),
            colormap=[rgba, rgba], blending="translucent", units=("mm",) * 3,
            metadata={"ctpipe": {"label": label}},
        )  # fmt: skip
        self._apply_clip()

    def set_opacity(self, label: int, opacity: float) -> None:
        """How clear a class is, 0 (not seen) to 1."""
        self.opacity[label] = min(max(opacity, 0.0), 1.0)
        if label in self._surfaces:
            self._surfaces[label].opacity = self.opacity[label]

    def show_volume(self, visible: bool) -> None:
        """The CT itself, bones and vessels first, or the surfaces alone."""
        if VOLUME in self.viewer.layers:
            self.viewer.layers[VOLUME].visible = visible

    def clip(self, axis: int, part: float, keep_after: bool = True) -> None:
        """Cut everything at a plane across a grid axis; `part` 0 to 1 of its length, 0 with keep_after cuts nothing."""
        self._clip[axis] = min(max(part, 0.0), 1.0), keep_after
        self._apply_clip()

    def unclip(self) -> None:
        """Show everything again."""
        self._clip.clear()
        self._apply_clip()

    def face(self, side: str = "A") -> None:
        """Look at the patient from a side (A, P, L, R, H, F), the head up, or the face up from head and feet."""
        towards = {"A": (0, 1, 0), "P": (0, -1, 0), "L": (-1, 0, 0), "R": (1, 0, 0), "H": (0, 0, -1), "F": (0, 0, 1)}
        if side not in towards:
            raise UsageError(f"there is no side {side!r}", f"choose among {', '.join(towards)}")
        up = (0.0, 0.0, 1.0) if side in "APLR" else (0.0, -1.0, 0.0)
        to_axes = np.linalg.inv(self._grid().directions)  # LPS -> along z, y, x
        camera = self.viewer.scene.camera
        self.viewer.reset_view()
        mirrored = np.linalg.det(self._grid().directions) < 0  # z, y, x against the patient; napari takes them as right
        camera.orientation = ("away" if mirrored else "towards", "down", "right")
        camera.set_view_direction(tuple(to_axes @ np.array(towards[side], float)), tuple(to_axes @ np.array(up)))
        self.viewer.reset_view(reset_camera_angle=False)

    def turn(self, degrees: float) -> None:
        """Turn the patient about the axis from feet to head."""
        to_axes = np.linalg.inv(self._grid().directions)
        camera, head = self.viewer.scene.camera, to_axes @ np.array([0.0, 0.0, 1.0])
        view = _rotated(np.array(camera.view_direction), head, np.radians(degrees))
        up = _rotated(np.array(camera.up_direction), head, np.radians(degrees))
        camera.set_view_direction(tuple(view), tuple(up))

    @property
    def surfaces(self) -> dict[int, Surface]:
        """The layer of each class that has a surface."""
        return dict(self._surfaces)

    def _add_volume(self, series: Series) -> None:
        low, high = PRESETS["bone"].limits
        self.viewer.add_image(
            lazy_levels(series), multiscale=True, name=VOLUME, colormap="gray", blending="additive",
            rendering="attenuated_mip", contrast_limits=(low, high), visible=False, **placement(series.grid),
        )  # fmt: skip

    def _apply_clip(self) -> None:
        grid = self._grid()
        for layer in self.viewer.layers:
            # planes of a layer are in its own data coordinates: mm for surfaces, voxels of level 0 for the volume
            layer.experimental_clipping_planes = [
                self._plane(axis, part, after, layer, grid) for axis, (part, after) in self._clip.items()
            ]

    def _plane(self, axis: int, part: float, after: bool, layer: Surface | Image, grid: Grid) -> dict[str, Any]:
        normal = np.zeros(3)
        normal[axis] = 1.0 if after else -1.0
        index = np.zeros(3)
        index[axis] = part * (grid.shape[axis] - 1)
        position = index if layer.name == VOLUME else index * grid.spacing_mm + grid.translation_mm
        return {"position": tuple(position), "normal": tuple(normal), "enabled": True}

    def _grid(self) -> Grid:
        if self.grid is None:
            raise UsageError("no surfaces are shown", "choose a series with labels first")
        return self.grid


def level_for_surfaces(grid: Grid) -> int:
    """The finest level of at most MOST_VOXELS voxels, else the coarsest."""
    levels = pyramid_levels(grid)
    fitting = [level.number for level in levels if np.prod(ZYX(*level.grid.shape)) <= MOST_VOXELS]
    return fitting[0] if fitting else levels[-1].number


def _rotated(vector: NDArray, axis: NDArray, angle: float) -> NDArray[np.float64]:
    """Rodrigues' formula."""
    unit = axis / np.linalg.norm(axis)
    cos, sin = np.cos(angle), np.sin(angle)
    return vector * cos + np.cross(unit, vector) * sin + unit * (unit @ vector) * (1 - cos)
