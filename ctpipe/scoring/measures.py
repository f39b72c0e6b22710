"""Lesions measured: each connected component of each class in mL, millimetres and HU. No file, no engine, no viewer.

::

    volume      voxels x the volume of one by the affine (exact on sheared grids too)
    long axis   the greatest distance within one plane of the volume, over all planes; the plane is the one it lies in
    short axis  the longest chord across it at a right angle, in the same plane (RECIST 1.1, WHO)

Planes are those of the volume: axial where the series is. An outline runs through the middle of each pixel's sides, as
marching squares draws it, so that a disc of pixels has the diameter of the disc, and one pixel that of its longer side.
Both axes are measured on the convex hull of the outline. Memory is one slab, and a few numbers a component.
Source: RECIST 1.1 (Eisenhauer 2009) 3.1; PS3.16 CID 7470 for the words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ctpipe.postprocess import Components, label_components
from ctpipe.volume import Grid, Slab, slabs_of

# (start, stop) -> planes start..stop-1 of the volume, (planes, y, x); called again with the same answer.
ReadPlanes = Callable[[int, int], NDArray]
Point = tuple[float, float]  # (y, x) voxel index with fractions

_ROUNDING = 1e-9  # lengths that differ by less are the same
# Middle of each side of a pixel about its centre, (y, x).
_SIDES = np.array([(-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)])


@dataclass(frozen=True)
class Axes:
    """The two diameters of one component within one plane. Ends are voxel indexes (y, x) with fractions; mm."""

    plane: int
    long_mm: float
    short_mm: float
    long_ends: tuple[Point, Point]
    short_ends: tuple[Point, Point]


@dataclass(frozen=True)
class Measured:
    """One component of one class.

    number: from 1 within its class, in order of the first voxel. box: lowest and highest (z, y, x) of its voxels.
    first: (z, y, x) of its first voxel in C order, which no other component has.
    centre_mm: mean of its voxels' centres, LPS mm. hu: (mean, standard deviation, lowest, highest), None without CT.
    """

    label: int
    name: str
    number: int
    voxels: int
    volume_ml: float
    axes: Axes
    box: tuple[tuple[int, int, int], tuple[int, int, int]]
    first: tuple[int, int, int]
    centre_mm: tuple[float, float, float]
    hu: tuple[float, float, float, float] | None

    @property
    def middle(self) -> tuple[float, float, float]:
        """Where to look at it: the middle of the long axis, (z, y, x) voxel index with fractions."""
        (y0, x0), (y1, x1) = self.axes.long_ends
        return float(self.axes.plane), (y0 + y1) / 2, (x0 + x1) / 2


def measure(
    labels: ReadPlanes, hu: ReadPlanes | None, grid: Grid, classes: Mapping[int, str], connectivity: int = 26
) -> list[Measured]:
    """Every component of every class, classes by label, components by their first voxel.

    labels: whole numbers (planes, y, x). hu: HU of the same planes, None where no CT is at hand. connectivity: 26 joins
    over corners, 6 over faces only. A class without voxels gives nothing.
    """
    return [one for one, _ in measured_with_planes(labels, hu, grid, classes, connectivity)[0]]


def measured_with_planes(
    labels: ReadPlanes, hu: ReadPlanes | None, grid: Grid, classes: Mapping[int, str], connectivity: int = 26
) -> tuple[list[tuple[Measured, int]], Callable[[int, int], NDArray]]:
    """`measure`, each with its number over all classes from 1; and a reader of planes that hold those numbers.

    The second gives int32 (planes, y, x), 0 outside; planes must be those of one slab (`slabs_of`).
    """
    slabs = slabs_of(grid.shape.z)
    there = _labels_there(labels, slabs)
    parts = {label: label_components(_mask(labels, slabs, label, there, grid.shape[1:]), len(slabs), connectivity)
             for label in sorted(classes)}  # fmt: skip
    offsets = dict(zip(parts, accumulate([0, *(part.count for part in parts.values())]), strict=False))
    found: list[tuple[Measured, int]] = []
    for label, part in parts.items():
        tally = _Tally(part, grid)
        for slab in slabs:
            tally.add(slab, hu)
        found += [(replace(one, label=label, name=classes[label]), one.number + offsets[label])
                  for one in tally.finish()]  # fmt: skip

    def numbered(start: int, stop: int) -> NDArray:
        slab = next(slab for slab in slabs if slab.start <= start < slab.stop)
        out = np.zeros((slab.planes, grid.shape.y, grid.shape.x), np.int32)
        for label, part in parts.items():
            if part.count:
                here = part.slab(slab.index)
                np.add(here, offsets[label], out=out, where=here > 0)
        return out[start - slab.start : stop - slab.start]

    return found, numbered


def _labels_there(labels: ReadPlanes, slabs: list[Slab]) -> list[set[int]]:
    """The labels that each slab holds: a slab is read again only for these."""
    def of(slab: Slab) -> set[int]:
        counts = [np.bincount(plane.ravel()) for plane in labels(slab.start, slab.stop)]
        return {label for plane in counts for label in np.flatnonzero(plane).tolist()}

    return [of(slab) for slab in slabs]


def _mask(
    labels: ReadPlanes, slabs: list[Slab], label: int, there: list[set[int]], plane: tuple[int, int]
) -> Callable[[int], NDArray[np.bool_]]:
    def of_slab(index: int) -> NDArray[np.bool_]:
        if label not in there[index]:
            return np.zeros((slabs[index].planes, *plane), bool)
        return np.asarray(labels(slabs[index].start, slabs[index].stop) == label)

    return of_slab


class _Tally:
    """What the components of one class add up to, slab by slab."""

    def __init__(self, parts: Components, grid: Grid) -> None:
        self.parts, self.grid = parts, grid
        n = parts.count
        self.low, self.high = np.full((n, 3), np.iinfo(np.int64).max), np.full((n, 3), -1)
        self.centre = np.zeros((n, 3))
        self.hu: NDArray[np.float64] | None = None
        self.extremes = np.stack([np.full(n, np.inf), np.full(n, -np.inf)], axis=1)
        self.axes: list[Axes | None] = [None] * n
        self._plane_mm = _plane_basis(grid)

    def add(self, slab: Slab, hu: ReadPlanes | None) -> None:
        from scipy.ndimage import find_objects

        if not self.parts.count:
            return
        numbers = self.parts.slab(slab.index)
        values = None if hu is None or not numbers.any() else hu(slab.start, slab.stop)
        for n, sides in enumerate(find_objects(numbers)):
            if sides is not None:
                first = np.array([slab.start, 0, 0]) + [side.start for side in sides]
                self._add_part(n, first, numbers[sides] == n + 1, None if values is None else values[sides])

    def _add_part(self, n: int, first: NDArray[np.int64], inside: NDArray[np.bool_], hu: NDArray | None) -> None:
        """What one slab has of component n: its mask within its box, whose first voxel is `first`, and the HU there."""
        self.low[n] = np.minimum(self.low[n], first)
        self.high[n] = np.maximum(self.high[n], first + inside.shape - 1)
        for axis, length in enumerate(inside.shape):
            counts = np.count_nonzero(inside, axis=tuple(other for other in range(3) if other != axis))
            self.centre[n, axis] += counts @ (first[axis] + np.arange(length))
        if hu is not None:
            self._add_hu(n, np.asarray(hu[inside], np.float64))
        for offset, plane in enumerate(inside):
            if plane.any():
                self._add_axes(n, int(first[0]) + offset, _row_ends(plane) + first[1:])

    def _add_hu(self, n: int, values: NDArray[np.float64]) -> None:
        if self.hu is None:
            self.hu = np.zeros((self.parts.count, 2))
        self.hu[n] += values.sum(), values @ values
        self.extremes[n] = min(self.extremes[n, 0], values.min()), max(self.extremes[n, 1], values.max())

    def _add_axes(self, number: int, plane: int, points: NDArray[np.float64]) -> None:
        best = self.axes[number]
        if best is not None and _at_most_mm(points, self._plane_mm) <= best.long_mm:
            return
        found = _axes_of(points, plane, self._plane_mm)
        if best is None or found.long_mm > best.long_mm * (1 + _ROUNDING):  # of equals the first plane
            self.axes[number] = found

    def finish(self) -> list[Measured]:
        ml = abs(float(np.linalg.det(self.grid.affine[:3, :3]))) / 1000
        out = []
        for n, voxels in enumerate(self.parts.sizes.tolist()):
            axes = self.axes[n]
            assert axes is not None  # a component has voxels
            centre = self.grid.to_lps(self.centre[n] / voxels)
            first = np.array(np.unravel_index(int(self.parts.first[n]), tuple(self.grid.shape)))
            out.append(Measured(
                0, "", n + 1, voxels, voxels * ml, axes, (_ints(self.low[n]), _ints(self.high[n])), _ints(first),
                (float(centre[0]), float(centre[1]), float(centre[2])), self._hu_of(n, voxels),
            ))  # fmt: skip
        return out

    def _hu_of(self, n: int, voxels: int) -> tuple[float, float, float, float] | None:
        if self.hu is None:
            return None
        mean = self.hu[n, 0] / voxels
        spread = np.sqrt(max(self.hu[n, 1] / voxels - mean**2, 0.0))
        return float(mean), float(spread), float(self.extremes[n, 0]), float(self.extremes[n, 1])


def _ints(index: NDArray) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in index)
    return z, y, x


def _plane_basis(grid: Grid) -> NDArray[np.float64]:
    """(2, 2): (y, x) steps in voxels -> mm on two axes at right angles within the plane."""
    return np.linalg.qr(grid.affine[:3, 1:3])[1].T


def _row_ends(plane: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Middles of the sides of the first and last pixel of each row: all that a hull of the outline needs, (n, 2).

    Of the sides above and below, those of the pixels between are no corner of a hull.
    """
    rows = np.flatnonzero(plane.any(axis=1))
    low, high = plane[rows].argmax(axis=1), plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.column_stack([rows, low]), np.column_stack([rows, high])]).astype(np.float64)
    return (ends[:, None, :] + _SIDES).reshape(-1, 2)


