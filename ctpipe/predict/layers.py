"""Planes of the layers of a run: class probabilities, their entropy and their spread over folds, as uint8.

A layer's voxel times its scale is its value: probabilities and entropy in steps of 1 / 255, the spread, which is never
above one half, in steps of 1 / 510. All arithmetic is of single voxels, plane by plane, so that nothing depends on
what is computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.words import LayerKind

if TYPE_CHECKING:
    from ctpipe.models import SegmenterSpec

STEPS_OF_A_LAYER = 255
# The highest value of each kind of layer; a standard deviation of numbers within 0..1 is at most one half.
HIGHEST = {LayerKind.PROBABILITIES: 1.0, LayerKind.ENTROPY: 1.0, LayerKind.SPREAD: 0.5}
_TINY = np.float32(1e-30)
_SURE = np.float32(80)  # a logit beyond it overflows an exponential in float32, and is 0 or 1 long before


def scale_of(kind: LayerKind) -> float:
    """What one step of a layer of this kind is worth."""
    return HIGHEST[kind] / STEPS_OF_A_LAYER


@dataclass(frozen=True)
class LayerPlane:
    """A layer that is wanted: what it is, and of a probability the heads that it is of (the highest of them)."""

    kind: LayerKind
    heads: tuple[int, ...] = ()


def probabilities(scores: NDArray[np.float32], spec: SegmenterSpec) -> NDArray[np.float32]:
    """Probabilities (heads, y, x) of the mean scores of a segmenter; of a head each by itself where it has regions.

    `scores` is written over.
    """
    if spec.blend == "probabilities" or spec.softmax_inside:
        return np.clip(scores, 0, 1, out=scores)
    if spec.regions:
        np.clip(scores, -_SURE, _SURE, out=scores)
        np.negative(scores, out=scores)
        np.exp(scores, out=scores)
        scores += 1
        return np.reciprocal(scores, out=scores)
    scores -= scores.max(0)
    np.exp(scores, out=scores)
    scores /= scores.sum(0)
    return scores


def layer_planes(
    wanted: Sequence[LayerPlane], likely: NDArray[np.float32], variance: NDArray[np.float32] | None, apart: bool
) -> list[NDArray[np.uint8]]:
    """A plane (y, x) of each of the layers `wanted`.

    likely: probabilities (heads, y, x); apart: each head is one by itself (regions), else they are shares of one.
    variance: over folds, (y, x).
    """
    return [quantised(_values(layer, likely, variance, apart), HIGHEST[layer.kind]) for layer in wanted]


def quantised(values: NDArray[np.float32], highest: float) -> NDArray[np.uint8]:
    """0 … highest -> 0 … 255, rounded to the nearest."""
    steps = np.clip(values * np.float32(STEPS_OF_A_LAYER / highest), 0, STEPS_OF_A_LAYER)
    return np.rint(steps).astype(np.uint8)


def _values(
    layer: LayerPlane, likely: NDArray[np.float32], variance: NDArray[np.float32] | None, apart: bool
) -> NDArray[np.float32]:
    if layer.kind is LayerKind.SPREAD:
        assert variance is not None  # asked for of models with folds only
        return np.sqrt(np.maximum(variance, 0))
    if layer.kind is LayerKind.PROBABILITIES:
        return likely[list(layer.heads)].max(0)
    return _entropy_apart(likely) if apart else _entropy(likely)


def _entropy(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy of the shares (heads, y, x) by its highest, head by head: memory is that of planes."""
    total = np.maximum(likely.sum(0), _TINY)
    out = np.zeros(likely.shape[1:], np.float32)
    for head in likely:
        share = head / total
        out -= share * np.log(np.maximum(share, _TINY))
    return out / np.float32(np.log(len(likely)))


def _entropy_apart(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over the heads of the entropy of inside or outside, by its highest."""
    out = np.zeros(likely.shape[1:], np.float32)
    for inside in likely:
        for share in (inside, 1 - inside):
            out -= share * np.log(np.maximum(share, _TINY))
    return out / np.float32(np.log(2) * len(likely))
