"""Compare: two label sets of one volume, class by class and lesion by lesion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctpipe import scoring
from ctpipe.store import Store, open_store


@dataclass(frozen=True)
class CompareReport:
    """What differs from the labels `before` to the labels `after` of one volume; the largest change first."""

    series: str
    before: str
    after: str
    scores: scoring.VolumeScores
    lesions: tuple[scoring.LesionChange, ...]

    def as_json(self) -> dict[str, Any]:
        classes = self.scores.as_json()["classes"]
        return {
            "series": self.series, "before": self.before, "after": self.after,
            "classes": {name: {"dice": one["dice"], "before_ml": one["true_ml"], "after_ml": one["predicted_ml"]}
                        for name, one in classes.items()},
            "lesions": [one.as_json() for one in self.lesions],
        }  # fmt: skip


def compare(
    store: str | Path | Store, series: str, before: str, after: str, *, least_share: float = scoring.LEAST_SHARE
) -> CompareReport:
    """Hold two label sets of one volume against each other: runs, truths, reviews, by name or its beginning.

    least_share: of the smaller lesion's voxels that two must have in common to be one lesion. Raises NotThereError.
    """
    target = store if isinstance(store, Store) else open_store(store)
    volume = target[series]
    a, b = volume.labels[before], volume.labels[after]
    return CompareReport(volume.id, a.name, b.name, scoring.evaluate_volume(a, b),
                         tuple(scoring.match_lesions(a, b, least_share=least_share)))  # fmt: skip
