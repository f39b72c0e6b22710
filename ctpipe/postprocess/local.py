"""Steps that look no further than some millimetres: near another class, and a majority vote within a ball.

Both work within the box that holds the classes, and read as many planes on both sides of a slab as the distance asks
for: the result does not depend on where the slabs lie. Votes are whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ctpipe.postprocess.bands import DISTANCE_STEP_MM, Band, Box, Metric, grown, padded
from ctpipe.postprocess.components import Mask, box_of

# Distances are looked for in columns of so many rows and columns: a distance transform takes some 30 bytes a voxel, and
# where nothing is asked for there is nothing to do.
TILE = 128


def near(band: Band, asked: Mask, organ: Sequence[int], mm: float, metric: Metric) -> Mask:
    """Which voxels `asked` (own planes, y, x) lie within `mm` of a voxel of the classes `organ`; same shape.

    Distances run between voxel centres. The band must hold `metric.reach(mm)` planes on both sides of the slab.
    """
    out = np.zeros(asked.shape, bool)
    for y in range(0, asked.shape[1], TILE):
        for x in range(0, asked.shape[2], TILE):
            tile = (slice(None), slice(y, y + TILE), slice(x, x + TILE))
            box = box_of(asked[tile])
            if box is not None:
                z_side, y_side, x_side = box
                box = z_side, _moved(y_side, y), _moved(x_side, x)
                out[box] = _near_in(box, band, organ, mm, metric) & asked[box]
    return out


def _near_in(box: Box, band: Band, organ: Sequence[int], mm: float, metric: Metric) -> Mask:
    """Voxels of a box of the slab that lie within `mm` of the organ."""
    reach = metric.reach(mm)
    target = _shifted(box, band.below)
    source = grown(target, reach, band.labels.shape)
    there = np.isin(band.labels[source], organ)
    inner = tuple(slice(t.start - s.start, t.stop - s.start) for t, s in zip(target, source, strict=True))
    return _within(there, mm, metric)[inner] if there.any() else there[inner]


def _within(mask: Mask, mm: float, metric: Metric) -> Mask:
    """Voxels within `mm` of the mask."""
    from scipy import ndimage

    steps = metric.matrix.T @ metric.matrix
    if np.allclose(steps, np.diag(np.diag(steps)), atol=1e-9):
        distance = ndimage.distance_transform_edt(~mask, sampling=metric.spacing_mm)
        return distance <= mm + DISTANCE_STEP_MM
    ball = np.zeros([2 * n + 1 for n in metric.reach(mm)], bool)  # sheared: distances along the axes say nothing
    ball[tuple(np.asarray(metric.ball(mm)).T + np.asarray(metric.reach(mm))[:, None])] = True
    return ndimage.binary_dilation(mask, ball)


def majority(band: Band, values: Sequence[int], mm: float, metric: Metric) -> NDArray:
    """Labels (own planes, y, x) after the vote of `steps.Smooth` among `values` and background."""
    out = band.slab.copy()
    concerned = np.isin(band.labels, values)
    box = box_of(concerned)
    if box is None:
        return out
    reach = metric.reach(mm)
    target = _own(grown(box, reach, band.labels.shape), band)
    if target is None:
        return out
    rows = _rows(metric.ball(mm))
    own = band.labels[target]
    voters = [label for label in (0, *sorted(set(values)))]
    winner, most = own.copy(), _votes(band.labels, own, target, rows, reach, voters)
    for label in voters:
        votes = _counts(band.labels == label, target, rows, reach)
        better = votes > most
        winner[better] = label
        np.maximum(most, votes, out=most)
    free = np.isin(own, voters)
    out[_shifted(target, -band.below)] = np.where(free, winner, own)
    return out


def _votes(labels: NDArray, own: NDArray, target: Box, rows: list[tuple[int, int, int, int]],
           reach: tuple[int, int, int], voters: Sequence[int]) -> NDArray[np.int32]:
    """Votes that each voxel's own label has."""
    votes = np.zeros(own.shape, np.int32)
    for label in voters:
        here = own == label
        if here.any():
            np.copyto(votes, _counts(labels == label, target, rows, reach), where=here)
    return votes


def _counts(mask: Mask, target: Box, rows: list[tuple[int, int, int, int]], reach: tuple[int, int, int]
            ) -> NDArray[np.int32]:
    """Voxels of the mask in the ball around each voxel of `target`: a difference of running sums for each of its rows.

    A voxel beyond the band counts nothing.
    """
    around = padded(mask, target, reach)
    sums = np.zeros((*around.shape[:2], around.shape[2] + 1), np.int32)
    np.cumsum(around, axis=2, out=sums[:, :, 1:])
    depth, height, width = (side.stop - side.start for side in target)
    out = np.zeros((depth, height, width), np.int32)
    for dz, dy, low, high in rows:
        z, y, x = dz + reach[0], dy + reach[1], reach[2]
        part = sums[z : z + depth, y : y + height]
        out += part[:, :, x + high + 1 : x + high + 1 + width]
        out -= part[:, :, x + low : x + low + width]
    return out


def _rows(ball: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int, int]]:
    """A ball as rows (z, y, first x, last x)."""
    found = []
    for (z, y), row in groupby(ball, key=lambda offset: offset[:2]):
        xs = [x for _, _, x in row]
        found.append((z, y, xs[0], xs[-1]))
    return found


def _own(box: Box, band: Band) -> Box | None:
    """The part of a box of the band that lies in the slab."""
    z = slice(max(box[0].start, band.below), min(box[0].stop, band.below + band.own))
    return (z, box[1], box[2]) if z.start < z.stop else None


def _shifted(box: Box, planes: int) -> Box:
    return _moved(box[0], planes), box[1], box[2]


def _moved(side: slice, by: int) -> slice:
    return slice(side.start + by, side.stop + by)
