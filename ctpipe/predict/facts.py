"""Facts about a whole volume that a segmenter needs before its first window: one pass over the slabs, exact sums.

Which of them: the box of voxels other than 0 HU (`crop = "nonzero"`), mean and deviation or range of the values
(`normalise`), and the range that cubic resampling is clipped to (`Resampling.limit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError
from ctpipe.models.segment_plan import Box, SegmentPlan
from ctpipe.models.segment_spec import SegmenterSpec
from ctpipe.volume import Grid


@dataclass(frozen=True, eq=False)
class SlabFacts:
    """Of some planes. count, low, high, total, squares: of the voxels other than 0 (clipped to the spec's range).

    box: first and last index of them along z, y, x, None where there are none. ranges: lowest and highest value of
    each plane, row and column, of all voxels.
    """

    count: int
    low: float
    high: float
    total: float
    squares: float
    box: tuple[tuple[int, int], ...] | None
    ranges: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, eq=False)
class Facts:
    """Of a volume, inside `box` (None: all of it), in HU clipped as the spec says.

    low, high, mean, std: of all voxels. ranges: (2, n) lowest and highest value along each axis z, y, x.
    """

    box: Box | None
    low: float
    high: float
    mean: float
    std: float
    ranges: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def needs_facts(spec: SegmenterSpec, grid: Grid) -> bool:
    """Whether a run needs the pass at all; nothing else of the facts is looked at where it does not."""
    if spec.crop == "nonzero" or spec.normalise.scheme != "stated":
        return True
    plan = SegmentPlan.of(spec, grid)
    limited = spec.resample_in.limit and any(along.cubic for along in plan.inward)
    return limited and plan.separate != 0


def slab_facts(hu: NDArray[Any], first_plane: int, spec: SegmenterSpec) -> SlabFacts:
    """Facts of planes (n, y, x) of HU, the first of them plane `first_plane`; RunError where one is NaN or infinite."""
    if hu.dtype.kind == "f" and not np.isfinite(hu).all():
        plane = first_plane + int(np.argwhere(~np.isfinite(hu))[0][0])
        raise RunError(f"the HU of plane {plane} are NaN or infinite", "ingest the series again from its source")
    clipped = clip(hu, spec)
    there = hu != 0
    at = [np.flatnonzero(there.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = tuple((int(index[0]), int(index[-1])) for index in at) if len(at[0]) else None
    values = clipped[there].astype(np.float64)  # whole HU below 2 ** 15: sums of a slab are exact
    ranges = tuple(
        np.stack([clipped.min(axis=others), clipped.max(axis=others)]).astype(np.float32)
        for others in ((1, 2), (0, 2), (0, 1))
    )
    if box is not None:
        box = ((box[0][0] + first_plane, box[0][1] + first_plane), *box[1:])
    return SlabFacts(int(there.sum()), float(values.min(initial=np.inf)), float(values.max(initial=-np.inf)),
                     float(values.sum()), float((values * values).sum()), box, ranges)


def merge_facts(parts: Sequence[SlabFacts], spec: SegmenterSpec, grid: Grid) -> Facts:
    """Facts of a volume from those of all its slabs in order; RunError where a crop leaves nothing."""
    whole: Box = ((0, grid.shape.z), (0, grid.shape.y), (0, grid.shape.x))
    box = _box(parts, spec) or whole
    inside = int(np.prod([stop - first for first, stop in box]))
    count = sum(part.count for part in parts)
    low, high = min(part.low for part in parts), max(part.high for part in parts)
    zero = float(clip(np.zeros((1, 1, 1), np.float32), spec)[0, 0, 0])
    zeros = inside - count
    if zeros:
        low, high = min(low, zero), max(high, zero)
    mean = (sum(part.total for part in parts) + zero * zeros) / inside
    squares = (sum(part.squares for part in parts) + zero * zero * zeros) / inside
    z, y, x = (_joined(parts, axis) for axis in range(3))
    cut = tuple(r[:, first:stop] for r, (first, stop) in zip((z, y, x), box, strict=True))
    return Facts(None if box == whole else box, low, high, mean, float(np.sqrt(max(0.0, squares - mean * mean))),
                 cut)  # type: ignore[arg-type]


def _box(parts: Sequence[SlabFacts], spec: SegmenterSpec) -> Box | None:
    if spec.crop == "none":
        return None
    boxes = [part.box for part in parts if part.box is not None]
    if not boxes:
        raise RunError("every voxel of the volume is 0 HU: nothing is left of it", "ingest the series again")
    z, y, x = ((min(box[a][0] for box in boxes), max(box[a][1] for box in boxes) + 1) for a in range(3))
    return z, y, x


def _joined(parts: Sequence[SlabFacts], axis: int) -> NDArray[np.float32]:
    if axis == 0:
        return np.concatenate([part.ranges[0] for part in parts], axis=1)
    lows = np.stack([part.ranges[axis][0] for part in parts])
    highs = np.stack([part.ranges[axis][1] for part in parts])
    return np.stack([lows.min(0), highs.max(0)])


def clip(hu: NDArray[Any], spec: SegmenterSpec) -> NDArray[np.float32]:
    """HU as float32, clipped to the range that the spec states."""
    values = hu.astype(np.float32)
    how = spec.normalise
    if how.low is not None or how.high is not None:
        np.clip(values, how.low, how.high, out=values)
    return values
