"""Distances in the patient, in mm: the ruler and the RECIST pair. Voxel indexes in, one affine, millimetres out.

RECIST 1.1 (Eisenhauer and others 2009): a lesion's long axis in the plane of acquisition, and the short axis, which is
perpendicular to it. A second line that is not perpendicular is measured all the same and told so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctpipe.volume import Grid

PERPENDICULAR = 5.0  # degrees off a right angle up to which two hand-drawn lines count as perpendicular


@dataclass(frozen=True)
class Line:
    """Two points as voxel indexes (z, y, x), fractions allowed."""

    start: tuple[float, float, float]
    stop: tuple[float, float, float]

    def vector(self, grid: Grid) -> NDArray[np.float64]:
        """From start to stop in LPS mm; right for a sheared grid too."""
        first, last = grid.to_lps([self.start, self.stop])
        return last - first

    def length_mm(self, grid: Grid) -> float:
        return float(np.linalg.norm(self.vector(grid)))


def line(start: ArrayLike, stop: ArrayLike) -> Line:
    """A line between two (3,) voxel indexes."""
    a, b = (tuple(map(float, np.asarray(end))) for end in (start, stop))
    return Line(a, b)  # type: ignore[arg-type]


def angle_degrees(one: Line, other: Line, grid: Grid) -> float:
    """Angle between two lines in the patient, 0 to 90; 0 where one of them has no length."""
    a, b = one.vector(grid), other.vector(grid)
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return math.degrees(math.acos(min(1.0, abs(float(a @ b)) / lengths))) if lengths else 0.0


def told(lines: Sequence[Line], grid: Grid) -> str:
    """One line of text: the length of a line, or long and short axis of two and whether they are perpendicular."""
    lengths = [one.length_mm(grid) for one in lines]
    if len(lines) < 2:
        return f"{lengths[0]:.1f} mm" if lines else "no measurement"
    angle = angle_degrees(lines[0], lines[1], grid)
    off = "" if abs(angle - 90) <= PERPENDICULAR else f" (not perpendicular: {angle:.0f} degrees)"
    return f"{max(lengths):.1f} x {min(lengths):.1f} mm{off}"
