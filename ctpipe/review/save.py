"""A working copy becomes labels of the store: `labels/review-<key>`, immutable, its parent untouched."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from ctpipe.errors import BudgetError, RunError, UsageError
from ctpipe.review.working_copy import CopyRecord, WorkingCopy, disk_errors
from ctpipe.store import LabelsMeta
from ctpipe.store.runs import run_keys
from ctpipe.volume import Slab, slabs_of
from ctpipe.words import LabelKind, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ctpipe.store import GroupWriter, Labels, Series, Store


ALGORITHM = "review-1"  # enters the key: a change of what is saved for the same strokes gets another name


@dataclass(frozen=True)
class SaveResult:
    """What became of a save. name: the label group that holds this state, None where it equals its parent."""

    name: str | None
    new: bool  # False: nothing was written
    changed_voxels: int | None  # against the parent; None where the parent is gone

    def __str__(self) -> str:
        if self.name is None:
            return "nothing to save: no voxel differs from the labels that the copy was made from"
        if not self.new:
            return f"nothing to save: this state is already saved as {self.name}"
        changed = "" if self.changed_voxels is None else f", {self.changed_voxels} voxels changed"
        return f"saved as {self.name}{changed}"


def save_review(store: Store, series: Series, copy: WorkingCopy, progress: Progress = None) -> SaveResult:
    """Write the state of `copy` as a new label group of `series`; the copy stays and may be edited further.

    store: opened with mode "a". Two passes over the slabs: digests first, since the name is made of them.

    Raises: UsageError for painted labels that no class names, BudgetError where the disk is full (the half-written
        group is removed, the copy stays), StoreBusyError where someone saves the same state at this moment.
    """
    record = copy.record
    if record.grid_id != series.grid.grid_id:
        raise UsageError(
            f"the copy lies on grid {record.grid_id}, the volume on {series.grid.grid_id}", "open it again"
        )
    digests, changed = _survey(copy, _parent(series, record))
    if changed == 0:
        return SaveResult(None, False, 0)
    meta = LabelsMeta(
        name=f"review-{review_key(record, digests)}",
        kind=LabelKind.REVIEW,
        grid=series.grid,
        classes=dict(record.classes),
        dtype=str(copy.array.dtype),
        provenance=_provenance(record),
    )
    writer = store.labels_writer(series.id, meta)
    new = not writer.committed
    if new:
        with disk_errors(f"labels/{meta.name}", int(np.prod(series.grid.shape)) * copy.array.dtype.itemsize):
            _write(store, writer, copy, digests, progress)
    if meta.name not in run_keys(store.root):
        _note_effort(store, meta.name, copy)
    copy.note_saved(meta.name)
    return SaveResult(meta.name, new, changed)


def review_key(record: CopyRecord, digests: list[str]) -> str:
    """16 hex digits over everything that decides a review's bytes: parent, voxels, classes, reviewer."""
    facts = [
        ALGORITHM,
        record.grid_id,
        record.parent,
        record.parent_content,
        record.reviewer,
        sorted(record.classes.items()),
        digests,
    ]
    return sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _provenance(record: CopyRecord) -> dict[str, object]:
    run = record.parent if record.parent_kind == LabelKind.PREDICTION else None
    return {
        "algorithm": ALGORITHM,
        "parent": record.parent,
        "parent_content": record.parent_content,
        "parent_kind": record.parent_kind,
        "parent_run": run,
        "reviewer": record.reviewer,
    }


def _note_effort(store: Store, name: str, copy: WorkingCopy) -> None:
    """What the review cost, in runs/<name>.json: time and number of actions.

    Not in the group: the same voxels by other strokes, or in more time, are the same review under the same key, with
    the same bytes (docs/decisions/0013-corrections-as-a-journal.md).
    """
    journal = copy.journal
    kinds = Counter(journal.entry(n).kind for n in journal.stack.done)
    record = {
        "kind": "review",
        "series": copy.record.series,
        "parent_run": _provenance(copy.record)["parent_run"],
        "reviewer": copy.record.reviewer,
        "working_copy": copy.folder.name,
        "seconds": round(journal.active_s, 1),
        "actions": journal.actions,
        "undone": len(journal.stack.undone),
        "actions_by_kind": dict(sorted(kinds.items())),
        "journal": journal.entries[-1].digest.hex() if journal.entries else None,
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    store.write_run(name, record)


def _parent(series: Series, record: CopyRecord) -> Labels | None:
    """The labels that the copy was made from; None where they are gone, or hold other voxels now."""
    found = series.labels.get(record.parent) if record.parent is not None else None
    return found if found is not None and found.content == record.parent_content else None


def _survey(copy: WorkingCopy, parent: Labels | None) -> tuple[list[str], int | None]:
    """SHA-256 of each slab's voxels, and how many voxels differ from the parent (from background without one)."""
    gone = parent is None and copy.record.parent is not None
    digests, changed, seen = [], 0, np.zeros(np.iinfo(copy.array.dtype).max + 1, bool)
    for slab in slabs_of(copy.array.shape[0]):
        voxels = _planes(copy, slab)
        digests.append(sha256(voxels.tobytes()).hexdigest())
        before = 0 if parent is None else parent.read_planes(slab.start, slab.stop)
        changed += int(np.count_nonzero(voxels != before))
        seen[np.unique(voxels)] = True
    _refuse_unnamed(np.flatnonzero(seen).tolist(), copy.record.classes)
    return digests, None if gone else changed


def _refuse_unnamed(labels: list[int], classes: Mapping[int, str]) -> None:
    unnamed = [str(label) for label in labels if label != 0 and label not in classes]
    if unnamed:
        known = ", ".join(f"{label}={name}" for label, name in sorted(classes.items()))
        raise UsageError(
            f"painted labels without a class: {', '.join(unnamed)} (classes: {known})",
            "add a class, or undo or repaint these strokes",
        )


def _write(store: Store, writer: GroupWriter, copy: WorkingCopy, digests: list[str], progress: Progress) -> None:
    with store.lease(writer.target) as lease:
        try:
            writer.prepare()
            records = []
            for slab in writer.slabs:
                voxels = _planes(copy, slab)
                if sha256(voxels.tobytes()).hexdigest() != digests[slab.index]:
                    raise RunError("the copy was painted on while it was being saved", "save again")
                records.append(writer.done(slab) or writer.write_slab(slab, voxels))
                if progress is not None:
                    progress("save review", len(records), len(writer.slabs))
            writer.commit(records, lease)
        except (OSError, BudgetError):
            writer.discard()  # a full disk has better use for the space of half a group
            raise


def _planes(copy: WorkingCopy, slab: Slab) -> np.ndarray:
    return np.ascontiguousarray(copy.array[slab.start : slab.stop])
