"""Components of a part of a volume, and what an edit leaves of those that were measured: only what it touched is read.

::

    edit box      +--+          components that reach the box are gone or changed: they are measured again, and
               ###|##|#         so is all of their class that reaches into the region then read, until nothing
                  +--+  ##      of the class is cut by its border; every other component stays as it was
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ctpipe.scoring.measures import Axes, Measured, Point, ReadPlanes, measure
from ctpipe.volume import Grid, slabs_of

_KEPT = 1 << 26  # voxels of a box whose labels are kept while it is measured, rather than read again
Box = tuple[slice, slice, slice]  # (z, y, x), each with start and stop within the volume
Corners = tuple[tuple[int, int, int], tuple[int, int, int]]  # lowest and highest voxel


def measure_box(
    labels: ReadPlanes, hu: ReadPlanes | None, grid: Grid, classes: Mapping[int, str], box: Box
) -> list[Measured]:
    """`measure` of the voxels within a box, as if nothing lay outside it; places are those of the whole volume."""
    z, y, x = box
    affine = grid.affine.copy()
    first = (z.start, y.start, x.start)
    affine[:3, 3] = grid.to_lps(first)
    part = Grid.from_affine([side.stop - side.start for side in box], affine)

    def within(read: ReadPlanes) -> ReadPlanes:
        return lambda start, stop: read(z.start + start, z.start + stop)[:, y, x]

    reader = within(labels)
    if np.prod(part.shape) <= _KEPT:
        kept = np.concatenate([reader(slab.start, slab.stop) for slab in slabs_of(part.shape.z)])
        reader = lambda start, stop: kept[start:stop]  # noqa: E731
    found = measure(reader, None if hu is None else within(hu), part, classes)
    return [_moved(one, first) for one in found]


def remeasured(
    found: Iterable[Measured], changed: Box, labels: ReadPlanes, hu: ReadPlanes | None, grid: Grid,
    classes: Mapping[int, str],
) -> list[Measured]:  # fmt: skip
    """The components of all classes after voxels within the box `changed` got other labels.

    found: those measured before, of every class. What does not reach the box is taken over; numbers are given anew.
    """
    by_label: dict[int, list[Measured]] = {label: [] for label in classes}
    for one in found:
        by_label.setdefault(one.label, []).append(one)
    near = grown(changed, 1, grid)
    anew: list[Measured] = []
    here: dict[int, str] = {}  # classes of which nothing was near: all that is new lies within the box
    for label, name in classes.items():
        region, kept = _closed(by_label[label], near)
        if len(kept) == len(by_label[label]):
            here[label] = name
        else:
            anew += measure_box(labels, hu, grid, {label: name}, region)
        by_label[label] = kept
    if here:
        anew += measure_box(labels, hu, grid, here, near)
    return numbered([*(one for label in classes for one in by_label[label]), *anew])


def numbered(found: Iterable[Measured]) -> list[Measured]:
    """By label and first voxel, numbers from 1 within each class."""
    out: list[Measured] = []
    for one in sorted(found, key=lambda one: (one.label, one.first)):
        follows = out and out[-1].label == one.label
        out.append(replace(one, number=out[-1].number + 1 if follows else 1))
    return out


def boxes_of_labels(labels: ReadPlanes, grid: Grid) -> dict[int, Box]:
    """The smallest box that holds all voxels of each label that is there; every slab is read once."""
    from scipy.ndimage import find_objects

    found: dict[int, Box] = {}
    for slab in slabs_of(grid.shape.z):
        for label, sides in enumerate(find_objects(labels(slab.start, slab.stop).astype(np.int32)), start=1):
            if sides is not None:
                z, y, x = sides
                box = slice(z.start + slab.start, z.stop + slab.start), y, x
                found[label] = joined(found.get(label, box), box)
    return found


def joined(a: Box, b: Box) -> Box:
    """The smallest box that holds both."""
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x


def box_of(one: Measured) -> Box:
    """The smallest box that holds a component."""
    return _slices(one.box)


def grown(box: Box, by: int | Sequence[int], grid: Grid) -> Box:
    """The box with `by` more voxels on every side (one number, or one an axis), within the grid."""
    more = [by] * 3 if isinstance(by, int) else list(by)
    z, y, x = (
        slice(max(side.start - n, 0), min(side.stop + n, whole))
        for side, n, whole in zip(box, more, grid.shape, strict=True)
    )
    return z, y, x


def mask_of(one: Measured, labels: ReadPlanes) -> NDArray[np.bool_]:
    """The voxels of a component within `box_of` it. Of no voxel where the labels no longer hold its first one."""
    from ctpipe.postprocess.components import label_mask

    z, y, x = box_of(one)
    numbers, _ = label_mask(labels(z.start, z.stop)[:, y, x] == one.label, 26)
    number = numbers[one.first[0] - z.start, one.first[1] - y.start, one.first[2] - x.start]
    return np.asarray((numbers == number) & (number > 0))


def _closed(found: Sequence[Measured], near: Box) -> tuple[Box, list[Measured]]:
    """(region, components that do not reach into it): `near` and every component that reaches into what is read."""
    low = np.array([side.start for side in near])
    high = np.array([side.stop - 1 for side in near])
    lows = np.array([one.box[0] for one in found]).reshape(-1, 3)
    highs = np.array([one.box[1] for one in found]).reshape(-1, 3)
    taken = np.zeros(len(found), bool)
    while True:
        reaching = ~taken & np.all((lows <= high) & (highs >= low), axis=1)
        if not reaching.any():
            region = _slices((tuple(low.tolist()), tuple(high.tolist())))
            return region, [one for one, gone in zip(found, taken, strict=True) if not gone]
        taken |= reaching
        low, high = np.minimum(low, lows[reaching].min(axis=0)), np.maximum(high, highs[reaching].max(axis=0))


def _slices(corners: Corners) -> Box:
    z, y, x = (slice(low, high + 1) for low, high in zip(*corners, strict=True))
    return z, y, x


def _moved(one: Measured, by: tuple[int, int, int]) -> Measured:
    z, y, x = by

    def voxel(at: tuple[int, int, int]) -> tuple[int, int, int]:
        return at[0] + z, at[1] + y, at[2] + x

    def ends(pair: tuple[Point, Point]) -> tuple[Point, Point]:
        (y0, x0), (y1, x1) = pair
        return (y0 + y, x0 + x), (y1 + y, x1 + x)

    at = one.axes
    axes = Axes(at.plane + z, at.long_mm, at.short_mm, ends(at.long_ends), ends(at.short_ends))
    return replace(one, axes=axes, box=(voxel(one.box[0]), voxel(one.box[1])), first=voxel(one.first))
