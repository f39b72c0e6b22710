"""Which voxels are in view, and the pieces that a proposal falls into. Arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctpipe.errors import UsageError
from ctpipe.volume import Grid

if TYPE_CHECKING:
    from napari.components import ViewerModel

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class View:
    """What a viewer shows. displayed: axes in the plane, rows before columns; the third one is looked along.

    point_mm: position of the slider along z, y, x. centre_mm: middle of the canvas along z, y, x. zoom: pixels a mm.
    canvas: height and width in pixels.
    """

    displayed: tuple[int, ...]
    point_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    zoom: float
    canvas: tuple[int, int]


def view_of(viewer: ViewerModel) -> View:
    """What a viewer shows now. napari's camera speaks of the displayed axes: the last entries of its centre."""
    displayed = tuple(viewer.dims.displayed)
    point = [float(mm) for mm in viewer.dims.point]
    centre = list(point)
    for axis, mm in zip(displayed, viewer.scene.camera.center[-len(displayed) :], strict=True):
        centre[axis] = float(mm)
    height, width = viewer.canvas.size
    return View(displayed, (point[0], point[1], point[2]), (centre[0], centre[1], centre[2]),
                float(viewer.scene.camera.zoom), (height, width))  # fmt: skip


def box_in_view(view: View, grid: Grid, depth: int) -> Box:
    """The voxels in view, and `depth` planes on both sides of the plane in view. In 3-D: the whole volume.

    Raises UsageError where no voxel is in view.
    """
    if len(view.displayed) != 2:
        return (slice(0, grid.shape.z), slice(0, grid.shape.y), slice(0, grid.shape.x))
    sides = []
    for axis, length in enumerate(grid.shape):
        step, origin = grid.spacing_mm[axis], grid.translation_mm[axis]
        if axis in view.displayed:
            half = view.canvas[view.displayed.index(axis)] / view.zoom / 2
            low, high = (view.centre_mm[axis] - half - origin) / step, (view.centre_mm[axis] + half - origin) / step
            first, stop = math.ceil(low - 0.5), math.floor(high + 0.5) + 1  # voxels of which a part is seen
        else:
            at = round((view.point_mm[axis] - origin) / step)
            first, stop = at - depth, at + depth + 1
        sides.append(slice(max(0, first), min(length, stop)))
    if any(side.start >= side.stop for side in sides):
        raise UsageError("no voxel of the volume is in view", "move the volume into view")
    return sides[0], sides[1], sides[2]


@dataclass(frozen=True)
class Piece:
    """One 26-connected component of one class. number: in the array that `pieces_of` gives; centre: voxel index.

    box: within the region, so that a piece is taken without a look at the rest.
    """

    number: int
    label: int
    name: str
    voxels: int
    ml: float
    centre: tuple[int, int, int]
    box: Box


def pieces_of(
    labels: NDArray[Any], classes: Mapping[int, str], voxel_ml: float, corner: Sequence[int]
) -> tuple[NDArray[np.int32], list[Piece]]:
    """(number of the piece at each voxel, 0 for none; the pieces, the largest first). labels: (z, y, x).

    corner: index of the first voxel of `labels` in the volume. centre: a voxel of the piece, the nearest to its middle.
    """
    numbers = np.zeros(labels.shape, np.int32)
    found: list[Piece] = []
    for label, name in sorted(classes.items()):
        parts, count = ndimage.label(labels == label, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        for part, box in enumerate(ndimage.find_objects(parts), start=1):
            inside = np.argwhere(parts[box] == part)
            middle = inside[((inside - inside.mean(axis=0)) ** 2).sum(axis=1).argmin()]
            number = len(found) + 1
            numbers[box][parts[box] == part] = number
            z, y, x = (int(m + side.start + c) for m, side, c in zip(middle, box, corner, strict=True))
            found.append(Piece(number, label, name, int(sizes[part]), int(sizes[part]) * voxel_ml, (z, y, x), box))
    return numbers, sorted(found, key=lambda piece: (-piece.voxels, piece.number))
