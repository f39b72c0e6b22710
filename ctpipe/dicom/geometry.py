"""Whether planes make one even, rectangular stack, and its grid (corpus policy, rules 1, 7 and 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctpipe.volume import Grid
from ctpipe.words import ZYX

MIN_PLANES = 3  # one has no spacing, with two no loss can be seen
RELATIVE_TOLERANCE = 0.01  # of the spacing
ABSOLUTE_TOLERANCE_MM = 0.01
DIGIT_TOLERANCE = 0.2  # digits that were never written excuse at most this part of the spacing
SAME_POSITION_MM = 0.01
GAP_STEP = 1.5  # a step this many times the usual one is a gap, not an uneven step


@dataclass(frozen=True)
class Stack:
    """Planes of one orientation and in-plane spacing, in any order.

    positions: (n, 3) LPS mm of the first voxels. orientation: cosines of the row, then of the column. unit: of the last
    decimal in which any position is written, in mm.
    """

    positions: NDArray[np.float64]
    orientation: tuple[float, ...]
    unit: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """Row x column: the way in which planes ascend."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def heights(self) -> NDArray[np.float64]:
        """Height of each plane along the normal, mm, from the first plane given (small numbers keep their digits)."""
        return (self.positions - self.positions[0]) @ self.normal

    def order(self) -> NDArray[np.intp]:
        """Indexes of the planes in ascending order along the normal."""
        return np.argsort(self.heights, kind="stable")


def repeats(heights: NDArray[np.float64]) -> bool:
    """Whether two planes stand at one position."""
    return bool(np.any(np.diff(np.sort(heights)) <= SAME_POSITION_MM))


def position_tolerance(stack: Stack) -> float:
    """By how many mm a position may be off: what rounding to the digits written explains, within bounds (rule 7)."""
    heights = stack.heights
    spacing = float(heights.max() - heights.min()) / max(1, len(heights) - 1)
    return max(ABSOLUTE_TOLERANCE_MM, min(stack.unit, DIGIT_TOLERANCE * spacing))


def stack_faults(stack: Stack) -> list[tuple[str, str]]:
    """(reason, detail) of everything that keeps sorted planes from being one even, rectangular stack."""
    n = len(stack.positions)
    if n < MIN_PLANES:
        return [("too-few-slices", f"too few slices: {n}, at least {MIN_PLANES} are needed")]
    heights = stack.heights[stack.order()]
    spacing = float(heights[-1] - heights[0]) / (n - 1)
    tolerance = position_tolerance(stack)
    found = []
    uneven = _uneven(heights, spacing, max(RELATIVE_TOLERANCE * spacing, tolerance))
    if uneven:
        found.append(uneven)
    shifted = _shifted(stack, tolerance)
    if shifted:
        found.append(shifted)
    return found


def _uneven(heights: NDArray[np.float64], spacing: float, tolerance: float) -> tuple[str, str] | None:
    steps = np.diff(heights)
    places = heights - heights[0] - spacing * np.arange(len(heights))
    worst = max(float(np.abs(steps - spacing).max()), float(np.abs(places).max()))
    if worst <= tolerance:
        return None
    usual = float(np.median(steps))
    wide = np.flatnonzero(steps > GAP_STEP * usual)
    lost = steps[wide] / usual
    # A step of a whole number of usual steps is a plane that is missing; anything else is uneven.
    if len(wide) and np.all(np.abs(lost - np.rint(lost)) <= np.maximum(0.05, tolerance / usual)):
        n_lost = int(np.rint(lost).sum()) - len(wide)
        places_text = ", ".join(str(int(index) + 1) for index in wide[:5])
        return "gap", (
            f"slices are missing: steps of {usual:.4g} mm but {len(wide)} gap(s), after plane {places_text}"
            f"{', …' if len(wide) > 5 else ''}; {n_lost} slice(s) would fill them"
        )
    return "uneven-spacing", (
        f"uneven spacing: steps from {steps.min():.4g} to {steps.max():.4g} mm, planes up to "
        f"{worst:.3g} mm off an even row (limit {tolerance:.3g} mm)"
    )


def _shifted(stack: Stack, tolerance: float) -> tuple[str, str] | None:
    order = stack.order()
    offsets = stack.positions[order] - stack.positions[order[0]]
    heights = offsets @ stack.normal
    axes = np.array([stack.orientation[:3], stack.orientation[3:]]).T
    in_plane = offsets @ axes
    worst = float(np.linalg.norm(in_plane, axis=1).max())
    if worst <= tolerance:
        return None
    slope = (heights @ in_plane) / (heights @ heights)
    rest = float(np.linalg.norm(in_plane - heights[:, None] * slope, axis=1).max())
    if rest <= tolerance:
        angle = float(np.degrees(np.arctan(np.linalg.norm(slope))))
        return "gantry-tilt", f"gantry tilt: planes are sheared by {angle:.3g} degrees against their normal"
    return "in-plane-shift", f"planes are shifted against each other within their plane, by up to {worst:.3g} mm"


def grid_of(
    stack: Stack, rows: int, columns: int, pixel_spacing: tuple[float, float], frame_of_reference: str | None
) -> Grid:
    """Grid of an even stack: z from the first position to the last, never from SliceThickness.

    pixel_spacing: (between rows, between columns) in mm, as DICOM has it.
    """
    order = stack.order()
    first, last = stack.positions[order[0]], stack.positions[order[-1]]
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(order) - 1)
    affine[:3, 1] = np.asarray(stack.orientation[3:]) * pixel_spacing[0]
    affine[:3, 2] = np.asarray(stack.orientation[:3]) * pixel_spacing[1]
    affine[:3, 3] = first
    return Grid.from_affine(ZYX(len(order), rows, columns), affine, frame_of_reference)


def cluster(values: Sequence[tuple[float, ...]], tolerance: float) -> list[int]:
    """Number of the cluster of each value: values within `tolerance` of a cluster's lowest one belong together.

    Depends on the set of values only, never on their order.
    """
    lead: list[tuple[float, ...]] = []
    of_value: dict[tuple[float, ...], int] = {}
    for value in sorted(set(values)):
        for index, first in enumerate(lead):
            if max(abs(a - b) for a, b in zip(value, first, strict=True)) <= tolerance:
                of_value[value] = index
                break
        else:
            of_value[value] = len(lead)
            lead.append(value)
    return [of_value[value] for value in values]
