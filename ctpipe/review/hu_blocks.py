"""HU of small boxes, quick enough for a brush: the chunks of the store that were read last are kept."""

from __future__ import annotations

from collections import OrderedDict
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.review.boxes import Box, inside, shape_of

if TYPE_CHECKING:
    from ctpipe.store import Series

BLOCK = (16, 128, 128)  # one inner chunk of a shard (DESIGN 2): nothing is decoded twice for one block
KEPT = 96  # blocks: 48 MiB of int16


class HuBlocks:
    """Reads HU of a series by box, in its stored dtype; keeps the last blocks."""

    def __init__(self, series: Series) -> None:
        self.series = series
        self._blocks: OrderedDict[tuple[int, int, int], NDArray] = OrderedDict()

    def read(self, box: Box) -> NDArray:
        """HU of `box` (z, y, x). Raises StoreFaultError for a rotten shard."""
        out = np.empty(shape_of(box), self.series.dtype)
        ranges = [range(s.start // n, -(-s.stop // n)) for s, n in zip(box, BLOCK, strict=True)]
        for z, y, x in product(*ranges):
            at = self._place(z, y, x)
            shared = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(at, box, strict=True)]
            part = (shared[0], shared[1], shared[2])
            out[inside(part, box)] = self._block(z, y, x)[inside(part, at)]
        return out

    def _place(self, *index: int) -> Box:
        z, y, x = (
            slice(i * n, min((i + 1) * n, end)) for i, n, end in zip(index, BLOCK, self.series.grid.shape, strict=True)
        )
        return z, y, x

    def _block(self, *index: int) -> NDArray:
        z, y, x = index
        found = self._blocks.pop((z, y, x), None)
        if found is None:
            planes, rows, columns = self._place(z, y, x)
            found = self.series.arrays[0].read(planes.start, planes.stop, rows, columns)
        self._blocks[z, y, x] = found
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)
        return found
