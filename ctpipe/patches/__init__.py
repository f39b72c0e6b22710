"""Patches: where windows lie, what a model sees in them, and the table that has a row for each."""

from ctpipe.patches.building import patch_table
from ctpipe.patches.features import PlaneReader
from ctpipe.patches.pixel_steps import PixelSteps
from ctpipe.patches.pixels import PaddedPlanes, cut_labels, cut_patches, pad_planes
from ctpipe.patches.table import PatchTable
from ctpipe.patches.windows import WindowGrid

__all__ = [
    "PaddedPlanes", "PatchTable", "PixelSteps", "PlaneReader", "WindowGrid", "cut_labels", "cut_patches", "pad_planes",
    "patch_table",
]  # fmt: skip
