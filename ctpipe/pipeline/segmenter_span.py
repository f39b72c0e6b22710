"""A span of slabs of a segmenter's run, in a worker: what does not lie there yet is scored, and each slab written."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctpipe.cluster import tell_slab
from ctpipe.models import SegmentPlan
from ctpipe.pipeline.doubting import Doubts
from ctpipe.pipeline.layering import SlabLayers, layers_done
from ctpipe.pipeline.loaded import segmenter_of
from ctpipe.pipeline.slab_stream import SlabStream
from ctpipe.predict import Facts, SlabFacts
from ctpipe.predict import slab_facts as facts_of
from ctpipe.store import GroupWriter, Series, SlabRecord, open_store
from ctpipe.volume import Slab
from ctpipe.words import Device


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
