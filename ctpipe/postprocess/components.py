"""Connected components of a volume that is seen one slab at a time.

Each slab is labelled alone; where two slabs meet, the components that touch across the face are noted as pairs; at the
end the pairs are joined (a union-find over slab faces), and the components are numbered anew by their first voxel in C
order, so that the numbers do not depend on where the cuts lie::

    slab 0   . 1 1 . 2 .        provisional 1, 2
             ------------ face  1 touches 3, 2 touches 3
    slab 1   . . 3 3 3 .        provisional 3          -> one component

Memory is one slab, one plane of the slab before, and a few numbers a component.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError

# Name of a neighbourhood -> rank of scipy's binary structure: faces only, or faces, edges and corners.
_RANK = {6: 1, 26: 3}

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Components:
    """The components of one mask; component number n is entry n - 1 of the arrays.

    sizes: voxels of each component, int64.
    overlaps: voxels of each component that also lie in the second mask given to `ComponentTally.add`, int64.
    first: index in C order of each component's first voxel, int64, ascending.
    """

    connectivity: int
    sizes: NDArray[np.int64]
    overlaps: NDArray[np.int64]
    first: NDArray[np.int64]
    final_numbers: tuple[NDArray[np.int32], ...]  # per slab: number within the slab -> number of the component
    slab_planes: Callable[[int], Mask] | None = None

    @property
    def count(self) -> int:
        return len(self.sizes)

    def slab(self, index: int) -> NDArray[np.int32]:
        """Component numbers (planes, y, x) of one slab, 0 outside; asks for the slab's mask again."""
        if self.slab_planes is None:
            raise UsageError("these components do not know their mask any more", "make them by label_components")
        labels, _ = label_mask(np.asarray(self.slab_planes(index), bool), self.connectivity)
        return self.final_numbers[index][labels]


class ComponentTally:
    """Takes the slabs of a mask in ascending order, keeps what the components need, and forgets the voxels."""

    def __init__(self, connectivity: int = 26) -> None:
        if connectivity not in _RANK:
            raise UsageError(f"connectivity {connectivity} is not known", "give 6 (faces) or 26 (corners too)")
        self.connectivity = connectivity
        self._counts: list[int] = []  # provisional components of each slab
        self._sizes: list[NDArray[np.int64]] = []
        self._overlaps: list[NDArray[np.int64]] = []
        self._first: list[NDArray[np.int64]] = []
        self._pairs: list[NDArray[np.int64]] = []  # (n, 2) provisional numbers that touch across a face
        self._last_plane: NDArray[np.int64] | None = None
        self._voxels = 0  # of the slabs so far
        self._total = 0  # provisional components so far; they are numbered from 1

    def add(self, mask: Mask, second: Mask | None = None) -> None:
        """The next slab (planes, y, x) and, if wanted, a second mask whose voxels are counted in each component."""
        labels, count = label_mask(mask, self.connectivity)
        flat = labels.ravel()
        inside = np.flatnonzero(flat)
        numbers = flat[inside]
        first = np.zeros(count + 1, np.int64)
        first[numbers[::-1]] = inside[::-1]  # written backwards, so the first voxel of each number stays
        hit = numbers if second is None else numbers[second.ravel()[inside]]
        overlaps = np.zeros(count + 1, np.int64) if second is None else np.bincount(hit, minlength=count + 1)
        self._sizes.append(np.bincount(numbers, minlength=count + 1)[1:])
        self._overlaps.append(overlaps[1:])
        self._first.append(first[1:] + self._voxels)
        self._counts.append(count)

        if self._last_plane is not None:
            if self._last_plane.shape != mask.shape[1:]:
                raise UsageError("the slabs of one volume have planes of different shapes", "give whole planes")
            self._pairs.append(_touching(self._last_plane, _provisional(labels[0], self._total), self.connectivity))
        self._last_plane = _provisional(labels[-1], self._total)
        self._voxels += mask.size
        self._total += count

    def finish(self) -> Components:
        """The components of all slabs so far, those that touch across faces joined."""
        if self._total == 0:
            none = np.zeros(0, np.int64)
            numbers = tuple(np.zeros(1, np.int32) for _ in self._counts)
            return Components(self.connectivity, none, none, none, numbers)
        pairs = np.concatenate([*self._pairs, np.zeros((0, 2), np.int64)]) - 1
        count, joined = joined_numbers(self._total, pairs)

        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, joined, np.concatenate(self._first))
        order = np.argsort(first)
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        number_of = rank[joined]  # provisional (from 0) -> final (from 0)

        sizes, overlaps = np.zeros(count, np.int64), np.zeros(count, np.int64)
        np.add.at(sizes, number_of, np.concatenate(self._sizes))
        np.add.at(overlaps, number_of, np.concatenate(self._overlaps))
        return Components(self.connectivity, sizes, overlaps, first[order], self._per_slab(number_of))

    def _per_slab(self, number_of: NDArray[np.int64]) -> tuple[NDArray[np.int32], ...]:
        ends = np.cumsum(self._counts)
        return tuple(
            np.concatenate([[0], number_of[end - count : end] + 1]).astype(np.int32)
            for end, count in zip(ends, self._counts, strict=True)
        )


