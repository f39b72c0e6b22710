"""The next case, read while this one is looked at: blocks of voxels in memory, under a budget of bytes.

What is read is what a viewer asks for first, in this order: the labels' coarsest level (it tells which plane to begin
on), the CT's coarsest level, the slab of that plane from both at full size, then the finer levels from coarse to fine,
as far as the budget goes. Every block is checked against the manifest, as any read of the store is.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctpipe.errors import CtpipeError
from ctpipe.review.layers import telling_plane
from ctpipe.store import open_store
from ctpipe.volume import pyramid_levels, slabs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ctpipe.store import Labels, Series

BUDGET_BYTES = 256 << 20

Block = tuple[str, str, int, int, int]  # folder, digest of its voxels, first plane, plane after the last, level


class BlockCache:
    """Blocks of planes of committed volumes and labels, the last used kept; never more than `budget` bytes."""

    def __init__(self, budget: int = BUDGET_BYTES) -> None:
        self.budget = budget
        self.held = 0
        self._blocks: OrderedDict[Block, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget all blocks."""
        with self._lock:
            self._blocks.clear()
            self.held = 0

    def of(self, volume: Series | Labels) -> Any:
        """`volume` with a `read_planes` that takes from here what is here; all else of it as it is."""
        return _FromCache(volume, self)

    def read(self, volume: Series | Labels, start: int, stop: int, level: int) -> np.ndarray:
        """A block from memory, else from the store."""
        with self._lock:
            found = self._blocks.get(_block(volume, start, stop, level))
            if found is not None:
                self._blocks.move_to_end(_block(volume, start, stop, level))
        return found if found is not None else volume.read_planes(start, stop, level=level)

    def cut(self, volume: Series | Labels, start: int, stop: int, level: int) -> list[np.ndarray] | None:
        """The parts of blocks that planes start..stop-1 lie in, in order; None where one is not in memory."""
        parts = []
        shape, height = volume.levels[level].grid.shape, volume.levels[level].slab_planes
        for slab in slabs_of(shape.z, height)[start // height : -(-stop // height)]:
            with self._lock:
                found = self._blocks.get(_block(volume, slab.start, slab.stop, level))
            if found is None:
                return None
            parts.append(found[max(start - slab.start, 0) : stop - slab.start])
        return parts

    def load(self, volume: Series | Labels, start: int, stop: int, level: int, spare: set[Block]) -> bool:
        """Bring a block into memory, letting go of others less those in `spare`; False where it has no room."""
        block = _block(volume, start, stop, level)
        spare.add(block)
        with self._lock:
            if block in self._blocks:
                self._blocks.move_to_end(block)
                return True
        voxels = volume.read_planes(start, stop, level=level)
        with self._lock:
            for old in [old for old in self._blocks if old not in spare]:
                if self.held + voxels.nbytes <= self.budget:
                    break
                self.held -= self._blocks.pop(old).nbytes
            if self.held + voxels.nbytes > self.budget:
                return False
            self._blocks[block] = voxels
            self.held += voxels.nbytes
        return True


class _FromCache:
    """A volume or labels group that reads through a BlockCache."""

    def __init__(self, volume: Series | Labels, cache: BlockCache) -> None:
        self._volume, self._cache = volume, cache
        self.arrays = [_ArrayFromCache(volume, cache, level) for level in range(len(volume.levels))]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._volume, name)

    def read_planes(self, start: int, stop: int, level: int = 0) -> np.ndarray:
        return self._cache.read(self._volume, start, stop, level)


class _ArrayFromCache:
    """One level of it, with the `read` that lazy levels ask."""

    def __init__(self, volume: Series | Labels, cache: BlockCache, level: int) -> None:
        self._volume, self._cache, self._level = volume, cache, level

    def read(self, start: int, stop: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        found = self._cache.cut(self._volume, start, stop, self._level)
        if found is None:
            return self._volume.arrays[self._level].read(start, stop, rows, columns)
        return np.concatenate([part[:, rows, columns] for part in found])


class Preloader:
    """Reads one case ahead in a thread of its own; a new wish takes the place of the one before."""

    def __init__(self, root: Path, cache: BlockCache) -> None:
        self.root, self.cache = root, cache
        self._wish = 0
        self._thread: threading.Thread | None = None

    def load(self, series: str, labels: str | None) -> None:
        """Begin to read the case that will be shown next."""
        self.stop()
        self._thread = threading.Thread(
            target=self._read, args=(self._wish, series, labels), name="ctpipe-preload", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until what was wished for is read."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Give up what is being read, after the block in hand."""
        self._wish += 1

    def _read(self, wish: int, series: str, labels: str | None) -> None:
        spare: set[Block] = set()
        try:
            found = open_store(self.root)[series]
            group = None if labels is None else found.labels[labels]
            for volume, start, stop, level in _in_order(self.cache, found, group):
                if wish != self._wish or not self.cache.load(volume, start, stop, level, spare):
                    return
        except CtpipeError as error:  # who shows the case is told by the viewer
            logging.getLogger("ctpipe").info("case %s was not read ahead: %s", series, error)


def _in_order(
    cache: BlockCache, series: Series, labels: Labels | None
) -> Iterator[tuple[Series | Labels, int, int, int]]:
    """Blocks as the layers read them, the first to be seen first."""
    volumes = [group for group in (labels, series) if group is not None]
    levels = pyramid_levels(series.grid)
    slabs = slabs_of(series.grid.shape.z)
    for volume in volumes:
        yield from ((volume, at.start, at.stop, levels[-1].number) for at in map(levels[-1].slab, slabs))
    plane = telling_plane(cache.of(labels)) if labels is not None else None
    plane = series.grid.shape.z // 2 if plane is None else plane
    for volume in volumes:
        yield from ((volume, slab.start, slab.stop, 0) for slab in slabs if slab.start <= plane < slab.stop)
    for level in reversed(levels[:-1]):
        for volume in volumes:
            yield from ((volume, at.start, at.stop, level.number) for at in map(level.slab, slabs))


def _block(volume: Series | Labels, start: int, stop: int, level: int) -> Block:
    return str(volume.path), volume.content, start, stop, level
