"""How unsure a model is: entropies as counts, which add up in any order."""

from __future__ import annotations

import numpy as np
import pytest
from segmenters_made import segmenter

from ctpipe.predict import STEPS, doubts, doubts_of_scores, mean_doubt


def test_doubt_goes_from_sure_to_all_alike() -> None:
    scores = np.array([[[1, 0, 0], [1, 1, 1], [1, 1, 0]]], np.int32) << 20
    counts = doubts(scores)
    assert {int(step): int(counts[step]) for step in np.flatnonzero(counts)} == {0: 1, STEPS - 1: 1, 161: 1}
    assert mean_doubt(counts) == pytest.approx((0 + 1 + np.log(2) / np.log(3)) / 3, abs=1 / STEPS)
    assert mean_doubt(np.zeros(STEPS, np.int64)) == 0


def test_only_the_centres_asked_for_count_and_parts_add_up() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 1 << 20, (5, 4, 6, 3))
    asked = rng.random((5, 4, 6)) < 0.4
    whole = doubts(scores, asked)
    assert whole.sum() == asked.sum()
    assert np.array_equal(doubts(scores[3:], asked[3:]) + doubts(scores[:3], asked[:3]), whole)
    assert np.array_equal(doubts(scores[asked][None]), whole)


def test_logits_probabilities_and_regions_are_taken_for_what_the_spec_says_they_are() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (3, 4, 5)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(0)
    by_logits = doubts_of_scores(logits, segmenter(blend="logits").spec)
    by_shares = doubts_of_scores(shares.astype(np.float32), segmenter(blend="probabilities").spec)
    assert mean_doubt(by_logits) == pytest.approx(mean_doubt(by_shares), abs=1e-3)
    spec = segmenter(blend="logits", regions=(1, 2), outputs=2).spec
    sure = doubts_of_scores(np.full((2, 4, 5), -900, np.float32), spec)
    torn = doubts_of_scores(np.zeros((2, 4, 5), np.float32), spec)
    assert (mean_doubt(sure), mean_doubt(torn), int(torn.sum())) == (0, 1, 40)
