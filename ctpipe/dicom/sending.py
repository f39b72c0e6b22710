"""Sending DICOM files: by C-STORE to a PACS (PS3.4 annex B), by STOW-RS to a DICOMweb server (PS3.18 10.5).

Every file is read before anything is sent, so that one that is no DICOM object stops the call while nothing is done.
Pixels go as they are stored. The hosts, certificates and passwords are those of fetching (`remote`, `logins`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ctpipe.dicom import elements
from ctpipe.dicom.association import VERIFICATION
from ctpipe.dicom.inbox import Limits
from ctpipe.dicom.parse import ParseFaultError, looks_like_dicom, parse, quiet
from ctpipe.dicom.remote import RemoteUrl, is_uid, parse_target
from ctpipe.dicom.sources import Item, Locator, iter_items
from ctpipe.errors import InputError, UsageError
from ctpipe.words import Progress

PSEUDONYM_METHOD = "ctpipe: keyed pseudonyms"  # DeidentificationMethod of what was exported without its originals
MAX_CONTEXTS = 128  # of one association (PS3.8 7.1.1.13)
_NEW_CLASSES = {"1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage"}  # younger than pydicom's dictionary
_STORED_ANYWAY = (0xB000, 0xB006, 0xB007)  # warnings: something was coerced or ignored, the instance is stored


@dataclass(frozen=True)
class Parcel:
    """One file to send. number: its place in the walk; kind: the name of its SOP class in the standard.

    pseudonymous: whether it names pseudonyms in place of a patient.
    """

    locator: Locator
    number: int
    kind: str
    sop_class: str
    sop_instance: str = field(repr=False)
    syntax: str = ""
    size: int = 0
    pseudonymous: bool = False


@dataclass(frozen=True)
class SendReport:
    """What was sent, or would be. refused: number of a file -> one line; sent is False for a dry run."""

    place: str
    parcels: tuple[Parcel, ...]
    sent: bool
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return 3 if self.refused else 0

    def as_json(self) -> dict[str, Any]:
        files = [
            {"number": parcel.number, "kind": parcel.kind, "bytes": parcel.size, "pseudonyms": parcel.pseudonymous,
             "state": self.refused.get(parcel.number) or ("stored" if self.sent else "not sent: dry run")}
            for parcel in self.parcels
        ]  # fmt: skip
        return {"to": self.place, "sent": self.sent, "files": files}


class _Session(Protocol):
    def store(self, parcel: Parcel, data: bytes) -> str | None:
        """None once the server has the instance, else one line that says why not."""


def send(
    paths: Sequence[str | os.PathLike[str]], to: str, *, yes: bool = False, progress: Progress = None
) -> SendReport:
    """Send every DICOM file below `paths` to the server `to`; without `yes` only say what would be sent.

    to: pacs://AET@HOST:PORT[?aet=OURS] or dicomweb+https://HOST/ROOT. A refused file does not stop the others. Raises
    UsageError for a URL that cannot be used or a file that is no DICOM object, InputError where the server cannot be
    spoken to, NotThereError.
    """
    url = parse_target(to)
    parcels = [_parcel(item) for item in iter_items(paths)]
    if not parcels:
        raise UsageError("there are no files to send", "name files or folders that ctpipe export wrote")
    if not yes:
        return SendReport(url.place, tuple(parcels), sent=False)
    refused: dict[int, str] = {}
    with _session(url, parcels) as session:
        for n, parcel in enumerate(parcels, start=1):
            problem = session.store(parcel, parcel.locator.read())
            if problem:
                refused[parcel.number] = problem
            if progress:
                progress("send", n, len(parcels))
    return SendReport(url.place, tuple(parcels), sent=True, refused=refused)


def _parcel(item: Item) -> Parcel:
    try:
        if item.fault is not None or not looks_like_dicom(item.head()):
            raise _no_object(item.number)
        with item.locator.open() as file:
            parsed = parse(file)
        ds, syntax = parsed.ds, parsed.syntax
        with quiet():
            sop_class, instance = (elements.text(ds, f"SOP{what}UID") or "" for what in ("Class", "Instance"))
            method = elements.text(ds, "DeidentificationMethod")
    except ParseFaultError:
        raise _no_object(item.number) from None
    if not (is_uid(sop_class) and is_uid(instance)) or parsed.truncated:
        raise _no_object(item.number)
    name = _NEW_CLASSES.get(sop_class) or UID(sop_class).name
    kind = name if name != sop_class else "an object of a class that is not known here"
    return Parcel(item.locator, item.number, kind, sop_class, instance, str(syntax), item.size,
                  pseudonymous=method == PSEUDONYM_METHOD)  # fmt: skip


def _no_object(number: int) -> UsageError:
    return UsageError(f"file {number} in name order is no whole DICOM object: nothing was sent", "leave it out")


def _session(url: RemoteUrl, parcels: Sequence[Parcel]) -> AbstractContextManager[_Session]:
    if url.kind == "dicomweb":
        return _stow(url)
    return _c_store(url, sorted({(parcel.sop_class, parcel.syntax) for parcel in parcels}))


@contextmanager
def _stow(url: RemoteUrl) -> Iterator[_Session]:
    from ctpipe.dicom.web import WebSession

    with WebSession(url, Limits.from_environment()) as session:
        yield _Stow(session.stow)


@dataclass(frozen=True)
class _Stow:
    post: Callable[[bytes], str | None]

    def store(self, parcel: Parcel, data: bytes) -> str | None:
        return self.post(data)


@contextmanager
def _c_store(url: RemoteUrl, contexts: Iterable[tuple[str, str]]) -> Iterator[_Session]:
    from ctpipe.dicom.pacs import PacsSession

    # every archive answers an echo: the association stands, and each kind that it does not take can be told
    wanted: list[tuple[str, str | None]] = [(VERIFICATION, None), *contexts]
    if len(wanted) > MAX_CONTEXTS:
        raise UsageError("files of so many kinds do not fit one association", "send them in several calls")
    session = PacsSession(url, Limits.from_environment())
    with session.association(wanted) as assoc:
        yield _CStore(assoc, url.place)


@dataclass(frozen=True)
class _CStore:
    assoc: Any
    place: str

    def store(self, parcel: Parcel, data: bytes) -> str | None:
        taken = [context for context in self.assoc.accepted_contexts if context.abstract_syntax == parcel.sop_class]
        if not any(parcel.syntax in context.transfer_syntax for context in taken):
            return f"{self.place} does not take it: {parcel.kind}"
        if not self.assoc.is_established:
            raise InputError(f"the connection to {self.place} broke", "run the same line again: it sends all once more")
        with quiet():
            status = self.assoc.send_c_store(_whole(data))
        code = status.get("Status") if isinstance(status, Dataset) else None
        if code is None:
            raise InputError(f"{self.place} broke off or stopped answering", "see its log, then send again")
        return None if code == 0 or code in _STORED_ANYWAY else f"{self.place} refuses it (status {code:04X})"


def _whole(data: bytes) -> Dataset:
    return dcmread(BytesIO(data), force=True)
