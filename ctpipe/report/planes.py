"""Planes: which three cuts of a volume are shown, and how they lie in the picture.

The display is radiological: the patient's right is on the left of axial and coronal pictures, the head is up in coronal
and sagittal ones, the face is up in axial and on the left in sagittal ones. A view is a cut through the voxel grid,
never resampled; on an oblique grid each patient axis takes the grid axis that is nearest to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctpipe.scoring import LabelsLike
from ctpipe.volume import Grid, slabs_of
from ctpipe.words import ZYX

_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))  # low and high end of the axes of LPS; F and H: feet, head

# name, axis of LPS that is fixed, (axis of LPS, sign) that goes down the picture, and the same to the right
_DISPLAY = (
    ("axial", 2, (1, 1), (0, 1)),
    ("coronal", 1, (2, -1), (0, 1)),
    ("sagittal", 0, (2, -1), (1, 1)),
)


class SeriesLike(Protocol):
    """What is read of a volume (ctpipe.store.Series has it)."""

    @property
    def id(self) -> str: ...
    @property
    def grid(self) -> Grid: ...
    def read_planes(self, start: int, stop: int) -> NDArray[Any]: ...


@dataclass(frozen=True)
class View:
    """How one cut of the voxel grid becomes a picture.

    fixed, down, right: axes of the grid (0 = z, 1 = y, 2 = x).
    down_step, right_step: +1 or -1, along or against the index.
    down_mm, right_mm: size of a pixel.
    edges: letters at the left, right, top and bottom of the picture.
    """

    name: str
    fixed: int
    down: int
    down_step: int
    right: int
    right_step: int
    down_mm: float
    right_mm: float
    edges: tuple[str, str, str, str]

    def picture(self, cut: NDArray[Any]) -> NDArray[Any]:
        """The cut (its two grid axes in ascending order) as it is shown: first row on top."""
        shown = cut if self.down < self.right else cut.T
        return shown[:: self.down_step, :: self.right_step]

    def point(self, voxel: ZYX, grid: Grid) -> tuple[float, float]:
        """(mm to the right, mm down) of a voxel's centre from the picture's upper left corner."""
        row = voxel[self.down] if self.down_step > 0 else grid.shape[self.down] - 1 - voxel[self.down]
        column = voxel[self.right] if self.right_step > 0 else grid.shape[self.right] - 1 - voxel[self.right]
        return (column + 0.5) * self.right_mm, (row + 0.5) * self.down_mm


def views_of(grid: Grid) -> tuple[View, View, View]:
    """Axial, coronal and sagittal view of a grid of any orientation."""
    directions = grid.directions  # rows: L, P, S; columns: z, y, x
    axis_of = max(permutations(range(3)), key=lambda p: sum(abs(directions[a, p[a]]) for a in range(3)))
    views = []
    for name, fixed, (down, down_sign), (right, right_sign) in _DISPLAY:
        down_axis, right_axis = axis_of[down], axis_of[right]
        left_letter, right_letter = _LETTERS[right][::right_sign]
        top_letter, bottom_letter = _LETTERS[down][::down_sign]
        views.append(
            View(
                name,
                axis_of[fixed],
                down_axis,
                down_sign if directions[down, down_axis] > 0 else -down_sign,
                right_axis,
                right_sign if directions[right, right_axis] > 0 else -right_sign,
                grid.spacing_mm[down_axis],
                grid.spacing_mm[right_axis],
                (left_letter, right_letter, top_letter, bottom_letter),
            )
        )
    return views[0], views[1], views[2]


@dataclass(frozen=True)
class Focus:
    """The voxel that all three cuts go through, and why it.

    extent_mm: larger side of the shown object in its plane, 0 where no label is.
    """

    voxel: ZYX
    class_name: str | None
    extent_mm: float


def choose_focus(truth: LabelsLike | None, prediction: LabelsLike | None, grid: Grid) -> Focus:
    """The middle of the largest piece of the last class that has voxels, of the truth first, else of the prediction.

    The last class is the one that wins where masks overlap: the tumour and not its liver. Without any labelled voxel it
    is the middle of the volume. Reads the labels once.
    """
    for labels in (truth, prediction):
        if labels is None:
            continue
        counts = _voxels_by_plane(labels)
        for label in sorted(counts, reverse=True):
            if counts[label].any():
                z = int(counts[label].argmax())
                return _middle_of_largest(labels, label, z)
    middle = ZYX(*(n // 2 for n in grid.shape))
    return Focus(middle, None, 0.0)


def _voxels_by_plane(labels: LabelsLike) -> dict[int, NDArray[np.int64]]:
    counts = {label: np.zeros(labels.grid.shape.z, np.int64) for label in labels.classes if label}
    for slab in slabs_of(labels.grid.shape.z):
        planes = labels.read_planes(slab.start, slab.stop)
        if planes.any():
            for label, by_plane in counts.items():
                by_plane[slab.start : slab.stop] = (planes == label).sum(axis=(1, 2))
    return counts


def _middle_of_largest(labels: LabelsLike, label: int, z: int) -> Focus:
    from scipy import ndimage

    pieces, _ = ndimage.label(labels.read_planes(z, z + 1)[0] == label, np.ones((3, 3)))
    largest = int(np.bincount(pieces.ravel())[1:].argmax()) + 1
    at = np.argwhere(pieces == largest)
    middle = at.mean(axis=0)
    y, x = at[((at - middle) ** 2).sum(axis=1).argmin()]  # a crescent's middle lies outside it
    _, y_mm, x_mm = labels.grid.spacing_mm
    sides = (np.ptp(at, axis=0) + 1) * (y_mm, x_mm)
    return Focus(ZYX(z, int(y), int(x)), labels.classes[label], float(sides.max()))


def cut_planes(
    read_planes: Callable[[int, int], NDArray[Any]], grid: Grid, voxel: ZYX, views: tuple[View, ...]
) -> Mapping[str, NDArray[Any]]:
    """Pictures by name of view, through one voxel; planes are read slab by slab and cut at once, as they are stored."""
    parts: dict[int, list[NDArray[Any]]] = {0: [], 1: [], 2: []}
    for slab in slabs_of(grid.shape.z):
        planes = read_planes(slab.start, slab.stop)
        if slab.start <= voxel.z < slab.stop:
            parts[0].append(planes[voxel.z - slab.start].copy())
        parts[1].append(planes[:, voxel.y, :].copy())
        parts[2].append(planes[:, :, voxel.x].copy())
    cuts = {axis: np.concatenate(found) for axis, found in parts.items()}
    return {view.name: view.picture(cuts[view.fixed]) for view in views}
