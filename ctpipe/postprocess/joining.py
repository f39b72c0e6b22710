"""Connected components of slabs that are looked at apart, in any order, by any worker.

Each slab is labelled together with the first plane of the next one; what is sent away is a few numbers a component.
The plane that two neighbours share breaks into the same 2-D pieces in both, in the same order, and each piece lies in
one component of either: that is all that is needed to join them::

    slab 0   . 1 1 . 2 .
             . . 3 3 3 .     shared plane, as slab 0 sees it: piece 1 is in its component 1 (1, 2 and 3 are one)
    slab 1   . . 1 1 1 .     the same plane, as slab 1 sees it: piece 1 is in its component 1   -> the same component
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ctpipe.postprocess.components import Mask, joined_numbers, label_mask, label_plane

NOWHERE = np.iinfo(np.int64).max  # first voxel of a component that has none in the slab's own planes


@dataclass(frozen=True, eq=False)
class SlabComponents:
    """What one slab tells about its components; number n within the slab is entry n - 1.

    sizes: voxels in the slab's own planes. first: index in C order, within the volume, of the first of them.
    border: whether one of them lies on the border of the volume. marked: whether one of them is marked.
    floor, ceiling: number of the component that holds each 2-D piece of the first own plane, and of the plane after
        the last one.
    """

    sizes: NDArray[np.int64]
    first: NDArray[np.int64]
    border: NDArray[np.bool_]
    marked: NDArray[np.bool_]
    floor: NDArray[np.int32]
    ceiling: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class JoinedComponents:
    """The components of the whole volume, and per slab: number within the slab - 1 -> index of the component."""

    sizes: NDArray[np.int64]
    first: NDArray[np.int64]
    border: NDArray[np.bool_]
    marked: NDArray[np.bool_]
    numbers: tuple[NDArray[np.int64], ...]

    def spread(self, chosen: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
        """A choice of components as a table for each slab: number within the slab, 0 outside -> whether chosen."""
        return [np.concatenate([[False], chosen[numbers]]) for numbers in self.numbers]


def slab_components(mask: Mask, own: int, start: int, depth: int, connectivity: int,
                    marks: Mask | None = None) -> tuple[SlabComponents, NDArray[np.int32]]:
    """The numbers of one slab, and its labels (own planes, y, x) as `numbers` of `join` counts them.

    mask: bool (own planes and the plane after them where there is one, y, x). start: the slab's first plane in the
        volume of `depth` planes. marks: bool (own planes, y, x).
    """
    labels, count = label_mask(mask, connectivity)
    at_end = start + own == depth
    shared = np.zeros(0, np.int32) if at_end else _pieces(mask[own], labels[own], connectivity)
    floor = np.zeros(0, np.int32) if start == 0 else _pieces(mask[0], labels[0], connectivity)
    labels = labels[:own]
    border = _on_border(labels, count, start, at_end)
    found = SlabComponents(_sizes(labels, count), _first(labels, count, start), border, _marked(labels, count, marks),
                           floor, shared)  # fmt: skip
    return found, labels


def join(slabs: Sequence[SlabComponents]) -> JoinedComponents:
    """The components of all slabs of a volume, in order, those that touch across faces made one."""
    counts = [len(slab.sizes) for slab in slabs]
    ends = np.cumsum([0, *counts])
    pairs = [
        np.stack([lower.ceiling - 1 + ends[i], upper.floor - 1 + ends[i + 1]], axis=1)
        for i, (lower, upper) in enumerate(pairwise(slabs))
    ]
    count, number_of = joined_numbers(int(ends[-1]), np.concatenate([*pairs, np.zeros((0, 2), np.int64)]))
    sizes, first = np.zeros(count, np.int64), np.full(count, NOWHERE)
    border, marked = np.zeros(count, bool), np.zeros(count, bool)
    np.add.at(sizes, number_of, _all(slabs, "sizes", np.int64))
    np.minimum.at(first, number_of, _all(slabs, "first", np.int64))
    np.logical_or.at(border, number_of, _all(slabs, "border", np.bool_))
    np.logical_or.at(marked, number_of, _all(slabs, "marked", np.bool_))
    numbers = tuple(number_of[start:stop] for start, stop in pairwise(ends))
    return JoinedComponents(sizes, first, border, marked, numbers)


def _all(slabs: Sequence[SlabComponents], name: str, dtype: type) -> NDArray:
    return np.concatenate([np.zeros(0, dtype), *(getattr(slab, name) for slab in slabs)])


def _pieces(plane: Mask, labels: NDArray[np.int32], connectivity: int) -> NDArray[np.int32]:
    """Component of each 2-D piece of a plane, the pieces in scipy's order: the same for whoever labels the plane."""
    pieces, count = label_plane(plane, connectivity)
    found = np.zeros(count, np.int32)
    found[pieces[plane] - 1] = labels[plane]
    return found


# Plane by plane: NumPy makes 8 bytes of every index, and a slab of them would be eight times the labels.
def _sizes(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    sizes = np.zeros(count + 1, np.int64)
    if count:
        for plane in labels:
            here = np.bincount(plane.ravel())
            sizes[: len(here)] += here
    return sizes[1:]


def _first(labels: NDArray[np.int32], count: int, start: int) -> NDArray[np.int64]:
    first = np.full(count + 1, NOWHERE)
    if count:
        for z in range(len(labels) - 1, -1, -1):
            numbers, at = np.unique(labels[z], return_index=True)
            first[numbers] = at + (start + z) * labels[z].size
    return first[1:]


def _on_border(labels: NDArray[np.int32], count: int, start: int, at_end: bool) -> NDArray[np.bool_]:
    found = np.zeros(count + 1, bool)
    sides = [labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]]
    sides += [labels[0]] if start == 0 else []
    sides += [labels[-1]] if at_end else []
    for side in sides:
        found[side] = True
    return found[1:]


def _marked(labels: NDArray[np.int32], count: int, marks: Mask | None) -> NDArray[np.bool_]:
    found = np.zeros(count + 1, bool)
    if marks is not None:
        found[labels[marks]] = True
    return found[1:]
