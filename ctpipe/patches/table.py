"""The patch table: a row for every window of a store's labelled volumes; an index, never pixels (DESIGN 4).

A table is a plan: what it is made of and the steps that verbs added. Rows are made partition by partition where they
are wanted, and forgotten, until `persist` holds them in the memory of the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.config import Stratum, WindowSpec
from ctpipe.errors import NotThereError, UsageError
from ctpipe.patches import running, sampling, splitting, tallies
from ctpipe.patches import steps as verbs
from ctpipe.patches.pixel_steps import PixelSteps
from ctpipe.patches.query import checked
from ctpipe.patches.rows import RowSpec, Step, empty_rows, stepped
from ctpipe.patches.sources import Part, SeriesSource
from ctpipe.patches.virtual import virtual_names

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    from distributed import Client


@dataclass(frozen=True)
class PatchTable:
    """Rows of windows. Verbs give another table and compute nothing; what gives numbers or frames computes.

    Rows are in the order of series id, z, y, x. Columns held: series, patient (categories), z, y, x (centre, int16),
    label (of the centre voxel, uint8), fraction_<class> (float32, exact count / window voxels); with statistics
    hu_mean, hu_std (float32), in_body; with lesions `lesion` (uint16). `VIRTUAL` names those computed on the way.

    held: the partitions in cluster memory (futures), or in this process. done: steps they have behind them.
    found: the types of a saved table's rows. order_seed: of `shuffle`.
    """

    spec: RowSpec
    sources: tuple[SeriesSource, ...]
    level: int
    client: Client | None = None
    given_parts: tuple[Part, ...] | None = field(default=None, repr=False)
    held: tuple[Any, ...] | None = field(default=None, repr=False, compare=False)
    done: int = 0
    found: pd.DataFrame | None = field(default=None, repr=False, compare=False)
    order_seed: int | None = None
    name: str = ""

    # ------------------------------------------------------------------------------------------------ what it is
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

    @cached_property
    def empty(self) -> pd.DataFrame:
        """No rows, every held column with its type."""
        if self.found is not None:
            return stepped(self.found, None, self.spec, self.done)
        return empty_rows(self.spec)

    @cached_property
    def columns(self) -> list[str]:
        """The columns that rows hold."""
        return list(self.empty.columns)

    @cached_property
    def all_columns(self) -> list[str]:
        """The columns that can be asked for: those held and those computed on the way."""
        return [*self.columns, *virtual_names(self.columns)]

    @property
    def n_windows(self) -> int:
        """Windows of the lattice, before any step."""
        return sum(len(self.spec.grid(source)) for source in self.sources)

    def __len__(self) -> int:
        """Rows; they are computed where steps select among them."""
        whole = self.given_parts is None and not any(isinstance(s, (verbs.Where, verbs.Thin)) for s in self.spec.steps)
        return self.n_windows if whole else sum(self.sizes)

    @cached_property
    def band_sizes(self) -> tuple[tuple[int, ...], ...]:
        """Rows of each slab of each partition."""
        return tuple(self._map(tallies.band_sizes))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each partition."""
        return tuple(sum(bands) for bands in self.band_sizes)

    @property
    def row_bytes(self) -> int:
        """Bytes that one row takes in memory."""
        return int(sum(self.empty.dtypes.map(tallies.width)))

    @property
    def nbytes(self) -> int:
        """Bytes of all rows together, before any `where`."""
        return self.n_windows * self.row_bytes

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all windows if their int16 pixels were copied: what this table does not do."""
        return self.n_windows * self.spec.window_voxels * 2

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The work of each partition, in row order."""
        return self.given_parts if self.given_parts is not None else tuple(self.spec.parts(self.sources))

    @property
    def frame(self) -> dd.DataFrame:
        """The rows as a lazy Dask DataFrame; a partition is one or more whole slabs of one series."""
        import dask.dataframe as dd
        calls = self._calls(running.the_rows)
        if self.held is not None and self.client is not None:
            futures = self.held
            if self.done < len(self.spec.steps):
                futures = tuple(running.submit(self.client, calls, self.held, "patch-steps"))
            return dd.from_delayed(list(futures), meta=self.empty, verify_meta=False)
        if self.held is not None:
            calls = [running.Held(call, rows) for call, rows in zip(calls, self.held, strict=True)]  # type: ignore[misc]
        return dd.from_map(running.called, calls, meta=self.empty, label="patch-rows")

    # ------------------------------------------------------------------------------------------------ rows
    def where(self, expression: str) -> PatchTable:
        """The rows for which a pandas query expression holds; class names may stand for their integers."""
        return self._then(verbs.Where(self._checked(expression)))

    def assign(self, **expressions: str) -> PatchTable:
        """Computed columns, by pandas expressions over the others: table.assign(mix="fraction_a * fraction_b")."""
        table = self
        for name, expression in expressions.items():
            table._free(name)
            table = table._then(verbs.Assign(name, table._checked(expression)))
        return table

    def join(self, other: pd.DataFrame | str | Path, on: str | Sequence[str],
             columns: Sequence[str] | None = None) -> PatchTable:
        """The user's own columns from a frame, a CSV or a Parquet file, matched by columns of the table.

        Every row stays; where nothing matches, numbers are NaN and texts are missing. Keys of `other` must be unique.
        """
        keys = (on,) if isinstance(on, str) else tuple(on)
        self._there(keys)
        step = verbs.joined(other, keys, tuple(columns) if columns else None)
        for name in step.columns:
            self._free(name)
        return self._then(step)

    def select(self, columns: Sequence[str]) -> PatchTable:
        """Some columns, and always series, z, y and x, which identify a row; computed ones are held from now on."""
        self._there(columns)
        return self._then(verbs.Keep(tuple(columns)))

    def rename(self, **names: str) -> PatchTable:
        """Columns under other names: table.rename(old="new"); those that identify a row keep theirs."""
        self._there(tuple(names))
        fixed = [name for name in names if name in (*verbs.KEYS, "patient", "label")]
        if fixed:
            raise UsageError(f"column {fixed[0]} cannot be renamed", "compute a column of another name with assign")
        for name in names.values():
            self._free(name)
        return self._then(verbs.Rename(tuple(names.items())))

    def thin(self, share: float, seed: int = 0) -> PatchTable:
        """A random share of the rows as a table: each row is drawn by (seed, series, z, y, x) alone."""
        if not 0 < share <= 1:
            raise UsageError(f"a share of {share} cannot be drawn", "give more than 0 and at most 1")
        return self._then(verbs.Thin(float(share), int(seed)))

    def with_labels(self, labels: str, name: str = "predicted") -> PatchTable:
        """The centre's label in another label group of each series (a run, a review), in the table's integers.

        A class is matched by name; one that the table lacks counts as background.
        """
        self._free(name)
        integers = {known: number for number, known in self.classes.items()}
        groups = []
        for source in self.sources:
            group = source.series.labels[labels]
            pairs = tuple((own, integers[known]) for own, known in group.classes.items() if known in integers)
            groups.append((source.id, str(group.name), pairs))
        return self._then(verbs.LabelAt(name, tuple(groups)))

    def hard_negatives(self, run: str) -> PatchTable:
        """Columns `predicted` and `false_positive` of a run: it says a class where the truth is background."""
        return self.with_labels(run).assign(false_positive="predicted != 0 and label == 0")

    def from_pixels(self, names: str | Sequence[str], function: Callable[[NDArray[Any]], NDArray[Any]],
                    steps: PixelSteps | None = None, dtype: str = "float32") -> PatchTable:
        """Columns computed from each row's pixels, where the rows are, when the rows are wanted (see `persist`).

        function: pixels (n, [c,] *window) -> (n,) or (n, names); it must be importable where it runs.
        """
        chosen = (names,) if isinstance(names, str) else tuple(names)
        for name in chosen:
            self._free(name)
        return self._then(verbs.FromPixels(chosen, function, self._pixel_steps(steps), dtype))

    def score(self, function: Callable[[NDArray[Any]], NDArray[Any]], classes: Sequence[str] | None = None,
              steps: PixelSteps | None = None) -> PatchTable:
        """Scores of a model beside every column of its input: score_<class>, background first, float32.

        function: pixels -> (n, 1 + classes); `classes` are the model's, by default the table's.
        """
        wanted = ("background", *(classes if classes is not None else self.classes.values()))
        return self.from_pixels([f"score_{name}" for name in wanted], function, steps)

    def hard_examples(self, n: int) -> pd.DataFrame:
        """The `n` rows of which a reviewer changed most, most first (the centre, then the share of the window).

        Rows that nobody changed are left out. NotThereError for a table without reviews.
        """
        if not {"corrected", "changed"} <= set(self.columns):
            raise NotThereError("the table has no reviews", "build it with source='review' or 'best'")
        rows = self._merge(sampling.most_changed, tallies.MostChanged(n), n)
        return rows.reset_index(drop=True)

    def compute(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows, as pandas in this process, numbered from 0; `columns` may name computed ones."""
        table = self if columns is None else self._only(columns)
        made = table._map(running.the_rows)
        rows = sampling.concatenated(made) if made else table.empty
        return rows if columns is None else rows[list(columns)]

    def head(self, n: int = 10) -> pd.DataFrame:
        """The first `n` rows (of the order that `shuffle` gave)."""
        from ctpipe.patches.batches import rows_at
        return rows_at(self, 0, min(n, len(self)))

    def count(self, by: str | Sequence[str] = "label") -> pd.Series:
        """Rows of each group that occurs, e.g. by ["patient", "label"]."""
        keys = [by] if isinstance(by, str) else list(by)
        self._there(keys)
        counts = self._merge(tallies.count_part, tallies.added, tuple(keys))
        return counts.groupby(level=keys, observed=True).sum().rename("rows")

    def describe(self) -> pd.DataFrame:
        """Rows, lowest, highest, mean and standard deviation of every number column; groups of every category."""
        from ctpipe.patches.describing import described
        return described(self)

    def sql(self, query: str) -> pd.DataFrame:
        """The answer of a DuckDB SELECT over the rows, which are called `rows`; computed beside the rows."""
        from ctpipe.patches.sql import ask
        return ask(self, query)

    # ------------------------------------------------------------------------------------------------ sampling
    def sample(self, n: int, seed: int = 0, by: str | Sequence[str] | Sequence[Stratum] = "label", *,
               proportional: bool = False, weight: str | None = None) -> pd.DataFrame:
        """`n` rows in random order, the same for a seed whatever the partitions, the workers and the order of work.

        by: "label" takes equally many of each class that occurs; columns take equally many of each of their groups, or
        (proportional) as many as there are; strata take their shares. Every row has a rank drawn from (seed, series, z,
        y, x), and a stratum gives its rows of lowest rank, none twice until all were given; `weight` names a column by
        which rows are drawn more or less often. A stratum without rows leaves its share to the others; NotThereError
        where none has rows. A row in two strata can be given by both. The index numbers the sample; column `stratum`
        tells which one gave the row.
        """
        strata = self._strata(by, proportional)
        if weight is not None:
            self._there([weight])
        conditions = tuple(self._checked(stratum.where) for stratum in strata)
        rows = self._merge(sampling.lowest, tallies.Lower(n), conditions, n, seed, weight)
        return sampling.drawn(rows, strata, n, seed)

    def _strata(self, by: str | Sequence[str] | Sequence[Stratum], proportional: bool) -> tuple[Stratum, ...]:
        if by == "label" and not proportional:
            return sampling.strata_of("label", self.classes)
        if isinstance(by, str) or all(isinstance(one, str) for one in by):
            return sampling.strata_of_groups(self.count(by), proportional)  # type: ignore[arg-type]
        return sampling.strata_of(by, self.classes)  # type: ignore[arg-type]

    def shuffle(self, seed: int = 0) -> PatchTable:
        """The same rows in a random order: `head` and `batches` follow it. Nothing is moved."""
        return replace(self, order_seed=int(seed))

    def of_series(self, ids: Sequence[str]) -> PatchTable:
        """The rows of some series; NotThereError names one that the table lacks."""
        for name in ids:
            if name not in self.series:
                raise NotThereError(f"the table has no series {name!r}", f"it has {', '.join(self.series)}")
        return self._of(lambda source: source.id in set(ids))

    def split(self, validate: Sequence[str] = (), test: Sequence[str] = (), *,
              shares: Mapping[str, float] | None = None, stratify: str = "label", seed: int = 0
              ) -> dict[str, PatchTable]:
        """{split: table} by patient. Named: "train" has all patients that `validate` and `test` do not name.

        shares: instead, {split: share} of the patients, each split with its share of every `stratify` group's rows as
        nearly as whole patients allow, the same for a seed. Rows tell their split in column `split`.
        UsageError where a patient is named for two, or nobody is left to train on; RunError where the same voxels lie
        under patients of two splits.
        """
        if shares is None:
            splits = splitting.named_splits(self.patients, validate, test)
        else:
            counts = self.count(["patient", stratify]).unstack(fill_value=0)
            splits = splitting.stratified_splits(counts, shares, seed)
        marked = replace(self, spec=replace(self.spec, splits=tuple(sorted(splits.items()))))
        names = list(shares) if shares else ["train", "validate", "test"]
        made = {split: marked._of(lambda source, split=split: splits[source.patient] == split)  # type: ignore[misc]
                for split in names if split in splits.values()}
        splitting.assert_apart({split: table.sources for split, table in made.items()})
        return made

    # ------------------------------------------------------------------------------------------------ pixels
    def fetch(self, rows: pd.DataFrame, steps: PixelSteps | None = None, out: NDArray[np.generic] | None = None
              ) -> NDArray[np.generic]:
        """Pixels (n, [channels,] *window) of `rows` (columns series, z, y, x), in their order; see `PixelSteps`.

        int16 HU as stored without steps. On a cluster they are cut by the workers that hold the rows or their slabs;
        without one, an array `out` of the right shape and type is filled and given back.
        """
        from ctpipe.patches.batches import fetched
        return fetched(self, rows, self._pixel_steps(steps), out)

    def batches(self, size: int, shuffle: int | None = None, steps: PixelSteps | None = None,
                transform: Callable[[NDArray[Any], pd.DataFrame], Any] | None = None, *, drop_last: bool = False,
                pool: int = 8) -> Iterator[Any]:
        """(pixels, rows) of `size` rows at a time, or transform(pixels, rows): one pass over the table.

        shuffle: a seed; the same batches for it on any number of workers. Partitions are taken `pool` at a time.
        """
        from ctpipe.patches.batches import batches_of
        seed = self.order_seed if shuffle is None else int(shuffle)
        return batches_of(self, size, seed, self._pixel_steps(steps), transform, drop_last, pool)

    def reference_hu(self, name: str) -> dict[str, float]:
        """{series: median HU of the voxels of a class}; RunError names a series that has none."""
        from ctpipe.patches.describing import class_medians
        return class_medians(self, name)

    def instances(self, rows: pd.DataFrame) -> pd.Series:
        """Pseudonym of the SOP instance of each row's centre plane, by the plane table of its volume."""
        import pandas as pd
        found = np.empty(len(rows), object)
        names = rows["series"].astype(str).to_numpy()
        for source in self.sources:
            mine = np.flatnonzero(names == source.id)
            if len(mine):
                found[mine] = source.instances(rows["z"].to_numpy(np.int64)[mine] * source.factors[0])
        return pd.Series(found, rows.index, name="sop_instance")

    def label_planes(self, series: str, start: int, stop: int) -> NDArray[np.uint8]:
        """(stop - start, y, x) uint8: the labels of planes of the table's level, in the table's integers."""
        return self.source(series).label_planes(start, stop)

    def source(self, series: str) -> SeriesSource:
        """What the table knows of one series; NotThereError where it has none of that id."""
        return self.of_series([series]).sources[0]

    def plane_image(self, series: str, z: int, column: str, fill: str = "nearest", missing: float = np.nan
                    ) -> NDArray[np.float32]:
        """(y, x) float32: a column of the rows of one plane, condensed to an image of the volume's plane.

        fill: "nearest" centre, or "linear" interpolation between centres; `missing` where no row is near (see
        `ctpipe.patches.condensing`).
        """
        return self.condense(series, column, z, z + 1, fill, missing)[0]

    def condense(self, series: str, column: str, start: int = 0, stop: int | None = None, fill: str = "nearest",
                 missing: float = np.nan) -> NDArray[np.float32]:
        """(stop - start, y, x) float32: a column of the rows of one series, condensed to planes of its volume."""
        from ctpipe.patches.condensing import condensed
        return condensed(self, series, column, start, stop, fill, missing)

    def show(self, path: str | Path, n: int = 16, where: str | None = None, seed: int = 0) -> Path:
        """A contact sheet of `n` rows drawn by `seed`, labels outlined, as a PNG at `path`."""
        from ctpipe.patches.showing import contact_sheet
        return contact_sheet(self.where(where) if where else self, Path(path), n, seed)

    # ------------------------------------------------------------------------------------------------ memory
    def persist(self) -> PatchTable:
        """The rows held in the memory of the cluster (of this process without one), all steps taken, until let go."""
        from ctpipe.patches.sharing import persisted
        return persisted(self)

    def replicate(self, n: int = 2) -> PatchTable:
        """Held rows on `n` workers each: so many less one may be lost without anything being computed again."""
        from ctpipe.patches.sharing import replicated
        return replicated(self, n)

    def publish(self, name: str) -> PatchTable:
        """Held under a name that other clients can `ctpipe.patches.open_table`, as long as the cluster lives."""
        from ctpipe.patches.sharing import published
        return published(self, name)

    def budget(self, bytes_per_worker: int) -> PatchTable:
        """Every worker (this process without a cluster) keeps at most so many bytes of slabs from now on."""
        from ctpipe.patches.sharing import set_budget
        set_budget(self.client, bytes_per_worker)
        return self

    def resident(self) -> dict[str, dict[str, int]]:
        """{worker: what it holds of slabs}; without a cluster of this process."""
        from ctpipe.patches.sharing import resident
        return resident(self.client)

    def memory(self) -> dict[str, int]:
        """Bytes: of the rows (index), of the slabs resident now, and of the pixels if every row held its own."""
        return {"index": self.nbytes, "pixels_resident": sum(one["bytes"] for one in self.resident().values()),
                "pixels_materialised": self.pixel_bytes}

    def save(self, name: str | Path) -> Path:
        """Rows as Parquet, with window spec and source keys: STORE/tables/<name>, or a folder of its own."""
        from ctpipe.patches.saving import saved
        return saved(self, name)

    # ------------------------------------------------------------------------------------------------ inside
    def _then(self, step: Step) -> PatchTable:
        """The table with one more step; tried on no rows first, so that wrong types are found now."""
        table = replace(self, spec=replace(self.spec, steps=(*self.spec.steps, step)))
        table.empty  # noqa: B018
        return table

    def _of(self, wanted: Callable[[SeriesSource], bool]) -> PatchTable:
        """The rows of some sources."""
        keep = [number for number, part in enumerate(self.parts) if wanted(part.source)]
        some = self.given_parts is not None or self.held is not None
        return replace(self, sources=tuple(source for source in self.sources if wanted(source)),
                       given_parts=tuple(self.parts[n] for n in keep) if some else None,
                       held=tuple(self.held[n] for n in keep) if self.held is not None else None)

    def _of_planes(self, start: int, stop: int) -> PatchTable:
        """The partitions that hold some of planes start..stop-1, of a table of one series."""
        keep = [number for number, part in enumerate(self.parts) if part.start < stop and part.stop > start]
        return replace(self, given_parts=tuple(self.parts[n] for n in keep),
                       held=tuple(self.held[n] for n in keep) if self.held is not None else None)

    def _only(self, columns: Sequence[str]) -> PatchTable:
        self._there(columns)
        return self._then(verbs.Keep(tuple(columns)))

    def _checked(self, expression: str) -> str:
        labels = ["label", *(step.name for step in self.spec.steps if isinstance(step, verbs.LabelAt))]
        return checked(expression, self.all_columns, self.classes, labels)

    def _there(self, columns: Sequence[str]) -> None:
        for name in columns:
            if name not in self.all_columns:
                raise NotThereError(f"the table has no column {name!r}", f"its columns are {', '.join(self.columns)}")

    def _free(self, name: str) -> None:
        if name in self.columns:
            raise UsageError(f"the table has a column {name!r} already", "give another name, or rename that one")

    def _pixel_steps(self, steps: PixelSteps | None) -> PixelSteps:
        steps = steps or PixelSteps()
        name = steps.relative_to
        if isinstance(name, str) and name in self.classes.values() and name not in self.all_columns:
            steps = replace(steps, references=tuple(self.reference_hu(name).items()))
        return steps.checked(self.all_columns)

    def _calls(self, function: Callable[..., Any], *settings: Any) -> list[running.RowsCall]:
        return [running.RowsCall(function, part, self.spec.of(part.source), self.done, settings) for part in self.parts]

    def _map(self, function: Callable[..., Any], *settings: Any) -> list[Any]:
        """function(rows, part, spec, *settings) of every partition, in row order."""
        return running.mapped(self.client, self._calls(function, *settings), self.held, function.__name__)

    def _merge(self, function: Callable[..., Any], merge: Callable[[Any, Any], Any], *settings: Any) -> Any:
        """The same, the answers of all partitions merged where they are."""
        return running.merged(self.client, self._calls(function, *settings), self.held, function.__name__, merge)
