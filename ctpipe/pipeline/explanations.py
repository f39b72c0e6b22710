"""Why a voxel has its label, as plain frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ctpipe.store import Series
from ctpipe.words import ZYX


@dataclass(frozen=True)
class WindowScores:
    """A window that had a say, in voxels of the model's pyramid level.

    centre, start, stop: (z, y, x), stop excluded; parts of it may lie outside the volume, where it saw padding. Of a
    segmenter they are voxels of its network's grid, and scores are those at the grid's voxel nearest to the one asked.
    share: of the decision, 0 to 1. evaluated: it was in the region that the recipe asks for, else it is background for
    certain. scores: probabilities by class, `background` first.
    """

    centre: ZYX
    start: ZYX
    stop: ZYX
    share: float
    evaluated: bool
    scores: dict[str, float]


@dataclass(frozen=True)
class BeforeRun:
    """What the run before says of the voxel. reference_hu: its organ's median, where the model is relative to it."""

    run: str
    label: int
    label_name: str
    reference_hu: float | None


@dataclass(frozen=True)
class Explanation:
    """Why a voxel has its label.

    voxel: (z, y, x); lps_mm: where it is in the patient; hu: as stored; label: as stored, and the same that `windows`
    give (else `explain` raises); level: pyramid level of the windows, whose voxels are factors (z, y, x) as large.
    sop_instance: pseudonym of the DICOM object that the plane came from. model: digest.
    """

    series: str
    voxel: ZYX
    lps_mm: tuple[float, ...]
    hu: float
    label: int
    label_name: str
    run: str
    model: str
    recipe: str
    device: str
    sop_instance: str
    level: int
    factors: ZYX
    windows: tuple[WindowScores, ...]
    before: BeforeRun | None

    def as_json(self) -> dict[str, Any]:
        """Plain values, with "agrees": true, since an explanation that does not agree is an error."""
        return {**asdict(self), "agrees": True}


def sop_instance(series: Series, plane: int) -> str:
    """Pseudonym of the DICOM object that a plane came from; empty where none is known."""
    rows = series.planes
    found = rows.loc[rows["plane"] == plane, "sop_instance"] if "sop_instance" in rows else []
    return str(np.asarray(found)[0]) if len(found) else ""
