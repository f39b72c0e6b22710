"""The copy that a reviewer paints on: the parent's voxels in memory, and a journal of every action beside the store.

Committed labels are immutable, so a correction is made on a copy (docs/decisions/0013-corrections-as-a-journal.md)::

    STORE/reviews/<series id>-<session>/
    ├── journal         every action, checksummed, chained and synced; the copy is its parent and this file
    ├── base/           the parent's level-0 shards under a second name: corrections outlive a parent that is removed
    ├── lock            held (flock) by the viewer that has it open; let go by the system when that process dies
    └── working.json    parent, its content, reviewer, classes, what was saved; written last: it makes the copy count
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctpipe.errors import BudgetError, CtpipeError, StoreFaultError, UsageError
from ctpipe.review.base import keep, kept_voxels, parent_voxels
from ctpipe.review.journal import Journal
from ctpipe.review.stale import staleness

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ctpipe.store import Labels, Series

FORMAT = 2  # 1 was a Zarr array without a journal; such copies are left alone
FOLDER = "reviews"
NO_CLASSES = {1: "lesion"}  # what an empty copy offers to paint where nobody named classes


@dataclass(frozen=True)
class CopyRecord:
    """What working.json holds. parent and parent_content are None for a copy that started empty."""

    series: str
    grid_id: str
    session: str  # random: two copies of one parent are two
    dtype: str
    parent: str | None
    parent_content: str | None
    parent_kind: str | None
    reviewer: str  # a pseudonym, or "reader"
    classes: dict[int, str]
    saved: tuple[str, ...] = ()  # label groups that this copy was saved as, oldest first

    @property
    def genesis(self) -> bytes:
        """What the journal of this copy is bound to: all that never changes."""
        fixed = {key: value for key, value in self.as_json().items() if key not in ("classes", "saved")}
        return sha256(json.dumps(fixed, sort_keys=True).encode()).digest()

    def as_json(self) -> dict[str, Any]:
        classes = {str(label): name for label, name in sorted(self.classes.items())}
        return {"format": FORMAT, **vars(self), "classes": classes, "saved": list(self.saved)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], where: Path) -> CopyRecord:
        if found.get("format") != FORMAT:
            raise StoreFaultError(
                f"working copy {where.name} has format {found.get('format')!r}, known is {FORMAT}",
                f"use the ctpipe that made it; {FOLDER}/{where.name} is left as it is",
            )
        values = {key: found[key] for key in cls.__dataclass_fields__}
        classes = {int(label): str(name) for label, name in found["classes"].items()}
        return cls(**{**values, "classes": classes, "saved": tuple(found["saved"])})


@dataclass
class WorkingCopy:
    """An open working copy; `array` (z, y, x) is what is painted on. Close it to let others open it.

    told: what the reviewer should know about how it was opened, a line each.
    """

    folder: Path
    record: CopyRecord
    array: NDArray
    journal: Journal
    resumed: bool
    told: list[str]
    _lock: IO[str] = field(repr=False)

    @property
    def story(self) -> str:
        """One line for the reviewer: where this copy comes from, and what is wrong with it."""
        parent = "no labels (empty)" if self.record.parent is None else self.record.parent
        line = f"{'going on with your' if self.resumed else 'made a'} working copy of {parent}"
        return "; ".join([line, *self.told])

    def note_saved(self, name: str) -> None:
        """Keep in working.json that this state was saved as label group `name`."""
        if name not in self.record.saved:
            self._rewrite(saved=(*self.record.saved, name))

    def add_class(self, name: str) -> int:
        """Label of a new class `name`, or of the class that has that name already."""
        for label, known in self.record.classes.items():
            if known.casefold() == name.casefold():
                return label
        label = max(self.record.classes, default=0) + 1
        if not name.strip() or label > np.iinfo(self.array.dtype).max:
            raise UsageError("a class needs a name and a free label", f"give a name; {self.array.dtype} holds no more")
        self._rewrite(classes={**self.record.classes, label: name.strip()})
        return label

    def _rewrite(self, **changes: Any) -> None:
        record = replace(self.record, **changes)
        with disk_errors("the record of the working copy", 0):
            _write_record(self.folder, record)
        self.record = record

    def close(self) -> None:
        """Let the copy go; its files stay. Raises, and lets nothing go, while actions are in memory only."""
        self.journal.close()
        self._lock.close()

    def let_go(self) -> str | None:
        """Let the copy go whatever happens: what the store does not take is kept in the user's own state folder.

        Returns a line that says where, or None. `open_copy` takes it in from there.
        """
        line = None
        try:
            self.journal.close()
        except CtpipeError:
            line = f"the last actions are kept in {self.journal.write_elsewhere(_shelter())}"
        finally:
            self.journal.abandon()
            self._lock.close()
        return line


def open_copy(
    root: Path,
    series: Series,
    parent: Labels | None,
    *,
    classes: Mapping[int, str] | None = None,
    reviewer: str = "reader",
) -> WorkingCopy:
    """The working copy of `parent` (None: an empty one) for `reviewer`: the one that exists, else a new one.

    A copy that another viewer has open is left alone and a second one is made: two reviews, none lost. The voxels come
    from `parent.read_planes`, which may have them in memory.

    Raises: BudgetError where the disk is full, StoreFaultError for a rotten parent or a journal that is missing.
    """
    name, content = (None, None) if parent is None else (parent.name, parent.content)
    for folder, record in copies_of(root, series.id):
        if (record.parent, record.parent_content, record.reviewer) == (name, content, reviewer):
            found = resume_copy(folder, series, parent)
            if found is not None:
                return found
    named = dict(parent.classes) if parent is not None else dict(classes or NO_CLASSES)
    record = CopyRecord(
        series=series.id,
        grid_id=series.grid.grid_id,
        session=secrets.token_hex(4),
        dtype="uint8" if parent is None else parent.dtype,
        parent=name,
        parent_content=content,
        parent_kind=None if parent is None else str(parent.kind),
        reviewer=reviewer,
        classes=named,
    )
    return _create(root, series, parent, record)


def copies_of(root: Path, series_id: str) -> list[tuple[Path, CopyRecord]]:
    """Folder and record of every working copy of a series, the last used first (by file time: only for display)."""
    found = [path for path in (root / FOLDER).glob(f"{series_id}-*/working.json") if path.is_file()]
    found.sort(key=lambda path: (path.stat().st_mtime_ns, path.parent.name), reverse=True)
    stated = [(path.parent, _load(path)) for path in found]
    return [(folder, CopyRecord.from_json(text, folder)) for folder, text in stated if text.get("format") != 1]


def older_copies(root: Path, series_id: str) -> list[Path]:
    """Working copies that an older ctpipe made, without a journal. They are not read, and left as they are."""
    found = sorted((root / FOLDER).glob(f"{series_id}-*/working.json"))
    return [path.parent for path in found if path.is_file() and _load(path).get("format") == 1]


def resume_copy(folder: Path, series: Series, parent: Labels | None = None) -> WorkingCopy | None:
    """The working copy in `folder`, as it was left; None while another viewer has it open.

    parent: the labels it was made from, where the caller has them (None: they are looked up).
    """
    lock = _lock(folder)
    if lock is None:
        return None
    journal = None
    try:
        record = CopyRecord.from_json(_load(folder / "working.json"), folder)
        journal = Journal(folder / "journal", record.genesis)
        told = [*journal.told, *_sheltered(journal)]
        array = _base(folder, series, record, parent)
        replay(journal, array)
        os.utime(folder / "working.json")  # the last used comes first
        stale = staleness(series, record.parent, record.parent_content)
        told += [stale] if stale else []
        return WorkingCopy(folder, record, array, journal, resumed=True, told=told, _lock=lock)
    except BaseException:
        if journal is not None:
            journal.abandon()
        lock.close()
        raise


def replay(journal: Journal, array: NDArray) -> None:
    """Bring the parent's voxels to the state that the journal tells: the actions that stand, in order."""
    standing = set(journal.stack.done)
    for entry in journal.entries:
        if entry.n in standing and (delta := journal.delta(entry)) is not None:
            delta.put(array)


