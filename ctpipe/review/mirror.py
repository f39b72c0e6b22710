"""What the side planes read of labels that are being painted: their array, or a copy of it in memory.

A working copy lies on disk plane by plane: a cut across its planes would open every one of them. Such a cut reads all
planes once, into memory, a byte a voxel; from then on the planes that a stroke touched are read again, and no others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_PLANES = 32  # read at once


class Mirror:
    """An array (z, y, x) that napari slices: cuts along z read the source, all others the copy."""

    ndim = 3

    def __init__(self, source: Any) -> None:
        self.replace(source)

    def replace(self, source: Any) -> None:
        """Another array in place of the one so far."""
        self._source = source
        self._copy: NDArray | None = source if isinstance(source, np.ndarray) else None
        self.shape: tuple[int, ...] = tuple(source.shape)
        self.dtype = np.dtype(source.dtype)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def renew(self, box: tuple[slice, ...] | None = None) -> None:
        """The source changed within `box` (None: anywhere): what is held of it is read again."""
        if self._copy is None or self._copy is self._source:
            return
        cut = (slice(None),) * 3 if box is None else box
        self._copy[cut] = self._source[cut]

    def __getitem__(self, key: Any) -> NDArray:
        first = key[0] if isinstance(key, tuple) else key
        if isinstance(first, (int, np.integer)) and self._copy is None:
            return np.asarray(self._source[key])
        return self._whole()[key]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        whole = self._whole()
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _whole(self) -> NDArray:
        if self._copy is None:
            held = np.empty(self.shape, self.dtype)
            for start in range(0, self.shape[0], _PLANES):
                held[start : start + _PLANES] = self._source[start : start + _PLANES]
            self._copy = held
        return self._copy
