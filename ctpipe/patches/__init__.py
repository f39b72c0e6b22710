"""Patches: where windows lie, what a model sees in them, and the table that has a row for each."""

from ctpipe.patches.building import label_names, patch_table
from ctpipe.patches.features import PlaneReader
from ctpipe.patches.pixel_steps import PixelSteps
from ctpipe.patches.pixels import PaddedPlanes, cut_labels, cut_patches, pad_planes
from ctpipe.patches.planning import Plan, check, plan
from ctpipe.patches.rows import BODY_HU
from ctpipe.patches.saving import load_table, saved_tables
from ctpipe.patches.sharing import drop_table, open_table, published_tables
from ctpipe.patches.table import PatchTable
from ctpipe.patches.virtual import CORRECTED
from ctpipe.patches.windows import WindowGrid

__all__ = [
    "BODY_HU", "CORRECTED", "PaddedPlanes", "PatchTable", "PixelSteps", "Plan", "PlaneReader", "WindowGrid", "check",
    "cut_labels", "cut_patches", "drop_table", "label_names", "load_table", "open_table", "pad_planes", "patch_table",
    "plan", "published_tables", "saved_tables",
]  # fmt: skip
