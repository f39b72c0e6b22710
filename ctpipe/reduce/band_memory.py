"""BandMemory: whole-number sums of a stream's planes, of which only those in use take memory."""

from __future__ import annotations

import mmap
import sys

import numpy as np
from numpy.typing import NDArray

from ctpipe.words import ZYX


class BandMemory:
    """sums: int32 (slots, y, heads, x), zeros at first. Plane z of the network grid is slot z % slots.

    The rows of a slot lie one behind the other, so that `clear` gives their memory back to the system, which hands out
    zeros when they are written again (madvise(2), MADV_DONTNEED; elsewhere than on Linux they are zeroed and kept).
    """

    def __init__(self, slots: int, heads: int, plane: ZYX) -> None:
        """plane: shape of the network grid, whose y and x count."""
        shape = (slots, plane.y, heads, plane.x)
        self._row_bytes = 4 * heads * plane.x
        self._memory = _anonymous(slots * plane.y * self._row_bytes)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self.sums: NDArray[np.int32] = self._bytes.view(np.int32).reshape(shape)

    def slot(self, z: int) -> int:
        return z % len(self.sums)

    def clear(self, z: int, first: int, stop: int) -> None:
        """Rows first..stop-1 of plane z are zeros again."""
        base = self.slot(z) * self.sums.shape[1]
        low, high = ((base + row) * self._row_bytes for row in (first, stop))
        page_low, page_high = -(-low // mmap.PAGESIZE) * mmap.PAGESIZE, high // mmap.PAGESIZE * mmap.PAGESIZE
        if sys.platform != "linux" or page_low >= page_high:
            self._bytes[low:high] = 0
            return
        self._bytes[low:page_low] = 0
        self._memory.madvise(mmap.MADV_DONTNEED, page_low, page_high - page_low)
        self._bytes[page_high:high] = 0


def _anonymous(size: int) -> mmap.mmap:
    """Memory that is taken page by page, as it is written; MemoryError where the system has none."""
    if sys.platform != "linux":
        return mmap.mmap(-1, size)
    try:
        # private: shared memory would keep its pages until it is unmapped
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size >> 20} MiB for a band of scores") from error
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # 2 MiB at a time would be taken for a row, and not given back
    return memory
