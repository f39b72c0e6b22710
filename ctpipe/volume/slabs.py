"""Slabs: the bands of whole planes that are read, computed, written and resumed as one."""

from __future__ import annotations

from dataclasses import dataclass

# One shard of the store; 32 planes of 512 x 512 int16 are 16 MiB. A power of two, so that every pyramid level of a
# slab is whole planes of its own.
SLAB_PLANES = 32


@dataclass(frozen=True, slots=True)
class Slab:
    """Planes start..stop-1 of a volume; `index` counts slabs from 0.

    ::

        planes  0        32        64    75
                |---- 0 ---|--- 1 ---|-2-|     the last slab may be thinner
    """

    index: int
    start: int
    stop: int

    @property
    def planes(self) -> int:
        return self.stop - self.start

    def with_halo(self, halo: int, n_planes: int) -> tuple[int, int]:
        """(start, stop) of the planes to read for a result that needs `halo` planes on both sides, clipped."""
        return max(0, self.start - halo), min(n_planes, self.stop + halo)


def slabs_of(n_planes: int, height: int = SLAB_PLANES) -> list[Slab]:
    """The slabs of a volume of `n_planes` planes, in order."""
    return [Slab(i, at, min(at + height, n_planes)) for i, at in enumerate(range(0, n_planes, height))]
