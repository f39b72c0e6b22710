"""Taps: resampling along one axis as weights of neighbouring voxels. Separable, so that slabs give the whole's result.

A resampled voxel is a weighted sum of 1 (nearest), 2 (linear) or 4 (cubic B-spline) neighbours along the axis. Beyond
the border the nearest voxel counts. For the cubic spline the values are first turned into its coefficients
(`spline_coefficients`), a filter whose response decays by 0.268 a voxel: HALO voxels on both sides are as good as all.
Equal to `scipy.ndimage.zoom(…, mode="nearest", grid_mode=True)`, and so to `skimage.transform.resize(…, mode="edge")`
before its clipping, up to rounding in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Voxels beside a band after which the spline's filter has forgotten the band's edge: 0.268 ** 24 is 2e-14.
HALO = 24
# scipy continues a volume by so many voxels of its border before it filters with mode "nearest".
EDGE = 12


@dataclass(frozen=True, eq=False)
class Taps:
    """first: int64 (n,), number of the first neighbour of each resampled voxel, which may lie beyond the border;
    weights: float64 (n, 1 | 2 | 4). n_in: voxels before. cubic: weights are of coefficients, not of values.
    """

    first: NDArray[np.int64]
    weights: NDArray[np.float64]
    n_in: int
    cubic: bool

    @property
    def n_out(self) -> int:
        return len(self.first)

    @property
    def identity(self) -> bool:
        """Whether every voxel is taken as it is."""
        if self.cubic:
            return False
        plain = self.weights.shape[1] == 1 or bool((self.weights[:, 0] == 1).all())
        return plain and self.n_out == self.n_in and bool((self.first == np.arange(self.n_in)).all())

    def reach(self, start: int, stop: int) -> tuple[int, int]:
        """(first, stop) of the voxels before that resampled voxels start..stop-1 need, the spline's halo included."""
        halo = HALO if self.cubic else 0
        low = int(self.first[start]) - halo
        high = int(self.first[stop - 1]) + self.weights.shape[1] + halo
        return min(max(low, 0), self.n_in - 1), max(1, min(high, self.n_in))


def taps(n_in: int, n_out: int, order: Literal[0, 1, 3], scale: float | None = None,
         offset: float | None = None) -> Taps:
    """Taps from n_in to n_out voxels; voxel i lies at scale * i + offset before.

    Without scale and offset the outer faces stay where they are: scale n_in / n_out, half a voxel at either end.
    """
    if scale is None or offset is None:
        scale = n_in / n_out
        at = (np.arange(n_out) + 0.5) * scale - 0.5
    else:
        at = np.arange(n_out) * scale + offset
    if order == 0:
        nearest = np.clip(np.floor(np.clip(at, 0, n_in - 1) + 0.5), 0, n_in - 1).astype(np.int64)
        return Taps(nearest, np.ones((n_out, 1)), n_in, cubic=False)
    if n_in == n_out and np.array_equal(at, np.arange(n_in)):
        return Taps(np.arange(n_in), np.ones((n_out, 1)), n_in, cubic=False)
    if order == 1:
        inside = np.clip(at, 0, n_in - 1)
        low = np.minimum(np.floor(inside), max(0, n_in - 2)).astype(np.int64)
        part = inside - low
        return Taps(low, np.stack([1 - part, part], 1), n_in, cubic=False)
    low = np.floor(at).astype(np.int64)
    return Taps(low - 1, _cubic_weights(at - low), n_in, cubic=True)


def _cubic_weights(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic B-spline at distances 1 + t, t, 1 - t, 2 - t."""
    s = 1 - t
    inner = [(v * v * (v - 2) * 3 + 4) / 6 for v in (t, s)]
    return np.stack([s**3 / 6, inner[0], inner[1], 1 - s**3 / 6 - inner[0] - inner[1]], 1)


def spline_coefficients(voxels: NDArray[np.float64], axis: int, start: int = 0,
                        n: int | None = None) -> tuple[NDArray[np.float64], int]:
    """Cubic B-spline coefficients along `axis` of a band of voxels, and the number of the first of them.

    The band holds voxels start, start + 1, … of n (None: all of the axis). Where it meets the border of the axis it is
    continued by EDGE voxels, whose coefficients are given back too; elsewhere HALO voxels at its ends are not to be
    used.
    """
    from scipy.ndimage import spline_filter1d

    length = voxels.shape[axis]
    n = length if n is None else n
    before = EDGE if start == 0 else 0
    behind = EDGE if start + length == n else 0
    pad = [(0, 0)] * voxels.ndim
    pad[axis] = (before, behind)
    continued = np.pad(voxels, pad, mode="edge") if before or behind else voxels
    return spline_filter1d(continued, 3, axis, np.float64, mode="mirror"), start - before
