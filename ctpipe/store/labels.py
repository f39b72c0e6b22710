"""The label groups of one volume as a set: their names, the index for other readers, which came after which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctpipe.store import commit, files
from ctpipe.store.layout import COMMIT, LABELS, PARTIAL, index_lease_name, labels_target, volume_target
from ctpipe.store.leases import Lease
from ctpipe.store.metadata import checked_labels, index_document
from ctpipe.words import LabelKind

_LOCK_WAIT_S = 120.0  # committing labels takes milliseconds; a queue of writers waits its turn


def labels_lock(root: Path, series_id: str) -> Lease:
    """Lock under which labels of one volume are committed, removed and listed; waits for its turn."""
    target = f"{volume_target(series_id)}/{LABELS}"
    return Lease(root, target, wait_s=_LOCK_WAIT_S, name=index_lease_name(series_id))


def group_names(root: Path, series_id: str) -> list[str]:
    """Names of all label groups, committed or not."""
    folder = root / volume_target(series_id) / LABELS
    return [name for name in files.names(folder) if name != COMMIT and not name.endswith(PARTIAL)]


def committed_names(root: Path, series_id: str) -> list[str]:
    """Names of the label groups that are committed, sorted."""
    folder = root / volume_target(series_id) / LABELS
    return [name for name in group_names(root, series_id) if (folder / name / COMMIT).exists()]


def read_labels(root: Path, series_id: str, name: str) -> dict[str, Any] | None:
    """The ctpipe attributes of a committed label group, checked; None where it is not committed."""
    what = f"labels {name} of volume {series_id}"
    path = root / labels_target(series_id, name) / COMMIT
    document = commit.read_sealed(path, what, "attributes", "ctpipe")
    return None if document is None else checked_labels(document["attributes"]["ctpipe"], what)


def sequences(root: Path, series_id: str, kind: LabelKind) -> dict[str, int]:
    """{name of a truth or review group: its sequence number among its kind}; the highest is the newest.

    Reviews of a ctpipe that did not count them have 0.
    """
    found = {}
    for name in committed_names(root, series_id):
        stated = read_labels(root, series_id, name)
        if stated is not None and stated["kind"] == kind:
            found[name] = stated.get("sequence", 0)
    return found


def next_sequence(root: Path, series_id: str, kind: LabelKind) -> int:
    """Number of the next group of a kind; the labels' lock must be held."""
    return max(sequences(root, series_id, kind).values(), default=0) + 1


def write_index(root: Path, series_id: str) -> bool:
    """Rebuild labels/zarr.json from what is committed; False if it was right. The labels' lock must be held."""
    path = root / volume_target(series_id) / LABELS / COMMIT
    data = index_bytes(root, series_id)
    if files.read(path) == data:
        return False
    if data is None:
        return files.remove(path)
    files.write_atomic(path, data)
    return True


def index_bytes(root: Path, series_id: str) -> bytes | None:
    """What labels/zarr.json should hold; None where no labels are committed."""
    names = committed_names(root, series_id)
    return commit.canonical(index_document(names)) if names else None
