"""SpreadBand: how far folds differ, from windows to stored planes, as a band of one head beside that of the scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctpipe.models.segment_plan import Frontier, SegmentPlan, Window
from ctpipe.models.segment_spec import SegmenterSpec
from ctpipe.reduce.band import ScoreBand


class SpreadBand:
    """Mean variance over folds at the stored planes, from the windows' variances; whole sums, as those of scores.

    `add` and `finish` go with those of the ScoreBand of the same windows.
    """

    def __init__(self, spec: SegmenterSpec, plan: SegmentPlan, first: int, stop: int) -> None:
        one = replace(spec, outputs=1, classes=("spread",), regions=(1,))
        self._band = ScoreBand(one, plan, first, stop)

    def add(self, window: Window, spread: NDArray[np.float32]) -> None:
        """Variance of a window, float32 (z, y, x) in stored order."""
        self._band.add(window, spread[None])

    def finish(self, frontier: Frontier | None) -> Iterator[NDArray[np.float32]]:
        """Variances (rows, x) of what ScoreBand.finish gives for the same frontier, in the same order."""
        for decided in self._band.finish(frontier):
            yield self._band.scores(decided.plane, decided.rows)[0]
