"""From scores at the centres of the window lattice to labels at every voxel, plane by plane.

Rules (words.Fill), each axis by itself; centres lie at 0, s, 2s, …::

    voxel     0   1   2   3   4   5   6   7      s = 3, 8 voxels, centres 0, 3, 6
    nearest   0   0   3   3   3   6   6   6      ties (even s) go to the lower centre
    linear    0  0-3 0-3  3  3-6 3-6  6   6      behind the last centre: the last centre

Scores are int32 at scale 2^20, interpolation weights are whole numbers, sums int64: no rounding anywhere. The highest
sum wins, ties go to the lower class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.words import ZYX, Fill


def centre_planes(stride_z: int, start: int, stop: int, n_planes: int, fill: Fill) -> list[int]:
    """Lattice planes (0, s, 2s, …) whose scores decide the labels of planes start..stop-1, ascending."""
    lower, upper, weight = _neighbours(np.arange(start, stop), stride_z, n_planes, fill)
    return sorted({*(lower * stride_z).tolist(), *(upper[weight > 0] * stride_z).tolist()})


def deciding_centres(voxel: Sequence[int], stride: ZYX, fill: Fill, shape: Sequence[int]) -> list[tuple[ZYX, int]]:
    """(centre, its weight in whole numbers) of the centres that decide the label of `voxel` (z, y, x), ascending.

    Along each axis one centre, or two between which scores are interpolated; shares are to be taken of the sum.
    """
    axes = []
    for at, step, length in zip(voxel, stride, shape, strict=True):
        lower, upper, weight = (int(values[0]) for values in _neighbours(np.array([at]), step, length, fill))
        parts = [(lower, 1)] if lower == upper else [(lower, step - weight), (upper, weight)]
        axes.append([(centre * step, part) for centre, part in parts if part])
    return [(ZYX(z, y, x), a * b * c) for (z, a), (y, b), (x, c) in product(*axes)]


def label_planes(scores: NDArray[np.int32], z_planes: Sequence[int], stride: ZYX, fill: Fill, start: int, stop: int,
                 shape: Sequence[int]) -> NDArray[np.uint8]:
    """Labels (stop - start, y, x) uint8 of planes start..stop-1 of a volume of `shape` (z, y, x).

    scores: (len(z_planes), ny, nx, classes) at the lattice planes `z_planes`, of `predict.score_centres`; all of
        `centre_planes` must be there, others do no harm. UsageError where one lacks or the lattice does not fit.
    """
    n_planes, height, width = shape
    place = _places(scores, z_planes, stride, fill, start, stop, shape)
    y_axis = _neighbours(np.arange(height), stride.y, height, fill)
    x_axis = _neighbours(np.arange(width), stride.x, width, fill)
    out = np.empty((stop - start, height, width), np.uint8)
    lower, upper, weight = _neighbours(np.arange(start, stop), stride.z, n_planes, fill)
    for i in range(stop - start):
        plane = scores[place[int(lower[i]) * stride.z]]
        if fill is Fill.NEAREST:  # one centre decides: its class is found on the lattice and then spread
            out[i] = _highest(plane)[np.ix_(y_axis[0], x_axis[0])]
            continue
        after = scores[place[int(upper[i]) * stride.z]] if weight[i] else None
        out[i] = _interpolated_highest(_mixed(plane, after, stride.z, weight[i]), stride, y_axis, x_axis)
    return out


def share_planes(scores: NDArray[np.int32], z_planes: Sequence[int], stride: ZYX, fill: Fill, start: int, stop: int,
                 shape: Sequence[int], one: int) -> Iterator[NDArray[np.float32]]:
    """What `label_planes` takes the highest of: shares of one (classes, y, x) of planes start..stop-1, one by one.

    Arguments as of `label_planes`; one: the score that stands for 1. At most classes x one plane is held.
    """
    n_planes, height, width = shape
    place = _places(scores, z_planes, stride, fill, start, stop, shape)
    y_axis = _neighbours(np.arange(height), stride.y, height, fill)
    x_axis = _neighbours(np.arange(width), stride.x, width, fill)
    lower, upper, weight = _neighbours(np.arange(start, stop), stride.z, n_planes, fill)
    whole = 1 if fill is Fill.NEAREST else stride.z * stride.y * stride.x
    for i in range(stop - start):
        plane = scores[place[int(lower[i]) * stride.z]]
        out = np.empty((scores.shape[-1], height, width), np.float32)
        if fill is Fill.NEAREST:
            mixed = plane
        else:  # of a plane without an upper neighbour, the lower one counts in full
            upper_plane = scores[place[int(upper[i]) * stride.z]] if weight[i] else plane
            mixed = _mixed(plane, upper_plane, stride.z, weight[i])
        for number, found in enumerate(out):
            if fill is Fill.NEAREST:
                voxels = mixed[..., number][np.ix_(y_axis[0], x_axis[0])]
            else:
                voxels = _between(_between(mixed[..., number], stride.y, y_axis).T, stride.x, x_axis).T
            np.divide(voxels, whole * one, out=found, casting="same_kind")
        yield out


def _places(scores: NDArray[np.int32], z_planes: Sequence[int], stride: ZYX, fill: Fill, start: int, stop: int,
            shape: Sequence[int]) -> dict[int, int]:
    """{lattice plane: its index in scores}; UsageError where one lacks or the lattice does not fit."""
    n_planes, height, width = shape
    counts = (len(z_planes), -(-height // stride.y), -(-width // stride.x))
    if scores.shape[:3] != counts:
        raise UsageError(f"scores {scores.shape[:3]} do not lie on the lattice {counts}", "score the same stride")
    place = {plane: index for index, plane in enumerate(z_planes)}
    lacking = [plane for plane in centre_planes(stride.z, start, stop, n_planes, fill) if plane not in place]
    if lacking:
        raise UsageError(f"no scores for lattice planes {lacking}", "score all of reduce.centre_planes")
    return place


def _mixed(plane: NDArray[np.int32], after: NDArray[np.int32] | None, stride: int, weight: Any) -> NDArray[np.int64]:
    """A lattice plane between two, as whole numbers; the plane as it is where there is none after it."""
    if after is None:
        return plane.astype(np.int64)
    return plane * np.int64(stride - weight) + after * np.int64(weight)


def refine(labels: NDArray[np.uint8], factors: ZYX, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Labels of a coarse level's planes on the full grid: (planes, y, x) of `shape`.

    Each voxel takes the label of the coarse voxel whose block holds it, index v -> v // factor: the nearest one in
    index space, since a block's centre is nearest to the voxels inside it. Blocks at the far border may be partial.
    labels: the coarse planes from the block on in which the first wanted plane begins.
    """
    if any(n * f < wanted for n, f, wanted in zip(labels.shape, factors, shape, strict=True)):
        raise UsageError(f"labels {labels.shape} times {tuple(factors)} do not cover {tuple(shape)}",
                         "give all coarse planes of the slab")
    z, y, x = (np.arange(wanted) // f for wanted, f in zip(shape, factors, strict=True))
    return labels[np.ix_(z, y, x)]


def _neighbours(voxels: NDArray[np.int64], stride: int, length: int,
                fill: Fill) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """For each voxel the numbers of its lower and upper centre and the upper one's weight, 0..stride-1."""
    last = (length - 1) // stride
    if fill is Fill.NEAREST:
        nearest = np.minimum((voxels + (stride - 1) // 2) // stride, last)
        return nearest, nearest, np.zeros_like(nearest)
    lower = voxels // stride  # behind the last centre both neighbours are the last one, whatever the weight
    return lower, np.minimum(lower + 1, last), voxels - lower * stride


def _highest(scores: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Class of the highest score along the last axis; np.argmax takes the first of equals: the lower class."""
    return scores.argmax(axis=-1).astype(np.uint8)


def _interpolated_highest(lattice: NDArray[np.int64], stride: ZYX, y_axis: tuple[NDArray[np.int64], ...],
                          x_axis: tuple[NDArray[np.int64], ...]) -> NDArray[np.uint8]:
    """Highest class at every voxel of one plane; class by class, so that memory never holds classes x plane."""
    best: NDArray[np.int64] | None = None
    label = np.zeros((len(y_axis[0]), len(x_axis[0])), np.uint8)
    for number in range(lattice.shape[-1]):
        rows = _between(lattice[..., number], stride.y, y_axis)
        voxels = _between(rows.T, stride.x, x_axis).T
        if best is None:
            best = voxels
            continue
        higher = voxels > best
        label[higher] = number
        np.copyto(best, voxels, where=higher)
    return label


def _between(values: NDArray[np.int64], stride: int, axis: tuple[NDArray[np.int64], ...]) -> NDArray[np.int64]:
    """Values along the first axis at every voxel: (stride - weight) * lower + weight * upper."""
    lower, upper, weight = axis
    return values[lower] * (stride - weight)[:, None] + values[upper] * weight[:, None]
