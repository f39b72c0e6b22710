"""Rows: one piece of the patch table made from whole slabs of one series, by whichever process is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import WindowSpec
from ctpipe.errors import UsageError
from ctpipe.patches.columns import planes_reached, window_counts
from ctpipe.patches.query import select
from ctpipe.patches.windows import WindowGrid
from ctpipe.volume import slabs_of

if TYPE_CHECKING:
    import pandas as pd

# A partition gathers slabs up to so many label voxels (about 0.2 s of work) …
PART_VOXELS = 8 << 20
# … or so many rows, some 50 MB: far below memory_limit / (8 x threads), beyond which a worker can hang.
PART_ROWS = 2 << 20
# Label volumes are uint8 or uint16; a table's labels are uint8.
MOST_CLASSES = 255


@dataclass(frozen=True)
class SeriesSource:
    """One series of a table, small enough to send: where it lies, whose it is, which of its labels count.

    store: folder of the store, or the open mapping itself where there is no folder.
    shape: of the table's level. band_planes: planes of that level in one slab of the store.
    translation: its label -> the table's; what is not named is background.
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

    def label_planes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, y, x) uint8 labels in the table's integers."""
        store = self.store
        if isinstance(store, Path):
            from ctpipe.store import open_store  # zarr is wanted only where planes are read
            store = open_store(store)
        planes = store[self.id].labels[self.labels].read_planes(start, stop, level=self.level)
        lookup = np.zeros(np.iinfo(planes.dtype).max + 1, np.uint8)
        for value, label in self.translation:
            lookup[value] = label
        return lookup[planes]


@dataclass(frozen=True)
class Part:
    """Whole slabs of one series: planes start..stop-1 of the table's level, the work of one Dask task."""

    source: SeriesSource
    start: int
    stop: int


@dataclass(frozen=True)
class RowSpec:
    """How rows are made; equal for all partitions of a table.

    classes: the table's {integer: name} without background; conditions: checked expressions, all must hold.
    """

    windows: WindowSpec
    classes: tuple[tuple[int, str], ...]
    series: tuple[str, ...]
    patients: tuple[str, ...]
    conditions: tuple[str, ...] = ()
    index_dtype: str = "int16"

    @property
    def fractions(self) -> tuple[tuple[int, str], ...]:
        return ((0, "fraction_background"), *((n, f"fraction_{name}") for n, name in self.classes))

    def grid(self, source: SeriesSource) -> WindowGrid:
        return WindowGrid(source.shape, self.windows.window, self.windows.stride)  # type: ignore[arg-type]


def parts_of(source: SeriesSource, grid: WindowGrid) -> Iterator[Part]:
    """Cut a series into partitions of whole slabs; a band of slabs without a lattice plane makes none."""
    bands = slabs_of(source.shape[0], source.band_planes)
    voxels, rows = grid.shape.y * grid.shape.x, grid.counts.y * grid.counts.x
    start = 0
    for band in bands:
        planes = len(grid.planes_within(start, band.stop))
        full = (band.stop - start) * voxels >= PART_VOXELS or planes * rows >= PART_ROWS
        if full or band.stop == grid.shape.z:
            if planes:
                yield Part(source, start, band.stop)
            start = band.stop


def rows_of(part: Part, spec: RowSpec) -> pd.DataFrame:
    """The rows of a partition, by z, y, x."""
    grid = spec.grid(part.source)
    z_planes = grid.planes_within(part.start, part.stop)
    low, high = planes_reached(grid, z_planes)
    labels = part.source.label_planes(low, high)
    _, y_axis, x_axis = grid.axes()
    shape = (len(z_planes), len(y_axis), len(x_axis))
    at = np.meshgrid(np.asarray(z_planes), y_axis, x_axis, indexing="ij")
    columns: dict[str, NDArray[np.generic]] = {
        name: axis.ravel().astype(spec.index_dtype) for name, axis in zip("zyx", at, strict=True)}
    columns["label"] = labels[np.ix_(np.asarray(z_planes) - low, y_axis, x_axis)].ravel()
    columns |= _fractions(labels, grid, z_planes, low, spec, shape)
    frame = _framed(columns, spec, part.source)
    for condition in spec.conditions:
        frame = select(frame, condition)
    return frame.reset_index(drop=True)


def empty_rows(spec: RowSpec) -> pd.DataFrame:
    """No rows, every column with its type."""
    columns: dict[str, NDArray[np.generic]] = {name: np.empty(0, spec.index_dtype) for name in "zyx"}
    columns["label"] = np.empty(0, np.uint8)
    columns |= {name: np.empty(0, np.float32) for _, name in spec.fractions}
    return _framed(columns, spec, None)


def _fractions(labels: NDArray[np.uint8], grid: WindowGrid, z_planes: list[int], first: int, spec: RowSpec,
               shape: tuple[int, int, int]) -> dict[str, NDArray[np.generic]]:
    total = grid.window.z * grid.window.y * grid.window.x
    present = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=1)).tolist())
    background = np.full(shape, total, np.int64)
    found: dict[str, NDArray[np.generic]] = {}
    for number, name in spec.fractions[1:]:
        if number not in present:
            found[name] = np.zeros(background.size, np.float32)
            continue
        counts = window_counts(labels == number, grid, z_planes, first, spec.windows.pad)
        background -= counts  # classes share out the window; constant padding is background
        found[name] = (counts / total).astype(np.float32).ravel()
    return {"fraction_background": (background / total).astype(np.float32).ravel(), **found}


def _framed(columns: dict[str, NDArray[np.generic]], spec: RowSpec, source: SeriesSource | None) -> pd.DataFrame:
    import pandas as pd
    n = len(columns["z"])
    keys = {}
    for name, values, own in (("series", spec.series, source and source.id),
                              ("patient", spec.patients, source and source.patient)):
        codes = np.full(n, values.index(own) if own else 0, np.int32)
        keys[name] = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(values)))
    return pd.DataFrame({**keys, **columns})


def translate(
    class_maps: Sequence[Mapping[int, str]], wanted: Sequence[str] | Mapping[str, Sequence[str]] | None,
) -> tuple[dict[int, str], list[dict[int, int]]]:  # fmt: skip
    """The table's classes {integer: name}, and for each of `class_maps` its own integers -> the table's.

    wanted: names in order of their integer from 1; or {name: names that count as it} (a recipe's `merge`); None takes
    the integers of the label volumes as they are, UsageError where two volumes disagree.
    """
    if wanted is None:
        classes: dict[int, str] = {}
        for own in class_maps:
            for number, name in own.items():
                taken = {n for n, known in classes.items() if known == name} - {number}
                if classes.setdefault(number, name) != name or taken:
                    raise UsageError(f"label volumes disagree on the integer of class {name!r}",
                                     "give the classes in the order of their integers")
        sources: dict[str, tuple[str, ...]] = {name: (name,) for name in classes.values()}
        classes = dict(sorted(classes.items()))
    else:
        sources = {n: tuple(wanted[n]) for n in wanted} if isinstance(wanted, Mapping) else {n: (n,) for n in wanted}
        classes = dict(enumerate(sources, start=1))
    if len(classes) > MOST_CLASSES or any(n > MOST_CLASSES for n in classes):
        raise UsageError(f"{len(classes)} classes do not fit a table's uint8 label", "choose fewer with classes")
    number_of = {part: number for number, name in classes.items() for part in sources[name]}
    return classes, [{n: number_of[name] for n, name in own.items() if name in number_of} for own in class_maps]
