"""GroupWriter: one image, label group or layer from its first shard to its commit.

::

    prepare   0/zarr.json 1/zarr.json …          (per array; not a commit)
    write     0/c/<slab>/0/0 1/c/<slab>/0/0 …    any order, any process, whole shards, synced
    commit    planes/<id>.parquet, then zarr.json of the group: the one write that makes it visible
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError, StoreBusyError, StoreFaultError, UsageError
from ctpipe.store import arrays, commit, files
from ctpipe.store import metadata as meta_
from ctpipe.store.commit import SlabRecord
from ctpipe.store.labels import labels_lock, next_sequence, write_index
from ctpipe.store.layout import (
    COMMIT,
    FILL_HU,
    FILL_LABEL,
    PLANES,
    labels_target,
    layers_target,
    shard_file,
    slab_text,
    volume_target,
)
from ctpipe.store.leases import Lease
from ctpipe.store.metadata import LabelsMeta, LayerMeta, VolumeMeta
from ctpipe.store.planes import planes_bytes
from ctpipe.store.pyramid import mean_levels, mode_levels
from ctpipe.store.reader import LevelArray
from ctpipe.volume import Level, Slab, pyramid_levels, slabs_of
from ctpipe.words import LabelKind

if TYPE_CHECKING:
    import pandas as pd


class GroupWriter:
    """Writes one group. Small and picklable: tasks on any machine that sees the folder write slabs with a copy."""

    def __init__(self, root: Path, series_id: str, meta: VolumeMeta | LabelsMeta | LayerMeta) -> None:
        self.meta = meta
        self.series_id = series_id
        self.root = root

    @property
    def target(self) -> str:
        """Path of the group below the store."""
        if isinstance(self.meta, LayerMeta):
            return f"{self.lease_target}/{self.meta.name}"
        return self.lease_target

    @property
    def lease_target(self) -> str:
        """What a lease is taken for: the group; all layers of a run have one lease."""
        if isinstance(self.meta, LayerMeta):
            return layers_target(self.series_id, self.meta.run)
        if isinstance(self.meta, LabelsMeta):
            return labels_target(self.series_id, self.meta.name)
        return volume_target(self.series_id)

    @property
    def path(self) -> Path:
        return self.root / self.target

    @cached_property
    def slabs(self) -> list[Slab]:
        """All slabs of the group, in order; each is one shard of every level."""
        return slabs_of(self.meta.grid.shape.z)

    @cached_property
    def levels(self) -> list[Level]:
        return pyramid_levels(self.meta.grid)

    @property
    def committed(self) -> bool:
        return (self.path / COMMIT).exists()

    def prepare(self) -> None:
        """Create the arrays of all levels; what an older ctpipe left half done under other settings is dropped."""
        if self.committed:
            return
        for level, document in zip(self.levels, self._documents, strict=True):
            path = self._array(level) / COMMIT
            found = files.read(path)
            if found != document:
                if found is not None:
                    files.remove(self._array(level))
                files.write_atomic(path, document)

    def write_slab(self, slab: Slab, voxels: NDArray) -> SlabRecord:
        """Write `voxels` (planes, y, x) of one slab as one whole, synced shard of every level.

        Of a committed group nothing is written: the same voxels give the committed record, others StoreFaultError.
        """
        self._check(slab, voxels)
        shards = []
        for level, document, values in zip(self.levels, self._documents, self._pyramid(voxels), strict=True):
            data = arrays.encode_shard(document, level.slab(slab), values)
            shards.append((self._array(level) / shard_file(slab.index), data, commit.shard_record(data, values)))
        record = SlabRecord(slab.index, slab.start, slab.stop, tuple(shard for _, _, shard in shards))
        if self.committed:
            return self._same_as_committed(record)
        for path, data, _ in shards:
            files.write_atomic(path, data)
        return record

    def done(self, slab: Slab) -> SlabRecord | None:
        """Record of a slab whose shards are all there and decode without fault, else None: write it (again)."""
        shards = []
        for level, document in zip(self.levels, self._documents, strict=True):
            data = files.read(self._array(level) / shard_file(slab.index))
            if data is None or files.read(self._array(level) / COMMIT) != document:
                return None
            band = level.slab(slab)
            try:
                region = (slice(band.start, band.stop), slice(None), slice(None))
                values = arrays.decode_shard(document, slab.index, data, region)
            except MemoryError:
                raise
            except Exception:  # rotten bytes raise anything; whatever it is, the slab is not done
                return None
            shards.append(commit.shard_record(data, values))
        return SlabRecord(slab.index, slab.start, slab.stop, tuple(shards))

    def read_planes(self, start: int, stop: int) -> NDArray:
        """Planes start..stop-1 of level 0 as written so far; StoreFaultError where one of their shards is not there.

        Before the commit no manifest vouches for them: each chunk is checked by its own CRC-32C only.
        """
        what = f"unfinished {self.target}"
        array = LevelArray(self._array(self.levels[0]), self.levels[0], self.meta.dtype, None, what)
        there = array.shards_there()
        for slab in self.slabs:
            if slab.start < stop and slab.stop > start and slab.index not in there:
                raise StoreFaultError(f"{slab_text(slab)} of {what} are not there", "run the same line again")
        return array.read(start, stop)

    def content(self, records: Sequence[SlabRecord]) -> str:
        """Digest of the voxels of level 0: equal for equal voxels, whatever files they came from."""
        return commit.content_digest(self.meta.dtype, self.meta.grid.shape, self._in_order(records))

    def commit(self, records: Sequence[SlabRecord], lease: Lease, planes: pd.DataFrame | None = None) -> None:
        """Make the group visible, whole: its zarr.json with the manifest, in one synced write under the lease."""
        if lease.target != self.lease_target:
            raise UsageError(f"the lease on {lease.target} does not cover {self.target}", "lease the writer's target")
        ordered = self._in_order(records)
        if isinstance(self.meta, LabelsMeta):
            with labels_lock(self.root, self.series_id):
                if not self.committed:
                    self._commit_labels(self.meta, ordered, lease)
                write_index(self.root, self.series_id)
        elif self.committed:
            return
        elif isinstance(self.meta, LayerMeta):
            manifest = self._manifest(ordered)
            levels, content = self.levels, self.content(ordered)
            self._publish(meta_.layer_document(self.meta, levels, content, manifest, self.series_id), lease)
        else:
            self._commit_volume(self.meta, ordered, lease, planes)

    def discard(self) -> None:
        """Remove what was written of a group that is not committed; the lease must be held."""
        if self.committed:
            raise StoreBusyError(f"{self.target} is committed", "remove it with ctpipe rm")
        files.remove(self.path)
        if isinstance(self.meta, VolumeMeta):
            files.remove(self.root / PLANES / f"{self.series_id}.parquet")
            return
        parent = self.path.parent
        while parent != self.root / volume_target(self.series_id) and not files.names(parent):
            files.remove(parent)
            parent = parent.parent

    def _commit_volume(
        self, meta: VolumeMeta, records: list[SlabRecord], lease: Lease, planes: pd.DataFrame | None
    ) -> None:
        manifest = self._manifest(records)
        manifest["planes"] = None
        if planes is not None:
            data = planes_bytes(planes)
            files.write_atomic(self.root / PLANES / f"{meta.id}.parquet", data)
            manifest["planes"] = {"file": f"{PLANES}/{meta.id}.parquet", "sha256": sha256(data).hexdigest()}
        document = meta_.image_document(meta, self.levels, self.content(records), manifest)
        self._publish(document, lease)

    def _commit_labels(self, meta: LabelsMeta, records: list[SlabRecord], lease: Lease) -> None:
        counted = meta.kind in (LabelKind.TRUTH, LabelKind.REVIEW)
        sequence = next_sequence(self.root, self.series_id, meta.kind) if counted else None
        document = meta_.labels_document(
            meta, self.levels, self.content(records), self._manifest(records), self.series_id, sequence
        )
        self._publish(document, lease)

    def _publish(self, document: dict[str, Any], lease: Lease) -> None:
        data = commit.sealed(document, "attributes", "ctpipe")
        with lease.held():
            files.write_atomic(self.path / COMMIT, data)

    def _manifest(self, records: list[SlabRecord]) -> dict[str, Any]:
        for level, document in zip(self.levels, self._documents, strict=True):
            if files.read(self._array(level) / COMMIT) != document:
                raise RunError(f"array {level.number} of {self.target} was not prepared", "run the same line again")
            for record in records:
                self._check_size(level, record)
        return {"arrays": commit.manifest_arrays(self._documents, records)}

    def _check_size(self, level: Level, record: SlabRecord) -> None:
        path = self._array(level) / shard_file(record.index)
        if files.size(path) != record.shards[level.number].size:
            problem = f"shard {record.index} of array {level.number} of {self.target} is not what was written"
            raise StoreFaultError(problem, "run the same line again: the shard is made anew")

    def _in_order(self, records: Sequence[SlabRecord]) -> list[SlabRecord]:
        ordered = sorted(records, key=lambda record: record.index)
        wanted = [(slab.index, slab.start, slab.stop) for slab in self.slabs]
        if [(r.index, r.start, r.stop) for r in ordered] != wanted:
            problem = f"{len(ordered)} slabs of {self.target} were given, {len(wanted)} are wanted, each once"
            raise RunError(problem, "write every slab, then commit")
        return ordered

    def _same_as_committed(self, record: SlabRecord) -> SlabRecord:
        document = commit.read_sealed(self.path / COMMIT, self.target, "attributes", "ctpipe") or {}
        for number, shard in enumerate(record.shards):
            listed = document["attributes"]["ctpipe"]["manifest"]["arrays"][str(number)]["shards"][record.index]
            if listed["voxels"] != shard.voxels:
                problem = f"{self.target} is committed, and slab {record.index} has other voxels now"
                raise StoreFaultError(problem, "one key must give one volume: report this; the store is unchanged")
        return record

    def _check(self, slab: Slab, voxels: NDArray) -> None:
        _, y, x = self.meta.grid.shape
        if slab not in self.slabs:
            raise UsageError(f"{slab_text(slab)} are no slab of {self.target}", "write the slabs that .slabs lists")
        if voxels.shape != (slab.planes, y, x) or voxels.dtype != np.dtype(self.meta.dtype):
            problem = (
                f"{self.target} takes {(slab.planes, y, x)} {self.meta.dtype} for {slab_text(slab)}, "
                f"got {voxels.shape} {voxels.dtype}"
            )
            raise UsageError(problem, "give whole planes of the stated type")
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            raise RunError(f"NaN or infinite HU in {slab_text(slab)} of {self.target}", "refuse the series")

    def _pyramid(self, voxels: NDArray) -> list[NDArray]:
        if not isinstance(self.meta, LabelsMeta):
            return mean_levels(voxels, self.levels)
        present = np.flatnonzero(sum(np.bincount(plane.ravel(), minlength=1 << 16) for plane in voxels)).tolist()
        unnamed = [label for label in present if label and label not in self.meta.classes]
        if unnamed:
            problem = f"labels {unnamed[:5]} in {self.target} have no class"
            raise RunError(problem, f"name them; the classes are {sorted(self.meta.classes)}")
        return mode_levels(voxels, self.levels, present)

    @cached_property
    def _documents(self) -> list[bytes]:
        fill = FILL_HU if isinstance(self.meta, VolumeMeta) else FILL_LABEL
        return [arrays.array_document(level, self.meta.dtype, fill) for level in self.levels]

    def _array(self, level: Level) -> Path:
        return self.path / str(level.number)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "series_id": self.series_id, "meta": self.meta}

    def __repr__(self) -> str:
        return f"GroupWriter({self.target})"
