"""Where files come from: folders at any nesting, single files, and .zip and .tar archives read in memory.

Nothing is ever unpacked to a named path, links are not followed, special files are not opened. Names serve only to
tell items apart and, for label folders, to name a structure; they never become a path or part of a message.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ctpipe.dicom.archives import Archive, ArchiveFaultError, archive_kind, open_archive
from ctpipe.dicom.objects import is_object, list_objects, object_signature, open_object
from ctpipe.errors import InputError, NotThereError
from ctpipe.words import VerdictKind

__all__ = ["Fault", "Item", "Locator", "iter_items"]

MAX_ITEM_BYTES = 4 << 30  # the longest element that DICOM can write; nothing longer is read into memory
MAX_ARCHIVE_DEPTH = 2
HEAD_BYTES = 4096


@dataclass(frozen=True)
class Locator:
    """Where the bytes of one file stand, so that any process on the same file system can read them again.

    path: file on disk. members: index of the member in the archive at `path`, then in the archive within it.
    """

    path: str = field(repr=False)  # file names may name a patient, and Dask logs the arguments of a task that failed
    members: tuple[int, ...] = ()

    def open(self) -> BinaryIO:
        """The file, open for reading; a member of an archive whole in memory. Raises InputError."""
        if self.members:
            return BytesIO(self.read())
        with _plain_errors():
            return _open_source(self.path)

    @property
    def is_remote(self) -> bool:
        """Whether it is an object of a bucket: to ask for its signature costs as much as to read it."""
        return is_object(self.path)

    def signature(self) -> str:
        """Changes when the file that holds this one is written, or another takes its place. Raises InputError."""
        if self.is_remote:
            return object_signature(self.path)
        with _plain_errors():
            return _signature(os.lstat(self.path))

    def glance(self, count: int) -> Glance:
        """The first `count` bytes, size and signature of a file on disk, in as few calls of the system as can be.

        Of 100,000 small files the calls are most of the work. Raises InputError.
        """
        if self.members or self.is_remote:
            return Glance(self.signature(), b"", 0)
        with _plain_errors():
            descriptor = _open_regular(self.path)
            try:
                status = os.fstat(descriptor)
                return Glance(_signature(status), os.pread(descriptor, count, 0), status.st_size)
            finally:
                os.close(descriptor)

    def read(self) -> bytes:
        """All bytes. Raises InputError where the file vanished, cannot be read, or its archive is corrupt."""
        return self._bytes(MAX_ITEM_BYTES + 1)

    def head(self, count: int = HEAD_BYTES) -> bytes:
        """The first `count` bytes, without reading the rest."""
        return self._bytes(count)

    def read_range(self, start: int, length: int) -> bytes:
        """Bytes start..start+length, fewer where the file ends before. Raises InputError."""
        if self.members:
            return self._bytes(start + length)[start:]
        return self._bytes(length, start)

    def _bytes(self, count: int, start: int = 0) -> bytes:
        with _plain_errors():
            if self.members:
                return open_archive(self.path, self.members[:-1]).read(self.members[-1], count)
            if self.is_remote:
                with open_object(self.path) as file:
                    _refuse_huge(count, file.seek(0, os.SEEK_END))
                    file.seek(start)
                    return bytes(file.read(count))
            descriptor = _open_regular(self.path)
            try:
                if count > MAX_ITEM_BYTES:
                    size = os.fstat(descriptor).st_size
                    _refuse_huge(count, size)
                    count = size - start
                return _pread(descriptor, count, start)
            finally:
                os.close(descriptor)


@dataclass(frozen=True)
class Glance:
    """What was seen of a file: its signature, first bytes and size; no bytes where it takes more than a look."""

    signature: str
    head: bytes = field(repr=False)
    size: int


def _refuse_huge(count: int, size: int) -> None:
    if count > MAX_ITEM_BYTES and size > MAX_ITEM_BYTES:
        raise InputError("a file is too large: the limit is 4 GiB", "split the object, or leave it out")


def _pread(descriptor: int, count: int, start: int) -> bytes:
    """Bytes start..start+count; one call of the system as a rule, more on file systems that give fewer at a time."""
    data = os.pread(descriptor, max(count, 0), start)
    while 0 < len(data) < count and (more := os.pread(descriptor, count - len(data), start + len(data))):
        data += more
    return data


def _signature(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except ArchiveFaultError as fault:
        raise InputError(fault.detail, fault.cure) from None
    except OSError as error:
        problem = f"a source file cannot be read ({error.strerror or 'input/output error'})"
        raise InputError(problem, "see that the input is still where it was, then check it again") from None


def _open_source(path: str) -> BinaryIO:
    """A regular file, or an object of a bucket; never follows a link, never waits on a pipe."""
    if is_object(path):
        return open_object(path)
    return os.fdopen(_open_regular(path), "rb")


def _open_regular(path: str) -> int:
    """Its descriptor. Raises InputError, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("a source file is no regular file any more", "give regular files")
    return descriptor


@dataclass(frozen=True)
class Fault:
    """Why one file or archive is not read at all: a verdict in short."""

    kind: VerdictKind
    reason: str
    detail: str
    cure: str = ""


