"""Rows back to pictures: a column of the rows of one plane becomes an image, of one series a volume.

This is the original's transpose-and-condense. With a stride above 1 only every stride-th voxel is a centre; the others
take the nearest centre (ties to the lower index), or are interpolated linearly between the centres on both sides
(behind the last centre its value stays). Centres without a row are `missing`: NaN spreads to what is interpolated from
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.patches.rows import RowSpec
from ctpipe.patches.sources import Part
from ctpipe.patches.virtual import with_virtual

if TYPE_CHECKING:
    import pandas as pd

    from ctpipe.patches.table import PatchTable


def condensed(table: PatchTable, series: str, column: str, start: int, stop: int | None, fill: str, missing: float
              ) -> NDArray[np.float32]:
    """See `PatchTable.condense`. Only the partitions that the planes lie in are asked, each for a piece of lattice."""
    table._there([column])
    if fill not in ("nearest", "linear"):
        raise UsageError(f"fill {fill!r} is unknown", "choose nearest or linear")
    one = table.of_series([series])
    depth, height, width = one.sources[0].shape
    stop = depth if stop is None else stop
    if not 0 <= start < stop <= depth:
        raise UsageError(f"planes {start}..{stop} do not lie in 0..{depth}", "ask for existing planes")
    grid = one.spec.grid(one.sources[0])
    step = grid.stride.z
    first = min(start // step, grid.counts.z - 1)
    last = min((stop - 1) // step + 1, grid.counts.z - 1)
    lattice = np.full((last - first + 1, grid.counts.y, grid.counts.x), missing, np.float32)
    wanted = one._of_planes(first * step, last * step + 1)
    for low, piece in wanted._map(_piece, column, first * step, last * step + 1, float(missing)):
        at = low // step - first
        lattice[at : at + len(piece)] = piece
    spread = _nearest if fill == "nearest" else _linear
    planes = spread(lattice, 0, np.arange(start, stop) - first * step, step)
    rows = spread(planes, 1, np.arange(height), grid.stride.y)
    return spread(rows, 2, np.arange(width), grid.stride.x)


def _piece(rows: pd.DataFrame, part: Part, spec: RowSpec, column: str, start: int, stop: int, missing: float
           ) -> tuple[int, NDArray[np.float32]]:
    """(first lattice plane in voxels, values at the lattice) of the rows of planes start..stop-1 of one partition."""
    grid = spec.grid(part.source)
    z = rows["z"].to_numpy()
    mine = rows[(z >= start) & (z < stop)]
    planes = grid.planes_within(max(start, part.start), min(stop, part.stop))
    out = np.full((len(planes), grid.counts.y, grid.counts.x), missing, np.float32)
    if not planes:
        return start, out
    at = [mine[axis].to_numpy(np.int64) // s for axis, s in zip("zyx", grid.stride, strict=True)]
    out[at[0] - planes[0] // grid.stride.z, at[1], at[2]] = with_virtual(mine, [column], part, spec)[column].to_numpy(
        np.float32)
    return planes[0], out


def _nearest(values: NDArray[np.float32], axis: int, voxels: NDArray[np.int64], step: int) -> NDArray[np.float32]:
    index = np.clip((2 * voxels + step - 1) // (2 * step), 0, values.shape[axis] - 1)
    return np.take(values, index, axis)


def _linear(values: NDArray[np.float32], axis: int, voxels: NDArray[np.int64], step: int) -> NDArray[np.float32]:
    last = values.shape[axis] - 1
    low = np.clip(voxels // step, 0, last)
    high = np.minimum(low + 1, last)
    share = np.where(low == high, 0.0, (voxels - low * step) / step).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    share = share.reshape(shape)
    one, other = np.take(values, low, axis), np.take(values, high, axis)
    return np.where(share == 0, one, one * (1 - share) + other * share).astype(np.float32)
