"""Run records: inputs, model hash, settings, versions, hosts and timings of one run. They decide nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctpipe.errors import NotThereError, StoreFaultError
from ctpipe.store import commit, files
from ctpipe.store.commit import CURE
from ctpipe.store.layout import FORMAT, RUNS, checked_name


def write_run(root: Path, run_key: str, record: dict[str, Any]) -> None:
    """Write or replace the record of a run, whole."""
    path = root / RUNS / f"{checked_name(run_key, 'the run key')}.json"
    files.write_atomic(path, commit.sealed({"format": FORMAT, "run": run_key, "record": record}))


def read_run(root: Path, run_key: str) -> dict[str, Any]:
    """The record of a run; NotThereError where there is none, StoreFaultError where it changed."""
    document = commit.read_sealed(root / RUNS / f"{run_key}.json", f"run record {run_key}")
    if document is None:
        raise NotThereError(f"there is no run {run_key}", "choose one of .runs()")
    if document.get("run") != run_key or not isinstance(document.get("record"), dict):
        raise StoreFaultError(f"run record {run_key} is not what ctpipe writes", CURE)
    return document["record"]


def run_keys(root: Path) -> list[str]:
    """Keys of all run records, sorted."""
    return [name.removesuffix(".json") for name in files.names(root / RUNS) if name.endswith(".json")]
