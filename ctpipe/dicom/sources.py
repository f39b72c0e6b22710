"""Where files come from: folders at any nesting, single files, and .zip and .tar archives read in memory.

Nothing is ever unpacked to a named path, links are not followed, special files are not opened. Names serve only to
tell items apart and, for label folders, to name a structure; they never become a path or part of a message.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ctpipe.dicom.archives import Archive, ArchiveFaultError, archive_kind, open_archive
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

    path: str
    members: tuple[int, ...] = ()

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
        try:
            if not self.members:
                return _read_file(self.path, count, start)
            return open_archive(self.path, self.members[:-1]).read(self.members[-1], count)
        except ArchiveFaultError as fault:
            raise InputError(fault.detail, fault.cure) from None
        except OSError as error:
            problem = f"a source file cannot be read ({error.strerror or 'input/output error'})"
            raise InputError(problem, "see that the input is still where it was, then check it again") from None


def _read_file(path: str, count: int, start: int) -> bytes:
    """`count` bytes of a regular file from `start`; never follows a link, never waits on a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("a source file is no regular file any more", "give regular files")
        if count > MAX_ITEM_BYTES and status.st_size > MAX_ITEM_BYTES:
            raise InputError("a file is too large: the limit is 4 GiB", "split the object, or leave it out")
        file.seek(start)
        return file.read(count)


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
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    number = 0
    seen: set[str] = set()
    for given in paths:
        top = Path(os.path.realpath(given))
        if not top.exists():
            raise NotThereError("an input path does not exist", "see `ls` for its spelling")
        for found in _walk(top):
            if found.locator.path in seen:
                continue
            seen.add(found.locator.path)
            for item in _expand(found):
                number += 1
                yield Item(item.locator, number, item.parts, item.size, item.fault)


def count_items(paths: Iterable[str | os.PathLike[str]]) -> int:
    """How many items there will be, for a progress bar: members of outer archives counted, inner archives as one."""
    total = 0
    for given in paths:
        for item in _walk(Path(os.path.realpath(given))):
            total += 1
            try:
                if item.fault is None and archive_kind(item.head(512)) in ("zip", "tar"):
                    total += len(open_archive(item.locator.path, ()).members) - 1
            except (ArchiveFaultError, InputError, OSError):
                continue  # it will be one item with a fault
    return total


_LINK = Fault(VerdictKind.SET_ASIDE, "link", "a link: links are not followed", "give the folder that it points to")
_SPECIAL = Fault(VerdictKind.SET_ASIDE, "special-file", "a special file (pipe, device or socket): not opened")
_NO_ACCESS = Fault(VerdictKind.REJECT, "unreadable", "a file or folder cannot be read", "grant read permission")


def _walk(top: Path) -> Iterator[Item]:
    """Files below `top` as the file system has them, archives unopened."""
    stack = [(str(top), (top.name,))]
    while stack:
        path, parts = stack.pop()
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


def _expand(item: Item) -> Iterator[Item]:
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
        yield from _expand(inner)
