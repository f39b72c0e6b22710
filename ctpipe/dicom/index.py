"""The index: a line for every plane and every other file of the input, on disk and not in memory.

Kept in SQLite, so that 100,000 headers cost no more memory than 100. In a store the index stays: a file whose
signature (size, times, inode) is as it was is not opened again. What stays holds pseudonyms in place of identifiers and
a keyed digest in place of each path; the paths of this call stand in a temporary table that ends with it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ctpipe.dicom.header_text import TEXT_VERSION, from_text
from ctpipe.dicom.headers import PlaneHeader
from ctpipe.dicom.identity import Pseudonyms
from ctpipe.dicom.looking import Entry, Look, PlaneLine, Seen, look
from ctpipe.dicom.sources import Fault, Item, Locator, walk
from ctpipe.errors import BudgetError, InputError, StoreBusyError, StoreFaultError
from ctpipe.words import Progress, VerdictKind

Task = TypeVar("Task")
Result = TypeVar("Result")
# (function, tasks) -> (task, result) in any order: here one after the other, in the pipeline on a cluster.
Runner = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[tuple[Any, Any]]]

FILES_A_TASK = 128
FILES_A_COMMIT = 2000
FILES_HERE = 512  # so few are looked at here in less time than it takes to hand them out and gather the answers
_ENTRIES_A_FILE = 1 << 21  # more than an archive may have members

_KEPT = """
create table if not exists file (kept text primary key, signature text, entries text);
create table if not exists digest (kept text, members text, frame integer, sha256 text,
                                   primary key (kept, members, frame));
"""
_OF_THIS_CALL = """
create temp table found (place integer primary key, path blob, kept text, fault text, signature text);
create temp table plane (entry integer, frame integer, series text, instance text, members text, header text);
create temp table lone (entry integer, series text, kind text, reason text, detail text, cure text);
"""
_ORDER = """
create index temp.plane_series on plane (series);
create index temp.plane_instance on plane (instance);
create index temp.lone_series on lone (series);
create temp table numbered as select entry, row_number() over (order by entry) as number
    from (select distinct entry from plane union select entry from lone);
