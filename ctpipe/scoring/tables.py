"""Scores as rows of words, for a terminal or a page; how they are drawn is the caller's affair."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ctpipe.scoring.scores import VolumeScores, pool

HEADER = ("series", "class", "Dice", "IoU", "precision", "recall", "truth mL", "predicted mL", "lesions found", "false")


def number(value: float, digits: int = 3) -> str:
    """A figure to `digits` places; what is not there is a dash."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def summary_lines(*scores: VolumeScores) -> list[tuple[str, ...]]:
    """Rows of HEADER, which comes first: one a class of each volume, then means and pooled scores of several volumes.

    A mean leaves out volumes where the score is NaN and says over how many it was taken; "pooled" counts the voxels of
    all volumes together. A dash stands where there is nothing to score. Names are as they are: who prints escapes them.
    """
    rows: list[tuple[str, ...]] = [HEADER]
    for volume in scores:
        rows += [_row(volume, name, volume.series[:12]) for name in volume.classes]
    if len(scores) > 1 and len({s.classes for s in scores}) == 1:
        rows += [_mean_row(scores, name) for name in scores[0].classes]
        together = pool(scores)
        rows += [_row(together, name, "pooled") for name in together.classes]
    return rows


def _row(scores: VolumeScores, name: str, series: str) -> tuple[str, ...]:
    m, c, lesions = scores.confusion, scores.index(name), scores.lesions[name]
    return (
        series,
        name,
        *(number(v) for v in (m.dice(c), m.iou(c), m.precision(c), m.recall(c))),
        number(m.true_voxels(c) * scores.voxel_ml, 1),
        number(m.predicted_voxels(c) * scores.voxel_ml, 1),
        f"{lesions.found} of {lesions.count}",
        str(lesions.false_components),
    )


def _mean_row(scores: Sequence[VolumeScores], name: str) -> tuple[str, ...]:
    cells = []
    for measure in ("dice", "iou", "precision", "recall"):
        values = [getattr(s.confusion, measure)(s.index(name)) for s in scores]
        there = [v for v in values if not math.isnan(v)]
        mean = sum(there) / len(there) if there else float("nan")
        cells.append(number(mean) if len(there) in (0, len(values)) else f"{number(mean)} (n={len(there)})")
    return (f"mean of {len(scores)}", name, *cells, "", "", "", "")
