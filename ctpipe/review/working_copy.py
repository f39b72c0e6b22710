"""The copy that a reviewer paints on: one plain Zarr array beside the store's committed labels.

napari paints into a Zarr array at once, into a Dask array never (and says nothing), and into a multiscale layer not at
all; committed labels are immutable. So a correction is made on a copy (docs/decisions/0002-review-working-copies.md)::

    STORE/reviews/<series id>-<session>/
    ├── labels/         zarr v3, one plane a chunk: a stroke rewrites the planes that it touches, nothing else
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
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from ctpipe.errors import BudgetError, CtpipeError, StoreFaultError, UsageError
from ctpipe.volume import slabs_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ctpipe.store import Labels, Series

FORMAT = 1
FOLDER = "reviews"
NO_CLASSES = {1: "lesion"}  # what an empty copy offers to paint where nobody named classes


@dataclass(frozen=True)
class CopyRecord:
    """What working.json holds. parent and parent_content are None for a copy that started empty."""

    series: str
    grid_id: str
    parent: str | None
    parent_content: str | None
    parent_kind: str | None
    reviewer: str  # a pseudonym, or "reader"
    classes: dict[int, str]
    saved: tuple[str, ...] = ()  # label groups that this copy was saved as, oldest first

    def as_json(self) -> dict[str, Any]:
        classes = {str(label): name for label, name in sorted(self.classes.items())}
        return {"format": FORMAT, **vars(self), "classes": classes, "saved": list(self.saved)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], where: Path) -> CopyRecord:
        if found.get("format") != FORMAT:
            raise StoreFaultError(
                f"working copy {where.name} has format {found.get('format')!r}, known is {FORMAT}", "use a newer ctpipe"
            )
        values = {key: found[key] for key in cls.__dataclass_fields__}
        classes = {int(label): str(name) for label, name in found["classes"].items()}
        return cls(**{**values, "classes": classes, "saved": tuple(found["saved"])})


@dataclass
class WorkingCopy:
    """An open working copy; `array` (z, y, x) is what napari paints on. Close it to let others open it."""

    folder: Path
    record: CopyRecord
    array: zarr.Array
    resumed: bool
    _lock: IO[str] = field(repr=False)

    @property
    def story(self) -> str:
        """One line for the reviewer: where this copy comes from."""
        parent = "no labels (empty)" if self.record.parent is None else self.record.parent
        return f"{'going on with your' if self.resumed else 'made a'} working copy of {parent}"

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
        """Let the copy go; its files stay."""
        self._lock.close()


def open_copy(
    root: Path,
    series: Series,
    parent: Labels | None,
    *,
    classes: Mapping[int, str] | None = None,
    reviewer: str = "reader",
) -> WorkingCopy:
    """The working copy of `parent` (None: an empty one) for `reviewer`: the one that exists, else a new one.

    A copy that another viewer has open is left alone and a second one is made: two reviews, none lost.

    Raises: BudgetError where the disk is full, StoreFaultError for a copy with planes missing.
    """
    name = None if parent is None else parent.name
    for folder, record in copies_of(root, series.id):
        if (record.parent, record.reviewer) == (name, reviewer) and (found := resume_copy(folder)) is not None:
            return found
    named = dict(parent.classes) if parent is not None else dict(classes or NO_CLASSES)
    record = CopyRecord(
        series=series.id,
        grid_id=series.grid.grid_id,
        parent=name,
        parent_content=None if parent is None else parent.content,
        parent_kind=None if parent is None else str(parent.kind),
        reviewer=reviewer,
        classes=named,
    )
    return _create(root, series, parent, record)


def copies_of(root: Path, series_id: str) -> list[tuple[Path, CopyRecord]]:
    """Folder and record of every working copy of a series, the last used first (by file time: only for display)."""
    found = [path for path in (root / FOLDER).glob(f"{series_id}-*/working.json") if path.is_file()]
    found.sort(key=lambda path: (path.stat().st_mtime_ns, path.parent.name), reverse=True)
    return [(path.parent, CopyRecord.from_json(_load(path), path.parent)) for path in found]


def resume_copy(folder: Path) -> WorkingCopy | None:
    """The working copy in `folder`, as it was left; None while another viewer has it open."""
    lock = _lock(folder)
    if lock is None:
        return None
    try:
        record = CopyRecord.from_json(_load(folder / "working.json"), folder)
        array = zarr.open_array(folder / "labels", mode="r+")
        # zarr reads a missing file as background, without a word
        missing = [z for z in range(array.shape[0]) if not (folder / "labels" / f"{z}.0.0").is_file()]
        if missing:
            raise StoreFaultError(
                f"working copy {folder.name} lacks {len(missing)} of {array.shape[0]} planes",
                f"restore {FOLDER}/{folder.name} from a backup, or remove it to start again from its parent",
            )
        os.utime(folder / "working.json")  # the last used comes first
        return WorkingCopy(folder, record, array, resumed=True, _lock=lock)
    except BaseException:
        lock.close()
        raise


def _create(root: Path, series: Series, parent: Labels | None, record: CopyRecord) -> WorkingCopy:
    folder = root / FOLDER / f"{series.id}-{secrets.token_hex(4)}"
    dtype = np.dtype("uint8" if parent is None else parent.dtype)
    with disk_errors("the working copy", int(np.prod(series.grid.shape)) * dtype.itemsize):
        folder.mkdir(parents=True)
        lock = _lock(folder)
        if lock is None:
            raise UsageError(f"working copy {folder.name} is taken", "try again")
        try:
            array = _create_array(folder / "labels", tuple(series.grid.shape), dtype)
            for slab in slabs_of(series.grid.shape.z):
                planes = 0 if parent is None else parent.read_planes(slab.start, slab.stop)
                array[slab.start : slab.stop] = planes
            _write_record(folder, record)
        except BaseException:
            lock.close()
            shutil.rmtree(folder, ignore_errors=True)  # it never counted: working.json was not there
            raise
    return WorkingCopy(folder, record, array, resumed=False, _lock=lock)


def _create_array(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> zarr.Array:
    return zarr.create_array(
        store=path,
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype=dtype,
        fill_value=0,
        compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle", typesize=dtype.itemsize), Crc32cCodec()],
        chunk_key_encoding={"name": "v2", "separator": "."},  # one flat folder: a plane is one file, easily counted
        config={"write_empty_chunks": True},  # a plane of background has its file too: a missing file is a fault
        dimension_names=("z", "y", "x"),
    )


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