def label_components(slab_planes: Callable[[int], Mask], n_slabs: int, connectivity: int = 26) -> Components:
    """Components of a mask given as slabs: those of scipy.ndimage.label on the whole volume, by first voxel.

    slab_planes: slab number -> bool (planes, y, x); called once in order, and again by `Components.slab`, with the
        same answer.
    """
    tally = ComponentTally(connectivity)
    for index in range(n_slabs):
        tally.add(np.asarray(slab_planes(index), bool))
    return replace(tally.finish(), slab_planes=slab_planes)


def joined_numbers(total: int, pairs: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
    """How many things there are when `total` numbered from 0 are joined by `pairs` (n, 2), and the new number of each.

    The union of union-find, done by scipy's connected components of a graph.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    if total == 0:
        return 0, np.zeros(0, np.int64)
    links = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    count, joined = connected_components(links, directed=False)
    return int(count), joined.astype(np.int64)


def label_plane(plane: Mask, connectivity: int) -> tuple[NDArray[np.int32], int]:
    """scipy.ndimage.label of one plane (y, x) under the neighbourhood that `connectivity` leaves within a plane."""
    from scipy import ndimage

    labels = np.zeros(plane.shape, np.int32)
    count = ndimage.label(plane, ndimage.generate_binary_structure(2, min(2, _RANK[connectivity])), output=labels)
    return labels, int(count)


def label_mask(mask: Mask, connectivity: int) -> tuple[NDArray[np.int32], int]:
    """scipy.ndimage.label of one slab, done within the box that holds the mask (most masks are small)."""
    from scipy import ndimage

    labels = np.zeros(mask.shape, np.int32)
    box = box_of(mask)
    if box is None:
        return labels, 0
    structure = ndimage.generate_binary_structure(3, _RANK[connectivity])
    labels[box], count = ndimage.label(mask[box], structure)
    return labels, int(count)


def box_of(mask: Mask) -> tuple[slice, slice, slice] | None:
    """The smallest box (z, y, x) that holds the mask; None where it is empty."""
    plane = np.any(mask, axis=0)
    if not np.any(plane):
        return None
    sides = []
    for line in (np.any(mask, axis=(1, 2)), np.any(plane, axis=1), np.any(plane, axis=0)):
        at = np.flatnonzero(line)
        sides.append(slice(int(at[0]), int(at[-1]) + 1))
    return sides[0], sides[1], sides[2]


def _provisional(plane: NDArray[np.int32], offset: int) -> NDArray[np.int64]:
    return np.where(plane > 0, plane.astype(np.int64) + offset, 0)


def _touching(below: NDArray[np.int64], above: NDArray[np.int64], connectivity: int) -> NDArray[np.int64]:
    """Pairs (n, 2) of provisional numbers, each once, that are neighbours across the face between two planes."""
    shifts = [(0, 0)] if connectivity == 6 else [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    wide = int(above.max()) + 1  # a pair as one number: sorting rows of two takes 30 times as long
    found = []
    for dy, dx in shifts:
        a = below[_from(dy)][:, _from(dx)]
        b = above[_from(-dy)][:, _from(-dx)]
        both = (a > 0) & (b > 0)
        pairs = a[both] * wide + b[both]
        found.append(pairs[np.flatnonzero(np.diff(pairs, prepend=-1))])  # neighbours mostly say the same
    return np.stack(np.divmod(np.unique(np.concatenate(found)), wide), axis=1)


def _from(shift: int) -> slice:
    """The part of an axis that still has a partner when the other side is moved by `shift`."""
    return slice(max(shift, 0), None if shift >= 0 else shift)
