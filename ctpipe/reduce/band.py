"""ScoreBand: scores of overlapping windows become labels plane by plane; never class x volume.

::

    network planes   0 …… done ……………………………… done + patch
                     gone  |  weighted sums of scores     |  not begun
                           ^ finished planes leave at once: resampled to the stored grid, highest class

Each window's scores are multiplied by its share of the voxel (WindowShares: they sum to 1) and added as whole
numbers of 1 / SCALE, so that no order of windows, tasks or workers changes a bit. With the sum of shares 1 and scores
within SCORE_LIMIT an int32 cannot overflow. Equal sums go to the lower class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.models.segment_plan import SegmentPlan, Window
from ctpipe.models.segment_spec import SegmenterSpec
from ctpipe.models.shares import WindowShares
from ctpipe.volume.taps import Taps

# Sums are kept in units of 1 / SCALE: 2 ** 23 of them times SCORE_LIMIT leave an int32 half empty.
SCALE = 1 << 23


class ScoreBand:
    """Sums of the scores of one volume's windows for the planes that a later window can still touch.

    Windows come ordered along z (`add`); `finish` gives the stored planes whose scores are complete. memory: slots x
    heads x plane of the network grid x 4 bytes.
    """

    def __init__(self, spec: SegmenterSpec, plan: SegmentPlan, first: int, stop: int, block_planes: int) -> None:
        """For stored planes first..stop-1 of the plan's box. block_planes: from the first to the last plane that
        the windows of one group touch.
        """
        self.spec, self.plan = spec, plan
        self._next, self._stop = first, stop
        self._band = np.zeros((block_planes + 1, spec.outputs, plan.shape.y, plan.shape.x), np.int32)
        self._low = 0  # planes below are zero in the band
        self._shares = WindowShares(spec, plan)
        self._identity = all(along.identity for along in plan.outward)

    def add(self, window: Window, scores: NDArray[np.float32]) -> None:
        """Scores of a window, float32 (heads, z, y, x) in stored order, all within SCORE_LIMIT."""
        from ctpipe.reduce.band_kernels import add_block, add_window  # numba

        corner = np.array([at - pad for at, pad in zip(window.start, self.plan.below, strict=True)])
        scores = np.ascontiguousarray(scores)
        if self._shares.separable:
            z, y, x = self._shares.rows(window)
            add_window(self._band, scores, z * np.float32(SCALE), y, x, corner)
        else:
            add_block(self._band, scores, self._shares.block(window), np.float32(SCALE), corner, self.plan.shape.z)

    def finish(self, done: int) -> Iterator[tuple[int, NDArray[np.uint8 | np.uint16]]]:
        """(plane, labels (y, x) of the box) of stored planes decided by network planes below `done`, ascending."""
        along = self.plan.outward[0]
        done = min(done, self.plan.shape.z)
        while self._next < self._stop and along.reach(self._next, self._next + 1)[1] <= done:
            yield self._next, self._labels(self._next)
            self._next += 1
        needed = along.reach(self._next, self._next + 1)[0] if self._next < along.n_out else done
        self._let_go(min(done, needed))

    def _let_go(self, below: int) -> None:
        """Zero the planes below `below`: the slots are for those to come."""
        first = max(self._low, below - len(self._band))
        for plane in range(first, below):
            self._band[plane % len(self._band)] = 0
        self._low = max(self._low, below)

    def _labels(self, plane: int) -> NDArray[Any]:
        if self.spec.regions:
            return self._painted(self.scores(plane))
        out = np.empty(self.plan.sizes[1:], label_type(self.spec))
        if self._identity:
            from ctpipe.reduce.band_kernels import highest  # numba

            highest(self._band[plane % len(self._band)], out)
            return out
        from ctpipe.reduce.band_kernels import resampled_highest  # numba

        slots, parts, *taps = self._between(plane)
        resampled_highest(self._band, slots, parts, *taps, out)  # type: ignore[call-arg]
        return out

    def _painted(self, scores: NDArray[np.float32]) -> NDArray[Any]:
        out = np.zeros(self.plan.sizes[1:], label_type(self.spec))
        half = 0.5 if self.spec.blend == "probabilities" or self.spec.softmax_inside else 0.0
        for head, label in enumerate(self.spec.regions):
            out[scores[head] > half] = label
        return out

    def scores(self, plane: int) -> NDArray[np.float32]:
        """Mean scores (heads, y, x) of a stored plane of the box that `finish` is about to give or has just given."""
        from ctpipe.reduce.band_kernels import resampled_scores  # numba

        out = np.empty((self._band.shape[1], *self.plan.sizes[1:]), np.float32)
        resampled_scores(self._band, *self._between(plane), out)  # type: ignore[call-arg]
        out *= np.float32(1 / SCALE)
        return out

    def _between(self, plane: int) -> tuple[NDArray[Any], ...]:
        """Slots and parts of the planes around a stored plane, and taps along y and x."""
        z, y, x = (_linear(along) for along in self.plan.outward)
        first, parts = int(z[0][plane]), z[1][plane]
        slots = np.array([first, min(first + 1, self.plan.shape.z - 1)]) % len(self._band)
        return slots, parts, *y, *x


def label_type(spec: SegmenterSpec) -> str:
    """The smallest type that holds all labels: "uint8", "uint16" from 256 labels on."""
    return "uint8" if len(spec.classes) < 256 else "uint16"


def _linear(along: Taps) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Taps as two neighbours each, (n,) and float32 (n, 2)."""
    parts = np.zeros((along.n_out, 2), np.float32)
    parts[:, : along.weights.shape[1]] = along.weights
    return along.first, parts

