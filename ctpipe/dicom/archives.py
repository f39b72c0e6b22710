"""Archives (.zip, .tar, .tar.gz) read in memory: member names are never paths, sizes are checked before reading.

An archive is refused whole for one unsafe name, link, device, encrypted or overlarge member: what an attacker packed
beside it is not worth a guess (corpus policy, rule 13).
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import os
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal, Protocol, cast

from ctpipe.dicom.objects import is_object, open_object
from ctpipe.errors import BudgetError

MIB = 1 << 20
MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 4 << 30
# A mask plane of zeros shrinks a thousandfold, so the ratio counts only above a size that hurts.
RATIO_COUNTS_ABOVE = 64 * MIB
MAX_RATIO = 200
MAX_TOTAL_BYTES = 1 << 40
MAX_ARCHIVE_BYTES = 64 << 30  # of one in a bucket, which is fetched whole
IN_MEMORY_BYTES = 64 * MIB  # larger inner archives go to an unnamed temporary file
COPY_BYTES = MIB
OPEN_ARCHIVES = 4
KEPT_MEMBER_BYTES = 4 * MIB  # a member of this size is unpacked once for its head and its whole

Kind = Literal["zip", "tar", "gzip"]


class ArchiveFaultError(Exception):
    """An archive that is refused; holds no member name."""

    def __init__(self, reason: str, detail: str, cure: str = "unpack the archive and give the folder") -> None:
        super().__init__(reason, detail, cure)
        self.reason, self.detail, self.cure = reason, detail, cure


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    name: str
    size: int
    packed: int
    is_folder: bool
    trouble: Literal["link", "device", "encrypted"] | None = None


class Archive(Protocol):
    """An open archive: its members by index, and the bytes of one of them."""

    members: list[Member]

    def read(self, index: int, count: int) -> bytes:
        """First `count` bytes of a member. Raises ArchiveFaultError."""

    def refuse_if_unsafe(self) -> None:
        """Raises ArchiveFaultError for names, kinds or sizes that are refused whole."""


def archive_kind(head: bytes) -> Kind | None:
    """What the first bytes of a file say it is; a DICOM preamble may hold anything, so DICM at 128 comes first."""
    if head[128:132] == b"DICM":
        return None
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    return None


def member_name_is_unsafe(name: str) -> bool:
    """Whether a name would leave the folder it is unpacked to, on any system."""
    flat = name.replace("\\", "/")
    return flat.startswith("/") or flat[1:2] == ":" or ".." in flat.split("/") or "\0" in flat


def _refuse_if_unsafe(members: list[Member]) -> None:
    if len(members) > MAX_MEMBERS:
        raise ArchiveFaultError("bomb", f"an archive is too large: more than {MAX_MEMBERS} members")
    for trouble, reason, detail in (
        ("link", "unsafe-path", "an unsafe archive: it holds links"),
        ("device", "unsafe-path", "an unsafe archive: it holds special files, which have no place beside images"),
        ("encrypted", "unreadable", "an archive that cannot be read: its members are encrypted"),
    ):
        if any(member.trouble == trouble for member in members):
            raise ArchiveFaultError(reason, detail)
    if any(member_name_is_unsafe(member.name) for member in members):
        raise ArchiveFaultError("unsafe-path", "an unsafe archive: a member's name points outside the archive")
    for member in members:
        if member.size > MAX_MEMBER_BYTES or (
            member.size > RATIO_COUNTS_ABOVE and member.size > MAX_RATIO * max(member.packed, 1)
        ):
            raise ArchiveFaultError("bomb", "an archive member is too large or expands beyond the ratio limit")
    if sum(member.size for member in members) > MAX_TOTAL_BYTES:
        raise ArchiveFaultError("bomb", "an archive is too large: its members exceed the size limit")


_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    gzip.BadGzipFile,
    ValueError,
)


def _zip_trouble(info: zipfile.ZipInfo) -> Literal["link", "encrypted"] | None:
    if info.flag_bits & 1:
        return "encrypted"
    return "link" if stat.S_ISLNK(info.external_attr >> 16) else None


class ZipArchive:
    """A .zip."""

    def __init__(self, file: IO[bytes]) -> None:
        self._lock = threading.Lock()
        self._last: tuple[int, bytes] = (-1, b"")
        try:
            self._zip = zipfile.ZipFile(file)
        except _BROKEN:
            raise ArchiveFaultError(
                "unreadable", "a zip archive that cannot be read: it is corrupt or truncated", "fetch the archive again"
            ) from None
        self._file = file
        self.members = [
            Member(info.filename, info.file_size, info.compress_size, info.is_dir(), _zip_trouble(info))
            for info in self._zip.infolist()
        ]

    def refuse_if_unsafe(self) -> None:
        _refuse_if_unsafe(self.members)

    def read(self, index: int, count: int) -> bytes:
        try:
            with self._lock:
                if self._last[0] == index:
                    return self._last[1][:count]
                info = self._zip.infolist()[index]
                with self._zip.open(info) as member:
                    if info.file_size > KEPT_MEMBER_BYTES:
                        return member.read(count)
                    self._last = (index, member.read())
                return self._last[1][:count]
        except (*_BROKEN, IndexError):
            raise ArchiveFaultError(
                "unreadable",
                "an archive member cannot be read: its checksum or data is corrupt",
                "fetch the archive again",
            ) from None

    def __del__(self) -> None:
        if hasattr(self, "_zip"):
            self._zip.close()
            self._file.close()


class TarArchive:
    """A .tar; compressed ones are unpacked to an unnamed temporary file first, so that any member can be reached."""

    def __init__(self, file: IO[bytes], packed: int) -> None:
        self._lock = threading.Lock()
        self._file = file
        try:
            with tarfile.open(fileobj=file, mode="r:", errorlevel=1) as tar:
                infos = tar.getmembers()
        except (*_BROKEN, OSError):
            raise ArchiveFaultError(
                "unreadable", "a tar archive that cannot be read: it is corrupt or truncated", "fetch the archive again"
            ) from None
        self._end = file.seek(0, os.SEEK_END)
        self._places = [(info.offset_data, info.size) for info in infos]
        self.members = [
            Member(
                info.name,
                info.size,
                max(packed, 1),
                info.isdir(),
                "link"
                if info.issym() or info.islnk()
                else None
                if info.isdir() or (info.isfile() and not info.issparse())
                else "device",
            )
            for info in infos
        ]

    def refuse_if_unsafe(self) -> None:
        _refuse_if_unsafe(self.members)
        if any(start + size > self._end for start, size in self._places):
            raise ArchiveFaultError(
                "unreadable", "a tar archive that cannot be read: it is truncated", "fetch the archive again"
            )

    def read(self, index: int, count: int) -> bytes:
        if index >= len(self._places):
            raise ArchiveFaultError("unreadable", "an archive changed since it was checked", "check the input again")
        start, size = self._places[index]
        with self._lock:
            self._file.seek(start)
            data = self._file.read(min(size, count))
        if len(data) < min(size, count):
            raise ArchiveFaultError("unreadable", "a tar archive is truncated", "fetch the archive again")
        return data

    def __del__(self) -> None:
        self._file.close()


def _spill(out: IO[bytes], block: bytes) -> None:
    """Add a block to a temporary file. Raises BudgetError where the temporary folder has no room for it."""
    try:
        out.write(block)
        out.flush()
    except OSError as error:
        with suppress(OSError):
            out.close()
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BudgetError(
            "the disk of the temporary folder is full: a compressed archive is unpacked there",
            "set TMPDIR to a folder with more space, or unpack the archive and give the folder",
        ) from None


def _unpacked(file: IO[bytes], packed: int) -> IO[bytes] | None:
    """The tar within a gzip file, or None where something else was compressed (a NIfTI volume, say)."""
    out: IO[bytes] | None = None
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            start = stream.read(512)
            if archive_kind(start) != "tar":
                return None
            # it lives as long as the archive
            out = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES))  # noqa: SIM115
            _spill(out, start)
            size = len(start)
            while block := stream.read(COPY_BYTES):
                size += len(block)
                if size > MAX_TOTAL_BYTES or (size > RATIO_COUNTS_ABOVE and size > MAX_RATIO * packed):
                    out.close()
                    raise ArchiveFaultError("bomb", "an archive expands beyond the ratio limit: too large")
                _spill(out, block)
    except (*_BROKEN, OSError):
        if out is not None:
            out.close()
        raise ArchiveFaultError(
            "unreadable",
            "a compressed archive that cannot be read: it is corrupt or truncated",
            "fetch the archive again",
        ) from None
    out.seek(0)
    return out


def _open(file: IO[bytes], size: int) -> Archive | None:
    """The archive in `file`, which it takes over, or None for a compressed file that is no archive."""
    try:
        kind = archive_kind(file.read(512))
        file.seek(0)
        if kind == "zip":
            return ZipArchive(file)
        if kind == "gzip":
            inner = _unpacked(file, size)
            file.close()
            if inner is None:
                return None
            file, kind = inner, "tar"
        if kind == "tar":
            return TarArchive(file, size)
        raise ArchiveFaultError("unreadable", "a file is no archive any more", "check the input again")
    except (ArchiveFaultError, BudgetError):
        file.close()
        raise


_cache: OrderedDict[tuple, Archive] = OrderedDict()
_cache_lock = threading.RLock()


def _version(path: str) -> tuple[int, ...]:
    if is_object(path):  # not asked for again and again; its planes are held against their digests
        return ()
    status = os.lstat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _downloaded(url: str) -> IO[bytes]:
    """An archive in a bucket, in an unnamed temporary file: a member may stand anywhere in it."""
    out = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - lives as long as the archive
    with open_object(url) as source:
        size = 0
        while block := bytes(source.read(COPY_BYTES)):
            size += len(block)
            if size > MAX_ARCHIVE_BYTES:
                out.close()
                raise ArchiveFaultError("bomb", "an archive in a bucket is too large: the limit is 64 GiB")
            _spill(out, block)
    out.seek(0)
    return out


def open_archive(path: str, members: tuple[int, ...]) -> Archive:
    """The archive at `path`, or the one that is member `members` within it; a few stay open, per process.

    Raises ArchiveFaultError, OSError. Returns None for a compressed file that is no archive.
    """
    # A forked child shares its parent's file positions: it must open its own.
    key = (os.getpid(), path, members, *_version(path))
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        if members:
            outer = open_archive(path, members[:-1])
            data = outer.read(members[-1], MAX_MEMBER_BYTES + 1)
            file: IO[bytes] = io.BytesIO(data)
            archive = _open(file, len(data))
        elif is_object(path):
            file = _downloaded(path)
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            archive = _open(file, size)
        else:
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
            archive = _open(file, os.fstat(file.fileno()).st_size)
        if archive is not None:
            _cache[key] = archive
            while len(_cache) > OPEN_ARCHIVES:
                # Not closed here: a thread may still read from it; the last reference closes it.
                _cache.popitem(last=False)
        return archive  # type: ignore[return-value]
