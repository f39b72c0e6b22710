"""The tail of a volume: its last slabs, scored by all workers together where a slab each does not come out even.

::

    100 planes, two workers    slabs 0, 1 (32 planes each)    a task each: read, score, write
                               slabs 2, 3 (32 and 4)          the tail: planes one by one, scored by whoever is free;
                                                              then a task each that joins the scores and writes

Without it one worker would score 64 of the 100 planes and the other one 36. Arithmetic only.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctpipe.volume import Slab

# Multiply-adds of a plane from which parts are worth their tasks: some tenths of a second of one core.
HEAVY = 5_000_000_000
# Scores of a slab of the tail go through the scheduler: above so many bytes its slabs are tasks like the others.
MOST_BYTES = 8 << 20
# Parts for each share of the work; the last one to end is waited for.
PARTS = 16


def shares_for(workers: int, volumes: int) -> int:
    """Workers that each of so many volumes may keep busy, so that none stands idle."""
    return -(-workers // max(1, volumes))


def tail_of(slabs: Sequence[Slab], shares: int, plane_work: int, slab_bytes: int) -> int:
    """How many of the last `slabs` are the tail, for work that is shared by `shares` workers.

    plane_work: multiply-adds of one plane; slab_bytes: of the scores of one slab.
    """
    if shares < 2 or plane_work < HEAVY or slab_bytes > MOST_BYTES:
        return 0
    full = sum(slab.planes == slabs[0].planes for slab in slabs)
    left = len(slabs) - full // shares * shares
    return left if left > 1 or slabs[-1].planes > 1 else 0


def tasks_of(slabs: int, plane_work: int) -> int:
    """Tasks that may run beside each other for a volume of so many slabs: parts of them where planes are heavy."""
    return slabs if plane_work < HEAVY else slabs * PARTS


def parts_of(counts: Sequence[int], shares: int) -> list[tuple[int, int, int]]:
    """(slab, first, stop): the lattice planes of each slab of the tail in parts; counts: lattice planes of each."""
    size = max(1, sum(counts) // (shares * PARTS))
    return [(slab, at, min(at + size, count)) for slab, count in enumerate(counts) for at in range(0, count, size)]
