"""Lattice: how the voxel centres of one grid fall on those of another, by patient coordinates.

::

    target (z, y, x)  ──affine──►  LPS mm  ──inverse affine──►  source (a, b, c)      one 3x4 matrix in voxels

Where that matrix is a signed permutation with whole offsets, both are one lattice and the map is exact: axes are
swapped, reversed and shifted. Where it is not, the nearest source voxel answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctpipe.volume import Grid

# Lattices coincide when every corner is within this of a whole index: affines are stored in float32 (NIfTI) or in
# decimals (DICOM), which moves the far corner of 512 voxels by up to 0.03 voxels; the nearest voxel is the same.
TOLERANCE_VOX = 0.05


@dataclass(frozen=True)
class LatticeMap:
    """Source index of a target index: matrix (3, 4), in voxels; `exact` where the lattices coincide."""

    matrix: NDArray[np.float64]
    exact: bool

    @classmethod
    def between(cls, source_affine: ArrayLike, target: Grid) -> LatticeMap:
        """From `target`'s indexes (z, y, x) to those of a source with `source_affine`: index (a, b, c, 1) -> LPS mm."""
        matrix = (np.linalg.inv(np.asarray(source_affine, np.float64)) @ target.affine)[:3]
        whole = np.rint(matrix)
        corners = corner_indexes(target.shape)
        drift = np.abs(_apply(matrix, corners) - _apply(whole, corners)).max()
        steps = np.abs(whole[:, :3])
        permutes = bool((steps.sum(0) == 1).all() and (steps.sum(1) == 1).all())
        exact = permutes and bool(drift <= TOLERANCE_VOX)
        return cls(whole if exact else matrix, exact)

    def covers(self, source_shape: tuple[int, ...], target: Grid) -> bool:
        """Whether both hold exactly the same voxels."""
        if not self.exact:
            return False
        ends = _apply(self.matrix, corner_indexes(target.shape))
        return bool((ends.min(0) == 0).all() and (ends.max(0) == np.asarray(source_shape) - 1).all())

    def gather(
        self, source: NDArray[np.generic], value: float, target: Grid, start: int, stop: int
    ) -> NDArray[np.bool_]:
        """Where `source` (a, b, c) equals `value`, on planes start..stop-1 of target: bool; outside is False."""
        if self.exact:
            return self._slice(source, value, target, start, stop)
        out = np.empty((stop - start, target.shape.y, target.shape.x), bool)
        yx = np.stack(np.meshgrid(np.arange(target.shape.y), np.arange(target.shape.x), indexing="ij"), -1)
        in_plane = yx @ self.matrix[:, 1:3].T + self.matrix[:, 3]
        for z in range(start, stop):
            # floor(v + 0.5), not rint: a tie goes up everywhere, never to the even neighbour
            at = np.floor(in_plane + self.matrix[:, 0] * z + 0.5).astype(np.int64)
            inside = np.all((at >= 0) & (at < source.shape), axis=-1)
            a, b, c = np.where(inside[..., None], at, 0).transpose(2, 0, 1)
            out[z - start] = np.equal(np.asarray(source[a, b, c]), value) & inside
        return out

    def _slice(
        self, source: NDArray[np.generic], value: float, target: Grid, start: int, stop: int
    ) -> NDArray[np.bool_]:
        """As gather, for coinciding lattices: one slice of the source, its axes swapped and reversed."""
        out = np.zeros((stop - start, target.shape.y, target.shape.x), bool)
        order = [int(np.flatnonzero(self.matrix[:, axis])[0]) for axis in range(3)]  # source axis of z, y, x
        read: list[slice] = [slice(0)] * 3
        write, flips = [], []
        for axis, (low, high) in enumerate(((start, stop), (0, target.shape.y), (0, target.shape.x))):
            of = order[axis]
            sign, offset, length = int(self.matrix[of, axis]), int(self.matrix[of, 3]), source.shape[of]
            # target indexes whose source index lies in 0..length-1
            first, last = (-offset, length - 1 - offset) if sign > 0 else (offset - length + 1, offset)
            low, high = max(low, first), min(high, last + 1)
            if low >= high:
                return out
            ends = sorted((sign * low + offset, sign * (high - 1) + offset))
            read[of] = slice(ends[0], ends[1] + 1)
            write.append(slice(low - (start if axis == 0 else 0), high - (start if axis == 0 else 0)))
            flips.append(slice(None, None, sign))
        block = np.asarray(np.equal(source[tuple(read)], value))
        out[tuple(write)] = block.transpose(order)[tuple(flips)]
        return out


def corner_indexes(shape: ArrayLike) -> NDArray[np.int64]:
    """(8, 3) indexes of the corner voxels of a grid of `shape`."""
    bits = np.array([[(k >> 2) & 1, (k >> 1) & 1, k & 1] for k in range(8)])
    return bits * (np.asarray(shape) - 1)


def _apply(matrix: NDArray[np.float64], indexes: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(indexes, np.float64) @ matrix[:, :3].T + matrix[:, 3]
