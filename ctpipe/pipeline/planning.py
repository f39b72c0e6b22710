"""Plan: what a call of infer is going to cost, and whether it fits, before any of it is done.

Windows, tasks and multiply-adds are counted as the run counts them; seconds follow from one plane of the real model
over real input. Nothing is written.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from distributed import Client

from ctpipe import reduce
from ctpipe.cluster import workers_for
from ctpipe.errors import CtpipeError
from ctpipe.models import Model
from ctpipe.patches import PlaneReader, WindowGrid
from ctpipe.pipeline.centres import centres_for, input_level
from ctpipe.pipeline.classifying import as_continued, labels_meta, tail_tasks, tasks_at_once
from ctpipe.pipeline.keys import run_key
from ctpipe.pipeline.plans import BASE_BYTES, COMPRESSED, InferPlan, PassPlan, SeriesPlan, refusal
from ctpipe.pipeline.tail import shares_for
from ctpipe.predict import plane_work, score_centres, scoring_bytes, window_work
from ctpipe.store import GroupWriter, Series, Store
from ctpipe.volume import Slab
from ctpipe.words import Device, Region


@dataclass(frozen=True)
class _Rate:
    """What a model takes: multiply-adds of one window, and how many of them a worker does in a second."""

    window_work: int
    per_second: float


def plan_runs(store: Store, model: Model, chosen: Sequence[str], client: Client | None, device: Device) -> InferPlan:
    """The plan of `model` over the series `chosen`; CtpipeError where it cannot even be tried."""
    line = _line_of(model)
    rates, calibration = {}, []
    for one in line if chosen else []:
        rate, seconds = _calibrate(max((store[name] for name in chosen), key=_plane_voxels), one)
        rates[one.digest] = rate
        calibration.append({"model": one.digest, "plane_seconds": seconds,
                            "multiply_adds_per_second": rate.per_second})  # fmt: skip
    workers = workers_for(sum(tasks_at_once(model, store[name]) for name in chosen), client)
    shares = shares_for(workers.at_once, len(chosen))
    series = tuple(_series_plan(store, store[name], line, device, rates, workers.at_once, shares) for name in chosen)
    free = shutil.disk_usage(store.root).free
    plan = InferPlan(series, workers.at_once, workers.memory_bytes, free, tuple(calibration))
    peak, disk = plan.totals["peak_bytes"], plan.totals["disk_bytes"]
    return replace(plan, refusal=refusal(peak, disk, workers.at_once, workers.memory_bytes, free))


def _line_of(model: Model) -> list[Model]:
    """The model and those that run before it, the first to run first."""
    return [*(_line_of(model.before) if model.before else []), model]


def _plane_voxels(series: Series) -> int:
    return series.grid.shape.y * series.grid.shape.x


def _calibrate(series: Series, model: Model) -> tuple[_Rate, float]:
    """The rate of a model, and the seconds of all centres of the plane in the middle of a real volume."""
    level, predict = input_level(series, model), model.recipe.predict
    planes = list(range(0, level.grid.shape.z, predict.stride.z))
    z = planes[len(planes) // 2]
    reader = PlaneReader(series, model.recipe.input, 0.0 if model.recipe.input.relative_to else None)
    one = window_work(model)
    began = time.perf_counter()
    scores = score_centres(model, reader, [z])
    reduce.label_planes(scores, [z], predict.stride, predict.fill.NEAREST, z, z + 1, level.grid.shape)
    seconds = time.perf_counter() - began
    return _Rate(one, plane_work(model, np.ones(scores.shape[1:3], bool), one) / seconds), seconds


def _series_plan(store: Store, series: Series, line: Sequence[Model], device: Device, rates: dict[str, _Rate],
                 at_once: int, shares: int) -> SeriesPlan:
    passes: list[PassPlan] = []
    try:
        for model in line:
            passes.append(_pass_plan(store, series, model, device, passes[-1] if passes else None,
                                     rates[model.digest], at_once, shares))  # fmt: skip
    except CtpipeError as error:  # the run will say the same of this volume, and go on with the others
        return SeriesPlan(series.id, (), str(error))
    return SeriesPlan(series.id, tuple(passes))


def _pass_plan(store: Store, series: Series, model: Model, device: Device, before: PassPlan | None, rate: _Rate,
               at_once: int, shares: int) -> PassPlan:
    before_run = before.run if before else None
    model = as_continued(store, series, model, device, before_run)
    key = run_key(series, model, device, before_run)
    writer = store.labels_writer(series.id, labels_meta(key, series, model, before_run, None))
    told = PassPlan(key, model.digest, model.recipe.name, "committed", 0, False, 0, 0, 0, 0, 0, 0.0)
    if writer.committed:
        return told
    missing = [slab for slab in writer.slabs if writer.done(slab) is None]
    unknown = model.recipe.predict.region is Region.ORGAN and (before is None or before.state != "committed")
    counted = [_slab_work(series, model, slab, before_run, unknown, rate.window_work) for slab in missing]
    windows, work = sum(n for n, _, _ in counted), sum(n for _, n, _ in counted)
    most = max((planes for _, _, planes in counted), default=0)
    steps = 2 if model.recipe.input.relative_to else 1
    tasks = steps * len(writer.slabs) + tail_tasks(model, series, writer.slabs, shares)
    return replace(
        told, state="new" if len(missing) == len(writer.slabs) else "half-done", windows=windows, at_most=unknown,
        flops=2 * work, tasks=tasks, peak_bytes=_peak_bytes(series, model, writer, most),
        disk_bytes=round(sum(slab.planes for slab in missing) * _plane_voxels(series) * COMPRESSED),
        seconds=work / rate.per_second / at_once,
    )  # fmt: skip


def _slab_work(series: Series, model: Model, slab: Slab, before: str | None, unknown: bool,
               window: int) -> tuple[int, int, int]:
    """(windows, multiply-adds, lattice planes) of one slab; unknown: where its windows lie, so that all count."""
    level, predict = input_level(series, model), model.recipe.predict
    band = level.slab(slab)
    planes = reduce.centre_planes(predict.stride.z, band.start, band.stop, level.grid.shape.z, predict.fill)
    mask = None if unknown else centres_for(model, series, before, band.start, band.stop)[1]
    _, ys, xs = WindowGrid(level.grid.shape, model.recipe.windows.window, predict.stride).axes()
    if mask is None:
        whole = plane_work(model, np.ones((len(ys), len(xs)), bool), window)
        return len(planes) * len(ys) * len(xs), len(planes) * whole, len(planes)
    return int(mask.sum()), sum(plane_work(model, asked, window) for asked in mask if asked.any()), len(planes)


def _peak_bytes(series: Series, model: Model, writer: GroupWriter, planes: int) -> int:
    """Upper estimate of a worker's memory while it does one slab of `planes` lattice planes.

    After scoring there are the scores, the sums of one plane (int64), the labels and what makes a shard of them; before
    it, for region `organ`, distances (float64 and three int32 indexes) of the slab and its margin.
    """
    level, predict = input_level(series, model), model.recipe.predict
    slab = writer.slabs[0].planes * _plane_voxels(series)
    weights = sum(value.numel() * value.element_size() for value in model.network.state_dict().values())
    scoring = scoring_bytes(model, level.grid.shape, planes)
    near = 0
    if predict.region is Region.ORGAN:
        halo = 2 * int(np.ceil(predict.margin_mm / series.grid.spacing_mm[0]))
        near = (writer.slabs[0].planes + halo) * _plane_voxels(series) * 22
    return BASE_BYTES + 2 * weights + max(scoring, near, 6 * slab + 5 * 8 * _plane_voxels(series))
