"""A segmenter over one volume: which waves of tasks it takes (`segmenter_span` is what a task does).

First the facts of the volume, where the model needs some (a task a slab); then one task for each span of slabs: a
stream along z that scores windows, reduces finished planes and writes each slab as its last plane is decided; then the
commit. One span is the whole volume unless workers would stand idle: windows that reach over the border of two spans
are scored in both. Sums are whole numbers, so that spans change no byte.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from ctpipe.errors import BudgetError
from ctpipe.models import Segmenter
from ctpipe.pipeline.doubting import Doubts, noted
from ctpipe.pipeline.keys import segment_key
from ctpipe.pipeline.layering import commit_layers, layer_writers, layers_lease
from ctpipe.pipeline.reports import Run
from ctpipe.pipeline.runs import run_of, run_record
from ctpipe.pipeline.segmenter_span import (
    FactsTask,
    SpanOutcome,
    SpanTask,
    doubt_span,
    facts_of_slab,
    missing_slabs,
    predict_span,
)
from ctpipe.pipeline.stages import SlabCounter
from ctpipe.pipeline.waves import Wave, Work
from ctpipe.predict import Facts, SlabFacts, merge_facts, needs_facts
from ctpipe.reduce import label_type
from ctpipe.store import LabelsMeta, Series, Store
from ctpipe.volume import Slab
from ctpipe.words import Device, LabelKind, LayerKind


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
