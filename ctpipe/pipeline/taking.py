"""Ingest: what was given -> verdicts -> committed volumes and truth labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client

from ctpipe import dicom
from ctpipe.cluster import client_for, run_tasks
from ctpipe.dicom import ClassTable, Options, Verdict
from ctpipe.errors import UsageError
from ctpipe.pipeline.labels_in import take_labels
from ctpipe.pipeline.reports import IngestReport
from ctpipe.pipeline.volumes_in import take_volumes
from ctpipe.store import Store, open_store
from ctpipe.words import Progress

Paths = Sequence[str | Path] | str | Path

# One slab of 32 planes of 512 x 512 int16: how much input makes a task of about a tenth of a second.
BYTES_A_TASK = 16 << 20
# Planes are read, decoded and compressed without Python's lock, so threads of one process do as well as processes and
# need no start of seconds; four is where the rest of the work, which holds the lock, begins to count.
THREADS_A_WORKER = 4


def check(
    paths: Paths,
    progress: Progress = None,
    *,
    on_gap: str = "reject",
    on_tilt: str = "reject",
    on_step_change: str = "reject",
    client: Client | None = None,
) -> list[Verdict]:
    """A verdict for every volume found under `paths`, every voxel looked at; nothing is written.

    paths: folders, files, .zip or .tar archives. on_gap, on_tilt, on_step_change: as `ingest` would be told. Raises
    NotThereError for a path that does not exist.
    """
    options = Options(on_gap, on_tilt, on_step_change)
    unfetched: list[Verdict] = []
    with dicom.fetch(_paths(paths), progress, unfetched) as given, _workers(given, (), client) as workers:
        verdicts = dicom.check(given, progress=progress, options=options, run=partial(run_tasks, workers))
    return [*verdicts, *unfetched]


def ingest(
    paths: Paths,
    store: str | Path | Store,
    labels: Paths | None = None,
    classes: str | Path | ClassTable | None = None,
    *,
    on_gap: str = "reject",
    on_tilt: str = "reject",
    on_step_change: str = "reject",
    keep_uids: bool = False,
    client: Client | None = None,
    progress: Progress = None,
) -> IngestReport:
    """Take every plainly right CT volume under `paths` into `store`, and truth labels where they are given.

    labels: folders or files with mask series, NIfTI or NRRD label volumes, DICOM SEG or RTSTRUCT; never taken for CT.
    classes: which structure becomes which label (ClassTable, its text form, or a TOML file); needed with `labels`.
    on_gap: reject | keep-positions; on_tilt: reject | resample | keep; on_step_change: reject | split.
    keep_uids: keep DICOM UIDs instead of pseudonyms (PS3.15 "retain UIDs").
    Raises UsageError when labels come without classes or a class takes nothing; what is wrong with one series never
    stops the others: it is in the report.
    """
    options = Options(on_gap, on_tilt, on_step_change)
    table = _class_table(labels, classes)
    unfetched: list[Verdict] = []
    target = store if isinstance(store, Store) else open_store(store, mode="a")
    pseudonyms = dicom.load_pseudonyms(keep_uids=keep_uids)
    with (
        dicom.fetch(_paths(paths), progress, unfetched) as given,
        dicom.fetch(_paths(labels or []), progress) as label_paths,
        _workers(given, label_paths, client) as workers,
    ):
        run = partial(run_tasks, workers)
        fetched = [path for path, asked in zip(given, _paths(paths), strict=True) if path != asked]
        with dicom.Examination(
            given, pseudonyms, options, label_paths, run, progress, target.index_file, fetched
        ) as found:
            taken, others = take_volumes(found, target, workers, progress)
            opened = found.index.opened
        report = IngestReport(str(target.root), tuple(taken), (*others, *unfetched), opened=opened)
        if table is not None:
            ids = list(dict.fromkeys(volume.id for volume in taken))
            named, faults, unused = take_labels(label_paths, table, pseudonyms, target, ids, workers, progress)
            report = replace(report, labels=tuple(named), label_faults=tuple(faults), unused=tuple(unused))
    target.write_verdicts(report.verdict_rows())
    return report


def _workers(paths: Sequence[str | Path], exclude: Sequence[str | Path], client: Client | None) -> Any:
    """The cluster for this much input."""
    n_bytes = sum(item.size for item in dicom.walk(paths, exclude))
    return client_for(n_bytes // BYTES_A_TASK, client, threads_a_worker=THREADS_A_WORKER)


def _paths(paths: Paths) -> list[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else list(paths)  # URLs stay as they are


def _class_table(labels: Any, classes: Any) -> ClassTable | None:
    if labels and classes is None:
        raise UsageError("labels were given but no classes", "add --classes, such as --classes liver=1,livertumor=2")
    if classes is not None and not labels:
        raise UsageError("classes were given but no labels", "add --labels with mask folders, NIfTI or RTSTRUCT files")
    if classes is None or isinstance(classes, ClassTable):
        return classes
    text = str(classes)
    return ClassTable.load(Path(text)) if text.endswith(".toml") else ClassTable.parse(text)
