"""Where two label sets of one volume disagree: a code for each voxel, and the places, the largest first.

Of the two sides one is held to be right (the truth, the earlier run, the other reader); the other is held against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import InputError, NotThereError
from ctpipe.postprocess import Components, label_components
from ctpipe.scoring.measures import ReadPlanes
from ctpipe.scoring.scores import LabelsLike, union_of_classes
from ctpipe.volume import Grid, slabs_of

MOST = 500  # places that are listed; the largest come first


class Code(IntEnum):
    """What a voxel is in a comparison; 0 is background on both sides."""

    AGREED = 1  # the same class on both sides
    FALSE_POSITIVE = 2  # a class where the right side has background
    FALSE_NEGATIVE = 3  # background where the right side has a class
    OTHER_CLASS = 4  # a class on both sides, not the same

    @property
    def title(self) -> str:
        return {1: "agreement", 2: "false positive", 3: "false negative", 4: "another class"}[self]


@dataclass(frozen=True, eq=False)
class Difference:
    """Two label sets of one grid, and the one class that counts (None: all of them)."""

    right: LabelsLike
    other: LabelsLike
    only: str | None = None

    def __post_init__(self) -> None:
        if self.right.grid.grid_id != self.other.grid.grid_id:
            raise InputError(f"labels {self.right.name} lie on grid {self.right.grid.grid_id}, "
                             f"{self.other.name} on {self.other.grid.grid_id}",
                             "compare labels of one volume")  # fmt: skip
        if self.only is not None and self.only not in self.names:
            raise NotThereError("neither side has that class", f"choose among: {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Classes of either side."""
        return union_of_classes(self.right.classes, self.other.classes)

    def coded(self, right: NDArray, other: NDArray) -> NDArray[np.uint8]:
        """Codes of voxels from labels of both sides, of any shape."""
        a, b = self._tables[0][right], self._tables[1][other]
        out = np.zeros(a.shape, np.uint8)
        out[(a == 0) & (b > 0)] = Code.FALSE_POSITIVE
        out[(a > 0) & (b == 0)] = Code.FALSE_NEGATIVE
        out[(a > 0) & (b > 0)] = Code.OTHER_CLASS
        out[(a > 0) & (a == b)] = Code.AGREED
        return out

    def planes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Codes of planes start..stop-1."""
        return self.coded(self.right.read_planes(start, stop), self.other.read_planes(start, stop))

    def classes_of(self, start: int, stop: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Both sides' planes as places among the names, from 1; one more for labels that no class names."""
        right, other = (side.read_planes(start, stop) for side in (self.right, self.other))
        return self._tables[0][right], self._tables[1][other]

    @cached_property
    def _tables(self) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        return self._table(self.right), self._table(self.other)

    def _table(self, side: LabelsLike) -> NDArray[np.uint16]:
        """Label -> place of its class among the names, from 1; a label without a name is a class of its own."""
        table = np.full(1 << 16, 0 if self.only else len(self.names) + 1, np.uint16)
        table[0] = 0
        for label, name in side.classes.items():
            table[label] = self.names.index(name) + 1 if label and self.only in (None, name) else 0
        return table


@dataclass(frozen=True)
class Disagreement:
    """One connected place of one kind. at: a voxel (z, y, x) in the middle of its largest plane."""

    code: Code
    voxels: int
    volume_ml: float
    at: tuple[int, int, int]


def disagreements(codes: ReadPlanes, grid: Grid, most: int = MOST) -> list[Disagreement]:
    """The places of every kind but agreement, 26-connected, the `most` largest, largest first. Slab by slab."""
    ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
    found: list[Disagreement] = []
    for code in (Code.FALSE_POSITIVE, Code.FALSE_NEGATIVE, Code.OTHER_CLASS):
        parts = _parts(codes, grid, code)
        largest = np.argsort(-parts.sizes, kind="stable")[:most]
        places = _middles(parts, largest, grid)
        found += [Disagreement(code, int(parts.sizes[n]), float(parts.sizes[n] * ml), places[int(n)]) for n in largest]
    return sorted(found, key=lambda one: -one.voxels)[:most]


def _parts(codes: ReadPlanes, grid: Grid, code: Code) -> Components:
    slabs = slabs_of(grid.shape.z)
    return label_components(lambda n: codes(slabs[n].start, slabs[n].stop) == code, len(slabs))


def _middles(parts: Components, wanted: NDArray[np.integer], grid: Grid) -> dict[int, tuple[int, int, int]]:
    """For each of the wanted components (from 0) the voxel nearest to the middle of its largest plane."""
    keep = np.zeros(parts.count + 1, bool)
    keep[wanted + 1] = True
    best: dict[int, tuple[int, tuple[int, int, int]]] = {}
    for slab in slabs_of(grid.shape.z) if len(wanted) else []:
        for z, numbers in enumerate(parts.slab(slab.index), start=slab.start):
            y, x = np.nonzero(keep[numbers])
            which = numbers[y, x] - 1
            order = np.argsort(which, kind="stable")
            begins = np.flatnonzero(np.diff(which[order], prepend=-1))
            for at in np.split(order, begins[1:]) if len(order) else []:
                n = int(which[at[0]])
                if len(at) > best.get(n, (0,))[0]:
                    away = (y[at] - y[at].mean()) ** 2 + (x[at] - x[at].mean()) ** 2
                    near = at[int(away.argmin())]
                    best[n] = len(at), (z, int(y[near]), int(x[near]))
    return {n: at for n, (_, at) in best.items()}
