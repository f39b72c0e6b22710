"""Coarser levels of one slab, made from the slab in memory: block means of HU, the most frequent label of labels.

Every level is reduced from level 0, never from a rounded coarser one: sums and counts are carried from level to level
and rounded only on the way out. A block at the far border that is cut by the volume counts the voxels that it has.
The result is the same to the bit on every machine: sums are added pairwise in one fixed order.
"""

from __future__ import annotations

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
        mean = sums / _block_sizes(voxels.shape, level.factors)
        out.append((np.rint(mean, out=mean) if whole else mean).astype(voxels.dtype))
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
        for axis in (1, 0, 2):  # rows first: whole lines are added before the strided step along x
            if level.factors[axis] > before[axis]:
                sums = _pair_sums(sums, axis, dtype)
        before = level.factors
        yield level, sums


def _pair_sums(values: NDArray, axis: int, dtype: np.dtype) -> NDArray:
    even, odd = ((slice(None),) * axis + (slice(start, None, 2),) for start in (0, 1))
    out = values[even].astype(dtype)
    pairs = (slice(None),) * axis + (slice(0, values.shape[axis] // 2),)
    out[pairs] += values[odd]
    return out


def _block_sizes(shape: Sequence[int], factors: ZYX) -> NDArray:
    """Voxels in each block, float64, to be broadcast: fewer where the volume's border cuts a block."""
    z, y, x = (np.minimum(f, n - np.arange(0, n, f)).astype(np.float64) for n, f in zip(shape, factors, strict=True))
    return z[:, None, None] * y[None, :, None] * x[None, None, :]
