"""A classifier over one volume: which waves of tasks it takes, and what a task of it is.

The model that runs before (if any) first, as a run of its own; then its organ's median, where the model is relative to
it; then one task for each slab (read planes and halo -> scores at the window centres -> labels -> whole shards), of the
last ones more (`tail`); then the commit. A run that is committed is not computed again; a half-done one goes on where
it stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctpipe import reduce
from ctpipe.errors import BudgetError, RunError
from ctpipe.models import Model, Sizes
from ctpipe.patches import PlaneReader, WindowGrid
from ctpipe.pipeline import organ
from ctpipe.pipeline.doubting import Doubts, noted
from ctpipe.pipeline.keys import run_key
from ctpipe.pipeline.layering import SlabLayers, commit_layers, layer_writers, layers_done, layers_lease
from ctpipe.pipeline.loaded import model_of
from ctpipe.pipeline.reports import Run
from ctpipe.pipeline.runs import continued, continued_record, run_of, run_record
from ctpipe.pipeline.stages import SlabCounter
from ctpipe.pipeline.tail import parts_of, tail_of, tasks_of
from ctpipe.pipeline.waves import Wave, Work
from ctpipe.predict import SCORE_SCALE, plane_work, score_centres, window_work
from ctpipe.predict import doubts as doubts_of
from ctpipe.store import GroupWriter, Labels, LabelsMeta, Series, SlabRecord, Store, open_store
from ctpipe.volume import Level, Slab, slabs_of
from ctpipe.words import Device, LabelKind, LayerKind, Region

# A centre above this is evaluated as body; below it is air or lung.
BODY_HU = -500


@dataclass(frozen=True)
class PredictTask:
    """One slab of one run: small values only; a worker reads the store and writes the store."""

    store: str
    series: str
    model: str
    sizes: Sizes
    writer: GroupWriter
    slab: Slab
    reference_hu: float | None
    before: str | None  # label group of the earlier run
    device: Device
    doubt: bool = False  # tell how unsure the model is of its centres
    layers: tuple[GroupWriter, ...] = ()  # of the run, to be written too
    part: tuple[int, int] | None = None  # of its lattice planes, of which `score_part` gives the scores
    given: Scores | None = field(default=None, compare=False)  # of all of them, found before


@dataclass(frozen=True, eq=False)
class Scores:
    """int32 (lattice planes, ny, nx, 1 + classes) of 1 / SCORE_SCALE; windows: centres that were evaluated."""

    values: NDArray[np.int32]
    windows: int


@dataclass(frozen=True)
class SlabOutcome:
    """What a task gives back. windows: centres evaluated; found: the slab lay there whole already.

    doubts: of `predict.doubts`, where they were asked for and the slab was computed. layers: a record of each layer.
    """

    record: SlabRecord
    windows: int
    found: bool
    doubts: NDArray[np.int64] | None = None
    layers: tuple[SlabRecord, ...] = ()


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
    pieces = parts_of([len(_lattice_planes(model, series, task.slab)) for task in last], shares)
    parts = [replace(last[n], part=(first, stop)) for n, first, stop in pieces]
    found = yield Wave(slab_or_part, [*whole, *parts], [1] * len(whole) + [0] * len(parts))
    outcomes: list[SlabOutcome] = found[: len(whole)]
    scores: list[list[Scores | None]] = [[] for _ in last]
    for (n, *_), part in zip(pieces, found[len(whole) :], strict=True):
        scores[n].append(part)
    given = [replace(task, given=_joined(some)) for task, some in zip(last, scores, strict=True)]
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
    planes = max(len(_lattice_planes(model, series, slab)) for slab in slabs)
    slab_bytes = planes * lattice.y * lattice.x * (1 + len(model.spec.classes)) * 4
    return tail_of(slabs, shares, whole_plane_work(model, series), slab_bytes)


def whole_plane_work(model: Model, series: Series) -> int:
    """Multiply-adds of all centres of one lattice plane."""
    grid = input_level(series, model).grid
    lattice = WindowGrid(grid.shape, model.recipe.windows.window, model.recipe.predict.stride).counts
    return plane_work(model, np.ones((lattice.y, lattice.x), bool), window_work(model))


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
    return len(parts_of([len(_lattice_planes(model, series, slab)) for slab in last], shares))


def _joined(parts: Sequence[Scores | None]) -> Scores | None:
    """The scores of a slab; None where one part saw that it lies there already."""
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    return Scores(np.concatenate([part.values for part in there]), sum(part.windows for part in there))


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


# ---------------------------------------------------------------------------------------------- in a worker
def predict_slab(task: PredictTask) -> SlabOutcome:
    """Predict and write one slab and its layers, unless they already lie there whole."""
    done, layered = task.writer.done(task.slab), layers_done(task.layers, task.slab)
    if done is not None and layered is not None:
        return SlabOutcome(done, 0, found=True, layers=layered)
    model = model_of(task.model, task.device).sized(task.sizes)
    series = open_store(task.store)[task.series]
    scored = _scored(model, series, task)
    record = done or task.writer.write_slab(task.slab, _slab_labels(model, series, task.slab, scored))
    layered = _write_layers(model, series, task, scored) if layered is None else layered
    return SlabOutcome(record, scored.windows, done is not None, _doubts(scored) if task.doubt else None, layered)


def slab_or_part(task: PredictTask) -> SlabOutcome | Scores | None:
    """`score_part` for a part, `predict_slab` for a slab: both are tasks of one wave, so that nobody waits between."""
    return predict_slab(task) if task.part is None else score_part(task)


def score_part(task: PredictTask) -> Scores | None:
    """Scores of a part of a slab's lattice planes; None where the slab and its layers lie there whole."""
    assert task.part is not None
    if task.writer.done(task.slab) is not None and layers_done(task.layers, task.slab) is not None:
        return None
    model = model_of(task.model, task.device).sized(task.sizes)
    series = open_store(task.store)[task.series]
    return _scores(model, series, task, _lattice_planes(model, series, task.slab)[slice(*task.part)])


