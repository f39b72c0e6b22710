"""gc takes what was never committed and has no living writer; rm reaches all that is derived."""

from __future__ import annotations

import subprocess
import sys

import pytest
from store_made import ID, fill, grid, hu, labels, labels_meta, put, same_bytes, store_of, volume_meta

from ctpipe.errors import NotThereError, StoreBusyError, UsageError
from ctpipe.store import collect_garbage, open_store, remove
from ctpipe.store.verdicts import read_verdicts

SHAPE = (40, 20, 20)


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "s", SHAPE)


def litter(store) -> list[str]:
    """An unfinished volume, unfinished labels, side files, a plane table of nothing, a dead lease."""
    other = store.volume_writer(volume_meta(grid(SHAPE), series_id="0123"))
    fill(other, hu(SHAPE))
    target = store.labels_writer(ID, labels_meta(grid(SHAPE), "cafe02"))
    target.prepare()
    target.write_slab(target.slabs[0], labels(SHAPE)[:32])
    stray = [
        f"{ID}.ome.zarr/0/c/0/0/0.ab.partial",
        f"{ID}.ome.zarr/labels/zarr.json.ab.partial",
        f"{ID}.ome.zarr/labels/beef01/zarr.json.ab.partial",
        f"planes/{ID}.parquet.ab.partial",
        "planes/4567.parquet",
        "leases/x-image.json.ab.partial",
    ]
    for name in stray:
        (store.root / name).write_bytes(b"x")
    kill = "import sys, os\nfrom pathlib import Path\nfrom ctpipe.store.leases import Lease\n"
    kill += "Lease(Path(sys.argv[1]), 'dead.ome.zarr').__enter__(); os._exit(0)"
    subprocess.run([sys.executable, "-c", kill, str(store.root)], check=True)
    return sorted([*stray, "0123.ome.zarr", f"{ID}.ome.zarr/labels/cafe02", "leases/dead-image.json"])


def test_gc_removes_exactly_what_no_commit_reaches(store) -> None:
    before = same_bytes(store.root)
    for name in ("reviews/r1", "models/m", "tables/t", "runs"):
        (store.root / name).mkdir(parents=True)
        (store.root / name / "kept.partial").write_bytes(b"x")
    wanted = litter(store)
    assert collect_garbage(open_store(store.root), dry_run=True) == wanted
    assert (store.root / "0123.ome.zarr").exists()
    assert collect_garbage(store) == wanted
    assert same_bytes(store.root) == before
    assert collect_garbage(store) == []
    assert len(list(store.root.rglob("kept.partial"))) == 4
    with pytest.raises(UsageError, match="open for reading"):
        collect_garbage(open_store(store.root))


def test_gc_leaves_a_living_writer_alone(store) -> None:
    """S12: whoever holds a lease is at work, however long it takes."""
    target = store.labels_writer(ID, labels_meta(grid(SHAPE), "cafe02"))
    with store.lease(target.target) as lease:
        records = fill(target, labels(SHAPE))
        side = target.path / "0/c/0/0/0.ab.partial"
        side.write_bytes(b"x")
        assert collect_garbage(store, dry_run=True) == []
        assert collect_garbage(store) == []
        assert side.exists()
        target.commit(records, lease)
    assert "cafe02" in store[ID].labels


def test_gc_keeps_a_volume_whose_commit_was_lost(store) -> None:
    (store[ID].path / "zarr.json").unlink()
    assert collect_garbage(store) == []
    assert (store.root / f"{ID}.ome.zarr/labels/beef01/zarr.json").exists()


def test_removing_a_volume_reaches_all_that_is_derived_from_it(store) -> None:
    """P6."""
    store.write_run("beef01", {"seconds": 1})
    store.write_run("dead99", {"series": [ID]})
    store.write_run("other", {"series": ["0123"]})
    (store.root / f"reviews/{ID}-session").mkdir(parents=True)
    (store.root / f"reviews/{ID}-session/stroke").write_bytes(b"x")
    told = [{"series": "u-aa", "verdict": "accept", "reason": "", "detail": "", "cure": "", "files": 3, "id": volume}
            for volume in (ID, None)]  # fmt: skip
    store.write_verdicts([*told, {**told[0], "series": "u-bb", "id": "0123"}])
    (store.root / "index.sqlite").write_bytes(b"u-aa")
    for name, content in (("mine", f'{{"sources": ["{ID}"]}}'), ("others", '{"sources": ["0123"]}')):
        (store.root / "tables" / name).mkdir(parents=True)
        (store.root / "tables" / name / "table.json").write_text(content)
    removed = remove(store, ID[:6])
    assert f"{ID}.ome.zarr" in removed
    assert [path.name for path in (store.root / "tables").iterdir()] == ["others"]
    assert list(read_verdicts(store.root)["series"]) == ["u-bb"]
    assert list(store) == []
    assert list(store.runs()) == ["other"]
    left = [str(path) for path in store.root.rglob("*") if ID in path.name]
    assert left == []
    texts = (ID.encode(), b"u-aa")
    assert not any(text in path.read_bytes() for text in texts for path in store.root.rglob("*") if path.is_file())


def test_removing_a_run_takes_its_labels_and_its_record_only(store) -> None:
    store.write_run("beef01", {"seconds": 1})
    assert remove(store, "bee") == [f"{ID}.ome.zarr/labels/beef01", "runs/beef01.json"]
    assert list(store[ID].labels) == ["truth-aa"]
    assert b"beef01" not in (store[ID].path / "labels/zarr.json").read_bytes()
    put(store, store.labels_writer(ID, labels_meta(grid(SHAPE))), labels(SHAPE))  # and it can be made again
    assert "beef01" in store[ID].labels
    with pytest.raises(NotThereError, match="no volume or run"):
        remove(store, "77")


def test_what_is_being_written_is_not_removed(store) -> None:
    with store.lease(f"{ID}.ome.zarr/labels/beef01"), pytest.raises(StoreBusyError):
        remove(store, ID)
    assert "beef01" in store[ID].labels
