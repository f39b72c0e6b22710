"""All file input and output of the store: whole files, written to a side file, synced, then renamed into place.

A file is there whole or not at all; after `write_atomic` returns it survives a power cut. A failed fsync is never tried
again on the same file: the kernel may have dropped the pages and would then call the second try a success.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctpipe.errors import BudgetError, CtpipeError, StoreFaultError, UsageError
from ctpipe.store.layout import PARTIAL

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_atomic(path: Path, data: bytes | memoryview, *, exclusive: bool = False) -> bool:
    """Put `data` at `path` whole and synced, file and folder; False if `exclusive` and the file is there already."""
    size = memoryview(data).nbytes
    side = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    with plain_errors(path, size):
        _make_folder(path.parent)
        try:
            with open(side, "wb") as stream:
                stream.write(data)
                stream.flush()
                sync(stream.fileno())
            if exclusive:
                try:
                    os.link(side, path)
                except FileExistsError:
                    return False
            else:
                os.replace(side, path)
        finally:
            side.unlink(missing_ok=True)
        sync_folder(path.parent)
    return True


def open_lock(path: Path) -> int:
    """Descriptor of a file that is only locked, never read; made where there is none."""
    with plain_errors(path, 0):
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def sync(descriptor: int) -> None:
    """fsync, in one place so that a test can fail it."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each synced in its own parent."""
    with plain_errors(folder, 0):
        _make_folder(folder)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def read(path: Path) -> bytes | None:
    """All bytes of a file, None where there is none; StoreFaultError where the disk will not give them."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read: permission denied", "ask its owner for the right to read") from error
    except OSError as error:
        raise StoreFaultError(f"{path} cannot be read: {_why(error)}", "check the disk, then run verify") from error


def size(path: Path) -> int | None:
    """Bytes in a file, None where there is none."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def names(folder: Path) -> list[str]:
    """Names in a folder, sorted; none where there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed: {_why(error)}", "check the path and your rights") from error


def remove(path: Path) -> bool:
    """Remove a file or a whole folder; False where there was none. The parent is synced."""
    with plain_errors(path, 0):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink(missing_ok=True)
        else:
            return False
        sync_folder(path.parent)
    return True


@contextmanager
def plain_errors(path: Path, wanted: int) -> Iterator[None]:
    """What the disk says, as errors of ctpipe; wanted: bytes that are to be written to `path`."""
    try:
        yield
    except OSError as error:
        raise _plain(error, path, wanted) from error


def _plain(error: OSError, path: Path, wanted: int) -> CtpipeError:
    if error.errno in _FULL:
        return BudgetError(
            f"the disk is full: {wanted / 1e6:.3f} MB wanted for {path}, {_free(path)} free",
            "free some space and run the same line again: it goes on where it stopped",
        )
    if error.errno in _DENIED:
        return UsageError(f"{path} cannot be written: {_why(error)}", "check who may write there")
    return StoreFaultError(f"{path} cannot be written: {_why(error)}", "check the disk, then run the same line again")


def _free(path: Path) -> str:
    for folder in path.parents:
        try:
            return f"{shutil.disk_usage(folder).free / 1e6:.3f} MB"
        except OSError:
            continue
    return "nothing"


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__
