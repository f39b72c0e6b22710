"""Scores of a segmenter's windows, in the order of their planes: each window is cut, scored and given away once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError
from ctpipe.models import give_back_large_blocks
from ctpipe.models.segment_plan import Frontier, SegmentPlan, Window
from ctpipe.models.segmenter import Scored, Segmenter
from ctpipe.predict.ahead import ahead
from ctpipe.predict.facts import Facts
from ctpipe.predict.network_planes import NetworkPlanes, PlaneSource

# Windows that begin on so many micro-batches' worth of planes form a group, so that few batches are padded.
BATCHES_A_GROUP = 4


@dataclass(frozen=True, eq=False)
class WindowScores:
    """Scores of one window, (heads, z, y, x) in stored order; spread: variance over folds (z, y, x), None for one.
    clamped: as Scored has it.

    frontier: what no window that follows touches; None: none follows.
    """

    window: Window
    scores: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    clamped: bool
    frontier: Frontier | None


def score_windows(model: Segmenter, plan: SegmentPlan, source: PlaneSource, facts: Facts | None, first: int,
                  stop: int, wanted: Callable[[Window], bool] | None = None) -> Iterator[WindowScores]:
    """Scores of all windows that touch network planes first..stop-1, ordered along z; of those that are `wanted`.

    Reading and resampling run ahead in a thread of their own, and so do the forward passes. Scores depend on the
    model and the volume alone, not on first and stop.
    """
    windows = [window for window in plan.windows(first, stop) if wanted is None or wanted(window)]
    if not windows:
        return
    give_back_large_blocks()
    bottom = windows[0].start.z - plan.below.z
    low = max(0, bottom)
    high = min(plan.shape.z, windows[-1].start.z - plan.below.z + plan.patch.z)
    with ahead(NetworkPlanes(source, model.spec, plan, facts).produce(low, high)) as bands:
        with ahead(_scored(model, plan, windows, _PlaneBuffer(plan, bands, bottom, model.spec.micro_batch))) as found:
            yield from found


def block_planes(plan: SegmentPlan, micro_batch: int) -> int:
    """Planes from the first to the last that windows of one group touch, at most."""
    groups = _groups(plan.windows(0, plan.shape.z), micro_batch)
    return max(group[-1].start.z - group[0].start.z for group in groups) + plan.patch.z


def _scored(
    model: Segmenter, plan: SegmentPlan, windows: list[Window], buffer: _PlaneBuffer
) -> Iterator[WindowScores]:
    size, frontiers = model.spec.micro_batch, iter(plan.frontiers(windows))
    for group in _groups(windows, size):
        first = group[0].start.z - plan.below.z
        buffer.move(first, group[-1].start.z - plan.below.z + plan.patch.z)
        for at in range(0, len(group), size):
            some = group[at : at + size]
            found = _scores(model, plan, some, np.stack([buffer.cut(window) for window in some]))
            for i, window in enumerate(some):
                there = plan.frame.to_stored(found.scores[i])
                varied = None if found.spread is None else plan.frame.to_stored(found.spread[i][None])[0]
                yield WindowScores(window, there, varied, found.clamped, next(frontiers))
            del found, there, varied  # whoever took them is done with them long before the next pass is


def _scores(model: Segmenter, plan: SegmentPlan, windows: list[Window], batch: NDArray[np.float32]) -> Scored:
    try:
        return model.scores(batch)
    except RunError as error:
        first, last = (_where(window, plan) for window in (windows[0], windows[-1]))
        where = first if len(windows) == 1 else f"{first} to {last}"
        raise RunError(f"{error.problem}, in the window at {where}", error.cure) from error


def _where(window: Window, plan: SegmentPlan) -> str:
    z, y, x = (at - pad for at, pad in zip(window.start, plan.below, strict=True))
    return f"z {z}, y {y}, x {x} of the network's grid"


class _PlaneBuffer:
    """The padded network planes that the windows of one group touch; each plane is put there once."""

    def __init__(self, plan: SegmentPlan, bands: Iterator[NDArray[np.float32]], first: int, micro_batch: int) -> None:
        """bands: network planes from `first` on, or from 0 where that lies in the padding before them."""
        self.plan, self._bands = plan, bands
        self._rows = np.zeros((block_planes(plan, micro_batch), plan.padded.y, plan.padded.x), np.float32)
        self._first, self._next = first, max(0, first)  # plane of row 0; the first plane that is not in the buffer
        self._band = np.zeros((0, 0, 0), np.float32)  # planes that came and have no row yet, the first of them _next

    def move(self, first: int, stop: int) -> None:
        """Hold planes first..stop-1; `first` never goes back.

        Planes beyond the volume are zeros: there are some only where it is thinner than a window, which has one start.
        """
        gone = min(first - self._first, len(self._rows))
        for row in range(len(self._rows) - gone):  # plane by plane: no second buffer
            self._rows[row] = self._rows[row + gone]
        self._first = first
        (_, y, x), (depth, height, width) = self.plan.below, self.plan.shape
        while self._next < min(stop, depth):
            if not len(self._band):
                self._band = next(self._bands)
            n = min(len(self._band), stop - self._next)
            row = self._next - first
            self._rows[row : row + n, y : y + height, x : x + width] = self._band[:n]
            self._band, self._next = self._band[n:], self._next + n

    def cut(self, window: Window) -> NDArray[np.float32]:
        """A window's voxels along the network's axes."""
        (z, y, x), (depth, height, width) = window.start, self.plan.patch
        row = z - self.plan.below.z - self._first
        return self.plan.frame.to_network(self._rows[row : row + depth, y : y + height, x : x + width])


def _groups(windows: list[Window], micro_batch: int) -> Iterator[list[Window]]:
    """Windows of as many neighbouring starts along z as fill BATCHES_A_GROUP micro-batches of more than one window."""
    least = 1 if micro_batch == 1 else BATCHES_A_GROUP * micro_batch
    group: list[Window] = []
    for _, some in groupby(windows, key=lambda window: window.start.z):
        group += some
        if len(group) >= least:
            yield group
            group = []
    if group:
        yield group
