"""Slabs of voxels in the memory of this process, within a budget; what is not there is read from the store.

One cache a process: the threads of a Dask worker share it. On a cluster `SlabBudget` gives every worker its budget,
also those that join later or come back. Correctness never depends on what is resident: a slab that does not fit is read
again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from threading import Condition
from typing import Any

from distributed import Worker, WorkerPlugin
from numpy.typing import NDArray

from ctpipe.errors import UsageError

# What a process keeps unless it is told otherwise: sixteen slabs of 32 x 512 x 512 int16.
DEFAULT_BYTES = 256 << 20


@dataclass(frozen=True)
class Residency:
    """What a process holds: slabs and their bytes, and how often it was asked, had to read, and let go."""

    budget: int
    bytes: int = 0
    slabs: int = 0
    asked: int = 0
    read: int = 0
    dropped: int = 0

    def as_json(self) -> dict[str, int]:
        return asdict(self)


class SlabCache:
    """Arrays by key, the least recently used dropped first; of threads that want the same slab one reads it."""

    def __init__(self, budget: int = DEFAULT_BYTES) -> None:
        self._slabs: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._reading: set[Hashable] = set()
        self._turn = Condition()
        self._bytes = self._asked = self._read = self._dropped = 0
        self._budget = budget

    def get(self, key: Hashable, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The slab of `key`, read where it is not resident; not to be written to."""
        with self._turn:
            self._asked += 1
            while key in self._reading:
                self._turn.wait()
            if key in self._slabs:
                self._slabs.move_to_end(key)
                return self._slabs[key]
            self._reading.add(key)
            self._read += 1
        try:
            slab = read()
            slab.setflags(write=False)
        except BaseException:
            with self._turn:
                self._done(key)
            raise
        with self._turn:
            if slab.nbytes <= self._budget:
                self._slabs[key] = slab
                self._bytes += slab.nbytes
                self._shrink()
            self._done(key)
        return slab

    def set_budget(self, budget: int) -> None:
        """At most so many bytes from now on; what is too much is dropped at once."""
        if budget < 0:
            raise UsageError(f"a budget of {budget} bytes cannot be", "give bytes, 0 for nothing")
        with self._turn:
            self._budget = budget
            self._shrink()

    def clear(self) -> None:
        """Forget all slabs and counts."""
        with self._turn:
            self._slabs.clear()
            self._bytes = self._asked = self._read = self._dropped = 0

    @property
    def residency(self) -> Residency:
        with self._turn:
            return Residency(self._budget, self._bytes, len(self._slabs), self._asked, self._read, self._dropped)

    def _shrink(self) -> None:
        while self._bytes > self._budget and self._slabs:
            _, slab = self._slabs.popitem(last=False)
            self._bytes -= slab.nbytes
            self._dropped += 1

    def _done(self, key: Hashable) -> None:
        self._reading.discard(key)
        self._turn.notify_all()


SLABS = SlabCache()


def residency() -> dict[str, int]:
    """What this process holds, as plain numbers; run on every worker by `PatchTable.resident`."""
    return SLABS.residency.as_json()


class SlabBudget(WorkerPlugin):
    """Gives every worker of a cluster the same budget of slabs."""

    name = "ctpipe-slabs"
    idempotent = False

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def setup(self, worker: Worker) -> None:
        SLABS.set_budget(self.budget)
