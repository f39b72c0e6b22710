"""Ingest: what was given -> verdicts -> committed volumes and truth labels, slab by slab.

Order of things: everything is judged first (nothing is written), then each accepted volume gets a lease, its missing
slabs are written by tasks, and one small file commits it. A call that was killed goes on where it stopped, since a
slab that is whole is not written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from ctpipe import dicom
from ctpipe.cluster import client_for, run_tasks
from ctpipe.dicom import Assignment, ClassTable, Pseudonyms, Structure, Verdict, VolumeSource
from ctpipe.errors import InputError, StoreBusyError, UsageError
from ctpipe.pipeline.keys import truth_key
from ctpipe.pipeline.reports import IngestReport, TakenLabels, TakenVolume
from ctpipe.store import GroupWriter, LabelsMeta, SlabRecord, Store, VolumeMeta, open_store
from ctpipe.volume import Grid, Slab, slabs_of
from ctpipe.words import LabelKind, VerdictKind

Progress = Callable[[str, int, int], None] | None


def check(paths: Sequence[str | Path] | str | Path, progress: Progress = None) -> list[Verdict]:
    """A verdict for every volume found under `paths`; nothing is written.

    paths: folders, files, .zip or .tar archives. Raises NotThereError for a path that does not exist.
    """
    return dicom.check(_paths(paths), progress=progress)


def ingest(
    paths: Sequence[str | Path] | str | Path,
    store: str | Path | Store,
    labels: Sequence[str | Path] | str | Path | None = None,
    classes: str | Path | ClassTable | None = None,
    *,
    keep_uids: bool = False,
    client: Client | None = None,
    progress: Progress = None,
) -> IngestReport:
    """Take every plainly right CT volume under `paths` into `store`, and truth labels where they are given.

    labels: folders or files with mask series, NIfTI label volumes or RTSTRUCTs; never taken for CT.
    classes: which structure becomes which label (ClassTable, its text form, or a TOML file); needed with `labels`.
    keep_uids: keep DICOM UIDs instead of pseudonyms (PS3.15 "retain UIDs").
    Raises UsageError when labels come without classes or a class takes nothing; what is wrong with one series never
    stops the others: it is in the report.
    """
    table = _class_table(labels, classes)
    label_paths = _paths(labels) if labels else []
    target = store if isinstance(store, Store) else open_store(store, mode="a")
    pseudonyms = dicom.load_pseudonyms(keep_uids=keep_uids)
    verdicts = dicom.check(_paths(paths), pseudonyms, exclude=label_paths, progress=progress)
    taken, others = _take_volumes(verdicts, target, client, progress)
    if table is None:
        return IngestReport(str(target.root), tuple(taken), tuple(others))
    ids = list(dict.fromkeys(volume.id for volume in taken))
    named, faults, unused = _take_labels(label_paths, table, pseudonyms, target, ids, client, progress)
    return IngestReport(str(target.root), tuple(taken), tuple(others), tuple(named), tuple(faults), tuple(unused))


def _paths(paths: Sequence[str | Path] | str | Path) -> list[Path]:
    return [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]


def _class_table(labels: Any, classes: Any) -> ClassTable | None:
    if labels and classes is None:
        raise UsageError("labels were given but no classes", "add --classes, such as --classes liver=1,livertumor=2")
    if classes is not None and not labels:
        raise UsageError("classes were given but no labels", "add --labels with mask folders, NIfTI or RTSTRUCT files")
    if classes is None or isinstance(classes, ClassTable):
        return classes
    text = str(classes)
    return ClassTable.load(Path(text)) if text.endswith(".toml") else ClassTable.parse(text)


# ---------------------------------------------------------------------------------------------- volumes
@dataclass(frozen=True)
class VolumeTask:
    """One slab of one volume: small values only, so that any worker on the same file system can do it."""

    writer: GroupWriter
    source: VolumeSource
    slab: Slab


def write_volume_slab(task: VolumeTask) -> SlabRecord | str:
    """The record of the slab, written unless it already lies there whole; or, where the input fails, what is wrong."""
    done = task.writer.done(task.slab)
    if done is not None:
        return done
    try:
        voxels = dicom.read_planes(task.source, task.slab.start, task.slab.stop)
    except InputError as error:  # one bad series never stops the others
        return str(error)
    return task.writer.write_slab(task.slab, voxels)


def _take_volumes(
    verdicts: list[Verdict], store: Store, client: Client | None, progress: Progress
) -> tuple[list[TakenVolume], list[Verdict]]:
    """(committed volumes, verdicts of the rest) of all verdicts, each in their order."""
    outcomes: dict[int, TakenVolume | Verdict] = {}
    to_write: dict[int, _Volume] = {}
    seen: set[str] = set()
    for number, verdict in enumerate(verdicts):
        source = verdict.source
        if source is None:
            outcomes[number] = verdict
        elif source.series_id in store:
            outcomes[number] = TakenVolume(verdict, source.series_id, known=True)
        elif source.series_id in seen:  # the same series given twice
            outcomes[number] = _same_voxels(verdict, source.series_id)
        else:
            seen.add(source.series_id)
            to_write[number] = _Volume(verdict, source, store.volume_writer(_volume_meta(source)))
    outcomes |= _write_volumes(to_write, store, client, progress)
    in_order = [outcomes[number] for number in sorted(outcomes)]
    return [o for o in in_order if isinstance(o, TakenVolume)], [o for o in in_order if isinstance(o, Verdict)]


@dataclass
class _Volume:
    """A volume on its way into the store."""

    verdict: Verdict
    source: VolumeSource
    writer: GroupWriter
    held: ExitStack = field(default_factory=ExitStack)  # its lease, let go as soon as it is committed
    lease: Any = None
    records: dict[int, SlabRecord] = field(default_factory=dict)
    fault: str | None = None


def _write_volumes(
    volumes: dict[int, _Volume], store: Store, client: Client | None, progress: Progress
) -> dict[int, TakenVolume | Verdict]:
    """Write the missing slabs of all volumes, several in flight, and commit each as its last slab is done."""
    outcomes: dict[int, TakenVolume | Verdict] = {}
    numbers = {volume.writer.target: number for number, volume in volumes.items()}
    n_slabs = sum(len(volume.writer.slabs) for volume in volumes.values())

    def tasks() -> Iterator[VolumeTask]:  # a lease is taken only when the first slab of its volume is handed out
        for number, volume in volumes.items():
            try:
                volume.lease = volume.held.enter_context(store.lease(volume.writer.target))
            except StoreBusyError as error:
                outcomes[number] = _failed(volume.verdict, str(error))
                continue
            all_leases.push(volume.held.__exit__)
            volume.writer.prepare()
            for slab in volume.writer.slabs:
                yield VolumeTask(volume.writer, volume.source, slab)

    with client_for(n_slabs, client) as workers, ExitStack() as all_leases:
        done = run_tasks(workers, write_volume_slab, tasks())
        for count, (task, result) in enumerate(done, start=1):
            number = numbers[task.writer.target]
            volume = volumes[number]
            if isinstance(result, str):
                volume.fault = volume.fault or result
                outcomes[number] = _failed(volume.verdict, volume.fault)
            else:
                volume.records[task.slab.index] = result
            if len(volume.records) == len(volume.writer.slabs):
                outcomes[number] = _commit_volume(store, volume)
                volume.held.close()
            if progress:
                progress("ingest", count, n_slabs)
    return outcomes


def _volume_meta(source: VolumeSource) -> VolumeMeta:
    return VolumeMeta(
        id=source.series_id,
        grid=source.grid,
        dtype=source.dtype,
        patient=source.patient,
        study=source.study,
        series=source.series,
        voi=source.voi,
        attributes=dict(source.attributes),
        provenance={"notes": list(source.notes), "planes": len(source.planes)},
    )


def _commit_volume(store: Store, volume: _Volume) -> TakenVolume | Verdict:
    """Commit, unless the store holds the same voxels on the same grid under another name."""
    records = [record for _, record in sorted(volume.records.items())]
    twin = store.find_content(volume.writer.content(records), volume.source.grid)
    if twin is not None:
        volume.writer.discard()
        return _same_voxels(volume.verdict, twin)
    volume.writer.commit(records, volume.lease, dicom.plane_table(volume.source))
    return TakenVolume(volume.verdict, volume.source.series_id)


def _same_voxels(verdict: Verdict, twin: str) -> Verdict:
    return replace(
        verdict, kind=VerdictKind.SET_ASIDE, reason="duplicate-content", source=None,
        detail=f"the same voxels on the same grid are in the store as {twin}; not committed twice",
        cure="none needed; use the volume that is there",
    )  # fmt: skip


def _failed(verdict: Verdict, fault: str) -> Verdict:
    return replace(verdict, kind=VerdictKind.REJECT, reason="unreadable", source=None, detail=fault,
                   cure="see the message, then run the same command again: what is finished is kept")  # fmt: skip


# ---------------------------------------------------------------------------------------------- truth labels
@dataclass(frozen=True)
class LabelTask:
    """One slab of one truth label volume."""

    writer: GroupWriter
    assignment: Assignment
    grid: Grid
    slab: Slab
    n_classes: int


def write_label_slab(task: LabelTask) -> tuple[SlabRecord, list[int]]:
    """(record, voxels per label 0..n) of the slab, made from the structures by patient coordinates."""
    voxels = dicom.label_planes(task.assignment, task.grid, task.slab.start, task.slab.stop)
    counts = np.bincount(voxels.ravel(), minlength=task.n_classes + 1).tolist()
    return task.writer.done(task.slab) or task.writer.write_slab(task.slab, voxels), counts


def _take_labels(
    paths: list[Path], table: ClassTable, pseudonyms: Pseudonyms, store: Store, ids: list[str], client: Client | None,
    progress: Progress,
) -> tuple[list[TakenLabels], list[Verdict], list[str]]:
    """(label groups, faults, structures that no class takes) of everything given as labels."""
    structures = dicom.read_structures(paths, pseudonyms)
    all_names = table.assign(structures.found)
    if all_names.empty and structures.found:
        error = UsageError(f"no structure matches class {', '.join(all_names.empty)}",
                           "name the structure after the class, as in --classes lesion=1:GTV")  # fmt: skip
        # free text of a file: for the user's own screen only, never for a log or Prefect's database (P3)
        error.add_note(f"the labels hold: {', '.join(sorted({s.name for s in structures.found})[:40])}")
        raise error
    grids = {series_id: store[series_id].grid for series_id in ids}
    matched, misfits = dicom.match_structures(structures.found, grids)
    taken: list[TakenLabels] = []
    for number, (series_id, found) in enumerate(sorted(matched.items())):
        assignment = table.assign(found)
        if assignment.by_label:
            taken.append(_write_labels(store, series_id, table, assignment, client))
        if progress:
            progress("labels", number + 1, len(matched))
    return taken, [*structures.refused, *misfits], list(all_names.unused)


def _write_labels(
    store: Store, series_id: str, table: ClassTable, assignment: Assignment, client: Client | None
) -> TakenLabels:
    series = store[series_id]
    used: list[Structure] = [structure for _, structure in assignment.by_label]
    name = f"truth-{truth_key(series, table.classes, assignment)}"
    meta = LabelsMeta(
        name=name, kind=LabelKind.TRUTH, grid=series.grid, classes=table.classes,
        dtype="uint8" if max(table.classes) < 256 else "uint16",
        provenance={"structures": sorted({f"{s.kind}:{s.name}" for s in used}),
                    "priority": list(table.classes.values())},
    )  # fmt: skip
    writer = store.labels_writer(series_id, meta)
    if writer.committed:
        return TakenLabels(series_id, name, table.classes, _count(store, series_id, name), known=True)
    counts = np.zeros(max(table.classes) + 1, np.int64)
    with store.lease(writer.target) as lease, client_for(len(writer.slabs), client) as workers:
        writer.prepare()
        records: dict[int, SlabRecord] = {}
        tasks = [LabelTask(writer, assignment, series.grid, slab, max(table.classes)) for slab in writer.slabs]
        for task, (record, slab_counts) in run_tasks(workers, write_label_slab, tasks):
            records[task.slab.index] = record
            counts += slab_counts
        writer.commit([records[i] for i in sorted(records)], lease)
    return TakenLabels(series_id, name, table.classes, {c: int(counts[k]) for k, c in table.classes.items()})


def _count(store: Store, series_id: str, name: str) -> dict[str, int]:
    labels = store[series_id].labels[name]
    counts = np.zeros(max(labels.classes) + 1, np.int64)
    for slab in slabs_of(labels.grid.shape.z):
        counts += np.bincount(labels.read_planes(slab.start, slab.stop).ravel(), minlength=len(counts))
    return {name: int(counts[k]) for k, name in labels.classes.items()}
