"""Patches: where windows lie, what a model sees in them, and the table that has a row for each."""

from ctpipe.patches.features import PlaneReader
from ctpipe.patches.pixels import PaddedPlanes, cut_labels, cut_patches, pad_planes
from ctpipe.patches.table import PatchTable, patch_table
from ctpipe.patches.windows import WindowGrid

__all__ = [
    "PaddedPlanes", "PatchTable", "PlaneReader", "WindowGrid", "cut_labels", "cut_patches", "pad_planes", "patch_table",
]  # fmt: skip
