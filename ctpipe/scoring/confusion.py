"""Confusion: how many voxels of each true class were given each predicted class. All scores of overlap come from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError


@dataclass(frozen=True, eq=False)
class Confusion:
    """counts: int64 (k, k), voxels by (true class, predicted class); class 0 is background.

    With I, U the voxels in both and in either: Dice = 2I / (T + P), IoU = I / U, so Dice = 2 IoU / (1 + IoU).
    A score without voxels to speak of is NaN, never 0 or 1: Dice and IoU where truth and prediction are both empty,
    precision where nothing was predicted, recall where nothing was there.
    """

    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.counts.ndim != 2 or self.counts.shape[0] != self.counts.shape[1]:
            raise UsageError(f"a confusion of shape {self.counts.shape}", "give counts of (true, predicted) classes")

    @classmethod
    def empty(cls, k: int) -> Confusion:
        """No voxels counted yet, k classes with the background."""
        return cls(np.zeros((k, k), np.int64))

    @classmethod
    def from_planes(cls, true: NDArray[np.integer], predicted: NDArray[np.integer], k: int) -> Confusion:
        """Counts over two arrays (planes, y, x) of classes 0..k-1 with the background.

        Raises UsageError where the shapes differ or a class is k or more.
        """
        if true.shape != predicted.shape:
            raise UsageError(
                f"truth of shape {true.shape} and prediction of shape {predicted.shape}", "give the same planes of both"
            )
        counts = np.zeros(k * k, np.int64)
        for t, p in zip(true, predicted, strict=True):  # a plane at a time: bincount works on int64
            if t.size and (int(t.max()) >= k or int(p.max()) >= k or int(min(t.min(), p.min())) < 0):
                raise UsageError(f"a class outside 0..{k - 1} in the voxels", "give k as classes with the background")
            counts += np.bincount(t.ravel().astype(np.int64) * k + p.ravel(), minlength=k * k)
        return cls(counts.reshape(k, k))

    def __add__(self, other: Confusion) -> Confusion:
        if self.counts.shape != other.counts.shape:
            raise UsageError("confusions over different classes cannot be added", "match their classes by name first")
        return Confusion(self.counts + other.counts)

    @property
    def n_classes(self) -> int:
        """Classes with the background."""
        return len(self.counts)

    def true_voxels(self, c: int) -> int:
        return int(self.counts[c].sum())

    def predicted_voxels(self, c: int) -> int:
        return int(self.counts[:, c].sum())

    def common_voxels(self, c: int) -> int:
        return int(self.counts[c, c])

    def dice(self, c: int) -> float:
        return _ratio(2 * self.common_voxels(c), self.true_voxels(c) + self.predicted_voxels(c))

    def iou(self, c: int) -> float:
        either = self.true_voxels(c) + self.predicted_voxels(c) - self.common_voxels(c)
        return _ratio(self.common_voxels(c), either)

    def precision(self, c: int) -> float:
        """Share of the predicted voxels that are true."""
        return _ratio(self.common_voxels(c), self.predicted_voxels(c))

    def recall(self, c: int) -> float:
        """Share of the true voxels that were predicted."""
        return _ratio(self.common_voxels(c), self.true_voxels(c))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
