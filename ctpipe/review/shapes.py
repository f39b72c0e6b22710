"""What is done to the shape of one label: interpolate between planes, fill, smooth, grow, shrink. Masks in, masks out.

Lengths are millimetres along the grid's own axes (`Grid.spacing_mm`): right for rectangular grids, oblique ones too.
On a grid with a kept gantry tilt lengths across planes are off by its cosine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
TRUNCATE = 3.0  # sigmas after which the Gaussian is cut


def between(first: Mask, last: Mask, n: int, spacing_mm: Sequence[float]) -> Mask:
    """(n, rows, columns): the n planes between two masks (rows, columns), shape by shape.

    Signed distances in mm are interpolated linearly, and what is inside stays (Raya and Udupa 1990, Shape-based
    interpolation of multidimensional objects). Shapes that do not overlap vanish between the planes.
    """
    start, end = signed_mm(first, spacing_mm), signed_mm(last, spacing_mm)
    at = np.arange(1, n + 1) / (n + 1)
    return np.stack([(1 - t) * start + t * end > 0 for t in at])


def signed_mm(mask: Mask, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Distance in mm to the border of `mask`, positive inside; everywhere the extent of the array where it has none."""
    far = float(np.linalg.norm(np.asarray(mask.shape) * spacing_mm))
    if mask.all() or not mask.any():
        return np.full(mask.shape, far if mask.all() else -far)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    return inside - ndimage.distance_transform_edt(~mask, sampling=spacing_mm)


def filled(mask: Mask, axis: int | None) -> Mask:
    """`mask` with its holes: within each plane across `axis`, or (None) what is enclosed in 3-D; faces connect."""
    if axis is None:
        return ndimage.binary_fill_holes(mask)
    cross = ndimage.generate_binary_structure(2, 1)
    planes = [ndimage.binary_fill_holes(plane, cross) for plane in np.moveaxis(mask, axis, 0)]
    return np.moveaxis(np.stack(planes), 0, axis)


def smoothed(mask: Mask, spacing_mm: Sequence[float], sigma_mm: float, axis: int | None) -> Mask:
    """`mask` after a Gaussian of `sigma_mm` and a cut at one half; within planes across `axis`, or (None) in 3-D."""
    sigma = [0.0 if k == axis else sigma_mm / step for k, step in enumerate(spacing_mm)]
    return ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=TRUNCATE) > 0.5


def grown(mask: Mask, spacing_mm: Sequence[float], by_mm: float, axis: int | None) -> Mask:
    """`mask` with all within `by_mm` of it, or (negative) without what is within -by_mm of its outside.

    axis: within planes across this axis; None: in 3-D. The faces of the array are no outside.
    """
    if axis is not None:
        flat = [step for k, step in enumerate(spacing_mm) if k != axis]
        planes = [_grown(plane, flat, by_mm) for plane in np.moveaxis(mask, axis, 0)]
        return np.moveaxis(np.stack(planes), 0, axis)
    return _grown(mask, spacing_mm, by_mm)


def _grown(mask: Mask, spacing_mm: Sequence[float], by_mm: float) -> Mask:
    if by_mm < 0:
        return ~_grown(~mask, spacing_mm, -by_mm)
    if not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask, sampling=spacing_mm) <= by_mm * (1 + 1e-9)


def reshaped(labels: NDArray, label: int, wanted: Mask, free: Mask, spacing_mm: Sequence[float]) -> NDArray:
    """`labels` with `label` where it is `wanted`: gained only where `free`, given up to the nearest other label.

    So a lesion that shrinks inside an organ leaves organ behind, and one at its edge what is nearer.
    """
    own = labels == label
    new = labels.copy()
    new[wanted & ~own & free] = label
    lost = own & ~wanted
    if lost.any():
        nearest = ndimage.distance_transform_edt(own, sampling=spacing_mm, return_distances=False, return_indices=True)
        new[lost] = 0 if own.all() else labels[tuple(nearest)][lost]
    return new
