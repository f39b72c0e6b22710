"""Reduce: scores become a label for every voxel, in whole numbers, so that no order changes bytes."""

from ctpipe.reduce.band import Decided, ScoreBand, band_rows, label_type
from ctpipe.reduce.labels import centre_planes, deciding_centres, label_planes, refine, share_planes
from ctpipe.reduce.spread import SpreadBand

__all__ = [
    "Decided", "ScoreBand", "SpreadBand", "band_rows", "centre_planes", "deciding_centres", "label_planes",
    "label_type", "refine", "share_planes",
]  # fmt: skip
