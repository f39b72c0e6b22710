"""Group: what images, labels and layers share as committed groups: a grid, a pyramid of checked arrays, provenance."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ctpipe.errors import StoreFaultError, UsageError
from ctpipe.store.commit import CURE
from ctpipe.store.metadata import read_grid, read_manifest
from ctpipe.store.reader import LevelArray
from ctpipe.volume import Grid, Level, pyramid_levels


class Group:
    """A committed group, read only; every read is checked."""

    _dtypes: tuple[str, ...]

    def __init__(self, path: Path, stated: dict[str, Any], what: str) -> None:
        self.path = path
        self._stated = stated
        self._what = what
        try:
            self.grid: Grid = read_grid(stated)
            self.levels: list[Level] = pyramid_levels(self.grid, stated["slab_planes"])
        except (TypeError, ValueError, OverflowError, UsageError) as error:
            raise StoreFaultError(f"the metadata of {what} is not what ctpipe writes", CURE) from error
        self._listed = read_manifest(stated, self.levels, self._dtypes, what)
        self.dtype: str = stated["dtype"]
        self.content: str = stated["content"]  # digest of the voxels of level 0
        self.provenance: dict[str, Any] = stated["provenance"]

    @cached_property
    def arrays(self) -> list[LevelArray]:
        """The array of every level, coarser ones after finer ones."""
        return [
            LevelArray(self.path / str(level.number), level, self.dtype, self._listed[str(level.number)], self._what)
            for level in self.levels
        ]

    def read_planes(self, start: int, stop: int, level: int = 0) -> NDArray:
        """Planes start..stop-1 of a level, (planes, y, x) in the stored dtype, each shard checked against the manifest.

        Raises StoreFaultError (rotten or missing shard), UsageError (planes or level that are not there).
        """
        if not 0 <= level < len(self.levels):
            raise UsageError(f"{self._what} has no level {level}", f"its levels are 0 to {len(self.levels) - 1}")
        return self.arrays[level].read(start, stop)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._what}, {'x'.join(str(n) for n in self.grid.shape)} {self.dtype})"
