"""One whole shard as bytes: what zarr-python's sharding pipeline writes, to the byte, encoded in the caller's thread.

zarr-python encodes on one event loop: two slabs at once take as long as one after the other, and the loop costs as much
again as the compressor. A slab's task has its voxels in memory and one shard to make, so the chunks are cut, compressed
and put one after another here. A test holds the bytes against zarr-python's own.

Form (Zarr v3 `sharding_indexed`, index at the end): the chunks in Morton order, each blosc, then CRC-32C of that; then
the index, (offset, length) as little-endian uint64 for every chunk in C order, and CRC-32C of the index.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ctpipe.words import ZYX

BLOSC_LEVEL = 1  # zstd with byte shuffle: as small as level 3 with bit shuffle on CT, at twice the speed
_ABSENT = (1 << 64) - 1
_CRC = struct.Struct("<I")


def shard_bytes(voxels: NDArray, chunk: ZYX, shard: ZYX, fill: float) -> bytes:
    """Bytes of a shard of shape `shard` that holds `voxels` (z, y, x) at its origin and `fill` elsewhere.

    Every inner chunk that touches the voxels is written, those of nothing but `fill` too: a missing one could not be
    told from a lost one. Chunks wholly beyond the volume's end are absent.
    """
    import google_crc32c
    import numcodecs.blosc

    numcodecs.blosc.use_threads = False  # with threads of its own it puts blocks down as they finish: other bytes
    codec = numcodecs.blosc.Blosc("zstd", BLOSC_LEVEL, numcodecs.blosc.SHUFFLE, 0, voxels.dtype.itemsize)
    counts = tuple(n // c for n, c in zip(shard, chunk, strict=True))
    index = np.full((*counts, 2), _ABSENT, "<u8")
    buffer = np.empty(chunk, voxels.dtype.newbyteorder("<"))
    parts: list[bytes] = []
    at = 0
    for place in _morton(counts):
        if not _cut(voxels, place, chunk, fill, buffer):
            continue
        packed = codec.encode(buffer)
        parts += (packed, _CRC.pack(google_crc32c.value(packed)))
        index[place] = at, len(packed) + _CRC.size
        at += len(packed) + _CRC.size
    tail = index.tobytes()
    return b"".join((*parts, tail, _CRC.pack(google_crc32c.value(tail))))


def _cut(voxels: NDArray, place: tuple[int, ...], chunk: ZYX, fill: float, out: NDArray) -> bool:
    """The chunk at `place` into `out`, filled up where the volume ends within it; False where it lies beyond."""
    region = tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunk, strict=True))
    part = voxels[region]
    if part.size == 0:
        return False
    if part.shape != out.shape:
        out[...] = fill
    out[tuple(slice(0, n) for n in part.shape)] = part
    return True


@lru_cache(maxsize=64)
def _morton(counts: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """All places of a grid of `counts` chunks in Morton order: by their bits interleaved, first axis lowest."""
    return tuple(sorted(product(*map(range, counts)), key=lambda place: _interleaved(place, counts)))


def _interleaved(place: tuple[int, ...], counts: tuple[int, ...]) -> int:
    code, at = 0, 0
    for bit in range(max(counts).bit_length()):
        for axis, count in enumerate(counts):
            if bit < (count - 1).bit_length():  # an axis of n chunks has only as many bits as n - 1 needs
                code |= (place[axis] >> bit & 1) << at
                at += 1
    return code
