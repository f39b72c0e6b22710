"""A segmenter's labels of neighbouring slabs, as one stream along z: score windows, reduce finished planes.

A slab is given as soon as its last plane is decided; what is in memory is the band of planes that windows still reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.models import Segmenter, SegmentPlan
from ctpipe.models.segment_plan import Frontier
from ctpipe.pipeline.layering import SlabLayers
from ctpipe.predict import STEPS, Facts, PlaneSource, doubts_of_scores, probabilities, score_windows
from ctpipe.reduce import Decided, ScoreBand, SpreadBand, label_type
from ctpipe.volume import Slab

# Doubts are counted on every so many-th plane of the box: to resample the scores of a plane is dear with many classes.
DOUBT_EVERY = 4


class SlabStream:
    """Labels of neighbouring slabs of one volume, as one stream along z.

    windows: scored so far; clamped: whether a score was beyond SCORE_LIMIT; doubts: by slab, with `doubt`. layers: get
    the rows of each slab before it is given. Memory: a ScoreBand, and labels of the slabs that it reaches, whatever
    the number of slabs.
    """

    def __init__(self, model: Segmenter, plan: SegmentPlan, source: PlaneSource, facts: Facts | None, *,
                 doubt: bool = False, layers: SlabLayers | None = None) -> None:
        self.layers = layers
        self.model, self.plan, self.source, self.facts, self.doubt = model, plan, source, facts, doubt
        self.windows, self.clamped = 0, False
        self.doubts: dict[int, NDArray[np.int64]] = {}

    def labels(self, slabs: Sequence[Slab], shape: Sequence[int]) -> Iterator[tuple[Slab, NDArray[Any]]]:
        """(slab, labels (planes, y, x)) ascending, each as soon as its last plane is decided; shape: of the volume.

        The labels of a slab do not depend on which others are asked for with it.
        """
        (z0, z1), (y0, y1), (x0, x1) = self.plan.box
        first, stop = max(z0, slabs[0].start) - z0, min(z1, slabs[-1].stop) - z0
        parts = self._parts(first, stop) if first < stop else iter(())
        begun: dict[int, NDArray[Any]] = {}  # slabs of which some rows came, by number
        slab_of = {z: slab for slab in slabs for z in range(slab.start, slab.stop)}

        def labels_of(slab: Slab) -> NDArray[Any]:
            if slab.index not in begun:
                begun[slab.index] = np.zeros((slab.planes, *shape[1:]), label_type(self.model.spec))
                if self.layers is not None:
                    self.layers.begin(slab)
                if self.doubt:
                    self.doubts[slab.index] = np.zeros(STEPS, np.int64)
            return begun[slab.index]

        last = first + z0 - 1  # planes up to it are whole
        for slab in slabs:
            while last < min(slab.stop, z1) - 1:
                part = next(parts)
                decided, z = part.decided, part.decided.plane + z0
                slab_here = slab_of[z]
                labels_of(slab_here)[z - slab_here.start, y0:y1, x0:x1][decided.rows] = decided.labels
                if part.doubts is not None:
                    self.doubts[slab_here.index] += part.doubts
                if self.layers is not None:
                    rows = slice(y0 + decided.rows.start, y0 + decided.rows.stop)
                    self.layers.put_made(slab_here, z, z + 1, part.layers, (rows, slice(x0, x1)))
                if decided.rows.stop == y1 - y0:
                    assert z == last + 1  # planes end in order, each once
                    last = z
            labels = labels_of(slab)
            del begun[slab.index]
            yield slab, labels

    def _parts(self, first: int, stop: int) -> Iterator[_Part]:
        """Rows of box planes first..stop-1 as they are decided."""
        spec, plan = self.model.spec, self.plan
        band = ScoreBand(spec, plan, first, stop)
        spread = SpreadBand(spec, plan, first, stop) if self.layers is not None and self.layers.spread else None
        for scored in score_windows(self.model, plan, self.source, self.facts, *plan.planes_for(first, stop)):
            band.add(scored.window, scored.scores)
            if spread is not None and scored.spread is not None:
                spread.add(scored.window, scored.spread)
            self.windows += 1
            self.clamped |= scored.clamped
            frontier = scored.frontier
            del scored  # or it lies beside the next one while that is made
            yield from self._finished(band, spread, frontier)

    def _finished(self, band: ScoreBand, spread: SpreadBand | None, frontier: Frontier | None) -> Iterator[_Part]:
        spec = self.model.spec
        varied = iter(()) if spread is None else spread.finish(frontier)
        for decided in band.finish(frontier):
            variance, doubts = next(varied, None), None
            if self.doubt and decided.plane % DOUBT_EVERY == 0:
                doubts = doubts_of_scores(band.scores(decided.plane, decided.rows), spec)
            layers = []
            if self.layers is not None:
                likely = probabilities(band.scores(decided.plane, decided.rows), spec)
                layers = self.layers.planes(likely, variance)
            yield _Part(decided, doubts, layers)
        next(varied, None)  # to its end: what is finished leaves


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows of a plane that are decided, their doubts where they are counted, and those of each layer."""

    decided: Decided
    doubts: NDArray[np.int64] | None
    layers: list[NDArray[np.uint8]]
