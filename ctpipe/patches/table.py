"""The patch table: a row for every window of a store's labelled volumes; an index, never pixels (DESIGN 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import Stratum, WindowSpec
from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.patches import sampling
from ctpipe.patches.query import checked, select
from ctpipe.patches.rows import Part, RowSpec, SeriesSource, empty_rows, parts_of, rows_of, translate
from ctpipe.words import ZYX, Pad

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    from distributed import Client

    from ctpipe.store import Store


def patch_table(
    store: Store | Mapping[str, Any] | str | Path, window: Sequence[int] = (1, 257, 257),
    stride: Sequence[int] = (1, 7, 7), pad: str | Pad = "edge", where: str | None = None,
    client: Client | None = None, *, series: Sequence[str] | str | None = None, level: int = 0, labels: str = "truth",
    classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> PatchTable:  # fmt: skip
    """Table with a row for every window (z, y, x) at every `stride` voxels of the store's labelled volumes.

    pad: what a window sees beyond its volume, "edge" or "constant"; labels are padded as pixels are (edge: the
        nearest voxel's label, constant: background).
    where: keep only rows for which a pandas query expression holds, e.g. `label == "liver" and fraction_lesion > 0`.
    client: a Dask client that computes; None computes in this process.
    series: ids or unambiguous prefixes; by default every volume that has `labels`.
    level: the pyramid level on which window, stride, z, y and x count.
    classes: names in the order of their integers from 1, or {name: names that count as it}; by default the classes of
        the label volumes with their own integers. Voxels of a class that is not named are background.

    Raises NotThereError for a series, label group, level, class or column that is not there; UsageError for a condition
    that is none. Nothing is computed yet, only group metadata is read.
    """
    if isinstance(store, (str, Path)):
        from ctpipe.store import open_store  # zarr is wanted only where a store is opened
        store = open_store(store)
    if pad not in list(Pad):
        raise UsageError(f"pad {str(pad)!r} is unknown", f"choose {' or '.join(Pad)}")
    windows = WindowSpec(window=_lengths(window), stride=_lengths(stride), pad=Pad(pad))
    chosen = _chosen(store, series, labels)
    groups = [one.labels[labels] for one in chosen]  # once: "truth" is the newest, whichever that is at each look
    _check_classes(groups, classes)
    names, translations = translate([group.classes for group in groups], classes)
    sources = tuple(_source(store, one, group, level, mapping)
                    for one, group, mapping in zip(chosen, groups, translations, strict=True))
    largest = max(max(source.shape) for source in sources)
    spec = RowSpec(windows, tuple(names.items()), tuple(source.id for source in sources),
                   tuple(sorted({source.patient for source in sources})),
                   index_dtype="int16" if largest <= np.iinfo(np.int16).max else "int32")
    table = PatchTable(spec, sources, level, client)
    return table.where(where) if where else table


@dataclass(frozen=True)
class PatchTable:
    """Rows of windows; every verb gives another table and computes nothing, save `compute`, `count` and `sample`.

    Rows are in the order of series id, z, y, x. Columns: series, patient (categories), z, y, x (centre, int16),
    label (of the centre voxel, uint8), fraction_background and fraction_<class> (float32, exact count / window voxels).
    """

    spec: RowSpec
    sources: tuple[SeriesSource, ...]
    level: int
    client: Client | None = None

    @property
    def windows(self) -> WindowSpec:
        return self.spec.windows

    @property
    def classes(self) -> dict[int, str]:
        """{integer: name} of the table's labels, without background (0)."""
        return dict(self.spec.classes)

    @property
    def store(self) -> Path | Mapping[str, Any]:
        """The store that the rows point into: its folder, as `open_store` takes it."""
        return self.sources[0].store

    @property
    def series(self) -> list[str]:
        return [source.id for source in self.sources]

    @property
    def patients(self) -> list[str]:
        return sorted({source.patient for source in self.sources})

    @property
    def columns(self) -> list[str]:
        return list(empty_rows(self.spec).columns)

    @property
    def n_windows(self) -> int:
        """Windows of the lattice, before any `where`."""
        return sum(len(self.spec.grid(source)) for source in self.sources)

    def __len__(self) -> int:
        """Rows; they are computed where the table has conditions."""
        return sum(self._map(_count_rows, self.spec)) if self.spec.conditions else self.n_windows

    @property
    def row_bytes(self) -> int:
        return int(sum(empty_rows(self.spec).dtypes.map(_width)))

    @property
    def nbytes(self) -> int:
        """Bytes of all rows together, before any `where`."""
        return self.n_windows * self.row_bytes

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all windows if their int16 pixels were copied: what this table does not do."""
        return self.n_windows * int(np.prod(self.windows.window)) * 2

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The work of each partition, in row order."""
        return tuple(part for source in self.sources for part in parts_of(source, self.spec.grid(source)))

    @cached_property
    def frame(self) -> dd.DataFrame:
        """The rows as a lazy Dask DataFrame; a partition is one or more whole slabs of one series."""
        import dask.dataframe as dd
        return dd.from_map(rows_of, list(self.parts), spec=self.spec, meta=empty_rows(self.spec), label="patch-rows")

    def where(self, expression: str) -> PatchTable:
        """The rows for which a pandas query expression holds; class names may stand for their integers."""
        condition = checked(expression, self.columns, self.classes)
        select(empty_rows(self.spec), condition)  # wrong types are found now, not on a worker
        return replace(self, spec=replace(self.spec, conditions=(*self.spec.conditions, condition)))

    def compute(self) -> pd.DataFrame:
        """All rows, as pandas, numbered from 0."""
        import pandas as pd
        return pd.concat(self._map(rows_of, self.spec), ignore_index=True)

    def count(self, by: str | Sequence[str] = "label") -> pd.Series:
        """Rows of each group that occurs, e.g. by ["patient", "label"]."""
        keys = [by] if isinstance(by, str) else list(by)
        for key in keys:
            if key not in self.columns:
                raise NotThereError(f"the table has no column {key!r}", f"its columns are {', '.join(self.columns)}")
        import pandas as pd
        counts = pd.concat(self._map(_count_part, self.spec, tuple(keys)))
        return counts.groupby(level=keys, observed=True).sum().rename("rows")

    def sample(self, n: int, seed: int = 0, by: str | Sequence[Stratum] = "label") -> pd.DataFrame:
        """`n` rows in random order, the same for a seed whatever the partitions, the workers and the order of work.

        by: "label" takes equally many of each class that occurs; strata take their shares. Every row has a rank drawn
        from (seed, series, z, y, x), and a stratum gives its rows of lowest rank, none twice until all were given. A
        stratum without rows leaves its share to the others; NotThereError where none has rows. A row in two strata
        can be given by both. The index numbers the sample; column `stratum` tells which one gave the row.
        """
        strata = sampling.strata_of(by, self.classes)
        conditions = tuple(checked(stratum.where, self.columns, self.classes) for stratum in strata)
        parts = self._map(sampling.lowest, self.spec, conditions, n, seed)
        return sampling.drawn(parts, strata, n, seed)

    def of_series(self, ids: Sequence[str]) -> PatchTable:
        """The rows of some series; NotThereError names one that the table lacks."""
        for name in ids:
            if name not in self.series:
                raise NotThereError(f"the table has no series {name!r}", f"it has {', '.join(self.series)}")
        return replace(self, sources=tuple(source for source in self.sources if source.id in set(ids)))

    def split(self, validate: Sequence[str], test: Sequence[str] = ()) -> dict[str, PatchTable]:
        """{"train", "validate", "test"} by patient; `train` has all patients that are not named, `test` may be absent.

        UsageError where a patient is named for two, or nobody is left to train on; RunError where the same voxels lie
        under patients of two splits.
        """
        named = {"validate": set(validate), "test": set(test)}
        unknown = sorted((named["validate"] | named["test"]) - set(self.patients))
        if unknown:
            raise NotThereError(f"the table has no patient {', '.join(unknown)}", f"it has {', '.join(self.patients)}")
        if named["validate"] & named["test"]:
            raise UsageError(f"patient {min(named['validate'] & named['test'])} is named for validate and test",
                             "name each patient once")
        named["train"] = set(self.patients) - named["validate"] - named["test"]
        if not named["train"]:
            raise UsageError("no patient is left to train on", "name fewer patients for validate and test")
        made = {split: replace(self, sources=tuple(s for s in self.sources if s.patient in named[split]))
                for split in ("train", "validate", "test") if named[split]}
        _assert_apart(made)
        return made

    def label_planes(self, series: str, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, y, x) uint8: the labels of planes of the table's level, in the table's integers."""
        return self.of_series([series]).sources[0].label_planes(start, stop)

    def _map(self, function: Callable[..., Any], *settings: Any) -> list[Any]:
        """function(part, *settings) of every partition, in row order: on the client, or here one after the other."""
        if self.client is None:
            return [function(part, *settings) for part in self.parts]
        return self.client.gather([self.client.submit(function, part, *settings, pure=False) for part in self.parts])


def _count_rows(part: Part, spec: RowSpec) -> int:
    return len(rows_of(part, spec))


def _count_part(part: Part, spec: RowSpec, keys: tuple[str, ...]) -> pd.Series:
    return rows_of(part, spec).groupby(list(keys), observed=True).size()


def _lengths(values: Sequence[int]) -> ZYX:
    if len(values) != 3 or any(int(v) != v for v in values):
        raise UsageError(f"{tuple(values)} is not three lengths in voxels", "give whole numbers z, y, x")
    return ZYX(*(int(v) for v in values))


def _width(dtype: Any) -> int:
    """Bytes of one value; a category is held as its code."""
    if not hasattr(dtype, "categories"):
        return int(dtype.itemsize)
    n = len(dtype.categories)
    return 1 if n < 1 << 7 else 2 if n < 1 << 15 else 4


def _chosen(store: Mapping[str, Any], series: Sequence[str] | str | None, labels: str) -> list[Any]:
    """The series of the table by id; without a choice, all that have the labels."""
    if series is None:
        chosen = [store[name] for name in sorted(store) if labels in store[name].labels]
    else:
        wanted = [series] if isinstance(series, str) else series
        unique = {one.id: one for one in (store[name] for name in wanted)}
        chosen = [unique[name] for name in sorted(unique)]
        for one in chosen:
            if labels not in one.labels:
                raise NotThereError(f"series {one.id} has no labels {labels!r}", "ingest it with --labels")
    if not chosen:
        raise NotThereError(f"no series of the store has labels {labels!r}", "ingest it with --labels")
    return chosen


def _check_classes(groups: list[Any], classes: Sequence[str] | Mapping[str, Sequence[str]] | None) -> None:
    """NotThereError for a wanted class that no label volume has; of a merged one, one part must be there."""
    existing = sorted({name for group in groups for name in group.classes.values()})
    lacking = [name for name in classes or ()
               if not set(classes[name] if isinstance(classes, Mapping) else (name,)) & set(existing)]
    if lacking:
        raise NotThereError(f"the label volumes have no class {', '.join(lacking)}",
                            f"their classes are {', '.join(existing)}")


def _source(store: Mapping[str, Any], series: Any, group: Any, level: int, mapping: dict[int, int]) -> SeriesSource:
    if not 0 <= level < len(series.levels):
        raise NotThereError(f"series {series.id} has no pyramid level {level}",
                            f"choose one of 0..{len(series.levels) - 1}")
    if group.grid.grid_id != series.grid.grid_id:
        raise RunError(f"labels on grid {group.grid.grid_id} do not fit series {series.id} on {series.grid.grid_id}",
                       "ingest the labels again")
    at = series.levels[level]
    root = getattr(store, "root", None)
    return SeriesSource(Path(root) if root else store, series.id, series.patient, series.content, group.name, level,
                        tuple(at.grid.shape), at.slab_planes, tuple(sorted(mapping.items())))


def _assert_apart(splits: dict[str, PatchTable]) -> None:
    """Two patients' rows never mix, nor the same voxels under two names."""
    for what in ("patient", "content"):
        owner: dict[str, str] = {}
        for split, table in splits.items():
            for source in table.sources:
                first = owner.setdefault(getattr(source, what), split)
                if first != split:
                    raise RunError(f"series {source.id} has its {what} in {first} and in {split}",
                                   "put both patients into one split, or remove one of the series")
