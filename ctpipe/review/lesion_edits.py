"""Edits of whole lesions: what each would change, as new labels of one box. Pure arithmetic; nothing is written here.

A lesion is a 26-connected component of one class. What it loses goes to whatever surrounds it: a tumour deleted from
a liver leaves liver, not a hole. So a cut or a split clears a sheet one voxel thick, since parts that touch are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.scoring import Box, Measured, ReadPlanes, box_of, grown, joined, mask_of
from ctpipe.volume import Grid

MOST_GAP_MM = 20.0  # lesions further apart are not merged by a bridge
EROSIONS = 48  # depths that are tried to make a lesion fall apart
LEAST_PART = 0.02  # share of a lesion that counts as a part of it, not as a crumb


@dataclass(frozen=True)
class Ground:
    """What edits look at: labels and HU by planes, their grid, the classes."""

    labels: ReadPlanes
    hu: ReadPlanes
    grid: Grid
    classes: Mapping[int, str]

    def name(self, label: int) -> str:
        return self.classes.get(label, "background") if label else "background"


@dataclass(frozen=True, eq=False)
class Edit:
    """One change to come: labels `new` of `box`, the line that tells of it, facts for the journal (JSON-plain)."""

    kind: str
    box: Box
    new: NDArray
    told: str
    facts: dict[str, Any] = field(default_factory=dict)


def delete(ground: Ground, one: Measured) -> Edit:
    """The lesion's voxels become what surrounds it."""
    around, box, new, mask = _opened(ground, one)
    new[mask] = around
    n = int(mask.sum())
    return _edit("lesion-delete", one, box, new, f"deleted {one.name} {one.number}: {n} voxels are now "
                 f"{ground.name(around)}", voxels=n, becomes=around)  # fmt: skip


def reclassify(ground: Ground, one: Measured, label: int) -> Edit:
    """The lesion's voxels get another class. Raises UsageError for a class that is not there or is its own."""
    if label not in ground.classes or label == one.label:
        raise UsageError(f"{one.name} {one.number} cannot become label {label}", "choose another class first")
    _, box, new, mask = _opened(ground, one)
    new[mask] = label
    return _edit("lesion-reclassify", one, box, new, f"{one.name} {one.number} is now {ground.name(label)}",
                 becomes=label)  # fmt: skip


def cut(ground: Ground, one: Measured, axis: int, index: int) -> Edit:
    """The lesion cut in two by the plane `index` of an axis (0 = z), which is cleared.

    Raises UsageError where nothing falls apart: the plane misses it, or only trims it.
    """
    around, box, new, mask = _opened(ground, one)
    at = index - box[axis].start
    sheet = np.zeros_like(mask)
    if 0 <= at < mask.shape[axis]:
        sheet[(slice(None),) * axis + (at,)] = True
    count = _count(mask & ~sheet)
    if count < 2:
        raise UsageError(f"plane {index} of {'zyx'[axis]} does not part {one.name} {one.number}",
                         "put the crosshair within it")  # fmt: skip
    new[mask & sheet] = around
    n = int((mask & sheet).sum())
    return _edit("lesion-split", one, box, new, f"{one.name} {one.number} cut into {count} parts by plane {index} of "
                 f"{'zyx'[axis]}, {n} voxels cleared", axis=axis, index=index, becomes=around)  # fmt: skip


def part(ground: Ground, one: Measured) -> Edit:
    """The lesion parted at its waist: worn down until it falls apart, the parts grown back, a sheet between cleared.

    Raises UsageError for a lesion that wears away in one piece.
    """
    around, box, new, mask = _opened(ground, one)
    basins = _basins(mask, ground.grid)
    if basins is None:
        raise UsageError(f"{one.name} {one.number} has no waist to part it at", "cut it by a plane")
    sheet = _between(basins)
    new[mask & sheet] = around
    n, count = int((mask & sheet).sum()), _count(mask & ~sheet)
    return _edit("lesion-split", one, box, new, f"{one.name} {one.number} parted into {count}, {n} voxels cleared",
                 parts=count, becomes=around)  # fmt: skip


