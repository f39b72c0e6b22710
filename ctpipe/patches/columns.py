"""Columns of the patch table: exact class counts inside every window, at a cost that grows with voxels only."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from ctpipe.patches.windows import WindowGrid
from ctpipe.words import Pad


def window_counts(mask: NDArray[np.bool_], grid: WindowGrid, z_planes: list[int], first: int,
                  pad: Pad) -> NDArray[np.int64]:
    """How many voxels of `mask` each window holds: (len(z_planes), ny, nx), exact.

    mask: (planes, y, x) of the planes from `first` on, all that the windows centred on `z_planes` reach.
    Beyond the volume a window sees what `pad` says: the nearest voxel of the plane (and the nearest plane) again, or
    nothing. One running sum per axis, so windows of 257 x 257 cost what windows of 1 x 1 cost.
    """
    _, y_axis, x_axis = grid.axes()
    dtype = np.dtype(np.int32 if prod(grid.window) < 2**31 else np.int64)
    counts = _sums(mask, 1, y_axis, grid.window.y, 0, grid.shape.y, pad, dtype)  # y first: few rows stay
    counts = _sums(counts, 2, x_axis, grid.window.x, 0, grid.shape.x, pad, dtype)
    counts = _sums(counts, 0, np.asarray(z_planes), grid.window.z, first, grid.shape.z, pad, dtype)
    return counts.astype(np.int64, copy=False)


def planes_reached(grid: WindowGrid, z_planes: list[int]) -> tuple[int, int]:
    """(start, stop) of the planes that the windows centred on `z_planes` reach, clipped to the volume."""
    half = grid.window.z // 2
    return max(0, z_planes[0] - half), min(grid.shape.z, z_planes[-1] - half + grid.window.z)


def _sums(values: NDArray[np.generic], axis: int, centres: NDArray[np.int64], window: int, first: int, length: int,
          pad: Pad, dtype: np.dtype) -> NDArray[np.integer]:
    """Sums over centre - window // 2 … + window along one axis, whose values begin at index `first` of `length`."""
    if window == 1:
        return np.take(values, centres - first, axis).astype(dtype, copy=False)
    start = centres - window // 2
    stop = start + window
    inside_start, inside_stop = np.maximum(start, 0) - first, np.minimum(stop, length) - first
    sizes = [n + (i == axis) for i, n in enumerate(values.shape)]
    running = np.zeros(sizes, dtype)  # entry i: the sum of the first i values
    np.cumsum(values, axis=axis, dtype=dtype, out=running[(slice(None),) * axis + (slice(1, None),)])
    sums = np.take(running, inside_stop, axis) - np.take(running, inside_start, axis)
    if pad is Pad.EDGE:  # a window's centre is inside, so both borders it may cross lie in `values`
        side = [1] * values.ndim
        side[axis] = -1
        before = np.maximum(-start, 0).astype(dtype).reshape(side)
        after = np.maximum(stop - length, 0).astype(dtype).reshape(side)
        if before.any():
            sums += before * np.take(values, [0 - first], axis)
        if after.any():
            sums += after * np.take(values, [length - 1 - first], axis)
    return sums
