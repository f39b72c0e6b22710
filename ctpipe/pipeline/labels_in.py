"""Truth labels in: structures brought onto the grids of volumes by patient coordinates, slab by slab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from distributed import Client

from ctpipe import dicom
from ctpipe.cluster import client_for, run_tasks
from ctpipe.dicom import Assignment, ClassTable, Pseudonyms, Structure, Verdict
from ctpipe.errors import UsageError
from ctpipe.pipeline.keys import truth_key
from ctpipe.pipeline.reports import TakenLabels
from ctpipe.store import GroupWriter, LabelsMeta, SlabRecord, Store
from ctpipe.volume import Grid, Slab, slabs_of
from ctpipe.words import LabelKind, Progress, VerdictKind


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


def take_labels(
    paths: Sequence[str | Path], table: ClassTable, pseudonyms: Pseudonyms, store: Store, ids: list[str],
    client: Client | None, progress: Progress,
) -> tuple[list[TakenLabels], list[Verdict], list[str]]:
    """(label groups, faults, structures that no class takes) of everything given as labels.

    ids: the volumes that labels may belong to.
    """
    structures = dicom.read_structures(paths, pseudonyms)
    all_names = table.assign(structures.found)
    if all_names.empty and structures.found:
        error = UsageError(f"no structure matches class {', '.join(all_names.empty)}",
                           "name the structure after the class, as in --classes lesion=1:GTV")  # fmt: skip
        # free text of a file: for the user's own screen only, never for a log or Prefect's database (P3)
        error.add_note(f"the labels hold: {', '.join(sorted({s.name for s in structures.found})[:40])}")
        raise error
    uneven = [series_id for series_id in ids if store[series_id].attributes.get("uneven_planes")]
    grids = {series_id: store[series_id].grid for series_id in ids if series_id not in uneven}
    matched, misfits = dicom.match_structures(structures.found, grids)
    taken: list[TakenLabels] = []
    for number, (series_id, found) in enumerate(sorted(matched.items())):
        assignment = table.assign(found)
        if assignment.by_label:
            taken.append(_write_labels(store, series_id, table, assignment, client))
        if progress:
            progress("labels", number + 1, len(matched))
    return taken, [*structures.refused, *misfits, *map(_uneven, uneven)], list(all_names.unused)


def _uneven(series_id: str) -> Verdict:
    detail = f"planes of volume {series_id} stand at their own positions: labels cannot be placed by its affine"
    return Verdict(VerdictKind.REJECT, "uneven-spacing", detail, "label a volume of even planes", 0, None)


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
