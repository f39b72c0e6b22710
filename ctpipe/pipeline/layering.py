"""Layers of a run: which are wanted and lack, their lease and commits, and in a worker their planes to slabs.

A layer is made by the tasks that make the labels, or by the same tasks over a run whose labels are committed: then only
what lacks is written. Labels are committed first, so that no layer is ever without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.models import Model, Segmenter
from ctpipe.pipeline.keys import LAYER_ALGORITHM
from ctpipe.predict import LayerPlane, layer_planes, scale_of
from ctpipe.store import GroupWriter, LabelsMeta, LayerMeta, Lease, PlaneScratch, Series, SlabRecord, Store
from ctpipe.volume import Slab
from ctpipe.words import LayerKind

Cut = tuple[slice, slice]  # rows and columns of a plane


def checked_layers(layers: Sequence[LayerKind | str] | str, model: Model | Segmenter) -> tuple[LayerKind, ...]:
    """The kinds of layers that are asked for, each once; UsageError for a word that is none, or what cannot be had."""
    words = [layers] if isinstance(layers, str) else layers
    unknown = [str(word) for word in words if word not in list(LayerKind)]
    if unknown:
        raise UsageError(f"there is no layer {unknown[0]!r}", f"choose among: {', '.join(LayerKind)}")
    kinds = tuple(kind for kind in LayerKind if kind in words)
    folds = len(model.networks) if isinstance(model, Segmenter) else 1
    if LayerKind.SPREAD in kinds and folds < 2:
        raise UsageError(f"model {model.digest} has no folds that could differ: there is no spread",
                         "ask for entropy, or import a model with two folds or more")
    return kinds


def layer_writers(
    store: Store, series: Series, labels: LabelsMeta, model: Model | Segmenter, kinds: Sequence[LayerKind]
) -> tuple[GroupWriter, ...]:
    """Writers of the wanted layers of a run that are not committed. labels: what the run says of itself."""
    metas = [meta for kind in kinds for meta in _metas(labels, kind, labels_of(model))]
    writers = [store.layer_writer(series.id, meta) for meta in metas]
    return tuple(writer for writer in writers if not writer.committed)


def labels_of(model: Model | Segmenter) -> dict[int, tuple[int, ...]]:
    """{label: the heads that give its probability}: one, but for regions that paint the same label."""
    if isinstance(model, Segmenter) and model.spec.regions:
        regions = model.spec.regions
        return {label: tuple(head for head, painted in enumerate(regions) if painted == label)
                for label in sorted(set(regions))}  # fmt: skip
    return {label: (label,) for label in range(1, 1 + len(model.spec.classes))}


def _metas(labels: LabelsMeta, kind: LayerKind, heads: dict[int, tuple[int, ...]]) -> list[LayerMeta]:
    provenance = {**labels.provenance, "algorithm": LAYER_ALGORITHM}
    if kind is not LayerKind.PROBABILITIES:
        return [LayerMeta(labels.name, str(kind), kind, labels.grid, scale_of(kind), provenance=provenance)]
    return [LayerMeta(labels.name, f"probability-{label}", kind, labels.grid, scale_of(kind), label,
                      labels.classes[label], provenance=provenance) for label in heads]  # fmt: skip


@contextmanager
def layers_lease(store: Store, writers: Sequence[GroupWriter]) -> Iterator[Lease | None]:
    """The lease under which the layers of a run are made, and their arrays made ready; None where none lacks."""
    if not writers:
        yield None
        return
    with store.lease(writers[0].lease_target) as lease:
        for writer in writers:
            writer.prepare()
        yield lease


def commit_layers(
    writers: Sequence[GroupWriter], slabs: Sequence[tuple[SlabRecord, ...]], lease: Lease | None
) -> None:
    """Make the layers visible, each whole. slabs: of each slab, a record of each layer."""
    if lease is not None:
        for number, writer in enumerate(writers):
            writer.commit([records[number] for records in slabs], lease)


# ---------------------------------------------------------------------------------------------- in a worker
def layers_done(writers: Sequence[GroupWriter], slab: Slab) -> tuple[SlabRecord, ...] | None:
    """Records of a slab of all layers; None where one of them lacks it."""
    found = [record for writer in writers if (record := writer.done(slab)) is not None]
    return tuple(found) if len(found) == len(writers) else None


class SlabLayers:
    """The layers of slabs: planes, or rows of them, are put, then the slab of each layer is written. A context manager.

    spread: whether variances over folds are needed. Memory is a plane of all layers and a slab of one.
    """

    def __init__(self, writers: Sequence[GroupWriter], model: Model | Segmenter) -> None:
        heads = labels_of(model)
        metas = [writer.meta for writer in writers if isinstance(writer.meta, LayerMeta)]
        self.writers = tuple(writers)
        self.spread = any(meta.kind is LayerKind.SPREAD for meta in metas)
        self._wanted = [LayerPlane(meta.kind, () if meta.label is None else heads[meta.label]) for meta in metas]
        self._apart = isinstance(model, Segmenter) and bool(model.spec.regions)
        self._begun: dict[int, PlaneScratch] = {}  # by number of the slab

    def begin(self, slab: Slab) -> None:
        """Take the planes of `slab` from now on; those that do not come are 0."""
        if self.writers:
            writer = self.writers[0]
            _, y, x = writer.meta.grid.shape
            self._begun[slab.index] = PlaneScratch(writer.path.parent, len(self.writers), (slab.planes, y, x))

    def planes(self, likely: NDArray[np.float32], variance: NDArray[np.float32] | None) -> list[NDArray[np.uint8]]:
        """A plane of each layer."""
        return layer_planes(self._wanted, likely, variance, self._apart)

    def put_made(self, slab: Slab, start: int, stop: int, planes: Sequence[NDArray[np.uint8]], cut: Cut | None = None
                 ) -> None:
        """Planes start..stop-1 of the volume, all alike, which lie in `slab`: `planes` has one of each layer.

        cut: the rows and columns that they are of; None: all. What is never put is 0.
        """
        scratch = self._begun[slab.index]
        _, y, x = scratch.shape
        rows, columns = cut or (slice(0, y), slice(0, x))
        whole = np.zeros((rows.stop - rows.start, x), np.uint8)
        for layer, plane in enumerate(planes):
            whole[:, columns] = plane
            for z in range(start, stop):
                scratch.put(layer, z - slab.start, rows.start, whole)

    def write(self, slab: Slab) -> tuple[SlabRecord, ...]:
        """Write the slab of every layer; their records."""
        if slab.index not in self._begun:
            return ()
        scratch = self._begun[slab.index]
        records = tuple(writer.write_slab(slab, scratch.slab(n)) for n, writer in enumerate(self.writers))
        self._begun.pop(slab.index).close()
        return records

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._begun:
            self._begun.popitem()[1].close()
