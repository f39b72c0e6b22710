"""Compiled loops that apply taps along one axis of a band of planes; float64, one thread, no lock held."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ctpipe.volume.taps import Taps, spline_coefficients


def resample(voxels: NDArray[np.float64], along: Taps, axis: int, start: int = 0, first: int = 0,
             stop: int | None = None) -> NDArray[np.float64]:
    """Resampled voxels first..stop-1 along `axis` of (z, y, x) voxels, float64.

    The axis holds voxels start, start + 1, … of the taps' n_in: all that `along.reach(first, stop)` names.
    """
    stop = along.n_out if stop is None else stop
    begin = start
    if along.cubic:
        voxels, begin = spline_coefficients(voxels, axis, start, along.n_in)
    chosen = along.first[first:stop] - begin
    weights = np.ascontiguousarray(along.weights[first:stop])
    shape = list(voxels.shape)
    shape[axis] = stop - first
    out = np.empty(shape, np.float64)
    if axis == 2:
        _columns(voxels.reshape(-1, voxels.shape[2]), chosen, weights, out.reshape(-1, shape[2]))
        return out
    wide = int(np.prod(voxels.shape[axis + 1 :]))
    _rows(voxels.reshape(-1, voxels.shape[axis], wide), chosen, weights, out.reshape(-1, shape[axis], wide))
    return out


@njit(nogil=True, cache=True)
def _rows(values, first, weights, out):  # type: ignore[no-untyped-def]
    """Values (n, before, wide) -> out (n, behind, wide)."""
    last = values.shape[1] - 1
    for n in range(out.shape[0]):
        for i in range(out.shape[1]):
            row = out[n, i]
            row[:] = 0
            for j in range(weights.shape[1]):
                source = values[n, min(max(first[i] + j, 0), last)]
                weight = weights[i, j]
                for x in range(row.size):
                    row[x] += weight * source[x]


@njit(nogil=True, cache=True)
def _columns(values, first, weights, out):  # type: ignore[no-untyped-def]
    """Values (n, before) -> out (n, behind)."""
    last = values.shape[1] - 1
    for n in range(out.shape[0]):
        row = values[n]
        for i in range(out.shape[1]):
            total = 0.0
            for j in range(weights.shape[1]):
                total += weights[i, j] * row[min(max(first[i] + j, 0), last)]
            out[n, i] = total
