"""A classifier over one volume: which waves of tasks it takes (`classifier_slab` is what a task does).

The model that runs before (if any) first, as a run of its own; then its organ's median, where the model is relative to
it; then one task for each slab, of the last ones more (`tail`); then the commit. A run that is committed is not
computed again; a half-done one goes on where it stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from ctpipe.errors import BudgetError
from ctpipe.models import Model
from ctpipe.patches import WindowGrid
from ctpipe.pipeline import organ
from ctpipe.pipeline.centres import input_level, lattice_planes, whole_plane_work
from ctpipe.pipeline.classifier_slab import (
    PredictTask,
    Scores,
    SlabOutcome,
    doubt_slab,
    joined,
    slab_or_part,
)
from ctpipe.pipeline.doubting import Doubts, noted
from ctpipe.pipeline.keys import run_key
from ctpipe.pipeline.layering import commit_layers, layer_writers, layers_lease
from ctpipe.pipeline.reports import Run
from ctpipe.pipeline.runs import continued, continued_record, run_of, run_record
from ctpipe.pipeline.stages import SlabCounter
from ctpipe.pipeline.tail import parts_of, tail_of, tasks_of
from ctpipe.pipeline.waves import Wave, Work
from ctpipe.store import Labels, LabelsMeta, Series, Store
from ctpipe.volume import Slab, slabs_of
from ctpipe.words import Device, LabelKind, LayerKind


def volume_work(
    store: Store, series: Series, model: Model, folder: Path, counter: SlabCounter, device: Device,
    uncertainty: bool = False, layers: Sequence[LayerKind] = (), shares: int = 1,
) -> Work[Run]:  # fmt: skip
    """The run of `model`, which lies in `folder`, over one volume; `uncertainty`: noted in the store as well.

    layers: written beside the labels. shares: workers that this volume may keep busy.

    Where memory runs out, it begins again under the key of half the micro-batch, and the record of its first key says
    so: the next call goes there at once. No volume is mixed of both. BudgetError where nothing smaller is left.
    """
    before, reference = None, None
    if model.before is not None:
        before_run = yield from volume_work(store, series, model.before, folder / "before", counter, device,
                                            shares=shares)
        before = store[series.id].labels[before_run.run]
        if model.recipe.input.relative_to:
            reference = yield from organ.median_work(str(store.root), series, before, [model.recipe.input.relative_to])
    while True:
        model = as_continued(store, series, model, device, before.name if before else None)
        key, smaller = run_key(series, model, device, before.name if before else None), model.sizes.half()
        try:
            run, doubts = yield from _run(store, series, model, folder, counter, device, before, reference,
                                          uncertainty, layers, shares)  # fmt: skip
            break
        except MemoryError as error:
            if smaller is None:
                raise BudgetError(f"series {series.id}: out of memory even with {model.sizes.micro_batch} windows at "
                                  "a time", "run on fewer workers, or on machines with more memory") from error
            onward = run_key(series, model.sized(smaller), device, before.name if before else None)
            store.write_run(key, continued_record(series, model.digest, onward))
            logging.getLogger("ctpipe").warning(
                "series %s: out of memory with %d windows at a time; it begins again with %d, as run %s",
                series.id, model.sizes.micro_batch, smaller.micro_batch, onward)  # fmt: skip
            model = model.sized(smaller)
    if not uncertainty:
        return run
    name = before.name if before else None
    writer = store.labels_writer(series.id, labels_meta(run.run, series, model, name, reference))

    def again(lacking: list[Slab]) -> Wave:
        tasks = [PredictTask(str(store.root), series.id, str(folder), model.sizes, writer, slab, reference, name,
                             device) for slab in lacking]  # fmt: skip
        return Wave(doubt_slab, tasks, [0] * len(tasks))

    try:
        return (yield from noted(store, run, model.digest, writer.slabs, doubts, again))
    except MemoryError as error:
        raise BudgetError(f"series {series.id}: out of memory while its uncertainty was found",
                          "run on fewer workers, or on machines with more memory") from error


def as_continued(store: Store, series: Series, model: Model, device: Device, before: str | None) -> Model:
    """The model with the sizes that an earlier call found memory for, as the records tell."""
    while continued(store, series, run_key(series, model, device, before)):
        smaller = model.sizes.half()
        if smaller is None:
            break
        model = model.sized(smaller)
    return model


def _run(store: Store, series: Series, model: Model, folder: Path, counter: SlabCounter, device: Device,
         before: Labels | None, reference: float | None, uncertainty: bool,
         layers: Sequence[LayerKind], shares: int) -> Work[tuple[Run, Doubts]]:
    """One run with the sizes that `model` has, and where uncertainty is wanted the doubts of the slabs it computed."""
    began = time.monotonic()
    key = run_key(series, model, device, before.name if before else None)
    meta = labels_meta(key, series, model, before.name if before else None, reference)
    writer, layered = store.labels_writer(series.id, meta), layer_writers(store, series, meta, model, layers)
    slabs, known = writer.slabs, writer.committed
    if known and not layered:
        counter.add(len(slabs))
        return run_of(store, series, key, len(slabs), began, None), {}
    with ExitStack() as held:
        lease = None if known else held.enter_context(store.lease(writer.target))
        layers_held = held.enter_context(layers_lease(store, layered))
        writer.prepare()
        tasks = [PredictTask(str(store.root), series.id, str(folder), model.sizes, writer, slab, reference,
                             before.name if before else None, device, uncertainty, layered)
                 for slab in slabs]  # fmt: skip
        try:
            outcomes = yield from _predicted(tasks, model, series, shares, counter)
        except MemoryError as error:
            if known:  # of labels that are there the sizes are settled
                raise BudgetError(f"series {series.id}: out of memory while its layers were made",
                                  "run on fewer workers, or on machines with more memory") from error
            for begun in (*layered, writer):
                begun.discard()
            raise
        if lease is not None:
            writer.commit([outcome.record for outcome in outcomes], lease)
        commit_layers(layered, [outcome.layers for outcome in outcomes], layers_held)
    run = run_of(store, series, key, len(slabs), began, None if known else outcomes)
    if not known:
        store.write_run(key, run_record(run, series, device, {
            "model": model.digest,
            "recipe": model.recipe.name,
            "before": before.name if before else None,
            "reference_hu": reference,
            "settings": {**model.recipe.as_dict()["predict"], **asdict(model.sizes)},
        }))  # fmt: skip
    return run, {slab.index: outcome.doubts for slab, outcome in zip(slabs, outcomes, strict=True)
                 if outcome.doubts is not None}  # fmt: skip


def _predicted(tasks: list[PredictTask], model: Model, series: Series, shares: int,
               counter: SlabCounter) -> Work[list[SlabOutcome]]:
    """What all slabs give: of the tail the scores in parts first, beside the last whole slabs, then the rest."""
    first_of_tail = len(tasks) - tail_for(model, series, [task.slab for task in tasks], shares)
    whole, last = tasks[:first_of_tail], tasks[first_of_tail:]
    pieces = parts_of([len(lattice_planes(model, series, task.slab)) for task in last], shares)
    parts = [replace(last[n], part=(first, stop)) for n, first, stop in pieces]
    found = yield Wave(slab_or_part, [*whole, *parts], [1] * len(whole) + [0] * len(parts))
    outcomes: list[SlabOutcome] = found[: len(whole)]
    scores: list[list[Scores | None]] = [[] for _ in last]
    for (n, *_), part in zip(pieces, found[len(whole) :], strict=True):
        scores[n].append(part)
    given = [replace(task, given=joined(some)) for task, some in zip(last, scores, strict=True)]
    try:
        return outcomes + (yield Wave(slab_or_part, given))
    except MemoryError:
        counter.add(-len(whole))  # they begin again too
        raise


def tail_for(model: Model, series: Series, slabs: Sequence[Slab], shares: int) -> int:
    """How many of the last slabs are scored in parts, where `shares` workers work on the volume."""
    if shares < 2:
        return 0
    level, predict = input_level(series, model), model.recipe.predict
    lattice = WindowGrid(level.grid.shape, model.recipe.windows.window, predict.stride).counts
    planes = max(len(lattice_planes(model, series, slab)) for slab in slabs)
    slab_bytes = planes * lattice.y * lattice.x * (1 + len(model.spec.classes)) * 4
    return tail_of(slabs, shares, whole_plane_work(model, series), slab_bytes)


def tasks_at_once(model: Model, series: Series) -> int:
    """Tasks of a volume that may run beside each other: slabs, or parts of them where planes are heavy, of all models
    of the line.
    """
    slabs = len(slabs_of(series.grid.shape.z))
    if model.recipe.input.level >= len(series.levels):  # its own run will say so, and the others go on
        return slabs
    before = tasks_at_once(model.before, series) if model.before else 0
    return before + tasks_of(slabs, whole_plane_work(model, series))


def tail_tasks(model: Model, series: Series, slabs: Sequence[Slab], shares: int) -> int:
    """Tasks that score parts of the tail, beside one a slab."""
    last = slabs[len(slabs) - tail_for(model, series, slabs, shares) :]
    return len(parts_of([len(lattice_planes(model, series, slab)) for slab in last], shares))


def labels_meta(
    key: str, series: Series, model: Model, before: str | None, reference: float | None
) -> LabelsMeta:
    """What the run's label group says of itself."""
    classes = {number: name for number, name in enumerate(model.spec.classes, start=1)}
    return LabelsMeta(
        name=key, kind=LabelKind.PREDICTION, grid=series.grid, classes=classes, dtype="uint8",
        provenance={"content": series.content, "model": model.digest, "recipe": model.recipe.digest(),
                    "before": before, "reference_hu": reference},
    )  # fmt: skip
