"""Infer: a model over the volumes of a store, each run a committed label volume; several volumes in flight.

What a run over one volume takes is the model's affair (`classifying`); here it is a generator of waves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, overload

from distributed import Client

from ctpipe.cluster import client_for
from ctpipe.errors import UsageError
from ctpipe.models import Model, Segmenter, load_model
from ctpipe.pipeline import classifying, segmenting
from ctpipe.pipeline.planning import plan_runs
from ctpipe.pipeline.plans import InferPlan
from ctpipe.pipeline.reports import InferReport, Run
from ctpipe.pipeline.segment_planning import plan_segment_runs
from ctpipe.pipeline.stages import SlabCounter, store_for_writing
from ctpipe.pipeline.waves import Volume, Work, run_volumes
from ctpipe.predict import notes, require_exact
from ctpipe.store import Store
from ctpipe.volume import slabs_of
from ctpipe.words import Device, Exact, Progress


@overload
def infer(
    store: str | Path | Store,
    model: str | Path | Model | Segmenter,
    series: Sequence[str] | str | None = None,
    client: Client | None = None,
    plan: Literal[False] = False,
    *,
    exact: Exact | str = Exact.AUTO,
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
    progress: Progress = None,
) -> InferReport | InferPlan:
    """Predict every volume of `store` (or only `series`, ids or unambiguous prefixes) with `model`.

    model: a folder written by `train` or `ctpipe models import`, or what `load_model` gave. exact: `required` refuses
    a classifier that would have to be evaluated window by window. One failing volume does not stop the
    others: it is in the report. plan: do nothing, tell what it would cost and whether it fits.
    """
    wished = _exact(exact)
    target = store if isinstance(store, Store) else store_for_writing(store)
    loaded = model if isinstance(model, Model | Segmenter) else load_model(model)
    told = _told(loaded, wished)
    for note in told:  # before the work, which may be long
        logging.getLogger("ctpipe").warning("%s", note)
    wanted = [series] if isinstance(series, str) else list(series) if series else sorted(target)
    chosen = list(dict.fromkeys(target[name].id for name in wanted))
    if plan:
        return _planned(target, loaded, chosen, client)
    folder = keep_model(target, loaded)
    n_slabs = sum(len(slabs_of(target[name].grid.shape.z)) for name in chosen) * _depth(loaded)
    counter = SlabCounter("infer", progress, n_slabs)
    threads = loaded.spec.threads if isinstance(loaded, Segmenter) else 1
    with client_for(n_slabs, client, cores_a_task=threads) as workers:
        spans = segmenting.spans_for(_workers(workers), len(chosen))
        volumes = [Volume(name, _work(target, name, loaded, folder, counter, spans)) for name in chosen]
        runs, failed = run_volumes(workers, volumes, counter, Device.CPU)
    return InferReport(tuple(runs.values()), failed, told)


def _planned(store: Store, model: Model | Segmenter, chosen: Sequence[str], client: Client | None) -> InferPlan:
    """What it would cost."""
    if isinstance(model, Segmenter):
        return plan_segment_runs(store, model, chosen, client)
    return plan_runs(store, model, chosen, client, Device.CPU)


def _work(
    store: Store, series: str, model: Model | Segmenter, folder: Path, counter: SlabCounter, spans: int
) -> Callable[[], Work[Run]]:
    """What begins the work on one volume."""
    if isinstance(model, Segmenter):
        return lambda: segmenting.volume_work(store, store[series], model, folder, counter, Device.CPU, spans)
    return lambda: classifying.volume_work(store, store[series], model, folder, counter, Device.CPU)


def _told(model: Model | Segmenter, wished: Exact) -> tuple[str, ...]:
    """What the user should know of how the model is evaluated; UsageError where that is not as `wished`."""
    if isinstance(model, Segmenter):
        if wished is Exact.REQUIRED:
            raise UsageError("exact=required is for classifiers: this model scores every voxel of a window",
                             "leave it out")
        return ()
    if wished is Exact.REQUIRED:
        require_exact(model)
    return tuple(notes(model))


def _workers(client: Client | None) -> int:
    return 1 if client is None else max(1, len(client.scheduler_info(n_workers=-1)["workers"]))


def _exact(word: Exact | str) -> Exact:
    try:
        return Exact(word)
    except ValueError as error:
        raise UsageError(f"exact {word!r} is unknown", f"choose one of: {', '.join(Exact)}") from error


def _depth(model: Model | Segmenter) -> int:
    return 1 + (_depth(model.before) if isinstance(model, Model) and model.before else 0)


def keep_model(store: Store, model: Model | Segmenter) -> Path:
    """STORE/models/<digest>: where workers and later readers of a run find the model."""
    folder = store.root / "models" / model.digest
    if not (folder / "model.json").is_file():
        model.save(folder)
    return folder
