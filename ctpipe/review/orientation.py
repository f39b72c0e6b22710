"""Which patient side lies at each edge of a shown plane, as letters; right for oblique, reversed and feet-first grids.

Only the directions of the grid's axes in the patient (`Grid.affine`, LPS) decide. Where a series' planes run from head
to feet, where its rows are mirrored or the patient lay feet first, the affine says so; no header text is asked.
Letters as in DICOM's Patient Orientation (PS3.3 C.7.6.1.1.1): A, P, R, L, H, F, the strongest first. An oblique edge
has two or three, "LA": mostly left, also anterior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ctpipe.report.planes import View, views_of
from ctpipe.volume import Grid

_SIDES = (("L", "R"), ("P", "A"), ("H", "F"))  # along and against L, P and S
# A side is named where the direction leans to it by more than this (the cosine; 6 degrees): less is not seen.
SEEN = 0.1


def letters(direction: ArrayLike) -> str:
    """Letters of a direction (3,) in LPS, strongest first: (1, 0, 0) is "L", (0.8, -0.6, 0) is "LA"."""
    unit = np.asarray(direction, np.float64)
    unit = unit / np.linalg.norm(unit)
    order = np.argsort(-np.abs(unit), kind="stable")
    return "".join(_SIDES[axis][0 if unit[axis] > 0 else 1] for axis in order if abs(unit[axis]) > SEEN)


@dataclass(frozen=True)
class Pane:
    """How one plane of a grid lies on the screen.

    name: axial, coronal or sagittal: the patient plane that it is nearest to. order: axes of the grid for napari's
    dims, the sliced one first, then down and right. orientation: where those two axes run to on the screen, in
    napari's words ("down" or "up", "right" or "left"). left, right, top, bottom: letters at the edges.
    """

    name: str
    order: tuple[int, int, int]
    orientation: tuple[str, str]
    left: str
    right: str
    top: str
    bottom: str

    @property
    def edges(self) -> dict[str, str]:
        return {"left": self.left, "right": self.right, "top": self.top, "bottom": self.bottom}


def panes_of(grid: Grid) -> tuple[Pane, Pane, Pane]:
    """Axial, coronal and sagittal, as a radiologist looks: the patient's right and the face on the left, head up."""
    axial, coronal, sagittal = (_pane(view, grid) for view in views_of(grid))
    return axial, coronal, sagittal


def _pane(view: View, grid: Grid) -> Pane:
    down = grid.directions[:, view.down] * view.down_step
    right = grid.directions[:, view.right] * view.right_step
    return Pane(
        view.name,
        (view.fixed, view.down, view.right),
        ("down" if view.down_step > 0 else "up", "right" if view.right_step > 0 else "left"),
        letters(-right), letters(right), letters(-down), letters(down),
    )  # fmt: skip


def place(point_lps: Sequence[float]) -> str:
    """A point of the patient (L, P, S mm) as a reader says it: "R 12.5, A 3.0, H 104.2 mm"."""
    sides = (pair[0 if value >= 0 else 1] for pair, value in zip(_SIDES, point_lps, strict=True))
    return ", ".join(f"{side} {abs(value):.1f}" for side, value in zip(sides, point_lps, strict=True)) + " mm"
