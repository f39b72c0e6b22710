"""Boxes of voxels: the part of a volume that an edit reads, changes and journals. Arithmetic only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]  # along z, y, x; start and stop in voxels, no step


def clipped(low: Sequence[float], high: Sequence[float], shape: Sequence[int]) -> Box | None:
    """Box of the voxels whose index lies in low..high (both included) and in the volume; None where there is none."""
    starts = [max(0, int(np.ceil(at))) for at in low]
    stops = [min(n, int(np.floor(at)) + 1) for at, n in zip(high, shape, strict=True)]
    if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        return None
    z, y, x = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    return z, y, x


def union(boxes: Sequence[Box]) -> Box:
    """Smallest box that holds all of `boxes`, at least one."""
    z, y, x = (slice(min(s.start for s in along), max(s.stop for s in along)) for along in zip(*boxes, strict=True))
    return z, y, x


def inside(inner: Box, outer: Box) -> Box:
    """Where `inner` lies in an array cut out as `outer`."""
    z, y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return z, y, x


def with_margin(box: Box, margin: Sequence[int], shape: Sequence[int]) -> Box:
    """`box` and `margin` voxels (z, y, x) around it, within the volume."""
    z, y, x = (slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margin, shape, strict=True))
    return z, y, x


def shape_of(box: Box) -> tuple[int, int, int]:
    """Voxels along z, y, x."""
    z, y, x = (s.stop - s.start for s in box)
    return z, y, x


def of_plane(axis: int, index: int, shape: Sequence[int]) -> Box:
    """The whole plane `index` across `axis`."""
    z, y, x = (slice(index, index + 1) if a == axis else slice(0, n) for a, n in enumerate(shape))
    return z, y, x


def bounds(mask: NDArray[np.bool_]) -> Box | None:
    """Smallest box around the true voxels of `mask` (z, y, x); None where none is true."""
    found = []
    for axis in range(3):
        along = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not along.size:
            return None
        found.append(slice(int(along[0]), int(along[-1]) + 1))
    z, y, x = found
    return z, y, x


def bounds_of_label(labels: NDArray, label: int, box: Box | None = None) -> Box | None:
    """Smallest box around a label within `box` (None: the whole volume); a plane at a time, so that no copy is made."""
    z, y, x = box if box is not None else (slice(0, n) for n in labels.shape)
    rows, columns = np.zeros(y.stop - y.start, bool), np.zeros(x.stop - x.start, bool)
    planes = []
    for plane in range(z.start, z.stop):
        hit = labels[plane, y, x] == label
        if hit.any():
            planes.append(plane)
            rows |= hit.any(axis=1)
            columns |= hit.any(axis=0)
    if not planes:
        return None
    at_y, at_x = np.flatnonzero(rows), np.flatnonzero(columns)
    return (
        slice(planes[0], planes[-1] + 1),
        slice(y.start + int(at_y[0]), y.start + int(at_y[-1]) + 1),
        slice(x.start + int(at_x[0]), x.start + int(at_x[-1]) + 1),
    )
