"""Sources on the network as folders: fetched into a private temporary folder that is removed at the end.

Received files are then judged like any others. The folder is in TMPDIR, of mode 0700, never beside the data; what a
killed process left behind is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ctpipe.dicom.inbox import Budget, Inbox, Limits
from ctpipe.dicom.remote import RemoteUrl, SeriesRef, is_network, parse_url
from ctpipe.errors import InputError
from ctpipe.words import Progress, VerdictKind

if TYPE_CHECKING:
    from ctpipe.dicom.verdict import Verdict

__all__ = ["fetch", "is_network"]

_PREFIX, _LOCK = "ctpipe-fetch-", "in-use"


class _Session(Protocol):
    def find(self) -> list[SeriesRef]: ...

    def retrieve(self, wanted: SeriesRef, inbox: Inbox) -> None: ...


@contextmanager
def fetch(
    paths: Sequence[str | Path], progress: Progress = None, faults: list[Verdict] | None = None
) -> Iterator[list[str | Path]]:
    """The paths, with each URL of a DICOMweb server or PACS replaced by a folder of its files; a context manager.

    All other paths pass unchanged. progress: called as progress("fetch", instances done, instances known of).
    faults: a series that cannot be fetched becomes a verdict here and the others go on; without it, it raises.
    Raises UsageError for a URL that cannot be used, InputError where a server cannot be asked or has nothing that the
    query asks for, BudgetError.
    """
    if not any(map(is_network, paths)):
        yield list(paths)
        return
    urls = {number: parse_url(path) for number, path in enumerate(paths) if is_network(path)}
    budget = Budget(Limits.from_environment())
    counter = _Counter(progress)
    with _private_folder() as top:
        local = list(paths)
        for number, url in urls.items():
            local[number] = top / f"{number:04d}"
            _fetch_source(url, top / f"{number:04d}", budget, counter, faults)
        yield local


def _fetch_source(
    url: RemoteUrl, folder: Path, budget: Budget, counter: _Counter, faults: list[Verdict] | None
) -> None:
    folder.mkdir(mode=0o700)
    with _session(url, budget.limits) as session:
        found = session.find()
        counter.total += sum(wanted.count or 0 for wanted in found)
        for number, wanted in enumerate(found):
            inbox = Inbox(folder / f"{number:06d}", budget, frozenset({wanted.series}), on_file=counter.count)
            inbox.folder.mkdir(mode=0o700)
            try:
                session.retrieve(wanted, inbox)
            except InputError as error:
                shutil.rmtree(inbox.folder)  # a series that did not come whole must not look like a shorter one
                if faults is None:
                    raise
                faults.append(_not_fetched(error, inbox.count))


def _session(url: RemoteUrl, limits: Limits) -> AbstractContextManager[_Session]:
    if url.kind == "dicomweb":
        from ctpipe.dicom.web import WebSession

        return WebSession(url, limits)
    from ctpipe.dicom.pacs import PacsSession

    return PacsSession(url, limits)


def _not_fetched(error: InputError, n_files: int) -> Verdict:
    from ctpipe.dicom.verdict import Verdict

    return Verdict(VerdictKind.REJECT, "not-fetched", error.problem, error.cure, n_files)


class _Counter:
    """Instances received of those known of, for a progress bar."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.done, self.total = progress, 0, 0

    def count(self) -> None:
        self.done += 1
        if self.progress:
            self.progress("fetch", self.done, max(self.total, self.done))


# ---------------------------------------------------------------------------------------------- the folder
@contextmanager
def _private_folder() -> Iterator[Path]:
    """A new folder of mode 0700, removed at the end; first removes those of processes that are gone."""
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        newborn = folder / "new"
        descriptor = os.open(newborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            newborn.rename(folder / _LOCK)  # only now can another process see it, and finds it held
            (folder / "files").mkdir(mode=0o700)
            yield folder / "files"
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(top: Path) -> None:
    """Remove our own user's folders whose process is gone: received files name patients and must not stay."""
    for folder in top.glob(f"{_PREFIX}*"):
        try:
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use
        finally:
            os.close(descriptor)
