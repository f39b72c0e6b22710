"""Lesion ids: the connected components of some classes, numbered through a series, one slab in memory at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import RunError
from ctpipe.patches.sources import SeriesSource
from ctpipe.volume import slabs_of

Numbers = tuple[tuple[int, ...], ...]  # for each slab: its own number - 1 -> number in the series


def lesion_numbers(task: tuple[SeriesSource, tuple[int, ...]]) -> tuple[str, Numbers]:
    """(series id, numbers of its slabs): components of 26 neighbours, numbered by their first voxel in C order."""
    source, classes = task
    parent: list[int] = [0]
    first: list[int] = []  # slab-wise: number before its components
    counts: list[int] = []
    above: NDArray[np.int32] | None = None
    for band in range(source.bands):
        labels, count = _components(source, classes, band)
        first.append(len(parent) - 1)
        counts.append(count)
        parent.extend(range(len(parent), len(parent) + count))
        if above is not None and above.any() and labels[0].any():
            for one, other in _touching(above, labels[0]):
                _join(parent, one + first[-2], other + first[-1])
        above = labels[-1]
    final: dict[int, int] = {}
    for own in range(1, len(parent)):
        final.setdefault(_root(parent, own), len(final) + 1)
    if len(final) > np.iinfo(np.uint16).max:
        raise RunError(f"series {source.id} has {len(final)} components", "choose classes that are lesions")
    return source.id, tuple(tuple(final[_root(parent, before + own)] for own in range(1, count + 1))
                            for before, count in zip(first, counts, strict=True))


def slab_numbers(source: SeriesSource, classes: tuple[int, ...], band: int, numbers: Numbers) -> NDArray[np.uint16]:
    """(planes, y, x) lesion numbers of slab `band`, 0 outside of lesions."""
    labels, _ = _components(source, classes, band)
    return np.array([0, *numbers[band]], np.uint16)[labels]


def _components(source: SeriesSource, classes: tuple[int, ...], band: int) -> tuple[NDArray[np.int32], int]:
    from scipy.ndimage import label
    slab = slabs_of(source.shape[0], source.band_planes)[band]
    wanted = np.isin(np.arange(1 << 16), [v for v, table in source.translation if table in classes])
    mask = wanted[source.raw_labels(slab.start, slab.stop)]
    out = np.zeros(mask.shape, np.int32)
    if not mask.any():
        return out, 0
    box = tuple(slice(int(at.min()), int(at.max()) + 1)
                for at in (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))))
    found, count = label(mask[box], np.ones((3, 3, 3), bool))
    out[box] = found
    return out, int(count)


def _touching(above: NDArray[np.int32], below: NDArray[np.int32]) -> set[tuple[int, int]]:
    """Pairs of components that touch across a face, corners included."""
    padded = np.pad(below, 1)
    height, width = above.shape
    pairs: set[tuple[int, int]] = set()
    for dy in range(3):
        for dx in range(3):
            other = padded[dy : dy + height, dx : dx + width]
            both = (above > 0) & (other > 0)
            pairs |= set(zip(above[both].tolist(), other[both].tolist(), strict=True))
    return pairs


def _root(parent: list[int], one: int) -> int:
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one


def _join(parent: list[int], one: int, other: int) -> None:
    a, b = _root(parent, one), _root(parent, other)
    parent[max(a, b)] = min(a, b)
