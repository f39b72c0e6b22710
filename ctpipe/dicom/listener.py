"""A C-STORE listener: what scanners and archives send is spooled, and handed on when a series has gone quiet.

::

    SPOOL/in-use                         lock: one listener a spool
    SPOOL/incoming/                      half received or half removed; dropped at the next start
    SPOOL/series/<digest>/<digest>.dcm   series that are coming in; fsynced before the sender is told that it is stored
    SPOOL/ready/<digest>-<n>/            handed on, or waiting for it; removed when that is done
    SPOOL/failed/<digest>-<n>/           what could not be taken; yours to look at and to remove

Names are digests (X11). A crash at any point keeps what was answered with success; the next start goes on with it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ctpipe.dicom.association import (
    NO_ROOM,
    NOT_UNDERSTOOD,
    STORAGE,
    STORED,
    VERIFICATION,
    Guard,
    application_entity,
    keep_instance,
)
from ctpipe.dicom.inbox import Budget, Limits, series_uid_of, write_file
from ctpipe.dicom.remote import is_loopback, is_uid
from ctpipe.errors import BudgetError, CtpipeError, InputError, StoreBusyError, UsageError

MAX_ASSOCIATIONS = 8
POLL_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 3600.0  # between tries to hand on what the store had no room or time for

OnSeries = Callable[[list[Path]], None]
Note = Callable[[str], None]


def listen(
    spool: str | Path, on_series: OnSeries, host: str = "127.0.0.1", port: int = 11112, aet: str = "CTPIPE",
    calling: Sequence[str] = (), quiet_seconds: float = 30.0, once: bool = False, note: Note | None = None,
) -> None:  # fmt: skip
    """Receive CT (and segmentations, RT structure sets) until interrupted, and hand on each series gone quiet.

    spool: a private folder, made with mode 0700. on_series: called with [folder of the series]; when it returns, the
    folder is removed. A CtpipeError that passes by itself (StoreBusyError, BudgetError) is tried again later; any other
    error moves the folder to `failed`, and the listener goes on. calling: AE titles that may send; needed for any host
    but loopback. A series is quiet when nothing of it came for `quiet_seconds` since who sent it closed.
    once: return when something came and all of it was handed on; errors are then raised. note: gets one line for
    what a user wants to know, never with a value from a file.
    Raises UsageError, StoreBusyError (the spool is another listener's).
    """
    if not calling and not is_loopback(host):
        raise UsageError(f"anyone who reaches {host} could send", "name the AE titles that may, with --from AET")
    if quiet_seconds <= 0:
        raise UsageError("the time to wait for more of a series is not above 0", "give seconds, such as 30")
    say = note or (lambda _line: None)
    with _own_spool(Path(spool)) as folder:
        # the free space is the only limit on all of a spool: it is emptied as it is filled
        limits = Limits.from_environment()
        reception = _Reception(folder, Guard(limits), limits)
        with _server(reception, host, port, aet, calling, limits):
            say(f"listening as {aet} on {host}:{port}; what comes is handed on {quiet_seconds:g} s after its last file")
            _HandOn(reception, on_series, quiet_seconds, once, say).run()


@contextmanager
def _own_spool(spool: Path) -> Iterator[Path]:
    """The spool's folders, locked for this process; what was half received is dropped."""
    try:
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = spool.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077 or not stat.S_ISDIR(status.st_mode):
            raise UsageError("the spool folder can be read by others", f"chmod 700 {spool}")
        shutil.rmtree(spool / "incoming", ignore_errors=True)
        for name in ("incoming", "series", "ready", "failed"):
            (spool / name).mkdir(exist_ok=True, mode=0o700)
        descriptor = os.open(spool / "in-use", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"the spool {spool} cannot be used ({error.strerror})", "choose another folder") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreBusyError(f"another listener uses the spool {spool}", "end it, or choose another spool") from None
    try:
        yield spool
    finally:
        os.close(descriptor)


@contextmanager
def _server(
    reception: _Reception, host: str, port: int, aet: str, calling: Sequence[str], limits: Limits
) -> Iterator[None]:
    entity = application_entity(aet, limits)
    from pynetdicom import evt

    entity.require_called_aet, entity.require_calling_aet = True, list(calling)
    entity.maximum_associations = MAX_ASSOCIATIONS
    entity.add_supported_context(VERIFICATION)
    for kind, syntaxes in STORAGE.items():
        entity.add_supported_context(kind, list(syntaxes))
    handlers: list[Any] = [(evt.EVT_CONN_OPEN, reception.guard.opened), (evt.EVT_C_STORE, reception.store),
                           (evt.EVT_CONN_CLOSE, reception.closed)]  # fmt: skip
    try:
        server: Any = entity.start_server((host, port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be listened on ({error.strerror})", "give another --port") from None
    try:
        yield
    finally:
        server.shutdown()
        for assoc in server.active_associations:
            assoc.abort()


@dataclass
class _Incoming:
    """A series on its way in. last: time of its last file or farewell; senders: open associations that sent of it."""

    last: float
    senders: set[Any] = field(default_factory=set)


class _Reception:
    """Takes instances into the spool; its methods run in the threads of the associations."""

    def __init__(self, spool: Path, guard: Guard, limits: Limits) -> None:
        self.spool, self.guard = spool, guard
        self._limits = limits
        self._lock = threading.Lock()
        now = time.monotonic()
        found = [folder for folder in sorted((spool / "series").iterdir()) if any(folder.iterdir())]
        self._incoming = {folder.name: _Incoming(now) for folder in found}
        self.came = bool(self._incoming)

    def store(self, event: Any) -> int:
        """For evt.EVT_C_STORE: the instance is on disk for good before success is answered (PS3.4 B.2.3)."""
        try:
            keep_instance(event, lambda chunks: self._keep(event.assoc, chunks))
        except BudgetError:
            return NO_ROOM
        except InputError:
            return NOT_UNDERSTOOD
        finally:
            self.guard.handled(event.assoc)
        return STORED

    def _keep(self, sender: Any, chunks: list[bytes | memoryview]) -> None:
        part = self.spool / "incoming" / secrets.token_hex(16)
        digest = write_file(part, chunks, Budget(self._limits), sync=True)
        try:
            with part.open("rb") as file:
                series = series_uid_of(file)
            if not is_uid(series):
                raise InputError("an instance names no series", "see the sender")
            name = sha256(str(series).encode("ascii")).hexdigest()[:32]
            with self._lock:
                folder = self.spool / "series" / name
                folder.mkdir(exist_ok=True, mode=0o700)
                part.rename(folder / f"{digest}.dcm")  # the same bytes again take the same place
                _sync(folder)
                incoming = self._incoming.setdefault(name, _Incoming(0.0))
                incoming.last = time.monotonic()
                incoming.senders.add(sender)
                self.came = True
        finally:
            part.unlink(missing_ok=True)

    def closed(self, event: Any) -> None:
        """For evt.EVT_CONN_CLOSE: this sender will send no more."""
        with self._lock:
            for incoming in self._incoming.values():
                if event.assoc in incoming.senders:
                    incoming.senders.remove(event.assoc)
                    incoming.last = time.monotonic()  # some open an association for each instance

    def waiting(self) -> bool:
        """Whether anything is still coming in."""
        with self._lock:
            return bool(self._incoming)

    def take_quiet(self, quiet_seconds: float) -> list[Path]:
        """Folders of series that went quiet, moved to `ready`: what comes later begins a folder of its own."""
        now, taken = time.monotonic(), []
        with self._lock:
            names = [name for name, series in self._incoming.items()
                     if now - series.last >= quiet_seconds
                     and not any(sender.is_alive() for sender in series.senders)]  # fmt: skip
            for name in names:
                del self._incoming[name]
                target = self.spool / "ready" / f"{name}-{secrets.token_hex(4)}"
                (self.spool / "series" / name).rename(target)
                taken.append(target)
        return taken


class _HandOn:
    """Hands series to the caller of `listen`, one at a time, in its thread."""

    def __init__(
        self, reception: _Reception, on_series: OnSeries, quiet_seconds: float, once: bool, note: Note
    ) -> None:
        self._reception, self._on_series, self._note = reception, on_series, note
        self._quiet_seconds, self._once = quiet_seconds, once
        # folders to hand on -> when; those of a listener that was killed come first
        self._due = {folder: 0.0 for folder in sorted((reception.spool / "ready").iterdir())}
        self._tries: dict[Path, int] = {}
        self._seen: set[str] = set()

    def run(self) -> None:
        """Until interrupted, or with `once` until all that came was handed on."""
        while True:
            came = self._reception.came or bool(self._due)
            for folder in self._reception.take_quiet(self._quiet_seconds):
                self._due[folder] = 0.0
            for folder in [folder for folder, when in self._due.items() if when <= time.monotonic()]:
                self._hand_on(folder)
            if self._once and came and not self._due and not self._reception.waiting():
                return
            time.sleep(min(POLL_SECONDS, self._quiet_seconds))

    def _hand_on(self, folder: Path) -> None:
        name = folder.name.partition("-")[0]
        if name in self._seen and folder not in self._tries:
            self._note("more of a series came after it was handed on, and is judged by itself: raise --quiet-for")
        self._seen.add(name)
        try:
            self._on_series([folder])
        except (StoreBusyError, BudgetError) as error:
            if self._once:
                raise
            tries = self._tries[folder] = self._tries.get(folder, 0) + 1
            wait = min(self._quiet_seconds * 2**tries, LONGEST_WAIT_SECONDS)
            self._due[folder] = time.monotonic() + wait
            self._note(f"{error.problem}; tried again in {wait:.0f} s")
            return
        except Exception as error:  # one bad series never stops the others; its text may quote a file (P3)
            self._set_aside(folder, str(error) if isinstance(error, CtpipeError) else type(error).__name__)
            if self._once:
                raise
        else:
            self._remove(folder)
        del self._due[folder]
        self._tries.pop(folder, None)

    def _remove(self, folder: Path) -> None:
        """Out of `ready` at once: half of it, after a crash, would look like a shorter series."""
        target = self._reception.spool / "incoming" / folder.name
        folder.rename(target)
        shutil.rmtree(target, ignore_errors=True)

    def _set_aside(self, folder: Path, why: str) -> None:
        target = self._reception.spool / "failed" / folder.name
        folder.rename(target)
        self._note(f"a series could not be taken and is kept in {target}: {why}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
