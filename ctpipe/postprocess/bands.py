"""A band of planes around one slab, and the grid's distances in it: what a step that looks at neighbours is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctpipe.volume import Grid

# Distances are compared with this to spare: a voxel exactly so far away counts as within, however its root is rounded.
DISTANCE_STEP_MM = 1e-6

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Band:
    """Labels (planes, y, x) of a slab and of some planes on both sides of it, cut at the ends of the volume.

    start: the slab's first plane in the volume; own: its planes; below: planes of the band before it; depth: planes
    of the volume.
    """

    labels: NDArray
    start: int
    own: int
    below: int
    depth: int

    @property
    def slab(self) -> NDArray:
        """Labels of the slab alone."""
        return self.labels[self.below : self.below + self.own]

    @property
    def with_next(self) -> NDArray:
        """Labels of the slab and of the plane after it, where the volume has one."""
        return self.labels[self.below : self.below + self.own + 1]


@dataclass(frozen=True)
class Metric:
    """Distances on a grid. rows: the 3x3 part of the affine, steps along z, y, x in its columns, mm."""

    rows: tuple[tuple[float, float, float], ...]

    @classmethod
    def of(cls, grid: Grid) -> Metric:
        return cls(tuple(tuple(float(v) for v in row) for row in grid.affine[:3, :3]))  # type: ignore[misc]

    @property
    def matrix(self) -> NDArray[np.float64]:
        return np.asarray(self.rows, np.float64)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        z, y, x = np.linalg.norm(self.matrix, axis=0)
        return float(z), float(y), float(x)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel; on a sheared grid less than the product of the spacings."""
        return float(abs(np.linalg.det(self.matrix)))

    def reach(self, mm: float) -> tuple[int, int, int]:
        """Most voxels along z, y, x by which two voxel centres within `mm` of each other can differ."""
        inverse = np.linalg.inv(self.matrix)
        z, y, x = np.floor((mm + DISTANCE_STEP_MM) * np.linalg.norm(inverse, axis=1) + 1e-9).astype(int)
        return int(z), int(y), int(x)

    def ball(self, mm: float) -> list[tuple[int, int, int]]:
        """Offsets (z, y, x) of the voxels within `mm` of one, in C order."""
        sides = [np.arange(-n, n + 1) for n in self.reach(mm)]
        offsets = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 3)
        near = np.linalg.norm(offsets @ self.matrix.T, axis=1) <= mm + DISTANCE_STEP_MM
        return [(int(z), int(y), int(x)) for z, y, x in offsets[near]]


def grown(box: Box, by: tuple[int, int, int], shape: tuple[int, ...]) -> Box:
    """A box with `by` voxels (z, y, x) more on each side, cut at `shape`."""
    z, y, x = (slice(max(0, side.start - n), min(length, side.stop + n))
               for side, n, length in zip(box, by, shape, strict=True))  # fmt: skip
    return z, y, x


def padded(values: NDArray, box: Box, by: tuple[int, int, int]) -> NDArray:
    """`values` within `box` and `by` voxels around it; beyond the array 0."""
    inner = grown(box, by, values.shape)
    before = [n - (side.start - cut.start) for n, side, cut in zip(by, box, inner, strict=True)]
    after = [n - (cut.stop - side.stop) for n, side, cut in zip(by, box, inner, strict=True)]
    return np.pad(values[inner], list(zip(before, after, strict=True)))
