"""What is fuzzed: each target takes bytes and ends quietly, or in a verdict or CtpipeError; all else is a fault."""

from __future__ import annotations

import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from mutants import plane_files

from ctpipe import dicom, store
from ctpipe.errors import CtpipeError, InputError
from ctpipe.words import VerdictKind

SECONDS = 10
GROWTH_MIB = 256  # of this process over all examples of a test; a small series needs next to nothing


class HangError(BaseException):
    """Longer than `SECONDS`: no Exception, so that nothing on the way takes it for a verdict."""


@contextmanager
def time_limit() -> Iterator[None]:
    """HangError after `SECONDS` of wall time; only Python code can be stopped so."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise HangError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def bounded_memory() -> Iterator[None]:
    """AssertionError where the peak of this process grows by more than `GROWTH_MIB` within the block."""
    before = _peak_mib(reset=True)
    yield
    grown = _peak_mib() - before
    assert grown <= GROWTH_MIB, f"the peak of memory grew by {grown} MiB"


def _peak_mib(*, reset: bool = False) -> int:
    """Peak resident memory in MiB; `reset` brings it down to what is resident now (proc(5), clear_refs)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) // 1024


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory where there is such a place."""
    made = Path(tempfile.mkdtemp(prefix="ctpipe-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def take(paths: Sequence[Path] | Path) -> list[VerdictKind]:
    """Verdicts of `check`; what it accepts is read as ingest would, slab by slab, and may yet be refused."""
    kinds = []
    for verdict in dicom.check(paths):
        kinds.append(verdict.kind)
        assert verdict.reason.isascii()
        assert (verdict.reason + verdict.detail + verdict.cure).isprintable()
        if verdict.source is None:
            continue
        depth = verdict.source.grid.shape.z
        dicom.plane_table(verdict.source)
        try:
            voxels = dicom.read_planes(verdict.source, 0, depth)
        except InputError:
            continue
        assert voxels.shape == tuple(verdict.source.grid.shape)
    return kinds


def dicom_target(data: bytes, syntax: str) -> list[VerdictKind]:
    """One file of hostile bytes in place of the second plane of a whole series."""
    with folder() as series, time_limit():
        for number, plane in enumerate(plane_files(syntax)):
            (series / f"{number}.dcm").write_bytes(data if number == 1 else plane)
        return take(series)


def archive_target(data: bytes, name: str) -> list[VerdictKind]:
    """An archive of hostile bytes."""
    with folder() as place, time_limit():
        (place / name).write_bytes(data)
        return take(place)


def store_target(root: Path) -> CtpipeError | None:
    """All that reads a store, over a store with one hostile file: the error that it ended in."""
    with time_limit():
        try:
            opened = store.open_store(root, mode="a")
            store.verify(opened)
            _read_all(opened)
        except CtpipeError as error:
            return error
    return None


def _read_all(opened: store.Store) -> None:
    for key in opened.runs():
        opened.run(key)
    for series_id in opened:
        series = opened[series_id]
        for group in [series, *(series.labels[name] for name in series.labels)]:
            for level in group.levels:
                group.read_planes(0, level.grid.shape.z, level.number)
        _ = series.hu.values, series.planes, series.in_progress
    for dry_run in (True, False):
        store.collect_garbage(opened, dry_run, expiry_s=0.01)  # a lease of elsewhere is watched so long
