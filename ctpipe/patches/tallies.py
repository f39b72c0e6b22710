"""What a partition's rows come to, and how the answers of two partitions become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctpipe.patches import sampling
from ctpipe.patches.rows import RowSpec
from ctpipe.patches.sources import Part
from ctpipe.patches.virtual import with_virtual

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Lower:
    """Merges two samples: the `n` rows of lowest rank of both."""

    n: int

    def __call__(self, one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
        return sampling.lower(self.n, one, other)


@dataclass(frozen=True)
class MostChanged:
    """Merges two lists: the `n` rows that a reviewer changed most of both."""

    n: int

    def __call__(self, one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
        return sampling.by_change(sampling.concatenated([one, other])).head(self.n)


def band_sizes(rows: pd.DataFrame, part: Part, spec: RowSpec) -> tuple[int, ...]:
    """Rows of each slab of a partition."""
    starts = np.arange(part.start, part.stop, part.source.band_planes)
    places = np.searchsorted(rows["z"].to_numpy(), [*starts[1:], part.stop])  # rows are in the order of z
    return tuple(np.diff([0, *places]).tolist())


def count_part(rows: pd.DataFrame, part: Part, spec: RowSpec, keys: tuple[str, ...]) -> pd.Series:
    """Rows of each group of a partition."""
    return with_virtual(rows, keys, part, spec).groupby(list(keys), observed=True).size()


def added(one: pd.Series, other: pd.Series) -> pd.Series:
    """Two counts as one."""
    import pandas as pd
    both = pd.concat([one, other])
    return both.groupby(level=list(range(both.index.nlevels)), observed=True).sum()


def width(dtype: Any) -> int:
    """Bytes of one value; a category is held as its code."""
    if not hasattr(dtype, "categories"):
        return int(dtype.itemsize)
    n = len(dtype.categories)
    return 1 if n < 1 << 7 else 2 if n < 1 << 15 else 4