def merge(ground: Ground, one: Measured, other: Measured, most_mm: float = MOST_GAP_MM) -> Edit:
    """Both lesions as one of the first one's class; where they do not touch, a bridge of one voxel joins them.

    Raises UsageError where they are further apart than `most_mm`, or where a class lies between that does not surround
    the first one.
    """
    if one == other:
        raise UsageError("a lesion is not merged with itself", "choose one, then the other")
    box = grown(joined(box_of(one), box_of(other)), 1, ground.grid)
    new = _labels(ground, box)
    a, b = _placed(ground, one, box), _placed(ground, other, box)
    bridge, gap = _bridge(a, b, ground.grid)
    if gap > most_mm:
        raise UsageError(f"they are {gap:.1f} mm apart, merged are lesions within {most_mm:g} mm",
                         "paint what joins them")  # fmt: skip
    free = (new == 0) | (new == _surrounding(new, a)) | a | b
    if not free[tuple(bridge.T)].all():
        raise UsageError("another class lies between them", "repaint it first")
    n = int((~(a | b))[tuple(bridge.T)].sum())
    new[b] = one.label
    new[tuple(bridge.T)] = one.label
    how = f", joined by {n} voxels" if n else ""
    return _edit("lesion-merge", one, box, new, f"{other.name} {other.number} merged into {one.name} {one.number}{how}",
                 other=list(other.first), bridge=n)  # fmt: skip


def grow(ground: Ground, one: Measured, low: float, high: float, margin_mm: float) -> Edit:
    """The lesion with all that hangs together with it over faces, has low..high HU, and is free, within its box.

    Free is background and what surrounds the lesion. margin_mm: how far beyond the lesion's own box it may grow. Raises
    UsageError for an empty range or where nothing is gained.
    """
    if not low <= high or margin_mm <= 0:
        raise UsageError(f"nothing lies between {low:g} and {high:g} HU within {margin_mm:g} mm", "give low, high, mm")
    margin = [max(1, round(margin_mm / mm)) for mm in ground.grid.spacing_mm]
    box = grown(box_of(one), margin, ground.grid)
    new, mask = _labels(ground, box), _placed(ground, one, box)
    hu = ground.hu(box[0].start, box[0].stop)[:, box[1], box[2]]
    free = np.isin(new, (0, _surrounding(new, mask))) & (hu >= low) & (hu <= high)
    whole = _joined(free | mask, mask)
    gained = int(whole.sum() - mask.sum())
    if not gained:
        raise UsageError(f"nothing of {low:g} to {high:g} HU adjoins {one.name} {one.number}", "widen the range")
    leaks = _reaches_border(whole & ~mask, box, ground.grid)
    new[whole] = one.label
    warned = "; it reaches the limit of its box, look whether it leaks" if leaks else ""
    return _edit("lesion-grow", one, box, new, f"{one.name} {one.number} grew by {gained} voxels of {low:g} to "
                 f"{high:g} HU{warned}", low=low, high=high, margin_mm=margin_mm, voxels=gained)  # fmt: skip


def usual_range(one: Measured) -> tuple[float, float]:
    """HU to grow within: two standard deviations about the lesion's mean, at least 20 HU to either side."""
    mean, spread = (one.hu[0], one.hu[1]) if one.hu else (40.0, 10.0)
    half = max(2 * spread, 20.0)
    return round(mean - half), round(mean + half)


# ------------------------------------------------------------------------------------------------ arithmetic
def _opened(ground: Ground, one: Measured) -> tuple[int, Box, NDArray, NDArray[np.bool_]]:
    """(what surrounds the lesion, its box with a voxel around, labels there, the lesion there)."""
    box = grown(box_of(one), 1, ground.grid)
    new, mask = _labels(ground, box), _placed(ground, one, box)
    return _surrounding(new, mask), box, new, mask


def _labels(ground: Ground, box: Box) -> NDArray:
    return np.array(ground.labels(box[0].start, box[0].stop)[:, box[1], box[2]])


