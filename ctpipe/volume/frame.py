"""Frame: which stored axis each axis of a network is, and whether it runs the other way. Whole axes, no resampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.volume.grid import Grid

_OTHER_SIDE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}


@dataclass(frozen=True)
class Frame:
    """order[a]: the stored axis (0 z, 1 y, 2 x) that the network's axis a is; flipped[a]: whether it runs backwards."""

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of(cls, axes: str, grid: Grid) -> Frame:
        """Frame for a network whose axes grow to `axes` ("SPL", say; "zyx" in any order: as stored) on a grid.

        An oblique grid counts as the anatomical one that it is nearest to.
        """
        if axes.islower():
            return cls(tuple("zyx".index(axis) for axis in axes), (False, False, False))  # type: ignore[arg-type]
        stored = _nearest_letters(grid)
        order = [next(s for s, side in enumerate(stored) if side in (want, _OTHER_SIDE[want])) for want in axes]
        flipped = [stored[s] != want for s, want in zip(order, axes, strict=True)]
        return cls(tuple(order), tuple(flipped))  # type: ignore[arg-type]

    @property
    def place(self) -> tuple[int, int, int]:
        """The network's axis that each stored axis is."""
        z, y, x = (self.order.index(s) for s in range(3))
        return z, y, x

    def stored(self, values: Any) -> tuple[Any, Any, Any]:
        """Three values given along the network's axes, along the stored ones."""
        z, y, x = (values[a] for a in self.place)
        return z, y, x

    def to_network(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """(z, y, x) voxels with the network's axes: a view."""
        turned = voxels.transpose(self.order)
        return np.flip(turned, tuple(a for a in range(3) if self.flipped[a]))

    def to_stored(self, scores: NDArray[Any]) -> NDArray[Any]:
        """(heads, *network axes) scores as (heads, z, y, x): a view."""
        unflipped = np.flip(scores, tuple(a + 1 for a in range(3) if self.flipped[a]))
        return unflipped.transpose(0, *(a + 1 for a in self.place))


def _nearest_letters(grid: Grid) -> list[str]:
    """The patient side that each stored axis goes to, all three axes of the patient taken once.

    `Grid.letters` takes the largest part of each axis by itself; a grid turned by 45 degrees could name one twice.
    """
    parts = np.abs(grid.directions)  # [patient axis, stored axis]
    choices = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    best = max(choices, key=lambda choice: sum(parts[axis, s] for s, axis in enumerate(choice)))
    sides = ("RL", "AP", "IS")
    return [sides[axis][int(grid.directions[axis, s] > 0)] for s, axis in enumerate(best)]
