"""Commits: canonical JSON, the digest that seals a document, and the records that a manifest is made of."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ctpipe.errors import StoreFaultError
from ctpipe.store import files
from ctpipe.store.layout import FORMAT, shard_file

CURE = "run ctpipe verify; restore the file from a backup, or remove the object and make it again"


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One shard file: its size in bytes, CRC-32C of the file (8 hex), SHA-256 of the voxels (voxel_digest)."""

    size: int
    crc32c: str
    voxels: str


@dataclass(frozen=True, slots=True)
class SlabRecord:
    """What writing one slab left behind: a shard of every level. Small, picklable, JSON-able."""

    index: int
    start: int
    stop: int
    shards: tuple[ShardRecord, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stated: dict[str, Any]) -> SlabRecord:
        shards = tuple(ShardRecord(**shard) for shard in stated["shards"])
        return cls(stated["index"], stated["start"], stated["stop"], shards)


def shard_record(data: bytes, voxels: NDArray) -> ShardRecord:
    """Record of a shard file's bytes and the voxels in them."""
    return ShardRecord(len(data), crc32c(data), voxel_digest(voxels))


def crc32c(data: bytes) -> str:
    """CRC-32C of a whole file, 8 hex digits."""
    import google_crc32c

    return f"{google_crc32c.value(data):08x}"


def voxel_digest(voxels: NDArray) -> str:
    """SHA-256 of voxels as little-endian bytes in (z, y, x) order."""
    plain = voxels.astype(voxels.dtype.newbyteorder("<"), order="C", copy=False)
    return sha256(plain.data).hexdigest()


def content_digest(dtype: str, shape: Sequence[int], records: Sequence[SlabRecord]) -> str:
    """32 hex digits over the voxels of level 0: equal content, equal voxels, whatever the source files were."""
    stated = [dtype, list(shape), [record.shards[0].voxels for record in records]]
    return sha256(canonical(stated)).hexdigest()[:32]


def manifest_arrays(documents: Sequence[bytes], records: Sequence[SlabRecord]) -> dict[str, Any]:
    """{"0": {"zarr_json": sha256, "shards": [{file, size, crc32c, voxels}]}}, a level each."""
    return {
        str(number): {
            "zarr_json": sha256(document).hexdigest(),
            "shards": [{"file": shard_file(r.index), **asdict(r.shards[number])} for r in records],
        }
        for number, document in enumerate(documents)
    }


def canonical(document: Any) -> bytes:
    """The one spelling of a JSON document: sorted keys, no spaces, UTF-8, floats as they round-trip."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sealed(document: dict[str, Any], *holder: str) -> bytes:
    """File bytes of `document` with its own SHA-256 put in as `digest` of the dict that `holder` leads to."""
    document = copy.deepcopy(document)
    inner = _inner(document, holder)
    inner.pop("digest", None)
    inner["digest"] = sha256(canonical(document)).hexdigest()
    text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def unsealed(data: bytes, what: str, *holder: str) -> dict[str, Any]:
    """The document in sealed bytes; StoreFaultError where anything in it changed, or its format is newer than ours."""
    try:
        document = json.loads(data)
        inner = _inner(document, holder)
        stated_format, stated = inner["format"], inner.pop("digest")
        whole = sha256(canonical(document)).hexdigest() == stated
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreFaultError(f"the metadata of {what} is not readable", CURE) from error
    if isinstance(stated_format, int) and stated_format > FORMAT:
        problem = f"{what} has format {stated_format}, this ctpipe reads up to {FORMAT}"
        raise StoreFaultError(problem, "install a newer ctpipe; if the number is wrong, restore the file")
    if not whole or stated_format != FORMAT:
        raise StoreFaultError(f"the metadata of {what} changed after its commit", CURE)
    return document


def read_sealed(path: Path, what: str, *holder: str) -> dict[str, Any] | None:
    """`unsealed` of a file; None where there is none."""
    data = files.read(path)
    return None if data is None else unsealed(data, what, *holder)


def _inner(document: dict[str, Any], holder: Sequence[str]) -> dict[str, Any]:
    for key in holder:
        document = document[key]
    return document


def stated_dtype(document: bytes, what: str) -> str:
    """data_type in an array's zarr.json; StoreFaultError where it cannot be read."""
    try:
        return str(json.loads(document)["data_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreFaultError(f"zarr.json of {what} is not readable", CURE) from error
