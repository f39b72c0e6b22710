"""Predict: a model over the windows of a volume, as integer scores at their centres."""

from ctpipe.predict.dense import exact_form, notes, require_exact
from ctpipe.predict.windows import SCORE_SCALE, score_centres

__all__ = ["SCORE_SCALE", "exact_form", "notes", "require_exact", "score_centres"]
