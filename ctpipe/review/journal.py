"""The journal of a working copy: every action on the disk before it counts as saved (RELIABILITY R1, R5, R6).

A file that only grows. `append` writes a record and syncs it. Where the disk is full, records wait in memory, in order,
and go out before the next one does, or to another place that the reviewer gives; nothing is dropped.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctpipe.errors import BudgetError, CtpipeError, StoreFaultError, UsageError
from ctpipe.review.delta import Delta
from ctpipe.review.records import HEADER_BYTES, REDO, UNDO, Entry, Scan, Stack, header, parse, scan, spell
from ctpipe.store import files

_FULL = {errno.ENOSPC, errno.EDQUOT}


class Journal:
    """Open journal of one working copy, of which this process holds the lock.

    entries: all good records, oldest first. stack: what undo and redo take next. told: what was found at opening, a
    line each. fault: why records wait in memory, or None.
    """

    def __init__(self, path: Path, genesis: bytes) -> None:
        """Open the journal at `path`: read all, cut a torn end. Raises StoreFaultError where it cannot be read."""
        self.path, self.genesis = path, genesis
        self.entries: list[Entry] = []
        self.stack = Stack()
        self.told: list[str] = []
        self.fault: CtpipeError | None = None
        self.elsewhere: Path | None = None  # where records go while they cannot go to `path`
        self._waiting: dict[int, bytes] = {}  # by number, in order
        self._written = HEADER_BYTES  # bytes of the file that are known to be good and synced
        found = read(path, genesis)
        self._take(found)
        try:
            self._file = os.open(path, os.O_RDWR)
            if found.torn or os.path.getsize(path) < HEADER_BYTES:
                os.ftruncate(self._file, found.end if found.entries else 0)
                if not found.entries:
                    os.pwrite(self._file, header(genesis), 0)
                files.sync(self._file)
                self.told.append(f"the end of the journal was torn: cut after {_count(len(self.entries))}")
        except OSError as error:
            raise _plain(error, path) from error

    @classmethod
    def create(cls, path: Path, genesis: bytes) -> Journal:
        """A new, empty journal. Raises BudgetError where the disk is full."""
        files.write_atomic(path, header(genesis))
        return cls(path, genesis)

    @property
    def waiting(self) -> int:
        """Actions that are in memory only (and elsewhere, where a place was given)."""
        return len(self._waiting)

    @property
    def actions(self) -> int:
        """Actions so far, undo and redo not counted."""
        return sum(entry.kind not in (UNDO, REDO) for entry in self.entries)

    @property
    def active_s(self) -> float:
        """Seconds of work in all records."""
        return sum(entry.active_s for entry in self.entries)

    def append(
        self, kind: str, delta: Delta | None, *, of: int | None = None, active_s: float = 0.0, **facts: Any
    ) -> Entry:
        """Add an action. When this returns with `fault` None, the record is on the disk; else it waits in memory."""
        last = self.entries[-1] if self.entries else None
        if delta is not None:
            facts = {**facts, **delta.facts()}
        record = spell(
            n=1 if last is None else last.n + 1,
            kind=kind,
            of=of,
            active_s=round(active_s, 1),
            facts=facts,
            payload=b"" if delta is None else delta.to_bytes(),
            previous=self.genesis if last is None else last.digest,
        )
        entry = parse(record)
        assert entry is not None  # what was just spelled
        self._add(entry)
        self._waiting[entry.n] = record
        self.flush()
        return entry

    def flush(self) -> bool:
        """Write what waits; False where it still cannot be written (`fault` says why)."""
        try:
            for n in sorted(self._waiting):
                self._write(n)
        except OSError as error:
            self.fault = _plain(error, self.path)
            with suppress(OSError):  # what was written of the record is no record; it is written over next time
                os.ftruncate(self._file, self._written)
            self._again_elsewhere()
            return False
        self.fault = None
        if self.elsewhere is not None:  # all of it is in the journal now
            self.elsewhere.unlink(missing_ok=True)
            self.elsewhere = None
        return True

    def delta(self, entry: Entry) -> Delta | None:
        """What an action changed, read back and checked; None for undo and redo."""
        if entry.kind in (UNDO, REDO):
            return None
        record = self._waiting.get(entry.n)
        if record is None:
            record = os.pread(self._file, entry.end - entry.start, entry.start)
        again = parse(record)
        if again is None or again.digest != entry.digest:
            raise StoreFaultError(
                f"action {entry.n} in the journal of {self.path.parent.name} changed since it was read",
                "check the disk; restore the journal from a backup",
            )
        return Delta.from_bytes(entry.facts, record[entry.payload : -len(entry.digest)])

    def entry(self, n: int) -> Entry:
        """The record of action `n`."""
        return next(entry for entry in reversed(self.entries) if entry.n == n)

    def write_elsewhere(self, folder: Path) -> Path:
        """Keep the whole journal in `folder` too, as <working copy>.journal, until the store takes records again.

        Raises BudgetError, UsageError or StoreFaultError where that place cannot be written either.
        """
        self._write_elsewhere(place := folder / f"{self.path.parent.name}.journal")
        self.elsewhere = place
        return place

    def take_in(self, path: Path) -> int:
        """Take in the actions that a journal `write_elsewhere` made holds beyond this one; returns how many.

        Raises UsageError for a journal of another copy, or one that does not go on where this one ends.
        """
        found = read(path, self.genesis)
        last = self.entries[-1] if self.entries else None
        more = [entry for entry in found.entries if last is None or entry.n > last.n]
        if found.damage or (more and more[0].previous != (self.genesis if last is None else last.digest)):
            raise UsageError(
                f"the journal {path.name} does not go on where the working copy ends",
                "give the one that was kept for this copy",
            )
        data = path.read_bytes()
        for entry in more:
            self._add(entry)
            self._waiting[entry.n] = data[entry.start : entry.end]
        self.flush()
        return len(more)

    def close(self) -> None:
        """Let the file go; BudgetError or StoreFaultError, and nothing is closed, while actions wait in memory only."""
        if self._waiting and not self.flush() and self.elsewhere is None and self.fault is not None:
            raise self.fault
        self.abandon()

    def abandon(self) -> None:
        """Close without a last try."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _again_elsewhere(self) -> None:
        try:
            if self.elsewhere is not None:
                self._write_elsewhere(self.elsewhere)
        except CtpipeError as error:
            self.fault, self.elsewhere = error, None

    def _take(self, found: Scan) -> None:
        for entry in found.entries:
            self._add(entry)
        self._written = found.end
        self.told += [f"journal: {line}; the rest was replayed" for line in found.damage]

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.stack.feed(entry)

    def _write(self, n: int) -> None:
        record = self._waiting[n]
        at = self._written
        done = 0
        while done < len(record):
            done += os.pwrite(self._file, record[done:], at + done)
        # a failed sync is never tried again on the same pages: the record is written anew
        files.sync(self._file)
        index = next(i for i in range(len(self.entries) - 1, -1, -1) if self.entries[i].n == n)
        self.entries[index] = _placed(self.entries[index], at)
        self._written = at + len(record)
        del self._waiting[n]

    def _write_elsewhere(self, place: Path) -> None:
        good = os.pread(self._file, self._written, 0)
        files.write_atomic(place, good + b"".join(self._waiting[n] for n in sorted(self._waiting)))


def read(path: Path, genesis: bytes) -> Scan:
    """Scan of a journal file. Raises StoreFaultError where it is missing or cannot be read."""
    try:
        with open(path, "rb") as stream:
            if not os.fstat(stream.fileno()).st_size:
                return scan(b"", genesis)
            with closing(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)) as data:
                return scan(data, genesis)
    except OSError as error:
        raise StoreFaultError(
            f"the journal of working copy {path.parent.name} cannot be read ({os.strerror(error.errno or 0)})",
            f"restore {path} from a backup, or remove its folder to start again from the parent",
        ) from error


def _placed(entry: Entry, at: int) -> Entry:
    return replace(entry, start=at, end=at + entry.end - entry.start)


def _count(n: int) -> str:
    return "1 action" if n == 1 else f"{n} actions"


def _plain(error: OSError, path: Path) -> CtpipeError:
    if error.errno in _FULL:
        return BudgetError(
            f"the disk is full: actions of working copy {path.parent.name} are in memory only",
            "free space, or give another place to keep them; they are written as soon as there is room",
        )
    return StoreFaultError(
        f"the journal of working copy {path.parent.name} cannot be written ({os.strerror(error.errno or 0)})",
        "check the disk, or give another place to keep the actions; until then they are in memory only",
    )
