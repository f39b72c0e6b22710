"""Levels: the pyramid of a volume, each level a grid of its own with its own slabs."""

from __future__ import annotations

from dataclasses import dataclass

from ctpipe.volume.grid import Grid
from ctpipe.volume.slabs import SLAB_PLANES, Slab
from ctpipe.words import ZYX

# A level whose larger in-plane side is at most this needs no coarser one.
SMALLEST_SIDE = 128


@dataclass(frozen=True)
class Level:
    """One level of a pyramid.

    factors: voxels of level 0 in one voxel of this level, (z, y, x).
    slab_planes: planes of this level that one slab of level 0 makes.
    """

    number: int
    grid: Grid
    factors: ZYX
    slab_planes: int

    def slab(self, slab: Slab) -> Slab:
        """The planes of this level that a slab of level 0 makes; slabs of all levels are numbered alike."""
        start = slab.index * self.slab_planes
        return Slab(slab.index, start, min(start + self.slab_planes, self.grid.shape.z))


def pyramid_levels(grid: Grid, slab_planes: int = SLAB_PLANES) -> list[Level]:
    """Levels 0, 1, … of `grid`: y and x are halved each time, z only while its spacing is <= the in-plane spacing."""
    levels = [Level(0, grid, ZYX(1, 1, 1), slab_planes)]
    while max(levels[-1].grid.shape.y, levels[-1].grid.shape.x) > SMALLEST_SIDE:
        last = levels[-1]
        z_mm, y_mm, x_mm = last.grid.spacing_mm
        # a slab must keep at least one whole plane
        halve_z = z_mm <= min(y_mm, x_mm) * (1 + 1e-6) and last.slab_planes > 1 and last.grid.shape.z > 1
        step = 2 if halve_z else 1
        factors = ZYX(last.factors.z * step, last.factors.y * 2, last.factors.x * 2)
        levels.append(Level(last.number + 1, grid.coarser(factors), factors, last.slab_planes // step))
    return levels
