"""Rows: one piece of the patch table made from whole slabs of one series, by whichever process is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import WindowSpec
from ctpipe.errors import UsageError
from ctpipe.patches.columns import ClassCounter, HuMoments, planes_reached
from ctpipe.patches.sources import Part, SeriesSource, parts_of
from ctpipe.patches.windows import WindowGrid

if TYPE_CHECKING:
    import pandas as pd

# A partition gathers slabs up to so many voxels that are read (about 0.1 s of work on one core) …
PART_VOXELS = 48 << 20
# … or so many rows, some 50 MB: far below memory_limit / (8 x threads), beyond which a worker can hang.
PART_ROWS = 2 << 20
# Label volumes are uint8 or uint16; a table's labels are uint8.
MOST_CLASSES = 255
# A centre above so many HU lies in the body and not in air or lung, as `Region.BODY` says.
BODY_HU = -500

# How often this process has computed the rows of a partition from voxels: survival is measured by it.
computed = 0


class Step(Protocol):
    """Something done to the rows of a partition after they are made; small, and sent to where they are."""

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        """The rows with the step taken; `part` is None for a frame without rows, of which only the types count."""


@dataclass(frozen=True)
class RowSpec:
    """How rows are made; equal for all partitions of a table.

    classes: the table's {integer: name} without background. series, patients: the categories of those columns.
    statistics: whether rows have the mean and standard deviation of HU and the body flag.
    lesions: integers of the classes whose connected components are numbered; lesion_numbers: {series: for each slab its
        own numbers -> those of the series}. organ: integers that count as inside the organ; none: all of them.
    splits: {patient: split}. steps: in their order.
    """

    windows: WindowSpec
    classes: tuple[tuple[int, str], ...]
    series: tuple[str, ...]
    patients: tuple[str, ...]
    index_dtype: str = "int16"
    statistics: bool = False
    lesions: tuple[int, ...] = ()
    lesion_numbers: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = ()
    organ: tuple[int, ...] = ()
    splits: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = ()
    reviewed: bool = False  # rows tell what a reviewer changed: `corrected` and `changed`
    saved_types: tuple[tuple[str, Any], ...] = ()  # of a saved table: {column: dtype, or the categories}

    @property
    def fractions(self) -> tuple[tuple[int, str], ...]:
        return tuple((n, f"fraction_{name}") for n, name in self.classes)

    @property
    def window_voxels(self) -> int:
        return self.windows.window.z * self.windows.window.y * self.windows.window.x

    def grid(self, source: SeriesSource) -> WindowGrid:
        return WindowGrid(source.shape, self.windows.window, self.windows.stride)  # type: ignore[arg-type]

    def parts(self, sources: Iterable[SeriesSource]) -> Iterator[Part]:
        """The partitions of a table; statistics read HU as well, four times the work."""
        voxels = max(1, PART_VOXELS // (4 if self.statistics else 1))
        for source in sources:
            yield from parts_of(source, self.grid(source), voxels, PART_ROWS)

    def of(self, source: SeriesSource) -> RowSpec:
        """What a partition of `source` needs to know: the lesion numbers of other series stay behind."""
        if not self.lesion_numbers:
            return self
        return replace(self, lesion_numbers=tuple(pair for pair in self.lesion_numbers if pair[0] == source.id))


def rows_of(part: Part, spec: RowSpec) -> pd.DataFrame:
    """The rows of a partition, by z, y, x, all steps taken."""
    return stepped(made(part, spec), part, spec)


def stepped(rows: pd.DataFrame, part: Part | None, spec: RowSpec, done: int = 0) -> pd.DataFrame:
    """Rows with the steps of `spec` from number `done` on; numbered from 0."""
    import pandas as pd
    for step in spec.steps[done:]:
        rows = step(rows, part, spec)
    if isinstance(rows.index, pd.RangeIndex) and rows.index.start == 0 and rows.index.step == 1:
        return rows
    return rows.reset_index(drop=True)  # what a selection leaves as index costs eight bytes a row


def made(part: Part, spec: RowSpec) -> pd.DataFrame:
    """The rows of a partition before any step: from the voxels in one pass, slab by slab, or from a saved table."""
    if part.file is not None:
        from ctpipe.patches.saving import read_part
        return read_part(part, spec)
    global computed
    computed += 1
    grid = spec.grid(part.source)
    plane_rows = grid.counts.y * grid.counts.x
    n = len(grid.planes_within(part.start, part.stop)) * plane_rows
    columns = _columns(n, spec)
    at = 0
    for z_planes in part.bands(grid):
        _fill_band(columns, at, z_planes, grid, part.source, spec)
        at += len(z_planes) * plane_rows
    return _framed(columns, spec, part.source)


def empty_rows(spec: RowSpec) -> pd.DataFrame:
    """No rows, every column with its type."""
    return stepped(_framed(_columns(0, spec), spec, None), None, spec)


def _columns(n: int, spec: RowSpec) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {name: np.empty(n, spec.index_dtype) for name in "zyx"}
    columns["label"] = np.empty(n, np.uint8)
    columns |= {name: np.empty(n, np.float32) for _, name in spec.fractions}
    if spec.statistics:
        columns |= {"hu_mean": np.empty(n, np.float32), "hu_std": np.empty(n, np.float32), "in_body": np.empty(n, bool)}
    if spec.lesions:
        columns["lesion"] = np.empty(n, np.uint16)
    if spec.reviewed:
        columns |= {"corrected": np.empty(n, bool), "changed": np.empty(n, np.float32)}
    return columns


def _fill_band(columns: dict[str, NDArray[Any]], at: int, z_planes: list[int], grid: WindowGrid, source: SeriesSource,
               spec: RowSpec) -> None:
    """The rows of the lattice planes of one slab, from row `at` on."""
    low, high = planes_reached(grid, z_planes)
    raw, lookup = source.raw_labels(low, high), source.lookup
    labels: NDArray[Any] = raw if raw.dtype == np.uint8 else lookup[raw]
    if labels is not raw:
        lookup = np.arange(256, dtype=np.uint8)
    counter = ClassCounter(labels, low, grid, spec.windows.pad, [n for n, _ in spec.fractions])
    counter.worths = [worth[lookup[:256]] for worth in counter.worths]  # a lookup of each voxel is spared
    hu = source.hu_planes(low, high) if spec.statistics else None
    moments = HuMoments(hu, low, grid, spec.windows.pad) if hu is not None else None
    lesions = _lesions(z_planes, source, spec) if spec.lesions else None
    changed = source.changed_planes(low, high) if spec.reviewed else None
    changes = ClassCounter(changed, low, grid, spec.windows.pad, [1]) if changed is not None else None
    _, y_axis, x_axis = grid.axes()
    n = len(y_axis) * len(x_axis)
    y_column, x_column = np.repeat(y_axis, len(x_axis)), np.tile(x_axis, len(y_axis))
    for z in z_planes:
        to = slice(at, at + n)
        columns["z"][to], columns["y"][to], columns["x"][to] = z, y_column, x_column
        columns["label"][to] = lookup[labels[z - low][y_axis[:, None], x_axis]].ravel()
        counter.into(z, [columns[name][to] for _, name in spec.fractions])
        if moments is not None and hu is not None:
            moments.into(z, columns["hu_mean"][to], columns["hu_std"][to])
            columns["in_body"][to] = (hu[z - low][y_axis[:, None], x_axis] > BODY_HU).ravel()
        if lesions is not None:
            first, numbers = lesions
            columns["lesion"][to] = numbers[z - first][y_axis[:, None], x_axis].ravel()
        if changed is not None and changes is not None:
            columns["corrected"][to] = changed[z - low][y_axis[:, None], x_axis].ravel()
            changes.into(z, [columns["changed"][to]])
        at += n


def _lesions(z_planes: list[int], source: SeriesSource, spec: RowSpec) -> tuple[int, NDArray[np.uint16]]:
    """First plane of the slab, and the lesion number of each of its voxels."""
    from ctpipe.patches.lesions import slab_numbers
    band = z_planes[0] // source.band_planes
    return band * source.band_planes, slab_numbers(source, spec.lesions, band, dict(spec.lesion_numbers)[source.id])


def _framed(columns: dict[str, NDArray[Any]], spec: RowSpec, source: SeriesSource | None) -> pd.DataFrame:
    import pandas as pd
    n = len(columns["z"])
    keys = {}
    for name, values, own in (("series", spec.series, source.id if source else None),
                              ("patient", spec.patients, source.patient if source else None)):
        keys[name] = constant(values, own, n)
    return pd.DataFrame({**keys, **columns}, copy=False)


def constant(values: Sequence[str], own: str | None, n: int) -> pd.Categorical:
    """`n` times `own`, as a category of `values`: one byte a row up to 127 of them."""
    import pandas as pd
    kind = np.int8 if len(values) < 1 << 7 else np.int16 if len(values) < 1 << 15 else np.int32
    codes = np.full(n, values.index(own) if own in values else -1, kind)
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(values)))  # type: ignore[arg-type]


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
