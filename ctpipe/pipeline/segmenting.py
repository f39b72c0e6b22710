"""A segmenter over one volume: which waves of tasks it takes, and what a task of it is.

First the facts of the volume, where the model needs some (a task a slab); then one task for each span of slabs: a
stream along z that scores windows, reduces finished planes and writes each slab as its last plane is decided; then the
commit. One span is the whole volume unless workers would stand idle: windows that reach over the border of two spans
are scored in both. Sums are whole numbers, so that spans change no byte.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.cluster import tell_slab
from ctpipe.errors import BudgetError
from ctpipe.models import Segmenter, SegmentPlan
from ctpipe.pipeline.doubting import Doubts, noted
from ctpipe.pipeline.keys import segment_key
from ctpipe.pipeline.loaded import segmenter_of
from ctpipe.pipeline.reports import Run
from ctpipe.pipeline.runs import run_record, windows_of
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
    score_windows,
)  # fmt: skip
from ctpipe.predict import slab_facts as facts_of
from ctpipe.reduce import Decided, ScoreBand, label_type
from ctpipe.store import GroupWriter, LabelsMeta, Series, SlabRecord, Store, open_store
from ctpipe.volume import Slab
from ctpipe.words import Device, LabelKind

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


@dataclass(frozen=True)
class SpanOutcome:
    """What a span gives back. windows: scored; found: slabs that lay there whole already; clamped: as Scored has it.

    doubts: of the slabs computed, where they were asked for.
    """

    records: tuple[SlabRecord, ...]
    windows: int
    found: int
    clamped: bool
    doubts: Doubts


def volume_work(
    store: Store, series: Series, model: Segmenter, folder: Path, counter: SlabCounter, device: Device, spans: int,
    uncertainty: bool = False,
) -> Work[Run]:  # fmt: skip
    """The run of `model`, which lies in `folder`, over one volume, in `spans` tasks where it has as many slabs.

    uncertainty: noted in the store as well.
    """
    run, doubts, facts = yield from _run(store, series, model, folder, counter, device, spans, uncertainty)
    if not uncertainty:
        return run
    writer = store.labels_writer(series.id, labels_meta(run.run, series, model))
    if run.known and series.id not in store.uncertainty(model.digest):
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
    uncertainty: bool,
) -> Work[tuple[Run, Doubts, Facts | None]]:  # fmt: skip
    began = time.monotonic()
    key = segment_key(series, model.digest, device)
    writer = store.labels_writer(series.id, labels_meta(key, series, model))
    slabs, root = writer.slabs, str(store.root)
    if writer.committed:
        counter.add(len(slabs))
        known = Run(series.id, key, windows_of(store, key), time.monotonic() - began, len(slabs), 0, known=True)
        return known, {}, None
    with store.lease(writer.target) as lease:
        writer.prepare()
        facts = yield from _facts(store, series, model, folder, slabs)
        groups = spans_of(slabs, spans)
        tasks = [SpanTask(root, series.id, str(folder), writer, group, facts, device, uncertainty) for group in groups]
        try:
            outcomes: list[SpanOutcome] = yield Wave(predict_span, tasks, [len(group) for group in groups])
        except MemoryError as error:  # a window cannot be made smaller: its size is the model's
            raise _no_memory(series) from error
        writer.commit([record for outcome in outcomes for record in outcome.records], lease)
    run = Run(series.id, key, sum(outcome.windows for outcome in outcomes), time.monotonic() - began, len(slabs),
              sum(outcome.found for outcome in outcomes))  # fmt: skip
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


def spans_for(workers: int, volumes: int) -> int:
    """Spans of each volume, so that no worker stands idle."""
    return -(-workers // max(1, volumes))


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
    """Predict and write the slabs of a span that do not already lie there whole."""
    done = {slab: task.writer.done(slab) for slab in task.slabs}
    found = sum(record is not None for record in done.values())
    windows, clamped = 0, False
    doubts: dict[int, NDArray[np.int64]] = {}
    series = open_store(task.store)[task.series]
    for group in missing_slabs(done):
        stream = _stream(task, series)
        for slab, labels in stream.labels(group, series.grid.shape):
            done[slab] = task.writer.write_slab(slab, labels)
            tell_slab(slab.index)
        windows, clamped = windows + stream.windows, clamped or stream.clamped
        doubts |= stream.doubts
    return SpanOutcome(tuple(record for record in done.values() if record is not None), windows, found, clamped, doubts)


def doubt_span(task: SpanTask) -> Doubts:
    """How unsure the model is of slabs whose labels lie there already: scored again, nothing written."""
    series = open_store(task.store)[task.series]
    stream = _stream(replace(task, doubt=True), series)
    for _ in stream.labels(task.slabs, series.grid.shape):
        pass
    return stream.doubts


def _stream(task: SpanTask, series: Series) -> SlabStream:
    model = segmenter_of(task.model, task.device)
    plan = SegmentPlan.of(model.spec, series.grid, task.facts.box if task.facts else None)
    return SlabStream(model, plan, series, task.facts, doubt=task.doubt)


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

    windows: scored so far; clamped: whether a score was beyond SCORE_LIMIT; doubts: by slab, with `doubt`. Memory: a
    ScoreBand, and labels of the slabs that it reaches, whatever the number of slabs.
    """

    def __init__(self, model: Segmenter, plan: SegmentPlan, source: PlaneSource, facts: Facts | None, *,
                 doubt: bool = False) -> None:
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
                if self.doubt:
                    self.doubts[slab.index] = np.zeros(STEPS, np.int64)
            return begun[slab.index]

        last = first + z0 - 1  # planes up to it are whole
        for slab in slabs:
            while last < min(slab.stop, z1) - 1:
                decided, unsure = next(parts)
                z = decided.plane + z0
                labels_of(slab_of[z])[z - slab_of[z].start, y0:y1, x0:x1][decided.rows] = decided.labels
                if unsure is not None:
                    self.doubts[slab_of[z].index] += unsure
                if decided.rows.stop == y1 - y0:
                    assert z == last + 1  # planes end in order, each once
                    last = z
            labels = labels_of(slab)
            del begun[slab.index]
            yield slab, labels

    def _parts(self, first: int, stop: int) -> Iterator[tuple[Decided, NDArray[np.int64] | None]]:
        """(rows of box planes first..stop-1 as they are decided, their doubts where they are counted)."""
        plan = self.plan
        band = ScoreBand(self.model.spec, plan, first, stop)
        for scored in score_windows(self.model, plan, self.source, self.facts, *plan.planes_for(first, stop)):
            yield from self._doubted(band, band.finish(scored.frontier))
            band.add(scored.window, scored.scores)
            self.windows += 1
            self.clamped |= scored.clamped
        yield from self._doubted(band, band.finish())

    def _doubted(
        self, band: ScoreBand, found: Iterator[Decided]
    ) -> Iterator[tuple[Decided, NDArray[np.int64] | None]]:
        for decided in found:
            if self.doubt and decided.plane % DOUBT_EVERY == 0:
                yield decided, doubts_of_scores(band.scores(decided.plane, decided.rows), self.model.spec)
            else:
                yield decided, None
