"""Predict: a model over the windows of a volume: integer scores at their centres, or scores of their every voxel."""

from ctpipe.predict.costs import plane_work, scoring_bytes, window_work
from ctpipe.predict.dense import exact_form, notes, require_exact
from ctpipe.predict.doubt import STEPS, doubts, doubts_of_scores, mean_doubt
from ctpipe.predict.facts import Facts, SlabFacts, merge_facts, needs_facts, slab_facts
from ctpipe.predict.layers import LayerPlane, layer_planes, probabilities, scale_of
from ctpipe.predict.network_planes import NetworkPlanes, PlaneSource
from ctpipe.predict.segments import WindowScores, block_planes, score_windows
from ctpipe.predict.windows import SCORE_SCALE, score_centres

__all__ = [
    "SCORE_SCALE", "STEPS", "Facts", "LayerPlane", "NetworkPlanes", "PlaneSource", "SlabFacts", "WindowScores",
    "block_planes", "doubts", "doubts_of_scores", "exact_form", "layer_planes", "mean_doubt", "merge_facts",
    "needs_facts", "notes", "plane_work", "probabilities", "require_exact", "scale_of", "score_centres",
    "score_windows", "scoring_bytes", "slab_facts", "window_work",
]  # fmt: skip
