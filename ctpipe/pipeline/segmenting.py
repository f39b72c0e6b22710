"""A segmenter over one volume: which waves of tasks it takes, and what a task of it is.

First the facts of the volume, where the model needs some (a task a slab); then one task for each span of slabs: a
stream along z that scores windows, reduces finished planes and writes each slab as its last plane is decided; then the
commit. One span is the whole volume unless workers would stand idle: windows that reach over the border of two spans
are scored in both. Sums are whole numbers, so that spans change no byte.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.cluster import tell_slab
from ctpipe.errors import BudgetError
from ctpipe.models import Segmenter, SegmentPlan
from ctpipe.models.segment_plan import Frontier
from ctpipe.pipeline.doubting import Doubts, noted
from ctpipe.pipeline.keys import segment_key
from ctpipe.pipeline.layering import SlabLayers, commit_layers, layer_writers, layers_done, layers_lease
from ctpipe.pipeline.loaded import segmenter_of
from ctpipe.pipeline.reports import Run
from ctpipe.pipeline.runs import run_of, run_record
from ctpipe.pipeline.stages import SlabCounter
from ctpipe.pipeline.waves import Wave, Work
from ctpipe.predict import (
    STEPS,
    Facts,
    PlaneSource,
    SlabFacts,
    doubts_of_scores,
    merge_facts,
    needs_facts,
    probabilities,
    score_windows,
)  # fmt: skip
from ctpipe.predict import slab_facts as facts_of
from ctpipe.reduce import Decided, ScoreBand, SpreadBand, label_type
from ctpipe.store import GroupWriter, LabelsMeta, Series, SlabRecord, Store, open_store
from ctpipe.volume import Slab
from ctpipe.words import Device, LabelKind, LayerKind

# Doubts are counted on every so many-th plane of the box: to resample the scores of a plane is dear with many classes.
DOUBT_EVERY = 4


@dataclass(frozen=True)
class FactsTask:
    """Facts of one slab."""

    store: str
    series: str
    model: str
    slab: Slab


@dataclass(frozen=True)
class SpanTask:
    """Neighbouring slabs of one run; small values only: a worker reads the store and writes the store."""

    store: str
    series: str
    model: str
    writer: GroupWriter
    slabs: tuple[Slab, ...]
    facts: Facts | None
    device: Device
    doubt: bool = False  # tell how unsure the model is
    layers: tuple[GroupWriter, ...] = ()  # of the run, to be written too


@dataclass(frozen=True)
class SpanOutcome:
    """What a span gives back. windows: scored; found: slabs that lay there whole already; clamped: as Scored has it.

    doubts: of the slabs computed, where they were asked for. layers: of each slab, a record of each layer.
    """

    records: tuple[SlabRecord, ...]
    windows: int
    found: int
    clamped: bool
    doubts: Doubts
    layers: tuple[tuple[SlabRecord, ...], ...] = ()


def volume_work(
    store: Store, series: Series, model: Segmenter, folder: Path, counter: SlabCounter, device: Device, spans: int,
    uncertainty: bool = False, layers: Sequence[LayerKind] = (),
) -> Work[Run]:  # fmt: skip
    """The run of `model`, which lies in `folder`, over one volume, in `spans` tasks where it has as many slabs.

    uncertainty: noted in the store as well. layers: written beside the labels.
    """
    run, doubts, facts = yield from _run(store, series, model, folder, counter, device, spans, uncertainty, layers)
    if not uncertainty:
        return run
    writer = store.labels_writer(series.id, labels_meta(run.run, series, model))
    if run.known and facts is None and series.id not in store.uncertainty(model.digest):
        facts = yield from _facts(store, series, model, folder, writer.slabs)

    def again(lacking: list[Slab]) -> Wave:
        tasks = [SpanTask(str(store.root), series.id, str(folder), writer, tuple(group), facts, device)
                 for group in missing_slabs(dict.fromkeys(lacking))]  # fmt: skip
        return Wave(doubt_span, tasks, [0] * len(tasks))

    try:
        return (yield from noted(store, run, model.digest, writer.slabs, doubts, again))
    except MemoryError as error:
        raise _no_memory(series) from error


def _run(
    store: Store, series: Series, model: Segmenter, folder: Path, counter: SlabCounter, device: Device, spans: int,
    uncertainty: bool, layers: Sequence[LayerKind],
) -> Work[tuple[Run, Doubts, Facts | None]]:  # fmt: skip
    began = time.monotonic()
    key = segment_key(series, model.digest, device)
    meta = labels_meta(key, series, model)
    writer, layered = store.labels_writer(series.id, meta), layer_writers(store, series, meta, model, layers)
    slabs, root, known = writer.slabs, str(store.root), writer.committed
    if known and not layered:
        counter.add(len(slabs))
        return run_of(store, series, key, len(slabs), began, None), {}, None
    with ExitStack() as held:
        lease = None if known else held.enter_context(store.lease(writer.target))
        layers_held = held.enter_context(layers_lease(store, layered))
        writer.prepare()
        facts = yield from _facts(store, series, model, folder, slabs)
        groups = spans_of(slabs, spans)
        tasks = [SpanTask(root, series.id, str(folder), writer, group, facts, device, uncertainty, layered)
                 for group in groups]  # fmt: skip
        try:
            outcomes: list[SpanOutcome] = yield Wave(predict_span, tasks, [len(group) for group in groups])
        except MemoryError as error:  # a window cannot be made smaller: its size is the model's
            raise _no_memory(series) from error
        if lease is not None:
            writer.commit([record for outcome in outcomes for record in outcome.records], lease)
        commit_layers(layered, [records for outcome in outcomes for records in outcome.layers], layers_held)
    run = run_of(store, series, key, len(slabs), began, None if known else outcomes)
    if not known:
        store.write_run(key, run_record(run, series, device, {
            "model": model.digest,
            "network": model.spec.network,
            "origin": model.spec.origin,
            "clamped": any(outcome.clamped for outcome in outcomes),
        }))  # fmt: skip
    return run, {slab: counts for outcome in outcomes for slab, counts in outcome.doubts.items()}, facts


def _facts(store: Store, series: Series, model: Segmenter, folder: Path, slabs: Sequence[Slab]) -> Work[Facts | None]:
    """The facts of the volume, where the model needs some."""
    if not needs_facts(model.spec, series.grid):
        return None
    looks = [FactsTask(str(store.root), series.id, str(folder), slab) for slab in slabs]
    parts: list[SlabFacts] = yield Wave(facts_of_slab, looks, [0] * len(looks))
    return merge_facts(parts, model.spec, series.grid)


def _no_memory(series: Series) -> BudgetError:
    return BudgetError(f"series {series.id}: out of memory; `ctpipe infer --plan` tells what a worker needs",
                       "run on fewer workers, or on machines with more memory: what is written is kept")


def labels_meta(key: str, series: Series, model: Segmenter) -> LabelsMeta:
    """What the labels of a run say of themselves."""
    return LabelsMeta(
        name=key, kind=LabelKind.PREDICTION, grid=series.grid,
        classes=dict(enumerate(model.spec.classes, start=1)), dtype=label_type(model.spec),
        provenance={"content": series.content, "model": model.digest},
    )  # fmt: skip


def spans_of(slabs: Sequence[Slab], count: int) -> list[tuple[Slab, ...]]:
    """`slabs` in `count` runs of neighbours, as even as can be; fewer where there are fewer slabs."""
    cuts = [round(i * len(slabs) / min(count, len(slabs))) for i in range(min(count, len(slabs)) + 1)]
    return [tuple(slabs[low:high]) for low, high in pairwise(cuts)]


# ---------------------------------------------------------------------------------------------- in a worker
def facts_of_slab(task: FactsTask) -> SlabFacts:
    """The facts of one slab."""
    series = open_store(task.store)[task.series]
    hu = series.read_planes(task.slab.start, task.slab.stop)
    return facts_of(hu, task.slab.start, segmenter_of(task.model).spec)


def predict_span(task: SpanTask) -> SpanOutcome:
    """Predict and write the slabs of a span that do not already lie there whole, with their layers."""
    done = {slab: task.writer.done(slab) for slab in task.slabs}
    layered = {slab: layers_done(task.layers, slab) for slab in task.slabs}
    found = sum(record is not None for record in done.values())
    windows, clamped = 0, False
    doubts: dict[int, NDArray[np.int64]] = {}
    series = open_store(task.store)[task.series]
    with SlabLayers(task.layers, segmenter_of(task.model, task.device)) as layers:
        for group in missing_slabs({slab: done[slab] if layered[slab] is not None else None for slab in task.slabs}):
            stream = _stream(task, series, layers)
            for slab, labels in stream.labels(group, series.grid.shape):
                done[slab] = done[slab] or task.writer.write_slab(slab, labels)
                layered[slab] = layers.write(slab)
                tell_slab(slab.index)
            windows, clamped = windows + stream.windows, clamped or stream.clamped
            doubts |= stream.doubts
    return SpanOutcome(tuple(record for record in done.values() if record is not None), windows, found, clamped, doubts,
                       tuple(records for records in layered.values() if records is not None))


def doubt_span(task: SpanTask) -> Doubts:
    """How unsure the model is of slabs whose labels lie there already: scored again, nothing written."""
    series = open_store(task.store)[task.series]
    stream = _stream(replace(task, doubt=True), series)
    for _ in stream.labels(task.slabs, series.grid.shape):
        pass
    return stream.doubts


def _stream(task: SpanTask, series: Series, layers: SlabLayers | None = None) -> SlabStream:
    model = segmenter_of(task.model, task.device)
    plan = SegmentPlan.of(model.spec, series.grid, task.facts.box if task.facts else None)
    return SlabStream(model, plan, series, task.facts, doubt=task.doubt,
                      layers=layers if layers is not None and layers.writers else None)  # fmt: skip


def missing_slabs(done: dict[Slab, SlabRecord | None]) -> list[list[Slab]]:
    """Runs of neighbouring slabs that have no record."""
    groups: list[list[Slab]] = []
    for slab, record in done.items():
        if record is not None:
            continue
        if groups and groups[-1][-1].index == slab.index - 1:
            groups[-1].append(slab)
        else:
            groups.append([slab])
    return groups


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
            yield from self._finished(band, spread, scored.frontier)
            band.add(scored.window, scored.scores)
            if spread is not None and scored.spread is not None:
                spread.add(scored.window, scored.spread)
            self.windows += 1
            self.clamped |= scored.clamped
            del scored  # or it lies beside the next one while that is made
        yield from self._finished(band, spread, None)

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
