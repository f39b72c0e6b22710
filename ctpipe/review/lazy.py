"""A level of a volume as napari wants its data: read when it is shown, block by block, within one budget of memory.

A cut in any of the three directions takes only the blocks that it goes through (the store's inner chunks), and blocks
stay in one cache for all viewers and layers of the process, the least recently used dropped first::

    axial cut      16 planes x all rows x all columns, and the next 15 planes cost nothing
    coronal cut    all planes x 128 rows x all columns, and the rows beside it cost nothing

Dask would read whole slabs, a whole volume for each coronal cut, and napari's cache for it takes a quarter of the
machine's memory. Every read is checked by the store (ctpipe.store.reader).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ctpipe.patches.slab_cache import SlabCache
from ctpipe.words import ZYX

if TYPE_CHECKING:
    from ctpipe.store import Labels, Layer, Series

BUDGET = 256 << 20  # bytes of blocks: three planes of 512 x 512 x 1000 with labels, one at full resolution, take half
BLOCK = ZYX(16, 128, 128)  # the inner chunks of the store: what is decoded at least
BLOCKS = SlabCache(BUDGET)


class LazyLevel:
    """Voxels (z, y, x) of one level; slices of it are lazy too, an integer index or NumPy reads.

    volume: what has `arrays[level].read(start, stop, rows, columns)`. box: the part of the level that this is.
    """

    ndim = 3

    def __init__(
        self, volume: Series | Labels | Layer, level: int, box: tuple[range, range, range] | None = None
    ) -> None:
        self._volume, self._level = volume, level
        whole = volume.levels[level].grid.shape
        self._box = box if box is not None else (range(whole.z), range(whole.y), range(whole.x))
        self.dtype = np.dtype(volume.dtype)
        self.shape = tuple(len(part) for part in self._box)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> LazyLevel | NDArray:
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (4 - len(keys))
        keys += [slice(None)] * (3 - len(keys))
        if not all(isinstance(k, (slice, int, np.integer)) for k in keys):
            raise TypeError("a lazy level takes integers and slices")
        cut = [part[k] if isinstance(k, slice) else _one(part, int(k)) for part, k in zip(self._box, keys, strict=True)]
        z, y, x = cut
        part = LazyLevel(self._volume, self._level, (z, y, x))
        if all(isinstance(k, slice) for k in keys):
            return part
        return np.asarray(part)[tuple(slice(None) if isinstance(k, slice) else 0 for k in keys)]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        out = np.empty(self.shape, self.dtype)
        if self.size:
            spans = [range(min(part), max(part) + 1) for part in self._box]
            if all(part.step == 1 for part in self._box):
                self._fill(out, spans)
            else:
                whole = np.empty([len(span) for span in spans], self.dtype)
                self._fill(whole, spans)
                steps = (np.array(part) - span.start for part, span in zip(self._box, spans, strict=True))
                out = whole[np.ix_(*steps)]
        return out if dtype is None else out.astype(dtype, copy=False)

    def _fill(self, out: NDArray, spans: list[range]) -> None:
        """Voxels of the spans into `out`, from blocks."""
        for z in _pieces(spans[0], BLOCK.z):
            for y in _pieces(spans[1], BLOCK.y):
                for x in _pieces(spans[2], BLOCK.x):
                    block = self._block(z[0], y[0], x[0])
                    out[z[1], y[1], x[1]] = block[z[2], y[2], x[2]]

    def _block(self, z: int, y: int, x: int) -> NDArray:
        volume, level = self._volume, self._level
        planes = volume.levels[level].grid.shape.z
        rows, columns = (slice(n * size, (n + 1) * size) for n, size in ((y, BLOCK.y), (x, BLOCK.x)))

        def read() -> NDArray:
            return np.array(volume.arrays[level].read(z * BLOCK.z, min((z + 1) * BLOCK.z, planes), rows, columns))

        return BLOCKS.get((str(volume.path), volume.content, level, z, y, x), read)


def _one(part: range, index: int) -> range:
    at = part[index]  # IndexError as an array's
    return range(at, at + 1)


def _pieces(span: range, size: int) -> Iterator[tuple[int, slice, slice]]:
    """For each block that a span touches: its number, the part of the span, and the part of the block."""
    for number in range(span.start // size, (span.stop - 1) // size + 1):
        low, high = max(span.start, number * size), min(span.stop, (number + 1) * size)
        yield number, slice(low - span.start, high - span.start), slice(low - number * size, high - number * size)
