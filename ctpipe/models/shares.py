"""WindowShares: how much each window counts at each voxel where windows overlap; shares sum to 1 at every voxel.

Weights that are products along the axes give shares that are such products too, since windows lie on a lattice: three
short rows a window. MONAI's Gaussian has a floor of 0.001 (compute_importance_map), which is no product: there the
share of every voxel of a window is worked out from the windows around it.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ctpipe.models.segment_plan import SegmentPlan, Window
from ctpipe.models.segment_spec import SegmenterSpec

# MONAI weighs no voxel of a window below this.
FLOOR = 1e-3
# Blocks of shares that are kept: windows of a row alternate between few.
_KEPT = 8

Places = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class WindowShares:
    """Shares of the windows of one plan."""

    def __init__(self, spec: SegmenterSpec, plan: SegmentPlan) -> None:
        self.plan = plan
        steps = [-1 if backwards else 1 for backwards in plan.frame.stored(plan.frame.flipped)]
        self._profiles = [_profile(n, spec)[::step] for n, step in zip(plan.patch, steps, strict=True)]
        self.separable = spec.weight != "gaussian-floor"
        if self.separable:
            self._rows = [_along(plan.starts[a], plan.shape[a], plan.below[a], self._profiles[a]) for a in range(3)]
        self._blocks: OrderedDict[Places, NDArray[np.float32]] = OrderedDict()

    def rows(self, window: Window) -> tuple[NDArray[np.float32], ...]:
        """float32 (patch,) along z, y and x, whose product is the share; 0 in the padding. Only where `separable`."""
        return tuple(rows[i] for rows, i in zip(self._rows, window.place, strict=True))

    def block(self, window: Window) -> NDArray[np.float32]:
        """Shares of a window's voxels, float32 (z, y, x) as its patch; what lies in the padding does not matter."""
        if self.separable:
            z, y, x = self.rows(window)
            return z[:, None, None] * y[:, None] * x
        places: Places = tuple(
            tuple(other - start for other in starts if abs(other - start) < n)
            for start, starts, n in zip(window.start, self.plan.starts, self.plan.patch, strict=True)
        )  # type: ignore[assignment]
        if places in self._blocks:
            self._blocks.move_to_end(places)
        else:
            self._blocks[places] = _floored(self._profiles, places)
            if len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[places]


def _profile(patch: int, spec: SegmenterSpec) -> NDArray[np.float64]:
    """Weights of a window along one axis, its middle 1."""
    if spec.weight == "constant" or patch == 1:
        return np.ones(patch)
    middle = patch // 2 if spec.weight == "gaussian-middle" else (patch - 1) / 2
    return np.exp(-0.5 * ((np.arange(patch) - middle) / (patch / 8)) ** 2)


def _along(starts: tuple[int, ...], size: int, below: int, profile: NDArray[np.float64]) -> NDArray[np.float32]:
    """float32 (len(starts), patch): each window's shares along one axis; 0 outside 0..size-1."""
    patch = len(profile)
    total = np.zeros(size)
    spans = []
    for start in starts:
        low, high = max(0, start - below), min(size, start - below + patch)
        spans.append((slice(low, high), slice(low - start + below, high - start + below)))
        total[spans[-1][0]] += profile[spans[-1][1]]
    out = np.zeros((len(starts), patch), np.float32)
    for i, (there, inside) in enumerate(spans):
        out[i, inside] = profile[inside] / total[there]
    return out


def _floored(profiles: list[NDArray[np.float64]], places: Places) -> NDArray[np.float32]:
    """Shares of a window where others lie `places` voxels from it along each axis, itself (0) among them."""
    z, y, x = profiles
    weights = np.maximum(z[:, None, None] * y[:, None] * x, FLOOR).astype(np.float32)
    total = np.zeros(weights.shape, np.float32)
    for offset in product(*places):  # in one order for every window, so that sums round alike
        here = tuple(slice(max(0, at), min(n, n + at)) for at, n in zip(offset, weights.shape, strict=True))
        there = tuple(slice(max(0, -at), min(n, n - at)) for at, n in zip(offset, weights.shape, strict=True))
        total[here] += weights[there]
    return weights / total
