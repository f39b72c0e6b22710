"""Rows of scores for a terminal."""

from __future__ import annotations

import numpy as np
from test_volume_scores import FakeLabels

from ctpipe.scoring import evaluate_volume, summary_lines


def scores(true, predicted, name="lesion", series="7f3a9c0d1e2b4a58"):
    sides = [FakeLabels(v, {1: name}, (5.0, 2.0, 2.0), "x", series) for v in (true, predicted)]
    return evaluate_volume(*sides)


def block(*planes):
    out = np.zeros((6, 10, 10), np.uint8)
    for z in planes:
        out[z] = 1
    return out


def test_a_volume_is_a_row_a_class_with_millilitres():
    header, row = summary_lines(scores(block(1, 2), block(2, 3)))
    assert dict(zip(header, row, strict=True)) == {
        "series": "7f3a9c0d1e2b",
        "class": "lesion",
        "Dice": "0.500",
        "IoU": "0.333",
        "precision": "0.500",
        "recall": "0.500",
        "truth mL": "4.0",
        "predicted mL": "4.0",
        "lesions found": "1 of 1",
        "false": "0",
    }


def test_means_leave_out_empty_volumes_and_say_so_and_pooled_counts_all_voxels():
    rows = summary_lines(scores(block(), block()), scores(block(1), block(1)), scores(block(1, 2, 3), block(1)))
    mean, pooled = rows[-2:]
    assert mean[:4] == ("mean of 3", "lesion", "0.750 (n=2)", "0.667 (n=2)")
    assert pooled[:4] == ("pooled", "lesion", "0.667", "0.500")
    assert rows[1][2] == "–"