def _at_most_mm(points: NDArray[np.float64], basis: NDArray[np.float64]) -> float:
    """An upper bound of the distances between points: the diagonal of their box."""
    mm = points @ basis
    return float(np.linalg.norm(mm.max(axis=0) - mm.min(axis=0)))


def _axes_of(points: NDArray[np.float64], plane: int, basis: NDArray[np.float64]) -> Axes:
    """Longest distance between the points and the longest chord of their hull at a right angle to it."""
    from scipy.spatial import ConvexHull, distance

    mm = points @ basis
    hull = mm[ConvexHull(mm).vertices]
    apart = distance.cdist(hull, hull)
    a, b = np.unravel_index(int(np.argmax(apart)), apart.shape)
    along = (hull[b] - hull[a]) / apart[a, b]
    chord = _chord(hull, along)
    back = np.linalg.inv(basis)
    return Axes(
        plane, float(apart[a, b]), float(np.linalg.norm(chord[1] - chord[0])),
        (_point(hull[a] @ back), _point(hull[b] @ back)), (_point(chord[0] @ back), _point(chord[1] @ back)),
    )  # fmt: skip


def _chord(hull: NDArray[np.float64], along: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ends (2, 2) of the longest chord of a convex polygon at a right angle to `along`.

    The length of such a chord is concave along the polygon and linear between its corners, so it is longest at one.
    """
    across = np.array([-along[1], along[0]])
    u, v = hull @ along, hull @ across
    first, last = int(np.argmin(u)), int(np.argmax(u))
    sides = [_side(u, v, first, last, step) for step in (1, -1)]
    lengths = np.interp(u, *sides[0]) - np.interp(u, *sides[1])
    at = u[int(np.argmax(np.abs(lengths)))]
    return np.array([at * along + float(np.interp(at, *side)) * across for side in sides])


def _side(u: NDArray, v: NDArray, first: int, last: int, step: int) -> tuple[NDArray, NDArray]:
    """(u, v) of the corners from the first to the last in one sense of turning; u ascends."""
    n = ((last - first) * step) % len(u) + 1
    way = (first + step * np.arange(n)) % len(u)
    return u[way], v[way]


def _point(index: NDArray[np.float64]) -> Point:
    return float(index[0]), float(index[1])
