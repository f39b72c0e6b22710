"""Columns that are computed where they are asked for, and held nowhere: they follow from the row's own columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.patches.rows import RowSpec, constant
from ctpipe.patches.sources import Part, SeriesSource

if TYPE_CHECKING:
    import pandas as pd

# Weight of a row whose centre a reviewer changed; where the centre stayed, it grows from 1 with the share of the window
# that was changed. Rows of equal labels elsewhere say again what the model knew.
CORRECTED = 4.0
# name -> what it is; the table of docs/guides/patches.md is made of these words
VIRTUAL = {
    "plane": "plane of level 0 at the centre (its SOP instance: PatchTable.instances)",
    "l_mm": "centre in patient coordinates, towards the left, mm",
    "p_mm": "centre in patient coordinates, towards the back, mm",
    "s_mm": "centre in patient coordinates, towards the head, mm",
    "fraction_background": "exact share of background in the window",
    "in_organ": "whether the centre carries a label of the organ's classes (by default of any class)",
    "source": "where the labels come from: truth, review or prediction",
    "split": "the split of the patient, after PatchTable.split",
    "weight": "1; in tables with reviews up to CORRECTED where a reviewer changed the labels",
}


def virtual_names(stored: Iterable[str]) -> list[str]:
    """The computed columns of a table with these stored ones."""
    return [name for name in VIRTUAL if name not in set(stored)]


def with_virtual(rows: pd.DataFrame, names: Iterable[str], part: Part | None, spec: RowSpec) -> pd.DataFrame:
    """`rows` with the computed columns among `names` that they lack; a shallow copy, the rows are not touched."""
    wanted = [name for name in names if name in VIRTUAL and name not in rows.columns]
    if not wanted:
        return rows
    source = part.source if part else None
    return rows.assign(**{name: _column(name, rows, source, spec) for name in wanted})


def background(rows: pd.DataFrame, spec: RowSpec) -> NDArray[np.float32]:
    """Share of background, from the exact counts that the other shares stand for."""
    total = spec.window_voxels
    counts = np.zeros(len(rows), np.int64)
    for _, name in spec.fractions:
        counts += np.rint(rows[name].to_numpy(np.float64) * total).astype(np.int64)
    return ((total - counts) / total).astype(np.float32)


def weights(rows: pd.DataFrame) -> NDArray[np.float32]:
    """(n,) float32 from 1 to CORRECTED: how often rows should be drawn, by what a reviewer changed in them."""
    share = np.maximum(rows["corrected"].to_numpy(np.float32), rows["changed"].to_numpy(np.float32))
    return 1 + np.float32(CORRECTED - 1) * share


def _column(name: str, rows: pd.DataFrame, source: SeriesSource | None, spec: RowSpec) -> Any:
    n = len(rows)
    if name == "fraction_background":
        return background(rows, spec)
    if name == "in_organ":
        return np.isin(rows["label"].to_numpy(), spec.organ) if spec.organ else rows["label"].to_numpy() > 0
    if name == "weight":
        return weights(rows) if spec.reviewed and {"corrected", "changed"} <= set(rows) else np.ones(n, np.float32)
    if name == "source":
        return constant(("truth", "review", "prediction"), source.kind if source else None, n)
    if name == "split":
        splits = dict(spec.splits)
        return constant(tuple(sorted(set(splits.values()))), splits.get(source.patient) if source else None, n)
    if name == "plane":
        return rows["z"].to_numpy(np.int32) * np.int32(source.factors[0] if source else 1)
    axis = ("l_mm", "p_mm", "s_mm").index(name)
    line = source.rows_mm[axis] if source else (0.0, 0.0, 0.0, 0.0)
    z, y, x = (rows[key].to_numpy(np.float64) for key in "zyx")
    return (line[0] * z + line[1] * y + line[2] * x + line[3]).astype(np.float32)
