"""Rot: whatever changes on disk after a commit is an error or has no effect; never other voxels."""

from __future__ import annotations

import json
import random
import shutil
from hashlib import sha256

import numpy as np
import pytest
from store_made import ID, hu, store_of, voxels_of

from ctpipe.errors import CtpipeError, StoreFaultError
from ctpipe.store import open_store, verify
from ctpipe.store.commit import sealed

SHAPE = (40, 60, 140)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("rot") / "s", SHAPE).root


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "s")


def flip(path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def read_all(root) -> list[np.ndarray]:
    series = open_store(root)[ID]
    groups = [series, series.labels["truth"], series.labels["beef01"]]
    assert len(series.planes) == SHAPE[0]
    return [voxels_of(group, level.number) for group in groups for level in group.levels]


def test_a_flipped_bit_in_any_shard_is_an_error_on_reading(root, made) -> None:
    """S3: crc32c of the whole file, before anything is decoded."""
    rng = random.Random(20)
    shards = sorted(root.rglob("c/*/0/0"))
    assert len(shards) == 2 * 2 * 3
    for shard in shards:
        for _ in range(4):
            whole = shard.read_bytes()
            flip(shard, rng.randrange(8 * len(whole)))
            with pytest.raises(StoreFaultError, match=r"shard \d \(planes .*CRC-32C"):
                read_all(root)
            shard.write_bytes(whole)
    for found, wanted in zip(read_all(root), read_all(made), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_another_file_after_the_first_read_is_an_error_too(root) -> None:
    """A reader that has seen a good shard does not trust the file for ever."""
    series = open_store(root)[ID]
    series.read_planes(0, 4)
    shard = series.path / "0/c/0/0/0"
    shard.write_bytes((series.path / "0/c/1/0/0").read_bytes())  # every inner checksum in it is right
    with pytest.raises(StoreFaultError, match="were committed"):
        series.read_planes(0, 4)


def test_the_inner_checksum_holds_where_the_stamp_of_the_file_does_not_tell(root) -> None:
    """FACTS 5: blosc alone gives wrong voxels for a flipped bit; a copy tool may keep time and size."""
    import os

    series = open_store(root)[ID]
    series.read_planes(0, 4)
    shard = series.path / "0/c/0/0/0"
    stamp = shard.stat()
    flip(shard, 8 * 500)
    os.utime(shard, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(StoreFaultError, match="cannot be decoded"):
        series.read_planes(0, 32)


def test_a_flipped_digit_or_bit_in_committed_metadata_is_an_error_or_without_effect(root, made) -> None:
    wanted = read_all(made)
    rng = random.Random(21)
    errors = 0
    documents = [root / "ctpipe.json", *(p for p in root.rglob("zarr.json"))]
    assert len(documents) == 1 + 3 + 3 * 2 + 1
    for path in documents:
        whole = path.read_bytes()
        digits = [8 * at for at, byte in enumerate(whole) if byte in b"0123456789"]
        for bit in rng.sample(digits, 4) + [rng.randrange(8 * len(whole)) for _ in range(2)]:
            flip(path, bit)
            try:
                found = read_all(root)
            except StoreFaultError:
                errors += 1
            else:
                assert path == root / f"{ID}.ome.zarr/labels/zarr.json"  # an index for others: decides nothing here
                for have, want in zip(found, wanted, strict=True):
                    np.testing.assert_array_equal(have, want)
            path.write_bytes(whole)
    assert errors >= 6 * (len(documents) - 1) * 0.9


def test_a_missing_shard_is_an_error_through_every_face(root) -> None:
    """S4: plain zarr would read air."""
    (root / f"{ID}.ome.zarr/0/c/1/0/0").unlink()
    series = open_store(root)[ID]
    np.testing.assert_array_equal(series.read_planes(0, 32), hu(SHAPE)[:32])
    with pytest.raises(StoreFaultError, match=r"shard 1 .* is missing"):
        series.read_planes(30, 34)
    with pytest.raises(StoreFaultError, match="is missing"):
        series.hu.values  # noqa: B018
    (root / f"{ID}.ome.zarr/labels/beef01/0/c/0/0/0").unlink()
    with pytest.raises(StoreFaultError, match="is missing"):
        series.labels["beef01"].array.values  # noqa: B018


def test_swapped_or_foreign_parts_are_errors(root) -> None:
    """S3: whole and valid files in the wrong place."""
    group = root / f"{ID}.ome.zarr"
    one, other = group / "0/c/0/0/0", group / "1/c/0/0/0"
    one_bytes = one.read_bytes()
    one.write_bytes(other.read_bytes())
    with pytest.raises(StoreFaultError):
        read_all(root)
    one.write_bytes(one_bytes)
    shutil.copytree(group, root / "0123.ome.zarr")
    with pytest.raises(StoreFaultError, match="another id"):
        open_store(root)["0123"]
    shutil.copytree(group / "labels/beef01", group / "labels/cafe02")
    with pytest.raises(StoreFaultError, match="committed as others"):
        open_store(root)[ID].labels["cafe02"]


def test_a_store_of_a_newer_format_is_refused_with_a_cure(root) -> None:
    """S11."""
    marker = json.loads((root / "ctpipe.json").read_bytes())
    (root / "ctpipe.json").write_bytes(sealed({**marker, "format": 2}))
    with pytest.raises(StoreFaultError, match=r"format 2.*up to 1.*newer ctpipe"):
        open_store(root)


def test_verify_reads_all_and_names_each_fault(root) -> None:
    store = open_store(root)
    whole = verify(store)
    assert (whole["checked"], whole["faults"]) == (12, [])
    assert whole["bytes"] == sum(path.stat().st_size for path in root.rglob("c/*/0/0"))
    group = root / f"{ID}.ome.zarr"
    flip(group / "1/c/1/0/0", 99)
    (group / "labels/truth-aa/0/c/0/0/0").unlink()
    flip(group / "labels/beef01/1/zarr.json", 8 * 300)
    flip(root / f"planes/{ID}.parquet", 800)
    store = open_store(root, mode="a")
    store.write_run("beef01", {"seconds": 5})
    flip(root / "runs/beef01.json", 8 * (root / "runs/beef01.json").read_bytes().index(b"5"))
    seen: list[tuple] = []
    report = verify(open_store(root), progress=lambda *step: seen.append(step))
    assert seen == [("verify", 1, 1)]
    assert {(f["volume"], f["array"], f["shard"]) for f in report["faults"]} == {
        (ID, "1", 1),
        (ID, "labels/truth-aa/0", 0),
        (ID, "labels/beef01/1", None),
        (ID, None, None),
        (None, None, None),
    }
    assert json.loads(json.dumps(report)) == report
    assert any("planes 32-39" in fault["what"] for fault in report["faults"])


def test_verify_names_a_lost_commit_and_a_rotten_one(root) -> None:
    commit = root / f"{ID}.ome.zarr/zarr.json"
    whole = commit.read_bytes()
    flip(commit, 8 * 400)
    assert [fault["volume"] for fault in verify(open_store(root))["faults"]] == [ID]
    commit.unlink()
    assert {fault["what"] for fault in verify(open_store(root))["faults"]} == {
        f"labels {name} are committed, but the volume's own commit is gone" for name in ("beef01", "truth-aa")
    }
    commit.write_bytes(whole)
    assert not verify(open_store(root))["faults"]


def test_other_voxels_under_a_right_checksum_are_found_by_verify(root) -> None:
    """The voxel digests hold across versions of codecs: verify compares them, not the files alone."""
    path = root / f"{ID}.ome.zarr/zarr.json"
    document = json.loads(path.read_bytes())
    shard = document["attributes"]["ctpipe"]["manifest"]["arrays"]["0"]["shards"][1]
    shard["voxels"] = sha256(b"others").hexdigest()
    path.write_bytes(sealed(document, "attributes", "ctpipe"))
    (fault,) = verify(open_store(root))["faults"]
    assert fault["what"].endswith("decodes to other voxels than were committed")


def test_messages_are_one_line_with_a_cure(root) -> None:
    (root / f"{ID}.ome.zarr/0/c/1/0/0").unlink()
    with pytest.raises(CtpipeError) as caught:
        open_store(root)[ID].read_planes(0, 40)
    assert "\n" not in str(caught.value)
    assert "; cure: " in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_grid_that_does_not_match_its_id_is_an_error(root) -> None:
    path = root / f"{ID}.ome.zarr/zarr.json"
    document = json.loads(path.read_bytes())
    document["attributes"]["ctpipe"]["affine"][0][3] += 1
    path.write_bytes(sealed(document, "attributes", "ctpipe"))
    with pytest.raises(StoreFaultError, match="grid"):
        open_store(root)[ID]
