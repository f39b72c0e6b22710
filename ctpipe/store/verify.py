"""verify: reads every committed byte of a store and names what is rotten or missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ctpipe.errors import CtpipeError
from ctpipe.store import files
from ctpipe.store.labels import index_bytes
from ctpipe.store.layers import Layer, committed_layers, layered_runs
from ctpipe.store.layout import COMMIT, LABELS, LAYERS, SUFFIX, volume_target
from ctpipe.store.runs import read_run, run_keys
from ctpipe.store.series import Labels, Series
from ctpipe.store.store import Store
from ctpipe.words import Progress


def verify(store: Store, progress: Progress = None) -> dict[str, Any]:
    """Read all committed data: {"checked": shards, "bytes": n, "faults": [{"volume", "array", "shard", "what"}]}.

    Each shard's size, CRC-32C and voxel digest, each array's zarr.json, each group's digest, the plane tables and the
    run records. `array` is None for a fault of a whole group, `shard` None for one of a whole array.
    """
    survey = _Survey(store)
    names = _volumes(store)
    for done, series_id in enumerate(names):
        survey.volume(series_id)
        if progress is not None:
            progress("verify", done + 1, len(names))
    for key in run_keys(store.root):
        survey.attempt(None, None, None, partial(read_run, store.root, key))
    return {"checked": survey.checked, "bytes": survey.bytes, "faults": survey.faults}


def _volumes(store: Store) -> list[str]:
    return [name.removesuffix(SUFFIX) for name in files.names(store.root) if name.endswith(SUFFIX)]


class _Survey:
    """Counts and faults so far."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.checked = self.bytes = 0
        self.faults: list[dict[str, Any]] = []

    def volume(self, series_id: str) -> None:
        root = self.store.root
        if series_id not in list(self.store):
            for name in _committed_labels(self.store, series_id):
                self.fault(series_id, None, None, f"labels {name} are committed, but the volume's own commit is gone")
            return
        series = self.attempt(series_id, None, None, lambda: self.store[series_id])
        if series is None:
            return
        self.attempt(series_id, None, None, lambda: series.planes)
        self.group(series_id, "", series)
        for name in series.labels:
            labels = self.attempt(series_id, f"{LABELS}/{name}", None, partial(series.labels.__getitem__, name))
            if labels is not None:
                self.group(series_id, f"{LABELS}/{name}/", labels)
                self.layers(series_id, labels)
        for run in layered_runs(root, series_id):
            if committed_layers(root, series_id, run) and run not in list(series.labels):
                what = "layers are committed, but the labels of their run are gone"
                self.fault(series_id, f"{LAYERS}/{run}", None, what)
        if files.read(root / volume_target(series_id) / LABELS / COMMIT) != index_bytes(root, series_id):
            self.fault(series_id, LABELS, None, "the index of labels does not list what is committed")

    def layers(self, series_id: str, labels: Labels) -> None:
        for name in labels.layers:
            prefix = f"{LAYERS}/{labels.name}/{name}"
            layer = self.attempt(series_id, prefix, None, partial(labels.layers.__getitem__, name))
            if layer is not None:
                self.group(series_id, f"{prefix}/", layer)

    def group(self, series_id: str, prefix: str, group: Series | Labels | Layer) -> None:
        for array in group.arrays:
            name = f"{prefix}{array.level.number}"
            if self.attempt(series_id, name, None, array.document) is None:
                continue
            for slab in array.slabs:
                size = self.attempt(series_id, name, slab.index, partial(array.check_voxels, slab.index))
                self.checked += 1
                self.bytes += size or 0

    def attempt(self, volume: str | None, array: str | None, shard: int | None, check: Callable[[], Any]) -> Any:
        """What `check` gives; None, and a fault noted, where it fails."""
        try:
            return check()
        except CtpipeError as error:
            self.fault(volume, array, shard, error.problem)
            return None

    def fault(self, volume: str | None, array: str | None, shard: int | None, what: str) -> None:
        self.faults.append({"volume": volume, "array": array, "shard": shard, "what": what})


def _committed_labels(store: Store, series_id: str) -> Iterator[str]:
    folder = store.root / volume_target(series_id) / LABELS
    for name in files.names(folder):
        if (folder / name / COMMIT).exists():
            yield name
