"""Arrays of the store: the zarr.json of a level, and one whole shard to bytes and back.

Shards are encoded (shards.py) and decoded (zarr-python) in memory and travel as whole files (files.py): what is
checked is what is decoded, and no two tasks can write into one shard. Blosc alone reads a flipped bit as wrong voxels,
silently: crc32c comes after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.store.layout import chunk_shape, shard_file, shard_shape
from ctpipe.store.shards import BLOSC_LEVEL, shard_bytes
from ctpipe.volume import Level, Slab
from ctpipe.words import ZYX

if TYPE_CHECKING:
    import zarr

_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"


def array_document(level: Level, dtype: str, fill: int) -> bytes:
    """zarr.json of the array of one level; the same bytes each time with one zarr version."""
    return _document(tuple(level.grid.shape), chunk_shape(level), shard_shape(level), dtype, fill)


@lru_cache(maxsize=256)
def _document(shape: tuple[int, ...], chunk: ZYX, shard: ZYX, dtype: str, fill: int) -> bytes:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    kept: dict[str, Any] = {}
    blosc = BloscCodec(cname="zstd", clevel=BLOSC_LEVEL, shuffle="shuffle", typesize=np.dtype(dtype).itemsize)
    zarr.create_array(
        store=zarr.storage.MemoryStore(kept),
        shape=shape,
        dtype=dtype,
        chunks=tuple(chunk),
        shards=tuple(shard),
        compressors=[blosc, Crc32cCodec()],
        fill_value=fill,
        dimension_names=["z", "y", "x"],
    )
    return kept["zarr.json"].to_bytes()


def encode_shard(document: bytes, slab: Slab, voxels: NDArray) -> bytes:
    """Bytes of the shard that holds `slab` (of the array's own level), every inner chunk written, empty ones too."""
    chunk, shard, fill = _layout(document)
    return shard_bytes(voxels, chunk, shard, fill)


@lru_cache(maxsize=256)
def _layout(document: bytes) -> tuple[ZYX, ZYX, float]:
    """(inner chunk, shard, fill value) that a zarr.json of ours states."""
    stated = json.loads(document)
    (sharding,) = stated["codecs"]
    shard = stated["chunk_grid"]["configuration"]["chunk_shape"]
    return ZYX(*sharding["configuration"]["chunk_shape"]), ZYX(*shard), stated["fill_value"]


def decode_shard(document: bytes, index: int, data: bytes, region: tuple[slice, slice, slice]) -> NDArray:
    """Voxels of `region` (of the whole array, within one shard) from the shard's bytes. Raises what zarr raises."""
    with _own_pipeline():
        array = _in_memory(document, {shard_file(index): data})
        return np.asarray(array[region])


def open_local(path: str) -> zarr.Array:
    """The array as zarr opens it from a local folder, read only."""
    import zarr

    with _own_pipeline():
        return zarr.open_array(store=path, mode="r", zarr_format=3)


def read_local(array: zarr.Array, region: tuple[slice, slice, slice]) -> NDArray:
    """Voxels of `region` of an array of `open_local`: only the chunks that it touches are read."""
    with _own_pipeline():
        return np.asarray(array[region])


def array_fill(document: bytes) -> float:
    """fill_value that a zarr.json states."""
    return json.loads(document)["fill_value"]


def _in_memory(document: bytes, files: dict[str, bytes]) -> zarr.Array:
    import zarr
    from zarr.core.buffer import default_buffer_prototype

    wrap = default_buffer_prototype().buffer.from_bytes
    kept: dict[str, Any] = {name: wrap(data) for name, data in {"zarr.json": document, **files}.items()}
    return zarr.open_array(store=zarr.storage.MemoryStore(kept), mode="r", zarr_format=3)


@contextmanager
def _own_pipeline() -> Iterator[None]:
    """zarr-python's pipeline whatever the user set: zarrs orders the chunks of a shard differently from run to run.

    Sharding asks for its inner pipeline when it encodes, so the whole of a read or write stands under this.
    Blosc with threads of its own puts blocks into the output as they finish: one thread, so that bytes are the same.
    """
    import numcodecs.blosc
    import zarr

    numcodecs.blosc.use_threads = False
    if zarr.config.get("codec_pipeline.path") == _PIPELINE:
        yield
    else:
        with zarr.config.set({"codec_pipeline.path": _PIPELINE}):
            yield
