"""Infer: a model over the volumes of a store, each run a committed label volume; several volumes in flight.

What a run over one volume takes is the model's affair (`classifying`); here it is a generator of waves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from distributed import Client

from ctpipe.cluster import client_for
from ctpipe.errors import UsageError
from ctpipe.models import Model, load_model
from ctpipe.pipeline import classifying
from ctpipe.pipeline.reports import InferReport
from ctpipe.pipeline.stages import SlabCounter, store_for_writing
from ctpipe.pipeline.waves import Volume, run_volumes
from ctpipe.predict import notes, require_exact
from ctpipe.store import Store
from ctpipe.volume import slabs_of
from ctpipe.words import Device, Exact, Progress


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
    loaded = model if isinstance(model, Model) else load_model(model)
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
    counter = SlabCounter("infer", progress, n_slabs)
    volumes = [
        Volume(name, partial(classifying.volume_work, target, target[name], loaded, folder, counter, Device.CPU))
        for name in chosen
    ]
    with client_for(n_slabs, client) as workers:
        runs, failed = run_volumes(workers, volumes, counter, Device.CPU)
    return InferReport(tuple(runs.values()), failed, told)


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
