"""Frame places: which voxels of a volume the pixels of a separate frame stand for, by patient coordinates.

A frame coincides with a volume when a step down its columns and one along its rows are each one step along an axis of
the volume, forwards or backwards, and its first pixel is a voxel centre. It may be smaller than a plane, may lie turned
or mirrored, and may be a sagittal or coronal plane of an axial volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.lattice import TOLERANCE_VOX
from ctpipe.volume import Grid

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class FramePlace:
    """position: LPS mm of the first pixel's centre. down, along: LPS mm from pixel to pixel in a column, in a row."""

    position: Vector
    down: Vector
    along: Vector


@dataclass(frozen=True)
class Placement:
    """A frame on a volume's voxels: index (z, y, x) of its first pixel; (axis, sign) of its columns and rows."""

    first: tuple[int, int, int]
    down: tuple[int, int]
    along: tuple[int, int]

    @property
    def depth(self) -> int:
        """The axis of the volume that the frame does not run along."""
        return 3 - self.down[0] - self.along[0]

    def meets(self, rows: int, columns: int, start: int, stop: int) -> bool:
        """Whether the frame holds voxels of planes start..stop-1."""
        low, high = self._ends(0, rows, columns)
        return low < stop and high >= start

    def paint(self, out: NDArray[np.bool_], mask: NDArray[np.bool_], start: int) -> None:
        """Add `mask` (rows, columns) to `out`, planes start and on of the volume; what lies beyond `out` is left."""
        rows, columns = mask.shape
        keep: list[slice] = []
        block = mask[:: self.down[1], :: self.along[1]]
        block = block if self.down[0] < self.along[0] else block.T
        block = np.expand_dims(block, self.depth)
        for axis in range(3):
            low, high = self._ends(axis, rows, columns)
            low, high = (low - start, high - start) if axis == 0 else (low, high)
            inside = slice(max(low, 0), min(high, out.shape[axis] - 1) + 1)
            if inside.start >= inside.stop:
                return
            keep.append(slice(inside.start - low, inside.stop - low))
            out = out[(slice(None),) * axis + (inside,)]
        out |= block[tuple(keep)]

    def is_inside(self, rows: int, columns: int, grid: Grid) -> bool:
        """Whether every pixel is a voxel of the volume."""
        ends = [self._ends(axis, rows, columns) for axis in range(3)]
        return all(low >= 0 and high < n for (low, high), n in zip(ends, grid.shape, strict=True))

    def _ends(self, axis: int, rows: int, columns: int) -> tuple[int, int]:
        """Lowest and highest index along an axis of the volume."""
        first = self.first[axis]
        for (of, sign), n in ((self.down, rows), (self.along, columns)):
            if of == axis:
                return (first, first + n - 1) if sign > 0 else (first - n + 1, first)
        return first, first


def place_frames(frames: Sequence[FramePlace], rows: int, columns: int, grid: Grid) -> list[Placement] | str:
    """Where the frames lie on `grid`, in their order; or one line that says why not all of them do."""
    inverse = np.linalg.inv(grid.affine[:3, :3])
    steps = {
        pair: _axes(inverse @ np.asarray(pair, np.float64).T, rows, columns)
        for pair in {(frame.down, frame.along) for frame in frames}
    }
    if None in steps.values():
        return "its rows and columns do not coincide with the volume's"
    out, shifted, outside = [], 0, 0
    indexes = grid.to_index(np.reshape([frame.position for frame in frames], (-1, 3)))
    for frame, index in zip(frames, indexes, strict=True):
        whole = np.rint(index)
        down, along = steps[frame.down, frame.along]  # type: ignore[misc]
        z, y, x = (int(v) for v in whole)
        placement = Placement((z, y, x), down, along)
        shifted += bool(np.abs(index - whole).max() > TOLERANCE_VOX)
        outside += not placement.is_inside(rows, columns, grid)
        out.append(placement)
    if shifted:
        return f"{shifted} of its {len(frames)} frames coincide with no plane of the volume"
    if outside:
        return f"{outside} of its {len(frames)} frames reach beyond the volume"
    if len(set(out)) < len(out):
        return "two of its frames lie on one plane of the volume"
    return out


def _axes(steps: NDArray[np.float64], rows: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(axis, sign) of each column of `steps`, voxels (z, y, x) down and along; None where they are no lattice steps."""
    found = []
    for step, n in zip(steps.T, (rows, columns), strict=True):
        axis = int(np.argmax(np.abs(step)))
        sign = 1 if step[axis] > 0 else -1
        off = step - sign * np.eye(3)[axis]
        if np.abs(off).max() * (n - 1) > TOLERANCE_VOX:
            return None
        found.append((axis, sign))
    return None if found[0][0] == found[1][0] else (found[0], found[1])
