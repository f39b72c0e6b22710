"""What a segmenter's runs are going to cost: windows of its plan, seconds of one window, bytes of its stream."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from distributed import Client

from ctpipe.cluster import workers_for
from ctpipe.errors import CtpipeError
from ctpipe.models import Segmenter, SegmentPlan
from ctpipe.pipeline.keys import segment_key
from ctpipe.pipeline.plans import BASE_BYTES, COMPRESSED, InferPlan, PassPlan, SeriesPlan, refusal
from ctpipe.pipeline.segmenter_span import missing_slabs
from ctpipe.pipeline.segmenting import labels_meta, spans_of
from ctpipe.pipeline.tail import shares_for
from ctpipe.predict import block_planes, needs_facts
from ctpipe.reduce import band_rows
from ctpipe.store import Series, Store
from ctpipe.volume import Slab
from ctpipe.words import Device

# Maps of a U-Net's first stage that a forward pass holds at once, in front of and behind its layers, and the least
# channels of one: oneDNN fills up to 16.
MAPS, LEAST_CHANNELS = 6, 16
# Channels where the options do not say: a network that is a file.
CHANNELS = 32


def plan_segment_runs(
    store: Store, model: Segmenter, chosen: Sequence[str], client: Client | None, device: Device
) -> InferPlan:
    """The plan of `model` over the series `chosen`; nothing is written."""
    seconds, flops = _calibrate(model)
    n_slabs = sum(-(-store[name].grid.shape.z // store[name].levels[0].slab_planes) for name in chosen)
    workers = workers_for(n_slabs, client, model.spec.threads)
    spans = shares_for(workers.at_once, len(chosen))
    series = tuple(_series_plan(store, store[name], model, device, spans, seconds / workers.at_once, flops)
                   for name in chosen)
    free = shutil.disk_usage(store.root).free
    rate = {"model": model.digest, "window_seconds": seconds, "multiply_adds_per_second": flops / 2 / seconds}
    plan = InferPlan(series, workers.at_once, workers.memory_bytes, free, (rate,) if chosen else ())
    peak, disk = plan.totals["peak_bytes"], plan.totals["disk_bytes"]
    return replace(plan, refusal=refusal(peak, disk, workers.at_once, workers.memory_bytes, free))


def _calibrate(model: Segmenter) -> tuple[float, int]:
    """(seconds, floating-point operations) of one window, all mirrorings and folds; its values do not matter."""
    flops = model.flops()  # the first pass, which chooses kernels
    window = np.random.default_rng(0).normal(size=(1, *model.spec.patch)).astype(np.float32)
    began = time.perf_counter()
    model.scores(window)
    return time.perf_counter() - began, flops


def _series_plan(
    store: Store, series: Series, model: Segmenter, device: Device, spans: int, seconds: float, flops: int
) -> SeriesPlan:
    try:
        return SeriesPlan(series.id, (_pass_plan(store, series, model, device, spans, seconds, flops),))
    except CtpipeError as error:  # the run will say the same of this volume, and go on with the others
        return SeriesPlan(series.id, (), str(error))


def _pass_plan(
    store: Store, series: Series, model: Segmenter, device: Device, spans: int, seconds: float, flops: int
) -> PassPlan:
    spec, plan = model.spec, SegmentPlan.of(model.spec, series.grid)
    key = segment_key(series, model.digest, device)
    writer = store.labels_writer(series.id, labels_meta(key, series, model))
    told = PassPlan(key, model.digest, spec.network, "committed", 0, False, 0, 0, 0, 0, 0, 0.0)
    if writer.committed:
        return told
    groups = spans_of(writer.slabs, spans)
    missing = [run for group in groups for run in missing_slabs({slab: writer.done(slab) for slab in group})]
    windows = sum(_windows(plan, run) for run in missing)
    left = sum(len(run) for run in missing)
    plane = series.grid.shape.y * series.grid.shape.x
    return replace(
        told, state="new" if left == len(writer.slabs) else "half-done", windows=windows,
        at_most=spec.crop == "nonzero", flops=windows * flops,
        tasks=len(groups) + (len(writer.slabs) if needs_facts(spec, series.grid) else 0),
        peak_bytes=_peak_bytes(model, plan, plane * writer.slabs[0].planes),
        disk_bytes=round(sum(slab.planes for run in missing for slab in run) * plane * COMPRESSED),
        seconds=windows * seconds,
    )  # fmt: skip


def _windows(plan: SegmentPlan, run: Sequence[Slab]) -> int:
    return len(plan.windows(*plan.planes_for(run[0].start, run[-1].stop)))


def _peak_bytes(model: Segmenter, plan: SegmentPlan, slab: int) -> int:
    """Upper estimate of a worker's memory while it streams: band, planes, scores of two windows, a forward pass."""
    spec = model.spec
    planes = block_planes(plan, spec.micro_batch)
    band = 4 * band_rows(plan) * spec.outputs * plan.shape.x
    buffer = 4 * (planes + 48) * plan.padded.y * plan.padded.x
    patch = int(np.prod(spec.patch)) * spec.micro_batch
    channels = max(LEAST_CHANNELS, *spec.options.get("features", [CHANNELS])[:1], spec.outputs)
    weights = sum(len(network.as_bytes()) for network in model.networks)
    return BASE_BYTES + 2 * weights + band + buffer + 4 * patch * (3 * spec.outputs + MAPS * channels) + 6 * slab