def _base(folder: Path, series: Series, record: CopyRecord, parent: Labels | None) -> NDArray:
    if record.parent is None:
        return np.zeros(series.grid.shape, record.dtype)
    parent = parent if parent is not None else series.labels.get(record.parent)
    if parent is not None and parent.content == record.parent_content:
        return parent_voxels(parent)
    return kept_voxels(folder, series, record.dtype)


def _create(root: Path, series: Series, parent: Labels | None, record: CopyRecord) -> WorkingCopy:
    folder = root / FOLDER / f"{series.id}-{record.session}"
    base = np.zeros(series.grid.shape, record.dtype) if parent is None else parent_voxels(parent)
    with disk_errors("the working copy", 1 << 20):
        folder.mkdir(parents=True)
        lock = _lock(folder)
        if lock is None:
            raise UsageError(f"working copy {folder.name} is taken", "try again")
        try:
            if parent is not None:
                keep(folder, parent)
            journal = Journal.create(folder / "journal", record.genesis)
            _write_record(folder, record)
        except BaseException:
            lock.close()
            shutil.rmtree(folder, ignore_errors=True)  # it never counted: working.json was not there
            raise
    told = []
    if old := older_copies(root, series.id):
        told.append(f"{len(old)} working copy of an older ctpipe is left as it is: {old[-1].name}")
    return WorkingCopy(folder, record, base, journal, resumed=False, told=told, _lock=lock)