def _placed(ground: Ground, one: Measured, box: Box) -> NDArray[np.bool_]:
    """The lesion's voxels within a box that holds it. Raises UsageError where it has changed since it was measured."""
    mask = mask_of(one, ground.labels)
    if int(mask.sum()) != one.voxels:
        raise UsageError(f"{one.name} {one.number} has changed since it was measured", "choose it again in the list")
    out = np.zeros([side.stop - side.start for side in box], bool)
    z, y, x = (slice(own.start - side.start, own.stop - side.start)
               for own, side in zip(box_of(one), box, strict=True))  # fmt: skip
    out[z, y, x] = mask
    return out


def _surrounding(labels: NDArray, mask: NDArray[np.bool_]) -> int:
    """The label that most voxels around the mask have; of equals the lower one."""
    from scipy.ndimage import binary_dilation

    rim = binary_dilation(mask, np.ones((3, 3, 3))) & ~mask
    return int(np.bincount(labels[rim]).argmax()) if rim.any() else 0


def _count(mask: NDArray[np.bool_]) -> int:
    from scipy.ndimage import label

    return int(label(mask, np.ones((3, 3, 3)))[1])


def _basins(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.int32] | None:
    """Each voxel of the mask with the number of its part, from 1; None where it does not fall apart."""
    from scipy.ndimage import distance_transform_edt, label
    from skimage.segmentation import watershed

    depth = distance_transform_edt(mask, sampling=grid.spacing_mm)
    for level in np.linspace(0, depth.max(), EROSIONS, endpoint=False)[1:]:
        cores, count = label(depth > level, np.ones((3, 3, 3)))
        grown_back = watershed(-depth, cores, mask=mask) if count > 1 else None
        if grown_back is not None:
            large = np.flatnonzero(np.bincount(grown_back.ravel())[1:] >= LEAST_PART * mask.sum()) + 1
            if len(large) > 1:
                return np.asarray(watershed(-depth, np.where(np.isin(cores, large), cores, 0), mask=mask), np.int32)
    return None


def _between(basins: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Voxels to clear so that no two parts touch: of each two that do, those of the part with the higher number."""
    from scipy.ndimage import minimum_filter

    lowest = minimum_filter(np.where(basins > 0, basins, np.iinfo(np.int32).max), size=3, mode="nearest")
    return np.asarray((basins > 0) & (lowest < basins))


def _bridge(a: NDArray[np.bool_], b: NDArray[np.bool_], grid: Grid) -> tuple[NDArray[np.intp], float]:
    """(voxels (n, 3) on the straight way between the two nearest voxels of a and b, how far these are apart in mm)."""
    from scipy.ndimage import binary_erosion
    from scipy.spatial import cKDTree

    ends = [np.argwhere(mask & ~binary_erosion(mask)) for mask in (a, b)]
    mm, nearest = cKDTree(grid.to_lps(ends[0])).query(grid.to_lps(ends[1]))
    n = int(np.argmin(mm))
    begin, end = ends[0][nearest[n]], ends[1][n]
    steps = int(np.abs(end - begin).max())
    way = begin + np.linspace(0, 1, steps + 1)[:, None] * (end - begin)
    return np.rint(way).astype(np.intp), float(mm[n])


def _joined(mask: NDArray[np.bool_], seed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of the mask hangs together with the seed over faces."""
    from scipy.ndimage import label

    numbers, _ = label(mask)
    return np.asarray(np.isin(numbers, np.unique(numbers[seed])) & mask)


def _reaches_border(mask: NDArray[np.bool_], box: Box, grid: Grid) -> bool:
    """Whether the mask touches a side of the box that is not the end of the volume."""
    for axis, (side, whole) in enumerate(zip(box, grid.shape, strict=True)):
        ends = [bool(side.any()) for side in np.moveaxis(mask, axis, 0)[[0, -1]]]
        if (ends[0] and side.start > 0) or (ends[1] and side.stop < whole):
            return True
    return False


def _edit(kind: str, one: Measured, box: Box, new: NDArray, told: str, **facts: Any) -> Edit:
    return Edit(kind, box, new, told, {"label": one.label, "lesion": list(one.first), **facts})
