"""Infer: a model over volumes, slab by slab, into committed label volumes.

For each series: the model that runs before (if any) first, as a run of its own; then one task for each missing slab
(read planes and halo -> scores at the window centres -> labels -> whole shards); then the commit. A run that is
committed is not computed again; a half-done one goes on where it stopped.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from ctpipe import reduce
from ctpipe.cluster import client_for, run_tasks
from ctpipe.errors import CtpipeError, RunError, StoreBusyError, UsageError
from ctpipe.models import Model, load_classifier
from ctpipe.patches import PlaneReader, WindowGrid
from ctpipe.pipeline import organ
from ctpipe.pipeline.keys import run_key
from ctpipe.pipeline.reports import InferReport, Run
from ctpipe.pipeline.stages import SlabCounter, store_for_writing
from ctpipe.predict import notes, require_exact, score_centres
from ctpipe.store import GroupWriter, Labels, LabelsMeta, Series, SlabRecord, Store, open_store
from ctpipe.volume import Level, Slab, slabs_of
from ctpipe.words import Exact, LabelKind, Progress, Region

DEVICE = "cpu"
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


def infer(
    store: str | Path | Store,
    model: str | Path | Model,
    series: Sequence[str] | str | None = None,
    client: Client | None = None,
    *,
    exact: Exact | str = Exact.AUTO,
    progress: Progress = None,
) -> InferReport:
    """Predict every volume of `store` (or only `series`, ids or unambiguous prefixes) with `model`.

    model: a folder written by `train`, or a Model. exact: `required` refuses a model that would have to be evaluated
    window by window. One failing volume does not stop the others: it is in the report.
    """
    wished = _exact(exact)
    target = store if isinstance(store, Store) else store_for_writing(store)
    loaded = model if isinstance(model, Model) else load_classifier(model)
    if wished is Exact.REQUIRED:
        require_exact(loaded)
    told = tuple(notes(loaded))
    for note in told:  # before the work, which may be long
        logging.getLogger("ctpipe").warning("%s", note)
    folder = _keep_model(target, loaded)
    wanted = [series] if isinstance(series, str) else list(series) if series else sorted(target)
    chosen = list(dict.fromkeys(target[name].id for name in wanted))
    passes = _depth(loaded)
    n_slabs = sum(len(slabs_of(target[name].grid.shape.z)) for name in chosen) * passes
    runs: list[Run] = []
    failed: dict[str, str] = {}
    counter = SlabCounter("infer", progress, n_slabs)
    with client_for(n_slabs, client) as workers:
        for series_id in chosen:
            try:
                runs.append(_run(target, target[series_id], loaded, folder, workers, counter))
            except StoreBusyError as error:
                failed[series_id] = str(error)
            except CtpipeError as error:
                if error.exit_code == 4:  # no disk, no memory: the next volume would fail as well
                    raise
                failed[series_id] = str(error)
    return InferReport(tuple(runs), failed, told)


def _exact(word: Exact | str) -> Exact:
    try:
        return Exact(word)
    except ValueError as error:
        raise UsageError(f"exact {word!r} is unknown", f"choose one of: {', '.join(Exact)}") from error


def _depth(model: Model) -> int:
    return 1 + (_depth(model.before) if model.before else 0)


def _keep_model(store: Store, model: Model) -> Path:
    """STORE/models/<digest>: where workers and later readers of a run find the model."""
    folder = store.root / "models" / model.digest
    if not (folder / "model.json").is_file():
        model.save(folder)
    return folder


def _run(
    store: Store, series: Series, model: Model, folder: Path, client: Client | None, counter: SlabCounter
) -> Run:
    began = time.monotonic()
    before, reference = None, None
    if model.before is not None:
        before_run = _run(store, series, model.before, folder / "before", client, counter)
        before = store[series.id].labels[before_run.run]
        if model.recipe.input.relative_to:
            reference = organ.median_hu(str(store.root), series, before, [model.recipe.input.relative_to], client)
    key = run_key(series, model.digest, model.recipe, DEVICE, before.name if before else None)
    writer = store.labels_writer(series.id, _labels_meta(key, series, model, before, reference))
    slabs = writer.slabs
    if writer.committed:
        counter.add(len(slabs))
        windows = int(store.runs().get(key, {}).get("windows", 0))
        return Run(series.id, key, windows, time.monotonic() - began, len(slabs), 0, known=True)
    with store.lease(writer.target) as lease:
        writer.prepare()
        tasks = [PredictTask(str(store.root), series.id, str(folder), writer, slab, reference,
                             before.name if before else None) for slab in slabs]  # fmt: skip
        outcomes = _outcomes(client, tasks, counter)
        writer.commit([outcomes[slab.index].record for slab in slabs], lease)
    seconds = time.monotonic() - began
    windows = sum(outcome.windows for outcome in outcomes.values())
    resumed = sum(outcome.found for outcome in outcomes.values())
    work = {"windows": windows, "seconds": round(seconds, 3), "slabs": len(slabs), "resumed": resumed}
    store.write_run(key, _run_record(series, model, before, reference, work))
    return Run(series.id, key, windows, seconds, len(slabs), resumed)


def _outcomes(client: Client | None, tasks: Iterable[PredictTask], counter: SlabCounter) -> dict[int, SlabOutcome]:
    outcomes: dict[int, SlabOutcome] = {}
    for task, outcome in run_tasks(client, predict_slab, tasks):
        outcomes[task.slab.index] = outcome
        counter.add()
    return outcomes


def _labels_meta(
    key: str, series: Series, model: Model, before: Labels | None, reference: float | None
) -> LabelsMeta:
    classes = {number: name for number, name in enumerate(model.spec.classes, start=1)}
    return LabelsMeta(
        name=key, kind=LabelKind.PREDICTION, grid=series.grid, classes=classes, dtype="uint8",
        provenance={"content": series.content, "model": model.digest, "recipe": model.recipe.digest(),
                    "before": before.name if before else None, "reference_hu": reference},
    )  # fmt: skip


def _run_record(
    series: Series, model: Model, before: Labels | None, reference: float | None, work: dict[str, Any]
) -> dict[str, Any]:
    """What a run was made of, for people: times, host and versions stand only here, never under *.ome.zarr."""
    return {
        "series": series.id,
        "content": series.content,
        "model": model.digest,
        "recipe": model.recipe.name,
        "before": before.name if before else None,
        "reference_hu": reference,
        "settings": model.recipe.as_dict()["predict"],
        "device": DEVICE,
        "host": platform.node(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("ctpipe", "torch", "numpy", "scipy", "zarr", "dask")},
        **work,
    }


# ---------------------------------------------------------------------------------------------- in a worker
@lru_cache(maxsize=4)
def _model_of(folder: str) -> Model:
    """The model, loaded once per process; its digest names the folder, so that a cached one is never stale."""
    return load_classifier(folder)


def predict_slab(task: PredictTask) -> SlabOutcome:
    """Predict and write one slab, unless it already lies there whole."""
    done = task.writer.done(task.slab)
    if done is not None:
        return SlabOutcome(done, 0, found=True)
    model = _model_of(task.model)
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
