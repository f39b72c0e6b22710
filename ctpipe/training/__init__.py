"""Training: a plain torch loop over rows of the patch table, and its curves."""

from ctpipe.training.curves import curve_png
from ctpipe.training.loop import FitResult, fit

__all__ = ["FitResult", "curve_png", "fit"]
