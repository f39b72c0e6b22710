"""Lesions: how many separate pieces of a class were found, whatever their share of the voxels.

A lesion is a 26-connected component of the truth; it is found when any of its voxels carries the same class in the
prediction. A false component is a 26-connected component of the prediction that touches no voxel of the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.postprocess import ComponentTally

RULE = "26-connected, any overlap"

# Upper ends in mm of the bins, by the diameter of the ball of equal volume; 20 mm itself is in 10-20 (MODELS.md 5).
_BINS: tuple[tuple[str, float], ...] = (("<5 mm", 5.0), ("5-10 mm", 10.0), ("10-20 mm", 20.0), (">20 mm", np.inf))


@dataclass(frozen=True)
class SizeBin:
    """Lesions of one range of equivalent diameter."""

    name: str
    count: int
    found: int


@dataclass(frozen=True)
class LesionScores:
    """Hits and misses of one class in one volume (or in several, added)."""

    count: int
    found: int
    false_components: int
    by_size: tuple[SizeBin, ...]

    def __add__(self, other: LesionScores) -> LesionScores:
        bins = zip(self.by_size, other.by_size, strict=True)
        return LesionScores(
            self.count + other.count,
            self.found + other.found,
            self.false_components + other.false_components,
            tuple(SizeBin(a.name, a.count + b.count, a.found + b.found) for a, b in bins),
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "found": self.found,
            "false_components": self.false_components,
            "rule": RULE,
            "by_size": {b.name: {"count": b.count, "found": b.found} for b in self.by_size},
        }


class LesionTally:
    """Takes truth and prediction of one class slab by slab, in order; keeps components, not voxels."""

    def __init__(self) -> None:
        self._truth = ComponentTally(26)
        self._prediction = ComponentTally(26)

    def add(self, true: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> None:
        """The next slab, (planes, y, x) each."""
        self._truth.add(true, predicted)
        self._prediction.add(predicted, true)

    def finish(self, voxel_mm3: float) -> LesionScores:
        """The scores; voxel_mm3 turns voxels into diameters."""
        lesions, predicted = self._truth.finish(), self._prediction.finish()
        found = lesions.overlaps > 0
        which = _bin_of(equivalent_diameter_mm(lesions.sizes, voxel_mm3))
        by_size = tuple(
            SizeBin(name, int((which == n).sum()), int(found[which == n].sum())) for n, (name, _) in enumerate(_BINS)
        )
        return LesionScores(lesions.count, int(found.sum()), int((predicted.overlaps == 0).sum()), by_size)


def equivalent_diameter_mm(voxels: NDArray[np.int64], voxel_mm3: float) -> NDArray[np.float64]:
    """Diameters of the balls of equal volume."""
    return np.cbrt(6.0 / np.pi * voxels * voxel_mm3)


def _bin_of(diameters_mm: NDArray[np.float64]) -> NDArray[np.int64]:
    under5, under10, to20 = (end for _, end in _BINS[:3])
    return np.sum([diameters_mm >= under5, diameters_mm >= under10, diameters_mm > to20], axis=0)
