"""Lesions of two label sets matched as objects: what became of each between two runs, or between two readers.

::

    before   after        fate             before   after        fate
      1  ---- 1           matched            1  --+- 1           merged
      1  --+- 1, 2        split              2  --+
           +-                                (any other knot)    regrouped
      1                   lost                       1           new

A component before and one after belong together where they share at least `least_share` of the smaller one's voxels:
a touch at the rim makes no match. What hangs together so is one change. Classes are matched by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import InputError, UsageError
from ctpipe.postprocess.components import joined_numbers
from ctpipe.scoring.measures import Measured, ReadPlanes, measured_with_planes
from ctpipe.scoring.scores import LabelsLike
from ctpipe.volume import slabs_of

LEAST_SHARE = 0.1


class Fate(StrEnum):
    """What became of lesions from the one label set to the other."""

    MATCHED = "matched"
    SPLIT = "split"
    MERGED = "merged"
    REGROUPED = "regrouped"  # several became several others
    NEW = "new"
    LOST = "lost"


@dataclass(frozen=True)
class LesionChange:
    """Lesions of one class that belong together. common: voxels that both sides have."""

    fate: Fate
    name: str
    before: tuple[Measured, ...]
    after: tuple[Measured, ...]
    common: int

    @property
    def change_ml(self) -> float:
        """Volume after less volume before, of all of them."""
        return self.after_ml - self.before_ml

    @property
    def before_ml(self) -> float:
        return sum(one.volume_ml for one in self.before)

    @property
    def after_ml(self) -> float:
        return sum(one.volume_ml for one in self.after)

    @property
    def change_long_mm(self) -> float | None:
        """Longest long axis after less that before; None for what is new or lost."""
        if not self.before or not self.after:
            return None
        return max(one.axes.long_mm for one in self.after) - max(one.axes.long_mm for one in self.before)

    @property
    def largest(self) -> Measured:
        """Where to look: the largest of them, after the change if there is any."""
        return max(self.after or self.before, key=lambda one: one.voxels)

    def as_json(self) -> dict[str, Any]:
        change = self.change_long_mm
        return {
            "fate": str(self.fate),
            "class": self.name,
            "before": [_json(one) for one in self.before],
            "after": [_json(one) for one in self.after],
            "common_voxels": self.common,
            "change_ml": round(self.change_ml, 6),
            "change_long_mm": None if change is None else round(change, 4),
        }


def match_lesions(
    before: LabelsLike, after: LabelsLike, hu: ReadPlanes | None = None, least_share: float = LEAST_SHARE
) -> list[LesionChange]:
    """What became of every component of every class that has a name on either side, the largest first.

    Reads both sides slab by slab. Raises InputError where their grids differ, UsageError for a share outside 0..1.
    """
    if not 0 <= least_share <= 1:
        raise UsageError(f"a share of {least_share:g} of a lesion is none", "give 0 to 1")
    if before.grid.grid_id != after.grid.grid_id:
        raise InputError(f"labels {before.name} lie on grid {before.grid.grid_id}, "
                         f"{after.name} on {after.grid.grid_id}", "compare labels of one volume")  # fmt: skip
    old, old_planes = measured_with_planes(before.read_planes, hu, before.grid, _foreground(before.classes))
    new, new_planes = measured_with_planes(after.read_planes, hu, after.grid, _foreground(after.classes))
    shared: dict[tuple[int, int], int] = {}
    for slab in slabs_of(before.grid.shape.z):
        for pair, n in _shared(old_planes(slab.start, slab.stop), new_planes(slab.start, slab.stop)).items():
            shared[pair] = shared.get(pair, 0) + n
    return changes([one for one, _ in old], [one for one, _ in new], shared, least_share)


def changes(
    before: list[Measured], after: list[Measured], shared: Mapping[tuple[int, int], int],
    least_share: float = LEAST_SHARE,
) -> list[LesionChange]:  # fmt: skip
    """The same from components that were measured. shared: (place in `before`, in `after`), from 1 -> voxels."""
    links = [
        (a - 1, len(before) + b - 1)
        for (a, b), n in shared.items()
        if before[a - 1].name == after[b - 1].name
        and n >= max(1, least_share * min(before[a - 1].voxels, after[b - 1].voxels))
    ]
    count, group = joined_numbers(len(before) + len(after), np.array(links, np.int64).reshape(-1, 2))
    olds: list[list[Measured]] = [[] for _ in range(count)]
    news: list[list[Measured]] = [[] for _ in range(count)]
    for n, one in enumerate([*before, *after]):
        (olds if n < len(before) else news)[group[n]].append(one)
    common = [0] * count
    for a, b in links:
        common[group[a]] += shared[a + 1, b - len(before) + 1]
    found = [LesionChange(_fate(len(a), len(b)), (a or b)[0].name, tuple(a), tuple(b), n)
             for a, b, n in zip(olds, news, common, strict=True)]  # fmt: skip
    return sorted(found, key=lambda one: -max(one.before_ml, one.after_ml))


def _shared(old: NDArray[np.int32], new: NDArray[np.int32]) -> dict[tuple[int, int], int]:
    both = (old > 0) & (new > 0)
    wide = int(new.max(initial=0)) + 1
    pairs, counts = np.unique(old[both].astype(np.int64) * wide + new[both], return_counts=True)
    return {divmod(pair, wide): n for pair, n in zip(pairs.tolist(), counts.tolist(), strict=True)}


def _fate(before: int, after: int) -> Fate:
    if not before or not after:
        return Fate.NEW if after else Fate.LOST
    if before == 1:
        return Fate.MATCHED if after == 1 else Fate.SPLIT
    return Fate.MERGED if after == 1 else Fate.REGROUPED


def _foreground(classes: Mapping[int, str]) -> dict[int, str]:
    return {label: name for label, name in classes.items() if label}


def _json(one: Measured) -> dict[str, Any]:
    return {"component": one.number, "ml": round(one.volume_ml, 6), "long_mm": round(one.axes.long_mm, 4),
            "short_mm": round(one.axes.short_mm, 4), "plane": one.axes.plane}  # fmt: skip