def doubt_slab(task: PredictTask) -> Doubts:
    """How unsure the model is of one slab, whose labels lie there already: scored again, nothing written."""
    model = model_of(task.model, task.device).sized(task.sizes)
    return {task.slab.index: _doubts(_scored(model, open_store(task.store)[task.series], task))}


@dataclass(frozen=True, eq=False)
class _Scored:
    """Scores at lattice planes that decide planes band.start..band.stop-1 of the input level; windows: evaluated."""

    scores: NDArray[np.int32]
    windows: int
    planes: list[int]
    band: Slab


def _scored(model: Model, series: Series, task: PredictTask) -> _Scored:
    planes = _lattice_planes(model, series, task.slab)
    found = task.given or _scores(model, series, task, planes)
    return _Scored(found.values, found.windows, planes, input_level(series, model).slab(task.slab))


def _scores(model: Model, series: Series, task: PredictTask, planes: list[int]) -> Scores:
    mask = mask_of(model, series, task.before, planes)
    reader = PlaneReader(series, model.recipe.input, task.reference_hu)
    scores = score_centres(model, reader, planes, mask)
    return Scores(scores, int(np.prod(scores.shape[:-1])) if mask is None else int(mask.sum()))


def _lattice_planes(model: Model, series: Series, slab: Slab) -> list[int]:
    """Lattice planes whose scores decide the labels of a slab."""
    level, predict = input_level(series, model), model.recipe.predict
    band = level.slab(slab)
    return reduce.centre_planes(predict.stride.z, band.start, band.stop, level.grid.shape.z, predict.fill)


