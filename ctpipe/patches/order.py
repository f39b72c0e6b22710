"""Shuffling without moving anything: a permutation of 0 .. n-1 whose i-th entry is computed when it is asked for.

A Feistel network over the next even power of two permutes; what falls outside 0 .. n-1 is sent round again
(Black and Rogaway 2002, cycle walking). Nothing is stored, so a table of 80 million rows is shuffled by one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctpipe.patches.sampling import mixed

_ROUNDS = 6


@dataclass(frozen=True)
class Permutation:
    """A permutation of 0 .. length-1 drawn by `seed`."""

    length: int
    seed: int

    def __call__(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Entries `at` of the permutation."""
        half = max(1, (max(self.length - 1, 1).bit_length() + 1) // 2)
        out = np.asarray(at, np.uint64).copy()
        todo = np.arange(len(out))
        while len(todo):
            out[todo] = self._round_trip(out[todo], half)
            todo = todo[out[todo] >= np.uint64(self.length)]
        return out.astype(np.int64)

    def _round_trip(self, values: NDArray[np.uint64], half: int) -> NDArray[np.uint64]:
        mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
        left, right = values >> shift, values & mask
        for number in range(_ROUNDS):
            key = np.uint64((self.seed * _ROUNDS + number + 1) & (2**64 - 1))
            left, right = right, left ^ (mixed(right ^ mixed(np.full(len(right), key, np.uint64))) & mask)
        return (left << shift) | right


@dataclass(frozen=True)
class RowOrder:
    """The order in which the rows of a table are given out; the same on any number of workers.

    bands: rows of each slab of each partition. seed: None keeps the order of the table. Else the slabs of all
    partitions are shuffled and taken `pool` at a time, and the rows of a pool are shuffled among each other: a batch
    then asks few slabs, and they stay resident until the pool is used up.
    """

    bands: tuple[tuple[int, ...], ...]
    seed: int | None = None
    pool: int = 16

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """(slabs with rows, 3): partition, first row within it, rows."""
        found = [(part, sum(sizes[:band]), size) for part, sizes in enumerate(self.bands)
                 for band, size in enumerate(sizes) if size]
        return np.array(found, np.int64).reshape(-1, 3)

    @cached_property
    def pools(self) -> list[NDArray[np.int64]]:
        """The slabs of each pool, as rows of `units`."""
        n = len(self.units)
        order = np.arange(n) if self.seed is None else Permutation(n, self.seed)(np.arange(n))
        return [self.units[order[at : at + self.pool]] for at in range(0, n, self.pool)]

    def __len__(self) -> int:
        return int(self.units[:, 2].sum())

    def at(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(partition, row within it) of positions start..stop-1 of the order."""
        found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        first = 0
        for number, pool in enumerate(self.pools):
            sizes = pool[:, 2]
            total = int(sizes.sum())
            low, high = max(start - first, 0), min(stop - first, total)
            if low < high:
                places = np.arange(low, high)
                if self.seed is not None:
                    places = Permutation(total, self.seed + 1 + number)(places)
                ends = np.cumsum(sizes)
                which = np.searchsorted(ends, places, side="right")
                found.append((pool[which, 0], pool[which, 1] + places - (ends - sizes)[which]))
            first += total
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        parts, rows = (np.concatenate([pair[k] for pair in found]) for k in (0, 1))
        return parts, rows


def grouped(parts: NDArray[np.int64]) -> Sequence[tuple[int, NDArray[np.int64]]]:
    """(partition, places) for every partition among `parts`."""
    return [(int(part), np.flatnonzero(parts == part)) for part in np.unique(parts)]
