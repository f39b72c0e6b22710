"""ScoreBand: scores of overlapping windows become labels as soon as they are decided; never class x volume.

::

    network planes   0 …… done ……………………………… done + patch
                     gone  |  weighted sums of scores     |  not begun
                           ^ decided rows leave at once: resampled to the stored grid, highest class

Each window's scores are multiplied by its share of the voxel (WindowShares: they sum to 1) and added as whole
numbers of 1 / SCALE, so that no order of windows, tasks or workers changes a bit. With the sum of shares 1 and scores
within SCORE_LIMIT an int32 cannot overflow. Equal sums go to the lower class.

Windows come along z, then y, then x: where windows of half a patch's step have passed by, the rows behind them are
decided for the planes that the next start along z no longer touches, and their memory is given back. So about half a
band is in memory, not all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.models.segment_plan import Frontier, SegmentPlan, Window
from ctpipe.models.segment_spec import SegmenterSpec
from ctpipe.models.shares import WindowShares
from ctpipe.reduce.band_memory import BandMemory
from ctpipe.volume.taps import Taps

# Sums are kept in units of 1 / SCALE: 2 ** 23 of them times SCORE_LIMIT leave an int32 half empty.
SCALE = 1 << 23


@dataclass(frozen=True, eq=False)
class Decided:
    """labels (rows, x) of rows `row`, row + 1, … of stored plane `plane` of the plan's box."""

    plane: int
    row: int
    labels: NDArray[np.uint8 | np.uint16]

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + len(self.labels))


class ScoreBand:
    """Sums of the scores of one volume's windows for the voxels that a later window can still touch.

    Windows come ordered along z, y and x (`add`); `finish` gives the stored rows whose scores are complete. Memory: at
    most (patch along z + 1) x heads x plane of the network grid x 4 bytes, and where windows overlap by half along z
    little more than half of that.
    """

    def __init__(self, spec: SegmenterSpec, plan: SegmentPlan, first: int, stop: int) -> None:
        """For stored planes first..stop-1 of the plan's box."""
        self.spec, self.plan = spec, plan
        # planes below _next are given, of those below _partial the rows below _row
        self._next, self._partial, self._row, self._stop = first, first, 0, stop
        # planes below _low are clear, of those below _low_partial the rows below _low_row; before the first window all
        self._low, self._low_partial, self._low_row = plan.shape.z, plan.shape.z, 0
        self._memory = BandMemory(plan.patch.z + 1, spec.outputs, plan.shape)
        self._shares = WindowShares(spec, plan)
        self._identity = all(along.identity for along in plan.outward)
        self._needs = [_needed(along) for along in plan.outward]

    def add(self, window: Window, scores: NDArray[np.float32]) -> None:
        """Scores of a window, float32 (heads, z, y, x) in stored order, all within SCORE_LIMIT."""
        from ctpipe.reduce.band_kernels import add_block, add_window  # numba

        corner = np.array([at - pad for at, pad in zip(window.start, self.plan.below, strict=True)])
        if self._low == self.plan.shape.z:
            self._low = self._low_partial = max(0, int(corner[0]))
        scores, sums = np.ascontiguousarray(scores), self._memory.sums
        if self._shares.separable:
            z, y, x = self._shares.rows(window)
            add_window(sums, scores, z * np.float32(SCALE), y, x, corner)
        else:
            add_block(sums, scores, self._shares.block(window), np.float32(SCALE), corner, self.plan.shape.z)

    def finish(self, frontier: Frontier | None = None) -> Iterator[Decided]:
        """Rows that no window to come touches (None: there is none to come), those of a plane ascending, each once."""
        rows, depth = self.plan.sizes.y, self.plan.shape.z
        plane = depth if frontier is None else min(frontier.plane, depth)
        complete = min(self._stop, self._decided(0, plane))
        for number in range(self._next, complete):
            yield self._given(number, self._row if number < self._partial else 0, rows)
        self._next = max(self._next, complete)
        if self._next >= self._partial:
            self._partial, self._row = self._next, 0
        self._clear_planes(plane)
        if frontier is not None:
            yield from self._rows_of_planes(frontier)

    def _rows_of_planes(self, frontier: Frontier) -> Iterator[Decided]:
        """Decided rows of planes that are not decided as a whole."""
        row = self._decided(1, frontier.row)
        if row <= self._row:
            return
        if self._partial == self._next:
            self._partial = min(self._stop, self._decided(0, frontier.row_plane))
        for number in range(self._next, self._partial):
            yield self._given(number, self._row, row)
        self._row = row
        self._clear_rows(frontier)

    def _decided(self, axis: int, below: int) -> int:
        """First stored voxel along an axis that needs a network voxel from `below` on."""
        return int(np.searchsorted(self._needs[axis][1], below, side="right"))

    def _first_needed(self, axis: int, voxel: int, else_: int) -> int:
        """First network voxel that stored voxels from `voxel` on need."""
        firsts = self._needs[axis][0]
        return min(else_, int(firsts[voxel])) if voxel < len(firsts) else else_

    def _clear_planes(self, below: int) -> None:
        """The slots of planes that nothing needs any more are for those to come."""
        below = self._first_needed(0, self._next, below)
        for plane in range(max(self._low, below - len(self._memory.sums)), below):
            self._memory.clear(plane, 0, self.plan.shape.y)
        if below > self._low:
            self._low, self._low_partial, self._low_row = below, below, 0

    def _clear_rows(self, frontier: Frontier) -> None:
        self._low_partial = self._first_needed(0, self._partial, min(frontier.row_plane, self.plan.shape.z))
        row = self._first_needed(1, self._row, max(0, min(frontier.row, self.plan.shape.y)))
        for plane in range(self._low, self._low_partial):
            self._memory.clear(plane, self._low_row, row)
        self._low_row = row

    def _given(self, plane: int, first: int, stop: int) -> Decided:
        return Decided(plane, first, self._labels(plane, first, stop))

    def _labels(self, plane: int, first: int, stop: int) -> NDArray[Any]:
        rows = slice(first, stop)
        if self.spec.regions:
            return self._painted(self.scores(plane, rows))
        out = np.empty((stop - first, self.plan.sizes.x), label_type(self.spec))
        if self._identity:
            from ctpipe.reduce.band_kernels import highest  # numba

            highest(self._memory.sums[self._memory.slot(plane), rows], out)
            return out
        from ctpipe.reduce.band_kernels import resampled_highest  # numba

        resampled_highest(self._memory.sums, *self._between(plane, rows), out)  # type: ignore[call-arg]
        return out

    def _painted(self, scores: NDArray[np.float32]) -> NDArray[Any]:
        out = np.zeros(scores.shape[1:], label_type(self.spec))
        half = 0.5 if self.spec.blend == "probabilities" or self.spec.softmax_inside else 0.0
        for head, label in enumerate(self.spec.regions):
            out[scores[head] > half] = label
        return out

    def scores(self, plane: int, rows: slice) -> NDArray[np.float32]:
        """Mean scores (heads, rows, x) of rows of a stored plane of the box that `finish` is about to give or has just
        given.
        """
        from ctpipe.reduce.band_kernels import resampled_scores  # numba

        out = np.empty((self.spec.outputs, rows.stop - rows.start, self.plan.sizes.x), np.float32)
        resampled_scores(self._memory.sums, *self._between(plane, rows), out)  # type: ignore[call-arg]
        out *= np.float32(1 / SCALE)
        return out

    def _between(self, plane: int, rows: slice) -> tuple[NDArray[Any], ...]:
        """Slots and parts of the planes around a stored plane, and taps along y and x."""
        z, y, x = (_linear(along) for along in self.plan.outward)
        first, parts = int(z[0][plane]), z[1][plane]
        slots = np.array([self._memory.slot(at) for at in (first, min(first + 1, self.plan.shape.z - 1))])
        return slots, parts, y[0][rows], y[1][rows], *x


