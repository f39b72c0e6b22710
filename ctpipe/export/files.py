"""Files that are written piece by piece: beside their place first, then renamed into it, whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ctpipe.errors import BudgetError, UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, at `path` once the block ends well; of a block that fails nothing stays.

    Raises UsageError where the folder cannot be written or `path` is anything but a plain file, BudgetError where the
    disk is full.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise UsageError(f"{path} is there and is no plain file", "name a new file with --out")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w+b") as file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BudgetError(f"the disk is full: {path.name} was not written", "free some space or write elsewhere") \
                from error  # fmt: skip
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise UsageError(f"{path} cannot be written: {reason}", "name a file in a folder you may write") from error
    finally:
        with suppress(OSError):
            partial.unlink()
