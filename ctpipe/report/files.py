"""Writing a report file: whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from ctpipe.errors import BudgetError, UsageError


def write_whole(path: Path, data: bytes) -> None:
    """`data` into a new file beside `path`, then renamed into place; a reader never sees half of it.

    Raises BudgetError where the disk is full, UsageError where the folder cannot be written or `path` is anything but
    a plain file: a rename would put a file in the place of a device, a pipe or a link.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise UsageError(f"{path} is there and is no plain file", "name a new file for the report")
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem = f"the disk is full: the report {path.name} needs {len(data)} bytes"
            raise BudgetError(problem, "free some space or write elsewhere") from error
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        problem = f"the report {path} cannot be written: {reason}"
        raise UsageError(problem, "name a file in a folder you may write") from error
