"""Real stores on disk, of random volumes or of repeated blocks, written through the store's own writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from volumes import CLASSES, MemorySeries

from ctpipe.store import LabelsMeta, Store, VolumeMeta, open_store
from ctpipe.words import LabelKind


def write(store: Store, writer, voxels: np.ndarray) -> None:
    with store.lease(writer.target) as lease:
        writer.prepare()
        writer.commit([writer.write_slab(slab, voxels[slab.start:slab.stop]) for slab in writer.slabs], lease)


def add_labels(store: Store, series_id: str, grid, voxels: np.ndarray, name: str, kind=LabelKind.TRUTH,
               classes=CLASSES) -> None:
    write(store, store.labels_writer(series_id, LabelsMeta(name, kind, grid, classes)), voxels)


def store_of(root: Path, series: list[MemorySeries]) -> Store:
    """A store with these volumes and their truth."""
    opened = open_store(root, "a")
    for one in series:
        meta = VolumeMeta(one.id, one.grid, "int16", one.patient, f"u-{one.id}", f"v-{one.id}")
        write(opened, opened.volume_writer(meta), one.hu)
        add_labels(opened, one.id, one.grid, one.labels["truth"].voxels, f"truth-{one.id}")
    return open_store(root)
