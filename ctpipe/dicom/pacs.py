"""A PACS: C-FIND for series, then C-GET, or C-MOVE to a listener of our own (PS3.4 annex C, Study Root)."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any

from pydicom.dataset import Dataset

from ctpipe.dicom import elements
from ctpipe.dicom.association import (
    FIND,
    GET,
    MOVE,
    NO_ROOM,
    NOT_WANTED,
    STORAGE,
    STORED,
    Guard,
    application_entity,
    keep_instance,
)
from ctpipe.dicom.inbox import Inbox, Limits
from ctpipe.dicom.logins import tls_context
from ctpipe.dicom.parse import quiet
from ctpipe.dicom.remote import RemoteUrl, SeriesRef, addresses_of, is_uid
from ctpipe.errors import BudgetError, CtpipeError, InputError, UsageError

MAX_MATCHES = 10_000
_PENDING = (0xFF00, 0xFF01)


class PacsSession:
    """Speaks to one PACS; a context manager. Each question has an association of its own."""

    def __init__(self, url: RemoteUrl, limits: Limits) -> None:
        """Resolve and check the server. Raises UsageError, InputError."""
        self.url, self.limits = url, limits
        self._addresses = addresses_of(url)

    def __enter__(self) -> PacsSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def find(self) -> list[SeriesRef]:
        """Every series that the URL asks for. Raises InputError where there is none."""
        url = self.url
        if "StudyInstanceUID" in url.study_keys:
            studies = [url.study_keys["StudyInstanceUID"]]
        else:
            asked = {"StudyInstanceUID": "", **url.study_keys}
            studies = [self._uid(found, "StudyInstanceUID") for found in self._find("STUDY", asked)]
        wanted, series = url.series_keys.get("Modality"), []
        for study in studies:
            asked = {"SeriesInstanceUID": "", "Modality": "", "NumberOfSeriesRelatedInstances": "", **url.series_keys,
                     "StudyInstanceUID": study}  # fmt: skip
            for found in self._find("SERIES", asked):
                if wanted is None or found["Modality"] in ("", wanted):
                    count = found["NumberOfSeriesRelatedInstances"]
                    number = int(count) if count.isascii() and count.isdecimal() and len(count) < 9 else None
                    series.append(SeriesRef(study, self._uid(found, "SeriesInstanceUID"), number))
        if not series:
            raise InputError(f"{url.place} has no series that the query asks for", "see the query, or ask for less")
        return series

    def retrieve(self, wanted: SeriesRef, inbox: Inbox) -> None:
        """Fetch the series into the inbox. Raises InputError where it does not come whole, BudgetError."""
        receiver = _Receiver(inbox, self.limits)
        move = self.url.move_port is not None
        try:
            with self._listening(receiver) if move else nullcontext():
                completed, failed = self._move(wanted) if move else self._get(wanted, receiver)
        except InputError:  # what the PACS makes of our own refusal is not the news
            if receiver.fault is None:
                raise
        if receiver.fault is not None:
            raise receiver.fault from None
        expected = wanted.count if wanted.count is not None else completed
        if failed or (expected is not None and inbox.count != expected):
            raise InputError(f"{self.url.place} sent {inbox.count} of {expected or 'an unknown number of'} instances "
                             "of a series", "see its log, then try again")  # fmt: skip

    # ------------------------------------------------------------------------------------ services
    def _find(self, level: str, keys: Mapping[str, str]) -> list[dict[str, str]]:
        """The matches of one C-FIND, as text of the keys that were asked for."""
        matches = []
        with self.association([(FIND, None)]) as assoc:
            for status, identifier in assoc.send_c_find(_identifier(level, keys), FIND):
                code = self._code(status, "a query")
                if code in _PENDING and identifier is not None:
                    with quiet():
                        matches.append({key: elements.text(identifier, key) or "" for key in keys})
                    if len(matches) > MAX_MATCHES:
                        assoc.abort()
                        raise InputError(f"{self.url.place} has too many matches for a query", "ask for fewer studies")
                elif code not in (*_PENDING, 0x0000):
                    raise InputError(f"{self.url.place} refuses a query (status {code:04X})", "see its log")
        return matches

    def _get(self, wanted: SeriesRef, receiver: _Receiver) -> tuple[int | None, int]:
        """(instances completed, instances failed) of one C-GET."""
        from pynetdicom import build_role, evt

        # a context for each syntax, so that the PACS may send each instance as it is stored
        contexts = [(GET, None), *((kind, syntax) for kind, syntaxes in STORAGE.items() for syntax in syntaxes)]
        roles = [build_role(kind, scp_role=True) for kind in STORAGE]
        with self.association(contexts, [(evt.EVT_C_STORE, receiver.store)], receiver.guard, roles) as assoc:
            return self._outcome(assoc.send_c_get(_series(wanted), GET))

    def _move(self, wanted: SeriesRef) -> tuple[int | None, int]:
        """(instances completed, instances failed) of one C-MOVE to ourselves."""
        with self.association([(MOVE, None)]) as assoc:
            return self._outcome(assoc.send_c_move(_series(wanted), self.url.calling, MOVE))

    def _outcome(self, responses: Iterator[tuple[Dataset, Dataset | None]]) -> tuple[int | None, int]:
        completed: int | None = None
        for status, _ in responses:
            code = self._code(status, "a series")
            if code in _PENDING:
                continue
            if code == 0xA801:
                raise InputError(f"{self.url.place} does not know where AE title {self.url.calling} is",
                                 "enter our AE title, host and port there, or use retrieve=get")  # fmt: skip
            if code not in (0x0000, 0xB000):
                raise InputError(f"{self.url.place} refuses to send a series (status {code:04X})", "see its log")
            completed = status.get("NumberOfCompletedSuboperations")
            # some end with success though instances remain
            lost = ("NumberOfFailedSuboperations", "NumberOfRemainingSuboperations")
            return completed, sum(int(status.get(key) or 0) for key in lost) or int(code == 0xB000)
        raise InputError(f"{self.url.place} ended without an answer", "see its log, then try again")

    def _code(self, status: Dataset, what: str) -> int:
        if "Status" not in status:
            raise InputError(f"{self.url.place} broke off or stopped answering in the midst of {what}",
                             "try again, or set CTPIPE_NETWORK_WAIT to more seconds")  # fmt: skip
        return int(status.Status)

    def _uid(self, found: Mapping[str, str], key: str) -> str:
        if not is_uid(found[key]):
            raise InputError(f"{self.url.place} answers with something that is no UID", "see its log")
        return found[key]

    # ------------------------------------------------------------------------------------ associations
    @contextmanager
    def association(
        self, contexts: list[tuple[str, str | None]], handlers: list[Any] | None = None, guard: Guard | None = None,
        roles: Any = None,
    ) -> Iterator[Any]:  # fmt: skip
        """An association in which the PACS takes at least the first context; released at the end. InputError."""
        entity = application_entity(self.url.calling, self.limits)
        from pynetdicom import evt

        for abstract, syntax in contexts:
            entity.add_requested_context(abstract, syntax) if syntax else entity.add_requested_context(abstract)
        assoc = self._associate(
            entity, ext_neg=roles, max_pdu=entity.maximum_pdu_size,
            evt_handlers=[(evt.EVT_CONN_OPEN, (guard or Guard(self.limits)).opened), *(handlers or [])],
            tls_args=(tls_context(), self.url.host) if self.url.secure else None,
        )  # fmt: skip
        try:
            if not any(context.abstract_syntax == contexts[0][0] for context in assoc.accepted_contexts):
                raise InputError(f"{self.url.place} does not offer this service to AE title {self.url.calling}",
                                 "try the other of retrieve=get and retrieve=move, or see its settings")  # fmt: skip
            yield assoc
        finally:
            if assoc.is_established:
                assoc.release()

    def _associate(self, entity: Any, **settings: Any) -> Any:
        for address in self._addresses:
            assoc = entity.associate(address, self.url.port, ae_title=self.url.called, **settings)
            if assoc.is_established:
                return assoc
            if assoc.is_rejected:
                raise InputError(f"{self.url.place} rejects us as AE title {self.url.calling}",
                                 "enter that AE title there, or give another by aet=; see the called one")  # fmt: skip
        raise InputError(f"{self.url.place} cannot be reached, or aborts at once",
                         "see that it runs, that the port is right, and whether it wants pacs+tls://")  # fmt: skip

    @contextmanager
    def _listening(self, receiver: _Receiver) -> Iterator[None]:
        """Our own listener for C-MOVE, for the time of one retrieve, open to the AE title of this PACS only."""
        entity = application_entity(self.url.calling, self.limits)
        from pynetdicom import evt

        entity.require_called_aet, entity.require_calling_aet = True, [self.url.called]
        for kind, syntaxes in STORAGE.items():
            entity.add_supported_context(kind, list(syntaxes))
        handlers: list[Any] = [(evt.EVT_CONN_OPEN, receiver.guard.opened), (evt.EVT_C_STORE, receiver.store)]
        place = (_own_address(self._addresses[0], self.url.port), int(self.url.move_port or 0))
        try:
            server: Any = entity.start_server(place, block=False, evt_handlers=handlers)
        except OSError as error:
            raise UsageError(f"port {self.url.move_port} cannot be listened on ({error.strerror})",
                             "give another by port=, the one that the PACS has for our AE title") from None  # fmt: skip
        try:
            yield
        finally:
            server.shutdown()


class _Receiver:
    """Takes what the PACS sends into an inbox; `fault` is the first thing that went wrong."""

    def __init__(self, inbox: Inbox, limits: Limits) -> None:
        self.inbox, self.guard = inbox, Guard(limits)
        self.fault: CtpipeError | None = None

    def store(self, event: Any) -> int:
        """For evt.EVT_C_STORE: status of PS3.4 B.2.3."""
        try:
            if self.fault is not None:
                return NOT_WANTED
            keep_instance(event, self.inbox.add)
        except BudgetError as error:
            self.fault = error
            return NO_ROOM
        except InputError as error:
            self.fault = error
            return NOT_WANTED
        finally:
            self.guard.handled(event.assoc)
        return STORED


def _identifier(level: str, keys: Mapping[str, str]) -> Dataset:
    with quiet():
        ds = Dataset()
        if not all(value.isascii() for value in keys.values()):
            ds.SpecificCharacterSet = "ISO_IR 192"
        ds.QueryRetrieveLevel = level
        for key, value in keys.items():
            setattr(ds, key, value or None)
    return ds


def _series(wanted: SeriesRef) -> Dataset:
    return _identifier("SERIES", {"StudyInstanceUID": wanted.study, "SeriesInstanceUID": wanted.series})


def _own_address(address: str, port: int) -> str:
    """Our address on the way to the PACS; no packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))
        return str(probe.getsockname()[0])
