"""Where rows and pixels come from: one series of a store and one of its label groups, small enough to send anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import NotThereError
from ctpipe.patches.windows import WindowGrid
from ctpipe.volume import Grid, slabs_of


@lru_cache(maxsize=8)
def _opened(root: Path) -> Mapping[str, Any]:
    """One open store a process: it looks at its files anew where they change, and checks each shard once."""
    from ctpipe.store import open_store  # zarr is wanted only where planes are read
    return open_store(root)


@dataclass(frozen=True)
class SeriesSource:
    """One series of a table: where it lies, whose it is, which of its labels count.

    store: folder of the store, or the open mapping itself where there is no folder.
    content, labels_content: digests of the voxels of level 0. kind: of the labels, truth, prediction or review.
    shape: of the table's level. band_planes: planes of that level in one slab of the store.
    translation: its label -> the table's; what is not named is background. rows_mm: the 4x4 affine of the level,
    index (z, y, x, 1) -> LPS mm. factors: voxels of level 0 in one of this level.
    before: of a review, the labels that it corrected and their translation; "" for a review that began empty, None
    where they are gone or nothing was corrected.
    """

    store: Path | Mapping[str, Any]
    id: str
    patient: str
    content: str
    labels: str
    level: int
    shape: tuple[int, int, int]
    band_planes: int
    translation: tuple[tuple[int, int], ...]
    kind: str = "truth"
    labels_content: str = ""
    rows_mm: tuple[tuple[float, ...], ...] = ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0))
    factors: tuple[int, int, int] = (1, 1, 1)
    before: tuple[str, tuple[tuple[int, int], ...]] | None = None

    @property
    def series(self) -> Any:
        """The series itself, as its store gives it."""
        store = _opened(self.store) if isinstance(self.store, Path) else self.store
        return store[self.id]

    @property
    def grid(self) -> Grid:
        return Grid.from_affine(self.shape, self.rows_mm)

    @property
    def bands(self) -> int:
        """Slabs of the series."""
        return -(-self.shape[0] // self.band_planes)

    @property
    def lookup(self) -> NDArray[np.uint8]:
        """(65536,) uint8: label of the volume -> label of the table."""
        return _lookup(self.translation)

    def raw_labels(self, start: int, stop: int, group: str | None = None) -> NDArray[np.generic]:
        """(stop - start, y, x) labels as stored, of the table's labels or of another group of the series."""
        return self.series.labels[group or self.labels].read_planes(start, stop, level=self.level)

    def label_planes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, y, x) uint8 labels in the table's integers."""
        return self.lookup[self.raw_labels(start, stop)]

    def changed_planes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, y, x) uint8: 1 where a reviewer gave a voxel another label of the table."""
        if self.before is None:
            return np.zeros((stop - start, *self.shape[1:]), np.uint8)
        now = self.label_planes(start, stop)
        name, translation = self.before
        was = _lookup(translation)[self.raw_labels(start, stop, name)] if name else np.uint8(0)
        return (now != was).view(np.uint8)

    def hu_planes(self, start: int, stop: int) -> NDArray[np.generic]:
        """(stop - start, y, x) HU as stored."""
        return self.series.read_planes(start, stop, level=self.level)

    def instances(self, z: NDArray[np.integer]) -> list[str]:
        """Pseudonyms of the SOP instances of planes z (of level 0), by the plane table of the store."""
        planes = self.series.planes
        if "sop_instance" not in planes:
            raise NotThereError(f"volume {self.id} has no plane table", "ingest it from DICOM")
        return planes["sop_instance"].to_numpy()[np.asarray(z)].tolist()


def _lookup(translation: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    table = np.zeros(1 << 16, np.uint8)
    for value, label in translation:
        table[value] = label
    return table


@dataclass(frozen=True)
class Part:
    """Whole slabs of one series: planes start..stop-1 of the table's level, the work of one Dask task.

    file: the Parquet file that holds these rows already, of a saved table.
    """

    source: SeriesSource
    start: int
    stop: int
    file: str | None = None

    def bands(self, grid: WindowGrid) -> Iterator[list[int]]:
        """The lattice planes of each slab that has any."""
        for slab in slabs_of(self.source.shape[0], self.source.band_planes):
            if self.start <= slab.start < self.stop:
                planes = grid.planes_within(slab.start, slab.stop)
                if planes:
                    yield planes


def parts_of(source: SeriesSource, grid: WindowGrid, part_voxels: int, part_rows: int) -> Iterator[Part]:
    """Cut a series into partitions of whole slabs; a band of slabs without a lattice plane makes none."""
    voxels, rows = grid.shape.y * grid.shape.x, grid.counts.y * grid.counts.x
    start = 0
    for band in slabs_of(source.shape[0], source.band_planes):
        planes = len(grid.planes_within(start, band.stop))
        full = (band.stop - start) * voxels >= part_voxels or planes * rows >= part_rows
        if full or band.stop == grid.shape.z:
            if planes:
                yield Part(source, start, band.stop)
            start = band.stop
