"""A model on a part of a volume, for someone who is looking at it: the labels that `infer` would give there.

The same functions as in a run, on the planes of the part only, in this process. What a run needs of the whole volume
is got first and kept: the run of the model before (committed as a run of its own), the organ's median, a segmenter's
facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe import reduce
from ctpipe.errors import RunError, UsageError
from ctpipe.models import Model, Segmenter, SegmentPlan, load_model
from ctpipe.patches import PlaneReader
from ctpipe.pipeline import organ
from ctpipe.pipeline.centres import centres_for, input_level
from ctpipe.pipeline.classifying import as_continued, volume_work
from ctpipe.pipeline.keys import run_key, segment_key
from ctpipe.pipeline.predicting import keep_model
from ctpipe.pipeline.slab_stream import SlabStream
from ctpipe.pipeline.stages import SlabCounter, store_for_writing
from ctpipe.pipeline.waves import Volume, run_volumes
from ctpipe.predict import Facts, merge_facts, needs_facts, score_centres, slab_facts
from ctpipe.reduce import label_type
from ctpipe.store import Labels, Series, Store
from ctpipe.volume import Slab, slabs_of
from ctpipe.words import Device

# Planes that are labelled at a time: between two parts the work can be given up.
PART = 8

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class RegionLabels:
    """labels: (z, y, x) uint8 or uint16 of `box`, slices of level 0. run: key that a full run of the model has."""

    labels: NDArray[Any]
    box: Box
    classes: dict[int, str]
    run: str
    model: str


class RegionModel:
    """A model and a volume of a store: labels of any box of it, equal voxel by voxel to those of a run.

    store: folder. series: id or unambiguous prefix. model: a folder, or what `load_model` gave. Where the model has one
    that runs before it, the first call makes and commits that run over the whole volume, unless it is there.
    """

    def __init__(self, store: str | Path | Store, series: str, model: str | Path | Model | Segmenter) -> None:
        self.store = store if isinstance(store, Store) else store_for_writing(store)
        self.series: Series = self.store[series]
        self._given: Model | Segmenter = model if isinstance(model, Model | Segmenter) else load_model(model)

    @property
    def classes(self) -> dict[int, str]:
        """{label: name}, as a run of the model has them."""
        return dict(enumerate(self._given.spec.classes, start=1))

    @cached_property
    def model(self) -> Model | Segmenter:
        """The model with the sizes that a run over this volume would have."""
        if isinstance(self._given, Segmenter):
            return self._given
        return as_continued(self.store, self.series, self._given, Device.CPU, self._before_name)

    @property
    def run(self) -> str:
        """Key of a full run of this model over this volume."""
        if isinstance(self.model, Segmenter):
            return segment_key(self.series, self.model.digest, Device.CPU)
        return run_key(self.series, self.model, Device.CPU, self._before_name)

    def labels(self, box: Box) -> RegionLabels:
        """Labels of `box` (slices of level 0 with start and stop). UsageError for an empty box or one outside."""
        *_, (_, _, last) = self.parts(box)
        return last

    def parts(self, box: Box) -> Iterator[tuple[int, int, RegionLabels]]:
        """(planes done, planes in all, labels so far) after each few planes; the last one is whole."""
        z, y, x = self._checked(box)
        out = RegionLabels(np.zeros((z.stop - z.start, y.stop - y.start, x.stop - x.start), self._dtype), (z, y, x),
                           self.classes, self.run, self.model.digest)  # fmt: skip
        cuts = list(range(z.start, z.stop, PART))
        slabs = [Slab(number, first, min(first + PART, z.stop)) for number, first in enumerate(cuts)]
        for slab, labels in self._slabs(slabs):
            out.labels[slab.start - z.start : slab.stop - z.start] = labels[:, y, x]
            yield slab.stop - z.start, len(out.labels), out

    def _slabs(self, slabs: list[Slab]) -> Iterator[tuple[Slab, NDArray[Any]]]:
        """Labels (planes, y, x) of whole planes."""
        model, series = self.model, self.series
        if isinstance(model, Segmenter):
            plan = SegmentPlan.of(model.spec, series.grid, self._facts.box if self._facts else None)
            yield from SlabStream(model, plan, series, self._facts).labels(slabs, series.grid.shape)
            return
        factors = input_level(series, model).factors
        for slab in slabs:
            first, stop = slab.start // factors.z, -(-slab.stop // factors.z)
            skipped = slab.start - first * factors.z
            coarse = self._level_labels(model, first, stop)
            yield slab, reduce.refine(coarse, factors, (skipped + slab.planes, *series.grid.shape[1:]))[skipped:]

    def _level_labels(self, model: Model, start: int, stop: int) -> NDArray[np.uint8]:
        """Labels of planes start..stop-1 of the input level.

        Whole planes: which code scores a plane follows from all its centres, so that it has the labels of a run.
        """
        recipe = model.recipe
        reader = PlaneReader(self.series, recipe.input, self._reference)
        planes, mask = centres_for(model, self.series, self._before_name, start, stop)
        scores = score_centres(model, reader, planes, mask)
        return reduce.label_planes(scores, planes, recipe.predict.stride, recipe.predict.fill, start, stop,
                                   reader.grid.shape)  # fmt: skip

    @property
    def _dtype(self) -> str:
        return label_type(self.model.spec) if isinstance(self.model, Segmenter) else "uint8"

    @cached_property
    def _facts(self) -> Facts | None:
        assert isinstance(self.model, Segmenter)
        if not needs_facts(self.model.spec, self.series.grid):
            return None
        parts = [slab_facts(self.series.read_planes(slab.start, slab.stop), slab.start, self.model.spec)
                 for slab in slabs_of(self.series.grid.shape.z)]  # fmt: skip
        return merge_facts(parts, self.model.spec, self.series.grid)

    @property
    def _before_name(self) -> str | None:
        return self._before.name if self._before else None

    @cached_property
    def _before(self) -> Labels | None:
        """The run of the model before, committed; made here where it is not there yet."""
        if not isinstance(self._given, Model) or self._given.before is None:
            return None
        earlier, folder = self._given.before, keep_model(self.store, self._given) / "before"
        counter = SlabCounter("infer", None, 0)
        work = Volume(self.series.id, lambda: volume_work(self.store, self.series, earlier, folder, counter,
                                                          Device.CPU))  # fmt: skip
        done, failed = run_volumes(None, [work], counter, Device.CPU)
        if failed:
            raise RunError(f"the model that runs before failed: {failed[self.series.id]}", "see ctpipe infer")
        return self.series.labels[done[self.series.id].run]

    @cached_property
    def _reference(self) -> float | None:
        assert isinstance(self.model, Model)
        relative_to = self.model.recipe.input.relative_to
        if self._before is None or not relative_to:
            return None
        return organ.median_hu(str(self.store.root), self.series, self._before, [relative_to])

    def _checked(self, box: Box) -> Box:
        for side, length in zip(box, self.series.grid.shape, strict=True):
            if side.step not in (None, 1) or not 0 <= side.start < side.stop <= length:
                raise UsageError(f"the region {_text(box)} is empty or leaves the volume",
                                 f"give slices within {' x '.join(map(str, self.series.grid.shape))}")
        return box


def _text(box: Box) -> str:
    return " ".join(f"{side.start}:{side.stop}" for side in box)
