"""Where the spacing of a series changes: runs of even spacing, and the planes at which one gives way to another.

::

    planes   |  |  |  |  | |     |     |     |     |
    steps     4  4  4  4  1   7     7     7     7         one change; the step of 1 belongs to neither run
             |--- run ----| |--------- run ---------|

A step change has a run of at least three planes on both sides, and their spacings differ. A wide step with the same
spacing on both sides is a gap: planes are missing, and no cut makes a whole volume of the rest. Only positions count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ctpipe.dicom.geometry import MIN_PLANES

ALIKE = 0.05  # steps, and spacings, that differ by no more than this part are one; parts are judged strictly afterwards
MAX_CHANGES = 3  # more are no protocol but disorder


@dataclass(frozen=True)
class _Run:
    """Steps first..stop-1 are alike, so planes first..stop are even; spacing in mm."""

    first: int
    stop: int
    spacing: float


def step_changes(heights: NDArray[np.float64], tolerance: float) -> list[int]:
    """The first plane of each part but the lowest; empty where the spacing does not change at a few clear places.

    heights: (n,) mm, ascending. tolerance: mm by which a position may be off. A plane that is even with both its
    neighbours' runs goes with the finer one, so every plane is in exactly one part whichever way the normal points.
    """
    runs = _runs(np.diff(heights), tolerance)
    solid = [run for number, run in enumerate(runs) if _own_planes(runs, number) >= MIN_PLANES]
    cuts = []
    for low, high in pairwise(solid):
        if not _differ(low, high):
            continue
        if high.first - low.stop > 1:  # planes between them are of neither spacing
            return []
        shared = high.first == low.stop
        cuts.append(low.stop if shared and low.spacing > high.spacing else low.stop + 1)
    return cuts if len(cuts) <= MAX_CHANGES else []


def _runs(steps: NDArray[np.float64], tolerance: float) -> list[_Run]:
    runs, first = [], 0
    for at in range(1, len(steps) + 1):
        # two steps of one spacing may each be off by the tolerance
        if at == len(steps) or abs(steps[at] - steps[first]) > max(ALIKE * steps[first], 2 * tolerance):
            runs.append(_Run(first, at, float(np.median(steps[first:at]))))
            first = at
    return runs


def _own_planes(runs: list[_Run], number: int) -> int:
    """Planes of a run that it does not lose to a finer run beside it."""
    run = runs[number]
    beside = runs[max(0, number - 1) : number] + runs[number + 1 : number + 2]
    lost = sum(
        other.stop - other.first >= MIN_PLANES - 1 and other.spacing < run.spacing and _differ(other, run)
        for other in beside
    )
    return run.stop - run.first + 1 - lost


def _differ(a: _Run, b: _Run) -> bool:
    return max(a.spacing, b.spacing) > (1 + ALIKE) * min(a.spacing, b.spacing)
