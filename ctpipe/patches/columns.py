"""Columns of the patch table: exact class counts and HU moments of every window, at a cost that grows with voxels only.

One lattice plane at a time. Counts of several classes lie side by side in one 64-bit word (21 bits each for windows
of up to two million voxels), so that one pass over the labels counts three classes at once. A window of several planes
first adds up its planes, running: a plane enters and leaves once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.patches.windows import WindowGrid
from ctpipe.words import Pad

# What lies beyond the volume where padding is constant: air, the fill value of the store.
PAD_HU = -1024
# Volumes of floating point are counted in steps of 1 / FLOAT_STEPS HU, so that sums do not depend on their order.
FLOAT_STEPS = 64
# Bits of a word that are used: the sign stays free.
_WORD = 63


def planes_reached(grid: WindowGrid, z_planes: Sequence[int]) -> tuple[int, int]:
    """(start, stop) of the planes that the windows centred on `z_planes` reach, clipped to the volume."""
    half = grid.window.z // 2
    return max(0, z_planes[0] - half), min(grid.shape.z, z_planes[-1] - half + grid.window.z)


def depth_counts(grid: WindowGrid, z: int, pad: Pad) -> dict[int, int]:
    """{plane: how often the window centred on plane z sees it}; what lies outside is the nearest plane, or nothing."""
    start = z - grid.window.z // 2
    seen: dict[int, int] = {}
    for plane in range(max(start, 0), min(start + grid.window.z, grid.shape.z)):
        seen[plane] = 1
    if pad is Pad.EDGE:
        last = grid.shape.z - 1
        for plane, times in ((0, -start), (last, start + grid.window.z - 1 - last)):
            if times > 0:
                seen[plane] = seen.get(plane, 0) + times
    return seen


@dataclass
class _Running:
    """The planes that the present window sees, added up; the next window changes only what differs."""

    seen: dict[int, int] = field(default_factory=dict)

    def changes(self, wanted: dict[int, int]) -> list[tuple[int, int]]:
        """(plane, times to add) from the present window to the wanted one."""
        planes = sorted(set(self.seen) | set(wanted))
        found = [(plane, wanted.get(plane, 0) - self.seen.get(plane, 0)) for plane in planes]
        self.seen = wanted
        return [(plane, times) for plane, times in found if times]


class ClassCounter:
    """Fractions of some classes inside the windows of lattice planes, plane by plane in ascending order.

    labels: (planes, y, x) uint8 of the planes from `first` on, all that the windows reach.
    """

    def __init__(self, labels: NDArray[np.uint8], first: int, grid: WindowGrid, pad: Pad, classes: Sequence[int]
                 ) -> None:
        self.labels, self.first, self.grid, self.edge, self.pad = labels, first, grid, pad is Pad.EDGE, pad
        self.total = grid.window.z * grid.window.y * grid.window.x
        self.bits = self.total.bit_length()
        if self.bits > _WORD:
            raise UsageError(f"a window of {self.total} voxels is too large to count", "choose a smaller window")
        self.classes = list(classes)
        per_word = _WORD // self.bits
        self.groups = [self.classes[at : at + per_word] for at in range(0, len(self.classes), per_word)]
        self.worths = [self._worth(group) for group in self.groups]
        self.running = _Running()
        _, y, x = grid.shape
        self.added = [np.zeros((y, x), np.int64) for _ in self.groups] if grid.window.z > 1 else []
        _, self.y_axis, self.x_axis = grid.axes()
        self.words = np.empty((len(self.y_axis), len(self.x_axis)), np.int64)

    def into(self, z: int, out: Sequence[NDArray[np.float32]]) -> None:
        """Write the fractions of each class for the windows centred on plane z: out[class] float32 (ny * nx,)."""
        from ctpipe.patches import kernels
        grid, at = self.grid, 0
        changes = self.running.changes(depth_counts(grid, z, self.pad)) if self.added else []
        for number, (group, worth) in enumerate(zip(self.groups, self.worths, strict=True)):
            if self.added:
                for plane, times in changes:
                    kernels.add_labels(self.labels[plane - self.first], worth, times, self.added[number])
                kernels.value_sums(self.added[number], self.y_axis, self.x_axis, grid.window.y, grid.window.x,
                                   self.edge, self.words)
            else:
                kernels.label_sums(self.labels[z - self.first], worth, self.y_axis, self.x_axis, grid.window.y,
                                   grid.window.x, self.edge, self.words)
            for k in range(len(group)):
                kernels.fractions(self.words, self.bits, k, self.total, out[at + k][None])
            at += len(group)

    def _worth(self, group: Sequence[int]) -> NDArray[np.int64]:
        worth = np.zeros(256, np.int64)
        for k, label in enumerate(group):
            worth[label] = 1 << (k * self.bits)
        return worth


class HuMoments:
    """Mean and standard deviation of HU inside the windows of lattice planes, plane by plane in ascending order.

    hu: (planes, y, x) of the planes from `first` on. Constant padding counts as `PAD_HU`. int16 is exact; floating
    point is rounded to 1 / 64 HU. The standard deviation is that of all voxels of the window (divided by their number).
    """

    def __init__(self, hu: NDArray[np.generic], first: int, grid: WindowGrid, pad: Pad) -> None:
        self.hu, self.first, self.grid, self.edge, self.pad = hu, first, grid, pad is Pad.EDGE, pad
        self.total = grid.window.z * grid.window.y * grid.window.x
        self.scale = 1 if hu.dtype.kind in "iu" else FLOAT_STEPS
        if self.total.bit_length() + 2 * (16 + self.scale.bit_length()) > _WORD:
            raise UsageError(f"HU moments of a window of {self.total} voxels would overflow", "choose a smaller window")
        self.running = _Running()
        _, y, x = grid.shape
        self.direct = grid.window.z == 1 and hu.dtype == np.int16
        self.added = [] if self.direct else [np.zeros((y, x), np.int64) for _ in range(2)]
        _, self.y_axis, self.x_axis = grid.axes()
        self.sums = [np.empty((len(self.y_axis), len(self.x_axis)), np.int64) for _ in range(2)]

    def into(self, z: int, mean: NDArray[np.float32], deviation: NDArray[np.float32]) -> None:
        """Write mean and standard deviation, float32 (ny * nx,), of the windows centred on plane z."""
        from ctpipe.patches import kernels
        grid = self.grid
        at = (self.y_axis, self.x_axis, grid.window.y, grid.window.x, self.edge)
        if self.direct:
            kernels.hu_sums(self.hu[z - self.first], *at, PAD_HU, *self.sums)
        else:
            for plane, times in self.running.changes(depth_counts(grid, z, self.pad)):
                kernels.add_squares(self._steps(plane), times, *self.added)
            for added, sums in zip(self.added, self.sums, strict=True):
                kernels.value_sums(added, *at, sums)
        kernels.moments(self.sums[0], self.sums[1], self.total, float(PAD_HU), float(self.scale), mean, deviation)

    def _steps(self, plane: int) -> NDArray[np.int64]:
        values = self.hu[plane - self.first]
        if self.scale == 1:
            return values.astype(np.int64) - PAD_HU
        return np.rint((values.astype(np.float64) - PAD_HU) * self.scale).astype(np.int64)
