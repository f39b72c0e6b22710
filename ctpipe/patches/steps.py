"""Steps: what verbs do to the rows of a partition. Each is small and plain, and is sent to where the rows are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import NotThereError, RunError, UsageError
from ctpipe.patches.query import evaluated, names_in, select
from ctpipe.patches.rows import RowSpec
from ctpipe.patches.sampling import ranks
from ctpipe.patches.sources import Part
from ctpipe.patches.virtual import with_virtual

if TYPE_CHECKING:
    import pandas as pd

    from ctpipe.patches.pixel_steps import PixelSteps

# What identifies a row, whatever verbs did to its table.
KEYS = ("series", "z", "y", "x")
# Pixels of so many bytes are cut at a time where a column is computed from them.
CUT_BYTES = 64 << 20


@dataclass(frozen=True)
class Where:
    """Keeps the rows for which a checked condition holds."""

    condition: str

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        full = with_virtual(rows, names_in(self.condition), part, spec)
        return select(full, self.condition)[list(rows.columns)]


@dataclass(frozen=True)
class Assign:
    """A column computed by a checked expression: truth values stay so, whole numbers become int32, others float32."""

    name: str
    expression: str

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        value = evaluated(with_virtual(rows, names_in(self.expression), part, spec), self.expression).to_numpy()
        if value.dtype.kind in "iu":
            if len(value) and (value.max() >= 2**31 or value.min() < -(2**31)):
                raise UsageError(f"{self.name} = {self.expression!r} does not fit int32", "divide, or add 0.0")
            value = value.astype(np.int32)
        elif value.dtype.kind == "f":
            value = value.astype(np.float32)
        elif value.dtype.kind != "b":
            raise UsageError(f"{self.name} = {self.expression!r} is no number", "compute numbers or truth values")
        return rows.assign(**{self.name: value})


@dataclass(frozen=True)
class Keep:
    """Keeps some columns, and always those that identify a row."""

    names: tuple[str, ...]

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        full = with_virtual(rows, self.names, part, spec)
        return full[[*KEYS, *(name for name in self.names if name not in KEYS)]]


@dataclass(frozen=True)
class Rename:
    """Gives columns other names."""

    pairs: tuple[tuple[str, str], ...]

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        return rows.rename(columns=dict(self.pairs))


@dataclass(frozen=True)
class Thin:
    """Keeps a random share of the rows, drawn for each row from (seed, series, z, y, x)."""

    share: float
    seed: int

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        if part is None or self.share >= 1:
            return rows
        return rows[ranks(rows, part.source.id, self.seed) < np.uint64(int(self.share * 2**64))]


@dataclass(frozen=True)
class Join:
    """The user's own columns, matched by key columns; a row without a match gets NaN (a category: none).

    data: Parquet bytes of keys and columns. file: a Parquet file instead, read where the rows are.
    kinds: {column: dtype, or the categories of a text}; digest: of the columns joined.
    """

    on: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: tuple[tuple[str, str | tuple[str, ...]], ...]
    data: bytes = field(default=b"", repr=False)
    file: str = ""
    digest: str = ""

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        import pandas as pd
        given = self._given(part)
        left = with_virtual(rows, self.on, part, spec)[list(self.on)]
        left = left.astype({name: str for name in self.on if hasattr(left[name].dtype, "categories")})
        found = left.merge(given, on=list(self.on), how="left")
        made = {}
        for name, kind in self.kinds:
            values = found[name]
            made[name] = (pd.Categorical(values, categories=list(kind)) if isinstance(kind, tuple)
                          else values.to_numpy(kind))
        return rows.assign(**made)

    def _given(self, part: Part | None) -> pd.DataFrame:
        import pyarrow.parquet as pq
        wanted = [*self.on, *self.columns]
        if self.file and part is None:
            given = pq.ParquetFile(self.file).schema_arrow.empty_table().select(wanted).to_pandas()
        elif self.file:
            rule = [("series", "==", part.source.id)] if part and "series" in self.on else None
            given = pq.read_table(self.file, columns=wanted, filters=rule).to_pandas()
        else:
            given = pq.read_table(BytesIO(self.data)).to_pandas()
            if part is not None and "series" in self.on:
                given = given[given["series"] == part.source.id]
        given = given.astype({name: str if name in ("series", "patient", "source", "split") else given[name].dtype
                              for name in self.on})
        if given.duplicated(list(self.on)).any():
            raise UsageError(f"the joined rows are not unique by {', '.join(self.on)}",
                             "give each key once, or join on more columns")
        return given


@dataclass(frozen=True)
class LabelAt:
    """The label of the centre voxel in another label group of the series: a run's prediction, say.

    translation: for each series, (name of its group, ((its label, the table's), …)).
    """

    name: str
    groups: tuple[tuple[str, str, tuple[tuple[int, int], ...]], ...]

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        values = np.zeros(len(rows), np.uint8)
        if part is not None and len(rows):
            group, pairs = next((g, pairs) for series, g, pairs in self.groups if series == part.source.id)
            lookup = np.zeros(1 << 16, np.uint8)
            for own, table in pairs:
                lookup[own] = table
            z, y, x = (rows[axis].to_numpy(np.int64) for axis in "zyx")
            band = z // part.source.band_planes
            for number in np.unique(band):
                start = int(number) * part.source.band_planes
                stop = min(start + part.source.band_planes, part.source.shape[0])
                planes = part.source.raw_labels(start, stop, group)
                mine = band == number
                values[mine] = lookup[planes[z[mine] - start, y[mine], x[mine]]]
        return rows.assign(**{self.name: values})


@dataclass(frozen=True)
class FromPixels:
    """Columns computed from the pixels of each row: function(pixels (n, [c,] *window)) -> (n,) or (n, columns).

    The pixels are cut where the rows are, so many at a time, and forgotten. dtype: of the columns.
    """

    names: tuple[str, ...]
    function: Callable[[NDArray[Any]], NDArray[Any]]
    pixels: PixelSteps
    dtype: str = "float32"

    def __call__(self, rows: pd.DataFrame, part: Part | None, spec: RowSpec) -> pd.DataFrame:
        values = np.empty((len(rows), len(self.names)), self.dtype)
        if part is not None and len(rows):
            from ctpipe.patches.fetching import cut_rows
            each = 4 * spec.window_voxels * self.pixels.channels
            step = max(1, CUT_BYTES // each)
            full = with_virtual(rows, self.pixels.columns, part, spec)
            for at in range(0, len(rows), step):
                some = full.iloc[at : at + step]
                pixels = cut_rows(some, {part.source.id: part.source}, spec.windows, self.pixels)
                found = np.asarray(self.function(pixels))
                if found.shape not in ((len(some),), (len(some), len(self.names))):
                    raise RunError(f"the function of column {self.names[0]} gave an array of shape {found.shape}",
                                   f"give ({len(some)}, {len(self.names)}) for {len(some)} rows")
                values[at : at + step] = found.reshape(len(some), -1)
        return rows.assign(**{name: values[:, i] for i, name in enumerate(self.names)})


def joined(other: pd.DataFrame | str | Path, on: tuple[str, ...], columns: tuple[str, ...] | None = None) -> Join:
    """The step that joins a frame, a CSV or a Parquet file by the columns `on`; NotThereError for what it lacks."""
    import pandas as pd
    file = ""
    if isinstance(other, (str, Path)):
        path = Path(other)
        if not path.is_file():
            raise NotThereError(f"there is no file {path}", "give a CSV or a Parquet file")
        if path.suffix == ".csv":
            frame = pd.read_csv(path)
        else:
            file = str(path.absolute())
            frame = pd.read_parquet(path)
    else:
        frame = other
    lacking = [name for name in (*on, *(columns or ())) if name not in frame.columns]
    if lacking:
        raise NotThereError(f"what is joined has no column {', '.join(lacking)}",
                            f"its columns are {', '.join(map(str, frame.columns))}")
    wanted = columns or tuple(str(name) for name in frame.columns if name not in on)
    frame = frame[[*on, *wanted]]
    kinds = tuple((name, _kind(frame[name])) for name in wanted)
    plain = frame.astype({name: str for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)})
    buffer = BytesIO()
    plain.to_parquet(buffer, index=False, compression="zstd")
    from hashlib import sha256
    digest = sha256(buffer.getvalue()).hexdigest()[:16]
    return Join(on, wanted, kinds, b"" if file else buffer.getvalue(), file, digest)


def _kind(values: pd.Series) -> str | tuple[str, ...]:
    """float32 for numbers that it holds exactly, else float64; the categories of a text."""
    import pandas as pd
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(np.float64)
        exact = np.array_equal(numbers.astype(np.float32).astype(np.float64), numbers, equal_nan=True)
        return "float32" if exact or values.dtype == np.float32 else "float64"
    return tuple(sorted({str(value) for value in values.dropna()}))
