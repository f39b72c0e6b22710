"""A disk that fills up at any moment of an ingest: one clear line, old data untouched, and the next call ends the job.

Twice over: a real file system that has room for so many more pages, or files, and no more; and every call that writes,
from the first to the last, told that the disk is full.
"""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_made import same_bytes

from ctpipe.cli import main
from ctpipe.dicom import write_ct_series, write_mask_series
from ctpipe.store import files, open_store, verify
from ctpipe.volume import Grid

SHAPE = (5, 24, 28)  # one slab: every file costs a few calls more, and every call a run
PAGE = 4096


@dataclass(frozen=True)
class Job:
    """base: a store with one volume. arguments: of an ingest that adds another, with labels. straight: what comes."""

    base: Path
    arguments: tuple[str, ...]
    old: dict[str, str]
    straight: dict[str, str]

    def run(self, store: Path) -> int:
        return main(["ingest", *self.arguments, "--store", str(store)])


def _patient(folder: Path, number: int) -> tuple[Path, Path]:
    rng = np.random.default_rng(number)
    grid = Grid.from_affine(SHAPE, np.diag([2.0, 1.5, 1.5, 1.0]))
    names = {"patient": f"SYN{number}", "study_key": f"study-{number}"}
    hu = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
    write_ct_series(folder / f"p{number}" / "CT", hu, grid, **names)
    return folder / f"p{number}" / "CT", write_mask_series(folder / f"p{number}", {"liver": hu > 0}, grid, **names)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("full")
    (first, _), (second, masks) = (_patient(folder, number) for number in (1, 2))
    assert main(["ingest", str(first), "--store", str(folder / "base")]) == 0
    arguments = (str(second), "--labels", str(masks), "--classes", "liver=1")
    shutil.copytree(folder / "base", folder / "straight")
    job = Job(folder / "base", arguments, same_bytes(folder / "base"), {})
    assert job.run(folder / "straight") == 0
    return Job(job.base, arguments, job.old, same_bytes(folder / "straight"))


def _told_plainly(code: int, told: str, at: object) -> None:
    lines = [line for line in told.splitlines() if line.startswith("ctpipe:")]
    assert code == 4, (at, told)
    assert len(lines) == 1, (at, told)
    assert "disk" in lines[0], (at, told)
    assert "; cure: " in lines[0], (at, told)


def _old_data_is_untouched(job: Job, store: Path, at: object) -> None:
    found = same_bytes(store)
    assert {name: found.get(name) for name in job.old} == job.old, at
    faults = [fault["what"] for fault in verify(open_store(store))["faults"]]
    # between a commit of labels and their index: nothing is lost, and whoever writes next mends it
    assert set(faults) <= {"the index of labels does not list what is committed"}, at
    commits = [name for name in found if name.endswith(".ome.zarr/zarr.json") or _is_commit_of_labels(name)]
    assert {name: found[name] for name in commits} == {name: job.straight[name] for name in commits}, at


def _is_commit_of_labels(name: str) -> bool:
    parts = Path(name).parts
    return len(parts) == 4 and parts[1] == "labels" and parts[3] == "zarr.json"


# ------------------------------------------------------------------------------------------- every call that writes
class FullAt:
    """Counts the calls that write; the one numbered `at`, and `after` more of them, fail as on a full disk."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, lasting: bool) -> None:
        self.at, self.lasting, self.calls, self.failed = at, lasting, 0, []
        for name in ("fsync", "replace", "link", "mkdir"):
            patch.setattr(os, name, self._told(name, getattr(os, name)))
        patch.setattr(os, "open", self._creating(os.open))
        patch.setattr(files, "open", self._opening, raising=False)
        plain = sqlite3.connect

        def connect(*args: Any, factory: type[sqlite3.Connection] = sqlite3.Connection, **named: Any) -> Any:
            return plain(*args, factory=self._connection(factory), **named)

        patch.setattr(sqlite3, "connect", connect)

    def count(self, name: str, error: Exception) -> None:
        self.calls += 1
        if self.calls == self.at or (self.lasting and self.calls > self.at > 0):
            self.failed.append(name)
            raise error

    def _full(self) -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _told(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **named: Any) -> Any:
            self.count(name, self._full())
            return call(*args, **named)

        return told

    def _creating(self, call: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *args: Any, **named: Any) -> int:
            if flags & os.O_CREAT and not os.path.exists(path):
                self.count("os.open", self._full())
            return call(path, flags, *args, **named)

        return opened

    def _opening(self, path: Path, mode: str) -> Any:
        self.count("open", self._full())
        stream = builtins.open(path, mode)  # noqa: SIM115 - closed by the one that is given
        shim = self

        class Stream:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                stream.close()

            def write(self, data: bytes) -> None:
                half = len(data) // 2
                stream.write(data[:half])  # a disk fills up in the middle of a file
                shim.count("write", shim._full())
                stream.write(data[half:])

            def flush(self) -> None:
                shim.count("flush", shim._full())
                stream.flush()

            def fileno(self) -> int:
                return stream.fileno()

        return Stream()

    def _connection(self, given: type[sqlite3.Connection]) -> type[sqlite3.Connection]:
        """As `given`, on top of one that fails: what `given` makes of the failure is seen."""
        shim = self

        def full() -> sqlite3.OperationalError:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            return error

        class Failing(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                if sql.split()[0] in ("insert", "update", "delete", "create"):
                    shim.count("sqlite execute", full())
                return super().execute(sql, *args)

            def executemany(self, *args: Any) -> sqlite3.Cursor:
                shim.count("sqlite executemany", full())
                return super().executemany(*args)

            def executescript(self, *args: Any) -> sqlite3.Cursor:
                shim.count("sqlite script", full())
                return super().executescript(*args)

            def commit(self) -> None:
                shim.count("sqlite commit", full())
                super().commit()

        bases = (Failing,) if given is sqlite3.Connection else (given, Failing)
        return type("Connection", bases, {})


def _calls(job: Job, store: Path) -> int:
    shutil.copytree(job.base, store)
    with pytest.MonkeyPatch.context() as patch:
        count = FullAt(patch, 0, lasting=False)
        assert job.run(store) == 0
    shutil.rmtree(store)
    return count.calls


def _fail_at(job: Job, store: Path, at: int, lasting: bool, told: pytest.CaptureFixture[str]) -> str:
    """Which call failed."""
    shutil.copytree(job.base, store)
    told.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        shim = FullAt(patch, at, lasting)
        code = job.run(store)
    assert shim.failed, at
    if code == 0:  # what a release of a lease, or a cache, lacks space for costs nothing
        assert same_bytes(store) == job.straight, (at, shim.failed)
    else:
        _told_plainly(code, told.readouterr().err, (at, shim.failed))
    _old_data_is_untouched(job, store, (at, shim.failed))
    assert job.run(store) == 0, (at, shim.failed)
    assert same_bytes(store) == job.straight, (at, shim.failed)
    assert not list(store.glob("*.ome.zarr/**/*.partial")), (at, shim.failed)
    shutil.rmtree(store)
    return shim.failed[0]


def test_a_disk_that_is_full_at_some_calls(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S5: every thirteenth of the calls that write, once."""
    n_calls = _calls(job, tmp_path / "count")
    for at in range(1, n_calls + 1, 13):
        _fail_at(job, tmp_path / f"at-{at}", at, False, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [False, True], ids=["for one call", "from that call on"])
