"""Leases: one writer per target, told by a file, a fencing number and a counter that its owner moves.

A lease is dead when its owner's process is gone (seen from the same machine), or when its counter stood still for
`EXPIRY_S` of the observer's own monotonic clock. No time stamp decides anything. All changes of lease files happen
under one file lock, and so does the commit itself: an owner that slept through its expiry finds another token and is
told.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from ctpipe.errors import CtpipeError, StoreBusyError
from ctpipe.store import files
from ctpipe.store.layout import LEASES, PARTIAL, lease_name

EXPIRY_S = 60.0  # a counter that stands still for so long belongs to a dead owner
DYING_S = 0.5  # a process that was just killed takes a moment to be gone
_BEATS = 12  # beats within an expiry
_LOCK_WAIT_S = 60.0  # the file lock is held for milliseconds; longer means a stuck disk or a stopped process
_POLL_S = 0.02


class _Owner(StrEnum):
    GONE = "gone"
    ALIVE = "alive"
    UNKNOWN = "unknown"  # on another machine, or stopped: only the counter can tell


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a lease file says. start: kernel ticks at which the process started, since process ids come again."""

    owner: str
    fencing: int
    counter: int
    machine: str
    pid: int
    start: int


class Lease:
    """The right to write one target; a context manager that moves its counter from a thread of its own.

    wait_s: how long to wait for a live owner before StoreBusyError.
    """

    def __init__(
        self, root: Path, target: str, *, expiry_s: float = EXPIRY_S, wait_s: float = DYING_S, name: str | None = None
    ) -> None:
        self.target = target
        self.fencing = 0
        self._path = root / LEASES / (name or lease_name(target))
        self._expiry_s, self._wait_s = expiry_s, wait_s
        self._claim: _Claim | None = None
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None
        self._together: tuple[Lease, ...] = ()  # leases without which this one is worth nothing

    def __enter__(self) -> Self:
        self._acquire()
        self._stop.clear()
        self._beating = threading.Thread(target=self._beat, name="ctpipe-lease", daemon=True)
        self._beating.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
        # a full or lost disk at release: the lease then dies with this process, and the error under way counts more
        with suppress(CtpipeError, OSError), _locked(self._path.parent):
            if self._is_ours():
                self._path.unlink()
        self._claim = None

    def check(self) -> None:
        """StoreBusyError if another writer took over since."""
        with self.held():
            pass

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody can take the lease over within this block: for the one write that commits."""
        with _locked(self._path.parent):
            for lease in (self, *self._together):
                if not lease._is_ours():
                    raise StoreBusyError(
                        f"the lease on {lease.target} was lost (fencing number {lease.fencing}): another writer took "
                        "over",
                        "let that writer end, then run the same line again: what was done is reused",
                    )
            yield

    @contextmanager
    def together(self, other: Lease) -> Iterator[None]:
        """Within this block `held` asks for `other` too: a commit then needs both, checked under the one file lock."""
        before, self._together = self._together, (*self._together, other)
        try:
            yield
        finally:
            self._together = before

    def is_dead(self) -> bool:
        """Whether nobody writes this target; watches up to `expiry_s` where only the counter can tell."""
        claim = _read(self._path)
        return claim is None or self._watch(claim)

    def _acquire(self) -> None:
        deadline = time.monotonic() + self._wait_s
        while not self._try():
            if time.monotonic() >= deadline:
                raise StoreBusyError(
                    f"another process writes {self.target}",
                    "wait until it ends, then run the same line again: what it did is reused",
                )
            time.sleep(_POLL_S)

    def _try(self) -> bool:
        seen = _read(self._path)
        if seen is not None and not self._watch(seen):
            return False
        files.make_folder(self._path.parent)
        with _locked(self._path.parent):
            now = _read(self._path)
            if now is not None and now != seen:
                return False
            fencing = 1 if now is None else now.fencing + 1
            claim = _Claim(uuid.uuid4().hex, fencing, 0, _machine(), os.getpid(), _process(os.getpid())[0])
            self._claim, self.fencing = claim, fencing
            try:
                return files.write_atomic(self._path, _spell(claim), exclusive=now is None)
            except CtpipeError:
                if self._is_ours():  # in place, but not synced: left there it would hold off our own next try
                    self._path.unlink(missing_ok=True)
                raise

    def _watch(self, seen: _Claim) -> bool:
        """Whether the owner of a claim is dead."""
        owner = _owner(seen)
        if owner is not _Owner.UNKNOWN:
            return owner is _Owner.GONE
        until = time.monotonic() + self._expiry_s
        while time.monotonic() < until:
            time.sleep(min(_POLL_S * 5, self._expiry_s / _BEATS))
            now = _read(self._path)
            if now is None:
                return True
            if now != seen:
                return False
        return True

    def _beat(self) -> None:
        while not self._stop.wait(self._expiry_s / _BEATS):
            # a disk that is full for a moment must not end the writer: it says so itself when it writes
            with suppress(CtpipeError, OSError), _locked(self._path.parent):
                if not self._is_ours() or self._claim is None:
                    return
                self._claim = replace(self._claim, counter=self._claim.counter + 1)
                files.write_atomic(self._path, _spell(self._claim))

    def _is_ours(self) -> bool:
        now = _read(self._path)
        return now is not None and self._claim is not None and now.owner == self._claim.owner


def side_files(root: Path, dry_run: bool) -> list[str]:
    """Sweeps the side files that killed owners left among the leases; returns their names."""
    if not (root / LEASES).is_dir():
        return []
    with _locked(root / LEASES):  # lease files are written under it: what is a side file now has no writer
        stray = [name for name in files.names(root / LEASES) if name.endswith(PARTIAL)]
        for name in () if dry_run else stray:
            files.remove(root / LEASES / name)
    return stray


def _spell(claim: _Claim) -> bytes:
    return json.dumps(asdict(claim), sort_keys=True).encode()


def _read(path: Path) -> _Claim | None:
    data = files.read(path)
    if data is None:
        return None
    try:
        claim = _Claim(**json.loads(data))
    except (ValueError, TypeError, RecursionError):
        claim = None
    kinds = [type(value) for value in asdict(claim).values()] if claim else []
    if claim is None or kinds != [str, int, int, str, int, int] or not 0 < claim.pid < 1 << 31:
        # rotten: nobody's, so that only a counter that stands still frees it
        return _Claim("", 0, len(data), "", 0, 0)
    return claim


def _owner(claim: _Claim) -> _Owner:
    if claim.machine != _machine():
        return _Owner.UNKNOWN
    start, state = _process(claim.pid)
    if start != claim.start or state in "ZX":  # a zombie writes no more
        return _Owner.GONE
    return _Owner.UNKNOWN if state in "Tt" else _Owner.ALIVE


def _process(pid: int) -> tuple[int, str]:
    """(start in kernel ticks, state letter) of a process; (-1, "X") if there is none (proc(5), fields 22 and 3)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _process_elsewhere(pid)
    after = text.rpartition(")")[2].split()
    return int(after[19]), after[0]


def _process_elsewhere(pid: int) -> tuple[int, str]:
    """The same without /proc (macOS)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return int(process.create_time() * 100), "T" if process.status() == psutil.STATUS_STOPPED else "S"
    except psutil.Error:
        return -1, "X"


@cache
def _machine() -> str:
    """Within one such text process ids mean the same: host, its boot, and the pid namespace of a container."""
    parts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        with suppress(OSError):
            parts.append(read().strip())
    return "|".join(parts)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The file lock of all leases of a store; the kernel lets go of it when its holder dies."""
    descriptor = files.open_lock(folder / ".lock")
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    problem = f"the lock of {folder} is held by a process that does not let go"
                    raise StoreBusyError(problem, "look for a stopped ctpipe process or a stuck disk") from error
                time.sleep(_POLL_S / 4)
        yield
    finally:
        os.close(descriptor)
