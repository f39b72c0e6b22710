"""Predict: a model over the windows of a volume, as integer scores at their centres."""

from ctpipe.predict.windows import SCORE_SCALE, score_centres

__all__ = ["SCORE_SCALE", "score_centres"]