def _slab_labels(model: Model, series: Series, slab: Slab, scored: _Scored) -> NDArray[np.uint8]:
    """Labels (planes, y, x) of one slab of level 0."""
    level, predict = input_level(series, model), model.recipe.predict
    coarse = reduce.label_planes(scored.scores, scored.planes, predict.stride, predict.fill, scored.band.start,
                                 scored.band.stop, level.grid.shape)  # fmt: skip
    return reduce.refine(coarse, level.factors, (slab.planes, series.grid.shape.y, series.grid.shape.x))


def _write_layers(model: Model, series: Series, task: PredictTask, scored: _Scored) -> tuple[SlabRecord, ...]:
    """Write the layers of one slab: its probabilities lie on the labels' grid by the same fill as the labels."""
    level, predict = input_level(series, model), model.recipe.predict
    planes = reduce.share_planes(scored.scores, scored.planes, predict.stride, predict.fill, scored.band.start,
                                 scored.band.stop, level.grid.shape, SCORE_SCALE)  # fmt: skip
    with SlabLayers(task.layers, model) as layers:
        layers.begin(task.slab)
        for n, likely in enumerate(planes):
            start = task.slab.start + n * level.factors.z
            made = [reduce.refine(plane[None], level.factors, (1, *series.grid.shape[1:]))[0]
                    for plane in layers.planes(likely, None)]  # fmt: skip
            layers.put_made(task.slab, start, min(start + level.factors.z, task.slab.stop), made)
        return layers.write(task.slab)


def _doubts(scored: _Scored) -> NDArray[np.int64]:
    """Doubts of the lattice planes inside the slab: those beyond it, which neighbours need too, count there."""
    own = np.array([scored.band.start <= plane < scored.band.stop for plane in scored.planes], bool)
    return doubts_of(scored.scores[own])


def input_level(series: Series, model: Model) -> Level:
    """The pyramid level that the model's windows lie on; RunError where the volume has none so coarse."""
    number = model.recipe.input.level
    if number >= len(series.levels):
        raise RunError(
            f"the model works on pyramid level {number}, series {series.id} has {len(series.levels)} level(s)",
            "train a model on a lower level for volumes this small",
        )
    return series.levels[number]


def centres_for(
    model: Model, series: Series, before: str | None, start: int, stop: int
) -> tuple[list[int], NDArray[np.bool_] | None]:
    """(lattice planes whose scores decide planes start..stop-1 of the input level, `mask_of` them)."""
    level, predict = input_level(series, model), model.recipe.predict
    planes = reduce.centre_planes(predict.stride.z, start, stop, level.grid.shape.z, predict.fill)
    return planes, mask_of(model, series, before, planes)


def mask_of(model: Model, series: Series, before: str | None, planes: list[int]) -> NDArray[np.bool_] | None:
    """Which centres of lattice planes are evaluated, (len(planes), ny, nx); None: all.

    before: labels of the run before, for region `organ`.
    """
    level, predict = input_level(series, model), model.recipe.predict
    if predict.region is Region.ALL:
        return None
    _, ys, xs = WindowGrid(level.grid.shape, model.recipe.windows.window, predict.stride).axes()
    if predict.region is Region.BODY:
        hu = series.read_planes(min(planes), max(planes) + 1, level.number)
        picked = hu[np.asarray(planes) - min(planes)]
        return picked[:, ys][:, :, xs] > BODY_HU
    if before is None:
        raise RunError("region 'organ' needs a model that runs before", "name one in the recipe: before = \"NAME\"")
    depth, height, width = series.grid.shape
    zs = np.minimum(np.asarray(planes) * level.factors.z, depth - 1)
    near = organ.near_mask(series.labels[before], series.grid, int(zs.min()), int(zs.max()) + 1, predict.margin_mm)
    fine_y = np.minimum(ys * level.factors.y, height - 1)
    fine_x = np.minimum(xs * level.factors.x, width - 1)
    return near[zs - zs.min()][:, fine_y][:, :, fine_x]
