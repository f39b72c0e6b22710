"""Training: a plain torch loop over rows of the patch table, and its curves."""

from ctpipe.training.curves import curve_png
from ctpipe.training.loop import FitResult, fit
from ctpipe.training.streams import PatchBatches

__all__ = ["FitResult", "PatchBatches", "curve_png", "fit"]
