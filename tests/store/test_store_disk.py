"""Disks that fail: full, read-only, unable to sync. Told plainly, old data untouched, resumed when there is space."""

from __future__ import annotations

import errno
import os
import stat
import subprocess

import pytest
from store_made import ID, fill, grid, hu, labels, labels_meta, planes, put, same_bytes, store_of, volume_meta

from ctpipe.errors import BudgetError, CtpipeError, StoreFaultError, UsageError
from ctpipe.store import collect_garbage, files, open_store, verify

SHAPE = (33, 20, 20)


class FailingSync:
    """fsync that fails once, at call `at`, with `number`; counts calls."""

    def __init__(self, at: int, number: int) -> None:
        self.at, self.number, self.calls, self.failed = at, number, 0, 0

    def __call__(self, descriptor: int) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.failed += 1
            raise OSError(self.number, os.strerror(self.number))
        os.fsync(descriptor)


def write_all(path) -> None:
    store = open_store(path, mode="a")
    writer = store.volume_writer(volume_meta(grid(SHAPE)))
    if not writer.committed:
        put(store, writer, hu(SHAPE), planes(SHAPE[0]))
    target = store.labels_writer(ID, labels_meta(grid(SHAPE)))
    if not target.committed:
        put(store, target, labels(SHAPE))


def test_every_failed_write_is_told_and_the_next_try_ends_the_job(tmp_path, monkeypatch) -> None:
    """S5, S6: each sync of the job fails once; ENOSPC is a BudgetError, EIO a fault; the bytes come out equal."""
    write_all(tmp_path / "straight")
    wanted = same_bytes(tmp_path / "straight")
    count = FailingSync(0, 0)
    monkeypatch.setattr(files, "sync", count)
    write_all(tmp_path / "count")
    for at in range(1, count.calls + 1):
        path = tmp_path / f"at{at}"
        full = bool(at % 4)
        shim = FailingSync(at, errno.ENOSPC if full else errno.EIO)
        monkeypatch.setattr(files, "sync", shim)
        errors = []
        try:
            write_all(path)
        except CtpipeError as error:
            errors.append(error)
        assert all(type(error) is (BudgetError if full else StoreFaultError) for error in errors), at
        assert all(("disk is full" if full else "Input/output error") in str(error) for error in errors), at
        assert shim.failed == 1, at
        write_all(path)
        assert same_bytes(path) == wanted, at


def test_a_failed_write_leaves_the_old_file_and_no_side_file(tmp_path, monkeypatch) -> None:
    files.write_atomic(tmp_path / "a", b"old")
    for name in ("sync", "os.replace"):
        with monkeypatch.context() as patch:
            target, attribute = (files, "sync") if name == "sync" else (os, "replace")

            def fail(*_: object) -> None:
                raise OSError(errno.EDQUOT, "quota")

            patch.setattr(target, attribute, fail)
            with pytest.raises(BudgetError):
                files.write_atomic(tmp_path / "a", b"new")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_bytes() == b"old"


def test_a_file_is_synced_before_its_name_and_the_name_after(tmp_path, monkeypatch) -> None:
    """S1: what `write_atomic` put there survives a power cut."""
    steps = []
    replace = os.replace

    def sync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def rename(*names: object) -> None:
        steps.append("rename")
        replace(*names)

    monkeypatch.setattr(files, "sync", sync)
    monkeypatch.setattr(os, "replace", rename)
    files.write_atomic(tmp_path / "new" / "a", b"x")
    assert steps == ["folder", "file", "rename", "folder"]


def test_the_commit_is_the_last_thing_written(tmp_path, monkeypatch) -> None:
    """DESIGN 1, rule 5."""
    written = []
    write = files.write_atomic

    def recorded(path, data, **how) -> bool:
        if "leases" not in path.parts:
            written.append(str(path.relative_to(tmp_path / "s")))
        return write(path, data, **how)

    monkeypatch.setattr(files, "write_atomic", recorded)
    write_all(tmp_path / "s")
    volume, group = f"{ID}.ome.zarr", f"{ID}.ome.zarr/labels/beef01"
    assert written == [
        "ctpipe.json",
        *(f"{volume}/0/{name}" for name in ("zarr.json", "c/0/0/0", "c/1/0/0")),
        f"planes/{ID}.parquet",
        f"{volume}/zarr.json",
        *(f"{group}/0/{name}" for name in ("zarr.json", "c/0/0/0", "c/1/0/0")),
        f"{group}/zarr.json",
        f"{volume}/labels/zarr.json",
    ]


def test_a_folder_that_may_not_be_written_is_a_plain_error(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(files, "sync", refuse)
    with pytest.raises(UsageError, match="Read-only file system"):
        open_store(tmp_path / "s", mode="a")


def test_an_exclusive_write_lets_the_first_one_stand(tmp_path) -> None:
    assert files.write_atomic(tmp_path / "a", b"first", exclusive=True)
    assert not files.write_atomic(tmp_path / "a", b"second", exclusive=True)
    assert (tmp_path / "a").read_bytes() == b"first"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full_for_real(small_disk, tmp_path) -> None:
    """S5: exit 4, what was committed stays whole, and the job ends once there is space."""
    store = store_of(small_disk / "s", (8, 60, 140), with_labels=False)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 300_000)
    shape = (70, 150, 140)
    writer = store.volume_writer(volume_meta(grid(shape), series_id="0123"))
    with pytest.raises(BudgetError, match=r"disk is full: \d+\.\d+ MB wanted for .*, \d+\.\d+ MB free") as caught:
        with store.lease(writer.target) as lease:
            writer.commit(fill(writer, hu(shape)), lease)
    assert caught.value.exit_code == 4
    assert not list((small_disk / "s").rglob("*.partial"))
    assert list(store) == [ID]
    assert verify(store)["faults"] == []
    with pytest.raises(CtpipeError):
        store_of(small_disk / "s2", shape)
    assert collect_garbage(store) == ["0123.ome.zarr"]
    ballast.unlink()
    put(store, store.labels_writer(ID, labels_meta(grid((8, 60, 140)))), labels((8, 60, 140)))
    assert verify(store)["faults"] == []