def label_type(spec: SegmenterSpec) -> str:
    """The smallest type that holds all labels: "uint8", "uint16" from 256 labels on."""
    return "uint8" if len(spec.classes) < 256 else "uint16"


def _linear(along: Taps) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Taps as two neighbours each, (n,) and float32 (n, 2)."""
    parts = np.zeros((along.n_out, 2), np.float32)
    parts[:, : along.weights.shape[1]] = along.weights
    return along.first, parts


def _needed(along: Taps) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, stop) of the network voxels that each stored voxel needs, both ascending."""
    stops = np.clip(along.first + along.weights.shape[1], 1, along.n_in)
    return np.clip(along.first, 0, along.n_in - 1), stops


def band_rows(plan: SegmentPlan) -> int:
    """Rows (heads x the network grid's x) of a ScoreBand that are in memory at once, at most.

    While windows of one start along z pass by at row y: what the next start no longer touches from y on, and what is
    begun: all rows of planes that an earlier start reached, rows up to the window's end of the others.
    """
    (zs, ys, _), (depth, height, _), rows = plan.starts, plan.patch, plan.padded.y
    most = 0
    for i, z in enumerate(zs):
        stop, behind = z + depth, zs[i + 1] if i + 1 < len(zs) else z + depth
        reached = min(stop, zs[i - 1] + depth) if i else z
        for y in ys:
            old = (min(behind, reached) - z) * (rows - y) + max(0, reached - behind) * rows
            new = max(0, behind - reached) * height + (stop - max(behind, reached)) * min(rows, y + height)
            most = max(most, old + new)
    return most + 2 * rows  # neighbours that linear taps wait for
