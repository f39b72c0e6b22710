"""Where voxels lie: the grid of a volume, its slabs and its pyramid. Arithmetic only, no voxels, no files."""

from ctpipe.volume.grid import Grid
from ctpipe.volume.levels import Level, pyramid_levels
from ctpipe.volume.slabs import SLAB_PLANES, Slab, slabs_of

__all__ = ["SLAB_PLANES", "Grid", "Level", "Slab", "pyramid_levels", "slabs_of"]
