"""Planes of several layers that come plane by plane and leave layer by layer, kept in a file without a name.

A shard is a whole slab of one layer, and a model gives a plane of all layers at a time. The file holds the slab in
between, so that memory is a plane of all layers and a slab of one, however many classes there are. It has no name:
after a kill there is nothing to take away.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctpipe.store import files
from ctpipe.store.layout import PARTIAL


class PlaneScratch:
    """uint8 (layers, planes, y, x) on disk, zeros where nothing was put. BudgetError: disk full."""

    def __init__(self, folder: Path, layers: int, shape: tuple[int, int, int]) -> None:
        """folder: where there is room, and made if absent. shape: of a slab, (planes, y, x)."""
        self.shape, self._folder = shape, folder
        self._plane = shape[1] * shape[2]
        files.make_folder(folder)
        with files.plain_errors(folder, layers * shape[0] * self._plane):
            self._file = tempfile.TemporaryFile(dir=folder, suffix=PARTIAL)  # noqa: SIM115 - until `close`
            self._file.truncate(layers * shape[0] * self._plane)

    def put(self, layer: int, plane: int, row: int, values: NDArray[np.uint8]) -> None:
        """Rows (y, x) of a plane of a layer, from `row` on."""
        with files.plain_errors(self._folder, self._plane):
            self._file.seek((layer * self.shape[0] + plane) * self._plane + row * self.shape[2])
            self._file.write(np.ascontiguousarray(values).data)

    def slab(self, layer: int) -> NDArray[np.uint8]:
        """All planes of a layer, (planes, y, x)."""
        out = np.empty(self.shape, np.uint8)
        with files.plain_errors(self._folder, 0):
            self._file.seek(layer * self.shape[0] * self._plane)
            self._file.readinto(out.data)
        return out

    def close(self) -> None:
        """Let go of the file."""
        with files.plain_errors(self._folder, self._plane):
            self._file.close()