create unique index temp.numbered_entry on numbered (entry);
"""


def here(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
    """The plainest Runner."""
    for task in tasks:
        yield task, function(task)


@dataclass(frozen=True)
class Lot:
    """Files without planes that have the same fault. numbers: of the first few, in name order."""

    fault: Fault
    series: str | None
    n_files: int
    numbers: tuple[int, ...]


class Index:
    """All planes and all other files of one call. opened: files that were read; the others were as they had been."""

    def __init__(self, names: Pseudonyms, kept_in: Path | None = None) -> None:
        """kept_in: the file that stays for the next call; None: nothing stays."""
        self.names = names
        self.opened = 0
        self.n_files = 0
        self._db = _connect(kept_in, names)
        with self.closed_on_failure():
            self._db.executescript(_OF_THIS_CALL)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def closed_on_failure(self) -> Iterator[None]:
        """Closes the index where the block fails: a connection is part of a cycle, and would keep its locks."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------------------------------ filling
    def add(
        self,
        paths: Iterable[str | os.PathLike[str]],
        exclude: Sequence[str | os.PathLike[str]] = (),
        run: Runner = here,
        progress: Progress = None,
        fleeting: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        """Every file below `paths`, once in the life of an index; of those below `fleeting` nothing stays.

        Raises NotThereError for a path that is not there.
        """
        self._fleeting = tuple(os.path.join(os.path.realpath(path), "") for path in fleeting)
        self._db.executemany("insert into found values (?, ?, ?, ?, null)", self._places(walk(paths, exclude)))
        (self.n_files,) = self._db.execute("select count(*) from found").fetchone()
        if progress:
            progress("index", 0, self.n_files)
        done = self._take_known(progress)
        kept = done
        runner = here if self.n_files - done <= FILES_HERE else run
        for _, results in runner(look, self._unknown()):
            for seen in results:
                self._keep(seen)
            done += len(results)
            if done - kept >= FILES_A_COMMIT:  # what an interrupted call has read, the next one need not read
                self._db.commit()
                kept = done
            if progress:
                progress("index", done, self.n_files)
        self._db.executescript(_ORDER)
        self._db.commit()

    def _places(self, items: Iterable[Item]) -> Iterator[tuple[int, bytes, str, str | None]]:
        for place, item in enumerate(items):
            path = item.locator.path
            fault = json.dumps(astuple(item.fault)) if item.fault else None
            yield place, os.fsencode(path), self.names.text(path), fault

    def _take_known(self, progress: Progress) -> int:
        """Copies the lines of the files that are as they were; how many."""
        rows = self._db.execute(
            "select place, path, file.signature, entries from found join file using (kept) where fault is null"
        )
        done = 0
        for place, path, signature, entries in rows:
            if _signature(path) == signature:
                self._insert(place, signature, [_entry(row) for row in json.loads(entries)])
                done += 1
                if progress and done % 1000 == 0:
                    progress("index", done, self.n_files)
        return done

    def _unknown(self) -> Iterator[Look]:
        last = -1
        while True:  # page by page: rows are written while the tasks run
            rows = self._db.execute(
                "select place, path, fault from found where place > ? and signature is null order by place limit ?",
                (last, FILES_A_TASK),
            ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield Look(tuple((place, _item(path, fault)) for place, path, fault in rows), self.names)

    def _keep(self, seen: Seen) -> None:
        self._insert(seen.place, seen.signature, seen.entries)
        row = self._db.execute("select path, kept, fault from found where place = ?", (seen.place,)).fetchone()
        path, kept, fault = row
        if fault is not None:
            return
        self.opened += 1
        if seen.signature and not os.fsdecode(path).startswith(self._fleeting):
            text = json.dumps([_row(entry) for entry in seen.entries], separators=(",", ":"))
            self._db.execute("insert or replace into file values (?, ?, ?)", (kept, seen.signature, text))
            self._db.execute("delete from digest where kept = ?", (kept,))

    def _insert(self, place: int, signature: str, entries: Iterable[Entry]) -> None:
        planes: list[tuple[Any, ...]] = []
        lone: list[tuple[Any, ...]] = []
        for number, entry in enumerate(entries):
            at = place * _ENTRIES_A_FILE + number
            members = json.dumps(entry.members)
            planes += [(at, frame, line.series, line.instance, members, line.text)
                       for frame, line in enumerate(entry.planes)]  # fmt: skip
            if entry.fault:
                lone.append((at, entry.series, *astuple(entry.fault)))
        self._db.execute("update found set signature = ? where place = ?", (signature, place))
        self._db.executemany("insert into plane values (?, ?, ?, ?, ?, ?)", planes)
        self._db.executemany("insert into lone values (?, ?, ?, ?, ?, ?)", lone)

    # ------------------------------------------------------------------------------------------ reading
    def series(self) -> list[str]:
        """Pseudonyms of all series that have planes, sorted."""
        return [uid for (uid,) in self._db.execute("select distinct series from plane order by series")]

    def planes(self, series: str) -> list[PlaneHeader]:
        """All planes of one series, in the order of the walk."""
        rows = self._db.execute(
            "select plane.entry, plane.members, header, path, signature, sha256 from plane "
            f"join found on place = plane.entry / {_ENTRIES_A_FILE} left join digest "
            "on digest.kept = found.kept and digest.members = plane.members and digest.frame = plane.frame "
            "where series = ? order by plane.entry, plane.frame",
            (series,),
        )
        return [
            from_text(header, Locator(os.fsdecode(path), tuple(json.loads(members))), entry, signature, digest)
            for entry, members, header, path, signature, digest in rows
        ]

    def keep_digests(self, planes: Iterable[PlaneHeader]) -> None:
        """Remembers the digests of stored pixels for the next call."""
        self._db.executemany(
            "insert or replace into digest select kept, ?, ?, ? from found where place = ?",
            [(json.dumps(p.locator.members), p.frame, p.digest, p.entry // _ENTRIES_A_FILE) for p in planes],
        )
        self._db.commit()

    def shared_instances(self) -> set[str]:
        """Series that have an instance in common with another series: one of them is not what it says."""
        rows = self._db.execute(
            "select distinct series from plane where instance in (select instance from plane where instance != '' "
            "group by instance having count(distinct series) > 1)"
        )
        return {series for (series,) in rows}

    def broken(self, series: str) -> list[tuple[int, Fault]]:
        """(entry, fault) of the files that are known to be of a series and are refused."""
        rows = self._db.execute(
            "select entry, kind, reason, detail, cure from lone where series = ? and kind = ? order by entry",
            (series, VerdictKind.REJECT.value),
        )
        return [(entry, _fault(rest)) for entry, *rest in rows]

    def lots(self) -> Iterator[Lot]:
        """Files without planes that no series of this index speaks for, those of one series and one fault together."""
        rows = self._db.execute(
            "select kind, reason, detail, cure, series, count(*), group_concat(number) from "
            "(select * from lone join numbered using (entry) order by entry) "
            "where not (kind = ? and series is not null and series in (select series from plane)) "
            "group by kind, reason, detail, cure, series, iif(kind = ? and detail = '', entry, null) "
            "order by min(entry)",
            (VerdictKind.REJECT.value, VerdictKind.REJECT.value),
        )
        for *fault, series, count, numbers in rows:
            first = tuple(int(number) for number in numbers.split(",", 6)[:6])
            yield Lot(_fault(fault), series, count, first)


def _connect(kept_in: Path | None, names: Pseudonyms) -> sqlite3.Connection:
    """The kept index, or a fresh one where it is unreadable, of another key or of another version: it is a cache."""
    if kept_in is None:
        db = sqlite3.connect("", factory=_Connection)
        db.executescript(_KEPT)
        return db
    stamp = json.dumps([TEXT_VERSION, names.fingerprint, names.keep_uids])
    for _ in range(2):
        with _plain_errors():
            db = sqlite3.connect(kept_in, timeout=60, factory=_Connection)
        try:
            with suppress(PermissionError):  # another user's, who shares the store with us
                os.chmod(kept_in, 0o600)
            db.executescript(_KEPT + "create table if not exists stamp (text text);")
            found = db.execute("select text from stamp").fetchone()
            if found is None:
                db.execute("insert into stamp values (?)", (stamp,))
                db.commit()
            if found in (None, (stamp,)):
                return db
            db.close()
        except StoreFaultError:
            db.close()
        except BaseException:
            db.close()
            raise
        kept_in.unlink(missing_ok=True)
    raise BudgetError("the index in the store cannot be written", "see that the disk has space and can be written")


class _Connection(sqlite3.Connection):
    """SQLite's, that says what is wrong in our own errors."""

    def execute(self, *args: Any) -> sqlite3.Cursor:
        with _plain_errors():
            return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        with _plain_errors():
            return super().executemany(*args)

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        with _plain_errors():
            return super().executescript(*args)

    def commit(self) -> None:
        with _plain_errors():
            super().commit()


_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NO_ROOM = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
}  # fmt: skip


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = error.sqlite_errorcode & 0xFF  # the rest of the bits say where in SQLite
        if code in _BUSY:
            problem = "another process writes the index of source files in this store"
            raise StoreBusyError(problem, "wait until it ends, then run the same line again") from error
        if code in _NO_ROOM:
            # SQLite does not tell a full disk from one that refuses a new file
            problem = "the index of source files cannot be written: the disk is full, or may not be written"
            cure = "free some space in the store and in the temporary folder, then run the same line again"
            raise BudgetError(problem, cure) from error
        problem = "the index of source files in the store is not readable"
        raise StoreFaultError(problem, "remove index.sqlite: it is a cache, and made anew") from error


def _signature(path: bytes) -> str | None:
    try:
        return Locator(os.fsdecode(path)).signature()
    except InputError:
        return None


def _item(path: bytes, fault: str | None) -> Item:
    name = os.fsdecode(path)
    return Item(Locator(name), 0, (os.path.basename(name),), 0, _fault(json.loads(fault)) if fault else None)


def _fault(row: Sequence[str]) -> Fault:
    kind, reason, detail, cure = row
    return Fault(VerdictKind(kind), reason, detail, cure)


def _row(entry: Entry) -> list[Any]:
    lines = [[line.series, line.instance, line.text] for line in entry.planes]
    return [entry.members, lines, astuple(entry.fault) if entry.fault else None, entry.series]


def _entry(row: list[Any]) -> Entry:
    members, lines, fault, series = row
    planes = tuple(PlaneLine(*line) for line in lines)
    return Entry(tuple(members), planes, _fault(fault) if fault else None, series)