def test_a_disk_that_is_full_at_any_call(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], lasting: bool
) -> None:
    """S5: every call that writes, of every kind."""
    n_calls = _calls(job, tmp_path / "count")
    kinds = {_fail_at(job, tmp_path / f"at-{at}", at, lasting, capsys) for at in range(1, n_calls + 1)}
    assert kinds >= {"fsync", "replace", "link", "mkdir", "open", "write", "flush", "sqlite executemany",
                     "sqlite execute", "sqlite script", "sqlite commit"}  # fmt: skip


# ------------------------------------------------------------------------------------------- a disk of its own
@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, of a size that can be changed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _room(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True, capture_output=True)


def _used(disk: Path, what: str) -> int:
    status = os.statvfs(disk)
    if what == "pages":
        return (status.f_blocks - status.f_bfree) * status.f_frsize // PAGE
    return status.f_files - status.f_ffree


def _fill_up(job: Job, disk: Path, what: str, step: int, told: pytest.CaptureFixture[str]) -> int:
    """How many sizes of the disk were too small for the job."""
    for number in range(10_000):
        store = disk / "store"
        _room(disk, "size=64m,nr_inodes=100000")
        shutil.copytree(job.base, store)
        free = number * step
        limit = _used(disk, what) + free
        _room(disk, f"size={limit * PAGE}" if what == "pages" else f"nr_inodes={limit}")
        told.readouterr()
        code = job.run(store)
        if code == 0:
            assert same_bytes(store) == job.straight
            return number
        _told_plainly(code, told.readouterr().err, f"{free} {what} free")
        _old_data_is_untouched(job, store, f"{free} {what} free")
        _room(disk, "size=64m,nr_inodes=100000")
        assert job.run(store) == 0
        assert same_bytes(store) == job.straight, f"{free} {what} free"
        shutil.rmtree(store)
    raise AssertionError("the job never ends")


@pytest.mark.parametrize("what", ["pages", "files"])
def test_a_small_disk_that_fills_up(disk: Path, job: Job, capsys: pytest.CaptureFixture[str], what: str) -> None:
    """S5: a real file system with room for ever more of the job, in steps of four."""
    assert _fill_up(job, disk, what, 4, capsys) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["pages", "files"])
def test_a_small_disk_that_fills_up_at_any_page(
    disk: Path, job: Job, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    """S5: the same, one page or one file at a time."""
    assert _fill_up(job, disk, what, 1, capsys) >= 10


def test_a_temporary_folder_that_is_full_is_told_and_no_fault_of_the_archive(
    disk: Path, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """S5: a compressed archive that is unpacked where there is no room."""
    with tarfile.open(tmp_path / "in.tar.gz", "w:gz") as archive:
        archive.add(job.arguments[0], "CT")
    monkeypatch.setattr("ctpipe.dicom.archives.IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    _room(disk, f"size={2 * PAGE}")
    capsys.readouterr()
    _told_plainly(main(["ingest", str(tmp_path / "in.tar.gz"), "--store", str(tmp_path / "S")]),
                  capsys.readouterr().err, "archive")  # fmt: skip
    _room(disk, "size=64m")
    assert main(["ingest", str(tmp_path / "in.tar.gz"), "--store", str(tmp_path / "S")]) == 0
    assert job.straight.items() >= {k: v for k, v in same_bytes(tmp_path / "S").items() if "/c/" in k}.items()
