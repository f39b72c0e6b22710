"""A segmenter over some slabs of one volume: windows are scored and reduced plane by plane as one stream along z."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.models import Segmenter, SegmentPlan
from ctpipe.predict import Facts, PlaneSource, block_planes, score_windows
from ctpipe.reduce import ScoreBand, label_type
from ctpipe.volume import Slab


def label_slabs(
    model: Segmenter, plan: SegmentPlan, source: PlaneSource, facts: Facts | None, slabs: Sequence[Slab],
    shape: Sequence[int],
) -> Iterator[tuple[Slab, NDArray[Any]]]:
    """Labels (planes, y, x) of neighbouring slabs, ascending, each as soon as its last plane is decided.

    shape: of the volume. Memory: a band of scores as deep as a window, whatever the number of slabs. The labels of a
    slab do not depend on which others are asked for with it.
    """
    (z0, z1), (y0, y1), (x0, x1) = plan.box
    first, stop = max(z0, slabs[0].start) - z0, min(z1, slabs[-1].stop) - z0
    planes = _planes(model, plan, source, facts, first, stop) if first < stop else iter(())
    for slab in slabs:
        labels = np.zeros((slab.planes, *shape[1:]), label_type(model.spec))
        for z in range(max(slab.start, z0), min(slab.stop, z1)):
            number, found = next(planes)
            assert number == z - z0  # planes come in order, each once
            labels[z - slab.start, y0:y1, x0:x1] = found
        yield slab, labels


def _planes(
    model: Segmenter, plan: SegmentPlan, source: PlaneSource, facts: Facts | None, first: int, stop: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    """(box plane, labels (y, x) of the box) of box planes first..stop-1, ascending."""
    low, high = plan.planes_for(first, stop)
    band = ScoreBand(model.spec, plan, first, stop, block_planes(plan, model.spec.micro_batch))
    for scored in score_windows(model, plan, source, facts, low, high):
        yield from band.finish(scored.done)
        band.add(scored.window, scored.scores)
    yield from band.finish(high)
