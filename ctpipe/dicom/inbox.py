"""Where received files go: a private folder, with limits on size and time; names are numbers or digests (X11)."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from ctpipe.errors import BudgetError, InputError, UsageError

GIB = 1 << 30
BUDGET_VARIABLE = "CTPIPE_FETCH_GIB"
WAIT_VARIABLE = "CTPIPE_NETWORK_WAIT"


@dataclass(frozen=True)
class Limits:
    """What one fetch may cost. Bytes and seconds.

    instance_bytes: of one instance. total_bytes: of all. free_bytes: what stays free on the disk. silence_seconds: how
    long nothing may come. Fewer than pace_bytes in pace_seconds of waiting is as good as nothing.
    """

    instance_bytes: int = 4 * GIB
    total_bytes: int = 64 * GIB
    free_bytes: int = GIB
    connect_seconds: float = 10.0
    silence_seconds: float = 30.0
    pace_bytes: int = 64 << 10

    @property
    def pace_seconds(self) -> float:
        return 2 * self.silence_seconds

    @classmethod
    def from_environment(cls) -> Limits:
        """The limits, with CTPIPE_FETCH_GIB and CTPIPE_NETWORK_WAIT (seconds) where they are set. Raises UsageError."""
        return cls(total_bytes=int(_number(BUDGET_VARIABLE, 64.0) * GIB), silence_seconds=_number(WAIT_VARIABLE, 30.0))


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 < value < 1e9:
        raise UsageError(f"{variable} is no number above 0", f"set it to a number such as {default:g}, or unset it")
    return value


@dataclass
class Pace:
    """Ends a peer that sends next to nothing: counts bytes against the time spent waiting for them."""

    limits: Limits
    place: str
    waited: float = 0.0
    got: int = 0

    def count(self, n_bytes: int, seconds: float) -> None:
        """Raises InputError where too little came in the last `pace_seconds` of waiting."""
        self.waited += seconds
        self.got += n_bytes
        if self.waited < self.limits.pace_seconds:
            return
        if self.got < self.limits.pace_bytes:
            raise InputError(f"{self.place} sends too slowly to be waited for",
                             f"try again later, or set {WAIT_VARIABLE} to more seconds")  # fmt: skip
        self.waited, self.got = 0.0, 0


@dataclass
class Budget:
    """Bytes that may still be received, over all series of one call."""

    limits: Limits
    used: int = 0

    def take(self, n_bytes: int, folder: Path) -> None:
        """Count bytes before they are written. Raises BudgetError where they are too many, here or on the disk."""
        self.used += n_bytes
        if self.used > self.limits.total_bytes:
            gib = self.limits.total_bytes / GIB
            raise BudgetError(f"the network sources hold more than {gib:g} GiB",
                              f"ask for fewer series, or set {BUDGET_VARIABLE}")  # fmt: skip
        missing = n_bytes + self.limits.free_bytes - shutil.disk_usage(folder).free
        if missing > 0:
            raise BudgetError(f"the disk of the temporary folder lacks {missing / 2**20:.0f} MiB for received files",
                              "free some space, or set TMPDIR to a larger disk")  # fmt: skip


@dataclass
class Inbox:
    """Receives the instances of one series into `folder`, bytes as they came.

    series: UIDs that were asked for; an instance of another series is refused (a mixed-up answer could be another
    patient's). Files are numbered, so that what came twice is there twice and is judged as such.
    """

    folder: Path
    budget: Budget
    series: frozenset[str] = field(default_factory=frozenset, repr=False)
    count: int = 0
    on_file: Callable[[], None] | None = None

    def add(self, chunks: Iterable[bytes | memoryview]) -> Path:
        """Write one instance and return its file.

        Raises InputError (too large, or of a series that was not asked for), BudgetError.
        """
        path = self.folder / f"{self.count + 1:08d}.dcm"
        write_file(path, chunks, self.budget)
        with path.open("rb") as file:
            strange = bool(self.series) and series_uid_of(file) not in (None, *self.series)
        if strange:
            path.unlink()
            raise InputError("the server sent an instance of a series that was not asked for", "see the server's log")
        self.count += 1
        if self.on_file:
            self.on_file()
        return path


def write_file(path: Path, chunks: Iterable[bytes | memoryview], budget: Budget, *, sync: bool = False) -> str:
    """Write a new file of mode 0600 and return the SHA-256 of its bytes; what fails leaves no file.

    Raises InputError where it is longer than an instance may be, BudgetError where there is no room.
    """
    digest, size = sha256(), 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    size += len(chunk)
                    if size > budget.limits.instance_bytes:
                        gib = budget.limits.instance_bytes / GIB
                        raise InputError(f"an instance is too large: the limit is {gib:g} GiB", "leave it out")
                    budget.take(len(chunk), path.parent)
                    file.write(chunk)
                    digest.update(chunk)
                file.flush()
                if sync:
                    os.fsync(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BudgetError("the disk of the received files is full", "free some space, then try again") from None
        raise InputError(f"a received file cannot be written ({error.strerror})", "see the temporary folder") from None
    return digest.hexdigest()


def series_uid_of(file: BinaryIO) -> str | None:
    """SeriesInstanceUID of an encoded object; None where it cannot be read (it is then judged as it is)."""
    from ctpipe.dicom import elements
    from ctpipe.dicom.parse import ParseFaultError, parse, quiet

    try:
        parsed = parse(file)
        with quiet():
            return elements.text(parsed.ds, "SeriesInstanceUID") or None
    except ParseFaultError as fault:
        return fault.series_uid
