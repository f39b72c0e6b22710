"""Doubt: how unsure a model is of what it finds, as counts that add up in whole numbers in any order.

Only what is labelled counts. Background is most of a volume, and a model is sure of it also where it misses an organ
altogether: over all centres, volumes that it had failed on came out as the surest (docs/guides/corrections.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ctpipe.models import SegmenterSpec

# Entropies are counted in so many steps from 0 (sure) to 1 (all classes alike).
STEPS = 256


def doubts(scores: NDArray[np.generic]) -> NDArray[np.int64]:
    """(STEPS,) int64: how many centres have which entropy of their class probabilities, divided by its highest.

    scores: (n, …, classes), not negative, in any unit, background first; centres whose highest class is background are
    left out. Taken along the first axis one by one, so that memory is that of a plane.
    """
    counts = np.zeros(STEPS, np.int64)
    for plane in scores:
        share = plane[plane.argmax(-1) > 0].astype(np.float32)
        share /= np.maximum(share.sum(-1, keepdims=True), np.float32(1e-30))
        entropy = -(share * np.log(np.maximum(share, np.float32(1e-30)))).sum(-1) / np.float32(np.log(share.shape[-1]))
        counts += np.bincount(np.rint(np.clip(entropy, 0, 1) * (STEPS - 1)).astype(np.int64), minlength=STEPS)
    return counts


def doubts_of_scores(scores: NDArray[np.float32], spec: SegmenterSpec) -> NDArray[np.int64]:
    """The same of mean scores (heads, y, x) of a segmenter, as its spec says they are: logits or probabilities.

    Regions, which may overlap, count each by itself: inside or outside.
    """
    likely = scores.astype(np.float64)
    probable = spec.blend == "probabilities" or spec.softmax_inside
    if spec.regions:
        likely = np.clip(likely, 0, 1) if probable else 1 / (1 + np.exp(-np.clip(likely, -500, 500)))
        return doubts(np.stack([1 - likely, likely], -1))
    likely = np.maximum(likely, 0) if probable else np.exp(likely - likely.max(0))
    return doubts(np.moveaxis(likely, 0, -1))


def mean_doubt(counts: NDArray[np.int64]) -> float:
    """Mean entropy, 0 to 1, of all that was counted; 1 where nothing was found, which a person should look at."""
    total = int(counts.sum())
    return float(counts @ np.arange(STEPS)) / (STEPS - 1) / total if total else 1.0
