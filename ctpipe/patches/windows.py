"""Where the windows of a volume lie; arithmetic on integers, no voxels."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import UsageError
from ctpipe.words import ZYX


@dataclass(frozen=True)
class WindowGrid:
    """The windows of one volume by the rule *lattice* (DESIGN 3): centres 0, s, 2s, … below the shape.

    shape, window, stride: voxels (z, y, x). A window starts at centre - window // 2 and is never moved; what lies
    beyond the volume is padding::

            |---------------------|        shape 22
        wwwwCwwwww                         window 10 around centre 0: five padded voxels before the volume
                wwwwwCwwww                 window 10 around centre 9
                         wwwwwCwwww        window 10 around centre 18: one padded voxel behind it
    """

    shape: ZYX
    window: ZYX
    stride: ZYX

    def __post_init__(self) -> None:
        for name in ("shape", "window", "stride"):
            values = tuple(int(v) for v in getattr(self, name))
            if len(values) != 3 or min(values) < 1:
                raise UsageError(f"{name} {values} is not three lengths of at least 1 voxel", "give z, y, x")
            object.__setattr__(self, name, ZYX(*values))

    def axes(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Centres along z, y and x, ascending."""
        z, y, x = (np.arange(0, n, s) for n, s in zip(self.shape, self.stride, strict=True))
        return z, y, x

    @property
    def counts(self) -> ZYX:
        """Windows along z, y and x."""
        return ZYX(*(-(-n // s) for n, s in zip(self.shape, self.stride, strict=True)))

    def __len__(self) -> int:
        return prod(self.counts)

    def centre(self, index: int) -> ZYX:
        """Centre voxel of window `index`; windows are numbered in C order of (z, y, x)."""
        if not 0 <= index < len(self):
            raise UsageError(f"window {index} of {len(self)} does not exist", "number windows from 0")
        at = np.unravel_index(index, self.counts)
        return ZYX(*(int(i) * s for i, s in zip(at, self.stride, strict=True)))

    def start(self, index: int) -> ZYX:
        """First voxel of window `index`; negative where the window begins in the padding."""
        return ZYX(*(c - w // 2 for c, w in zip(self.centre(index), self.window, strict=True)))

    def planes_within(self, start: int, stop: int) -> list[int]:
        """The lattice planes among planes start..stop-1."""
        first = -(-start // self.stride.z) * self.stride.z
        return list(range(first, min(stop, self.shape.z), self.stride.z))
