"""How unsure a model is: entropies as counts, which add up in any order."""

from __future__ import annotations

import numpy as np
import pytest
from segmenters_made import segmenter

from ctpipe.predict import STEPS, doubts, doubts_of_scores, mean_doubt


def test_doubt_goes_from_sure_to_all_alike() -> None:
    scores = np.array([[[0, 9000, 0], [9000, 9001, 9001], [0, 9000, 9000], [9, 0, 0], [5, 5, 0]]], np.int32)
    counts = doubts(scores)
    assert {int(step): int(counts[step]) for step in np.flatnonzero(counts)} == {0: 1, STEPS - 1: 1, 161: 1}
    assert mean_doubt(counts) == pytest.approx((0 + 1 + np.log(2) / np.log(3)) / 3, abs=1 / STEPS)


def test_where_nothing_is_found_the_doubt_is_highest() -> None:
    assert mean_doubt(doubts(np.array([[[9, 1, 0], [5, 5, 5]]], np.int32))) == 1


def test_only_what_is_labelled_counts_and_parts_add_up() -> None:
    scores = np.random.default_rng(0).integers(0, 1 << 20, (5, 4, 6, 3))
    whole = doubts(scores)
    assert whole.sum() == (scores.argmax(-1) > 0).sum()
    assert np.array_equal(doubts(scores[3:]) + doubts(scores[:3]), whole)


def test_logits_probabilities_and_regions_are_taken_for_what_the_spec_says_they_are() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (3, 4, 5)).astype(np.float32)
    shares = np.exp(logits) / np.exp(logits).sum(0)
    by_logits = doubts_of_scores(logits, segmenter(blend="logits").spec)
    by_shares = doubts_of_scores(shares.astype(np.float32), segmenter(blend="probabilities").spec)
    assert mean_doubt(by_logits) == pytest.approx(mean_doubt(by_shares), abs=1e-3)
    spec = segmenter(blend="logits", regions=(1, 2), outputs=2).spec
    sure = doubts_of_scores(np.full((2, 4, 5), 900, np.float32), spec)
    torn = doubts_of_scores(np.full((2, 4, 5), 1e-3, np.float32), spec)
    nothing = doubts_of_scores(np.full((2, 4, 5), -900, np.float32), spec)
    assert (mean_doubt(sure), mean_doubt(torn), int(sure.sum()), int(nothing.sum())) == (0, 1, 40, 0)
