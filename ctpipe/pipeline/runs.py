"""Run records: what a run was made of, for people. They decide nothing but where a run goes on."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

from ctpipe.errors import NotThereError
from ctpipe.pipeline.reports import Run
from ctpipe.store import Series, Store
from ctpipe.words import Device


def run_record(run: Run, series: Series, device: Device, settings: dict[str, Any]) -> dict[str, Any]:
    """The record of a run: times, host and versions stand only here, never under *.ome.zarr.

    settings: what the kind of model adds: its digest, its recipe, how it predicted.
    """
    return {
        "series": series.id,
        "content": series.content,
        **settings,
        "device": str(device),
        "host": platform.node(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("ctpipe", "torch", "numpy", "scipy", "zarr", "dask")},
        "windows": run.windows,
        "seconds": round(run.seconds, 3),
        "slabs": run.slabs,
        "resumed": run.resumed,
    }


class Outcome(Protocol):
    """What a task tells of its slabs: windows scored, slabs found (one or none as a bool)."""

    @property
    def windows(self) -> int: ...

    @property
    def found(self) -> int: ...


def run_of(store: Store, series: Series, key: str, slabs: int, began: float, outcomes: Sequence[Outcome] | None) -> Run:
    """A run that ended now. began: by time.monotonic. outcomes: of the tasks that made its labels; None: of a run whose
    labels were there.
    """
    seconds = time.monotonic() - began
    if outcomes is None:
        return Run(series.id, key, _windows_of(store, key), seconds, slabs, 0, known=True)
    return Run(series.id, key, sum(one.windows for one in outcomes), seconds, slabs, sum(one.found for one in outcomes))


def _windows_of(store: Store, key: str) -> int:
    """How many windows a committed run took, as its record tells; 0 where that was lost."""
    try:
        return int(store.run(key).get("windows", 0))
    except NotThereError:
        return 0


def continued_record(series: Series, model: str, onward: str) -> dict[str, Any]:
    """The record of a run that was given up for want of memory, and goes on as the run `onward`, from its beginning."""
    return {"series": series.id, "content": series.content, "model": model, "continued_as": onward}


def continued(store: Store, series: Series, key: str) -> bool:
    """Whether the run was given up for another one; a committed run never was."""
    if key in series.labels:
        return False
    try:
        return "continued_as" in store.run(key)
    except NotThereError:
        return False
