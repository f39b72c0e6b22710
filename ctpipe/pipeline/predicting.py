"""Infer: a model over the volumes of a store, each run a committed label volume; several volumes in flight.

What a run over one volume takes is the model's affair (`classifying`); here it is a generator of waves.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar, overload

from distributed import Client

from ctpipe.cluster import client_for
from ctpipe.errors import RunError, UsageError
from ctpipe.models import Model, Segmenter, load_model
from ctpipe.models.device import ready
from ctpipe.pipeline import classifying, segmenting
from ctpipe.pipeline.layering import checked_layers
from ctpipe.pipeline.planning import plan_runs
from ctpipe.pipeline.plans import InferPlan
from ctpipe.pipeline.reports import InferReport, Run
from ctpipe.pipeline.segment_planning import plan_segment_runs
from ctpipe.pipeline.stages import SlabCounter, store_for_writing
from ctpipe.pipeline.tail import shares_for
from ctpipe.pipeline.waves import Volume, Work, run_volumes
from ctpipe.predict import notes, require_exact
from ctpipe.store import Store
from ctpipe.volume import slabs_of
from ctpipe.words import Device, Exact, LayerKind, Progress

Word = TypeVar("Word", bound=StrEnum)


@overload
def infer(
    store: str | Path | Store,
    model: str | Path | Model | Segmenter,
    series: Sequence[str] | str | None = None,
    client: Client | None = None,
    plan: Literal[False] = False,
    *,
    exact: Exact | str = Exact.AUTO,
    device: Device | str = Device.CPU,
    uncertainty: bool = False,
    layers: Sequence[LayerKind | str] | str = (),
    progress: Progress = None,
) -> InferReport: ...


@overload
def infer(
    store: str | Path | Store,
    model: str | Path | Model | Segmenter,
    series: Sequence[str] | str | None = None,
    client: Client | None = None,
    *,
    plan: Literal[True],
    exact: Exact | str = Exact.AUTO,
    device: Device | str = Device.CPU,
    progress: Progress = None,
) -> InferPlan: ...


def infer(
    store: str | Path | Store,
    model: str | Path | Model | Segmenter,
    series: Sequence[str] | str | None = None,
    client: Client | None = None,
    plan: bool = False,
    *,
    exact: Exact | str = Exact.AUTO,
    device: Device | str = Device.CPU,
    uncertainty: bool = False,
    layers: Sequence[LayerKind | str] | str = (),
    progress: Progress = None,
) -> InferReport | InferPlan:
    """Predict every volume of `store` (or only `series`, ids or unambiguous prefixes) with `model`.

    model: a folder written by `train` or `ctpipe models import`, or what `load_model` gave. exact: `required` refuses
    a classifier that would have to be evaluated window by window. device: what forward passes run on, part of the run
    key; `cuda` goes to workers that were started with the resource GPU, or to the GPU of this machine. One failing
    volume does not stop the others: it is in the report. uncertainty: also note in the store how unsure the model is of
    each volume (mean entropy of what it labels, 0 to 1), from the same pass; where a run lies there already, its scores
    are found again. layers: also keep of each run its class `probabilities`, their `entropy` and, of a model with
    folds, their `spread` (`series.labels[run].layers`); only those that lack are made. plan: do nothing, tell what it
    would cost and whether it fits.
    """
    wished, on = _word(Exact, "exact", exact), _word(Device, "device", device)
    target = store if isinstance(store, Store) else store_for_writing(store)
    loaded = model if isinstance(model, Model | Segmenter) else load_model(model)
    told, kinds = _told(loaded, wished), checked_layers(layers, loaded)
    for note in told:  # before the work, which may be long
        logging.getLogger("ctpipe").warning("%s", note)
    wanted = [series] if isinstance(series, str) else list(series) if series else sorted(target)
    chosen = list(dict.fromkeys(target[name].id for name in wanted))
    if plan:
        return _planned(target, loaded, chosen, client, on)
    folder = keep_model(target, loaded)
    n_slabs = sum(len(slabs_of(target[name].grid.shape.z)) for name in chosen) * _depth(loaded)
    counter = SlabCounter("infer", progress, n_slabs)
    threads = loaded.spec.threads if isinstance(loaded, Segmenter) else 1
    n_tasks = n_slabs
    if isinstance(loaded, Model):
        n_tasks = sum(classifying.tasks_at_once(loaded, target[name]) for name in chosen)
    with _workers_for(on, n_tasks, client, threads) as workers:
        shares = shares_for(_workers(workers), len(chosen))
        volumes = [
            Volume(name, _work(target, name, loaded, folder, counter, on, shares, uncertainty, kinds))
            for name in chosen
        ]
        runs, failed = run_volumes(workers, volumes, counter, on)
    done = runs.values() if not kinds else [replace(run, layers=_layers_of(target, run)) for run in runs.values()]
    return InferReport(tuple(done), failed, told)


def uncertainty_of(
    store: str | Path | Store, model: str | Path | Model | Segmenter, series: Sequence[str] | str | None = None,
    client: Client | None = None, progress: Progress = None,
) -> dict[str, float]:  # fmt: skip
    """{volume: how unsure `model` is of it, 0 to 1}: the order of a worklist. Predicts what has no run yet.

    The mean entropy of the class scores, as a share of its highest, over the window centres that the model labels as
    something (a segmenter: over voxels of every fourth plane); 1 where it finds nothing. It is kept in
    STORE/reviews/uncertainty-<model>.json, where `Store.uncertainty` reads it without a model; what is there is not
    computed again. RunError names what failed.
    """
    report = infer(store, model, series, client, uncertainty=True, progress=progress)
    if report.failed:
        name, fault = next(iter(report.failed.items()))
        raise RunError(f"{len(report.failed)} volume(s) failed; {name}: {fault}", "predict the others with `series`")
    return {run.series: run.uncertainty for run in report.runs if run.uncertainty is not None}


def _planned(
    store: Store, model: Model | Segmenter, chosen: Sequence[str], client: Client | None, device: Device
) -> InferPlan:
    """What it would cost."""
    if isinstance(model, Segmenter):
        return plan_segment_runs(store, model, chosen, client, device)
    return plan_runs(store, model, chosen, client, device)


def _work(
    store: Store,
    series: str,
    model: Model | Segmenter,
    folder: Path,
    counter: SlabCounter,
    device: Device,
    shares: int,
    uncertainty: bool,
    layers: Sequence[LayerKind],
) -> Callable[[], Work[Run]]:
    """What begins the work on one volume."""
    if isinstance(model, Segmenter):
        return lambda: segmenting.volume_work(store, store[series], model, folder, counter, device, shares, uncertainty,
                                              layers)  # fmt: skip
    return lambda: classifying.volume_work(store, store[series], model, folder, counter, device, uncertainty, layers,
                                           shares)  # fmt: skip


def _layers_of(store: Store, run: Run) -> tuple[str, ...]:
    return tuple(store[run.series].labels[run.run].layers)


def _told(model: Model | Segmenter, wished: Exact) -> tuple[str, ...]:
    """What the user should know of how the model is evaluated; UsageError where that is not as `wished`."""
    if isinstance(model, Segmenter):
        if wished is Exact.REQUIRED:
            raise UsageError(
                "exact=required is for classifiers: this model scores every voxel of a window", "leave it out"
            )
        return ()
    if wished is Exact.REQUIRED:
        require_exact(model)
    return tuple(notes(model))


def _workers(client: Client | None) -> int:
    return 1 if client is None else max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def _workers_for(
    device: Device, n_tasks: int, client: Client | None, threads: int
) -> AbstractContextManager[Client | None]:
    """The cluster, or None for this process. Without a cluster the one GPU of this machine is this process's."""
    if device is Device.CUDA and client is None and not os.environ.get("CTPIPE_CLUSTER"):
        ready(device)
        return nullcontext()
    return client_for(n_tasks, client, cores_a_task=threads)


def _word(kind: type[Word], name: str, word: Word | str) -> Word:
    try:
        return kind(word)
    except ValueError as error:
        raise UsageError(f"{name} {word!r} is unknown", f"choose one of: {', '.join(kind)}") from error


def _depth(model: Model | Segmenter) -> int:
    return 1 + (_depth(model.before) if isinstance(model, Model) and model.before else 0)


def keep_model(store: Store, model: Model | Segmenter) -> Path:
    """STORE/models/<digest>: where workers and later readers of a run find the model."""
    folder = store.root / "models" / model.digest
    if not (folder / "model.json").is_file():
        model.save(folder)
    return folder
