"""What a brush covers, in millimetres: a disc or ball drawn along a line, and a polygon. Arithmetic on boxes only.

Distances are those of the grid's affine, d^2 = v' A' A v for a step of v voxels, so that a brush is round in the
patient on anisotropic, oblique and sheared grids alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctpipe.review.boxes import Box, clipped, inside, of_plane
from ctpipe.volume import Grid


def swept(
    grid: Grid, start: ArrayLike, end: ArrayLike, radius_mm: float, axis: int | None
) -> tuple[Box, NDArray[np.bool_]] | None:
    """Voxels whose centre lies within `radius_mm` of the line from `start` to `end` (voxel indexes z, y, x; fractions).

    axis: a disc within the plane across this axis that `start` lies in; None: a ball. The voxels on the line itself are
    always in, however small the radius. Returns (box, mask over the box), None where it is all outside the volume.
    """
    a, b = np.asarray(start, float), np.asarray(end, float)
    free = [k for k in range(3) if k != axis]
    if axis is not None:
        a, b = a.copy(), b.copy()
        a[axis] = b[axis] = np.rint(a[axis])
    metric = (grid.affine[:3, :3].T @ grid.affine[:3, :3])[np.ix_(free, free)]  # mm^2 per voxel^2
    reach = np.zeros(3)
    # how far an ellipsoid v' G v <= r^2 goes along each axis; at least to the nearest voxel
    reach[free] = np.maximum(radius_mm * np.sqrt(np.diag(np.linalg.inv(metric))), 0.5)
    box = clipped(np.minimum(a, b) - reach, np.maximum(a, b) + reach, grid.shape)
    if box is None:
        return None
    mask = _near(box, a, b, metric, free) <= radius_mm**2 * (1 + 1e-9)
    _mark_line(mask, box, a, b)
    return (box, mask) if mask.any() else None


def _near(box: Box, a: NDArray, b: NDArray, metric: NDArray, free: list[int]) -> NDArray[np.float64]:
    """Squared distance in mm from each voxel centre of `box` to the line a-b."""
    grids = np.ogrid[box]
    away = [grids[k] - a[k] for k in free]
    line = (b - a)[free]
    length = float(line @ metric @ line)
    if length > 0:
        weights = metric @ line / length
        along = np.clip(sum(w * v for w, v in zip(weights, away, strict=True)), 0, 1)
        away = [v - along * step for v, step in zip(away, line, strict=True)]
    total = np.zeros(tuple(s.stop - s.start for s in box))
    for i, v in enumerate(away):
        for j, w in enumerate(away):
            if metric[i, j]:
                total += metric[i, j] * v * w
    return total


def _mark_line(mask: NDArray[np.bool_], box: Box, a: NDArray, b: NDArray) -> None:
    steps = int(np.ceil(np.abs(b - a).max() * 2)) + 1
    at = np.rint(np.linspace(a, b, steps)).astype(int) - [s.start for s in box]
    at = at[((at >= 0) & (at < mask.shape)).all(axis=1)]
    mask[tuple(at.T)] = True


def polygon(shape: ArrayLike, points: ArrayLike, axis: int) -> tuple[Box, NDArray[np.bool_]] | None:
    """Voxels of a plane whose centre lies in a closed polygon; None where there is none.

    points: (n, 3) voxel indexes (z, y, x), fractions allowed, n >= 3; their `axis` coordinate is that of the first one.
    """
    from skimage.draw import polygon2mask

    corners = np.asarray(points, float)
    n_vox = tuple(int(n) for n in np.asarray(shape))
    plane = int(np.rint(corners[0, axis]))
    if len(corners) < 3 or not 0 <= plane < n_vox[axis]:
        return None
    low, high = corners.min(axis=0), corners.max(axis=0)
    low[axis] = high[axis] = plane
    box = clipped(low, high, n_vox)
    if box is None:
        return None
    free = [k for k in range(3) if k != axis]
    cut = inside(box, of_plane(axis, plane, n_vox))
    offset = [cut[k].start for k in free]
    drawn = polygon2mask(tuple(cut[k].stop - cut[k].start for k in free), corners[:, free] - offset)
    mask = np.expand_dims(drawn, axis)
    return (box, mask) if mask.any() else None
