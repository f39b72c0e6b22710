"""Label sets in memory, bodies to draw into them, and grids of every make."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from builders import ORIENTATIONS

from ctpipe.volume import Grid

SHAPE = (40, 48, 52)  # two slabs
SPACING = (2.5, 0.8, 0.7)
CLASSES = {1: "liver", 2: "lesion"}


def grid_of(shape=SHAPE, orientation="axial", spacing=SPACING) -> Grid:
    row, column = np.reshape(ORIENTATIONS[orientation], (2, 3))
    affine = np.eye(4)
    affine[:3, 0] = np.cross(row, column) * spacing[0]
    affine[:3, 1], affine[:3, 2] = column * spacing[1], row * spacing[2]
    affine[:3, 3] = (-31.25, 12.5, 204.75)
    return Grid.from_affine(shape, affine)


def ball(labels, centre, radius, label=2) -> None:
    """Draws a ball (in voxels; radius: a number or one an axis) into labels."""
    radii = np.broadcast_to(radius, 3)
    away = sum(((i - c) / r) ** 2 for i, c, r in zip(np.indices(labels.shape), centre, radii, strict=True))
    labels[away <= 1] = label


@dataclass
class Drawn:
    """The members of Labels that scoring reads."""

    voxels: np.ndarray
    grid: Grid
    classes: dict[int, str] = field(default_factory=lambda: dict(CLASSES))
    name: str = "drawn"
    series_id: str = "7f3a9c0d1e2b4a58"

    def read_planes(self, start, stop):
        assert 0 <= start < stop <= len(self.voxels)
        return self.voxels[start:stop]


def drawn(*balls, shape=SHAPE, **options) -> Drawn:
    labels = np.zeros(shape, np.uint8)
    for one in balls:
        ball(labels, *one)
    return Drawn(labels, grid_of(shape), **options)