def _shelter() -> Path:
    """Where actions go that the store would not take when the viewer was closed."""
    from platformdirs import user_state_path

    return user_state_path("ctpipe") / FOLDER


def _sheltered(journal: Journal) -> list[str]:
    """Take in what an earlier viewer had to keep elsewhere; a line that says so."""
    kept = _shelter() / f"{journal.path.parent.name}.journal"
    if not kept.is_file():
        return []
    n = journal.take_in(kept)
    if not journal.waiting:
        kept.unlink()
    return [f"{n} actions were taken in that the store had no room for"]


def _lock(folder: Path) -> IO[str] | None:
    """The exclusive lock of a working copy, held while the file is open; None where another one holds it."""
    try:
        handle = open(folder / "lock", "a")  # noqa: SIM115 - lives as long as the copy is open
    except OSError as error:
        raise CtpipeError(
            f"cannot open the working copy {folder.name} ({os.strerror(error.errno or 0)})",
            "make the store writable, or look without editing: napari --plugin ctpipe S/<volume>.ome.zarr",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    except OSError as error:  # some network file systems know no locks
        handle.close()
        raise CtpipeError(
            f"cannot lock the working copy {folder.name} ({os.strerror(error.errno or 0)})",
            "put the store on a file system with locks (local disk, NFS 4)",
        ) from error
    return handle


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreFaultError(
            f"the record of working copy {path.parent.name} cannot be read", f"restore or remove {path}"
        ) from error
    return found


def _write_record(folder: Path, record: CopyRecord) -> None:
    """Write working.json in one step: whole and synced, or as it was before."""
    partial = folder / "working.json.partial"
    with partial.open("w") as out:
        json.dump(record.as_json(), out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(folder / "working.json")
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(what: str, wanted: int) -> Iterator[None]:
    """Errors of the disk in our own words: BudgetError where it is full, with the bytes that were `wanted`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BudgetError(
                f"the disk is full: {what} wants up to {wanted / 2**20:.1f} MiB", "free space, then try again"
            ) from error
        raise CtpipeError(
            f"cannot write {what} ({os.strerror(error.errno or 0)})", "make the store folder writable"
        ) from error
