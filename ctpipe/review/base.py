"""What a working copy began as: the voxels of its parent, decoded when it is opened, and kept beside the journal.

The parent's level-0 shards get a second name (a hard link) in the working copy's folder, so that corrections outlive a
parent that is removed. Labels compress to a few per cent: where links are not possible, a copy costs little.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import StoreFaultError
from ctpipe.store.reader import LevelArray
from ctpipe.volume import pyramid_levels, slabs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctpipe.store import Labels, Series

FOLDER = "base"


def keep(folder: Path, parent: Labels) -> None:
    """Give the parent's level 0 a second name below the working copy `folder`. Raises OSError."""
    source = parent.path / "0"
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = folder / FOLDER / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, place)


def parent_voxels(parent: Labels) -> NDArray:
    """All voxels of committed labels (z, y, x), each shard checked against the manifest."""
    return _all_planes(parent.grid.shape, np.dtype(parent.dtype), parent.read_planes)


def kept_voxels(folder: Path, series: Series, dtype: str) -> NDArray:
    """The same from what `keep` kept; each chunk has its own checksum. StoreFaultError where some are gone."""
    level = pyramid_levels(series.grid)[0]
    kept = LevelArray(folder / FOLDER, level, dtype, None, f"what working copy {folder.name} was made from")
    lost = len(kept.slabs) - len(kept.shards_there())
    if lost:
        raise StoreFaultError(
            f"the parent of working copy {folder.name} is gone, and {lost} of its {len(kept.slabs)} slabs are not kept",
            f"restore the parent, or {FOLDER}/ of the working copy, from a backup",
        )
    return _all_planes(series.grid.shape, kept.dtype, kept.read)


def _all_planes(shape: tuple[int, ...], dtype: np.dtype, read: Callable[[int, int], NDArray]) -> NDArray:
    voxels = np.zeros(shape, dtype)
    for slab in slabs_of(shape[0]):
        voxels[slab.start : slab.stop] = read(slab.start, slab.stop)
    return voxels
