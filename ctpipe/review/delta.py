"""What an edit changed: the voxels that differ, before and after, as few bytes. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.review.boxes import Box, bounds, inside, shape_of

_LEVEL = 3  # zstd


@dataclass(frozen=True, eq=False)
class Delta:
    """Voxels of `box` where `mask` (its shape) is true were `before` and are `after` (1-D, in C order)."""

    box: Box
    mask: NDArray[np.bool_]
    before: NDArray
    after: NDArray

    @classmethod
    def between(cls, box: Box, before: NDArray, after: NDArray) -> Delta | None:
        """From two arrays of the voxels of `box`; the box shrinks to what differs. None where nothing does."""
        mask = before != after
        tight = bounds(mask)
        if tight is None:
            return None
        z, y, x = (slice(b.start + t.start, b.start + t.stop) for b, t in zip(box, tight, strict=True))
        mask = np.ascontiguousarray(mask[tight])
        return cls((z, y, x), mask, before[tight][mask], after[tight][mask])

    @property
    def voxels(self) -> int:
        return len(self.before)

    def put(self, labels: NDArray, undo: bool = False) -> None:
        """Write the voxels after the edit (undo: before it) into the volume (z, y, x)."""
        labels[self.box][self.mask] = self.before if undo else self.after

    def into(self, cut: NDArray, outer: Box, undo: bool = False) -> None:
        """The same for an array that is cut out of the volume as `outer`."""
        cut[inside(self.box, outer)][self.mask] = self.before if undo else self.after

    def facts(self) -> dict[str, Any]:
        """What `from_bytes` needs beside the bytes, JSON-plain."""
        return {"box": [[s.start, s.stop] for s in self.box], "dtype": _little(self.before).str, "voxels": self.voxels}

    def to_bytes(self) -> bytes:
        """Mask as bits, then values before, then values after, compressed."""
        from numcodecs.zstd import Zstd

        parts = [np.packbits(self.mask).tobytes()]
        parts += [values.astype(_little(values), copy=False).tobytes() for values in (self.before, self.after)]
        return bytes(Zstd(level=_LEVEL).encode(b"".join(parts)))

    @classmethod
    def from_bytes(cls, facts: dict[str, Any], data: bytes) -> Delta:
        """Raises ValueError, KeyError or RuntimeError for bytes that are not of such a delta."""
        from numcodecs.zstd import Zstd

        z, y, x = (slice(int(start), int(stop)) for start, stop in facts["box"])
        shape = shape_of((z, y, x))
        plain = bytes(Zstd().decode(data))
        n_bits = -(-int(np.prod(shape)) // 8)
        values = np.frombuffer(plain, np.dtype(facts["dtype"]), offset=n_bits)
        mask = np.unpackbits(np.frombuffer(plain, np.uint8, n_bits), count=int(np.prod(shape))).view(bool)
        n_vox = int(facts["voxels"])
        if len(values) != 2 * n_vox or int(mask.sum()) != n_vox:
            raise ValueError("a delta of another size than it states")
        return cls((z, y, x), mask.reshape(shape), values[:n_vox], values[n_vox:])


def _little(values: NDArray) -> np.dtype:
    return values.dtype.newbyteorder("<")