@dataclass(frozen=True)
class Item:
    """One file of the input, on disk or in an archive.

    number: its place in the walk, from 1; the only way a report may name it. parts: the names that lead to it, from
    below the path that was given (archive and member names among them); they may hold personal data. fault: set where
    the item is refused or set aside unread; then `read` must not be called.
    """

    locator: Locator
    number: int
    parts: tuple[str, ...] = field(repr=False)
    size: int = 0
    fault: Fault | None = None

    @property
    def name(self) -> str:
        """Last part: the file's own name. May hold personal data."""
        return self.parts[-1]

    def read(self) -> bytes:
        """All bytes of the file. Raises InputError."""
        return self.locator.read()

    def head(self, count: int = HEAD_BYTES) -> bytes:
        """The first bytes of the file. Raises InputError."""
        return self.locator.head(count)


def iter_items(paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> Iterator[Item]:
    """Every file below `paths` (folders, files, archives), in name order, each once.

    An archive yields its members instead of itself; one that is unsafe, corrupt, encrypted or too deep yields one item
    with a fault. A file reached by two of the paths comes once. Raises NotThereError for a path that does not exist.
    """
    number = 0
    for found in walk(paths):
        for item in expand(found):
            number += 1
            yield Item(item.locator, number, item.parts, item.size, item.fault)


def walk(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str], exclude: Sequence[str | os.PathLike[str]] = ()
) -> Iterator[Item]:
    """Every file on disk below `paths` except those below `exclude`, in name order, each once; nothing is opened.

    number: 0. Raises NotThereError for a path that does not exist.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    left_out = {_absolute(path) for path in exclude}
    seen: set[str] = set()
    tops = [_absolute(path) for path in paths]
    for top in tops:
        if not is_object(top) and not os.path.exists(top):
            raise NotThereError("an input path does not exist", "see `ls` for its spelling")
    overlapping = any(a != b and b.startswith(os.path.join(a, "")) for a in tops for b in tops)
    for top in dict.fromkeys(tops):
        for found in _objects(top, left_out) if is_object(top) else _walk(Path(top), left_out):
            if overlapping:  # only then can a file come twice: the names of 100,000 files are not kept for nothing
                if found.locator.path in seen:
                    continue
                seen.add(found.locator.path)
            yield found


_LINK = Fault(VerdictKind.SET_ASIDE, "link", "a link: links are not followed", "give the folder that it points to")
_SPECIAL = Fault(VerdictKind.SET_ASIDE, "special-file", "a special file (pipe, device or socket): not opened")
_NO_ACCESS = Fault(VerdictKind.REJECT, "unreadable", "a file or folder cannot be read", "grant read permission")


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(path).rstrip("/") if is_object(path) else os.path.realpath(path)


def _objects(top: str, left_out: set[str]) -> Iterator[Item]:
    for url, size in list_objects(top):
        if not any(url == out or url.startswith(f"{out}/") for out in left_out):
            parts = tuple(url.removeprefix(top).strip("/").split("/"))
            yield Item(Locator(url), 0, parts if parts[0] else (top.rpartition("/")[2],), size)


def _walk(top: Path, left_out: set[str]) -> Iterator[Item]:
    """Files below `top` as the file system has them, archives unopened."""
    stack = [(str(top), (top.name,))]
    while stack:
        path, parts = stack.pop()
        if path in left_out:
            continue
        locator = Locator(path)
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                names = sorted(os.listdir(path), reverse=True)
                base = () if path == str(top) else parts
                stack.extend((os.path.join(path, name), (*base, name)) for name in names)
            elif stat.S_ISLNK(status.st_mode):
                yield Item(locator, 0, parts, 0, _LINK)
            elif not stat.S_ISREG(status.st_mode):
                yield Item(locator, 0, parts, 0, _SPECIAL)
            else:
                yield Item(locator, 0, parts, status.st_size)
        except OSError:
            yield Item(locator, 0, parts, 0, _NO_ACCESS)


def expand(item: Item) -> Iterator[Item]:
    """The item itself, or the members of the archive that it is."""
    if item.fault is not None:
        yield item
        return
    try:
        if archive_kind(item.head()) is None:
            yield item
            return
        if len(item.locator.members) >= MAX_ARCHIVE_DEPTH:
            fault = Fault(
                VerdictKind.REJECT,
                "archive-depth",
                f"archives nested more than {MAX_ARCHIVE_DEPTH} deep",
                "unpack the outer archives",
            )
            yield Item(item.locator, 0, item.parts, item.size, fault)
            return
        archive = open_archive(item.locator.path, item.locator.members)
        if archive is None:  # compressed, but no archive: a .nii.gz for one
            yield item
            return
        archive.refuse_if_unsafe()
    except ArchiveFaultError as error:
        refused = Fault(VerdictKind.REJECT, error.reason, error.detail, error.cure)
        yield Item(item.locator, 0, item.parts, item.size, refused)
        return
    except InputError as error:
        refused = Fault(VerdictKind.REJECT, "unreadable", error.problem, error.cure)
        yield Item(item.locator, 0, item.parts, item.size, refused)
        return
    except OSError:
        yield Item(item.locator, 0, item.parts, item.size, _NO_ACCESS)
        return
    yield from _members(item, archive)


def _members(item: Item, archive: Archive) -> Iterator[Item]:
    for index, member in enumerate(archive.members):
        if member.is_folder:
            continue
        parts = tuple(part for part in member.name.replace("\\", "/").split("/") if part not in ("", "."))
        inner = Item(
            Locator(item.locator.path, (*item.locator.members, index)),
            0,
            (*item.parts, *(parts or ("?",))),
            member.size,
        )
        yield from expand(inner)
