"""One step over one volume, slab by slab: look (where components are needed), decide, apply.

::

    look    every slab, any order, any worker  ->  a few numbers a component
    decide  once, from all of them             ->  a table a slab: component within the slab -> does the step hit it
    apply   every slab, any order, any worker  ->  new labels of the slab

A step without components needs no looking. The result equals the step done on the whole volume at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.postprocess import local, mean_field
from ctpipe.postprocess.bands import Band, Metric
from ctpipe.postprocess.components import Mask, label_mask
from ctpipe.postprocess.joining import SlabComponents, join, slab_components
from ctpipe.postprocess.steps import Crf, Fill, Inside, Largest, MinVolume, Near, Smooth, Step, labels_of
from ctpipe.volume import Grid

_FACES, _CORNERS = 6, 26


@dataclass(frozen=True)
class BoundStep:
    """A step on the labels of one volume. values, organ: labels of the classes that it names."""

    step: Step
    values: tuple[int, ...]
    organ: tuple[int, ...]
    metric: Metric

    @property
    def looks(self) -> bool:
        """Whether the slabs must be looked at before the step can be applied."""
        return not isinstance(self.step, Smooth | Crf)

    @property
    def reads_hu(self) -> bool:
        return isinstance(self.step, Crf)

    @property
    def look_halo(self) -> int:
        """Planes to read on both sides of a slab for `look`."""
        return max(1, self.metric.reach(self.step.mm)[0]) if isinstance(self.step, Near) else 1

    @property
    def apply_halo(self) -> int:
        """The same for `apply`."""
        if isinstance(self.step, Inside):
            return max(1, self.metric.reach(self.step.mm)[0])
        if isinstance(self.step, Smooth):
            return self.metric.reach(self.step.mm)[0]
        if isinstance(self.step, Crf):
            return mean_field.halo()[0]
        return 1


def bind(step: Step, classes: Mapping[int, str], grid: Grid) -> BoundStep:
    """The step on labels with these classes; NotThereError where it names one that they do not have."""
    organ = step.organ if isinstance(step, Inside | Near) else ()
    return BoundStep(step, labels_of(step, step.classes, classes), labels_of(step, organ, classes), Metric.of(grid))


def look(bound: BoundStep, band: Band) -> SlabComponents:
    """What one slab tells about its components."""
    marks = None
    if isinstance(bound.step, Near):
        asked = np.isin(band.slab, bound.values)
        marks = local.near(band, asked, bound.organ, bound.step.mm, bound.metric)
    mask, connectivity = _mask(bound, band)
    return slab_components(mask, band.own, band.start, band.depth, connectivity, marks)[0]


def decide(bound: BoundStep, slabs: Sequence[SlabComponents]) -> list[NDArray[np.bool_]]:
    """For each slab which of its components the step hits: those that go, or those that are holes."""
    found, step = join(slabs), bound.step
    if isinstance(step, Largest):
        hit = np.ones(len(found.sizes), bool)
        if len(hit):
            hit[np.lexsort((found.first, -found.sizes))[0]] = False
    elif isinstance(step, MinVolume):
        hit = found.sizes < math.ceil(step.mm3 / bound.metric.voxel_mm3 - 1e-9)
    elif isinstance(step, Near):
        hit = ~found.marked
    else:
        hit = ~found.border
    return found.spread(hit)


def apply(bound: BoundStep, band: Band, hit: NDArray[np.bool_] | None = None,
          hu: NDArray | None = None) -> NDArray:
    """New labels (own planes, y, x) of one slab. hit: its table of `decide`; hu: HU of the band's planes."""
    step = bound.step
    if isinstance(step, Smooth):
        return local.majority(band, bound.values, step.mm, bound.metric)
    if isinstance(step, Crf):
        if hu is None:
            raise UsageError("the CRF needs the HU of the band", "read them where BoundStep.reads_hu")
        return mean_field.refine(band, hu, bound.values, step.mm, step.hu, bound.metric)
    if hit is None:
        raise UsageError(f"step {step.name} needs what `decide` found", "look at all slabs first")
    mask, connectivity = _mask(bound, band)
    struck = hit[label_mask(mask, connectivity)[0][: band.own]]
    out = band.slab.copy()
    if isinstance(step, Fill):
        out[struck & (out == 0)] = bound.values[0]
    elif isinstance(step, Inside):
        asked = np.isin(out, bound.values) & ~struck
        out[asked & ~local.near(band, asked, bound.organ, step.mm, bound.metric)] = 0
    else:
        out[struck] = 0
    return out


def _mask(bound: BoundStep, band: Band) -> tuple[Mask, int]:
    """The mask whose components count, (own planes and the next one, y, x), and its neighbourhood."""
    if isinstance(bound.step, Fill):
        return ~np.isin(band.with_next, bound.values), _FACES
    if isinstance(bound.step, Inside):
        return ~np.isin(band.with_next, bound.organ), _FACES
    return np.isin(band.with_next, bound.values), _CORNERS
