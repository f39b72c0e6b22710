"""A classifier over one volume: which waves of tasks it takes, and what a task of it is.

The model that runs before (if any) first, as a run of its own; then its organ's median, where the model is relative to
it; then one task for each slab (read planes and halo -> scores at the window centres -> labels -> whole shards); then
the commit. A run that is committed is not computed again; a half-done one goes on where it stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctpipe import reduce
from ctpipe.errors import RunError
from ctpipe.models import Model
from ctpipe.patches import PlaneReader, WindowGrid
from ctpipe.pipeline import organ
from ctpipe.pipeline.keys import run_key
from ctpipe.pipeline.loaded import model_of
from ctpipe.pipeline.reports import Run
from ctpipe.pipeline.runs import run_record, windows_of
from ctpipe.pipeline.stages import SlabCounter
from ctpipe.pipeline.waves import Wave, Work
from ctpipe.predict import score_centres
from ctpipe.store import GroupWriter, Labels, LabelsMeta, Series, SlabRecord, Store, open_store
from ctpipe.volume import Level, Slab
from ctpipe.words import Device, LabelKind, Region

# A centre above this is evaluated as body; below it is air or lung.
BODY_HU = -500


@dataclass(frozen=True)
class PredictTask:
    """One slab of one run: small values only; a worker reads the store and writes the store."""

    store: str
    series: str
    model: str
    writer: GroupWriter
    slab: Slab
    reference_hu: float | None
    before: str | None  # label group of the earlier run


@dataclass(frozen=True)
class SlabOutcome:
    """What a task gives back. windows: centres evaluated; found: the slab lay there whole already."""

    record: SlabRecord
    windows: int
    found: bool


def volume_work(
    store: Store, series: Series, model: Model, folder: Path, counter: SlabCounter, device: Device
) -> Work[Run]:
    """The run of `model`, which lies in `folder`, over one volume."""
    began = time.monotonic()
    before, reference = None, None
    if model.before is not None:
        before_run = yield from volume_work(store, series, model.before, folder / "before", counter, device)
        before = store[series.id].labels[before_run.run]
        if model.recipe.input.relative_to:
            reference = yield from organ.median_work(str(store.root), series, before, [model.recipe.input.relative_to])
    key = run_key(series, model.digest, model.recipe, device, before.name if before else None)
    writer = store.labels_writer(series.id, _labels_meta(key, series, model, before, reference))
    slabs = writer.slabs
    if writer.committed:
        counter.add(len(slabs))
        return Run(series.id, key, windows_of(store, key), time.monotonic() - began, len(slabs), 0, known=True)
    with store.lease(writer.target) as lease:
        writer.prepare()
        tasks = [PredictTask(str(store.root), series.id, str(folder), writer, slab, reference,
                             before.name if before else None) for slab in slabs]  # fmt: skip
        outcomes: list[SlabOutcome] = yield Wave(predict_slab, tasks)
        writer.commit([outcome.record for outcome in outcomes], lease)
    run = Run(series.id, key, sum(outcome.windows for outcome in outcomes), time.monotonic() - began, len(slabs),
              sum(outcome.found for outcome in outcomes))  # fmt: skip
    store.write_run(key, run_record(run, series, device, {
        "model": model.digest,
        "recipe": model.recipe.name,
        "before": before.name if before else None,
        "reference_hu": reference,
        "settings": model.recipe.as_dict()["predict"],
    }))  # fmt: skip
    return run


def _labels_meta(
    key: str, series: Series, model: Model, before: Labels | None, reference: float | None
) -> LabelsMeta:
    classes = {number: name for number, name in enumerate(model.spec.classes, start=1)}
    return LabelsMeta(
        name=key, kind=LabelKind.PREDICTION, grid=series.grid, classes=classes, dtype="uint8",
        provenance={"content": series.content, "model": model.digest, "recipe": model.recipe.digest(),
                    "before": before.name if before else None, "reference_hu": reference},
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- in a worker
def predict_slab(task: PredictTask) -> SlabOutcome:
    """Predict and write one slab, unless it already lies there whole."""
    done = task.writer.done(task.slab)
    if done is not None:
        return SlabOutcome(done, 0, found=True)
    model = model_of(task.model)
    series = open_store(task.store)[task.series]
    labels, windows = _slab_labels(model, series, task)
    return SlabOutcome(task.writer.write_slab(task.slab, labels), windows, found=False)


def _slab_labels(model: Model, series: Series, task: PredictTask) -> tuple[NDArray[np.uint8], int]:
    """Labels (planes, y, x) of one slab of level 0, and the number of centres evaluated."""
    recipe = model.recipe
    level = _input_level(series, recipe.input.level)
    band = level.slab(task.slab)
    reader = PlaneReader(series, recipe.input, task.reference_hu)
    lattice = WindowGrid(level.grid.shape, recipe.windows.window, recipe.predict.stride)
    stride, fill = recipe.predict.stride, recipe.predict.fill
    planes = reduce.centre_planes(stride.z, band.start, band.stop, level.grid.shape.z, fill)
    mask = _centre_mask(model, series, task, level, lattice, planes)
    scores = score_centres(model, reader, planes, mask)
    coarse = reduce.label_planes(scores, planes, stride, fill, band.start, band.stop, level.grid.shape)
    fine = reduce.refine(coarse, level.factors, (task.slab.planes, series.grid.shape.y, series.grid.shape.x))
    return fine, int(mask.sum()) if mask is not None else int(np.prod(scores.shape[:-1]))


def _input_level(series: Series, number: int) -> Level:
    if number >= len(series.levels):
        raise RunError(
            f"the model works on pyramid level {number}, series {series.id} has {len(series.levels)} level(s)",
            "train a model on a lower level for volumes this small",
        )
    return series.levels[number]


def _centre_mask(
    model: Model, series: Series, task: PredictTask, level: Level, lattice: WindowGrid, planes: list[int]
) -> NDArray[np.bool_] | None:
    """Which centres of the lattice planes are evaluated, (len(planes), ny, nx); None means all."""
    region = model.recipe.predict.region
    _, ys, xs = lattice.axes()
    if region is Region.ALL:
        return None
    if region is Region.BODY:
        hu = series.read_planes(min(planes), max(planes) + 1, level.number)
        picked = hu[np.asarray(planes) - min(planes)]
        return picked[:, ys][:, :, xs] > BODY_HU
    if task.before is None:
        raise RunError("region 'organ' needs a model that runs before", "name one in the recipe: before = \"NAME\"")
    depth, height, width = series.grid.shape
    zs = np.minimum(np.asarray(planes) * level.factors.z, depth - 1)
    near = organ.near_mask(series.labels[task.before], series.grid, int(zs.min()), int(zs.max()) + 1,
                           model.recipe.predict.margin_mm)  # fmt: skip
    fine_y = np.minimum(ys * level.factors.y, height - 1)
    fine_x = np.minimum(xs * level.factors.x, width - 1)
    return near[zs - zs.min()][:, fine_y][:, :, fine_x]
