"""Single bits that flip on the disk: each one found by verify, none read as other voxels (S3); shards cut, swapped,
deleted (S4). Bytes are changed on the disk, never through a library that would write a new checksum."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from seeds import seeded
from store_made import ID, grid, labels, labels_meta, put, store_of, voxels_of

from ctpipe.errors import StoreFaultError
from ctpipe.store import Series, Store, open_store, verify

SHAPE = (40, 36, 140)  # two slabs, two levels, two inner chunks a plane
FLIPS = 200

Read = tuple[str, Callable[[Series], NDArray]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = store_of(tmp_path_factory.mktemp("flips") / "s", SHAPE, with_labels=False)
    put(made, made.labels_writer(ID, labels_meta(grid(SHAPE))), labels(SHAPE))
    return made


@pytest.fixture(scope="module")
def shards(store: Store) -> list[Path]:
    found = sorted(store.root.rglob("c/*/0/0"))
    assert len(found) == 2 * 2 * 2  # slabs, levels, image and labels
    return found


def faces(series: Series) -> Iterator[Read]:
    """(array that is read, how) for every face that gives voxels."""
    yield "0", lambda s: s.hu.values
    yield "0", lambda s: s.read_planes(30, 34)  # of both slabs
    for level in series.levels:
        yield str(level.number), lambda s, n=level.number: voxels_of(s, n)
    for name in series.labels:
        yield f"labels/{name}/0", lambda s, name=name: s.labels[name].array.values
        for level in series.levels:
            yield f"labels/{name}/{level.number}", lambda s, name=name, n=level.number: voxels_of(s.labels[name], n)


@pytest.fixture(scope="module")
def truth(store: Store) -> list[NDArray]:
    return [read(store[ID]) for _, read in faces(store[ID])]


@contextmanager
def other_bytes(path: Path, data: bytes | None, *, same_stamp: bool = False) -> Iterator[None]:
    """`path` holds `data` for the time of the block (None: it is gone); with `same_stamp` its time tells nothing."""
    whole, stamp = path.read_bytes(), path.stat()
    if data is None:
        path.unlink()
    else:
        with path.open("r+b") as file:  # the same inode, as rot has it
            file.write(data)
            file.truncate(len(data))
    if same_stamp:
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def whose(store: Store, shard: Path) -> tuple[str, int]:
    """(array, slab index) of a shard file."""
    array, _, rest = str(shard.relative_to(store[ID].path)).partition("/c/")
    return array, int(rest.split("/")[0])


def reads(series: Series, truth: list[NDArray], array: str) -> tuple[int, int]:
    """(reads that were refused, reads that gave other voxels without a word) over all faces that read `array`."""
    refused = silent = 0
    for (name, read), wanted in zip(faces(series), truth, strict=True):
        if name != array:
            continue
        try:
            silent += not np.array_equal(read(series), wanted)
        except StoreFaultError:
            refused += 1
    return refused, silent


def verified(store: Store) -> list[tuple[Any, ...]]:
    return [(f["volume"], f["array"], f["shard"]) for f in verify(open_store(store.root))["faults"]]


def test_each_flipped_bit_is_found_by_verify_and_never_read(store, shards, truth) -> None:
    """S3: uniform over all bytes of all shards, their inner indexes and checksums included."""
    rng = seeded(31)
    sizes = [path.stat().st_size for path in shards]
    for shard in rng.choices(shards, sizes, k=FLIPS):
        whole = shard.read_bytes()
        array, index = whose(store, shard)
        with other_bytes(shard, flipped(whole, rng.randrange(8 * len(whole)))):
            assert verified(store) == [(ID, array, index)]
            refused, silent = reads(open_store(store.root)[ID], truth, array)
            assert (refused > 0, silent) == (True, 0)
    assert verified(store) == []


def test_a_reader_that_saw_the_shard_whole_reads_no_flipped_bit_either(store, shards, truth) -> None:
    """S3: nothing tells that the file changed: time, size and inode are as they were, the inner checksums must do."""
    rng = seeded(32)
    series = store[ID]
    trusted = [reads(series, truth, array) for array in dict(faces(series))]  # from here on, what it has seen whole
    assert set(trusted) == {(0, 0)}
    refused = 0
    for shard in rng.choices(shards, [path.stat().st_size for path in shards], k=FLIPS // 4):
        whole = shard.read_bytes()
        with other_bytes(shard, flipped(whole, rng.randrange(8 * len(whole))), same_stamp=True):
            found, silent = reads(series, truth, whose(store, shard)[0])
            refused += found > 0
            assert silent == 0
    assert refused > FLIPS // 4 * 0.9  # all but bits that no read needs
    assert {reads(series, truth, array) for array in dict(faces(series))} == {(0, 0)}


def test_a_shard_that_is_cut_grown_swapped_emptied_or_gone_is_found_and_never_read(store, shards, truth) -> None:
    """S3, S4."""
    rng = seeded(33)
    for shard in shards:
        whole = shard.read_bytes()
        array, index = whose(store, shard)
        other = rng.choice([path for path in shards if path.read_bytes() != whole])
        bad = [None, b"", whole[:-1], whole[: rng.randrange(1, len(whole))], whole + b"\0", whole[1:] + b"\0",
               bytes(len(whole)), other.read_bytes(), (other.read_bytes() * 9)[: len(whole)]]  # fmt: skip
        for data in bad:
            with other_bytes(shard, data):
                assert verified(store) == [(ID, array, index)]
                refused, silent = reads(open_store(store.root)[ID], truth, array)
                assert (refused > 0, silent) == (True, 0)
    assert verified(store) == []


def test_two_slabs_that_changed_places_are_both_found(store, truth) -> None:
    """S3: every byte and every inner checksum is right, only the place is wrong."""
    one, two = (store[ID].path / f"0/c/{index}/0/0" for index in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    with other_bytes(one, second), other_bytes(two, first):
        assert verified(store) == [(ID, "0", 0), (ID, "0", 1)]
        assert reads(open_store(store.root)[ID], truth, "0")[1] == 0
