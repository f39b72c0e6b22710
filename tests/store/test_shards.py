"""Our shard encoder against zarr-python's own pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from ctpipe.store.shards import shard_bytes
from ctpipe.words import ZYX


def _by_zarr(voxels: np.ndarray, chunk: ZYX, shard: ZYX, fill: int) -> bytes:
    kept: dict = {}
    blosc = BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=voxels.dtype.itemsize)
    array = zarr.create_array(
        store=zarr.storage.MemoryStore(kept), shape=voxels.shape, dtype=voxels.dtype, chunks=tuple(chunk),
        shards=tuple(shard), compressors=[blosc, Crc32cCodec()], fill_value=fill, config={"write_empty_chunks": True},
    )  # fmt: skip
    array[...] = voxels
    return kept["c/0/0/0"].to_bytes()


@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("shape", "chunk", "shard"),
    [
        ((32, 256, 256), ZYX(16, 128, 128), ZYX(32, 256, 256)),
        ((5, 200, 300), ZYX(16, 128, 128), ZYX(32, 256, 384)),
        ((31, 129, 640), ZYX(16, 128, 128), ZYX(32, 256, 640)),
        ((1, 1, 1), ZYX(4, 128, 128), ZYX(4, 128, 128)),
    ],
)
def test_a_shard_is_zarr_pythons_own_to_the_byte(dtype, shape, chunk, shard):
    """DESIGN 2 "same bytes": an older store and a newer one hold the same files."""
    voxels = np.random.default_rng(1).integers(0, 50, shape).astype(dtype)
    assert shard_bytes(voxels, chunk, shard, 0) == _by_zarr(voxels, chunk, shard, 0)


def test_a_shard_of_nothing_but_air_has_all_its_chunks():
    air = np.full((32, 128, 256), -1024, "int16")
    data = shard_bytes(air, ZYX(16, 128, 128), ZYX(32, 128, 256), -1024)
    assert data == _by_zarr(air, ZYX(16, 128, 128), ZYX(32, 128, 256), -1024)
    assert len(data) > 4 * 16 + 4
