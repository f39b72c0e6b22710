"""Deshear: planes of a tilted gantry brought onto a rectangular grid by a shift of each within its own plane.

A tilted stack is sheared, not turned: its planes are parallel and stand at even heights along their normal; only their
first voxels walk sideways from plane to plane. So no value has to be made between planes. Each output plane is one
source plane, moved to where its position says it lies::

    side view            source                 canvas (rectangular)
    normal ▲         ┌────────────┐         ┌────┬────────────┐
           │       ┌────────────┐           ├──┬─┴──────────┬─┤      -1024 HU outside the source
           │     ┌────────────┐             ├──┴─────────┬──┴─┤
           └──►  rows                       └────────────┴────┘

What is left is an interpolation between neighbours within the plane. Voxels are never exact but where a plane's shift
is whole (always so in the first one): such a volume is *resampled* and must say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ctpipe.dicom.geometry import Stack, position_tolerance
from ctpipe.volume import Grid
from ctpipe.words import ZYX

OUTSIDE_HU = -1024.0  # as padding (corpus policy, rule 4)
WHOLE_VOX = 1e-3  # a shift this near to a whole number of voxels is one: the plane is copied, not interpolated


@dataclass(frozen=True)
class Deshear:
    """Where each source plane lies on the canvas; small, hashable and picklable.

    canvas: (rows, columns) of the result. shifts: per plane the canvas (row, column) of its first voxel, in voxels,
    fractions allowed, never negative.
    """

    canvas: tuple[int, int]
    shifts: tuple[tuple[float, float], ...]

    def apply(self, hu: NDArray[np.generic], index: int, dtype: DTypeLike = np.float64) -> NDArray[np.generic]:
        """Plane `index` on the canvas: HU (rows, columns) -> (canvas rows, canvas columns) of `dtype`.

        Linear between neighbours of the plane, row by row, then column by column; a padded neighbour (-1024) is a plain
        value. Outside the source (half a voxel beyond its outermost centres) it is -1024. Integer dtypes are rounded
        to the nearest: half a HU is far below what the interpolation itself changes. A linear mean lies between its
        neighbours, so it fits a dtype that holds `hu`; that `dtype` does so is for the caller to know.
        """
        down, right = self.shifts[index]
        out = _shifted(np.asarray(hu, np.float64), down, self.canvas[0])
        out = _shifted(out.T, right, self.canvas[1]).T
        return (np.rint(out) if np.issubdtype(dtype, np.integer) else out).astype(dtype)


def deshear_of(
    stack: Stack, rows: int, columns: int, pixel_spacing: tuple[float, float], frame_of_reference: str | None
) -> tuple[Grid, Deshear]:
    """The rectangular grid that holds every voxel of a sheared stack at its place in the patient, and the way there.

    stack: ascending along its normal. rows, columns, pixel_spacing: of its planes, as in `grid_of`. The grid's origin
    is a whole number of voxels from the first plane's; its z step is along the normal, from the first plane's height to
    the last one's. Each plane is shifted by its own position.
    """
    normal = stack.normal / np.linalg.norm(stack.normal)
    down = np.asarray(stack.orientation[3:]) * pixel_spacing[0]
    right = np.asarray(stack.orientation[:3]) * pixel_spacing[1]
    # (n, 3): height in mm, then row and column in voxels, of each plane's first voxel as seen from the first plane
    places = np.linalg.solve(np.column_stack([normal, down, right]), (stack.positions - stack.positions[0]).T).T
    shifts, lows, canvas = [], [], []
    for axis, (size, step_mm) in enumerate(zip((rows, columns), pixel_spacing, strict=True), start=1):
        along = _without_noise(places[:, axis], position_tolerance(stack) / step_mm)
        low = math.floor(along.min())
        shifts.append(along - low)
        lows.append(low)
        canvas.append(size + math.ceil(along.max() - low))
    affine = np.eye(4)
    affine[:3, 0] = normal * places[-1, 0] / (len(places) - 1)
    affine[:3, 1], affine[:3, 2] = down, right
    affine[:3, 3] = stack.positions[0] + down * lows[0] + right * lows[1]
    grid = Grid.from_affine(ZYX(len(places), *canvas), affine, frame_of_reference)
    return grid, Deshear((canvas[0], canvas[1]), tuple((float(r), float(c)) for r, c in zip(*shifts, strict=True)))


def _without_noise(shifts: NDArray[np.float64], tolerance_vox: float) -> NDArray[np.float64]:
    """Shifts along one axis: none where no plane is off by more than the tolerance; nearly whole ones made whole."""
    if float(np.abs(shifts).max()) <= tolerance_vox:
        return np.zeros_like(shifts)
    whole = np.rint(shifts)
    return np.where(np.abs(shifts - whole) <= WHOLE_VOX, whole, shifts)


def _shifted(values: NDArray[np.float64], shift: float, size: int) -> NDArray[np.float64]:
    """Rows moved by `shift` >= 0 rows into `size` rows: (n, m) -> (size, m), linear between rows."""
    n = len(values)
    first = math.floor(shift)
    part = shift - first
    if part == 0 and n == size:
        return values
    out = np.full((size, values.shape[1]), OUTSIDE_HU)
    if part == 0:
        out[first : first + n] = values
        return out
    # Written as a difference, so that even regions keep their value to the last digit.
    out[first + 1 : first + n] = values[1:] + part * (values[:-1] - values[1:])
    if part <= 0.5:  # a voxel reaches half its size beyond its centre
        out[first] = values[0]
    if part >= 0.5:
        out[first + n] = values[-1]
    return out
