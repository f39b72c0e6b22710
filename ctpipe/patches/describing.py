"""What a table holds, in few numbers; and the HU that a class has in each series."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctpipe.errors import NotThereError, RunError
from ctpipe.patches.rows import RowSpec
from ctpipe.patches.running import PlainCall
from ctpipe.patches.sources import Part, SeriesSource
from ctpipe.volume import slabs_of

if TYPE_CHECKING:
    import pandas as pd

    from ctpipe.patches.table import PatchTable

# HU are counted in bins of one, from here on.
_LOWEST, _BINS = -32768, 65536


def described(table: PatchTable) -> pd.DataFrame:
    """Columns: rows, min, max, mean, std, groups; a line for each column of the table. Missing numbers are left out."""
    import pandas as pd
    found = table._merge(_part_facts, _both)
    lines = {}
    for name in table.columns:
        facts = found[name]
        if isinstance(facts, set):
            lines[name] = {"rows": found[""], "groups": len(facts)}
        else:
            n, low, high, total, squares = facts
            mean = total / n if n else np.nan
            lines[name] = {"rows": n, "min": low, "max": high, "mean": mean,
                           "std": float(np.sqrt(max(squares / n - mean * mean, 0))) if n else np.nan}
    return pd.DataFrame.from_dict(lines, orient="index").reindex(
        columns=["rows", "min", "max", "mean", "std", "groups"])


def _part_facts(rows: pd.DataFrame, part: Part, spec: RowSpec) -> dict:
    facts: dict = {"": len(rows)}
    for name in rows.columns:
        values = rows[name]
        if hasattr(values.dtype, "categories"):
            facts[name] = set(values.cat.categories[np.unique(values.cat.codes.to_numpy())].astype(str)) \
                if len(rows) else set()  # fmt: skip
            continue
        numbers = values.to_numpy(np.float64)
        numbers = numbers[np.isfinite(numbers)]
        facts[name] = (len(numbers), float(numbers.min()), float(numbers.max()), float(numbers.sum()),
                       float(np.square(numbers).sum())) if len(numbers) else (0, np.inf, -np.inf, 0.0, 0.0)
    return facts


def _both(one: dict, other: dict) -> dict:
    merged: dict = {"": one[""] + other[""]}
    for name in one:
        if name == "":
            continue
        a, b = one[name], other[name]
        merged[name] = (a | b) if isinstance(a, set) else (
            a[0] + b[0], min(a[1], b[1]), max(a[2], b[2]), a[3] + b[3], a[4] + b[4])
    return merged


def class_medians(table: PatchTable, name: str) -> dict[str, float]:
    """{series: median HU of the voxels of a class}."""
    integers = {known: number for number, known in table.classes.items()}
    if name not in integers:
        raise NotThereError(f"the table has no class {name!r}", f"its classes are {', '.join(integers)}")
    tasks = [(source, integers[name]) for source in table.sources]
    if table.client is None:
        found = [_median(task) for task in tasks]
    else:
        found = table.client.gather([table.client.submit(PlainCall(_median, task), pure=False) for task in tasks])
    for source, value in zip(table.sources, found, strict=True):
        if value is None:
            raise RunError(f"series {source.id} has no voxel of class {name!r}", "leave the series out")
    return {source.id: value for source, value in zip(table.sources, found, strict=True) if value is not None}


def _median(task: tuple[SeriesSource, int]) -> float | None:
    """The lower median, by counting, one slab in memory."""
    source, number = task
    counts = np.zeros(_BINS, np.int64)
    for slab in slabs_of(source.shape[0], source.band_planes):
        inside = source.label_planes(slab.start, slab.stop) == number
        if inside.any():
            values = np.rint(source.hu_planes(slab.start, slab.stop)[inside]).astype(np.int64) - _LOWEST
            counts += np.bincount(np.clip(values, 0, _BINS - 1), minlength=_BINS)
    total = int(counts.sum())
    return None if total == 0 else float(np.searchsorted(np.cumsum(counts), (total + 1) // 2) + _LOWEST)
