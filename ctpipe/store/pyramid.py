"""Coarser levels of one slab, made from the slab in memory: block means of HU, the most frequent label of labels.

Every level is reduced from level 0, never from a rounded coarser one: sums and counts are carried from level to level
and rounded only on the way out. A block at the far border that is cut by the volume counts the voxels that it has.
The result is the same to the bit on every machine: sums are added pairwise in one fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ctpipe.volume import Level
from ctpipe.words import ZYX


def mean_levels(voxels: NDArray, levels: Sequence[Level]) -> list[NDArray]:
    """Slab of HU (z, y, x) -> the same slab at every level, in its dtype; integers round half to even."""
    whole = np.issubdtype(voxels.dtype, np.integer)
    out = [voxels]
    for level, sums in _block_sums(voxels, levels, np.dtype(np.int32 if whole else np.float64)):
        out.append(_means(sums, voxels.shape, level.factors, voxels.dtype))
    return out


def _means(sums: NDArray, shape: Sequence[int], factors: ZYX, dtype: np.dtype) -> NDArray:
    """Sums over the blocks of a slab of `shape` -> their means."""
    whole_blocks = all(n % f == 0 for n, f in zip(shape, factors, strict=True))
    if sums.dtype.kind == "i" and whole_blocks:  # all blocks alike, and a power of two: shifts, a plane at a time
        return _shifted(sums, math.prod(factors).bit_length() - 1, dtype)
    mean = sums / _block_sizes(shape, factors)
    return (np.rint(mean, out=mean) if sums.dtype.kind == "i" else mean).astype(dtype)


def _shifted(sums: NDArray, bits: int, dtype: np.dtype) -> NDArray:
    """Sums / 2**bits, rounded half to even."""
    out = np.empty(sums.shape, dtype)
    odd = np.empty(sums.shape[1:], sums.dtype)
    for plane, into in zip(sums, out, strict=True):
        np.right_shift(plane, bits, out=odd)
        np.bitwise_and(odd, 1, out=odd)
        odd += plane
        odd += (1 << bits - 1) - 1
        np.right_shift(odd, bits, out=odd)
        into[...] = odd
    return out


def mode_levels(voxels: NDArray, levels: Sequence[Level], present: Sequence[int]) -> list[NDArray]:
    """Slab of labels (z, y, x) -> the same slab at every level: the most frequent label, ties to the lower one.

    present: the labels that occur in the slab.
    """
    shapes = [tuple(-(-n // f) for n, f in zip(voxels.shape, level.factors, strict=True)) for level in levels[1:]]
    lowest, *others = sorted(present)
    out = [np.full(shape, lowest, voxels.dtype) for shape in shapes]
    if not others:
        return [voxels, *out]
    best = [np.zeros(shape, np.int32) for shape in shapes]
    for label in (lowest, *others):
        counts = _block_sums(voxels == label, levels, np.dtype(np.int32))
        for (_, count), winner, most in zip(counts, out, best, strict=True):
            better = count > most
            winner[better] = label
            np.maximum(most, count, out=most)
    return [voxels, *out]


def _block_sums(voxels: NDArray, levels: Sequence[Level], dtype: np.dtype) -> Iterator[tuple[Level, NDArray]]:
    """Sums over the blocks of every level above 0. int32 holds 65,536 int16 voxels: a factor of 32 along each axis."""
    sums, before = voxels, ZYX(1, 1, 1)
    for level in levels[1:]:
        sums = _halved(sums, level.factors.z > before.z, dtype)
        before = level.factors
        yield level, sums


def _halved(values: NDArray, halve_z: bool, dtype: np.dtype) -> NDArray:
    """Sums over blocks of 2 x 2 voxels in plane, of 2 x 2 x 2 with `halve_z`; cut at an odd end.

    Plane by plane, so that what is added stays in the processor's cache; rows before planes before columns.
    """
    step = 2 if halve_z else 1
    depth, rows, columns = values.shape
    out = np.empty((-(-depth // step), -(-rows // 2), -(-columns // 2)), dtype)
    lines = np.empty((step, out.shape[1], columns), dtype)
    for z, into in enumerate(out):
        planes = values[z * step : (z + 1) * step]
        for plane, pairs in zip(planes, lines, strict=False):
            np.add(plane[0 : rows - 1 : 2], plane[1::2], out=pairs[: rows // 2], dtype=dtype)
            if rows % 2:
                pairs[-1] = plane[-1]
        if len(planes) == 2:
            lines[0] += lines[1]
        np.add(lines[0][:, 0 : columns - 1 : 2], lines[0][:, 1::2], out=into[:, : columns // 2])
        if columns % 2:
            into[:, -1] = lines[0][:, -1]
    return out


def _block_sizes(shape: Sequence[int], factors: ZYX) -> NDArray:
    """Voxels in each block, float64, to be broadcast: fewer where the volume's border cuts a block."""
    z, y, x = (np.minimum(f, n - np.arange(0, n, f)).astype(np.float64) for n, f in zip(shape, factors, strict=True))
    return z[:, None, None] * y[None, :, None] * x[None, None, :]
