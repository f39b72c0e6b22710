"""Surfaces of classes: marching cubes band by band, welded where bands meet, in LPS mm.

::

    slab 0   ---------      band 0: planes of slab 0 and the first of slab 1
             ---------
    slab 1   ---------  <-  both bands have the same points on this plane: they become one
             ---------      band 1: planes of slab 1 and the first of slab 2, or air

A pixel of air is put around the class, so every surface is closed. Without `smooth_mm` points lie half way between a
voxel inside and its neighbour outside; with it the mask is first filtered by a Gaussian, whose steps are gone, and
parts thinner than it too. A band takes so many planes beside it that the filter gives what it gives on the whole.
Source: Lewiner and others 2003, as scikit-image has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.volume import Grid, slabs_of

ReadPlanes = Callable[[int, int], NDArray]
TRUNCATE = 4.0  # sigmas after which the filter ends


@dataclass(frozen=True, eq=False)
class Mesh:
    """A closed surface. points: float64 (n, 3) LPS mm. faces: int64 (m, 3), counter-clockwise seen from outside."""

    points: NDArray[np.float64]
    faces: NDArray[np.int64]


def surface(labels: ReadPlanes, label: int, grid: Grid, smooth_mm: float = 0.0) -> Mesh:
    """The surface of one label; of no points where it has no voxel.

    labels: (start, stop) -> planes (stop - start, y, x). smooth_mm: sigma of the filter, 0 for none. Raises UsageError
    where scikit-image is not installed.
    """
    mask: ReadPlanes = lambda start, stop: np.asarray(labels(start, stop) == label)  # noqa: E731
    box = _box(mask, grid)
    welded = _Welded()
    if box is not None:
        for slab in slabs_of(grid.shape.z):
            below = slab.start - (slab.start == 0)  # the air below the first plane
            field = _field(mask, grid, below, slab.stop + 1, box, smooth_mm)
            if field is not None:
                welded.add(*_marched(field), (below, box[0].start - 1, box[1].start - 1), slab.stop)
    points, faces = welded.finish()
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        faces = faces[:, ::-1]
    return Mesh(grid.to_lps(points), faces)


def _box(mask: ReadPlanes, grid: Grid) -> tuple[slice, slice] | None:
    """Rows and columns that the class reaches on any plane: one box for all bands, so that they agree to the bit."""
    seen = np.zeros(grid.shape[1:], bool)
    for slab in slabs_of(grid.shape.z):
        seen |= mask(slab.start, slab.stop).any(axis=0)
    if not seen.any():
        return None
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _field(
    mask: ReadPlanes, grid: Grid, start: int, stop: int, box: tuple[slice, slice], smooth_mm: float
) -> NDArray[np.float32] | None:
    """What is marched over: planes start..stop-1 (air outside the volume) of the box with a pixel of air around.

    None where all of it is air. Smoothed, the class does not reach beyond its box by more than half a voxel or so, and
    what would is cut: the surface stays closed.
    """
    sigma = smooth_mm / np.asarray(grid.spacing_mm)
    halo = int(TRUNCATE * sigma[0] + 0.5)
    low, high = max(start - halo, 0), min(stop + halo, grid.shape.z)
    inside = mask(low, high)[:, box[0], box[1]]
    if not inside.any():
        return None
    planes = (low - (start - halo), stop + halo - high)
    if not smooth_mm:
        return np.pad(inside, (planes, (1, 1), (1, 1))).astype(np.float32)
    from scipy.ndimage import gaussian_filter

    rows, columns = (int(TRUNCATE * s + 0.5) for s in sigma[1:])
    around = np.pad(inside, (planes, (rows + 1,) * 2, (columns + 1,) * 2)).astype(np.float32)
    smooth = gaussian_filter(around, sigma, mode="constant", truncate=TRUNCATE)
    smooth = smooth[halo : halo + stop - start, rows : len(around[0]) - rows, columns : around.shape[2] - columns]
    for edge in (smooth[:, :1], smooth[:, -1:], smooth[:, :, :1], smooth[:, :, -1:]):
        edge[...] = 0
    if start < 0:
        smooth[0] = 0
    if stop > grid.shape.z:
        smooth[-1] = 0
    return smooth


def _marched(field: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(points in indexes of the field, faces); none where the level is nowhere crossed."""
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise UsageError("scikit-image is not installed, without which there are no surfaces",
                         "pip install 'ctpipe[export]'") from None  # fmt: skip
    if not field.min() < 0.5 < field.max():
        return np.empty((0, 3), np.float32), np.empty((0, 3), np.int64)
    points, faces, _, _ = marching_cubes(field, 0.5)
    return points, faces.astype(np.int64)


class _Welded:
    """Bands from the first to the last; the points on the plane that two of them share are kept once."""

    def __init__(self) -> None:
        self._points: list[NDArray[np.float64]] = [np.empty((0, 3))]
        self._faces: list[NDArray[np.int64]] = [np.empty((0, 3), np.int64)]
        self._count = 0
        self._seam: dict[bytes, int] = {}  # (row, column) of a point on the last shared plane -> its number
        self._seam_plane: int | None = None

    def add(
        self, points: NDArray[np.float32], faces: NDArray[np.int64], first: tuple[int, int, int], top: int
    ) -> None:
        """One band. first: voxel index (z, y, x) of the field's first entry; top: the plane shared with the next."""
        keys = np.ascontiguousarray(points[:, 1:])
        plane = first[0] + points[:, 0]
        known = np.full(len(points), -1)
        if self._seam_plane is not None:
            for n in np.flatnonzero(plane == self._seam_plane).tolist():
                known[n] = self._seam.get(keys[n].tobytes(), -1)
        new = known < 0
        known[new] = self._count + np.arange(int(new.sum()))
        self._points.append(points[new].astype(np.float64) + first)
        self._faces.append(known[faces])
        self._count += int(new.sum())
        at_top = np.flatnonzero(plane == top).tolist()
        self._seam = {keys[n].tobytes(): int(known[n]) for n in at_top}
        self._seam_plane = top

    def finish(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        return np.concatenate(self._points), np.concatenate(self._faces)
