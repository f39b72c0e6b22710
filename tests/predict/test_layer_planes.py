"""Planes of layers against softmax, entropy and standard deviation as numpy has them, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import entropy

from ctpipe.models import SegmenterSpec, WeightFile
from ctpipe.predict import LayerPlane, layer_planes, probabilities, scale_of
from ctpipe.words import LayerKind

SPEC = SegmenterSpec(
    network="plain-conv-unet", options={"dims": 2}, outputs=4, classes=("a", "b", "c"), axes="SPL", patch=(1, 8, 8),
    folds=(WeightFile(file="f", sha256="0" * 64),),
)  # fmt: skip
REGIONS = replace(SPEC, outputs=3, regions=(1, 2, 3))
NAMES = [LayerPlane(LayerKind.PROBABILITIES, (1,)), LayerPlane(LayerKind.PROBABILITIES, (2,)),
         LayerPlane(LayerKind.ENTROPY)]  # fmt: skip


@pytest.fixture
def logits() -> np.ndarray:
    """(4, 30, 40) float32, from undecided to as sure as scores may be."""
    rng = np.random.default_rng(3)
    return (rng.normal(0, 1, (4, 30, 40)) * np.geomspace(0.01, 128, 40)).clip(-128, 128).astype(np.float32)


def check(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for layer, values in zip(got, expected, strict=True):
        assert layer.dtype == np.uint8
        assert np.abs(layer / 255 - values).max() < 0.5 / 255 + 1e-5
        assert len(np.unique(layer)) > 50


def test_shares_of_one_are_softmax_and_its_entropy(logits) -> None:
    exact = np.exp(logits.astype(np.float64) - logits.max(0))
    exact /= exact.sum(0)
    got = layer_planes(NAMES, probabilities(logits.copy(), SPEC), None, False)
    check(got, [exact[1], exact[2], entropy(exact, axis=0) / np.log(4)])


def test_regions_are_sigmoids_each_by_itself_and_their_mean_entropy(logits) -> None:
    scores = logits[:3]
    exact = 1 / (1 + np.exp(-scores.astype(np.float64)))
    got = layer_planes(NAMES, probabilities(scores.copy(), REGIONS), None, True)
    check(got, [exact[1], exact[2], np.mean([entropy([p, 1 - p]) for p in exact], axis=0) / np.log(2)])


def test_scores_that_are_probabilities_already_stay_as_they_are() -> None:
    shares = np.random.default_rng(1).dirichlet((0.3, 0.3, 0.3, 0.3), (30, 40)).transpose(2, 0, 1).astype(np.float32)
    for spec in (replace(SPEC, softmax_inside=True), replace(SPEC, blend="probabilities")):
        got = layer_planes(NAMES, probabilities(shares.copy(), spec), None, False)
        check(got, [shares[1], shares[2], entropy(shares.astype(np.float64), axis=0) / np.log(4)])


def test_regions_of_one_label_give_their_highest(logits) -> None:
    likely = probabilities(logits[:3].copy(), REGIONS)
    [both] = layer_planes([LayerPlane(LayerKind.PROBABILITIES, (0, 2))], likely, None, True)
    one, other = layer_planes([LayerPlane(LayerKind.PROBABILITIES, (n,)) for n in (0, 2)], likely, None, True)
    assert np.array_equal(both, np.maximum(one, other))


def test_the_spread_is_a_standard_deviation_in_steps_of_half_the_size() -> None:
    variance = np.linspace(0, 0.25, 500, dtype=np.float32).reshape(20, 25)
    [layer] = layer_planes([LayerPlane(LayerKind.SPREAD)], np.zeros((2, 20, 25), np.float32), variance, False)
    assert scale_of(LayerKind.SPREAD) == 0.5 / 255
    assert np.abs(layer * scale_of(LayerKind.SPREAD) - np.sqrt(variance)).max() < 0.25 / 255 + 1e-6
    assert (layer[0, 0], layer[-1, -1]) == (0, 255)
