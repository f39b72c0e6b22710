"""Scores of one volume: a prediction against a truth, read once, slab by slab."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import InputError, StoreFaultError, UsageError
from ctpipe.scoring.confusion import Confusion
from ctpipe.scoring.lesions import LesionScores, LesionTally
from ctpipe.volume import Grid, slabs_of
from ctpipe.words import Progress


class LabelsLike(Protocol):
    """What is read of a label volume (ctpipe.store.Labels has it)."""

    @property
    def name(self) -> str: ...
    @property
    def series_id(self) -> str: ...
    @property
    def grid(self) -> Grid: ...
    @property
    def classes(self) -> Mapping[int, str]: ...
    def read_planes(self, start: int, stop: int) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class VolumeScores:
    """Scores of one prediction over one volume.

    classes: names of both sides, without the background; position n is class n + 1 of `confusion`.
    only_in_truth, only_in_prediction: classes that the other side's class table does not have.
    voxel_ml: volume of a voxel, or NaN for scores pooled over grids of different voxels.
    """

    series: str
    truth: str
    prediction: str
    classes: tuple[str, ...]
    confusion: Confusion
    lesions: Mapping[str, LesionScores]
    only_in_truth: tuple[str, ...]
    only_in_prediction: tuple[str, ...]
    voxel_ml: float

    def index(self, name: str) -> int:
        """Class `name` within the confusion."""
        return self.classes.index(name) + 1

    def as_json(self) -> dict[str, Any]:
        """The entry of one series in `ctpipe evaluate --json` (DESIGN.md 8); NaN is null."""
        return {
            "truth": self.truth,
            "prediction": self.prediction,
            "classes": {name: self._class_json(self.index(name)) for name in self.classes},
            "confusion": self.confusion.counts.tolist(),
            "confusion_classes": ["background", *self.classes],
            "lesions": {name: scores.as_json() for name, scores in self.lesions.items()},
            "only_in_truth": list(self.only_in_truth),
            "only_in_prediction": list(self.only_in_prediction),
        }

    def _class_json(self, c: int) -> dict[str, Any]:
        m = self.confusion
        return {
            "dice": _or_null(m.dice(c)),
            "iou": _or_null(m.iou(c)),
            "precision": _or_null(m.precision(c)),
            "recall": _or_null(m.recall(c)),
            "true_voxels": m.true_voxels(c),
            "predicted_voxels": m.predicted_voxels(c),
            "true_ml": _or_null(m.true_voxels(c) * self.voxel_ml),
            "predicted_ml": _or_null(m.predicted_voxels(c) * self.voxel_ml),
        }


def evaluate_volume(
    truth: LabelsLike, prediction: LabelsLike, progress: Progress = None, *, lesions: bool = True
) -> VolumeScores:
    """Scores of a prediction against a truth on the same grid; each slab of either is read once.

    Classes are matched by name: their label numbers may differ, and either side may have classes that the other lacks.
    Lesions are counted for every class, unless `lesions` says that voxels will do.

    Raises InputError where the grids differ, StoreFaultError where voxels hold a label that the class table lacks.
    """
    grid = truth.grid
    if grid.grid_id != prediction.grid.grid_id:
        raise InputError(
            f"truth {truth.name} lies on grid {grid.grid_id}, "
            f"prediction {prediction.name} on grid {prediction.grid.grid_id}",
            "evaluate labels of the same volume",
        )
    names = union_of_classes(truth.classes, prediction.classes)
    k = len(names) + 1
    true_lut, predicted_lut = _to_union(truth, names), _to_union(prediction, names)
    confusion, tallies = Confusion.empty(k), {name: LesionTally() for name in names if lesions}
    for slab in slabs_of(grid.shape.z):
        true = _take(true_lut, truth, len(names), slab.start, slab.stop)
        predicted = _take(predicted_lut, prediction, len(names), slab.start, slab.stop)
        confusion += Confusion.from_planes(true, predicted, k)
        for c, tally in enumerate(tallies.values(), start=1):
            tally.add(true == c, predicted == c)
        if progress is not None:
            progress("evaluate", slab.stop, grid.shape.z)

    voxel_mm3 = abs(float(np.linalg.det(grid.affine[:3, :3])))
    here, there = union_of_classes(truth.classes, {}), union_of_classes({}, prediction.classes)
    return VolumeScores(
        series=truth.series_id,
        truth=truth.name,
        prediction=prediction.name,
        classes=names,
        confusion=confusion,
        lesions={name: tally.finish(voxel_mm3) for name, tally in tallies.items()},
        only_in_truth=tuple(n for n in names if n not in there),
        only_in_prediction=tuple(n for n in names if n not in here),
        voxel_ml=voxel_mm3 / 1000.0,
    )


def pool(scores: Sequence[VolumeScores]) -> VolumeScores:
    """Scores over the voxels of several volumes together ("pooled": large volumes weigh more than in a mean).

    Raises UsageError where there are none or their classes differ.
    """
    if not scores:
        raise UsageError("no volume was evaluated", "name a run that covers at least one series with a truth")
    first = scores[0]
    if any(s.classes != first.classes for s in scores):
        raise UsageError("the volumes have different classes and cannot be pooled", "evaluate them run by run")
    voxels = {s.voxel_ml for s in scores}
    return VolumeScores(
        series="all",
        truth=_common([s.truth for s in scores]),
        prediction=_common([s.prediction for s in scores]),
        classes=first.classes,
        confusion=reduce(add, (s.confusion for s in scores)),
        lesions={name: reduce(add, (s.lesions[name] for s in scores)) for name in first.classes},
        only_in_truth=first.only_in_truth,
        only_in_prediction=first.only_in_prediction,
        voxel_ml=first.voxel_ml if len(voxels) == 1 else float("nan"),
    )


def union_of_classes(truth: Mapping[int, str], prediction: Mapping[int, str]) -> tuple[str, ...]:
    """Names of both sides without the background (0): the truth's by label, then those only the prediction has."""
    return tuple(dict.fromkeys(side[label] for side in (truth, prediction) for label in sorted(side) if label))


def _to_union(labels: LabelsLike, names: Sequence[str]) -> NDArray[np.uint16]:
    """Label -> class of the union; labels without a name get the number after the last class."""
    table = np.full(1 << 16, len(names) + 1, np.uint16)  # labels are uint8 or uint16
    for label, name in labels.classes.items():
        table[label] = names.index(name) + 1 if label else 0
    table[0] = 0
    return table


def _take(table: NDArray[np.uint16], labels: LabelsLike, n_classes: int, start: int, stop: int) -> NDArray[np.uint16]:
    """Planes start..stop-1 in classes of the union."""
    out = table[labels.read_planes(start, stop)]
    if out.size and int(out.max()) > n_classes:
        raise StoreFaultError(
            f"labels {labels.name} hold a label in planes {start}..{stop - 1} that their class table does not name",
            "run ctpipe verify, then make the labels again",
        )
    return out


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _common(names: Sequence[str]) -> str:
    return names[0] if len(set(names)) == 1 else f"{len(set(names))} label volumes"
